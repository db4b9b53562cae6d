//! What is committed: the young writes in memory, those on their way to the database, the database.
//!
//! A commit is in the log and in `young`. When that is large it becomes `frozen` and is written into the
//! database in the background; then it is dropped, and its log file with it. An entry that is appended
//! and acknowledged while it is young leaves nothing behind: that is the life of nearly all of them.

use std::collections::btree_map::Entry;
use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;

use crate::txn::{Order, RangeQuery};

use super::disk::{DiskView, Pair};
use super::small_key::SmallKey;
use super::write::{Write, Writes};

/// What a pair costs in memory beside its bytes.
const PAIR_OVERHEAD: usize = 112;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tables {
    young: Writes,
    young_bytes: usize,
    frozen: Option<Arc<Writes>>,
    disk: DiskView,
    /// The number of the last commit in it.
    stamp: u64,
}

/// A sorted run of writes.
type Run<'a> = Peekable<Box<dyn Iterator<Item = Pair> + 'a>>;

impl Tables {
    pub(crate) fn new(disk: DiskView, stamp: u64) -> Self {
        Self {
            young: Writes::new(),
            young_bytes: 0,
            frozen: None,
            disk,
            stamp,
        }
    }

    /// The number of the last commit that it shows.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// What the young writes take in memory, about.
    pub(crate) fn young_bytes(&self) -> usize {
        self.young_bytes
    }

    /// Shows a commit, which is durable by now.
    pub(crate) fn publish(
        &mut self,
        stamp: u64,
        writes: impl IntoIterator<Item = (SmallKey, Write)>,
    ) {
        debug_assert!(stamp > self.stamp, "commits come in order");
        for (key, write) in writes {
            self.apply(key, write);
        }
        self.stamp = stamp;
    }

    fn apply(&mut self, key: SmallKey, write: Write) {
        let size = |key: &SmallKey, write: &Write| key.len() + write.len() + PAIR_OVERHEAD;
        match self.young.entry(key) {
            Entry::Vacant(entry) => {
                self.young_bytes += size(entry.key(), &write);
                entry.insert(write);
            }
            Entry::Occupied(entry)
                if write == Write::ClearOnce && matches!(entry.get(), Write::Set(_)) =>
            {
                // Its one write is here, so nothing of it is anywhere else.
                self.young_bytes -= size(entry.key(), entry.get());
                entry.remove();
            }
            Entry::Occupied(mut entry) => {
                let before = size(entry.key(), entry.get());
                self.young_bytes = self.young_bytes + size(entry.key(), &write) - before;
                entry.insert(write);
            }
        }
    }

    /// Sets the young writes aside for the database.
    pub(crate) fn freeze(&mut self) -> Arc<Writes> {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let frozen = Arc::new(std::mem::take(&mut self.young));
        self.young_bytes = 0;
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// What was set aside is in the database as it is seen now.
    pub(crate) fn thaw(&mut self, disk: DiskView) -> Option<Arc<Writes>> {
        self.disk = disk;
        self.frozen.take()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, fjall::Error> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        match self.young.get(key).or_else(frozen) {
            Some(write) => Ok(write.value().cloned()),
            None => self.disk.get(key),
        }
    }

    /// The pairs of a range in the order asked for, with the writes of `above` on top of them.
    pub(crate) fn range<'a>(
        &'a self,
        query: &RangeQuery<'_>,
        above: Option<&'a Writes>,
    ) -> Merge<'a> {
        let mut runs: Vec<Run<'a>> = Vec::with_capacity(4);
        if query.from < query.to {
            let frozen = self.frozen.as_deref();
            for writes in [above, Some(&self.young), frozen].into_iter().flatten() {
                runs.push(run(writes, query).peekable());
            }
            let disk: Box<dyn Iterator<Item = Pair> + 'a> = self.disk.range(query);
            runs.push(disk.peekable());
        }
        Merge {
            runs,
            order: query.order,
        }
    }
}

fn run<'a>(writes: &'a Writes, query: &RangeQuery<'_>) -> Box<dyn Iterator<Item = Pair> + 'a> {
    let (from, to) = (query.from, query.to);
    let range = writes.range::<[u8], _>((
        std::ops::Bound::Included(from),
        std::ops::Bound::Excluded(to),
    ));
    let pair = |(key, write): (&SmallKey, &Write)| Ok((Bytes::from(key), write.clone()));
    match query.order {
        Order::Forward => Box::new(range.map(pair)),
        Order::Reverse => Box::new(range.rev().map(pair)),
    }
}

/// Sorted runs as one; of a key that several have, the first run's write counts.
pub(crate) struct Merge<'a> {
    runs: Vec<Run<'a>>,
    order: Order,
}

impl Merge<'_> {
    /// The run whose next key comes first, the newest of those that have it; an error comes first of all.
    fn first(&mut self) -> Option<usize> {
        let mut first: Option<(usize, Bytes)> = None;
        for (index, run) in self.runs.iter_mut().enumerate() {
            let key = match run.peek() {
                None => continue,
                Some(Err(_)) => return Some(index),
                Some(Ok((key, _))) => key,
            };
            let comes_first = first.as_ref().is_none_or(|(_, first)| match self.order {
                Order::Forward => key < first,
                Order::Reverse => key > first,
            });
            if comes_first {
                first = Some((index, key.clone()));
            }
        }
        first.map(|(index, _)| index)
    }

    fn skip(&mut self, key: &Bytes, behind: usize) {
        for run in &mut self.runs[behind + 1..] {
            run.next_if(|pair| pair.as_ref().is_ok_and(|(other, _)| other == key));
        }
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(Bytes, Bytes), fjall::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let index = self.first()?;
            let (key, write) = match self.runs[index].next()? {
                Ok(pair) => pair,
                Err(error) => return Some(Err(error)),
            };
            self.skip(&key, index);
            if let Write::Set(value) = write {
                return Some(Ok((key, value)));
            }
        }
    }
}
