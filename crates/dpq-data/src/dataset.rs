//! Images, their classes, and splits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::files::{self, Files};
use crate::labels::Labels;
use crate::list::{self, LabelForm};
use crate::pixels::Pixels;
use crate::split::Splits;
use crate::{Error, ImageShape, Split, sha256};

/// Images, the classes of each, and splits. Rows count from 0 and are the ids of images.
#[derive(Debug)]
pub struct Dataset {
    pub(crate) name: String,
    pub(crate) shape: ImageShape,
    pub(crate) class_names: Vec<String>,
    pub(crate) pixels: Pixels,
    pub(crate) labels: Labels,
    pub(crate) splits: Option<Splits>,
    pub(crate) skipped: BTreeMap<String, usize>,
}

impl Dataset {
    /// Reads a list of images. A line is a path, relative to the list's folder, and classes,
    /// separated by white space.
    ///
    /// A path with spaces stands in double quotes. Empty lines and lines that begin with `#` are
    /// skipped. The words that occur are the classes: numbers first, by value, then names.
    /// (`classes` in `dataset.toml` fixes them, and then a class may be a name or an index.)
    ///
    /// # Errors
    /// [`Error::InFile`] if the list is invalid: no image, an image that occurs twice, classes for
    /// some images only, or columns of 0 and 1; [`Error::NotFound`] or [`Error::Io`] if it cannot
    /// be read; [`Error::ImpossibleShape`].
    pub fn from_list(path: impl AsRef<Path>, shape: ImageShape) -> Result<Self, Error> {
        let (path, shape) = (path.as_ref(), shape.check()?);
        let bytes = files::read(path, "correct the path or make the list")?;
        let items =
            list::read_items(bytes, LabelForm::Classes, &mut 0).map_err(|error| error.in_file(path))?;
        let (class_names, labels) = list::named_classes(&items);
        let paths = list::paths(path.parent().unwrap_or(Path::new("")), &items);
        Ok(Self::new(path, shape, class_names, Pixels::Files(paths, Files::Disk), labels))
    }

    pub(crate) fn new(
        path: &Path,
        shape: ImageShape,
        class_names: Vec<String>,
        pixels: Pixels,
        labels: Labels,
    ) -> Self {
        let (name, skipped) = (path.display().to_string(), BTreeMap::new());
        Self { name, shape, class_names, pixels, labels, splits: None, skipped }
    }

    /// Returns the same images in another shape. Files are read in this shape. Other images are
    /// resized by a Catmull-Rom filter, and gray ones become three equal channels.
    ///
    /// # Errors
    /// [`Error::ImpossibleShape`] for a shape that no image has, [`Error::Resize`] for gray in
    /// place of colours in memory.
    pub fn resized(mut self, shape: ImageShape) -> Result<Self, Error> {
        match self.pixels.stored_shape() {
            Some(stored) if shape.channels < stored.channels => Err(Error::Resize(stored, shape)),
            _ => {
                self.shape = shape.check()?;
                Ok(self)
            }
        }
    }

    /// Returns the name in `dataset.toml`, or the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns true if there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of classes, 0 if images have none.
    pub fn n_classes(&self) -> usize {
        self.class_names.len()
    }

    /// Returns the name of each class.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Returns the rows of a split, ascending. There are none unless the data set was opened by its
    /// `dataset.toml`.
    pub fn split(&self, split: Split) -> &[u32] {
        self.splits.as_ref().map_or(&[], |splits| splits.rows(split))
    }

    /// Returns the classes that training images have, ascending: all of them unless the protocol
    /// leaves some unseen.
    pub fn trained_classes(&self) -> Vec<u32> {
        let train = self.split(Split::Train).iter();
        let classes: BTreeSet<u32> = train.flat_map(|&row| self.labels(row as usize)).copied().collect();
        classes.into_iter().collect()
    }

    /// Returns the classes of a row, ascending.
    ///
    /// # Panics
    /// If the row does not exist, as for the index of a slice.
    pub fn labels(&self, row: usize) -> &[u32] {
        self.labels.of(row)
    }

    /// Returns the classes of rows as u8 `[n, C]`, 1 where a row has the class.
    ///
    /// # Panics
    /// If a row does not exist, as for the index of a slice.
    pub fn multi_hot(&self, rows: &[u32]) -> Vec<u8> {
        let mut hot = vec![0; rows.len() * self.n_classes()];
        for (hot, &row) in hot.chunks_exact_mut(self.n_classes().max(1)).zip(rows) {
            self.labels(row as usize).iter().for_each(|&class| hot[class as usize] = 1);
        }
        hot
    }

    /// Returns the file of a row, `None` if images are not files or the row does not exist. The
    /// path of a file in an archive begins with that of the archive.
    pub fn path(&self, row: usize) -> Option<&Path> {
        self.pixels.path(row)
    }

    /// Returns how many files of an image folder were skipped, by extension: those that are not
    /// images.
    pub fn skipped(&self) -> &BTreeMap<String, usize> {
        &self.skipped
    }

    /// Reads an image into `out`, u8 `[C, H, W]`.
    ///
    /// # Errors
    /// Those of [`read_image`](crate::read_image) if its file cannot be read; [`Error::NoSuchRow`];
    /// [`Error::BufferLength`] if `out` does not have the length of an image.
    pub fn read(&self, row: usize, out: &mut [u8]) -> Result<(), Error> {
        self.read_in(row, [self.shape.height, self.shape.width], out)
    }

    /// Reads an image into `out` in another size, see [`Dataset::resized`].
    ///
    /// # Errors
    /// Those of [`Dataset::read`], and [`Error::ImpossibleShape`].
    pub fn read_in(&self, row: usize, [height, width]: [usize; 2], out: &mut [u8]) -> Result<(), Error> {
        if row >= self.len() {
            return Err(Error::NoSuchRow(row, self.len()));
        }
        let shape = ImageShape { height, width, ..self.shape }.check()?;
        shape.check_buffer(out)?;
        self.pixels.read(row, shape, out)
    }

    /// Returns the SHA-256 of the paths of images in the order of their rows, one per line,
    /// relative to the folder `dir` if they are inside. It changes when rows do. `None` if images
    /// are not files.
    pub fn names_sha256(&self, dir: impl AsRef<Path>) -> Option<String> {
        let names: Option<String> = (0..self.len()).map(|row| self.name_in(dir.as_ref(), row)).collect();
        names.filter(|_| matches!(self.pixels, Pixels::Files(..))).map(|names| sha256(names.as_bytes()))
    }

    /// Returns the SHA-256 of the images of a split: of their paths, as in
    /// [`Dataset::names_sha256`], or of their rows if images are not files.
    pub fn split_sha256(&self, split: Split, dir: impl AsRef<Path>) -> String {
        let name = |row: usize| self.name_in(dir.as_ref(), row).unwrap_or_else(|| format!("{row}\n"));
        let names: String = self.split(split).iter().map(|&row| name(row as usize)).collect();
        sha256(names.as_bytes())
    }

    /// Returns the path of an image relative to the folder `dir` if it is inside, with slashes, as
    /// a line. `None` if images are not files.
    fn name_in(&self, dir: &Path, row: usize) -> Option<String> {
        let path = self.path(row)?;
        let parts = path.strip_prefix(dir).unwrap_or(path).components();
        let parts = parts.filter(|part| *part != Component::CurDir);
        let parts = parts.flat_map(|part| ["/".into(), part.as_os_str().to_string_lossy()]);
        Some(parts.chain(["\n".into()]).collect())
    }
}
