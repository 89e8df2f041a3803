//! Max pooling of one channels-last image, and the operation on tensors.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::layout::{tensor_values, transpose, values, with_scratch};

/// Windows of `kernel` × `kernel`, `stride` apart, over [h, w, c] images.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Windows {
    pub(crate) fn out_height(&self) -> usize {
        (self.height - self.kernel) / self.stride + 1
    }

    pub(crate) fn out_width(&self) -> usize {
        (self.width - self.kernel) / self.stride + 1
    }

    pub(crate) fn in_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub(crate) fn out_len(&self) -> usize {
        self.out_height() * self.out_width() * self.channels
    }

    /// Calls `f` with every window's place in the output, every tap's number in its window (row-major) and the tap's
    /// place in the input; both places are those of channel 0.
    #[inline(always)]
    fn for_each_tap(&self, mut f: impl FnMut(usize, usize, usize)) {
        for y in 0..self.out_height() {
            for x in 0..self.out_width() {
                let out = (y * self.out_width() + x) * self.channels;
                for tap in 0..self.kernel * self.kernel {
                    let row = y * self.stride + tap / self.kernel;
                    let column = x * self.stride + tap % self.kernel;
                    f(out, tap, (row * self.width + column) * self.channels);
                }
            }
        }
    }

    /// Writes the maxima [oh, ow, c] of `source` [h, w, c], and which tap each one came from.
    pub(crate) fn forward(&self, source: &[f32], maxima: &mut [f32], taps: &mut [u8]) {
        let n = self.channels;
        self.for_each_tap(|out, tap, place| {
            let (row, maxima, taps) = (&source[place..][..n], &mut maxima[out..][..n], &mut taps[out..][..n]);
            if tap == 0 {
                maxima.copy_from_slice(row);
                taps.fill(0);
                return;
            }
            for ((&value, maximum), best) in row.iter().zip(maxima).zip(taps) {
                let take = (value > *maximum) | value.is_nan();
                *maximum = if take { value } else { *maximum };
                *best = if take { tap as u8 } else { *best };
            }
        });
    }

    /// Adds the gradient [oh, ow, c] of the maxima to `grad_source` [h, w, c].
    pub(crate) fn backward(&self, grad: &[f32], taps: &[u8], grad_source: &mut [f32]) {
        let n = self.channels;
        self.for_each_tap(|out, tap, place| {
            let (grad, taps, target) = (&grad[out..][..n], &taps[out..][..n], &mut grad_source[place..][..n]);
            for ((&grad, &best), target) in grad.iter().zip(taps).zip(target) {
                *target += if usize::from(best) == tap { grad } else { 0.0 };
            }
        });
    }
}

/// Max pooling of a tensor [b, c, h, w]. Remembers which taps won (4 bits would do; a byte is simpler).
pub(crate) struct MaxPool {
    pub(crate) windows: Windows,
    pub(crate) taps: OnceLock<Vec<u8>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, windows) = (values(storage, layout)?, self.windows);
        let batch = layout.dims()[0];
        let (c, in_len, out_len) = (windows.channels, windows.in_len(), windows.out_len());
        let (mut y, mut taps) = (vec![0.0; batch * out_len], vec![0; batch * out_len]);
        let images = x.par_chunks_exact(in_len);
        images.zip(y.par_chunks_exact_mut(out_len)).zip(taps.par_chunks_exact_mut(out_len)).for_each(
            |((x, y), taps)| {
                with_scratch(in_len + out_len, |scratch| {
                    let (source, maxima) = scratch.split_at_mut(in_len);
                    transpose(x, in_len / c, [c, in_len / c], source, c, |value, _, _| value);
                    windows.forward(source, maxima, taps);
                    transpose(maxima, c, [out_len / c, c], y, out_len / c, |value, _, _| value);
                });
            },
        );
        // `cpu_fwd` runs once for each `MaxPool`.
        let _ = self.taps.set(taps);
        let shape = (batch, c, windows.out_height(), windows.out_width());
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let windows = self.windows;
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");
        let (c, in_len, out_len) = (windows.channels, windows.in_len(), windows.out_len());
        let grad = grad.contiguous()?;
        let (storage, layout) = grad.storage_and_layout();
        let mut grad_x = vec![0.0; x.elem_count()];
        let images = tensor_values(&storage, layout)?.par_chunks_exact(out_len);
        images.zip(taps.par_chunks_exact(out_len)).zip(grad_x.par_chunks_exact_mut(in_len)).for_each(
            |((grad, taps), grad_x)| {
                with_scratch(in_len + out_len, |scratch| {
                    let (grad_source, grad_maxima) = scratch.split_at_mut(in_len);
                    transpose(grad, out_len / c, [c, out_len / c], grad_maxima, c, |value, _, _| value);
                    grad_source.fill(0.0);
                    windows.backward(grad_maxima, taps, grad_source);
                    transpose(grad_source, c, [in_len / c, c], grad_x, in_len / c, |value, _, _| value);
                });
            },
        );
        Ok(Some(Tensor::from_vec(grad_x, x.shape(), &Device::Cpu)?))
    }
}
