//! Searches 200,000 codes at every length, and within a filter:
//!
//! `cargo run --release -p dpq-index --example search`

use std::time::Instant;

use dpq_codebook::{Assignment, Codebooks};
use dpq_index::{Index, SearchOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Four levels of 256 codewords of 32 numbers, each level a quarter of the one before.
    let (levels, codewords, dim) = (4, 256, 32);
    let number = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0;
    let level =
        |level: usize| (0..codewords * dim).map(move |i| number(i + level * 7919) / 4f32.powi(level as i32));
    let values = (0..levels).flat_map(level).collect();
    let codebooks = Codebooks::new(values, levels, codewords, dim, Assignment::Euclidean)?;

    let codes: Vec<u8> = (0..200_000 * levels).map(|i| (i * i * 31 + i / 5) as u8).collect();
    let index = Index::builder(&codebooks, &codes).build()?;
    let query: Vec<f32> = (0..dim).map(|i| number(i * 97)).collect();

    let table = index.lookup_table(&query)?;
    for length in codebooks.lengths() {
        let start = Instant::now();
        let hits = index.search_with(&table, &SearchOptions::new(3).length(length))?;
        let ids: Vec<u64> = hits.iter().map(|hit| hit.id).collect();
        println!("{:>2} bits: {ids:?} in {:.0?}", length.bits(), start.elapsed());
    }
    let even = index.filter(|id| id % 2 == 0);
    let hits = index.search_with(&table, &SearchOptions::new(3).filter(&even))?;
    println!("even ids: {:?}", hits.iter().map(|hit| hit.id).collect::<Vec<_>>());
    Ok(())
}
