//! The report as people read it.

use std::fmt::Write;

use crate::latency::Percentiles;
use crate::report::schema::Agent;
use crate::report::{Report, Verdict};

/// The name of a row about one machine of many.
pub(super) const AGENT: &str = "agent";

/// The final table, with the findings and the verdict.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for (name, value) in rows(report) {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    latency_rows(report, &mut text);
    hostile_rows(report, &mut text);
    for finding in &report.findings {
        let _ = writeln!(text, "\n  {} {}", finding.count, finding.kind.name());
        for detail in &finding.details {
            let _ = writeln!(text, "    {}", detail.replace('\n', "\n    "));
        }
        let left = finding.count.saturating_sub(finding.details.len() as u64);
        if left > 0 {
            let _ = writeln!(text, "    and {left} more");
        }
    }
    for limit in &report.limits {
        let value = limit
            .value
            .map_or("nothing was measured".into(), |value| format!("{value:.3}"));
        let kept = if limit.kept { "kept" } else { "NOT KEPT" };
        let _ = writeln!(text, "\n  limit {}: {value}, {kept}", limit.limit);
    }
    let _ = write!(text, "\n  {}", verdict(report));
    text
}

pub(super) fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("sessions", sessions(report)),
        ("handshakes", handshakes(report)),
        ("messages", messages(report)),
        ("receipts", receipts(report)),
        ("engines", engines(report)),
        ("edge", edge(report)),
        ("loadgen", generator(report)),
    ];
    let agents = report.agents.iter().map(|part| (AGENT, agent(part)));
    rows.extend(agents);
    if let Some(search) = &report.find_max {
        let rate = search
            .rate
            .map_or("none".into(), |rate| format!("{rate:.0} messages/s"));
        let by = search
            .limited_by
            .as_deref()
            .unwrap_or("the number of trials");
        let trials = search.trials.len();
        rows.push((
            "highest rate",
            format!("{rate}, limited by {by}; {trials} trials"),
        ));
    }
    if !report.sessions.closes.is_empty() {
        let closes: Vec<_> = report
            .sessions
            .closes
            .iter()
            .map(|(why, times)| format!("{why} {}", count(*times)))
            .collect();
        rows.insert(1, ("closed by", closes.join(", ")));
    }
    rows
}

fn sessions(report: &Report) -> String {
    let sessions = &report.sessions;
    let mut more = String::new();
    for (count_of, what) in [
        (sessions.cut, "cut by the scenario"),
        (sessions.churned, "left and joined"),
        (sessions.rebinds, "sockets rebound"),
        (sessions.goaways, "sent away"),
    ] {
        if count_of > 0 {
            let _ = write!(more, ", {} {what}", count(count_of));
        }
    }
    format!(
        "{} of {} established, {} failed, {} lost, {} reconnected{more}",
        count(sessions.established.into()),
        count(sessions.target.into()),
        count(sessions.failed),
        count(sessions.lost),
        count(sessions.reconnected)
    )
}

fn handshakes(report: &Report) -> String {
    format!(
        "{:.0}/s with login; {} full, {} resumed",
        report.handshakes_per_s,
        count(report.handshakes.full),
        count(report.handshakes.resumed)
    )
}

fn messages(report: &Report) -> String {
    let messages = &report.messages;
    format!(
        "{} sent, {} acknowledged, {} of {} delivered; {} lost, {} duplicated, {} reordered",
        count(messages.sent),
        count(messages.acknowledged),
        count(messages.delivered),
        count(messages.to_deliver),
        count(messages.lost),
        count(messages.duplicated),
        count(messages.reordered)
    )
}

fn engines(report: &Report) -> String {
    let of = |(engine, sessions): (&&str, &u32)| format!("{} {engine}", count((*sessions).into()));
    let engines: Vec<_> = report.quic_engines.generator.iter().map(of).collect();
    format!(
        "{} sessions, {} threads, {} sockets",
        engines.join(" and "),
        report.threads,
        report.sockets
    )
}

fn receipts(report: &Report) -> String {
    format!(
        "{} delivered, {} read, {} missing",
        count(report.receipts.delivered),
        count(report.receipts.read),
        count(report.receipts.missing)
    )
}

fn edge(report: &Report) -> String {
    let target = &report.target;
    let (Some(pid), Some(rss)) = (target.pid, target.rss_bytes) else {
        return "process unknown: --admin ADDR or --target-pid PID names it".into();
    };
    // A server that held other sessions before has memory to give again: then it tells nothing.
    let bytes = target.bytes_per_session.filter(|bytes| *bytes > 0);
    let bytes = bytes.map_or_else(|| "-".into(), count);
    let cpu = target.cpu_s.unwrap_or(0.0);
    let per_message = target.cpu_us_per_message.unwrap_or(0.0);
    let restarts = match target.restarts {
        0 => String::new(),
        restarts => format!(", {restarts} restarts"),
    };
    format!(
        "pid {pid}{restarts}, {} RSS, {bytes} B per session, {cpu:.1} s CPU, {per_message:.0} us per message",
        mebibytes(rss)
    )
}

