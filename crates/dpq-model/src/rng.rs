//! Random numbers: one ChaCha stream per use, so that a seed decides all choices and no generator
//! is saved.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The uses of random numbers, with the numbers of their streams (docs/architecture.md).
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Weights = 16,
    Dropout = 17,
    Shuffle = 18,
    Embeddings = 19,
    Codebooks = 20,
    Revival = 21,
    Attack = 24,
}

/// Returns the generator of a stream.
pub(crate) fn rng(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream as u64);
    rng
}

/// Derives a seed from coordinates, for example an epoch and a step: a splitmix64 step per
/// coordinate.
pub(crate) fn mix(seed: u64, coordinates: &[usize]) -> u64 {
    coordinates.iter().fold(seed, |seed, &coordinate| {
        let mut z = seed.wrapping_add((coordinate as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Returns a number in [0, 1).
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Returns a number of the standard normal distribution (Box and Muller).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// Returns the numbers 0..n in random order (Fisher and Yates).
pub(crate) fn permutation(n: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (uniform(rng) * (i + 1) as f64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut rng = rng(1, Stream::Weights);
        let values: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = permutation(1000, &mut rng(7, Stream::Shuffle));
        assert!(order.iter().enumerate().filter(|(i, n)| i == *n).count() < 20);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn coordinates_and_their_order_matter() {
        let seeds = [mix(1, &[0, 1]), mix(1, &[1, 0]), mix(1, &[0]), mix(1, &[]), mix(2, &[0, 1])];
        for (i, a) in seeds.iter().enumerate() {
            assert!(seeds[..i].iter().all(|b| a != b));
        }
    }
}
