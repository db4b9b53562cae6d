//! What the attackers tried, what the server counted, and what the honest ones felt of it.

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use crate::latency::Percentiles;

/// One kind beside one of the server's counters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kind: String,
    /// Sends, marks, handshakes, sessions or packets: what the kind is made of.
    pub(crate) attempts: u64,
    pub(crate) counter: String,
    /// By how much the counter grew. Of a level: its highest above what it was before.
    pub(crate) increase: u64,
    /// The kind counts as refused only if this counter grew.
    pub(crate) refuses: bool,
    pub(crate) remark: String,
    /// The attacker has measured the increase itself.
    #[serde(skip)]
    measured: bool,
}

impl Row {
    pub(super) fn new(kind: &str, attempts: u64, counter: &str) -> Self {
        Self {
            kind: kind.into(),
            attempts,
            counter: counter.into(),
            increase: 0,
            refuses: true,
            remark: String::new(),
            measured: false,
        }
    }

    /// It may grow or not.
    pub(super) fn beside(mut self) -> Self {
        self.refuses = false;
        self
    }

    pub(super) fn remark(mut self, remark: String) -> Self {
        self.remark = remark;
        self
    }

    pub(super) fn increased(mut self, by: u64) -> Self {
        (self.increase, self.measured) = (by, true);
        self
    }

    pub(super) fn measure(&mut self, before: &Counters, after: &Counters) {
        if !self.measured {
            let grown = after.sum(&self.counter);
            self.increase = grown.saturating_sub(before.sum(&self.counter));
        }
    }
}

/// A round without attackers beside one with them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) quiet: Percentiles,
    pub(crate) attacked: Percentiles,
}

impl Pair {
    /// By how much the 99th percentile of delivery is worse under attack.
    pub(crate) fn ratio(&self) -> f64 {
        // A millisecond's hundredth is the finest that is told, and no division.
        self.attacked.p99 / self.quiet.p99.max(0.01)
    }
}

/// Of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// Delivery to honest users, in milliseconds: of each round under attack.
    pub(crate) attacked_ms: Vec<Percentiles>,
    pub(crate) pairs: Vec<Pair>,
    /// The median of the pairs' ratios of p99.
    pub(crate) p99_ratio: Option<f64>,
    /// Of --pairs: the round without attackers that waits for its other.
    #[serde(skip)]
    quiet: Option<Percentiles>,
    #[serde(skip)]
    attacked: Option<Percentiles>,
}

impl Table {
    /// A round is over.
    pub(crate) fn add_round(&mut self, rows: Option<Vec<Row>>, deliver: Percentiles) {
        match rows {
            Some(rows) => {
                rows.into_iter().for_each(|row| self.add_row(row));
                self.attacked_ms.push(deliver);
                self.attacked = Some(deliver);
            }
            None => self.quiet = Some(deliver),
        }
        if let (Some(quiet), Some(attacked)) = (self.quiet, self.attacked) {
            self.pairs.push(Pair { quiet, attacked });
            (self.quiet, self.attacked) = (None, None);
            self.p99_ratio = median(self.pairs.iter().map(Pair::ratio).collect());
        }
    }

    fn add_row(&mut self, row: Row) {
        let same = |known: &&mut Row| known.kind == row.kind && known.counter == row.counter;
        match self.rows.iter_mut().find(same) {
            Some(known) => {
                known.attempts += row.attempts;
                known.increase += row.increase;
                known.remark = row.remark;
            }
            None => self.rows.push(row),
        }
    }

    /// Kinds that tried and were not refused.
    pub(crate) fn not_refused(&self) -> impl Iterator<Item = &Row> {
        let rows = self.rows.iter();
        rows.filter(|row| row.refuses && row.increase == 0)
    }
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let (low, high) = (numbers.len().checked_sub(1)? / 2, numbers.len() / 2);
    Some(f64::midpoint(numbers[low], numbers[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p99(p99: f64) -> Percentiles {
        Percentiles {
            p99,
            ..Percentiles::default()
        }
    }

    #[test]
    fn rounds_make_pairs_whichever_comes_first() {
        let mut table = Table::default();
        table.add_round(None, p99(10.0));
        table.add_round(Some(Vec::new()), p99(30.0));
        table.add_round(Some(Vec::new()), p99(20.0));
        table.add_round(None, p99(10.0));
        assert_eq!(table.pairs.len(), 2);
        assert_eq!(table.p99_ratio, Some(2.5));
        assert_eq!(table.attacked_ms.len(), 2);
    }

    #[test]
    fn a_kind_whose_counter_stood_still_was_not_refused() {
        let mut table = Table::default();
        let rows = || {
            vec![
                Row::new("a", 5, "x").increased(0),
                Row::new("a", 5, "y").beside(),
            ]
        };
        table.add_round(Some(rows()), p99(1.0));
        assert_eq!(table.not_refused().count(), 1);
        table.add_round(Some(vec![Row::new("a", 2, "x").increased(1)]), p99(1.0));
        assert_eq!(table.not_refused().count(), 0);
        assert_eq!((table.rows[0].attempts, table.rows[0].increase), (7, 1));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
