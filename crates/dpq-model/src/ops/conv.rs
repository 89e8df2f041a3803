//! Convolution, fused with bias, max pooling and ReLU.
//!
//! A few images at a time are unrolled into patches, which one matrix product multiplies with the
//! weights. Scratch memory is channels last.

use std::ops::Range;
use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use rayon::prelude::*;

use super::gemm::{Matrix, gemm, row_product};
use super::layout::{add_up, chunk_len, relu, relu_gradient, with_scratch};
use super::patches::Geometry;
use super::pool::Windows;
use super::transpose::transpose;

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
    /// The gradient of such an image.
    rolled: &'a mut [f32],
    /// `[images · positions, K]`.
    patches: &'a mut [f32],
    /// The product of patches and weights, or its gradient: `[images · positions, co]`.
    product: &'a mut [f32],
    /// The final result of one image, or its gradient, channels last.
    result: &'a mut [f32],
}

impl Conv {
    /// Height and width of the final result.
    pub(crate) fn out(&self) -> [usize; 2] {
        self.pool.map_or(self.geometry.out, |pool| pool.out())
    }

    /// Length of the final result of an image.
    pub(crate) fn out_len(&self) -> usize {
        self.out()[0] * self.out()[1] * self.geometry.n_out
    }

    fn with_scratch<T>(&self, f: impl FnOnce(Scratch) -> T) -> T {
        let geometry = &self.geometry;
        let n_rows = geometry.group() * geometry.n_positions();
        let n_unrolled = geometry.group() * geometry.band() * geometry.out[1];
        let (n_padded, n_patches) = (geometry.padded_len(), n_unrolled * geometry.patch_len());
        let n_product = n_rows * geometry.n_out;
        with_scratch(2 * n_padded + n_patches + n_product + self.out_len(), |scratch| {
            let (padded, scratch) = scratch.split_at_mut(n_padded);
            let (rolled, scratch) = scratch.split_at_mut(n_padded);
            let (patches, scratch) = scratch.split_at_mut(n_patches);
            let (product, result) = scratch.split_at_mut(n_product);
            f(Scratch { padded, rolled, patches, product, result })
        })
    }

