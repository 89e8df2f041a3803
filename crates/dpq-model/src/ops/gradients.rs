//! Gradients of variables without a sum.
//!
//! candle adds every gradient to zeros, on one thread. Most variables get a single gradient per
//! step, as large as the variable, so this module takes it as it is.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, TensorId};

thread_local! {
    /// The gradients of variables so far, while [`backward`] runs.
    static OF_VARIABLES: RefCell<Option<Vec<(TensorId, Tensor)>>> = const { RefCell::new(None) };
}

/// Returns the gradients of `loss`, a scalar, as [`Tensor::backward`] does, but faster.
pub(crate) fn backward(loss: &Tensor) -> Result<GradStore> {
    // A thread that waits for a piece of one loss may start another loss.
    let before = OF_VARIABLES.replace(Some(Vec::new()));
    let gradients = loss.backward();
    let of_variables = OF_VARIABLES.replace(before).unwrap_or_default();
    let mut gradients = gradients?;
    for (variable, gradient) in of_variables {
        let gradient = match gradients.get_id(variable) {
            Some(others) => (others + gradient)?,
            None => gradient,
        };
        gradients.insert_id(variable, gradient);
    }
    Ok(gradients)
}

/// Returns the gradient of an argument for the backward pass of an operation. It is `None` if the
/// argument does not depend on a variable, or if it is a variable and [`backward`] has taken its
/// gradient.
pub(super) fn gradient(of: &Tensor, values: Vec<f32>) -> Result<Option<Tensor>> {
    if !of.track_op() {
        return Ok(None);
    }
    let gradient = Tensor::from_vec(values, of.shape(), &Device::Cpu)?;
    OF_VARIABLES.with_borrow_mut(|of_variables| match of_variables {
        Some(of_variables) if of.is_variable() => {
            of_variables.push((of.id(), gradient));
            Ok(None)
        }
        _ => Ok(Some(gradient)),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::ops::linear;

    #[test]
    fn gradients_are_those_of_candle_and_those_of_one_variable_add_up() {
        let var = |shape: &[usize]| {
            Var::from_tensor(&Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let (weight, bias, x) = (var(&[5, 5]), var(&[5]), var(&[3, 5]));
        // The weight goes through our operation twice, and through candle's.
        let layer = |x: &Tensor| linear(x, &weight, Some(&bias), true).unwrap();
        let loss = (layer(&layer(&x)).sqr().unwrap().sum_all().unwrap()
            + weight.sqr().unwrap().sum_all().unwrap())
        .unwrap();
        let (ours, candles) = (backward(&loss).unwrap(), loss.backward().unwrap());
        for var in [&weight, &bias, &x] {
            let values = |gradients: &GradStore| {
                gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            for (a, b) in values(&ours).into_iter().zip(values(&candles)) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }
}
