//! Files that exist whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Writes a file that replaces `path` only when it is complete.
///
/// `fill` writes into a temporary file of the same folder, which is synced, renamed to `path`, and the folder synced.
/// Permissions are those that the process's umask gives. A file that was mapped under `path` before stays intact.
///
/// # Errors
/// [`Error::Io`] if the system or `fill` fails, or if `path` is a folder or a device. The temporary file is removed, and
/// unless only the last step failed, the syncing of the folder, `path` is as it was.
pub fn write_atomic(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let path = path.as_ref();
    replace(path, fill).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Renaming would put a file in the place of a device such as /dev/null.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(not_a_file());
    }
    let (mut temporary, file) = Temporary::beside(path)?;
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary.path, path)?;
    // The name is free again, and may soon be another writer's.
    temporary.renamed = true;
    sync_folder(path)
}

/// Gives a file that is complete its name `to`, in the same folder; both survive a crash.
///
/// # Errors
/// [`Error::Io`] if the system fails. Unless only the last step failed, the syncing of the folder, `to` is as it was.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let rename = || {
        // Only a file that was opened for writing can be synced everywhere.
        OpenOptions::new().write(true).open(from)?.sync_all()?;
        fs::rename(from, to)?;
        sync_folder(to)
    };
    rename().map_err(|source| Error::Io { action: "write", path: to.to_owned(), source })
}

/// The error of a path that names a folder, a device or a pipe.
pub(crate) fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Makes the renaming itself survive a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Only Unix opens folders as files; elsewhere renaming is as durable as the system makes it.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Removes the temporary file when writing failed; after the renaming there is nothing left to remove.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates a file beside `path`, under a name that nobody uses.
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temporary = path.with_file_name(format!(".dpq-{}-{number}.tmp", process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                // Left by a process that was killed: in containers, process numbers come again.
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
