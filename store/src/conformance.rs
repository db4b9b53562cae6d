//! What every engine has to do, as checks that an engine's tests call.
//!
//! Each check works below a prefix of its own, which it clears first, so that the suite runs on an engine
//! that holds other data. A check panics where an engine departs from the [seam](crate::txn).

use std::future::Future;

use bytes::Bytes;
use roadstead_proto::position::Stamp;

use crate::txn::{Engine, Order, RangeQuery, Read, TXN_BYTES_MAX, Txn, TxnError, VALUE_BYTES_MAX};

/// An engine that runs transactions side by side, so that they can conflict.
pub trait ConcurrentEngine: Engine {
    /// A transaction that is open beside others.
    type Open: Txn;

    /// Begins a transaction at a fresh read version.
    fn begin(&self) -> impl Future<Output = Result<Self::Open, TxnError>>;
}

/// All checks for any engine.
pub async fn all<E: Engine>(engine: &E) {
    a_transaction_sees_its_own_writes(engine).await;
    stamps_grow_with_commits(engine).await;
    stamped_keys_sort_in_commit_order(engine).await;
    stamped_values_hold_the_stamp_of_their_commit(engine).await;
    ranges_keep_to_limits_and_go_on(engine).await;
    ranges_see_own_writes_over_committed_ones(engine).await;
    cleared_ranges_are_gone_and_no_more_than_they(engine).await;
    known_ranges_are_cleared_too(engine).await;
    additions_add_up(engine).await;
    what_is_too_large_is_refused_whole(engine).await;
    a_transaction_that_is_too_large_is_refused_whole(engine).await;
    limited_ranges_go_on_over_own_writes(engine).await;
}

/// All checks for an engine that runs transactions side by side.
pub async fn conflicts<E: ConcurrentEngine>(engine: &E) {
    a_read_that_was_overwritten_conflicts(engine).await;
    a_range_conflicts_with_a_key_put_into_it(engine).await;
    snapshot_reads_and_blind_writes_never_conflict(engine).await;
    reads_stay_at_their_version(engine).await;
    what_a_limited_range_did_not_reach_does_not_conflict(engine).await;
    stamped_writes_cannot_be_read_by_their_own(engine).await;
    stamps_are_in_the_order_of_commits_and_not_of_beginnings(engine).await;
    every_kind_of_write_conflicts_with_a_read_of_it(engine).await;
    a_range_read_from_its_end_conflicts_as_far_as_it_reached(engine).await;
    reading_alone_never_conflicts(engine).await;
}

/// A transaction that `age` makes older than the engine keeps versions is refused, and leaves nothing.
pub async fn too_old<E: ConcurrentEngine>(engine: &E, age: impl AsyncFnOnce()) {
    let check = "old";
    fill(engine, check, &["a"]).await;
    let (mut reader, mut writer) = (open(engine).await, open(engine).await);
    age().await;
    let read = reader.get(&key(check, "a"), Read::Snapshot).await;
    assert_eq!(read, Err(TxnError::TooOld));
    writer.set(&key(check, "b"), Bytes::new());
    assert_eq!(writer.commit().await, Err(TxnError::TooOld));
    assert_eq!(names(engine, check).await, ["a"]);
}

/// What `inject` does to the next commit, which is told whether it shall happen, makes its result unknown
/// and changes nothing else (R15).
pub async fn unknown_results<E: Engine>(engine: &E, inject: impl Fn(bool)) {
    let check = "unknown";
    for happens in [false, true] {
        clear(engine, check).await;
        inject(happens);
        let write = async |txn: &mut E::Txn<'_>| {
            txn.atomic_add(&key(check, "n"), 1);
            txn.set_versionstamped_key(&key(check, "s"), 0, &[], Bytes::new());
        };
        let (_, result) = engine.transact(write).await;
        assert_eq!(result, Err(TxnError::UnknownResult));
        let expected = if happens { 2 } else { 0 };
        assert_eq!(
            names_of_bytes(engine, check).await.len(),
            expected,
            "whole or not at all"
        );
        commit(engine, write).await;
        let left = get(engine, &key(check, "n")).await.expect("is there");
        assert_eq!(left, u64::from(happens).wrapping_add(1).to_le_bytes()[..]);
    }
}

