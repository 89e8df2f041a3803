//! Options of fitting: the beam, progress, interruption.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Beam, Error};

/// Options of [`ResidualKMeans::train_with`](crate::ResidualKMeans::train_with) and
/// [`Codebooks::refine`](crate::Codebooks::refine).
#[derive(Default)]
pub struct FitOptions<'a> {
    /// The beam search that codes will be found by. `None` is greedy encoding, with equal weights
    /// of all lengths.
    pub beam: Option<Beam<'a>>,
    /// Called after each level or round with its number and the error that it leaves.
    pub progress: Option<&'a mut dyn FnMut(usize, f64)>,
    /// Ends the fit with [`Error::Interrupted`] soon after another thread sets it to true.
    pub interrupt: Option<&'a AtomicBool>,
}

impl FitOptions<'_> {
    pub(crate) fn report(&mut self, number: usize, error: f64) {
        if let Some(progress) = &mut self.progress {
            progress(number, error);
        }
    }
}

impl fmt::Debug for FitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FitOptions")
            .field("beam", &self.beam)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}

/// Returns true if the caller interrupts.
pub(crate) fn is_set(interrupt: Option<&AtomicBool>) -> bool {
    interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
}

/// Refuses to go on if the caller interrupts.
pub(crate) fn check_interrupt(interrupt: Option<&AtomicBool>) -> Result<(), Error> {
    if is_set(interrupt) { Err(Error::Interrupted) } else { Ok(()) }
}
