//! Search of a million codes of four levels at each length, every kernel, the answer checked against the scalar one.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dpq_codebook::{Assignment, CodeLength, Codebooks};
use dpq_index::{Index, Kernel, Metric, SearchOptions, build};

const N_ITEMS: usize = 1_000_000;
const N_LEVELS: usize = 4;
const DIM: usize = 300;

fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 40
    }
}

fn bench(c: &mut Criterion) {
    let mut next = numbers();
    // Each level has half the scale of the one before, as residuals have.
    let values = (0..N_LEVELS * 256 * DIM)
        .map(|i| (next() as f32 / (1 << 23) as f32 - 1.0) / (1 << (i / (256 * DIM))) as f32)
        .collect();
    let codebooks = Codebooks::new(values, N_LEVELS, 256, DIM, Assignment::Euclidean).expect("codebooks");
    let codes: Vec<u8> = (0..N_ITEMS * N_LEVELS).map(|_| next() as u8).collect();
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("uniform.dpq");
    build(&path, &codebooks, Metric::InnerProduct, &codes, None).expect("an index");
    let index = Index::open(&path).expect("an index");
    let queries: Vec<Vec<f32>> =
        (0..50).map(|_| (0..DIM).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect()).collect();

    let mut group = c.benchmark_group("search/1M/uniform");
    group.sample_size(20);
    for levels in 1..=N_LEVELS {
        let length = CodeLength::from_levels(levels).expect("a length");
        for k in [10, 1000, 5000] {
            let mut answer = Vec::new();
            for kernel in Kernel::available().collect::<Vec<_>>().into_iter().rev() {
                let options = SearchOptions::new(k, length).kernel(kernel);
                let search = |query: &[f32]| {
                    index.search(&index.lookup_table(query).expect("a query"), &options).expect("hits")
                };
                let hits: Vec<_> = queries.iter().map(|query| search(query)).collect();
                if answer.is_empty() {
                    answer = hits;
                } else {
                    assert!(answer == hits, "{kernel} gives other hits than scalar");
                }
                let mut queries = queries.iter().cycle();
                group.bench_function(format!("{length}/k={k}/{kernel}"), |b| {
                    b.iter(|| search(black_box(queries.next().expect("queries go round"))));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
