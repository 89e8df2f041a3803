//! `dataset.toml`: what a data set is, where it comes from, and which part of it is used for what.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Error, ImageShape, Protocol};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// Where the data comes from and under which licence; for people, not for this program.
    #[expect(dead_code, reason = "the file states it, nothing depends on it")]
    source: Option<String>,
    #[expect(dead_code, reason = "the file states it, nothing depends on it")]
    licence: Option<String>,
    /// Names of the classes; what the folder or list has when they are not given.
    #[serde(default)]
    pub(crate) classes: Vec<String>,
    pub(crate) shape: ImageShape,
    pub(crate) images: Images,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) splits: Option<SplitFiles>,
}

/// Where the images are.
#[derive(Deserialize)]
#[serde(tag = "format", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Images {
    /// Pairs of IDX files, pooled in this order.
    Idx { parts: Vec<IdxPart> },
    /// One sub-folder a class.
    Folder { path: PathBuf },
    /// Lines of a path and labels.
    List { path: PathBuf },
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
        let bytes = read_file(&path, "get it from the source that dataset.toml names")?;
        let Some(expected) = &self.sha256 else { return Ok(bytes) };
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
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
