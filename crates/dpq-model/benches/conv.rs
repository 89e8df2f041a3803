//! Convolutional networks (small ones, and AlexNet's convolutions), forward and in training (forward and backward), made
//! of this crate's operations and of candle's own. Both sides compute the same: asserted before anything is timed.
//!
//! `RAYON_NUM_THREADS=1 cargo bench -p dpq-model --bench conv`

#![expect(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::time::Duration;

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::{BatchNorm, ModuleT};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use dpq_model::ops::{batch_norm, conv2d, conv2d_pool, linear, max_pool2d, response_norm};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BATCH: usize = 128;

struct Spec {
    name: &'static str,
    /// Channels of each 3×3 convolution, and whether a 2×2 max pool follows.
    convolutions: &'static [(usize, bool)],
    /// Batch normalisation after each convolution (and pool).
    norm: bool,
    linear: &'static [usize],
}

/// The network of issue 2's recipe, then those of the table that the target was set on.
const NETS: [Spec; 4] = [
    Spec {
        name: "norm-32p-64p-128p-512-310",
        convolutions: &[(32, true), (64, true), (128, true)],
        norm: true,
        linear: &[512, 310],
    },
    Spec {
        name: "32-64p-128p-1024-300",
        convolutions: &[(32, false), (64, true), (128, true)],
        norm: false,
        linear: &[1024, 300],
    },
    Spec {
        name: "32p-64p-128-512-300",
        convolutions: &[(32, true), (64, true), (128, false)],
        norm: false,
        linear: &[512, 300],
    },
    Spec {
        name: "32p-64p-256-128",
        convolutions: &[(32, true), (64, true)],
        norm: false,
        linear: &[256, 128],
    },
];

struct Weights {
    convolutions: Vec<[Var; 2]>,
    norms: Vec<BatchNorm>,
    linear: Vec<[Var; 2]>,
}

fn random(rng: &mut ChaCha8Rng, shape: &[usize], scale: f32) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-scale..scale)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn weights(spec: &Spec) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut layer = |shape: &[usize]| {
        let fan_in: usize = shape[1..].iter().product();
        let weight = random(&mut rng, shape, (3.0 / fan_in as f32).sqrt());
        [weight, random(&mut rng, &shape[..1], 0.1)].map(|tensor| Var::from_tensor(&tensor).unwrap())
    };
    let (mut channels, mut side) = (1, 28);
    let mut result = Weights { convolutions: Vec::new(), norms: Vec::new(), linear: Vec::new() };
    for &(n_out, pool) in spec.convolutions {
        result.convolutions.push(layer(&[n_out, channels, 3, 3]));
        channels = n_out;
        side = if pool { side / 2 } else { side };
        let by_channel = |value: f32| Tensor::full(value, n_out, &Device::Cpu).unwrap();
        let [gamma, beta] = [1.0, 0.0].map(|value| Var::from_tensor(&by_channel(value)).unwrap());
        let (gamma, beta) = (gamma.as_tensor().clone(), beta.as_tensor().clone());
        result
            .norms
            .push(BatchNorm::new(n_out, by_channel(0.0), by_channel(1.0), gamma, beta, 1e-5).unwrap());
    }
    let mut n_in = channels * side * side;
    for &n_out in spec.linear {
        result.linear.push(layer(&[n_out, n_in]));
        n_in = n_out;
    }
    result
}

fn ours(spec: &Spec, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for (i, [weight, bias]) in weights.convolutions.iter().enumerate() {
        let relu = !spec.norm;
        x = if spec.convolutions[i].1 {
            conv2d_pool(&x, weight, Some(bias), 1, 1, (2, 2), relu)?
        } else {
            conv2d(&x, weight, Some(bias), 1, 1, relu)?
        };
        if spec.norm {
            let (gamma, beta) = weights.norms[i].weight_and_bias().unwrap();
            (x, _, _) = batch_norm(&x, gamma, beta, 1e-5, true)?;
        }
    }
    x = x.flatten_from(1)?;
    for (i, [weight, bias]) in weights.linear.iter().enumerate() {
        x = linear(&x, weight, Some(bias), i + 1 < weights.linear.len())?;
    }
    Ok(x)
}

fn stock(spec: &Spec, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for (i, [weight, bias]) in weights.convolutions.iter().enumerate() {
        x = x.conv2d(weight, 1, 1, 1, 1)?.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
        if !spec.norm {
            x = x.relu()?;
        }
        if spec.convolutions[i].1 {
            x = x.max_pool2d(2)?;
        }
        if spec.norm {
            x = weights.norms[i].forward_t(&x, true)?.relu()?;
        }
    }
    x = x.flatten_from(1)?;
    for (i, [weight, bias]) in weights.linear.iter().enumerate() {
        x = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        if i + 1 < weights.linear.len() {
            x = x.relu()?;
        }
    }
    Ok(x)
}

fn assert_equal(a: &Tensor, b: &Tensor) {
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest(&(a - b).unwrap()) <= 1e-4 * largest(b));
}

