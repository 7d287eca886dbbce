//! One function a duty. Each takes an empty store and panics if the engine does not do its duty.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use bytes::Bytes;
use holdfast_types::Family;

use super::{Factory, Subject};
use crate::engine::{Batch, Direction, Engine, EngineError, Row, Seq, View};

/// Steps of a batch take effect in their order.
pub async fn a_batch_applies_in_order<S: Subject>(subject: S) {
    let engine = subject.engine();
    let mut batch = Batch::default();
    batch.put(Family::Account, "a", "1");
    batch.put(Family::Account, "a", "2");
    batch.put(Family::Account, "b", "1");
    batch.delete(Family::Account, "b");
    batch.put(Family::Account, "c", "1");
    batch.delete_range(Family::Account, "c", "d");
    batch.delete_range(Family::Account, "e", "f");
    batch.put(Family::Account, "e", "1");
    batch.delete(Family::Account, "never there");
    write(&*engine, batch);
    assert_eq!(
        rows(&*engine.view(), Family::Account),
        pairs(&[("a", "2"), ("e", "1")])
    );
    // And so do batches.
    write(&*engine, put("a", "3"));
    write(&*engine, put("a", "4"));
    assert_eq!(get(&*engine.view(), "a").as_deref(), Some(&b"4"[..]));
    // An empty batch is fine.
    write(&*engine, Batch::default());
}

/// No view sees part of a batch, and a view taken after the write sees all of it.
pub async fn a_batch_is_visible_as_a_whole<S: Subject>(subject: S) {
    let engine = subject.engine();
    let before = engine.view();
    let mut batch = Batch::default();
    for family in Family::ALL {
        batch.put(family, "k", "v");
    }
    write(&*engine, batch);
    let after = engine.view();
    for family in Family::ALL {
        assert_eq!(rows(&*before, family), pairs(&[]), "{family:?} before");
        assert_eq!(rows(&*after, family), pairs(&[("k", "v")]), "{family:?} after");
    }
}

/// The same key in two families is two rows, and a range delete in one leaves the other alone.
pub async fn families_are_apart<S: Subject>(subject: S) {
    let engine = subject.engine();
    let mut batch = Batch::default();
    for family in Family::ALL {
        batch.put(family, "k", family.name());
    }
    batch.delete_range(Family::Claim, "a", "z");
    write(&*engine, batch);
    let view = engine.view();
    for family in Family::ALL {
        let expected = if family == Family::Claim {
            pairs(&[])
        } else {
            pairs(&[("k", family.name())])
        };
        assert_eq!(rows(&*view, family), expected, "{family:?}");
    }
}

/// Sequences rise with each batch, and a sync returns at least that of the last write before it.
pub async fn sequences_grow<S: Subject>(subject: S) {
    let engine = subject.engine();
    let mut last = Seq(0);
    for round in 0..5 {
        let seq = write(&*engine, put("a", &round.to_string()));
        assert!(seq > last, "{seq:?} after {last:?}");
        last = seq;
        let synced = engine.sync().await.expect("a healthy engine syncs");
        assert!(synced >= seq, "synced {synced:?}, written {seq:?}");
    }
    let flushed = engine.flush().await.expect("a healthy engine flushes");
    assert!(flushed >= last);
}

