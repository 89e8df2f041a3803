//! Integration tests: tables of prices, invariants, Newton's method without a guard, early exercise
//! and barriers, several variables, refusals.

#![expect(clippy::unwrap_used, reason = "helpers are tests too")]

mod factors;
mod gbm;
mod invariants;
#[path = "../naive/mod.rs"]
mod naive;
mod options;
mod refusals;

use dpq_rmq::{Chain, Coefficients, Gbm, Model, Settings};

const RATE: f64 = 0.04;

/// The model of the tables.
const GBM: Gbm = Gbm { rate: RATE, volatility: 0.3 };

/// A Brownian motion.
struct Brownian;

impl Model<1> for Brownian {
    fn coefficients(&self, _: &[f64; 1]) -> [Coefficients; 1] {
        [Coefficients { drift: [0.0; 3], diffusion: [1.0, 0.0, 0.0] }]
    }
}

fn call<const D: usize>(strike: f64) -> impl Fn(&[f64; D]) -> f64 {
    move |state| (state[0] - strike).max(0.0)
}

fn put<const D: usize>(strike: f64) -> impl Fn(&[f64; D]) -> f64 {
    move |state| (strike - state[0]).max(0.0)
}

fn gbm(steps: usize, points: usize) -> Chain<1> {
    Chain::new(&GBM, [100.0], &Settings::new(1.0, steps, [points])).unwrap()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected} to {tolerance:e}");
}