fn networks(criterion: &mut Criterion) {
    type Side = fn(&Spec, &Weights, &Tensor) -> Result<Tensor>;
    let sides: [(&str, Side); 2] = [("ours", ours), ("candle", stock)];
    let images = random(&mut ChaCha8Rng::seed_from_u64(2), &[BATCH, 1, 28, 28], 1.0);
    for spec in &NETS {
        let weights = weights(spec);
        assert_equal(&ours(spec, &weights, &images).unwrap(), &stock(spec, &weights, &images).unwrap());
        let upstream = random(&mut ChaCha8Rng::seed_from_u64(3), &[BATCH, *spec.linear.last().unwrap()], 1.0);
        let mut group = criterion.benchmark_group(spec.name);
        group.throughput(Throughput::Elements(BATCH as u64)).sampling_mode(SamplingMode::Flat);
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
        for (name, forward) in sides {
            group.bench_function(BenchmarkId::new("forward", name), |bencher| {
                bencher.iter(|| forward(spec, &weights, &images).unwrap());
            });
            group.bench_function(BenchmarkId::new("train", name), |bencher| {
                bencher.iter(|| {
                    let y = forward(spec, &weights, &images).unwrap();
                    y.mul(&upstream).unwrap().sum_all().unwrap().backward().unwrap()
                });
            });
        }
    }
}

/// AlexNet's convolutions: channels out, channels in, kernel, stride, padding, groups, and whether normalisation and
/// pooling follow.
type AlexnetLayer = ([usize; 6], [bool; 2]);
const ALEXNET: [AlexnetLayer; 5] = [
    ([96, 3, 11, 4, 0, 1], [true, true]),
    ([256, 96, 5, 1, 2, 2], [true, true]),
    ([384, 256, 3, 1, 1, 1], [false, false]),
    ([384, 384, 3, 1, 1, 2], [false, false]),
    ([256, 384, 3, 1, 1, 2], [false, true]),
];

const ALEXNET_BATCH: usize = 16;

fn alexnet_ours(weights: &[[Var; 2]], x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for (&([n_out, n_in, _, stride, padding, groups], [norm, pool]), [weight, bias]) in
        ALEXNET.iter().zip(weights)
    {
        let group = |i: usize| {
            let (n_in, n_out) = (n_in / groups, n_out / groups);
            let weight = weight.narrow(0, i * n_out, n_out)?;
            let (x, bias) = (x.narrow(1, i * n_in, n_in)?, bias.narrow(0, i * n_out, n_out)?);
            match pool && !norm {
                true => conv2d_pool(&x, &weight, Some(&bias), stride, padding, (3, 2), true),
                false => conv2d(&x, &weight, Some(&bias), stride, padding, true),
            }
        };
        x = Tensor::cat(&(0..groups).map(group).collect::<Result<Vec<_>>>()?, 1)?;
        if norm {
            x = max_pool2d(&response_norm(&x)?, 3, 2)?;
        }
    }
    Ok(x)
}

/// The same of candle's operations. Its pooling cannot go backward where windows overlap, so that is made of others.
fn alexnet_stock(weights: &[[Var; 2]], x: &Tensor) -> Result<Tensor> {
    let pool = |x: Tensor, dim: usize| -> Result<Tensor> {
        let n = (x.dim(dim)? - 3) / 2 + 1;
        let tap = |tap: usize| {
            let picks: Vec<u32> = (0..n).map(|i| (2 * i + tap) as u32).collect();
            x.index_select(&Tensor::new(picks, x.device())?, dim)
        };
        tap(0)?.maximum(&tap(1)?)?.maximum(&tap(2)?)
    };
    let mut x = x.clone();
    for (&([_, _, _, stride, padding, groups], [norm, pools]), [weight, bias]) in ALEXNET.iter().zip(weights)
    {
        x = x.conv2d(weight, padding, stride, 1, groups)?;
        x = x.broadcast_add(&bias.reshape((1, (), 1, 1))?)?.relu()?;
        if norm {
            let squares = x.sqr()?.pad_with_zeros(1, 2, 2)?;
            let window = |i: usize| squares.narrow(1, i, x.dim(1)?);
            let sums = (1..5).try_fold(window(0)?, |sum, i| sum + window(i)?)?;
            x = (x * sums.affine(2e-5, 1.0)?.powf(-0.75)?)?;
        }
        if pools {
            x = pool(pool(x, 2)?, 3)?;
        }
    }
    Ok(x)
}

fn alexnet(criterion: &mut Criterion) {
    type Side = fn(&[[Var; 2]], &Tensor) -> Result<Tensor>;
    let sides: [(&str, Side); 2] = [("ours", alexnet_ours), ("candle", alexnet_stock)];
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let images = random(&mut rng, &[ALEXNET_BATCH, 3, 227, 227], 120.0);
    let weights: Vec<[Var; 2]> = ALEXNET
        .iter()
        .map(|&([n_out, n_in, kernel, .., groups], _)| {
            let shape = [n_out, n_in / groups, kernel, kernel];
            let scale = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
            [random(&mut rng, &shape, scale), random(&mut rng, &shape[..1], 1.0)]
                .map(|tensor| Var::from_tensor(&tensor).unwrap())
        })
        .collect();
    assert_equal(&alexnet_ours(&weights, &images).unwrap(), &alexnet_stock(&weights, &images).unwrap());
    let mut group = criterion.benchmark_group("alexnet-227");
    group.throughput(Throughput::Elements(ALEXNET_BATCH as u64)).sampling_mode(SamplingMode::Flat);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for (name, forward) in sides {
        group.bench_function(BenchmarkId::new("forward", name), |bencher| {
            bencher.iter(|| forward(&weights, &images).unwrap());
        });
        group.bench_function(BenchmarkId::new("train", name), |bencher| {
            bencher.iter(|| forward(&weights, &images).unwrap().sum_all().unwrap().backward().unwrap());
        });
    }
}

criterion_group!(benches, networks, alexnet);
criterion_main!(benches);
