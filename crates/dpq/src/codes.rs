//! `codes.npy` in and out, with `codes.json` beside it, which says what codebooks made the codes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dpq_codebook::Codebooks;
use serde::{Deserialize, Serialize};

use crate::npy::{self, Matrix};

/// Beside `codes.npy`, and written after it.
pub(crate) const ORIGIN: &str = "codes.json";

/// What `codes.json` beside `codes.npy` says, so that codes cannot meet codebooks that did not make them.
#[derive(Serialize, Deserialize)]
struct CodesOrigin {
    fingerprint: String,
}

/// Reads codes [N, L] and refuses those that `codebooks`, of the file `codebook`, did not make, as far as `codes.json`
/// beside them tells.
pub(crate) fn read_codes(path: &Path, codebooks: &Codebooks, codebook: &Path) -> Result<Matrix<u8>> {
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(codes),
        text => text.with_context(|| format!("cannot read {}", origin.display()))?,
    };
    let origin: CodesOrigin =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", origin.display()))?;
    ensure!(
        origin.fingerprint == codebooks.fingerprint(),
        "{} was made by codebooks {}, {} has {}, give the codebook that made these codes",
        path.display(),
        origin.fingerprint,
        codebook.display(),
        codebooks.fingerprint()
    );
    Ok(codes)
}

/// Writes codes [N, L] into the folder `dir`, and what made them. An earlier origin goes first, so that codes never meet the
/// fingerprint of other codebooks.
pub(crate) fn write_codes(dir: &Path, codebooks: &Codebooks, codes: &[u8]) -> Result<()> {
    let path = dir.join(ORIGIN);
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    npy::write(&dir.join("codes.npy"), &[codes.len() / codebooks.n_levels(), codebooks.n_levels()], codes)?;
    let origin = serde_json::to_vec(&CodesOrigin { fingerprint: codebooks.fingerprint() })?;
    dpq_file::write_atomic(&path, |out| out.write_all(&origin))?;
    Ok(())
}
