//! Data sets that a `dataset.toml` describes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::labels::Labels;
use crate::list::{self, Classes, LabelForm};
use crate::manifest::{IdxPart, Images, ListFiles, Manifest, SplitFiles};
use crate::pixels::Pixels;
use crate::split::{Rows, Splits};
use crate::{
    Dataset, Error, ImageShape, Protocol, SourceFile, Split, cifar, collage, parse_cifar, parse_idx,
};

/// A data set, and the rows of its splits if the images come with splits.
type WithSplits = (Dataset, Option<Rows>);

impl Dataset {
    /// Opens a data set folder by its `dataset.toml` and compares its files with the checksums
    /// there.
    ///
    /// `datasets/README.md` describes the format. Splits are those of the images if these come with
    /// splits, or the files under `[splits]`, or drawn as `[protocol]` says.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`] or [`Error::InFile`] names the file that is missing,
    /// unreadable or invalid. Errors of splits come as they are.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let path = dir.join("dataset.toml");
        from_manifest(dir, &path, Manifest::read(&path)?)
    }

    /// Opens a data set folder that has no splits yet, and draws them as `protocol` says instead of
    /// `[protocol]`.
    ///
    /// # Errors
    /// Those of [`Dataset::open`], and [`Error::Invalid`] in [`Error::InFile`] if splits exist.
    pub fn open_drawn(dir: impl AsRef<Path>, protocol: Protocol) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let path = dir.join("dataset.toml");
        let mut manifest = Manifest::read(&path)?;
        let error = match manifest.images(dir).0 {
            Images::Lists(_) | Images::Collage { .. } => {
                Error::invalid("these images come with their splits", "so none can be drawn")
            }
            _ if manifest.splits.is_some() => {
                Error::invalid("has [splits]", "remove it and move its files away to draw others")
            }
            _ => {
                manifest.protocol = Some(protocol);
                return from_manifest(dir, &path, manifest);
            }
        };
        Err(error.in_file(path))
    }

    /// Makes `classes` the classes, in this order. The classes so far are among their words or are
    /// indices into them.
    fn with_classes(mut self, classes: Classes) -> Result<Self, Error> {
        let Classes { words, names } = classes;
        if words.is_empty() {
            return Ok(self);
        }
        let of_word: HashMap<&String, usize> = words.iter().zip(0..).collect();
        let index = |class: &String| {
            let by_index = || class.parse().ok().filter(|&index| index < words.len());
            of_word.get(class).copied().or_else(by_index).map(|index| index as u32).ok_or_else(|| {
                let expected = format!("expected one of the {} of dataset.toml", words.len());
                Error::invalid(format!("an image has class `{class}`"), expected)
            })
        };
        let new = self.class_names.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        // A name and its index are the same class, so an image may have had it twice.
        (self.labels, self.class_names) = (self.labels.renumber(&new), names);
        Ok(self)
    }

    /// Refuses files of splits that were drawn from other images than these.
    fn check_drawn_from(&self, dir: &Path, files: &SplitFiles) -> Result<(), Error> {
        match (files.items, &files.names_sha256) {
            (Some(items), _) if items != self.len() => {
                let found = format!("the splits are of {items} images, the set has {}", self.len());
                Err(Error::invalid(found, DRAW_AGAIN))
            }
            (_, Some(names)) if self.names_sha256(dir).as_ref() != Some(names) => {
                let found = "the splits are of images of other names or another order";
                Err(Error::invalid(found, DRAW_AGAIN))
            }
            _ => Ok(()),
        }
    }

    /// Refuses images without exactly one class, which drawing splits by class needs.
    fn check_single_labels(&self) -> Result<(), Error> {
        match (0..self.len()).find(|&row| self.labels(row).len() != 1) {
            Some(row) => {
                let n = self.labels(row).len();
                let found = format!("numbers of each class need one class per image, row {row} has {n}");
                Err(Error::invalid(found, "give `queries` and `train` in all or [splits] files"))
            }
            None => Ok(()),
        }
    }
}

