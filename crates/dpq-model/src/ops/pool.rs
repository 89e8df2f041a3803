//! Max pooling: of one channels-last image, and as an operation on tensors.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::layout::{values, with_scratch, with_values};
use super::transpose::transpose;

/// Windows of `kernel` × `kernel`, `stride` apart, over `[h, w, c]` images.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Windows {
    /// Height and width of the result.
    pub(crate) fn out(&self) -> [usize; 2] {
        [self.height, self.width].map(|len| (len - self.kernel) / self.stride + 1)
    }

    pub(crate) fn in_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub(crate) fn out_len(&self) -> usize {
        self.out().into_iter().product::<usize>() * self.channels
    }

    /// Calls `f` with the position of the result of each window and the position of its first
    /// element, for channel 0.
    #[inline(always)]
    fn for_each_window(&self, mut f: impl FnMut(usize, usize)) {
        let [height, width] = self.out();
        for y in 0..height {
            for x in 0..width {
                let corner = y * self.stride * self.width + x * self.stride;
                f((y * width + x) * self.channels, corner * self.channels);
            }
        }
    }

    /// The offsets of the taps of a window from its first element, row by row.
    fn tap_offsets(&self) -> Vec<usize> {
        let tap = |i: usize| (i / self.kernel * self.width + i % self.kernel) * self.channels;
        (0..self.kernel * self.kernel).map(tap).collect()
    }

    /// Writes the maxima `[oh, ow, c]` of `source` `[h, w, c]` and their taps.
    pub(crate) fn forward(&self, source: &[f32], maxima: &mut [f32], taps: &mut [u8]) {
        let (channels, offsets) = (self.channels, self.tap_offsets());
        let n_blocked = channels - channels % LANES;
        self.for_each_window(|out, corner| {
            let (source, maxima, taps) = (&source[corner..], &mut maxima[out..], &mut taps[out..]);
            for c in (0..n_blocked).step_by(LANES) {
                largest::<LANES>(&source[c..], &offsets, &mut maxima[c..], &mut taps[c..]);
            }
            for c in n_blocked..channels {
                largest::<1>(&source[c..], &offsets, &mut maxima[c..], &mut taps[c..]);
            }
        });
    }

    /// Writes the gradient `[h, w, c]` of the source, given the gradient `[oh, ow, c]` of the
    /// maxima.
    pub(crate) fn backward(&self, grad: &[f32], taps: &[u8], grad_source: &mut [f32]) {
        let (channels, offsets) = (self.channels, self.tap_offsets());
        let n_blocked = channels - channels % LANES;
        grad_source.fill(0.0);
        self.for_each_window(|out, corner| {
            let (grad, taps, grad_source) = (&grad[out..], &taps[out..], &mut grad_source[corner..]);
            for c in (0..n_blocked).step_by(LANES) {
                give_back::<LANES>(&grad[c..], &taps[c..], &offsets, &mut grad_source[c..]);
            }
            for c in n_blocked..channels {
                give_back::<1>(&grad[c..], &taps[c..], &offsets, &mut grad_source[c..]);
            }
        });
    }
}

/// Number of channels whose maxima fit into registers.
const LANES: usize = 16;

/// Writes the maximum of the values at `offsets` in each of N neighbouring channels, and the number
/// of its offset.
#[inline(always)]
fn largest<const N: usize>(source: &[f32], offsets: &[usize], maxima: &mut [f32], taps: &mut [u8]) {
    let (mut largest, mut best) = ([f32::NEG_INFINITY; N], [0u32; N]);
    for (tap, &offset) in (0u32..).zip(offsets) {
        let values = &source[offset..][..N];
        for lane in 0..N {
            let take = (values[lane] > largest[lane]) | values[lane].is_nan();
            largest[lane] = if take { values[lane] } else { largest[lane] };
            best[lane] = if take { tap } else { best[lane] };
        }
    }
    maxima[..N].copy_from_slice(&largest);
    taps[..N].copy_from_slice(&best.map(|tap| tap as u8));
}

