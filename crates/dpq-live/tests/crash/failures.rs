//! Every system call fails once in a small scenario. The last commit stands, nothing is lost, and
//! the writer goes on.

use std::fs;
use std::path::Path;
use std::thread;

use dpq_live::{Error, LiveIndex, Metric, Snapshot};

use crate::calls::{self, Event, Fate};
use crate::common::{Change, Model, Random, codebooks, files, tempdir};

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Commit,
    Merge,
    Compact,
    Reopen,
}

pub(crate) fn run() {
    check_order();
    let steps = steps();
    let expected = attempt(&steps, usize::MAX, Fate::Fail);
    for fate in [Fate::Fail, Fate::FailFromNowOn] {
        let mut n = 0;
        while let Some((files, true)) = attempt(&steps, n, fate) {
            assert_eq!(Some((files, false)), expected, "{fate:?} at call {n}");
            n += 1;
        }
        println!("{fate:?}: each of {n} calls failed once");
        assert!(n > 100, "only {n} calls");
    }
    assert!(calls::seen().iter().all(|&n| n > 0), "functions that nobody calls: {:?}", calls::seen());
}

/// A crash between two calls finds names and bytes that were synced, and any others may be lost.
fn check_order() {
    let dir = tempdir();
    let folder = &dir.path().join("live");
    std::fs::create_dir(folder).unwrap();
    let mut live = None;
    let made = calls::events(|| {
        live = Some(LiveIndex::create(folder, &codebooks(1), Metric::Euclidean).unwrap());
    });
    assert_eq!(made.first(), Some(&Event::Sync(dir.path().to_owned())), "the folder's own name");
    check_events(folder, &made);
    let (mut live, mut model) = (live.unwrap(), Model::default());
    live.set_max_tail(3).unwrap();
    let changed = calls::events(|| {
        for step in steps() {
            match step {
                Step::Change(change) => model.change_both(&mut live, &change).unwrap(),
                Step::Merge => _ = live.merge_step().unwrap(),
                Step::Commit | Step::Reopen => _ = live.commit().unwrap(),
                Step::Compact => _ = live.compact().unwrap(),
            }
        }
    });
    check_events(folder, &changed);
    drop(live);
    std::fs::write(folder.join("segment-999.dpq"), "").unwrap();
    // The manifest that is opened may be one whose name was not synced.
    let manifest = folder.join("manifest.dpq");
    let mut swept = vec![Event::Sync(manifest.clone()), Event::Rename(manifest.clone(), manifest)];
    swept.extend(calls::events(|| drop(LiveIndex::open(folder).unwrap())));
    check_events(folder, &swept);
    assert!(swept.iter().any(|event| matches!(event, Event::Remove(_))));
}

fn check_events(folder: &Path, events: &[Event]) {
    // Files whose bytes are synced, and whether all names are.
    let (mut synced, mut is_named) = (Vec::new(), true);
    for event in events {
        match event {
            Event::Write(path) => synced.retain(|synced| synced != path),
            Event::Sync(path) if path == folder => is_named = true,
            Event::Sync(path) => synced.push(path.clone()),
            Event::Rename(from, to) => {
                assert!(synced.contains(from), "{to:?} is renamed before its bytes are synced");
                assert!(is_named || !to.ends_with("manifest.dpq"), "a manifest names files that may be lost");
                is_named = false;
            }
            Event::Remove(path) => assert!(is_named, "{path:?} is removed while the old manifest may return"),
        }
    }
    assert!(is_named, "the last name may be lost");
}

/// Segments, names, deleted items, merges, and a second writer.
fn steps() -> Vec<Step> {
    let mut random = Random(20);
    let mut steps = Vec::new();
    for round in 0..2 {
        steps.extend((0..13).map(|_| Step::Change(random.change(24))));
        steps.push(Step::Commit);
        steps.push(Step::Merge);
        steps.extend((0..3).map(|_| Step::Change(random.change(24))));
        steps.extend(match round {
            0 => vec![Step::Commit, Step::Reopen],
            _ => vec![Step::Compact],
        });
    }
    steps
}

