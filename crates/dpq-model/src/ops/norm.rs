//! Batch normalisation with a fused ReLU, and its inference form.

use std::iter;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, Shape, bail};
use rayon::prelude::*;

use super::layout::{add_up, chunk_len, relu, relu_gradient};
use super::op3::Op3;

/// Mean and variance of each channel.
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
}

/// The operation on (x, gamma, beta), where x is `[b, c, h, w]` or `[b, c]`.
#[derive(Clone, Default)]
pub(crate) struct BatchNorm {
    pub(crate) eps: f64,
    pub(crate) relu: bool,
    /// The forward pass sets it.
    pub(crate) moments: Arc<OnceLock<Moments>>,
    /// Mean, variance and scale of each channel, `[3, c]`, in place of `moments` on CUDA.
    #[cfg(feature = "cuda")]
    pub(crate) cuda_moments: Arc<OnceLock<CudaSlice<f32>>>,
}

/// Sums two quantities by channel over batches `[b, c, plane]`. `f` computes them from an element
/// of each batch and the centre of its channel.
///
/// Images are first added element by element, which needs no sum across a vector register and works
/// for `[b, c]` too. Each piece of the batch has its own sums.
fn channel_sums<const N: usize>(
    batches: [&[f32]; N],
    [batch, channels, plane]: [usize; 3],
    centres: &[f32],
    f: impl Fn([f32; N], f32) -> [f32; 2] + Sync,
) -> Vec<[f64; 2]> {
    let (len, chunk) = (channels * plane, chunk_len(batch, 1));
    let centres: Vec<f32> = centres.iter().flat_map(|&centre| iter::repeat_n(centre, plane)).collect();
    let mut sums = vec![0.0; batch.div_ceil(chunk) * 2 * len];
    sums.par_chunks_exact_mut(2 * len).enumerate().for_each(|(i, sums)| {
        let (first, second) = sums.split_at_mut(len);
        let centres = &centres[..len];
        for image in i * chunk..((i + 1) * chunk).min(batch) {
            let images = batches.map(|values| &values[image * len..][..len]);
            for i in 0..len {
                let [a, b] = f(images.map(|image| image[i]), centres[i]);
                first[i] += a;
                second[i] += b;
            }
        }
    });
    let sums = add_up(&sums, 2 * len);
    let by_channel = |c: usize| {
        [&sums[..len], &sums[len..]]
            .map(|sums| sums[c * plane..][..plane].iter().map(|&sum| f64::from(sum)).sum())
    };
    (0..channels).map(by_channel).collect()
}

/// Returns `[b, c, h · w]` of `[b, c, h, w]` or `[b, c]`.
fn dims(dims: &[usize]) -> [usize; 3] {
    [dims[0], dims[1], dims[2..].iter().product()]
}

/// Applies `f(value, channel)` to every element.
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

    /// Returns the gradients of x (empty unless `with_x` is set), gamma and beta. Inputs are x, y
    /// and the gradient of y. `before_relu` maps (grad, y) to the gradient before the ReLU.
    fn gradients(
        &self,
        moments: &Moments,
        scale: &[f32],
        inputs: [&[f32]; 3],
        dims @ [batch, channels, plane]: [usize; 3],
        with_x: bool,
        before_relu: impl Fn([f32; 2]) -> f32 + Sync,
    ) -> [Vec<f32>; 3] {
        // With g the gradient before the ReLU and d = x − mean: Σ g and Σ g · d.
        let sums = channel_sums(inputs, dims, &moments.mean, |[x, y, grad], mean| {
            let grad = before_relu([grad, y]);
            [grad, grad * (x - mean)]
        });
        let inverse = |c: usize| 1.0 / (f64::from(moments.variance[c]) + self.eps);
        let grad_gamma = (0..channels).map(|c| (sums[c][1] * inverse(c).sqrt()) as f32).collect();
        let grad_beta = sums.iter().map(|sum| sum[0] as f32).collect();

        let n = (batch * plane) as f64;
        let mut grad_x = vec![0.0; if with_x { inputs[0].len() } else { 0 }];
        grad_x.par_chunks_exact_mut(channels * plane).enumerate().for_each(|(i, image)| {
            for (c, out) in image.chunks_exact_mut(plane).enumerate() {
                let place = (i * channels + c) * plane;
                let [xs, ys, grads] = inputs.map(|values| &values[place..][..plane]);
                let (mean, scale) = (moments.mean[c], scale[c]);
                let (mean_grad, slope) = ((sums[c][0] / n) as f32, (sums[c][1] / n * inverse(c)) as f32);
                for (((&x, &y), &grad), out) in xs.iter().zip(ys).zip(grads).zip(out) {
                    *out = scale * (before_relu([grad, y]) - mean_grad - (x - mean) * slope);
                }
            }
        });
        [grad_x, grad_gamma, grad_beta]
    }
}

