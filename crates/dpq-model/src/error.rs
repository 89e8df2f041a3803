//! Errors of models and training.

use std::path::{Path, PathBuf};

/// An error of the caller's own code, for example of a reader of images.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the configuration cannot be used.
    #[error("{key}: expected {expected}")]
    Config {
        /// The setting, as `quantizer.levels`.
        key: &'static str,
        /// Its range, or what it depends on.
        expected: &'static str,
    },
    /// The device is missing, or the program was built without support for it.
    #[error("device: {device} cannot be used: {reason}")]
    Device {
        /// The device, as `cuda:0`.
        device: String,
        /// The reason, in words of its driver.
        reason: String,
    },
    /// The inputs are too small for the layers of the network.
    #[error("image shape: found {0:?}, too small for the network")]
    TooSmall([usize; 3]),

    /// A name is unknown, or the training set, arrays to import as weights, or inputs of the
    /// network are not what the configuration needs.
    #[error("{what}: {found}, expected {expected}")]
    Unfit {
        /// The argument, as `labels`.
        what: &'static str,
        /// A clause about it, as `found 3 values`.
        found: String,
        /// The possible values.
        expected: String,
    },
    /// The caller's reader failed.
    #[error("training item {row} cannot be read")]
    Input {
        /// The row in the training set.
        row: usize,
        /// The error of the reader.
        source: BoxError,
    },
    /// The caller's `on_epoch` failed.
    #[error("the report of the epoch was refused")]
    Callback(#[source] BoxError),

    /// The model takes features of this dimension, not images.
    #[error("images: found images, the model takes features of {0} numbers")]
    TakesFeatures(usize),
    /// The model takes images of this shape, not features.
    #[error("features: found features, the model takes images of {0:?} bytes")]
    TakesImages([usize; 3]),

    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file has another format or version, its contents contradict each other, or a checkpoint
    /// belongs to another run.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// A clause about the contents.
        what: String,
    },
    /// The codebooks cannot be fitted or used.
    #[error(transparent)]
    Codebooks(Box<dpq_codebook::Error>),
    /// Training diverged. If there is a checkpoint, it is from before that.
    #[error(
        "{what} is {value} in epoch {}, step {}, expected finite numbers, lower the learning rate \
         ({} says more)",
        epoch + 1,
        step + 1,
        dump.display()
    )]
    Diverged {
        /// The epoch, counted from 0.
        epoch: usize,
        /// The step of the epoch, counted from 0.
        step: usize,
        /// The first loss that is not finite, or the first parameter if all losses are finite.
        what: String,
        /// Its value.
        value: f64,
        /// A JSON file with the losses of the step, the first parameter that is not finite and the
        /// path of the checkpoint.
        dump: PathBuf,
    },
    /// The folder has the model or the checkpoint of an earlier run, which a new run would replace.
    #[error(
        "{} is of an earlier training, which a new one would replace: continue it with --resume, or train \
         into another folder",
        .0.display()
    )]
    Exists(PathBuf),
    /// The caller set `stop`. The checkpoint is whole.
    #[error("training was interrupted in epoch {}, continue it with --resume", epoch + 1)]
    Interrupted {
        /// The epoch that was not finished, counted from 0.
        epoch: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<dpq_codebook::Error> for Error {
    fn from(error: dpq_codebook::Error) -> Self {
        Self::Codebooks(Box::new(error))
    }
}

impl Error {
    pub(crate) fn unfit(what: &'static str, found: String, expected: impl Into<String>) -> Self {
        Self::Unfit { what, found, expected: expected.into() }
    }

    pub(crate) fn rows(what: &'static str, found: usize, columns: usize) -> Self {
        Self::unfit(what, format!("found {found} numbers"), format!("rows of {columns}"))
    }

    pub(crate) fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), what: what.into() }
    }
}
