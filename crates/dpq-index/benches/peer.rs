//! The dpq side of a comparison. Commands come on stdin, one per line. Each is answered by a line
//! of JSON on stdout.
//!
//! - `files SHAPE N`: makes the data unless it exists; returns the paths of codebooks, codes and
//!   queries
//! - `build SHAPE N LEVELS METRIC`: builds and opens an index; returns the time and memory of both
//! - `index CODEBOOKS CODES LEVELS METRIC QUERIES VECTORS`: the same from a file of codebooks and
//!   files of bytes, and of floats without a header
//! - `query KERNEL LENGTH K I`: searches for query I; returns nanoseconds, ids and scores
//! - `row KERNEL LENGTH K N`: searches for the first N queries, one after the other; returns
//!   the nanoseconds of each
//! - `batch KERNEL LENGTH K N`: searches for the first N queries, [`BATCH`] at a time; returns
//!   nanoseconds
//! - `ids KERNEL LENGTH K N`: searches for the first N queries; returns the ids of each
//! - `table BITS N`: makes the lookup tables of the first N queries; returns the nanoseconds of
//!   each
//! - `resident`: returns the resident bytes of this process, mapped files included
//!
//! LENGTH is BITS, or `BITS:N@BITS` for a shortlist of N items at a shorter length, with `!` at the
//! end for one that is continued until it is exact. K is a number, or `K/DEPTH`: the vectors rank
//! DEPTH hits again. Searches include the lookup table. `Instant` reads CLOCK_MONOTONIC on Linux.
//! Batches run on as many threads as RAYON_NUM_THREADS says.

mod data;

use std::error::Error;
use std::hint::black_box;
use std::str::FromStr;
use std::time::Instant;
use std::{fs, io};

use data::{Data, Shape};
use dpq_index::{CodeLength, Codebooks, Hit, Index, Kernel, Metric, SearchOptions};
use rayon::prelude::*;
use tempfile::TempDir;

/// Queries per batch.
const BATCH: usize = 32;
/// The number of times that a file is opened, of which the median time counts.
const OPENINGS: usize = 9;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    /// Asks for as many hits as are ranked again.
    search: SearchOptions<'static>,
    /// The hits to return, if they are ranked again.
    rescored: Option<usize>,
}

struct Opened {
    index: Index,
    queries: Vec<Vec<f32>>,
    /// The vectors that the codes stand for, one after the other; empty if there are none.
    vectors: Vec<f32>,
    /// The folder of the index file, which is removed when this is dropped.
    _folder: TempDir,
}

fn main() -> Result<()> {
    let mut opened = None;
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match (&words[..], &opened) {
            (["files", shape, n_items], _) => files(parse(shape)?, parse(n_items)?)?,
            (["build", shape, n_items, n_levels, metric], _) => {
                let (data, n_levels) = (Data::load(parse(shape)?, parse(n_items)?)?, parse(n_levels)?);
                let queries = data.queries().map(<[f32]>::to_vec).collect();
                let (codebooks, codes) = (data.codebooks(n_levels), data.codes(n_levels));
                drop(data);
                let (index, answer) = build_and_open(&codebooks, codes, parse(metric)?, queries, Vec::new())?;
                opened = Some(index);
                answer
            }
            (["index", codebooks, codes, n_levels, metric, queries, vectors], _) => {
                let (codebooks, codes) = prefixes(codebooks, codes, parse(n_levels)?)?;
                let queries = floats(queries)?.chunks(codebooks.dim()).map(<[f32]>::to_vec).collect();
                let vectors = floats(vectors)?;
                let (index, answer) = build_and_open(&codebooks, codes, parse(metric)?, queries, vectors)?;
                opened = Some(index);
                answer
            }
            (["query", options @ .., query], Some(opened)) => {
                opened.query(&parse_options(options)?, parse(query)?)?
            }
            (["row", options @ .., n_queries], Some(opened)) => {
                opened.row(&parse_options(options)?, parse(n_queries)?)?
            }
            (["batch", options @ .., n_queries], Some(opened)) => {
                opened.batch(&parse_options(options)?, parse(n_queries)?)?
            }
            (["ids", options @ .., n_queries], Some(opened)) => {
                opened.ids(&parse_options(options)?, parse(n_queries)?)?
            }
            (["table", bits, n_queries], Some(opened)) => opened.table(parse(bits)?, parse(n_queries)?)?,
            (["resident"], _) => memory("VmRSS:")?.to_string(),
            _ => return Err(format!("`{line}` is no command, or needs an index").into()),
        };
        println!("{answer}");
    }
    Ok(())
}