/// A view never changes, whatever is written, flushed or ingested later.
pub async fn views_are_frozen<S: Subject>(subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    write(&*engine, put("b", "1"));
    let view = engine.view();
    let mut batch = Batch::default();
    batch.put(Family::Account, "a", "2");
    batch.delete_range(Family::Account, "b", "c");
    batch.put(Family::Account, "c", "2");
    write(&*engine, batch);
    engine.flush().await.expect("a healthy engine flushes");
    ingest(&*engine, vec![(Family::Account, pairs(&[("a", "3")]))]).await;
    assert_eq!(rows(&*view, Family::Account), pairs(&[("a", "1"), ("b", "1")]));
    assert_eq!(get(&*view, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(
        rows(&*engine.view(), Family::Account),
        pairs(&[("a", "3"), ("c", "2")])
    );
}

/// Values come in the order of the keys asked for: absent, repeated and unsorted keys included.
pub async fn multi_get_keeps_the_order_of_its_keys<S: Subject>(subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    write(&*engine, put("b", "2"));
    let view = engine.view();
    let keys: [&[u8]; 5] = [b"b", b"x", b"a", b"b", b""];
    let values = view
        .multi_get(Family::Account, &keys)
        .expect("a healthy engine reads");
    let expected = [Some("2"), None, Some("1"), Some("2"), None].map(|value| value.map(Bytes::from));
    assert_eq!(values, expected);
    assert_eq!(
        view.multi_get(Family::Account, &[])
            .expect("a healthy engine reads"),
        []
    );
}

/// Each kind of bound, both ways; empty and inverted ranges yield nothing.
pub async fn scans_stay_within_their_bounds<S: Subject>(subject: S) {
    let engine = subject.engine();
    for key in ["b", "d", "f"] {
        write(&*engine, put(key, key));
    }
    // A neighbour beyond either end, in the families next door too.
    let mut batch = Batch::default();
    batch.put(Family::Credential, "a", "a");
    batch.put(Family::Activity, "z", "z");
    write(&*engine, batch);
    let view = engine.view();
    type Case = (
        Bound<&'static [u8]>,
        Bound<&'static [u8]>,
        &'static [&'static str],
    );
    let cases: [Case; 14] = [
        (Unbounded, Unbounded, &["b", "d", "f"]),
        (Included(b"b"), Included(b"f"), &["b", "d", "f"]),
        (Excluded(b"b"), Excluded(b"f"), &["d"]),
        (Included(b"a"), Excluded(b"d"), &["b"]),
        (Included(b"c"), Unbounded, &["d", "f"]),
        (Excluded(b"d"), Unbounded, &["f"]),
        (Unbounded, Included(b"d"), &["b", "d"]),
        (Unbounded, Excluded(b"d"), &["b"]),
        (Included(b"d"), Included(b"d"), &["d"]),
        (Included(b"d"), Excluded(b"d"), &[]),
        (Excluded(b"d"), Excluded(b"d"), &[]),
        (Included(b"g"), Unbounded, &[]),
        (Unbounded, Excluded(b"b"), &[]),
        (Included(b"f"), Included(b"b"), &[]),
    ];
    for (from, to, expected) in cases {
        let mut expected: Vec<Row> = expected.iter().map(|key| row(key, key)).collect();
        let context = format!("{from:?} to {to:?}");
        assert_eq!(
            scan(&*view, Family::Account, from, to, Direction::Forward),
            expected,
            "{context}"
        );
        expected.reverse();
        assert_eq!(
            scan(&*view, Family::Account, from, to, Direction::Backward),
            expected,
            "{context}"
        );
    }
    // A scan may be left early.
    let first = view
        .scan(Family::Account, Unbounded, Unbounded, Direction::Backward)
        .next();
    assert_eq!(
        first.expect("there are rows").expect("a healthy engine reads"),
        row("f", "f")
    );
}

/// Keys compare as unsigned bytes, a prefix before what it begins; the empty key is a key.
pub async fn keys_sort_as_bytes<S: Subject>(subject: S) {
    let engine = subject.engine();
    let sorted: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"\x01", b"\x7f\xff", b"\x80", b"\xff\xff"];
    let mut batch = Batch::default();
    for key in sorted.iter().rev() {
        batch.put(Family::Due, key.to_vec(), "");
    }
    write(&*engine, batch);
    let found: Vec<Bytes> = rows(&*engine.view(), Family::Due)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(found, sorted);
}

/// From (inclusive) to end (exclusive); inverted and empty ranges delete nothing.
pub async fn delete_range_ends_before_its_end<S: Subject>(subject: S) {
    let engine = subject.engine();
    for key in ["a", "b", "bb", "c", "d"] {
        write(&*engine, put(key, "1"));
    }
    let delete = |from: &'static str, to: &'static str| {
        let mut batch = Batch::default();
        batch.delete_range(Family::Account, from, to);
        write(&*engine, batch);
    };
    delete("d", "b");
    delete("b", "b");
    assert_eq!(rows(&*engine.view(), Family::Account).len(), 5);
    delete("b", "c");
    assert_eq!(
        rows(&*engine.view(), Family::Account),
        pairs(&[("a", "1"), ("c", "1"), ("d", "1")])
    );
    // Later writes into the range stay, also after the deletion reached files.
    write(&*engine, put("bb", "2"));
    engine.flush().await.expect("a healthy engine flushes");
    assert_eq!(get(&*engine.view(), "bb").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(&*engine.view(), "b"), None);
}

/// Ingested rows replace rows of the same key, leave the others, and may be nothing at all.
pub async fn ingest_replaces<S: Subject>(subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "old"));
    write(&*engine, put("b", "old"));
    let claims = pairs(&[("x", "new"), ("y", "new")]);
    let accounts = pairs(&[("a", "new"), ("c", "new")]);
    ingest(
        &*engine,
        vec![(Family::Account, accounts), (Family::Claim, claims.clone())],
    )
    .await;
    ingest(&*engine, vec![(Family::Due, Vec::new())]).await;
    ingest(&*engine, Vec::new()).await;
    let view = engine.view();
    assert_eq!(
        rows(&*view, Family::Account),
        pairs(&[("a", "new"), ("b", "old"), ("c", "new")])
    );
    assert_eq!(rows(&*view, Family::Claim), claims);
    write(&*engine, put("a", "newer"));
    assert_eq!(get(&*engine.view(), "a").as_deref(), Some(&b"newer"[..]));
}

