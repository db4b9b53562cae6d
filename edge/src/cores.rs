//! The cores that this process may use: a shard's thread is pinned to one of them, and no other.

/// In ascending order. Empty if the kernel does not tell.
pub(crate) fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map(|list| parse(list.trim())).unwrap_or_default()
}

/// A list of the kernel's: `0-3,8,10-11` (cpuset(7), list format).
fn parse(list: &str) -> Vec<usize> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse("0"), [0]);
        assert_eq!(parse("2-4,8,10-11"), [2, 3, 4, 8, 10, 11]);
        assert_eq!(parse(""), Vec::<usize>::new());
        let cores = std::thread::available_parallelism().expect("some").get();
        assert!(allowed().len() >= cores);
    }
}
