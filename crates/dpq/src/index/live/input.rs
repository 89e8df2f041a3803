//! The items to add: codes, features, images, or lines of stdin.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::Codebooks;
use dpq_formats::{FeatureFile, Matrix, read_ids};
use dpq_index::Metric;
use dpq_model::Model;
use serde::Deserialize;

use super::sink::Sink;
use crate::codes::read_codes;
use crate::inputs::{Inputs, Source, read_lines};

/// The options that name the items.
#[derive(clap::Args)]
pub(super) struct ItemArgs {
    /// Codes, uint8 [N, L]
    #[arg(long, group = "input", value_name = "NPY")]
    codes: Option<PathBuf>,
    /// Read items from stdin, one JSON object per line: "id", "code" (a number per level) or
    /// "features" (a number per dimension), and "name" if it has one
    #[arg(long, group = "input", conflicts_with_all = ["ids", "names", "model"])]
    stdin: bool,
    #[command(flatten)]
    inputs: Inputs,
    /// Ids of the rows of codes or features, N values: .npy (uint64 or int64) or .ivecs [default:
    /// row numbers]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "data"])]
    ids: Option<PathBuf>,
    /// Names of the rows of codes or features, one line each
    #[arg(long, value_name = "TXT", conflicts_with_all = ["images", "data"])]
    names: Option<PathBuf>,
}

/// Opened items.
pub(super) enum Items<'a> {
    Codes(Matrix<u8>, Option<Metric>, Labels),
    Features(FeatureFile, Labels),
    Network { model: &'a Model, source: Source, is_strict: bool, bad: Option<PathBuf>, labels: Labels },
    Stdin,
}

/// The ids and names of rows.
pub(super) struct Labels {
    ids: Option<Vec<u64>>,
    names: Option<Vec<String>>,
}

/// A line of stdin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: u64,
    code: Option<Vec<u8>>,
    features: Option<Vec<f32>>,
    name: Option<String>,
}

impl ItemArgs {
    /// Opens the items. `codebooks` are those of the live index, and `file` has them.
    pub(super) fn open<'a>(
        &self,
        codebooks: &Codebooks,
        file: &Path,
        model: Option<&'a Model>,
    ) -> Result<Items<'a>> {
        Ok(match (&self.codes, &self.inputs.features, model) {
            (Some(path), ..) => {
                let (codes, metric) = read_codes(path, codebooks, file)?;
                let labels = self.labels(path, codes.rows)?;
                Items::Codes(codes, metric, labels)
            }
            _ if self.stdin => Items::Stdin,
            (_, features, Some(model)) => {
                let source = self.inputs.open(model)?;
                let labels = match features {
                    Some(path) => self.labels(path, source.rows()?.len())?,
                    None => Labels { ids: None, names: None },
                };
                let (is_strict, bad) = (self.inputs.strict, self.inputs.skip_bad.clone());
                Items::Network { model, source, is_strict, bad, labels }
            }
            (_, Some(path), None) => {
                let file = FeatureFile::open(path)?;
                let (found, dim) = (file.columns(), codebooks.dim());
                ensure!(
                    found == dim,
                    "{} has features of {found} dimensions, the codebooks have {dim}",
                    path.display()
                );
                let labels = self.labels(path, file.rows())?;
                Items::Features(file, labels)
            }
            _ => bail!("images need --model, which makes their features"),
        })
    }

    fn labels(&self, path: &Path, n_rows: usize) -> Result<Labels> {
        let ids = self.ids.as_deref().map(read_ids).transpose()?;
        let names = self.names.as_deref().map(read_lines).transpose()?;
        for (given, what) in [(ids.as_ref().map(Vec::len), "ids"), (names.as_ref().map(Vec::len), "names")] {
            let n = given.unwrap_or(n_rows);
            ensure!(n == n_rows, "{} has {n_rows} rows, {n} {what} were given", path.display());
        }
        Ok(Labels { ids, names })
    }
}

impl Labels {
    fn put(&self, sink: &mut Sink, row: usize, code: &[u8]) -> Result<()> {
        let id = self.ids.as_ref().map_or(row as u64, |ids| ids[row]);
        sink.put(id, code, self.names.as_ref().map(|names| names[row].as_str()))
    }
}

