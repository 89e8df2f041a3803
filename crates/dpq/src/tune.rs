//! `dpq tune`: the search options that reach a recall in the least time, measured.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dpq_codebook::CodeLength;
use dpq_formats::{FeatureFile, npy, read_features};
use dpq_index::{Hit, Index, SearchOptions};
use dpq_report::recall_by_time;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::gallery::map;
use crate::output;
use crate::search::{Shortlist, default_depth};
use crate::vectors::Vectors;

/// Measure which search options reach a recall in the least time
///
/// Searches at the usual code lengths, alone and after shortlists, and with --vectors also as
/// `dpq search --rerank`; one query after the other, on one thread. Recall is the share of the true
/// nearest k that are found. Truth is that of --truth, else of --vectors, else of the index at its
/// longest codes. Prints the options that no others beat in both recall and time.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq tune gallery.dpq --queries q.npy --vectors x.npy --recall .95 --svg tune.svg"
)]
pub(crate) struct Args {
    /// The index file
    index: PathBuf,
    /// Query features, [Q, D]: .npy (float32), .safetensors, .fvecs or .bvecs
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Maximum number of queries to measure with, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 500)]
    sample: usize,
    /// Ids of the true nearest items of each query, [Q, k or more], nearest first: .npy (uint64 or
    /// int64)
    #[arg(long, value_name = "NPY")]
    truth: Option<PathBuf>,
    /// The vectors that the codes were made of, [N, D], row i for id i: .npy (float32),
    /// .safetensors, .fvecs or .bvecs
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Ids of the rows of the vectors, N values: .npy (uint64 or int64) or .ivecs [default: row
    /// numbers]
    #[arg(long, requires = "vectors", value_name = "FILE")]
    vector_ids: Option<PathBuf>,
    /// Hits per query
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// Print the fastest options with at least this recall, 0 to 1
    #[arg(long, value_name = "R", value_parser = share)]
    recall: Option<f64>,
    /// File for a plot of recall by time
    #[arg(long, value_name = "SVG")]
    svg: Option<PathBuf>,
}

/// Numbers of levels to search at, besides the greatest.
const LENGTHS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64];
/// Numbers of levels of shortlists for searches at twice as many or more.
const SHORT_LENGTHS: [usize; 3] = [2, 4, 8];
/// Sizes of shortlists per hit.
const SIZES: [usize; 5] = [10, 30, 100, 300, 1000];

/// The options of a search.
#[derive(Clone, Copy)]
struct Setting {
    length: CodeLength,
    shortlist: Option<Shortlist>,
    rerank: bool,
}

