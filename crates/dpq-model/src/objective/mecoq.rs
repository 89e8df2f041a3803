//! Contrastive quantization with code memory (Wang et al., AAAI 2022): soft approximations of two
//! views of an image are alike, and unlike those of other images.

use candle_core::{D, Result as TensorResult, Tensor};

use super::{Needs, Objective, Targets, Term};
use crate::Error;
use crate::config::{MecoqConfig, QuantizerConfig};
use crate::network::Heads;
use crate::quantize::{decode_soft, quantize, unit};
use crate::schedule::Phase;

/// Added to probabilities before the logarithm of an entropy, so that it is finite.
const MIN_PROBABILITY: f64 = 1e-12;

/// mean_l C(x̂^l) + entropy · H + diversity · V, where C is [`contrast`], x̂^l the soft
/// approximation by l levels, H the mean entropy of soft codes and V the mean cosine of codewords.
/// Without codebooks it is C(x).
pub(crate) struct Mecoq {
    pub(crate) config: MecoqConfig,
    pub(crate) quantizer: QuantizerConfig,
    /// Whether steps keep their soft codes.
    remembers: bool,
    /// Soft codes of past steps, oldest first, `[m, L, K]`.
    memory: Option<Tensor>,
}

impl Mecoq {
    pub(crate) fn new(config: MecoqConfig, quantizer: QuantizerConfig) -> Self {
        Self { config, quantizer, remembers: false, memory: None }
    }

    /// Returns the approximations by the codes in memory, `[m, D]` per length. The codebook is that
    /// of today, and gets a gradient.
    fn recall(&self, codebook: &Tensor, dim: usize) -> TensorResult<Option<Vec<Tensor>>> {
        let Some(memory) = &self.memory else { return Ok(None) };
        let weights = |level| memory.narrow(1, level, 1)?.squeeze(1)?.contiguous();
        let weights = (0..self.quantizer.levels).map(weights).collect::<TensorResult<Vec<_>>>()?;
        decode_soft(&weights, codebook, dim).map(Some)
    }

    /// Keeps the soft codes of the first views of a batch, `[2n, K]` per level.
    fn remember(&mut self, weights: &[Tensor]) -> TensorResult<()> {
        if !self.remembers || self.config.memory == 0 {
            return Ok(());
        }
        let first = |of_level: &Tensor| of_level.detach().narrow(0, 0, of_level.dim(0)? / 2);
        let new = Tensor::stack(&weights.iter().map(first).collect::<TensorResult<Vec<_>>>()?, 1)?;
        let all = match &self.memory {
            Some(memory) => Tensor::cat(&[memory, &new], 0)?,
            None => new,
        };
        let n_kept = all.dim(0)?.min(self.config.memory);
        self.memory = Some(all.narrow(0, all.dim(0)? - n_kept, n_kept)?.contiguous()?);
        Ok(())
    }
}

impl Objective for Mecoq {
    fn needs(&self) -> Needs {
        Needs { labels: false, codes: false, views: 2, workers: 1 }
    }

    fn begin(&mut self, share: f64) {
        self.remembers = share >= self.config.memory_after;
    }

    fn memory(&self) -> Option<&Tensor> {
        self.memory.as_ref()
    }

    fn set_memory(&mut self, memory: Tensor) {
        self.memory = Some(memory);
    }

    fn memory_shape(&self) -> Option<[usize; 3]> {
        let QuantizerConfig { levels, codewords, .. } = self.quantizer;
        Some([self.config.memory, levels, codewords])
    }

