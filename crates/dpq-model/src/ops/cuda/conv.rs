//! Convolution, fused with bias, max pooling and ReLU, and max pooling alone.
//!
//! A group of images at a time is unrolled into patches `[K, images · positions]` and multiplied
//! with the weights `[co, K]` in one matrix product.

#![expect(unsafe_code, reason = "kernels take pointers")]

use std::sync::OnceLock;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaViewMut};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::super::conv::Conv;
use super::super::patches::Geometry;
use super::super::pool::Windows;
use super::op3::CudaOp3;
use super::{
    Array, Gradients, Matrix, Output, View, gemm, grid, ints, launch, storage, tensor, threads,
    uninitialised, values, with_values,
};

/// Maximum number of elements of patches in memory: half a gigabyte.
const PATCHES: usize = 1 << 27;

/// Converts the sizes of pooling for kernels. Images lie channel by channel or image by image.
fn pooling(windows: &Windows, batch: usize, channels_first: bool, relu: bool) -> Result<[i32; 11]> {
    let &Windows { channels, height, width, kernel, stride } = windows;
    let plane = height * width;
    let [image, channel] = if channels_first { [plane, batch * plane] } else { [channels * plane, plane] };
    ints([batch * channels * plane])?;
    let [oh, ow] = windows.out();
    ints([batch, channels, height, width, image, channel, kernel, stride, oh, ow, relu.into()])
}

impl Conv {
    /// Returns the windows of pooling, of one element each if there is none.
    fn windows(&self) -> Windows {
        let Geometry { n_out: channels, out: [height, width], .. } = self.geometry;
        self.pool.unwrap_or(Windows { channels, height, width, kernel: 1, stride: 1 })
    }

    /// Number of images per group.
    fn group(&self) -> usize {
        (PATCHES / (self.geometry.patch_len() * self.geometry.n_positions()).max(1)).max(1)
    }

    fn sizes(&self, batch: usize) -> Result<[i32; 10]> {
        let Geometry { image: [c, h, w], kernel: [kh, kw], stride, padding, out: [oh, ow], .. } =
            self.geometry;
        ints([batch * c * h * w, batch * oh * ow])?;
        ints([batch, c, h, w, kh, kw, stride, padding, oh, ow])
    }

    fn unfold(&self, device: &CudaDevice, x: &View, batch: usize, patches: &mut Array) -> Result<()> {
        let columns = batch * self.geometry.n_positions();
        let config = grid(columns.div_ceil(256), self.geometry.image[0], 256);
        let sizes = self.sizes(batch)?;
        // SAFETY: `x` holds `batch` images and `patches` their patches, as `group` sizes it.
        unsafe { launch!(device, "unfold", config; patches, x, &sizes) };
        Ok(())
    }
}

impl CudaOp3 for Conv {
    fn cuda_forward(&self, device: &CudaDevice, [x, weight, bias]: [&View; 3], dims: &[usize]) -> Output {
        let batch = dims[0];
        let (k, co, positions) =
            (self.geometry.patch_len(), self.geometry.n_out, self.geometry.n_positions());
        let windows = self.windows();
        let (image_len, out_len) = (self.geometry.image_len(), windows.out_len());
        let group = self.group().min(batch);
        let n_taps = if windows.kernel > 1 { batch * out_len } else { 1 };
        let mut taps = device.alloc_zeros::<u8>(n_taps)?;
        let columns = group * positions;
        // SAFETY: for each group, `unfold` writes the patches, `gemm` the product and `pool` the
        // results.
        let [mut y, mut patches, mut product] =
            unsafe { uninitialised(device, [batch * out_len, k * columns, co * columns])? };
        for first in (0..batch).step_by(group) {
            let n = group.min(batch - first);
            self.unfold(device, &x.slice(first * image_len..(first + n) * image_len), n, &mut patches)?;
            let patches = patches.as_view();
            let patches = Matrix::new(&patches, k, n * positions);
            gemm(device, Matrix::new(weight, co, k), patches, &mut product.as_view_mut(), false)?;
            let out = first * out_len..(first + n) * out_len;
            let mut taps = taps.slice_mut(if windows.kernel > 1 { out.clone() } else { 0..1 });
            let (has_bias, sizes) = (i32::from(self.has_bias), pooling(&windows, n, true, self.relu)?);
            let (mut y, config) = (y.slice_mut(out), threads(n * out_len));
            // SAFETY: `product` holds the images that are pooled, `y` and `taps` an element per
            // window, `bias` an element per channel if there is one.
            unsafe { launch!(device, "pool", config; &mut y, &mut taps, &product, bias, &has_bias, &sizes) };
        }
        // `forward` runs once for each `Conv`.
        let _ = self.cuda_taps.set(taps);
        let [h, w] = windows.out();
        Ok((y, (batch, co, h, w).into()))
    }

