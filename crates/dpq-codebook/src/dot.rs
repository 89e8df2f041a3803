//! One inner product in one fixed order of summation, the same bits on every CPU.
//!
//! Element i is added to partial sum i mod 16 by fused multiply-add; the sixteen partial sums are then added as a tree:
//! i and i + 8, i and i + 4, i and i + 2, i and i + 1.

/// Partial sums.
const LANES: usize = 16;

/// Rows that are worked on together, so that several chains of additions are in flight.
const ROWS: usize = 4;

/// The inner products of `x` [dim] and each row of `rows` [n, dim]: out [n].
pub(crate) fn dots(x: &[f32], rows: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * x.len(), "whole rows");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
        // SAFETY: the line above found AVX2 and FMA.
        return unsafe { dots_avx2(x, rows, out) };
    }
    dots_any(x, rows, out);
}

/// The same loops, compiled for CPUs with vector registers and fused multiply-add.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dots_avx2(x: &[f32], rows: &[f32], out: &mut [f32]) {
    dots_any(x, rows, out);
}

#[inline(always)]
fn dots_any(x: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = x.len();
    let mut blocks = rows.chunks_exact(ROWS * dim);
    let mut outs = out.chunks_exact_mut(ROWS);
    for (block, out) in blocks.by_ref().zip(outs.by_ref()) {
        let (a, b) = block.split_at(2 * dim);
        let ((r0, r1), (r2, r3)) = (a.split_at(dim), b.split_at(dim));
        out.copy_from_slice(&dots_of(x, [r0, r1, r2, r3]));
    }
    for (row, out) in blocks.remainder().chunks_exact(dim).zip(outs.into_remainder()) {
        [*out] = dots_of(x, [row]);
    }
}

#[inline(always)]
fn dots_of<const N: usize>(x: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[0.0f32; LANES]; N];
    let (x_blocks, x_tail) = x.as_chunks::<LANES>();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    for (i, x) in x_blocks.iter().enumerate() {
        for (sums, (blocks, _)) in sums.iter_mut().zip(&rows) {
            let row = &blocks[i];
            for lane in 0..LANES {
                sums[lane] = x[lane].mul_add(row[lane], sums[lane]);
            }
        }
    }
    for (sums, (_, tail)) in sums.iter_mut().zip(&rows) {
        for ((sum, x), row) in sums.iter_mut().zip(x_tail).zip(*tail) {
            *sum = x.mul_add(*row, *sum);
        }
    }
    sums.map(|mut sums| {
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
            half /= 2;
        }
        sums[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of the order, one element at a time.
    fn naive(x: &[f32], row: &[f32]) -> f32 {
        let mut sums = [0.0f32; 16];
        for i in 0..x.len() {
            sums[i % 16] = x[i].mul_add(row[i], sums[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0]
    }

    #[test]
    fn every_route_gives_the_bits_of_the_definition() {
        for dim in [1, 2, 15, 16, 17, 31, 32, 100, 300] {
            for n in [1, 3, 4, 5, 9] {
                let values: Vec<f32> =
                    (0..dim * (n + 1)).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6).collect();
                let (x, rows) = values.split_at(dim);
                let expected: Vec<_> = rows.chunks_exact(dim).map(|row| naive(x, row).to_bits()).collect();
                let mut out = vec![0.0; n];
                dots(x, rows, &mut out);
                assert_eq!(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected, "dim {dim}, n {n}");
                dots_any(x, rows, &mut out);
                assert_eq!(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected, "dim {dim}, n {n}");
            }
        }
    }
}
