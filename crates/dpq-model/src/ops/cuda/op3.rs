//! Operations on arrays of a GPU as operations of candle.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{storage, values, with_values};

/// An operation on x and two more arguments, for example weight and bias, all contiguous.
pub(crate) trait Op3 {
    const NAME: &'static str;

    /// Returns the result and its shape. `dims` is the shape of x.
    fn forward(
        &self,
        device: &CudaDevice,
        args: [&CudaView<f32>; 3],
        dims: &[usize],
    ) -> Result<(CudaSlice<f32>, Shape)>;

    /// Returns the `wanted` gradients of the arguments, given the arguments, the result and its
    /// gradient.
    fn backward(
        &self,
        device: &CudaDevice,
        values: [&CudaView<f32>; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Result<[Option<CudaSlice<f32>>; 3]> {
        let _ = (device, values, dims, wanted);
        bail!("{} has no gradient", Self::NAME)
    }
}

/// An [`Op3`] for candle.
pub(crate) struct OnCuda<T>(pub(crate) T);

impl<T: Op3> CustomOp3 for OnCuda<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("an operation for CUDA")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let args = [&values(x, x_layout)?, &values(a, a_layout)?, &values(b, b_layout)?];
        let (y, shape) = self.0.forward(&x.device, args, x_layout.dims())?;
        Ok((storage(&x.device, y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (device, grad) = (x.device().as_cuda_device()?, grad.contiguous()?);
        let wanted = [x, a, b].map(Tensor::track_op);
        let backward = |values: [&CudaView<f32>; 5]| self.0.backward(device, values, x.dims(), wanted);
        let [grad_x, grad_a, grad_b] = with_values([x, a, b, y, &grad], backward)?;
        let tensor = |of: &Tensor, values: Option<_>| Some(super::tensor(device, values?, of.shape()));
        Ok((tensor(x, grad_x), tensor(a, grad_a), tensor(b, grad_b)))
    }
}
