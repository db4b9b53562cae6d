//! A report as files: JSON for programs, CSV of its course, HTML for people.

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Report, html};
use crate::cli::Load;
use crate::out;
use crate::record::Point;

/// The columns of the CSV, in order.
const COLUMNS: [&str; 22] = [
    "at_s",
    "stage",
    "sessions",
    "handshakes_per_s",
    "heartbeats_per_s",
    "sent_per_s",
    "acknowledged_per_s",
    "delivered_per_s",
    "disconnected",
    "late_sends",
    "ack_p50_ms",
    "ack_p99_ms",
    "ack_max_ms",
    "ack_count",
    "deliver_p50_ms",
    "deliver_p99_ms",
    "deliver_max_ms",
    "deliver_count",
    "target_rss_bytes",
    "target_cpus",
    "generator_rss_bytes",
    "generator_cpus",
];

/// An error if a file that the command line asks for could not be written: it would come after the run.
pub(crate) fn check(load: &Load) -> Result<()> {
    let files = [&load.json, &load.csv, &load.html];
    let paths = files.into_iter().flatten();
    ensure!(
        paths
            .clone()
            .filter(|path| is_standard_output(path))
            .count()
            <= 1,
        "only one report fits on standard output"
    );
    for path in paths.filter(|path| !is_standard_output(path)) {
        // Nothing that is there is lost before there is something new.
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.with_context(|| format!("{} can not be written", path.display()))?;
    }
    Ok(())
}

/// Whether a report goes to standard output: then nothing else may.
pub(crate) fn takes_standard_output(load: &Load) -> bool {
    let files = [&load.json, &load.csv, &load.html];
    files
        .into_iter()
        .flatten()
        .any(|path| is_standard_output(path))
}

fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes the files that the command line asks for.
pub(crate) fn write(report: &Report, load: &Load) -> Result<()> {
    if let Some(path) = &load.json {
        save(path, &(serde_json::to_string_pretty(report)? + "\n"))?;
    }
    if let Some(path) = &load.csv {
        save(path, &csv(&report.series))?;
    }
    if let Some(path) = &load.html {
        save(path, &html::page(report))?;
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<()> {
    if is_standard_output(path) {
        out::line(text.trim_end());
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// One line per point (RFC 4180 without its CRLF); what is not known is empty.
fn csv(points: &[Point]) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for point in points {
        let known = |value: Option<String>| value.unwrap_or_default();
        let fields: [String; COLUMNS.len()] = [
            format!("{:.3}", point.at_s),
            point.stage.to_string(),
            point.sessions.to_string(),
            format!("{:.1}", point.handshakes_per_s),
            format!("{:.1}", point.heartbeats_per_s),
            format!("{:.1}", point.sent_per_s),
            format!("{:.1}", point.acknowledged_per_s),
            format!("{:.1}", point.delivered_per_s),
            point.disconnected.to_string(),
            point.late_sends.to_string(),
            format!("{:.3}", point.ack_ms.p50),
            format!("{:.3}", point.ack_ms.p99),
            format!("{:.3}", point.ack_ms.max),
            point.ack_ms.count.to_string(),
            format!("{:.3}", point.deliver_ms.p50),
            format!("{:.3}", point.deliver_ms.p99),
            format!("{:.3}", point.deliver_ms.max),
            point.deliver_ms.count.to_string(),
            known(point.target_rss_bytes.map(|bytes| bytes.to_string())),
            known(point.target_cpus.map(|cpus| format!("{cpus:.3}"))),
            point.generator_rss_bytes.to_string(),
            format!("{:.3}", point.generator_cpus),
        ];
        let _ = writeln!(text, "{}", fields.join(","));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::latency::Percentiles;

    /// A point with a known value in each field.
    pub(in crate::report) fn point(at_s: f64, stage: &'static str, sessions: u32) -> Point {
        let ms = Percentiles {
            p50: 1.5,
            p90: 2.0,
            p99: 3.25,
            p999: 4.0,
            max: 5.0,
            count: 9,
        };
        Point {
            at_s,
            stage: stage.into(),
            sessions,
            handshakes_per_s: 10.0,
            heartbeats_per_s: 1.0,
            sent_per_s: 20.0,
            acknowledged_per_s: 21.0,
            delivered_per_s: 22.0,
            disconnected: 0,
            late_sends: 2,
            ack_ms: ms,
            deliver_ms: ms,
            target_rss_bytes: None,
            target_cpus: Some(0.5),
            generator_rss_bytes: 4_096,
            generator_cpus: 0.25,
        }
    }

    #[test]
    fn a_csv_has_a_line_per_point_and_a_name_per_column() {
        let text = csv(&[point(1.0, "ramp", 5), point(2.0, "hold", 7)]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines.iter().all(|line| line.len() == COLUMNS.len()),
            "{text}"
        );
        let field = |line: usize, name| {
            let at = COLUMNS.iter().position(|column| *column == name);
            lines[line][at.expect("a column")]
        };
        assert_eq!((field(1, "stage"), field(2, "sessions")), ("ramp", "7"));
        assert_eq!(
            (field(1, "ack_p99_ms"), field(1, "target_rss_bytes")),
            ("3.250", "")
        );
        assert_eq!(field(2, "generator_cpus"), "0.250");
    }
}
