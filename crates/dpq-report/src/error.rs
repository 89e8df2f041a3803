//! Errors of making a report.

use std::io;
use std::path::{Path, PathBuf};

/// Why a report cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of numbers does not have the form that this version reads.
    #[error("{} does not have the form that this version reads, measure again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// There is no run to summarize.
    #[error("there is no run to report on, give at least one")]
    NoRuns,
    /// Runs have different code lengths, so their means do not exist.
    #[error(
        "run {run} has code lengths {found:?} in bits, run 1 has {expected:?}; report on each separately"
    )]
    DifferentLengths {
        /// Which run, counted from 1.
        run: usize,
        /// Its code lengths.
        found: Vec<u32>,
        /// Those of the first run.
        expected: Vec<u32>,
    },
    /// The single thread that t-SNE needs cannot be started.
    #[error("cannot start a thread for t-SNE")]
    Thread(#[from] rayon::ThreadPoolBuildError),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
