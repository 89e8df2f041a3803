//! Encoding, lookup tables and residual k-means at the sizes of the paper: D = 300, K = 256,
//! L = 4, and lookup tables of long codes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dpq_codebook::{Assignment, Codebooks, ResidualKMeans};

const DIM: usize = 300;

/// The dimension of long codes: the pixels of a 28 × 28 image.
const LONG_DIM: usize = 784;

fn numbers(n: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn bench(c: &mut Criterion) {
    let codebooks =
        Codebooks::new(numbers(4 * 256 * DIM), 4, 256, DIM, Assignment::Euclidean).expect("codebooks");
    let features = numbers(4096 * DIM);
    let codes = codebooks.encode(&features).expect("features");
    assert_eq!(codebooks.encode(&features[..DIM]).expect("a feature"), codes[..4]);

    let mut group = c.benchmark_group("codebook");
    group.sample_size(20).throughput(Throughput::Elements(4096));
    let threads = rayon::current_num_threads();
    group.bench_function(format!("encode/4096/threads-{threads}"), |b| {
        b.iter(|| codebooks.encode(black_box(&features)));
    });
    group.throughput(Throughput::Elements(1));
    let query = &features[..DIM];
    let table = codebooks.lookup_table(query).expect("a query");
    let entry: f64 =
        query.iter().zip(codebooks.codeword(3, 255)).map(|(&q, &c)| f64::from(q) * f64::from(c)).sum();
    assert!((f64::from(table.level(3)[255]) - entry).abs() < 1e-4);
    group.bench_function("lookup_table", |b| b.iter(|| codebooks.lookup_table(black_box(query))));
    for levels in [8, 32, 64] {
        let values = numbers(levels * 256 * LONG_DIM);
        let long = Codebooks::new(values, levels, 256, LONG_DIM, Assignment::Euclidean).expect("codebooks");
        let queries = &features[..16 * LONG_DIM];
        let at = format!("{LONG_DIM}x{levels}");
        group.throughput(Throughput::Elements(1)).bench_function(format!("lookup_table/{at}"), |b| {
            b.iter(|| long.lookup_table(black_box(&queries[..LONG_DIM])));
        });
        group.throughput(Throughput::Elements(16)).bench_function(format!("lookup_tables/{at}/16"), |b| {
            b.iter(|| long.lookup_tables(black_box(queries), long.max_length()));
        });
    }
    group.sample_size(10);
    let config = ResidualKMeans { n_levels: 1, n_codewords: 256, n_iterations: 25 };
    let fitted = config.train(&features, DIM).expect("enough features");
    let fit = |codebooks: &Codebooks| {
        codebooks
            .relative_distortion(&features, &codebooks.encode(&features)?)
            .map(|distortion| distortion[0])
    };
    // Uniform numbers have no clusters, yet 256 means of sixteen members each explain one sixteenth
    // and a little more.
    let distortion = fit(&fitted).expect("features that fit");
    assert!((0.85..0.94).contains(&distortion), "{distortion}");
    group.bench_function(format!("residual_kmeans/4096/level/threads-{threads}"), |b| {
        b.iter(|| config.train(black_box(&features), DIM));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
