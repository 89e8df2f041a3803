//! What the scripts that compare print, as it is kept in docs/benchmarks. Times are in nanoseconds where a name ends in `ns`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One run of a script: `results` is what it measured, the rest how.
#[derive(Deserialize)]
pub(crate) struct Run<T> {
    pub(crate) command: String,
    pub(crate) commit: String,
    pub(crate) compiler: String,
    pub(crate) date: String,
    /// That the script took.
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) results: T,
}

#[derive(Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) instructions: Vec<String>,
    pub(crate) kernel: String,
}

/// Searches of the same codes by faiss; one thread, lookup table included.
#[derive(Deserialize)]
pub(crate) struct Searches {
    /// The core that both sides ran on.
    pub(crate) core: usize,
    /// Of dpq-index on this CPU, the fastest first.
    pub(crate) kernels: Vec<String>,
    pub(crate) dim: usize,
    pub(crate) codewords: usize,
    /// Queries timed one by one, and queries in a batch.
    pub(crate) queries: usize,
    pub(crate) batch: usize,
    pub(crate) searches: Vec<Search>,
    pub(crate) batches: Vec<Batch>,
    pub(crate) fast_scans: Vec<FastScan>,
    pub(crate) files: Vec<IndexFile>,
    pub(crate) rankings: Vec<Ranking>,
    /// Items and queries of the whole rankings.
    pub(crate) ranking_items: usize,
    pub(crate) ranking_queries: usize,
}

/// Single queries.
#[derive(Deserialize)]
pub(crate) struct Search {
    pub(crate) items: u64,
    pub(crate) shape: String,
    /// `ip` or `l2`.
    pub(crate) metric: String,
    pub(crate) bits: u32,
    pub(crate) k: usize,
    /// Medians by kernel of ours or index of faiss, when the sides search by turns.
    pub(crate) by_turns_ns: BTreeMap<String, u64>,
    pub(crate) in_a_row: InARow,
}

/// Medians of each side alone, the fastest of its kernels or indexes.
#[derive(Deserialize)]
pub(crate) struct InARow {
    pub(crate) faiss_ns: u64,
    pub(crate) ours_ns: u64,
}

/// Batches, inner product; nanoseconds a query.
#[derive(Deserialize)]
pub(crate) struct Batch {
    pub(crate) items: u64,
    pub(crate) shape: String,
    pub(crate) bits: u32,
    pub(crate) k: usize,
    pub(crate) faiss_ns: u64,
    pub(crate) ours_ns: u64,
}

/// 4-bit FastScan of other codes, of 32 bits.
#[derive(Deserialize)]
pub(crate) struct FastScan {
    pub(crate) items: u64,
    pub(crate) shape: String,
    pub(crate) k: usize,
    pub(crate) ns: u64,
    pub(crate) recall: f64,
}

#[derive(Deserialize)]
pub(crate) struct IndexFile {
    pub(crate) items: u64,
    pub(crate) shape: String,
    pub(crate) metric: String,
    pub(crate) distinct: u64,
    pub(crate) file_bytes: u64,
    pub(crate) build_ns: u64,
    /// Memory at the peak, beyond what the process held before, the codes among it.
    pub(crate) build_bytes: u64,
    pub(crate) open_ns: u64,
    pub(crate) open_bytes: u64,
    /// Memory after all searches.
    pub(crate) resident_bytes: u64,
}

/// Whole rankings; nanoseconds a query.
#[derive(Deserialize)]
pub(crate) struct Ranking {
    pub(crate) bits: u32,
    pub(crate) faiss_ns: u64,
    pub(crate) ours_ns: u64,
}

/// Codebooks and codes of faiss's residual quantizer and of ours. Times are those of the CPU, one thread a side.
#[derive(Deserialize)]
pub(crate) struct Codes {
    pub(crate) codewords: usize,
    /// Of k-means, and rounds of refinement of ours and of faiss's.
    pub(crate) iterations: usize,
    pub(crate) rounds: usize,
    pub(crate) faiss_rounds: usize,
    /// How many sets and lengths were worked on at once for `codes`.
    pub(crate) jobs: usize,
    pub(crate) fitting: Vec<Fitting>,
    pub(crate) encoding: Vec<Encoding>,
    pub(crate) codes: Vec<CodesOf>,
}

