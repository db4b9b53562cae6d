//! The report as people read it.

use std::fmt::Write;

use crate::latency::Percentiles;
use crate::report::{Report, Verdict};

/// The final table, with the findings and the verdict.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for (name, value) in rows(report) {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    latency_rows(report, &mut text);
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
    let _ = write!(text, "\n  {}", verdict(report));
    text
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("sessions", sessions(report)),
        ("handshakes", handshakes(report)),
        ("messages", messages(report)),
        ("receipts", receipts(report)),
        ("edge", edge(report)),
        ("loadgen", generator(report)),
    ];
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
    format!(
        "{} of {} established, {} failed, {} lost, {} reconnected",
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

fn latency_rows(report: &Report, text: &mut String) {
    let (right, raw) = (&report.latency_ms, &report.latency_uncorrected_ms);
    let rows = [
        ("ack", &right.ack),
        ("  from write", &raw.ack),
        ("deliver", &right.deliver),
        ("  from write", &raw.deliver),
        ("catch-up", &right.catch_up),
        ("handshake", &right.handshake),
        ("  + login", &right.login),
    ];
    let _ = writeln!(
        text,
        "\n  {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>9}",
        "ms", "p50", "p90", "p99", "p99.9", "max", "count"
    );
    for (name, latency) in rows.into_iter().filter(|(_, latency)| latency.count > 0) {
        let _ = writeln!(text, "  {name:<12} {}", latency_row(latency));
    }
}

fn latency_row(latency: &Percentiles) -> String {
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

fn verdict(report: &Report) -> String {
    match report.verdict {
        Verdict::Pass => {
            "PASS: everything sent was acknowledged, delivered once to each device, in order, \
                          with its receipts"
                .into()
        }
        Verdict::Fail => match report.messages.sent {
            0 => "FAIL: nothing was sent".into(),
            _ => "FAIL: see above".into(),
        },
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
