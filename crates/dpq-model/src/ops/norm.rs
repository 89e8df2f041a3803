//! Batch normalisation with a fused ReLU, and its inference form.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::layout::{chunk_len, relu, tensor_values, values};

/// Mean and variance of every channel.
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
}

/// Batch normalisation: (x, gamma, beta), x being [b, c, h, w] or [b, c].
pub(crate) struct BatchNorm {
    pub(crate) eps: f64,
    pub(crate) relu: bool,
    /// Filled by the forward pass.
    pub(crate) moments: Arc<OnceLock<Moments>>,
}

/// Sums two quantities by channel over a batch of images [c, plane]: `f(image, channel, place)` gives them for the
/// plane that starts at `place` in the batch. Pieces of the batch are added up in order.
fn channel_sums(
    [batch, channels, plane]: [usize; 3],
    f: impl Fn(usize, usize) -> [f64; 2] + Sync,
) -> Vec<[f64; 2]> {
    let chunk = chunk_len(batch, 1);
    let mut partial = vec![[0.0; 2]; batch.div_ceil(chunk) * channels];
    partial.par_chunks_exact_mut(channels).enumerate().for_each(|(i, sums)| {
        for image in i * chunk..((i + 1) * chunk).min(batch) {
            for (c, sum) in sums.iter_mut().enumerate() {
                let [a, b] = f(c, (image * channels + c) * plane);
                *sum = [sum[0] + a, sum[1] + b];
            }
        }
    });
    let mut sums = partial[..channels].to_vec();
    for partial in partial[channels..].chunks_exact(channels) {
        sums.iter_mut().zip(partial).for_each(|(sum, part)| *sum = [sum[0] + part[0], sum[1] + part[1]]);
    }
    sums
}

/// Sums of two quantities over a plane's elements: eight running sums each in f32, so that they fit vector registers.
#[inline(always)]
fn plane_sums<const N: usize>(planes: [&[f32]; N], f: impl Fn([f32; N]) -> [f32; 2]) -> [f64; 2] {
    const LANES: usize = 8;
    let (len, mut lanes) = (planes[0].len(), [[0.0f32; LANES]; 2]);
    let n_blocked = len - len % LANES;
    for start in (0..n_blocked).step_by(LANES) {
        let blocks: [&[f32]; N] = std::array::from_fn(|i| &planes[i][start..][..LANES]);
        for lane in 0..LANES {
            let [a, b] = f(std::array::from_fn(|i| blocks[i][lane]));
            lanes[0][lane] += a;
            lanes[1][lane] += b;
        }
    }
    let mut sums = lanes.map(|lanes| lanes.iter().map(|&sum| f64::from(sum)).sum::<f64>());
    (n_blocked..len).for_each(|j| {
        let [a, b] = f(std::array::from_fn(|i| planes[i][j]));
        sums = [sums[0] + f64::from(a), sums[1] + f64::from(b)];
    });
    sums
}

/// [b, c, h · w] of [b, c, h, w] or [b, c].
fn dims(dims: &[usize]) -> [usize; 3] {
    [dims[0], dims[1], dims[2..].iter().product()]
}

/// `f(value, channel)` of every element.
fn map_channels(
    x: &[f32],
    [_, channels, plane]: [usize; 3],
    f: impl Fn(f32, usize) -> f32 + Sync,
) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let images = x.par_chunks_exact(channels * plane).zip(y.par_chunks_exact_mut(channels * plane));
    images.for_each(|(x, y)| {
        for (c, (x, y)) in x.chunks_exact(plane).zip(y.chunks_exact_mut(plane)).enumerate() {
            x.iter().zip(y).for_each(|(&value, out)| *out = f(value, c));
        }
    });
    y
}

