//! Every system call fails once in a small scenario. The last commit stands, nothing is lost, and
//! the writer goes on.

use std::path::Path;

use dpq_live::{Error, LiveIndex, Metric, Snapshot};

use crate::calls::{self, Fate};
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
            let is_commit = matches!(step, Step::Commit | Step::Compact);
            let error = done.err();
            let is_done = error.is_none();
            if let Some(error) = error {
                failed(error);
                // If the last step failed, to sync the folder, the commit may be there.
                if let (number, true) = check(folder, &committed, is_commit.then_some(&model)) {
                    committed = (number, model.clone());
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
