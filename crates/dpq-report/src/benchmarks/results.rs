//! The measurements of the comparison scripts. A name that ends in `ns` is a time in nanoseconds.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One run of a script: its measurements and how they were made.
#[derive(Deserialize)]
pub(super) struct Run<T> {
    pub(super) command: String,
    pub(super) commit: String,
    pub(super) compiler: String,
    pub(super) date: String,
    /// The duration of the script.
    pub(super) seconds: f64,
    pub(super) machine: Machine,
    pub(super) versions: BTreeMap<String, String>,
    pub(super) results: T,
}

#[derive(Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_bytes: u64,
    pub(super) instructions: Vec<String>,
    pub(super) kernel: String,
}

/// Searches of the same codes by faiss and dpq, one thread, lookup table included.
#[derive(Deserialize)]
pub(super) struct Searches {
    /// The core that both sides ran on.
    pub(super) core: usize,
    /// The kernels of dpq-index on this CPU, the fastest first.
    pub(super) kernels: Vec<String>,
    pub(super) dim: usize,
    pub(super) codewords: usize,
    /// The number of single queries.
    pub(super) queries: usize,
    /// The number of queries in a batch.
    pub(super) batch: usize,
    pub(super) searches: Vec<Search>,
    pub(super) batches: Vec<Batch>,
    pub(super) fast_scans: Vec<FastScan>,
    pub(super) files: Vec<IndexFile>,
    pub(super) rankings: Vec<Ranking>,
    /// The size of the complete rankings.
    pub(super) ranking_items: usize,
    pub(super) ranking_queries: usize,
}

/// Single queries.
#[derive(Deserialize)]
pub(super) struct Search {
    pub(super) items: u64,
    pub(super) shape: String,
    /// `ip` or `l2`.
    pub(super) metric: String,
    pub(super) bits: u32,
    pub(super) k: usize,
    /// Interleaved medians by kernel of dpq-index or index type of faiss.
    pub(super) by_turns_ns: BTreeMap<String, u64>,
    pub(super) in_a_row: InARow,
}

/// Back-to-back medians of each side, by its fastest kernel or index type.
#[derive(Deserialize)]
pub(super) struct InARow {
    pub(super) faiss_ns: u64,
    pub(super) ours_ns: u64,
}

/// Batches by inner product, nanoseconds per query.
#[derive(Deserialize)]
pub(super) struct Batch {
    pub(super) items: u64,
    pub(super) shape: String,
    pub(super) bits: u32,
    pub(super) k: usize,
    pub(super) faiss_ns: u64,
    pub(super) ours_ns: u64,
}

/// 4-bit FastScan of different codes of 32 bits.
#[derive(Deserialize)]
pub(super) struct FastScan {
    pub(super) items: u64,
    pub(super) shape: String,
    pub(super) k: usize,
    pub(super) ns: u64,
    pub(super) recall: f64,
}

#[derive(Deserialize)]
pub(super) struct IndexFile {
    pub(super) items: u64,
    pub(super) shape: String,
    pub(super) metric: String,
    pub(super) distinct: u64,
    pub(super) file_bytes: u64,
    pub(super) build_ns: u64,
    /// Peak memory in addition to what the process held before, which includes the codes.
    pub(super) build_bytes: u64,
    pub(super) open_ns: u64,
    pub(super) open_bytes: u64,
    /// Memory growth after all searches.
    pub(super) resident_bytes: u64,
}

/// Complete rankings, nanoseconds per query.
#[derive(Deserialize)]
pub(super) struct Ranking {
    pub(super) bits: u32,
    pub(super) faiss_ns: u64,
    pub(super) ours_ns: u64,
}

/// Codebooks and codes of the residual quantizers of faiss and dpq. CPU times, one thread per side.
#[derive(Deserialize)]
pub(super) struct Codes {
    pub(super) codewords: usize,
    /// Rounds of k-means, of refinement in dpq, and of refinement in faiss.
    pub(super) iterations: usize,
    pub(super) rounds: usize,
    pub(super) faiss_rounds: usize,
    /// How many sets and lengths ran at the same time for `codes`.
    pub(super) jobs: usize,
    pub(super) fitting: Vec<Fitting>,
    pub(super) encoding: Vec<Encoding>,
    pub(super) codes: Vec<CodesOf>,
}

