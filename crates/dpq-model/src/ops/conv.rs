//! Convolution, fused with bias, max pooling and ReLU.
//!
//! A few images at a time are unrolled into patches (one row for each output position) and multiplied with the weights
//! in one matrix product. Inside, everything is channels last; K counts a patch's elements in the order (kh, kw, ci).

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Matrix, gemm};
use super::layout::{chunk_len, tensor_values, transpose, values, with_scratch};
use super::pool::Windows;

/// A convolution of [b, ci, h, w] with [co, ci, kh, kw], as far as it is the same for every image.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) image: [usize; 3],
    pub(crate) n_out: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Geometry {
    fn padded(&self) -> [usize; 2] {
        [self.image[1] + 2 * self.padding, self.image[2] + 2 * self.padding]
    }

    /// Height and width of the result.
    pub(crate) fn out(&self) -> [usize; 2] {
        let [h, w] = self.padded();
        [(h - self.kernel[0]) / self.stride + 1, (w - self.kernel[1]) / self.stride + 1]
    }

    fn n_positions(&self) -> usize {
        self.out()[0] * self.out()[1]
    }

    fn image_len(&self) -> usize {
        self.image.iter().product()
    }

    fn padded_len(&self) -> usize {
        self.padded()[0] * self.padded()[1] * self.image[0]
    }

    fn patch_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.image[0]
    }

    /// Images that make one matrix product: enough for its inner loops to run at full speed.
    fn group(&self) -> usize {
        256usize.div_ceil(self.n_positions())
    }

    /// [ci, h, w] → [h + 2 · padding, w + 2 · padding, ci] with a border of zeros.
    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let ([ci, h, w], pad) = (self.image, self.padding);
        let row_len = (w + 2 * pad) * ci;
        padded.fill(0.0);
        for y in 0..h {
            let row = &mut padded[(y + pad) * row_len + pad * ci..];
            transpose(&image[y * w..], h * w, [ci, w], row, ci, |value, _, _| value);
        }
    }

    /// The inverse of [`Geometry::pad`], without the border.
    fn crop(&self, padded: &[f32], image: &mut [f32]) {
        let ([ci, h, w], pad) = (self.image, self.padding);
        let row_len = (w + 2 * pad) * ci;
        for y in 0..h {
            let row = &padded[(y + pad) * row_len + pad * ci..];
            transpose(row, ci, [w, ci], &mut image[y * w..], h * w, |value, _, _| value);
        }
    }

    /// Calls `f` with the places, in `patches` and in the padded image, of every run of kw · ci elements that a patch
    /// has in common with a row of the image.
    #[inline(always)]
    fn for_each_run(&self, mut f: impl FnMut(usize, usize)) {
        let (ci, run) = (self.image[0], self.kernel[1] * self.image[0]);
        let ([out_h, out_w], row_len) = (self.out(), self.padded()[1] * ci);
        for y in 0..out_h {
            for x in 0..out_w {
                let patch = (y * out_w + x) * self.patch_len();
                let corner = y * self.stride * row_len + x * self.stride * ci;
                for row in 0..self.kernel[0] {
                    f(patch + row * run, corner + row * row_len);
                }
            }
        }
    }

    /// The padded image's patches, one a row: [positions, K].
    fn unroll(&self, padded: &[f32], patches: &mut [f32]) {
        let run = self.kernel[1] * self.image[0];
        self.for_each_run(|to, from| patches[to..][..run].copy_from_slice(&padded[from..][..run]));
    }

    /// The gradient of [`Geometry::unroll`]: adds every patch to the padded image.
    fn roll_up(&self, patches: &[f32], padded: &mut [f32]) {
        let run = self.kernel[1] * self.image[0];
        self.for_each_run(|from, to| {
            let patch = &patches[from..][..run];
            padded[to..][..run].iter_mut().zip(patch).for_each(|(sum, value)| *sum += value);
        });
    }

    /// [co, ci, kh, kw] → [co, K].
    fn weight_rows(&self, weight: &[f32]) -> Vec<f32> {
        let (ci, taps) = (self.image[0], self.kernel[0] * self.kernel[1]);
        let mut rows = vec![0.0; weight.len()];
        for (row, weight) in rows.chunks_exact_mut(ci * taps).zip(weight.chunks_exact(ci * taps)) {
            transpose(weight, taps, [ci, taps], row, ci, |value, _, _| value);
        }
        rows
    }
}

