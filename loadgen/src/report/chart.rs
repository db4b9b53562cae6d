//! Plots as SVG.

use std::fmt::Write;

use super::html::escape;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 26.0;

/// A line has no more points than there are pixels to tell them apart.
const POINTS_MAX: usize = 600;

/// A plot over time.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
}

/// One of its lines.
pub(super) struct Line {
    name: String,
    /// Seconds, and what was then.
    points: Vec<(f64, f64)>,
}

/// How values become heights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// From a power of ten.
    Log,
}

/// A time with a name, in seconds.
pub(super) struct Span {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// The vertical axis.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Line {
    pub(super) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: thin(&points),
        }
    }
}

impl Chart {
    pub(super) fn draw(&self, spans: &[Span]) -> String {
        let end = spans.last().map_or(1.0, |span| span.to).max(1e-9);
        let values = || {
            let lines = self.lines.iter();
            lines.flat_map(|line| line.points.iter().map(|point| point.1))
        };
        let axis = Axis::of(self.scale, values());
        let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - RIGHT);
        let mut svg = String::new();
        for (n, span) in spans.iter().enumerate() {
            let (from, to) = (x(span.from), x(span.to));
            if n % 2 == 1 {
                let _ = write!(
                    svg,
                    "<rect class=\"span\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    to - from,
                    HEIGHT - TOP - BOTTOM
                );
            }
            // A name that does not fit would cover its neighbour's.
            if to - from > 36.0 {
                let name = escape(&span.name);
                let _ = write!(svg, "<text x=\"{:.1}\" y=\"12\">{name}</text>", from + 2.0);
            }
        }
        axis.draw(self.unit, &mut svg);
        for tick in ticks(end) {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                x(tick),
                HEIGHT - 8.0,
                short(tick)
            );
        }
        for (n, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), axis.y(*value)))
                .collect();
            let _ = write!(
                svg,
                "<polyline class=\"l{n}\" points=\"{}\"/>",
                points.join(" ")
            );
        }
        let keys: String = (0..)
            .zip(&self.lines)
            .map(|(n, line)| format!("<b class=\"k{n}\">{}</b>", escape(&line.name)))
            .collect();
        figure(self.title, &svg, &keys)
    }
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let high = values.clone().fold(0.0, f64::max);
        match scale {
            Scale::Linear => {
                let high = if high > 0.0 { high * 1.05 } else { 1.0 };
                Self {
                    scale,
                    low: 0.0,
                    high,
                    ticks: ticks(high),
                }
            }
            Scale::Log => {
                let low = values.fold(f64::INFINITY, f64::min);
                let low = if low.is_finite() {
                    low.log10().floor()
                } else {
                    0.0
                };
                let high = high.max(1e-3).log10().ceil().max(low + 1.0);
                let mut ticks = Vec::new();
                let mut power = low;
                while power <= high {
                    ticks.push(10f64.powf(power));
                    power += 1.0;
                }
                Self {
                    scale,
                    low,
                    high,
                    ticks,
                }
            }
        }
    }

    /// The height of a value, from the top.
    fn y(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-9).log10(),
        };
        let share = (value - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, unit: &str, svg: &mut String) {
        for tick in &self.ticks {
            let y = self.y(*tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}{unit}</text>",
                WIDTH - RIGHT,
                LEFT - 5.0,
                y + 4.0,
                short(*tick)
            );
        }
    }
}

/// A histogram over tenths of decades, each with its upper end in milliseconds.
pub(super) fn bars(title: &str, buckets: &[(f64, u64)]) -> String {
    let place = |ms: f64| (ms.log10() * 10.0).round();
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
        return String::new();
    };
    let (low, high) = (place(first.0) - 1.0, place(last.0));
    let step = (WIDTH - LEFT - RIGHT) / (high - low);
    let counts = buckets.iter().map(|(_, count)| amount(*count));
    let axis = Axis::of(Scale::Linear, counts);
    let mut svg = String::new();
    axis.draw("", &mut svg);
    for (ms, count) in buckets {
        let y = axis.y(amount(*count));
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{} up to {} ms</title></rect>",
            LEFT + (place(*ms) - 1.0 - low) * step + 0.5,
            (step - 1.0).max(0.5),
            HEIGHT - BOTTOM - y,
            count,
            short(*ms)
        );
    }
    // A label about every 60 pixels, at the ends of buckets.
    let every = (60.0 / step).ceil().max(1.0);
    let mut at = low;
    while at <= high {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} ms</text>",
            LEFT + (at - low) * step,
            HEIGHT - 8.0,
            short(10f64.powf(at / 10.0))
        );
        at += every;
    }
    figure(title, &svg, "")
}

