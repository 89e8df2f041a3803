//! Folders of images.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::Pixels;
use crate::labels::Labels;
use crate::{Dataset, Error, ImageShape};

impl Dataset {
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
            let labels = Labels::new(own.iter().map(|_| vec![]));
            return Ok(Self::new(dir, shape, vec![], Pixels::Files(own), labels));
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
        Ok(Self::new(dir, shape, names, Pixels::Files(paths), Labels::single(labels)))
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
