//! The gradients of a convolution with many channels.
//!
//! All images of a group are unrolled at once, and the matrix products of the group are cut into
//! pieces. Then sums over the batch need one array of the size of the weights, not one per piece of
//! the batch.

use rayon::prelude::*;

use super::conv::Conv;
use super::gemm::{Matrix, par_gemm, par_row_product};
use super::layout::{add_up, with_scratch};

/// Number of input channels from which on this is faster.
const CHANNELS: usize = 64;

impl Conv {
    /// Says whether [`Conv::wide_gradients`] is the faster way.
    pub(crate) fn is_wide(&self) -> bool {
        self.pool.is_none() && self.geometry.image[0] >= CHANNELS
    }

    /// Says whether [`Conv::wide_forward`] is the faster way: where a piece of the batch has few
    /// rows.
    pub(crate) fn is_wide_forward(&self, batch: usize) -> bool {
        self.is_wide() && batch * self.geometry.n_positions() < 4096
    }

    /// Number of images per group: enough for two threads, and for products of many rows.
    fn wide_group(&self) -> usize {
        512usize.div_ceil(self.geometry.n_positions()).max(4)
    }

    /// Writes the patches of images.
    fn unroll_all(&self, x: &[f32], patches: &mut [f32]) {
        let geometry = &self.geometry;
        let images = x.par_chunks_exact(geometry.image_len());
        let patches = patches.par_chunks_exact_mut(geometry.n_positions() * geometry.patch_len());
        images.zip(patches).for_each(|(image, patches)| {
            with_scratch(geometry.padded_len(), |padded| {
                geometry.pad(image, padded);
                geometry.unroll(0..geometry.out[0], padded, patches);
            });
        });
    }

    pub(crate) fn wide_forward(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (image_len, out_len, group) = (geometry.image_len(), positions * co, self.wide_group());
        with_scratch(2 * weight.len() + group * positions * (k + co), |scratch| {
            let (rows, scratch) = scratch.split_at_mut(weight.len());
            let (columns, scratch) = scratch.split_at_mut(weight.len());
            let (patches, product) = scratch.split_at_mut(group * positions * k);
            geometry.weight_rows(weight, rows);
            geometry.weight_columns(rows, columns);
            for (x, y) in x.chunks(group * image_len).zip(y.chunks_mut(group * out_len)) {
                let n_rows = y.len() / co;
                let (patches, product) = (&mut patches[..n_rows * k], &mut product[..n_rows * co]);
                self.unroll_all(x, patches);
                let columns = Matrix::new(columns, k, co);
                par_row_product(Matrix::new(patches, n_rows, k), columns, product, piece(n_rows));
                let images = product.par_chunks_exact(out_len).zip(y.par_chunks_exact_mut(out_len));
                images.for_each(|(product, y)| self.pack(product, bias, y));
            }
        });
    }

    /// Returns the gradients of x, weight and bias, that of x only if `with_x` is set.
    pub(crate) fn wide_gradients(
        &self,
        x: &[f32],
        weight: &[f32],
        [y, grad]: [&[f32]; 2],
        with_x: bool,
    ) -> [Vec<f32>; 3] {
        let geometry = &self.geometry;
        let (co, k, positions) = (geometry.n_out, geometry.patch_len(), geometry.n_positions());
        let (image_len, out_len, group) = (geometry.image_len(), positions * co, self.wide_group());
        let mut grad_x = vec![0.0; if with_x { x.len() } else { 0 }];
        let mut bias_sums = vec![0.0; y.len() / positions];
        let grad_weight = with_scratch(2 * weight.len() + group * positions * (k + co), |scratch| {
            let (rows, scratch) = scratch.split_at_mut(weight.len());
            let (sums, scratch) = scratch.split_at_mut(weight.len());
            let (patches, product) = scratch.split_at_mut(group * positions * k);
            geometry.weight_rows(weight, rows);
            let rows = Matrix::new(rows, co, k);
            for (i, x) in x.chunks(group * image_len).enumerate() {
                let n_rows = x.len() / image_len * positions;
                let (patches, product) = (&mut patches[..n_rows * k], &mut product[..n_rows * co]);
                self.unroll_all(x, patches);
                let values = y.par_chunks_exact(out_len).zip(grad.par_chunks_exact(out_len));
                let values = values.zip(bias_sums.par_chunks_exact_mut(co)).skip(i * group);
                values.zip(product.par_chunks_exact_mut(out_len)).for_each(|(((y, grad), sums), out)| {
                    self.unpack(y, grad, out, sums);
                });
                let product = Matrix::new(product, n_rows, co);
                par_gemm(product.transposed(), Matrix::new(patches, n_rows, k), sums, i > 0, piece(co));
                if with_x {
                    par_gemm(product, rows, patches, false, piece(n_rows));
                    let images = grad_x.par_chunks_exact_mut(image_len).skip(i * group);
                    images.zip(patches.par_chunks_exact(positions * k)).for_each(|(grad_x, patches)| {
                        with_scratch(geometry.padded_len(), |padded| {
                            padded.fill(0.0);
                            geometry.roll_up(0..geometry.out[0], patches, padded);
                            geometry.crop(padded, grad_x);
                        });
                    });
                }
            }
            geometry.weight_from_rows(sums)
        });
        [grad_x, grad_weight, add_up(&bias_sums, co)]
    }
}

/// Returns the number of rows of a product per task: large products have eight tasks.
fn piece(n_rows: usize) -> usize {
    n_rows.div_ceil(8).max(64)
}