const DRAW_AGAIN: &str = "bring the images back, or remove [splits] from dataset.toml, move its files away and draw others \
                          with `dpq data split`";

/// Opens the data set that the file `path` in the folder `dir` describes.
fn from_manifest(dir: &Path, path: &Path, manifest: Manifest) -> Result<Dataset, Error> {
    let in_manifest = |error: Error| error.in_file(path);
    let (mut dataset, own_splits) = read_images(dir, path, &manifest)?;
    let rows = match (own_splits, &manifest.splits, &manifest.protocol) {
        (Some(splits), None, None) => splits,
        (None, Some(files), _) => {
            dataset.check_drawn_from(dir, files)?;
            Rows {
                query: files.query.read_rows(dir)?,
                train: files.train.read_rows(dir)?,
                gallery: files.gallery.as_ref().map(|file| file.read_rows(dir)).transpose()?,
            }
        }
        (None, None, Some(protocol)) => {
            if protocol.needs_single_labels() {
                dataset.check_single_labels().map_err(in_manifest)?;
            }
            protocol.draw(&dataset.labels, &dataset.class_names)?
        }
        (Some(_), ..) => {
            let remedy = "these images come with theirs: remove [splits] and [protocol]";
            return Err(in_manifest(Error::invalid("splits twice", remedy)));
        }
        (None, None, None) => {
            let remedy = "add [splits] with files or [protocol] with numbers of images";
            return Err(in_manifest(Error::invalid("no splits", remedy)));
        }
    };
    let splits = Splits::new(rows, manifest.train_in_gallery, &dataset.labels, &dataset.class_names)?;
    dataset.splits = Some(splits);
    Ok(dataset)
}

/// Reads the images of a data set and their classes.
fn read_images(dir: &Path, path: &Path, manifest: &Manifest) -> Result<WithSplits, Error> {
    let in_manifest = |error: Error| error.in_file(path);
    let shape = manifest.shape.check().map_err(in_manifest)?;
    let (images, alternative) = manifest.images(dir);
    let listed = Classes { words: manifest.classes.clone(), names: manifest.classes.clone() };
    let base = |archive, classes| Base::open(dir, archive, classes, &listed).map_err(in_manifest);
    let (mut dataset, own_splits) = match images {
        Images::Idx { parts } => (from_idx(dir, shape, parts, listed.names)?, None),
        Images::Cifar { .. } if shape != cifar::SHAPE => {
            return Err(in_manifest(Error::Shape(shape, cifar::SHAPE)));
        }
        Images::Cifar { archive, members, label_bytes } => {
            let (labels, pixels) = archive.parse(dir, |bytes| {
                let (labels, pixels) = parse_cifar(&bytes, members, label_bytes.get().into())?;
                Ok((checked_classes(labels, &listed.names)?, pixels))
            })?;
            let pixels = Pixels::Memory(shape, pixels);
            (Dataset::new(dir, shape, listed.names, pixels, Labels::single(labels)), None)
        }
        Images::Folder { path: images, archive, classes } => {
            let Base { files, dir, classes } = base(archive, classes)?;
            let dir = dir.join(images);
            let files = if archive.is_none() { Files::open(&dir)? } else { files };
            let dataset = Dataset::from_files(files, &dir, shape)?;
            (dataset.with_classes(classes).map_err(in_manifest)?, None)
        }
        Images::List { path: list, sha256, root, labels, archive, classes } => {
            let base = base(archive, classes)?;
            let file = SourceFile::local(list, sha256);
            let mut n_columns = base.classes.words.len();
            let read = |bytes| list::read_items(bytes, *labels, &mut n_columns);
            let items = file.parse_in(&base.files, &base.dir, read)?;
            let list = base.dir.join(list);
            let root = root.as_ref().map(|root| base.dir.join(root));
            let root = root.as_deref().or(list.parent()).unwrap_or(&base.dir).to_owned();
            (from_items(base, &root, shape, &items, *labels, n_columns).map_err(in_manifest)?, None)
        }
        Images::Lists(lists) => {
            let base = base(&lists.archive, &lists.classes)?;
            from_lists(base, path, shape, lists, manifest.train_in_gallery)?
        }
        Images::Set { source } => {
            let (dir, path, manifest) = open_source(dir, source)?;
            let (dataset, _) = read_images(&dir, &path, &manifest)?;
            (dataset.resized(shape).map_err(in_manifest)?, None)
        }
        Images::Collage { source, train, query, gallery, seed } => {
            from_collages(dir, path, shape, source, [*train, *query, *gallery], *seed)?
        }
    };
    dataset.name = match alternative {
        Some(file) => format!("{} ({})", manifest.name, file.display()),
        None => manifest.name.clone(),
    };
    Ok((dataset, own_splits))
}

