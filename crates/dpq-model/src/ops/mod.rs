//! The layers of the networks as fused operations on f32 tensors: convolution, max pooling, batch normalisation,
//! linear. On the CPU each is one custom operation with its own gradient: candle's pooling has a wrong one, and its
//! convolution spends five times as long going backward as forward. On CUDA (feature `cuda`) they are kernels of our own
//! too; anywhere else they are made of candle's tensor operations.
//!
//! Results are the same bytes at every thread count: work is cut into pieces that depend on the shapes alone, and
//! partial sums are added in a fixed order. Work runs in rayon's current pool.
//!
//! A gradient is computed for an argument only if the argument depends on a variable. The gradient of a fused ReLU at 0 is 0.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor, bail};

use conv::Conv;
pub(crate) use gradients::backward;
use linear::Linear;
use norm::{BatchNorm, ScaleShift};
use patches::Geometry;
use pool::{MaxPool, Windows};
use response::ResponseNorm;

mod conv;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod gemm;
mod gradients;
mod layout;
mod linear;
mod norm;
mod patches;
mod pool;
mod portable;
mod response;

/// Convolves `x` with `weight`, adds `bias` to every channel, and applies a ReLU if `relu` is set.
///
/// Shapes: x `[b, ci, h, w]`, weight `[co, ci, kh, kw]`, bias `[co]`; returns `[b, co, oh, ow]` with
/// oh = (h + 2 · padding − kh) / stride + 1 (rounded down), ow likewise.
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded image, a stride of 0, or a type other than f32.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    relu: bool,
) -> Result<Tensor> {
    let geometry = check_conv(x, weight, bias, stride, padding)?;
    if x.device().is_cpu() {
        return conv_on_cpu(x, weight, bias, geometry, None, relu);
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return conv_on_cuda(x, weight, bias, geometry, (1, 1), relu);
    }
    activate(portable::conv2d(x, weight, bias, stride, padding)?, relu)
}

/// [`conv2d`], then [`max_pool2d`] with `pool` = (kernel, stride), as one operation: on the CPU the convolution's
/// full-sized result never reaches memory. (The ReLU commutes with the maximum.)
///
/// # Errors
/// Those of [`conv2d`] and [`max_pool2d`].
pub(crate) fn conv2d_pool(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    pool: (usize, usize),
    relu: bool,
) -> Result<Tensor> {
    let mut geometry = check_conv(x, weight, bias, stride, padding)?;
    check_pool(geometry.out, pool)?;
    if x.device().is_cpu() {
        let (kernel, stride) = pool;
        // What no window reaches is not computed: of 7 rows, 2×2 windows see 6.
        geometry.out = geometry.out.map(|len| (len - kernel) / stride * stride + kernel);
        let [height, width] = geometry.out;
        let windows = Windows { channels: geometry.n_out, height, width, kernel, stride };
        return conv_on_cpu(x, weight, bias, geometry, Some(windows), relu);
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return conv_on_cuda(x, weight, bias, geometry, pool, relu);
    }
    let y = portable::conv2d(x, weight, bias, stride, padding)?;
    activate(portable::max_pool2d(&y, pool.0, pool.1)?, relu)
}

/// The largest value of every `kernel` × `kernel` window, windows `stride` apart; windows that would reach over the
/// edge are left out, as PyTorch does by default. A NaN in a window makes the result NaN.
///
/// Shapes: x `[b, c, h, w]`; returns [b, c, (h − kernel) / stride + 1, (w − kernel) / stride + 1].
/// The gradient goes to the window's first largest element in row-major order.
///
/// # Errors
/// A rank other than 4, a type other than f32, a kernel of 0, above 16 or larger than the image, a stride of 0.
pub(crate) fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    check_f32(&[x])?;
    check_pool([height, width], (kernel, stride))?;
    let windows = Windows { channels, height, width, kernel, stride };
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(MaxPool { windows, taps: OnceLock::new() });
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return x.contiguous()?.apply_op1(cuda::MaxPool { windows, taps: OnceLock::new() });
    }
    portable::max_pool2d(x, kernel, stride)
}

