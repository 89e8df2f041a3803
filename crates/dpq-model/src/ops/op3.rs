//! Operations on slices of the CPU as operations of candle.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::gradients::gradient;
use super::layout::{values, with_values};

/// An operation on x and two more arguments, for example weight and bias, all contiguous.
pub(crate) trait Op3 {
    const NAME: &'static str;

    /// Returns the result and its shape. `dims` is the shape of x.
    fn forward(&self, args: [&[f32]; 3], dims: &[usize]) -> (Vec<f32>, Shape);

    /// Returns the gradients of the arguments, given the arguments, the result and its gradient.
    /// Gradients that are not `wanted` may be empty.
    fn backward(&self, values: [&[f32]; 5], dims: &[usize], wanted: [bool; 3]) -> Result<[Vec<f32>; 3]> {
        let _ = (values, dims, wanted);
        bail!("{} has no gradient", Self::NAME)
    }
}

/// An [`Op3`] for candle.
pub(crate) struct OnCpu<T>(pub(crate) T);

impl<T: Op3> CustomOp3 for OnCpu<T> {
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
        let backward = |values: [&[f32]; 5]| self.0.backward(values, x.dims(), wanted);
        let [grad_x, grad_a, grad_b] = with_values([x, a, b, y, &grad], backward)?;
        Ok((gradient(x, grad_x)?, gradient(a, grad_a)?, gradient(b, grad_b)?))
    }
}
