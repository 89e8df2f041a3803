//! The dpq side of a comparison. Commands come on stdin, one per line. Each is answered by a line
//! of JSON on stdout.
//!
//! - `files SHAPE N`: makes the data unless it exists; returns the paths of codebooks, codes and
//!   queries
//! - `build SHAPE N LEVELS METRIC`: builds and opens an index; returns the time and memory of both
//! - `query KERNEL BITS K I`: searches for query I; returns nanoseconds, ids and scores
//! - `row KERNEL BITS K N`: searches for the first N queries, one after the other; returns the
//!   nanoseconds of each
//! - `batch KERNEL BITS K N`: searches for the first N queries, [`BATCH`] at a time; returns
//!   nanoseconds
//! - `resident`: returns the resident bytes of this process, mapped files included
//!
//! Searches include the lookup table. `Instant` reads CLOCK_MONOTONIC on Linux. Batches run on as
//! many threads as RAYON_NUM_THREADS says.

mod data;

use std::error::Error;
use std::hint::black_box;
use std::str::FromStr;
use std::time::Instant;
use std::{fs, io};

use data::{Data, Shape};
use dpq_index::{CodeLength, Index, Kernel, Metric, SearchOptions};
use tempfile::TempDir;

/// Queries per batch.
const BATCH: usize = 32;
/// The number of times that a file is opened, of which the median time counts.
const OPENINGS: usize = 9;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Options = (CodeLength, SearchOptions<'static>);

struct Opened {
    index: Index,
    queries: Vec<Vec<f32>>,
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
                let (index, answer) =
                    build_and_open(parse(shape)?, parse(n_items)?, parse(n_levels)?, parse(metric)?)?;
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

fn build_and_open(shape: Shape, n_items: usize, n_levels: usize, metric: Metric) -> Result<(Opened, String)> {
    let data = Data::load(shape, n_items)?;
    let (codebooks, codes) = (data.codebooks(n_levels), data.codes(n_levels));
    let queries = data.queries().map(<[f32]>::to_vec).collect();
    drop(data);
    let folder = tempfile::tempdir_in(data::folder())?;
    let path = folder.path().join("index.dpq");

    // Resets the peak memory to the current memory.
    fs::write("/proc/self/clear_refs", "5")?;
    let (memory_before, start) = (memory("VmRSS:")?, Instant::now());
    Index::builder(&codebooks, &codes).metric(metric).write(&path)?;
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
    Ok((Opened { index, queries, _folder: folder }, answer))
}

impl Opened {
    fn query(&self, (length, options): &Options, query: usize) -> Result<String> {
        let query = self.queries.get(query).ok_or("there is no such query")?;
        let start = Instant::now();
        let hits = self.index.search_with(&self.index.lookup_table_at(query, *length)?, options)?;
        let ns = start.elapsed().as_nanos();
        let ids: Vec<u64> = hits.iter().map(|hit| hit.id).collect();
        let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
        Ok(format!(r#"{{"ns": {ns}, "ids": {ids:?}, "scores": {scores:?}}}"#))
    }

    fn row(&self, (length, options): &Options, n_queries: usize) -> Result<String> {
        let mut times = Vec::with_capacity(n_queries);
        for query in self.queries.get(..n_queries).ok_or("there are fewer queries")? {
            let start = Instant::now();
            let hits = self.index.search_with(&self.index.lookup_table_at(query, *length)?, options)?;
            times.push(start.elapsed().as_nanos());
            black_box(hits);
        }
        Ok(format!("{times:?}"))
    }

    fn batch(&self, (length, options): &Options, n_queries: usize) -> Result<String> {
        let queries = self.queries.get(..n_queries).ok_or("there are fewer queries")?;
        let start = Instant::now();
        for queries in queries.chunks(BATCH) {
            self.index.search_batch(&queries.concat(), options)?;
        }
        Ok(start.elapsed().as_nanos().to_string())
    }
}

fn parse<T: FromStr<Err: ToString>>(word: &str) -> Result<T> {
    word.parse().map_err(|error: T::Err| format!("`{word}`: {}", error.to_string()).into())
}

fn parse_options(words: &[&str]) -> Result<Options> {
    let &[kernel, bits, k] = words else { return Err("expected KERNEL BITS K and one number more".into()) };
    let length = CodeLength::from_bits(parse(bits)?)?;
    let kernel = Kernel::available()
        .find(|found| found.to_string() == *kernel)
        .ok_or("this CPU does not run that kernel")?;
    Ok((length, SearchOptions::new(parse(k)?).length(length).kernel(kernel)))
}

/// Returns the bytes in the line of the process status that begins with `name`.
fn memory(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    Ok(1024 * parse::<u64>(kib.ok_or("the system does not tell its memory")?)?)
}
