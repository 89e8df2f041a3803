//! Convolution with 3×3 kernels and stride 1 by Winograd's method, see [`super::tiles`].
//!
//! The tiles of images become n² matrices `[tiles, channels]`, one for each place of a tile, and
//! the convolution one matrix product per place. The gradients are the adjoint transforms and
//! products.

use rayon::prelude::*;

use super::conv::Conv;
use super::gemm::{Matrix, gemm, row_product};
use super::layout::{add_up, with_scratch};
use super::tiles::{Tile, Windows};
use super::transpose::transpose;

/// Number of channels from which on the transforms cost less than the products that they save.
const CHANNELS: usize = 64;

pub(crate) struct Winograd<'a> {
    conv: &'a Conv,
    tile: Tile,
    /// Number of rows and columns of tiles of an image.
    tiles: [usize; 2],
}

/// Lengths of an image, channels last, with the pixel that stands for everything outside.
#[derive(Clone, Copy)]
struct Lengths {
    image: usize,
    with_outside: usize,
}

impl<'a> Winograd<'a> {
    /// Returns the method for a convolution if it is faster than products with patches.
    pub(crate) fn new(conv: &'a Conv) -> Option<Self> {
        let geometry = &conv.geometry;
        let enough = |channels: usize| channels >= CHANNELS && channels.is_multiple_of(16);
        let is_3x3 = geometry.kernel == [3, 3] && geometry.stride == 1;
        if conv.pool.is_some() || !is_3x3 || !enough(geometry.image[0]) || !enough(geometry.n_out) {
            return None;
        }
        let tiles = |tile: Tile| geometry.out.map(|len| len.div_ceil(tile.side()));
        let n_products = |tile: Tile| tile.n_matrices() * tiles(tile).into_iter().product::<usize>();
        let tile = if n_products(Tile::Two) < n_products(Tile::Four) { Tile::Two } else { Tile::Four };
        Some(Self { conv, tile, tiles: tiles(tile) })
    }

