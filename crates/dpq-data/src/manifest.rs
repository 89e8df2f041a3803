//! `dataset.toml`: what a data set is, where it comes from, and which part of it is used for what.

use std::fs;
use std::path::{Path, PathBuf};

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
    /// Names of the classes; found in the folder when it is not given.
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
    /// SHA-256 of the file, in hexadecimal digits.
    pub(crate) sha256: String,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        toml::from_str(&text)
            .map_err(|error| Error::file(path, error.to_string().trim_end().replace('\n', " ")))
    }
}

impl DataFile {
    /// Reads the file and checks that it is the one that the manifest means.
    pub(crate) fn read(&self, dir: &Path) -> Result<Vec<u8>, Error> {
        let path = dir.join(&self.file);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.sha256 {
            return Ok(bytes);
        }
        Err(Error::file(
            path,
            format!("its sha256 is {found}, expected {}, get the file again from its source", self.sha256),
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
