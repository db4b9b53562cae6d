//! Moving a store: everything that one engine holds, as a file, into another engine (R3).
//!
//! Servers must be stopped: both directions are many transactions. An export that meets a server at work
//! says so. What is imported is read back and compared with the file. The first commit of an import
//! makes the target a store that nobody can open, the last one completes it: under a generation above
//! both stores', so that a cursor given out before acknowledges nothing, and with every node's lease
//! above both, so that nobody goes on with an old one (R24).

mod file;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::io;

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use thiserror::Error;

use crate::keys::Keys;
use crate::records::meta;
use crate::records::node::Lease;
use crate::txn::{Engine, RangeQuery, Read, Txn, TxnError};

use file::{Pair, Reader, Writer};

/// Bytes read or written by one transaction.
const STEP_BYTES: usize = 256 * 1024;

/// Keys read or written by one transaction.
const STEP_KEYS: usize = 2_000;

/// Tries of a transaction before the engine counts as unavailable.
const TRIES: u32 = 10;

/// Behind every key: tags are letters.
const LAST: &[u8] = b"\xff";

/// All leases.
const LEASES: (&[u8], &[u8]) = (b"n", b"o");

/// What belongs to users: everything but leases, what a store is born with, and the minutes of its stamps.
/// Checksums are over these.
const OF_USERS: [(&[u8], &[u8]); 4] = [(b"", b"g"), (b"h", b"n"), (b"o", b"t"), (b"u", LAST)];

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// A checksum over the data: the same on both sides.
    pub checksum: u64,
}

/// Why a store was not moved.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The file can not be read or written.
    #[error("the file: {0}")]
    File(#[from] io::Error),
    /// The engine can not read or commit.
    #[error("the store: {0}")]
    Store(#[from] TxnError),
    /// The file is not an export, is damaged, or ends early.
    #[error("the file is not a complete export: {0}")]
    Damaged(&'static str),
    /// What an engine holds is no store.
    #[error("this is no store, or an import into it broke off")]
    NoStore,
    /// A server works on the store.
    #[error("a server is at work on this store; stop it first, and wait ten seconds")]
    AtWork,
    /// The target holds a store already.
    #[error("the target holds users already; import into an empty one")]
    NotEmpty,
    /// What was read back is not what was written.
    #[error("what was imported differs from the file")]
    Differs,
}

/// Counts and sums up what belongs to users.
struct Tally(Summary, SipHasher13);

impl Tally {
    fn new() -> Self {
        Self(Summary::default(), SipHasher13::new())
    }

    fn add(&mut self, (key, value): &Pair) {
        if !is_of_users(key) {
            return;
        }
        self.0.keys += 1;
        self.0.bytes += u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX);
        self.1.write(&file::record(key, value));
    }

    fn finish(self) -> Summary {
        Summary {
            checksum: self.1.finish(),
            ..self.0
        }
    }
}

fn is_of_users(key: &[u8]) -> bool {
    OF_USERS.iter().any(|(from, to)| *from <= key && key < *to)
}

/// The part of what belongs to the engine that is moved. The rest is counted in the engine's own stamps,
/// which mean nothing in another. Of the minutes the newest is: the store's time does not go back, so
/// that whatever was noted on a day is visited when that day's entries are old enough (R25).
fn is_own(key: &[u8]) -> bool {
    let is_lease = key.first() == Some(&b'n') && key.len() == Keys::node(0).len();
    is_lease || is_minute(key) || key == &*Keys::generation() || key == &*Keys::placement()
}

fn is_minute(key: &[u8]) -> bool {
    key.first() == Some(&b't')
}

/// Writes everything that an engine holds.
///
/// # Errors
/// [`TransferError::AtWork`] if a server committed meanwhile; [`TransferError::NoStore`].
pub async fn export<E: Engine>(
    engine: &E,
    output: &mut impl io::Write,
) -> Result<Summary, TransferError> {
    let before = leases(engine).await?;
    let (mut file, mut tally) = (Writer::begin(output)?, Tally::new());
    let (mut from, mut is_store) = (Bytes::new(), false);
    loop {
        let pairs = page(engine, &from, LAST).await?;
        let Some((last, _)) = pairs.last() else { break };
        from = behind(last);
        for pair in pairs
            .iter()
            .filter(|(key, _)| is_of_users(key) || is_own(key))
        {
            is_store |= pair.0[..] == *Keys::placement();
            file.write(pair)?;
            tally.add(pair);
        }
    }
    if !is_store {
        return Err(TransferError::NoStore);
    }
    if leases(engine).await? != before {
        return Err(TransferError::AtWork);
    }
    file.end()?;
    Ok(tally.finish())
}

/// Puts an export into an engine without users, and raises the generation (R3).
///
/// # Errors
/// [`TransferError::NotEmpty`], and nothing is changed. After any other error the target is no store any
/// more and nobody can open it: remove what it holds.
pub async fn import<E: Engine>(
    engine: &E,
    input: &mut impl io::Read,
) -> Result<Summary, TransferError> {
    for (from, to) in OF_USERS {
        if !page(engine, from, to).await?.is_empty() {
            return Err(TransferError::NotEmpty);
        }
    }
    let (mut file, mut tally) = (Reader::begin(input)?, Tally::new());
    remove(engine).await?;
    let (mut own, mut step, mut step_bytes) = (BTreeMap::new(), Vec::new(), 0);
    while let Some(pair) = file.next()? {
        tally.add(&pair);
        if !is_of_users(&pair.0) {
            own.insert(pair.0, pair.1);
            continue;
        }
        step_bytes += pair.0.len() + pair.1.len();
        step.push(pair);
        if step_bytes >= STEP_BYTES || step.len() >= STEP_KEYS {
            put(engine, &std::mem::take(&mut step)).await?;
            step_bytes = 0;
        }
    }
    put(engine, &step).await?;
    let summary = tally.finish();
    if sum(engine).await? != summary {
        return Err(TransferError::Differs);
    }
    complete(engine, &own).await?;
    Ok(summary)
}

/// Removes everything but the generation, which only grows, and the leases: what is left can be imported
/// into, and not be opened. For engines that remove a range in one transaction, however long it is.
///
/// # Errors
/// If the engine can not commit.
pub async fn remove<E: Engine>(engine: &E) -> Result<(), TransferError> {
    commit(engine, async |txn: &mut E::Txn<'_>| {
        if txn
            .get(&Keys::generation(), Read::Snapshot)
            .await?
            .is_none()
        {
            meta::save_generation(txn, 1);
        }
        txn.clear(&Keys::placement());
        // What comes in is counted when it is opened.
        txn.clear(&Keys::counted());
        for (from, to) in OF_USERS.into_iter().chain([(&b"t"[..], &b"u"[..])]) {
            txn.clear_range(from, to);
        }
        Ok(())
    })
    .await
}

