//! Commits, opening and searching of a live index of seven segments and a tail, equally large.
//! `DPQ_BENCH_ITEMS` sets the number of items, of which at most 524,288 are used.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dpq_live::{LiveIndex, Metric, SearchOptions, Snapshot};

#[path = "../../dpq-index/benches/data/mod.rs"]
mod data;

use data::{Data, Shape};

/// 32 bits.
const LEVELS: usize = 4;
const PARTS: usize = 8;
/// The maximum number of items of a tail.
const MAX_TAIL: usize = 65_536;
/// Items replaced per commit.
const COMMIT: usize = 1000;

fn bench(c: &mut Criterion) {
    let n_items = std::env::var("DPQ_BENCH_ITEMS").map_or(1_000_000, |n| n.parse().expect("a number"));
    let data = Data::load(Shape::Clustered, n_items).expect("data is read, or made and written");
    let n_items = n_items.min(PARTS * MAX_TAIL);
    let (codebooks, mut codes) = (data.codebooks(LEVELS), data.codes(LEVELS));
    codes.truncate(n_items * LEVELS);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("live");
    let mut live = LiveIndex::create(&path, &codebooks, Metric::InnerProduct).expect("a new folder");
    live.set_max_tail(n_items / PARTS).expect("a number in range");
    for (id, code) in (0..).zip(codes.chunks_exact(LEVELS)) {
        live.upsert(id, code).expect("a new item");
    }
    live.commit().expect("a commit");

    let mut group = c.benchmark_group(format!("live/{n_items}"));
    group.sample_size(10);
    group.bench_function("open", |b| b.iter(|| Snapshot::open(&path).expect("the last commit")));
    let (snapshot, options) = (live.snapshot().expect("the last commit"), SearchOptions::new(10));
    let queries: Vec<&[f32]> = data.queries().collect();
    let mut queries = queries.iter().cycle();
    group.bench_function("search", |b| {
        b.iter(|| {
            let query = queries.next().expect("a cycle does not end");
            snapshot.search_batch(black_box(query), &options).expect("a search")
        });
    });
    let mut replaced = (0..n_items as u64).zip(codes.chunks_exact(LEVELS)).cycle();
    group.throughput(Throughput::Elements(COMMIT as u64));
    group.bench_function("commit", |b| {
        b.iter(|| {
            for (id, code) in replaced.by_ref().take(COMMIT) {
                live.upsert(id, code).expect("an item");
            }
            live.commit().expect("a commit")
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
