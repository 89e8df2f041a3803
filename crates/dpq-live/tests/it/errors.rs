//! Mistakes of a caller: one sentence each, and nothing is lost.

use dpq_live::{Assignment, Codebooks, Error, LiveIndex, Metric, SearchOptions, Snapshot};

use crate::common::{Change, Model, Random, codebooks, files, tempdir};
use crate::create;

#[test]
fn wrong_changes_are_refused_and_change_nothing() {
    let dir = tempdir();
    let folder = dir.path().join("live");
    let mut live = LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct).unwrap();
    let mut model = Model::default();
    model.change_both(&mut live, &Change::Upsert(7, vec![0, 1, 2], Some("seven".to_owned()))).unwrap();
    let messages = [
        live.delete(8).unwrap_err(),
        live.upsert(9, &[0, 1]).unwrap_err(),
        live.upsert(9, &[0, 1, 5]).unwrap_err(),
        live.upsert_named(9, &[0, 1, 2], "seven").unwrap_err(),
        live.upsert_features(&[9], &[0.5]).unwrap_err(),
        live.upsert_features(&[9, 10], &[0.5, 0.5]).unwrap_err(),
        live.upsert_features(&[9], &[0.5, f32::NAN]).unwrap_err(),
        live.set_max_tail(0).unwrap_err(),
        live.set_max_tail(65_537).unwrap_err(),
    ]
    .map(|error| error.to_string());
    assert_eq!(messages[0], "no item has the id 8, so it cannot be deleted");
    assert_eq!(messages[1], "the code of id 9 has 2 bytes, expected 3: one per level of the codebooks");
    assert_eq!(
        messages[2],
        "the code of id 9 has 5 at level 2, but there are 5 codewords: give codes that the codebooks of this live \
         index made"
    );
    assert_eq!(messages[3], "id 7 has the name \"seven\" already, give another name or delete that id first");
    assert!(messages.iter().all(|message| message.lines().count() == 1), "{messages:?}");
    live.commit().unwrap();
    model.check(&Snapshot::open(&folder).unwrap());
}

#[test]
fn a_rollback_leaves_the_last_commit() {
    let (_dir, folder, mut live) = create(&codebooks(1), Metric::Euclidean, 3);
    let (mut model, mut random) = (Model::default(), Random(5));
    for round in 0..30 {
        let mut dropped = model.clone();
        for _ in 0..random.below(12) {
            dropped.change_both(&mut live, &random.change(20)).unwrap();
        }
        if round % 3 == 0 {
            live.merge_step().unwrap();
        }
        let commit = live.snapshot().unwrap().commit();
        live.rollback();
        assert_eq!((live.len(), live.commit().unwrap()), (model.0.len(), commit));
        model.check(&live.snapshot().unwrap());
        for _ in 0..random.below(12) {
            model.change_both(&mut live, &random.change(20)).unwrap();
        }
        live.commit().unwrap();
        model.check(&Snapshot::open(&folder).unwrap());
    }
    // The files of what was dropped are gone with the next commit.
    let n_files = files(&folder).len();
    drop(live);
    LiveIndex::open(&folder).map(drop).unwrap();
    assert_eq!(files(&folder).len(), n_files);
}

/// A filter of an older commit could pass items that were deleted since.
#[test]
fn filters_belong_to_one_snapshot() {
    let (_dir, _folder, mut live) = create(&codebooks(1), Metric::InnerProduct, 1);
    (0..3).for_each(|id| live.upsert(id, &[0, 0, 0]).unwrap());
    live.commit().unwrap();
    let before = live.snapshot().unwrap();
    live.delete(0).unwrap();
    live.commit().unwrap();
    let after = live.snapshot().unwrap();
    let (old, new, options) = (before.allow(&[0, 1]), after.allow(&[0, 1]), SearchOptions::new(9));
    assert_eq!((old.len(), new.len()), (2, 1));
    assert_eq!(before.clone().search_filtered(&[0.5; 2], &options, &old).unwrap()[0].len(), 2);
    for error in [
        after.search_filtered(&[0.5; 2], &options, &old).unwrap_err(),
        old.and(&new).map(drop).unwrap_err(),
        old.or(&new).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Index(dpq_index::Error::ForeignFilter)), "{error}");
    }
}

#[test]
fn features_are_encoded_and_the_last_of_an_id_counts() {
    let dir = tempdir();
    let codebooks = codebooks(1);
    let mut live = LiveIndex::create(dir.path().join("live"), &codebooks, Metric::Euclidean).unwrap();
    let features = [0.3, -0.2, 0.9, 0.1, -0.5, 0.7];
    live.upsert_features(&[5, 6, 5], &features).unwrap();
    live.commit().unwrap();
    let codes = codebooks.encode(&features[2..]).unwrap();
    let (first, second) = codes.split_at(3);
    assert_eq!(live.snapshot().unwrap().ids_and_codes(), (vec![5, 6], [second, first].concat()));
}

#[test]
fn a_second_writer_is_refused_until_the_first_one_ends() {
    let dir = tempdir();
    let folder = dir.path().join("live");
    assert!(matches!(LiveIndex::open(&folder), Err(Error::NotLive { .. })));
    assert!(matches!(Snapshot::open(&folder), Err(Error::NotLive { .. })));
    let mut live = LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct).unwrap();
    for refused in [LiveIndex::open(&folder), LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct)]
    {
        let error = refused.map(drop).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        let expected = format!("another writer has {} open, wait for it or end it", folder.display());
        assert_eq!(error.to_string(), expected);
    }
    live.set_max_tail(1).unwrap();
    for id in 0..9 {
        live.upsert(id, &[0, 0, 0]).unwrap();
    }
    let merge = live.plan_merge().unwrap();
    drop(live);
    assert!(matches!(LiveIndex::open(&folder), Err(Error::Locked { .. })), "a merge still writes");
    drop(merge);
    let error = LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct).map(drop).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert!(LiveIndex::open(&folder).unwrap().is_empty(), "nothing was committed");
}

