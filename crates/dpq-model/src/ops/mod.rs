//! The layers of networks as fused operations on f32 tensors: convolution, max pooling, batch
//! normalisation, linear.
//!
//! On the CPU each layer is one custom operation with its own gradient, because candle's pooling
//! has a wrong gradient and its convolution takes five times as long backward as forward. 3×3
//! convolutions of stride 1 with many channels use Winograd's method, others products with patches.
//! On CUDA (feature `cuda`) layers are kernels too.
//!
//! Results do not depend on the number of threads: the shapes alone decide how work is cut into
//! pieces, and partial sums are added in a fixed order. Work runs in rayon's current pool.
//!
//! Arguments that do not depend on a variable get no gradient. The gradient of a fused ReLU at 0 is
//! 0. Shapes that do not fit and types other than f32 are errors.

use std::sync::{Mutex, OnceLock};

use candle_core::{DType, Device, Result, Tensor, Var, bail};

use conv::Conv;
use custom::Op;
pub(crate) use gradients::backward;
use linear::Linear;
use norm::{BatchNorm, ScaleShift};
use patches::Geometry;
use pool::{MaxPool, Windows};
use residual::AddRelu;
use response::ResponseNorm;
use update::{Buffers, Rule, Update};

mod choice;
mod conv;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod custom;
mod gemm;
mod gradients;
mod layout;
mod linear;
mod norm;
mod op3;
mod patches;
mod pool;
mod residual;
mod response;
mod tiles;
mod transpose;
pub(crate) mod update;
mod wide;
mod winograd;

/// Convolves `x` with `weight`, adds `bias` to every channel, takes maxima as [`max_pool2d`] if
/// there is a `pool` = (kernel, stride), and applies a ReLU if `relu` is set. On the CPU the result
/// before pooling never reaches memory.
///
/// Shapes: x `[b, ci, h, w]`, weight `[co, ci, kh, kw]`, bias `[co]`; returns `[b, co, oh, ow]`
/// with oh = (h + 2 · padding − kh) / stride + 1 (rounded down), ow likewise, before pooling.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [stride, padding]: [usize; 2],
    pool: Option<(usize, usize)>,
    relu: bool,
) -> Result<Tensor> {
    let ((_, ci, h, w), (n_out, k, kh, kw)) = (x.dims4()?, weight.dims4()?);
    check_f32(&[x, weight])?;
    bias.map_or(Ok(()), |bias| check_vector("a bias", bias, n_out))?;
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
    let mut geometry = Geometry { image: [ci, h, w], n_out, kernel: [kh, kw], stride, padding, out };
    if let Some((kernel, stride)) = pool {
        check_pool(out, (kernel, stride))?;
        if x.device().is_cpu() {
            // Rows and columns that no window reaches are not computed: of 7 rows, 2×2 windows
            // reach 6.
            geometry.out = out.map(|len| (len - kernel) / stride * stride + kernel);
        }
    }
    let [height, width] = geometry.out;
    let op = Conv {
        geometry,
        pool: pool.map(|(kernel, stride)| Windows { channels: n_out, height, width, kernel, stride }),
        relu,
        taps: OnceLock::new(),
        #[cfg(feature = "cuda")]
        cuda_taps: OnceLock::new(),
        #[cfg(feature = "cuda")]
        has_bias: bias.is_some(),
    };
    let bias = match bias {
        // An array of its type stands in for the bias. Kernels do not read it, and it gets no
        // gradient.
        None if x.device().is_cuda() => weight.detach().flatten_all()?.narrow(0, 0, 1)?,
        _ => bias_or_zeros(bias, n_out, x.device())?,
    };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Op(op))
}

/// Returns the maximum of each `kernel` × `kernel` window, with windows `stride` apart, of an image
/// with a border of `padding` that is never a maximum. Windows that reach over the edge are
/// skipped, as in PyTorch by default. A NaN in a window makes the result NaN. The gradient goes to
/// the first maximum of the window in row-major order.
/// Shapes: x `[b, c, h, w]`; returns `[b, c, (h + 2 · padding − kernel) / stride + 1, …]`.
pub(crate) fn max_pool2d(x: &Tensor, kernel: usize, [stride, padding]: [usize; 2]) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    check_f32(&[x])?;
    let [height, width] = [height, width].map(|len| len + 2 * padding);
    check_pool([height, width], (kernel, stride))?;
    let windows = Windows { channels, height, width, kernel, stride };
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        // Zeros, which are no larger than the results of a ReLU.
        let x = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
        return x.contiguous()?.apply_op1(cuda::MaxPool { windows, taps: OnceLock::new() });
    }
    x.contiguous()?.apply_op1(MaxPool { windows, padding, taps: OnceLock::new() })
}

