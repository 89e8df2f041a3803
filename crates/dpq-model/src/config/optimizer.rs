//! The configuration of optimisers.

use serde::{Deserialize, Serialize};

use super::check_all;
use crate::Error;

/// An optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The update rule.
    pub method: Method,
    /// The learning rate.
    pub rate: f64,
    /// Changes of the learning rate over the run.
    pub rate_schedule: RateSchedule,
    /// Decoupled decay of weights. Biases and normalisation do not decay.
    pub weight_decay: f64,
    /// Factor on the learning rate of weights of the heads.
    pub head_weights: f64,
    /// Factor on the learning rate of biases of the heads.
    pub head_biases: f64,
}

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// Stochastic gradient descent: v ← momentum · v + g, w ← w − rate · v.
    Sgd {
        /// Share of the previous update that is kept.
        momentum: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019). Plain Adam if the decay is 0.
    AdamW {
        /// Share of the mean gradient that is kept.
        beta1: f64,
        /// Share of the mean squared gradient that is kept.
        beta2: f64,
        /// Added to the denominator, so that it is never 0.
        epsilon: f64,
    },
}

/// Changes of a learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RateSchedule {
    /// The rate does not change.
    Constant,
    /// The rate is multiplied by `factor` after every `every` steps.
    Exponential {
        /// The factor.
        factor: f64,
        /// Steps from one change to the next.
        every: usize,
    },
    /// The rate rises linearly from 0, then falls to 0 along half a cosine.
    WarmupCosine {
        /// Share of steps in which the rate rises. In [0, 1).
        warmup: f64,
    },
}

impl OptimizerConfig {
    pub(super) fn check(&self, key: &'static str) -> Result<(), Error> {
        let numbers = [self.rate, self.weight_decay, self.head_weights, self.head_biases];
        let at_least_0 = numbers.iter().all(|&x| x >= 0.0 && x.is_finite());
        let in_range = match self.method {
            Method::Sgd { momentum } => (0.0..1.0).contains(&momentum),
            Method::AdamW { beta1, beta2, epsilon } => {
                (0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2) && epsilon > 0.0
            }
        };
        let schedule = match self.rate_schedule {
            RateSchedule::Constant => true,
            RateSchedule::Exponential { factor, every } => factor > 0.0 && factor.is_finite() && every > 0,
            RateSchedule::WarmupCosine { warmup } => (0.0..1.0).contains(&warmup),
        };
        check_all(&[
            (at_least_0, key, "finite rates, decay and factors of at least 0"),
            (in_range, key, "a momentum or betas in [0, 1) and an epsilon above 0"),
            (schedule, key, "a rate schedule with `every` and `factor` above 0, `warmup` in [0, 1)"),
        ])
    }
}
