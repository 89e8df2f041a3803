//! A diffusion as a Markov chain on grids.

use rayon::prelude::*;

use crate::error::Error;
use crate::joint::{self, Mix, Pieces};
use crate::mixture::Mixture;
use crate::model::Model;
use crate::solver::{self, Solver};
use crate::update::{Quadratic, Update};

/// How a diffusion becomes a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings<const D: usize> {
    /// The time that the chain covers.
    pub horizon: f64,
    /// The number of time steps, of equal length.
    pub steps: usize,
    /// The maximum number of points of each variable. Cells without mass are dropped.
    pub points: [usize; D],
    /// The scheme of each variable.
    pub updates: [Update; D],
    /// The search for a stationary grid.
    pub solver: Solver,
    /// The search ends when no point moves by more than this many standard deviations.
    pub tolerance: f64,
    /// The search also ends after as many grids. A grid is never worse than the one before.
    pub max_sweeps: usize,
}

/// Transitions of as many states take 2 GiB.
const MAX_STATES: f64 = 16384.0;

impl<const D: usize> Settings<D> {
    /// Takes Euler's scheme, and the accelerated solver to a precision of 1e-9.
    pub fn new(horizon: f64, steps: usize, points: [usize; D]) -> Self {
        let updates = [Update::Euler; D];
        Self { horizon, steps, points, updates, solver: Solver::default(), tolerance: 1e-9, max_sweeps: 5000 }
    }

    fn check(&self) -> Result<(), Error> {
        let positive = "a positive, finite number";
        let count = "at least 1";
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let mut settings = vec![
            ("the horizon", self.horizon, is_positive(self.horizon), positive),
            ("the number of steps", self.steps as f64, self.steps > 0, count),
            ("the tolerance", self.tolerance, is_positive(self.tolerance), positive),
            ("the maximum of sweeps", self.max_sweeps as f64, self.max_sweeps > 0, count),
        ];
        settings.extend(self.points.map(|n| ("the number of points", n as f64, n > 0, count)));
        let states: f64 = self.points.iter().map(|&n| n as f64).product();
        let few = "at most 16384, as a step takes 8 bytes times its square";
        settings.push(("the number of states", states, states <= MAX_STATES, few));
        settings.push(("the number of variables", D as f64, D > 0, count));
        match settings.into_iter().find(|&(_, _, good, _)| !good) {
            Some((name, value, _, expected)) => Err(Error::Setting { name, value, expected }),
            None => Ok(()),
        }
    }
}

/// A Markov chain that stands for a diffusion: a product grid per time, probabilities, transitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain<const D: usize> {
    times: Vec<Slice<D>>,
    transitions: Vec<Vec<f64>>,
    searches: Vec<[Search; D]>,
    step: f64,
}

/// The chain at one time. States are in row-major order: the last variable runs fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice<const D: usize> {
    grids: [Vec<f64>; D],
    probabilities: Vec<f64>,
}

/// The search for the grid of one variable at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The mean squared error of each grid on the way to the last one. It never rises.
    pub distortions: Vec<f64>,
    /// The number of grids that were measured, those that were refused included.
    pub sweeps: usize,
    /// The last move of a point, at most, in standard deviations.
    pub residual: f64,
}

impl<const D: usize> Slice<D> {
    /// Returns the ascending points of each variable.
    pub fn grids(&self) -> &[Vec<f64>; D] {
        &self.grids
    }

    /// Returns the probability of each state.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Returns the number of states.
    pub fn len(&self) -> usize {
        self.probabilities.len()
    }

    /// Returns false: there is at least one state.
    pub fn is_empty(&self) -> bool {
        self.probabilities.is_empty()
    }

    /// Returns each state.
    pub fn states(&self) -> impl Iterator<Item = [f64; D]> {
        (0..self.len()).map(|index| self.state(index))
    }

    /// Returns the mean of a function of the state.
    pub fn mean(&self, of: impl Fn(&[f64; D]) -> f64) -> f64 {
        self.states().zip(&self.probabilities).map(|(state, p)| p * of(&state)).sum()
    }

