//! The hash of the inputs of a stage.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::process::list;

/// SHA-256 of a list of byte strings. Each is preceded by its length, so that different lists
/// differ.
#[derive(Default)]
pub(crate) struct Hash(Sha256);

impl Hash {
    /// Hashes the contents of a file.
    pub(crate) fn of_file(path: &Path) -> Result<String> {
        let mut hash = Self::default();
        hash.add_file(path)?;
        Ok(hash.finish())
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn add_file(&mut self, path: &Path) -> Result<()> {
        self.add(&fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        Ok(())
    }

    /// Adds the names and contents of all files below a folder, in the order of their names.
    /// Photographs may be many gigabytes, so their size and time replace their contents.
    pub(crate) fn add_folder(&mut self, dir: &Path) -> Result<()> {
        for path in list(dir)? {
            self.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if ["jpg", "jpeg", "png"].contains(&extension.as_str()) {
                let file = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let time = file.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                self.add(format!("{} {}", file.len(), time.as_nanos()).as_bytes());
            } else {
                self.add_file(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_are_hashed_by_contents_and_photographs_by_size_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let hash_with = |name: &str, text: &str, seconds: u64| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            let mut hash = Hash::default();
            hash.add_folder(dir.path()).unwrap();
            hash.finish()
        };
        hash_with("list.txt", "a", 0);
        let first = hash_with("1.JPEG", "a", 0);
        assert_eq!(first, hash_with("1.JPEG", "b", 0), "same size and time");
        assert_ne!(first, hash_with("1.JPEG", "longer", 0));
        assert_ne!(first, hash_with("1.JPEG", "a", 1));
        assert_eq!(first, hash_with("1.JPEG", "a", 0));
        assert_eq!(first, hash_with("list.txt", "a", 1), "same contents");
        assert_ne!(first, hash_with("list.txt", "b", 0));
    }
}
