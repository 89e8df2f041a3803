//! Prices of options on a chain.

use crate::chain::Chain;

impl<const D: usize> Chain<D> {
    /// Returns the price of an option that is exercised at the end.
    pub fn european(&self, rate: f64, payoff: impl Fn(&[f64; D]) -> f64) -> f64 {
        self.backward(rate, payoff, |_, value| value)
    }

    /// Returns the price of an option that may be exercised at the end of each step.
    pub fn bermudan(&self, rate: f64, payoff: impl Fn(&[f64; D]) -> f64) -> f64 {
        self.backward(rate, &payoff, |state, value| value.max(payoff(state)))
    }

    /// Returns the price of an option that is worth nothing once the state at the end of a step is
    /// not `alive`, exercised at the end of the last step.
    pub fn barrier(
        &self,
        rate: f64,
        alive: impl Fn(&[f64; D]) -> bool,
        payoff: impl Fn(&[f64; D]) -> f64,
    ) -> f64 {
        self.backward(rate, payoff, |state, value| if alive(state) { value } else { 0.0 })
    }

    /// Returns the value at time 0. `rule` turns the value of holding on into the value at the end
    /// of each step.
    fn backward(
        &self,
        rate: f64,
        payoff: impl Fn(&[f64; D]) -> f64,
        rule: impl Fn(&[f64; D], f64) -> f64,
    ) -> f64 {
        let discount = (-rate * self.step()).exp();
        let steps = self.slices()[1..].iter().zip(self.transitions()).rev();
        let mut values: Vec<f64> = Vec::new();
        for (slice, transition) in steps {
            if values.is_empty() {
                values = slice.states().map(|state| payoff(&state)).collect();
            }
            values.iter_mut().zip(slice.states()).for_each(|(value, state)| *value = rule(&state, *value));
            let hold =
                |row: &[f64]| discount * row.iter().zip(&values).map(|(p, value)| p * value).sum::<f64>();
            values = transition.chunks(slice.len()).map(hold).collect();
        }
        values[0]
    }
}
