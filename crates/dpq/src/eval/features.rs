//! Scores of a gallery's features, without codes.

use anyhow::Result;
use dpq_codebook::inner_products;
use dpq_formats::FeatureFile;
use dpq_model::read_ahead;
use rayon::prelude::*;

/// The inner products of a batch of queries and all items of a gallery, f32 [N, Q].
pub(super) struct Scores {
    values: Vec<f32>,
    n_queries: usize,
}

impl Scores {
    /// Reads the gallery once, a part at a time, and scores it for `queries`, f32 [Q, D].
    pub(super) fn new(gallery: &FeatureFile, queries: &[f32]) -> Result<Self> {
        let (dim, n_queries) = (gallery.columns(), queries.len() / gallery.columns());
        let mut values = vec![0.0; gallery.rows() * n_queries];
        let read = |(first, n)| -> Result<_> {
            let mut rows = vec![0.0; n * dim];
            gallery.read_finite(first, &mut rows)?;
            Ok((first, rows))
        };
        read_ahead(gallery.chunks(), read, |(first, rows)| {
            let scores = values[first * n_queries..].par_chunks_exact_mut(n_queries);
            let score = |(scores, x): (&mut [f32], &[f32])| inner_products(x, queries, scores);
            Ok(scores.zip(rows.par_chunks_exact(dim)).try_for_each(score)?)
        })?;
        Ok(Self { values, n_queries })
    }

    /// Writes the scores of all items for one of the queries.
    pub(super) fn of_query(&self, query: usize, scores: &mut [f32]) {
        let values = self.values.iter().skip(query).step_by(self.n_queries);
        scores.iter_mut().zip(values).for_each(|(score, &value)| *score = value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpq_formats::npy;

    #[test]
    fn a_gallery_of_several_parts_scores_as_one_in_memory() {
        let (n, dim) = (7, 1 << 20);
        let gallery: Vec<f32> = (0..n * dim).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect();
        let file = tempfile::Builder::new().suffix(".npy").tempfile().unwrap();
        npy::write(file.path(), &[n, dim], &gallery).unwrap();
        let rows = FeatureFile::open(file.path()).unwrap();
        assert!(rows.chunks().count() > 1);
        let found = Scores::new(&rows, &gallery[..3 * dim]).unwrap();
        for query in 0..3 {
            let (mut of_query, mut expected) = ([0.0; 7], [0.0; 7]);
            found.of_query(query, &mut of_query);
            inner_products(&gallery[query * dim..][..dim], &gallery, &mut expected).unwrap();
            assert_eq!(of_query, expected);
            assert!(of_query.iter().all(|&score| score <= of_query[query]));
        }
    }
}
