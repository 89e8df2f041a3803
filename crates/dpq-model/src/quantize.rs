//! Progressive quantization inside the graph of gradients: soft and hard codewords of every level, and the paper's three
//! quantization losses.
//!
//! Source: paper, quantization blocks and their losses. Level l chooses a codeword for the residual that the levels
//! before it left over:
//!
//! - r¹ = x and r^(l+1) = r^l − q^l_hard, where q^l_hard is the codeword that fits r^l best;
//! - q^l_soft is the mean of all codewords of the level, weighted by a softmax of how well they fit.
//!
//! Where gradients go. A hard codeword passes its gradient to itself; the choice has none. Soft weights pass theirs to all
//! codewords of the level and to its residual, and from there to x and to the hard codewords of the levels before: nothing
//! is cut, as the formulas read. A caller who wants the losses to reach the codebooks only detaches x.
//!
//! Encoding for storage is `dpq_codebook::Codebooks::encode`; this module exists for training.

use candle_core::{D, Result, Tensor};
use dpq_codebook::Assignment;

/// The least product of squared norms of which a cosine is taken.
const LEAST_SQUARED_NORMS: f64 = 1e-12;

/// A batch of features quantized at every level.
///
/// Element l of a list belongs to level l, counted from 0, and is the sum over the levels 0 to l: the approximation by a
/// code of l + 1 bytes.
pub(crate) struct Quantized {
    /// Sums of soft codewords, `[n, D]` a level.
    pub(crate) soft: Vec<Tensor>,
    /// Sums of hard codewords, `[n, D]` a level.
    pub(crate) hard: Vec<Tensor>,
    /// The numbers of the hard codewords, u32 `[n]` a level; no sums.
    pub(crate) codes: Vec<Tensor>,
}

/// Quantizes `x` with the codewords in `codebook`.
///
/// Source: paper, quantization blocks; the authors' code for cosine, where `gamma` is 1 (docs/deviations.md, rows 1 and
/// 2). Hard: the nearest codeword, or the one of largest cosine, the first of equals. Soft: softmax of −γ‖r − c‖² (squares
/// summed, not averaged, over D), or of γ·cosine. As `gamma` grows, soft becomes hard. A residual or codeword too short
/// to point anywhere has cosine 0, and the cosine no gradient.
/// Shapes: x `[n, D]`, codebook `[L, K, D]`, of one floating type.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn quantize(
    x: &Tensor,
    codebook: &Tensor,
    assignment: Assignment,
    gamma: f64,
) -> Result<Quantized> {
    let (n_levels, _, _) = codebook.dims3()?;
    let mut quantized = Quantized { soft: Vec::new(), hard: Vec::new(), codes: Vec::new() };
    let mut residual = x.clone();
    for level in 0..n_levels {
        let codewords = codebook.get(level)?;
        let fit = match assignment {
            Assignment::Euclidean => closeness(&residual, &codewords)?,
            Assignment::Cosine => cosines(&residual, &codewords)?,
        };
        let codes = fit.detach().argmax(D::Minus1)?;
        let hard = codewords.index_select(&codes, 0)?;
        let soft = softmax(&(fit * gamma)?)?.matmul(&codewords)?;

        residual = (residual - &hard)?;
        quantized.soft.push(add_to_last(&quantized.soft, soft)?);
        quantized.hard.push(add_to_last(&quantized.hard, hard)?);
        quantized.codes.push(codes);
    }
    Ok(quantized)
}

/// How far the soft sums are from `x`: Σ_l mean_n ‖x_n − x̂^l_n,soft‖², a scalar.
///
/// Source: paper, L_soft; every level counts once. The mean is over the batch; the authors' code divides by D as well
/// (docs/deviations.md, row 7).
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn soft_distortion(x: &Tensor, quantized: &Quantized) -> Result<Tensor> {
    distortion(x, &quantized.soft)
}

/// How far the hard sums are from `x`: Σ_l mean_n ‖x_n − x̂^l_n,hard‖², a scalar.
///
/// Source: paper, L_hard; normalised as [`soft_distortion`].
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn hard_distortion(x: &Tensor, quantized: &Quantized) -> Result<Tensor> {
    distortion(x, &quantized.hard)
}

/// How far soft and hard sums of all levels are apart: mean_n ‖Σ_l q^l_n,soft − Σ_l q^l_n,hard‖², a scalar.
///
/// Source: paper, L_match (the joint centre), taken at the last level only; normalised as [`soft_distortion`].
///
/// # Errors
/// Shapes that do not fit.
///
/// # Panics
/// If there is no level.
pub(crate) fn joint_center(quantized: &Quantized) -> Result<Tensor> {
    let last = quantized.soft.last().zip(quantized.hard.last());
    let (soft, hard) = last.expect("there is a level");
    mean_squared_distance(soft, hard)
}

/// Cosines of all rows of `a` `[n, D]` with all rows of `b` `[m, D]`: `[n, m]`.
///
/// Where the product of the squared norms is below [`LEAST_SQUARED_NORMS`] the cosine is 0 and so is its gradient.
/// Clamping the product alone would keep both finite, but a gradient at 0 would be as large as ‖b‖/√LEAST_SQUARED_NORMS.
pub(crate) fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let squared_norms = a.sqr()?.sum_keepdim(1)?.broadcast_mul(&b.sqr()?.sum_keepdim(1)?.t()?)?;
    let has_direction = squared_norms.detach().ge(LEAST_SQUARED_NORMS)?.to_dtype(a.dtype())?;
    let norms = squared_norms.maximum(LEAST_SQUARED_NORMS)?.sqrt()?;
    a.matmul(&b.t()?)?.mul(&has_direction)?.div(&norms)
}

/// −‖r − c‖² of all residuals `[n, D]` and codewords `[K, D]`, but for −‖r‖², which changes neither which is largest nor
/// a softmax: `[n, K]`.
fn closeness(residual: &Tensor, codewords: &Tensor) -> Result<Tensor> {
    let squared_norms = codewords.sqr()?.sum_keepdim(1)?.t()?;
    (residual.matmul(&codewords.t()?)? * 2.0)?.broadcast_sub(&squared_norms)
}

/// Softmax over each row. The largest value is subtracted as a constant: it cancels in value and gradient.
fn softmax(logits: &Tensor) -> Result<Tensor> {
    let exp = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

fn add_to_last(sums: &[Tensor], term: Tensor) -> Result<Tensor> {
    match sums.last() {
        Some(last) => last + term,
        None => Ok(term),
    }
}

fn distortion(x: &Tensor, sums: &[Tensor]) -> Result<Tensor> {
    let mut total = Tensor::zeros((), x.dtype(), x.device())?;
    for sum in sums {
        total = (total + mean_squared_distance(x, sum)?)?;
    }
    Ok(total)
}

/// mean_n ‖a_n − b_n‖² of `[n, D]`.
fn mean_squared_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.sum_all()? / a.dim(0)? as f64
}

#[cfg(test)]
mod tests;
