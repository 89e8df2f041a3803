//! `dpq search`: queries in, the nearest items out.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail, ensure};
use dpq_codebook::CodeLength;
use dpq_formats::{NpzWriter, read_features, read_ids};
use dpq_index::{Hit, Kernel, SearchOptions};
use dpq_model::Model;
use rayon::prelude::*;
use serde::Serialize;

use crate::gallery::Gallery;
use crate::inputs::read_lines;
use crate::vectors::Vectors;
use crate::{images, output};

/// Search an index for the items nearest to queries
///
/// Prints the hits, or writes them to --out. With --json the result also has the latency of single
/// queries.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("query").required(true),
    after_help = "Examples:\n  dpq search gallery.dpq --queries q.npy --bits 16 -k 10 --out hits.npz\n  \
        dpq search gallery.dpq --queries q.npy --shortlist 1000@32 --rerank x.npy\n  \
        dpq search gallery.dpq --model model.safetensors --image q.png --bits 16 -k 10 --names names.txt"
)]
pub(crate) struct Args {
    /// The index file, or the folder of a live index
    index: PathBuf,
    /// Query features, [Q, D]: .npy (float32), .safetensors, .fvecs or .bvecs
    #[arg(long, group = "query", value_name = "FILE")]
    queries: Option<PathBuf>,
    /// A query image, with --model
    #[arg(long, group = "query", value_name = "IMAGE", requires = "model")]
    image: Option<PathBuf>,
    /// The model that made the codes
    #[arg(long, value_name = "SAFETENSORS", requires = "image", conflicts_with = "queries")]
    model: Option<PathBuf>,
    /// Code length to search at, a multiple of 8 [default: the longest]
    #[arg(long)]
    bits: Option<usize>,
    /// Score only the best N items at a shorter code length, then return the best of these at
    /// --bits. Faster for long codes; items outside the shortlist are missed
    #[arg(long, value_name = "N@BITS", value_parser = |s: &str| s.parse::<Shortlist>())]
    shortlist: Option<Shortlist>,
    /// Continue after the shortlist until no other item can be among the best: the hits are those
    /// of a search without --shortlist
    #[arg(long, requires = "shortlist")]
    exact: bool,
    /// Score the best items again by these vectors, [N, D], row i for id i: .npy (float32),
    /// .safetensors, .fvecs or .bvecs. Scores and order are then those of the vectors
    #[arg(long, value_name = "FILE")]
    rerank: Option<PathBuf>,
    /// Items to score again by vectors [default: ten per hit, or the shortlist if that is less]
    #[arg(long, requires = "rerank", value_name = "N")]
    rerank_depth: Option<usize>,
    /// Ids of the rows of the vectors, N values: .npy (uint64 or int64) or .ivecs [default: row
    /// numbers]
    #[arg(long, requires = "rerank", value_name = "FILE")]
    rerank_ids: Option<PathBuf>,
    /// Hits per query
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// Ids of the items to search among, M values: .npy (uint64 or int64) or .ivecs [default: all]
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
    /// Names of the items to print, line i for id i [default: those that a live index has]
    #[arg(long, value_name = "TXT", conflicts_with = "out")]
    names: Option<PathBuf>,
    /// File for ids and scores, instead of printing them
    #[arg(long, value_name = "NPZ")]
    out: Option<PathBuf>,
}

/// The size of a shortlist, and the length that it is found at.
#[derive(Clone, Copy)]
pub(crate) struct Shortlist {
    pub(crate) n: usize,
    pub(crate) length: CodeLength,
}

impl FromStr for Shortlist {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (n, bits) = text
            .split_once('@')
            .and_then(|(n, bits)| Some((n.parse().ok()?, bits.parse().ok()?)))
            .context("expected items and the bits that they are found at, such as 1000@32")?;
        Ok(Self { n, length: CodeLength::from_bits(bits)? })
    }
}

impl Display for Shortlist {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.n, self.length.bits())
    }
}

#[derive(Serialize)]
struct Searched<'a> {
    threads: usize,
    kernel: String,
    queries: usize,
    k: usize,
    bits: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortlist: Option<String>,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerank_depth: Option<usize>,
    ns_per_query_median: u64,
    ns_per_query_p99: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<Vec<Vec<JsonHit<'a>>>>,
}

