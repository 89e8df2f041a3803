//! The loss that training minimises, as a sum of named terms.

use candle_core::Tensor;

use crate::Error;
use crate::config::{LossConfig, QuantizerConfig};
use crate::loss::{Labels, adaptive_margin, classification};
use crate::network::Heads;
use crate::quantize::{distortion, joint_center, quantize};
use crate::schedule::Phase;
pub(crate) use mecoq::Mecoq;
pub(crate) use mopq::Mopq;

mod mecoq;
mod mopq;

/// A loss for the outputs of a batch. DPQ's is [`Dpq`], that of pairs [`Mopq`], that of views
/// [`Mecoq`]; another one is another implementation, which `Run::new` in `train` chooses by the
/// configuration.
pub(crate) trait Objective: Send + Sync {
    fn needs(&self) -> Needs;

    /// Called before each epoch, with the share of epochs that are over.
    fn begin(&mut self, _share: f64) {}

    /// Returns what the objective keeps from step to step, f32 of three dimensions, of which the
    /// first may grow. A checkpoint holds it; by default there is nothing.
    fn memory(&self) -> Option<&Tensor> {
        None
    }

    /// Returns the shape of the full memory.
    fn memory_shape(&self) -> Option<[usize; 3]> {
        None
    }

    /// Takes the memory of a checkpoint.
    fn set_memory(&mut self, _memory: Tensor) {}

    /// Returns the tensors of a worker's outputs that all workers need, `[n, …]` each; by default
    /// none. `codes`, u32 `[n]` per level, are those of the outputs if the objective needs them,
    /// and `codebook` is that of [`Objective::terms`].
    fn shared(
        &self,
        _outputs: &Heads,
        _codes: &[Tensor],
        _codebook: Option<&Tensor>,
    ) -> Result<Vec<Tensor>, Error> {
        Ok(Vec::new())
    }

    /// Returns the terms of a step that trains `phase`. `codebook` holds the codewords, f32 `[L, K,
    /// D]`, or `[L, K, D/L]` of product codebooks, if the phase trains them, and `all` what the
    /// workers share, of the whole batch.
    fn terms(
        &mut self,
        phase: Phase,
        outputs: &Heads,
        all: &[Tensor],
        targets: &Targets,
        codebook: Option<&Tensor>,
    ) -> Result<Vec<Term>, Error>;
}

/// The inputs that an objective needs for each training item.
#[derive(Clone, Copy)]
pub(crate) struct Needs {
    /// Whether `Objective::terms` gets labels. Without, the labels of the training set are not
    /// read.
    pub(crate) labels: bool,
    /// Whether `Objective::shared` gets codes, which all items are given before an epoch that
    /// trains codebooks.
    pub(crate) codes: bool,
    /// Number of inputs per item: 1, or 2 to compare two augmentations of an image or the two
    /// members of a pair. The outputs of a batch have the first inputs of all items, then the
    /// second ones.
    pub(crate) views: usize,
    /// Number of workers that share a batch.
    pub(crate) workers: usize,
}

/// Facts about the items of a batch.
#[derive(Default)]
pub(crate) struct Targets {
    /// If the objective needs them.
    pub(crate) labels: Option<Labels>,
    /// For pairs, f32 `[n, n]`: 1 where query i also matches key j of another pair. `None` if there
    /// is no such pair.
    pub(crate) other_matches: Option<Tensor>,
}

pub(crate) struct Term {
    pub(crate) name: &'static str,
    pub(crate) weight: f64,
    /// A scalar, unweighted.
    pub(crate) value: Tensor,
}

/// The losses of Deep Progressive Quantization: margin · L_S + λ · L_C + τ · (soft · L_soft + μ ·
/// L_hard + ν · L_match) + prefix_margin · mean_l L_S(x̂^l) + prefix_classification · mean_l
/// L_C(x̂^l). With the classifier on x they include those of PHPQ.
pub(crate) struct Dpq {
    pub(crate) loss: LossConfig,
    pub(crate) quantizer: QuantizerConfig,
    pub(crate) multi_label: bool,
    /// f32 `[C, D]`.
    pub(crate) embeddings: Tensor,
}

impl Objective for Dpq {
    fn needs(&self) -> Needs {
        Needs { labels: true, codes: false, views: 1, workers: 1 }
    }

    fn terms(
        &mut self,
        phase: Phase,
        outputs @ Heads { features, logits, .. }: &Heads,
        _: &[Tensor],
        targets: &Targets,
        codebook: Option<&Tensor>,
    ) -> Result<Vec<Term>, Error> {
        let (mut terms, loss, quantizer) = (Vec::new(), &self.loss, &self.quantizer);
        let mut push = |name, weight, value| terms.push(Term { name, weight, value });
        let labels = targets.labels.as_ref().expect("the objective needs labels");
        let margin = |x: &Tensor| adaptive_margin(x, labels, &self.embeddings, loss.margins);
        if phase != Phase::Codebooks {
            push("margin", loss.margin, margin(features)?);
            push("classification", loss.classification, classification(logits, labels, self.multi_label)?);
        }
        if let Some(codebook) = codebook {
            let x = with_gradient(features, loss.commitment)?;
            let QuantizerConfig { assignment, softness, attention, .. } = *quantizer;
            let quantized = quantize(&x, codebook, assignment, softness, attention)?;
            let tau = loss.quantization;
            push("soft_distortion", tau * loss.soft, distortion(&x, &quantized.soft)?);
            push("hard_distortion", tau * loss.hard, distortion(&x, &quantized.hard)?);
            push("joint_center", tau * loss.joint_center, joint_center(&quantized)?);
            if loss.prefix_margin > 0.0 {
                let straight_through = (features - features.detach())?;
                let mut sum = Tensor::zeros((), features.dtype(), features.device())?;
                for prefix in &quantized.hard {
                    sum = (sum + margin(&(prefix + &straight_through)?)?)?;
                }
                push("prefix_margin", loss.prefix_margin, (sum / quantized.hard.len() as f64)?);
            }
            if loss.prefix_classification > 0.0 {
                let mut sum = Tensor::zeros((), features.dtype(), features.device())?;
                for prefix in &quantized.soft {
                    let logits = outputs.classify(prefix)?;
                    sum = (sum + classification(&logits, labels, self.multi_label)?)?;
                }
                let mean = (sum / quantized.soft.len() as f64)?;
                push("prefix_classification", loss.prefix_classification, mean);
            }
        }
        Ok(terms)
    }
}

/// Returns `x`, with its gradient times `share`.
fn with_gradient(x: &Tensor, share: f64) -> Result<Tensor, Error> {
    if share == 1.0 {
        return Ok(x.clone());
    }
    let constant = x.detach();
    Ok((&constant + ((x - &constant)? * share)?)?)
}

#[cfg(test)]
mod tests;
