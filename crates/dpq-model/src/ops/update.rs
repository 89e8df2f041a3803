//! Updates of variables by an optimiser.

use std::sync::Mutex;

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{WrapErr, cudarc::driver::CudaSlice};
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, bail};
use rayon::prelude::*;

use super::layout::values;
use crate::config::Method;

/// The memory of an optimiser for one variable, two arrays of its length: the velocity and an
/// unused array (SGD), or the means of the gradient and of its square (AdamW).
pub(crate) struct Buffers {
    /// Empty once `device` holds the arrays.
    pub(crate) host: [Vec<f32>; 2],
    /// The arrays of a variable on a GPU, after the first update.
    #[cfg(feature = "cuda")]
    pub(crate) device: Option<[CudaSlice<f32>; 2]>,
}

impl Buffers {
    pub(crate) fn new(host: [Vec<f32>; 2]) -> Self {
        Self {
            host,
            #[cfg(feature = "cuda")]
            device: None,
        }
    }

    /// Copies the arrays to the host.
    pub(crate) fn to_vecs(&self) -> Result<[Vec<f32>; 2]> {
        #[cfg(feature = "cuda")]
        if let Some([first, second]) = &self.device {
            let host = |buffer: &CudaSlice<f32>| buffer.stream().clone_dtoh(buffer).w();
            return Ok([host(first)?, host(second)?]);
        }
        Ok(self.host.clone())
    }
}

/// The update rule of an optimiser with the numbers of one step.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    Sgd { momentum: f32, rate: f32, keep: f32 },
    AdamW { betas: [f32; 2], rate: f32, root: f32, epsilon: f32, keep: f32 },
}

impl Rule {
    /// `keep` is the share of a value that remains after weight decay.
    pub(crate) fn new(method: Method, n_steps: usize, rate: f64, keep: f32) -> Self {
        match method {
            Method::Sgd { momentum } => Self::Sgd { momentum: momentum as f32, rate: rate as f32, keep },
            Method::AdamW { beta1, beta2, epsilon } => {
                // Kingma and Ba (2015), with the bias corrections in the rate and in the
                // denominator.
                let correction = |beta: f64| 1.0 - beta.powi(n_steps as i32);
                Self::AdamW {
                    betas: [beta1 as f32, beta2 as f32],
                    rate: (rate / correction(beta1)) as f32,
                    root: (1.0 / correction(beta2).sqrt()) as f32,
                    epsilon: epsilon as f32,
                    keep,
                }
            }
        }
    }

    fn apply(self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        match self {
            Self::Sgd { momentum, rate, keep } => {
                for ((w, g), v) in values.iter_mut().zip(gradient).zip(first) {
                    *v = momentum * *v + g;
                    *w = *w * keep - rate * *v;
                }
            }
            Self::AdamW { betas: [beta1, beta2], rate, root, epsilon, keep } => {
                for (((w, g), m), v) in values.iter_mut().zip(gradient).zip(first).zip(second) {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *w = *w * keep - rate * *m / (v.sqrt() * root + epsilon);
                }
            }
        }
    }
}

/// Updates a variable in place, in one pass over memory.
pub(crate) struct Update<'a> {
    pub(crate) rule: Rule,
    pub(crate) buffers: Mutex<&'a mut [Vec<f32>; 2]>,
}

/// Number of elements per task. Elements are independent, so the result does not depend on it.
const CHUNK: usize = 1 << 14;

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        w: &mut CpuStorage,
        w_layout: &Layout,
        g: &CpuStorage,
        g_layout: &Layout,
    ) -> Result<()> {
        let g = values(g, g_layout)?;
        let (CpuStorage::F32(w), Some((start, end))) = (w, w_layout.contiguous_offsets()) else {
            bail!("optimisers update contiguous f32 variables")
        };
        let mut buffers = self.buffers.lock().expect("no update panicked");
        let [first, second] = &mut **buffers;
        w[start..end]
            .par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .for_each(|((w, g), (first, second))| self.rule.apply(w, g, first, second));
        Ok(())
    }
}