fn from_idx(dir: &Path, shape: ImageShape, parts: &[IdxPart], names: Vec<String>) -> Result<Dataset, Error> {
    let (mut pixels, mut labels) = (vec![], vec![]);
    for part in parts {
        let (n_images, images) = part.images.parse(dir, |bytes| {
            let (size, images) = parse_idx(&bytes)?;
            match size[..] {
                [n, height, width] if (ImageShape { channels: 1, height, width }) == shape => Ok((n, images)),
                _ => {
                    let found = format!("an array of shape {size:?}");
                    Err(Error::invalid(found, format!("dataset.toml says images of {shape}")))
                }
            }
        })?;
        pixels.extend(images);
        labels.extend(part.labels.parse(dir, |bytes| match parse_idx(&bytes)? {
            (size, classes) if size == [n_images] => checked_classes(classes, &names),
            (size, _) => {
                let found = format!("labels of shape {size:?} for {n_images} images");
                Err(Error::invalid(found, "expected one label per image, take both files from one release"))
            }
        })?);
    }
    Ok(Dataset::new(dir, shape, names, Pixels::Memory(shape, pixels), Labels::single(labels)))
}

/// Refuses numbers that are not those of `names`.
fn checked_classes(classes: Vec<u8>, names: &[String]) -> Result<Vec<u32>, Error> {
    match classes.iter().find(|&&class| usize::from(class) >= names.len()) {
        Some(&class) => {
            let expected = format!("dataset.toml names {} classes, counted from 0", names.len());
            Err(Error::invalid(format!("class {class}"), expected))
        }
        None => Ok(classes.into_iter().map(u32::from).collect()),
    }
}

/// Where paths of images and lists begin, and the classes of the data set, none if it lists none.
struct Base {
    files: Files,
    dir: PathBuf,
    classes: Classes,
}

impl Base {
    /// Opens the archive of a data set in the folder `dir` if it has one, and its list of classes.
    fn open(
        dir: &Path,
        archive: &Option<SourceFile>,
        classes: &Option<PathBuf>,
        listed: &Classes,
    ) -> Result<Self, Error> {
        let (files, dir) = match archive.as_ref().map(|archive| archive.of(dir)) {
            Some(archive) => (Files::open_archive(&archive)?, archive.path),
            None => (Files::Disk, dir.to_owned()),
        };
        let classes = match classes {
            Some(_) if !listed.words.is_empty() => {
                return Err(Error::invalid("two lists of classes", "expected one `classes`"));
            }
            Some(path) => SourceFile::local(path, &None).parse_in(&files, &dir, list::parse_classes)?,
            None => listed.clone(),
        };
        Ok(Self { files, dir, classes })
    }
}

