//! A linear layer with bias and ReLU. Its backward pass is two matrix products. candle's tensor
//! operations would copy transposed weights.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Matrix, par_product};
use super::gradients::gradient;
use super::layout::{add_up, relu, relu_gradient, tensor_values, values};

/// The operation (x `[b, in]`, weight `[out, in]`, bias `[out]`) → `[b, out]`.
pub(crate) struct Linear {
    pub(crate) relu: bool,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) =
            (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let (batch, n_in, n_out) = (x_layout.dims()[0], x_layout.dims()[1], bias.len());
        let mut y = par_product(Matrix::new(x, batch, n_in), Matrix::new(weight, n_out, n_in).transposed());
        y.par_chunks_exact_mut(n_out).for_each(|y| {
            for (y, bias) in y.iter_mut().zip(bias) {
                *y = if self.relu { relu(*y + bias) } else { *y + bias };
            }
        });
        Ok((CpuStorage::F32(y), (batch, n_out).into()))
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
        let grad = grad.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (weight_storage, weight_layout) = weight.storage_and_layout();
        let (y_storage, y_layout) = y.storage_and_layout();
        let (grad_storage, grad_layout) = grad.storage_and_layout();
        let mut grads = tensor_values(&grad_storage, grad_layout)?;
        let masked: Vec<f32>;
        if self.relu {
            let results = tensor_values(&y_storage, y_layout)?;
            masked = grads.iter().zip(results).map(|(&grad, &y)| relu_gradient([grad, y])).collect();
            grads = &masked;
        }

        let matrix = Matrix::new(grads, batch, n_out);
        let xs = Matrix::new(tensor_values(&x_storage, x_layout)?, batch, n_in);
        let weights = Matrix::new(tensor_values(&weight_storage, weight_layout)?, n_out, n_in);
        Ok((
            gradient(x, || par_product(matrix, weights))?,
            gradient(weight, || par_product(matrix.transposed(), xs))?,
            gradient(bias, || add_up(grads, n_out))?,
        ))
    }
}
