//! Quantization for training: soft and hard codewords of each level with their gradients, and the
//! three quantization losses of the paper. `dpq_codebook::Codebooks::encode` encodes for storage.
//!
//! Source: paper, quantization blocks and their losses. Level l chooses a codeword for the residual
//! of the levels before:
//!
//! - r¹ = x and r^(l+1) = r^l − q^l_hard, where q^l_hard is the codeword that fits r^l best;
//! - q^l_soft is the mean of all codewords of the level, weighted by a softmax of their fit.
//!
//! A level of product codebooks chooses for its part of x instead, and nothing passes from level to
//! level.
//!
//! A hard codeword gets its gradient, and the choice has none. Soft weights pass their gradient to
//! all codewords of the level and to its residual, and so to x and to the hard codewords of the
//! levels before. To train codebooks alone, detach x.

use candle_core::{D, DType, Result, Tensor, bail};
use dpq_codebook::Assignment;

/// The minimum product of squared norms for a cosine other than 0.
const MIN_SQUARED_NORMS: f64 = 1e-12;

/// A batch of features, quantized at each level.
///
/// `soft` and `hard` have one approximation per length of codes. Element l is the sum over the
/// levels 0 to l: the approximation by a code of l + 1 bytes. The only element of product codebooks
/// is the codewords of all levels, side by side.
pub(crate) struct Quantized {
    /// Sums of soft codewords, `[n, D]` per length.
    pub(crate) soft: Vec<Tensor>,
    /// Sums of hard codewords, `[n, D]` per length.
    pub(crate) hard: Vec<Tensor>,
    /// The numbers of the hard codewords, u32 `[n]` per level.
    pub(crate) codes: Vec<Tensor>,
    /// The soft weights of all codewords, `[n, K]` per level.
    pub(crate) weights: Vec<Tensor>,
}

/// Quantizes `x` with the codewords of `codebook`.
///
/// Hard assignment takes the nearest codeword, or the codeword of maximum cosine, and the first of
/// equals. Soft assignment is the softmax of −γ‖r − c‖² (a sum over D, not a mean) or of γ·cosine.
/// As `gamma` grows, soft becomes hard. With `attention` only that many codewords, those that fit
/// best, take part in the softmax. A residual or codeword too short to have a direction has cosine
/// 0 without gradient.
/// Source: paper, quantization blocks; for cosine the authors' code, where `gamma` is 1
/// (docs/deviations.md, rows 1 and 2).
/// Shapes: x `[n, D]`, codebook `[L, K, D]`, or `[L, K, D/L]` of product codebooks, of one floating
/// type.
pub(crate) fn quantize(
    x: &Tensor,
    codebook: &Tensor,
    assignment: Assignment,
    gamma: f64,
    attention: Option<usize>,
) -> Result<Quantized> {
    let (n_levels, _, width) = codebook.dims3()?;
    let is_product = width != x.dim(1)?;
    if is_product && n_levels * width != x.dim(1)? {
        bail!("quantize: {n_levels} parts of {width} dimensions, expected {} in all", x.dim(1)?);
    }
    let mut quantized =
        Quantized { soft: Vec::new(), hard: Vec::new(), codes: Vec::new(), weights: Vec::new() };
    let mut residual = x.clone();
    for level in 0..n_levels {
        let codewords = codebook.get(level)?;
        if is_product {
            residual = x.narrow(1, level * width, width)?.contiguous()?;
        }
        let fit = match assignment {
            Assignment::Euclidean => closeness(&residual, &codewords)?,
            Assignment::Cosine => cosines(&residual, &codewords)?,
        };
        let codes = fit.detach().argmax(D::Minus1)?;
        let hard = codewords.index_select(&codes, 0)?;
        let logits = (fit * gamma)?;
        let weights = match attention {
            Some(t) => partial_softmax(&logits, t)?,
            None => softmax(&logits)?,
        };
        let soft = weights.matmul(&codewords)?;

        quantized.codes.push(codes);
        quantized.weights.push(weights);
        if is_product {
            quantized.soft.push(soft);
            quantized.hard.push(hard);
        } else {
            residual = (residual - &hard)?;
            quantized.soft.push(add_to_last(&quantized.soft, soft)?);
            quantized.hard.push(add_to_last(&quantized.hard, hard)?);
        }
    }
    if is_product {
        for parts in [&mut quantized.soft, &mut quantized.hard] {
            *parts = vec![Tensor::cat(parts, 1)?];
        }
    }
    Ok(quantized)
}

/// Returns the approximations of features of `dim` dimensions by codes, `[n, D]` per length, as
/// [`Quantized::hard`].
/// Shapes: codes u32 `[n]` per level, codebook `[L, K, D]`, or `[L, K, D/L]` of product codebooks.
pub(crate) fn decode(codes: &[Tensor], codebook: &Tensor, dim: usize) -> Result<Vec<Tensor>> {
    join(codes.len(), codebook, dim, |level, codewords| codewords.index_select(&codes[level], 0))
}

