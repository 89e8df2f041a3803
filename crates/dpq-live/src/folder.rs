//! The folder of a live index: its files, and how they are opened.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use dpq_file::Container;
use dpq_index::Index;

use crate::Error;

/// A kind of file of which a folder has many.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// An index.
    Segment,
    /// The names of the items of a segment.
    Names,
    /// The items of a segment that were deleted.
    Deleted,
}

const KINDS: [(Kind, &str); 3] =
    [(Kind::Segment, "segment-"), (Kind::Names, "names-"), (Kind::Deleted, "deleted-")];

/// How segments are opened.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Access {
    Read,
    /// Only for callers that promise what [`Index::map`] asks for.
    Map,
}

#[derive(Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    access: Access,
}

impl Folder {
    pub(crate) fn new(path: &Path, access: Access) -> Self {
        Self { path: path.to_owned(), access }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.path.join("manifest.dpq")
    }

    pub(crate) fn codebook(&self) -> PathBuf {
        self.path.join("codebook.safetensors")
    }

    /// Returns true if the folder is a live index.
    pub(crate) fn is_live(&self) -> Result<bool, Error> {
        self.has(&self.manifest())
    }

    /// Returns true if a file of the folder exists.
    pub(crate) fn has(&self, path: &Path) -> Result<bool, Error> {
        path.try_exists().map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })
    }

    pub(crate) fn file(&self, kind: Kind, number: u64) -> PathBuf {
        let name = KINDS[kind as usize].1;
        self.path.join(format!("{name}{number}.dpq"))
    }

    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub(crate) fn index(&self, path: &Path) -> Result<Index, Error> {
        Ok(match self.access {
            Access::Read => Index::open(path)?,
            // SAFETY: the caller who asked for mappings promised that nobody changes the files.
            // This crate writes each once and removes it.
            Access::Map => unsafe { Index::map(path) }?,
        })
    }

    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub(crate) fn container(&self, path: &Path) -> Result<Container, Error> {
        Ok(match self.access {
            Access::Read => Container::open(path)?,
            // SAFETY: as in `index`.
            Access::Map => unsafe { Container::map(path) }?,
        })
    }

    /// Makes the folder if there is none, and lets it survive a crash.
    pub(crate) fn create(&self) -> Result<(), Error> {
        let io = |source| Error::Io { action: "create", path: self.path.clone(), source };
        if !self.path.is_dir() {
            fs::create_dir(&self.path).map_err(io)?;
        }
        // The caller may have made it just now.
        Ok(dpq_file::sync_folder(self.path.parent().unwrap_or(&self.path))?)
    }

    /// Removes the files of a segment that no commit names. One that cannot be removed is removed
    /// by the next writer.
    pub(crate) fn remove_segment(&self, number: u64) {
        for kind in [Kind::Segment, Kind::Names] {
            let _ = fs::remove_file(self.file(kind, number));
        }
    }

    /// Takes the lock of the writer, which holds until the file is dropped or the process ends.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.path.join("writer.lock");
        let io = |source| Error::Io { action: "lock", path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Removes what a writer that was killed left: numbered files besides `kept`, and temporary
    /// files. One that cannot be removed does no harm.
    pub(crate) fn sweep(&self, kept: &[PathBuf]) -> Result<(), Error> {
        let is_temporary = |name: &str| name.starts_with(".dpq-") && name.ends_with(".tmp");
        for path in self.list(|name| is_temporary(name) || is_numbered(name))? {
            if !kept.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Returns a numbered file, which a folder without a manifest should not have.
    pub(crate) fn numbered(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self.list(is_numbered)?.into_iter().min())
    }

    fn list(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Error> {
        let io = |source: io::Error| Error::Io { action: "list", path: self.path.clone(), source };
        let paths = fs::read_dir(&self.path).map_err(io)?.map(|entry| Ok(entry.map_err(io)?.path()));
        let paths = paths.collect::<Result<Vec<_>, Error>>()?.into_iter();
        Ok(paths.filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(&is_wanted)).collect())
    }
}

/// Returns true for the name of a file of some [`Kind`].
fn is_numbered(name: &str) -> bool {
    let number = |name: &str| name.strip_suffix(".dpq").is_some_and(|n| n.parse::<u64>().is_ok());
    KINDS.iter().any(|(_, kind)| name.strip_prefix(kind).is_some_and(number))
}
