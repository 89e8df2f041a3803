//! Codes, codebooks and queries for the benchmarks, in three shapes. The same seed gives the same
//! numbers on every machine.
//!
//! - `clustered`: encodings of draws from a mixture of Gaussians with a decaying spectrum, by
//!   codebooks that residual k-means fitted to other draws. Ten million items have 8.6 million
//!   distinct codes of 32 bits.
//! - `collapsed`: the same codebooks and class means. The draws of a class are close to its mean,
//!   as training pulls the features of a network: ten million items share 18 thousand codes of 32
//!   bits.
//! - `uniform`: uniform codes and Gaussian codebooks of one scale. Trained codebooks do not look
//!   like this; no other shape is harder to prune.
//!
//! The mixture fills [`RANK`] dimensions. Codebooks are fitted and codes computed there, at a fifth
//! of the cost. Random orthonormal directions then map codebooks and queries to [`DIM`] dimensions,
//! which changes no inner product and no distance. Queries are separate draws. Ten million items
//! cost 84 seconds of one AMD EPYC core; [`folder`] keeps the results.

#![allow(dead_code, reason = "each bench uses a part")]

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::Result;
use std::path::PathBuf;
use std::str::FromStr;

use dpq_codebook::{Assignment, Codebooks, ResidualKMeans};
use rayon::prelude::*;

/// Dimensions of codewords and queries, D.
pub(crate) const DIM: usize = 300;
/// Levels of the longest code, L.
pub(crate) const LEVELS: usize = 8;
/// Codewords per level, K.
pub(crate) const CODEWORDS: usize = 256;
/// Queries, Q.
pub(crate) const QUERIES: usize = 1000;

/// Dimensions that the mixture fills.
const RANK: usize = 64;
const CLASSES: usize = 100;
/// Standard deviation within the classes, from the tightest to the widest, relative to that of the
/// class means.
const SPREAD: [f32; 2] = [0.15, 0.6];
/// Draws to which the codebooks are fitted.
const TRAINING: usize = 1 << 16;
/// Items made with one seed.
const CHUNK: usize = 1 << 14;

/// The distribution of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Collapsed,
    Clustered,
    Uniform,
}

/// All shapes, from the easiest to search to the hardest.
pub(crate) const SHAPES: [Shape; 3] = [Shape::Collapsed, Shape::Clustered, Shape::Uniform];

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Collapsed => "collapsed",
            Self::Clustered => "clustered",
            Self::Uniform => "uniform",
        })
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = SHAPES.into_iter().find(|shape| shape.to_string() == text);
        found.ok_or_else(|| format!("the shape is `{text}`, expected `collapsed`, `clustered` or `uniform`"))
    }
}

/// The longest codes; shorter ones are their prefixes.
pub(crate) struct Data {
    /// f32 [LEVELS, CODEWORDS, DIM]
    codebooks: Vec<f32>,
    /// u8 [N, LEVELS]
    codes: Vec<u8>,
    /// f32 [QUERIES, DIM]
    queries: Vec<f32>,
}

impl Data {
    /// Reads the first `n_items` of a shape, or makes and stores them.
    pub(crate) fn load(shape: Shape, n_items: usize) -> Result<Self> {
        let [codebooks, codes, queries] = files(shape, n_items);
        if !codes.exists() {
            fs::create_dir_all(folder())?;
            let made = Self::make(shape, n_items);
            fs::write(&codebooks, bytes(&made.codebooks))?;
            fs::write(&queries, bytes(&made.queries))?;
            // The codes are renamed last: their presence means that all files are complete.
            let part = codes.with_extension("part");
            fs::write(&part, &made.codes)?;
            fs::rename(&part, &codes)?;
        }
        Ok(Self {
            codebooks: floats(&fs::read(codebooks)?),
            codes: fs::read(codes)?,
            queries: floats(&fs::read(queries)?),
        })
    }

    /// Returns the codebooks of the first `n_levels` levels.
    pub(crate) fn codebooks(&self, n_levels: usize) -> Codebooks {
        let values = self.codebooks[..n_levels * CODEWORDS * DIM].to_vec();
        Codebooks::new(values, n_levels, CODEWORDS, DIM, Assignment::Euclidean).expect("codebooks")
    }

    /// Returns the codes of the first `n_levels` levels, u8 [N, n_levels].
    pub(crate) fn codes(&self, n_levels: usize) -> Vec<u8> {
        self.codes.chunks_exact(LEVELS).flat_map(|code| &code[..n_levels]).copied().collect()
    }

    /// Yields the queries, each f32 [DIM].
    pub(crate) fn queries(&self) -> impl Iterator<Item = &[f32]> {
        self.queries.chunks_exact(DIM)
    }

