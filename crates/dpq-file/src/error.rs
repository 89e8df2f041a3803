//! What can go wrong with a container.

use std::io;
use std::path::PathBuf;

/// An error of reading or writing a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read or write.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what to do.
        reason: String,
    },
    /// The file has no metadata of that name.
    #[error("{}: no metadata `{key}`, found {found}", path.display())]
    MissingMetadata {
        /// The file.
        path: PathBuf,
        /// The key asked for.
        key: String,
        /// The keys that there are.
        found: String,
    },
    /// The file has no section of that name.
    #[error("{}: no section `{name}`, found {found}", path.display())]
    MissingSection {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names that there are.
        found: String,
    },
    /// A section has another type or shape than its reader expects.
    #[error("section has {found}, expected {expected}")]
    Shape {
        /// The type and shape found.
        found: String,
        /// The type and shape expected.
        expected: String,
    },
    /// Bytes changed after the file was written.
    #[error("{}: {what} is damaged, make the file again or restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that does not match its checksum.
        what: String,
    },
    /// The file carries no checksum for a section, so it cannot be verified.
    #[error("{}: section `{name}` carries no checksum, so it cannot be verified", path.display())]
    NoChecksum {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
    },
}
