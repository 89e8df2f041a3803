//! The geometry of a convolution: images to patches and back, weights to matrices and back.
//!
//! Images in scratch are channels last with a border of zeros, `[h + 2 · padding, w + 2 · padding,
//! ci]`. A patch holds the K = kh · kw · ci elements under the kernel in the order (kh, kw, ci).
//! Patches are the rows of a matrix `[positions, K]`.
use std::ops::Range;

use rayon::prelude::*;

use super::transpose::transpose;

/// The geometry of a convolution of `[b, ci, h, w]` with `[co, ci, kh, kw]`, which is the same for
/// every image.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// `[ci, h, w]`.
    pub(crate) image: [usize; 3],
    pub(crate) n_out: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    /// Height and width of the result.
    pub(crate) out: [usize; 2],
}

impl Geometry {
    fn padded(&self) -> [usize; 2] {
        [self.image[1] + 2 * self.padding, self.image[2] + 2 * self.padding]
    }

    fn n_taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn n_positions(&self) -> usize {
        self.out[0] * self.out[1]
    }

    pub(crate) fn image_len(&self) -> usize {
        self.image.iter().product()
    }

    pub(crate) fn padded_len(&self) -> usize {
        self.padded()[0] * self.padded()[1] * self.image[0]
    }

    pub(crate) fn patch_len(&self) -> usize {
        self.n_taps() * self.image[0]
    }

    /// Number of images per matrix product: enough rows for full speed.
    pub(crate) fn group(&self) -> usize {
        256usize.div_ceil(self.n_positions())
    }

    /// Number of rows of the result per matrix product: all, or as many as let patches fit into a
    /// second-level cache.
    pub(crate) fn band(&self) -> usize {
        const LEN: usize = 1 << 18;
        let (height, row_len) = (self.out[0], self.out[1] * self.patch_len());
        if self.group() > 1 || height * row_len <= LEN { height } else { (LEN / 2).div_ceil(row_len) }
    }

    pub(crate) fn bands(&self) -> impl Iterator<Item = Range<usize>> {
        let (height, band) = (self.out[0], self.band());
        (0..height).step_by(band).map(move |start| start..(start + band).min(height))
    }

    /// Copies an image `[ci, h, w]` to scratch.
    pub(crate) fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let ([ci, h, w], pad) = (self.image, self.padding);
        if pad == 0 {
            return transpose(image, h * w, [ci, h * w], padded, ci);
        }
        let row_len = (w + 2 * pad) * ci;
        padded.fill(0.0);
        for y in 0..h {
            let row = &mut padded[(y + pad) * row_len + pad * ci..];
            if ci == 1 {
                row[..w].copy_from_slice(&image[y * w..][..w]);
            } else {
                transpose(&image[y * w..], h * w, [ci, w], row, ci);
            }
        }
    }

    /// The inverse of [`Geometry::pad`].
    pub(crate) fn crop(&self, padded: &[f32], image: &mut [f32]) {
        let ([ci, h, w], pad) = (self.image, self.padding);
        let row_len = (w + 2 * pad) * ci;
        for y in 0..h {
            let row = &padded[(y + pad) * row_len + pad * ci..];
            transpose(row, ci, [w, ci], &mut image[y * w..], h * w);
        }
    }

    /// Copies the patches of rows of the result of an image in scratch.
    pub(crate) fn unroll(&self, rows: Range<usize>, padded: &[f32], patches: &mut [f32]) {
        const BLOCK: usize = 8;
        let run = self.kernel[1] * self.image[0];
        // A call that copies a few floats costs more than the copy.
        if run == 3 {
            self.for_each_run(rows, |to, from| {
                let source: &[f32; 3] = padded[from..].first_chunk().expect("a run lies inside the image");
                *patches[to..].first_chunk_mut().expect("a run lies inside its patch") = *source;
            });
        } else if (BLOCK..=8 * BLOCK).contains(&run) {
            self.for_each_run(rows, |to, from| {
                let (source, patch) = (&padded[from..][..run], &mut patches[to..][..run]);
                // The last block overlaps.
                for at in (0..run).step_by(BLOCK) {
                    let at = at.min(run - BLOCK);
                    let block: &[f32; BLOCK] = source[at..].first_chunk().expect("a run has a block");
                    *patch[at..].first_chunk_mut().expect("a run has a block") = *block;
                }
            });
        } else {
            self.for_each_run(rows, |to, from| patches[to..][..run].copy_from_slice(&padded[from..][..run]));
        }
    }

    /// The gradient of [`Geometry::unroll`]: adds each patch to an image in scratch.
    pub(crate) fn roll_up(&self, rows: Range<usize>, patches: &[f32], padded: &mut [f32]) {
        let run = self.kernel[1] * self.image[0];
        self.for_each_run(rows, |from, to| {
            let patch = &patches[from..][..run];
            padded[to..][..run].iter_mut().zip(patch).for_each(|(sum, value)| *sum += value);
        });
    }

    /// Calls `f` for each run of kw · ci elements that a patch of some rows of the result shares
    /// with a row of the image, with its positions in the patches and in the image.
    #[inline(always)]
    fn for_each_run(&self, rows: Range<usize>, mut f: impl FnMut(usize, usize)) {
        let (ci, run) = (self.image[0], self.kernel[1] * self.image[0]);
        let row_len = self.padded()[1] * ci;
        for (i, y) in rows.enumerate() {
            for x in 0..self.out[1] {
                let patch = (i * self.out[1] + x) * self.patch_len();
                let corner = (y * row_len + x * ci) * self.stride;
                for row in 0..self.kernel[0] {
                    f(patch + row * run, corner + row * row_len);
                }
            }
        }
    }

    /// Converts `[co, ci, kh, kw]` to `[co, K]`.
    pub(crate) fn weight_rows(&self, weight: &[f32], rows: &mut [f32]) {
        let (ci, taps, len) = (self.image[0], self.n_taps(), self.patch_len());
        let rows = rows.par_chunks_exact_mut(len).zip(weight.par_chunks_exact(len));
        rows.for_each(|(row, weight)| transpose(weight, taps, [ci, taps], row, ci));
    }

    /// The inverse of [`Geometry::weight_rows`].
    pub(crate) fn weight_from_rows(&self, rows: &[f32]) -> Vec<f32> {
        let (ci, taps, len) = (self.image[0], self.n_taps(), self.patch_len());
        let mut weight = vec![0.0; rows.len()];
        let rows = rows.par_chunks_exact(len).zip(weight.par_chunks_exact_mut(len));
        rows.for_each(|(row, weight)| transpose(row, ci, [taps, ci], weight, taps));
        weight
    }

    /// Converts `[co, K]` to `[K, co]`.
    pub(crate) fn weight_columns(&self, rows: &[f32], columns: &mut [f32]) {
        const PIECE: usize = 64;
        let (co, len) = (self.n_out, self.patch_len());
        columns.par_chunks_mut(PIECE * co).enumerate().for_each(|(i, columns)| {
            transpose(&rows[i * PIECE..], len, [co, columns.len() / co], columns, co);
        });
    }

    /// Converts `[K, co]` to `[co, ci, kh, kw]`.
    pub(crate) fn weight_from_columns(&self, columns: &[f32]) -> Vec<f32> {
        let (co, len) = (self.n_out, self.patch_len());
        let mut rows = vec![0.0; columns.len()];
        transpose(columns, co, [len, co], &mut rows, len);
        self.weight_from_rows(&rows)
    }
}
