//! Winograd's transforms of tiles and kernels, and their adjoints, on channels-last images.
//!
//! F(m × m, 3 × 3) computes m × m results of a convolution as Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A from a
//! kernel g and a window d of n × n, n = m + 2: n² products per channel in place of 9 m².

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

/// A constant matrix with C columns and R rows.
trait Matrix<const R: usize, const C: usize> {
    /// Returns the product with a vector.
    fn multiply<S: Simd>(simd: S, x: [S::f32s; C]) -> [S::f32s; R];
}

// Bᵀ, Aᵀ and G of F(m × m, 3 × 3), and transposed matrices. They have no values.
enum Input<const M: usize> {}
enum Output<const M: usize> {}
enum Kernel<const M: usize> {}
struct Transposed<T>(PhantomData<T>);

/// Defines a matrix by its product with a vector. `$f` has arithmetic on vectors.
macro_rules! matrix {
    ($name:ty, $r:literal, $c:literal, $f:ident, $x:pat => $body:block) => {
        impl Matrix<$r, $c> for $name {
            #[inline(always)]
            fn multiply<S: Simd>(simd: S, $x: [S::f32s; $c]) -> [S::f32s; $r] {
                let $f = Arithmetic(simd);
                $body
            }
        }
    };
}

#[derive(Clone, Copy)]
struct Arithmetic<S>(S);

impl<S: Simd> Arithmetic<S> {
    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.sub_f32s(a, b)
    }

    #[inline(always)]
    fn mul(self, factor: f32, a: S::f32s) -> S::f32s {
        self.0.mul_f32s(self.0.splat_f32s(factor), a)
    }

    /// factor · a + b
    #[inline(always)]
    fn mul_add(self, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.mul_add_f32s(self.0.splat_f32s(factor), a, b)
    }

    /// p · a + q · b
    #[inline(always)]
    fn mul2(self, p: f32, a: S::f32s, q: f32, b: S::f32s) -> S::f32s {
        self.mul_add(p, a, self.mul(q, b))
    }
}

matrix!(Input<2>, 4, 4, f, [a, b, c, d] => { [f.sub(a, c), f.add(b, c), f.sub(c, b), f.sub(d, b)] });
matrix!(Transposed<Input<2>>, 4, 4, f, [a, b, c, d] => {
    [a, f.sub(f.sub(b, c), d), f.sub(f.add(b, c), a), d]
});
matrix!(Output<2>, 2, 4, f, [a, b, c, d] => { [f.add(a, f.add(b, c)), f.add(f.sub(b, c), d)] });
matrix!(Transposed<Output<2>>, 4, 2, f, [a, b] => { [a, f.add(a, b), f.sub(a, b), b] });
matrix!(Kernel<2>, 4, 3, f, [a, b, c] => {
    let (even, odd) = (f.mul2(0.5, a, 0.5, c), f.mul(0.5, b));
    [a, f.add(even, odd), f.sub(even, odd), c]
});
matrix!(Transposed<Kernel<2>>, 3, 4, f, [a, b, c, d] => {
    let (sum, difference) = (f.add(b, c), f.sub(b, c));
    [f.mul_add(0.5, sum, a), f.mul(0.5, difference), f.mul_add(0.5, sum, d)]
});

