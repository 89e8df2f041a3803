//! Errors of settings and models.

use dpq_rmq::{Chain, Coefficients, Error, Heston, Model, Settings};

use crate::GBM;

#[test]
fn settings_out_of_range_are_refused() {
    let good = Settings::new(1.0, 2, [4]);
    for settings in [
        Settings { horizon: 0.0, ..good },
        Settings { horizon: f64::INFINITY, ..good },
        Settings { steps: 0, ..good },
        Settings { points: [0], ..good },
        Settings { points: [16385], ..good },
        Settings { points: [usize::MAX], ..good },
        Settings { tolerance: f64::NAN, ..good },
        Settings { max_sweeps: 0, ..good },
    ] {
        let error = Chain::new(&GBM, [100.0], &settings).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
    let error = Chain::new(&GBM, [100.0], &Settings { steps: 0, ..good }).unwrap_err();
    assert_eq!(error.to_string(), "the number of steps is 0, expected at least 1");
}

#[test]
fn impossible_correlations_are_refused() {
    let heston = Heston { rate: 0.0, reversion: 1.0, mean: 0.1, volatility: 0.3, correlation: -1.0 };
    for correlation in [-1.0, 1.0 - 1e-8, 1.5, f64::NAN] {
        let heston = Heston { correlation, ..heston };
        let error = Chain::new(&heston, [100.0, 0.1], &Settings::new(1.0, 1, [2, 2])).unwrap_err();
        assert!(error.to_string().starts_with("the correlations are [[1.0, "), "{error}");
    }
}

/// Its diffusion has no value below 100.
struct Broken;

impl Model<1> for Broken {
    fn coefficients(&self, &[x]: &[f64; 1]) -> [Coefficients; 1] {
        [Coefficients { drift: [0.0; 3], diffusion: [(x - 100.0).sqrt() + 1.0, 0.0, 0.0] }]
    }
}

#[test]
fn coefficients_without_a_value_are_refused() {
    let error = Chain::new(&Broken, [100.0], &Settings::new(1.0, 2, [4])).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 1, variable: 0, .. }), "{error}");
    let error = Chain::new(&GBM, [1e200], &Settings::new(1.0, 2, [4])).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, variable: 0, .. }), "{error}");
    let error = Chain::new(&GBM, [f64::NAN], &Settings::new(1.0, 2, [4])).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, variable: 0, .. }), "{error}");
}