fn from_items(
    base: Base,
    root: &Path,
    shape: ImageShape,
    items: &[list::Item],
    form: LabelForm,
    n_columns: usize,
) -> Result<Dataset, Error> {
    let Base { files, classes, .. } = base;
    let paths = list::paths(root, items);
    if let Files::Archive(archive) = &files
        && let Some(missing) = paths.iter().find(|path| !archive.contains(path))
    {
        let advice = "a list names it: correct the list, or `root`, the folder that its paths begin in";
        return Err(Error::NotFound(missing.clone(), advice));
    }
    let pixels = Pixels::Files(paths, files);
    match form {
        LabelForm::Classes => {
            let (names, labels) = list::named_classes(items);
            Dataset::new(root, shape, names, pixels, labels).with_classes(classes)
        }
        LabelForm::MultiHot => {
            let names = if classes.names.is_empty() {
                (0..n_columns).map(|column| column.to_string()).collect()
            } else {
                classes.names
            };
            Ok(Dataset::new(root, shape, names, pixels, list::column_classes(items)))
        }
    }
}

fn from_lists(
    base: Base,
    path: &Path,
    shape: ImageShape,
    lists: &ListFiles,
    train_in_gallery: bool,
) -> Result<WithSplits, Error> {
    let mut n_columns = base.classes.words.len();
    let mut read = |split, file: &SourceFile| {
        let read = |bytes| list::read_items(bytes, lists.labels, &mut n_columns);
        Ok((split, file.parse_in(&base.files, &base.dir, read)?))
    };
    let read = [
        read(Split::Query, &lists.query)?,
        read(Split::Train, &lists.train)?,
        read(Split::Gallery, &lists.gallery)?,
    ];
    let (items, [query, train]) = list::merge(read, train_in_gallery)?;
    let splits = Rows { query, train, gallery: None };
    let root = lists.root.as_ref().map_or(base.dir.clone(), |root| base.dir.join(root));
    let dataset = from_items(base, &root, shape, &items, lists.labels, n_columns);
    Ok((dataset.map_err(|error| error.in_file(path))?, Some(splits)))
}

/// Reads the `dataset.toml` of the data set that another one is made of. Returns its folder and
/// path, too.
fn open_source(dir: &Path, source: &SourceFile) -> Result<(PathBuf, PathBuf, Manifest), Error> {
    let path = dir.join(&source.path);
    let source_dir = path.parent().unwrap_or(dir).to_owned();
    // The checksum of the source's dataset.toml covers the whole source: the checksums of its files
    // are in there.
    let manifest = source.parse(dir, |bytes| {
        let manifest = Manifest::parse(bytes)?;
        match manifest.images(&source_dir).0 {
            Images::Collage { .. } => Err(Error::invalid("collages", "expected images of one class each")),
            Images::Set { .. } => {
                Err(Error::invalid("images of another data set", "expected that data set itself"))
            }
            _ => Ok(manifest),
        }
    })?;
    Ok((source_dir, path, manifest))
}

fn from_collages(
    dir: &Path,
    path: &Path,
    shape: ImageShape,
    source: &SourceFile,
    counts: [usize; 3],
    seed: u64,
) -> Result<WithSplits, Error> {
    let (source_dir, source_path, source) = open_source(dir, source)?;
    let source = from_manifest(&source_dir, &source_path, source)?;
    let splits = source.splits.as_ref().expect("a data set with a manifest has splits");
    let (cells, labels) = collage::draw(&source.labels, splits, source.n_classes(), counts, seed)
        .map_err(|error| error.in_file(source_path))?;
    let pixels = Pixels::Collages(source.shape, Box::new(source.pixels), cells);
    match pixels.stored_shape() {
        Some(collages) if collages != shape => Err(Error::Shape(shape, collages).in_file(path)),
        _ => {
            let [train, query, _] = counts.map(|count| count as u32);
            let splits =
                Rows { query: (train..train + query).collect(), train: (0..train).collect(), gallery: None };
            Ok((Dataset::new(dir, shape, source.class_names, pixels, labels), Some(splits)))
        }
    }
}
