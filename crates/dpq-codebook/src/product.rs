//! Matrix products and norms.

/// The product of `a` [n, dim] and the transpose of `b` [m, dim]: out [n, m], on the calling thread.
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

/// The squared norm, summed in one order: eight partial sums, so that the loop becomes vector instructions.
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (blocks, tail) = x.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            sums[lane] += f64::from(block[lane]) * f64::from(block[lane]);
        }
    }
    tail.iter().map(|&x| f64::from(x) * f64::from(x)).chain(sums).sum()
}
