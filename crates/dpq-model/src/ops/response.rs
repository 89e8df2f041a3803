//! Local response normalisation of one image at a time.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::layout::{values, with_scratch, with_values};

/// Number of channels on each side that the sum of squares includes.
const RADIUS: usize = 2;

/// The factor of the sum of squares, α / n, with Caffe's α = 1e-4 and n = 5 channels.
const ALPHA: f32 = 2e-5;

/// The exponent, β.
const BETA: f32 = 0.75;

/// The operation on x `[b, c, ..]`. The result has the same shape.
pub(crate) struct ResponseNorm;

/// Writes the sum of each plane and its neighbours. A plane has `n` elements.
fn window_sums(planes: &[f32], n: usize, sums: &mut [f32]) {
    let n_planes = planes.len() / n;
    for (c, sum) in sums.chunks_exact_mut(n).enumerate() {
        sum.fill(0.0);
        let window = c.saturating_sub(RADIUS) * n..(c + RADIUS + 1).min(n_planes) * n;
        for plane in planes[window].chunks_exact(n) {
            sum.iter_mut().zip(plane).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Returns s^−¾.
fn power(s: f32) -> f32 {
    let root = s.sqrt();
    1.0 / (root * root.sqrt())
}

/// Returns the lengths of an image and of a plane.
fn planes(dims: &[usize]) -> (usize, usize) {
    (dims[1..].iter().product(), dims[2..].iter().product())
}

/// The same operation in candle's tensor operations, for CUDA.
pub(crate) fn in_tensors(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.pad_with_zeros(1, RADIUS, RADIUS)?;
    let window = |i: usize| squares.narrow(1, i, x.dim(1)?);
    let sums = (1..=2 * RADIUS).try_fold(window(0)?, |sum, i| sum + window(i)?)?;
    x * sums.affine(f64::from(ALPHA), 1.0)?.powf(f64::from(-BETA))?
}

impl CustomOp1 for ResponseNorm {
    fn name(&self) -> &'static str {
        "response_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let (len, n) = planes(layout.dims());
        let mut y = vec![0.0; x.len()];
        x.par_chunks_exact(len).zip(y.par_chunks_exact_mut(len)).for_each(|(x, y)| {
            with_scratch(len, |squares| {
                squares.iter_mut().zip(x).for_each(|(square, x)| *square = x * x);
                window_sums(squares, n, y);
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x * power(1.0 + ALPHA * *y));
            });
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    /// dx = g s^−β − 2αβ x Σ g y / s, the sum over the same window.
    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (len, n) = planes(x.dims());
        let mut grad_x = vec![0.0; x.elem_count()];
        with_values([x, y, &grad], |[x, y, grad]| {
            let inputs = x.par_chunks_exact(len).zip(y.par_chunks_exact(len)).zip(grad.par_chunks_exact(len));
            inputs.zip(grad_x.par_chunks_exact_mut(len)).for_each(|(((x, y), grad), out)| {
                with_scratch(2 * len, |scratch| {
                    let (scale, terms) = scratch.split_at_mut(len);
                    terms.iter_mut().zip(x).for_each(|(square, x)| *square = x * x);
                    window_sums(terms, n, scale);
                    let outputs = y.iter().zip(grad);
                    for ((term, scale), (y, grad)) in terms.iter_mut().zip(&mut *scale).zip(outputs) {
                        *scale = 1.0 + ALPHA * *scale;
                        *term = grad * y / *scale;
                    }
                    window_sums(terms, n, out);
                    for ((out, x), (grad, scale)) in out.iter_mut().zip(x).zip(grad.iter().zip(&*scale)) {
                        *out = grad * power(*scale) - 2.0 * ALPHA * BETA * x * *out;
                    }
                });
            });
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(grad_x, x.shape(), &Device::Cpu)?))
    }
}
