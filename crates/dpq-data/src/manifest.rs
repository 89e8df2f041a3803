//! `dataset.toml`: the images of a data set, their origin, and their splits.

use std::collections::HashSet;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files;
use crate::list::LabelForm;
use crate::{Error, ImageShape, Protocol, SourceFile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// The origin of the data and its licence, for people.
    pub(crate) source: Option<String>,
    pub(crate) licence: Option<String>,
    /// A sentence on how to get files that cannot be downloaded.
    pub(crate) instructions: Option<String>,
    /// Names of the classes. By default those of the folder or list.
    #[serde(default)]
    pub(crate) classes: Vec<String>,
    pub(crate) shape: ImageShape,
    pub(crate) images: Images,
    /// True if training images are searched too: the paper's protocol for its larger sets.
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
    /// One sub-folder per class.
    Folder { path: PathBuf },
    /// Lines of a path and classes.
    List {
        path: PathBuf,
        /// The checksum of the list.
        sha256: Option<String>,
        root: Option<PathBuf>,
        #[serde(default)]
        labels: LabelForm,
    },
    /// A list per split.
    Lists(ListFiles),
    /// Collages of images of another data set, given by the path of its `dataset.toml`.
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

/// Files with one row number per line. Rows in neither are the gallery.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitFiles {
    /// The number of images that the splits were drawn from, and the checksum of their names.
    pub(crate) items: Option<usize>,
    pub(crate) names_sha256: Option<String>,
    pub(crate) train: DataFile,
    pub(crate) query: DataFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataFile {
    pub(crate) file: PathBuf,
    /// Checksums of the file, in hexadecimal digits. A file without any is not checked.
    sha256: Option<String>,
    md5: Option<String>,
    /// Where the file can be downloaded from.
    url: Option<String>,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let advice = "expected a folder with a file dataset.toml that describes the data set";
        Self::parse(files::read(path, advice)?).map_err(|error| error.in_file(path))
    }

    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let text = Error::text(bytes)?;
        let manifest: Self = toml::from_str(&text).map_err(|error| toml_error(&error, &text))?;
        let mut names = HashSet::new();
        match manifest.classes.iter().find(|name| !names.insert(name.as_str())) {
            Some(name) => {
                Err(Error::invalid(format!("class `{name}` is named twice"), "expected each class once"))
            }
            None => Ok(manifest),
        }
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

    /// Reads the file, compares it with its checksums and parses it. Errors name the file.
    pub(crate) fn parse<T>(
        &self,
        dir: &Path,
        parse: impl FnOnce(Vec<u8>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let file = self.of(dir);
        let bytes = file.read()?;
        file.check(&bytes)?;
        parse(bytes).map_err(|error| error.in_file(file.path))
    }

    /// Reads row numbers, one per line.
    pub(crate) fn read_rows(&self, dir: &Path) -> Result<Vec<u32>, Error> {
        self.parse(dir, |bytes| {
            let text = String::from_utf8_lossy(&bytes);
            let row = |(number, line): (usize, &str)| {
                line.trim().parse().map_err(|_| {
                    Error::invalid(format!("`{line}` is not a row number"), "expected a number per line")
                        .in_line(number)
                })
            };
            (1..).zip(text.lines()).map(row).collect()
        })
    }
}

/// Brings an error of TOML, which shows the text over several lines, into one line.
fn toml_error(error: &toml::de::Error, text: &str) -> Error {
    let reason = Error::Manifest(error.message().replace('\n', ", "));
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => reason.in_line(before.matches('\n').count() + 1),
        None => reason,
    }
}