    /// Writes the patches of a range of rows of the results of images, image by image. There are
    /// several images only if the range is all rows. Returns the number of patches.
    fn unroll(&self, x: &[f32], rows: Range<usize>, scratch: &mut Scratch) -> usize {
        let n_patches = rows.len() * self.geometry.out[1];
        let images = x.chunks_exact(self.geometry.image_len());
        let n_images = images.len();
        for (image, patches) in
            images.zip(scratch.patches.chunks_exact_mut(n_patches * self.geometry.patch_len()))
        {
            if rows.start == 0 {
                self.geometry.pad(image, scratch.padded);
            }
            self.geometry.unroll(rows.clone(), scratch.padded, patches);
        }
        n_images * n_patches
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
                for rows in geometry.bands() {
                    let n_rows = self.unroll(x, rows.clone(), &mut scratch);
                    let patches = Matrix::new(scratch.patches, n_rows, k);
                    let product = &mut scratch.product[rows.start * geometry.out[1] * co..];
                    row_product(patches, Matrix::new(weight, k, co), product);
                }

                let products = scratch.product.chunks_exact(positions * co);
                for (product, y) in products.zip(y.chunks_exact_mut(out_len)) {
                    let mut result = product;
                    if let (Some(pool), Some(taps)) = (&self.pool, image_taps.next()) {
                        pool.forward(product, scratch.result, taps);
                        result = scratch.result;
                    }
                    self.pack(result, bias, y);
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
        self.with_scratch(|mut scratch| {
            let groups = y.chunks(group * out_len).zip(grad.chunks(group * out_len));
            for (i, (x, (y, grad))) in x.chunks(group * image_len).zip(groups).enumerate() {
                let n_images = x.len() / image_len;
                let images = y.chunks_exact(out_len).zip(grad.chunks_exact(out_len));
                for ((y, grad), product) in images.zip(scratch.product.chunks_exact_mut(positions * co)) {
                    if let (Some(pool), Some(taps)) = (&self.pool, image_taps.next()) {
                        self.unpack(y, grad, scratch.result, bias_sums);
                        pool.backward(scratch.result, taps, product);
                    } else {
                        self.unpack(y, grad, product, bias_sums);
                    }
                }

                for rows in geometry.bands() {
                    let n_rows = self.unroll(x, rows.clone(), &mut scratch);
                    let product = &scratch.product[rows.start * geometry.out[1] * co..];
                    let product = Matrix::new(product, n_rows, co);
                    let patches = Matrix::new(scratch.patches, n_rows, k);
                    gemm(patches.transposed(), product, weight_sums, i > 0 || rows.start > 0);
                    if grad_x.is_empty() {
                        continue;
                    }
                    gemm(product, Matrix::new(weight, co, k), scratch.patches, false);
                    let patches = scratch.patches.chunks_exact(n_rows / n_images * k);
                    for (patches, grad_image) in patches
                        .zip(grad_x[i * group * image_len..].chunks_exact_mut(image_len).take(n_images))
                    {
                        if rows.start == 0 {
                            scratch.rolled.fill(0.0);
                        }
                        geometry.roll_up(rows.clone(), patches, scratch.rolled);
                        if rows.end == geometry.out[0] {
                            geometry.crop(scratch.rolled, grad_image);
                        }
                    }
                }
            }
        });
    }

    /// Adds the bias to the result of an image, channels last, applies the ReLU, and writes it.
    pub(crate) fn pack(&self, result: &[f32], bias: &[f32], y: &mut [f32]) {
        let (co, n) = (bias.len(), y.len() / bias.len());
        transpose(result, co, [n, co], y, n);
        for (y, bias) in y.chunks_exact_mut(n).zip(bias) {
            if self.relu {
                y.iter_mut().for_each(|y| *y = relu(*y + bias));
            } else {
                y.iter_mut().for_each(|y| *y += bias);
            }
        }
    }

    /// Writes the gradient of an image before the ReLU, channels last, and adds it to the gradient
    /// of the bias.
    pub(crate) fn unpack(&self, y: &[f32], grad: &[f32], out: &mut [f32], bias_sums: &mut [f32]) {
        let (co, n) = (self.geometry.n_out, y.len() / self.geometry.n_out);
        if self.relu {
            with_scratch(y.len(), |before| {
                let values = grad.iter().zip(y).map(|(&grad, &y)| relu_gradient([grad, y]));
                before.iter_mut().zip(values).for_each(|(before, value)| *before = value);
                transpose(before, n, [co, n], out, co);
            });
        } else {
            transpose(grad, n, [co, n], out, co);
        }
        for grad in out.chunks_exact(co) {
            bias_sums.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
        }
    }
}

impl Conv {
    /// Writes the result, piece by piece of the batch.
    pub(crate) fn forward_by_pieces(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let (image_len, out_len) = (self.geometry.image_len(), self.out_len());
        let chunk = chunk_len(y.len() / out_len, self.geometry.group());
        let taps = with_scratch(2 * weight.len(), |scratch| {
            let (rows, columns) = scratch.split_at_mut(weight.len());
            self.geometry.weight_rows(weight, rows);
            self.geometry.weight_columns(rows, columns);
            let pieces = x.par_chunks(chunk * image_len).zip(y.par_chunks_mut(chunk * out_len));
            pieces.map(|(x, y)| self.forward_piece(x, columns, bias, y)).collect()
        });
        // The forward pass runs once for each `Conv`.
        let _ = self.taps.set(taps);
    }

    /// Returns the gradients of x (empty unless `with_x` is set), weight and bias.
    pub(crate) fn gradients_by_pieces(
        &self,
        x: &[f32],
        weight: &[f32],
        [y, grad]: [&[f32]; 2],
        with_x: bool,
    ) -> [Vec<f32>; 3] {
        let (co, k) = (self.geometry.n_out, self.geometry.patch_len());
        let (image_len, out_len) = (self.geometry.image_len(), self.out_len());
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");

        let chunk = chunk_len(y.len() / out_len, self.geometry.group());
        let mut grad_x = vec![0.0; if with_x { x.len() } else { 0 }];
        let mut grad_x_pieces: Vec<&mut [f32]> = grad_x.chunks_mut(chunk * image_len).collect();
        grad_x_pieces.resize_with(taps.len(), Default::default);
        // Each piece of the batch has its own sums: of the weight `[K, co]`, then of the bias
        // `[co]`.
        let mut sums = vec![0.0; taps.len() * (k + 1) * co];
        let inputs = x.par_chunks(chunk * image_len).zip(taps);
        let inputs = inputs.zip(y.par_chunks(chunk * out_len).zip(grad.par_chunks(chunk * out_len)));
        let outputs = sums.par_chunks_exact_mut((k + 1) * co).zip(grad_x_pieces);
        with_scratch(weight.len(), |rows| {
            self.geometry.weight_rows(weight, rows);
            let rows = &*rows;
            inputs.zip(outputs).for_each(|(((x, taps), (y, grad)), (sums, grad_x))| {
                self.backward_piece(x, taps, rows, [y, grad], sums, grad_x);
            });
        });
        let sums = add_up(&sums, (k + 1) * co);
        [grad_x, self.geometry.weight_from_columns(&sums[..k * co]), sums[k * co..].to_vec()]
    }
}
