//! The report as one page that needs nothing else: tables, and plots drawn as inline SVG.

use std::fmt::Write;

use super::chart::{Chart, Line, Scale, Span, bars};
use super::table;
use super::{Report, Verdict};
use crate::record::Point;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut body = String::new();
    head(report, &mut body);
    summary(report, &mut body);
    findings(report, &mut body);
    plots(report, &mut body);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>loadgen {}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n",
        escape(&report.scenario)
    )
}

fn head(report: &Report, body: &mut String) {
    let (class, verdict) = match report.verdict {
        // Nothing was wrong, and nothing is known of how fast the server was.
        Verdict::Pass if report.bottleneck.is_some() => ("warn", "PASS"),
        Verdict::Pass => ("pass", "PASS"),
        Verdict::Fail => ("fail", "FAIL"),
    };
    let _ = write!(
        body,
        "<h1>{} <span class=\"badge {class}\">{verdict}</span></h1><p class=\"lead\">{}</p>",
        escape(&report.scenario),
        escape(&table::verdict(report))
    );
}

fn summary(report: &Report, body: &mut String) {
    body.push_str("<table class=\"facts\">");
    for (name, value) in table::rows(report) {
        let _ = write!(
            body,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(&value)
        );
    }
    body.push_str("</table><table class=\"numbers\"><tr><th>ms</th>");
    for column in ["p50", "p90", "p99", "p99.9", "max", "count"] {
        let _ = write!(body, "<th>{column}</th>");
    }
    body.push_str("</tr>");
    for (name, latency) in table::latencies(report) {
        let _ = write!(body, "<tr><th>{}</th>", escape(name));
        for ms in [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
        ] {
            let _ = write!(body, "<td>{ms:.2}</td>");
        }
        let _ = write!(body, "<td>{}</td></tr>", table::count(latency.count));
    }
    body.push_str("</table>");
}

fn findings(report: &Report, body: &mut String) {
    for limit in &report.limits {
        let class = if limit.kept { "pass" } else { "fail" };
        let value = limit
            .value
            .map_or("nothing measured".into(), |v| format!("{v:.3}"));
        let _ = write!(
            body,
            "<p class=\"limit {class}\">{}: {value}</p>",
            escape(&limit.limit)
        );
    }
    for finding in &report.findings {
        let _ = write!(
            body,
            "<h3 class=\"fail\">{} {}</h3><ul>",
            table::count(finding.count),
            finding.kind.name()
        );
        for detail in &finding.details {
            let _ = write!(body, "<li>{}</li>", escape(detail));
        }
        body.push_str("</ul>");
    }
}

fn plots(report: &Report, body: &mut String) {
    let points = &report.series;
    body.push_str("<main>");
    if points.len() > 1 {
        let spans = stages(points);
        for chart in charts(report) {
            body.push_str(&chart.draw(&spans));
        }
    }
    let histograms = &report.histograms;
    for (title, buckets) in [
        (
            "Latency from the intended send to the acknowledgement",
            &histograms.ack,
        ),
        (
            "Latency from the intended send to the delivery",
            &histograms.deliver,
        ),
        ("Time until a session was back", &histograms.come_back),
    ] {
        if !buckets.is_empty() {
            body.push_str(&bars(title, buckets));
        }
    }
    body.push_str("</main>");
}

fn charts(report: &Report) -> Vec<Chart> {
    let points = &report.series;
    let line = |name, of: fn(&Point) -> Option<f64>| {
        let at = |point: &Point| Some((point.at_s, of(point)?));
        Line::new(name, points.iter().filter_map(at).collect())
    };
    let empty = report.target.rss_bytes_empty.unwrap_or(0);
    let per_session = |point: &Point| {
        let held = point.target_rss_bytes?.saturating_sub(empty);
        // The first sessions pay for what all need.
        let enough = point.sessions * 20 > report.sessions.target;
        enough.then(|| (point.at_s, amount(held) / f64::from(point.sessions)))
    };
    const MIB: f64 = 1024.0 * 1024.0;
    vec![
        Chart {
            title: "Sessions",
            unit: "",
            scale: Scale::Linear,
            lines: vec![line("open", |p| Some(p.sessions.into()))],
        },
        Chart {
            title: "Rates",
            unit: "/s",
            scale: Scale::Linear,
            lines: vec![
                line("handshakes", |p| Some(p.handshakes_per_s)),
                line("heartbeats", |p| Some(p.heartbeats_per_s)),
                line("sent", |p| Some(p.sent_per_s)),
                line("delivered", |p| Some(p.delivered_per_s)),
            ],
        },
        Chart {
            title: "Acknowledgement",
            unit: " ms",
            scale: Scale::Log,
            lines: vec![
                line("p50", |p| measured(p.ack_ms.p50)),
                line("p99", |p| measured(p.ack_ms.p99)),
                line("max", |p| measured(p.ack_ms.max)),
            ],
        },
        Chart {
            title: "Delivery",
            unit: " ms",
            scale: Scale::Log,
            lines: vec![
                line("p50", |p| measured(p.deliver_ms.p50)),
                line("p99", |p| measured(p.deliver_ms.p99)),
                line("max", |p| measured(p.deliver_ms.max)),
            ],
        },
        Chart {
            title: "Memory",
            unit: " MiB",
            scale: Scale::Linear,
            lines: vec![
                line("server", |p| Some(amount(p.target_rss_bytes?) / MIB)),
                line("generator", |p| Some(amount(p.generator_rss_bytes) / MIB)),
            ],
        },
        Chart {
            title: "Server memory per session, beyond the empty server",
            unit: " B",
            scale: Scale::Linear,
            lines: vec![Line::new(
                "bytes per session",
                points.iter().filter_map(per_session).collect(),
            )],
        },
        Chart {
            title: "CPUs in use",
            unit: "",
            scale: Scale::Linear,
            lines: vec![
                line("server", |p| p.target_cpus),
                line("generator", |p| Some(p.generator_cpus)),
            ],
        },
        Chart {
            title: "Late sends and lost connections",
            unit: "",
            scale: Scale::Linear,
            lines: vec![
                line("late sends", |p| Some(amount(p.late_sends))),
                line("lost connections", |p| Some(amount(p.disconnected))),
            ],
        },
    ]
}

/// When each stage was.
fn stages(points: &[Point]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut from = 0.0;
    for point in points {
        match spans.last_mut() {
            Some(span) if span.name == point.stage => span.to = point.at_s,
            _ => spans.push(Span {
                name: point.stage.to_string(),
                from,
                to: point.at_s,
            }),
        }
        from = point.at_s;
    }
    spans
}

/// No latency is 0: that is a second in which nothing was measured.
fn measured(ms: f64) -> Option<f64> {
    (ms > 0.0).then_some(ms)
}

#[allow(clippy::cast_precision_loss, reason = "drawn with three digits")]
fn amount(number: u64) -> f64 {
    number as f64
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::point;
    use super::*;

    #[test]
    fn stages_follow_each_other() {
        let points = [
            point(1.0, "ramp", 1),
            point(2.0, "ramp", 2),
            point(3.0, "hold", 2),
        ];
        let spans = stages(&points);
        let found: Vec<_> = spans
            .iter()
            .map(|s| (s.name.as_str(), s.from, s.to))
            .collect();
        assert_eq!(found, [("ramp", 0.0, 2.0), ("hold", 2.0, 3.0)]);
    }

    #[test]
    fn what_others_said_is_no_markup() {
        assert_eq!(escape("<b> & \"c\""), "&lt;b&gt; &amp; &quot;c&quot;");
    }
}
