//! Recursive marginal quantization and product Markovian quantization as public programs do it:
//! Newton's method with the tri-diagonal Hessian, without a guard, and joint weights by cubature.

use dpq_rmq::{Heston, Model};

/// The points and weights of the last grid.
pub(crate) type Grid = (Vec<f64>, Vec<f64>);

/// Quantizes the model by Euler's scheme. The search of a step starts from the grid of the step
/// before, or from `normal`, a grid of a standard normal variable, moved to mean and deviation.
pub(crate) fn newton(
    model: &impl Model<1>,
    at: f64,
    horizon: f64,
    steps: usize,
    normal: &[f64],
    from_previous: bool,
) -> Result<Grid, String> {
    let h = horizon / steps as f64;
    let (mut points, mut weights, mut guess) = (vec![at], vec![1.0], None);
    for step in 0..steps {
        let part = |(&x, &p): (&f64, &f64)| {
            let [c] = model.coefficients(&[x]);
            (p, x + c.drift[0] * h, c.diffusion[0] * h.sqrt())
        };
        let parts: Vec<Part> = points.iter().zip(&weights).map(part).collect();
        points = search(&parts, normal, guess).map_err(|why| format!("step {step}, {why}"))?;
        guess = from_previous.then(|| points.clone());
        weights = masses(&parts, &points);
    }
    Ok((points, weights))
}

/// A weight, a mean and a deviation.
type Part = (f64, f64, f64);

/// Searches from a guess, or else from the grid of a normal variable.
fn search(parts: &[Part], normal: &[f64], guess: Option<Vec<f64>>) -> Result<Vec<f64>, String> {
    let mut points = guess.unwrap_or_else(|| {
        let mean: f64 = parts.iter().map(|(p, m, _)| p * m).sum();
        let variance: f64 = parts.iter().map(|(p, m, s)| p * (s * s + (m - mean).powi(2))).sum();
        normal.iter().map(|z| mean + variance.sqrt() * z).collect()
    });
    for iteration in 0..100 {
        let length = descend(parts, &mut points).map_err(|why| format!("iteration {iteration}: {why}"))?;
        if length < 1e-6 {
            return Ok(points);
        }
    }
    Err("no convergence".to_owned())
}

/// Quantizes Heston's model by Euler's scheme with a variance of at least 1e-6, and returns the
/// last price grid with its weights. Joint weights come from a cubature on the grid `cubature` of a
/// standard normal variable with its weights.
pub(crate) fn heston(
    model: &Heston,
    at: [f64; 2],
    horizon: f64,
    steps: usize,
    normals: [&[f64]; 2],
    cubature: (&[f64], &[f64]),
) -> Result<Grid, String> {
    let h = horizon / steps as f64;
    let (rho, rest) = (model.correlation, (1.0 - model.correlation * model.correlation).sqrt());
    let mut grids = at.map(|value| vec![value]);
    let mut weights = vec![1.0];
    let mut guesses = [None, None];
    for step in 0..steps {
        let mut parts = [Vec::new(), Vec::new()];
        for (index, &p) in weights.iter().enumerate() {
            let n = grids[1].len();
            let state = [grids[0][index / n], grids[1][index % n].max(1e-6)];
            let coefficients = model.coefficients(&state);
            for f in 0..2 {
                let c = coefficients[f];
                parts[f].push((p, state[f] + c.drift[0] * h, c.diffusion[0] * h.sqrt()));
            }
        }
        for f in 0..2 {
            let points = search(&parts[f], normals[f], guesses[f].take());
            grids[f] = points.map_err(|why| format!("step {step}, variable {f}, {why}"))?;
            guesses[f] = Some(grids[f].clone());
        }
        let cells = grids.each_ref().map(|grid| (0..grid.len()).map(|j| bounds(grid, j)).collect::<Vec<_>>());
        weights = vec![0.0; cells[0].len() * cells[1].len()];
        for (&(p, m, s), &(_, of_m, of_s)) in parts[0].iter().zip(&parts[1]) {
            for (a, x) in cells[0].iter().enumerate() {
                let x = ((x.0 - m) / s, (x.1 - m) / s);
                for (b, v) in cells[1].iter().enumerate() {
                    let v = ((v.0 - of_m) / of_s, (v.1 - of_m) / of_s);
                    let mass = |(node, weight): (&f64, &f64)| {
                        let ends = ((x.0 - rest * node) / rho, (x.1 - rest * node) / rho);
                        let lower = v.0.max(ends.0.min(ends.1));
                        let upper = v.1.min(ends.0.max(ends.1));
                        if lower < upper { weight * (cdf(upper) - cdf(lower)) } else { 0.0 }
                    };
                    let mass: f64 = cubature.0.iter().zip(cubature.1).map(mass).sum();
                    weights[a * cells[1].len() + b] += p * mass;
                }
            }
        }
    }
    let [prices, variances] = grids;
    let of_price = weights.chunks(variances.len()).map(|row| row.iter().sum()).collect();
    Ok((prices, of_price))
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

fn masses(parts: &[Part], points: &[f64]) -> Vec<f64> {
    let mass = |j| {
        let (lower, upper) = bounds(points, j);
        parts.iter().map(|&(p, m, s)| p * (cdf((upper - m) / s) - cdf((lower - m) / s))).sum()
    };
    (0..points.len()).map(mass).collect()
}

/// Takes one step and returns its length.
fn descend(parts: &[Part], points: &mut [f64]) -> Result<f64, String> {
    let n = points.len();
    let (mut gradient, mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    for j in 0..n {
        let (lower, upper) = bounds(points, j);
        for &(p, m, s) in parts {
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
