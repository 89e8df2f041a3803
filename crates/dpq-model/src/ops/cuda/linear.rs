//! A linear layer with bias and ReLU.

#![expect(unsafe_code, reason = "kernels take pointers")]

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;

use super::super::linear::Linear;
use super::op3::CudaOp3;
use super::{Array, Gradients, Matrix, Output, View, gemm, grid, ints, launch, threads, uninitialised};

/// Returns the product of two matrices, which has `n` elements.
fn product(device: &CudaDevice, a: Matrix, b: Matrix, n: usize) -> Result<Array> {
    // SAFETY: `gemm` writes all of it.
    let [mut out] = unsafe { uninitialised(device, [n])? };
    gemm(device, a, b, &mut out.as_view_mut(), false)?;
    Ok(out)
}

impl CudaOp3 for Linear {
    fn cuda_forward(&self, device: &CudaDevice, [x, weight, bias]: [&View; 3], dims: &[usize]) -> Output {
        let (batch, n_in, n_out) = (dims[0], dims[1], bias.len());
        let (x, weight) = (Matrix::new(x, batch, n_in), Matrix::new(weight, n_out, n_in).transposed());
        let mut y = product(device, x, weight, batch * n_out)?;
        let ([columns, n], relu) = (ints([n_out, batch * n_out])?, i32::from(self.relu));
        let config = threads(y.len());
        // SAFETY: `y` has `n` elements in rows of `columns`, `bias` has `columns`.
        unsafe { launch!(device, "add_bias", config; &mut y, bias, &columns, &n, &relu) };
        Ok((y, (batch, n_out).into()))
    }

    fn cuda_backward(
        &self,
        device: &CudaDevice,
        [x, weight, bias, y, grad]: [&View; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Gradients {
        let (batch, n_in, n_out) = (dims[0], dims[1], bias.len());
        let ([rows, columns], relu) = (ints([batch, n_out])?, i32::from(self.relu));
        let config = grid(n_out.div_ceil(32), 1, 1024);
        // SAFETY: `grad`, `y` and `before` have `rows` rows of `columns` elements, `grad_bias` has
        // `columns`. The kernel writes all of `before` and `grad_bias`.
        let (before, grad_bias) = unsafe {
            let [mut before, mut grad_bias] = uninitialised(device, [batch * n_out, n_out])?;
            launch!(
                device, "add_bias_backward", config;
                &mut before, &mut grad_bias, grad, y, &rows, &columns, &relu
            );
            (before, grad_bias)
        };
        let before = before.as_view();
        let before = || Matrix::new(&before, batch, n_out);
        let grad_x = || product(device, before(), Matrix::new(weight, n_out, n_in), batch * n_in);
        let grad_weight =
            || product(device, before().transposed(), Matrix::new(x, batch, n_in), n_out * n_in);
        Ok([
            wanted[0].then(grad_x).transpose()?,
            wanted[1].then(grad_weight).transpose()?,
            wanted[2].then_some(grad_bias),
        ])
    }
}