fn files(shape: Shape, n_items: usize) -> Result<String> {
    Data::load(shape, n_items)?;
    Ok(format!("{:?}", data::files(shape, n_items)))
}

/// Returns the first levels of codebooks and codes.
fn prefixes(codebooks: &str, codes: &str, n_levels: usize) -> Result<(Codebooks, Vec<u8>)> {
    let (whole, codes) = (Codebooks::open(codebooks)?, fs::read(codes)?);
    let levels: Vec<f32> = (0..n_levels).flat_map(|level| whole.level(level).to_vec()).collect();
    let codebooks = Codebooks::new(levels, n_levels, whole.n_codewords(), whole.dim(), whole.assignment())?;
    let codes = codes.chunks(whole.n_levels()).flat_map(|code| code[..n_levels].to_vec()).collect();
    Ok((codebooks, codes))
}

fn floats(path: &str) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn build_and_open(
    codebooks: &Codebooks,
    codes: Vec<u8>,
    metric: Metric,
    queries: Vec<Vec<f32>>,
    vectors: Vec<f32>,
) -> Result<(Opened, String)> {
    let folder = tempfile::tempdir_in(data::folder())?;
    let path = folder.path().join("index.dpq");

    // Resets the peak memory to the current memory.
    fs::write("/proc/self/clear_refs", "5")?;
    let (memory_before, start) = (memory("VmRSS:")?, Instant::now());
    Index::builder(codebooks, &codes).metric(metric).write(&path)?;
    let (build_ns, build_bytes) =
        (start.elapsed().as_nanos(), memory("VmHWM:")?.saturating_sub(memory_before));
    drop(codes);

    let open = || {
        let start = Instant::now();
        #[expect(unsafe_code, reason = "opening is measured on a mapped file")]
        // SAFETY: the file lies in a temporary folder of this process, which does not change it.
        let index = unsafe { Index::map(&path) };
        index.map(|index| (index, start.elapsed().as_nanos()))
    };
    let memory_before = memory("VmRSS:")?;
    let (index, first) = open()?;
    let open_bytes = memory("VmRSS:")?.saturating_sub(memory_before);
    let mut times = vec![first];
    for _ in 1..OPENINGS {
        times.push(open()?.1);
    }
    times.sort_unstable();
    let open_ns = times[OPENINGS / 2];
    let (file_bytes, distinct) = (fs::metadata(&path)?.len(), index.n_distinct());
    let kernels: Vec<String> = Kernel::available().map(|kernel| kernel.to_string()).collect();
    let answer = format!(
        r#"{{"build_ns": {build_ns}, "build_bytes": {build_bytes}, "open_ns": {open_ns}, "open_bytes": {open_bytes}, "#
    ) + &format!(
        r#""file_bytes": {file_bytes}, "distinct": {distinct}, "kernels": {kernels:?}}}"#
    );
    Ok((Opened { index, queries, vectors, _folder: folder }, answer))
}

impl Opened {
    fn search(&self, query: &[f32], options: &Options) -> Result<Vec<Hit>> {
        let hits = self.index.search_batch(query, &options.search)?.remove(0);
        self.rescored(query, hits, options)
    }

    /// Ranks hits by the vectors of their items.
    fn rescored(&self, query: &[f32], hits: Vec<Hit>, options: &Options) -> Result<Vec<Hit>> {
        let Some(k) = options.rescored else { return Ok(hits) };
        let read = |id: u64, x: &mut [f32]| {
            x.copy_from_slice(&self.vectors[id as usize * query.len()..][..query.len()]);
            Ok::<(), dpq_index::Error>(())
        };
        Ok(self.index.rerank(query, &hits, k, read)?)
    }