    fn cuda_backward(
        &self,
        device: &CudaDevice,
        [x, weight, _, y, grad]: [&View; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Gradients {
        let batch = dims[0];
        let (k, co, positions) =
            (self.geometry.patch_len(), self.geometry.n_out, self.geometry.n_positions());
        let windows = self.windows();
        let (image_len, out_len) = (self.geometry.image_len(), windows.out_len());
        let group = self.group().min(batch);
        let taps = self.cuda_taps.get().expect("the forward pass ran before the backward pass");
        let (n_x, columns) = (if wanted[0] { batch * image_len } else { 1 }, group * positions);
        // SAFETY: for each group, kernels and products write all that later ones read. `grad_x` and
        // `grad_bias` are dropped unread if they are not asked for, since x or the bias is no
        // variable.
        let [mut grad_x, mut grad_weight, mut grad_bias, mut patches, mut product] =
            unsafe { uninitialised(device, [n_x, co * k, co, k * columns, co * columns])? };
        for first in (0..batch).step_by(group) {
            let n = group.min(batch - first);
            let out = first * out_len..(first + n) * out_len;
            let (grad, y) = (grad.slice(out.clone()), y.slice(out.clone()));
            let taps = taps.slice(if windows.kernel > 1 { out } else { 0..1 });
            let sizes = pooling(&windows, n, true, self.relu)?;
            let config = threads(n * co * positions);
            // SAFETY: `grad`, `y` and `taps` hold an element per window, `product` the images.
            unsafe { launch!(device, "pool_backward", config; &mut product, &grad, &y, &taps, &sizes) };
            self.unfold(device, &x.slice(first * image_len..(first + n) * image_len), n, &mut patches)?;
            {
                let (product, patches) = (product.as_view(), patches.as_view());
                let product = Matrix::new(&product, co, n * positions);
                let patches = Matrix::new(&patches, k, n * positions).transposed();
                gemm(device, product, patches, &mut grad_weight.as_view_mut(), first > 0)?;
            }
            if self.has_bias {
                let (columns, add) = (ints([n * positions])?[0], i32::from(first > 0));
                let config = grid(co, 1, 256);
                // SAFETY: `product` has `co` rows of `columns` elements, `grad_bias` an element per
                // row.
                unsafe { launch!(device, "row_sums", config; &mut grad_bias, &product, &columns, &add) };
            }
            if wanted[0] {
                let product = product.as_view();
                let product = Matrix::new(&product, co, n * positions);
                let weight = Matrix::new(weight, co, k).transposed();
                gemm(device, weight, product, &mut patches.as_view_mut(), false)?;
                let mut grad_x: CudaViewMut<f32> =
                    grad_x.slice_mut(first * image_len..(first + n) * image_len);
                let (config, sizes) = (threads(n * image_len), self.sizes(n)?);
                // SAFETY: `grad_x` holds `n` images and `patches` their patches.
                unsafe { launch!(device, "fold", config; &mut grad_x, &patches, &sizes) };
            }
        }
        let [x, weight, bias] = wanted;
        Ok([x.then_some(grad_x), weight.then_some(grad_weight), bias.then_some(grad_bias)])
    }
}

/// Max pooling of a tensor `[b, c, h, w]`.
pub(crate) struct MaxPool {
    pub(crate) windows: Windows,
    pub(crate) taps: OnceLock<CudaSlice<u8>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("an operation for CUDA")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, windows, batch) = (&x.device, &self.windows, layout.dims()[0]);
        let n = batch * windows.out_len();
        let mut taps = device.alloc_zeros::<u8>(n)?;
        let x = values(x, layout)?;
        let sizes = pooling(windows, batch, false, false)?;
        // SAFETY: `x` holds `batch` images, `y` and `taps` an element per window, all of which the
        // kernel writes. It reads no bias.
        let y = unsafe {
            let [mut y] = uninitialised(device, [n])?;
            launch!(device, "pool", threads(n); &mut y, &mut taps, &x, &x, &0i32, &sizes);
            y
        };
        // `cuda_fwd` runs once for each `MaxPool`.
        let _ = self.taps.set(taps);
        let [h, w] = windows.out();
        Ok((storage(device, y), (batch, windows.channels, h, w).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (device, grad) = (x.device().as_cuda_device()?, grad.contiguous()?);
        let taps = self.taps.get().expect("the forward pass ran before the backward pass");
        let (n, sizes) = (x.elem_count(), pooling(&self.windows, x.dim(0)?, false, false)?);
        // SAFETY: `grad`, `y` and `taps` hold an element per window, `grad_x` an element for each
        // element of x. The kernel writes all of it.
        let grad_x = with_values([y, &grad], |[y, grad]| unsafe {
            let [mut grad_x] = uninitialised(device, [n])?;
            launch!(device, "pool_backward", threads(n); &mut grad_x, grad, y, taps, &sizes);
            Ok(grad_x)
        })?;
        Ok(Some(tensor(device, grad_x, x.shape())))
    }
}