    fn state(&self, mut index: usize) -> [f64; D] {
        let mut state = [0.0; D];
        for (value, grid) in state.iter_mut().zip(&self.grids).rev() {
            *value = grid[index % grid.len()];
            index /= grid.len();
        }
        state
    }
}

impl<const D: usize> Chain<D> {
    /// Quantizes a model that starts in a known state.
    ///
    /// With one variable this is recursive marginal quantization, with more it is product Markovian
    /// quantization: each variable has a grid for its law given the chain so far, and each cell of
    /// the product the probability of its rectangle.
    ///
    /// Time and memory of a step are the square of the number of states.
    pub fn new(model: &impl Model<D>, start: [f64; D], settings: &Settings<D>) -> Result<Self, Error> {
        settings.check()?;
        let correlation = model.correlation();
        let found = || Error::Correlation { found: format!("{correlation:?}") };
        let mix = Mix::new(&correlation).ok_or_else(found)?;
        let step = settings.horizon / settings.steps as f64;
        let first = Slice { grids: start.map(|value| vec![value]), probabilities: vec![1.0] };
        let mut chain = Self { times: vec![first], transitions: Vec::new(), searches: Vec::new(), step };
        (0..settings.steps).try_for_each(|_| chain.extend(model, &mix, settings))?;
        Ok(chain)
    }

    fn extend(&mut self, model: &impl Model<D>, mix: &Mix<D>, settings: &Settings<D>) -> Result<(), Error> {
        let last = &self.times[self.times.len() - 1];
        let moves = last.states().map(|state| {
            let coefficients = model.coefficients(&state);
            let moves: [Quadratic; D] = std::array::from_fn(|f| {
                Quadratic::new(settings.updates[f], state[f], &coefficients[f], self.step)
            });
            match moves.iter().position(|step| !step.is_bounded()) {
                None => Ok(moves),
                Some(variable) => {
                    Err(Error::NotFinite { step: self.transitions.len(), variable, state: state.to_vec() })
                }
            }
        });
        let moves = moves.collect::<Result<Vec<_>, _>>()?;
        let fits: [_; D] = std::array::from_fn(|f| {
            let parts = last.probabilities.iter().zip(&moves).map(|(&p, moves)| (p, moves[f])).collect();
            let mixture = Mixture::new(parts);
            let (n, solver) = (settings.points[f], settings.solver);
            solver::fit(&mixture, n, solver, settings.tolerance, settings.max_sweeps)
        });
        let mut strides = [1; D];
        (0..D - 1).rev().for_each(|f| strides[f] = strides[f + 1] * fits[f + 1].points.len());
        let n_states = strides[0] * fits[0].points.len();
        let mut transition = vec![0.0; moves.len() * n_states];
        transition.par_chunks_mut(n_states).zip(&moves).for_each(|(row, moves)| {
            let pieces = std::array::from_fn(|f| Pieces::new(&moves[f], &fits[f].bounds));
            joint::fill(mix, &pieces, &strides, row);
        });
        let mut probabilities = vec![0.0; n_states];
        for (row, p) in transition.chunks(n_states).zip(&last.probabilities) {
            probabilities.iter_mut().zip(row).for_each(|(sum, entry)| *sum += p * entry);
        }
        let mut grids = [const { Vec::new() }; D];
        let searches = fits.map(|fit| {
            (fit.points, Search { distortions: fit.distortions, sweeps: fit.sweeps, residual: fit.residual })
        });
        let mut f = 0;
        self.searches.push(searches.map(|(points, search)| {
            grids[f] = points;
            f += 1;
            search
        }));
        self.times.push(Slice { grids, probabilities });
        self.transitions.push(transition);
        Ok(())
    }

    /// Returns the chain at time 0 and after each step.
    pub fn slices(&self) -> &[Slice<D>] {
        &self.times
    }

    /// Returns the transition matrix of each step in row-major order: rows are states before it.
    pub fn transitions(&self) -> &[Vec<f64>] {
        &self.transitions
    }

    /// Returns the searches for the grids of each step.
    pub fn searches(&self) -> &[[Search; D]] {
        &self.searches
    }

    /// Returns the time between two slices.
    pub fn step(&self) -> f64 {
        self.step
    }
}
