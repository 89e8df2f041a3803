//! `dpq decode`: codes in, approximate features out.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_codebook::{CodeLength, Codebooks};
use dpq_formats::npy;
use serde::Serialize;

use crate::codes::read_codes;
use crate::output;

/// Decode codes into approximate features
///
/// The result is the sum of one codeword per level of the length: the vectors that search compares
/// queries with.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq decode --codes codes.npy --codebook model.safetensors --bits 16 --out x.npy"
)]
pub(crate) struct Args {
    /// Codes, uint8 [N, L]
    #[arg(long, value_name = "NPY")]
    codes: PathBuf,
    /// The codebooks (or the model file) that made them
    #[arg(long, value_name = "SAFETENSORS")]
    codebook: PathBuf,
    /// Code length to decode at, a multiple of 8 [default: the longest]
    #[arg(long)]
    bits: Option<usize>,
    /// File for the features, float32 [N, D]
    #[arg(long, value_name = "NPY")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Decoded {
    items: usize,
    dim: usize,
    bits: usize,
    seconds: f64,
    fingerprint: String,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        output::check_out(&self.out, [&self.codes, &self.codebook])?;
        let codebooks = Codebooks::open(&self.codebook)?;
        let length = self.bits.map_or(Ok(codebooks.max_length()), CodeLength::from_bits)?;
        let (codes, _) = read_codes(&self.codes, &codebooks, &self.codebook)?;
        let start = Instant::now();
        let features = codebooks.decode(&codes.values, length)?;
        let decoded = Decoded {
            items: codes.rows,
            dim: codebooks.dim(),
            bits: length.bits(),
            seconds: output::seconds(start),
            fingerprint: codebooks.fingerprint(),
        };
        npy::write(&self.out, &[codes.rows, codebooks.dim()], &features)?;
        let text = format!("wrote {} features at {length} to {}", decoded.items, self.out.display());
        output::print(json, &decoded, &text)
    }
}
