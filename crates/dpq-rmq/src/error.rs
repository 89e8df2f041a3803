//! The error of this crate.

/// An error in a model or in settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The name of the setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed values.
        expected: &'static str,
    },
    /// The correlations of a model are not those of normal variables.
    #[error(
        "the correlations are {found}, expected a symmetric matrix with 1 on its diagonal, in which the others fix no variable to within 0.001 deviations"
    )]
    Correlation {
        /// The matrix.
        found: String,
    },
    /// A model returned a coefficient that is not finite, or that made a step too large.
    #[error(
        "step {step} moves variable {variable} from {state:?} beyond 1e150, expected coefficients that are finite everywhere, and more steps where they grow"
    )]
    NotFinite {
        /// The number of the step, counted from 0.
        step: usize,
        /// The variable.
        variable: usize,
        /// The state that the step starts from.
        state: Vec<f64>,
    },
}
