//! Convolution, fused with bias, max pooling and ReLU.
//!
//! A few images at a time are unrolled into patches, which one matrix product multiplies with the
//! weights. Scratch memory is channels last.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, Shape};
use rayon::prelude::*;

use super::gemm::{Matrix, gemm};
use super::layout::{add_up, chunk_len, relu, relu_gradient, transpose, transpose_map, with_scratch};
use super::op3::Op3;
use super::patches::Geometry;
use super::pool::Windows;

/// The operation on (x, weight, bias).
pub(crate) struct Conv {
    pub(crate) geometry: Geometry,
    /// Max pooling of the result of the convolution.
    pub(crate) pool: Option<Windows>,
    pub(crate) relu: bool,
    /// The tap of the maximum in each window, per piece of the batch: images of `[oh, ow, co]`. The
    /// forward pass sets it for the backward pass.
    pub(crate) taps: OnceLock<Vec<Vec<u8>>>,
    /// The same on CUDA, in one array.
    #[cfg(feature = "cuda")]
    pub(crate) cuda_taps: OnceLock<CudaSlice<u8>>,
    #[cfg(feature = "cuda")]
    pub(crate) has_bias: bool,
}

/// Scratch memory of a thread for one group of images.
struct Scratch<'a> {
    /// One image, channels last, with its padding.
    padded: &'a mut [f32],
    /// `[images · positions, K]`.
    patches: &'a mut [f32],
    /// The product of patches and weights, or its gradient: `[images · positions, co]`.
    product: &'a mut [f32],
    /// The final result of one image, or its gradient, channels last.
    result: &'a mut [f32],
}

impl Conv {
    /// Height and width of the final result.
    fn out(&self) -> [usize; 2] {
        self.pool.map_or(self.geometry.out, |pool| pool.out())
    }

    /// Length of the final result of an image.
    fn out_len(&self) -> usize {
        self.out()[0] * self.out()[1] * self.geometry.n_out
    }

    fn with_scratch<T>(&self, f: impl FnOnce(Scratch) -> T) -> T {
        let geometry = &self.geometry;
        let n_rows = geometry.group() * geometry.n_positions();
        let (n_padded, n_patches) = (geometry.padded_len(), n_rows * geometry.patch_len());
        let n_product = n_rows * geometry.n_out;
        with_scratch(n_padded + n_patches + n_product + self.out_len(), |scratch| {
            let (padded, scratch) = scratch.split_at_mut(n_padded);
            let (patches, scratch) = scratch.split_at_mut(n_patches);
            let (product, result) = scratch.split_at_mut(n_product);
            f(Scratch { padded, patches, product, result })
        })
    }

    fn unroll(&self, x: &[f32], scratch: &mut Scratch) {
        let patches_len = self.geometry.n_positions() * self.geometry.patch_len();
        let images = x.chunks_exact(self.geometry.image_len());
        for (image, patches) in images.zip(scratch.patches.chunks_exact_mut(patches_len)) {
            self.geometry.pad(image, scratch.padded);
            self.geometry.unroll(scratch.padded, patches);
        }
    }

    /// Writes the results of a piece of the batch, and returns the taps of maxima. Weights are `[K,
    /// co]`.
    fn forward_piece(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) -> Vec<u8> {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (group, image_len, out_len) = (geometry.group(), geometry.image_len(), self.out_len());
        let mut taps = vec![0; if self.pool.is_some() { y.len() } else { 0 }];
        let mut image_taps = taps.chunks_exact_mut(out_len);
        self.with_scratch(|mut scratch| {
            for (x, y) in x.chunks(group * image_len).zip(y.chunks_mut(group * out_len)) {
                self.unroll(x, &mut scratch);
                let patches = Matrix::new(scratch.patches, x.len() / image_len * positions, k);
                gemm(patches, Matrix::new(weight, k, co), scratch.product, false);

                let products = scratch.product.chunks_exact(positions * co);
                for (product, y) in products.zip(y.chunks_exact_mut(out_len)) {
                    let mut result = product;
                    if let (Some(pool), Some(taps)) = (&self.pool, image_taps.next()) {
                        pool.forward(product, scratch.result, taps);
                        result = scratch.result;
                    }
                    let (sources, n) = ([(result, co), (bias, 0)], out_len / co);
                    if self.relu {
                        transpose_map(sources, [n, co], y, n, |[value, bias]| relu(value + bias));
                    } else {
                        transpose_map(sources, [n, co], y, n, |[value, bias]| value + bias);
                    }
                }
            }
        });
        taps
    }