/// The operation on tensors: (x, weight, bias).
pub(crate) struct Conv {
    pub(crate) geometry: Geometry,
    /// Max pooling of the convolution's result.
    pub(crate) pool: Option<Windows>,
    pub(crate) relu: bool,
    /// Which taps won in pooling, [b, oh, ow, co]; kept for the backward pass.
    pub(crate) taps: OnceLock<Vec<u8>>,
}

impl Conv {
    /// Positions of an image's final result.
    fn n_out_positions(&self) -> usize {
        self.pool.map_or(self.geometry.n_positions(), |pool| pool.out_height() * pool.out_width())
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (out_positions, pooled) = (self.n_out_positions(), self.pool.is_some());
        let (image_len, out_len, group) =
            (geometry.image_len(), self.n_out_positions() * co, geometry.group());
        let batch = x.len() / image_len;
        let rows = geometry.weight_rows(weight);
        let mut columns = vec![0.0; rows.len()];
        transpose(&rows, k, [co, k], &mut columns, co, |value, _, _| value);

        let mut y = vec![0.0; batch * out_len];
        let mut taps = vec![0; if pooled { y.len() } else { 0 }];
        let taps_len = if pooled { out_len } else { 0 };
        let chunk = chunk_len(batch, group);
        let images = x.par_chunks(chunk * image_len).zip(y.par_chunks_mut(chunk * out_len));
        // Without pooling there are no taps, but `zip` needs as many (empty) pieces.
        let mut tap_chunks: Vec<&mut [u8]> = Vec::new();
        let mut rest = &mut taps[..];
        for start in (0..batch).step_by(chunk) {
            let n = (batch - start).min(chunk) * taps_len;
            let (piece, others) = rest.split_at_mut(n);
            tap_chunks.push(piece);
            rest = others;
        }
        images.zip(tap_chunks).for_each(|((x, y), taps)| {
            let scratch_len = geometry.padded_len() + group * positions * (k + co) + out_len;
            with_scratch(scratch_len, |scratch| {
                let (padded, scratch) = scratch.split_at_mut(geometry.padded_len());
                let (patches, scratch) = scratch.split_at_mut(group * positions * k);
                let (sums, maxima) = scratch.split_at_mut(group * positions * co);
                for (i, (x, y)) in x.chunks(group * image_len).zip(y.chunks_mut(group * out_len)).enumerate()
                {
                    let n_images = x.len() / image_len;
                    for (x, patches) in x.chunks_exact(image_len).zip(patches.chunks_exact_mut(positions * k))
                    {
                        geometry.pad(x, padded);
                        geometry.unroll(padded, patches);
                    }
                    let patches = Matrix::new(patches, n_images * positions, k);
                    gemm(patches, Matrix::new(&columns, k, co), sums, false);
                    for (j, (sums, y)) in
                        sums.chunks_exact(positions * co).zip(y.chunks_exact_mut(out_len)).enumerate()
                    {
                        let mut result = sums;
                        if let Some(pool) = &self.pool {
                            pool.forward(sums, maxima, &mut taps[(i * group + j) * out_len..][..out_len]);
                            result = maxima;
                        }
                        let shape = [out_positions, co];
                        if self.relu {
                            let f = |value: f32, _, c: usize| relu(value + bias[c]);
                            transpose(result, co, shape, y, out_positions, f);
                        } else {
                            let f = |value: f32, _, c: usize| value + bias[c];
                            transpose(result, co, shape, y, out_positions, f);
                        }
                    }
                }
            });
        });
        // `forward` runs once for each `Conv`.
        let _ = self.taps.set(taps);
        y
    }

