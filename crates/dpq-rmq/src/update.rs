//! One time step of one variable: a quadratic polynomial of a standard normal variable.

use crate::normal::Limit;

/// A scheme of discretization.
///
/// The terms of higher order are those of a variable by itself. They are complete where drift and
/// diffusion of the variable depend on no other variable, as those of a variance do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// x + a h + b √h Z.
    Euler,
    /// Euler's plus b b′ h (Z² − 1) / 2.
    Milstein,
    /// Milstein's plus (a′b + ab′ + b″b²/2) h^1.5 Z / 2 + (aa′ + a″b²/2) h² / 2.
    WeakOrder2,
}

/// The drift a and the diffusion b of one variable, dX = a dt + b dW, each with its first and
/// second derivative by that variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// a, a′ and a″.
    pub drift: [f64; 3],
    /// b, b′ and b″.
    pub diffusion: [f64; 3],
}

/// `constant + linear Z + square Z²`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quadratic {
    pub(crate) constant: f64,
    pub(crate) linear: f64,
    pub(crate) square: f64,
}

/// Squares of larger values, times probabilities, could overflow.
pub(crate) const MAX_VALUE: f64 = 1e150;

impl Quadratic {
    /// Returns the variable a time `h` after it was x.
    pub(crate) fn new(update: Update, x: f64, coefficients: &Coefficients, h: f64) -> Self {
        let ([a, a1, a2], [b, b1, b2]) = (coefficients.drift, coefficients.diffusion);
        let mut step = Self { constant: x + a * h, linear: b * h.sqrt(), square: 0.0 };
        if update != Update::Euler {
            step.square = 0.5 * b * b1 * h;
            step.constant -= step.square;
        }
        if update == Update::WeakOrder2 {
            step.linear += 0.5 * (a1 * b + a * b1 + 0.5 * b2 * b * b) * h * h.sqrt();
            step.constant += 0.5 * (a * a1 + 0.5 * a2 * b * b) * h * h;
        }
        step
    }

    /// Returns true if all moments of mixtures of such steps are finite.
    pub(crate) fn is_bounded(&self) -> bool {
        [self.constant, self.linear, self.square].iter().all(|x| x.abs() <= MAX_VALUE)
    }

    pub(crate) fn at(&self, z: f64) -> f64 {
        self.constant + z * (self.linear + z * self.square)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.constant + self.square
    }

    pub(crate) fn variance(&self) -> f64 {
        self.linear * self.linear + 2.0 * self.square * self.square
    }

    /// Returns the ends of the interval of Z in which the polynomial is at most `u`, or more than
    /// `u` if it opens downwards; see [`Self::sign`].
    pub(crate) fn crossings(&self, u: f64) -> [f64; 2] {
        let Self { constant, linear, square } = *self;
        if square != 0.0 {
            if u.is_infinite() {
                let all = (u > 0.0) == (square > 0.0);
                let vertex = -0.5 * linear / square;
                return if all { [f64::NEG_INFINITY, f64::INFINITY] } else { [vertex, vertex] };
            }
            let root = (linear * linear - 4.0 * square * (constant - u)).max(0.0).sqrt();
            let half = -0.5 * (linear + root.copysign(linear));
            let far = half / square;
            let near = if half == 0.0 || root == 0.0 { far } else { (constant - u) / half };
            [far.min(near), far.max(near)]
        } else if linear > 0.0 {
            [f64::NEG_INFINITY, (u - constant) / linear]
        } else if linear < 0.0 {
            [(u - constant) / linear, f64::INFINITY]
        } else {
            [f64::NEG_INFINITY, if u < constant { f64::NEG_INFINITY } else { f64::INFINITY }]
        }
    }

    /// Returns 1 if the polynomial is at most u between the crossings, and −1 if outside.
    fn sign(&self) -> f64 {
        if self.square < 0.0 { -1.0 } else { 1.0 }
    }

    pub(crate) fn edge(&self, u: f64) -> Edge {
        let crossings = self.crossings(u);
        Edge { crossings, limits: crossings.map(Limit::new) }
    }