impl BatchNorm {
    fn scale(&self, gamma: &[f32], moments: &Moments) -> Vec<f32> {
        let scale = |(gamma, variance): (&f32, &f32)| {
            (f64::from(*gamma) / (f64::from(*variance) + self.eps).sqrt()) as f32
        };
        gamma.iter().zip(&moments.variance).map(scale).collect()
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gamma, beta) =
            (values(x, x_layout)?, values(gamma, gamma_layout)?, values(beta, beta_layout)?);
        let dims @ [batch, _, plane] = dims(x_layout.dims());
        // Deviations from the channel's first element: the sum of their squares does not cancel when the mean is large.
        let sums = channel_sums(dims, |c, place| {
            let pivot = x[c * plane];
            plane_sums([&x[place..][..plane]], |[value]| [value - pivot, (value - pivot) * (value - pivot)])
        });
        let n = (batch * plane) as f64;
        let mean = sums.iter().enumerate().map(|(c, [sum, _])| (f64::from(x[c * plane]) + sum / n) as f32);
        let variance = sums.iter().map(|[sum, squares]| ((squares - sum * sum / n) / n).max(0.0) as f32);
        let moments = Moments { mean: mean.collect(), variance: variance.collect() };
        let (scale, mean) = (self.scale(gamma, &moments), &moments.mean);
        let normalised = |value: f32, c: usize| (value - mean[c]) * scale[c] + beta[c];
        let y = if self.relu {
            map_channels(x, dims, |value, c| relu(normalised(value, c)))
        } else {
            map_channels(x, dims, normalised)
        };
        // `cpu_fwd` runs once for each `BatchNorm`.
        let _ = self.moments.set(moments);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dims @ [batch, channels, plane] = dims(x.dims());
        let moments = self.moments.get().expect("the forward pass ran before the backward pass");
        let (x_storage, x_layout) = x.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (grad_storage, grad_layout) = grad.storage_and_layout();
        let (gamma_storage, gamma_layout) = gamma.storage_and_layout();
        let (xs, ys) = (tensor_values(&x_storage, x_layout)?, tensor_values(&y_storage, y_layout)?);
        let grads = tensor_values(&grad_storage, grad_layout)?;
        let scale = self.scale(tensor_values(&gamma_storage, gamma_layout)?, moments);
        let mean = &moments.mean;

        // With g the gradient after the ReLU and d = x − mean: Σ g and Σ g · d.
        let masked = |grad: f32, y: f32| if self.relu && y <= 0.0 { 0.0 } else { grad };
        let sums = channel_sums(dims, |c, place| {
            let planes = [xs, ys, grads].map(|values| &values[place..][..plane]);
            plane_sums(planes, |[x, y, grad]| {
                let grad = masked(grad, y);
                [grad, grad * (x - mean[c])]
            })
        });
        let inverse = |c: usize| 1.0 / (f64::from(moments.variance[c]) + self.eps);
        let grad_gamma: Vec<f32> = (0..channels).map(|c| (sums[c][1] * inverse(c).sqrt()) as f32).collect();
        let grad_beta: Vec<f32> = sums.iter().map(|sum| sum[0] as f32).collect();
        let n = (batch * plane) as f64;
        let mean_grad: Vec<f32> = sums.iter().map(|sum| (sum[0] / n) as f32).collect();
        let slope: Vec<f32> = (0..channels).map(|c| (sums[c][1] / n * inverse(c)) as f32).collect();

        let grad_x = x.track_op().then(|| {
            let mut grad_x = vec![0.0; xs.len()];
            let image = channels * plane;
            let inputs = xs.par_chunks_exact(image).zip(ys.par_chunks_exact(image));
            let inputs = inputs.zip(grads.par_chunks_exact(image));
            inputs.zip(grad_x.par_chunks_exact_mut(image)).for_each(|(((xs, ys), grads), out)| {
                for c in 0..channels {
                    let place = c * plane..(c + 1) * plane;
                    let inputs = xs[place.clone()].iter().zip(&ys[place.clone()]).zip(&grads[place.clone()]);
                    for (((&x, &y), &grad), out) in inputs.zip(&mut out[place]) {
                        *out = scale[c] * (masked(grad, y) - mean_grad[c] - (x - mean[c]) * slope[c]);
                    }
                }
            });
            Tensor::from_vec(grad_x, x.shape(), &Device::Cpu)
        });
        let by_channel = |of: &Tensor, values: Vec<f32>| {
            of.track_op().then(|| Tensor::from_vec(values, channels, &Device::Cpu)).transpose()
        };
        Ok((grad_x.transpose()?, by_channel(gamma, grad_gamma)?, by_channel(beta, grad_beta)?))
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

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, scale, shift) =
            (values(x, x_layout)?, values(scale, scale_layout)?, values(shift, shift_layout)?);
        let dims = dims(x_layout.dims());
        let y = if self.relu {
            map_channels(x, dims, |value, c| relu(value * scale[c] + shift[c]))
        } else {
            map_channels(x, dims, |value, c| value * scale[c] + shift[c])
        };
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }
}