/// A key of a check.
fn key(check: &str, name: &str) -> Vec<u8> {
    [b"conformance/", check.as_bytes(), b"/", name.as_bytes()].concat()
}

/// The range of all keys of a check.
fn span(check: &str) -> (Vec<u8>, Vec<u8>) {
    let from = key(check, "");
    let mut to = from.clone();
    *to.last_mut().expect("not empty") += 1;
    (from, to)
}

/// Runs a transaction that has to commit.
async fn commit<E: Engine, R>(
    engine: &E,
    body: impl AsyncFnOnce(&mut E::Txn<'_>) -> R,
) -> (R, Stamp) {
    let (result, committed) = engine.transact(body).await;
    (result, committed.expect("commits"))
}

async fn clear<E: Engine>(engine: &E, check: &str) {
    let (from, to) = span(check);
    commit(engine, async |txn: &mut E::Txn<'_>| {
        txn.clear_range(&from, &to)
    })
    .await;
}

async fn fill<E: Engine>(engine: &E, check: &str, names: &[&str]) {
    clear(engine, check).await;
    commit(engine, async |txn: &mut E::Txn<'_>| {
        for name in names {
            txn.set(&key(check, name), Bytes::copy_from_slice(name.as_bytes()));
        }
    })
    .await;
}

async fn get<E: Engine>(engine: &E, key: &[u8]) -> Option<Bytes> {
    let read = async |txn: &mut E::Txn<'_>| txn.get(key, Read::Serializable).await;
    commit(engine, read).await.0.expect("reads")
}

/// The last parts of the keys of a check, in order.
async fn names_of_bytes<E: Engine>(engine: &E, check: &str) -> Vec<Bytes> {
    let (from, to) = span(check);
    let read = async |txn: &mut E::Txn<'_>| txn.range(RangeQuery::all(&from, &to)).await;
    let page = commit(engine, read).await.0.expect("reads");
    assert!(!page.more);
    let names = page.pairs.iter().map(|(key, _)| key.slice(from.len()..));
    names.collect()
}

/// The same as text.
async fn names<E: Engine>(engine: &E, check: &str) -> Vec<String> {
    let names = names_of_bytes(engine, check).await.into_iter();
    names
        .map(|name| String::from_utf8_lossy(&name).into_owned())
        .collect()
}

async fn a_transaction_sees_its_own_writes<E: Engine>(engine: &E) {
    let check = "own";
    fill(engine, check, &["a", "b"]).await;
    let (a, b, c) = (key(check, "a"), key(check, "b"), key(check, "c"));
    let body = async |txn: &mut E::Txn<'_>| {
        txn.set(&a, Bytes::from_static(b"new"));
        txn.clear(&b);
        txn.set(&c, Bytes::from_static(b"c"));
        txn.clear_once(&c);
        let mut seen = Vec::new();
        for key in [&a, &b, &c] {
            seen.push(txn.get(key, Read::Serializable).await.expect("reads"));
        }
        seen
    };
    let (seen, _) = commit(engine, body).await;
    assert_eq!(seen, [Some(Bytes::from_static(b"new")), None, None]);
    assert_eq!(names(engine, check).await, ["a"]);
}

async fn stamps_grow_with_commits<E: Engine>(engine: &E) {
    let mut last = [0; 10];
    for _ in 0..10 {
        let set = async |txn: &mut E::Txn<'_>| txn.set(&key("stamps", "a"), Bytes::new());
        let (_, stamp) = commit(engine, set).await;
        assert!(stamp > last, "R1: a later commit has a greater stamp");
        last = stamp;
    }
}

