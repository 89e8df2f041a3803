//! Integration tests of the crate, in one binary.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod golden;
mod loss;
mod ops;
mod quantize;
