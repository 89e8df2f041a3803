//! Benchmarks of this crate alone: lookup tables, building, and searches at every length, k and
//! shape, one query at a time with every kernel and in batches. `DPQ_BENCH_ITEMS` sets the number
//! of items; the default is a million.

mod data;
#[path = "../tests/it/naive.rs"]
#[allow(clippy::unwrap_used, reason = "the definition is shared with the tests")]
mod naive;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use data::{Data, LEVELS, SHAPES, Shape};
use dpq_index::{CodeLength, Hit, Index, Kernel, Metric, SearchOptions};

/// Levels of an index, and the lengths searched in it. Lengths up to 32 bits do without the
/// sections that only 64 bits need.
const INDEXES: [(usize, &[usize]); 2] = [(4, &[8, 16, 24, 32]), (LEVELS, &[64])];
const KS: [usize; 3] = [10, 1000, 5000];
/// Queries per batch. Single searches take them in turn.
const BATCH: usize = 32;
/// The number of queries whose answers are compared with the definition.
const CHECKED: usize = 2;

fn bench(c: &mut Criterion) {
    let n_items =
        std::env::var("DPQ_BENCH_ITEMS").map_or(1_000_000, |n| n.parse().expect("a number of items"));
    let mut group = c.benchmark_group(n_items.to_string());
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    for shape in SHAPES {
        let data = Data::load(shape, n_items).expect("data is read, or made and written");
        for (n_levels, lengths) in INDEXES {
            for metric in [Metric::InnerProduct, Metric::Euclidean] {
                bench_index(&mut group, shape, &data, metric, n_levels, lengths);
            }
        }
    }
    group.finish();
}

fn bench_index(
    group: &mut BenchmarkGroup<WallTime>,
    shape: Shape,
    data: &Data,
    metric: Metric,
    n_levels: usize,
    lengths: &[usize],
) {
    let folder = tempfile::tempdir_in(data::folder()).expect("a folder");
    let path: PathBuf = folder.path().join("index.dpq");
    let (codebooks, codes) = (data.codebooks(n_levels), data.codes(n_levels));
    let builder = Index::builder(&codebooks, &codes).metric(metric);
    let make = || builder.write(&path).expect("codes of these codebooks");
    group.throughput(Throughput::Elements((codes.len() / n_levels) as u64));
    make();
    group.bench_function(format!("{shape}/{metric}/build/{n_levels}-levels"), |b| b.iter(make));
    group.throughput(Throughput::Elements(1));

    #[expect(unsafe_code, reason = "searches are measured on a mapped file")]
    // SAFETY: the file lies in a temporary folder of this process, which does not change it.
    let index = unsafe { Index::map(&path) }.expect("the file that was built");
    let queries: Vec<&[f32]> = data.queries().take(BATCH).collect();
    let mut queries_in_turn = queries.iter().cycle();
    let mut next = || queries_in_turn.next().expect("they go round");
    for &bits in lengths {
        let length = CodeLength::from_bits(bits).expect("whole bytes");
        let table = |query: &&[f32]| index.lookup_table_at(query, length).expect("a query of this dimension");
        group.bench_function(format!("{shape}/{metric}/{bits}-bits/lookup-table"), |b| {
            b.iter(|| table(black_box(next())));
        });
        for query in &queries[..CHECKED] {
            check(&index, &codes, query, length);
        }
        for k in KS {
            let name = format!("{shape}/{metric}/{bits}-bits/{k}");
            for kernel in Kernel::available() {
                let options = SearchOptions::new(k).length(length).kernel(kernel);
                group.bench_function(format!("{name}/{kernel}"), |b| {
                    b.iter(|| index.search_with(&table(black_box(next())), &options).expect("a search"));
                });
            }
            let options = SearchOptions::new(k).length(length);
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function(format!("{name}/batch"), |b| {
                b.iter(|| index.search_batch(black_box(&queries.concat()), &options).expect("a search"));
            });
            group.throughput(Throughput::Elements(1));
        }
    }
}

/// Compares the hits of every kernel and of a batch with the definition.
///
/// The definition of the Euclidean metric takes seconds per million items, so there only the scores
/// of the hits are compared with it.
fn check(index: &Index, codes: &[u8], query: &[f32], length: CodeLength) {
    let (codebooks, n_levels) = (index.codebooks(), index.codebooks().n_levels());
    let table = &index.lookup_table_at(query, length).expect("a query of this dimension");
    let max_k = KS[KS.len() - 1];
    let search = |k, kernel| {
        index.search_with(table, &SearchOptions::new(k).length(length).kernel(kernel)).expect("a search")
    };
    let unit = codebooks.norm_unit();
    let score = |code: &[u8]| naive::score(codebooks, unit, index.metric(), table, code, length.levels());
    let expected: Vec<Hit> = if index.metric() == Metric::InnerProduct {
        let ids: Vec<u64> = (0..index.len() as u64).collect();
        let mut ranking = naive::ranking(score, codes, n_levels, &ids, |_| true);
        ranking.truncate(max_k);
        ranking
    } else {
        let hits = search(max_k, Kernel::best());
        let scores = hits.iter().map(|hit| score(&codes[hit.id as usize * n_levels..][..n_levels]));
        assert!(scores.eq(hits.iter().map(|hit| hit.score)), "a score is not that of its code");
        hits
    };
    for k in KS {
        let expected = &expected[..k.min(expected.len())];
        for kernel in Kernel::available() {
            assert!(
                search(k, kernel) == expected,
                "{kernel} finds other items than the definition at {length}"
            );
        }
        let batch = index.search_batch(&[query, query].concat(), &SearchOptions::new(k).length(length));
        assert!(
            batch.expect("a search").iter().all(|hits| hits == expected),
            "a batch differs from a search"
        );
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