    fn n_tiles(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Number of input and output channels.
    fn channels(&self) -> [usize; 2] {
        [self.conv.geometry.image[0], self.conv.geometry.n_out]
    }

    /// The lengths of an image and of its result.
    fn lengths(&self) -> [Lengths; 2] {
        let [ci, co] = self.channels();
        let lengths = |image, channels| Lengths { image, with_outside: image + channels };
        let geometry = &self.conv.geometry;
        [lengths(geometry.image_len(), ci), lengths(geometry.n_positions() * co, co)]
    }

    /// The windows of the image, and those of its result, of `len` tiles from `first` on.
    fn windows(&self, first: usize, len: usize) -> [Windows; 2] {
        let ([ci, co], geometry) = (self.channels(), &self.conv.geometry);
        let windows = |image, padding, channels| Windows {
            image,
            padding,
            channels,
            pitch: channels,
            step: self.tile.side(),
            per_row: self.tiles[1],
            first,
            len,
        };
        let [_, h, w] = geometry.image;
        [windows([h, w], geometry.padding, ci), windows(geometry.out, 0, co)]
    }

    /// Transforms weights `[co, ci, 3, 3]` to n² matrices `[ci, co]`.
    fn kernel_columns(&self, weight: &[f32], matrices: &mut [f32]) {
        /// Number of input channels per task.
        const PIECE: usize = 16;
        let [ci, co] = self.channels();
        let mut pieces = split(matrices, self.tile.n_matrices(), PIECE * co);
        pieces.par_iter_mut().enumerate().for_each(|(i, matrices)| {
            with_scratch(9 * PIECE * co, |kernels| {
                transpose(&weight[9 * PIECE * i..], 9 * ci, [co, 9 * PIECE], kernels, co);
                self.tile.lift_kernel(kernel_windows(PIECE, co), kernels, matrices);
            });
        });
    }

    /// Transforms weights `[co, ci, 3, 3]` to n² matrices `[co, ci]`.
    fn kernel_rows(&self, weight: &[f32], matrices: &mut [f32]) {
        let [ci, _] = self.channels();
        let mut pieces = split(matrices, self.tile.n_matrices(), ci);
        pieces.par_iter_mut().zip(weight.par_chunks_exact(9 * ci)).for_each(|(matrices, weight)| {
            with_scratch(9 * ci, |kernel| {
                transpose(weight, 9, [ci, 9], kernel, ci);
                self.tile.lift_kernel(kernel_windows(1, ci), kernel, matrices);
            });
        });
    }

    /// Transforms the gradient of n² matrices `[co, ci]` to that of weights `[co, ci, 3, 3]`.
    fn kernel_gradient(&self, matrices: &[f32]) -> Vec<f32> {
        let [ci, co] = self.channels();
        let mut weight = vec![0.0; co * ci * 9];
        weight.par_chunks_exact_mut(9 * ci).enumerate().for_each(|(i, weight)| {
            with_scratch(9 * ci, |kernel| {
                let windows = kernel_windows(1, ci);
                self.tile.lower_kernel_gradient(windows, &matrices[i * ci..], co * ci, kernel);
                transpose(kernel, ci, [9, ci], weight, 9);
            });
        });
        weight
    }

    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        /// Number of floats of the matrices of a group of tiles, which should fit into a
        /// second-level cache.
        const GROUP: usize = 1 << 18;
        /// Number of tiles from which on products are fast.
        const TILES: usize = 48;
        let ([ci, co], [image, out], n) = (self.channels(), self.lengths(), self.tile.n_matrices());
        let per_group = (GROUP / (n * (ci + co))).max(TILES);
        let batch = y.len() / out.image;
        let n_groups = batch.div_ceil((per_group / self.n_tiles()).max(1));
        if n_groups < 4 {
            return self.forward_by_channels(x, weight, bias, y);
        }
        let group = batch.div_ceil(n_groups);
        // A single image may have more tiles than a group should.
        let n_parts = if group > 1 { 1 } else { self.n_tiles().div_ceil(per_group) };
        let per_part = self.n_tiles().div_ceil(n_parts);
        with_scratch(n * ci * co, |kernels| {
            self.kernel_columns(weight, kernels);
            x.par_chunks(group * image.image).zip(y.par_chunks_mut(group * out.image)).for_each(|(x, y)| {
                self.forward_group(x, kernels, bias, y, per_part);
            });
        });
    }

    /// Writes the results of images, `per_part` tiles of each image at a time, on this thread.
    fn forward_group(&self, x: &[f32], kernels: &[f32], bias: &[f32], y: &mut [f32], per_part: usize) {
        let ([ci, co], [image, out], n) = (self.channels(), self.lengths(), self.tile.n_matrices());
        let n_images = y.len() / out.image;
        let len = n_images * (image.with_outside + out.with_outside + n * per_part * (ci + co));
        with_scratch(len, |scratch| {
            let (images, scratch) = scratch.split_at_mut(n_images * image.with_outside);
            let (outs, scratch) = scratch.split_at_mut(n_images * out.with_outside);
            let (inputs, outputs) = scratch.split_at_mut(n * n_images * per_part * ci);
            let copies = images.chunks_exact_mut(image.with_outside);
            for (planes, copy) in x.chunks_exact(image.image).zip(copies) {
                to_channels_last(planes, copy, ci);
            }
            for first in (0..self.n_tiles()).step_by(per_part) {
                let len = per_part.min(self.n_tiles() - first);
                let ([image_windows, out_windows], rows) = (self.windows(first, len), n_images * len);
                let inputs = &mut inputs[..n * rows * ci];
                let mut parts = split(inputs, n, len * ci);
                for (image, parts) in images.chunks_exact(image.with_outside).zip(&mut parts) {
                    self.tile.lift_input(image_windows, image, parts);
                }
                let products = outputs.chunks_exact_mut(rows * co).zip(inputs.chunks_exact(rows * ci));
                for ((output, input), kernel) in products.zip(kernels.chunks_exact(ci * co)) {
                    row_product(Matrix::new(input, rows, ci), Matrix::new(kernel, ci, co), output);
                }
                for (i, out) in outs.chunks_exact_mut(out.with_outside).enumerate() {
                    self.tile.lower_output(out_windows, &outputs[i * len * co..], rows * co, out);
                }
            }
            let results = outs.chunks_exact(out.with_outside).zip(y.chunks_exact_mut(out.image));
            results.for_each(|(result, y)| self.conv.pack(&result[..out.image], bias, y));
        });
    }

