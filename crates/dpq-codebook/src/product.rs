//! Matrix products.

/// The product of `a` [n, dim] and the transpose of `b` [m, dim]: out [n, m], on the calling thread.
///
/// A row of the result depends on that row of `a` alone, so cutting `a` into chunks changes nothing.
pub(crate) fn product(a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
    let (n, m) = (a.len() / dim, b.len() / dim);
    assert_eq!((a.len(), b.len(), out.len()), (n * dim, m * dim, n * m), "whole rows");
    let (dim_stride, m_stride) = (dim as isize, m as isize);
    #[expect(unsafe_code, reason = "matrixmultiply takes pointers")]
    // SAFETY: the assertion above makes `a`, `b` and `out` hold exactly the matrices that the strides describe, `out` is
    // borrowed mutably and so overlaps neither.
    unsafe {
        matrixmultiply::sgemm(
            n,
            dim,
            m,
            1.0,
            a.as_ptr(),
            dim_stride,
            1,
            b.as_ptr(),
            1,
            dim_stride,
            0.0,
            out.as_mut_ptr(),
            m_stride,
            1,
        );
    }
}

/// Half the squared norm of each row [m, dim].
pub(crate) fn half_squared_norms(rows: &[f32], dim: usize) -> Vec<f32> {
    rows.chunks_exact(dim)
        .map(|row| (0.5 * row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()) as f32)
        .collect()
}

/// The position of the largest value; the first of equals.
pub(crate) fn argmax(values: &[f32]) -> usize {
    // Two passes, since each is a loop that the compiler turns into vector instructions.
    let max = values.iter().fold(f32::NEG_INFINITY, |max, &value| if value > max { value } else { max });
    values.iter().position(|&value| value == max).expect("values are finite and not empty")
}
