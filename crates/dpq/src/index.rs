//! `dpq index`: builds, inspects, checks, upgrades, imports and exports index files, and changes
//! live indexes.

mod export;
mod import;
mod live;
mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Subcommand;
use dpq_codebook::{CodeLength, Codebooks, Form};
use dpq_formats::read_ids;
use dpq_index::{Index, Metric};
use serde::Serialize;
use serde_json::json;

use crate::codes::read_codes;
use crate::gallery::map;
use crate::output;

/// Build, change, inspect, check, upgrade, import and export an index
#[derive(Subcommand)]
pub(crate) enum Command {
    Build(BuildArgs),
    Add(Box<live::add::AddArgs>),
    Delete(live::DeleteArgs),
    Compact(live::CompactArgs),
    /// Print the properties of an index file or a live index
    #[command(after_help = "Example:\n  dpq index info gallery.dpq")]
    Info(IndexFile),
    /// Read every byte of an index file or a live index and check it
    #[command(after_help = "Example:\n  dpq index verify gallery.dpq")]
    Verify(IndexFile),
    Upgrade(upgrade::UpgradeArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

/// Build an index file from codes
///
/// One file serves every code length. The write is atomic.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq index build --codes codes.npy --codebook cb.safetensors --ids ids.npy --out gallery.dpq"
)]
pub(crate) struct BuildArgs {
    /// Codes, uint8 [N, L]
    #[arg(long, value_name = "NPY")]
    codes: PathBuf,
    /// The codebooks (or the model file) that made the codes
    #[arg(long, value_name = "SAFETENSORS")]
    codebook: PathBuf,
    /// Ids of the codes, N values: .npy (uint64 or int64) or .ivecs [default: row numbers]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Metric: inner product (ip), for features of `dpq train`, or Euclidean distance (l2), for
    /// vectors of other origin that are not of unit length [default: that of the index the codes
    /// were exported from, else ip]
    #[arg(long, value_parser = |s: &str| s.parse::<Metric>())]
    metric: Option<Metric>,
    /// Code lengths to keep norms for, with the metric l2: 4 bytes per distinct code and length
    /// above 16. Searches at other lengths compute norms once per process [default: 24 to 64, 96,
    /// 128, 192, 256, 384, 512 and the longest]
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    norms: Vec<usize>,
    /// File for the index
    #[arg(long, value_name = "DPQ")]
    out: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct IndexFile {
    /// The index file, or the folder of a live index
    index: PathBuf,
}

#[derive(Serialize)]
struct Info {
    items: usize,
    distinct: usize,
    dim: usize,
    levels: usize,
    codewords: usize,
    form: Form,
    metric: String,
    version: u8,
    /// The code lengths that the file has norms for, in bits.
    norms: Vec<usize>,
    bytes: u64,
    bytes_per_item: f64,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Build(args) => args.run(json),
            Self::Add(args) => args.run(json),
            Self::Delete(args) => args.run(json),
            Self::Compact(args) => args.run(json),
            Self::Info(args) if args.index.is_dir() => {
                let info = live::info(&args.index)?;
                output::print(json, &info, &info.text())
            }
            Self::Info(args) => {
                let info = info(&args.index)?;
                output::print(json, &info, &info.text())
            }
            Self::Verify(args) => {
                let start = Instant::now();
                let items = if args.index.is_dir() {
                    live::verify(&args.index)?
                } else {
                    let index = map(&args.index)?;
                    index.verify()?;
                    index.len()
                };
                let seconds = output::seconds(start);
                let text = format!("{}: no damage, {items} items", args.index.display());
                output::print(json, &json!({ "items": items, "seconds": seconds }), &text)
            }
            Self::Upgrade(args) => args.run(json),
            Self::Import(args) => args.run(json),
            Self::Export(args) => args.run(json),
        }
    }
}

impl BuildArgs {
    fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        output::check_out(&self.out, [&self.codes, &self.codebook].into_iter().chain(&self.ids))?;
        let codebooks = Codebooks::open(&self.codebook)?;
        let (codes, metric) = read_codes(&self.codes, &codebooks, &self.codebook)?;
        let ids = self.ids.as_deref().map(read_ids).transpose()?;
        let metric = self.metric.or(metric).unwrap_or(Metric::InnerProduct);
        let mut index = Index::builder(&codebooks, &codes.values).metric(metric);
        let norms =
            self.norms.iter().map(|&bits| CodeLength::from_bits(bits)).collect::<Result<Vec<_>, _>>()?;
        if !norms.is_empty() {
            ensure!(metric == Metric::Euclidean, "--norms is for Euclidean distance, give --metric l2 too");
            let is_product = codebooks.form() == Form::Product;
            ensure!(!is_product, "an index of product codes keeps no norms, leave out --norms");
            index = index.norm_lengths(&norms);
        }
        ids.as_deref().map_or(index, |ids| index.ids(ids)).write(&self.out)?;
        Info::built(&self.out, start)?.print(json, &self.out)
    }
}

fn info(path: &Path) -> Result<Info> {
    let index = map(path)?;
    let bytes = std::fs::metadata(path)?.len();
    Ok(Info {
        items: index.len(),
        distinct: index.n_distinct(),
        dim: index.codebooks().dim(),
        levels: index.codebooks().n_levels(),
        codewords: index.codebooks().n_codewords(),
        form: index.codebooks().form(),
        metric: index.metric().to_string(),
        version: index.version(),
        norms: index.norm_lengths().iter().map(|length| length.bits()).collect(),
        bytes,
        bytes_per_item: bytes as f64 / index.len().max(1) as f64,
        fingerprint: index.fingerprint(),
        seconds: None,
        peak_memory_bytes: None,
    })
}

impl Info {
    /// Returns the properties of a file that was built since `start`.
    fn built(path: &Path, start: Instant) -> Result<Self> {
        Ok(Self {
            seconds: Some(output::seconds(start)),
            peak_memory_bytes: output::peak_memory_bytes(),
            ..info(path)?
        })
    }

    fn print(&self, json: bool, path: &Path) -> Result<()> {
        output::print(json, self, &format!("wrote {}\n{}", path.display(), self.text()))
    }

    fn text(&self) -> String {
        let norms: Vec<String> = self.norms.iter().map(ToString::to_string).collect();
        let norms =
            if norms.is_empty() { String::new() } else { format!(", norms at {} bits", norms.join(", ")) };
        let product = if self.form == Form::Product { " in equal parts" } else { "" };
        format!(
            "items        {} ({} distinct codes)\nlevels       {} of {} codewords, {} dimensions{product}\n\
             metric       {}\nversion      {}{norms}\nsize         {} bytes, {:.2} per item\nfingerprint  {}",
            self.items,
            self.distinct,
            self.levels,
            self.codewords,
            self.dim,
            self.metric,
            self.version,
            self.bytes,
            self.bytes_per_item,
            self.fingerprint
        )
    }
}
