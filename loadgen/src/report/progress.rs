//! How a run goes: a view that refreshes itself on a terminal, a line per second elsewhere.

use crate::clock::{Micros, seconds};
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::out;
use crate::profile::to_micros;
use crate::report::screen::{Screen, View};
use crate::report::table::{count, mebibytes, milliseconds};
use crate::target::Sample;

const SCREEN_EVERY: Micros = 250_000;
const LINE_EVERY: Micros = 1_000_000;

/// Shows a run while it lasts.
pub(crate) struct Progress {
    quiet: bool,
    screen: Option<Screen>,
    threads: u16,
    sessions: u32,
    next: Micros,
    before: Option<Before>,
    /// Latencies since the last moment shown.
    ack: Latency,
    deliver: Latency,
}

/// What rates are computed from.
#[derive(Debug, Clone)]
struct Before {
    at: Micros,
    status: Status,
    server: Option<Sample>,
}

/// A run at one moment.
pub(crate) struct Moment<'a> {
    pub(crate) now: Micros,
    pub(crate) stage: Stage,
    pub(crate) status: Status,
    pub(crate) server: Option<Sample>,
    /// Latencies since the moment before.
    pub(crate) ack: &'a Latency,
    pub(crate) deliver: &'a Latency,
}

/// What happened per second since the last moment shown.
struct Rates {
    handshakes: f64,
    sent: f64,
    delivered: f64,
    server_cpu: Option<f64>,
    own_cpu: f64,
}

impl Progress {
    pub(crate) fn new(quiet: bool, sessions: u32, threads: u16) -> Self {
        let wanted = !quiet && out::is_screen();
        Self {
            quiet,
            screen: wanted.then(Screen::open).flatten(),
            threads,
            sessions,
            next: 0,
            before: None,
            ack: Latency::new(),
            deliver: Latency::new(),
        }
    }

    /// Takes a moment, and shows it if it is time to.
    pub(crate) fn take(&mut self, moment: &Moment<'_>) {
        if self.quiet {
            return;
        }
        self.ack.merge(moment.ack);
        self.deliver.merge(moment.deliver);
        if moment.now >= self.next {
            self.show(moment);
            self.ack.clear();
            self.deliver.clear();
        }
    }

    fn show(&mut self, moment: &Moment<'_>) {
        let rates = self.rates(moment);
        if self.screen.is_some() {
            let view = self.view(moment, &rates);
            self.screen.iter_mut().for_each(|screen| screen.show(&view));
        } else {
            out::note(self.line(moment, &rates, &self.ack, &self.deliver));
        }
        self.next = moment.now
            + match self.screen {
                Some(_) => SCREEN_EVERY,
                None => LINE_EVERY,
            };
        self.before = Some(Before {
            at: moment.now,
            status: moment.status.clone(),
            server: moment.server,
        });
    }

    /// Says something that is to stay, above what is refreshed.
    pub(crate) fn remark(&mut self, text: &str) {
        match &mut self.screen {
            _ if self.quiet => {}
            Some(screen) => screen.say(text),
            None => out::note(text),
        }
    }

    /// Leaves the last view on the screen.
    pub(crate) fn finish(&mut self) {
        self.screen = None;
    }

    fn rates(&self, moment: &Moment<'_>) -> Rates {
        let Some(before) = &self.before else {
            return Rates {
                handshakes: 0.0,
                sent: 0.0,
                delivered: 0.0,
                server_cpu: None,
                own_cpu: 0.0,
            };
        };
        let time = seconds(moment.now - before.at).max(1e-3);
        let (new, old) = (&moment.status, &before.status);
        let per_second = |new: u64, old: u64| amount(new.saturating_sub(old)) / time;
        let handshakes = |status: &Status| status.handshakes_full + status.handshakes_resumed;
        let server = moment.server.zip(before.server);
        Rates {
            handshakes: per_second(handshakes(new), handshakes(old)),
            sent: per_second(new.tally.sent, old.tally.sent),
            delivered: per_second(new.tally.delivered, old.tally.delivered),
            server_cpu: server.map(|(new, old)| per_second(new.cpu, old.cpu) / 1e4),
            own_cpu: per_second(new.cpu, old.cpu) / 1e4,
        }
    }

