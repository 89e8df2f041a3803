//! The losses that give features their meaning: classification and the adaptive margin.
//!
//! Labels are multi-hot, `[n, C]`: 1 where the item has the class, else 0. All tensors are of one floating type.

use candle_core::{D, Result, Tensor};

use crate::config::Margins;
use crate::quantize::cosines;

/// How far class scores are from the labels, a scalar.
///
/// Source: paper, L_C, as the authors' code averages it. Of one label an item: the cross-entropy of a softmax, averaged
/// over n. With `multi_label`: that of a sigmoid per class, averaged over n and C. Finite for every finite logit.
/// Shapes: logits `[n, C]`, labels `[n, C]`.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn classification(logits: &Tensor, labels: &Tensor, multi_label: bool) -> Result<Tensor> {
    if multi_label {
        // −y·log σ(x) − (1 − y)·log(1 − σ(x)) without the logarithm of a vanishing sigmoid. At 0 candle takes 1 for the
        // gradients of both relu and abs, with which the gradient of the whole is σ(0) − y as it should be.
        let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        return (softplus - (logits * labels)?)?.mean_all();
    }
    // The largest logit is subtracted as a constant: it cancels in value and gradient.
    let logits = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let log_sums = logits.exp()?.sum_keepdim(D::Minus1)?.log()?;
    (log_sums.broadcast_sub(&logits)? * labels)?.sum_all()? / logits.dim(0)? as f64
}

/// How far features are from the embeddings of their labels, compared with those of other classes, a scalar:
/// 1/(n·C) Σ_n Σ_{i ∈ Y_n} Σ_j max(0, δ_ij − cos(v_i, x_n) + cos(v_j, x_n)), where δ_ij = 1 − cos(v_i, v_j).
///
/// Source: paper, adaptive margin loss L_S; classes with similar embeddings need a small margin, equal ones none.
/// Deviation: the paper writes a sum over n and j ∉ Y_n; the authors' code divides by n·C and lets j run over all
/// classes. Here `margins` says over which j, and n·C divides either, so that the other losses' weights mean the same
/// (docs/deviations.md, row 6). The loss does not see the length of a feature. A hinge at exactly 0 has gradient 0, and
/// so has a feature of length 0.
/// Shapes: x `[n, D]`, labels `[n, C]`, embeddings `[C, D]`, of any length other than 0.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn adaptive_margin(
    x: &Tensor,
    labels: &Tensor,
    embeddings: &Tensor,
    margins: Margins,
) -> Result<Tensor> {
    let to_x = cosines(x, embeddings)?;
    let deltas = (1.0 - cosines(embeddings, embeddings)?)?.unsqueeze(0)?;
    // [n, C, C]: an item, its label i, the class j it is compared with.
    let hinges = deltas.broadcast_sub(&to_x.unsqueeze(2)?)?.broadcast_add(&to_x.unsqueeze(1)?)?;
    let compared = match margins {
        Margins::Negatives => (1.0 - labels)?,
        Margins::All => labels.ones_like()?,
    };
    // A factor instead of candle's relu, whose gradient at 0 is 1: a hinge that is met must not pull.
    let counts = hinges
        .detach()
        .gt(0.0)?
        .to_dtype(labels.dtype())?
        .broadcast_mul(&labels.unsqueeze(2)?)?
        .broadcast_mul(&compared.unsqueeze(1)?)?;
    (hinges * counts)?.sum_all()? / labels.elem_count() as f64
}

#[cfg(test)]
mod tests;
