//! The operation of a convolution: the fastest way for its shape.

use candle_core::{Result, Shape};

use super::conv::Conv;
use super::op3::Op3;
use super::winograd::Winograd;

impl Op3 for Conv {
    const NAME: &'static str = "conv2d";

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], dims: &[usize]) -> (Vec<f32>, Shape) {
        let mut y = vec![0.0; dims[0] * self.out_len()];
        if let Some(winograd) = Winograd::new(self) {
            winograd.forward(x, weight, bias, &mut y);
        } else if self.is_wide_forward(dims[0]) {
            self.wide_forward(x, weight, bias, &mut y);
        } else {
            self.forward_by_pieces(x, weight, bias, &mut y);
        }
        let [h, w] = self.out();
        (y, (dims[0], self.geometry.n_out, h, w).into())
    }

    fn backward(
        &self,
        [x, weight, _, y, grad]: [&[f32]; 5],
        _: &[usize],
        wanted: [bool; 3],
    ) -> Result<[Vec<f32>; 3]> {
        Ok(if let Some(winograd) = Winograd::new(self) {
            winograd.backward(x, weight, [y, grad], wanted)
        } else if self.is_wide() {
            self.wide_gradients(x, weight, [y, grad], wanted[0])
        } else {
            self.gradients_by_pieces(x, weight, [y, grad], wanted[0])
        })
    }
}
