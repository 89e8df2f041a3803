//! Codebooks in training: their initial values, their variables, and dead codewords.
//!
//! The variable `codebook` is f32 `[L, K, D]`, or `[L, K, D/L]` for product codebooks. With shared
//! codewords it is `[1, K, D]`, and `scales` is `[L − 1]`: level l has the codewords times its
//! scale, and the scale of level 0 is 1.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor, Var};
use dpq_codebook::{Beam, CodeLength, Codebooks, FitOptions, Form, ResidualKMeans};

use crate::Error;
use crate::config::{QuantizerConfig, Sharing, TrainConfig};
use crate::rng::{Stream, mix, normal, permutation, rng};
use crate::tensors::Variables;

/// The squared norm below which a codeword has no direction, so that it cannot be scaled to norm 1.
const MIN_SQUARED_NORM: f64 = 1e-24;

/// Returns the names and shapes of the variables.
pub(crate) fn shapes(config: &TrainConfig) -> BTreeMap<&'static str, Vec<usize>> {
    let (levels, codewords) = (config.quantizer.levels, config.quantizer.codewords);
    let width = match config.quantizer.form {
        Form::Progressive => config.network.dim,
        Form::Product => config.network.dim / levels,
    };
    match config.quantizer.codebooks {
        Sharing::Shared if levels > 1 => {
            [("codebook", vec![1, codewords, width]), ("scales", vec![levels - 1])].into()
        }
        _ => [("codebook", vec![levels, codewords, width])].into(),
    }
}

/// Returns random codebooks and scales, normally distributed with deviation 0.01, as in the
/// authors' code of Deep Progressive and Deep Recurrent Quantization.
pub(crate) fn random(config: &TrainConfig, device: &Device) -> Result<Variables, Error> {
    let mut rng = rng(config.seed, Stream::Codebooks);
    let mut draw = |n: usize| (0..n).map(|_| (0.01 * normal(&mut rng)) as f32).collect::<Vec<_>>();
    let codebook = draw(shapes(config)["codebook"].iter().product());
    let scales = draw(config.quantizer.levels - 1);
    variables(config, codebook, scales, device)
}

/// Fits codebooks to features by residual k-means, or by k-means on parts, unless `stop` is set.
/// Shared codewords are those of the first level.
pub(crate) fn fit(
    config: &TrainConfig,
    features: &[f32],
    device: &Device,
    stop: Option<&AtomicBool>,
) -> Result<Variables, Error> {
    let kmeans = ResidualKMeans {
        n_levels: shapes(config)["codebook"][0],
        n_codewords: config.quantizer.codewords,
        n_iterations: config.quantizer.kmeans_iterations,
    };
    let QuantizerConfig { beam: width, refine, .. } = config.quantizer;
    let weights = vec![1.0; kmeans.n_levels];
    let beam = (width > 1).then_some(Beam { width, weights: &weights });
    let options = || FitOptions { interrupt: stop, beam, ..FitOptions::default() };
    let mut codebooks = match config.quantizer.form {
        Form::Progressive => kmeans.train_with(features, config.network.dim, options())?,
        Form::Product => kmeans.train_product(features, config.network.dim, options())?,
    };
    if refine > 0 {
        codebooks = codebooks.refine(features, refine, options())?;
    }
    let codebook = codebooks.values().to_vec();
    let scales = match config.quantizer.codebooks {
        Sharing::Separate => Vec::new(),
        Sharing::Shared => fit_scales(config, &codebook, features)?,
    };
    variables(config, codebook, scales, device)
}

/// Encodes features f32 `[n, D]` by the beam search of the configuration.
pub(crate) fn encode(
    quantizer: &QuantizerConfig,
    codebooks: &Codebooks,
    features: &[f32],
) -> Result<Vec<u8>, Error> {
    Ok(match quantizer.beam {
        1 => codebooks.encode(features)?,
        width => {
            codebooks.encode_beam(features, Beam { width, weights: &vec![1.0; codebooks.n_levels()] })?
        }
    })
}

/// Returns the scales of shared codewords: the root mean square of the residuals that enter a
/// level, divided by that of the features.
fn fit_scales(config: &TrainConfig, codewords: &[f32], features: &[f32]) -> Result<Vec<f32>, Error> {
    let quantizer = &config.quantizer;
    let (mut residuals, mut share, mut scales) = (features.to_vec(), 1.0, Vec::new());
    for _ in 1..quantizer.levels {
        let scale = f64::sqrt(share) as f32;
        let codewords = codewords.iter().map(|x| x * scale).collect();
        let level =
            Codebooks::new(codewords, 1, quantizer.codewords, config.network.dim, quantizer.assignment)?;
        let codes = level.encode(&residuals)?;
        share *= level.relative_distortion(&residuals, &codes)?[0];
        let decoded = level.decode(&codes, CodeLength::from_levels(1)?)?;
        residuals.iter_mut().zip(decoded).for_each(|(r, c)| *r -= c);
        scales.push(share.sqrt() as f32);
    }
    Ok(scales)
}

