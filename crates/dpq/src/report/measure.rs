//! Measures one model on the queries and the gallery of a data set.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dpq_codebook::{CodeLength, LevelUsage, usage};
use dpq_data::{Dataset, Split};
use dpq_eval::{Labels, MapRule};
use dpq_formats::Matrix;
use dpq_index::{Hit, Index, Kernel, SearchOptions};
use dpq_model::Model;
use dpq_report::results::{ByBits, CUTOFF, PeakMemory, Searched, Seconds, Usage};
use dpq_report::{CLASS_POSTERIOR, Metrics, Rankings, Run};

use crate::encode::Outputs;
use crate::eval::baselines::{PRODUCT, RESIDUAL, ROTATED, Vectors, exact, rankings};
use crate::eval::{self, Evaluated, Protocol};
use crate::inputs::Source;
use crate::train::Trained;
use crate::{images, output};

/// Hits of the searches that are timed and shown.
const HITS: usize = 10;

/// The measurements of one training, and the codes and hits that figures need.
pub(super) struct Measured {
    pub(super) run: Run,
    /// Rows of the data set are the ids of items.
    pub(super) query: Outputs,
    pub(super) gallery: Outputs,
    /// The nearest items of each query.
    pub(super) hits: ByBits<Vec<Vec<Hit>>>,
}

impl Measured {
    /// Evaluates the model, and with `baselines` other codes of its features and its classifier.
    pub(super) fn new(model: &Model, training: &Trained, folder: &Path, baselines: bool) -> Result<Self> {
        let (start, codebooks) = (Instant::now(), model.codebooks());
        let dataset = Dataset::open(folder)?.resized(images::model_shape(model)?)?;
        let splits = [Split::Query, Split::Gallery].map(|split| dataset.split(split).to_vec());
        let train = if baselines { dataset.split(Split::Train).to_vec() } else { Vec::new() };
        let source = Source::Images { dataset: Box::new(dataset), rows: Vec::new(), has_names: false };
        let [query, gallery] = splits.map(|rows| encode(model, &source, &rows, baselines));
        let ((query, query_seconds), (gallery, gallery_seconds)) = (query?, gallery?);
        let train = if baselines { Some(encode(model, &source, &train, true)?.0) } else { None };
        let Source::Images { dataset, .. } = source else { unreachable!("images were encoded") };
        let gallery_ids: Vec<u64> = gallery.rows.iter().map(|&row| row.into()).collect();
        let encode_peak = output::peak_memory_bytes();

        let begin = Instant::now();
        let index = Index::builder(codebooks, &gallery.codes).ids(&gallery_ids).build()?;
        let index_seconds = output::seconds(begin);

        let lengths: Vec<CodeLength> = codebooks.lengths().collect();
        let (mut searched, mut hits) = (BTreeMap::new(), BTreeMap::new());
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        for &length in &lengths {
            let (timed, found) = one_thread.install(|| search(&index, length, &query.features))?;
            searched.insert(bits(length), timed);
            hits.insert(bits(length), found);
        }

        let labels = |outputs: &Outputs| {
            Labels::from_multi_hot(&dataset.multi_hot(&outputs.rows), dataset.n_classes())
        };
        let rules = eval::rules(MapRule::dpq(), &[CUTOFF as usize]);
        let protocol = Protocol::new([labels(&query)?, labels(&gallery)?].into(), gallery_ids, None, rules)?;
        let (rows, columns, values) = (query.rows.len(), codebooks.dim(), query.features.clone());
        let queries = Matrix { rows, columns, values };
        let mut seconds = [Duration::ZERO; 2];
        let mut by_bits = BTreeMap::new();
        let bar = output::progress(rows * (lengths.len() + 1), "evaluating");
        for &length in &lengths {
            let Evaluated { report, seconds: taken } =
                protocol.evaluate_codes(&index, length, &queries, &bar)?;
            seconds.iter_mut().zip(taken).for_each(|(sum, taken)| *sum += taken);
            by_bits.insert(bits(length), eval::metrics(report));
        }
        let features = exact(&protocol, &gallery.features, &queries, &bar)?;
        bar.finish_and_clear();
        let compared = Compared { protocol: &protocol, lengths: &lengths, query: &query, gallery: &gallery };
        let baselines = match &train {
            Some(train) => compared.baselines(model, training, train, &features)?,
            None => Vec::new(),
        };

        // The classes of a network that left some unseen are not those of the data set.
        let knows_classes = model.n_classes() == dataset.n_classes();
        let accuracy = |outputs: &Outputs| outputs.accuracy(&dataset).filter(|_| knows_classes);
        let usage = usage(&gallery.codes, codebooks.n_levels(), codebooks.n_codewords())?;
        let n_gallery = gallery.rows.len() as f64;
        let run = Run {
            seed: model.config().seed,
            fingerprint: codebooks.fingerprint(),
            by_bits,
            features,
            baselines,
            accuracy: accuracy(&gallery),
            query_accuracy: accuracy(&query),
            distortion: codebooks.relative_distortion(&gallery.features, &gallery.codes)?,
            usage: usage.iter().skip(usage.len() - lengths.len()).map(of_level).collect(),
            seconds: Seconds {
                train: training.seconds,
                encode: query_seconds + gallery_seconds,
                index: index_seconds,
                search: seconds[0].as_secs_f64(),
                evaluate: seconds[1].as_secs_f64(),
            },
            wall_seconds: training.seconds + output::seconds(start),
            train_images_per_second: training.images_per_second,
            encode_images_per_second: n_gallery / gallery_seconds,
            search: searched,
            bytes_per_item: index.n_bytes() as f64 / n_gallery,
            peak_memory_bytes: PeakMemory {
                train: training.peak_memory_bytes,
                encode: encode_peak,
                evaluate: output::peak_memory_bytes(),
            },
        };
        Ok(Self { run, query, gallery, hits })
    }
}

