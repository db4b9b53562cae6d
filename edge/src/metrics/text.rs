//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;
use std::time::Duration;

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub(crate) struct Text {
    page: String,
    family: String,
}

impl Text {
    /// Begins a family: `kind` is counter, gauge or histogram.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.family);
        if kind == "counter" {
            self.family.push_str("_total");
        }
        let family = &self.family;
        let _ = write!(
            self.page,
            "# HELP {family} {help}\n# TYPE {family} {kind}\n"
        );
    }

    /// Adds a sample to the family begun last.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let family = &self.family;
        let _ = writeln!(self.page, "{family}{} {value}", braces(labels));
    }

    /// Adds a sample of time to the family begun last.
    pub(crate) fn seconds(&mut self, labels: &[(&str, &str)], micros: u64) {
        let (family, seconds) = (&self.family, Duration::from_micros(micros).as_secs_f64());
        let _ = writeln!(self.page, "{family}{} {seconds}", braces(labels));
    }

    /// Adds a histogram to the family begun last: upper bounds in seconds with the counts up to them, and the sum of all in seconds.
    pub(crate) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        cumulative: impl Iterator<Item = (f64, u64)>,
        sum: f64,
    ) {
        let family = &self.family;
        let mut count = 0;
        for (bound, up_to) in cumulative {
            let bound = if bound.is_infinite() {
                "+Inf".to_owned()
            } else {
                bound.to_string()
            };
            let labels = [labels, &[("le", bound.as_str())]].concat();
            let _ = writeln!(self.page, "{family}_bucket{} {up_to}", braces(&labels));
            count = up_to;
        }
        let labels = braces(labels);
        let _ = writeln!(self.page, "{family}_sum{labels} {sum}");
        let _ = writeln!(self.page, "{family}_count{labels} {count}");
    }

    pub(crate) fn finish(self) -> String {
        self.page
    }
}

/// Labels in braces. Values are names of this program and hold nothing to escape.
fn braces(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::Histogram;
    use super::*;

    #[test]
    fn the_format_is_what_prometheus_reads() {
        let mut text = Text::default();
        text.family("a", "counter", "Things.");
        text.sample(&[("shard", "0")], 3);
        text.family("b", "gauge", "Level.");
        text.sample(&[], 4);
        text.family("t_seconds", "counter", "Time.");
        text.seconds(&[], 1_500_000);
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{shard=\"0\"} 3\n\
                        # HELP b Level.\n# TYPE b gauge\nb 4\n\
                        # HELP t_seconds_total Time.\n# TYPE t_seconds_total counter\nt_seconds_total 1.5\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_histogram_ends_with_inf_and_agrees_with_its_count() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(1));
        let mut text = Text::default();
        text.family("c_seconds", "histogram", "Time.");
        let sum = histogram.sum_seconds();
        text.histogram(&[("shard", "1")], histogram.cumulative(), sum);
        let page = text.finish();
        assert!(page.contains("c_seconds_bucket{shard=\"1\",le=\"+Inf\"} 1\n"));
        assert!(page.contains("c_seconds_count{shard=\"1\"} 1\n"));
        assert!(page.contains("c_seconds_sum{shard=\"1\"} 0.001\n"));
    }
}
