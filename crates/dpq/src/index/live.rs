//! `dpq index delete` and `compact`, and the properties of a live index.
//!
//! - `add`: `dpq index add`
//! - `input`: the items to add
//! - `sink`: takes items and commits them

pub(super) mod add;
mod input;
mod sink;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use dpq_formats::read_ids;
use dpq_live::{Snapshot, Stats};
use serde::Serialize;
use serde_json::json;

use crate::gallery::{snapshot, writer};
use crate::output;

/// Delete items of a live index
///
/// All in one commit: if one of the items does not exist, none is deleted.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("items").required(true).multiple(true),
    after_help = "Examples:\n  dpq index delete photos.live --id 7,8\n  \
        dpq index delete photos.live --name photos/cat.jpg\n  dpq index delete gallery.live --ids old.npy"
)]
pub(crate) struct DeleteArgs {
    /// The folder of the live index
    index: PathBuf,
    /// Ids of the items
    #[arg(long, group = "items", value_name = "ID", value_delimiter = ',')]
    id: Vec<u64>,
    /// Ids of the items: .npy (uint64 or int64) or .ivecs
    #[arg(long, group = "items", value_name = "FILE")]
    ids: Option<PathBuf>,
    /// The name of an item; may be given several times
    #[arg(long, group = "items")]
    name: Vec<String>,
}

/// Merge a live index into one segment without deleted items
///
/// Searches are fastest then. Readers go on meanwhile.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq index compact photos.live")]
pub(crate) struct CompactArgs {
    /// The folder of the live index
    index: PathBuf,
}

impl DeleteArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let mut ids = self.ids.as_deref().map(read_ids).transpose()?.unwrap_or_default();
        let mut live = writer(&self.index)?;
        for name in &self.name {
            let id = live.id_of(name).with_context(|| {
                format!("{} has no item of the name {name:?}, so it cannot be deleted", self.index.display())
            })?;
            ids.push(id);
        }
        ids.extend(self.id);
        // An item may be named twice.
        ids.sort_unstable();
        ids.dedup();
        ids.iter().try_for_each(|&id| live.delete(id))?;
        let commit = live.commit()?;
        let (deleted, items) = (ids.len(), live.len());
        let text = format!("deleted {deleted} items of {}, which has {items} now", self.index.display());
        output::print(json, &json!({ "deleted": deleted, "items": items, "commit": commit }), &text)
    }
}

impl CompactArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let mut live = writer(&self.index)?;
        live.compact()?;
        let seconds = Some(output::seconds(start));
        let info = Info { seconds, ..Info::new(&live.snapshot()?) };
        output::print(json, &info, &format!("compacted {}\n{}", self.index.display(), info.text()))
    }
}

/// Reads every byte of a live index. Returns the number of items.
pub(super) fn verify(path: &Path) -> Result<usize> {
    let snapshot = snapshot(path)?;
    snapshot.verify()?;
    Ok(snapshot.len())
}

pub(super) fn info(path: &Path) -> Result<Info> {
    Ok(Info::new(&snapshot(path)?))
}

/// The properties of a live index.
#[derive(Serialize)]
pub(super) struct Info {
    items: usize,
    /// The items of each segment, deleted ones included.
    segments: Vec<usize>,
    tail: usize,
    deleted: usize,
    commit: u64,
    dim: usize,
    levels: usize,
    codewords: usize,
    metric: String,
    bytes: usize,
    bytes_per_item: f64,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

impl Info {
    fn new(snapshot: &Snapshot) -> Self {
        let Stats { commit, items, segments, tail, deleted, bytes, .. } = snapshot.stats();
        let codebooks = snapshot.codebooks();
        Self {
            items,
            segments,
            tail,
            deleted,
            commit,
            dim: codebooks.dim(),
            levels: codebooks.n_levels(),
            codewords: codebooks.n_codewords(),
            metric: snapshot.metric().to_string(),
            bytes,
            bytes_per_item: bytes as f64 / items.max(1) as f64,
            fingerprint: codebooks.fingerprint(),
            seconds: None,
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { items, tail, deleted, commit, levels, codewords, dim, metric, .. } = self;
        format!(
            "items        {items} ({tail} of them in the tail)\n\
             segments     {} ({deleted} deleted or replaced items)\ncommit       {commit}\n\
             levels       {levels} of {codewords} codewords, {dim} dimensions\nmetric       {metric}\n\
             memory       {} bytes, {:.2} per item\nfingerprint  {}",
            self.segments.len(),
            self.bytes,
            self.bytes_per_item,
            self.fingerprint
        )
    }
}
