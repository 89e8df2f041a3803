//! Updates of variables: momentum SGD and AdamW, with factors for the heads.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Var, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, cuda_backend::cudarc::driver::CudaSlice};
use rayon::prelude::*;

use crate::config::{Method, OptimizerConfig};

/// An optimiser and what it remembers of each variable.
pub(crate) struct Optimizer {
    config: OptimizerConfig,
    /// Updates made.
    pub(crate) n_steps: usize,
    /// Two buffers a variable, by its name: velocity and nothing (SGD), or mean gradient and mean squared gradient (AdamW).
    pub(crate) buffers: BTreeMap<String, [Vec<f32>; 2]>,
    /// Buffers of variables on a GPU, which move there with the first update.
    #[cfg(feature = "cuda")]
    on_cuda: BTreeMap<String, [CudaSlice<f32>; 2]>,
}

impl Optimizer {
    pub(crate) fn new(config: OptimizerConfig) -> Self {
        Self {
            config,
            n_steps: 0,
            buffers: BTreeMap::new(),
            #[cfg(feature = "cuda")]
            on_cuda: BTreeMap::new(),
        }
    }

    /// All buffers, wherever they are.
    #[cfg(feature = "cuda")]
    pub(crate) fn all_buffers(&self) -> Result<BTreeMap<String, [Vec<f32>; 2]>> {
        use candle_core::cuda_backend::WrapErr;
        let mut all = self.buffers.clone();
        for (name, [first, second]) in &self.on_cuda {
            let host = |buffer: &CudaSlice<f32>| buffer.stream().clone_dtoh(buffer).w();
            all.insert(name.clone(), [host(first)?, host(second)?]);
        }
        Ok(all)
    }

    /// All buffers.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn all_buffers(&self) -> Result<&BTreeMap<String, [Vec<f32>; 2]>> {
        Ok(&self.buffers)
    }

    /// Updates every variable that has a gradient, at `factor` times the configured rate.
    pub(crate) fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &GradStore,
        factor: f64,
    ) -> Result<()> {
        self.n_steps += 1;
        for (name, var) in variables {
            let Some(gradient) = gradients.get(var) else { continue };
            let rate = self.config.rate * factor * self.group(name);
            // Weights decay; biases and the parameters of normalisation do not.
            let decay = if name.ends_with("weight") { self.config.weight_decay } else { 0.0 };
            let keep = (1.0 - rate * decay) as f32;
            let rule = Rule::new(self.config.method, self.n_steps, rate, keep);
            let gradient = gradient.contiguous()?;
            #[cfg(feature = "cuda")]
            if var.device().is_cuda() {
                let buffers = self.buffers_on_cuda(name, var)?;
                var.inplace_op2(&gradient, &CudaUpdate { rule, buffers: Mutex::new(buffers) })?;
                continue;
            }
            let buffers = self
                .buffers
                .entry(name.clone())
                .or_insert_with(|| [vec![0.0; var.elem_count()], vec![0.0; var.elem_count()]]);
            var.inplace_op2(&gradient, &Update { rule, buffers: Mutex::new(buffers) })?;
        }
        Ok(())
    }

    /// The buffers of a variable on a GPU: those of a checkpoint, or zeros.
    #[cfg(feature = "cuda")]
    fn buffers_on_cuda(&mut self, name: &str, var: &Var) -> Result<&mut [CudaSlice<f32>; 2]> {
        if !self.on_cuda.contains_key(name) {
            let device = var.device().as_cuda_device()?;
            let new = match self.buffers.remove(name) {
                Some([first, second]) => [device.clone_htod(&first)?, device.clone_htod(&second)?],
                None => [device.alloc_zeros(var.elem_count())?, device.alloc_zeros(var.elem_count())?],
            };
            self.on_cuda.insert(name.to_owned(), new);
        }
        Ok(self.on_cuda.get_mut(name).expect("it is there now"))
    }

    /// The factor on the rate of a variable.
    fn group(&self, name: &str) -> f64 {
        let head = name.starts_with("embed.") || name.starts_with("classifier.");
        match (head, name.ends_with(".bias")) {
            (false, _) => 1.0,
            (true, false) => self.config.head_weights,
            (true, true) => self.config.head_biases,
        }
    }
}

/// An update rule with the numbers of one step.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    Sgd { momentum: f32, rate: f32, keep: f32 },
    AdamW { betas: [f32; 2], rate: f32, root: f32, epsilon: f32, keep: f32 },
}

