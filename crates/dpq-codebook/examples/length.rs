//! How the error of codes falls with their length:
//!
//! `cargo run --release -p dpq-codebook --example length`

use dpq_codebook::{Beam, CodeLength, FitOptions, ResidualKMeans};

fn main() -> Result<(), dpq_codebook::Error> {
    // 2,000 vectors of 16 numbers, whose coordinates depend on each other.
    let dim = 16;
    let number = |row: usize, column: usize| ((row * 37 + row * row * column) % 251) as f32 / 251.0;
    let vectors: Vec<f32> = (0..2000 * dim).map(|i| number(i / dim, i % dim)).collect();

    let config = ResidualKMeans { n_levels: 8, n_codewords: 64, n_iterations: 10 };
    let greedy = config.train(&vectors, dim)?;
    let refined = {
        let options =
            || FitOptions { beam: Some(Beam { width: 5, weights: &[1.0; 8] }), ..FitOptions::default() };
        config.train_with(&vectors, dim, options())?.refine(&vectors, 5, options())?
    };
    let codes =
        [greedy.encode(&vectors)?, refined.encode_beam(&vectors, Beam { width: 5, weights: &[1.0; 8] })?];
    let errors =
        [greedy.relative_distortion(&vectors, &codes[0])?, refined.relative_distortion(&vectors, &codes[1])?];
    println!("bits   greedy   beam 5, refined");
    for (length, (a, b)) in greedy.lengths().zip(errors[0].iter().zip(&errors[1])) {
        println!("{:>4}   {a:.4}   {b:.4}", length.bits());
    }

    // A prefix of a code is the code of its length.
    let prefix = greedy.decode(&codes[0], CodeLength::from_bits(16)?)?;
    let second = dim..dim + 3;
    println!(
        "the second vector at 16 bits: {:.2?} …, itself: {:.2?} …",
        &prefix[second.clone()],
        &vectors[second]
    );
    Ok(())
}
