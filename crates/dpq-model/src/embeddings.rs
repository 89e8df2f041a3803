//! Label embeddings for data sets without word vectors.

use crate::rng::{Stream, rng, uniform};

/// Returns a random unit vector per class, nearly orthogonal to the others.
///
/// The paper uses word vectors of 300 dimensions (docs/deviations.md, row 14). Here each row starts
/// with values uniform in [−1, 1), is made orthogonal to the rows before it in its block of `dim`
/// rows, and is scaled to length 1. With n_classes ≤ dim all rows are orthonormal and every margin
/// is 1. Cosines between rows of different blocks are of the order of 1/√dim. The computation uses
/// only additions, products, quotients and square roots, so a seed gives the same values on every
/// machine.
/// Shapes: returns `[n_classes, dim]`, row-major.
pub(crate) fn label_embeddings(n_classes: usize, dim: usize, seed: u64) -> Vec<f32> {
    assert!(dim > 0, "an embedding has at least one dimension");
    let mut rng = rng(seed, Stream::Embeddings);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n_classes);
    for class in 0..n_classes {
        let mut row: Vec<f64> = (0..dim).map(|_| 2.0 * uniform(&mut rng) - 1.0).collect();
        let block = &rows[class - class % dim..];
        // The second pass removes the rounding errors of the first.
        for other in block.iter().chain(block) {
            let product = dot(&row, other);
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= product * b);
        }
        let norm = dot(&row, &row).sqrt();
        row.iter_mut().for_each(|a| *a /= norm);
        rows.push(row);
    }
    rows.into_iter().flatten().map(|a| a as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
