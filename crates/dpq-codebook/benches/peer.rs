//! This crate's side of a comparison: commands come on stdin, one a line, each answered by a line of JSON on stdout.
//!
//! - `features PATH DIM`: reads features, raw f32 [N, D]
//! - `codebooks PATH L K`: reads codebooks, raw f32 [L, K, D]
//! - `train L K ITERATIONS PATH`: residual k-means of the features; writes and keeps the codebooks
//! - `encode PATH`: writes the codes of the features, raw u8 [N, L]
//!
//! The answer is the time of the work itself in nanoseconds of this thread, which does all of it: files are read and
//! written outside of it, and other programs on the machine do not count.

use std::error::Error;
use std::str::FromStr;
use std::{fs, io};

use dpq_codebook::{Assignment, Codebooks, ResidualKMeans};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct State {
    features: Vec<f32>,
    dim: usize,
    codebooks: Option<Codebooks>,
}

fn main() -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    let mut state = State::default();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        println!("{}", state.answer(&words)?);
    }
    Ok(())
}

impl State {
    fn answer(&mut self, words: &[&str]) -> Result<u64> {
        match *words {
            ["features", path, dim] => {
                (self.features, self.dim) = (numbers(path)?, parse(dim)?);
                Ok(0)
            }
            ["codebooks", path, n_levels, n_codewords] => {
                let (n_levels, n_codewords) = (parse(n_levels)?, parse(n_codewords)?);
                let codebooks =
                    Codebooks::new(numbers(path)?, n_levels, n_codewords, self.dim, Assignment::Euclidean)?;
                self.codebooks = Some(codebooks);
                Ok(0)
            }
            ["train", n_levels, n_codewords, n_iterations, path] => {
                let config = ResidualKMeans {
                    n_levels: parse(n_levels)?,
                    n_codewords: parse(n_codewords)?,
                    n_iterations: parse(n_iterations)?,
                    seed: 1,
                };
                let (codebooks, ns) = timed(|| config.train(&self.features, self.dim, &mut |_, _| {}))?;
                let bytes: Vec<u8> = codebooks.values().iter().flat_map(|x| x.to_le_bytes()).collect();
                fs::write(path, bytes)?;
                self.codebooks = Some(codebooks);
                Ok(ns)
            }
            ["encode", path] => {
                let codebooks = self.codebooks.as_ref().ok_or("there are no codebooks")?;
                let (codes, ns) = timed(|| codebooks.encode(&self.features))?;
                fs::write(path, codes)?;
                Ok(ns)
            }
            _ => Err(format!("`{}` is no command", words.join(" ")).into()),
        }
    }
}

fn timed<T>(work: impl FnOnce() -> std::result::Result<T, dpq_codebook::Error>) -> Result<(T, u64)> {
    let start = cpu_ns()?;
    let made = work()?;
    Ok((made, cpu_ns()? - start))
}

/// Nanoseconds that this thread has run.
fn cpu_ns() -> Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    parse(stat.split_whitespace().next().ok_or("the system does not tell times")?)
}

fn numbers(path: &str) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn parse<T: FromStr<Err: ToString>>(word: &str) -> Result<T> {
    word.parse().map_err(|error: T::Err| format!("`{word}`: {}", error.to_string()).into())
}
