//! A report as files: JSON for programs, CSV of its course, HTML for people.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use super::{Report, html};
use crate::cli::Load;
use crate::latency::Percentiles;
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
    let mut seen = HashSet::new();
    for path in paths.filter(|path| !is_standard_output(path)) {
        // Nothing that is there is lost before there is something new, and nothing is left where nothing comes.
        let tried = match path.exists() {
            true => OpenOptions::new().append(true).open(path).map(drop),
            false => beside(path).map(drop),
        };
        tried.with_context(|| format!("{} can not be written", path.display()))?;
        let known = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let known = known.canonicalize().unwrap_or(known);
        ensure!(
            seen.insert(known),
            "{} can not be two reports",
            path.display()
        );
    }
    Ok(())
}

/// A temporary file in the folder of a report.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    tempfile::Builder::new()
        .prefix(".loadgen-")
        // Less what the umask takes, as for any file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
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
    replace(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file so that at any moment the old one is there or the new one. Pipes and devices, and files in a
/// folder that is not to be written to, are written in place.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // The file that a link leads to is the report, not the link.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_ordinary = !path.exists() || path.is_file();
    let Some(mut new) = is_ordinary.then(|| beside(&path).ok()).flatten() else {
        return fs::write(path, text);
    };
    if let Ok(old) = fs::metadata(&path) {
        new.as_file().set_permissions(old.permissions())?;
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
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
            known(milliseconds(&point.ack_ms, |ms| ms.p50)),
            known(milliseconds(&point.ack_ms, |ms| ms.p99)),
            known(milliseconds(&point.ack_ms, |ms| ms.max)),
            point.ack_ms.count.to_string(),
            known(milliseconds(&point.deliver_ms, |ms| ms.p50)),
            known(milliseconds(&point.deliver_ms, |ms| ms.p99)),
            known(milliseconds(&point.deliver_ms, |ms| ms.max)),
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

/// A percentile of a second in which something was answered.
fn milliseconds(of: &Percentiles, pick: fn(&Percentiles) -> f64) -> Option<String> {
    (of.count > 0).then(|| format!("{:.3}", pick(of)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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

    /// A server that stands still would be drawn at its best.
    #[test]
    fn fd8_a_second_without_answers_has_no_percentiles() {
        let mut silent = point(1.0, "exchange", 5);
        silent.ack_ms = Percentiles::default();
        let json = serde_json::to_value(&silent).expect("json");
        assert_eq!(json["ack_ms"]["p99"], serde_json::Value::Null);
        assert_eq!(
            (&json["ack_ms"]["count"], &json["deliver_ms"]["p99"]),
            (&0.into(), &3.25.into())
        );
        let again: Point = serde_json::from_value(json).expect("a point");
        assert_eq!(again.ack_ms, Percentiles::default());
        let text = csv(&[silent]);
        let fields: Vec<&str> = text.lines().nth(1).expect("a line").split(',').collect();
        let column = |name| {
            COLUMNS
                .iter()
                .position(|column| *column == name)
                .expect("a column")
        };
        assert_eq!(
            fields[column("ack_p50_ms")..=column("ack_count")],
            ["", "", "", "0"]
        );
        assert_eq!(fields[column("deliver_p99_ms")], "3.250");
    }
}
