//! Time of a chain, by each solver and as public programs do it: plain Newton from the grid of the
//! step before, and, for two variables, joint weights by cubature on ten points.
//!
//! Newton's method has no guard there. These cases are some that it survives.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dpq_rmq::{Chain, Coefficients, Gbm, Heston, Model, Settings, Solver};

#[path = "../tests/naive/mod.rs"]
mod naive;

struct Brownian;

impl Model<1> for Brownian {
    fn coefficients(&self, _: &[f64; 1]) -> [Coefficients; 1] {
        [Coefficients { drift: [0.0; 3], diffusion: [1.0, 0.0, 0.0] }]
    }
}

/// Returns the grid of a standard normal variable and its weights.
fn normal(points: usize) -> (Vec<f64>, Vec<f64>) {
    let chain =
        Chain::new(&Brownian, [0.0], &Settings::new(1.0, 1, [points])).expect("the settings are good");
    let last = &chain.slices()[1];
    (last.grids()[0].clone(), last.probabilities().to_vec())
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("rmq");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let gbm = Gbm { rate: 0.04, volatility: 0.3 };
    for points in [30, 80] {
        let start = normal(points).0;
        let settings = Settings::new(1.0, 10, [points]);
        for solver in [Solver::Newton, Solver::Anderson] {
            let settings = Settings { solver, ..settings };
            group.bench_function(format!("gbm {points} {solver:?}"), |b| {
                b.iter(|| Chain::new(black_box(&gbm), [100.0], &settings));
            });
        }
        group.bench_function(format!("gbm {points} naive"), |b| {
            b.iter(|| naive::newton(black_box(&gbm), 100.0, 1.0, 10, &start, true));
        });
    }
    // Plain Lloyd takes too long for more points.
    let settings = Settings { solver: Solver::Lloyd, max_sweeps: 100_000, ..Settings::new(1.0, 10, [10]) };
    group.bench_function("gbm 10 Lloyd", |b| b.iter(|| Chain::new(black_box(&gbm), [100.0], &settings)));
    let settings = Settings::new(1.0, 10, [10]);
    group.bench_function("gbm 10 Newton", |b| b.iter(|| Chain::new(black_box(&gbm), [100.0], &settings)));

    let heston =
        Heston { rate: 0.04, reversion: 2.3924, mean: 0.0929, volatility: 0.6903, correlation: -0.82 };
    let (price, variance, (nodes, weights)) = (normal(20).0, normal(10).0, normal(10));
    let settings = Settings::new(1.0, 5, [20, 10]);
    group.bench_function("heston 20×10 Newton", |b| {
        b.iter(|| Chain::new(black_box(&heston), [100.0, 0.0719], &settings));
    });
    group.bench_function("heston 20×10 naive", |b| {
        let normals = [&price[..], &variance[..]];
        b.iter(|| naive::heston(black_box(&heston), [100.0, 0.0719], 1.0, 5, normals, (&nodes, &weights)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
