//! The standard normal distribution.

use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::LazyLock;

/// Beyond this many standard deviations, density and tail are taken for 0; both are below 1e-300.
const FAR: f64 = 37.0;

/// Beyond this many standard deviations, a mass is nothing to 1: it is 1e-17.
const REACH: f64 = 8.5;

/// 1 / √(2π).
const PEAK: f64 = 0.398_942_280_401_432_7;

/// Returns φ(z).
pub(crate) fn density(z: f64) -> f64 {
    if z.abs() < FAR { PEAK * (-0.5 * z * z).exp() } else { 0.0 }
}

/// Returns Φ(z) to about 1e-16, not relative to Φ(z), in a fifth of the time of [`tail`].
pub(crate) fn cdf(z: f64) -> f64 {
    /// Taylor's coefficients at multiples of 1 / `SCALE` up to `REACH`, the lowest order first.
    static SERIES: LazyLock<Vec<[f64; 7]>> = LazyLock::new(|| {
        let series = |i: usize| {
            let z = i as f64 / SCALE;
            // Derivatives of φ are φ times Hermite's polynomials.
            let mut hermite = [1.0, -z, 0.0, 0.0, 0.0, 0.0];
            (2..6).for_each(|n| hermite[n] = -z * hermite[n - 1] - (n - 1) as f64 * hermite[n - 2]);
            let mut series = [1.0 + tail(z).min(0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            if i == 0 {
                series[0] = 0.5;
            }
            let mut factorial = 1.0;
            for n in 1..7 {
                factorial *= n as f64;
                series[n] = density(z) * hermite[n - 1] / factorial;
            }
            series
        };
        (0..=(REACH * SCALE) as usize).map(series).collect()
    });
    const SCALE: f64 = 32.0;
    if z.abs() >= REACH {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let i = (z.abs() * SCALE).round();
    let d = z.abs() - i / SCALE;
    let upper = SERIES[i as usize].iter().rev().fold(0.0, |sum, c| sum * d + c);
    if z > 0.0 { upper } else { 1.0 - upper }
}

/// Returns Φ(z) up to 0 and Φ(z) − 1 above. Differences of tails keep their relative precision.
fn tail(z: f64) -> f64 {
    if z.abs() > FAR {
        return 0.0;
    }
    let half = 0.5 * libm::erfc(z.abs() * FRAC_1_SQRT_2);
    if z > 0.0 { -half } else { half }
}

/// A limit of integration.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limit {
    is_positive: bool,
    tail: f64,
    pub(crate) density: f64,
    z_density: f64,
}

impl Limit {
    pub(crate) fn new(z: f64) -> Self {
        let density = density(z);
        let z_density = if density > 0.0 { z * density } else { 0.0 };
        Self { is_positive: z > 0.0, tail: tail(z), density, z_density }
    }

    /// Returns the integrals of φ(z), z φ(z) and z² φ(z) from this limit to another one.
    pub(crate) fn moments(&self, to: &Self) -> [f64; 3] {
        let crossed = f64::from(i8::from(to.is_positive) - i8::from(self.is_positive));
        let mass = to.tail - self.tail + crossed;
        [mass, self.density - to.density, mass + self.z_density - to.z_density]
    }
}

/// Nodes and weights of Gauss and Legendre on [−1, 1], the positive half of eight.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
    (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
];

/// Calls `visit(z, weight)` for nodes that integrate over φ(z) from a to b, eight per `width`. The
/// weights sum to `mass`, which is Φ(b) − Φ(a).
pub(crate) fn nodes(a: f64, b: f64, mass: f64, width: f64, mut visit: impl FnMut(f64, f64)) {
    let (a, b) = (a.clamp(-REACH, REACH), b.clamp(-REACH, REACH));
    let pieces = ((b - a) / width).ceil().max(1.0);
    let half = 0.5 * (b - a) / pieces;
    let nodes = (0..pieces as usize).flat_map(|piece| {
        let middle = a + half * (2 * piece + 1) as f64;
        let pair = move |(node, weight)| [-1.0, 1.0].map(|sign| (middle + sign * half * node, weight));
        GAUSS.into_iter().flat_map(pair).map(|(z, weight)| (z, weight * density(z)))
    });
    let total: f64 = nodes.clone().map(|(_, weight)| weight).sum();
    nodes.for_each(|(z, weight)| visit(z, mass * weight / total));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_precision_in_both_tails() {
        for (a, b) in [(-9.0, -8.0), (8.0, 9.0)] {
            let [mass, ..] = Limit::new(a).moments(&Limit::new(b));
            // Φ(−8) − Φ(−9) from tables.
            assert!((mass / 6.219_831_985_1e-16 - 1.0).abs() < 1e-9, "{mass}");
        }
        let [mass, first, second] = Limit::new(f64::NEG_INFINITY).moments(&Limit::new(f64::INFINITY));
        assert_eq!([mass, first, second], [1.0, 0.0, 1.0]);
    }

    #[test]
    fn the_table_is_exact() {
        for i in -90_000..=90_000 {
            let z = f64::from(i) * 1e-4;
            let expected = if z > 0.0 { 1.0 + tail(z) } else { tail(z) };
            assert!((cdf(z) - expected).abs() < 1e-15, "{z}: {} is not {expected}", cdf(z));
        }
        assert_eq!([cdf(f64::NEG_INFINITY), cdf(f64::INFINITY)], [0.0, 1.0]);
    }

    #[test]
    fn nodes_integrate_a_polynomial() {
        let mut found = [0.0; 5];
        nodes(-0.3, f64::INFINITY, cdf(0.3), 1.0, |z, weight| {
            found.iter_mut().enumerate().for_each(|(power, sum)| *sum += weight * z.powi(power as i32));
        });
        let [mass, first, second] = Limit::new(-0.3).moments(&Limit::new(f64::INFINITY));
        let third = 2.0 * first + 0.09 * density(0.3);
        let fourth = 3.0 * second - 0.027 * density(0.3);
        for (found, expected) in found.into_iter().zip([mass, first, second, third, fourth]) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }
}
