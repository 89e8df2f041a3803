//! The layers written with candle's own tensor operations: what runs where there is no CPU kernel (CUDA), and the
//! reference that the kernels are tested against.

use candle_core::{Result, Tensor};

/// See [`super::conv2d`].
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let y = x.conv2d(weight, padding, stride, 1, 1)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// See [`super::max_pool2d`]. Rows first, then columns, each as the maximum of `kernel` strided selections: unlike
/// candle's own pooling this has the right gradient (which the elements of a tie share).
pub(crate) fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let pool = |x: Tensor, dim: usize| -> Result<Tensor> {
        let n_out = (x.dim(dim)? - kernel) / stride + 1;
        let tap = |offset: usize| {
            let picks: Vec<u32> = (0..n_out).map(|i| (i * stride + offset) as u32).collect();
            x.index_select(&Tensor::new(picks, x.device())?, dim)
        };
        (1..kernel).try_fold(tap(0)?, |best, offset| best.maximum(&tap(offset)?))
    };
    pool(pool(x.clone(), 2)?, 3)
}

/// See [`super::batch_norm`].
pub(crate) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let flat = x.reshape((x.dim(0)?, x.dim(1)?, ()))?;
    let mean = flat.mean_keepdim((0, 2))?;
    let centered = flat.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim((0, 2))?;
    let normed = centered.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let y = scale_shift(&normed, gamma, beta)?.reshape(x.shape())?;
    Ok((y, mean.flatten_all()?.detach(), variance.flatten_all()?.detach()))
}

/// See [`super::scale_shift`].
pub(crate) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let shape: Vec<usize> = (0..x.rank()).map(|dim| if dim == 1 { scale.elem_count() } else { 1 }).collect();
    x.broadcast_mul(&scale.reshape(&*shape)?)?.broadcast_add(&shift.reshape(&*shape)?)
}

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}
