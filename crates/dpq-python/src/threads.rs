//! Thread pools, and Ctrl-C during long calls.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Returns a pool of `n` threads. Pools are kept, because starting threads takes longer than many
/// searches.
pub(crate) fn pool(n: usize) -> PyResult<Arc<ThreadPool>> {
    static POOLS: Mutex<BTreeMap<usize, Arc<ThreadPool>>> = Mutex::new(BTreeMap::new());
    if !(1..=MAX_THREADS).contains(&n) {
        return Err(PyValueError::new_err(format!(
            "threads is {n}, expected 1 to {MAX_THREADS}, or None for all cores"
        )));
    }
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&n) {
        return Ok(pool.clone());
    }
    let pool = Arc::new(ThreadPoolBuilder::new().num_threads(n).build().map_err(crate::error::raise)?);
    pools.insert(n, pool.clone());
    Ok(pool)
}

/// The maximum number of threads of a pool. A larger number is a mistake.
const MAX_THREADS: usize = 1024;

/// Runs `work` on a new thread and sets its flag on Ctrl-C, because only the calling thread
/// receives signals.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> PyResult<T> {
    interruptible_with(py, work, || Ok(()))
}

/// Does the same, and calls `serve` on the calling thread every now and then. An exception of it
/// ends the work as Ctrl-C does. It is dropped before this function waits for the work to end.
pub(crate) fn interruptible_with<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
    mut serve: impl FnMut() -> PyResult<()>,
) -> PyResult<T> {
    let (interrupt, is_done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let caller = thread::current();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let done = work(interrupt);
            is_done.store(true, Ordering::Release);
            caller.unpark();
            done
        });
        let mut seen = Ok(());
        // A worker that panics is finished without being done.
        while !is_done.load(Ordering::Acquire) && !worker.is_finished() && seen.is_ok() {
            py.detach(|| thread::park_timeout(Duration::from_millis(20)));
            seen = py.check_signals().and_then(|()| serve());
            interrupt.store(seen.is_err(), Ordering::Relaxed);
        }
        drop(serve);
        let done = py.detach(|| worker.join()).unwrap_or_else(|panic| resume_unwind(panic));
        seen.map(|()| done)
    })
}

/// Calls `work` for each piece of `rows`. Ctrl-C ends the call between two pieces.
pub(crate) fn in_pieces<T>(
    py: Python<'_>,
    rows: &[T],
    len: usize,
    mut work: impl FnMut(&[T]) -> PyResult<()>,
) -> PyResult<()> {
    rows.chunks(len).try_for_each(|piece| {
        py.check_signals()?;
        work(piece)
    })
}