#[derive(Serialize)]
struct JsonHit<'a> {
    id: u64,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        if let Some(out) = &self.out {
            let inputs =
                [&self.queries, &self.image, &self.model, &self.allow, &self.rerank, &self.rerank_ids];
            output::check_out(out, inputs.into_iter().flatten().chain([&self.index]))?;
        }
        let mut index = Gallery::open(&self.index)?;
        let length = self.bits.map_or(Ok(index.codebooks().max_length()), CodeLength::from_bits)?;
        let queries = self.queries(&index)?;
        let names = self.names.as_deref().map(read_lines).transpose()?;
        if let Some(ids) = &self.allow {
            index.allow(&read_ids(ids)?);
        }
        let dim = index.codebooks().dim();
        let vectors = self.rerank.as_deref().map(|path| Vectors::open(path, self.rerank_ids.as_deref(), dim));
        let vectors = vectors.transpose()?;
        let depth = vectors.is_some().then(|| self.depth()).transpose()?;
        let mut options = SearchOptions::new(depth.unwrap_or(self.k)).length(length);
        if let Some(shortlist) = self.shortlist {
            options = options.shortlist(shortlist.n, shortlist.length);
        }
        if self.exact {
            options = options.exact();
        }

        let rerank = |query: &[f32], hits: Vec<Hit>| match &vectors {
            Some(vectors) => index.rerank(query, &hits, self.k, |id, vector| vectors.read(id, vector)),
            None => Ok(hits),
        };

        let (hits, mut times): (Vec<_>, Vec<_>) = if json {
            let timed = |query: &Vec<f32>| -> Result<_> {
                let start = Instant::now();
                let hits = rerank(query, index.search_batch(query, options)?.remove(0))?;
                Ok((hits, start.elapsed().as_nanos() as u64))
            };
            queries.par_iter().map(timed).collect::<Result<Vec<_>>>()?.into_iter().unzip()
        } else {
            let hits = index.search_batch(&queries.concat(), options)?;
            let hits = queries.par_iter().zip(hits).map(|(query, hits)| rerank(query, hits));
            (hits.collect::<Result<_>>()?, Vec::new())
        };
        if let Some(path) = &self.out {
            write_hits(path, &hits)?;
        }
        let name = |hit: &Hit| -> Option<&str> {
            let Some(names) = &names else { return index.name_of(hit.id) };
            Some(names.get(usize::try_from(hit.id).ok()?)?)
        };
        // A list without a name for each hit is not the list of this index.
        if let (Some(path), Some(lines)) = (&self.names, &names)
            && let Some(hit) = hits.iter().flatten().find(|hit| name(hit).is_none())
        {
            bail!(
                "{} has {} lines, none for id {}: give the names.txt that was written with the codes of this index",
                path.display(),
                lines.len(),
                hit.id
            );
        }
        times.sort_unstable();
        let quantile = |q: f64| times.get(((times.len() as f64 - 1.0) * q).round() as usize).copied();
        let searched = Searched {
            threads: rayon::current_num_threads(),
            kernel: Kernel::best().to_string(),
            queries: queries.len(),
            k: self.k,
            bits: length.bits(),
            shortlist: self.shortlist.map(|shortlist| shortlist.to_string()),
            exact: self.exact || self.shortlist.is_none(),
            rerank_depth: depth,
            ns_per_query_median: quantile(0.5).unwrap_or(0),
            ns_per_query_p99: quantile(0.99).unwrap_or(0),
            hits: self.out.is_none().then(|| {
                let json = |hit: &Hit| JsonHit { id: hit.id, score: hit.score, name: name(hit) };
                hits.iter().map(|hits| hits.iter().map(json).collect()).collect()
            }),
        };
        let text = match &self.out {
            Some(path) => format!("wrote {}", path.display()),
            None => text(&hits, name),
        };
        output::print(json, &searched, &text)
    }

    /// Returns the number of items to score again.
    fn depth(&self) -> Result<usize> {
        let depth = self.rerank_depth.unwrap_or(default_depth(self.k, self.shortlist));
        ensure!(
            depth >= self.k,
            "--rerank-depth is {depth}, expected at least the {} hits per query",
            self.k
        );
        Ok(depth)
    }

    /// Reads the query features from a file, or computes them from an image.
    fn queries(&self, index: &Gallery) -> Result<Vec<Vec<f32>>> {
        let dim = index.codebooks().dim();
        match (&self.queries, &self.image, &self.model) {
            (Some(path), ..) => {
                let queries = read_features(path)?;
                ensure!(
                    queries.columns == dim,
                    "{} has queries of {} dimensions, the index has {dim}",
                    path.display(),
                    queries.columns
                );
                Ok(queries.values.chunks_exact(dim).map(<[f32]>::to_vec).collect())
            }
            (_, Some(image), Some(model)) => {
                let model = Model::open(model)?;
                images::check_model(&model, index.codebooks())?;
                let pixels = dpq_data::read_image(image, images::model_shape(&model)?)?;
                Ok(vec![model.forward(&pixels)?.features])
            }
            _ => bail!("give --queries, or --image with --model"),
        }
    }
}

/// Returns the number of items to score again for the best `k`.
pub(crate) fn default_depth(k: usize, shortlist: Option<Shortlist>) -> usize {
    k.saturating_mul(10).min(shortlist.map_or(usize::MAX, |shortlist| shortlist.n)).max(k)
}

fn write_hits(path: &Path, hits: &[Vec<Hit>]) -> Result<()> {
    // Without a minimum score every query has the same number of hits: min(k, items allowed).
    let columns = hits.first().map_or(0, Vec::len);
    let ids: Vec<u64> = hits.iter().flatten().map(|hit| hit.id).collect();
    let scores: Vec<f32> = hits.iter().flatten().map(|hit| hit.score).collect();
    let shape = [hits.len(), columns];
    Ok(NpzWriter::default().add("ids", &shape, &ids)?.add("scores", &shape, &scores)?.save(path)?)
}

/// Formats a table: query, rank, id, score, name.
fn text<'a>(hits: &[Vec<Hit>], name: impl Fn(&Hit) -> Option<&'a str>) -> String {
    let mut text = format!("{:>6} {:>6} {:>10} {:>12}\n", "query", "rank", "id", "score");
    for (query, hits) in hits.iter().enumerate() {
        for (rank, hit) in hits.iter().enumerate() {
            let (id, score, name) = (hit.id, hit.score, name(hit).unwrap_or(""));
            text += &format!("{query:>6} {rank:>6} {id:>10} {score:>12.5}  {name}\n");
        }
    }
    text
}
