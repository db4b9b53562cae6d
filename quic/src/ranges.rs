//! A small ordered set of half-open ranges of `u64`: received, acknowledged or lost stretches.

/// Disjoint, non-adjacent ranges in ascending order. Peers can make it grow, so every user of it
/// has a cap on the number of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        self.0.first().copied()
    }

    /// How many ranges there would be after inserting `start..end`.
    pub(crate) fn len_after_insert(&self, start: u64, end: u64) -> usize {
        let (lo, hi) = self.touching(start, end);
        self.0.len() - (hi - lo) + 1
    }

    /// The index range of the entries that overlap or touch `start..end`.
    fn touching(&self, start: u64, end: u64) -> (usize, usize) {
        let lo = self.0.partition_point(|r| r.1 < start);
        let hi = self.0.partition_point(|r| r.0 <= end);
        (lo, hi.max(lo))
    }

    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (lo, hi) = self.touching(start, end);
        if lo == hi {
            self.0.insert(lo, (start, end));
            return;
        }
        self.0[lo] = (start.min(self.0[lo].0), end.max(self.0[hi - 1].1));
        self.0.drain(lo + 1..hi);
    }

    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let mut i = self.0.partition_point(|r| r.1 <= start);
        while let Some(&(s, e)) = self.0.get(i).filter(|r| r.0 < end) {
            match (s < start, e > end) {
                (true, true) => {
                    self.0[i].1 = start;
                    self.0.insert(i + 1, (end, e));
                    return;
                }
                (true, false) => {
                    self.0[i].1 = start;
                    i += 1;
                }
                (false, true) => {
                    self.0[i].0 = end;
                    return;
                }
                (false, false) => {
                    self.0.remove(i);
                }
            }
        }
    }

    /// Removes and returns up to `max` numbers from the front.
    pub(crate) fn pop_front(&mut self, max: u64) -> Option<(u64, u64)> {
        let (start, end) = self.first()?;
        let cut = end.min(start.saturating_add(max));
        if cut == end {
            self.0.remove(0);
        } else {
            self.0[0].0 = cut;
        }
        Some((start, cut))
    }

    /// Removes the range that starts at `at`, if there is one, and returns its end.
    pub(crate) fn take_from(&mut self, at: u64) -> Option<u64> {
        let (start, end) = self.first()?;
        (start <= at).then(|| {
            self.0.remove(0);
            end.max(at)
        })
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The parts of `start..end` that are not in the set, handed to `each`.
    pub(crate) fn gaps(&self, start: u64, end: u64, mut each: impl FnMut(u64, u64)) {
        let mut at = start;
        for (s, e) in self.iter().skip(self.0.partition_point(|r| r.1 <= start)) {
            if s >= end {
                break;
            }
            if s > at {
                each(at, s);
            }
            at = at.max(e);
        }
        if at < end {
            each(at, end);
        }
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..10), 0..40)) {
            let mut set = RangeSet::new();
            let mut model = std::collections::BTreeSet::new();
            for (add, start, len) in ops {
                if add && len > 0 {
                    let predicted = set.len_after_insert(start, start + len);
                    set.insert(start, start + len);
                    prop_assert_eq!(predicted, set.0.len());
                    model.extend(start..start + len);
                } else {
                    set.remove(start, start + len);
                    model.retain(|n| !(start..start + len).contains(n));
                }
                let flat: Vec<u64> = set.iter().flat_map(|(s, e)| s..e).collect();
                prop_assert_eq!(&flat, &model.iter().copied().collect::<Vec<_>>());
                prop_assert!(set.0.windows(2).all(|w| w[0].1 < w[1].0));
                let mut missing = Vec::new();
                set.gaps(5, 30, |s, e| missing.extend(s..e));
                let expected: Vec<u64> = (5..30).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }
}
