//! Images and their classes, from whatever they are stored in.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::list::parse_list;
use crate::manifest::{DataFile, IdxPart, Images, Manifest, read_file};
use crate::split::Splits;
use crate::{Error, ImageShape, Split, parse_idx, read_image};

/// Images, the classes of each, and splits. Rows count from 0 and are the images' ids.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    shape: ImageShape,
    class_names: Vec<String>,
    pixels: Pixels,
    /// The classes of row i are `labels[label_starts[i]..label_starts[i + 1]]`.
    labels: Vec<u32>,
    label_starts: Vec<usize>,
    splits: Option<Splits>,
}

#[derive(Debug)]
enum Pixels {
    Memory(Vec<u8>),
    Files(Vec<PathBuf>),
}

impl Dataset {
    /// Opens a data set folder by its `dataset.toml` and checks its files against the checksums there.
    ///
    /// The format is described in `datasets/README.md`. Splits are the files under `[splits]`, or else what `[protocol]`
    /// draws.
    ///
    /// # Errors
    /// [`Error::File`] names a file that is damaged, [`Error::Split`] says why the splits cannot be.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("dataset.toml");
        let manifest = Manifest::read(&path)?;
        let shape = manifest.shape.check(&path)?;
        let mut dataset = match &manifest.images {
            Images::Idx { parts } => Self::from_idx(dir, shape, parts, manifest.classes)?,
            Images::Folder { path: images } => {
                Self::from_folder(&dir.join(images), shape)?.with_classes(manifest.classes, &path)?
            }
            Images::List { path: list } => {
                Self::from_list(&dir.join(list), shape)?.with_classes(manifest.classes, &path)?
            }
        };
        dataset.name = manifest.name;
        let [query, train] = match (&manifest.splits, &manifest.protocol) {
            (Some(files), _) => [files.query.read_rows(dir)?, files.train.read_rows(dir)?],
            (None, Some(protocol)) => protocol.draw(&dataset.only_labels(&path)?, &dataset.class_names)?,
            (None, None) => {
                return Err(Error::file(
                    path,
                    "no splits, add [splits] with files or [protocol] with numbers a class",
                ));
            }
        };
        let classes_of = |row| dataset.labels(row as usize).to_vec();
        dataset.splits = Some(Splits::new(query, train, dataset.len(), &classes_of, &dataset.class_names)?);
        Ok(dataset)
    }

    /// Finds the PNG and JPEG images of a folder, in the order of their names.
    ///
    /// Sub-folders are classes. Without any, the folder's own images are taken, and they have no class. Hidden files and
    /// files that are not named `.png`, `.jpg` or `.jpeg` are skipped.
    ///
    /// # Errors
    /// [`Error::File`] if there is no image, images lie beside sub-folders, or a class has folders inside; [`Error::Io`] if
    /// the folder cannot be read.
    pub fn from_folder(dir: &Path, shape: ImageShape) -> Result<Self, Error> {
        let shape = shape.check(dir)?;
        let (folders, own) = folders_and_images(dir)?;
        if folders.is_empty() {
            if own.is_empty() {
                return Err(Error::file(dir, "no PNG or JPEG image in this folder"));
            }
            let label_starts = vec![0; own.len() + 1];
            return Ok(Self::new(dir, shape, vec![], Pixels::Files(own), vec![], label_starts));
        }
        if let Some(stray) = own.first() {
            return Err(Error::file(
                stray,
                "an image beside sub-folders, expected every image in the folder of its class",
            ));
        }
        let (mut paths, mut labels, mut names) = (vec![], vec![], vec![]);
        for (class, folder) in (0..).zip(&folders) {
            let (inner, images) = folders_and_images(folder)?;
            if let Some(inner) = inner.first() {
                return Err(Error::file(
                    inner,
                    "a folder inside the folder of a class, expected images only",
                ));
            }
            if images.is_empty() {
                return Err(Error::file(folder, "no PNG or JPEG image in the folder of this class"));
            }
            labels.extend(images.iter().map(|_| class));
            paths.extend(images);
            names.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        let label_starts = (0..=labels.len()).collect();
        Ok(Self::new(dir, shape, names, Pixels::Files(paths), labels, label_starts))
    }

    /// Reads a list of images: lines of a path, relative to the list's folder, and its classes, separated by white space.
    ///
    /// Empty lines and lines that begin with `#` are skipped. Classes are whatever words occur: numbers first, by value,
    /// then names. (`classes` in `dataset.toml` fixes them, and then a class may be a name or an index.)
    ///
    /// # Errors
    /// [`Error::File`] if there is no image, an image occurs twice, or only some have classes.
    pub fn from_list(list: &Path, shape: ImageShape) -> Result<Self, Error> {
        let shape = shape.check(list)?;
        let text = String::from_utf8(read_file(list, "correct the path or make the list")?)
            .map_err(|_| Error::file(list, "not UTF-8 text, expected lines of a path and its classes"))?;
        let items = parse_list(&text).map_err(|reason| Error::file(list, reason))?;
        let mut names: Vec<&str> = items.iter().flat_map(|(_, classes)| classes).copied().collect();
        let order = |name: &str| (name.parse::<u64>().unwrap_or(u64::MAX), name.to_owned());
        names.sort_by_cached_key(|name| order(name));
        names.dedup();
        let classes: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
        let folder = list.parent().unwrap_or(Path::new(""));
        let (mut labels, mut label_starts) = (vec![], vec![0]);
        for (_, words) in &items {
            let mut own: Vec<u32> = words.iter().map(|name| classes[name]).collect();
            own.sort_unstable();
            own.dedup();
            labels.extend(own);
            label_starts.push(labels.len());
        }
        let paths = items.iter().map(|(path, _)| folder.join(path)).collect();
        let names = names.into_iter().map(str::to_owned).collect();
        Ok(Self::new(list, shape, names, Pixels::Files(paths), labels, label_starts))
    }

    /// Makes `names` the classes, in this order; the classes so far are among these names or are indices into them.
    fn with_classes(mut self, names: Vec<String>, manifest: &Path) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(self);
        }
        let index = |class: &String| {
            let by_name = names.iter().position(|name| name == class);
            let by_index = || class.parse().ok().filter(|&index| index < names.len());
            by_name.or_else(by_index).map(|index| index as u32).ok_or_else(|| {
                let reason =
                    format!("an image has class `{class}`, expected one of the {} classes here", names.len());
                Error::file(manifest, reason)
            })
        };
        let new = self.class_names.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        // A name and its index are the same class, so an image may have had it twice.
        let (mut labels, mut label_starts) = (vec![], vec![0]);
        for row in 0..self.len() {
            let mut own: Vec<u32> = self.labels(row).iter().map(|&class| new[class as usize]).collect();
            own.sort_unstable();
            own.dedup();
            labels.extend(own);
            label_starts.push(labels.len());
        }
        (self.class_names, self.labels, self.label_starts) = (names, labels, label_starts);
        Ok(self)
    }

    fn from_idx(dir: &Path, shape: ImageShape, parts: &[IdxPart], names: Vec<String>) -> Result<Self, Error> {
        let (mut pixels, mut labels) = (vec![], vec![]);
        for part in parts {
            let parse = |file: &DataFile| {
                parse_idx(&file.read(dir)?).map_err(|reason| Error::file(dir.join(&file.file), reason))
            };
            let (size, images) = parse(&part.images)?;
            let (n, classes) = parse(&part.labels)?;
            if size.len() != 3 || size[1..] != [shape.height, shape.width] || shape.channels != 1 {
                let reason = format!("an array of shape {size:?}, dataset.toml says images of {shape}");
                return Err(Error::file(dir.join(&part.images.file), reason));
            }
            if n[..] != size[..1] {
                let reason = format!(
                    "labels of shape {n:?} for {} images, expected one label an image, take both files from one release",
                    size[0]
                );
                return Err(Error::file(dir.join(&part.labels.file), reason));
            }
            if let Some(class) = classes.iter().find(|&&class| usize::from(class) >= names.len()) {
                let reason =
                    format!("class {class}, dataset.toml names {} classes, counted from 0", names.len());
                return Err(Error::file(dir.join(&part.labels.file), reason));
            }
            pixels.extend(images);
            labels.extend(classes.into_iter().map(u32::from));
        }
        let label_starts = (0..=labels.len()).collect();
        Ok(Self::new(dir, shape, names, Pixels::Memory(pixels), labels, label_starts))
    }

    fn new(
        path: &Path,
        shape: ImageShape,
        class_names: Vec<String>,
        pixels: Pixels,
        labels: Vec<u32>,
        label_starts: Vec<usize>,
    ) -> Self {
        let name = path.display().to_string();
        Self { name, shape, class_names, pixels, labels, label_starts, splits: None }
    }

    /// The name in `dataset.toml`, or the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Images.
    pub fn len(&self) -> usize {
        self.label_starts.len() - 1
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Classes; 0 if images have none.
    pub fn n_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The name of each class.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The rows of a split, ascending; none unless [`Dataset::open`] made this data set.
    pub fn split(&self, split: Split) -> &[u32] {
        self.splits.as_ref().map_or(&[], |splits| match split {
            Split::Train => &splits.train,
            Split::Query => &splits.query,
            Split::Gallery => &splits.gallery,
        })
    }

    /// The classes of a row, ascending.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn labels(&self, row: usize) -> &[u32] {
        &self.labels[self.label_starts[row]..self.label_starts[row + 1]]
    }

    /// The classes of rows as u8 `[n, C]`, 1 where a row has the class.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn multi_hot(&self, rows: &[u32]) -> Vec<u8> {
        let mut hot = vec![0; rows.len() * self.n_classes()];
        for (hot, &row) in hot.chunks_exact_mut(self.n_classes().max(1)).zip(rows) {
            self.labels(row as usize).iter().for_each(|&class| hot[class as usize] = 1);
        }
        hot
    }

    /// The file of a row; none where images are not files.
    pub fn path(&self, row: usize) -> Option<&Path> {
        match &self.pixels {
            Pixels::Memory(_) => None,
            Pixels::Files(paths) => paths.get(row).map(PathBuf::as_path),
        }
    }

    /// Reads an image into `out`, u8 `[C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Image`] if its file cannot be read.
    ///
    /// # Panics
    /// If there is no such row, or `out` does not have the length of an image.
    pub fn read(&self, row: usize, out: &mut [u8]) -> Result<(), Error> {
        match &self.pixels {
            Pixels::Memory(pixels) => {
                out.copy_from_slice(&pixels[row * self.shape.len()..][..self.shape.len()])
            }
            Pixels::Files(paths) => out.copy_from_slice(&read_image(&paths[row], self.shape)?),
        }
        Ok(())
    }

    /// The one label of each row, which drawing splits by class needs.
    fn only_labels(&self, manifest: &Path) -> Result<Vec<u32>, Error> {
        let only = |row| match *self.labels(row) {
            [label] => Ok(label),
            ref labels => {
                let reason = format!(
                    "[protocol] needs one class an image, row {row} has {}, give [splits] files instead",
                    labels.len()
                );
                Err(Error::file(manifest, reason))
            }
        };
        (0..self.len()).map(only).collect()
    }
}

/// The folders and the images in a folder, each in the order of their names, so that rows do not depend on the disk.
fn folders_and_images(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let entries = fs::read_dir(dir).map_err(Error::io("read folder", dir))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io("read folder", dir))?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    paths.sort_unstable();
    let (folders, mut files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    files.retain(|path| is_image(path));
    Ok((folders, files))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].contains(&extension.as_str()))
}
