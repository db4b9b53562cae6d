//! The report as one page that needs nothing else: tables, and plots drawn as inline SVG.

use std::fmt::Write;

use super::chart::{Chart, Line, Scale, Span, bars};
use super::schema::Agent;
use super::table;
use super::{Report, Verdict};
use crate::latency::Percentiles;
use crate::record::Point;

const STYLE: &str = include_str!("page.css");

/// Lines of a plot that the style sheet has a colour for. Of more agents the table tells.
const COLOURS: usize = 8;

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut body = String::new();
    head(report, &mut body);
    summary(report, &mut body);
    trials(report, &mut body);
    agents(report, &mut body);
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
        Verdict::Interrupted => ("warn", "INTERRUPTED"),
    };
    let _ = write!(
        body,
        "<h1>{} <span class=\"badge {class}\">{verdict}</span></h1><p class=\"lead\">{}</p>",
        escape(&report.scenario),
        escape(&table::verdict(report))
    );
}

fn summary(report: &Report, body: &mut String) {
    body.push_str("<div class=\"wide\"><table class=\"facts\">");
    // Agents have a table of their own.
    let rows = table::rows(report).into_iter();
    for (name, value) in rows.filter(|(name, _)| *name != table::AGENT) {
        let _ = write!(
            body,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(&value)
        );
    }
    body.push_str("</table></div>");
    let rows = table::latencies(report).into_iter().map(|(name, latency)| {
        let times = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
        ];
        let times = times.map(|ms| format!("{ms:.2}"));
        let count = [table::count(latency.count)];
        (name.to_owned(), times.into_iter().chain(count).collect())
    });
    let columns = ["p50", "p90", "p99", "p99.9", "max", "count"];
    numbers("ms", &columns, rows, body);
}

/// What a search tried, in its order.
fn trials(report: &Report, body: &mut String) {
    let Some(search) = &report.find_max else {
        return;
    };
    let rows = search.trials.iter().map(|trial| {
        let fields = vec![
            format!("{:.2}", trial.ack_ms.p99),
            format!("{:.2}", trial.deliver_ms.p99),
            trial.broke.clone().unwrap_or_else(|| "none".into()),
        ];
        (format!("{:.0}/s", trial.rate), fields)
    });
    let columns = ["ack p99, ms", "deliver p99, ms", "what it broke"];
    numbers("rate tried", &columns, rows, body);
}

fn agents(report: &Report, body: &mut String) {
    if report.agents.is_empty() {
        return;
    }
    let rows = report.agents.iter().map(|agent| {
        let generator = &agent.generator;
        let fields = vec![
            table::count(agent.sessions.established.into()),
            table::count(agent.messages.sent),
            format!("{:.0}", agent.sent_per_s),
            table::count(agent.findings),
            format!("{:.0} %", generator.busiest_thread * 100.0),
            if generator.saturated { "yes" } else { "no" }.into(),
            table::count(generator.late_sends),
            table::mebibytes(generator.rss_bytes),
            format!("{:.1}", generator.cpu_s),
            format!("{:+.2} ± {:.2}", agent.clock_ahead_ms, agent.clock_error_ms),
            format!("{:.1}", agent.start_late_ms),
        ];
        (agent.name.clone(), fields)
    });
    let columns = [
        "sessions",
        "sent",
        "sent/s",
        "findings",
        "busiest thread",
        "saturated",
        "late sends",
        "RSS",
        "CPU, s",
        "clock, ms",
        "start late, ms",
    ];
    numbers("agent", &columns, rows, body);
}

/// A table with a name and some fields in each row.
fn numbers(
    corner: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (String, Vec<String>)>,
    body: &mut String,
) {
    let cell = |tag: &str, text: &str| format!("<{tag}>{}</{tag}>", escape(text));
    let row = |name: &str, tag: &str, fields: &mut dyn Iterator<Item = &str>| {
        let fields: String = fields.map(|field| cell(tag, field)).collect();
        format!("<tr>{}{fields}</tr>", cell("th", name))
    };
    body.push_str("<div class=\"wide\"><table class=\"numbers\">");
    body.push_str(&row(corner, "th", &mut columns.iter().copied()));
    for (name, fields) in rows {
        body.push_str(&row(&name, "td", &mut fields.iter().map(String::as_str)));
    }
    body.push_str("</table></div>");
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
        for chart in charts(report).into_iter().chain(agent_charts(report)) {
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
    let percentiles = |title, of: fn(&Point) -> &Percentiles| {
        let line = |name, pick: fn(&Percentiles) -> f64| {
            let at = |point: &Point| Some((point.at_s, measured(pick(of(point)))?));
            Line::new(name, points.iter().filter_map(at).collect())
        };
        Chart {
            title,
            unit: " ms",
            scale: Scale::Log,
            lines: vec![
                line("p50", |ms| ms.p50),
                line("p99", |ms| ms.p99),
                line("max", |ms| ms.max),
            ],
        }
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
        percentiles("Acknowledgement", |point| &point.ack_ms),
        percentiles("Delivery", |point| &point.deliver_ms),
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

/// The courses of the machines of a run on many, side by side.
fn agent_charts(report: &Report) -> Vec<Chart> {
    let chart = |title, unit, of: fn(&Point) -> f64| {
        let agents = report.agents.iter().take(COLOURS);
        let points = |agent: &Agent| {
            let points = agent.series.iter();
            points.map(|point| (point.at_s, of(point))).collect()
        };
        Chart {
            title,
            unit,
            scale: Scale::Linear,
            lines: agents
                .map(|agent| Line::new(agent.name.clone(), points(agent)))
                .collect(),
        }
    };
    if report.agents.is_empty() {
        return Vec::new();
    }
    vec![
        chart("Sessions by agent", "", |point| point.sessions.into()),
        chart("Messages sent by agent", "/s", |point| point.sent_per_s),
        chart("CPUs in use by agent", "", |point| point.generator_cpus),
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
