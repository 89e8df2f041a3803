//! The error type of this crate.

use std::io;
use std::path::PathBuf;

/// An error of opening, changing or searching a live index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An index cannot be read, written, built or searched.
    #[error(transparent)]
    Index(#[from] dpq_index::Error),
    /// An argument has another length or range than expected, or the codebooks cannot be read.
    #[error(transparent)]
    Codebook(#[from] dpq_codebook::Error),
    /// The commit is the last one of the folder, and readers see it, but the system refused to sync
    /// the folder. After a crash, this commit or the one before is the last.
    #[error(
        "commit {commit} is made, but a crash may undo it: its folder cannot be synced, which the next commit tries again"
    )]
    Unsynced {
        /// The number of the commit.
        commit: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The system refused to open a file or a folder.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder is not a live index.
    #[error("{} has no manifest.dpq, so it is not a live index, check the path", path.display())]
    NotLive {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to create a live index in is one already.
    #[error("{} is a live index already, open it, or choose another folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to create a live index in has a file that another live index or program made, at
    /// the name of one of its own.
    #[error("{} is not of the new live index, restore manifest.dpq if that was lost, or choose another folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another writer has the folder open.
    #[error("another writer has {} open, wait for it or end it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the folder is damaged, or belongs to another folder.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The finding, the expectation and the remedy.
        reason: String,
    },
    /// An id to delete that no item has.
    #[error("no item has the id {id}, so it cannot be deleted")]
    UnknownId {
        /// The id.
        id: u64,
    },
    /// A code of another length than the codebooks make.
    #[error("the code of id {id} has {found} bytes, expected {expected}: one per level of the codebooks")]
    CodeLength {
        /// The id.
        id: u64,
        /// The bytes given.
        found: usize,
        /// The levels.
        expected: usize,
    },
    /// A code that names no codeword.
    #[error(
        "the code of id {id} has {found} at level {level}, but there are {n_codewords} codewords: give codes that the \
         codebooks of this live index made"
    )]
    Code {
        /// The id.
        id: u64,
        /// The level.
        level: usize,
        /// The byte given.
        found: u8,
        /// Codewords per level.
        n_codewords: usize,
    },
    /// A name that another item has.
    #[error("id {id} has the name {name:?} already, give another name or delete that id first")]
    NameTaken {
        /// The name.
        name: String,
        /// The id that has it.
        id: u64,
    },
}

impl Error {
    /// Returns true if a file does not exist.
    pub(crate) fn is_missing_file(&self) -> bool {
        let source = match self {
            Self::Io { source, .. }
            | Self::File(dpq_file::Error::Io { source, .. })
            | Self::Index(dpq_index::Error::File(dpq_file::Error::Io { source, .. })) => source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::NotFound
    }
}