/// What the engine holds of users.
async fn sum<E: Engine>(engine: &E) -> Result<Summary, TransferError> {
    let (mut tally, mut from) = (Tally::new(), Bytes::new());
    loop {
        let pairs = page(engine, &from, LAST).await?;
        let Some((last, _)) = pairs.last() else {
            return Ok(tally.finish());
        };
        from = behind(last);
        pairs.iter().for_each(|pair| tally.add(pair));
    }
}

async fn leases<E: Engine>(engine: &E) -> Result<BTreeMap<Bytes, Bytes>, TransferError> {
    let (mut leases, mut from) = (BTreeMap::new(), Bytes::from_static(LEASES.0));
    loop {
        let pairs = page(engine, &from, LEASES.1).await?;
        let Some((last, _)) = pairs.last() else {
            return Ok(leases);
        };
        from = behind(last);
        leases.extend(pairs);
    }
}

fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// Some pairs of a range; none at its end.
async fn page<E: Engine>(engine: &E, from: &[u8], to: &[u8]) -> Result<Vec<Pair>, TransferError> {
    let query = RangeQuery {
        bytes_max: STEP_BYTES,
        read: Read::Snapshot,
        ..RangeQuery::all(from, to).limit(STEP_KEYS)
    };
    let read = async |txn: &mut E::Txn<'_>| txn.range(query).await;
    for _ in 1..TRIES {
        if let (Ok(page), _) = engine.transact(read).await {
            return Ok(page.pairs);
        }
    }
    Ok(engine.transact(read).await.0?.pairs)
}

async fn put<E: Engine>(engine: &E, pairs: &[Pair]) -> Result<(), TransferError> {
    commit(engine, async |txn: &mut E::Txn<'_>| {
        for (key, value) in pairs {
            txn.set(key, value.clone());
        }
        Ok(())
    })
    .await
}

/// Commits what does no harm if it is committed twice, as happens after an unknown outcome.
async fn commit<E: Engine>(
    engine: &E,
    write: impl AsyncFn(&mut E::Txn<'_>) -> Result<(), TxnError>,
) -> Result<(), TransferError> {
    let mut last = TxnError::Unavailable;
    for _ in 0..TRIES {
        match engine
            .transact(async |txn: &mut E::Txn<'_>| write(txn).await)
            .await
        {
            (Ok(()), Ok(_)) => return Ok(()),
            (Err(error), _) | (_, Err(error)) => last = error,
        }
        if last == TxnError::TooLarge {
            break;
        }
    }
    Err(last.into())
}

/// The last commit: what makes it a store.
async fn complete<E: Engine>(
    engine: &E,
    own: &BTreeMap<Bytes, Bytes>,
) -> Result<(), TransferError> {
    let generation = own.get(&Keys::generation()[..]);
    let generation = generation.and_then(|value| meta::decode_generation(value));
    let generation = generation.ok_or(TransferError::Damaged("it has no generation"))?;
    let placement = own.get(&Keys::placement()[..]);
    let placement = placement.ok_or(TransferError::Damaged("it has no placement key"))?;
    let mut nodes = BTreeMap::new();
    for (key, value) in leases(engine).await?.iter().chain(own) {
        if key.first() == Some(&b'n') && is_own(key) {
            let lease = Lease::decode(value).ok_or(TransferError::Damaged("a lease"))?;
            let above: &mut Lease = nodes.entry(key.clone()).or_default();
            above.incarnation = above.incarnation.max(lease.incarnation.saturating_add(1));
            above.ids_below_ms = above.ids_below_ms.max(lease.ids_below_ms);
        }
    }
    let newest_minute = own.iter().rev().find(|(key, _)| is_minute(key));
    commit(engine, async |txn: &mut E::Txn<'_>| {
        let target = txn.get(&Keys::generation(), Read::Snapshot).await?;
        let target = target.and_then(|value| meta::decode_generation(&value));
        meta::save_generation(txn, generation.max(target.unwrap_or(0)).saturating_add(1));
        txn.set(&Keys::placement(), placement.clone());
        txn.clear(&Keys::counted());
        for (node, lease) in &nodes {
            txn.set(node, lease.encode());
        }
        if let Some((minute, stamp)) = newest_minute {
            txn.set(minute, stamp.clone());
        }
        Ok(())
    })
    .await
}
