//! The update of a variable by an optimiser.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, Layout, Result, bail};

use super::{ints, launch, threads, values};
use crate::optim::Rule;

/// Updates a variable and its buffers in place, given its gradient.
pub(crate) fn update(
    rule: Rule,
    w: &mut CudaStorage,
    w_layout: &Layout,
    (g, g_layout): (&CudaStorage, &Layout),
    buffers: &mut [CudaSlice<f32>; 2],
) -> Result<()> {
    let device: CudaDevice = w.device.clone();
    let Some((start, end)) = w_layout.contiguous_offsets() else {
        bail!("optimisers update contiguous variables")
    };
    let n = ints([end - start])?[0];
    let g = values(g, g_layout)?;
    let mut w = w.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
    let [first, second] = buffers;
    let config = threads(end - start);
    match rule {
        Rule::Sgd { momentum, rate, keep } => {
            launch!(&device, "sgd", config, &mut w, &g, first, &n, &momentum, &rate, &keep);
        }
        Rule::AdamW { betas: [beta1, beta2], rate, root, epsilon, keep } => {
            launch!(
                &device, "adamw", config, &mut w, &g, first, second, &n, &beta1, &beta2, &rate, &root,
                &epsilon, &keep
            );
        }
    }
    Ok(())
}
