//! The losses that give features their meaning: classification and the adaptive margin.
//!
//! Labels are multi-hot, f32 [n, C]: 1 where the item has the class, else 0.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::quantize::cosines;

/// Which classes j the margin loss compares with a label i of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margins {
    /// The classes that the item does not have: the paper.
    Negatives,
    /// All classes, the item's other labels included: the authors' code. The same as `Negatives` with one label an item.
    All,
}

/// How far class scores are from the labels, a scalar.
///
/// Source: the authors' code. Of one label an item: softmax cross-entropy, averaged over n. With `multi_label`: the
/// cross-entropy of a sigmoid per class, averaged over n and C. Finite for every finite logit.
/// Shapes: logits `[n, C]`, labels `[n, C]`, both f32.
///
/// # Errors
/// Shapes that do not fit.
pub fn classification(logits: &Tensor, labels: &Tensor, multi_label: bool) -> Result<Tensor> {
    if multi_label {
        // −y·log σ(x) − (1 − y)·log(1 − σ(x)), without a logarithm of a vanishing sigmoid. At 0 candle takes 1 for the
        // gradients of both relu and abs, whose sum here is the right one.
        let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
        return ((logits.relu()? - (logits * labels)?)? + softplus)?.mean_all();
    }
    // The largest logit is subtracted as a constant: it cancels in value and gradient.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    (log_sum.broadcast_sub(&shifted)? * labels)?.sum_all()? / logits.dim(0)? as f64
}

/// How far features are from the embeddings of their labels, compared with those of other classes, a scalar:
/// 1/(n·C) Σ_n Σ_{i ∈ Y_n} Σ_j max(0, δ_ij − cos(v_i, x_n) + cos(v_j, x_n)), δ_ij = 1 − cos(v_i, v_j).
///
/// Source: paper, adaptive margin loss L_S; classes with similar embeddings need a small margin, equal ones none. Deviation:
/// the paper writes a sum over j ∉ Y_n and n; this is divided by n·C for both `margins`, as in the authors' code
/// (docs/deviations.md, row 6), so that the weight of the other losses means the same in either. The loss does not see
/// the length of a feature. A hinge at exactly 0 has gradient 0, and so has a feature of length 0.
/// Shapes: x `[n, D]`, labels `[n, C]`, embeddings `[C, D]`, all f32; embeddings need not have unit length.
///
/// # Errors
/// Shapes that do not fit.
pub fn adaptive_margin(x: &Tensor, labels: &Tensor, embeddings: &Tensor, margins: Margins) -> Result<Tensor> {
    let cosines_to_x = cosines(x, embeddings)?;
    let deltas = (1.0 - cosines(embeddings, embeddings)?)?.unsqueeze(0)?;
    // [n, C, C]: item, its label i, compared class j.
    let hinges =
        deltas.broadcast_sub(&cosines_to_x.unsqueeze(2)?)?.broadcast_add(&cosines_to_x.unsqueeze(1)?)?;
    let is_label = labels.unsqueeze(2)?;
    let is_compared = match margins {
        Margins::Negatives => (1.0 - labels)?,
        Margins::All => labels.ones_like()?,
    };
    let counts = hinges
        .detach()
        .gt(0.0)?
        .to_dtype(labels.dtype())?
        .broadcast_mul(&is_label)?
        .broadcast_mul(&is_compared.unsqueeze(1)?)?;
    (hinges * counts)?.sum_all()? / labels.elem_count() as f64
}
