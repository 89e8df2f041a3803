//! Codes that others would make of the same vectors, to compare with.

use std::collections::BTreeMap;

use anyhow::Result;
use dpq_codebook::{Assignment, CodeLength, Codebooks, ResidualKMeans, inner_products};
use dpq_formats::Matrix;
use dpq_index::Index;
use dpq_report::{Metrics, Rankings};
use indicatif::ProgressBar;

use super::{Evaluated, Gallery, Protocol, metrics, rotation};

/// Rows of all tables.
pub(crate) const RESIDUAL: &str = "residual k-means";
pub(crate) const PRODUCT: &str = "product quantization";
pub(crate) const ROTATED: &str = "optimized product quantization";

/// Rounds of k-means, as many as `dpq codebook train` takes.
const ROUNDS: usize = 25;

/// Rounds of k-means while a rotation is fitted.
const FEW_ROUNDS: usize = 4;

/// Vectors f32 [n, D] of training items, which codebooks are fitted to, of the gallery, and of
/// queries.
pub(crate) struct Vectors<'a> {
    pub(crate) train: &'a [f32],
    pub(crate) gallery: &'a [f32],
    pub(crate) queries: &'a Matrix<f32>,
    /// Codewords per byte of code.
    pub(crate) n_codewords: usize,
}

impl Vectors<'_> {
    /// Ranks by codes of residual k-means, which nest, and returns the distortion by level.
    pub(crate) fn residual(
        &self,
        protocol: &Protocol,
        lengths: &[CodeLength],
        bar: &ProgressBar,
    ) -> Result<(BTreeMap<usize, Metrics>, Vec<f64>)> {
        let n_levels = lengths.iter().map(|length| length.levels()).max().unwrap_or(1);
        let config = ResidualKMeans { n_levels, n_codewords: self.n_codewords, n_iterations: ROUNDS };
        let codebooks = config.train(self.train, self.queries.columns)?;
        let (index, distortion) = self.index(protocol, &codebooks)?;
        let by_bits = lengths.iter().map(|&length| self.rank(protocol, &index, length, bar));
        Ok((by_bits.collect::<Result<_>>()?, distortion))
    }

    /// Ranks by codes of product quantization, which has codebooks of its own for each length, at
    /// most a byte per dimension. Returns the distortion of each length, too.
    pub(crate) fn product(
        &self,
        protocol: &Protocol,
        lengths: &[CodeLength],
        bar: &ProgressBar,
    ) -> Result<(BTreeMap<usize, Metrics>, Vec<f64>)> {
        let (mut by_bits, mut distortion) = (BTreeMap::new(), Vec::new());
        for &length in lengths.iter().filter(|length| length.levels() <= self.queries.columns) {
            let codebooks = self.product_codebooks(length.levels(), ROUNDS)?;
            let (index, mut by_level) = self.index(protocol, &codebooks)?;
            by_bits.extend([self.rank(protocol, &index, length, bar)?]);
            distortion.extend(by_level.pop());
        }
        Ok((by_bits, distortion))
    }

    /// Does the same after a rotation that is fitted to the codes of each length. It changes no
    /// inner product, so only the codes differ. One byte needs none.
    pub(crate) fn rotated(
        &self,
        protocol: &Protocol,
        lengths: &[CodeLength],
        bar: &ProgressBar,
    ) -> Result<(BTreeMap<usize, Metrics>, Vec<f64>)> {
        let (mut by_bits, mut distortion) = (BTreeMap::new(), Vec::new());
        let dim = self.queries.columns;
        for length in lengths.iter().filter(|length| length.levels() <= dim) {
            let rotation = match length.levels() {
                1 => None,
                levels => Some(rotation::fit(self.train, dim, |train| {
                    let queries = self.queries;
                    let rotated = Vectors { train, gallery: train, queries, n_codewords: self.n_codewords };
                    let codebooks = rotated.product_codebooks(levels, FEW_ROUNDS)?;
                    Ok(codebooks.decode(&codebooks.encode(train)?, *length)?)
                })?),
            };
            let rotate = |rows: &[f32]| match &rotation {
                Some(rotation) => rotation::rows_times(rows, rotation, dim),
                None => rows.to_vec(),
            };
            let [train, gallery] = [self.train, self.gallery].map(rotate);
            let queries = Matrix { values: rotate(&self.queries.values), ..*self.queries };
            let n_codewords = self.n_codewords;
            let rotated = Vectors { train: &train, gallery: &gallery, queries: &queries, n_codewords };
            let (ranked, error) = rotated.product(protocol, &[*length], bar)?;
            by_bits.extend(ranked);
            distortion.extend(error);
        }
        Ok((by_bits, distortion))
    }

    /// Fits one codebook to each of `n_levels` ranges of the dimensions. Codewords are zero in all
    /// other dimensions.
    fn product_codebooks(&self, n_levels: usize, rounds: usize) -> Result<Codebooks> {
        let (dim, k) = (self.queries.columns, self.n_codewords);
        let mut values = vec![0.0; n_levels * k * dim];
        for (level, values) in values.chunks_exact_mut(k * dim).enumerate() {
            let range = level * dim / n_levels..(level + 1) * dim / n_levels;
            let rows = self.train.chunks_exact(dim);
            let part: Vec<f32> = rows.flat_map(|row| &row[range.clone()]).copied().collect();
            let config = ResidualKMeans { n_levels: 1, n_codewords: k, n_iterations: rounds };
            let codebook = config.train(&part, range.len())?;
            let codewords = codebook.values().chunks_exact(range.len());
            values
                .chunks_exact_mut(dim)
                .zip(codewords)
                .for_each(|(value, codeword)| value[range.clone()].copy_from_slice(codeword));
        }
        Ok(Codebooks::new(values, n_levels, k, dim, Assignment::Euclidean)?)
    }

    /// Indexes the codes of the gallery, and returns their distortion by level.
    fn index(&self, protocol: &Protocol, codebooks: &Codebooks) -> Result<(Index, Vec<f64>)> {
        let codes = codebooks.encode(self.gallery)?;
        let index = Index::builder(codebooks, &codes).ids(&protocol.ids).build()?;
        Ok((index, codebooks.relative_distortion(self.gallery, &codes)?))
    }

    fn rank(
        &self,
        protocol: &Protocol,
        index: &Index,
        length: CodeLength,
        bar: &ProgressBar,
    ) -> Result<(usize, Metrics)> {
        let Evaluated { report, .. } = protocol.evaluate_codes(index, length, self.queries, bar)?;
        Ok((length.bits(), metrics(report)))
    }
}