impl Items<'_> {
    /// Returns the number of items, unless they come from stdin.
    pub(super) fn len(&self) -> Result<Option<usize>> {
        Ok(match self {
            Self::Codes(codes, ..) => Some(codes.rows),
            Self::Features(file, _) => Some(file.rows()),
            Self::Network { source, .. } => Some(source.rows()?.len()),
            Self::Stdin => None,
        })
    }

    /// Returns the metric of the index that codes were exported from.
    pub(super) fn metric(&self) -> Option<Metric> {
        if let Self::Codes(_, metric, _) = self { *metric } else { None }
    }

    /// Gives all items to `sink`. Returns the number of images that could not be read.
    pub(super) fn put(&self, codebooks: &Codebooks, sink: &mut Sink) -> Result<usize> {
        let n_levels = codebooks.n_levels();
        match self {
            Self::Codes(codes, _, labels) => {
                let rows = codes.values.chunks_exact(n_levels).enumerate();
                rows.into_iter().try_for_each(|(row, code)| labels.put(sink, row, code))?;
            }
            Self::Features(file, labels) => {
                for (first, n) in file.chunks() {
                    let mut features = vec![0.0; n * file.columns()];
                    file.read_finite(first, &mut features)?;
                    let codes = codebooks.encode(&features)?;
                    for (row, code) in (first..).zip(codes.chunks_exact(n_levels)) {
                        labels.put(sink, row, code)?;
                    }
                }
            }
            Self::Network { model, source, is_strict, bad, labels } => {
                let (all, mut read) = (source.rows()?, Vec::new());
                let mut images = Images::new(source, sink);
                source.for_each_batch(&all, *is_strict, |rows, items| {
                    let codes = model.encode(&items.forward(model)?.features)?;
                    read.extend_from_slice(rows);
                    for (&row, code) in rows.iter().zip(codes.chunks_exact(n_levels)) {
                        match &mut images {
                            Some(images) => images.put(sink, row as usize, code)?,
                            None => labels.put(sink, row as usize, code)?,
                        }
                    }
                    Ok(())
                })?;
                if let Some(path) = bad {
                    source.write_bad(path, &all, &read)?;
                }
                return Ok(all.len() - read.len());
            }
            Self::Stdin => {
                for (n, line) in (1..).zip(std::io::stdin().lines()) {
                    let line = line.context("cannot read stdin")?;
                    if !line.trim().is_empty() {
                        put_line(&line, codebooks, sink).with_context(|| format!("stdin, line {n}"))?;
                    }
                }
            }
        }
        Ok(0)
    }
}

fn put_line(line: &str, codebooks: &Codebooks, sink: &mut Sink) -> Result<()> {
    let Line { id, code, features, name } = serde_json::from_str(line)?;
    let code = match (code, features) {
        (Some(code), None) => code,
        (None, Some(features)) => {
            let (found, dim) = (features.len(), codebooks.dim());
            ensure!(found == dim, "id {id} has features of {found} dimensions, the codebooks have {dim}");
            codebooks.encode(&features)?
        }
        _ => bail!("id {id} needs either \"code\" or \"features\""),
    };
    sink.put(id, &code, name.as_deref())
}

/// Images of a folder: their paths are names, and ids are found by these or are new.
struct Images<'a> {
    dataset: &'a dpq_data::Dataset,
    /// An id greater than all others, if there is one.
    next: Option<u64>,
}

impl<'a> Images<'a> {
    fn new(source: &'a Source, sink: &Sink) -> Option<Self> {
        match source {
            Source::Images { dataset, has_names: true, .. } => {
                Some(Self { dataset, next: sink.live.max_id().map_or(Some(0), |id| id.checked_add(1)) })
            }
            _ => None,
        }
    }

    fn put(&mut self, sink: &mut Sink, row: usize, code: &[u8]) -> Result<()> {
        let path = self.dataset.path(row).context("images of a folder have paths")?;
        let name = path.display().to_string();
        let id = match sink.live.id_of(&name) {
            Some(id) => id,
            None => {
                let id = self.next.context("no id is left above the greatest one, give images other ids")?;
                self.next = id.checked_add(1);
                id
            }
        };
        sink.put(id, code, Some(&name))
    }
}