    /// Writes the gradients of a piece of the batch, that of x only if `grad_x` is not empty.
    /// Weights are `[co, K]`.
    fn backward_piece(
        &self,
        x: &[f32],
        taps: &[u8],
        weight: &[f32],
        [y, grad]: [&[f32]; 2],
        sums: &mut [f32],
        grad_x: &mut [f32],
    ) {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (group, image_len, out_len) = (geometry.group(), geometry.image_len(), self.out_len());
        let (weight_sums, bias_sums) = sums.split_at_mut(k * co);
        let mut image_taps = taps.chunks_exact(out_len);
        let mut grad_images = grad_x.chunks_exact_mut(image_len);
        self.with_scratch(|mut scratch| {
            let groups = y.chunks(group * out_len).zip(grad.chunks(group * out_len));
            for (i, (x, (y, grad))) in x.chunks(group * image_len).zip(groups).enumerate() {
                let n_images = x.len() / image_len;
                self.unroll(x, &mut scratch);

                let images = y.chunks_exact(out_len).zip(grad.chunks_exact(out_len));
                for ((y, grad), product) in images.zip(scratch.product.chunks_exact_mut(positions * co)) {
                    let mut unpack = |out: &mut [f32]| {
                        let n = out_len / co;
                        if self.relu {
                            transpose_map([(grad, n), (y, n)], [co, n], out, co, relu_gradient);
                        } else {
                            transpose(grad, n, [co, n], out, co);
                        }
                        for grad in out.chunks_exact(co) {
                            bias_sums.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
                        }
                    };
                    if let (Some(pool), Some(taps)) = (&self.pool, image_taps.next()) {
                        unpack(scratch.result);
                        pool.backward(scratch.result, taps, product);
                    } else {
                        unpack(product);
                    }
                }

                let patches = Matrix::new(scratch.patches, n_images * positions, k);
                let product = Matrix::new(scratch.product, n_images * positions, co);
                gemm(patches.transposed(), product, weight_sums, i > 0);
                if grad_images.len() > 0 {
                    gemm(product, Matrix::new(weight, co, k), scratch.patches, false);
                    let patches = scratch.patches.chunks_exact(positions * k).take(n_images);
                    for (patches, grad_image) in patches.zip(&mut grad_images) {
                        scratch.padded.fill(0.0);
                        geometry.roll_up(patches, scratch.padded);
                        geometry.crop(scratch.padded, grad_image);
                    }
                }
            }
        });
    }
}

impl Op3 for Conv {
    const NAME: &'static str = "conv2d";

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], dims: &[usize]) -> (Vec<f32>, Shape) {
        let (image_len, out_len) = (self.geometry.image_len(), self.out_len());
        let weight = self.geometry.weight_columns(&self.geometry.weight_rows(weight));
        let mut y = vec![0.0; dims[0] * out_len];
        let chunk = chunk_len(dims[0], self.geometry.group());
        let pieces = x.par_chunks(chunk * image_len).zip(y.par_chunks_mut(chunk * out_len));
        let taps = pieces.map(|(x, y)| self.forward_piece(x, &weight, bias, y)).collect();
        // `forward` runs once for each `Conv`.
        let _ = self.taps.set(taps);
        let [h, w] = self.out();
        (y, (dims[0], self.geometry.n_out, h, w).into())
    }

    fn backward(
        &self,
        [x, weight, _, y, grad]: [&[f32]; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Result<[Vec<f32>; 3]> {
        let (co, k) = (self.geometry.n_out, self.geometry.patch_len());
        let (image_len, out_len) = (self.geometry.image_len(), self.out_len());
        let weight = self.geometry.weight_rows(weight);
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");

        let chunk = chunk_len(dims[0], self.geometry.group());
        let mut grad_x = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        let mut grad_x_pieces: Vec<&mut [f32]> = grad_x.chunks_mut(chunk * image_len).collect();
        grad_x_pieces.resize_with(taps.len(), Default::default);
        // Each piece of the batch has its own sums: of the weight `[K, co]`, then of the bias
        // `[co]`.
        let mut sums = vec![0.0; taps.len() * (k + 1) * co];
        let inputs = x.par_chunks(chunk * image_len).zip(taps);
        let inputs = inputs.zip(y.par_chunks(chunk * out_len).zip(grad.par_chunks(chunk * out_len)));
        let outputs = sums.par_chunks_exact_mut((k + 1) * co).zip(grad_x_pieces);
        inputs.zip(outputs).for_each(|(((x, taps), (y, grad)), (sums, grad_x))| {
            self.backward_piece(x, taps, &weight, [y, grad], sums, grad_x);
        });
        let sums = add_up(&sums, (k + 1) * co);
        Ok([grad_x, self.geometry.weight_from_columns(&sums[..k * co]), sums[k * co..].to_vec()])
    }
}
