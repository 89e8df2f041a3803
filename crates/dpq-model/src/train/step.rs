//! A step of training: the loss of a batch, and the update of the variables by its gradient.

use candle_core::{DType, Result as TensorResult, Tensor};
use rayon::prelude::*;

use super::{Epoch, Run};
use crate::diverged::diverged;
use crate::inputs::Batch;
use crate::objective::{Needs, Targets, Term};
use crate::rng::mix;
use crate::schedule::Phase;
use crate::{Error, codebook, ops, shards};

impl Run<'_> {
    /// Trains the phases of an epoch on a batch.
    pub(super) fn step(
        &mut self,
        epoch: &mut Epoch,
        step: usize,
        rows: &[usize],
        views: &[Batch],
    ) -> Result<(), Error> {
        let (config, device) = (self.config, &self.state.device.clone());
        let views: TensorResult<Vec<_>> =
            views.iter().map(|batch| epoch.header.input(batch, false, device)).collect();
        let views = views?;
        let needs_labels = self.objective.needs().labels;
        let targets = Targets {
            labels: needs_labels.then(|| self.data.labels_of(rows, device)).transpose()?,
            other_matches: self.data.other_matches(&self.sorted_pairs, rows, device)?,
        };
        let Needs { workers: n_workers, codes: needs_codes, .. } = self.objective.needs();
        let inputs: Vec<Tensor> = shards::ranges(rows.len(), n_workers)
            .map(|rows| {
                let views = views.iter().map(|x| x.narrow(0, rows.start, rows.len()));
                Tensor::cat(&views.collect::<TensorResult<Vec<_>>>()?, 0)
            })
            .collect::<TensorResult<_>>()?;
        let inputs: Vec<Tensor> =
            inputs.iter().map(|x| self.state.network.frozen(x)).collect::<Result<_, _>>()?;
        for &phase in config.schedule.phases(epoch.number, config.epochs) {
            let codebook = match phase {
                Phase::Features => None,
                _ => Some(codebook::expanded(config, &self.state.codebook)?),
            };
            let mut all_outputs = Vec::new();
            for (worker, x) in inputs.iter().enumerate() {
                // Workers drop different outputs. One of them alone is as no worker.
                let coordinates = [epoch.number, step, worker];
                let seed = mix(config.seed, &coordinates[..if worker == 0 { 2 } else { 3 }]);
                let outputs = match phase {
                    Phase::Codebooks => self.state.network.forward(x)?,
                    _ => self.state.network.forward_train(x, seed)?,
                };
                if codebook.is_some() && !needs_codes {
                    epoch.features.extend(outputs.features.flatten_all()?.to_vec1::<f32>()?);
                }
                all_outputs.push(outputs);
            }
            let codebook = codebook.as_ref();
            let mut shared = Vec::new();
            for (outputs, shard) in all_outputs.iter().zip(shards::ranges(rows.len(), n_workers)) {
                let codes = match &self.codes {
                    Some(codes) => {
                        self.data.codes_of(&rows[shard], codes, config.quantizer.levels, device)?
                    }
                    None => Vec::new(),
                };
                shared.push(self.objective.shared(outputs, &codes, codebook)?);
            }
            let mut terms = Vec::new();
            for (worker, outputs) in all_outputs.iter().enumerate() {
                let all = shards::all_gather(&shared, worker)?;
                terms.push(self.objective.terms(phase, outputs, &all, &targets, codebook)?);
            }
            self.update(epoch, step, phase, &terms)?;
        }
        Ok(())
    }

    /// Updates the variables of a phase by the gradient of the weighted sum of the terms, which
    /// each worker has of its own.
    fn update(
        &mut self,
        epoch: &mut Epoch,
        step: usize,
        phase: Phase,
        workers: &[Vec<Term>],
    ) -> Result<(), Error> {
        let (config, state) = (self.config, &mut self.state);
        let mut totals = Vec::new();
        for (worker, terms) in workers.iter().enumerate() {
            let mut total = Tensor::zeros((), DType::F32, &state.device)?;
            for Term { name, weight, value } in terms {
                // All workers have the losses of the whole batch.
                if worker == 0 {
                    epoch.losses.add(name, f64::from(value.to_scalar::<f32>()?));
                }
                // Without a gradient a variable stays as it is. With a gradient of 0 it would
                // decay.
                if *weight > 0.0 {
                    total = (total + (value * *weight)?)?;
                }
            }
            totals.push(total);
        }
        if epoch.losses.last().values().any(|loss| !loss.is_finite()) {
            return Err(diverged(state, (epoch.number, step), &epoch.losses, &self.checkpoint));
        }
        let gradients: TensorResult<Vec<_>> = totals.par_iter().map(ops::backward).collect();
        let variables = [&state.network.body, &state.network.heads, &state.codebook];
        let gradients = shards::sum(gradients?, &variables)?;
        let (at, n_steps) = (epoch.number * self.n_steps + step, self.n_steps * config.epochs);
        if phase != Phase::Codebooks {
            let optimizer = &config.network_optimizer;
            let factors = [optimizer.head_weights, optimizer.head_biases];
            let groups = [(&state.network.body, [1.0; 2]), (&state.network.heads, factors)];
            let factor = optimizer.rate_schedule.factor(at, n_steps);
            state.network_optimizer.step(&groups, &gradients, factor)?;
        }
        if phase != Phase::Features {
            let factor = config.codebook_optimizer.rate_schedule.factor(at, n_steps);
            state.codebook_optimizer.step(&[(&state.codebook, [1.0; 2])], &gradients, factor)?;
        }
        Ok(())
    }
}
