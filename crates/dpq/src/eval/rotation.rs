//! A rotation of vectors that lowers the error of codes: that of optimized product quantization
//! (OPQ).

use anyhow::Result;
use dpq_codebook::inner_products;
use rayon::prelude::*;

/// Rounds of fitting codes and rotation in turn.
const ROUNDS: usize = 8;

/// Steps of Newton's iteration, which multiply small singular values by 1.5 each until they are 1.
const STEPS: usize = 45;

/// The weight of the rotation so far, which decides where the vectors decide nothing.
const INERTIA: f32 = 1e-4;

/// Fits an orthogonal matrix f32 [D, D] to vectors f32 [n, D]. `approximate` returns the vectors
/// that stand for rotated ones.
///
/// Source: Ge, He, Ke and Sun, *Optimized Product Quantization*, 2013, their non-parametric
/// solution: codes and rotation are fitted in turn, from the identity.
pub(super) fn fit(
    vectors: &[f32],
    dim: usize,
    approximate: impl Fn(&[f32]) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let mut rotation: Vec<f32> = (0..dim * dim).map(|i| f32::from(u8::from(i % (dim + 1) == 0))).collect();
    let columns = transpose(vectors, dim);
    for _ in 0..ROUNDS {
        let approximations = approximate(&rows_times(vectors, &rotation, dim))?;
        let n = vectors.len() / dim;
        let mut product = rows_times(&transpose(&approximations, dim), &columns, n);
        let scale = INERTIA * norm(&product) / (dim as f32).sqrt();
        product.iter_mut().zip(&rotation).for_each(|(product, so_far)| *product += scale * so_far);
        rotation = nearest_orthogonal(product, dim);
    }
    Ok(rotation)
}

/// Returns the inner products of rows [n, D] with rows [m, D], f32 [n, m]: rows times the transpose
/// of the others.
pub(super) fn rows_times(rows: &[f32], others: &[f32], dim: usize) -> Vec<f32> {
    let n_others = others.len() / dim;
    let mut product = vec![0.0; rows.len() / dim * n_others];
    product.par_chunks_exact_mut(n_others).zip(rows.par_chunks_exact(dim)).for_each(|(out, row)| {
        inner_products(row, others, out).expect("shapes fit");
    });
    product
}

fn transpose(rows: &[f32], dim: usize) -> Vec<f32> {
    (0..dim).flat_map(|column| rows.iter().skip(column).step_by(dim).copied()).collect()
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// Returns the orthogonal factor of a square matrix's polar decomposition: X ← 1.5·X − 0.5·X·XᵀX.
fn nearest_orthogonal(mut x: Vec<f32>, dim: usize) -> Vec<f32> {
    // Newton's iteration needs singular values of at most √3.
    let scale = 1.0 / norm(&x).max(f32::MIN_POSITIVE);
    x.iter_mut().for_each(|value| *value *= scale);
    for _ in 0..STEPS {
        let columns = transpose(&x, dim);
        let gram = rows_times(&columns, &columns, dim);
        let cube = rows_times(&x, &gram, dim);
        x.iter_mut().zip(cube).for_each(|(x, cube)| *x = 1.5 * *x - 0.5 * cube);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_orthogonal_matrix_undoes_a_stretch() {
        // A rotation by 0.3 in the plane, stretched along two axes by 1 and 1000.
        let (sin, cos) = 0.3_f32.sin_cos();
        let x = nearest_orthogonal(vec![cos, -1000.0 * sin, sin, 1000.0 * cos], 2);
        for (found, expected) in x.iter().zip([cos, -sin, sin, cos]) {
            assert!((found - expected).abs() < 1e-5, "{x:?}");
        }
    }

    #[test]
    fn a_rotation_that_makes_vectors_whole_numbers_is_found() {
        // Points near a tilted square lattice; rounding is the code.
        let (sin, cos) = 0.2_f32.sin_cos();
        let lattice = (0..400).map(|i| [(i % 20) as f32 - 9.5, (i / 20) as f32 - 9.5]);
        let points: Vec<f32> = lattice.flat_map(|[x, y]| [cos * x - sin * y, sin * x + cos * y]).collect();
        let round = |points: &[f32]| -> Vec<f32> { points.iter().map(|x| (x - 0.5).round() + 0.5).collect() };
        let error = |points: &[f32]| -> f32 {
            points.iter().zip(round(points)).map(|(x, rounded)| (x - rounded).powi(2)).sum()
        };
        // Far points are rounded to other lattice points at first, near ones pull them in.
        let near: Vec<f32> = points.chunks(2).filter(|p| norm(p) < 2.3).flatten().copied().collect();
        let rotation = fit(&near, 2, |points| Ok(round(points))).unwrap();
        assert!(error(&rows_times(&near, &rotation, 2)) < 1e-6 * error(&near), "{rotation:?}");
        let gram = rows_times(&rotation, &rotation, 2);
        assert!((gram[0] - 1.0).abs() < 1e-5 && gram[1].abs() < 1e-5, "{gram:?}");
    }
}
