//! Operations on slices of the CPU.

use candle_core::{Result, Shape, bail};

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
