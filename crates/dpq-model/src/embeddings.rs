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
///
/// # Panics
/// Panics if `dim` is 0.
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
mod tests {
    use super::*;

    /// Inner products of all pairs of rows: (row, row, product).
    fn products(n_classes: usize, dim: usize) -> Vec<(usize, usize, f64)> {
        let values: Vec<f64> = label_embeddings(n_classes, dim, 7).into_iter().map(f64::from).collect();
        assert_eq!(values.len(), n_classes * dim);
        let rows: Vec<&[f64]> = values.chunks(dim).collect();
        let pairs = (0..n_classes).flat_map(|i| (0..=i).map(move |j| (i, j)));
        pairs.map(|(i, j)| (i, j, dot(rows[i], rows[j]))).collect()
    }

    #[test]
    fn rows_are_orthonormal_while_they_fit() {
        for (n_classes, dim) in [(10, 300), (5, 5), (1, 1), (0, 3)] {
            for (i, j, product) in products(n_classes, dim) {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-6, "rows {i} and {j} of {dim}: {product}");
            }
        }
    }

    #[test]
    fn more_rows_than_dimensions_are_near_orthogonal_unit_vectors() {
        let (n_classes, dim) = (100, 64);
        for (i, j, product) in products(n_classes, dim) {
            match i == j {
                true => assert!((product - 1.0).abs() < 1e-6, "row {i}: {product}"),
                false => assert!(product.abs() < 5.0 / (dim as f64).sqrt(), "rows {i} and {j}: {product}"),
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(label_embeddings(3, 4, 1), label_embeddings(3, 4, 1));
        assert_ne!(label_embeddings(3, 4, 1), label_embeddings(3, 4, 2));
    }
}