/// Residual k-means and its relative distortion.
#[derive(Deserialize)]
pub(super) struct Fitting {
    pub(super) set: String,
    /// The method of faiss.
    pub(super) way: String,
    pub(super) ours_ns: u64,
    pub(super) faiss_ns: u64,
    pub(super) ours_distortion: f64,
    pub(super) faiss_distortion: f64,
}

/// Vectors per second with the same codebooks, and the share of equal codes.
#[derive(Deserialize)]
pub(super) struct Encoding {
    pub(super) set: String,
    /// The width of the beam.
    pub(super) width: usize,
    pub(super) ours_per_second: f64,
    pub(super) faiss_per_second: f64,
    pub(super) equal_codes: f64,
}

/// Codes by one method.
#[derive(Deserialize)]
pub(super) struct CodesOf {
    pub(super) set: String,
    /// The number of fitted and of held-out items.
    pub(super) items: usize,
    pub(super) others: usize,
    pub(super) queries: usize,
    pub(super) dim: usize,
    pub(super) levels: usize,
    /// The name of the method.
    pub(super) codes: String,
    pub(super) fit_ns: u64,
    pub(super) encode_ns: u64,
    pub(super) lengths: Vec<Length>,
}

/// One code length.
#[derive(Deserialize)]
pub(super) struct Length {
    pub(super) bits: u32,
    /// Mean squared error over the mean squared norm, for fitted and for held-out items.
    pub(super) distortion: f64,
    pub(super) others_distortion: f64,
    /// The share of queries whose nearest item is among the first R, by R.
    pub(super) recall: BTreeMap<usize, f64>,
}

/// Images per second of PyTorch and dpq with the same network.
#[derive(Deserialize)]
pub(super) struct Rates {
    pub(super) device: String,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) epochs: usize,
    pub(super) rates: Vec<Rate>,
}

#[derive(Deserialize)]
pub(super) struct Rate {
    /// `training` or `encoding`.
    pub(super) work: String,
    /// The number of queries in a batch.
    pub(super) batch: usize,
    /// The memory layout of PyTorch.
    pub(super) torch_layout: String,
    pub(super) ours_per_second: f64,
    pub(super) torch_per_second: f64,
}

/// Images per second of PyTorch and dpq with the same residual network.
#[derive(Deserialize)]
pub(super) struct ResidualRates {
    pub(super) rounds: usize,
    pub(super) batch: usize,
    pub(super) rates: Vec<ResidualRate>,
}

#[derive(Deserialize)]
pub(super) struct ResidualRate {
    /// `train` or `encode`.
    pub(super) work: String,
    /// The side of images in pixels.
    pub(super) side: usize,
    pub(super) classes: usize,
    pub(super) threads: usize,
    /// The memory layout of PyTorch.
    pub(super) torch_layout: String,
    pub(super) ours_per_second: f64,
    pub(super) torch_per_second: f64,
}

/// Features of the images of a folder, by a plain loader of PIL and PyTorch and by dpq.
#[derive(Deserialize)]
pub(super) struct FolderRates {
    pub(super) images: u64,
    /// The name of the folder.
    pub(super) set: String,
    /// The side of images in pixels.
    pub(super) side: usize,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) batch: usize,
    /// The least cosine of a feature of one side with that of the other.
    pub(super) least_cosine: f64,
    pub(super) ours: FolderRate,
    pub(super) torch: Vec<FolderRate>,
}

#[derive(Deserialize)]
pub(super) struct FolderRate {
    /// The processes that load images for PyTorch; none in dpq.
    #[serde(default)]
    pub(super) workers: usize,
    pub(super) per_second: f64,
    /// The peak of the largest process.
    pub(super) peak_memory_bytes: u64,
}

/// Searches of the same features: USearch stores vectors, dpq stores codes.
#[derive(Deserialize)]
pub(super) struct VectorSearches {
    pub(super) items: usize,
    pub(super) dim: usize,
    pub(super) k: usize,
    pub(super) rounds: usize,
    /// A call of USearch without a search.
    pub(super) empty_call_ns: u64,
    pub(super) searches: Vec<VectorSearch>,
}

#[derive(Deserialize)]
pub(super) struct VectorSearch {
    pub(super) name: String,
    pub(super) queries: u64,
    pub(super) bytes_an_item: f64,
    pub(super) build_seconds: Option<f64>,
    /// Time per query.
    pub(super) ns: u64,
    /// The share of the k nearest vectors that is found, and the share of hits with the query's
    /// class.
    pub(super) recall: f64,
    pub(super) precision: f64,
}