    /// Gradients of x (if asked for), weight and bias.
    fn backward(&self, x: &[f32], weight: &[f32], y: &[f32], grad: &[f32], with_x: bool) -> Gradients {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (out_positions, group) = (self.n_out_positions(), geometry.group());
        let (image_len, out_len) = (geometry.image_len(), out_positions * co);
        let batch = x.len() / image_len;
        let rows = geometry.weight_rows(weight);
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");

        let chunk = chunk_len(batch, group);
        let n_chunks = batch.div_ceil(chunk);
        let mut grad_x = vec![0.0; if with_x { x.len() } else { 0 }];
        let mut grad_x_chunks: Vec<&mut [f32]> = if with_x {
            grad_x.chunks_mut(chunk * image_len).collect()
        } else {
            (0..n_chunks).map(|_| &mut [][..]).collect()
        };
        // Each piece of the batch has its own sums: weight [co, K], then bias [co].
        let mut partial = vec![0.0; n_chunks * co * (k + 1)];
        let pieces = partial.par_chunks_mut(co * (k + 1)).zip(&mut grad_x_chunks).enumerate();
        pieces.for_each(|(i_chunk, (partial, grad_x))| {
            let (grad_rows, grad_bias) = partial.split_at_mut(co * k);
            let scratch_len = geometry.padded_len() + group * positions * (k + co) + out_len;
            with_scratch(scratch_len, |scratch| {
                let (padded, scratch) = scratch.split_at_mut(geometry.padded_len());
                let (patches, scratch) = scratch.split_at_mut(group * positions * k);
                let (grads, grad_out) = scratch.split_at_mut(group * positions * co);
                let end = ((i_chunk + 1) * chunk).min(batch);
                for start in (i_chunk * chunk..end).step_by(group) {
                    let n_images = group.min(end - start);
                    for j in 0..n_images {
                        let image = start + j;
                        geometry.pad(&x[image * image_len..][..image_len], padded);
                        geometry.unroll(padded, &mut patches[j * positions * k..][..positions * k]);

                        let grads = &mut grads[j * positions * co..][..positions * co];
                        let (grad, y) =
                            (&grad[image * out_len..][..out_len], &y[image * out_len..][..out_len]);
                        let target = if self.pool.is_some() { &mut *grad_out } else { &mut *grads };
                        let shape = [co, out_positions];
                        if self.relu {
                            let f = |grad: f32, c: usize, p: usize| {
                                if y[c * out_positions + p] > 0.0 { grad } else { 0.0 }
                            };
                            transpose(grad, out_positions, shape, target, co, f);
                        } else {
                            transpose(grad, out_positions, shape, target, co, |grad, _, _| grad);
                        }
                        for grad in target[..out_len].chunks_exact(co) {
                            grad_bias.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
                        }
                        if let Some(pool) = &self.pool {
                            grads.fill(0.0);
                            pool.backward(grad_out, &taps[image * out_len..][..out_len], grads);
                        }
                    }
                    let grads = Matrix::new(grads, n_images * positions, co);
                    let patches_matrix = Matrix::new(patches, n_images * positions, k);
                    gemm(grads.transposed(), patches_matrix, grad_rows, start != i_chunk * chunk);
                    if with_x {
                        gemm(grads, Matrix::new(&rows, co, k), patches, false);
                        for j in 0..n_images {
                            padded.fill(0.0);
                            geometry.roll_up(&patches[j * positions * k..][..positions * k], padded);
                            let image = start + j - i_chunk * chunk;
                            geometry.crop(padded, &mut grad_x[image * image_len..][..image_len]);
                        }
                    }
                }
            });
        });

        let sums = add_up(&partial, co * (k + 1));
        let taps = geometry.kernel[0] * geometry.kernel[1];
        let mut grad_weight = vec![0.0; co * k];
        for (to, from) in grad_weight.chunks_exact_mut(k).zip(sums.chunks_exact(k)) {
            transpose(from, geometry.image[0], [taps, geometry.image[0]], to, taps, |value, _, _| value);
        }
        Gradients { x: grad_x, weight: grad_weight, bias: sums[co * k..].to_vec() }
    }
}

struct Gradients {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Not `max`, which would turn a NaN into 0.
pub(crate) fn relu(value: f32) -> f32 {
    if value <= 0.0 { 0.0 } else { value }
}

/// The sum of consecutive vectors of length `len`, first to last.
pub(crate) fn add_up(partial: &[f32], len: usize) -> Vec<f32> {
    let mut sums = vec![0.0; len];
    for partial in partial.chunks_exact(len) {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    sums
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y =
            self.forward(values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let [h, w] = self.pool.map_or(self.geometry.out(), |pool| [pool.out_height(), pool.out_width()]);
        Ok((CpuStorage::F32(y), (x_layout.dims()[0], self.geometry.n_out, h, w).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let gradients = {
            let (x_storage, x_layout) = x.storage_and_layout();
            let (weight_storage, weight_layout) = weight.storage_and_layout();
            let (y_storage, y_layout) = y.storage_and_layout();
            let (grad_storage, grad_layout) = grad.storage_and_layout();
            self.backward(
                tensor_values(&x_storage, x_layout)?,
                tensor_values(&weight_storage, weight_layout)?,
                tensor_values(&y_storage, y_layout)?,
                tensor_values(&grad_storage, grad_layout)?,
                x.track_op(),
            )
        };
        let wanted = |of: &Tensor, values: Vec<f32>| {
            of.track_op().then(|| Tensor::from_vec(values, of.shape(), &Device::Cpu)).transpose()
        };
        Ok((wanted(x, gradients.x)?, wanted(weight, gradients.weight)?, wanted(bias, gradients.bias)?))
    }
}