/// The gradient of [`largest`]: adds the gradient of each channel to the value at its tap.
#[inline(always)]
fn give_back<const N: usize>(grad: &[f32], taps: &[u8], offsets: &[usize], grad_source: &mut [f32]) {
    let grad: [f32; N] = std::array::from_fn(|lane| grad[lane]);
    let best: [u32; N] = std::array::from_fn(|lane| taps[lane].into());
    for (tap, &offset) in (0u32..).zip(offsets) {
        let sums = &mut grad_source[offset..][..N];
        for lane in 0..N {
            sums[lane] += if best[lane] == tap { grad[lane] } else { 0.0 };
        }
    }
}

/// The operation on a tensor `[b, c, h, w]`. It stores the tap of each maximum for the backward
/// pass.
pub(crate) struct MaxPool {
    /// Windows over the image with its border.
    pub(crate) windows: Windows,
    pub(crate) padding: usize,
    pub(crate) taps: OnceLock<Vec<u8>>,
}

impl MaxPool {
    /// Calls `f` with the position of each piece of an image, its place in the image with a border,
    /// channels last, and its length: rows, or the whole image without a border.
    fn for_each_piece(&self, mut f: impl FnMut(usize, usize, usize)) {
        let Windows { channels, height, width, .. } = self.windows;
        if self.padding == 0 {
            return f(0, 0, height * width);
        }
        let inner = width - 2 * self.padding;
        for y in 0..height - 2 * self.padding {
            f(y * inner, ((y + self.padding) * width + self.padding) * channels, inner);
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, windows, plane) =
            (values(storage, layout)?, self.windows, layout.dims()[2..].iter().product());
        let batch = layout.dims()[0];
        let (c, in_len, out_len) = (windows.channels, windows.in_len(), windows.out_len());
        let (mut y, mut taps) = (vec![0.0; batch * out_len], vec![0; batch * out_len]);
        let images = x.par_chunks_exact(c * plane);
        images.zip(y.par_chunks_exact_mut(out_len)).zip(taps.par_chunks_exact_mut(out_len)).for_each(
            |((x, y), taps)| {
                with_scratch(in_len + out_len, |scratch| {
                    let (source, maxima) = scratch.split_at_mut(in_len);
                    if self.padding > 0 {
                        source.fill(f32::NEG_INFINITY);
                    }
                    self.for_each_piece(|from, to, len| {
                        transpose(&x[from..], plane, [c, len], &mut source[to..], c);
                    });
                    windows.forward(source, maxima, taps);
                    transpose(maxima, c, [out_len / c, c], y, out_len / c);
                });
            },
        );
        // `cpu_fwd` runs once for each `MaxPool`.
        let _ = self.taps.set(taps);
        let [height, width] = windows.out();
        Ok((CpuStorage::F32(y), (batch, c, height, width).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let windows = self.windows;
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");
        let (c, in_len, out_len) = (windows.channels, windows.in_len(), windows.out_len());
        let grad = grad.contiguous()?;
        let (plane, mut grad_x) = (x.dims()[2..].iter().product(), vec![0.0; x.elem_count()]);
        with_values([&grad], |[grad]| {
            let images = grad.par_chunks_exact(out_len).zip(taps.par_chunks_exact(out_len));
            images.zip(grad_x.par_chunks_exact_mut(c * plane)).for_each(|((grad, taps), grad_x)| {
                with_scratch(in_len + out_len, |scratch| {
                    let (grad_source, grad_maxima) = scratch.split_at_mut(in_len);
                    transpose(grad, out_len / c, [c, out_len / c], grad_maxima, c);
                    windows.backward(grad_maxima, taps, grad_source);
                    self.for_each_piece(|to, from, len| {
                        transpose(&grad_source[from..], c, [len, c], &mut grad_x[to..], plane);
                    });
                });
            });
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(grad_x, x.shape(), &Device::Cpu)?))
    }
}
