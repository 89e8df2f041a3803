//! What can go wrong with models and training.

use std::path::PathBuf;

/// An error from the caller's own code, such as a reader of images.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration, training set or argument that cannot be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// The field or argument.
        what: &'static str,
        /// What was found, what was expected.
        reason: String,
    },
    /// An input of the training set could not be had.
    #[error("training item {row} cannot be read")]
    Input {
        /// The row in the training set.
        row: usize,
        /// The reader's reason.
        source: BoxError,
    },
    /// The caller's own code refused an epoch's report.
    #[error("the epoch's report could not be taken")]
    Callback(#[source] BoxError),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected.
        reason: String,
    },
    /// The codebooks cannot be fitted or used.
    #[error(transparent)]
    Codebooks(#[from] dpq_codebook::Error),
    /// Training ran away. The last checkpoint, if there is one, is from before that.
    #[error(
        "{what} is {value} in epoch {epoch}, step {step}, expected finite numbers, lower the learning rate ({} says \
         more)",
        dump.display()
    )]
    Diverged {
        /// The epoch, from 0.
        epoch: usize,
        /// The step of the epoch, from 0.
        step: usize,
        /// The first loss that is not finite; the first parameter, if all losses are.
        what: String,
        /// Its value.
        value: f64,
        /// A JSON file with the losses of the step, the first parameter that is not finite and the path of the last
        /// checkpoint.
        dump: PathBuf,
    },
    /// The caller asked to stop. The last checkpoint is whole.
    #[error("training was interrupted in epoch {epoch}, resume it from its checkpoint")]
    Interrupted {
        /// The epoch that was not finished, from 0.
        epoch: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }
}
