//! Tests of the public API.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod damage;
mod errors;
mod readers;
mod segments;

#[path = "../common/mod.rs"]
mod common;
