//! Batch normalisation with a fused ReLU, and its inference form.

#![expect(unsafe_code, reason = "kernels take pointers")]

use std::sync::OnceLock;

use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Result, Tensor};

use super::super::norm::{BatchNorm, ScaleShift};
use super::op3::CudaOp3;
use super::{Array, Gradients, Output, View, grid, ints, launch, tensor, threads, uninitialised};

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
    y: &mut Array,
    x: &View,
    centre: Option<&View>,
    [scale, shift]: [&View; 2],
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
    let config = threads(x.len());
    // SAFETY: the assertion checks the lengths that the kernel relies on.
    unsafe {
        launch!(
            device, "scale_shift", config;
            y, x, centre, scale, shift, &has_centre, &channels, &plane, &n, &relu
        );
    }
    Ok(())
}

impl CudaOp3 for BatchNorm {
    fn cuda_forward(&self, device: &CudaDevice, [x, gamma, beta]: [&View; 3], dims: &[usize]) -> Output {
        let [batch, channels, plane, n] = sizes(dims)?;
        let c = channels as usize;
        let config = grid(c, 1, BLOCK);
        // SAFETY: `x` holds `batch` images of `channels` planes, `gamma` an element per channel and
        // `moments` three. The kernel writes all of `moments`, and `scale_shift` all of `y`.
        let (moments, mut y) = unsafe {
            let [mut moments, y] = uninitialised(device, [3 * c, x.len()])?;
            launch!(device, "moments", config; &mut moments, x, gamma, &batch, &plane, &self.eps);
            (moments, y)
        };
        let (mean, scale) = (moments.slice(..c), moments.slice(2 * c..));
        scale_shift(device, &mut y, x, Some(&mean), [&scale, beta], [channels, plane, n], self.relu)?;
        // `forward` runs once for each `BatchNorm`.
        let _ = self.cuda_moments.set(moments);
        Ok((y, dims.into()))
    }

    fn cuda_backward(
        &self,
        device: &CudaDevice,
        [x, _, _, y, grad]: [&View; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Gradients {
        let moments = self.cuda_moments.get().expect("the forward pass ran before the backward pass");
        let ([batch, channels, plane, n], relu) = (sizes(dims)?, i32::from(self.relu));
        let c = channels as usize;
        let config = grid(c, 1, BLOCK);
        // SAFETY: `x`, `y` and `grad` hold `batch` images of `channels` planes, `moments` three
        // elements per channel and `sums` four, all of which the kernel writes.
        let sums = unsafe {
            let [mut sums] = uninitialised(device, [4 * c])?;
            launch!(
                device, "batch_norm_sums", config;
                &mut sums, x, y, grad, moments, &batch, &plane, &self.eps, &relu
            );
            sums
        };
        let mut grads = [None, None, None];
        if wanted[0] {
            let config = threads(x.len());
            // SAFETY: as above. The kernel writes all of `grad_x`.
            grads[0] = Some(unsafe {
                let [mut grad_x] = uninitialised(device, [x.len()])?;
                launch!(
                    device, "batch_norm_backward", config;
                    &mut grad_x, x, y, grad, moments, &sums, &channels, &plane, &n, &relu
                );
                grad_x
            });
        }
        for row in 0..2 {
            if wanted[1 + row] {
                grads[1 + row] =
                    Some(device.cuda_stream().clone_dtod(&sums.slice(row * c..(row + 1) * c)).w()?);
            }
        }
        Ok(grads)
    }
}

impl CudaOp3 for ScaleShift {
    fn cuda_forward(&self, device: &CudaDevice, [x, scale, shift]: [&View; 3], dims: &[usize]) -> Output {
        let [_, channels, plane, n] = sizes(dims)?;
        // SAFETY: `scale_shift` writes all of it.
        let [mut y] = unsafe { uninitialised(device, [x.len()])? };
        scale_shift(device, &mut y, x, None, [scale, shift], [channels, plane, n], self.relu)?;
        Ok((y, dims.into()))
    }
}

/// Returns mean and variance, `[c]`, as tensors.
pub(crate) fn mean_and_variance(moments: &OnceLock<Array>, like: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = like.device().as_cuda_device()?;
    let moments = moments.get().expect("the forward pass fills them");
    let moments = tensor(device, moments.clone(), (3, like.elem_count()));
    Ok((moments.get(0)?, moments.get(1)?))
}
