//! The losses that give features their meaning: classification and the adaptive margin.
//!
//! All tensors have one floating type.

use candle_core::{D, DType, Device, Result, Tensor, bail};

use crate::config::Margins;
use crate::quantize::cosines;

/// The classes of a batch of items.
pub(crate) struct Labels {
    /// 1 where the item has the class, else 0: `[n, C]`.
    pub(crate) multi_hot: Tensor,
    /// The row of the item in each pair of an item and one of its classes, u32 `[p]`.
    items: Tensor,
    /// The class in each pair, u32 `[p]`.
    classes: Tensor,
}

impl Labels {
    /// Takes classes as multi-hot rows, u8 `[n, n_classes]`, to a device.
    pub(crate) fn new(multi_hot: &[u8], n_classes: usize, dtype: DType, device: &Device) -> Result<Self> {
        let pairs = multi_hot.iter().enumerate().filter(|&(_, &label)| label != 0);
        let (items, classes): (Vec<u32>, Vec<u32>) =
            pairs.map(|(at, _)| ((at / n_classes) as u32, (at % n_classes) as u32)).unzip();
        let n_pairs = items.len();
        let shape = (multi_hot.len() / n_classes, n_classes);
        Ok(Self {
            multi_hot: Tensor::from_slice(multi_hot, shape, device)?.to_dtype(dtype)?,
            items: Tensor::from_vec(items, n_pairs, device)?,
            classes: Tensor::from_vec(classes, n_pairs, device)?,
        })
    }
}

/// The distance of class scores from the labels, a scalar.
///
/// With one label per item this is the cross-entropy of a softmax, averaged over n. With
/// `multi_label` it is the cross-entropy of one sigmoid per class, averaged over n and C. It is
/// finite for every finite logit.
/// Source: paper, L_C, averaged as in the authors' code.
/// Shapes: logits `[n, C]`.
pub(crate) fn classification(logits: &Tensor, labels: &Labels, multi_label: bool) -> Result<Tensor> {
    let labels = &labels.multi_hot;
    if multi_label {
        // −y·log σ(x) − (1 − y)·log(1 − σ(x)) without the logarithm of a vanishing sigmoid. At 0
        // candle takes 1 for the gradients of both relu and abs, so the gradient of the whole is
        // σ(0) − y as it should be.
        let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        return (softplus - (logits * labels)?)?.mean_all();
    }
    // The maximum logit is subtracted as a constant: it cancels in value and gradient.
    let logits = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let log_sums = logits.exp()?.sum_keepdim(D::Minus1)?.log()?;
    (log_sums.broadcast_sub(&logits)? * labels)?.sum_all()? / logits.dim(0)? as f64
}

/// The distance of features from the embeddings of their labels, compared with those of other
/// classes, a scalar: 1/(n·C) Σ_n Σ_{i ∈ Y_n} Σ_j max(0, δ_ij − cos(v_i, x_n) + cos(v_j, x_n)),
/// where δ_ij = 1 − cos(v_i, v_j).
///
/// Classes with similar embeddings need a small margin, equal classes none. The loss does not
/// depend on the length of a feature. A hinge at exactly 0 has gradient 0, and so has a feature of
/// length 0. Memory and time grow with p·C, where p counts the labels of the batch: only rows δ_i
/// of labels are computed.
///
/// Source: paper, adaptive margin loss L_S.
/// Deviation: the paper sums over n and j ∉ Y_n; the authors' code divides by n·C and lets j run
/// over all classes. Here `margins` chooses the classes j, and both choices divide by n·C, so that
/// the weights of the other losses keep their meaning (docs/deviations.md, row 6).
/// Shapes: x `[n, D]`, embeddings `[C, D]`, of any length other than 0.
pub(crate) fn adaptive_margin(
    x: &Tensor,
    labels: &Labels,
    embeddings: &Tensor,
    margins: Margins,
) -> Result<Tensor> {
    let Labels { multi_hot, items, classes } = labels;
    let to_x = cosines(x, embeddings)?;
    if to_x.dims() != multi_hot.dims() {
        bail!("adaptive_margin: labels have shape {:?}, expected {:?}", multi_hot.dims(), to_x.dims());
    }
    if items.elem_count() == 0 {
        return Tensor::zeros((), x.dtype(), x.device());
    }
    // [p, C]: a pair of an item and its label i, and the class j that i is compared with.
    // Classes that repeat are compared once.
    let cosines_of_labels = if multi_hot.dim(1)? <= classes.elem_count() {
        cosines(embeddings, embeddings)?.index_select(classes, 0)?
    } else {
        cosines(&embeddings.index_select(classes, 0)?, embeddings)?
    };
    let deltas = (1.0 - cosines_of_labels)?;
    let to_x = to_x.index_select(items, 0)?;
    let to_label = to_x.gather(&classes.unsqueeze(1)?, 1)?;
    let hinges = (deltas.broadcast_sub(&to_label)? + to_x)?;
    // A factor instead of candle's relu, whose gradient at 0 is 1: a hinge that is met must not
    // pull.
    let mut counts = hinges.detach().gt(0.0)?.to_dtype(x.dtype())?;
    if margins == Margins::Negatives {
        counts = (counts * (1.0 - multi_hot.index_select(items, 0)?)?)?;
    }
    (hinges * counts)?.sum_all()? / multi_hot.elem_count() as f64
}

#[cfg(test)]
mod tests;
