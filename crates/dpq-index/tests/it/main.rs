//! Tests of the index through its public interface.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod approximate;
mod damage;
mod errors;
mod filter;
mod gallery;
mod golden;
mod naive;
mod norms;
mod parts;
mod product;
mod rerank;
mod search;
mod shortlist;
