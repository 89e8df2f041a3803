//! Integration tests of the crate, in one binary.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[cfg(feature = "cuda")]
mod cuda;
mod diverged;
mod features;
mod frozen;
mod options;
mod pairs;
mod phpq;
mod product;
mod train;
mod views;
mod weights;
