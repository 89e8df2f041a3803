//! The operations on CUDA: cuBLAS and kernels of our own, which NVRTC compiles on first use.
//!
//! All work runs in the one stream of the device, so results need no further ordering. Matrix
//! products are full f32.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaView, CudaViewMut, LaunchConfig,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};

pub(crate) use conv::MaxPool;
pub(crate) use norm::mean_and_variance;
pub(crate) use op3::CudaOp3;
pub(crate) use update::Update;

mod conv;
mod linear;
mod norm;
mod op3;
mod update;

/// Floats on the device.
pub(crate) type Array = CudaSlice<f32>;

/// A part of an array.
pub(crate) type View<'a> = CudaView<'a, f32>;

/// A result and its shape.
pub(crate) type Output = Result<(Array, Shape)>;

/// The gradients of three arguments.
pub(crate) type Gradients = Result<[Option<Array>; 3]>;

/// Threads in a block.
const BLOCK: u32 = 256;

/// Returns `kernels.cu` as PTX, or the error of the compiler.
fn ptx() -> &'static std::result::Result<String, String> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || compile_ptx(include_str!("kernels.cu")).map(|ptx| ptx.to_src());
    PTX.get_or_init(|| compile().map_err(|error| format!("{error:?}")))
}

/// Returns a kernel of `kernels.cu`.
fn kernel(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    match ptx() {
        Ok(ptx) => Ok(device.get_or_load_custom_func(name, "dpq", ptx)?.into_cuda_function()),
        Err(error) => bail!("the CUDA kernels cannot be compiled: {error}"),
    }
}

/// Launches a kernel in the stream of the device. Only an `unsafe` block can call it. A semicolon
/// separates the arguments of the kernel.
///
/// # Safety
/// The arguments are those that kernels.cu declares for the kernel, and each array has at least the
/// length that kernels.cu states.
macro_rules! launch {
    ($device:expr, $name:literal, $config:expr; $($argument:expr),*) => {{
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
        let (stream, function) = ($device.cuda_stream(), super::kernel($device, $name)?);
        stream.launch_builder(&function)$(.arg($argument))*.launch($config).w()?;
    }};
}
use launch;

/// One thread for each of `n` elements.
fn threads(n: usize) -> LaunchConfig {
    grid(n.div_ceil(BLOCK as usize), 1, BLOCK)
}

fn grid(x: usize, y: usize, block: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (x as u32, y as u32, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 }
}

/// Converts sizes for kernels, whose indexes are of type `int`.
fn ints<const N: usize>(sizes: [usize; N]) -> Result<[i32; N]> {
    if sizes.iter().any(|&size| size > i32::MAX as usize) {
        bail!("a tensor of more than {} elements is too large for the CUDA kernels", i32::MAX);
    }
    Ok(sizes.map(|size| size as i32))
}

/// Allocates an array of each length without setting its elements.
///
/// # Safety
/// The caller has every element written, by a kernel or a product, before anything reads it.
#[expect(unsafe_code, reason = "setting elements that a kernel overwrites takes time")]
unsafe fn uninitialised<const N: usize>(device: &CudaDevice, lens: [usize; N]) -> Result<[Array; N]> {
    // SAFETY: the caller promises it.
    let arrays: Result<Vec<_>> = lens.into_iter().map(|n| unsafe { device.alloc::<f32>(n) }).collect();
    Ok(arrays?.try_into().expect("there is an array for each length"))
}

/// Returns the values of a contiguous f32 tensor.
pub(crate) fn values<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<View<'a>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<f32>()?.slice(start..end)),
        None => bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

/// Calls `f` with the [`values`] of tensors.
pub(crate) fn with_values<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&View; N]) -> Result<T>,
) -> Result<T> {
    let storages = tensors.map(Tensor::storage_and_layout);
    let views = storages.iter().map(|(storage, layout)| match &**storage {
        Storage::Cuda(storage) => values(storage, layout),
        _ => bail!("expected a tensor on a CUDA device"),
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    f(std::array::from_fn(|i| &views[i]))
}

pub(crate) fn storage(device: &CudaDevice, values: Array) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(values, device.clone())
}

/// A tensor outside the graph of gradients.
pub(crate) fn tensor(device: &CudaDevice, values: Array, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage(device, values)), shape, BackpropOp::none(), false)
}

/// A row-major matrix, or its transpose.
struct Matrix<'a> {
    values: &'a View<'a>,
    shape: [usize; 2],
    transposed: bool,
}

impl<'a> Matrix<'a> {
    fn new(values: &'a View<'a>, n_rows: usize, n_columns: usize) -> Self {
        assert!(values.len() >= n_rows * n_columns, "a matrix larger than its array");
        Self { values, shape: [n_rows, n_columns], transposed: false }
    }

    fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    fn dims(&self) -> [usize; 2] {
        let [m, n] = self.shape;
        if self.transposed { [n, m] } else { [m, n] }
    }
}

/// Writes the product a · b to `out`, row-major, or adds it to `out` if `add` is set.
fn gemm(device: &CudaDevice, a: Matrix, b: Matrix, out: &mut CudaViewMut<f32>, add: bool) -> Result<()> {
    let ([m, k], [k_b, n]) = (a.dims(), b.dims());
    assert!(k == k_b && out.len() >= m * n, "matrix shapes do not fit");
    let operation = |matrix: &Matrix| if matrix.transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
    let [m, n, k, lda, ldb] = ints([m, n, k, a.shape[1], b.shape[1]])?;
    // cuBLAS is column-major, where the row-major product is bᵀ · aᵀ.
    let config = GemmConfig {
        transa: operation(&b),
        transb: operation(&a),
        m: n,
        n: m,
        k,
        alpha: 1.0,
        lda: ldb,
        ldb: lda,
        beta: if add { 1.0 } else { 0.0 },
        ldc: n,
    };
    // SAFETY: the assertions check that the arrays have the lengths that the shapes need.
    #[expect(unsafe_code, reason = "cuBLAS takes pointers")]
    let product = unsafe { device.cublas_handle().gemm(config, b.values, a.values, out) };
    product.w()
}

#[cfg(test)]
mod tests;
