//! Workers that train on parts of a batch and share their negatives.
//!
//! Source: MoPQ's differentiable cross-device sampling. A worker has a part of the batch, its
//! shard. It collects what all workers share of theirs, the part of others as constants, and
//! computes the loss of the whole batch. So the sum of the workers' gradients is the gradient of
//! the whole batch.

use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

use crate::tensors::Variables;

/// Returns the rows of each of `n_workers` shards of a batch of `n` items.
pub(crate) fn ranges(n: usize, n_workers: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_workers).map(move |worker| worker * n / n_workers..(worker + 1) * n / n_workers)
}

/// Joins what the workers share, `[n_w, …]` each, to tensors of the whole batch, `[Σ n_w, …]`, for
/// one of the workers: the gradient reaches its own part.
pub(crate) fn all_gather(shared: &[Vec<Tensor>], worker: usize) -> Result<Vec<Tensor>> {
    if let [own] = shared {
        return Ok(own.clone());
    }
    let part = |(of, tensors): (usize, &Vec<Tensor>), at: usize| match of == worker {
        true => tensors[at].clone(),
        false => tensors[at].detach(),
    };
    (0..shared[worker].len())
        .map(|at| Tensor::cat(&shared.iter().enumerate().map(|of| part(of, at)).collect::<Vec<_>>(), 0))
        .collect()
}

/// Adds the gradients of all workers, in their order.
pub(crate) fn sum(all: Vec<GradStore>, variables: &[&Variables]) -> Result<GradStore> {
    let mut all = all.into_iter();
    let mut total = all.next().expect("there is a worker");
    for gradients in all {
        for var in variables.iter().flat_map(|variables| variables.values()) {
            let Some(gradient) = gradients.get(var) else { continue };
            let sum = match total.get(var) {
                Some(others) => (others + gradient)?,
                None => gradient.clone(),
            };
            total.insert(var, sum);
        }
    }
    Ok(total)
}