async fn stamped_keys_sort_in_commit_order<E: Engine>(engine: &E) {
    let check = "stamped keys";
    clear(engine, check).await;
    let prefix = key(check, "");
    let mut expected = Vec::new();
    for _ in 0..3 {
        let append = async |txn: &mut E::Txn<'_>| {
            for index in [1u16, 0, 256] {
                let value = Bytes::copy_from_slice(&index.to_be_bytes());
                txn.set_versionstamped_key(&prefix, index, b"end", value);
            }
        };
        let (_, stamp) = commit(engine, append).await;
        for index in [0u16, 1, 256] {
            expected.push([&prefix[..], &stamp, &index.to_be_bytes(), b"end"].concat());
        }
    }
    let (from, to) = span(check);
    let read = async |txn: &mut E::Txn<'_>| txn.range(RangeQuery::all(&from, &to)).await;
    let page = commit(engine, read).await.0.expect("reads");
    let found: Vec<_> = page.pairs.iter().map(|(key, _)| key.to_vec()).collect();
    assert_eq!(found, expected);
    assert_eq!(&page.pairs[2].1[..], 256u16.to_be_bytes());
}

async fn stamped_values_hold_the_stamp_of_their_commit<E: Engine>(engine: &E) {
    let at = key("stamped values", "a");
    let set = async |txn: &mut E::Txn<'_>| txn.set_versionstamped_value(&at, b"<", 7, b">");
    let (_, stamp) = commit(engine, set).await;
    let expected = [b"<", &stamp[..], &7u16.to_be_bytes(), b">"].concat();
    assert_eq!(get(engine, &at).await.expect("is there"), expected);
}

async fn ranges_keep_to_limits_and_go_on<E: Engine>(engine: &E) {
    let check = "ranges";
    let all = ["a", "b", "c", "d", "e"];
    fill(engine, check, &all).await;
    for order in [Order::Forward, Order::Reverse] {
        let mut found = Vec::new();
        let (mut from, mut to) = span(check);
        loop {
            let read = async |txn: &mut E::Txn<'_>| {
                let query = RangeQuery {
                    order,
                    ..RangeQuery::all(&from, &to).limit(2)
                };
                txn.range(query).await
            };
            let page = commit(engine, read).await.0.expect("reads");
            assert!(page.pairs.len() <= 2);
            found.extend(page.pairs.iter().map(|(_, value)| value.clone()));
            let Some((last, _)) = page.pairs.last().filter(|_| page.more) else {
                break;
            };
            match order {
                Order::Forward => from = [last, &[0][..]].concat(),
                Order::Reverse => to = last.to_vec(),
            }
        }
        if order == Order::Reverse {
            found.reverse();
        }
        assert_eq!(found, all);
    }
    let (from, to) = span(check);
    let read = async |txn: &mut E::Txn<'_>| {
        let query = RangeQuery {
            bytes_max: 0,
            ..RangeQuery::all(&from, &to)
        };
        let first = txn.range(query).await.expect("reads");
        let empty = txn.range(RangeQuery::all(&to, &from)).await.expect("reads");
        (first, empty)
    };
    let ((first, empty), _) = commit(engine, read).await;
    assert_eq!(first.pairs.len(), 1, "a first pair is always read");
    assert!(first.more && empty.pairs.is_empty() && !empty.more);
}

async fn ranges_see_own_writes_over_committed_ones<E: Engine>(engine: &E) {
    let check = "merge";
    fill(engine, check, &["a", "c", "e"]).await;
    let (from, to) = span(check);
    let body = async |txn: &mut E::Txn<'_>| {
        txn.set(&key(check, "b"), Bytes::from_static(b"b"));
        txn.set(&key(check, "c"), Bytes::from_static(b"C"));
        txn.clear(&key(check, "e"));
        let forward = txn.range(RangeQuery::all(&from, &to)).await.expect("reads");
        let query = RangeQuery {
            order: Order::Reverse,
            ..RangeQuery::all(&from, &to)
        };
        let mut reverse = txn.range(query).await.expect("reads");
        reverse.pairs.reverse();
        assert_eq!(forward.pairs, reverse.pairs);
        forward
            .pairs
            .into_iter()
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
    };
    assert_eq!(commit(engine, body).await.0, ["a", "b", "C"]);
}

