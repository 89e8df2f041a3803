//! Which files a data set needs, where they come from, and whether they are the right ones.

use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::manifest::{DataFile, Images, ListFiles, Manifest};
use crate::{Error, Protocol};

/// What `dataset.toml` says of where a data set comes from.
pub struct Source {
    /// Its name.
    pub name: String,
    /// Who made it and where it is found.
    pub origin: Option<String>,
    /// Its licence.
    pub licence: Option<String>,
    /// A sentence that says how to get what cannot be downloaded.
    pub instructions: Option<String>,
    /// The files that it is read from. Images that are files of their own are not among them.
    pub files: Vec<SourceFile>,
    /// The folder of its images where they are files of their own and dataset.toml names it.
    pub images: Option<PathBuf>,
    /// Whether it comes with its `dataset.toml`: all images are in `files`, each has a SHA-256 and none has a URL.
    pub shipped: bool,
    /// How its splits are drawn where they are.
    pub protocol: Option<Protocol>,
}

/// A file of a data set.
pub struct SourceFile {
    /// Where it is, or will be.
    pub path: PathBuf,
    /// Where it can be downloaded from.
    pub url: Option<String>,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Its MD5, in hexadecimal digits, where its source publishes nothing better: it shows damage, not malice.
    pub md5: Option<String>,
}

impl Source {
    /// Reads the `dataset.toml` in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(&dir.join("dataset.toml"))?;
        let (mut files, in_files): (Vec<SourceFile>, bool) = match &manifest.images {
            Images::Idx { parts } => (
                parts.iter().flat_map(|part| [&part.images, &part.labels]).map(|f| f.of(dir)).collect(),
                true,
            ),
            Images::Cifar { archive, .. } => (vec![archive.of(dir)], true),
            Images::Collage { source, .. } => (vec![source.of(dir)], true),
            Images::Folder { .. } => (vec![], false),
            Images::List { path, sha256, .. } => {
                (vec![DataFile::local(path, sha256.as_deref()).of(dir)], false)
            }
            Images::Lists(ListFiles { train, query, gallery, .. }) => {
                ([train, query, gallery].map(|file| file.of(dir)).into(), false)
            }
        };
        files.extend(
            manifest.splits.iter().flat_map(|splits| [&splits.query, &splits.train]).map(|f| f.of(dir)),
        );
        let images = match &manifest.images {
            Images::Folder { path } => Some(path),
            Images::List { root, .. } | Images::Lists(ListFiles { root, .. }) => root.as_ref(),
            Images::Idx { .. } | Images::Cifar { .. } | Images::Collage { .. } => None,
        };
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

impl SourceFile {
    /// Tells whether there is a checksum to compare the file with.
    pub fn has_checksum(&self) -> bool {
        self.sha256.is_some() || self.md5.is_some()
    }

    /// Compares `bytes`, the contents of the file, with its checksums.
    ///
    /// # Errors
    /// [`Error::File`] names a checksum that differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        for (name, expected) in [("sha256", &self.sha256), ("md5", &self.md5)] {
            let Some(expected) = expected else { continue };
            let found = if name == "md5" { hex(&Md5::digest(bytes)) } else { sha256(bytes) };
            if !found.eq_ignore_ascii_case(expected) {
                return Err(Error::file(
                    &self.path,
                    format!(
                        "its {name} is {found}, dataset.toml says {expected}, get the file again from its source"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::SourceFile;

    #[test]
    fn each_checksum_that_is_stated_counts() {
        let sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        for sums in [[None, None], [Some(sha256), None], [None, Some(md5)], [Some(sha256), Some(md5)]] {
            let [sha256, md5] = sums.map(|sum| sum.map(str::to_owned));
            let file = SourceFile { path: "a".into(), url: None, sha256, md5 };
            file.check(b"abc").unwrap();
            let error = file.check(b"abd").map_err(|error| error.to_string());
            match sums {
                [None, None] => error.unwrap(),
                [Some(_), _] => assert!(error.unwrap_err().starts_with("a: its sha256 is a52d159f")),
                _ => assert!(error.unwrap_err().starts_with("a: its md5 is 4911e516")),
            }
        }
    }
}
