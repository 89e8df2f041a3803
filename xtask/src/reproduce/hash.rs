//! The hash that names what a stage was made of.

use std::fs;
use std::path::Path;

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

    /// Adds the names and contents of all files below a folder, in the order of their names.
    pub(crate) fn add_folder(&mut self, dir: &Path) -> Result<()> {
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            self.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            if path.is_dir() { self.add_folder(&path)? } else { self.add_file(&path)? }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
