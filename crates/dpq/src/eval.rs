//! `dpq eval`: evaluates rankings of a gallery by labels, under a stated rule.
//!
//! - `baselines`: codes that others would make of the same features
//! - `features`: scores of features without codes
//! - `protocol`: which items are relevant, and the one place that ranks and counts
//! - `rotation`: the rotation of optimized product quantization

pub(crate) mod baselines;
mod features;
mod protocol;
mod rotation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::CodeLength;
use dpq_eval::{Labels, MapRule, Report, Ties};
use dpq_formats::{FeatureFile, Matrix, read_features, read_ids};
use dpq_report::{Curve, Metrics};
use serde::Serialize;

use crate::gallery::map;
use crate::labels::{LabelFile, check_items};
use crate::{output, pairs};
use baselines::Vectors;
use features::Scores;
use protocol::Relevance;
pub(crate) use protocol::{Evaluated, Gallery, Protocol};

/// Evaluate the ranking of a gallery: mean average precision at each code length
///
/// Every query ranks the whole gallery. An item is relevant if it shares a class with the query, or
/// if `--relevant` pairs it with the query: then recall, the mean reciprocal rank (MRR) and nDCG@10
/// are printed, too, each the expectation over all orders of tied items. The result names the rule
/// of the mean average precision. With `--train-features`, codes of residual k-means, product
/// quantization and its optimized form (OPQ) are fitted to those and ranked, too.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("gallery").required(true).multiple(true),
    group = clap::ArgGroup::new("coded").multiple(true),
    after_help = "Examples:\n  dpq eval --index gallery.dpq --queries q.npy --query-labels a.npy --gallery-labels b.npy \
        --bits 8,16,24,32 --at 5000 --out report.json\n  dpq eval --index gallery.dpq --gallery-features gallery/features.npy \
        --train-features train/features.npy --queries q.npy --query-labels a.npy --gallery-labels b.npy\n  \
        dpq eval --index keys.dpq --queries q.npy --relevant pairs.npy"
)]
pub(crate) struct Args {
    /// The index of the gallery
    #[arg(long, groups = ["gallery", "coded"], value_name = "DPQ")]
    index: Option<PathBuf>,
    /// The gallery's features, [N, D], to evaluate without codes: .npy (float32), .fvecs or .bvecs.
    /// They may be larger than memory
    #[arg(long, group = "gallery", value_name = "FILE")]
    gallery_features: Option<PathBuf>,
    /// Features of training items, [N, D]: fit codes of residual k-means, product quantization and
    /// OPQ to them and evaluate those of the gallery's features, which are then held in memory
    #[arg(long, group = "coded", value_name = "FILE", requires = "gallery_features")]
    train_features: Option<PathBuf>,
    /// Query features, [Q, D]: .npy (float32), .safetensors, .fvecs or .bvecs
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Classes of the queries: multi-hot, uint8 [Q, C], or Q class numbers, uint8 or int64
    #[arg(long, value_name = "NPY", required_unless_present = "relevant", requires = "gallery_labels")]
    query_labels: Option<PathBuf>,
    /// Classes of the gallery: multi-hot, uint8 [N, C], or N class numbers, uint8 or int64
    #[arg(long, value_name = "NPY", required_unless_present = "relevant", requires = "query_labels")]
    gallery_labels: Option<PathBuf>,
    /// Pairs of a query and an item that is relevant to it, as rows from 0: int64 [P, 2]
    #[arg(long, value_name = "NPY", conflicts_with_all = ["query_labels", "gallery_labels"])]
    relevant: Option<PathBuf>,
    /// Id of each row of the gallery, N values: .npy (uint64 or int64) or .ivecs [default:
    /// row numbers]
    #[arg(long, value_name = "FILE")]
    gallery_ids: Option<PathBuf>,
    /// Id of each query, Q values, to exclude it from its own ranking: .npy (uint64 or int64) or
    /// .ivecs
    #[arg(long, value_name = "FILE")]
    query_ids: Option<PathBuf>,
    /// Code lengths, multiples of 8 [default: all of the index, or 8, 16, 24 and 32]
    #[arg(long, requires = "coded", value_delimiter = ',', value_name = "BITS")]
    bits: Vec<usize>,
    /// Symmetric distances: quantize the queries, too, greedily by the codebooks of the index
    /// [default: asymmetric, queries keep their numbers]
    #[arg(long, requires = "index")]
    symmetric: bool,
    /// Additional cut-offs of the mean average precision
    #[arg(long, value_delimiter = ',', value_name = "R")]
    at: Vec<usize>,
    /// Rule of the mean average precision: `dpq` divides by the relevant items retrieved,
    /// `standard` by all relevant items
    #[arg(long, default_value = "dpq", value_parser = ["dpq", "standard"])]
    rule: String,
    /// File for the report, as JSON
    #[arg(long, value_name = "JSON")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Evaluation {
    map_rule: Rule,
    queries: usize,
    gallery: usize,
    /// Whether the codes rank for quantized queries.
    symmetric: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by_bits: BTreeMap<usize, Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Metrics>,
    /// Other codes of the features, by their name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    baselines: BTreeMap<&'static str, BTreeMap<usize, Metrics>>,
    seconds: Seconds,
    peak_memory_bytes: Option<u64>,
}

