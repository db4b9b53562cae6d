//! How a run goes: a block that refreshes itself on a terminal, a line per second elsewhere.

use crate::clock::{Micros, seconds};
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::out;
use crate::report::table::{count, mebibytes, milliseconds};
use crate::target::Sample;

const SCREEN_EVERY: Micros = 250_000;
const LINE_EVERY: Micros = 1_000_000;

/// Shows a run while it lasts.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    screen: bool,
    sessions: u32,
    next: Micros,
    lines_drawn: usize,
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
    pub(crate) fn new(quiet: bool, sessions: u32) -> Self {
        Self {
            quiet,
            screen: out::is_screen(),
            sessions,
            next: 0,
            lines_drawn: 0,
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
        let lines = if self.screen {
            self.block(moment, &rates, &self.ack, &self.deliver)
        } else {
            vec![self.line(moment, &rates, &self.ack, &self.deliver)]
        };
        self.print(&lines);
        self.next = moment.now
            + if self.screen {
                SCREEN_EVERY
            } else {
                LINE_EVERY
            };
        self.before = Some(Before {
            at: moment.now,
            status: moment.status.clone(),
            server: moment.server,
        });
    }

    /// Leaves the last block on the screen.
    pub(crate) fn finish(&mut self) {
        self.lines_drawn = 0;
    }

    fn print(&mut self, lines: &[String]) {
        if !self.screen {
            return lines.iter().for_each(out::note);
        }
        let mut text = String::new();
        if self.lines_drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines_drawn));
        }
        for line in lines {
            text.push_str("\r\x1b[2K");
            text.push_str(line);
            text.push('\n');
        }
        self.lines_drawn = lines.len();
        out::draw(&text);
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

    fn block(
        &self,
        moment: &Moment<'_>,
        rates: &Rates,
        ack: &Latency,
        deliver: &Latency,
    ) -> Vec<String> {
        let status = &moment.status;
        let tally = &status.tally;
        let done = u64::from(status.active) * 40 / u64::from(self.sessions.max(1));
        let bar: String = (0..40)
            .map(|at| if at < done { '█' } else { '░' })
            .collect();
        vec![
            format!(
                "  {:<8} {bar} {:.0} s",
                moment.stage.name(),
                seconds(moment.now)
            ),
            format!(
                "  sessions   {} of {}, {} away, {:.0} handshakes/s, {} reconnected",
                count(status.active.into()),
                count(self.sessions.into()),
                count(status.away.into()),
                rates.handshakes,
                count(status.reconnected)
            ),
            format!(
                "  messages   {} sent ({:.0}/s), {} acknowledged, {} delivered ({:.0}/s)",
                count(tally.sent),
                rates.sent,
                count(tally.acknowledged),
                count(tally.delivered),
                rates.delivered
            ),
            format!("  ack        {}", spread(ack)),
            format!("  deliver    {}", spread(deliver)),
            format!("  edge       {}", server(moment.server, rates.server_cpu)),
            format!(
                "  loadgen    {:.0} % CPU, {} late sends",
                rates.own_cpu,
                count(status.late_sends)
            ),
        ]
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
        let mut progress = Progress::new(true, 10);
        progress.before = Some(Before {
            at: 1_000_000,
            status: recent.moment(0, 100).status,
            server: None,
        });
        let rates = progress.rates(&recent.moment(3_000_000, 500));
        assert!((rates.sent - 200.0).abs() < 1e-6);
    }

    #[test]
    fn a_line_and_a_block_tell_the_same_run() {
        let mut recent = Recent(Latency::new(), Latency::new());
        recent.0.record(0, 0, 5_000);
        let progress = Progress::new(false, 10);
        let moment = recent.moment(2_000_000, 7);
        let rates = progress.rates(&moment);
        let line = progress.line(&moment, &rates, &recent.0, &recent.1);
        assert!(
            line.contains("sessions=5/10") && line.contains("sent=7"),
            "{line}"
        );
        let block = progress.block(&moment, &rates, &recent.0, &recent.1);
        let block = block.join("\n");
        assert!(
            block.contains("5 of 10") && block.contains("p50 5.00 ms"),
            "{block}"
        );
    }
}
