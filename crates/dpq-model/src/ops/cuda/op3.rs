//! Operations on arrays of a GPU.

use candle_core::bail;
use candle_core::cuda_backend::CudaDevice;

use super::{Gradients, Output, View};
use crate::ops::op3::Op3;

/// The form of an operation for CUDA, with the same arguments.
pub(crate) trait CudaOp3: Op3 {
    fn cuda_forward(&self, device: &CudaDevice, args: [&View; 3], dims: &[usize]) -> Output;

    /// Returns the `wanted` gradients of the arguments.
    fn cuda_backward(
        &self,
        device: &CudaDevice,
        values: [&View; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Gradients {
        let _ = (device, values, dims, wanted);
        bail!("{} has no gradient", Self::NAME)
    }
}
