//! Files of a data set: opening them, and comparing them with their checksums.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::Error;

/// A file of a data set, as `dataset.toml` names it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Where the file is, or where a download puts it.
    #[serde(rename = "file")]
    pub path: PathBuf,
    /// Where it can be downloaded from.
    pub url: Option<String>,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Its MD5, in hexadecimal digits, for sources that publish nothing better: it shows damage,
    /// not malice.
    pub md5: Option<String>,
}

impl SourceFile {
    /// Returns true if the file has a checksum.
    pub fn has_checksum(&self) -> bool {
        self.sha256.is_some() || self.md5.is_some()
    }

    /// Reads the file without comparing it with its checksums.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Io`], also for a folder, device or pipe.
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        read(&self.path, "run `dpq data get` on its folder or get it from the source that dataset.toml names")
    }

    /// Compares `bytes`, the contents of the file, with its checksums.
    ///
    /// # Errors
    /// [`Error::Checksum`] in [`Error::InFile`] names the first checksum that differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        for (name, expected) in [("sha256", &self.sha256), ("md5", &self.md5)] {
            let Some(expected) = expected else { continue };
            let found = if name == "md5" { hex(&Md5::digest(bytes)) } else { sha256(bytes) };
            if !found.eq_ignore_ascii_case(expected) {
                return Err(Error::Checksum(name, found, expected.clone()).in_file(&self.path));
            }
        }
        Ok(())
    }

    /// A file that is not downloaded.
    pub(crate) fn local(path: &Path, sha256: &Option<String>) -> Self {
        Self { path: path.to_owned(), sha256: sha256.clone(), md5: None, url: None }
    }

    /// The file of the data set in the folder `dir`.
    pub(crate) fn of(&self, dir: &Path) -> Self {
        Self { path: dir.join(&self.path), ..self.clone() }
    }

    /// Reads the file of the data set in `dir`, compares it with its checksums and parses it.
    /// Errors name the file.
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

/// Returns the SHA-256 of bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a regular file. Folders, devices and pipes are errors: opening a pipe would block until
/// somebody writes into it.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    fs::read(path)
}

/// Reads a file that must exist; `advice` says what to do if it does not.
pub(crate) fn read(path: &Path, advice: &'static str) -> Result<Vec<u8>, Error> {
    read_regular(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(path.to_owned(), advice),
        _ => Error::Io("read", path.to_owned(), error),
    })
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
