//! Tests of the public API.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod damage;
mod errors;
mod readers;
mod segments;

#[path = "../common/mod.rs"]
mod common;

use std::path::PathBuf;

use dpq_live::{Codebooks, LiveIndex, Metric};
use tempfile::TempDir;

/// Makes a live index in a folder that goes when the first result is dropped. Its tail has at most
/// `max_tail` items.
fn create(codebooks: &Codebooks, metric: Metric, max_tail: usize) -> (TempDir, PathBuf, LiveIndex) {
    let dir = common::tempdir();
    let folder = dir.path().join("live");
    let mut live = LiveIndex::create(&folder, codebooks, metric).unwrap();
    live.set_max_tail(max_tail).unwrap();
    (dir, folder, live)
}
