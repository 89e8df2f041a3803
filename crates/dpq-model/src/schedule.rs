//! The phases of an epoch and the learning rate of a step.

use std::f64::consts::PI;

use crate::config::{RateSchedule, Schedule};

/// The part of the model that a step trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The network, by margin and classification loss.
    Features,
    /// The codebooks, by the quantization losses on fixed features.
    Codebooks,
    /// Both, end to end.
    Joint,
}

impl Schedule {
    /// Returns true if an epoch trains codebooks.
    pub(crate) fn trains_codebooks(self, epoch: usize, n_epochs: usize) -> bool {
        match self {
            Self::Joint { features_first } | Self::Alternating { features_first } => {
                epoch >= (features_first * n_epochs as f64) as usize
            }
            Self::TwoStep => false,
        }
    }

    /// Returns the phases that each batch of an epoch trains, in order.
    pub(crate) fn phases(self, epoch: usize, n_epochs: usize) -> &'static [Phase] {
        let started = self.trains_codebooks(epoch, n_epochs);
        match self {
            Self::Joint { .. } if started => &[Phase::Joint],
            // Reference code: in the second half, steps for features and for codebooks alternate.
            Self::Alternating { .. } if started => &[Phase::Features, Phase::Codebooks],
            _ => &[Phase::Features],
        }
    }
}

impl RateSchedule {
    /// Returns the factor on the learning rate at step `step` of `n_steps`.
    pub(crate) fn factor(self, step: usize, n_steps: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Exponential { factor, every } => factor.powi((step / every) as i32),
            Self::WarmupCosine { warmup } => {
                let n_warmup = warmup * n_steps as f64;
                let step = step as f64;
                if step < n_warmup {
                    ((step + 1.0) / n_warmup).min(1.0)
                } else {
                    0.5 * (1.0 + (PI * (step - n_warmup) / (n_steps as f64 - n_warmup)).cos())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_train_what_they_say() {
        use Phase::{Codebooks as C, Features as F, Joint as J};
        let phases = |schedule: Schedule| [0, 1, 2, 3].map(|epoch| schedule.phases(epoch, 4));
        assert_eq!(phases(Schedule::TwoStep), [[F]; 4]);
        assert_eq!(phases(Schedule::Joint { features_first: 0.0 }), [[J]; 4]);
        assert_eq!(phases(Schedule::Joint { features_first: 0.25 }), [[F], [J], [J], [J]]);
        let alternating: [&[Phase]; 4] = [&[F], &[F], &[F, C], &[F, C]];
        assert_eq!(phases(Schedule::Alternating { features_first: 0.5 }), alternating);
    }

    #[test]
    fn rates_follow_their_formulas() {
        assert_eq!(RateSchedule::Constant.factor(7, 10), 1.0);
        let exponential = RateSchedule::Exponential { factor: 0.5, every: 3 };
        assert_eq!([0, 2, 3, 6].map(|step| exponential.factor(step, 10)), [1.0, 1.0, 0.5, 0.25]);
        let cosine = RateSchedule::WarmupCosine { warmup: 0.2 };
        assert_eq!([0, 1, 2, 6].map(|step| cosine.factor(step, 10)), [0.5, 1.0, 1.0, 0.5]);
        assert!(cosine.factor(9, 10) < 0.04);
        // One and a half steps up: the second step is above the line and must not be above the
        // rate.
        let uneven = RateSchedule::WarmupCosine { warmup: 0.15 };
        assert!((0..10).all(|step| uneven.factor(step, 10) <= 1.0));
        assert_eq!(uneven.factor(1, 10), 1.0);
    }
}