/// Normalises each channel to mean 0 and variance 1 over the batch and all positions, then scales
/// it by `gamma` and shifts it by `beta`. A ReLU follows if `relu` is set. This is batch
/// normalisation in training.
///
/// Returns y, and without gradient the mean and the variance of the batch. The variance is the mean
/// squared deviation. PyTorch's running variance is n / (n − 1) times that, where n = b · h · w.
/// Shapes: x and y `[b, c, h, w]` or `[b, c]`; gamma, beta, mean and variance `[c]`.
pub(crate) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    check_channels(x, gamma, beta)?;
    let op = BatchNorm { eps, relu, ..BatchNorm::default() };
    let y = x.contiguous()?.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, Op(op.clone()))?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (mean, variance) = cuda::mean_and_variance(&op.cuda_moments, gamma)?;
        return Ok((y, mean, variance));
    }
    let moments = op.moments.get().expect("the forward pass sets them");
    let tensor = |values: &[f32]| Tensor::new(values, x.device());
    Ok((y, tensor(&moments.mean)?, tensor(&moments.variance)?))
}

/// Returns `relu(x + y)`.
/// Shapes: x, y and the result are alike.
pub(crate) fn add_relu(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_f32(&[x, y])?;
    if x.dims() != y.dims() {
        bail!("add_relu: expected equal shapes, found {:?} and {:?}", x.dims(), y.dims());
    }
    if !x.device().is_cpu() {
        return (x + y)?.relu();
    }
    x.contiguous()?.apply_op2(&y.contiguous()?, AddRelu)
}

/// Returns `x · scale + shift` by channel, then a ReLU if `relu` is set. This is batch
/// normalisation in inference, with scale = gamma / √(variance + eps) and shift = beta − mean ·
/// scale. Scale and shift have no gradient: `backward` returns an error.
/// Shapes: x `[b, c, h, w]` or `[b, c]`; scale, shift `[c]`.
pub(crate) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    check_channels(x, scale, shift)?;
    if !x.device().is_cpu() && x.track_op() {
        // The kernel has no gradient. Attacks alone need one.
        let mut shape = vec![1; x.rank()];
        shape[1] = scale.elem_count();
        let y = x.broadcast_mul(&scale.reshape(&*shape)?)?.broadcast_add(&shift.reshape(&*shape)?)?;
        return if relu { y.relu() } else { Ok(y) };
    }
    x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, Op(ScaleShift { relu }))
}

/// Applies local response normalisation with the constants of Caffe's AlexNet: x / (1 + 2·10⁻⁵ Σ
/// x²)^¾, where the sum runs over a channel and two channels on each side. Krizhevsky et al. (2012)
/// print α = 10⁻⁴, not divided by the five channels, and 2 in place of 1.
/// Shapes: x and the result `[b, c, h, w]`.
pub(crate) fn response_norm(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    check_f32(&[x])?;
    if x.device().is_cpu() { x.contiguous()?.apply_op1(ResponseNorm) } else { response::in_tensors(x) }
}

/// Returns `x · weightᵀ + bias`, then a ReLU if `relu` is set.
/// Shapes: x `[b, in]`, weight `[out, in]`, bias `[out]`; returns `[b, out]`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let ((_, n_in), (n_out, k)) = (x.dims2()?, weight.dims2()?);
    check_f32(&[x, weight])?;
    if n_in != k {
        bail!("linear: weight {:?} expects {k} inputs, x {:?} has {n_in}", weight.dims(), x.dims());
    }
    bias.map_or(Ok(()), |bias| check_vector("a bias", bias, n_out))?;
    let bias = bias_or_zeros(bias, n_out, x.device())?;
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Op(Linear { relu }))
}

/// Updates a variable and the memory of its optimiser in place, given the gradient of the variable.
pub(crate) fn update(var: &Var, gradient: &Tensor, rule: Rule, buffers: &mut Buffers) -> Result<()> {
    let gradient = gradient.contiguous()?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = var.device() {
        if buffers.device.is_none() {
            let [first, second] = std::mem::take(&mut buffers.host);
            buffers.device = Some([device.clone_htod(&first)?, device.clone_htod(&second)?]);
        }
        let buffers = Mutex::new(buffers.device.as_mut().expect("set just now"));
        return var.inplace_op2(&gradient, &cuda::Update { rule, buffers });
    }
    var.inplace_op2(&gradient, &Update { rule, buffers: Mutex::new(&mut buffers.host) })
}

fn bias_or_zeros(bias: Option<&Tensor>, n_out: usize, device: &Device) -> Result<Tensor> {
    match bias {
        Some(bias) => bias.contiguous(),
        None => Tensor::zeros(n_out, DType::F32, device),
    }
}

fn check_f32(tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|tensor| tensor.dtype() != DType::F32) {
        Some(tensor) => bail!("expected an f32 tensor, found {:?}", tensor.dtype()),
        None => Ok(()),
    }
}

fn check_vector(what: &str, vector: &Tensor, n: usize) -> Result<()> {
    check_f32(&[vector])?;
    if vector.dims() != [n] {
        bail!("expected {what} of shape [{n}], found {:?}", vector.dims());
    }
    Ok(())
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
    check_f32(&[x])?;
    if !matches!(x.rank(), 2 | 4) || x.elem_count() == 0 {
        bail!(
            "normalisation: expected [b, c, h, w] or [b, c] with at least one element, found {:?}",
            x.dims()
        );
    }
    check_vector("a scale of normalisation", scale, x.dim(1)?)?;
    check_vector("a shift of normalisation", shift, x.dim(1)?)
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