// Interpolation at 0, ±3/4, ±3/2 and infinity, which rounds half as much as at 0, ±1, ±2 and
// infinity.
matrix!(Input<4>, 6, 6, f, [a, b, c, d, e, g] => {
    let (even1, odd1) = (f.mul_add(-9.0 / 4.0, c, e), f.mul2(3.0 / 4.0, d, -27.0 / 16.0, b));
    let (even2, odd2) = (f.mul_add(-9.0 / 16.0, c, e), f.mul2(3.0 / 2.0, d, -27.0 / 32.0, b));
    [
        f.mul_add(81.0 / 64.0, a, f.mul_add(-45.0 / 16.0, c, e)),
        f.add(even1, odd1),
        f.sub(even1, odd1),
        f.add(even2, odd2),
        f.sub(even2, odd2),
        f.mul_add(81.0 / 64.0, b, f.mul_add(-45.0 / 16.0, d, g)),
    ]
});
matrix!(Transposed<Input<4>>, 6, 6, f, [a, b, c, d, e, g] => {
    let (sum1, difference1, sum2, difference2) = (f.add(b, c), f.sub(b, c), f.add(d, e), f.sub(d, e));
    [
        f.mul(81.0 / 64.0, a),
        f.mul_add(-27.0 / 16.0, difference1, f.mul2(-27.0 / 32.0, difference2, 81.0 / 64.0, g)),
        f.mul_add(-9.0 / 4.0, sum1, f.mul2(-9.0 / 16.0, sum2, -45.0 / 16.0, a)),
        f.mul_add(3.0 / 4.0, difference1, f.mul2(3.0 / 2.0, difference2, -45.0 / 16.0, g)),
        f.add(a, f.add(sum1, sum2)),
        g,
    ]
});
matrix!(Output<4>, 4, 6, f, [a, b, c, d, e, g] => {
    let (sum1, difference1, sum2, difference2) = (f.add(b, c), f.sub(b, c), f.add(d, e), f.sub(d, e));
    [
        f.add(a, f.add(sum1, sum2)),
        f.mul2(3.0 / 4.0, difference1, 3.0 / 2.0, difference2),
        f.mul2(9.0 / 16.0, sum1, 9.0 / 4.0, sum2),
        f.mul_add(27.0 / 64.0, difference1, f.mul_add(27.0 / 8.0, difference2, g)),
    ]
});
matrix!(Transposed<Output<4>>, 6, 4, f, [a, b, c, d] => {
    let (even1, odd1) = (f.mul_add(9.0 / 16.0, c, a), f.mul2(3.0 / 4.0, b, 27.0 / 64.0, d));
    let (even2, odd2) = (f.mul_add(9.0 / 4.0, c, a), f.mul2(3.0 / 2.0, b, 27.0 / 8.0, d));
    [a, f.add(even1, odd1), f.sub(even1, odd1), f.add(even2, odd2), f.sub(even2, odd2), d]
});
matrix!(Kernel<4>, 6, 3, f, [a, b, c] => {
    let (even1, odd1) = (f.mul2(-128.0 / 243.0, a, -8.0 / 27.0, c), f.mul(-32.0 / 81.0, b));
    let (even2, odd2) = (f.mul2(32.0 / 243.0, a, 8.0 / 27.0, c), f.mul(16.0 / 81.0, b));
    [
        f.mul(64.0 / 81.0, a),
        f.add(even1, odd1),
        f.sub(even1, odd1),
        f.add(even2, odd2),
        f.sub(even2, odd2),
        c,
    ]
});
matrix!(Transposed<Kernel<4>>, 3, 6, f, [a, b, c, d, e, g] => {
    let (sum1, difference1, sum2, difference2) = (f.add(b, c), f.sub(b, c), f.add(d, e), f.sub(d, e));
    [
        f.mul_add(64.0 / 81.0, a, f.mul2(-128.0 / 243.0, sum1, 32.0 / 243.0, sum2)),
        f.mul2(-32.0 / 81.0, difference1, 16.0 / 81.0, difference2),
        f.mul_add(-8.0 / 27.0, sum1, f.mul_add(8.0 / 27.0, sum2, g)),
    ]
});

/// Returns T X Tᵀ.
// Loops, because closures would not be compiled for the instructions of S.
#[inline(always)]
fn transform<S: Simd, T: Matrix<R, C>, const R: usize, const C: usize>(
    simd: S,
    x: &[[S::f32s; C]; C],
) -> [[S::f32s; R]; R] {
    let zero = simd.splat_f32s(0.0);
    // X Tᵀ
    let mut rows = [[zero; R]; C];
    for (row, x) in rows.iter_mut().zip(x) {
        *row = T::multiply(simd, *x);
    }
    let mut y = [[zero; R]; R];
    for s in 0..R {
        let mut column = [zero; C];
        for (value, row) in column.iter_mut().zip(&rows) {
            *value = row[s];
        }
        for (y, value) in y.iter_mut().zip(T::multiply(simd, column)) {
            y[s] = value;
        }
    }
    y
}

/// Windows on an image `[h, w, channels]`, `step` apart, the first one `padding` pixels outside.
/// Behind the image lies one pixel more, which stands for everything outside.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) image: [usize; 2],
    pub(crate) padding: usize,
    pub(crate) step: usize,
    /// Number of windows in a row.
    pub(crate) per_row: usize,
    /// The range of windows.
    pub(crate) first: usize,
    pub(crate) len: usize,
    /// Number of channels, a multiple of 16, and the distance between two pixels.
    pub(crate) channels: usize,
    pub(crate) pitch: usize,
}

impl Windows {
    /// Returns the places of the elements of a window in the image.
    #[inline(always)]
    fn places<const C: usize>(&self, window: usize) -> [[usize; C]; C] {
        let ([h, w], step, padding) = (self.image, self.step, self.padding);
        let window = self.first + window;
        let [top, left] = [window / self.per_row * step, window % self.per_row * step];
        let mut places = [[h * w * self.pitch; C]; C];
        for (i, row) in places.iter_mut().enumerate() {
            for (j, place) in row.iter_mut().enumerate() {
                // Places before the image wrap around.
                let [y, x] = [(top + i).wrapping_sub(padding), (left + j).wrapping_sub(padding)];
                if y < h && x < w {
                    *place = (y * w + x) * self.pitch;
                }
            }
        }
        places
    }
}