/// Searches of the same vectors as codes of dpq, faiss and turbovec.
#[derive(Deserialize)]
pub(super) struct RealVectors {
    pub(super) k: usize,
    /// The number of hits that vectors rank again.
    pub(super) depth: usize,
    /// The number of queries for recall, and in a round of searches.
    pub(super) queries: usize,
    pub(super) timed: usize,
    pub(super) rounds: usize,
    pub(super) batch: usize,
    /// The number of vectors for slow trainings of faiss, and the rounds of OPQ.
    pub(super) sample: usize,
    pub(super) opq_rounds: usize,
    /// Reasons by what was not measured.
    pub(super) left_out: BTreeMap<String, String>,
    pub(super) sets: Vec<VectorSet>,
}

#[derive(Deserialize)]
pub(super) struct VectorSet {
    pub(super) name: String,
    pub(super) items: u64,
    pub(super) dim: usize,
    pub(super) metric: String,
    /// The time that making each code took.
    pub(super) seconds: BTreeMap<String, f64>,
    /// The size of a file of dpq with 32 levels.
    pub(super) file_bytes_of_32: u64,
    pub(super) kernels: Vec<String>,
    pub(super) faiss_simd: String,
    /// A call of faiss without a search.
    pub(super) empty_call_ns: u64,
    pub(super) tables: Vec<TableOf>,
    pub(super) rows: Vec<VectorCode>,
}

/// The time of a lookup table of dpq.
#[derive(Deserialize)]
pub(super) struct TableOf {
    /// Bytes of a code.
    pub(super) code: u64,
    pub(super) ns: u64,
}

/// Searches of codes of one kind and length.
#[derive(Deserialize)]
pub(super) struct VectorCode {
    pub(super) program: String,
    pub(super) name: String,
    pub(super) metric: String,
    /// Bytes of a code, for dpq and for product quantizers of faiss.
    pub(super) code: Option<u64>,
    /// Bytes per vector, with norms and the like.
    pub(super) bytes: u64,
    pub(super) file_bytes: u64,
    /// Times with one thread and with two: by codes alone, and rescored by vectors.
    pub(super) ns: [[u64; 2]; 2],
    /// The time with one thread and the second fastest kernel of dpq.
    pub(super) second_ns: Option<u64>,
    /// recall@1, @10 and @100 by codes alone, recall@1 and @10 rescored.
    pub(super) recall: [Vec<f64>; 2],
}

/// Mean average precision of all lengths by `dpq eval` and by a script with one argsort per query.
#[derive(Deserialize)]
pub(super) struct Evaluations {
    pub(super) items: usize,
    pub(super) queries: usize,
    pub(super) dim: usize,
    pub(super) rounds: usize,
    pub(super) numpy_seconds: f64,
    pub(super) numpy_cpu_seconds: f64,
    pub(super) ours_seconds: f64,
    pub(super) ours_cpu_seconds: f64,
    pub(super) lengths: Vec<Evaluation>,
}

#[derive(Deserialize)]
pub(super) struct Evaluation {
    pub(super) bits: u32,
    pub(super) numpy_map: f64,
    /// The expectation, minimum and maximum over all orders of tied items.
    pub(super) map: f64,
    pub(super) map_min: f64,
    pub(super) map_max: f64,
}

/// A live index that grows, and segments beside one index.
#[derive(Deserialize)]
pub(super) struct Live {
    /// Items of a commit.
    pub(super) commit_items: usize,
    pub(super) upserts: Growth,
    pub(super) growth: Growth,
    pub(super) segments: Segments,
}

#[derive(Deserialize)]
pub(super) struct Growth {
    pub(super) items: u64,
    pub(super) seconds: f64,
    pub(super) merge_seconds: f64,
    /// Median, 99th percentile and maximum, without merges.
    pub(super) commit_seconds: [f64; 3],
    pub(super) bytes_written: u64,
    /// The size of the folder in the end.
    pub(super) bytes_kept: u64,
    pub(super) segments: usize,
}

/// Single queries by inner product on eight segments and on one index, by turns.
#[derive(Deserialize)]
pub(super) struct Segments {
    pub(super) items: u64,
    pub(super) queries: usize,
    pub(super) rounds: usize,
    pub(super) dim: usize,
    pub(super) searches: Vec<SegmentSearch>,
}

#[derive(Deserialize)]
pub(super) struct SegmentSearch {
    pub(super) bits: u32,
    pub(super) k: usize,
    pub(super) one_ns: u64,
    pub(super) eight_ns: u64,
}
