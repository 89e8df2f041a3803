//! Grids and prices that another program computed.

use dpq_rmq::{Chain, Coefficients, Heston, Model, Settings, Solver, Update};

use crate::{Brownian, GBM, RATE, assert_close, call, gbm, naive};

/// Calls on geometric Brownian motion by Euler's scheme at strikes 80, 90, 100, 110 and 120: steps,
/// points, prices.
const CALLS: [(usize, usize, [f64; 5]); 8] = [
    (1, 10, [26.519067, 19.434246, 13.420565, 8.618326, 5.324411]),
    (10, 10, [25.606518, 18.812776, 13.319747, 9.073845, 6.034415]),
    (10, 20, [25.839122, 19.105763, 13.603917, 9.479622, 6.365460]),
    (10, 30, [25.898503, 19.166138, 13.711249, 9.519135, 6.454153]),
    (10, 40, [25.934661, 19.187947, 13.743060, 9.560084, 6.481212]),
    (10, 80, [25.954174, 19.209045, 13.764754, 9.581753, 6.499308]),
    (40, 30, [25.707878, 18.937043, 13.550831, 9.403113, 6.369363]),
    (40, 80, [25.863654, 19.132063, 13.722074, 9.582768, 6.542987]),
];

/// The same by Black and Scholes.
const BLACK_SCHOLES: [f64; 5] = [25.872052, 19.149138, 13.753265, 9.625358, 6.592325];

fn prices(chain: &Chain<1>) -> [f64; 5] {
    [80.0, 90.0, 100.0, 110.0, 120.0].map(|strike| chain.european(RATE, call(strike)))
}

#[test]
fn calls_equal_the_table() {
    for (steps, points, expected) in CALLS {
        for (found, expected) in prices(&gbm(steps, points)).into_iter().zip(expected) {
            assert_close(found, expected, 1e-6);
        }
    }
    // The other program's grid had not converged to the last digit.
    let chain = gbm(10, 10);
    let grid = &chain.slices()[10].grids()[0];
    assert_close(grid[0], 61.263293, 1e-5);
    assert_close(grid[9], 202.205631, 1e-5);
}

#[test]
fn solvers_find_the_same_grid() {
    let [newton, anderson, lloyd] = [Solver::Newton, Solver::Anderson, Solver::Lloyd].map(|solver| {
        let settings = Settings { solver, tolerance: 1e-10, ..Settings::new(1.0, 4, [10]) };
        Chain::new(&GBM, [100.0], &settings).unwrap()
    });
    for (k, slice) in newton.slices().iter().enumerate() {
        for other in [&anderson, &lloyd] {
            for (a, b) in slice.grids()[0].iter().zip(&other.slices()[k].grids()[0]) {
                assert_close(*a, *b, 1e-6);
            }
        }
    }
    let sweeps = |chain: &Chain<1>| chain.searches().iter().map(|search| search[0].sweeps).sum::<usize>();
    assert!(sweeps(&newton) < sweeps(&anderson) && 4 * sweeps(&anderson) < sweeps(&lloyd));
}

#[test]
fn schemes_of_higher_order_are_closer_to_black_and_scholes() {
    let error = |update| {
        let settings = Settings { updates: [update], ..Settings::new(1.0, 5, [100]) };
        let prices = prices(&Chain::new(&GBM, [100.0], &settings).unwrap());
        prices.iter().zip(BLACK_SCHOLES).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let [euler, milstein, weak] = [Update::Euler, Update::Milstein, Update::WeakOrder2].map(error);
    assert!(weak < 0.02 && 3.0 * weak < milstein && milstein < euler, "{euler} {milstein} {weak}");
}

#[test]
fn the_grid_of_a_normal_variable_is_the_known_one() {
    let chain = Chain::new(&Brownian, [0.0], &Settings::new(1.0, 1, [10])).unwrap();
    let upper = [0.199623, 0.609857, 1.057825, 1.591340, 2.345096];
    let grid = &chain.slices()[1].grids()[0];
    for (j, expected) in upper.into_iter().enumerate() {
        assert_close(grid[5 + j], expected, 1e-6);
        assert_close(grid[4 - j], -expected, 1e-6);
    }
    assert_close(*chain.searches()[0][0].distortions.last().unwrap(), 0.02293705, 1e-8);
}

#[test]
fn the_error_falls_with_the_square_of_the_points() {
    let distortion = |points| *gbm(1, points).searches()[0][0].distortions.last().unwrap();
    for points in [20, 40, 80] {
        let ratio = distortion(points) / distortion(2 * points);
        assert!((3.6..4.0).contains(&ratio), "{ratio}");
    }
}

/// The variance of Heston's model.
struct Cir(Heston);

impl Model<1> for Cir {
    fn coefficients(&self, &[v]: &[f64; 1]) -> [Coefficients; 1] {
        [self.0.coefficients(&[0.0, v])[1]]
    }
}

/// The guarded search converges where a plain one dies: at once where it starts from mean and
/// deviation, and from any grid where a part of the law has no diffusion, as a negative variance.
#[test]
fn newtons_method_without_a_guard_dies() {
    let normal = Chain::new(&Brownian, [0.0], &Settings::new(1.0, 1, [30])).unwrap();
    let normal = &normal.slices()[1].grids()[0];
    let heston =
        Heston { rate: 0.04, reversion: 0.1269, mean: 0.1922, volatility: 0.4058, correlation: -0.925 };
    let died = [
        naive::newton(&GBM, 100.0, 1.0, 10, normal, false),
        naive::newton(&Cir(heston), 0.0319, 1.0, 10, normal, false),
        naive::newton(&Cir(heston), 0.0319, 1.0, 10, normal, true),
    ]
    .map(Result::unwrap_err);
    assert_eq!(died[0], "step 1, iteration 0: the points cross");
    assert_eq!(died[1..], ["step 1, iteration 0: the points are not finite"; 2]);

    let (points, weights) = naive::newton(&GBM, 100.0, 1.0, 10, normal, true).unwrap();
    let guarded = gbm(10, 30);
    for (found, expected) in guarded.slices()[10].grids()[0].iter().zip(points) {
        assert_close(*found, expected, 1e-4);
    }
    for (found, expected) in guarded.slices()[10].probabilities().iter().zip(weights) {
        assert_close(*found, expected, 1e-6);
    }
    let cir = Chain::new(&Cir(heston), [0.0319], &Settings::new(1.0, 10, [30])).unwrap();
    assert!(guarded.searches().iter().chain(cir.searches()).all(|search| search[0].residual <= 1e-9));
}