/// The rankings that baselines are compared with.
struct Compared<'a> {
    protocol: &'a Protocol,
    lengths: &'a [CodeLength],
    query: &'a Outputs,
    gallery: &'a Outputs,
}

impl Compared<'_> {
    /// Ranks by other codes of the same features, and by the classifier's posterior, exact and
    /// quantized. All codebooks are fitted to the training images.
    fn baselines(
        &self,
        model: &Model,
        training: &Trained,
        train: &Outputs,
        features: &Metrics,
    ) -> Result<Vec<(String, Rankings)>> {
        let Self { protocol, lengths, query, gallery } = *self;
        let matrix = |values: &[f32]| Matrix {
            rows: query.rows.len(),
            columns: values.len() / query.rows.len(),
            values: values.to_vec(),
        };
        let (codebooks, queries) = (model.codebooks(), matrix(&query.features));
        let n_codewords = codebooks.n_codewords();
        let vectors =
            Vectors { train: &train.features, gallery: &gallery.features, queries: &queries, n_codewords };
        let bar = output::progress((4 * lengths.len() + 1) * query.rows.len(), "baselines");
        let mut rows = vec![
            (RESIDUAL.to_owned(), rankings(vectors.residual(protocol, lengths, &bar)?, features.clone())),
            (PRODUCT.to_owned(), rankings(vectors.product(protocol, lengths, &bar)?, features.clone())),
            (ROTATED.to_owned(), rankings(vectors.rotated(protocol, lengths, &bar)?, features.clone())),
        ];
        // The sigmoids of several labels are no distribution over classes.
        if training.classification_loss == "softmax" {
            let queries = matrix(&query.posteriors);
            let vectors = Vectors {
                train: &train.posteriors,
                gallery: &gallery.posteriors,
                queries: &queries,
                n_codewords,
            };
            let exact = exact(protocol, &gallery.posteriors, &queries, &bar)?;
            rows.push((
                CLASS_POSTERIOR.to_owned(),
                rankings(vectors.residual(protocol, lengths, &bar)?, exact),
            ));
        }
        bar.finish_and_clear();
        Ok(rows)
    }
}

/// Encodes images. Returns the seconds, too.
fn encode(model: &Model, source: &Source, rows: &[u32], posteriors: bool) -> Result<(Outputs, f64)> {
    let start = Instant::now();
    let outputs = Outputs::new(model, source, rows, false, posteriors)?;
    ensure!(!outputs.rows.is_empty(), "none of the {} images of a split can be read", rows.len());
    Ok((outputs, output::seconds(start)))
}

fn of_level(level: &LevelUsage) -> Usage {
    Usage { used: level.used as f64, perplexity: level.perplexity, distinct: level.distinct as f64 }
}

fn bits(length: CodeLength) -> u32 {
    8 * length.levels() as u32
}

/// Times single queries and a batch in the current thread pool, and returns the hits.
fn search(index: &Index, length: CodeLength, queries: &[f32]) -> Result<(Searched, Vec<Vec<Hit>>)> {
    let options = SearchOptions::new(HITS).length(length);
    let mut times = Vec::new();
    let mut hits = Vec::new();
    for query in queries.chunks_exact(index.codebooks().dim()) {
        let start = Instant::now();
        hits.push(index.search_with(&index.lookup_table_at(query, length)?, &options)?);
        times.push(start.elapsed().as_nanos() as u64);
    }
    let start = Instant::now();
    index.search_batch(queries, &options)?;
    let batch_ns_per_query = start.elapsed().as_nanos() as u64 / times.len().max(1) as u64;
    times.sort_unstable();
    let quantile = |q: f64| times.get(((times.len() as f64 - 1.0) * q).round() as usize).copied();
    let searched = Searched {
        threads: rayon::current_num_threads(),
        kernel: Kernel::best().to_string(),
        k: HITS,
        ns_per_query_median: quantile(0.5).unwrap_or(0),
        ns_per_query_p99: quantile(0.99).unwrap_or(0),
        batch_ns_per_query,
    };
    Ok((searched, hits))
}
