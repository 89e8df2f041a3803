//! Tests of random label embeddings.

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
