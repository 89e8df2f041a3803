//! A gallery that grows, and segments beside one index: prints JSON, for `benches/gallery.py`.
//!
//! Usage: gallery FOLDER UPSERTS ITEMS    in FOLDER live indexes are made and removed.
//!
//! - upserts: so many in commits of 10,000, without a merge at the end
//! - growth: ITEMS upserts in such commits, the time of each commit, and all bytes written
//! - segments: searches of eight equal indexes of ITEMS in all, and of one, by turns

use std::fs;
use std::path::Path;
use std::time::Instant;

use dpq_codebook::{CodeLength, Codebooks};
use dpq_index::{Index, SearchOptions};
use dpq_live::{LiveIndex, Metric, Snapshot};

#[path = "../../dpq-index/benches/data/mod.rs"]
mod data;

use data::{Data, Shape};

/// 32 bits.
const LEVELS: usize = 4;
/// Items of a commit.
const COMMIT: usize = 10_000;
const SEGMENTS: usize = 8;
const QUERIES: usize = 200;
const ROUNDS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [folder, upserts, items] = &args[..] else {
        // `cargo bench` of the whole workspace.
        return println!("usage: gallery FOLDER UPSERTS ITEMS");
    };
    let [upserts, items]: [usize; 2] = [upserts, items].map(|n| n.parse().expect("a number"));
    let data = Data::load(Shape::Clustered, items).expect("data");
    let (codebooks, codes) = (data.codebooks(LEVELS), data.codes(LEVELS));
    let path = Path::new(folder).join("gallery.live");
    let few = Growth::measure(&path, &codebooks, &codes[..upserts * LEVELS]);
    let many = Growth::measure(&path, &codebooks, &codes);
    println!(
        "{{\"commit_items\": {COMMIT}, \"upserts\": {}, \"growth\": {}, \"segments\": {}}}",
        few.json(),
        many.json(),
        segments(&data, &codebooks, &codes)
    );
}

/// Upserts in commits, with the merges that fall due.
struct Growth {
    items: usize,
    seconds: f64,
    merge_seconds: f64,
    /// Without merges, ascending.
    commits: Vec<f64>,
    bytes_written: u64,
    bytes_kept: u64,
    segments: usize,
}

impl Growth {
    fn measure(path: &Path, codebooks: &Codebooks, codes: &[u8]) -> Self {
        let (start, before) = (Instant::now(), bytes_written());
        let mut live = LiveIndex::create(path, codebooks, Metric::InnerProduct).expect("a new folder");
        let (mut commits, mut merge_seconds, mut next) = (Vec::new(), 0.0, 0);
        for codes in codes.chunks(COMMIT * LEVELS) {
            for code in codes.chunks_exact(LEVELS) {
                live.upsert(next, code).expect("a new item");
                next += 1;
            }
            let merge = Instant::now();
            while live.merge_step().expect("a merge") {}
            merge_seconds += merge.elapsed().as_secs_f64();
            let commit = Instant::now();
            live.commit().expect("a commit");
            commits.push(commit.elapsed().as_secs_f64());
        }
        let seconds = start.elapsed().as_secs_f64();
        let bytes_written = bytes_written() - before;
        drop(live);
        let snapshot = Snapshot::open(path).expect("the last commit");
        assert_eq!(snapshot.len(), codes.len() / LEVELS);
        let files = fs::read_dir(path).expect("the folder");
        let bytes_kept = files.map(|file| file.and_then(|file| file.metadata()).expect("a file").len()).sum();
        fs::remove_dir_all(path).expect("the folder");
        commits.sort_unstable_by(f64::total_cmp);
        let (items, segments) = (snapshot.len(), snapshot.stats().segments.len());
        Self { items, seconds, merge_seconds, commits, bytes_written, bytes_kept, segments }
    }

    fn json(&self) -> String {
        let Self { items, seconds, merge_seconds, commits, bytes_written, bytes_kept, segments } = self;
        let quantile = |q: f64| commits[((commits.len() - 1) as f64 * q) as usize];
        let [median, p99, max] = [0.5, 0.99, 1.0].map(quantile);
        format!(
            "{{\"items\": {items}, \"seconds\": {seconds}, \"merge_seconds\": {merge_seconds}, \"commit_seconds\": \
             [{median}, {p99}, {max}], \"bytes_written\": {bytes_written}, \"bytes_kept\": {bytes_kept}, \"segments\": \
             {segments}}}"
        )
    }
}

/// Returns the bytes that this process has written so far, on Linux.
fn bytes_written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux counts bytes");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("Linux counts bytes written");
    line.parse().expect("a number")
}

/// Searches by turns: single queries, one thread.
fn segments(data: &Data, codebooks: &Codebooks, codes: &[u8]) -> String {
    let n_items = codes.len() / LEVELS;
    let part = |part: usize| {
        let rows = (part..n_items).step_by(SEGMENTS);
        let ids: Vec<u64> = rows.clone().map(|row| row as u64).collect();
        let codes: Vec<u8> = rows.flat_map(|row| &codes[row * LEVELS..][..LEVELS]).copied().collect();
        Index::builder(codebooks, &codes).ids(&ids).build().expect("an index")
    };
    let parts: Vec<Index> = (0..SEGMENTS).map(part).collect();
    let parts: Vec<_> = parts.iter().map(|index| (index, None)).collect();
    let whole = Index::builder(codebooks, codes).build().expect("an index");
    let mut searches = Vec::new();
    for k in [10, 100] {
        for levels in [2, 3, 4] {
            let length = CodeLength::from_levels(levels).expect("a length");
            let options = SearchOptions::new(k).length(length);
            let (mut one, mut eight) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                for query in data.queries().take(QUERIES) {
                    let start = Instant::now();
                    let of_one = whole.search_batch(query, &options).expect("a search");
                    let middle = Instant::now();
                    let of_eight = Index::search_parts(&parts, query, &options).expect("a search");
                    eight.push(middle.elapsed());
                    one.push(middle - start);
                    assert!(of_one == of_eight, "eight segments find what one index finds");
                }
            }
            let [one, eight] = [one, eight].map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2].as_nanos()
            });
            let bits = 8 * levels;
            searches
                .push(format!("{{\"bits\": {bits}, \"k\": {k}, \"one_ns\": {one}, \"eight_ns\": {eight}}}"));
        }
    }
    format!(
        "{{\"items\": {n_items}, \"queries\": {QUERIES}, \"rounds\": {ROUNDS}, \"dim\": {}, \"searches\": [{}]}}",
        codebooks.dim(),
        searches.join(", ")
    )
}