/// Returns the approximations of features of `dim` dimensions by soft codes, `[n, D]` per length,
/// as [`Quantized::soft`].
/// Shapes: weights `[n, K]` per level, codebook as in [`decode`].
pub(crate) fn decode_soft(weights: &[Tensor], codebook: &Tensor, dim: usize) -> Result<Vec<Tensor>> {
    join(weights.len(), codebook, dim, |level, codewords| weights[level].matmul(codewords))
}

/// Returns sums over levels, or the parts of a product side by side, of what `of_level` makes of
/// the codewords of each level.
fn join(
    n_levels: usize,
    codebook: &Tensor,
    dim: usize,
    of_level: impl Fn(usize, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let (mut sums, mut parts) = (Vec::new(), Vec::new());
    for level in 0..n_levels {
        let codewords = of_level(level, &codebook.get(level)?)?;
        if codebook.dim(2)? == dim {
            sums.push(add_to_last(&sums, codewords)?);
        } else {
            parts.push(codewords);
        }
    }
    Ok(if parts.is_empty() { sums } else { vec![Tensor::cat(&parts, 1)?] })
}

/// Returns the distance of soft or hard sums from `x`: Σ_l mean_n ‖x_n − x̂^l_n‖², a scalar.
///
/// Source: paper, L_soft and L_hard. Each length counts once. The mean is over the batch; the
/// authors' code also divides by D (docs/deviations.md, row 7).
pub(crate) fn distortion(x: &Tensor, sums: &[Tensor]) -> Result<Tensor> {
    let mut total = Tensor::zeros((), x.dtype(), x.device())?;
    for sum in sums {
        total = (total + mean_squared_distance(x, sum)?)?;
    }
    Ok(total)
}

/// Returns the distance of the soft and hard sums of all levels: mean_n ‖Σ_l q^l_n,soft − Σ_l
/// q^l_n,hard‖², a scalar.
///
/// Source: paper, L_match (the joint centre), at the last level only, normalised as
/// [`distortion`].
pub(crate) fn joint_center(quantized: &Quantized) -> Result<Tensor> {
    let last = quantized.soft.last().zip(quantized.hard.last());
    let (soft, hard) = last.expect("there is a level");
    mean_squared_distance(soft, hard)
}

/// Returns the cosines of all rows of `a` `[n, D]` with all rows of `b` `[m, D]`: `[n, m]`.
///
/// If the product of the squared norms is below [`MIN_SQUARED_NORMS`], the cosine and its gradient
/// are 0. Clamping the product alone would keep both finite, but the gradient at 0 would be as
/// large as ‖b‖/√MIN_SQUARED_NORMS.
pub(crate) fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let squared_norms = a.sqr()?.sum_keepdim(1)?.broadcast_mul(&b.sqr()?.sum_keepdim(1)?.t()?)?;
    let has_direction = squared_norms.detach().ge(MIN_SQUARED_NORMS)?.to_dtype(a.dtype())?;
    let norms = squared_norms.maximum(MIN_SQUARED_NORMS)?.sqrt()?;
    a.matmul(&b.t()?)?.mul(&has_direction)?.div(&norms)
}

/// Returns −‖r − c‖² + ‖r‖² of all residuals `[n, D]` and codewords `[K, D]`: `[n, K]`. Leaving out
/// ‖r‖² changes neither the maximum nor the softmax.
fn closeness(residual: &Tensor, codewords: &Tensor) -> Result<Tensor> {
    let squared_norms = codewords.sqr()?.sum_keepdim(1)?.t()?;
    (residual.matmul(&codewords.t()?)? * 2.0)?.broadcast_sub(&squared_norms)
}

/// Returns the softmax of each row. The maximum is subtracted as a constant: it cancels in value
/// and gradient.
pub(crate) fn softmax(logits: &Tensor) -> Result<Tensor> {
    let exp = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Scales each row to length 1. A row too short to have a direction becomes short.
pub(crate) fn unit(rows: &Tensor) -> Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(D::Minus1)?.maximum(MIN_SQUARED_NORMS)?.sqrt()?)
}

/// Returns the softmax over the `t` largest of each row, the first of equals, and 0 for the others,
/// which get no gradient.
/// Source: partial codeword attention (Zeng et al. 2021).
fn partial_softmax(logits: &Tensor, t: usize) -> Result<Tensor> {
    let (n, k) = logits.dims2()?;
    if t >= k {
        return softmax(logits);
    }
    let mut kept = vec![0f32; n * k];
    for (row, kept) in logits.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().zip(kept.chunks_mut(k)) {
        let mut order: Vec<usize> = (0..k).collect();
        order.select_nth_unstable_by(t - 1, |&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        order[..t].iter().for_each(|&at| kept[at] = 1.0);
    }
    let kept = Tensor::from_vec(kept, (n, k), logits.device())?.to_dtype(logits.dtype())?;
    let exp = (logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?.exp()? * kept)?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

fn add_to_last(sums: &[Tensor], term: Tensor) -> Result<Tensor> {
    match sums.last() {
        Some(last) => last + term,
        None => Ok(term),
    }
}

/// Returns mean_n ‖a_n − b_n‖² of `[n, D]`.
fn mean_squared_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.sum_all()? / a.dim(0)? as f64
}

#[cfg(test)]
mod tests;
