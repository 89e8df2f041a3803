//! The origin of a data set and the files that it needs.

use std::path::{Path, PathBuf};

use crate::manifest::Manifest;
use crate::{Error, Protocol, SourceFile};

/// The origin of a data set, its licence and its files, as `dataset.toml` states them.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name of the data set.
    pub name: String,
    /// Who made the data set and where it is published.
    pub origin: Option<String>,
    /// The licence of the data.
    pub licence: Option<String>,
    /// A sentence on how to get files that cannot be downloaded.
    pub instructions: Option<String>,
    /// The files that the data set is read from. Files of single images are not included.
    pub files: Vec<SourceFile>,
    /// The folder of the image files, if images are files and `dataset.toml` names their folder.
    pub images: Option<PathBuf>,
    /// True if the data ships with its `dataset.toml`: all images are in `files`, each has a
    /// SHA-256 and none has a URL.
    pub shipped: bool,
    /// How splits are drawn, if `dataset.toml` says so.
    pub protocol: Option<Protocol>,
}

impl Source {
    /// Reads the `dataset.toml` in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], or [`Error::InFile`] with the reason if that file is
    /// invalid.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let manifest = Manifest::read(&dir.join("dataset.toml"))?;
        let (mut files, images) = manifest.images(dir).0.files();
        let in_files = images.is_none();
        let splits = manifest.splits.iter();
        files.extend(splits.clone().flat_map(|splits| [&splits.query, &splits.train]).cloned());
        files.extend(splits.flat_map(|splits| splits.gallery.clone()));
        files.iter_mut().for_each(|file| file.path = dir.join(&file.path));
        Ok(Self {
            images: images.map(|path| dir.join(path)),
            name: manifest.name,
            origin: manifest.source,
            licence: manifest.licence,
            instructions: manifest.instructions,
            shipped: in_files && files.iter().all(|file| file.url.is_none() && file.sha256.is_some()),
            files,
            protocol: manifest.protocol,
        })
    }
}
