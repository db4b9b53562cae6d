//! From what a run measured to the fields of its report.

use super::is_saturated;
use super::schema::{
    Agent, Finding, Generator, Handshakes, Latencies, Messages, Receipts, Sessions, Target,
};
use crate::clock::{Micros, seconds};
use crate::findings::{Findings, Kind};
use crate::latency::{Latency, Percentiles};
use crate::plan::Plan;
use crate::run::{AgentPart, Raw, ServerUse};
use crate::target::Sample;
use crate::worker;

pub(super) fn sessions(wanted: u32, raw: &Raw) -> Sessions {
    let status = &raw.status;
    Sessions {
        target: wanted,
        established: status.established,
        failed: u64::from(wanted.saturating_sub(status.established)),
        lost: raw.findings.count(Kind::SessionLost),
        reconnected: status.reconnected,
        disconnected: status.disconnected,
        goaways: status.goaways,
        cut: status.cut,
        churned: status.churned,
        rebinds: status.rebinds,
        heartbeats: status.heartbeats,
        closes: status.closes.clone(),
    }
}

pub(super) fn handshakes(raw: &Raw) -> Handshakes {
    Handshakes {
        full: raw.status.handshakes_full,
        resumed: raw.status.handshakes_resumed,
        logins_with_token: raw.status.logins_with_token,
        logins_with_resume_token: raw.status.logins_with_resume_token,
    }
}

pub(super) fn messages(raw: &Raw) -> Messages {
    let tally = &raw.status.tally;
    let count = |kind| raw.findings.count(kind);
    Messages {
        sent: tally.sent,
        acknowledged: tally.acknowledged,
        delivered: tally.delivered,
        duplicated: count(Kind::Duplicated),
        reordered: count(Kind::Reordered),
        lost: count(Kind::Lost),
        to_deliver: tally.to_deliver,
        unacknowledged: count(Kind::Unacknowledged),
        refused: tally.refused,
        damaged: count(Kind::Damaged),
        misdelivered: count(Kind::Misdelivered),
        contradicted: count(Kind::Contradicted),
        postponed: raw.status.postponed,
        chat_refusals: raw.status.chat_refusals,
        outside: tally.outside,
        given_up: tally.given_up,
        repeats_filtered: tally.repeats_filtered,
        foreign: tally.foreign,
        gaps: count(Kind::Gap),
        late: count(Kind::Late),
    }
}

pub(super) fn receipts(raw: &Raw) -> Receipts {
    Receipts {
        delivered: raw.status.tally.receipts_delivered,
        read: raw.status.tally.receipts_read,
        missing: raw.findings.count(Kind::ReceiptMissing),
        untrue: raw.findings.count(Kind::ReceiptFalse),
    }
}

pub(super) fn latencies(
    raw: &worker::Latencies,
    of: impl Fn(&Latency) -> Percentiles,
) -> Latencies {
    Latencies {
        ack: of(&raw.ack),
        deliver: of(&raw.deliver),
        queue: of(&raw.queue),
        catch_up: of(&raw.catch_up),
        handshake: of(&raw.handshake),
        login: of(&raw.login),
        come_back: of(&raw.come_back),
        fan_out: of(&raw.fan_out),
    }
}

pub(super) fn target(plan: &Plan, raw: &Raw) -> Target {
    let server = &raw.server;
    let empty = server.empty.map(|sample| sample.rss_bytes);
    let held = server.held.map(|sample| sample.rss_bytes);
    let cpu = |from: Option<Sample>, to: Option<Sample>| Some(to?.cpu.saturating_sub(from?.cpu));
    let last = server
        .last
        .or(server.exchange_ended)
        .or(server.held)
        .or(server.empty);
    let sessions = u64::from(server.sessions_held.max(1));
    Target {
        address: plan.target.to_string(),
        pid: last.map(|sample| sample.pid),
        rss_bytes: held,
        bytes_per_session: empty
            .zip(held)
            .map(|(empty, held)| held.saturating_sub(empty) / sessions),
        cpu_s: cpu(server.empty, last).map(seconds),
        rss_bytes_empty: empty,
        rss_bytes_end: server.last.map(|sample| sample.rss_bytes),
        cpu_us_per_session: cpu(server.empty, server.held).map(|cpu| each(cpu, sessions)),
        cpu_us_per_message: exchange_cpu(server)
            .filter(|_| raw.status.tally.sent > 0)
            .map(|cpu| each(cpu, raw.status.tally.sent)),
        restarts: server.restarts,
    }
}