/// Ranks by the inner products of queries and all vectors of the gallery.
pub(crate) fn exact(
    protocol: &Protocol,
    gallery: &[f32],
    queries: &Matrix<f32>,
    bar: &ProgressBar,
) -> Result<Metrics> {
    let starts: Vec<u32> = (0..).take(protocol.ids.len() + 1).collect();
    let items = Gallery { starts: &starts, ids: &protocol.ids, batch: 1024 };
    let score = |(): &(), _, query: &[f32], scores: &mut [f32]| Ok(inner_products(query, gallery, scores)?);
    Ok(metrics(protocol.evaluate(&items, queries, |_| Ok(()), score, bar)?.report))
}

/// Puts rankings of codes beside that of the vectors.
pub(crate) fn rankings(
    (by_bits, distortion): (BTreeMap<usize, Metrics>, Vec<f64>),
    features: Metrics,
) -> Rankings {
    let by_bits = by_bits.into_iter().map(|(bits, metrics)| (bits as u32, metrics)).collect();
    Rankings { by_bits, features, distortion }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one dimension per level, product quantization has the k-means of each dimension: with as
    /// many codewords as values, no error.
    #[test]
    fn product_codebooks_cover_their_own_dimensions() {
        let rows: Vec<[f32; 3]> =
            (0..16).map(|i| [(i % 4) as f32, 10.0 * (i / 4) as f32, 7.0 * (i % 2) as f32]).collect();
        let queries = Matrix { rows: 1, columns: 3, values: vec![0.0; 3] };
        let vectors = Vectors { train: rows.as_flattened(), gallery: &[], queries: &queries, n_codewords: 4 };
        let codebooks = vectors.product_codebooks(3, ROUNDS).unwrap();
        for level in 0..3 {
            for codeword in 0..4 {
                let codeword = codebooks.codeword(level, codeword);
                assert!((0..3).all(|at| at == level || codeword[at] == 0.0), "{level}: {codeword:?}");
            }
        }
        let codes = codebooks.encode(rows.as_flattened()).unwrap();
        let decoded = codebooks.decode(&codes, codebooks.max_length()).unwrap();
        assert_eq!(decoded, rows.as_flattened());
        // Two levels of three dimensions: the first has one, the second two.
        let uneven = vectors.product_codebooks(2, ROUNDS).unwrap();
        assert!(uneven.codeword(1, 3)[0] == 0.0 && uneven.codeword(0, 3)[1..] == [0.0, 0.0]);
    }
}