fn variables(
    config: &TrainConfig,
    codebook: Vec<f32>,
    scales: Vec<f32>,
    device: &Device,
) -> Result<Variables, Error> {
    let mut values = BTreeMap::from([("codebook", codebook), ("scales", scales)]);
    let variable = |(name, shape): (&str, Vec<usize>)| {
        let values = values.remove(name).expect("both have values");
        Ok((name.to_owned(), Var::from_vec(values, shape, device)?))
    };
    shapes(config).into_iter().map(variable).collect()
}

/// Returns the codewords of all levels, f32 `[L, K, D]` or `[L, K, D/L]`, with gradients.
pub(crate) fn expanded(config: &TrainConfig, variables: &Variables) -> candle_core::Result<Tensor> {
    let mut codebook = variables["codebook"].as_tensor().clone();
    if config.quantizer.unit_codewords {
        // Such a codeword is 0 and has no gradient: that of the clamped norm would be 10¹².
        let squared_norms = codebook.sqr()?.sum_keepdim(2)?;
        let has_direction = squared_norms.detach().ge(MIN_SQUARED_NORM)?.to_dtype(codebook.dtype())?;
        let norms = squared_norms.maximum(MIN_SQUARED_NORM)?.sqrt()?;
        codebook = codebook.broadcast_mul(&has_direction)?.broadcast_div(&norms)?;
    }
    let Some(scales) = variables.get("scales") else { return Ok(codebook) };
    let first = Tensor::ones(1, scales.dtype(), scales.device())?;
    codebook.broadcast_mul(&Tensor::cat(&[&first, scales.as_tensor()], 0)?.reshape(((), 1, 1))?)
}

pub(crate) fn codebooks(config: &TrainConfig, variables: &Variables) -> Result<Codebooks, Error> {
    let quantizer = &config.quantizer;
    let values = expanded(config, variables)?.flatten_all()?.to_vec1::<f32>()?;
    let (levels, codewords) = (quantizer.levels, quantizer.codewords);
    let (form, assignment) = (quantizer.form, quantizer.assignment);
    Ok(Codebooks::with_form(form, values, levels, codewords, config.network.dim, assignment)?)
}

/// Moves codewords that no item uses, and returns their number. A codeword moves to the residual
/// that enters its level for a random item, a codeword of a product to its part of the feature, a
/// shared codeword to the feature of the item.
///
/// The memory of the optimiser for the codeword stays, because it fades within a few steps.
/// Source: SoundStream (Zeghidour et al. 2021), which replaces rarely used codewords with inputs of
/// a batch.
/// Shapes: features `[n, D]` and their codes `[n, L]` by `codebooks`.
pub(crate) fn revive(
    config: &TrainConfig,
    epoch: usize,
    variables: &Variables,
    codebooks: &Codebooks,
    features: &[f32],
    codes: &[u8],
) -> Result<usize, Error> {
    let [n_levels, n_codewords, width] = codebooks.shape();
    let dim = codebooks.dim();
    let variable = &variables["codebook"];
    let mut values = variable.as_detached_tensor().flatten_all()?.to_vec1::<f32>()?;
    let n_own = variable.dim(0)?;
    let mut n_revived = 0;
    for level in 0..n_own {
        let mut used = [false; 256];
        let step = if n_own == n_levels { n_levels } else { 1 };
        codes.iter().skip(level).step_by(step).for_each(|&code| used[usize::from(code)] = true);
        let dead = (0..n_codewords).filter(|&codeword| !used[codeword]);
        let mut rng = rng(mix(config.seed, &[epoch, level]), Stream::Revival);
        for (codeword, row) in dead.zip(permutation(features.len() / dim, &mut rng)) {
            let new = &mut values[(level * n_codewords + codeword) * width..][..width];
            new.copy_from_slice(&features[row * dim..][codebooks.dims(level)]);
            let n_before = if codebooks.form() == Form::Product { 0 } else { level };
            for (level, &code) in codes[row * n_levels..][..n_before].iter().enumerate() {
                new.iter_mut().zip(codebooks.codeword(level, code.into())).for_each(|(r, c)| *r -= c);
            }
            n_revived += 1;
        }
    }
    if n_revived > 0 {
        variable.set(&Tensor::from_vec(values, variable.shape(), variable.device())?)?;
    }
    Ok(n_revived)
}

#[cfg(test)]
mod tests;