/// Batch normalisation in training: every channel is brought to mean 0 and variance 1 over the batch (and positions),
/// then scaled by `gamma` and shifted by `beta`; a ReLU follows if `relu` is set.
///
/// Shapes: x `[b, c, h, w]` or `[b, c]`; gamma, beta `[c]`. Returns y, shaped as x, and, without gradient, the batch mean `[c]`
/// and variance `[c]` (the mean squared deviation, which is what normalises; multiply by n / (n − 1), n = b · h · w, for
/// PyTorch's running variance).
///
/// # Errors
/// Shapes that do not fit, an empty batch, or a type other than f32.
pub(crate) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    check_channels(x, gamma, beta)?;
    if x.device().is_cpu() {
        let moments = Arc::new(OnceLock::new());
        let op = BatchNorm { eps, relu, moments: moments.clone() };
        let y = x.contiguous()?.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, op)?;
        let moments = moments.get().expect("the forward pass fills them");
        let tensor = |values: &[f32]| Tensor::new(values, x.device());
        return Ok((y, tensor(&moments.mean)?, tensor(&moments.variance)?));
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let moments = Arc::new(OnceLock::new());
        let op = cuda::BatchNorm { eps, relu, moments: moments.clone() };
        let y = x.contiguous()?.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, op)?;
        let (mean, variance) = cuda::BatchNorm::mean_and_variance(&moments, gamma)?;
        return Ok((y, mean, variance));
    }
    let (y, mean, variance) = portable::batch_norm(x, gamma, beta, eps)?;
    Ok((activate(y, relu)?, mean, variance))
}

/// `x · scale + shift` by channel, then a ReLU if `relu` is set: batch normalisation at inference, with
/// scale = gamma / √(variance + eps) and shift = beta − mean · scale.
///
/// Shapes: x `[b, c, h, w]` or `[b, c]`; scale, shift `[c]`. It has no gradient, and `backward` says so.
///
/// # Errors
/// Shapes that do not fit, or a type other than f32.
pub(crate) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    check_channels(x, scale, shift)?;
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, ScaleShift { relu });
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let op = cuda::ScaleShift { relu };
        return x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, op);
    }
    activate(portable::scale_shift(x, scale, shift)?, relu)
}

/// Local response normalisation with the constants of Caffe's AlexNet: x / (1 + 2·10⁻⁵ Σ x²)^¾, the sum over a channel and the
/// two on each side of it. (Krizhevsky et al. 2012 print α = 10⁻⁴ without dividing by the five channels, and 2 for the 1.)
///
/// Shapes: x `[b, c, h, w]`; returns the same.
///
/// # Errors
/// A rank other than 4, or a type other than f32.
pub(crate) fn response_norm(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    check_f32(&[x])?;
    if x.device().is_cpu() { x.contiguous()?.apply_op1(ResponseNorm) } else { portable::response_norm(x) }
}

/// `x · weightᵀ + bias`, then a ReLU if `relu` is set.
///
/// Shapes: x `[b, in]`, weight `[out, in]`, bias `[out]`; returns `[b, out]`.
///
/// # Errors
/// Shapes that do not fit, or a type other than f32.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let ((_, n_in), (n_out, k)) = (x.dims2()?, weight.dims2()?);
    check_f32(&[x, weight])?;
    if n_in != k {
        bail!("linear: weight {:?} expects {k} inputs, x {:?} has {n_in}", weight.dims(), x.dims());
    }
    check_bias("linear", bias, n_out)?;
    if x.device().is_cpu() {
        let bias = bias_or_zeros(bias, n_out, x.device())?;
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Linear { relu });
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let bias = bias_or_zeros(bias, n_out, x.device())?;
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, cuda::Linear { relu });
    }
    activate(portable::linear(x, weight, bias)?, relu)
}

