//! Kernels for `cargo xtask bench --instructions`, which runs each under valgrind. `list` prints
//! their names, and a name runs that kernel once. Only the instructions inside of
//! [`counted_instructions`] count, so the data is made outside.

use std::error::Error;
use std::hint::black_box;

use dpq_codebook::ResidualKMeans;
use dpq_index::{Assignment, CodeLength, Codebooks, Index, Kernel, Metric, SearchOptions};

/// The sizes of the paper, and enough items for every part of a search to do some work.
const DIM: usize = 300;
const LEVELS: usize = 4;
const CODEWORDS: usize = 256;
const ITEMS: usize = 20_000;
const FEATURES: usize = 512;
const K: usize = 100;

/// Kernels of searches that valgrind runs. It does not know AVX-512.
const KERNELS: [&str; 2] = ["scalar", "avx2"];

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    // Cargo runs this without a name as a test, and with `--bench` as a benchmark.
    if name.is_empty() || name.starts_with("--") {
        return Ok(());
    }
    if name == "list" {
        names().iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    // On a worker of the pool: with no other worker, parallel loops stay on it.
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(|| run(&name))
}

fn names() -> Vec<String> {
    let mut names = ["encode", "k-means", "lookup-table", "scores", "build"].map(str::to_owned).to_vec();
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        for bits in [8, 16, 24, 32] {
            let kernels = Kernel::available().map(|kernel| kernel.to_string());
            let kernels = kernels.filter(|kernel| KERNELS.contains(&kernel.as_str()));
            names.extend(kernels.map(|kernel| format!("search/{metric}/{bits}/{kernel}")));
        }
    }
    names
}

fn run(name: &str) -> Result<()> {
    // Every level is half as large as the level before it, like residuals.
    let values = numbers(1, LEVELS * CODEWORDS * DIM).enumerate();
    let values = values.map(|(i, x)| x / (1 << (i / (CODEWORDS * DIM))) as f32).collect();
    let codebooks = Codebooks::new(values, LEVELS, CODEWORDS, DIM, Assignment::Euclidean)?;
    let features: Vec<f32> = numbers(2, FEATURES * DIM).collect();
    let query = &features[..DIM];
    let codes: Vec<u8> = numbers(3, ITEMS * LEVELS).map(|x| ((x + 1.0) * 128.0) as u8).collect();
    match name.split('/').collect::<Vec<_>>()[..] {
        ["encode"] => counted_instructions(&mut || {
            black_box(codebooks.encode(&features)?);
            Ok(())
        }),
        ["k-means"] => {
            let config = ResidualKMeans { n_levels: 1, n_codewords: 64, n_iterations: 3 };
            counted_instructions(&mut || {
                black_box(config.train(&features, DIM)?);
                Ok(())
            })
        }
        ["lookup-table"] => counted_instructions(&mut || {
            black_box(codebooks.lookup_table(query)?);
            Ok(())
        }),
        ["scores"] => {
            let index = Index::builder(&codebooks, &codes).build()?;
            let (table, distinct) = (index.lookup_table(query)?, index.distinct_codes(index.max_length())?);
            let mut scores = vec![0.0; distinct.len()];
            counted_instructions(&mut || {
                distinct.score(&table, &mut scores)?;
                black_box(&scores);
                Ok(())
            })
        }
        ["build"] => counted_instructions(&mut || {
            black_box(Index::builder(&codebooks, &codes).build()?);
            Ok(())
        }),
        ["search", metric, bits, kernel] => {
            let index = Index::builder(&codebooks, &codes).metric(metric.parse()?).build()?;
            let length = CodeLength::from_bits(bits.parse()?)?;
            let table = index.lookup_table_at(query, length)?;
            let kernel = Kernel::available()
                .find(|found| found.to_string() == *kernel)
                .ok_or("this CPU does not run that kernel")?;
            let options = SearchOptions::new(K).length(length).kernel(kernel);
            counted_instructions(&mut || {
                assert_eq!(index.search_with(&table, &options)?.len(), K);
                Ok(())
            })
        }
        _ => Err(format!("no kernel is named `{name}`, `list` names them").into()),
    }
}

/// Marks the instructions that valgrind counts.
#[inline(never)]
fn counted_instructions(kernel: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    kernel()
}

/// Yields `n` numbers in [-1, 1) from a seed.
fn numbers(seed: u64, n: usize) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(n)
}
