//! A linear layer with bias and ReLU.

#![expect(unsafe_code, reason = "kernels take pointers")]

use candle_core::{CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{
    Matrix, gemm, grid, ints, launch, not_on_cpu, storage, tensor, tensor_values, threads, uninitialised,
    values,
};

/// The operation (x `[b, in]`, weight `[out, in]`, bias `[out]`) → `[b, out]`.
pub(crate) struct Linear {
    pub(crate) relu: bool,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    not_on_cpu!(_a: _a_layout, _b: _b_layout, _c: _c_layout);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let ([batch, n_in], n_out) = ([x_layout.dims()[0], x_layout.dims()[1]], weight_layout.dims()[0]);
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        // SAFETY: `gemm` writes all of it.
        let [mut y] = unsafe { uninitialised(device, [batch * n_out])? };
        let (x, weight) = (Matrix::new(&x, batch, n_in), Matrix::new(&weight, n_out, n_in).transposed());
        gemm(device, x, weight, &mut y.as_view_mut(), false)?;
        let [columns, n] = ints([n_out, batch * n_out])?;
        let (bias, relu) = (values(bias, bias_layout)?, i32::from(self.relu));
        let config = threads(y.len());
        // SAFETY: `y` has `n` elements in rows of `columns`, `bias` has `columns`.
        unsafe { launch!(device, "add_bias", config, &mut y, &bias, &columns, &n, &relu) };
        Ok((storage(device, y), (batch, n_out).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((batch, n_in), n_out) = (x.dims2()?, bias.elem_count());
        let (device, grad) = (x.device().as_cuda_device()?, grad.contiguous()?);
        let (x_storage, x_layout) = x.storage_and_layout();
        let (weight_storage, weight_layout) = weight.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (grad_storage, grad_layout) = grad.storage_and_layout();
        let (y, grads) = (tensor_values(&y_storage, y_layout)?, tensor_values(&grad_storage, grad_layout)?);

        let ([rows, columns], relu) = (ints([batch, n_out])?, i32::from(self.relu));
        let config = grid(n_out.div_ceil(32), 1, 1024);
        // SAFETY: `grads`, `y` and `before` have `rows` rows of `columns` elements, `grad_bias` has
        // `columns`. The kernel writes all of `before` and `grad_bias`.
        let (before, grad_bias) = unsafe {
            let [mut before, mut grad_bias] = uninitialised(device, [batch * n_out, n_out])?;
            launch!(
                device,
                "add_bias_backward",
                config,
                &mut before,
                &mut grad_bias,
                &grads,
                &y,
                &rows,
                &columns,
                &relu
            );
            (before, grad_bias)
        };
        let before = before.as_view();
        let product = |a: Matrix, b: Matrix, shape: &Shape| -> Result<Option<Tensor>> {
            // SAFETY: `gemm` writes all of it.
            let [mut out] = unsafe { uninitialised(device, [shape.elem_count()])? };
            gemm(device, a, b, &mut out.as_view_mut(), false)?;
            Ok(Some(tensor(device, out, shape)))
        };
        let grad_x = if x.track_op() {
            let weight = tensor_values(&weight_storage, weight_layout)?;
            product(Matrix::new(&before, batch, n_out), Matrix::new(&weight, n_out, n_in), x.shape())?
        } else {
            None
        };
        let grad_weight = if weight.track_op() {
            let x = tensor_values(&x_storage, x_layout)?;
            let before = Matrix::new(&before, batch, n_out).transposed();
            product(before, Matrix::new(&x, batch, n_in), weight.shape())?
        } else {
            None
        };
        let grad_bias = bias.track_op().then(|| tensor(device, grad_bias, n_out));
        Ok((grad_x, grad_weight, grad_bias))
    }
}
