//! `dataset.toml`: what a data set is, where it comes from, and which part of it is used for what.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::list::LabelForm;
use crate::split::Protocol;
use crate::{Error, ImageShape};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// Where the data comes from and under which licence; for people, not for this program.
    #[expect(dead_code, reason = "the file states it, nothing depends on it")]
    source: Option<String>,
    #[expect(dead_code, reason = "the file states it, nothing depends on it")]
    licence: Option<String>,
    /// A sentence that says how to get what cannot be downloaded.
    instructions: Option<String>,
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
    pub(crate) train: DataFile,
    pub(crate) query: DataFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataFile {
    pub(crate) file: PathBuf,
    /// SHA-256 of the file, in hexadecimal digits. Without it the file is not checked.
    sha256: Option<String>,
    /// Where to download the file from.
    url: Option<String>,
}

/// What a data set folder needs, and where it comes from.
pub struct Source {
    /// The files that `dataset.toml` names. Images of folders and lists are not among them.
    pub files: Vec<SourceFile>,
    /// A sentence that says how to get what cannot be downloaded.
    pub instructions: Option<String>,
}

/// A file of a data set.
pub struct SourceFile {
    /// Where it is, or will be.
    pub path: PathBuf,
    /// Where it can be downloaded from.
    pub url: Option<String>,
    /// The SHA-256 that `dataset.toml` states, in hexadecimal digits.
    pub sha256: Option<String>,
}

impl Source {
    /// Reads the `dataset.toml` in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(&dir.join("dataset.toml"))?;
        let images = match &manifest.images {
            Images::Idx { parts } => parts.iter().flat_map(|part| [&part.images, &part.labels]).collect(),
            Images::Cifar { archive, .. } => vec![archive],
            Images::Folder { .. } | Images::List { .. } => vec![],
            Images::Lists(ListFiles { train, query, gallery, .. }) => vec![train, query, gallery],
            Images::Collage { source, .. } => vec![source],
        };
        let splits = manifest.splits.iter().flat_map(|splits| [&splits.query, &splits.train]);
        let files = images.into_iter().chain(splits).map(|file| SourceFile {
            path: dir.join(&file.file),
            url: file.url.clone(),
            sha256: file.sha256.clone(),
        });
        Ok(Self { files: files.collect(), instructions: manifest.instructions.clone() })
    }
}

impl SourceFile {
    /// The SHA-256 of the file as it is now, in hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn found_sha256(&self) -> Result<String, Error> {
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", &self.path))? {
                0 => return Ok(hex(&hash.finalize())),
                n => hash.update(&buffer[..n]),
            }
        }
    }
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let bytes =
            read_file(path, "expected a folder with a file dataset.toml that describes the data set")?;
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
    /// Reads the file and checks that it is the one that the manifest means.
    pub(crate) fn read(&self, dir: &Path) -> Result<Vec<u8>, Error> {
        let path = dir.join(&self.file);
        let bytes = read_file(
            &path,
            "run `dpq data get` on its folder or get it from the source that dataset.toml names",
        )?;
        let Some(expected) = &self.sha256 else { return Ok(bytes) };
        let found = sha256(&bytes);
        if found.eq_ignore_ascii_case(expected) {
            return Ok(bytes);
        }
        Err(Error::file(
            path,
            format!(
                "its sha256 is {found}, dataset.toml says {expected}, get the file again from its source"
            ),
        ))
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