    fn query(&self, options: &Options, query: usize) -> Result<String> {
        let query = self.queries.get(query).ok_or("there is no such query")?;
        let start = Instant::now();
        let hits = self.search(query, options)?;
        let ns = start.elapsed().as_nanos();
        let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
        Ok(format!(r#"{{"ns": {ns}, "ids": {:?}, "scores": {scores:?}}}"#, ids(&hits)))
    }

    fn row(&self, options: &Options, n_queries: usize) -> Result<String> {
        let mut times = Vec::with_capacity(n_queries);
        for query in self.first(n_queries)? {
            let start = Instant::now();
            let hits = self.search(query, options)?;
            times.push(start.elapsed().as_nanos());
            black_box(hits);
        }
        Ok(format!("{times:?}"))
    }

    fn batch(&self, options: &Options, n_queries: usize) -> Result<String> {
        let queries = self.first(n_queries)?;
        let start = Instant::now();
        for queries in queries.chunks(BATCH) {
            black_box(self.together(queries, options)?);
        }
        Ok(start.elapsed().as_nanos().to_string())
    }

    fn together(&self, queries: &[Vec<f32>], options: &Options) -> Result<Vec<Vec<Hit>>> {
        let found = self.index.search_batch(&queries.concat(), &options.search)?;
        if options.rescored.is_none() {
            return Ok(found);
        }
        let rescored = |(query, hits): (&Vec<f32>, _)| {
            self.rescored(query, hits, options).map_err(|error| error.to_string())
        };
        Ok(queries.par_iter().zip(found).map(rescored).collect::<std::result::Result<_, String>>()?)
    }

    fn ids(&self, options: &Options, n_queries: usize) -> Result<String> {
        let found = self.together(self.first(n_queries)?, options)?;
        Ok(format!("{:?}", found.iter().map(|hits| ids(hits)).collect::<Vec<_>>()))
    }

    fn table(&self, bits: usize, n_queries: usize) -> Result<String> {
        let (length, mut times) = (CodeLength::from_bits(bits)?, Vec::with_capacity(n_queries));
        for query in self.first(n_queries)? {
            let start = Instant::now();
            black_box(self.index.lookup_table_at(query, length)?);
            times.push(start.elapsed().as_nanos());
        }
        Ok(format!("{times:?}"))
    }

    fn first(&self, n_queries: usize) -> Result<&[Vec<f32>]> {
        Ok(self.queries.get(..n_queries).ok_or("there are fewer queries")?)
    }
}

fn ids(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.id).collect()
}

fn parse<T: FromStr<Err: ToString>>(word: &str) -> Result<T> {
    word.parse().map_err(|error: T::Err| format!("`{word}`: {}", error.to_string()).into())
}

fn parse_options(words: &[&str]) -> Result<Options> {
    let &[kernel, length, k] = words else {
        return Err("expected KERNEL LENGTH K and one number more".into());
    };
    let kernel = Kernel::available()
        .find(|found| found.to_string() == *kernel)
        .ok_or("this CPU does not run that kernel")?;
    let (k, rescored) = match k.split_once('/') {
        Some((k, depth)) => (depth, Some(parse(k)?)),
        None => (k, None),
    };
    let (bits, shortlist) = length.split_once(':').unwrap_or((length, ""));
    let length = CodeLength::from_bits(parse(bits)?)?;
    let mut search = SearchOptions::new(parse(k)?).length(length).kernel(kernel);
    if let Some((n, bits)) = shortlist.trim_end_matches('!').split_once('@') {
        search = search.shortlist(parse(n)?, CodeLength::from_bits(parse(bits)?)?);
    }
    if shortlist.ends_with('!') {
        search = search.exact();
    }
    Ok(Options { search, rescored })
}

/// Returns the bytes in the line of the process status that begins with `name`.
fn memory(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    Ok(1024 * parse::<u64>(kib.ok_or("the system does not tell its memory")?)?)
}
