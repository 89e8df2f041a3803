//! Class embeddings from a file.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use dpq_data::parse_word_vectors;
use dpq_formats::{extension, read_features};

/// Reads one vector per class, f32 [C, dim]: the rows of a .npy file, or word vectors looked up by
/// class name.
pub(crate) fn read(path: &Path, names: &[String], dim: usize) -> Result<Vec<f32>> {
    let file = path.display();
    let (found, values) = if extension(path) == "npy" {
        let vectors = read_features(path)?;
        let (rows, expected) = (vectors.rows, names.len());
        ensure!(rows == expected, "{file} has {rows} rows, expected one per class: {expected}");
        (vectors.columns, vectors.values)
    } else {
        let (text, _) = dpq_formats::open(path)?;
        let vectors =
            parse_word_vectors(BufReader::new(text), names).map_err(|reason| anyhow!("{file}: {reason}"))?;
        (vectors.first().map_or(0, Vec::len), vectors.concat())
    };
    ensure!(
        found == dim,
        "{file} has vectors of {found} numbers, features have {dim}: give others or set `dim` under [network]"
    );
    Ok(values)
}