    /// The forward pass of a batch with few tiles. Kernels are transformed a few output channels at
    /// a time, so that they stay in a second-level cache until their products.
    fn forward_by_channels(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let ([ci, co], [image, out], n) = (self.channels(), self.lengths(), self.tile.n_matrices());
        let (tiles, rows) = (self.n_tiles(), y.len() / out.image * self.n_tiles());
        let block = if co.is_multiple_of(32) { 32 } else { 16 };
        let [image_windows, out_windows] = self.windows(0, tiles);
        with_scratch(n * rows * (ci + co), |scratch| {
            let (inputs, outputs) = scratch.split_at_mut(n * rows * ci);
            let mut parts = split(inputs, n, tiles * ci);
            x.par_chunks_exact(image.image).zip(&mut parts).for_each(|(planes, parts)| {
                with_scratch(image.with_outside, |copy| {
                    to_channels_last(planes, copy, ci);
                    self.tile.lift_input(image_windows, copy, parts);
                });
            });
            let blocks =
                outputs.par_chunks_exact_mut(n * rows * block).zip(weight.par_chunks_exact(block * 9 * ci));
            blocks.for_each(|(outputs, weight)| {
                with_scratch((9 + n) * ci * block, |scratch| {
                    let (kernels, matrices) = scratch.split_at_mut(9 * ci * block);
                    transpose(weight, 9 * ci, [block, 9 * ci], kernels, block);
                    let mut parts: Vec<_> = matrices.chunks_exact_mut(ci * block).collect();
                    self.tile.lift_kernel(kernel_windows(ci, block), kernels, &mut parts);
                    let products = outputs.chunks_exact_mut(rows * block).zip(inputs.chunks_exact(rows * ci));
                    for ((output, input), kernel) in products.zip(&parts) {
                        row_product(Matrix::new(input, rows, ci), Matrix::new(kernel, ci, block), output);
                    }
                });
            });
            y.par_chunks_exact_mut(out.image).enumerate().for_each(|(i, y)| {
                with_scratch(out.with_outside, |copy| {
                    for (j, outputs) in outputs.chunks_exact(n * rows * block).enumerate() {
                        let windows = Windows { channels: block, ..out_windows };
                        let outputs = &outputs[i * tiles * block..];
                        self.tile.lower_output(windows, outputs, rows * block, &mut copy[j * block..]);
                    }
                    self.conv.pack(&copy[..out.image], bias, y);
                });
            });
        });
    }

