//! A pass of a batch through a network: its parameters, and the operations that differ between
//! training and inference.

use candle_core::{Device, Result, Tensor};

use crate::config::Moments;
use crate::ops;
use crate::rng::{Stream, mix, rng, uniform};
use crate::tensors::{Tensors, Variables};

/// Added to the variance in batch normalisation, so that it is never 0.
const EPSILON: f64 = 1e-5;

/// The share of the moments of a batch in the running moments.
const MOMENTUM: f64 = 0.1;

/// Minimum number of rows of a linear layer in inference. Products of few rows are rounded
/// otherwise, and a feature must not depend on the batch.
const ROWS: usize = 32;

pub(crate) enum Pass<'a> {
    /// Normalises by the moments of the batch and adds them to the running moments, or adds `beta`
    /// alone, if the body has absorbed all else. Applies dropout.
    Training {
        /// Variables of the body and of the heads.
        variables: [&'a Variables; 2],
        /// Running moments and label embeddings.
        untrained: &'a mut Tensors,
        moments: Moments,
        dropout: f64,
        seed: u64,
    },
    /// Normalises by running moments, which the body has folded into weights, scales and shifts.
    Inference(&'a Tensors),
}

impl Pass<'_> {
    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.find(name).expect("a layer names its own parameters")
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        match self {
            Self::Training { variables: [body, heads], untrained, .. } => {
                let variable = body.get(name).or_else(|| heads.get(name)).map(|var| &**var);
                variable.or_else(|| untrained.get(name))
            }
            Self::Inference(tensors) => tensors.get(name),
        }
    }

    /// Applies a linear layer, which may have no bias, then a ReLU if `relu` is set.
    pub(crate) fn linear(&self, x: &Tensor, name: &str, relu: bool) -> Result<Tensor> {
        let weight = self.get(&format!("{name}.weight"));
        let bias = self.find(&format!("{name}.bias"));
        let n = x.dim(0)?;
        match self {
            Self::Inference(_) if n < ROWS => {
                let x = x.pad_with_zeros(0, 0, ROWS - n)?;
                ops::linear(&x, weight, bias, relu)?.narrow(0, 0, n)
            }
            _ => ops::linear(x, weight, bias, relu),
        }
    }

    /// Returns the scale and the shift of a normalisation in inference, `None` in training.
    pub(crate) fn scale_and_shift(&self, norm: &str) -> Option<[&Tensor; 2]> {
        match self {
            Self::Training { .. } => None,
            Self::Inference(tensors) => {
                Some(["scale", "shift"].map(|kind| &tensors[&format!("{norm}.{kind}")]))
            }
        }
    }

    /// Returns `beta` of a normalisation in training if it is all that is left of it.
    pub(crate) fn shift(&self, norm: &str) -> Option<&Tensor> {
        match self {
            Self::Training { moments: Moments::Stored, .. } => Some(self.get(&format!("{norm}.beta"))),
            _ => None,
        }
    }

    /// Applies dropout to `[n, units]` in training. `layer` is the number of a layer inside the
    /// body, or `None` for the result of the body.
    pub(crate) fn dropout(&self, x: &Tensor, layer: Option<usize>) -> Result<Tensor> {
        match self {
            Self::Training { dropout, seed, .. } if *dropout > 0.0 => {
                let seed = layer.map_or(*seed, |layer| mix(*seed, &[0, layer]));
                x * dropout_mask(x.dims2()?, *dropout, seed)?.to_device(x.device())?
            }
            _ => Ok(x.clone()),
        }
    }

    /// Applies batch normalisation in training, then a ReLU if `relu` is set.
    pub(crate) fn normalise(&mut self, x: &Tensor, norm: &str, relu: bool) -> Result<Tensor> {
        let [gamma, beta] = ["gamma", "beta"].map(|kind| self.get(&format!("{norm}.{kind}")));
        let (y, mean, var) = ops::batch_norm(x, gamma, beta, EPSILON, relu)?;
        if let Self::Training { untrained, .. } = self {
            for (name, value) in [("mean", mean), ("var", var)] {
                let running = untrained.get_mut(&format!("{norm}.{name}")).expect("made with the network");
                *running = ((&*running * (1.0 - MOMENTUM))? + (value.detach() * MOMENTUM)?)?.detach();
            }
        }
        Ok(y)
    }
}

/// Returns the tensors of a normalisation that does nothing but add `shift`.
pub(crate) fn shift_alone(shift: Tensor) -> Result<[(&'static str, Tensor); 4]> {
    let var = shift.ones_like()?.affine(1.0 - EPSILON, 0.0)?;
    Ok([("gamma", shift.ones_like()?), ("mean", shift.zeros_like()?), ("var", var), ("beta", shift)])
}

/// Returns batch normalisation by running moments as a scale and a shift.
pub(crate) fn scale_and_shift(tensors: &Tensors, norm: &str) -> Result<[Tensor; 2]> {
    let [gamma, beta, mean, var] =
        ["gamma", "beta", "mean", "var"].map(|kind| &tensors[&format!("{norm}.{kind}")]);
    let scale = (gamma / (var + EPSILON)?.sqrt()?)?;
    let shift = (beta - (mean * &scale)?)?;
    Ok([scale, shift])
}

/// Returns 0 with probability `share`, else 1 / (1 − share), which keeps the mean.
fn dropout_mask((n, units): (usize, usize), share: f64, seed: u64) -> Result<Tensor> {
    let kept = (1.0 / (1.0 - share)) as f32;
    let mut values = Vec::with_capacity(n * units);
    for row in 0..n {
        let mut rng = rng(mix(seed, &[row]), Stream::Dropout);
        values.extend((0..units).map(|_| if uniform(&mut rng) < share { 0.0 } else { kept }));
    }
    Tensor::from_vec(values, (n, units), &Device::Cpu)
}
