//! Opens the files that a user names.

use std::fs::{self, File};
use std::path::Path;

use crate::{Error, Result};

/// Opens a regular file and returns it with its size. Opening a pipe would wait for a writer, and
/// reading a device may never end.
///
/// # Errors
/// [`Error::NotAFile`] if the path names anything else, [`Error::Read`] if the system fails.
pub fn open(path: impl AsRef<Path>) -> Result<(File, u64)> {
    let path = path.as_ref();
    let read = |error| Error::Read(path.to_owned(), error);
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    Ok((file, size))
}

/// Returns the extension of `path` in lower case, without the dot; empty if there is none.
pub fn extension(path: impl AsRef<Path>) -> String {
    path.as_ref().extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}