    fn terms(
        &mut self,
        _: Phase,
        Heads { features, .. }: &Heads,
        _: &[Tensor],
        _: &Targets,
        codebook: Option<&Tensor>,
    ) -> Result<Vec<Term>, Error> {
        let config = self.config;
        let Some(codebook) = codebook else {
            let value = contrast(&unit(features)?, None, config)?;
            return Ok(vec![Term { name: "contrast", weight: 1.0, value }]);
        };
        let QuantizerConfig { assignment, softness, attention, .. } = self.quantizer;
        let quantized = quantize(features, codebook, assignment, softness, attention)?;
        let past = self.recall(codebook, features.dim(1)?)?;
        let n_lengths = quantized.soft.len();
        let mut sum = Tensor::zeros((), features.dtype(), features.device())?;
        for (length, soft) in quantized.soft.iter().enumerate() {
            let past = past.as_ref().map(|past| unit(&past[length])).transpose()?;
            sum = (sum + contrast(&unit(soft)?, past.as_ref(), config)?)?;
        }
        self.remember(&quantized.weights)?;
        Ok(vec![
            Term { name: "contrast", weight: 1.0, value: (sum / n_lengths as f64)? },
            Term { name: "entropy", weight: config.entropy, value: entropy(&quantized.weights)? },
            Term { name: "diversity", weight: config.diversity, value: mean_cosine(codebook)? },
        ])
    }
}

/// Returns mean_i −log(p_i / (p_i + G_i)), a scalar: the cross-entropy of finding the other view of
/// an image, where p = exp(⟨x, x⁺⟩ / T) of the two views and G is the debiased sum over all others.
///
/// Source: the debiased contrastive loss (Chuang et al. 2020), where
/// G = max((Σ exp(⟨x, x⁻⟩ / T) − ρ · n · p) / (1 − ρ), n · exp(−1 / T)) for n negatives.
/// Deviation: n counts the negatives in memory, too, and the floor is n times the least value; the
/// authors' code leaves out both (docs/deviations.md).
/// Shapes: views `[2n, D]`, the first of all images, then the second; past `[m, D]`. All rows have
/// length 1.
fn contrast(views: &Tensor, past: Option<&Tensor>, config: MecoqConfig) -> TensorResult<Tensor> {
    let (temperature, share) = (config.temperature, config.positives);
    let n = views.dim(0)? / 2;
    let other = Tensor::cat(&[views.narrow(0, n, n)?, views.narrow(0, 0, n)?], 0)?;
    // All exponentials are divided by that of the largest possible cosine.
    let exponent = |cosines: Tensor| (cosines - 1.0)? / temperature;
    let to_other = exponent((views * other)?.sum_keepdim(1)?)?;
    let positive = to_other.exp()?;
    let is_negative = |i: usize, j: usize| f64::from(u8::from(i % n != j % n));
    let is_negative: Vec<f64> = (0..2 * n).flat_map(|i| (0..2 * n).map(move |j| is_negative(i, j))).collect();
    let is_negative = Tensor::from_vec(is_negative, (2 * n, 2 * n), views.device())?;
    let among = exponent(views.matmul(&views.t()?)?)?.exp()?;
    let mut negatives = (among * is_negative.to_dtype(views.dtype())?)?.sum_keepdim(1)?;
    let mut n_negatives = 2 * n - 2;
    if let Some(past) = past {
        negatives = (negatives + exponent(views.matmul(&past.t()?)?)?.exp()?.sum_keepdim(1)?)?;
        n_negatives += past.dim(0)?;
    }
    let n_negatives = n_negatives as f64;
    let unbiased = ((negatives - (&positive * (share * n_negatives))?)? / (1.0 - share))?;
    let sum = unbiased.maximum(n_negatives * (-2.0 / temperature).exp())?;
    ((positive + sum)?.log()? - to_other)?.mean_all()
}

/// Returns the mean of −Σ_k p_k log p_k over items and levels, a scalar.
/// Shapes: `[n, K]` per level.
fn entropy(weights: &[Tensor]) -> TensorResult<Tensor> {
    let all = Tensor::cat(weights, 0)?;
    (&all * (&all + MIN_PROBABILITY)?.log()?)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// Returns the mean over levels of mean_{k,k'} cos(c_k, c_k'), a scalar: the squared length of the
/// mean of the codewords at length 1.
/// Shapes: `[L, K, D]`.
fn mean_cosine(codebook: &Tensor) -> TensorResult<Tensor> {
    unit(codebook)?.mean(1)?.sqr()?.sum(D::Minus1)?.mean_all()
}

#[cfg(test)]
mod tests;
