//! The store against a model of itself, through restarts, cuts and damage.

use diolkos_storage::{ChangeKind, CommitError, Draft, Durability, Edit, Expect, OpenError, Options, Store, Write};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn small() -> Options {
    Options { segment_bytes: 4096, snapshot_bytes: 8192, ..Options::default() }
}

fn draft(text: &str) -> Draft {
    Draft::new(format!(r#"{{"v":"{text}","resourceVersion":""#), r#""}"#)
}

fn put(name: &str, expect: Expect, text: &str) -> Write {
    let durability = Durability::Synced;
    Write {
        resource: "pods".into(),
        namespace: "ns".into(),
        name: name.into(),
        expect,
        edit: Edit::Put(draft(text)),
        durability,
    }
}

fn delete(name: &str, expect: Expect) -> Write {
    Write { edit: Edit::Delete(draft("gone")), ..put(name, expect, "") }
}

fn contents(store: &Store) -> BTreeMap<String, (u64, String)> {
    let page = store.list("pods", None, None, None);
    let entry = |entry: diolkos_storage::Entry| {
        let text = String::from_utf8(entry.record.bytes.to_vec()).unwrap();
        (entry.name.to_string(), (entry.record.revision, text))
    };
    page.items.into_iter().map(entry).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    all.sort();
    all
}

#[tokio::test]
async fn preconditions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), small()).unwrap();
    let first = store.commit(put("a", Expect::Absent, "1")).await.unwrap();
    assert_eq!(&first.bytes[..], br#"{"v":"1","resourceVersion":"1"}"#);
    assert_eq!(store.commit(put("a", Expect::Absent, "2")).await, Err(CommitError::Exists(first.clone())));
    assert_eq!(store.commit(put("a", Expect::Revision(7), "2")).await, Err(CommitError::Stale(first.clone())));
    assert_eq!(store.commit(put("b", Expect::Revision(1), "2")).await, Err(CommitError::NotFound));
    assert_eq!(store.commit(delete("b", Expect::Any)).await, Err(CommitError::NotFound));
    let second = store.commit(put("a", Expect::Revision(1), "2")).await.unwrap();
    assert_eq!(second.revision, 2);
    assert_eq!(store.commit(delete("a", Expect::Revision(2))).await.unwrap().revision, 3);
    assert_eq!(store.get("pods", "ns", "a"), None);
}

#[tokio::test]
async fn a_watcher_sees_every_revision_once_in_order_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
    let mut watch = store.watch("pods", Some("ns"), 0).unwrap();
    store.commit(put("a", Expect::Absent, "1")).await.unwrap();
    store.commit(put("a", Expect::Any, "2")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    store.commit(delete("a", Expect::Any)).await.unwrap();
    drop(store);
    let update = watch.next().await.unwrap().unwrap();
    assert_eq!((update.kind, update.revision), (ChangeKind::Updated, 2));
    assert_eq!(update.previous.unwrap().revision, 1);
    drop(watch);
    let (store, recovery) = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!((recovery.objects, recovery.revision, recovery.cut), (0, 3, 0));
    let mut watch = store.watch("pods", None, 2).unwrap();
    let gone = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (gone.kind, gone.revision, &gone.bytes[..]),
        (ChangeKind::Deleted, 3, &br#"{"v":"gone","resourceVersion":"3"}"#[..])
    );
}

#[tokio::test]
async fn an_older_list_goes_on_as_of_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        store.commit(put(name, Expect::Absent, name)).await.unwrap();
    }
    let first = store.list("pods", None, None, Some(2));
    store.commit(delete("c", Expect::Any)).await.unwrap();
    store.commit(put("d", Expect::Any, "new")).await.unwrap();
    store.commit(put("cc", Expect::Absent, "new")).await.unwrap();
    let names = |page: &diolkos_storage::Page| {
        page.items.iter().map(|e| (e.name.to_string(), e.record.revision)).collect::<Vec<_>>()
    };
    let second = store.list_at("pods", None, Some(("ns", "b")), Some(2), first.revision).unwrap();
    assert_eq!(names(&second), [("c".into(), 3), ("d".into(), 4)]);
    assert!(second.more);
    let third = store.list_at("pods", None, Some(("ns", "d")), Some(2), first.revision).unwrap();
    assert_eq!(names(&third), [("e".into(), 5)]);
    assert!(!third.more);
}

#[tokio::test]
async fn rotation_and_snapshots_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), small()).unwrap();
    for round in 0..40 {
        for name in 0..10 {
            store.commit(put(&format!("n{name}"), Expect::Any, &format!("{round}-{}", "x".repeat(100)))).await.unwrap();
        }
        store.commit(delete(&format!("n{}", round % 10), Expect::Any)).await.unwrap();
    }
    let before = contents(&store);
    drop(store);
    assert!(
        !segments(dir.path())[0].to_string_lossy().ends_with("log-0000000000000001.seg"),
        "snapshots discard old segments"
    );
    let (store, _) = Store::open(dir.path(), small()).unwrap();
    assert_eq!(contents(&store), before);
}

#[tokio::test]
async fn damage_in_the_middle_refuses_to_start_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
    for i in 0..5 {
        store.commit(put(&format!("n{i}"), Expect::Absent, "x")).await.unwrap();
    }
    drop(store);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 32 + 5] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let error = loop {
        match Store::open(dir.path(), Options::default()) {
            Err(OpenError::InUse(_)) => {}
            Err(error) => break error.to_string(),
            Ok(_) => panic!("opened a damaged store"),
        }
    };
    assert!(error.contains("log-0000000000000001.seg: damaged at byte 64"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is changed on disk");
}

#[tokio::test]
async fn two_processes_cannot_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path(), small()).unwrap();
    assert!(matches!(Store::open(dir.path(), small()), Err(OpenError::InUse(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever is done, and wherever the last file is cut, the store opens with a prefix of what was done, and with all of it when nothing is cut.
    #[test]
    fn every_cut_leaves_a_prefix(ops in prop::collection::vec((0u8..6, 0u8..4), 1..60), cut in 0usize..600) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut history = vec![BTreeMap::new()];
        let (store, _) = Store::open(dir.path(), small()).unwrap();
        for (i, (name, action)) in ops.iter().enumerate() {
            let name = format!("n{name}");
            let write = if *action == 0 { delete(&name, Expect::Any) } else { put(&name, Expect::Any, &i.to_string()) };
            if runtime.block_on(store.commit(write)).is_ok() {
                history.push(contents(&store));
            }
        }
        drop(store);
        let path = segments(dir.path()).pop().unwrap();
        // The end of the written part, not of the preallocated zeros.
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let keep = end.saturating_sub(cut).max(64);
        let (store, _) = {
            let mut bytes = bytes;
            bytes.truncate(keep.min(end));
            loop {
                fs::write(&path, &bytes).unwrap();
                match Store::open(dir.path(), small()) {
                    Ok(opened) => break opened,
                    Err(OpenError::InUse(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let now = contents(&store);
        prop_assert!(history.contains(&now), "{now:?} was never the state");
        if cut == 0 {
            prop_assert_eq!(Some(&now), history.last());
        }
        // And it goes on from there.
        runtime.block_on(store.commit(put("after", Expect::Absent, "x"))).unwrap();
    }
}
