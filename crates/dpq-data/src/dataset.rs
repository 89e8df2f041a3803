//! Images and their classes, from whatever they are stored in.

use std::path::{Component, Path, PathBuf};

use crate::cifar;
use crate::collage::Collages;
use crate::image_file::resize_planes;
use crate::labels::Labels;
use crate::manifest::{DataFile, IdxPart, Images, Manifest, SplitFiles};
use crate::source::sha256;
use crate::split::Splits;
use crate::{Error, ImageShape, Protocol, Split, parse_cifar, parse_idx, read_image};

/// Images, the classes of each, and splits. Rows count from 0 and are the images' ids.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    shape: ImageShape,
    /// The shape of pixels in memory.
    stored: ImageShape,
    class_names: Vec<String>,
    pixels: Pixels,
    labels: Labels,
    splits: Option<Splits>,
}

#[derive(Debug)]
pub(crate) enum Pixels {
    Memory(Vec<u8>),
    Files(Vec<PathBuf>),
    Collages(Box<Collages>),
}

impl Dataset {
    /// Opens a data set folder by its `dataset.toml` and checks its files against the checksums there.
    ///
    /// The format is described in `datasets/README.md`. Splits are those of the images, where these come with splits; or
    /// the files under `[splits]`; or else what `[protocol]` draws.
    ///
    /// # Errors
    /// [`Error::File`] names a file that is damaged, [`Error::Split`] says why the splits cannot be.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("dataset.toml");
        Self::from_manifest(dir, &path, Manifest::read(&path)?)
    }

    /// Opens a data set folder whose splits are nowhere yet, and draws them as `protocol` says instead of `[protocol]`.
    ///
    /// # Errors
    /// Those of [`Dataset::open`], and [`Error::File`] if the splits are there.
    pub fn open_drawn(dir: &Path, protocol: Protocol) -> Result<Self, Error> {
        let path = dir.join("dataset.toml");
        let manifest = Manifest::read(&path)?;
        let reason = match manifest.images {
            Images::Lists(_) | Images::Collage { .. } => {
                "these images come with their splits, none are to be drawn"
            }
            _ if manifest.splits.is_some() => {
                "has [splits], take it out and move its files away to draw others"
            }
            _ => return Self::from_manifest(dir, &path, Manifest { protocol: Some(protocol), ..manifest }),
        };
        Err(Error::file(path, reason))
    }

    /// Opens the data set that the file `path` in the folder `dir` describes.
    fn from_manifest(dir: &Path, path: &Path, manifest: Manifest) -> Result<Self, Error> {
        let shape = manifest.shape.check(path)?;
        let classes = manifest.classes;
        let (mut dataset, own_splits) = match &manifest.images {
            Images::Idx { parts } => (Self::from_idx(dir, shape, parts, classes)?, None),
            Images::Cifar { archive, members, label_bytes } => {
                (Self::from_cifar(dir, shape, archive, members, label_bytes.get().into(), classes)?, None)
            }
            Images::Folder { path: images } => {
                (Self::from_folder(&dir.join(images), shape)?.with_classes(classes, path)?, None)
            }
            Images::List { path: list, sha256, root, labels } => {
                let file = DataFile::local(list, sha256.as_deref());
                let root = root.as_ref().map(|root| dir.join(root));
                let list = dir.join(list);
                let root = root.as_deref().or(list.parent()).unwrap_or(dir);
                (Self::read_list(dir, &file, root, shape, *labels, classes)?, None)
            }
            Images::Lists(lists) => {
                let (dataset, splits) =
                    Self::read_lists(dir, lists, shape, manifest.train_in_gallery, classes)?;
                (dataset, Some(splits))
            }
            Images::Collage { source, train, query, gallery, seed } => {
                let (dataset, splits) =
                    Self::from_collages(dir, shape, source, [*train, *query, *gallery], *seed)?;
                (dataset, Some(splits))
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
                    dataset.check_single_labels(path)?;
                }
                protocol.draw(&dataset.labels, &dataset.class_names)?
            }
            (Some(_), ..) => {
                let reason = "splits twice, these images come with theirs: remove [splits] and [protocol]";
                return Err(Error::file(path, reason));
            }
            (None, None, None) => {
                return Err(Error::file(
                    path,
                    "no splits, add [splits] with files or [protocol] with numbers of images",
                ));
            }
        };
        dataset.splits = Some(Splits::new(
            query,
            train,
            manifest.train_in_gallery,
            &dataset.labels,
            &dataset.class_names,
        )?);
        Ok(dataset)
    }

    /// Refuses the files of splits that were drawn from other images than these.
    fn check_drawn_from(&self, dir: &Path, files: &SplitFiles) -> Result<(), Error> {
        let again = "bring the images back, or take [splits] out of dataset.toml, move its files away and draw others with \
                     `dpq data split`";
        if let Some(items) = files.items.filter(|&items| items != self.len()) {
            let reason = format!("the splits are of {items} images, the set has {}, {again}", self.len());
            return Err(Error::Split(reason));
        }
        match &files.names_sha256 {
            Some(names) if self.names_sha256(dir).as_ref() != Some(names) => Err(Error::Split(format!(
                "the splits are of images of other names or another order, {again}"
            ))),
            _ => Ok(()),
        }
    }

    /// The SHA-256 of the images' paths in the order of their rows, a line each, below the folder `dir` where they are in
    /// there: that by which rows were counted. None where images are not files.
    pub fn names_sha256(&self, dir: &Path) -> Option<String> {
        let Pixels::Files(paths) = &self.pixels else { return None };
        let mut names = String::new();
        for path in paths {
            let parts = path.strip_prefix(dir).unwrap_or(path).components();
            let parts = parts.filter(|part| *part != Component::CurDir);
            names.extend(parts.flat_map(|part| ["/".into(), part.as_os_str().to_string_lossy()]));
            names.push('\n');
        }
        Some(sha256(names.as_bytes()))
    }

    /// Makes `names` the classes, in this order; the classes so far are among these names or are indices into them.
    pub(crate) fn with_classes(mut self, names: Vec<String>, path: &Path) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(self);
        }
        let index = |class: &String| {
            let by_name = names.iter().position(|name| name == class);
            let by_index = || class.parse().ok().filter(|&index| index < names.len());
            by_name.or_else(by_index).map(|index| index as u32).ok_or_else(|| {
                let reason = format!(
                    "an image has class `{class}`, expected one of the {} of dataset.toml",
                    names.len()
                );
                Error::file(path, reason)
            })
        };
        let new = self.class_names.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        // A name and its index are the same class, so an image may have had it twice.
        (self.labels, self.class_names) = (self.labels.renumber(&new), names);
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
            check_classes(&classes, &names, dir.join(&part.labels.file))?;
            pixels.extend(images);
            labels.extend(classes.into_iter().map(u32::from));
        }
        Ok(Self::new(dir, shape, names, Pixels::Memory(pixels), Labels::single(labels)))
    }

    fn from_cifar(
        dir: &Path,
        shape: ImageShape,
        archive: &DataFile,
        members: &[String],
        label_bytes: usize,
        names: Vec<String>,
    ) -> Result<Self, Error> {
        let path = dir.join(&archive.file);
        if shape != cifar::SHAPE {
            let reason = format!("images of {shape}, those of CIFAR are {}", cifar::SHAPE);
            return Err(Error::file(dir.join("dataset.toml"), reason));
        }
        let (labels, pixels) = parse_cifar(&archive.read(dir)?, members, label_bytes)
            .map_err(|reason| Error::file(&path, reason))?;
        check_classes(&labels, &names, path)?;
        let labels = Labels::single(labels.into_iter().map(u32::from).collect());
        Ok(Self::new(dir, shape, names, Pixels::Memory(pixels), labels))
    }

    /// The collages and the rows of queries and training collages.
    fn from_collages(
        dir: &Path,
        shape: ImageShape,
        source: &DataFile,
        counts: [usize; 3],
        seed: u64,
    ) -> Result<(Self, [Vec<u32>; 2]), Error> {
        let manifest = dir.join("dataset.toml");
        let path = dir.join(&source.file);
        // The sum of its dataset.toml names the source as a whole, since the sums of its files are in there.
        let source = Manifest::parse(&path, source.read(dir)?)?;
        if let Images::Collage { .. } = source.images {
            return Err(Error::file(path, "collages, expected images of one class each to make collages of"));
        }
        let source = Self::from_manifest(path.parent().unwrap_or(dir), &path, source)?;
        let names = source.class_names.clone();
        let (collages, labels) =
            Collages::draw(source, counts, seed).map_err(|reason| Error::file(&path, reason))?;
        if collages.shape() != shape {
            let reason = format!("images of {shape}, the collages are {}", collages.shape());
            return Err(Error::file(manifest, reason));
        }
        let [train, query, _] = counts.map(|count| count as u32);
        let splits = [(train..train + query).collect(), (0..train).collect()];
        Ok((Self::new(dir, shape, names, Pixels::Collages(Box::new(collages)), labels), splits))
    }

    pub(crate) fn new(
        path: &Path,
        shape: ImageShape,
        class_names: Vec<String>,
        pixels: Pixels,
        labels: Labels,
    ) -> Self {
        Self {
            name: path.display().to_string(),
            shape,
            stored: shape,
            class_names,
            pixels,
            labels,
            splits: None,
        }
    }

    /// The same images in another shape: files are read in it, others resized by a Catmull-Rom filter, gray ones as
    /// three equal channels.
    ///
    /// # Errors
    /// [`Error::File`] for a shape that no image has, or gray in place of colours in memory.
    pub fn resized(mut self, shape: ImageShape) -> Result<Self, Error> {
        let name = Path::new(&self.name);
        let grays = !matches!(self.pixels, Pixels::Files(_)) && shape.channels < self.stored.channels;
        if grays {
            let reason = format!("images of {}, they cannot become {shape}", self.stored);
            return Err(Error::file(name, reason));
        }
        self.shape = shape.check(name)?;
        Ok(self)
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
        self.labels.len()
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
        self.labels.of(row)
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
            Pixels::Memory(_) | Pixels::Collages(_) => None,
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
        if let Pixels::Files(paths) = &self.pixels {
            out.copy_from_slice(&read_image(&paths[row], self.shape)?);
        } else if self.shape == self.stored {
            self.read_stored(row, out)?;
        } else {
            let mut image = vec![0; self.stored.len()];
            self.read_stored(row, &mut image)?;
            resize_planes(&image, self.stored, out, self.shape);
        }
        Ok(())
    }

    /// Reads an image that is no file, in the shape that it has.
    fn read_stored(&self, row: usize, out: &mut [u8]) -> Result<(), Error> {
        match &self.pixels {
            Pixels::Memory(pixels) => {
                let len = self.stored.len();
                out.copy_from_slice(&pixels[row * len..][..len]);
            }
            Pixels::Collages(collages) => collages.read(row, out)?,
            Pixels::Files(_) => unreachable!("files are read in any shape"),
        }
        Ok(())
    }

    /// Refuses images without exactly one class, which drawing splits by class needs.
    fn check_single_labels(&self, manifest: &Path) -> Result<(), Error> {
        let Some(row) = (0..self.len()).find(|&row| self.labels(row).len() != 1) else { return Ok(()) };
        let reason = format!(
            "numbers of each class need one class an image, row {row} has {}, give `queries` and `train` in all or \
             [splits] files",
            self.labels(row).len()
        );
        Err(Error::file(manifest, reason))
    }
}

fn check_classes(classes: &[u8], names: &[String], path: PathBuf) -> Result<(), Error> {
    let Some(class) = classes.iter().find(|&&class| usize::from(class) >= names.len()) else { return Ok(()) };
    let reason = format!("class {class}, dataset.toml names {} classes, counted from 0", names.len());
    Err(Error::file(path, reason))
}
