//! A linear layer with bias and ReLU. Its backward pass is two matrix products. candle's tensor
//! operations would copy transposed weights.

use candle_core::{Result, Shape};
use rayon::prelude::*;

use super::gemm::{Matrix, par_product};
use super::layout::{add_up, relu, relu_gradient};
use super::op3::Op3;

/// The operation (x `[b, in]`, weight `[out, in]`, bias `[out]`) → `[b, out]`.
pub(crate) struct Linear {
    pub(crate) relu: bool,
}

impl Op3 for Linear {
    const NAME: &'static str = "linear";

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], dims: &[usize]) -> (Vec<f32>, Shape) {
        let (batch, n_in, n_out) = (dims[0], dims[1], bias.len());
        let mut y = par_product(Matrix::new(x, batch, n_in), Matrix::new(weight, n_out, n_in).transposed());
        y.par_chunks_exact_mut(n_out).for_each(|y| {
            for (y, bias) in y.iter_mut().zip(bias) {
                *y = if self.relu { relu(*y + bias) } else { *y + bias };
            }
        });
        (y, (batch, n_out).into())
    }

    fn backward(
        &self,
        [x, weight, bias, y, mut grad]: [&[f32]; 5],
        dims: &[usize],
        wanted: [bool; 3],
    ) -> Result<[Vec<f32>; 3]> {
        let (batch, n_in, n_out) = (dims[0], dims[1], bias.len());
        let masked: Vec<f32>;
        if self.relu {
            masked = grad.iter().zip(y).map(|(&grad, &y)| relu_gradient([grad, y])).collect();
            grad = &masked;
        }
        let matrix = Matrix::new(grad, batch, n_out);
        let (x, weight) = (Matrix::new(x, batch, n_in), Matrix::new(weight, n_out, n_in));
        let product = |is_wanted, a, b| if is_wanted { par_product(a, b) } else { Vec::new() };
        let grad_x = product(wanted[0], matrix, weight);
        Ok([grad_x, product(wanted[1], matrix.transposed(), x), add_up(grad, n_out)])
    }
}