/// Residual k-means, and the relative distortion that it leaves.
#[derive(Deserialize)]
pub(crate) struct Fitting {
    pub(crate) set: String,
    /// How faiss does it.
    pub(crate) way: String,
    pub(crate) ours_ns: u64,
    pub(crate) faiss_ns: u64,
    pub(crate) ours_distortion: f64,
    pub(crate) faiss_distortion: f64,
}

/// Vectors a second with the same codebooks, and the share of equal codes.
#[derive(Deserialize)]
pub(crate) struct Encoding {
    pub(crate) set: String,
    /// Of the beam.
    pub(crate) width: usize,
    pub(crate) ours_per_second: f64,
    pub(crate) faiss_per_second: f64,
    pub(crate) equal_codes: f64,
}

/// Codes made in one way.
#[derive(Deserialize)]
pub(crate) struct CodesOf {
    pub(crate) set: String,
    /// Those that codebooks were fitted to, and those that were not.
    pub(crate) items: usize,
    pub(crate) others: usize,
    pub(crate) queries: usize,
    pub(crate) dim: usize,
    pub(crate) levels: usize,
    /// Whose, and how.
    pub(crate) codes: String,
    pub(crate) fit_ns: u64,
    pub(crate) encode_ns: u64,
    pub(crate) lengths: Vec<Length>,
}

/// A prefix of codes.
#[derive(Deserialize)]
pub(crate) struct Length {
    pub(crate) bits: u32,
    /// The mean squared error over the mean squared norm, of the items and of the others.
    pub(crate) distortion: f64,
    pub(crate) others_distortion: f64,
    /// By R: the share of queries whose nearest item is among the first R.
    pub(crate) recall: BTreeMap<usize, f64>,
}

/// Images a second of PyTorch and of dpq with one network.
#[derive(Deserialize)]
pub(crate) struct Rates {
    pub(crate) device: String,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) epochs: usize,
    pub(crate) rates: Vec<Rate>,
}

#[derive(Deserialize)]
pub(crate) struct Rate {
    /// `training` or `encoding`.
    pub(crate) work: String,
    pub(crate) batch: usize,
    /// The memory layout of PyTorch.
    pub(crate) torch_layout: String,
    pub(crate) ours_per_second: f64,
    pub(crate) torch_per_second: f64,
}

/// Searches of the same vectors: by USearch, which keeps them, and as codes.
#[derive(Deserialize)]
pub(crate) struct VectorSearches {
    pub(crate) items: usize,
    pub(crate) dim: usize,
    pub(crate) k: usize,
    pub(crate) rounds: usize,
    /// A call of USearch that has nothing to search.
    pub(crate) empty_call_ns: u64,
    pub(crate) searches: Vec<VectorSearch>,
}

#[derive(Deserialize)]
pub(crate) struct VectorSearch {
    pub(crate) name: String,
    pub(crate) queries: u64,
    pub(crate) bytes_an_item: f64,
    pub(crate) build_seconds: Option<f64>,
    /// A query.
    pub(crate) ns: u64,
    /// The share of the k nearest that is found, and of what is found that has the query's class.
    pub(crate) recall: f64,
    pub(crate) precision: f64,
}

/// Mean average precision of all lengths by `dpq eval` and by a script with an argsort a query.
#[derive(Deserialize)]
pub(crate) struct Evaluations {
    pub(crate) items: usize,
    pub(crate) queries: usize,
    pub(crate) dim: usize,
    pub(crate) rounds: usize,
    pub(crate) numpy_seconds: f64,
    pub(crate) numpy_cpu_seconds: f64,
    pub(crate) ours_seconds: f64,
    pub(crate) ours_cpu_seconds: f64,
    pub(crate) lengths: Vec<Evaluation>,
}

#[derive(Deserialize)]
pub(crate) struct Evaluation {
    pub(crate) bits: u32,
    pub(crate) numpy_map: f64,
    /// The expectation over orders of ties, the least and the most of any order.
    pub(crate) map: f64,
    pub(crate) map_min: f64,
    pub(crate) map_max: f64,
}