#[derive(Serialize)]
struct Measured {
    options: String,
    recall: f64,
    ns_per_query_median: u64,
    /// No other options are both faster and better.
    is_best: bool,
    #[serde(skip)]
    kind: &'static str,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        if let Some(out) = &self.svg {
            let inputs = [&self.truth, &self.vectors, &self.vector_ids].into_iter().flatten();
            output::check_out(out, inputs.chain([&self.index, &self.queries]))?;
        }
        let index = map(&self.index)?;
        let vectors = self.vectors.as_ref();
        let vectors = vectors
            .map(|path| Vectors::open(path, self.vector_ids.as_deref(), index.codebooks().dim()))
            .transpose()?;
        let (rows, queries) = self.queries(&index)?;
        let (reference, truth) = self.truth(&index, vectors.as_ref(), &rows, &queries)?;
        let settings = self.settings(&index, vectors.is_some());
        let bar = output::progress(settings.len(), "searches");
        let mut measured = Vec::new();
        for setting in settings {
            measured.push(self.measure(&index, vectors.as_ref(), setting, &queries, &truth)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        measured.sort_by_key(|measured| measured.ns_per_query_median);
        let best = best(&measured, |_| true);
        best.iter().for_each(|&i| measured[i].is_best = true);
        if let Some(path) = &self.svg {
            let svg = self.svg(&measured);
            dpq_file::write_atomic(path, |out| out.write_all(svg.as_bytes()))?;
        }
        let wanted = |recall| best.iter().map(|&i| &measured[i]).find(|measured| measured.recall >= recall);
        let wanted = self.recall.and_then(wanted);
        let report = json!({
            "k": self.k, "queries": rows.len(), "reference": reference, "measured": measured, "wanted": wanted,
        });
        output::print(json, &report, &self.text(rows.len(), &reference, &measured, wanted))
    }

    /// Returns rows of the file of queries at equal distances, and these queries.
    fn queries(&self, index: &Index) -> Result<(Vec<usize>, Vec<Vec<f32>>)> {
        let (file, dim) = (read_features(&self.queries)?, index.codebooks().dim());
        let name = self.queries.display();
        ensure!(
            file.columns == dim,
            "{name} has queries of {} dimensions, the index has {dim}",
            file.columns
        );
        let n = self.sample.min(file.rows);
        ensure!(n > 0 && !index.is_empty(), "there are no queries or no items, give some to measure with");
        let rows: Vec<usize> = (0..n).map(|i| i * file.rows / n).collect();
        let queries = rows.iter().map(|row| file.values[row * dim..][..dim].to_vec()).collect();
        Ok((rows, queries))
    }

    /// Returns where the truth is from, and the ids of the nearest items of each query.
    fn truth(
        &self,
        index: &Index,
        vectors: Option<&Vectors>,
        rows: &[usize],
        queries: &[Vec<f32>],
    ) -> Result<(String, Vec<Vec<u64>>)> {
        let k = self.k.min(index.len());
        let ids = |hits: Vec<Hit>| hits.into_iter().map(|hit| hit.id).collect();
        if let Some(path) = &self.truth {
            let file = match npy::NpyFile::open(path)?.holds::<i64>() {
                true => {
                    let file = npy::read_matrix::<i64>(path)?;
                    let values = file.values.into_iter().map(u64::try_from).collect::<Result<_, _>>();
                    let values = values.with_context(|| format!("{} has a negative id", path.display()))?;
                    npy::Matrix { values, rows: file.rows, columns: file.columns }
                }
                false => npy::read_matrix::<u64>(path)?,
            };
            let n = FeatureFile::open(&self.queries)?.rows();
            ensure!(
                file.rows == n && file.columns >= k,
                "{} has {} rows of {} ids, expected {n} of at least {k}",
                path.display(),
                file.rows,
                file.columns
            );
            let ids = rows.iter().map(|row| file.values[row * file.columns..][..k].to_vec());
            return Ok((path.display().to_string(), ids.collect()));
        }
        if let (Some(vectors), Some(path)) = (vectors, &self.vectors) {
            let (all, _) = index.ids_and_codes();
            let all: Vec<Hit> = all.into_iter().map(|id| Hit { id, score: 0.0 }).collect();
            let truth = queries.par_iter().map(|query| Ok(ids(reranked(index, vectors, query, &all, k)?)));
            return Ok((format!("exact search of {}", path.display()), truth.collect::<Result<_>>()?));
        }
        let found = index.search_batch(&queries.concat(), &SearchOptions::new(k))?;
        let reference = format!("the index's own codes of {}, not vectors", index.max_length());
        Ok((reference, found.into_iter().map(ids).collect()))
    }

    fn settings(&self, index: &Index, rerank: bool) -> Vec<Setting> {
        let lengths = || index.codebooks().lengths();
        let shorts: Vec<_> = lengths().filter(|length| SHORT_LENGTHS.contains(&length.levels())).collect();
        let mut settings = Vec::new();
        let is_tried = |length: &CodeLength| LENGTHS.contains(&length.levels());
        for length in lengths().filter(|length| is_tried(length) || *length == index.max_length()) {
            settings.push(Setting { length, shortlist: None, rerank: false });
            for short in shorts.iter().filter(|short| 2 * short.levels() <= length.levels()) {
                for n in SIZES.map(|size| self.k.saturating_mul(size)) {
                    let shortlist = Some(Shortlist { n, length: *short });
                    if n <= index.len() / 2 {
                        settings.push(Setting { length, shortlist, rerank: false });
                    }
                }
            }
        }
        if rerank {
            let again: Vec<_> = settings.iter().map(|&setting| Setting { rerank: true, ..setting }).collect();
            settings.extend(again);
        }
        settings
    }

    fn measure(
        &self,
        index: &Index,
        vectors: Option<&Vectors>,
        setting: Setting,
        queries: &[Vec<f32>],
        truth: &[Vec<u64>],
    ) -> Result<Measured> {
        let Setting { length, shortlist, rerank } = setting;
        let vectors = vectors.filter(|_| rerank);
        let depth = if rerank { default_depth(self.k, shortlist) } else { self.k };
        let mut search_options = SearchOptions::new(depth).length(length);
        let mut options = format!("--bits {}", length.bits());
        if let Some(shortlist) = shortlist {
            search_options = search_options.shortlist(shortlist.n, shortlist.length);
            options += &format!(" --shortlist {shortlist}");
        }
        if let (true, Some(path)) = (rerank, &self.vectors) {
            options += &format!(" --rerank {}", path.display());
            options += &self
                .vector_ids
                .as_ref()
                .map_or(String::new(), |ids| format!(" --rerank-ids {}", ids.display()));
        }
        let search = |query: &[f32]| -> Result<Vec<Hit>> {
            let hits = index.search_batch(query, &search_options)?.remove(0);
            vectors.map_or(Ok(hits.clone()), |vectors| reranked(index, vectors, query, &hits, self.k))
        };
        // The first search at a length may compute norms, and reads the file.
        search(&queries[0])?;
        let (mut times, mut n_found) = (Vec::new(), 0);
        for (query, truth) in queries.iter().zip(truth) {
            let start = Instant::now();
            let hits = search(query)?;
            times.push(start.elapsed().as_nanos() as u64);
            n_found += hits.iter().filter(|hit| truth.contains(&hit.id)).count();
        }
        times.sort_unstable();
        let recall = n_found as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64;
        let kind = match (rerank, shortlist) {
            (true, _) => "scored again by vectors",
            (false, Some(_)) => "after a shortlist",
            (false, None) => "codes alone",
        };
        Ok(Measured { options, recall, ns_per_query_median: times[times.len() / 2], is_best: false, kind })
    }

    fn svg(&self, measured: &[Measured]) -> String {
        let point = |i: usize| [measured[i].ns_per_query_median as f64 / 1e3, measured[i].recall];
        let curve = |kind: &'static str| {
            (kind, best(measured, |measured| measured.kind == kind).into_iter().map(point).collect())
        };
        let curves = ["codes alone", "after a shortlist", "scored again by vectors"].map(curve);
        recall_by_time(self.k, curves.into_iter().filter(|(_, points): &(_, Vec<_>)| !points.is_empty()))
    }

    fn text(&self, n: usize, reference: &str, measured: &[Measured], wanted: Option<&Measured>) -> String {
        let mut text =
            format!("recall@{} of {n} queries, by {reference}\n\n recall  µs/query  options\n", self.k);
        let row = |Measured { options, recall, ns_per_query_median, .. }: &Measured| {
            format!("{recall:>7.4} {:>9.1}  {options}\n", *ns_per_query_median as f64 / 1e3)
        };
        text.extend(measured.iter().filter(|measured| measured.is_best).map(row));
        if let Some(recall) = self.recall {
            text += &match wanted {
                Some(wanted) => format!("\nfor a recall of {recall}: {}", wanted.options),
                None => {
                    format!("\nno options reach a recall of {recall}: longer codes or --vectors raise it")
                }
            };
        }
        text
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected 0 to 1, such as 0.95".to_owned())
}

/// Returns the places of those that `belongs` lets through and no faster one equals in recall, of
/// searches by ascending time.
fn best(measured: &[Measured], belongs: impl Fn(&Measured) -> bool) -> Vec<usize> {
    let mut highest = f64::NEG_INFINITY;
    let mut best = Vec::new();
    for (i, measured) in measured.iter().enumerate().filter(|(_, measured)| belongs(measured)) {
        if measured.recall > highest {
            highest = measured.recall;
            best.push(i);
        }
    }
    best
}

/// Returns the best `k` of the `hits` of a query, by vectors.
fn reranked(index: &Index, vectors: &Vectors, query: &[f32], hits: &[Hit], k: usize) -> Result<Vec<Hit>> {
    index.rerank(query, hits, k, |id, vector| vectors.read(id, vector))
}