fn generator(report: &Report) -> String {
    let generator = &report.generator;
    let saturated = if generator.saturated {
        "; SATURATED: it measured itself"
    } else {
        ""
    };
    format!(
        "{} RSS, {} B per session, {:.1} s CPU, busiest thread {:.0} %, waited {:.1} s for a CPU, {} late sends{saturated}",
        mebibytes(generator.rss_bytes),
        count(generator.bytes_per_session),
        generator.cpu_s,
        generator.busiest_thread * 100.0,
        generator.waited_s,
        count(generator.late_sends)
    )
}

fn agent(part: &Agent) -> String {
    let generator = &part.generator;
    let saturated = if generator.saturated {
        "; SATURATED"
    } else {
        ""
    };
    format!(
        "{}: {} of {} sessions, {} sent ({:.0}/s), {} findings, {} RSS, {:.1} s CPU, busiest thread \
         {:.0} %, {} late sends{saturated}; clock {:+.2} ms (within {:.2}), start {:.1} ms late",
        part.name,
        count(part.sessions.established.into()),
        count(part.sessions.target.into()),
        count(part.messages.sent),
        part.sent_per_s,
        count(part.findings),
        mebibytes(generator.rss_bytes),
        generator.cpu_s,
        generator.busiest_thread * 100.0,
        count(generator.late_sends),
        part.clock_ahead_ms,
        part.clock_error_ms,
        part.start_late_ms
    )
}

/// The latencies of which there is something to tell.
pub(super) fn latencies(report: &Report) -> Vec<(&'static str, &Percentiles)> {
    let (right, raw) = (&report.latency_ms, &report.latency_uncorrected_ms);
    let control = &report.control.latency_ms;
    let rows = vec![
        ("ack", &right.ack),
        ("  from write", &raw.ack),
        ("deliver", &right.deliver),
        ("  from write", &raw.deliver),
        ("fan-out", &right.fan_out),
        ("queued here", &right.queue),
        ("catch-up", &right.catch_up),
        ("come back", &right.come_back),
        ("control ack", &control.ack),
        ("  deliver", &control.deliver),
        ("handshake", &right.handshake),
        ("  + login", &right.login),
    ];
    let told = rows.into_iter().filter(|(_, latency)| latency.count > 0);
    told.collect()
}

fn latency_rows(report: &Report, text: &mut String) {
    let _ = writeln!(
        text,
        "\n  {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>9}",
        "ms", "p50", "p90", "p99", "p99.9", "max", "count"
    );
    for (name, latency) in latencies(report) {
        let _ = writeln!(text, "  {name:<12} {}", latency_row(latency));
    }
}

/// What attackers tried and what refused them.
fn hostile_rows(report: &Report, text: &mut String) {
    let Some(hostile) = &report.hostile else {
        return;
    };
    let _ = writeln!(
        text,
        "\n  {:<26} {:>12}  {:>12}  counter",
        "attack", "attempts", "increase"
    );
    for row in &hostile.rows {
        let remark = if row.remark.is_empty() { "" } else { "; " };
        let _ = writeln!(
            text,
            "  {:<26} {:>12}  {:>12}  {}{remark}{}",
            row.kind,
            count(row.attempts),
            count(row.increase),
            row.counter,
            row.remark
        );
    }
    let messages = &report.messages;
    let _ = writeln!(
        text,
        "\n  honest users wrote {} messages to the full inbox: {} refusals, {} taken back in the end",
        count(messages.outside),
        count(messages.chat_refusals),
        count(messages.given_up)
    );
    for attacked in &hostile.attacked_ms {
        let (p50, p99, max) = (attacked.p50, attacked.p99, attacked.max);
        let _ = writeln!(
            text,
            "  honest deliveries under attack: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms"
        );
    }
    for (place, pair) in (1..).zip(&hostile.pairs) {
        let (quiet, attacked, ratio) = (pair.quiet.p99, pair.attacked.p99, pair.ratio());
        let _ = writeln!(
            text,
            "  pair {place}: p99 {quiet:.2} ms without attackers, {attacked:.2} ms with them, ratio {ratio:.2}"
        );
    }
    if let Some(ratio) = hostile.p99_ratio {
        let _ = writeln!(text, "  median ratio of p99: {ratio:.2}");
    }
}

fn latency_row(latency: &Percentiles) -> String {
    if latency.count == 0 {
        let none = "-";
        return format!("{none:>9} {none:>9} {none:>9} {none:>9} {none:>9}  {none:>9}");
    }
    format!(
        "{:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  {:>9}",
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.max,
        count(latency.count)
    )
}

/// The verdict in words.
pub(crate) fn verdict(report: &Report) -> String {
    let broken = report.limits.iter().filter(|limit| !limit.kept).count();
    let verdict = match report.verdict {
        Verdict::Pass => {
            "PASS: everything sent was acknowledged, delivered once to each device, in order, \
                          with its receipts"
        }
        Verdict::Fail if report.messages.sent == 0 => "FAIL: nothing was sent",
        Verdict::Fail if broken > 0 => "FAIL: a limit was not kept",
        Verdict::Fail => "FAIL: see above",
        Verdict::Interrupted => "INTERRUPTED: what was under way was not waited for",
    };
    match report.bottleneck {
        Some(_) => {
            format!("{verdict}; but the generator was the bottleneck: its latencies are its own")
        }
        None => verdict.into(),
    }
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", count(bytes / (1024 * 1024)))
}

pub(super) fn milliseconds(ms: f64) -> String {
    format!("{ms:.2} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
    }
}
