//! An index of a small gallery, and what evaluates it.

use std::path::Path;

use crate::common::{images, json};

/// Exports, fits, encodes and builds: the files that searching needs.
pub(crate) fn gallery(dir: &Path) {
    images(dir);
    for split in ["train", "query", "gallery"] {
        json(dir, &format!("data export --data set --split {split} --out-dir {split}"));
    }
    json(dir, "codebook train --features train/features.npy --levels 3 --codewords 8 --out cb.safetensors");
    json(dir, "encode --codebook cb.safetensors --features gallery/features.npy --out-dir gallery");
    json(
        dir,
        "index build --codes gallery/codes.npy --codebook cb.safetensors --ids gallery/ids.npy --out g.dpq",
    );
}

/// An evaluation of it.
pub(crate) const EVAL: &str = "eval --index g.dpq --queries query/features.npy --query-labels query/labels.npy \
    --gallery-labels gallery/labels.npy --gallery-ids gallery/ids.npy --bits 8,24 --at 5";
