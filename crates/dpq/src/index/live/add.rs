//! `dpq index add`: items in, in commits.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::Codebooks;
use dpq_index::Metric;
use dpq_live::{Error, LiveIndex};
use serde::Serialize;

use super::input::ItemArgs;
use super::sink::Sink;
use crate::gallery::writer;
use crate::inputs::NetworkOptions;
use crate::output;

/// Add items to a live index, or replace those with the same id
///
/// A live index is a folder whose items change. The first call makes it, with --codebook or
/// --model. Searches during the call see the last commit, and Ctrl-C leaves that. Images of a
/// folder have their paths as names: a path that the index knows is replaced, and others get new
/// ids.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq index add gallery.live --codes codes.npy --ids ids.npy --codebook cb.safetensors\n  \
        dpq index add gallery.live --features new.npy --ids new-ids.npy\n  \
        dpq index add photos.live --images photos --model model.safetensors\n  \
        echo '{\"id\": 7, \"code\": [1, 2, 3, 4], \"name\": \"cat\"}' | dpq index add gallery.live --stdin"
)]
pub(crate) struct AddArgs {
    /// The folder of the live index
    index: PathBuf,
    #[command(flatten)]
    items: ItemArgs,
    /// The model that images, or features that it was trained on, run through
    #[arg(long, value_name = "SAFETENSORS", conflicts_with = "codes")]
    model: Option<PathBuf>,
    /// The codebooks that made the codes, or that encode features [default: those of the live
    /// index]
    #[arg(long, value_name = "SAFETENSORS", conflicts_with = "model")]
    codebook: Option<PathBuf>,
    /// Metric of a new live index: inner product (ip) or Euclidean distance (l2) [default: that of
    /// the index the codes were exported from, else ip]
    #[arg(long, value_parser = |s: &str| s.parse::<Metric>())]
    metric: Option<Metric>,
    /// Items per commit; the rest is committed at the end
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = positive)]
    commit_every: usize,
    #[command(flatten)]
    network: NetworkOptions,
}

fn positive(text: &str) -> Result<usize> {
    text.parse().ok().filter(|&n| n > 0).context("expected a number from 1 on")
}

#[derive(Serialize)]
struct Added {
    /// Items with an id that the index did not have.
    added: usize,
    replaced: usize,
    /// Images that could not be read.
    left_out: usize,
    items: usize,
    segments: usize,
    commit: u64,
    seconds: f64,
    items_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

impl AddArgs {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let index = self.index.display();
        ensure!(
            !self.index.is_file(),
            "{index} is a file, expected the folder of a live index, give another"
        );
        let model = self.model.as_deref().map(|path| self.network.open_model(path)).transpose()?;
        let live = match writer(&self.index) {
            Err(Error::NotLive { .. }) => None,
            opened => Some(opened?),
        };
        let (file, codebooks) = match (&self.model, &model, &self.codebook, &live) {
            (Some(file), Some(model), ..) => (file, model.codebooks().clone()),
            (_, _, Some(file), _) => (file, Codebooks::open(file)?),
            (_, _, _, Some(live)) => (&self.index, live.codebooks().clone()),
            _ => bail!("there is no live index {index}, give --codebook or --model too"),
        };
        // Before a folder is made.
        let input = self.items.open(&codebooks, file, model.as_ref())?;
        let live = match live {
            Some(live) => self.check(live, &codebooks)?,
            None => self.create(&codebooks, input.metric())?,
        };
        let bar = match input.len()? {
            Some(n) => output::progress(n, "adding"),
            None => output::counter("adding"),
        };
        let before = live.len();
        let stop = output::stop_flag()?;
        let mut sink = Sink { live, every: self.commit_every, stop, bar, n_put: 0, n_open: 0 };
        let left_out = input.put(&codebooks, &mut sink).map_err(|error| sink.stopped(error))?;
        let commit = sink.commit().map_err(|error| sink.stopped(error))?;
        sink.bar.finish_and_clear();

        let (items, n_put, seconds) = (sink.live.len(), sink.n_put, output::seconds(start));
        let added = items - before;
        let done = Added {
            added,
            replaced: n_put - added,
            left_out,
            items,
            segments: sink.live.snapshot()?.stats().segments.len(),
            commit,
            seconds,
            items_per_second: n_put as f64 / seconds,
            peak_memory_bytes: output::peak_memory_bytes(),
        };
        let Added { replaced, segments, .. } = done;
        let mut text = format!(
            "added {added} items to {index} and replaced {replaced}: {items} items in {segments} segments and a tail, commit \
             {commit}"
        );
        if left_out > 0 {
            text += &format!("\nskipped {left_out} images that cannot be read");
        }
        output::print(json, &done, &text)
    }

    fn create(&self, codebooks: &Codebooks, metric: Option<Metric>) -> Result<LiveIndex> {
        let metric = self.metric.or(metric).unwrap_or(Metric::InnerProduct);
        let _dir = output::ResultDir::create(&self.index)?;
        Ok(LiveIndex::create(&self.index, codebooks, metric)?)
    }

    /// Refuses other codebooks and another metric than the live index has.
    fn check(&self, live: LiveIndex, codebooks: &Codebooks) -> Result<LiveIndex> {
        let (index, found, expected) =
            (self.index.display(), codebooks.fingerprint(), live.codebooks().fingerprint());
        ensure!(
            found == expected,
            "{index} has codebooks {expected}, these are {found}: give the codebooks or the model that made its codes"
        );
        let expected = live.metric();
        ensure!(
            self.metric.is_none_or(|metric| metric == expected),
            "{index} has the metric {expected}, which stays: leave out --metric, or make another live index"
        );
        Ok(live)
    }
}
