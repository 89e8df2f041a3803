//! Atomic writing: a file exists whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Writes a file that replaces `path` only when it is complete.
///
/// `fill` writes into a temporary file in the same folder. The file is synced and renamed to
/// `path`, then the folder is synced. Permissions follow the process's umask. Programs that have
/// mapped the old file keep seeing its bytes.
///
/// # Errors
/// [`Error::Io`] if the system or `fill` fails, or if `path` is a folder or a device. The temporary
/// file is removed, and `path` keeps its old contents. [`Error::Unsynced`] if only the last step,
/// syncing the folder, failed: `path` has the new contents, and after a crash either.
pub fn write_atomic(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let path = path.as_ref();
    replace(path, fill).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })?;
    sync_parent(path)
}

fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Renaming would replace a device such as /dev/null with a file.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(not_a_file());
    }
    let (mut temporary, file) = Temporary::beside(path)?;
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary.path, path)?;
    // The temporary name is free again, and another writer may take it.
    temporary.renamed = true;
    Ok(())
}

/// Renames a complete file to `to`, in the same folder. Its contents and its new name survive a
/// crash.
///
/// # Errors
/// [`Error::Io`] if the system refuses: `to` keeps its old contents. [`Error::Unsynced`] as in
/// [`write_atomic`].
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let rename = || {
        // Some systems sync only files that were opened for writing.
        OpenOptions::new().write(true).open(from)?.sync_all()?;
        fs::rename(from, to)
    };
    rename().map_err(|source| Error::Io { action: "write", path: to.to_owned(), source })?;
    sync_parent(to)
}

/// Returns the error of a path that names a folder, a device or a pipe.
pub(crate) fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Makes the names in a folder survive a crash: files that were made, renamed or removed before. An
/// empty path is the current folder.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub fn sync_folder(folder: impl AsRef<Path>) -> Result<(), Error> {
    let folder = folder.as_ref();
    sync(folder).map_err(|source| Error::Io { action: "sync", path: folder.to_owned(), source })
}

/// Makes a renaming survive a crash.
fn sync_parent(path: &Path) -> Result<(), Error> {
    sync(path.parent().unwrap_or(path)).map_err(|source| Error::Unsynced { path: path.to_owned(), source })
}

fn sync(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Only Unix opens folders as files.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Removes the temporary file when dropped, unless it was renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates a file beside `path`, under an unused name.
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temporary = path.with_file_name(format!(".dpq-{}-{number}.tmp", process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                // A killed process left this file: in containers, process numbers repeat.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|file| (Self { path: temporary, renamed: false }, file)),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
