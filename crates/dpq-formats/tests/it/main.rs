//! Files as users have them: names in upper case, pipes, and indexes of faiss.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod faiss;
mod paths;
