//! `dpq weights`: pretrained weights for `dpq train --weights`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use dpq_formats::read_weights;
use dpq_model::Weights;
use dpq_model::config::Body;
use serde::Serialize;

use crate::output;
use crate::train::read_config;

/// Import pretrained weights
#[derive(Subcommand)]
pub(crate) enum Command {
    Import(Import),
}

/// Convert published weights for `dpq train --weights` and `dpq features --weights`
///
/// `alexnet` is Caffe's AlexNet, which the paper starts from: bvlc_alexnet.npy as caffe-tensorflow
/// converts it, or a .npz file with the arrays LAYER.weights and LAYER.biases.
/// `alexnet-torchvision`, `vgg16` and `resnet50` are torchvision's: a .safetensors file of the
/// state dictionary. All names and shapes are checked; the classifier is dropped.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq weights import bvlc_alexnet.npy --body alexnet --out alexnet.safetensors\n\nTo make a .safetensors \
        file of torchvision's:\n  python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('vgg16.pth', \
        weights_only=True), 'vgg16.safetensors')\""
)]
pub(crate) struct Import {
    /// The published weights
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Their network body
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Body::NAMES), required_unless_present = "config")]
    body: Option<String>,
    /// A configuration with their `network.body`, for other sizes than the published ones
    #[arg(long, value_name = "TOML", conflicts_with = "body")]
    config: Option<PathBuf>,
    /// File for the converted weights
    #[arg(long, value_name = "SAFETENSORS")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Imported {
    fingerprint: String,
    image_shape: [usize; 3],
    /// The number of features per image.
    dim: usize,
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self::Import(args) = self;
        output::check_out(&args.out, [&args.file].into_iter().chain(&args.config))?;
        let body = match &args.config {
            Some(path) => read_config(path)?.network.body,
            None => {
                args.body.as_deref().and_then(Body::named).context("clap requires --body without --config")?
            }
        };
        let arrays = read_weights(&args.file)?;
        let weights = Weights::import(&body, arrays).with_context(|| args.file.display().to_string())?;
        weights.save(&args.out)?;
        let imported = Imported {
            fingerprint: weights.fingerprint().to_owned(),
            image_shape: weights.image_shape(),
            dim: weights.body_dim(),
        };
        let Imported { fingerprint, image_shape: [c, h, w], dim } = &imported;
        let out = args.out.display();
        let text =
            format!("wrote {out} (fingerprint {fingerprint}): {dim} features per image of {c}x{h}x{w}");
        output::print(json, &imported, &text)
    }
}