    /// Returns the probability of values between two edges, and E[value − y] over them.
    pub(crate) fn between(&self, lower: &Edge, upper: &Edge, y: f64) -> [f64; 2] {
        let [left, right] = [0, 1].map(|i| lower.limits[i].moments(&upper.limits[i]));
        let [mass, first, second] = [0, 1, 2].map(|k| self.sign() * (right[k] - left[k]));
        [mass, (self.constant - y) * mass + self.linear * first + self.square * second]
    }

    /// Returns the density of the values at an edge.
    pub(crate) fn density(&self, edge: &Edge) -> f64 {
        let at = |i: usize| {
            let slope = (self.linear + 2.0 * self.square * edge.crossings[i]).abs();
            if slope > 0.0 && edge.limits[i].density > 0.0 { edge.limits[i].density / slope } else { 0.0 }
        };
        at(0) + at(1)
    }
}

/// A bound of a cell, seen from one step.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    crossings: [f64; 2],
    limits: [Limit; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integrates over Z by the midpoint rule.
    fn brute(step: &Quadratic, range: [f64; 2], y: f64) -> [f64; 2] {
        const N: u32 = 400_000;
        let width = 20.0 / f64::from(N);
        let mut sums = [0.0; 2];
        for i in 0..N {
            let z = -10.0 + (f64::from(i) + 0.5) * width;
            let u = step.at(z);
            if range[0] < u && u <= range[1] {
                sums[0] += width * crate::normal::density(z);
                sums[1] += width * crate::normal::density(z) * (u - y);
            }
        }
        sums
    }

    #[test]
    fn moments_of_cells_equal_integrals() {
        for (constant, linear, square) in
            [(1.0, 0.5, 0.0), (1.0, -0.5, 0.0), (0.2, 0.7, 0.3), (0.2, -0.7, -0.3), (1.0, 0.5, 1e-9)]
        {
            let step = Quadratic { constant, linear, square };
            let bounds = [f64::NEG_INFINITY, -0.4, 0.1, 0.9, 1.7, f64::INFINITY];
            let mut total = [0.0; 2];
            for range in bounds.windows(2).map(|w| [w[0], w[1]]) {
                let found = step.between(&step.edge(range[0]), &step.edge(range[1]), 0.5);
                let expected = brute(&step, range, 0.5);
                for k in 0..2 {
                    assert!(
                        (found[k] - expected[k]).abs() < 1e-4,
                        "{step:?} {range:?} {found:?} {expected:?}"
                    );
                    total[k] += found[k];
                }
            }
            assert!((total[0] - 1.0).abs() < 1e-14 && (total[1] + 0.5 - step.mean()).abs() < 1e-14);
        }
    }

    #[test]
    fn a_step_without_diffusion_has_one_value() {
        let step = Quadratic { constant: 2.0, linear: 0.0, square: 0.0 };
        assert_eq!(step.between(&step.edge(1.0), &step.edge(2.5), 2.0), [1.0, 0.0]);
        assert_eq!(step.between(&step.edge(2.5), &step.edge(f64::INFINITY), 2.0), [0.0, 0.0]);
    }

    #[test]
    fn schemes_add_their_terms() {
        let coefficients = Coefficients { drift: [2.0, 3.0, 5.0], diffusion: [7.0, 11.0, 13.0] };
        let step = |update| Quadratic::new(update, 1.0, &coefficients, 0.25);
        let (euler, milstein) = (step(Update::Euler), step(Update::Milstein));
        assert_eq!((euler.constant, euler.linear, euler.square), (1.5, 3.5, 0.0));
        assert_eq!((milstein.mean(), milstein.linear, milstein.square), (1.5, 3.5, 9.625));
        let weak = step(Update::WeakOrder2);
        assert_eq!(weak.linear, 3.5 + 0.5 * (21.0 + 22.0 + 0.5 * 13.0 * 49.0) * 0.125);
        assert_eq!(weak.mean(), 1.5 + 0.5 * (6.0 + 0.5 * 5.0 * 49.0) * 0.0625);
    }
}
