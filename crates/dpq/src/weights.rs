//! `dpq weights`: pretrained weights for `dpq train --weights`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use dpq_formats::{extension, read_weights};
use dpq_model::Weights;
use dpq_model::config::Body;
use serde::Serialize;

use crate::output;

/// Import pretrained weights
#[derive(Subcommand)]
pub(crate) enum Command {
    Import(Import),
}

/// Convert published weights for `dpq train --weights` and `dpq features --weights`
///
/// Caffe's AlexNet, which the paper starts from, is bvlc_alexnet.npy as caffe-tensorflow converts
/// it, or a .npz file with the arrays LAYER.weights and LAYER.biases. torchvision's AlexNet, VGG-16
/// and residual networks of basic or bottleneck blocks (ResNet-18, 34, 50, 101 and others) are a
/// .safetensors file of the state dictionary. Names and shapes of the arrays decide which network
/// it is. All are checked; the classifier is dropped and may be missing.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq weights import bvlc_alexnet.npy --out alexnet.safetensors\n\nTo make a .safetensors \
        file of torchvision's:\n  python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('resnet18.pth', \
        weights_only=True), 'resnet18.safetensors')\""
)]
pub(crate) struct Import {
    /// The published weights
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File for the converted weights
    #[arg(long, value_name = "SAFETENSORS")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Imported {
    fingerprint: String,
    body: Body,
    image_shape: [usize; 3],
    /// The number of features per image.
    dim: usize,
}

/// Opens weights that `dpq weights import` wrote.
pub(crate) fn open(path: &Path) -> Result<Weights> {
    let file = path.display();
    ensure!(
        !["npy", "npz", "pt", "pth"].contains(&extension(path).as_str()),
        "{file} is not a file of dpq, convert published weights with `dpq weights import {file} --out W.safetensors`"
    );
    Ok(Weights::open(path)?)
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self::Import(args) = self;
        output::check_out(&args.out, [&args.file])?;
        let arrays = read_weights(&args.file)?;
        let weights = Weights::import(arrays).with_context(|| args.file.display().to_string())?;
        weights.save(&args.out)?;
        let imported = Imported {
            fingerprint: weights.fingerprint().to_owned(),
            body: weights.body_config().clone(),
            image_shape: weights.image_shape(),
            dim: weights.body_dim(),
        };
        let Imported { fingerprint, body, image_shape: [c, h, w], dim } = &imported;
        let out = args.out.display();
        let text = format!(
            "wrote {out} (fingerprint {fingerprint}): {body}, {dim} features per image of {c}x{h}x{w}"
        );
        output::print(json, &imported, &text)
    }
}
