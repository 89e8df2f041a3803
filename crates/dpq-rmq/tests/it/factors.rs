//! Models of two and three variables, against closed forms and the characteristic function.

use dpq_rmq::{Chain, Coefficients, Heston, Model, Settings, Update};

use crate::{Brownian, RATE, assert_close, call, naive};

/// Geometric Brownian motions whose Brownian motions correlate.
struct Basket<const D: usize> {
    volatilities: [f64; D],
    correlation: [[f64; D]; D],
}

impl<const D: usize> Model<D> for Basket<D> {
    fn coefficients(&self, state: &[f64; D]) -> [Coefficients; D] {
        std::array::from_fn(|f| Coefficients {
            drift: [RATE * state[f], RATE, 0.0],
            diffusion: [self.volatilities[f] * state[f], self.volatilities[f], 0.0],
        })
    }

    fn correlation(&self) -> [[f64; D]; D] {
        self.correlation
    }
}

#[test]
fn an_option_to_exchange_equals_margrabes_formula() {
    let model = Basket { volatilities: [0.3, 0.4], correlation: [[1.0, 0.5], [0.5, 1.0]] };
    // 100 (2 Φ(σ/2) − 1) with σ² = 0.3² + 0.4² − 2 · 0.5 · 0.3 · 0.4.
    let error = |steps, points| {
        let settings = Settings { updates: [Update::Milstein; 2], ..Settings::new(1.0, steps, [points; 2]) };
        let chain = Chain::new(&model, [100.0, 100.0], &settings).unwrap();
        let growth = (1.0 + RATE / steps as f64).powi(steps as i32);
        (0..2)
            .for_each(|f| assert_close(chain.slices()[steps].mean(|state| state[f]), 100.0 * growth, 1e-10));
        (chain.european(RATE, |state| (state[0] - state[1]).max(0.0)) - 14.307).abs()
    };
    let (coarse, fine) = (error(2, 16), error(5, 20));
    assert!(fine < 0.15 && fine < 0.6 * coarse, "{coarse}, {fine}");
}

#[test]
fn three_variables_keep_their_means_and_covariances() {
    let correlation = [[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]];
    let volatilities = [0.3, 0.4, 0.2];
    let model = Basket { volatilities, correlation };
    let chain = Chain::new(&model, [1.0; 3], &Settings::new(0.5, 2, [7; 3])).unwrap();
    let growth = 1.0 + 0.25 * RATE;
    for slice in chain.slices() {
        assert_close(slice.probabilities().iter().sum(), 1.0, 1e-12);
    }
    for f in 0..3 {
        let last = &chain.slices()[2];
        assert_close(last.mean(|state| state[f]), growth.powi(2), 1e-10);
        for g in 0..f {
            let product = growth * growth + 0.25 * correlation[f][g] * volatilities[f] * volatilities[g];
            let covariance = product.powi(2) - growth.powi(4);
            let found = last.mean(|state| state[f] * state[g]) - growth.powi(4);
            // A grid of seven points loses one part in twenty of a variance.
            assert!((0.85..1.0).contains(&(found / covariance)), "{found} {covariance}");
        }
    }
}

/// Calls at strikes 80, 85, …, 120, by the characteristic function.
const HESTON: [(Heston, f64, [f64; 9]); 2] = [
    (
        Heston { rate: RATE, reversion: 2.3924, mean: 0.0929, volatility: 0.6903, correlation: -0.82 },
        0.0719,
        [26.390253, 22.606302, 19.050205, 15.752345, 12.742658, 10.048892, 7.694231, 5.694283, 4.053648],
    ),
    (
        Heston { rate: RATE, reversion: 0.1269, mean: 0.1922, volatility: 0.4058, correlation: -0.925 },
        0.0319,
        [24.919781, 20.751032, 16.754682, 12.968245, 9.440628, 6.243579, 3.501707, 1.456485, 0.404693],
    ),
];

#[test]
fn hestons_calls_approach_the_characteristic_function() {
    for (model, variance, expected) in HESTON {
        for update in [Update::Milstein, Update::WeakOrder2] {
            let worst = |steps, points| {
                let updates = [Update::Euler, update];
                let settings = Settings { updates, ..Settings::new(1.0, steps, points) };
                let chain = Chain::new(&model, [100.0, variance], &settings).unwrap();
                let error = |(k, price): (i32, f64)| {
                    (chain.european(RATE, call(80.0 + 5.0 * f64::from(k))) - price).abs()
                };
                (0..).zip(expected).map(error).fold(0.0, f64::max)
            };
            let (coarse, fine) = (worst(4, [12, 5]), worst(10, [24, 10]));
            assert!(fine < 0.4 && fine < 0.75 * coarse, "{update:?}: {coarse}, {fine}");
        }
    }
}

/// The grid of a standard normal variable and its weights.
fn normal(points: usize) -> (Vec<f64>, Vec<f64>) {
    let chain = Chain::new(&Brownian, [0.0], &Settings::new(1.0, 1, [points])).unwrap();
    let last = &chain.slices()[1];
    (last.grids()[0].clone(), last.probabilities().to_vec())
}

#[test]
fn the_cubature_of_public_programs_comes_close() {
    let (price, variance, cubature) = (normal(20).0, normal(10).0, normal(10));
    for (model, at, _) in HESTON {
        let normals = [&price[..], &variance[..]];
        let cubature = (&cubature.0[..], &cubature.1[..]);
        let (prices, weights) = naive::heston(&model, [100.0, at], 1.0, 5, normals, cubature).unwrap();
        let payoffs = prices.iter().zip(weights).map(|(price, weight)| weight * (price - 100.0).max(0.0));
        let chain = Chain::new(&model, [100.0, at], &Settings::new(1.0, 5, [20, 10])).unwrap();
        assert_close(chain.european(0.0, call(100.0)), payoffs.sum(), 0.2);
    }
}