fn figure(title: &str, svg: &str, keys: &str) -> String {
    format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">{svg}</svg>\
         <div class=\"legend\">{keys}</div></figure>",
        escape(title)
    )
}

/// Round numbers from 0 to `end`, about five of them.
fn ticks(end: f64) -> Vec<f64> {
    let rough = end / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= end * 1.000_001 {
        ticks.push(at);
        at += step;
    }
    ticks
}

/// A number in as few digits as tell it.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", trim(n / 1e6)),
        n if n >= 1e4 => format!("{}k", trim(n / 1e3)),
        n => trim(n),
    }
}

fn trim(number: f64) -> String {
    let digits = match number {
        n if n >= 100.0 => 0,
        n if n >= 10.0 => 1,
        n if n >= 0.095 => 2,
        _ => 3,
    };
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// The highest of every few points: no peak is lost.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |chunk: &[(f64, f64)]| {
        let all = chunk.iter().copied();
        all.reduce(|a, b| if b.1 > a.1 { b } else { a })
    };
    points.chunks(every).filter_map(highest).collect()
}

#[allow(clippy::cast_precision_loss, reason = "drawn with three digits")]
fn amount(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_end() {
        assert_eq!(ticks(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(130.0), [0.0, 50.0, 100.0]);
        assert!(ticks(0.7).len() >= 3);
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.5, 1.259, 63.1, 125.89, 2_000.0, 150_000.0, 2e6];
        let short: Vec<_> = all.into_iter().map(short).collect();
        assert_eq!(
            short,
            ["0", "0.5", "1.26", "63.1", "126", "2000", "150k", "2M"]
        );
    }

    #[test]
    fn heights_follow_the_scale() {
        let linear = Axis::of(Scale::Linear, [0.0, 100.0].into_iter());
        assert!((linear.y(0.0) - (HEIGHT - BOTTOM)).abs() < 1e-9);
        assert!(linear.y(100.0) < linear.y(50.0) && linear.y(105.0) - TOP < 1e-9);
        let log = Axis::of(Scale::Log, [0.2, 50.0].into_iter());
        assert!((log.low - -1.0).abs() < 1e-9 && (log.high - 2.0).abs() < 1e-9);
        let steps = [log.y(0.1) - log.y(1.0), log.y(1.0) - log.y(10.0)];
        assert!((steps[0] - steps[1]).abs() < 1e-9, "a decade is a decade");
    }

    #[test]
    fn no_peak_is_lost() {
        let mut points: Vec<(f64, f64)> = (0..5_000).map(|n| (f64::from(n), 1.0)).collect();
        points[1_234].1 = 99.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX && thinned.contains(&(1_234.0, 99.0)));
    }

    #[test]
    fn a_chart_has_its_lines_stages_and_names() {
        let chart = Chart {
            title: "A & B",
            unit: " ms",
            scale: Scale::Log,
            lines: vec![
                Line::new("p50", vec![(1.0, 2.0), (9.0, 30.0)]),
                Line::new("max", vec![]),
            ],
        };
        let spans = [("ramp", 0.0, 5.0), ("hold", 5.0, 10.0)].map(|(name, from, to)| Span {
            name: name.into(),
            from,
            to,
        });
        let svg = chart.draw(&spans);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("A &amp; B") && svg.contains(">hold<") && svg.contains("100 ms"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let bars = bars("x", &[(1.0, 3), (10.0, 1)]);
        assert_eq!(bars.matches("class=\"bar\"").count(), 2);
    }
}
