//! The small network of preset `best` on made images: one epoch of training, and features of the
//! same images.
//!
//! `RAYON_NUM_THREADS=1 CANDLE_NUM_THREADS=1 cargo bench -p dpq-model --bench network`

#![expect(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use dpq_model::config::QuantizerConfig;
use dpq_model::{Inputs, Model, TrainConfig, TrainOptions, TrainSet, train};

const N: usize = 1024;
const SHAPE: [usize; 3] = [1, 28, 28];

/// Noise that is a little brighter in places that depend on the class.
fn image(row: usize, out: &mut [u8]) {
    let pixel = |at: usize| (row * 7919 + at * 104_729) % 223 + usize::from(at % 10 == row % 10) * 32;
    out.iter_mut().enumerate().for_each(|(at, out)| *out = pixel(at) as u8);
}

/// Trains for an epoch, in a folder of its own.
fn epoch() -> Model {
    let out = tempfile::TempDir::new().unwrap();
    let best = TrainConfig::best();
    let quantizer = QuantizerConfig { levels: 1, codewords: 2, kmeans_iterations: 1, ..best.quantizer };
    let config = TrainConfig { epochs: 1, quantizer, ..best };
    let labels: Vec<u8> = (0..N * 10).map(|i| u8::from(i / 10 % 10 == i % 10)).collect();
    let data = TrainSet {
        n_items: N,
        labels: &labels,
        n_classes: 10,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Images {
            shape: SHAPE,
            read: &|row, _, out| {
                image(row, out);
                Ok(())
            },
        },
        weights: None,
    };
    train(&config, &data, out.path(), TrainOptions::default()).unwrap()
}

fn network(criterion: &mut Criterion) {
    let model = epoch();
    let mut images = vec![0; N * SHAPE.iter().product::<usize>()];
    images.chunks_exact_mut(28 * 28).enumerate().for_each(|(row, out)| image(row, out));
    let mut group = criterion.benchmark_group("small-28");
    group.throughput(Throughput::Elements(N as u64)).sampling_mode(SamplingMode::Flat);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.bench_function("train", |bencher| bencher.iter(epoch));
    group.bench_function("forward", |bencher| bencher.iter(|| model.forward(black_box(&images)).unwrap()));
}

criterion_group!(benches, network);
criterion_main!(benches);
