//! The error of this crate.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::ImageShape;

/// An error of this crate.
///
/// Errors of parsers do not know their file. Functions that open files wrap such an error in
/// [`Error::InFile`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Files.
    /// The system refused to open or read a file or folder: the verb, the path and the reason.
    #[error("cannot {0} {path}", path = .1.display())]
    Io(&'static str, PathBuf, #[source] io::Error),
    /// A file does not exist: the path and what to do.
    #[error("{path}: no such file, {1}", path = .0.display())]
    NotFound(PathBuf, &'static str),
    /// A name is not UTF-8 or has a line break, so that no list of names can hold it.
    #[error("the name {0:?} is not UTF-8 text in one line, rename the file")]
    Name(PathBuf),
    /// The error concerns this file or folder.
    #[error("{path}: {1}", path = .0.display())]
    InFile(PathBuf, Box<Error>),
    /// The error concerns this line of a file, counted from 1.
    #[error("line {0}: {1}")]
    InLine(usize, Box<Error>),
    /// A file differs from its checksum: the kind of checksum, what was found and what is expected.
    #[error("its {0} is {1}, dataset.toml says {2}, get the file again from its source")]
    Checksum(&'static str, String, String),
    /// A compressed file, an archive or a line cannot be read.
    #[error("damaged data ({0}), get the file again")]
    Damaged(io::Error),
    /// The contents of a file break the rules of their format, or contradict each other: what was
    /// found, and what is expected or what to do.
    #[error("{0}, {1}")]
    Invalid(String, Cow<'static, str>),
    /// A file of an archive does not consist of whole records: its name, its bytes, and those of a
    /// record.
    #[error("{0} has {1} bytes, expected records of {2} bytes, get the file again")]
    Records(String, usize, usize),
    /// `dataset.toml` is not valid TOML or has an unknown or missing key.
    #[error("{0}")]
    Manifest(String),
    /// A word is not followed by this many numbers.
    #[error("`{0}` is not followed by {1} finite numbers")]
    VectorLine(String, usize),
    /// Words of class names have no vector.
    #[error("no vector for `{}`, rename these classes or take other word vectors", .0.join("`, `"))]
    NoVector(Vec<String>),

    // Images.
    /// An image cannot be decoded: the path and the decoder's reason.
    #[error("{} cannot be read as an image", .0.display())]
    Image(PathBuf, #[source] image::ImageError),
    /// An image ends before its last pixel.
    #[error("{} is cut off, get the file again", .0.display())]
    CutOff(PathBuf),
    /// An image made its decoder panic.
    #[error("{} makes the image decoder panic, save it again with another program", .0.display())]
    DecoderPanic(PathBuf),
    /// No image can have this shape.
    #[error("images of {0}, expected 1 or 3 channels and sides of 1 to 4096")]
    ImpossibleShape(ImageShape),
    /// Images have the first shape, and the second is expected.
    #[error("images of {0}, expected {1}")]
    Shape(ImageShape, ImageShape),
    /// Images have the first shape and cannot become the second.
    #[error("images of {0}, they cannot become {1}")]
    Resize(ImageShape, ImageShape),
    /// A buffer has another length than an image: what was found and what is expected.
    #[error("a buffer of {0} bytes, expected {1}, those of one image")]
    BufferLength(usize, usize),
    /// A row does not exist: the row and the number of images.
    #[error("row {0}, the data set has {1} images")]
    NoSuchRow(usize, usize),

    // Splits.
    /// A name is not that of a split.
    #[error("split is `{0}`, expected `train`, `query` or `gallery`")]
    UnknownSplit(String),
    /// More training images are to be held out than there are: both numbers.
    #[error("cannot hold out {0} of {1} training images, expected fewer")]
    HoldOut(usize, usize),
}

impl Error {
    pub(crate) fn invalid(found: impl Into<String>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(found.into(), remedy.into())
    }

    /// Returns the text of a file.
    pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Self> {
        String::from_utf8(bytes).map_err(|_| Self::invalid("not UTF-8 text", "save it as UTF-8"))
    }

    pub(crate) fn in_file(self, path: impl Into<PathBuf>) -> Self {
        Self::InFile(path.into(), Box::new(self))
    }

    pub(crate) fn in_line(self, line: usize) -> Self {
        Self::InLine(line, Box::new(self))
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io(action, path, source)
    }
}
