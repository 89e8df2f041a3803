//! A writer is killed 200 times: half of them at a system call, half at any moment.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dpq_live::{Error, LiveIndex, Metric, Snapshot};

use crate::calls::{self, Fate};
use crate::common::{Change, Model, Random, codebooks, files, tempdir};

const KILLS: u64 = 200;

/// The changes of a commit: the same in every process.
fn changes(commit: u64) -> Vec<Change> {
    let mut random = Random(commit);
    let mut changes: Vec<Change> = (0..random.below(20)).map(|_| random.change(200)).collect();
    // A commit without changes would be none.
    changes.push(Change::Upsert(1000, random.code(), None));
    changes
}

fn advance(model: &mut Model, from: u64, to: u64) {
    (from + 1..=to).flat_map(changes).for_each(|change| model.change(&change));
}

/// Writes commits, and prints the number of each, until the process is killed: at the system call
/// after `n_calls`, if that is not 0.
pub(crate) fn write(folder: &Path, n_calls: usize) {
    if n_calls > 0 {
        calls::plan(n_calls, Fate::Kill);
    }
    let mut live = match LiveIndex::open(folder) {
        Err(Error::NotLive { .. }) => LiveIndex::create(folder, &codebooks(1), Metric::Euclidean),
        opened => opened,
    }
    .unwrap();
    live.set_max_tail(16).unwrap();
    let (mut model, first) = (Model::default(), live.snapshot().unwrap().commit());
    advance(&mut model, 0, first);
    for commit in first + 1.. {
        for change in changes(commit) {
            model.change_both(&mut live, &change).unwrap();
        }
        let mut random = Random(!commit);
        if random.below(2) == 0 {
            live.merge_step().unwrap();
        }
        let number = if random.below(12) == 0 { live.compact() } else { live.commit() }.unwrap();
        assert_eq!(number, commit);
        println!("{commit}");
    }
}

pub(crate) fn run() {
    let start = Instant::now();
    let dir = tempdir();
    let folder = &dir.path().join("live");
    let (mut model, mut committed) = (Model::default(), 0);
    let mut random = Random(7);
    for kill in 0..KILLS {
        let n_calls = if kill % 2 == 0 { 1 + random.below(200) } else { 0 };
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["write".as_ref(), folder.as_os_str(), n_calls.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if n_calls == 0 {
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
            writer.kill().unwrap();
        }
        let mut text = String::new();
        writer.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(writer.wait().unwrap().signal(), Some(libc::SIGKILL), "the writer failed by itself");
        // The last line may be cut off.
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let printed = lines.next_back().map_or(committed, |line| line.parse().unwrap());

        let snapshot = match Snapshot::open(folder) {
            Err(Error::NotLive { .. }) if committed == 0 && text.is_empty() => continue,
            opened => opened.unwrap(),
        };
        let number = snapshot.commit();
        assert!((printed..=printed + 1).contains(&number), "kill {kill}: commit {number} after {printed}");
        advance(&mut model, committed, number);
        committed = number;
        snapshot.verify().unwrap();
        model.check(&snapshot);
    }
    // The last writer sweeps; files that no commit needs are gone.
    let live = LiveIndex::open(folder).unwrap();
    let n_segments = live.snapshot().unwrap().stats().segments.len();
    assert!(files(folder).len() <= 3 + 3 * n_segments, "{:?}", files(folder));
    let seconds = start.elapsed().as_secs();
    println!("{KILLS} of {KILLS} kills survived, {committed} commits, {seconds} s");
    assert!(committed > 2 * KILLS, "only {committed} commits");
}