/// Runs all steps; the call after `n` others fails. Returns how many files of each kind there are
/// in the end, and whether a call failed.
fn attempt(steps: &[Step], n: usize, fate: Fate) -> Option<(Vec<String>, bool)> {
    let dir = tempdir();
    let folder = &dir.path().join("live");
    let (mut model, mut committed) = (Model::default(), (0, Model::default()));
    calls::plan(n, fate);
    let mut is_failed = false;
    let mut failed = |error: Error| {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert!(calls::reset(), "without a failed call: {error}");
        is_failed = true;
    };

    let mut live = match LiveIndex::create(folder, &codebooks(1), Metric::Euclidean) {
        Ok(live) => live,
        Err(error) => {
            failed(error);
            // Only the last step may have failed.
            match LiveIndex::open(folder) {
                Err(Error::NotLive { .. }) => {
                    LiveIndex::create(folder, &codebooks(1), Metric::Euclidean).unwrap()
                }
                opened => opened.unwrap(),
            }
        }
    };
    live.set_max_tail(3).unwrap();
    for step in steps {
        loop {
            let before = files(folder);
            let is_commit = matches!(step, Step::Commit | Step::Compact);
            // In another thread, where no call is to fail.
            let manifest = is_commit
                .then(|| thread::scope(|scope| scope.spawn(|| read_manifest(folder)).join().unwrap()));
            let done = match step {
                Step::Change(change) => model.change_both(&mut live, change),
                Step::Commit => live.commit().map(|_| ()),
                Step::Merge => live.merge_step().map(|_| ()),
                Step::Compact => live.compact().map(|_| ()),
                Step::Reopen => {
                    drop(live);
                    let mut opened = LiveIndex::open(folder);
                    if let Err(error) = opened {
                        failed(error);
                        opened = LiveIndex::open(folder);
                    }
                    live = opened.unwrap();
                    live.set_max_tail(3).unwrap();
                    Ok(())
                }
            };
            let error = done.err();
            let is_done = error.is_none();
            if let Some(error) = error {
                let unsynced = match &error {
                    Error::Unsynced { commit, .. } => Some(*commit),
                    _ => None,
                };
                failed(error);
                let is_merge = matches!(step, Step::Merge) && fate == Fate::Fail;
                assert!(!is_merge || files(folder) == before, "a failed merge leaves files: {before:?}");
                // Only if the last step failed, to sync the folder, the commit is there.
                let tried = unsynced.is_some().then_some(&model);
                if let (number, true) = check(folder, &committed, tried) {
                    assert_eq!((live.snapshot().unwrap().commit(), Some(number)), (number, unsynced));
                    check_lost(folder, &manifest.unwrap(), &committed);
                    committed = (number, model.clone());
                } else {
                    assert_eq!(unsynced, None, "the commit is not there");
                }
            } else if is_commit {
                committed = (live.snapshot().unwrap().commit(), model.clone());
            }
            if is_done {
                break;
            }
        }
    }
    let is_failed = calls::reset() || is_failed;
    assert_eq!(check(folder, &committed, None), (committed.0, false));
    drop(live);
    // A writer sweeps what could not be removed.
    drop(LiveIndex::open(folder).unwrap());
    let kind = |name: String| name.split('-').next().unwrap().to_owned();
    Some((files(folder).into_iter().map(kind).collect(), is_failed))
}

/// Checks that the folder has the last commit, or the one that was tried. Returns the number, and
/// whether it is that of the latter.
fn check(folder: &Path, committed: &(u64, Model), tried: Option<&Model>) -> (u64, bool) {
    let snapshot = Snapshot::open(folder).unwrap();
    snapshot.verify().unwrap();
    let number = snapshot.commit();
    if number == committed.0 {
        committed.1.check(&snapshot);
        return (number, false);
    }
    tried.expect("nothing but a commit changes the folder").check(&snapshot);
    (number, true)
}

fn read_manifest(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("manifest.dpq")).unwrap()
}

/// Checks that the commit before is whole if a crash takes back the name of the last manifest.
fn check_lost(folder: &Path, manifest: &[u8], committed: &(u64, Model)) {
    let dir = tempdir();
    for name in files(folder) {
        fs::copy(folder.join(&name), dir.path().join(&name)).unwrap();
    }
    fs::write(dir.path().join("manifest.dpq"), manifest).unwrap();
    assert_eq!(check(dir.path(), committed, None), (committed.0, false));
    drop(LiveIndex::open(dir.path()).unwrap());
    check(dir.path(), committed, None);
}
