//! The server's counters.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::target;

/// The page of metrics at one moment.
#[derive(Debug, Clone)]
pub(super) struct Counters(String);

impl Counters {
    pub(super) fn read(admin: SocketAddr) -> Result<Self> {
        let page = target::get(admin, "/metrics").context("the edge's /metrics")?;
        Ok(Self(page))
    }

    /// The sum of a metric over all shards. A name may end with a label, as in `name{code="X"}`.
    pub(super) fn sum(&self, name: &str) -> u64 {
        let (family, label) = match name.split_once('{') {
            Some((family, label)) => (family, label.trim_end_matches('}')),
            None => (name, ""),
        };
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (this, labels) = series.split_once('{').unwrap_or((series, ""));
            let value: u64 = value.parse().ok()?;
            (this == family && labels.contains(label)).then_some(value)
        };
        self.0.lines().filter_map(of).sum()
    }
}

/// Datagrams that this host's kernel has dropped because a socket's buffer was full; 0 where it does not say.
pub(super) fn dropped_by_kernel() -> u64 {
    let page = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    field(&page, "RcvbufErrors").unwrap_or(0)
}

/// A field of the two lines of UDP: the first has the names, the second the values.
fn field(page: &str, name: &str) -> Option<u64> {
    let mut lines = page.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|known| known == name)?;
    values.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_shards_and_by_its_label() {
        let page = "# TYPE a_total counter\na_total{shard=\"0\",code=\"X\"} 3\n\
                    a_total{shard=\"1\",code=\"X\"} 4\na_total{shard=\"0\",code=\"Y\"} 5\na_total_more 9\nb 7\n";
        let counters = Counters(page.into());
        assert_eq!(counters.sum("a_total"), 12);
        assert_eq!(counters.sum("a_total{code=\"X\"}"), 7);
        assert_eq!(counters.sum("b"), 7);
        assert_eq!(counters.sum("c"), 0);
    }

    #[test]
    fn a_field_of_the_kernel_is_found_by_its_name() {
        let page = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 9 8 7\n";
        assert_eq!(field(page, "RcvbufErrors"), Some(7));
        assert_eq!(field(page, "Nothing"), None);
        assert_eq!(field("", "RcvbufErrors"), None);
    }
}