    /// Returns the gradients of x, weight and bias. Those of x and weight are empty unless
    /// `wanted`.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        weight: &[f32],
        [y, grad]: [&[f32]; 2],
        wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        /// Number of floats of the matrices of a group of images, and its minimum of tiles.
        const GROUP: usize = 1 << 20;
        const TILES: usize = 96;
        let ([ci, co], [image, out], n) = (self.channels(), self.lengths(), self.tile.n_matrices());
        let (batch, tiles) = (y.len() / out.image, self.n_tiles());
        // A few images for several threads.
        let group = ((GROUP / (n * (ci + co))).max(TILES) / tiles).max(4);
        let group = batch.div_ceil(batch.div_ceil(group).max(1));
        let mut grad_x = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        let mut grad_weight = Vec::new();
        let mut bias_sums = vec![0.0; batch * co];
        with_scratch(n * (group * tiles * (ci + co) + 2 * ci * co), |scratch| {
            let (inputs, scratch) = scratch.split_at_mut(n * group * tiles * ci);
            let (outputs, scratch) = scratch.split_at_mut(n * group * tiles * co);
            let (kernels, sums) = scratch.split_at_mut(n * ci * co);
            if wanted[0] {
                self.kernel_rows(weight, kernels);
            }
            let kernels = &*kernels;
            let windows = self.windows(0, tiles);
            for (i, x) in x.chunks(group * image.image).enumerate() {
                let rows = x.len() / image.image * tiles;
                let (inputs, outputs) = (&mut inputs[..n * rows * ci], &mut outputs[..n * rows * co]);

                let mut parts = split(outputs, n, tiles * co);
                let values = y.par_chunks_exact(out.image).zip(grad.par_chunks_exact(out.image));
                let values = values.zip(bias_sums.par_chunks_exact_mut(co)).skip(i * group);
                values.zip(&mut parts).for_each(|(((y, grad), bias_sums), parts)| {
                    with_scratch(out.with_outside, |copy| {
                        let (copy_of_image, outside) = copy.split_at_mut(out.image);
                        self.conv.unpack(y, grad, copy_of_image, bias_sums);
                        outside.fill(0.0);
                        self.tile.lift_output_gradient(windows[1], copy, parts);
                    });
                });
                if wanted[1] {
                    let mut parts = split(inputs, n, tiles * ci);
                    x.par_chunks_exact(image.image).zip(&mut parts).for_each(|(planes, parts)| {
                        with_scratch(image.with_outside, |copy| {
                            to_channels_last(planes, copy, ci);
                            self.tile.lift_input(windows[0], copy, parts);
                        });
                    });
                    let products =
                        outputs.par_chunks_exact(rows * co).zip(inputs.par_chunks_exact(rows * ci));
                    products.zip(sums.par_chunks_exact_mut(co * ci)).for_each(|((output, input), sum)| {
                        let output = Matrix::new(output, rows, co).transposed();
                        gemm(output, Matrix::new(input, rows, ci), sum, i > 0);
                    });
                }
                if wanted[0] {
                    let products =
                        inputs.par_chunks_exact_mut(rows * ci).zip(outputs.par_chunks_exact(rows * co));
                    products.zip(kernels.par_chunks_exact(co * ci)).for_each(|((input, output), kernel)| {
                        gemm(Matrix::new(output, rows, co), Matrix::new(kernel, co, ci), input, false);
                    });
                    let images = grad_x.par_chunks_exact_mut(image.image).skip(i * group).take(rows / tiles);
                    images.enumerate().for_each(|(i, grad_x)| {
                        with_scratch(image.with_outside, |copy| {
                            copy.fill(0.0);
                            let inputs = &inputs[i * tiles * ci..];
                            self.tile.add_input_gradient(windows[0], inputs, rows * ci, copy);
                            let n = image.image / ci;
                            transpose(copy, ci, [n, ci], grad_x, n);
                        });
                    });
                }
            }
            if wanted[1] {
                grad_weight = self.kernel_gradient(sums);
            }
        });
        [grad_x, grad_weight, add_up(&bias_sums, co)]
    }
}

/// The windows of n kernels, channels last, one below the other.
fn kernel_windows(n: usize, channels: usize) -> Windows {
    Windows {
        image: [3 * n, 3],
        padding: 0,
        step: 3,
        per_row: 1,
        first: 0,
        len: n,
        channels,
        pitch: channels,
    }
}

/// Copies an image `[c, h, w]`, and adds the pixel that stands for everything outside.
fn to_channels_last(planes: &[f32], copy: &mut [f32], channels: usize) {
    let (n, (image, outside)) = (planes.len() / channels, copy.split_at_mut(planes.len()));
    transpose(planes, n, [channels, n], image, channels);
    outside.fill(0.0);
}

/// Splits n matrices into pieces of `len` floats. Returns the parts of all matrices per piece.
fn split(matrices: &mut [f32], n: usize, len: usize) -> Vec<Vec<&mut [f32]>> {
    let matrix_len = matrices.len() / n;
    let mut pieces: Vec<Vec<_>> = (0..matrix_len / len).map(|_| Vec::with_capacity(n)).collect();
    for matrix in matrices.chunks_exact_mut(matrix_len) {
        pieces.iter_mut().zip(matrix.chunks_exact_mut(len)).for_each(|(piece, part)| piece.push(part));
    }
    pieces
}