/// Installing a snapshot deletes ranges, then ingests: the deletion must not catch what was ingested, also
/// after a restart.
pub async fn ingest_wins_over_an_earlier_range_delete<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "old"));
    write(&*engine, put("b", "old"));
    let mut batch = Batch::default();
    batch.delete_range(Family::Account, "a", "z");
    write(&*engine, batch);
    ingest(
        &*engine,
        vec![(Family::Account, pairs(&[("b", "new"), ("c", "new")]))],
    )
    .await;
    assert_eq!(
        rows(&*engine.view(), Family::Account),
        pairs(&[("b", "new"), ("c", "new")])
    );
    drop(engine);
    subject.reopen().await;
    assert_eq!(
        rows(&*subject.engine().view(), Family::Account),
        pairs(&[("b", "new"), ("c", "new")])
    );
}

/// A process that ends loses nothing that it wrote, synced or not.
pub async fn a_restart_keeps_everything<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    engine.sync().await.expect("a healthy engine syncs");
    let seq = write(&*engine, put("b", "2"));
    drop(engine);
    subject.reopen().await;
    let engine = subject.engine();
    assert_eq!(
        rows(&*engine.view(), Family::Account),
        pairs(&[("a", "1"), ("b", "2")])
    );
    assert!(
        write(&*engine, put("c", "3")) > seq,
        "sequences go on after a restart"
    );
}

/// What a sync covered survives a power failure.
pub async fn a_crash_keeps_what_was_synced<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    for round in 0..20 {
        write(&*engine, put("a", &round.to_string()));
    }
    engine.sync().await.expect("a healthy engine syncs");
    drop(engine);
    if !subject.crash().await {
        return;
    }
    let engine = subject.engine();
    assert_eq!(get(&*engine.view(), "a").as_deref(), Some(&b"19"[..]));
    write(&*engine, put("a", "after"));
    assert_eq!(get(&*engine.view(), "a").as_deref(), Some(&b"after"[..]));
}

/// A node that starts takes what it finds for durable: its own log, its own vote. So opening makes it durable.
pub async fn what_an_open_finds_is_durable<S: Subject>(mut subject: S) {
    write(&*subject.engine(), put("a", "1"));
    subject.reopen().await;
    assert_eq!(get(&*subject.engine().view(), "a").as_deref(), Some(&b"1"[..]));
    if subject.crash().await {
        assert_eq!(get(&*subject.engine().view(), "a").as_deref(), Some(&b"1"[..]));
    }
}