/// A codebook file of somebody else stays, and a folder of the same codebooks is taken.
#[test]
fn codebooks_of_others_are_not_replaced() {
    let dir = tempdir();
    let path = dir.path().join("codebook.safetensors");
    codebooks(2).save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let error = LiveIndex::create(dir.path(), &codebooks(1), Metric::InnerProduct).map(drop).unwrap_err();
        assert!(matches!(&error, Error::Foreign { path: found } if *found == path), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    LiveIndex::create(dir.path(), &codebooks(2), Metric::InnerProduct).unwrap();
}

/// A live index that lost its manifest is not taken for an empty folder.
#[test]
fn segments_without_a_manifest_are_kept() {
    let dir = tempdir();
    let mut live = LiveIndex::create(dir.path(), &codebooks(1), Metric::InnerProduct).unwrap();
    live.upsert(1, &vec![0; codebooks(1).n_levels()]).unwrap();
    live.compact().unwrap();
    live.commit().unwrap();
    drop(live);
    std::fs::remove_file(dir.path().join("manifest.dpq")).unwrap();
    let before = files(dir.path());
    let error = LiveIndex::create(dir.path(), &codebooks(1), Metric::InnerProduct).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Foreign { path } if path.ends_with("segment-1.dpq")), "{error}");
    assert_eq!(files(dir.path()), before);
}

/// A commit of codes whose norms overflow would be one that nobody opens.
#[test]
fn codebooks_whose_norms_overflow_are_refused() {
    let dir = tempdir();
    let codebooks = |x: f32| Codebooks::new(vec![x, x / 2.0], 2, 1, 1, Assignment::Euclidean).unwrap();
    let create = |x, metric, name| LiveIndex::create(dir.path().join(name), &codebooks(x), metric);
    let error = create(1.5e19, Metric::Euclidean, "live").map(drop).unwrap_err();
    assert!(matches!(error, Error::Codebook(_)), "{error}");
    assert!(files(dir.path()).is_empty());
    create(1.5e19, Metric::InnerProduct, "ip").unwrap();
    let mut live = create(7e18, Metric::Euclidean, "live").unwrap();
    live.upsert(1, &[0, 0]).unwrap();
    live.commit().unwrap();
    assert_eq!(live.snapshot().unwrap().len(), 1);
}

/// A merge that was finished by another live index, or after its segments were merged, is dropped.
#[test]
fn a_foreign_or_late_merge_is_dropped() {
    let dir = tempdir();
    let mut lives = [1, 2].map(|seed| {
        let folder = dir.path().join(seed.to_string());
        let mut live = LiveIndex::create(folder, &codebooks(seed), Metric::InnerProduct).unwrap();
        live.set_max_tail(1).unwrap();
        (0..9).for_each(|id| live.upsert(id, &[0, 0, 0]).unwrap());
        live
    });
    let [first, late] = [0, 0].map(|i: usize| lives[i].plan_merge().unwrap().run().unwrap());
    drop(lives[0].plan_merge().unwrap().run().unwrap());
    let foreign = lives[0].plan_merge().unwrap().run().unwrap();
    assert!(!lives[1].finish_merge(foreign));
    assert!(lives[0].finish_merge(first) && !lives[0].finish_merge(late));
    for live in &mut lives {
        live.commit().unwrap();
        let snapshot = live.snapshot().unwrap();
        snapshot.verify().unwrap();
        assert_eq!(snapshot.len(), 9);
    }
    // A manifest, codebooks, a lock and one segment.
    assert_eq!(files(&dir.path().join("1")).len(), 4);
}

/// A writer needs the right to write, a reader does not.
#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_is_read() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    let dir = tempdir();
    let folder = dir.path().join("live");
    let mut live = LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct).unwrap();
    live.upsert(3, &[0, 1, 2]).unwrap();
    live.commit().unwrap();
    drop(live);
    let lock = folder.join("writer.lock");
    set_permissions(&lock, Permissions::from_mode(0o444)).unwrap();
    set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    // Permissions do not bind root.
    let binds = std::fs::write(folder.join("probe"), "").is_err();
    let (before, opened) = (files(&folder), LiveIndex::open(&folder).map(drop));
    assert_eq!(Snapshot::open(&folder).unwrap().len(), 1);
    if binds {
        let error = opened.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot lock {}", lock.display()));
        assert_eq!(files(&folder), before);
    }
    set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn leftovers_are_swept_and_other_files_stay() {
    let dir = tempdir();
    let folder = dir.path().join("live");
    drop(LiveIndex::create(&folder, &codebooks(1), Metric::InnerProduct).unwrap());
    let own = files(&folder);
    let others = ["segment-x.dpq", "notes.txt", "segment-7.dpq.bak", ".dpq-1.txt"];
    for name in ["segment-7.dpq", "names-8.dpq", "deleted-9.dpq", ".dpq-17-3.tmp"].iter().chain(&others) {
        std::fs::write(folder.join(name), "").unwrap();
    }
    Snapshot::open(&folder).unwrap();
    assert_eq!(files(&folder).len(), own.len() + 8, "readers remove nothing");
    drop(LiveIndex::open(&folder).unwrap());
    let mut expected: Vec<String> = own.into_iter().chain(others.map(str::to_owned)).collect();
    expected.sort();
    assert_eq!(files(&folder), expected);
}
