//! `dpq codebook`: codebooks without a network.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Subcommand;
use dpq_codebook::{Beam, FitOptions, Form, ResidualKMeans};
use dpq_formats::{read_features, read_sample};
use serde::Serialize;

use crate::output;

/// Make codebooks from features, without a network
#[derive(Subcommand)]
pub(crate) enum Command {
    Train(TrainArgs),
}

/// Fit codebooks to features by residual k-means, or by k-means on parts
///
/// Level 0 is k-means on the features. Every further level is k-means on the residuals of the
/// levels before it: with `--beam` on the residuals of all codes that a beam search keeps.
/// `--refine` then fits all levels together. `--length-weights` says how much the error of each
/// length counts.
///
/// With `--product` each level is k-means on an equal part of the dimensions: a product quantizer.
/// Its codes have one length, L bytes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq codebook train --features x.npy --levels 4 --out cb.safetensors\n  dpq codebook train \
        --features x.npy --beam 5 --refine 10 --out cb.safetensors\n  dpq codebook train --features x.npy --product \
        --levels 16 --out pq.safetensors"
)]
pub(crate) struct TrainArgs {
    /// Features to fit, [N, D]: .npy (float32), .safetensors, .fvecs or .bvecs
    #[arg(long, value_name = "FILE")]
    features: PathBuf,
    /// Fit N of the features, evenly spaced, and read no others [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Levels: bytes of the longest code
    #[arg(long, default_value_t = 4, value_name = "L", value_parser = clap::value_parser!(u8).range(1..))]
    levels: u8,
    /// Codewords per level, at most 256
    #[arg(long, default_value_t = 256, value_name = "K")]
    codewords: usize,
    /// Rounds of Lloyd's algorithm per level
    #[arg(long, default_value_t = 25, value_name = "N")]
    iterations: usize,
    /// Grow the codewords of a level on at most N of the features, evenly spaced, and then fit them
    /// to all in half of the rounds, which move codewords further: a fifth of the time at equal
    /// error. 0 grows them on all
    #[arg(long, default_value_t = FitOptions::INIT_SIZE, value_name = "N")]
    init_size: usize,
    /// Maximum number of rounds of refinement; it ends early when the error stops falling
    #[arg(long, default_value_t = 0, value_name = "N")]
    refine: usize,
    /// Fit for a beam search that keeps B codes per level; encode with the same B. 1 is greedy
    #[arg(long, default_value_t = 1, value_name = "B")]
    beam: usize,
    /// Weights of the error of each length in beam search and refinement, L numbers. 0,0,0,1 is for
    /// the longest code alone, at the expense of its prefixes. Encode with the same weights
    /// [default: 1 each]
    #[arg(long, value_delimiter = ',', value_name = "W")]
    length_weights: Vec<f32>,
    /// Fit product codebooks: L equal parts of the dimensions, one per level
    #[arg(long, conflicts_with_all = ["beam", "refine", "length_weights"])]
    product: bool,
    /// File for the codebooks
    #[arg(long, value_name = "SAFETENSORS")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Trained {
    items: usize,
    /// The features that codewords grew on.
    init_size: usize,
    dim: usize,
    levels: usize,
    codewords: usize,
    form: Form,
    /// At each length that codes have.
    relative_distortion: Vec<f64>,
    seconds: f64,
    fingerprint: String,
    peak_memory_bytes: Option<u64>,
}

/// Returns the weights given, or 1 per length.
pub(crate) fn length_weights(given: Vec<f32>, n_levels: usize) -> Vec<f32> {
    if given.is_empty() { vec![1.0; n_levels] } else { given }
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self::Train(args) = self;
        args.run(json)
    }
}

impl TrainArgs {
    fn run(self, json: bool) -> Result<()> {
        output::check_out(&self.out, [&self.features])?;
        ensure!(
            self.length_weights.is_empty() || self.beam > 1 || self.refine > 0,
            "--length-weights have no effect without --beam or --refine: give --beam or --refine, or no weights"
        );
        let features = match self.sample {
            Some(n) => read_sample(&self.features, usize::try_from(n)?)?,
            None => read_features(&self.features)?,
        };
        let start = Instant::now();
        let levels = usize::from(self.levels);
        let bar = output::progress(levels.saturating_add(self.refine), "levels and rounds");
        let config =
            ResidualKMeans { n_levels: levels, n_codewords: self.codewords, n_iterations: self.iterations };
        let weights = length_weights(self.length_weights, levels);
        let beam = Beam { width: self.beam, weights: &weights };
        let (values, dim) = (&features.values, features.columns);
        let mut progress = |_: usize, _: f64| bar.inc(1);
        let init_size = if self.init_size == 0 { usize::MAX } else { self.init_size };
        let options = FitOptions {
            beam: Some(beam),
            init_size: Some(init_size),
            progress: Some(&mut progress),
            ..FitOptions::default()
        };
        let mut codebooks = match self.product {
            true => config.train_product(values, dim, options)?,
            false => config.train_with(values, dim, options)?,
        };
        if self.refine > 0 {
            let options =
                FitOptions { beam: Some(beam), progress: Some(&mut progress), ..FitOptions::default() };
            codebooks = codebooks.refine(values, self.refine, options)?;
        }
        let codes = codebooks.encode_beam(values, beam)?;
        let relative_distortion = codebooks.relative_distortion(values, &codes)?;
        bar.finish_and_clear();
        codebooks.save(&self.out)?;

        let trained = Trained {
            items: features.rows,
            init_size: features.rows.min(init_size),
            dim: features.columns,
            levels,
            codewords: self.codewords,
            form: codebooks.form(),
            relative_distortion,
            seconds: output::seconds(start),
            fingerprint: codebooks.fingerprint(),
            peak_memory_bytes: output::peak_memory_bytes(),
        };
        let mut text = format!("wrote {} (fingerprint {})\n", self.out.display(), trained.fingerprint);
        if trained.init_size < trained.items {
            let (grown, all) = (trained.init_size, trained.items);
            writeln!(text, "codewords grown on {grown} of {all} features (--init-size), fitted to all")?;
        }
        for (length, distortion) in codebooks.lengths().zip(&trained.relative_distortion) {
            writeln!(text, "{:>3} bits: distortion {distortion:.4} of mean x²", length.bits())?;
        }
        if beam.width > 1 {
            writeln!(text, "encode with the same beam and weights: the codebooks are fitted to its codes")?;
        }
        output::print(json, &trained, &text)
    }
}