async fn cleared_ranges_are_gone_and_no_more_than_they<E: Engine>(engine: &E) {
    let check = "clear";
    fill(engine, check, &["a", "b", "c", "d"]).await;
    let body = async |txn: &mut E::Txn<'_>| {
        txn.set(&key(check, "bb"), Bytes::new());
        txn.clear_range(&key(check, "b"), &key(check, "d"));
        txn.set(&key(check, "c"), Bytes::new());
    };
    commit(engine, body).await;
    assert_eq!(names(engine, check).await, ["a", "c", "d"]);
}

async fn known_ranges_are_cleared_too<E: Engine>(engine: &E) {
    let check = "clear known";
    fill(engine, check, &["a", "b", "c"]).await;
    let body = async |txn: &mut E::Txn<'_>| {
        let keys = [key(check, "a").into(), key(check, "b").into()];
        txn.clear_range_known(&key(check, "a"), &key(check, "c"), &keys);
    };
    commit(engine, body).await;
    assert_eq!(names(engine, check).await, ["c"]);
}

async fn additions_add_up<E: Engine>(engine: &E) {
    let check = "add";
    clear(engine, check).await;
    let at = key(check, "n");
    for _ in 0..3 {
        commit(engine, async |txn: &mut E::Txn<'_>| {
            txn.atomic_add(&at, 2);
            txn.atomic_add(&at, u64::MAX);
        })
        .await;
    }
    assert_eq!(
        get(engine, &at).await.expect("is there"),
        3u64.to_le_bytes()[..]
    );
}

async fn what_is_too_large_is_refused_whole<E: Engine>(engine: &E) {
    let check = "large";
    clear(engine, check).await;
    let body = async |txn: &mut E::Txn<'_>| {
        txn.set(&key(check, "small"), Bytes::new());
        txn.set(
            &key(check, "large"),
            Bytes::from(vec![0; VALUE_BYTES_MAX + 1]),
        );
    };
    let (_, refused) = engine.transact(body).await;
    assert_eq!(refused, Err(TxnError::TooLarge));
    assert!(names(engine, check).await.is_empty());
    let body = async |txn: &mut E::Txn<'_>| {
        txn.set(&key(check, "limit"), Bytes::from(vec![0; VALUE_BYTES_MAX]));
    };
    commit(engine, body).await;
    assert_eq!(names(engine, check).await, ["limit"]);
}

async fn a_transaction_that_is_too_large_is_refused_whole<E: Engine>(engine: &E) {
    let check = "large whole";
    clear(engine, check).await;
    let value = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    let body = async |txn: &mut E::Txn<'_>| {
        for number in 0..=TXN_BYTES_MAX / VALUE_BYTES_MAX {
            txn.set(&key(check, &number.to_string()), value.clone());
        }
    };
    let (_, refused) = engine.transact(body).await;
    assert_eq!(refused, Err(TxnError::TooLarge));
    assert!(names(engine, check).await.is_empty());
}

async fn limited_ranges_go_on_over_own_writes<E: Engine>(engine: &E) {
    let check = "merge pages";
    fill(engine, check, &["a", "b", "c", "d", "e", "f"]).await;
    let body = async |txn: &mut E::Txn<'_>| {
        txn.clear_range(&key(check, "a"), &key(check, "c"));
        txn.set(&key(check, "bb"), Bytes::from_static(b"bb"));
        txn.clear(&key(check, "d"));
        txn.set(&key(check, "g"), Bytes::from_static(b"g"));
        let mut forward = Vec::new();
        let (mut from, to) = span(check);
        loop {
            let query = RangeQuery::all(&from, &to).limit(1);
            let page = txn.range(query).await.expect("reads");
            forward.extend(page.pairs.iter().map(|(_, value)| value.clone()));
            let Some((last, _)) = page.pairs.last().filter(|_| page.more) else {
                break;
            };
            from = [last, &[0][..]].concat();
        }
        let (from, mut to) = span(check);
        let mut reverse = Vec::new();
        loop {
            let query = RangeQuery {
                order: Order::Reverse,
                ..RangeQuery::all(&from, &to).limit(2)
            };
            let page = txn.range(query).await.expect("reads");
            reverse.extend(page.pairs.iter().map(|(_, value)| value.clone()));
            let Some((last, _)) = page.pairs.last().filter(|_| page.more) else {
                break;
            };
            to = last.to_vec();
        }
        reverse.reverse();
        (forward, reverse)
    };
    let ((forward, reverse), _) = commit(engine, body).await;
    assert_eq!(forward, ["bb", "c", "e", "f", "g"]);
    assert_eq!(reverse, forward);
}