fn conv_on_cpu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Geometry,
    pool: Option<Windows>,
    relu: bool,
) -> Result<Tensor> {
    let bias = bias_or_zeros(bias, geometry.n_out, x.device())?;
    let op = Conv { geometry, pool, relu, taps: OnceLock::new() };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, op)
}

#[cfg(feature = "cuda")]
fn conv_on_cuda(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Geometry,
    (kernel, stride): (usize, usize),
    relu: bool,
) -> Result<Tensor> {
    let [height, width] = geometry.out;
    let windows = Windows { channels: geometry.n_out, height, width, kernel, stride };
    let has_bias = bias.is_some();
    // Without a bias something of its type stands in for it; it is not read and gets no gradient.
    let bias = bias.map_or_else(|| weight.detach().flatten_all()?.narrow(0, 0, 1), Tensor::contiguous)?;
    let op = cuda::Conv { geometry, windows, relu, has_bias, taps: OnceLock::new() };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, op)
}

fn bias_or_zeros(bias: Option<&Tensor>, n_out: usize, device: &Device) -> Result<Tensor> {
    match bias {
        Some(bias) => bias.contiguous(),
        None => Tensor::zeros(n_out, DType::F32, device),
    }
}

fn activate(y: Tensor, relu: bool) -> Result<Tensor> {
    if relu { y.relu() } else { Ok(y) }
}

fn check_f32(tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|tensor| tensor.dtype() != DType::F32) {
        Some(tensor) => bail!("expected an f32 tensor, found {:?}", tensor.dtype()),
        None => Ok(()),
    }
}

fn check_bias(op: &str, bias: Option<&Tensor>, n_out: usize) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    check_f32(&[bias])?;
    if bias.dims() != [n_out] {
        bail!("{op}: expected a bias of shape [{n_out}], found {:?}", bias.dims());
    }
    Ok(())
}

/// Checks a convolution's arguments.
fn check_conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Geometry> {
    let ((_, ci, h, w), (co, k, kh, kw)) = (x.dims4()?, weight.dims4()?);
    check_f32(&[x, weight])?;
    check_bias("conv2d", bias, co)?;
    if ci != k {
        bail!("conv2d: weight {:?} expects {k} channels, x {:?} has {ci}", weight.dims(), x.dims());
    }
    let (padded_h, padded_w) = (h + 2 * padding, w + 2 * padding);
    if stride == 0 || weight.elem_count() == 0 || kh > padded_h || kw > padded_w {
        bail!(
            "conv2d: a kernel {:?} with stride {stride} does not fit a padded image of {padded_h}x{padded_w}",
            weight.dims()
        );
    }
    let out = [(padded_h - kh) / stride + 1, (padded_w - kw) / stride + 1];
    Ok(Geometry { image: [ci, h, w], n_out: co, kernel: [kh, kw], stride, padding, out })
}

fn check_pool([h, w]: [usize; 2], (kernel, stride): (usize, usize)) -> Result<()> {
    if stride == 0 || kernel == 0 || kernel > 16 || kernel > h.min(w) {
        bail!(
            "max_pool2d: a kernel of {kernel} (at most 16) with stride {stride} does not fit an image of {h}x{w}"
        );
    }
    Ok(())
}

fn check_channels(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<()> {
    check_f32(&[x, scale, shift])?;
    if !matches!(x.rank(), 2 | 4) || x.elem_count() == 0 {
        bail!(
            "normalisation: expected [b, c, h, w] or [b, c] with at least one element, found {:?}",
            x.dims()
        );
    }
    let n_channels = x.dim(1)?;
    if scale.dims() != [n_channels] || shift.dims() != [n_channels] {
        bail!(
            "normalisation: expected scale and shift of shape [{n_channels}], found {:?} and {:?}",
            scale.dims(),
            shift.dims()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