impl Rule {
    /// `keep` is the share of a value that weight decay leaves.
    fn new(method: Method, n_steps: usize, rate: f64, keep: f32) -> Self {
        match method {
            Method::Sgd { momentum } => Self::Sgd { momentum: momentum as f32, rate: rate as f32, keep },
            Method::AdamW { beta1, beta2, epsilon } => {
                // Kingma and Ba (2015), with the bias corrections in the rate and in the denominator.
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

/// An update of a variable in place, in one pass over memory.
struct Update<'a> {
    rule: Rule,
    buffers: Mutex<&'a mut [Vec<f32>; 2]>,
}

/// Numbers that a thread updates at a time. Each is updated on its own, so any cut gives the same bytes.
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
        let (CpuStorage::F32(w), CpuStorage::F32(g)) = (w, g) else {
            bail!("optimisers update f32 variables")
        };
        let (Some((w_start, w_end)), Some((g_start, g_end))) =
            (w_layout.contiguous_offsets(), g_layout.contiguous_offsets())
        else {
            bail!("optimisers update contiguous variables")
        };
        let mut buffers = self.buffers.lock().expect("no update panicked");
        let [first, second] = &mut **buffers;
        w[w_start..w_end]
            .par_chunks_mut(CHUNK)
            .zip(g[g_start..g_end].par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .for_each(|((w, g), (first, second))| self.rule.apply(w, g, first, second));
        Ok(())
    }
}

/// [`Update`] on a GPU.
#[cfg(feature = "cuda")]
struct CudaUpdate<'a> {
    rule: Rule,
    buffers: Mutex<&'a mut [CudaSlice<f32>; 2]>,
}

#[cfg(feature = "cuda")]
impl InplaceOp2 for CudaUpdate<'_> {
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
        let mut buffers = self.buffers.lock().expect("no update panicked");
        crate::ops::cuda::update(self.rule, w, w_layout, (g, g_layout), &mut buffers)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::config::RateSchedule;

    /// Takes steps down w² from w = 1, whose gradient is 2w, and returns every w.
    fn descend(method: Method, weight_decay: f64, name: &str, n: usize) -> Vec<f32> {
        let config = OptimizerConfig {
            method,
            rate: 0.1,
            rate_schedule: RateSchedule::Constant,
            weight_decay,
            head_weights: 10.0,
            head_biases: 20.0,
        };
        let mut optimizer = Optimizer::new(config);
        let var = Var::from_vec(vec![1.0f32], 1, &Device::Cpu).unwrap();
        let variables = BTreeMap::from([(name.to_owned(), var.clone())]);
        (0..n)
            .map(|_| {
                let gradients = var.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                optimizer.step(&variables, &gradients, 0.5).unwrap();
                var.to_vec1::<f32>().unwrap()[0]
            })
            .collect()
    }

    #[track_caller]
    fn close(found: &[f32], expected: &[f32]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn momentum_keeps_a_share_of_the_last_update() {
        // Rate 0.05. v = 2, w = 0.9; v = 0.9·2 + 1.8 = 3.6, w = 0.72.
        close(&descend(Method::Sgd { momentum: 0.9 }, 0.0, "backbone.x.weight", 2), &[0.9, 0.72]);
        // Decay 0.2 at rate 0.05 keeps 0.99 of a weight, and all of a bias.
        close(&descend(Method::Sgd { momentum: 0.0 }, 0.2, "backbone.x.weight", 1), &[0.89]);
        close(&descend(Method::Sgd { momentum: 0.0 }, 0.2, "backbone.x.bias", 1), &[0.9]);
    }

    #[test]
    fn heads_have_rates_of_their_own() {
        close(&descend(Method::Sgd { momentum: 0.0 }, 0.0, "embed.weight", 1), &[0.0]);
        close(&descend(Method::Sgd { momentum: 0.0 }, 0.0, "classifier.bias", 1), &[-1.0]);
    }

    #[test]
    fn adam_takes_steps_of_the_rate_at_first() {
        let adam = Method::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        // The first step is rate · g / |g|. Then the corrected means of the gradients 2 and 1.9, and of their squares.
        let m = (0.9 * 0.2 + 0.1 * 1.9) / 0.19f64;
        let v = (0.999 * 0.004 + 0.001 * 1.9 * 1.9) / (1.0 - 0.999f64 * 0.999);
        close(&descend(adam, 0.0, "backbone.x.weight", 2), &[0.95, (0.95 - 0.05 * m / v.sqrt()) as f32]);
    }
}