async fn open<E: ConcurrentEngine>(engine: &E) -> E::Open {
    engine.begin().await.expect("begins")
}

async fn a_read_that_was_overwritten_conflicts<E: ConcurrentEngine>(engine: &E) {
    let at = key("conflict", "a");
    let (mut one, mut two) = (open(engine).await, open(engine).await);
    one.get(&at, Read::Serializable).await.expect("reads");
    two.set(&at, Bytes::from_static(b"two"));
    two.commit().await.expect("commits");
    one.set(&key("conflict", "b"), Bytes::new());
    assert_eq!(one.commit().await, Err(TxnError::Conflict));
    assert_eq!(get(engine, &key("conflict", "b")).await, None);
}

async fn a_range_conflicts_with_a_key_put_into_it<E: ConcurrentEngine>(engine: &E) {
    let check = "phantom";
    fill(engine, check, &["a", "c"]).await;
    let (from, to) = span(check);
    let (mut one, mut two) = (open(engine).await, open(engine).await);
    one.range(RangeQuery::all(&from, &to)).await.expect("reads");
    two.set_versionstamped_key(&from, 0, &[], Bytes::new());
    two.commit().await.expect("commits");
    one.set(&key(check, "z"), Bytes::new());
    assert_eq!(one.commit().await, Err(TxnError::Conflict));
}

async fn snapshot_reads_and_blind_writes_never_conflict<E: ConcurrentEngine>(engine: &E) {
    let at = key("blind", "a");
    let (mut one, mut two) = (open(engine).await, open(engine).await);
    one.get(&at, Read::Snapshot).await.expect("reads");
    two.set(&at, Bytes::from_static(b"two"));
    two.atomic_add(&key("blind", "n"), 1);
    two.commit().await.expect("commits");
    one.set(&at, Bytes::from_static(b"one"));
    one.atomic_add(&key("blind", "n"), 1);
    one.commit().await.expect("commits, and last");
    assert_eq!(get(engine, &at).await.expect("is there"), "one");
}

async fn reads_stay_at_their_version<E: ConcurrentEngine>(engine: &E) {
    let check = "version";
    fill(engine, check, &["a"]).await;
    let (from, to) = span(check);
    let mut one = open(engine).await;
    // FoundationDB takes its read version with the first read.
    one.get(&from, Read::Snapshot).await.expect("reads");
    fill(engine, check, &["b"]).await;
    let page = one.range(RangeQuery::all(&from, &to)).await.expect("reads");
    assert_eq!(page.pairs.len(), 1);
    assert_eq!(page.pairs[0].1, "a");
}

async fn what_a_limited_range_did_not_reach_does_not_conflict<E: ConcurrentEngine>(engine: &E) {
    let check = "reach";
    fill(engine, check, &["a", "b", "c"]).await;
    let (from, to) = span(check);
    let (mut one, mut two) = (open(engine).await, open(engine).await);
    one.range(RangeQuery::all(&from, &to).limit(1))
        .await
        .expect("reads");
    two.set(&key(check, "c"), Bytes::new());
    two.commit().await.expect("commits");
    one.set(&key(check, "d"), Bytes::new());
    one.commit().await.expect("commits");
}

