//! `codes.npy` in and out, with `codes.json` beside it, which says what codebooks made the codes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dpq_codebook::Codebooks;
use dpq_formats::{Matrix, npy};
use dpq_index::Metric;
use serde::{Deserialize, Serialize};

/// Beside `codes.npy`, and written after it.
const ORIGIN: &str = "codes.json";

/// What `codes.json` beside `codes.npy` says, so that codes cannot meet codebooks that did not make them.
#[derive(Serialize, Deserialize)]
struct CodesOrigin {
    fingerprint: String,
    /// What the index ranks by that the codes are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
}

/// Reads codes [N, L], and the metric of the index that they are from, if they are. Refuses those that `codebooks`, of the
/// file `codebook`, did not make, as far as `codes.json` beside them tells.
pub(crate) fn read_codes(
    path: &Path,
    codebooks: &Codebooks,
    codebook: &Path,
) -> Result<(Matrix<u8>, Option<Metric>)> {
    let codes = npy::read_matrix::<u8>(path)?;
    ensure!(
        codes.columns == codebooks.n_levels(),
        "{} has codes of {} levels but {} has {} levels, give the codebook that made these codes",
        path.display(),
        codes.columns,
        codebook.display(),
        codebooks.n_levels()
    );
    let origin = path.with_extension("json");
    let text = match std::fs::read(&origin) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((codes, None)),
        text => text.with_context(|| format!("cannot read {}", origin.display()))?,
    };
    let found: CodesOrigin =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", origin.display()))?;
    ensure!(
        found.fingerprint == codebooks.fingerprint(),
        "{} was made by codebooks {}, {} has {}, give the codebook that made these codes",
        path.display(),
        found.fingerprint,
        codebook.display(),
        codebooks.fingerprint()
    );
    let metric = found.metric.map(|metric| metric.parse()).transpose();
    Ok((codes, metric.with_context(|| format!("cannot read {}", origin.display()))?))
}

/// Where an earlier encoding is in the folder `dir`, removes its origin, so that codes never meet the fingerprint of other
/// codebooks, and after it `stale` files.
pub(crate) fn remove_stale(dir: &Path, stale: &[&str]) -> Result<()> {
    // Without an origin the folder is not dpq's, and nothing in it is touched.
    if dir.join(ORIGIN).exists() {
        for path in [ORIGIN].iter().chain(stale).map(|file| dir.join(file)).filter(|path| path.exists()) {
            std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes codes [N, L] into the folder `dir`, and what made them: codebooks, and where they are from an index its metric.
pub(crate) fn write_codes(
    dir: &Path,
    codebooks: &Codebooks,
    codes: &[u8],
    metric: Option<Metric>,
) -> Result<()> {
    remove_stale(dir, &[])?;
    let path = dir.join(ORIGIN);
    npy::write(&dir.join("codes.npy"), &[codes.len() / codebooks.n_levels(), codebooks.n_levels()], codes)?;
    let metric = metric.map(|metric| metric.to_string());
    let origin = serde_json::to_vec(&CodesOrigin { fingerprint: codebooks.fingerprint(), metric })?;
    dpq_file::write_atomic(&path, |out| out.write_all(&origin))?;
    Ok(())
}
