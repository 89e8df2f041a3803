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
    images: Images,
    /// Other forms of the images: the first whose files are there is taken if those of `images` are
    /// not.
    #[serde(default)]
    alternatives: Vec<Images>,
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
    Cifar { archive: SourceFile, members: Vec<String>, label_bytes: NonZeroU8 },
    /// One sub-folder per class.
    Folder {
        #[serde(default)]
        path: PathBuf,
        archive: Option<SourceFile>,
        classes: Option<PathBuf>,
    },
    /// Lines of a path and classes.
    List {
        path: PathBuf,
        /// The checksum of the list.
        sha256: Option<String>,
        root: Option<PathBuf>,
        #[serde(default)]
        labels: LabelForm,
        archive: Option<SourceFile>,
        classes: Option<PathBuf>,
    },
    /// A list per split.
    Lists(Box<ListFiles>),
    /// The images of another data set, given by the path of its `dataset.toml`, without its splits.
    Set { source: SourceFile },
    /// Collages of images of another data set, given by the path of its `dataset.toml`.
    Collage { source: SourceFile, train: usize, query: usize, gallery: usize, seed: u64 },
}

/// The lists of the splits, and the folder that their paths are relative to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListFiles {
    /// The archive that has all these files.
    pub(crate) archive: Option<SourceFile>,
    pub(crate) classes: Option<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    #[serde(default)]
    pub(crate) labels: LabelForm,
    pub(crate) train: SourceFile,
    pub(crate) query: SourceFile,
    pub(crate) gallery: SourceFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdxPart {
    pub(crate) images: SourceFile,
    pub(crate) labels: SourceFile,
}

/// Files with one row number per line. Without `gallery`, all other rows are the gallery.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitFiles {
    /// The number of images that the splits were drawn from, and the checksum of their names.
    pub(crate) items: Option<usize>,
    pub(crate) names_sha256: Option<String>,
    pub(crate) train: SourceFile,
    pub(crate) query: SourceFile,
    pub(crate) gallery: Option<SourceFile>,
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

impl Manifest {
    /// Returns the images of the data set in the folder `dir`: the first form whose files are
    /// there, or else the first. The second value names the file of another form than the first.
    pub(crate) fn images(&self, dir: &Path) -> (&Images, Option<PathBuf>) {
        if self.images.is_in(dir) {
            return (&self.images, None);
        }
        match self.alternatives.iter().find(|images| images.is_in(dir)) {
            Some(images) => (images, images.files().0.first().map(|file| file.path.clone())),
            None => (&self.images, None),
        }
    }
}

impl Images {
    /// Returns the files that the images or lists are read from, and the folder of the image files.
    pub(crate) fn files(&self) -> (Vec<SourceFile>, Option<&PathBuf>) {
        match self {
            Self::Idx { parts } => {
                (parts.iter().flat_map(|part| [part.images.clone(), part.labels.clone()]).collect(), None)
            }
            Self::Cifar { archive: file, .. }
            | Self::Collage { source: file, .. }
            | Self::Set { source: file }
            | Self::Folder { archive: Some(file), .. }
            | Self::List { archive: Some(file), .. } => (vec![file.clone()], None),
            Self::Folder { path, .. } => (vec![], Some(path)),
            Self::List { path, sha256, root, .. } => (vec![SourceFile::local(path, sha256)], root.as_ref()),
            Self::Lists(lists) => match &lists.archive {
                Some(file) => (vec![file.clone()], None),
                None => {
                    let files = [&lists.train, &lists.query, &lists.gallery];
                    (files.map(SourceFile::clone).into(), lists.root.as_ref())
                }
            },
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (files, folder) = self.files();
        files.iter().map(|file| &file.path).chain(folder).all(|path| dir.join(path).exists())
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
