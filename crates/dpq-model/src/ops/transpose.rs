//! Transposed copies of matrices.

#[cfg(target_arch = "x86_64")]
use pulp::{NullaryFnOnce, cast, x86::V3};

/// Writes a matrix transposed: row i, column j goes to `out[j · out_stride + i]`. Rows of the
/// source lie `stride` apart.
pub(crate) fn transpose(
    source: &[f32],
    stride: usize,
    [n_rows, n_columns]: [usize; 2],
    out: &mut [f32],
    out_stride: usize,
) {
    let mut blocked = [0, 0];
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = V3::try_new() {
        blocked = [n_rows - n_rows % BLOCK, n_columns - n_columns % BLOCK];
        simd.vectorize(Blocks { simd, source, stride, shape: blocked, out: &mut *out, out_stride });
    }
    for i in 0..n_rows {
        let first = if i < blocked[0] { blocked[1] } else { 0 };
        let row = &source[i * stride..][..n_columns];
        for (j, value) in row.iter().enumerate().skip(first) {
            out[j * out_stride + i] = *value;
        }
    }
}

/// The side of a block of a matrix that fits into registers.
#[cfg(target_arch = "x86_64")]
const BLOCK: usize = 8;

/// The blocks of a matrix whose shape is a multiple of theirs.
#[cfg(target_arch = "x86_64")]
struct Blocks<'a> {
    simd: V3,
    source: &'a [f32],
    stride: usize,
    shape: [usize; 2],
    out: &'a mut [f32],
    out_stride: usize,
}

#[cfg(target_arch = "x86_64")]
impl NullaryFnOnce for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let [n_rows, n_columns] = self.shape;
        // Two neighbouring blocks at a time share cache lines. The inner loop follows the rows of
        // the side that has the longer ones: 16 streams, which the CPU reads ahead.
        if self.stride >= self.out_stride {
            for i in (0..n_rows).step_by(2 * BLOCK) {
                for j in (0..n_columns).step_by(BLOCK) {
                    self.block(i, j);
                    if i + BLOCK < n_rows {
                        self.block(i + BLOCK, j);
                    }
                }
            }
        } else {
            for j in (0..n_columns).step_by(2 * BLOCK) {
                for i in (0..n_rows).step_by(BLOCK) {
                    self.block(i, j);
                    if j + BLOCK < n_columns {
                        self.block(i, j + BLOCK);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Blocks<'_> {
    #[inline(always)]
    fn block(&mut self, i: usize, j: usize) {
        let avx = self.simd.avx;
        let mut rows = [[0.0; BLOCK]; BLOCK];
        for (r, row) in rows.iter_mut().enumerate() {
            row.copy_from_slice(&self.source[(i + r) * self.stride + j..][..BLOCK]);
        }
        let [a, b, c, d, e, f, g, h]: [std::arch::x86_64::__m256; BLOCK] = cast(rows);
        // Pairs of rows, then fours, then all.
        let [ab, cd, ef, gh] = [
            [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b)],
            [avx._mm256_unpacklo_ps(c, d), avx._mm256_unpackhi_ps(c, d)],
            [avx._mm256_unpacklo_ps(e, f), avx._mm256_unpackhi_ps(e, f)],
            [avx._mm256_unpacklo_ps(g, h), avx._mm256_unpackhi_ps(g, h)],
        ];
        let top = [
            avx._mm256_shuffle_ps::<0x44>(ab[0], cd[0]),
            avx._mm256_shuffle_ps::<0xee>(ab[0], cd[0]),
            avx._mm256_shuffle_ps::<0x44>(ab[1], cd[1]),
            avx._mm256_shuffle_ps::<0xee>(ab[1], cd[1]),
        ];
        let bottom = [
            avx._mm256_shuffle_ps::<0x44>(ef[0], gh[0]),
            avx._mm256_shuffle_ps::<0xee>(ef[0], gh[0]),
            avx._mm256_shuffle_ps::<0x44>(ef[1], gh[1]),
            avx._mm256_shuffle_ps::<0xee>(ef[1], gh[1]),
        ];
        let columns: [[f32; BLOCK]; BLOCK] = cast([
            avx._mm256_permute2f128_ps::<0x20>(top[0], bottom[0]),
            avx._mm256_permute2f128_ps::<0x20>(top[1], bottom[1]),
            avx._mm256_permute2f128_ps::<0x20>(top[2], bottom[2]),
            avx._mm256_permute2f128_ps::<0x20>(top[3], bottom[3]),
            avx._mm256_permute2f128_ps::<0x31>(top[0], bottom[0]),
            avx._mm256_permute2f128_ps::<0x31>(top[1], bottom[1]),
            avx._mm256_permute2f128_ps::<0x31>(top[2], bottom[2]),
            avx._mm256_permute2f128_ps::<0x31>(top[3], bottom[3]),
        ]);
        for (c, column) in columns.iter().enumerate() {
            self.out[(j + c) * self.out_stride + i..][..BLOCK].copy_from_slice(column);
        }
    }
}
