//! An operation as candle calls it, on the CPU and on CUDA.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::{self, CudaOp3};
use super::gradients::gradient;
use super::layout::{values, with_values};
use super::op3::Op3;

/// Without CUDA an operation needs no second form.
#[cfg(not(feature = "cuda"))]
pub(crate) trait CudaOp3 {}
#[cfg(not(feature = "cuda"))]
impl<T> CudaOp3 for T {}

/// An operation for candle, which runs on the device of its arguments.
pub(crate) struct Op<T>(pub(crate) T);

impl<T: Op3 + CudaOp3> CustomOp3 for Op<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let args = [values(x, x_layout)?, values(a, a_layout)?, values(b, b_layout)?];
        let (y, shape) = self.0.forward(args, x_layout.dims());
        Ok((CpuStorage::F32(y), shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let args = [&cuda::values(x, x_layout)?, &cuda::values(a, a_layout)?, &cuda::values(b, b_layout)?];
        let (y, shape) = self.0.cuda_forward(&x.device, args, x_layout.dims())?;
        Ok((cuda::storage(&x.device, y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let wanted = [x, a, b].map(Tensor::track_op);
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = x.device() {
            let backward = |values: [&cuda::View; 5]| self.0.cuda_backward(device, values, x.dims(), wanted);
            let [grad_x, grad_a, grad_b] = cuda::with_values([x, a, b, y, &grad], backward)?;
            let tensor = |of: &Tensor, values: Option<_>| Some(cuda::tensor(device, values?, of.shape()));
            return Ok((tensor(x, grad_x), tensor(a, grad_a), tensor(b, grad_b)));
        }
        let backward = |values: [&[f32]; 5]| self.0.backward(values, x.dims(), wanted);
        let [grad_x, grad_a, grad_b] = with_values([x, a, b, y, &grad], backward)?;
        Ok((gradient(x, grad_x)?, gradient(a, grad_a)?, gradient(b, grad_b)?))
    }
}
