//! Matching-oriented product quantization (Xiao et al., EMNLP 2021): the loss of choosing the key
//! of a query among all keys of a batch, by the key itself and by its approximations.

use candle_core::{D, Result as TensorResult, Tensor};

use super::{Needs, Objective, Targets, Term};
use crate::Error;
use crate::config::MopqConfig;
use crate::network::Heads;
use crate::quantize::{decode, distortion};
use crate::schedule::Phase;

/// keys · M(k) + mean_l M(k̂^l) + reconstruction · Σ_l mean ‖k − k̂^l‖², where M is [`matching`]
/// and k̂^l the approximation by l levels. Its gradient passes straight through the choice of
/// codewords to the key, and reaches the chosen codewords.
#[derive(Clone)]
pub(crate) struct Mopq {
    pub(crate) config: MopqConfig,
}

impl Objective for Mopq {
    fn needs(&self) -> Needs {
        Needs { labels: false, codes: true, views: 2, workers: self.config.workers }
    }

    /// Returns queries, keys and the approximations of the keys.
    fn shared(
        &self,
        outputs: &Heads,
        codes: &[Tensor],
        codebook: Option<&Tensor>,
    ) -> Result<Vec<Tensor>, Error> {
        let Heads { features: keys, queries, .. } = outputs;
        let mut shared = vec![queries.clone().expect("the objective needs pairs"), keys.clone()];
        if let Some(codebook) = codebook {
            shared.extend(decode(codes, codebook, keys.dim(1)?)?);
        }
        Ok(shared)
    }

    fn terms(
        &mut self,
        phase: Phase,
        _: &Heads,
        all: &[Tensor],
        targets: &Targets,
        _: Option<&Tensor>,
    ) -> Result<Vec<Term>, Error> {
        let (mut terms, config) = (Vec::new(), &self.config);
        let mut push = |name, weight, value| terms.push(Term { name, weight, value });
        let [queries, keys, prefixes @ ..] = all else { unreachable!("queries and keys are shared") };
        let matching =
            |keys: &Tensor| matching(queries, keys, targets.other_matches.as_ref(), config.temperature);
        if phase != Phase::Codebooks {
            push("keys", config.keys, matching(keys)?);
        }
        if !prefixes.is_empty() {
            let straight_through = (keys - keys.detach())?;
            let mut sum = Tensor::zeros((), keys.dtype(), keys.device())?;
            for prefix in prefixes {
                sum = (sum + matching(&(prefix + &straight_through)?)?)?;
            }
            push("codes", 1.0, (sum / prefixes.len() as f64)?);
            push("reconstruction", config.reconstruction, distortion(keys, prefixes)?);
        }
        Ok(terms)
    }
}

/// Returns −mean_i log softmax_j(⟨q_i, k_j⟩ / T)_i, a scalar: query i matches key i and all other
/// keys are negatives, without those that `others` names.
///
/// Source: the paper's matching-oriented contrastive loss, where T is 1.
/// Shapes: queries and keys `[n, D]`; others `[n, n]`, 1 where key j is another match of query i,
/// else 0.
fn matching(
    queries: &Tensor,
    keys: &Tensor,
    others: Option<&Tensor>,
    temperature: f64,
) -> TensorResult<Tensor> {
    let own = ((queries * keys)?.sum_keepdim(1)? / temperature)?;
    let mut logits = (queries.matmul(&keys.t()?)? / temperature)?;
    if let Some(others) = others {
        // The score of the own key minus a large number: exp is 0, and the maximum stays finite.
        let score = (own.detach() - 1e4)?;
        logits = ((logits * (1.0 - others)?)? + others.broadcast_mul(&score)?)?;
    }
    let max = logits.detach().max_keepdim(D::Minus1)?;
    let sums = logits.broadcast_sub(&max)?.exp()?.sum_keepdim(D::Minus1)?.log()?;
    ((sums + max)? - own)?.mean_all()
}

#[cfg(test)]
mod tests;
