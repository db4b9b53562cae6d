//! How a run goes: a view that refreshes itself on a terminal, a line per second elsewhere.

use anyhow::Result;

use crate::clock::{Micros, seconds};
use crate::control::Status;
use crate::latency::Latency;
use crate::out;
use crate::process::Usage;
use crate::profile::to_micros;
use crate::report::screen::{Screen, View};
use crate::report::table::{count, mebibytes, milliseconds};
use crate::run::{AgentMoment, Moment, Observer};
use crate::target::Sample;

const SCREEN_EVERY: Micros = 250_000;
const LINE_EVERY: Micros = 1_000_000;

/// Rows of a view for the agents of a run: more would push the rest off a small terminal.
const AGENT_ROWS_MAX: usize = 8;

/// Shows a run while it lasts.
pub(crate) struct Progress {
    quiet: bool,
    screen: Option<Screen>,
    threads: u16,
    sessions: u32,
    next: Micros,
    before: Option<Before>,
    /// The same of each agent.
    agents_before: Vec<Option<Before>>,
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

/// What happened per second since the last moment shown. CPU is in percent of one.
#[derive(Debug, Default)]
struct Rates {
    handshakes: f64,
    sent: f64,
    delivered: f64,
    server_cpu: Option<f64>,
    own_cpu: f64,
}

/// An agent in words, and how much of its time it works, from 0 to 1.
struct AgentRow {
    text: String,
    busy: f64,
}

impl Progress {
    /// Of so many sessions and threads, on so many agents if it is a run on other machines.
    pub(crate) fn new(quiet: bool, sessions: u32, threads: u16, agents: usize) -> Self {
        let wanted = !quiet && out::is_screen();
        let open = || Screen::open(agents.min(AGENT_ROWS_MAX));
        Self {
            quiet,
            screen: wanted.then(open).flatten(),
            threads,
            sessions,
            next: 0,
            before: None,
            agents_before: vec![None; agents],
            ack: Latency::new(),
            deliver: Latency::new(),
        }
    }

    fn show(&mut self, moment: &Moment<'_>) {
        let rates = rates(self.before.as_ref(), &before_next(moment));
        let agents = self.agents(moment);
        if self.screen.is_some() {
            let view = self.view(moment, &rates, agents);
            self.screen.iter_mut().for_each(|screen| screen.show(&view));
        } else {
            out::note(self.line(moment, &rates));
            for agent in agents {
                out::note(format_args!("       {}", agent.text));
            }
        }
        self.next = moment.now
            + match self.screen {
                Some(_) => SCREEN_EVERY,
                None => LINE_EVERY,
            };
        self.before = Some(before_next(moment));
        let now = moment.agents.iter().map(before_next_of);
        self.agents_before = now.map(Some).collect();
    }

    /// Leaves the last view on the screen.
    pub(crate) fn finish(&mut self) {
        if let Some(screen) = self.screen.take() {
            screen.close();
        }
    }

    fn agents(&self, moment: &Moment<'_>) -> Vec<AgentRow> {
        let befores = self.agents_before.iter().chain(std::iter::repeat(&None));
        let pairs = moment.agents.iter().zip(befores);
        pairs
            .map(|(agent, before)| agent_row(agent, before.as_ref()))
            .collect()
    }

    fn view(&self, moment: &Moment<'_>, rates: &Rates, agents: Vec<AgentRow>) -> View {
        let status = &moment.status;
        let tally = &status.tally;
        let busiest = agents.iter().map(|agent| agent.busy).reduce(f64::max);
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
                "{} RSS, {:.0} % CPU, {} late sends",
                memory(moment.own),
                rates.own_cpu,
                count(status.late_sends)
            ),
            agents: rows_that_fit(agents),
            saturation: busiest.unwrap_or_else(|| busy(rates, self.threads)),
            deliver_us: to_micros(self.deliver.corrected().p99 / 1e3),
            memory: moment.server.map_or(0, |sample| sample.rss_bytes),
        }
    }

    fn line(&self, moment: &Moment<'_>, rates: &Rates) -> String {
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
            p99(&self.ack),
            p99(&self.deliver),
            server(moment.server, rates.server_cpu),
            rates.own_cpu,
            status.late_sends
        )
    }
}

impl Observer for Progress {
    fn observe(&mut self, moment: &Moment<'_>) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        self.ack.merge(moment.ack);
        self.deliver.merge(moment.deliver);
        if moment.now >= self.next {
            self.show(moment);
            self.ack.clear();
            self.deliver.clear();
        }
        Ok(())
    }

    /// Stays above what is refreshed.
    fn remark(&mut self, text: &str) {
        match &mut self.screen {
            _ if self.quiet => {}
            Some(screen) => screen.say(text),
            None => out::note(text),
        }
    }
}

fn before_next(moment: &Moment<'_>) -> Before {
    Before {
        at: moment.now,
        status: moment.status.clone(),
        server: moment.server,
    }
}

fn before_next_of(agent: &AgentMoment) -> Before {
    Before {
        at: agent.now,
        status: agent.status.clone(),
        server: None,
    }
}

