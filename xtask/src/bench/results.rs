//! What `compare.py` prints. Times are in nanoseconds, one thread, lookup table included.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// Version and build.
    pub(crate) faiss: String,
    pub(crate) python: String,
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

#[derive(Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// The core that both sides ran on.
    pub(crate) core: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) instructions: Vec<String>,
    pub(crate) kernel: String,
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
