//! Readers beside a writer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use dpq_live::{Metric, Snapshot};

use crate::common::{Change, Model, Random, codebooks, files};
use crate::create;

/// Two readers keep a snapshot each, one in memory and one mapped, while all segments they read are
/// merged and removed.
#[test]
fn old_snapshots_stay_while_segments_are_removed() {
    let (_dir, folder, mut live) = create(&codebooks(3), Metric::Euclidean, 20);
    let (mut model, mut random) = (Model::default(), Random(1));
    for _ in 0..600 {
        model.change_both(&mut live, &random.change(300)).unwrap();
    }
    live.commit().unwrap();
    let segments = |folder| -> Vec<String> {
        files(folder).into_iter().filter(|name| name.starts_with("segment-")).collect()
    };
    let (old_model, old_segments) = (model.clone(), segments(&folder));
    assert!(old_segments.len() > 4);
    let opened = Snapshot::open(&folder).unwrap();
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    // SAFETY: only this test has the files, and a writer removes them without changing them.
    let mapped = unsafe { Snapshot::map(&folder) }.unwrap();
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for snapshot in [opened, mapped] {
            let model = &old_model;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    model.check(&snapshot);
                }
                snapshot.verify().unwrap();
                model.check(&snapshot);
            });
        }
        for round in 0..30 {
            for _ in 0..30 {
                model.change_both(&mut live, &random.change(300)).unwrap();
            }
            live.merge_step().unwrap();
            if round % 10 == 9 { live.compact() } else { live.commit() }.unwrap();
        }
        assert!(segments(&folder).iter().all(|name| !old_segments.contains(name)));
        done.store(true, Ordering::Relaxed);
    });
    model.check(&Snapshot::open(&folder).unwrap());
}

/// Readers that open the folder at any moment find one whole commit.
#[test]
fn readers_open_whole_commits_while_segments_merge() {
    let (_dir, folder, mut live) = create(&codebooks(3), Metric::InnerProduct, 3);
    let (commits, done) = (Mutex::new(vec![Model::default()]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let snapshot = Snapshot::open(&folder).unwrap();
                        seen.push(snapshot.commit());
                        // The writer goes on meanwhile.
                        let model = commits.lock().unwrap()[snapshot.commit() as usize].clone();
                        model.check(&snapshot);
                    }
                    seen
                })
            })
            .collect();
        let (mut model, mut random) = (Model::default(), Random(4));
        for commit in 1..=150 {
            for _ in 0..1 + random.below(8) {
                model.change_both(&mut live, &random.change(60)).unwrap();
            }
            // Each commit has a change.
            model.change_both(&mut live, &Change::Upsert(61, random.code(), None)).unwrap();
            while live.merge_step().unwrap() {}
            commits.lock().unwrap().push(model.clone());
            assert_eq!(live.commit().unwrap(), commit);
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let seen = reader.join().unwrap();
            assert!(seen.is_sorted() && seen.len() > 1, "{seen:?}");
        }
    });
}
