//! Batch normalisation with a fused ReLU, and its inference form.

use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{grid, ints, launch, not_on_cpu, room, storage, tensor, tensor_values, threads, values};

/// (x, gamma, beta), x being `[b, c, h, w]` or `[b, c]`.
pub(crate) struct BatchNorm {
    pub(crate) eps: f64,
    pub(crate) relu: bool,
    /// Mean, variance and scale of every channel, [3, c], which the forward pass finds.
    pub(crate) moments: Arc<OnceLock<CudaSlice<f32>>>,
}

/// Threads that work on a channel.
const BLOCK: u32 = 512;

/// [b, c, h · w] of `[b, c, h, w]` or `[b, c]`, and their product.
fn sizes(dims: &[usize]) -> Result<[i32; 4]> {
    let [batch, channels, plane] = [dims[0], dims[1], dims[2..].iter().product()];
    ints([batch, channels, plane, batch * channels * plane])
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    not_on_cpu!(_a: _a_layout, _b: _b_layout, _c: _c_layout);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        gamma: &CudaStorage,
        gamma_layout: &Layout,
        beta: &CudaStorage,
        beta_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (x, gamma, beta) =
            (values(x, x_layout)?, values(gamma, gamma_layout)?, values(beta, beta_layout)?);
        let [batch, channels, plane, n] = sizes(x_layout.dims())?;
        let c = channels as usize;
        let mut moments = room(device, 3 * c)?;
        launch!(device, "moments", grid(c, 1, BLOCK), &mut moments, &x, &gamma, &batch, &plane, &self.eps);
        let mut y = room(device, x.len())?;
        launch!(
            device,
            "scale_shift",
            threads(x.len()),
            &mut y,
            &x,
            &moments,
            &moments.slice(2 * c..),
            &beta,
            &1i32,
            &channels,
            &plane,
            &n,
            &i32::from(self.relu),
        );
        // `cuda_fwd` runs once for each `BatchNorm`.
        let _ = self.moments.set(moments);
        Ok((storage(device, y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (device, grad) = (x.device().as_cuda_device()?, grad.contiguous()?);
        let moments = self.moments.get().expect("the forward pass ran before the backward pass");
        let [batch, channels, plane, n] = sizes(x.dims())?;
        let (c, relu) = (channels as usize, i32::from(self.relu));
        let (x_storage, x_layout) = x.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (grad_storage, grad_layout) = grad.storage_and_layout();
        let (xs, ys) = (tensor_values(&x_storage, x_layout)?, tensor_values(&y_storage, y_layout)?);
        let grads = tensor_values(&grad_storage, grad_layout)?;
        let mut sums = room(device, 4 * c)?;
        let config = grid(c, 1, BLOCK);
        launch!(
            device,
            "batch_norm_sums",
            config,
            &mut sums,
            &xs,
            &ys,
            &grads,
            moments,
            &batch,
            &plane,
            &self.eps,
            &relu,
        );
        let grad_x = if x.track_op() {
            let mut grad_x = room(device, xs.len())?;
            launch!(
                device,
                "batch_norm_backward",
                threads(xs.len()),
                &mut grad_x,
                &xs,
                &ys,
                &grads,
                moments,
                &sums,
                &channels,
                &plane,
                &n,
                &relu,
            );
            Some(tensor(device, grad_x, x.shape()))
        } else {
            None
        };
        let sums = tensor(device, sums, (4, c));
        let row = |of: &Tensor, i: usize| of.track_op().then(|| sums.get(i)).transpose();
        Ok((grad_x, row(gamma, 0)?, row(beta, 1)?))
    }
}

/// `relu(x · scale + shift)` by channel, without a gradient.
pub(crate) struct ScaleShift {
    pub(crate) relu: bool,
}

impl CustomOp3 for ScaleShift {
    fn name(&self) -> &'static str {
        "scale_shift"
    }

    not_on_cpu!(_a: _a_layout, _b: _b_layout, _c: _c_layout);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
        shift: &CudaStorage,
        shift_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (x, scale, shift) =
            (values(x, x_layout)?, values(scale, scale_layout)?, values(shift, shift_layout)?);
        let [_, channels, plane, n] = sizes(x_layout.dims())?;
        let mut y = room(device, x.len())?;
        launch!(
            device,
            "scale_shift",
            threads(x.len()),
            &mut y,
            &x,
            &scale,
            &scale,
            &shift,
            &0i32,
            &channels,
            &plane,
            &n,
            &i32::from(self.relu),
        );
        Ok((storage(device, y), x_layout.shape().clone()))
    }
}

/// Mean and variance `[c]` as tensors.
impl BatchNorm {
    pub(crate) fn mean_and_variance(
        moments: &OnceLock<CudaSlice<f32>>,
        like: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let device = like.device().as_cuda_device()?;
        let moments = moments.get().expect("the forward pass fills them");
        let moments = tensor(device, moments.clone(), (3, like.elem_count()));
        Ok((moments.get(0)?, moments.get(1)?))
    }
}
