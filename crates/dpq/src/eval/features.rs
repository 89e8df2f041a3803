//! Rankings of a gallery by the inner product with its features, without codes.

use anyhow::Result;
use dpq_formats::FeatureFile;
use rayon::prelude::*;

/// The scores of all items of a gallery for some queries, f32 [N, Q].
pub(super) struct Scores {
    values: Vec<f32>,
    n_queries: usize,
}

impl Scores {
    /// Reads the gallery once, a part at a time, for `queries` of its dimension.
    pub(super) fn of(gallery: &FeatureFile, queries: &[f32]) -> Result<Self> {
        let (dim, n_queries) = (gallery.columns(), queries.len() / gallery.columns());
        let mut values = vec![0.0; gallery.rows() * n_queries];
        let read = |(first, n)| -> Result<_> {
            let mut rows = vec![0.0; n * dim];
            gallery.read_finite(first, &mut rows)?;
            Ok((first, rows))
        };
        dpq_model::read_ahead(gallery.chunks(), read, |(first, rows)| {
            let scores = values[first * n_queries..].par_chunks_exact_mut(n_queries);
            scores.zip(rows.par_chunks_exact(dim)).for_each(|(scores, x)| {
                let queries = queries.chunks_exact(dim);
                scores.iter_mut().zip(queries).for_each(|(score, query)| *score = dot(x, query));
            });
            Ok(())
        })?;
        Ok(Self { values, n_queries })
    }

    /// Writes the scores of all items for one of the queries.
    pub(super) fn of_query(&self, query: usize, scores: &mut [f32]) {
        let values = self.values.iter().skip(query).step_by(self.n_queries);
        scores.iter_mut().zip(values).for_each(|(score, &value)| *score = value);
    }
}

/// The inner products of a query and a gallery's features [N, D], which has no more than memory holds.
pub(crate) fn scores(gallery: &[f32], query: &[f32]) -> Vec<f32> {
    gallery.chunks_exact(query.len()).map(|x| dot(x, query)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sixteen partial sums, so that the loop becomes vector instructions.
    let mut sums = [0.0f32; 16];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        (0..16).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    a_tail.iter().zip(b_tail).map(|(a, b)| a * b).chain(sums).sum()
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
        let found = Scores::of(&rows, &gallery[..3 * dim]).unwrap();
        for query in 0..3 {
            let mut of_query = [0.0; 7];
            found.of_query(query, &mut of_query);
            assert_eq!(of_query.as_slice(), scores(&gallery, &gallery[query * dim..][..dim]));
            assert!(of_query.iter().all(|&score| score <= of_query[query]));
        }
    }
}
