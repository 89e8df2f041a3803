//! This crate's side of a comparison with faiss. Commands come on stdin, one per line. Each is
//! answered by a line on stdout.
//!
//! - `features PATH DIM`: reads features, raw f32 [N, D]
//! - `codebooks PATH L K`: reads codebooks, raw f32 [L, K, D]
//! - `train L K ITERATIONS WIDTH PATH WEIGHT...`: residual k-means of the features for codes of a
//!   beam search (greedy at width 1); writes and keeps the codebooks
//! - `refine WIDTH ROUNDS PATH WEIGHT...`: refines the codebooks for codes of a beam; writes and
//!   keeps them
//! - `encode PATH`: writes the codes of the features, raw u8 [N, L]
//! - `beam WIDTH PATH WEIGHT...`: the same by beam search
//!
//! The answer is the CPU time of the work in nanoseconds. One thread does all of it. Reading and
//! writing files does not count, nor do other programs on the machine.

use std::error::Error;
use std::str::FromStr;
use std::{fs, io, thread};

use dpq_codebook::{Assignment, Beam, Codebooks, FitOptions, ResidualKMeans};

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
            ["train", n_levels, n_codewords, n_iterations, width, path, ref weights @ ..] => {
                let weights = parse_all(weights)?;
                let beam = Beam { width: parse(width)?, weights: &weights };
                let config = ResidualKMeans {
                    n_levels: parse(n_levels)?,
                    n_codewords: parse(n_codewords)?,
                    n_iterations: parse(n_iterations)?,
                };
                let options = FitOptions { beam: Some(beam), ..FitOptions::default() };
                let (codebooks, ns) = timed(|| Ok(config.train_with(&self.features, self.dim, options)?))?;
                self.keep(codebooks, path)?;
                Ok(ns)
            }
            ["refine", width, n_rounds, path, ref weights @ ..] => {
                let (weights, n_rounds) = (parse_all(weights)?, parse(n_rounds)?);
                let beam = Beam { width: parse(width)?, weights: &weights };
                let (codebooks, ns) = timed(|| {
                    let options = FitOptions { beam: Some(beam), ..FitOptions::default() };
                    Ok(self.codebooks()?.refine(&self.features, n_rounds, options)?)
                })?;
                self.keep(codebooks, path)?;
                Ok(ns)
            }
            ["beam", width, path, ref weights @ ..] => {
                let weights = parse_all(weights)?;
                let beam = Beam { width: parse(width)?, weights: &weights };
                let (codes, ns) = timed(|| Ok(self.codebooks()?.encode_beam(&self.features, beam)?))?;
                fs::write(path, codes)?;
                Ok(ns)
            }
            ["encode", path] => {
                let (codes, ns) = timed(|| Ok(self.codebooks()?.encode(&self.features)?))?;
                fs::write(path, codes)?;
                Ok(ns)
            }
            _ => Err(format!("`{}` is not a command", words.join(" ")).into()),
        }
    }
}

impl State {
    fn codebooks(&self) -> Result<&Codebooks> {
        Ok(self.codebooks.as_ref().ok_or("there are no codebooks")?)
    }

    fn keep(&mut self, codebooks: Codebooks, path: &str) -> Result<()> {
        let bytes: Vec<u8> = codebooks.values().iter().flat_map(|x| x.to_le_bytes()).collect();
        self.codebooks = Some(codebooks);
        Ok(fs::write(path, bytes)?)
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let start = cpu_ns()?;
    let made = work()?;
    Ok((made, cpu_ns()? - start))
}

/// Returns the CPU time of this thread in nanoseconds.
fn cpu_ns() -> Result<u64> {
    // Yielding makes the scheduler update the file.
    thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    parse(stat.split_whitespace().next().ok_or("the system does not report CPU times")?)
}

fn numbers(path: &str) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn parse_all(words: &[&str]) -> Result<Vec<f32>> {
    words.iter().map(|word| parse(word)).collect()
}

fn parse<T: FromStr<Err: ToString>>(word: &str) -> Result<T> {
    word.parse().map_err(|error: T::Err| format!("`{word}`: {}", error.to_string()).into())
}