/// The rule of `map`. Each other figure differs only in the part that its name says.
#[derive(Serialize)]
pub(crate) struct Rule {
    text: String,
    name: String,
    #[serde(flatten)]
    rule: MapRule,
}

/// Wall-clock seconds. Searching and evaluating run side by side, so each has its share of the
/// wall-clock time.
#[derive(Serialize)]
struct Seconds {
    search: f64,
    evaluate: f64,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let queries = read_features(&self.queries)?;
        if let Some(out) = &self.out {
            let features = [&self.gallery_features, &self.train_features];
            let inputs = features.into_iter().chain([&self.index, &self.gallery_ids, &self.query_ids]);
            let relevance = [&self.query_labels, &self.gallery_labels, &self.relevant];
            output::check_out(out, inputs.chain(relevance).flatten().chain([&self.queries]))?;
        }
        let preset = if self.rule == "standard" { MapRule::standard() } else { MapRule::dpq() };
        let rule = MapRule { exclude_self: self.query_ids.is_some(), ..preset };
        let rules = rules(rule, &self.at);
        let protocol = self.protocol(queries.rows, rules.clone())?;
        let (mut by_bits, mut features, mut seconds) = (BTreeMap::new(), None, [Duration::ZERO; 2]);
        let mut bits = if self.bits.is_empty() { vec![8, 16, 24, 32] } else { self.bits.clone() };
        let mut n_codewords = 256;
        let mut metrics = |evaluated: Evaluated| {
            seconds.iter_mut().zip(evaluated.seconds).for_each(|(sum, seconds)| *sum += seconds);
            self::metrics(evaluated.report)
        };
        if let Some(path) = &self.index {
            let index = map(path)?;
            check_items((path, index.len()), (self.gallery(), protocol.ids.len()))?;
            check_dim(&queries, index.codebooks().dim(), &self.queries)?;
            n_codewords = index.codebooks().n_codewords();
            if self.bits.is_empty() {
                bits = index.codebooks().lengths().map(CodeLength::bits).collect();
            }
            let codes = self.symmetric.then(|| index.codebooks().encode(&queries.values)).transpose()?;
            for &bits in &bits {
                let bar = output::progress(queries.rows, "queries");
                let length = CodeLength::from_bits(bits)?;
                let quantized = match &codes {
                    Some(codes) => {
                        let values = index.codebooks().decode(codes, length)?;
                        Some(Matrix { values, ..queries })
                    }
                    None => None,
                };
                let queries = quantized.as_ref().unwrap_or(&queries);
                by_bits.insert(bits, metrics(protocol.evaluate_codes(&index, length, queries, &bar)?));
                bar.finish_and_clear();
            }
        }
        if let Some(path) = &self.gallery_features {
            let gallery = FeatureFile::open(path)?;
            check_dim(&queries, gallery.columns(), &self.queries)?;
            check_items((path, gallery.rows()), (self.gallery(), protocol.ids.len()))?;
            let starts: Vec<u32> = (0..).take(gallery.rows() + 1).collect();
            let score = |scores: &Scores, q, _: &[f32], out: &mut [f32]| {
                scores.of_query(q, out);
                Ok(())
            };
            let scores = |queries: &[f32]| Scores::new(&gallery, queries);
            // The scores of a batch are in memory at once.
            let items = Gallery { starts: &starts, ids: &protocol.ids, batch: 64 };
            let bar = output::progress(queries.rows, "queries");
            features = Some(metrics(protocol.evaluate(&items, &queries, scores, score, &bar)?));
            bar.finish_and_clear();
        }

