//! `dpq encode`: features in, codes out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use dpq_codebook::{Codebooks, LevelUsage, usage};
use serde::{Deserialize, Serialize};

use crate::{npy, output};

/// Encode features into codes
///
/// Features become codes.npy; codes.json beside it names the codebooks.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq encode --codebook cb.safetensors --features x.npy --out-dir codes")]
pub(crate) struct Args {
    /// Codebooks to encode with: a codebook or a model file
    #[arg(long, value_name = "SAFETENSORS")]
    codebook: PathBuf,
    /// Features, float32 [N, D]
    #[arg(long, value_name = "NPY")]
    features: PathBuf,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

/// What `codes.json` beside `codes.npy` says, so that codes cannot meet codebooks that did not make them.
#[derive(Serialize, Deserialize)]
pub(crate) struct CodesOrigin {
    pub(crate) fingerprint: String,
}

#[derive(Serialize)]
struct Encoded {
    items: usize,
    dim: usize,
    levels: usize,
    seconds: f64,
    items_per_second: f64,
    relative_distortion: Vec<f64>,
    usage: Vec<Usage>,
    fingerprint: String,
    peak_memory_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Usage {
    used: usize,
    perplexity: f64,
    distinct: usize,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        output::create_dir(&self.out_dir)?;
        let encoded = self.encode_features(&Codebooks::open(&self.codebook)?, &self.features)?;
        output::print(json, &encoded, &encoded.text(&self.out_dir))
    }

    fn encode_features(&self, codebooks: &Codebooks, path: &Path) -> Result<Encoded> {
        let features = npy::read_matrix::<f32>(path)?;
        ensure!(
            features.columns == codebooks.dim(),
            "{} has features of {} dimensions, the codebooks have {}",
            path.display(),
            features.columns,
            codebooks.dim()
        );
        let start = Instant::now();
        let codes = codebooks.encode(&features.values)?;
        self.finish(start, codebooks, &features.values, &codes)
    }

    fn finish(
        &self,
        start: Instant,
        codebooks: &Codebooks,
        features: &[f32],
        codes: &[u8],
    ) -> Result<Encoded> {
        let seconds = output::seconds(start);
        let (n_levels, items) = (codebooks.n_levels(), features.len() / codebooks.dim());
        let path = self.out_dir.join("codes.npy");
        npy::write(&path, &[items, n_levels], codes)?;
        let origin = serde_json::to_vec(&CodesOrigin { fingerprint: codebooks.fingerprint() })?;
        dpq_file::write_atomic(&path.with_extension("json"), |out| out.write_all(&origin))?;
        Ok(Encoded {
            items,
            dim: codebooks.dim(),
            levels: n_levels,
            seconds,
            items_per_second: items as f64 / seconds,
            relative_distortion: codebooks.relative_distortion(features, codes)?,
            usage: usage(codes, n_levels, codebooks.n_codewords())?.into_iter().map(Usage::from).collect(),
            fingerprint: codebooks.fingerprint(),
            peak_memory_bytes: output::peak_memory_bytes(),
        })
    }
}

impl From<LevelUsage> for Usage {
    fn from(level: LevelUsage) -> Self {
        Self { used: level.used, perplexity: level.perplexity, distinct: level.distinct }
    }
}

impl Encoded {
    fn text(&self, dir: &Path) -> String {
        let mut text = format!(
            "encoded {} items into {} ({:.0} a second)\n",
            self.items,
            dir.display(),
            self.items_per_second
        );
        for (level, (distortion, usage)) in self.relative_distortion.iter().zip(&self.usage).enumerate() {
            writeln!(
                text,
                "{:>3} bits: distortion {distortion:.4} of mean x², {} codewords used, {} distinct codes",
                8 * (level + 1),
                usage.used,
                usage.distinct
            )
            .expect("writing to a string");
        }
        text
    }
}
