//! Folders of images, on the disk or in an archive.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::image_file::is_image_name;
use crate::labels::Labels;
use crate::pixels::Pixels;
use crate::{Dataset, Error, ImageShape};

impl Dataset {
    /// Finds the images of a folder, or of a zip, tar or .tar.gz archive, in the order of their
    /// names. An archive is not unpacked.
    ///
    /// Sub-folders are classes, in natural order: `c2` is before `c10`. If they have only folders
    /// inside, as `train` and `test` do, those are the classes, and equal names are one class.
    /// Without any sub-folder, the folder's own images are taken, and they have no class. Images
    /// are the files that [`read_image`](crate::read_image) reads, recognised by their extensions
    /// in lower or upper case. Hidden files are skipped, other files are skipped and counted in
    /// [`Dataset::skipped`].
    ///
    /// # Errors
    /// [`Error::InFile`] if there is no image, images lie beside sub-folders, a class has folders
    /// inside, or an archive is damaged or has members that an archive of images does not need;
    /// [`Error::Name`] if the name of an image is not UTF-8 or has a line break; [`Error::Io`] if a
    /// folder cannot be read; [`Error::ImpossibleShape`].
    pub fn from_folder(dir: impl AsRef<Path>, shape: ImageShape) -> Result<Self, Error> {
        let dir = dir.as_ref();
        Self::from_files(Files::open(dir)?, dir, shape)
    }

    /// Finds the images in a folder of `files`.
    pub(crate) fn from_files(files: Files, dir: &Path, shape: ImageShape) -> Result<Self, Error> {
        let shape = shape.check()?;
        let mut skipped = BTreeMap::new();
        let (mut folders, own) = folders_and_images(&files, dir, &mut skipped)?;
        if let (false, Some(stray)) = (folders.is_empty(), own.first()) {
            let remedy = "expected every image in the folder of its class";
            return Err(Error::invalid("an image beside sub-folders", remedy).in_file(stray));
        }
        if folders.is_empty() {
            if own.is_empty() {
                return Err(no_images().in_file(dir));
            }
            let labels = Labels::new(own.iter().map(|_| vec![]));
            let pixels = Pixels::Files(own, files);
            return Ok(Self { skipped, ..Self::new(dir, shape, vec![], pixels, labels) });
        }
        let classes = loop {
            let list = |folder: &PathBuf| folders_and_images(&files, folder, &mut skipped);
            let inner = folders.iter().map(list).collect::<Result<Vec<_>, _>>()?;
            let has_images = inner.iter().any(|(_, images)| !images.is_empty());
            if has_images || inner.iter().all(|(folders, _)| folders.is_empty()) {
                break inner;
            }
            folders = inner.into_iter().flat_map(|(folders, _)| folders).collect();
        };
        let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut class_names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
        class_names.sort_unstable_by(|a, b| natural_key(a).cmp(&natural_key(b)));
        class_names.dedup();
        let number: HashMap<&String, u32> = class_names.iter().zip(0..).collect();
        let mut rows = Vec::new();
        for (folder, (inner, images)) in folders.iter().zip(classes) {
            if let Some(inner) = inner.first() {
                let found = "a folder inside the folder of a class";
                return Err(Error::invalid(found, "expected images only").in_file(inner));
            }
            if images.is_empty() {
                return Err(no_images().in_file(folder));
            }
            rows.push((folder.parent(), number[&name(folder)], images));
        }
        // Folders come by their names and classes in natural order.
        rows.sort_by_key(|&(root, class, _)| (root, class));
        let (mut paths, mut labels) = (vec![], vec![]);
        for (_, class, images) in rows {
            labels.extend(images.iter().map(|_| class));
            paths.extend(images);
        }
        let pixels = Pixels::Files(paths, files);
        Ok(Self { skipped, ..Self::new(dir, shape, class_names, pixels, Labels::single(labels)) })
    }
}

/// The order of names in which the numbers inside them count by value: text, digits of a number
/// and the number, and so on; the name itself tells `1` from `01`.
fn natural_key(name: &str) -> (Vec<(&str, usize, &str)>, &str) {
    let (mut key, mut rest) = (vec![], name);
    while !rest.is_empty() {
        let (text, digits) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits[..end].trim_start_matches('0');
        key.push((text, number.len(), number));
        rest = &digits[end..];
    }
    (key, name)
}

fn no_images() -> Error {
    Error::invalid("no image in this folder", "expected .png, .jpg, .webp, .gif, .bmp or .tiff files")
}

/// Returns the folders and the images in a folder, each in the order of their names. Files that are
/// not images are added to `skipped`.
fn folders_and_images(
    files: &Files,
    dir: &Path,
    skipped: &mut BTreeMap<String, usize>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let (folders, mut images) = files.list(dir)?;
    images.retain(|path| {
        let is_image = is_image_name(path);
        if !is_image {
            let extension = path.extension().map(OsStr::to_string_lossy);
            let kind =
                extension.map_or("without extension".to_owned(), |kind| format!(".{}", kind.to_lowercase()));
            *skipped.entry(kind).or_default() += 1;
        }
        is_image
    });
    // Names are written one per line, to names.txt and into the checksum of names.
    let is_line = |path: &Path| path.to_str().is_some_and(|path| !path.contains(['\n', '\r']));
    match folders.iter().chain(&images).find(|path| !is_line(path)) {
        Some(path) => Err(Error::Name(path.clone())),
        None => Ok((folders, images)),
    }
}