/// A flush and an ingest are durable when they return.
pub async fn a_crash_keeps_what_was_flushed_or_ingested<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    engine.flush().await.expect("a healthy engine flushes");
    ingest(&*engine, vec![(Family::Claim, pairs(&[("x", "1")]))]).await;
    drop(engine);
    if !subject.crash().await {
        return;
    }
    let view = subject.engine().view();
    assert_eq!(get(&*view, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(rows(&*view, Family::Claim), pairs(&[("x", "1")]));
}

/// A crash keeps a prefix of the batches, each whole: of two rows in one batch both or none, and no later batch
/// without the earlier ones. Tried on many stores, because where a crash cuts is chance.
pub async fn a_crash_keeps_whole_batches<F: Factory>(factory: &F) {
    for _ in 0..10 {
        let mut subject = factory.fresh().await;
        let engine = subject.engine();
        for round in 0..10_u8 {
            let mut batch = Batch::default();
            batch.put(Family::Account, vec![round], "");
            batch.put(Family::RaftLog, vec![round], "");
            write(&*engine, batch);
            if round == 3 {
                engine.sync().await.expect("a healthy engine syncs");
            }
        }
        drop(engine);
        if !subject.crash().await {
            return;
        }
        let view = subject.engine().view();
        let kept = rows(&*view, Family::Account);
        assert_eq!(kept, rows(&*view, Family::RaftLog), "part of a batch survived");
        assert!((4..=10).contains(&kept.len()), "{} batches survived", kept.len());
        for (round, (key, _)) in kept.iter().enumerate() {
            assert_eq!(key[..], [round as u8], "what survived is no prefix");
        }
    }
}

/// Two syncs under way at once both end well, and each covers what was written before it.
pub async fn syncs_may_overlap<S: Subject>(subject: S) {
    let engine = subject.engine();
    let first = write(&*engine, put("a", "1"));
    let (one, (second, two)) = tokio::join!(engine.sync(), async {
        let second = write(&*engine, put("b", "1"));
        (second, engine.sync().await)
    });
    assert!(one.expect("a healthy engine syncs") >= first);
    assert!(two.expect("a healthy engine syncs") >= second);
}

/// A checkpoint holds everything written before it and nothing after, and refuses a directory in use.
pub async fn a_checkpoint_is_a_store<S: Subject>(subject: S) {
    let Some(directory) = subject.checkpoint_directory() else {
        return;
    };
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    engine
        .checkpoint(&directory)
        .await
        .expect("a healthy engine takes checkpoints");
    write(&*engine, put("b", "1"));
    assert!(
        engine.checkpoint(&directory).await.is_err(),
        "a checkpoint overwrote another"
    );
    // A refused checkpoint is the caller's mistake and finishes nothing.
    engine.sync().await.expect("a healthy engine syncs");
    let copy = subject
        .open_checkpoint(&directory)
        .await
        .expect("checkpoints can be opened here");
    assert_eq!(rows(&*copy.view(), Family::Account), pairs(&[("a", "1")]));
}

/// Usage names every family and notices data.
pub async fn usage_is_reported<S: Subject>(subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", &"x".repeat(100_000)));
    engine.flush().await.expect("a healthy engine flushes");
    let usage = engine.usage().expect("a healthy engine knows its usage");
    let families: Vec<Family> = usage.families.iter().map(|(family, _)| *family).collect();
    assert_eq!(families, Family::ALL);
    assert!(usage.disk_bytes > 0);
    if let (Some(free), Some(total)) = (usage.disk_free_bytes, usage.disk_total_bytes) {
        assert!(free <= total);
    }
}

/// A value of several megabytes comes back as it was.
pub async fn large_values_survive<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    let value: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut batch = Batch::default();
    batch.put(Family::RaftLog, "large", value.clone());
    batch.put(Family::RaftLog, "empty", "");
    write(&*engine, batch);
    engine.sync().await.expect("a healthy engine syncs");
    drop(engine);
    subject.reopen().await;
    let view = subject.engine().view();
    let read = |key: &str| {
        view.get(Family::RaftLog, key.as_bytes())
            .expect("a healthy engine reads")
    };
    assert!(
        read("large").is_some_and(|found| found == value),
        "the value changed"
    );
    assert_eq!(read("empty"), Some(Bytes::new()));
}

/// A store whose reader met damage does not open again, until an operator decides otherwise.
pub async fn damage_is_remembered<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    engine.flush().await.expect("a healthy engine flushes");
    drop(engine);
    if !subject.damage(Family::Account, b"a").await {
        return;
    }
    // Nobody has met it yet.
    subject.reopen().await;
    let read = subject.engine().view().get(Family::Account, b"a");
    assert!(matches!(read, Err(EngineError::Damaged { .. })), "{read:?}");
    for _ in 0..2 {
        let opened = subject.try_reopen().await;
        assert!(matches!(opened, Err(EngineError::Damaged { .. })), "{opened:?}");
    }
}

/// And neither does one that a reader has condemned.
pub async fn what_is_condemned_stays_so<S: Subject>(mut subject: S) {
    let engine = subject.engine();
    write(&*engine, put("a", "1"));
    let damage = engine.condemn("a checksum is wrong".into());
    assert!(matches!(damage, EngineError::Damaged { .. }), "{damage}");
    let written = engine.write(put("a", "2"));
    assert!(matches!(written, Err(EngineError::Stopped { .. })), "{written:?}");
    let read = engine.view().get(Family::Account, b"a");
    assert!(matches!(read, Err(EngineError::Stopped { .. })), "{read:?}");
    drop(engine);
    let opened = subject.try_reopen().await;
    assert!(matches!(opened, Err(EngineError::Damaged { .. })), "{opened:?}");
}

pub(super) fn write(engine: &dyn Engine, batch: Batch) -> Seq {
    engine.write(batch).expect("a healthy engine writes")
}

pub(super) async fn ingest(engine: &dyn Engine, rows: Vec<(Family, Vec<Row>)>) {
    engine.ingest(rows).await.expect("a healthy engine ingests");
}

pub(super) fn scan(
    view: &dyn View,
    family: Family,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    direction: Direction,
) -> Vec<Row> {
    view.scan(family, from, to, direction)
        .map(|row| row.expect("a healthy engine reads"))
        .collect()
}

fn rows(view: &dyn View, family: Family) -> Vec<Row> {
    scan(view, family, Unbounded, Unbounded, Direction::Forward)
}

fn get(view: &dyn View, key: &str) -> Option<Bytes> {
    view.get(Family::Account, key.as_bytes())
        .expect("a healthy engine reads")
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(Family::Account, key.to_owned(), value.to_owned());
    batch
}

fn row(key: &str, value: &str) -> Row {
    (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()))
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<Row> {
    pairs.iter().map(|(key, value)| row(key, value)).collect()
}