async fn stamped_writes_cannot_be_read_by_their_own<E: ConcurrentEngine>(engine: &E) {
    let at = key("unreadable", "a");
    let mut one = open(engine).await;
    one.set_versionstamped_value(&at, b"", 0, b"");
    assert_eq!(
        one.get(&at, Read::Snapshot).await,
        Err(TxnError::Unreadable)
    );
}

async fn stamps_are_in_the_order_of_commits_and_not_of_beginnings<E: ConcurrentEngine>(engine: &E) {
    let check = "order";
    clear(engine, check).await;
    let (from, to) = span(check);
    let mut first = open(engine).await;
    first.get(&from, Read::Snapshot).await.expect("reads");
    let mut second = open(engine).await;
    first.set_versionstamped_key(&from, 0, &[], Bytes::from_static(b"first"));
    second.set_versionstamped_key(&from, 0, &[], Bytes::from_static(b"second"));
    let early = second.commit().await.expect("commits");
    let mut between = open(engine).await;
    let seen = between.range(RangeQuery::all(&from, &to)).await;
    assert_eq!(seen.expect("reads").pairs.len(), 1);
    let late = first.commit().await.expect("commits");
    assert!(early < late, "R1: commit order");
    let read = async |txn: &mut E::Txn<'_>| txn.range(RangeQuery::all(&from, &to)).await;
    let page = commit(engine, read).await.0.expect("reads");
    let values: Vec<_> = page.pairs.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(
        values,
        ["second", "first"],
        "R4: nothing is put below what was read"
    );
}

async fn every_kind_of_write_conflicts_with_a_read_of_it<E: ConcurrentEngine>(engine: &E) {
    let check = "kinds";
    let at = key(check, "a");
    let (from, to) = span(check);
    type Write<T> = fn(&mut T, &[u8], (&[u8], &[u8]));
    let writes: [Write<E::Open>; 5] = [
        |txn, at, _| txn.set(at, Bytes::new()),
        |txn, at, _| txn.clear(at),
        |txn, _, (from, to)| txn.clear_range(from, to),
        |txn, at, _| txn.atomic_add(at, 1),
        |txn, at, _| txn.set_versionstamped_value(at, &[], 0, &[]),
    ];
    for (number, write) in writes.into_iter().enumerate() {
        fill(engine, check, &["a"]).await;
        let (mut one, mut two) = (open(engine).await, open(engine).await);
        one.get(&at, Read::Serializable).await.expect("reads");
        write(&mut two, &at, (&from, &to));
        two.commit().await.expect("commits");
        one.set(&key(check, "z"), Bytes::new());
        assert_eq!(one.commit().await, Err(TxnError::Conflict), "{number}");
    }
}

async fn a_range_read_from_its_end_conflicts_as_far_as_it_reached<E: ConcurrentEngine>(engine: &E) {
    let check = "reach back";
    fill(engine, check, &["a", "b", "c"]).await;
    let (from, to) = span(check);
    for (touched, expected) in [("a", None), ("cc", Some(TxnError::Conflict))] {
        let (mut one, mut two) = (open(engine).await, open(engine).await);
        let query = RangeQuery {
            order: Order::Reverse,
            ..RangeQuery::all(&from, &to).limit(1)
        };
        let page = one.range(query).await.expect("reads");
        assert_eq!(page.pairs[0].1, "c");
        two.set(&key(check, touched), Bytes::new());
        two.commit().await.expect("commits");
        one.set(&key(check, "0"), Bytes::new());
        assert_eq!(one.commit().await.err(), expected, "{touched}");
    }
}

async fn reading_alone_never_conflicts<E: ConcurrentEngine>(engine: &E) {
    let at = key("read alone", "a");
    let (mut one, mut two) = (open(engine).await, open(engine).await);
    one.get(&at, Read::Serializable).await.expect("reads");
    two.set(&at, Bytes::new());
    two.commit().await.expect("commits");
    one.commit().await.expect("it wrote nothing");
}
