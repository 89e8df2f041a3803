//! Tests of optimisers, worked by hand.

use candle_core::{Device, Var};

use super::*;
use crate::config::{Method, RateSchedule};

/// Takes steps down w² from w = 1, whose gradient is 2w, and returns every w.
fn descend(method: Method, weight_decay: f64, name: &str, factors: [f64; 2], n: usize) -> Vec<f32> {
    let config = OptimizerConfig {
        method,
        rate: 0.1,
        rate_schedule: RateSchedule::Constant,
        weight_decay,
        head_weights: 1.0,
        head_biases: 1.0,
    };
    let mut optimizer = Optimizer::new(config);
    let var = Var::from_vec(vec![1.0f32], 1, &Device::Cpu).unwrap();
    let variables = BTreeMap::from([(name.to_owned(), var.clone())]);
    (0..n)
        .map(|_| {
            let gradients = var.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            optimizer.step(&[(&variables, factors)], &gradients, 0.5).unwrap();
            var.to_vec1::<f32>().unwrap()[0]
        })
        .collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
}

#[test]
fn momentum_keeps_a_share_of_the_last_update() {
    // Rate 0.05. v = 2, w = 0.9; v = 0.9·2 + 1.8 = 3.6, w = 0.72.
    close(&descend(Method::Sgd { momentum: 0.9 }, 0.0, "backbone.x.weight", [1.0; 2], 2), &[0.9, 0.72]);
    // Decay 0.2 at rate 0.05 keeps 0.99 of a weight, and all of a bias.
    close(&descend(Method::Sgd { momentum: 0.0 }, 0.2, "backbone.x.weight", [1.0; 2], 1), &[0.89]);
    close(&descend(Method::Sgd { momentum: 0.0 }, 0.2, "backbone.x.bias", [1.0; 2], 1), &[0.9]);
}

#[test]
fn weights_and_biases_have_factors_on_the_rate() {
    close(&descend(Method::Sgd { momentum: 0.0 }, 0.0, "embed.weight", [10.0, 20.0], 1), &[0.0]);
    close(&descend(Method::Sgd { momentum: 0.0 }, 0.0, "classifier.bias", [10.0, 20.0], 1), &[-1.0]);
}

#[test]
fn adam_takes_steps_of_the_rate_at_first() {
    let adam = Method::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    // The first step is rate · g / |g|. Then the corrected means of the gradients 2 and 1.9, and of
    // their squares.
    let m = (0.9 * 0.2 + 0.1 * 1.9) / 0.19f64;
    let v = (0.999 * 0.004 + 0.001 * 1.9 * 1.9) / (1.0 - 0.999f64 * 0.999);
    close(
        &descend(adam, 0.0, "backbone.x.weight", [1.0; 2], 2),
        &[0.95, (0.95 - 0.05 * m / v.sqrt()) as f32],
    );
}
