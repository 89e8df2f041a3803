//! A last step after a search: hits scored again by the vectors that were encoded.

use dpq_codebook::{Expected, inner_products};

use crate::layout::Metric;
use crate::topk::{Hit, order_key};
use crate::{Error, Index};

/// Vectors that are read and scored together.
const BLOCK: usize = 16;

impl Index {
    /// Scores `hits` of a query `[D]` again by original vectors, and returns the best `k` in the
    /// order of [`search`](Self::search). `read` writes the vector of an id, `[D]`.
    ///
    /// Scores are ⟨q, x⟩ in the order of a lookup table's entries, or by the Euclidean metric
    /// 2⟨q, x⟩ − ⟨x, x⟩ of two such products, in f64, rounded to f32 once.
    ///
    /// # Errors
    /// [`Error::Codebook`] if the query has another dimension, [`Error::Vector`] if a score is not
    /// finite, and the errors of `read`.
    pub fn rerank<E: From<Error>>(
        &self,
        query: &[f32],
        hits: &[Hit],
        k: usize,
        mut read: impl FnMut(u64, &mut [f32]) -> Result<(), E>,
    ) -> Result<Vec<Hit>, E> {
        let dim = self.codebooks.dim();
        Expected::Shape(vec![dim]).check("query", query.len()).map_err(Error::from)?;
        let mut best = Vec::with_capacity(hits.len());
        // Products with a few vectors at a time take less time than one by one.
        let mut vectors = vec![0.0; BLOCK * dim];
        for hits in hits.chunks(BLOCK) {
            let vectors = &mut vectors[..hits.len() * dim];
            for (hit, x) in hits.iter().zip(vectors.chunks_exact_mut(dim)) {
                read(hit.id, x)?;
            }
            let mut scores = [0.0; BLOCK];
            self.exact_scores(query, vectors, &mut scores[..hits.len()]).map_err(Error::from)?;
            for (&Hit { id, .. }, score) in hits.iter().zip(scores) {
                if !score.is_finite() {
                    return Err(Error::Vector { id, score }.into());
                }
                best.push(Hit { id, score });
            }
        }
        best.sort_unstable_by_key(|hit| (order_key(hit.score), hit.id));
        best.truncate(k);
        Ok(best)
    }

    fn exact_scores(
        &self,
        query: &[f32],
        vectors: &[f32],
        scores: &mut [f32],
    ) -> Result<(), dpq_codebook::Error> {
        inner_products(query, vectors, scores)?;
        if self.metric() == Metric::Euclidean {
            for (score, x) in scores.iter_mut().zip(vectors.chunks_exact(query.len())) {
                let mut norm = [0.0];
                inner_products(x, x, &mut norm)?;
                *score = (2.0 * f64::from(*score) - f64::from(norm[0])) as f32;
            }
        }
        Ok(())
    }
}