        let mut baselines = BTreeMap::new();
        if let (Some(train), Some(gallery)) = (&self.train_features, &self.gallery_features) {
            let [train_rows, gallery] = [read_features(train)?, read_features(gallery)?];
            let (path, found, dim) = (train.display(), train_rows.columns, queries.columns);
            ensure!(found == dim, "{path} has features of {found} dimensions, the queries have {dim}");
            let (train, gallery) = (&train_rows.values, &gallery.values);
            let n_codewords = n_codewords.min(train_rows.rows);
            let vectors = Vectors { train, gallery, queries: &queries, n_codewords };
            let lengths = bits.iter().map(|&bits| CodeLength::from_bits(bits));
            let lengths = lengths.collect::<Result<Vec<_>, _>>()?;
            let bar = output::progress(3 * lengths.len() * queries.rows, "queries");
            baselines.insert(baselines::RESIDUAL, vectors.residual(&protocol, &lengths, &bar)?.0);
            baselines.insert(baselines::PRODUCT, vectors.product(&protocol, &lengths, &bar)?.0);
            baselines.insert(baselines::ROTATED, vectors.rotated(&protocol, &lengths, &bar)?.0);
            bar.finish_and_clear();
        }

        let evaluation = Evaluation {
            map_rule: Rule::new(&self.rule, rules[0]),
            queries: queries.rows,
            gallery: protocol.ids.len(),
            symmetric: self.symmetric,
            by_bits,
            features,
            baselines,
            seconds: Seconds { search: seconds[0].as_secs_f64(), evaluate: seconds[1].as_secs_f64() },
            peak_memory_bytes: output::peak_memory_bytes(),
        };
        if let Some(path) = &self.out {
            let text = serde_json::to_vec_pretty(&evaluation)?;
            dpq_file::write_atomic(path, |out| out.write_all(&text))?;
        }
        output::print(json, &evaluation, &evaluation.text())
    }

    /// The file that says how many items the gallery has.
    fn gallery(&self) -> &Path {
        let files = [&self.gallery_labels, &self.gallery_ids, &self.index, &self.gallery_features];
        files.into_iter().flatten().next().expect("an index or features are required")
    }

    fn protocol(&self, n_queries: usize, rules: Vec<MapRule>) -> Result<Protocol> {
        let ids = |ids: &Option<PathBuf>| ids.as_deref().map(read_ids).transpose();
        let [gallery_ids, query_ids] = [ids(&self.gallery_ids)?, ids(&self.query_ids)?];
        if let (Some(path), Some(ids)) = (&self.query_ids, &query_ids) {
            check_items((path, ids.len()), (&self.queries, n_queries))?;
        }
        let (relevance, n_items) = match (&self.relevant, &self.query_labels, &self.gallery_labels) {
            (Some(path), ..) => {
                let n_items = match (&gallery_ids, &self.index, &self.gallery_features) {
                    (Some(ids), ..) => ids.len(),
                    (None, Some(index), _) => map(index)?.len(),
                    (None, None, Some(features)) => FeatureFile::open(features)?.rows(),
                    (None, None, None) => bail!("there is no gallery, give --index or --gallery-features"),
                };
                let mut rows = vec![Vec::new(); n_queries];
                for [query, row] in pairs::read(path, n_queries, n_items)? {
                    rows[query as usize].push(row);
                }
                (Relevance::Pairs(rows), n_items)
            }
            (None, Some(of_queries), Some(of_gallery)) => {
                let [queries, gallery] = read_labels([of_queries, of_gallery])?;
                let [n_a, n_b] = [queries.n_classes(), gallery.n_classes()];
                let [a, b] = [of_queries, of_gallery].map(|path| path.display());
                ensure!(n_a == n_b, "{a} has {n_a} classes, {b} has {n_b}");
                check_items((of_queries, queries.len()), (&self.queries, n_queries))?;
                let n_items = gallery.len();
                if let (Some(path), Some(ids)) = (&self.gallery_ids, &gallery_ids) {
                    check_items((path, ids.len()), (of_gallery, n_items))?;
                }
                ([queries, gallery].into(), n_items)
            }
            _ => bail!(
                "nothing says what is relevant, give --query-labels and --gallery-labels, or --relevant"
            ),
        };
        let ids = gallery_ids.unwrap_or_else(|| (0..n_items as u64).collect());
        Protocol::new(relevance, ids, query_ids, rules)
    }
}

