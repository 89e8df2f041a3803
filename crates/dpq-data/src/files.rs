//! Files of a data set: opening them, on the disk or in an archive, and comparing them with their
//! checksums.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::archive::Archive;

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
        read(&self.path, GET)
    }

    /// Compares `bytes`, the contents of the file, with its checksums.
    ///
    /// # Errors
    /// [`Error::Checksum`] in [`Error::InFile`] names the first checksum that differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        self.check_reader(bytes)
    }

    fn check_reader(&self, mut reader: impl Read) -> Result<(), Error> {
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        let mut part = vec![0; 1 << 16];
        while self.has_checksum() {
            let n = reader.read(&mut part).map_err(Error::io("read", &self.path))?;
            if n == 0 {
                break;
            }
            if self.sha256.is_some() {
                sha256.update(&part[..n]);
            }
            if self.md5.is_some() {
                md5.update(&part[..n]);
            }
        }
        let found = [("sha256", hex(&sha256.finalize())), ("md5", hex(&md5.finalize()))];
        for ((name, found), expected) in found.into_iter().zip([&self.sha256, &self.md5]) {
            let Some(expected) = expected else { continue };
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
        self.parse_in(&Files::Disk, dir, parse)
    }

    /// Does the same with a file among `files`.
    pub(crate) fn parse_in<T>(
        &self,
        files: &Files,
        dir: &Path,
        parse: impl FnOnce(Vec<u8>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let file = self.of(dir);
        let bytes = files.read_existing(&file.path, GET)?;
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

const GET: &str = "run `dpq data get` on its folder or get it from the source that dataset.toml names";

/// Where files are read from.
#[derive(Debug)]
pub(crate) enum Files {
    Disk,
    /// Paths begin with that of the archive.
    Archive(Archive),
}

impl Files {
    /// Opens `path` if it is an archive, otherwise it is a folder.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        if path.is_file() { Archive::open(path).map(Self::Archive) } else { Ok(Self::Disk) }
    }

    /// Compares an archive with its checksums and opens it.
    pub(crate) fn open_archive(archive: &SourceFile) -> Result<Self, Error> {
        let path = &archive.path;
        let file = File::open(path).map_err(|error| not_found(path, GET, error))?;
        archive.check_reader(file)?;
        Archive::open(path).map(Self::Archive)
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk => read_regular(path),
            Self::Archive(archive) => archive.read(path),
        }
    }

    /// Reads a file that must exist; `advice` says what to do if it does not.
    pub(crate) fn read_existing(&self, path: &Path, advice: &'static str) -> Result<Vec<u8>, Error> {
        self.read(path).map_err(|error| not_found(path, advice, error))
    }

    /// Returns the folders and the files in a folder, each in the order of their names, so that
    /// rows do not depend on the disk. Hidden ones do not count.
    pub(crate) fn list(&self, dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        if let Self::Archive(archive) = self {
            return Ok(archive.list(dir));
        }
        let (mut folders, mut files) = (vec![], vec![]);
        for entry in fs::read_dir(dir).map_err(Error::io("read folder", dir))? {
            let path = entry.map_err(Error::io("read folder", dir))?.path();
            if !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.') {
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        folders.sort_unstable();
        files.sort_unstable();
        Ok((folders, files))
    }
}

/// Reads a regular file. Folders, devices and pipes are errors: opening a pipe would block until
/// somebody writes into it.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    fs::read(path)
}

/// Reads a file that must exist; `advice` says what to do if it does not.
pub(crate) fn read(path: &Path, advice: &'static str) -> Result<Vec<u8>, Error> {
    Files::Disk.read_existing(path, advice)
}

fn not_found(path: &Path, advice: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(path.to_owned(), advice),
        _ => Error::Io("read", path.to_owned(), error),
    }
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
