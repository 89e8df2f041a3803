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
    /// A name is unknown.
    #[error("{what}: found `{found}`, expected {expected}")]
    Unknown {
        /// The thing that is named: `preset` or `device`.
        what: &'static str,
        /// The name.
        found: String,
        /// The known names.
        expected: String,
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

    /// The training set has this number of items and of classes.
    #[error("training set: found {0} items of {1} classes, expected at least 2 of 1")]
    Empty(usize, usize),
    /// Residual k-means needs an item for each codeword.
    #[error("quantizer.codewords: found {n_codewords}, expected at most the {n_items} training items")]
    TooFewItems {
        /// Number of training items.
        n_items: usize,
        /// Codewords per level.
        n_codewords: usize,
    },
    /// The labels are not multi-hot rows, one per item.
    #[error("labels: found {found} values, expected {n_items} × {n_classes} that are 0 or 1")]
    Labels {
        /// Number of values.
        found: usize,
        /// Number of items.
        n_items: usize,
        /// Number of classes.
        n_classes: usize,
    },
    /// An item has no label, or several in a training set that is not multi-label.
    #[error("labels: item {item} has {found}, expected {expected}")]
    Label {
        /// The row of the item.
        item: usize,
        /// The number of its labels.
        found: usize,
        /// The numbers that are possible.
        expected: &'static str,
    },
    /// The label embeddings do not have one row per class.
    #[error("label embeddings: found {found} values, expected {n_classes} classes × {dim} dimensions")]
    Embeddings {
        /// Number of values.
        found: usize,
        /// Number of classes.
        n_classes: usize,
        /// Dimension of a feature.
        dim: usize,
    },
    /// The label embedding of this class has no direction.
    #[error("label embeddings: the vector of class {0} is 0 or not finite, expected a direction")]
    Embedding(usize),
    /// Pretrained weights, or arrays to import as weights, are those of another network.
    #[error("weights: found {found}, expected {expected}")]
    Weights {
        /// The body of the weights, or the unexpected or missing arrays.
        found: String,
        /// The body or the arrays of the network.
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
    /// The bytes are not whole images.
    #[error("images: found {found} bytes, expected images of {c}x{h}x{w} bytes", c = shape[0], h = shape[1], w = shape[2])]
    Images {
        /// Number of bytes.
        found: usize,
        /// The shape of an image, `[C, H, W]`.
        shape: [usize; 3],
    },
    /// The numbers are not whole rows.
    #[error("{what}: found {found} numbers, expected rows of {columns}")]
    Rows {
        /// The argument.
        what: &'static str,
        /// Number of numbers.
        found: usize,
        /// The length of a row.
        columns: usize,
    },
    /// A feature holds a number that is not finite.
    #[error("features: row {row}, column {column} is {value}, expected finite numbers")]
    NotFinite {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The number.
        value: f32,
    },
    /// The temperature of a softmax is not a finite number above 0.
    #[error("temperature: found {0}, expected a finite number above 0")]
    Temperature(f32),

    /// An array has another shape.
    #[error("weights: `{name}` has shape {found:?}, expected {expected:?}")]
    ArrayShape {
        /// The array.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape in the network.
        expected: Vec<usize>,
    },
    /// An array holds a number that is not finite.
    #[error("weights: `{name}` holds {value}, expected finite numbers")]
    ArrayNotFinite {
        /// The array.
        name: String,
        /// The number.
        value: f32,
    },

    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file has another format or version.
    #[error("{}: the file holds a `{found}`, expected {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format and version.
        found: String,
        /// The format and version that this program reads.
        expected: &'static str,
    },
    /// The contents of the file contradict each other, which no writer of dpq leaves.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The contradiction, in words.
        what: String,
    },
    /// The checkpoint belongs to another run.
    #[error(
        "{}: the checkpoint is of another configuration or data set, resume with those or train without --resume",
        .0.display()
    )]
    OtherRun(PathBuf),
    /// The codebooks cannot be fitted or used.
    #[error(transparent)]
    Codebooks(Box<dpq_codebook::Error>),
    /// Training diverged. If there is a checkpoint, it is from before that.
    #[error(
        "{what} is {value} in epoch {epoch}, step {step}, expected finite numbers, lower the learning rate \
         ({} says more)",
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
    /// The caller set `stop`. The checkpoint is whole.
    #[error("training was interrupted in epoch {epoch}, resume it from its checkpoint")]
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
    pub(crate) fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), what: what.into() }
    }
}
