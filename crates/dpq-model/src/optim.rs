//! Optimisers: momentum SGD and AdamW.

use std::collections::BTreeMap;

use candle_core::Result;
use candle_core::backprop::GradStore;

use crate::config::OptimizerConfig;
use crate::ops;
use crate::ops::update::{Buffers, Rule};
use crate::tensors::Variables;

/// An optimiser and its memory.
pub(crate) struct Optimizer {
    config: OptimizerConfig,
    /// Number of updates so far.
    pub(crate) n_steps: usize,
    /// By name of the variable.
    pub(crate) buffers: BTreeMap<String, Buffers>,
}

impl Optimizer {
    pub(crate) fn new(config: OptimizerConfig) -> Self {
        Self { config, n_steps: 0, buffers: BTreeMap::new() }
    }

    /// Updates every variable that has a gradient, at `factor` times the configured rate. Each
    /// group of variables has factors of its own for weights and for biases.
    pub(crate) fn step(
        &mut self,
        groups: &[(&Variables, [f64; 2])],
        gradients: &GradStore,
        factor: f64,
    ) -> Result<()> {
        self.n_steps += 1;
        for (variables, [weights, biases]) in groups {
            for (name, var) in *variables {
                let Some(gradient) = gradients.get(var) else { continue };
                let group = if name.ends_with(".bias") { biases } else { weights };
                let rate = self.config.rate * factor * group;
                // Weights decay. Biases and the parameters of normalisation do not.
                let decay = if name.ends_with("weight") { self.config.weight_decay } else { 0.0 };
                let keep = (1.0 - rate * decay) as f32;
                let rule = Rule::new(self.config.method, self.n_steps, rate, keep);
                let zeros = || Buffers::new([(); 2].map(|()| vec![0.0; var.elem_count()]));
                let buffers = self.buffers.entry(name.clone()).or_insert_with(zeros);
                ops::update(var, gradient, rule, buffers)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