    fn make(shape: Shape, n_items: usize) -> Self {
        let within = match shape {
            Shape::Uniform => return Self::make_uniform(n_items),
            Shape::Clustered => 1.0,
            Shape::Collapsed => 0.08,
        };
        let mixture = Mixture::new(&mut Random::new(0));
        let training = mixture.draws(&mut Random::new(1), TRAINING, 1.0);
        let config = ResidualKMeans { n_levels: LEVELS, n_codewords: CODEWORDS, n_iterations: 10 };
        let codebooks = config.train(&training, RANK).expect("enough draws");
        let codes = in_chunks(n_items, |random, n| {
            codebooks.encode(&mixture.draws(random, n, within)).expect("draws are finite")
        });
        let queries = mixture.draws(&mut Random::new(2), QUERIES, within);
        Self { codebooks: embedded(codebooks.values()), codes, queries: embedded(&queries) }
    }

    fn make_uniform(n_items: usize) -> Self {
        let normals = |seed, n| -> Vec<f32> {
            let mut random = Random::new(seed);
            (0..n).map(|_| random.normal()).collect()
        };
        Self {
            codebooks: normals(0, LEVELS * CODEWORDS * DIM),
            codes: in_chunks(n_items, |random, n| (0..n).flat_map(|_| random.next().to_le_bytes()).collect()),
            queries: normals(2, QUERIES * DIM),
        }
    }
}

/// Returns the folder that stores the data of all benchmarks.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data")
}

/// Codebooks f32 [LEVELS, CODEWORDS, DIM], codes u8 [N, LEVELS] and queries f32 [QUERIES, DIM],
/// little-endian.
pub(crate) fn files(shape: Shape, n_items: usize) -> [PathBuf; 3] {
    ["codebooks.f32", "codes.u8", "queries.f32"]
        .map(|name| folder().join(format!("{shape}-{n_items}-{name}")))
}

/// The classes: Gaussians of one covariance, a diagonal that decays.
struct Mixture {
    /// Standard deviation by dimension.
    spectrum: [f32; RANK],
    means: Vec<[f32; RANK]>,
}

impl Mixture {
    fn new(random: &mut Random) -> Self {
        let spectrum = std::array::from_fn(|i| 1.0 / ((i + 1) as f32).sqrt());
        let means = (0..CLASSES).map(|_| spectrum.map(|deviation| deviation * random.normal())).collect();
        Self { spectrum, means }
    }

    /// Draws features, f32 [n, RANK], whose distance from the mean of their class is `within` times
    /// the spectrum.
    fn draws(&self, random: &mut Random, n: usize, within: f32) -> Vec<f32> {
        let mut draws = Vec::with_capacity(n * RANK);
        for _ in 0..n {
            let class = (random.next() % CLASSES as u64) as usize;
            let spread =
                within * SPREAD[0] * (SPREAD[1] / SPREAD[0]).powf(class as f32 / (CLASSES - 1) as f32);
            draws.extend(
                self.means[class]
                    .iter()
                    .zip(&self.spectrum)
                    .map(|(mean, sd)| mean + spread * sd * random.normal()),
            );
        }
        draws
    }
}

/// Makes codes chunk by chunk, each with its own seed, so that fewer items are the first of more.
fn in_chunks(n_items: usize, make: impl Fn(&mut Random, usize) -> Vec<u8> + Sync) -> Vec<u8> {
    let mut codes = vec![0; n_items * LEVELS];
    codes.par_chunks_mut(CHUNK * LEVELS).enumerate().for_each(|(chunk, codes)| {
        let made = make(&mut Random::new(1000 + chunk as u64), codes.len() / LEVELS);
        codes.copy_from_slice(&made);
    });
    codes
}

/// Maps vectors of RANK values to DIM dimensions by random orthonormal directions.
fn embedded(vectors: &[f32]) -> Vec<f32> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut random = Random::new(3);
    let mut directions: Vec<Vec<f64>> = Vec::new();
    for _ in 0..RANK {
        let mut direction: Vec<f64> = (0..DIM).map(|_| random.normal().into()).collect();
        for other in &directions {
            let along = dot(&direction, other);
            direction.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
        }
        let norm = dot(&direction, &direction).sqrt();
        directions.push(direction.iter().map(|x| x / norm).collect());
    }
    let value = |vector: &[f32], i: usize| -> f64 {
        vector.iter().zip(&directions).map(|(&x, direction)| f64::from(x) * direction[i]).sum()
    };
    vectors.chunks_exact(RANK).flat_map(|vector| (0..DIM).map(|i| value(vector, i) as f32)).collect()
}

/// SplitMix64, and normal deviates from it by the Box–Muller transform.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // The streams of neighbouring seeds start far apart.
        Self(Self(seed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn normal(&mut self) -> f32 {
        let bits = self.next();
        // Both in (0, 1), each from half of the bits.
        let unit = |bits: u32| (f64::from(bits) + 0.5) / f64::from(u32::MAX);
        let radius = (-2.0 * unit(bits as u32).ln()).sqrt();
        (radius * (std::f64::consts::TAU * unit((bits >> 32) as u32)).cos()) as f32
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}
