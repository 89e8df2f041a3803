//! Data sets that a `dataset.toml` describes.

use std::path::Path;

use crate::labels::Labels;
use crate::list::{self, LabelForm};
use crate::manifest::{IdxPart, Images, ListFiles, Manifest, SplitFiles};
use crate::pixels::Pixels;
use crate::split::Splits;
use crate::{
    Dataset, Error, ImageShape, Protocol, SourceFile, Split, cifar, collage, parse_cifar, parse_idx,
};

/// A data set, and the rows of its queries and training images if the images come with splits.
type WithSplits = (Dataset, Option<[Vec<u32>; 2]>);

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
        let manifest = Manifest::read(&path)?;
        let error = match manifest.images {
            Images::Lists(_) | Images::Collage { .. } => {
                Error::invalid("these images come with their splits", "so none can be drawn")
            }
            _ if manifest.splits.is_some() => {
                Error::invalid("has [splits]", "remove it and move its files away to draw others")
            }
            _ => return from_manifest(dir, &path, Manifest { protocol: Some(protocol), ..manifest }),
        };
        Err(error.in_file(path))
    }

    /// Makes `names` the classes, in this order. The classes so far are among these names or are
    /// indices into them.
    fn with_classes(mut self, names: Vec<String>) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(self);
        }
        let index = |class: &String| {
            let by_name = names.iter().position(|name| name == class);
            let by_index = || class.parse().ok().filter(|&index| index < names.len());
            by_name.or_else(by_index).map(|index| index as u32).ok_or_else(|| {
                let expected = format!("expected one of the {} of dataset.toml", names.len());
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
    let shape = manifest.shape.check().map_err(in_manifest)?;
    let classes = manifest.classes;
    let (mut dataset, own_splits) = match &manifest.images {
        Images::Idx { parts } => (from_idx(dir, shape, parts, classes)?, None),
        Images::Cifar { .. } if shape != cifar::SHAPE => {
            return Err(in_manifest(Error::Shape(shape, cifar::SHAPE)));
        }
        Images::Cifar { archive, members, label_bytes } => {
            let (labels, pixels) = archive.parse(dir, |bytes| {
                let (labels, pixels) = parse_cifar(&bytes, members, label_bytes.get().into())?;
                Ok((checked_classes(labels, &classes)?, pixels))
            })?;
            let pixels = Pixels::Memory(shape, pixels);
            (Dataset::new(dir, shape, classes, pixels, Labels::single(labels)), None)
        }
        Images::Folder { path: images } => {
            let dataset = Dataset::from_folder(dir.join(images), shape)?;
            (dataset.with_classes(classes).map_err(in_manifest)?, None)
        }
        Images::List { path: list, sha256, root, labels } => {
            let file = SourceFile::local(list, sha256);
            let list = dir.join(list);
            let root = root.as_ref().map(|root| dir.join(root));
            let root = root.as_deref().or(list.parent()).unwrap_or(dir);
            let mut n_columns = classes.len();
            let items = file.parse(dir, |bytes| list::read_items(bytes, *labels, &mut n_columns))?;
            (from_items(root, shape, &items, *labels, n_columns, classes).map_err(in_manifest)?, None)
        }
        Images::Lists(lists) => from_lists(dir, path, shape, lists, manifest.train_in_gallery, classes)?,
        Images::Collage { source, train, query, gallery, seed } => {
            from_collages(dir, path, shape, source, [*train, *query, *gallery], *seed)?
        }
    };
    dataset.name = manifest.name;
    let [query, train] = match (own_splits, &manifest.splits, &manifest.protocol) {
        (Some(splits), None, None) => splits,
        (None, Some(files), _) => {
            dataset.check_drawn_from(dir, files)?;
            [files.query.read_rows(dir)?, files.train.read_rows(dir)?]
        }
        (None, None, Some(protocol)) => {
            if protocol.per_class {
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
    let splits = Splits::new(query, train, manifest.train_in_gallery, &dataset.labels, &dataset.class_names)?;
    dataset.splits = Some(splits);
    Ok(dataset)
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

fn from_items(
    root: &Path,
    shape: ImageShape,
    items: &[list::Item],
    form: LabelForm,
    n_columns: usize,
    classes: Vec<String>,
) -> Result<Dataset, Error> {
    let pixels = Pixels::Files(list::paths(root, items));
    match form {
        LabelForm::Classes => {
            let (names, labels) = list::named_classes(items);
            Dataset::new(root, shape, names, pixels, labels).with_classes(classes)
        }
        LabelForm::MultiHot => {
            let names = if classes.is_empty() {
                (0..n_columns).map(|column| column.to_string()).collect()
            } else {
                classes
            };
            Ok(Dataset::new(root, shape, names, pixels, list::column_classes(items)))
        }
    }
}

fn from_lists(
    dir: &Path,
    path: &Path,
    shape: ImageShape,
    lists: &ListFiles,
    train_in_gallery: bool,
    classes: Vec<String>,
) -> Result<WithSplits, Error> {
    let mut n_columns = classes.len();
    let mut read = |split, file: &SourceFile| {
        let items = file.parse(dir, |bytes| list::read_items(bytes, lists.labels, &mut n_columns))?;
        Ok((split, items))
    };
    let read = [
        read(Split::Query, &lists.query)?,
        read(Split::Train, &lists.train)?,
        read(Split::Gallery, &lists.gallery)?,
    ];
    let (items, splits) = list::merge(read, train_in_gallery)?;
    let root = lists.root.as_ref().map_or(dir.to_owned(), |root| dir.join(root));
    let dataset = from_items(&root, shape, &items, lists.labels, n_columns, classes);
    Ok((dataset.map_err(|error| error.in_file(path))?, Some(splits)))
}

fn from_collages(
    dir: &Path,
    path: &Path,
    shape: ImageShape,
    source: &SourceFile,
    counts: [usize; 3],
    seed: u64,
) -> Result<WithSplits, Error> {
    let source_path = dir.join(&source.path);
    // The checksum of the source's dataset.toml covers the whole source: the checksums of its files
    // are in there.
    let source = source.parse(dir, |bytes| match Manifest::parse(bytes)? {
        Manifest { images: Images::Collage { .. }, .. } => {
            let remedy = "expected images of one class each to make collages of";
            Err(Error::invalid("collages", remedy))
        }
        manifest => Ok(manifest),
    })?;
    let source = from_manifest(source_path.parent().unwrap_or(dir), &source_path, source)?;
    let splits = source.splits.as_ref().expect("a data set with a manifest has splits");
    let (cells, labels) = collage::draw(&source.labels, splits, source.n_classes(), counts, seed)
        .map_err(|error| error.in_file(source_path))?;
    let pixels = Pixels::Collages(source.shape, Box::new(source.pixels), cells);
    match pixels.stored_shape() {
        Some(collages) if collages != shape => Err(Error::Shape(shape, collages).in_file(path)),
        _ => {
            let [train, query, _] = counts.map(|count| count as u32);
            let splits = [(train..train + query).collect(), (0..train).collect()];
            Ok((Dataset::new(dir, shape, source.class_names, pixels, labels), Some(splits)))
        }
    }
}