/// Reads the labels of queries and gallery. Class numbers make as many columns as either side has
/// classes.
fn read_labels(paths: [&Path; 2]) -> Result<[Labels; 2]> {
    let [queries, gallery] = paths.map(LabelFile::read);
    let files = [queries?, gallery?];
    let n_classes = files.iter().map(LabelFile::n_classes).max().unwrap_or(0);
    let [queries, gallery] = files.map(|file| file.into_multi_hot(n_classes));
    let labels = |labels: Matrix<u8>, path: &Path| {
        Labels::from_multi_hot(&labels.values, labels.columns).with_context(|| path.display().to_string())
    };
    Ok([labels(queries, paths[0])?, labels(gallery, paths[1])?])
}

fn check_dim(queries: &Matrix<f32>, dim: usize, path: &Path) -> Result<()> {
    let (path, found) = (path.display(), queries.columns);
    ensure!(found == dim, "{path} has queries of {found} dimensions, the gallery has {dim}");
    Ok(())
}

impl Rule {
    pub(crate) fn new(name: &str, rule: MapRule) -> Self {
        Self { text: rule.to_string(), name: name.to_owned(), rule }
    }
}

/// Returns the rule, then those of [`Metrics`] with other orders of ties, then one per further
/// cut-off.
pub(crate) fn rules(rule: MapRule, at: &[usize]) -> Vec<MapRule> {
    let ties = [Ties::ById, Ties::Minimum, Ties::Maximum].map(|ties| MapRule { ties, ..rule });
    let cutoffs = at.iter().map(|&cutoff| MapRule { cutoff: Some(cutoff), ..rule });
    [rule].into_iter().chain(ties).chain(cutoffs).collect()
}

/// Reads a report under the rules of [`rules`].
pub(crate) fn metrics(report: Report) -> Metrics {
    let map: Vec<f64> = report.map.iter().map(|&(_, map)| map).collect();
    let by_rank = |values: Vec<(usize, f64)>| values.into_iter().map(|(rank, x)| (rank as u32, x)).collect();
    let map_at = report.map[4..].iter().filter_map(|&(rule, map)| Some((rule.cutoff?, map)));
    let (recall, precision) = report.precision_recall.into_iter().unzip();
    Metrics {
        map: map[0],
        map_by_id: map[1],
        map_min: map[2],
        map_max: map[3],
        map_at: by_rank(map_at.collect()),
        precision_at: by_rank(report.precision_at),
        recall_at: by_rank(report.recall_at),
        pr_curve: Curve { recall, precision },
        // With classes a query has thousands of relevant items, and nobody asks for these.
        mrr: (!report.ndcg_at.is_empty()).then_some(report.mrr),
        ndcg_at: by_rank(report.ndcg_at),
        empty_queries: report.n_empty,
    }
}

impl Evaluation {
    fn text(&self) -> String {
        let of_bits = |name: &str, by_bits: &'_ BTreeMap<usize, Metrics>| -> Vec<(String, Metrics)> {
            let name = |bits: &usize| format!("{name}{bits} bits");
            by_bits.iter().map(|(bits, metrics)| (name(bits), metrics.clone())).collect()
        };
        let mut rows = of_bits("", &self.by_bits);
        rows.extend(self.features.iter().map(|metrics| ("features".to_owned(), metrics.clone())));
        for (name, by_bits) in &self.baselines {
            rows.extend(of_bits(&format!("{name}, "), by_bits));
        }
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(9);
        let quantized = if self.symmetric { ", queries are quantized, too" } else { "" };
        let mut text = format!(
            "{}\n{} queries, {} items{quantized}\n\n{:>width$} {:>8}",
            self.map_rule.text, self.queries, self.gallery, "", "mAP"
        );
        // For pairs the other figures say more.
        let columns = |metrics: &Metrics| -> Vec<(String, f64)> {
            let name = |name: &'static str| move |(at, &x): (&u32, &f64)| (format!("{name}@{at}"), x);
            let mut columns: Vec<_> = metrics.map_at.iter().map(name("mAP")).collect();
            if let Some(mrr) = metrics.mrr {
                columns.extend(metrics.recall_at.iter().map(name("R")));
                columns.push(("MRR".to_owned(), mrr));
                columns.extend(metrics.ndcg_at.iter().map(name("nDCG")));
            }
            columns
        };
        let names = rows.first().map_or(vec![], |(_, metrics)| columns(metrics));
        text.extend(names.iter().map(|(name, _)| format!(" {name:>9}")));
        for (name, metrics) in rows {
            text += &format!("\n{name:>width$} {:>8.4}", metrics.map);
            text.extend(columns(&metrics).iter().map(|(_, value)| format!(" {value:>9.4}")));
        }
        text
    }
}