fn rates(before: Option<&Before>, now: &Before) -> Rates {
    // Who gave no sign since is where it was.
    let Some(before) = before.filter(|before| now.at > before.at) else {
        return Rates::default();
    };
    let time = seconds(now.at - before.at).max(1e-3);
    let (new, old) = (&now.status, &before.status);
    let per_second = |new: u64, old: u64| amount(new.saturating_sub(old)) / time;
    let handshakes = |status: &Status| status.handshakes_full + status.handshakes_resumed;
    let server = now.server.zip(before.server);
    Rates {
        handshakes: per_second(handshakes(new), handshakes(old)),
        sent: per_second(new.tally.sent, old.tally.sent),
        delivered: per_second(new.tally.delivered, old.tally.delivered),
        // CPU times are microseconds.
        server_cpu: server.map(|(new, old)| per_second(new.cpu, old.cpu) / 1e4),
        own_cpu: per_second(new.cpu, old.cpu) / 1e4,
    }
}

fn agent_row(agent: &AgentMoment, before: Option<&Before>) -> AgentRow {
    let rates = rates(before, &before_next_of(agent));
    let busy = busy(&rates, agent.threads);
    let text = format!(
        "{} {} {}/{} sessions, {:.0} handshakes/s, {:.0} sent/s, {:.0} delivered/s, busy {:.0} %, \
         {} RSS, {} late, {} lost",
        agent.name,
        agent.stage.name(),
        count(agent.status.active.into()),
        count(agent.sessions.into()),
        rates.handshakes,
        rates.sent,
        rates.delivered,
        busy * 100.0,
        memory(agent.own),
        count(agent.status.late_sends),
        count(agent.status.disconnected)
    );
    AgentRow { text, busy }
}

/// The rows of the busiest, in the order of the command line, if not all fit.
fn rows_that_fit(mut agents: Vec<AgentRow>) -> Vec<String> {
    let left_out = agents.len().saturating_sub(AGENT_ROWS_MAX);
    for _ in 0..left_out + usize::from(left_out > 0) {
        let idlest = agents.iter().enumerate();
        let idlest = idlest.min_by(|(_, a), (_, b)| a.busy.total_cmp(&b.busy));
        let (at, _) = idlest.expect("more than fit");
        agents.remove(at);
    }
    let mut rows: Vec<String> = agents.into_iter().map(|agent| agent.text).collect();
    if left_out > 0 {
        rows.push(format!("and {} that are less busy", left_out + 1));
    }
    rows
}

/// How much of their time threads work, from 0 to 1.
fn busy(rates: &Rates, threads: u16) -> f64 {
    rates.own_cpu / 100.0 / f64::from(threads.max(1))
}

fn memory(usage: Option<Usage>) -> String {
    usage.map_or_else(|| "-".into(), |usage| mebibytes(usage.rss_bytes))
}

fn p99(latency: &Latency) -> String {
    match latency.is_empty() {
        true => "-".into(),
        false => milliseconds(latency.corrected().p99),
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
    use crate::control::Stage;

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
                own: None,
                ack: &self.0,
                deliver: &self.1,
                agents: &[],
            }
        }
    }

    #[test]
    fn rates_are_those_since_the_last_moment() {
        let recent = Recent(Latency::new(), Latency::new());
        let before = before_next(&recent.moment(1_000_000, 100));
        let now = before_next(&recent.moment(3_000_000, 500));
        assert!((rates(Some(&before), &now).sent - 200.0).abs() < 1e-6);
        let same = rates(Some(&now), &now);
        assert!(same.sent.abs() < 1e-9, "{same:?}");
    }

    #[test]
    fn a_line_and_a_view_tell_the_same_run() {
        let mut recent = Recent(Latency::new(), Latency::new());
        recent.0.record(0, 0, 5_000);
        let mut progress = Progress::new(true, 10, 1, 0);
        progress.ack.merge(&recent.0);
        let moment = recent.moment(2_000_000, 7);
        let rates = Rates::default();
        let line = progress.line(&moment, &rates);
        assert!(
            line.contains("sessions=5/10") && line.contains("sent=7"),
            "{line}"
        );
        let view = progress.view(&moment, &rates, Vec::new());
        assert!(view.sessions.contains("5 of 10") && view.ack.contains("p50 5.00 ms"));
        assert!((view.done - 0.5).abs() < 1e-9);
    }

    fn agent(name: &str, now: Micros, sent: u64, cpu: Micros) -> AgentMoment {
        let mut status = Status {
            active: 20,
            cpu,
            ..Status::default()
        };
        status.tally.sent = sent;
        AgentMoment {
            name: name.into(),
            sessions: 25,
            threads: 2,
            now,
            stage: Stage::Exchange,
            status,
            own: Some(Usage {
                rss_bytes: 7 << 20,
                cpu,
            }),
        }
    }

    #[test]
    fn each_agent_has_its_own_rates() {
        let before = before_next_of(&agent("a:1", 1_000_000, 50, 500_000));
        let row = agent_row(&agent("a:1", 3_000_000, 250, 2_500_000), Some(&before));
        for wanted in [
            "a:1 exchange 20/25",
            " 100 sent/s",
            "busy 50 %",
            "7 MiB RSS",
        ] {
            assert!(row.text.contains(wanted), "{wanted} in {}", row.text);
        }
    }

    #[test]
    fn the_busiest_agents_are_shown_if_not_all_can_be() {
        let row = |n: u8| AgentRow {
            text: n.to_string(),
            busy: f64::from(n % 7),
        };
        let few = rows_that_fit((1..=8).map(row).collect());
        assert_eq!(few.len(), 8);
        let many = rows_that_fit((1..=10).map(row).collect());
        // 7, 1 and 8 have least to do.
        assert_eq!(many[..7], ["2", "3", "4", "5", "6", "9", "10"]);
        assert_eq!(many[7], "and 3 that are less busy");
    }
}
