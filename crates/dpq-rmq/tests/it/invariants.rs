//! Properties of every chain.

use dpq_rmq::{Cev, Chain, Gbm, Heston, Model, Sabr, Settings, Solver, SteinStein, ThreeHalves, Update};
use proptest::prelude::*;

use crate::assert_close;

/// Checks a chain of a model. Rounding of a distortion is relative to the variance.
#[track_caller]
fn check<const D: usize>(model: &impl Model<D>, start: [f64; D], settings: &Settings<D>) -> Chain<D> {
    let chain = Chain::new(model, start, settings).unwrap();
    for slice in chain.slices() {
        assert_close(slice.probabilities().iter().sum(), 1.0, 1e-12);
        assert!(slice.probabilities().iter().all(|p| (0.0..=1.0 + 1e-12).contains(p)));
        assert!(slice.grids().iter().all(|grid| grid.is_sorted_by(|a, b| a < b)));
        assert_eq!(slice.states().count(), slice.grids().iter().map(Vec::len).product::<usize>());
    }
    for (transition, ends) in chain.transitions().iter().zip(chain.slices().windows(2)) {
        assert_eq!(transition.len(), ends[0].len() * ends[1].len());
        for row in transition.chunks(ends[1].len()) {
            assert_close(row.iter().sum(), 1.0, 1e-12);
            assert!(row.iter().all(|p| *p >= 0.0));
        }
    }
    for (search, slice) in chain.searches().iter().zip(&chain.slices()[1..]) {
        for (f, search) in search.iter().enumerate() {
            let mean = slice.mean(|state| state[f]);
            let variance = slice.mean(|state| (state[f] - mean).powi(2)) + search.distortions[0];
            for pair in search.distortions.windows(2) {
                assert!(pair[1] <= pair[0] + 1e-13 * variance, "{pair:?}");
            }
        }
    }
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn one_variable(
        rate in -0.2..0.2,
        volatility in 0.01..0.8,
        elasticity in 0.3..1.2_f64,
        steps in 1..6_usize,
        points in 1..25_usize,
        (update, solver) in (
            prop::sample::select(&[Update::Euler, Update::Milstein, Update::WeakOrder2][..]),
            prop::sample::select(&[Solver::Lloyd, Solver::Anderson, Solver::Newton][..]),
        ),
    ) {
        let settings = Settings { updates: [update], solver, max_sweeps: 100, ..Settings::new(1.0, steps, [points]) };
        let chain = check(&Gbm { rate, volatility }, [100.0], &settings);
        check(&Cev { rate, volatility, elasticity }, [1.0], &settings);
        if update != Update::WeakOrder2 {
            let expected = 100.0 * (1.0 + rate / steps as f64).powi(steps as i32);
            prop_assert!((chain.slices()[steps].mean(|s| s[0]) - expected).abs() < 1e-10);
        }
    }
}

/// Each model of two variables and its start, with the settings of public programs. Their papers
/// give the meaning of each number for Heston's model; for the others the order is assumed.
#[test]
fn two_variables() {
    let settings =
        |steps, update| Settings { updates: [Update::Euler, update], ..Settings::new(1.0, steps, [12, 6]) };
    for update in [Update::Euler, Update::Milstein, Update::WeakOrder2] {
        let heston =
            Heston { rate: 0.04, reversion: 0.1269, mean: 0.1922, volatility: 0.4058, correlation: -0.925 };
        // The last two are hardly a variance.
        for variance in [0.0319, 1e-6, 0.0] {
            let chain = check(&heston, [100.0, variance], &settings(5, update));
            assert_close(chain.slices()[5].mean(|state| state[0]), 100.0 * 1.008_f64.powi(5), 1e-10);
        }
        let sabr = Sabr { elasticity: 0.8, volatility: 1.25, correlation: -0.85 };
        let chain = check(&sabr, [100.0, 0.06], &settings(5, update));
        assert_close(chain.slices()[5].mean(|state| state[0]), 100.0, 1e-10);
        let stein = SteinStein { rate: 0.04, reversion: 2.0, mean: 0.2, volatility: 0.4, correlation: -0.7 };
        check(&stein, [100.0, 0.15], &settings(5, update));
        let three_halves =
            ThreeHalves { rate: 0.04, reversion: 8.85, mean: 0.075, volatility: 2.56, correlation: -0.94 };
        check(&three_halves, [100.0, 0.0575], &settings(20, update));
    }
}