/// CPU of the exchange and of what followed from it.
fn exchange_cpu(server: &ServerUse) -> Option<Micros> {
    let end = server.last.or(server.exchange_ended)?;
    Some(end.cpu.saturating_sub(server.exchange_began?.cpu))
}

pub(super) fn generator(raw: &Raw) -> Generator {
    let (used, status) = (&raw.generator, &raw.status);
    let is_own = is_saturated(status.late_sends, status.tally.sent, used.busiest);
    // One machine of many that fell behind is lost in the sums, and its latencies are in the histograms.
    let mut agents = raw.agents.iter().map(|agent| generator(&agent.raw));
    Generator {
        rss_bytes: used.rss_bytes,
        rss_bytes_held: used.rss_bytes_held,
        bytes_per_session: used.rss_bytes_held.saturating_sub(used.rss_bytes_empty)
            / u64::from(raw.server.sessions_held.max(1)),
        cpu_s: seconds(used.cpu),
        saturated: is_own || agents.any(|agent| agent.saturated),
        late_sends: status.late_sends,
        latest_send_ms: seconds(status.latest_send) * 1_000.0,
        unsendable: status.unsendable,
        busiest_thread: used.busiest,
        waited_s: seconds(used.waited),
    }
}

pub(super) fn agent(part: &AgentPart) -> Agent {
    let raw = &part.raw;
    Agent {
        name: part.name.clone(),
        clock_ahead_ms: milliseconds(part.clock.ahead_us),
        clock_error_ms: seconds(part.clock.error_us) * 1_000.0,
        start_late_ms: seconds(part.start_late_us) * 1_000.0,
        sessions: sessions(part.sessions, raw),
        handshakes_per_s: per_second(f64::from(raw.status.established), raw.ramp),
        messages: messages(raw),
        sent_per_s: per_second(each(raw.status.tally.sent, 1), raw.exchange),
        generator: generator(raw),
        threads: raw.threads,
        sockets: raw.sockets,
        findings: raw.findings.total(),
        series: raw.points.clone(),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a report needs no more than 52 bits"
)]
fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1_000.0
}

pub(super) fn findings(findings: &Findings) -> Vec<Finding> {
    findings
        .iter()
        .map(|(kind, found)| Finding {
            kind,
            count: found.count,
            details: found.details.clone(),
            by_agent: found.by_agent.clone(),
        })
        .collect()
}

pub(super) fn per_second(count: f64, time: Micros) -> f64 {
    if time == 0 {
        0.0
    } else {
        count / seconds(time)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a report needs no more than 52 bits"
)]
pub(super) fn each(total: u64, count: u64) -> f64 {
    total as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::AgentClock;

    #[test]
    fn rates_of_no_time_are_none() {
        assert!(per_second(5.0, 0).abs() < f64::EPSILON);
        assert!((per_second(5.0, 2_000_000) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn one_machine_that_fell_behind_is_not_lost_among_many() {
        let part = |sent, late| {
            let mut raw = Raw::default();
            raw.status.tally.sent = sent;
            raw.status.late_sends = late;
            AgentPart {
                name: "a:1".into(),
                sessions: 0,
                clock: AgentClock {
                    ahead_us: -1_500,
                    error_us: 20,
                },
                start_late_us: 0,
                raw,
            }
        };
        let parts = [part(1_000, 50), part(99_000, 0)];
        let mut all = parts[0].raw.clone().merged(&parts[1].raw);
        assert!(!generator(&all).saturated, "half a permille of all");
        all.agents = parts.into();
        assert!(generator(&all).saturated);
        let agents: Vec<Agent> = all.agents.iter().map(agent).collect();
        assert!(agents[0].generator.saturated && !agents[1].generator.saturated);
        assert!((agents[0].clock_ahead_ms + 1.5).abs() < 1e-9);
    }
}