    fn view(&self, moment: &Moment<'_>, rates: &Rates) -> View {
        let status = &moment.status;
        let tally = &status.tally;
        View {
            title: format!("{} {:.0} s", moment.stage.name(), seconds(moment.now)),
            done: f64::from(status.active) / f64::from(self.sessions.max(1)),
            sessions: format!(
                "{} of {}, {} away, {:.0} handshakes/s, {} reconnected",
                count(status.active.into()),
                count(self.sessions.into()),
                count(status.away.into()),
                rates.handshakes,
                count(status.reconnected)
            ),
            messages: format!(
                "{} sent ({:.0}/s), {} acknowledged, {} delivered ({:.0}/s)",
                count(tally.sent),
                rates.sent,
                count(tally.acknowledged),
                count(tally.delivered),
                rates.delivered
            ),
            ack: spread(&self.ack),
            deliver: spread(&self.deliver),
            server: server(moment.server, rates.server_cpu),
            generator: format!(
                "{:.0} % CPU, {} late sends",
                rates.own_cpu,
                count(status.late_sends)
            ),
            saturation: rates.own_cpu / 100.0 / f64::from(self.threads.max(1)),
            deliver_us: to_micros(self.deliver.corrected().p99 / 1e3),
            memory: moment.server.map_or(0, |sample| sample.rss_bytes),
        }
    }

    fn line(&self, moment: &Moment<'_>, rates: &Rates, ack: &Latency, deliver: &Latency) -> String {
        let status = &moment.status;
        let tally = &status.tally;
        format!(
            "{:>5.1}s {} sessions={}/{} handshakes/s={:.0} sent={} ({:.0}/s) acked={} delivered={} \
             ack_p99={} deliver_p99={} edge: {}; own_cpu={:.0}% late={}",
            seconds(moment.now),
            moment.stage.name(),
            status.active,
            self.sessions,
            rates.handshakes,
            tally.sent,
            rates.sent,
            tally.acknowledged,
            tally.delivered,
            milliseconds(ack.corrected().p99),
            milliseconds(deliver.corrected().p99),
            server(moment.server, rates.server_cpu),
            rates.own_cpu,
            status.late_sends
        )
    }
}

fn spread(latency: &Latency) -> String {
    if latency.is_empty() {
        return "-".into();
    }
    let at = latency.corrected();
    format!(
        "p50 {}, p99 {}, max {}",
        milliseconds(at.p50),
        milliseconds(at.p99),
        milliseconds(at.max)
    )
}

fn server(sample: Option<Sample>, cpu: Option<f64>) -> String {
    let cpu = cpu.map_or_else(|| "-".into(), |cpu| format!("{cpu:.0}"));
    match sample {
        Some(sample) => format!("{} RSS, {cpu} % CPU", mebibytes(sample.rss_bytes)),
        None => "unknown process".into(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn amount(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Recent(Latency, Latency);

    impl Recent {
        fn moment(&self, now: Micros, sent: u64) -> Moment<'_> {
            let mut status = Status {
                active: 5,
                ..Status::default()
            };
            status.tally.sent = sent;
            Moment {
                now,
                stage: Stage::Exchange,
                status,
                server: None,
                ack: &self.0,
                deliver: &self.1,
            }
        }
    }

    #[test]
    fn rates_are_those_since_the_last_moment() {
        let recent = Recent(Latency::new(), Latency::new());
        let mut progress = Progress::new(true, 10, 1);
        progress.before = Some(Before {
            at: 1_000_000,
            status: recent.moment(0, 100).status,
            server: None,
        });
        let rates = progress.rates(&recent.moment(3_000_000, 500));
        assert!((rates.sent - 200.0).abs() < 1e-6);
    }

    #[test]
    fn a_line_and_a_view_tell_the_same_run() {
        let mut recent = Recent(Latency::new(), Latency::new());
        recent.0.record(0, 0, 5_000);
        let progress = Progress::new(true, 10, 1);
        let moment = recent.moment(2_000_000, 7);
        let rates = progress.rates(&moment);
        let line = progress.line(&moment, &rates, &recent.0, &recent.1);
        assert!(
            line.contains("sessions=5/10") && line.contains("sent=7"),
            "{line}"
        );
        let mut progress = progress;
        progress.ack.merge(moment.ack);
        let view = progress.view(&moment, &rates);
        assert!(view.sessions.contains("5 of 10") && view.ack.contains("p50 5.00 ms"));
        assert!((view.done - 0.5).abs() < 1e-9);
    }
}
