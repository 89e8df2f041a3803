//! Batch normalisation with a fused ReLU, and its inference form.

#![expect(unsafe_code, reason = "kernels take pointers")]

use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{grid, ints, launch, not_on_cpu, storage, tensor, tensor_values, threads, uninitialised, values};

/// The operation on (x, gamma, beta), where x is `[b, c, h, w]` or `[b, c]`.
pub(crate) struct BatchNorm {
    pub(crate) eps: f64,
    pub(crate) relu: bool,
    /// Mean, variance and scale of each channel, `[3, c]`. The forward pass sets it.
    pub(crate) moments: Arc<OnceLock<CudaSlice<f32>>>,
}

/// Number of threads per channel.
const BLOCK: u32 = 512;

/// Returns `[b, c, h · w]` of `[b, c, h, w]` or `[b, c]`, and their product.
fn sizes(dims: &[usize]) -> Result<[i32; 4]> {
    let [batch, channels, plane] = [dims[0], dims[1], dims[2..].iter().product()];
    ints([batch, channels, plane, batch * channels * plane])
}

/// Writes `(x - centre) * scale + shift` by channel to `y`, then a ReLU if `relu` is set.
fn scale_shift(
    device: &CudaDevice,
    y: &mut CudaSlice<f32>,
    x: &CudaView<f32>,
    centre: Option<&CudaView<f32>>,
    [scale, shift]: [&CudaView<f32>; 2],
    [channels, plane, n]: [i32; 3],
    relu: bool,
) -> Result<()> {
    let (has_centre, relu) = (i32::from(centre.is_some()), i32::from(relu));
    // Without a centre an array of its type stands in for it, which the kernel does not read.
    let centre = centre.unwrap_or(scale);
    let arrays = [centre, scale, shift].map(|array| array.len());
    assert!(
        y.len() == x.len() && x.len() == n as usize && arrays.iter().all(|&len| len >= channels as usize)
    );
    // SAFETY: the assertion checks the lengths that the kernel relies on.
    unsafe {
        launch!(
            device,
            "scale_shift",
            threads(x.len()),
            y,
            x,
            centre,
            scale,
            shift,
            &has_centre,
            &channels,
            &plane,
            &n,
            &relu
        );
    }
    Ok(())
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
        let config = grid(c, 1, BLOCK);
        // SAFETY: `x` holds `batch` images of `channels` planes, `gamma` an element per channel and
        // `moments` three. The kernel writes all of `moments`, and `scale_shift` all of `y`.
        let (moments, mut y) = unsafe {
            let [mut moments, y] = uninitialised(device, [3 * c, x.len()])?;
            launch!(device, "moments", config, &mut moments, &x, &gamma, &batch, &plane, &self.eps);
            (moments, y)
        };
        let sizes = [channels, plane, n];
        scale_shift(
            device,
            &mut y,
            &x,
            Some(&moments.slice(..c)),
            [&moments.slice(2 * c..), &beta],
            sizes,
            self.relu,
        )?;
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
        let config = grid(c, 1, BLOCK);
        // SAFETY: `xs`, `ys` and `grads` hold `batch` images of `channels` planes, `moments` three
        // elements per channel and `sums` four, all of which the kernel writes.
        let sums = unsafe {
            let [mut sums] = uninitialised(device, [4 * c])?;
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
                &relu
            );
            sums
        };
        let grad_x = if x.track_op() {
            let config = threads(xs.len());
            // SAFETY: as above. The kernel writes all of `grad_x`.
            let grad_x = unsafe {
                let [mut grad_x] = uninitialised(device, [xs.len()])?;
                launch!(
                    device,
                    "batch_norm_backward",
                    config,
                    &mut grad_x,
                    &xs,
                    &ys,
                    &grads,
                    moments,
                    &sums,
                    &channels,
                    &plane,
                    &n,
                    &relu
                );
                grad_x
            };
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
        // SAFETY: `scale_shift` writes all of it.
        let [mut y] = unsafe { uninitialised(device, [x.len()])? };
        scale_shift(device, &mut y, &x, None, [&scale, &shift], [channels, plane, n], self.relu)?;
        Ok((storage(device, y), x_layout.shape().clone()))
    }
}

impl BatchNorm {
    /// Returns mean and variance, `[c]`, as tensors.
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
