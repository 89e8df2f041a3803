//! Folders of images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::image_file::is_image_name;
use crate::labels::Labels;
use crate::pixels::Pixels;
use crate::{Dataset, Error, ImageShape};

impl Dataset {
    /// Finds the images of a folder, in the order of their names.
    ///
    /// Sub-folders are classes. Without any, the folder's own images are taken, and they have no
    /// class. Images are the files that [`read_image`](crate::read_image) reads, recognised by
    /// their extensions in lower or upper case. Hidden files are skipped, other files are skipped
    /// and counted in [`Dataset::skipped`].
    ///
    /// # Errors
    /// [`Error::InFile`] if there is no image, images lie beside sub-folders, or a class has
    /// folders inside; [`Error::Name`] if the name of an image is not UTF-8 or has a line break;
    /// [`Error::Io`] if a folder cannot be read; [`Error::ImpossibleShape`].
    pub fn from_folder(dir: impl AsRef<Path>, shape: ImageShape) -> Result<Self, Error> {
        let (dir, shape) = (dir.as_ref(), shape.check()?);
        let mut skipped = BTreeMap::new();
        let (folders, own) = folders_and_images(dir, &mut skipped)?;
        let (mut paths, mut labels, mut class_names) = (vec![], vec![], vec![]);
        if folders.is_empty() {
            if own.is_empty() {
                return Err(no_images().in_file(dir));
            }
            labels.extend(own.iter().map(|_| vec![]));
            paths = own;
        } else if let Some(stray) = own.first() {
            let remedy = "expected every image in the folder of its class";
            return Err(Error::invalid("an image beside sub-folders", remedy).in_file(stray));
        }
        for (class, folder) in (0..).zip(&folders) {
            let (inner, images) = folders_and_images(folder, &mut skipped)?;
            if let Some(inner) = inner.first() {
                let found = "a folder inside the folder of a class";
                return Err(Error::invalid(found, "expected images only").in_file(inner));
            }
            if images.is_empty() {
                return Err(no_images().in_file(folder));
            }
            labels.extend(images.iter().map(|_| vec![class]));
            paths.extend(images);
            class_names.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(Self { skipped, ..Self::new(dir, shape, class_names, Pixels::Files(paths), Labels::new(labels)) })
    }
}

fn no_images() -> Error {
    Error::invalid("no image in this folder", "expected .png, .jpg, .webp, .gif, .bmp or .tiff files")
}

/// Returns the folders and the images in a folder, each in the order of their names, so that rows
/// do not depend on the disk. Hidden files do not count, files that are not images are added to
/// `skipped`.
fn folders_and_images(
    dir: &Path,
    skipped: &mut BTreeMap<String, usize>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let entries = fs::read_dir(dir).map_err(Error::io("read folder", dir))?;
    let (mut folders, mut images) = (vec![], vec![]);
    for entry in entries {
        let path = entry.map_err(Error::io("read folder", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let is_folder = path.is_dir();
        if !is_folder && !is_image_name(&path) {
            let extension = path.extension().map(OsStr::to_string_lossy);
            let kind =
                extension.map_or("without extension".to_owned(), |kind| format!(".{}", kind.to_lowercase()));
            *skipped.entry(kind).or_default() += 1;
            continue;
        }
        // Names are written one per line, to names.txt and into the checksum of names.
        if path.to_str().is_none_or(|path| path.contains(['\n', '\r'])) {
            return Err(Error::Name(path));
        }
        if is_folder { &mut folders } else { &mut images }.push(path);
    }
    folders.sort_unstable();
    images.sort_unstable();
    Ok((folders, images))
}