impl Op3 for BatchNorm {
    const NAME: &'static str = "batch_norm";

    fn forward(&self, [x, gamma, beta]: [&[f32]; 3], shape: &[usize]) -> (Vec<f32>, Shape) {
        let dims @ [batch, channels, plane] = dims(shape);
        // Deviations from the first element of the channel, whose squares do not cancel if the mean
        // is large.
        let pivots: Vec<f32> = x.iter().step_by(plane).take(channels).copied().collect();
        let sums = channel_sums([x], dims, &pivots, |[x], pivot| [x - pivot, (x - pivot) * (x - pivot)]);
        let n = (batch * plane) as f64;
        let mean = sums.iter().zip(&pivots).map(|([sum, _], &pivot)| (f64::from(pivot) + sum / n) as f32);
        // `relu`, because rounding can make the variance of a constant channel negative. It keeps
        // NaN.
        let variance = sums.iter().map(|[sum, squares]| relu(((squares - sum * sum / n) / n) as f32));
        let moments = Moments { mean: mean.collect(), variance: variance.collect() };
        let (scale, mean) = (self.scale(gamma, &moments), &moments.mean);
        let normalised = |value: f32, c: usize| (value - mean[c]) * scale[c] + beta[c];
        let y = if self.relu {
            map_channels(x, dims, |value, c| relu(normalised(value, c)))
        } else {
            map_channels(x, dims, normalised)
        };
        // `forward` runs once for each `BatchNorm`.
        let _ = self.moments.set(moments);
        (y, shape.into())
    }

    fn backward(
        &self,
        [x, gamma, _, y, grad]: [&[f32]; 5],
        shape: &[usize],
        [with_x, ..]: [bool; 3],
    ) -> Result<[Vec<f32>; 3]> {
        let moments = self.moments.get().expect("the forward pass ran before the backward pass");
        let (scale, inputs, dims) = (self.scale(gamma, moments), [x, y, grad], dims(shape));
        Ok(if self.relu {
            self.gradients(moments, &scale, inputs, dims, with_x, relu_gradient)
        } else {
            self.gradients(moments, &scale, inputs, dims, with_x, |[grad, _]| grad)
        })
    }
}

/// The operation `relu(x · scale + shift)` by channel. Only x has a gradient.
pub(crate) struct ScaleShift {
    pub(crate) relu: bool,
}

impl Op3 for ScaleShift {
    const NAME: &'static str = "scale_shift";

    fn forward(&self, [x, scale, shift]: [&[f32]; 3], shape: &[usize]) -> (Vec<f32>, Shape) {
        let y = if self.relu {
            map_channels(x, dims(shape), |value, c| relu(value * scale[c] + shift[c]))
        } else {
            map_channels(x, dims(shape), |value, c| value * scale[c] + shift[c])
        };
        (y, shape.into())
    }

    fn backward(
        &self,
        [_, scale, _, y, grad]: [&[f32]; 5],
        shape: &[usize],
        wanted: [bool; 3],
    ) -> Result<[Vec<f32>; 3]> {
        if wanted[1] || wanted[2] {
            bail!("{} has no gradient of its scale and shift", Self::NAME);
        }
        let before_relu: Vec<f32> = match self.relu {
            true => grad.iter().zip(y).map(|(&grad, &y)| relu_gradient([grad, y])).collect(),
            false => grad.to_vec(),
        };
        Ok([map_channels(&before_relu, dims(shape), |grad, c| grad * scale[c]), Vec::new(), Vec::new()])
    }
}
