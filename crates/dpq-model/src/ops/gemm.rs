//! Matrix products of row-major slices on the calling thread.

/// A matrix inside a slice: element (i, j) lies at `i · strides[0] + j · strides[1]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// The row-major matrix that `values` starts with.
    pub(crate) fn new(values: &'a [f32], n_rows: usize, n_columns: usize) -> Self {
        assert!(values.len() >= n_rows * n_columns, "a matrix larger than its slice");
        Self { values, shape: [n_rows, n_columns], strides: [n_columns, 1] }
    }

    /// `n` columns of a row-major matrix, from column `start` on.
    pub(crate) fn columns(self, start: usize, n: usize) -> Self {
        assert!(self.strides[1] == 1 && start + n <= self.shape[1], "columns outside the matrix");
        Self { values: &self.values[start..], shape: [self.shape[0], n], ..self }
    }

    pub(crate) fn transposed(self) -> Self {
        let ([m, n], [i, j]) = (self.shape, self.strides);
        Self { shape: [n, m], strides: [j, i], ..self }
    }
}

/// Writes the product a · b into the start of `out`, row-major, or adds it to what is there.
pub(crate) fn gemm(a: Matrix, b: Matrix, out: &mut [f32], add: bool) {
    let ([m, k], [k_b, n]) = (a.shape, b.shape);
    assert!(k == k_b && out.len() >= m * n, "matrix shapes do not fit");
    // SAFETY: `Matrix` is made by `new`, which checks that all its elements are there; `columns` and `transposed` address
    // only elements of the matrix they start from. m · n elements of `out` were checked just now, and it is borrowed exclusively.
    #[expect(unsafe_code)]
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
    use super::{Matrix, gemm};

    #[test]
    fn products_and_sums() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, -1.0, 1.0, 1.0]);
        let mut out = [10.0; 4];
        gemm(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [8.0, 1.0, 20.0, 1.0]);
        gemm(Matrix::new(&a, 3, 2).transposed(), Matrix::new(&b, 2, 3).transposed(), &mut out, true);
        assert_eq!(out, [8.0 + 11.0, 1.0 + 7.0, 20.0 + 14.0, 1.0 + 8.0]);
    }
}
