//! Recursive marginal quantization as public programs do it: Newton's method with the tri-diagonal
//! Hessian, without a guard.

use dpq_rmq::Model;

/// The points and weights of the last grid.
pub(crate) type Grid = (Vec<f64>, Vec<f64>);

/// The grid from which the search of a step starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Start {
    /// The grid of a standard normal variable, moved to mean and deviation.
    Moments,
    /// The same in the first step, and the grid of the step before in the others.
    Previous,
}

/// Quantizes the model by Euler's scheme. `normal` is a grid of a standard normal variable.
pub(crate) fn newton(
    model: &impl Model<1>,
    at: f64,
    horizon: f64,
    steps: usize,
    normal: &[f64],
    start: Start,
) -> Result<Grid, String> {
    let h = horizon / steps as f64;
    let (mut points, mut weights) = (vec![at], vec![1.0]);
    let mut guess = Vec::new();
    for step in 0..steps {
        let moves: Vec<(f64, f64, f64)> = points
            .iter()
            .zip(&weights)
            .map(|(&x, &p)| {
                let [c] = model.coefficients(&[x]);
                (p, x + c.drift[0] * h, c.diffusion[0] * h.sqrt())
            })
            .collect();
        if start == Start::Moments || step == 0 {
            let mean: f64 = moves.iter().map(|(p, m, _)| p * m).sum();
            let variance: f64 = moves.iter().map(|(p, m, s)| p * (s * s + (m - mean).powi(2))).sum();
            guess = normal.iter().map(|z| mean + variance.sqrt() * z).collect();
        }
        for iteration in 0.. {
            let step_of = descend(&moves, &mut guess)
                .map_err(|why| format!("step {step}, iteration {iteration}: {why}"))?;
            if step_of < 1e-6 {
                break;
            }
            if iteration == 100 {
                return Err(format!("step {step}: no convergence"));
            }
        }
        weights = masses(&moves, &guess);
        points = guess.clone();
    }
    Ok((points, weights))
}

fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

fn bounds(points: &[f64], j: usize) -> (f64, f64) {
    let lower = if j == 0 { f64::NEG_INFINITY } else { 0.5 * (points[j - 1] + points[j]) };
    let upper = points.get(j + 1).map_or(f64::INFINITY, |next| 0.5 * (points[j] + next));
    (lower, upper)
}

fn masses(moves: &[(f64, f64, f64)], points: &[f64]) -> Vec<f64> {
    let mass = |j| {
        let (lower, upper) = bounds(points, j);
        moves.iter().map(|&(p, m, s)| p * (cdf((upper - m) / s) - cdf((lower - m) / s))).sum()
    };
    (0..points.len()).map(mass).collect()
}

/// Takes one step and returns its length.
fn descend(moves: &[(f64, f64, f64)], points: &mut [f64]) -> Result<f64, String> {
    let n = points.len();
    let (mut gradient, mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    for j in 0..n {
        let (lower, upper) = bounds(points, j);
        for &(p, m, s) in moves {
            let (u, v) = ((lower - m) / s, (upper - m) / s);
            let mass = cdf(v) - cdf(u);
            gradient[j] += 2.0 * p * ((points[j] - m) * mass + s * (density(v) - density(u)));
            diagonal[j] += 2.0 * p * mass;
            if j > 0 {
                diagonal[j] -= 0.5 * p * density(u) / s * (points[j] - points[j - 1]);
            }
            if j + 1 < n {
                let coupling = 0.5 * p * density(v) / s * (points[j + 1] - points[j]);
                diagonal[j] -= coupling;
                beside[j] -= coupling;
            }
        }
    }
    for j in 1..n {
        if diagonal[j - 1] == 0.0 {
            return Err(format!("zero pivot at point {}", j - 1));
        }
        let factor = beside[j - 1] / diagonal[j - 1];
        diagonal[j] -= factor * beside[j - 1];
        gradient[j] -= factor * gradient[j - 1];
    }
    let mut length = 0.0_f64;
    let mut above = 0.0;
    for j in (0..n).rev() {
        above = (gradient[j] - beside[j] * above) / diagonal[j];
        points[j] -= above;
        length += above * above;
    }
    if !length.is_finite() {
        return Err("the points are not finite".to_owned());
    }
    if !points.is_sorted_by(|a, b| a < b) {
        return Err("the points cross".to_owned());
    }
    Ok(length.sqrt())
}
