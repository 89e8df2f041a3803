//! Matrix products of row-major slices.

use super::layout::with_scratch;
use super::transpose::transpose;
use rayon::prelude::*;

/// A matrix inside a slice: element (i, j) lies at `i · strides[0] + j · strides[1]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Returns the row-major matrix at the start of `values`.
    pub(crate) fn new(values: &'a [f32], n_rows: usize, n_columns: usize) -> Self {
        assert!(values.len() >= n_rows * n_columns, "a matrix larger than its slice");
        Self { values, shape: [n_rows, n_columns], strides: [n_columns, 1] }
    }

    /// Returns `n` rows, starting with row `start`.
    fn rows(self, start: usize, n: usize) -> Self {
        assert!(start + n <= self.shape[0], "rows outside the matrix");
        Self { values: &self.values[start * self.strides[0]..], shape: [n, self.shape[1]], ..self }
    }

    pub(crate) fn transposed(self) -> Self {
        let ([m, n], [i, j]) = (self.shape, self.strides);
        Self { shape: [n, m], strides: [j, i], ..self }
    }

    /// Returns `n` columns, starting with column `start`.
    fn columns(self, start: usize, n: usize) -> Self {
        self.transposed().rows(start, n).transposed()
    }
}

/// Number of rows of a product per task.
const PIECE: usize = 64;

/// Returns the product a · b, row-major. The shapes alone decide the pieces that run in parallel.
pub(crate) fn par_product(a: Matrix, b: Matrix) -> Vec<f32> {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let mut out = vec![0.0; m * n];
    if n > 4 * m {
        // Few rows make one or two pieces, for as many threads. The transposed product has more
        // pieces, and transposing its few columns costs little. Its right side is copied once, not
        // once per piece.
        let mut right = vec![0.0; k * m];
        let a = match a.strides {
            [stride, 1] => {
                transpose(a.values, stride, [m, k], &mut right, m);
                Matrix::new(&right, k, m)
            }
            _ => a.transposed(),
        };
        transpose(&par_product(b.transposed(), a), m, [n, m], &mut out, n);
    } else {
        par_gemm(a, b, &mut out, false, PIECE);
    }
    out
}

/// Does what [`row_product`] does, in pieces of `piece` rows that run in parallel.
pub(crate) fn par_row_product(a: Matrix, b: Matrix, out: &mut [f32], piece: usize) {
    let [m, n] = [a.shape[0], b.shape[1]];
    out[..m * n].par_chunks_mut(piece * n).enumerate().for_each(|(i, out)| {
        row_product(a.rows(i * piece, out.len() / n), b, out);
    });
}

/// Writes the product a · b to the start of `out`. A row is rounded in the same way whatever the
/// number of rows is, if rows of `b` are consecutive. Runs on the calling thread.
pub(crate) fn row_product(a: Matrix, b: Matrix, out: &mut [f32]) {
    /// Maximum length of the sums that [`gemm`] never cuts.
    const LEN: usize = 512;
    let ([m, k], n) = (a.shape, b.shape[1]);
    if m == 1 {
        // A single row is summed in another order.
        return with_scratch(2 * (k + n), |scratch| {
            let (rows, products) = scratch.split_at_mut(2 * k);
            rows.chunks_exact_mut(k).for_each(|row| row.copy_from_slice(&a.values[..k]));
            row_product(Matrix::new(rows, 2, k), b, products);
            out[..n].copy_from_slice(&products[..n]);
        });
    }
    // Where longer sums are cut depends on the number of rows.
    let len = k.div_ceil(k.div_ceil(LEN));
    for start in (0..k).step_by(len) {
        let n_terms = len.min(k - start);
        gemm(a.columns(start, n_terms), b.rows(start, n_terms), out, start > 0);
    }
}

/// Does what [`gemm`] does, in pieces of `piece` rows that run in parallel.
pub(crate) fn par_gemm(a: Matrix, b: Matrix, out: &mut [f32], add: bool, piece: usize) {
    let [m, n] = [a.shape[0], b.shape[1]];
    out[..m * n].par_chunks_mut(piece * n.max(1)).enumerate().for_each(|(i, out)| {
        gemm(a.rows(i * piece, out.len() / n), b, out, add);
    });
}

/// Writes the product a · b to the start of `out`, row-major, or adds it if `add` is set. Runs on
/// the calling thread.
pub(crate) fn gemm(a: Matrix, b: Matrix, out: &mut [f32], add: bool) {
    let ([m, k], [k_b, n]) = (a.shape, b.shape);
    assert!(k == k_b && out.len() >= m * n, "matrix shapes do not fit");
    // SAFETY: `Matrix::new` checks that the slice holds all elements, and `rows` and `transposed`
    // address only elements of their matrix. The assertion checks the m · n elements of `out`,
    // which is borrowed exclusively.
    #[expect(unsafe_code, reason = "the crate gemm takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, PIECE, gemm, par_product};

    #[test]
    fn products_and_sums() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, -1.0, 1.0, 1.0]);
        let mut out = [10.0; 4];
        gemm(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [8.0, 1.0, 20.0, 1.0]);
        gemm(Matrix::new(&a, 3, 2).transposed(), Matrix::new(&b, 2, 3).transposed(), &mut out, true);
        assert_eq!(out, [8.0 + 11.0, 1.0 + 7.0, 20.0 + 14.0, 1.0 + 8.0]);
    }

    #[test]
    fn products_in_pieces() {
        let (few, many, k) = (3, 2 * PIECE + 1, 5);
        let values = |n: usize| (0..n).map(|i| ((i * 7) % 11) as f32).collect::<Vec<_>>();
        let (small, large) = (values(few * k), values(many * k));
        // Rows, columns, and either factor as it is or transposed.
        for [m, n] in [[few, many], [many, few]] {
            let (a, b) = if m == few { (&small, &large) } else { (&large, &small) };
            for (a, b) in [
                (Matrix::new(a, m, k), Matrix::new(b, k, n)),
                (Matrix::new(a, k, m).transposed(), Matrix::new(b, n, k).transposed()),
            ] {
                let mut expected = vec![0.0; m * n];
                gemm(a, b, &mut expected, false);
                assert_eq!(par_product(a, b), expected);
            }
        }
    }
}
