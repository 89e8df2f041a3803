//! The end of a residual block.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::layout::{relu, relu_gradient, values, with_values};

/// The operation relu(x + y) on tensors of one shape.
pub(crate) struct AddRelu;

/// Number of elements per task.
const PIECE: usize = 1 << 14;

/// Applies `f` to pairs of elements.
fn map_pairs(x: &[f32], y: &[f32], f: impl Fn([f32; 2]) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let pieces = x.par_chunks(PIECE).zip(y.par_chunks(PIECE)).zip(out.par_chunks_mut(PIECE));
    pieces.for_each(|((x, y), out)| {
        x.iter().zip(y).zip(out).for_each(|((&x, &y), out)| *out = f([x, y]));
    });
    out
}

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sums = map_pairs(values(x, x_layout)?, values(y, y_layout)?, |[x, y]| relu(x + y));
        Ok((CpuStorage::F32(sums), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        sum: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = with_values([&grad, sum], |[grad, sum]| Ok(map_pairs(grad, sum, relu_gradient)))?;
        let grad = Tensor::from_vec(grad, sum.shape(), &Device::Cpu)?;
        Ok((x.track_op().then(|| grad.clone()), y.track_op().then_some(grad)))
    }
}
