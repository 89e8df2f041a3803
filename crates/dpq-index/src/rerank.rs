//! A last step after a search: hits scored again by the vectors that were encoded.

use dpq_codebook::{Expected, inner_products};

use crate::layout::Metric;
use crate::topk::{Hit, order_key};
use crate::{Error, Index};

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
        let mut x = vec![0.0; dim];
        let mut best = Vec::with_capacity(hits.len());
        for &Hit { id, .. } in hits {
            read(id, &mut x)?;
            let score = self.exact_score(query, &x).map_err(Error::from)?;
            if !score.is_finite() {
                return Err(Error::Vector { id, score }.into());
            }
            best.push(Hit { id, score });
        }
        best.sort_unstable_by_key(|hit| (order_key(hit.score), hit.id));
        best.truncate(k);
        Ok(best)
    }

    fn exact_score(&self, query: &[f32], x: &[f32]) -> Result<f32, dpq_codebook::Error> {
        let product = |y: &[f32]| {
            let mut product = [0.0];
            inner_products(x, y, &mut product).map(|()| product[0])
        };
        Ok(match self.metric() {
            Metric::InnerProduct => product(query)?,
            Metric::Euclidean => (2.0 * f64::from(product(query)?) - f64::from(product(x)?)) as f32,
        })
    }
}
