//! The error of this crate.

use std::io;
use std::path::PathBuf;

use crate::{ImageShape, Split};

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
    /// A file is not UTF-8 text.
    #[error("not UTF-8 text")]
    NotText,

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

    // `dataset.toml`.
    /// `dataset.toml` is not valid TOML or has an unknown or missing key.
    #[error("{0}")]
    Manifest(String),
    /// `dataset.toml` names a class twice.
    #[error("class `{0}` is named twice, expected each class once")]
    RepeatedClassName(String),
    /// An image has a class that `dataset.toml` does not name: the class and the number of classes.
    #[error("an image has class `{0}`, expected one of the {1} of dataset.toml")]
    UnknownClass(String, usize),
    /// A class number is too large: the number and the number of classes.
    #[error("class {0}, dataset.toml names {1} classes, counted from 0")]
    ClassNumber(u8, usize),
    /// `dataset.toml` defines no splits.
    #[error("no splits, add [splits] with files or [protocol] with numbers of images")]
    NoSplits,
    /// `dataset.toml` defines splits for images that already have splits.
    #[error("splits twice, these images come with theirs: remove [splits] and [protocol]")]
    SplitsTwice,
    /// Splits cannot be drawn for images that come with theirs.
    #[error("these images come with their splits, so none can be drawn")]
    OwnSplits,
    /// Splits cannot be drawn because `dataset.toml` names files of splits.
    #[error("has [splits], remove it and move its files away to draw others")]
    SplitFiles,

    // Folders and lists.
    /// A folder has no image.
    #[error("no image in this folder, expected .png, .jpg, .webp, .gif, .bmp or .tiff files")]
    NoImages,
    /// An image lies beside the folders of classes.
    #[error("an image beside sub-folders, expected every image in the folder of its class")]
    StrayImage,
    /// The folder of a class has sub-folders.
    #[error("a folder inside the folder of a class, expected images only")]
    InnerFolder,
    /// A list names no image.
    #[error("no image in this list, expected lines of a path and its classes")]
    EmptyList,
    /// An image is listed twice: the path and the line where it is first.
    #[error("`{0}` is on line {1} too, expected each image once with all its classes")]
    RepeatedPath(String, usize),
    /// An image has no class, unlike the images above.
    #[error("`{0}` has no class, the lines above have, expected classes for all or none")]
    MissingClass(String),
    /// An image has a class, unlike the images above.
    #[error("`{0}` has a class, the lines above have none, expected classes for all or none")]
    UnexpectedClass(String),
    /// A class has the name of an image file.
    #[error("`{0}` stands where a class is expected, put double quotes around a path with spaces")]
    PathAsClass(String),
    /// An image has a class twice, as columns of 0 and 1 would.
    #[error(
        "class `{0}` stands twice, set labels = \"multi-hot\" in dataset.toml if columns are 0 or 1 for each class"
    )]
    RepeatedClass(String),
    /// All classes of all images are the words 0 and 1, several for each image.
    #[error(
        "columns of 0 and 1 only, set labels = \"multi-hot\" in dataset.toml for a 0 or 1 for each class"
    )]
    MultiHotColumns,
    /// A multi-hot row is not one 0 or 1 for each class: the path, the row, and the number of
    /// classes.
    #[error("`{0}` is followed by `{1}`, expected a 0 or 1 for each of {2} classes")]
    MultiHotRow(String, String, usize),

    // Binary formats and word vectors.
    /// A file is not an IDX file of bytes.
    #[error("not an IDX file of bytes: it begins with {0:02x?}, expected [00, 00, 08, dimensions]")]
    IdxMagic([u8; 4]),
    /// The sizes of an IDX header overflow.
    #[error("the IDX header claims the impossible shape {0:?}")]
    IdxShape(Vec<usize>),
    /// An IDX file has fewer bytes than its header claims: the claim and what was found.
    #[error("the IDX header claims {0} bytes, {1} follow, get the file again")]
    IdxShort(usize, usize),
    /// An IDX file has more bytes than its header claims.
    #[error("the IDX header claims {0} bytes, more follow, get the file again")]
    IdxLong(usize),
    /// An IDX array of images has another shape than `dataset.toml` says.
    #[error("an array of shape {0:?}, dataset.toml says images of {1}")]
    IdxImages(Vec<usize>, ImageShape),
    /// An IDX array of labels does not have one label per image: its shape and the number of
    /// images.
    #[error(
        "labels of shape {0:?} for {1} images, expected one label per image, take both files from one release"
    )]
    IdxLabels(Vec<usize>, usize),
    /// An archive lacks a file.
    #[error("no file {0} in this archive, get the binary version of the set")]
    NoMember(String),
    /// A file of an archive does not consist of whole records: its name, its bytes, and those of a
    /// record.
    #[error("{0} has {1} bytes, expected records of {2} bytes, get the file again")]
    Records(String, usize, usize),
    /// A line of word vectors is longer than this number of bytes.
    #[error("longer than {0} bytes, expected a word and its vector")]
    LongLine(u64),
    /// A word is not followed by this many numbers.
    #[error("`{0}` is not followed by {1} finite numbers")]
    VectorLine(String, usize),
    /// Words of class names have no vector.
    #[error("no vector for `{}`, rename these classes or take other word vectors", .0.join("`, `"))]
    NoVector(Vec<String>),

    // Splits.
    /// A name is not that of a split.
    #[error("split is `{0}`, expected `train`, `query` or `gallery`")]
    UnknownSplit(String),
    /// A line is not a row number.
    #[error("`{0}` is not a row number")]
    RowNumber(String),
    /// A split has a row that does not exist: the split, the row and the number of rows.
    #[error("the {0} split has row {1}, the data set has {2} rows")]
    SplitRow(Split, u32, usize),
    /// A row is in two splits, or twice in one.
    #[error("row {0} is in the {1} split and again in the {2} split, expected disjoint splits")]
    SharedRow(u32, Split, Split),
    /// An image is in the lists of two splits.
    #[error("`{0}` is in the {1} list and again in the {2} list, expected disjoint lists")]
    SharedPath(String, Split, Split),
    /// An image has different classes in two lists.
    #[error("`{0}` has other classes in the {2} list than in the {1} list")]
    DifferentClasses(String, Split, Split),
    /// The gallery list lacks training images: how many it has and how many there are.
    #[error("the gallery list has {0} of the {1} training images, `train_in_gallery` expects all of them")]
    TrainNotInGallery(usize, usize),
    /// A class has no training image.
    #[error("class `{0}` has no training image, add some or remove the class")]
    NoTrainingImage(String),
    /// A split has no image.
    #[error("the {0} split is empty")]
    EmptySplit(Split),
    /// A protocol takes more images than there are: of what, how many there are, queries, training
    /// images.
    #[error(
        "{0} has {1} images, the protocol takes {2} queries and {3} training images of it, lower these numbers or add images"
    )]
    TooFewImages(String, usize, usize, usize),
    /// Numbers of images per class need one class per image: the row and its number of classes.
    #[error(
        "numbers of each class need one class per image, row {0} has {1}, give `queries` and `train` in all or [splits] files"
    )]
    NotOneClass(usize, usize),
    /// More training images are to be held out than there are: both numbers.
    #[error("cannot hold out {0} of {1} training images, expected fewer")]
    HoldOut(usize, usize),
    /// Files of splits were drawn from another number of images: theirs and that of the set.
    #[error("the splits are of {0} images, the set has {1}, {DRAW_AGAIN}")]
    OtherCount(usize, usize),
    /// Files of splits were drawn from images of other names.
    #[error("the splits are of images of other names or another order, {DRAW_AGAIN}")]
    OtherNames,

    // Collages.
    /// Collages cannot be made of collages.
    #[error("collages, expected images of one class each to make collages of")]
    NestedCollages,
    /// The source of collages has too few classes: how many, and the minimum.
    #[error("the source has {0} classes, expected at least {1}")]
    CollageClasses(usize, usize),
    /// An image of the source does not have exactly one class.
    #[error("row {0} of the source has {1} classes, expected one")]
    CollageSource(u32, usize),
    /// A split of the source has no image of some class.
    #[error("the {0} split of the source lacks images of a class")]
    CollageSplit(Split),
}

const DRAW_AGAIN: &str = "bring the images back, or remove [splits] from dataset.toml, move its files away and draw others \
                          with `dpq data split`";

impl Error {
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
