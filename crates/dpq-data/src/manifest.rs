//! `dataset.toml`: what a data set is, where it comes from, and which part of it is used for what.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::list::LabelForm;
use crate::{Error, ImageShape, Protocol, SourceFile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// Where the data comes from and under which licence; for people.
    pub(crate) source: Option<String>,
    pub(crate) licence: Option<String>,
    /// A sentence that says how to get what cannot be downloaded.
    pub(crate) instructions: Option<String>,
    /// Names of the classes; what the folder or list has when they are not given.
    #[serde(default)]
    pub(crate) classes: Vec<String>,
    pub(crate) shape: ImageShape,
    pub(crate) images: Images,
    /// Whether training images are searched, too: the paper's protocol for its larger sets.
    #[serde(default)]
    pub(crate) train_in_gallery: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) splits: Option<SplitFiles>,
}

/// Where the images are.
#[derive(Deserialize)]
#[serde(tag = "format", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Images {
    /// Pairs of IDX files, pooled in this order.
    Idx { parts: Vec<IdxPart> },
    /// Files of CIFAR's binary version in their archive, pooled in this order.
    Cifar { archive: DataFile, members: Vec<String>, label_bytes: NonZeroU8 },
    /// One sub-folder a class.
    Folder { path: PathBuf },
    /// Lines of a path and labels.
    List {
        path: PathBuf,
        /// Of the list.
        sha256: Option<String>,
        root: Option<PathBuf>,
        #[serde(default)]
        labels: LabelForm,
    },
    /// A list for each split.
    Lists(ListFiles),
    /// Collages of images of another data set, which is named by its `dataset.toml`.
    Collage { source: DataFile, train: usize, query: usize, gallery: usize, seed: u64 },
}

/// The lists of the splits, and the folder that their paths are relative to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListFiles {
    pub(crate) root: Option<PathBuf>,
    #[serde(default)]
    pub(crate) labels: LabelForm,
    pub(crate) train: DataFile,
    pub(crate) query: DataFile,
    pub(crate) gallery: DataFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdxPart {
    pub(crate) images: DataFile,
    pub(crate) labels: DataFile,
}

/// Files with one row number a line; rows in neither are the gallery.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitFiles {
    /// How many images there were to draw from, and the checksum of their names.
    pub(crate) items: Option<usize>,
    pub(crate) names_sha256: Option<String>,
    pub(crate) train: DataFile,
    pub(crate) query: DataFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataFile {
    pub(crate) file: PathBuf,
    /// Checksums of the file, in hexadecimal digits. Without any the file is not checked.
    sha256: Option<String>,
    md5: Option<String>,
    /// Where to download the file from.
    url: Option<String>,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let what_to_do = "expected a folder with a file dataset.toml that describes the data set";
        Self::parse(path, read_file(path, what_to_do)?)
    }

    /// Reads the bytes of the file `path`.
    pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "not UTF-8 text"))?;
        let manifest: Self =
            toml::from_str(&text).map_err(|error| Error::file(path, one_line(&error, &text)))?;
        let mut names = HashSet::new();
        if let Some(name) = manifest.classes.iter().find(|name| !names.insert(name.as_str())) {
            return Err(Error::file(
                path,
                format!("class `{name}` is named twice, expected each class once"),
            ));
        }
        Ok(manifest)
    }
}

impl DataFile {
    /// A file that is not downloaded.
    pub(crate) fn local(file: &Path, sha256: Option<&str>) -> Self {
        Self { file: file.to_owned(), sha256: sha256.map(str::to_owned), md5: None, url: None }
    }

    /// The file of the data set in the folder `dir`.
    pub(crate) fn of(&self, dir: &Path) -> SourceFile {
        SourceFile {
            path: dir.join(&self.file),
            url: self.url.clone(),
            sha256: self.sha256.clone(),
            md5: self.md5.clone(),
        }
    }

    /// Reads the file and checks that it is the one that the manifest means.
    pub(crate) fn read(&self, dir: &Path) -> Result<Vec<u8>, Error> {
        let file = self.of(dir);
        let what_to_do = "run `dpq data get` on its folder or get it from the source that dataset.toml names";
        let bytes = read_file(&file.path, what_to_do)?;
        file.check(&bytes)?;
        Ok(bytes)
    }

    /// Reads row numbers, one a line.
    pub(crate) fn read_rows(&self, dir: &Path) -> Result<Vec<u32>, Error> {
        let bytes = self.read(dir)?;
        String::from_utf8_lossy(&bytes)
            .lines()
            .enumerate()
            .map(|(at, line)| {
                let reason = || format!("line {}: `{line}` is no row number", at + 1);
                line.trim().parse().map_err(|_| Error::file(dir.join(&self.file), reason()))
            })
            .collect()
    }
}

/// Reads a file; one that does not exist is an error that says what to do.
pub(crate) fn read_file(path: &Path, what_to_do: &str) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::file(path, format!("no such file, {what_to_do}")),
        _ => Error::io("read", path)(error),
    })
}

/// TOML's errors show the text over several lines; ours are one.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let reason = error.message().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {reason}", before.matches('\n').count() + 1),
        None => reason,
    }
}
