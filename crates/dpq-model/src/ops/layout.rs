//! Scratch memory, and copies between tensors and scratch.
//!
//! Tensors are channel-major, `[c, h, w]`. Scratch is channels last, `[h, w, c]`, so that inner
//! loops and copied runs are long.

use std::cell::RefCell;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Maximum number of pieces of a batch. It is fixed, so that sums over pieces do not depend on the
/// number of threads.
const MAX_CHUNKS: usize = 16;

/// Returns the number of images per piece of a batch: a multiple of `group`, or fewer.
pub(crate) fn chunk_len(batch: usize, group: usize) -> usize {
    let chunk = batch.div_ceil(MAX_CHUNKS).max(1);
    if chunk > group { chunk.next_multiple_of(group) } else { chunk }
}

/// Calls `f` with `len` floats of scratch memory of this thread, whose values are arbitrary. Calls
/// may be nested.
pub(crate) fn with_scratch<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = f(&mut scratch[..len]);
    SCRATCH.with_borrow_mut(|free| free.push(scratch));
    result
}

/// Returns the values of a contiguous f32 tensor.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

/// Calls `f` with the [`values`] of tensors, which must be on the CPU.
pub(crate) fn with_values<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let storages = tensors.map(Tensor::storage_and_layout);
    let mut all = [&[][..]; N];
    for (all, (storage, layout)) in all.iter_mut().zip(&storages) {
        let Storage::Cpu(storage) = &**storage else { bail!("expected a tensor on the CPU") };
        *all = values(storage, layout)?;
    }
    f(all)
}

/// Applies a ReLU. Not by `max`, which would turn NaN into 0.
#[inline(always)]
pub(crate) fn relu(value: f32) -> f32 {
    if value <= 0.0 { 0.0 } else { value }
}

/// Returns the gradient before a ReLU, given the gradient after it and its result y: 0 where y ≤ 0.
#[inline(always)]
pub(crate) fn relu_gradient([grad, y]: [f32; 2]) -> f32 {
    // A product, because the compiler turns a condition into branches that cannot be predicted.
    grad * if y <= 0.0 { 0.0 } else { 1.0 }
}

/// Returns the sum of consecutive vectors of length `len`, first to last.
pub(crate) fn add_up(vectors: &[f32], len: usize) -> Vec<f32> {
    /// Number of elements per task.
    const PIECE: usize = 4096;
    let mut sums = vec![0.0; len];
    sums.par_chunks_mut(PIECE).enumerate().for_each(|(i, sums)| {
        for vector in vectors.chunks_exact(len) {
            sums.iter_mut().zip(&vector[i * PIECE..]).for_each(|(sum, value)| *sum += value);
        }
    });
    sums
}