#[inline(always)]
fn load<S: Simd>(from: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&from[at..][..S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(to: &mut [f32], at: usize, value: S::f32s) {
    S::as_mut_simd_f32s(&mut to[at..][..S::F32_LANES]).0[0] = value;
}

/// Transforms C × C windows of an image to R · R matrices `[windows, channels]`.
struct Lift<'a, 'b, T, const R: usize, const C: usize> {
    matrix: PhantomData<T>,
    windows: Windows,
    image: &'a [f32],
    matrices: &'a mut [&'b mut [f32]],
}

impl<T: Matrix<R, C>, const R: usize, const C: usize> WithSimd for Lift<'_, '_, T, R, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (windows, n) = (self.windows, self.windows.channels);
        for window in 0..windows.len {
            let places = windows.places::<C>(window);
            for c in (0..n).step_by(S::F32_LANES) {
                let mut x = [[simd.splat_f32s(0.0); C]; C];
                for (row, places) in x.iter_mut().zip(&places) {
                    for (x, place) in row.iter_mut().zip(places) {
                        *x = load::<S>(self.image, place + c);
                    }
                }
                let y = transform::<S, T, R, C>(simd, &x);
                for (row, matrices) in y.iter().zip(self.matrices.chunks_exact_mut(R)) {
                    for (y, matrix) in row.iter().zip(matrices) {
                        store::<S>(matrix, window * n + c, *y);
                    }
                }
            }
        }
    }
}

/// Transforms C · C matrices `[windows, channels]`, which begin `stride` apart, to R × R windows,
/// and writes them to an image, or adds them if `ADD` is set.
struct Lower<'a, T, const R: usize, const C: usize, const ADD: bool> {
    matrix: PhantomData<T>,
    windows: Windows,
    matrices: &'a [f32],
    stride: usize,
    image: &'a mut [f32],
}

impl<T: Matrix<R, C>, const R: usize, const C: usize, const ADD: bool> WithSimd for Lower<'_, T, R, C, ADD> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (windows, n) = (self.windows, self.windows.channels);
        for window in 0..windows.len {
            let places = windows.places::<R>(window);
            for c in (0..n).step_by(S::F32_LANES) {
                let mut x = [[simd.splat_f32s(0.0); C]; C];
                for (i, row) in x.iter_mut().enumerate() {
                    for (j, x) in row.iter_mut().enumerate() {
                        *x = load::<S>(self.matrices, (i * C + j) * self.stride + window * n + c);
                    }
                }
                let y = transform::<S, T, R, C>(simd, &x);
                for (row, places) in y.iter().zip(&places) {
                    for (&y, place) in row.iter().zip(places) {
                        let y = if ADD { simd.add_f32s(load::<S>(self.image, place + c), y) } else { y };
                        store::<S>(self.image, place + c, y);
                    }
                }
            }
        }
    }
}

/// An operation with its vector instructions.
struct Call<S, Op> {
    simd: S,
    op: Op,
}

impl<S: Simd, Op: WithSimd> NullaryFnOnce for Call<S, Op> {
    type Output = Op::Output;

    #[inline(always)]
    fn call(self) -> Op::Output {
        self.op.with_simd(self.simd)
    }
}

/// Runs an operation with the widest vectors of this CPU.
fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    // `Arch` does not try AVX2 without another feature of pulp, which would compile candle anew.
    #[cfg(target_arch = "x86_64")]
    if V4::try_new().is_none()
        && let Some(simd) = V3::try_new()
    {
        return simd.vectorize(Call { simd, op });
    }
    Arch::new().dispatch(op)
}

/// A tile of 2 × 2 or 4 × 4 results.
#[derive(Clone, Copy)]
pub(crate) enum Tile {
    Two,
    Four,
}

/// Defines a transform of a tile, given its matrices for the two sizes.
macro_rules! transforms {
    (lift $name:ident, $two:ty, $four:ty) => {
        pub(crate) fn $name(self, windows: Windows, image: &[f32], matrices: &mut [&mut [f32]]) {
            match self {
                Self::Two => dispatch(Lift { matrix: PhantomData::<$two>, windows, image, matrices }),
                Self::Four => dispatch(Lift { matrix: PhantomData::<$four>, windows, image, matrices }),
            }
        }
    };
    (lower $name:ident, $two:ty, $four:ty, $add:literal) => {
        pub(crate) fn $name(self, windows: Windows, matrices: &[f32], stride: usize, image: &mut [f32]) {
            match self {
                Self::Two => dispatch(Lower::<_, _, _, $add> {
                    matrix: PhantomData::<$two>,
                    windows,
                    matrices,
                    stride,
                    image,
                }),
                Self::Four => dispatch(Lower::<_, _, _, $add> {
                    matrix: PhantomData::<$four>,
                    windows,
                    matrices,
                    stride,
                    image,
                }),
            }
        }
    };
}

impl Tile {
    /// The side of the result.
    pub(crate) fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Number of matrices: products per channel.
    pub(crate) fn n_matrices(self) -> usize {
        (self.side() + 2).pow(2)
    }

    transforms!(lift lift_input, Input<2>, Input<4>);
    transforms!(lift lift_kernel, Kernel<2>, Kernel<4>);
    transforms!(lower lower_output, Output<2>, Output<4>, false);
    // The gradients of these.
    transforms!(lower add_input_gradient, Transposed<Input<2>>, Transposed<Input<4>>, true);
    transforms!(lower lower_kernel_gradient, Transposed<Kernel<2>>, Transposed<Kernel<4>>, false);
    transforms!(lift lift_output_gradient, Transposed<Output<2>>, Transposed<Output<4>>);
}

#[cfg(test)]
mod tests;
