//! The dpq command: train, encode, index, search and evaluate
fn main() {}
