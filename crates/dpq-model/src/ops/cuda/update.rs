//! Updates of variables by an optimiser.

use std::sync::Mutex;

use candle_core::{CpuStorage, CudaStorage, InplaceOp2, Layout, Result, bail};

use super::super::update::Rule;
use super::{Array, ints, launch, threads, values};

/// Updates a variable and its buffers in place, given its gradient.
pub(crate) struct Update<'a> {
    pub(crate) rule: Rule,
    pub(crate) buffers: Mutex<&'a mut [Array; 2]>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("an operation for CUDA")
    }

    fn cuda_fwd(
        &self,
        w: &mut CudaStorage,
        w_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<()> {
        let device = w.device.clone();
        let Some((start, end)) = w_layout.contiguous_offsets() else {
            bail!("optimisers update contiguous variables")
        };
        let [n] = ints([end - start])?;
        let (g, config) = (values(g, g_layout)?, threads(end - start));
        let mut w = w.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let mut buffers = self.buffers.lock().expect("no update panicked");
        let [first, second] = &mut **buffers;
        assert!([g.len(), first.len(), second.len()].iter().all(|&len| len == end - start));
        match self.rule {
            #[expect(unsafe_code, reason = "kernels take pointers")]
            Rule::Sgd { momentum, rate, keep } => {
                // SAFETY: the assertion checks that all arrays have `n` elements.
                unsafe { launch!(&device, "sgd", config; &mut w, &g, first, &n, &momentum, &rate, &keep) };
            }
            #[expect(unsafe_code, reason = "kernels take pointers")]
            Rule::AdamW { betas: [beta1, beta2], rate, root, epsilon, keep } => {
                // SAFETY: as above.
                unsafe {
                    launch!(
                        &device, "adamw", config;
                        &mut w, &g, first, second, &n, &beta1, &beta2, &rate, &root, &epsilon, &keep
                    );
                }
            }
        }
        Ok(())
    }
}
