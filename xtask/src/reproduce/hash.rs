//! The hash that names what a stage was made of.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// SHA-256 over a list of byte strings, each preceded by its length so that no two lists are alike.
#[derive(Default)]
pub(crate) struct Hash(Sha256);

impl Hash {
    /// Of the contents of a file.
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

    /// Adds the names and contents of all files below a folder, in the order of their names; of photographs, which may be
    /// many gigabytes, size and time in place of contents.
    pub(crate) fn add_folder(&mut self, dir: &Path) -> Result<()> {
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
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
    use super::*;

    #[test]
    fn files_count_by_contents_and_photographs_by_size_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let hash = || {
            let mut hash = Hash::default();
            hash.add_folder(dir.path()).unwrap();
            hash.finish()
        };
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        };
        write("list.txt", "a");
        write("1.JPEG", "a");
        let first = hash();
        assert_eq!(first, hash());
        write("1.JPEG", "b");
        assert_eq!(first, hash(), "of the same size and time");
        write("1.JPEG", "longer");
        assert_ne!(first, hash());
        write("1.JPEG", "a");
        fs::File::options()
            .write(true)
            .open(dir.path().join("1.JPEG"))
            .unwrap()
            .set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1))
            .unwrap();
        assert_ne!(first, hash());
        write("1.JPEG", "a");
        write("list.txt", "b");
        assert_ne!(first, hash());
    }
}
