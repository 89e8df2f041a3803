//! `codes.npy` in and out, and `codes.json` beside it, which names the codebooks that made the
//! codes.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::Codebooks;
use dpq_formats::{Matrix, npy};
use dpq_index::Metric;
use serde::{Deserialize, Serialize};

/// The file beside `codes.npy`, written after it.
const ORIGIN: &str = "codes.json";

/// The contents of `codes.json`: codes are refused with any other codebooks than those that made
/// them.
#[derive(Serialize, Deserialize)]
struct CodesOrigin {
    fingerprint: String,
    /// The metric of the index that the codes were exported from.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
}

/// Reads codes [N, L], and the metric of the index that they were exported from, if any. Refuses
/// codes that other codebooks than `codebooks`, read from the file `codebook`, made according to
/// `codes.json`.
pub(crate) fn read_codes(
    path: &Path,
    codebooks: &Codebooks,
    codebook: &Path,
) -> Result<(Matrix<u8>, Option<Metric>)> {
    let codes = npy::read_matrix::<u8>(path)?;
    let (file, codebook) = (path.display(), codebook.display());
    let (found, expected) = (codes.columns, codebooks.n_levels());
    ensure!(
        found == expected,
        "{file} has codes of {found} levels but {codebook} has {expected} levels, give the codebook that made these codes"
    );
    let origin = path.with_extension("json");
    let reading = || format!("cannot read {}", origin.display());
    let text = match std::fs::read(&origin) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((codes, None)),
        text => text.with_context(reading)?,
    };
    let CodesOrigin { fingerprint, metric } = serde_json::from_slice(&text).with_context(reading)?;
    let expected = codebooks.fingerprint();
    ensure!(
        fingerprint == expected,
        "{file} was made by codebooks {fingerprint}, {codebook} has {expected}, give the codebook that made these codes"
    );
    Ok((codes, metric.map(|metric| metric.parse()).transpose().with_context(reading)?))
}

/// Removes `codes.json` of an earlier encoding from the folder `dir`, so that it never stands
/// beside other codes, then the `stale` files. Without `codes.json` the folder is not dpq's, and
/// nothing in it is touched.
pub(crate) fn remove_stale(dir: &Path, stale: &[&str]) -> Result<()> {
    if dir.join(ORIGIN).exists() {
        remove(dir, &[ORIGIN])?;
        remove(dir, stale)?;
    }
    Ok(())
}

/// Removes those of `files` that the folder `dir` has.
pub(crate) fn remove(dir: &Path, files: &[&str]) -> Result<()> {
    for path in files.iter().map(|file| dir.join(file)).filter(|path| path.exists()) {
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    Ok(())
}

/// Refuses the folder `dir` if it has one of `files`, which this command does not write: they would
/// stand beside codes or features of other items.
pub(crate) fn check_items_of(dir: &Path, files: &[&str]) -> Result<()> {
    match files.iter().map(|file| dir.join(file)).find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => bail!(
            "{} is of other items than those to be written beside it, write into another folder or remove it",
            path.display()
        ),
    }
}

/// Writes codes [N, L] into the folder `dir`, and their origin: codebooks, and the metric if they
/// are exported from an index.
pub(crate) fn write_codes(
    dir: &Path,
    codebooks: &Codebooks,
    codes: &[u8],
    metric: Option<Metric>,
) -> Result<()> {
    remove_stale(dir, &[])?;
    let path = dir.join(ORIGIN);
    npy::write(dir.join("codes.npy"), &[codes.len() / codebooks.n_levels(), codebooks.n_levels()], codes)?;
    let metric = metric.map(|metric| metric.to_string());
    let origin = serde_json::to_vec(&CodesOrigin { fingerprint: codebooks.fingerprint(), metric })?;
    dpq_file::write_atomic(&path, |out| out.write_all(&origin))?;
    Ok(())
}
