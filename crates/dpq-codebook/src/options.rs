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
    /// The maximum number of features on which the codewords of a level grow, at least K;
    /// [`INIT_SIZE`](Self::INIT_SIZE) by default. If there are more features, an evenly spaced
    /// sample, which their number decides, gives the codewords that Lloyd's algorithm starts from.
    /// Half of its rounds then use all features and move codewords further. All rounds compare
    /// features and codewords in 8 bits: a fifth of the time at equal error of the features.
    /// `Some(usize::MAX)` grows codewords on all features. Refinement ignores this.
    pub init_size: Option<usize>,
    /// Called after each level or round with its number and the error that it leaves.
    pub progress: Option<&'a mut dyn FnMut(usize, f64)>,
    /// Ends the fit with [`Error::Interrupted`] soon after another thread sets it to true.
    pub interrupt: Option<&'a AtomicBool>,
}

impl FitOptions<'_> {
    /// The default of `init_size`: 64 features per codeword of 256 (docs/codes.md).
    pub const INIT_SIZE: usize = 1 << 14;

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
            .field("init_size", &self.init_size)
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
