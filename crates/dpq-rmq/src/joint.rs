//! The probabilities of rectangular cells, for variables whose normal variables correlate.

use crate::normal;
use crate::update::Quadratic;

/// The factor U of a correlation matrix, `correlation = U Uᵀ`: a normal variable is its row times
/// independent ones, of which it needs none of a lower number.
#[derive(Debug, Clone)]
pub(crate) struct Mix<const D: usize>([[f64; D]; D]);

impl<const D: usize> Mix<D> {
    /// Returns none unless the matrix is symmetric with 1 on its diagonal, and the others leave
    /// each variable a deviation of more than 0.001: rows of less take thousands of pieces.
    pub(crate) fn new(correlation: &[[f64; D]; D]) -> Option<Self> {
        let mut mix = [[0.0; D]; D];
        for g in (0..D).rev() {
            let rest = |f: usize, mix: &[[f64; D]; D]| {
                correlation[f][g] - (g + 1..D).map(|k| mix[f][k] * mix[g][k]).sum::<f64>()
            };
            let square = rest(g, &mix);
            let is_symmetric = (0..g).all(|f| correlation[f][g] == correlation[g][f]);
            if correlation[g][g] != 1.0 || !is_symmetric || square.is_nan() || square <= 1e-6 {
                return None;
            }
            mix[g][g] = square.sqrt();
            (0..g).for_each(|f| mix[f][g] = rest(f, &mix) / mix[g][g]);
        }
        Some(Self(mix))
    }

    /// Returns the widest piece over which the nodes integrate what the variables below `f` are,
    /// given the variable `f`; none if they do not depend on it.
    fn width(&self, f: usize) -> Option<f64> {
        let sharpness = (0..f).map(|g| (self.0[g][f] / self.0[g][g]).abs()).fold(0.0, f64::max);
        (sharpness > 0.0).then(|| (1.5 / sharpness).min(1.5))
    }
}

/// The real line of a normal variable in pieces, each with the cell that it leads to.
pub(crate) struct Pieces {
    ends: Vec<f64>,
    cells: Vec<usize>,
}

impl Pieces {
    pub(crate) fn new(step: &Quadratic, bounds: &[f64]) -> Self {
        let crossings = bounds.iter().flat_map(|&bound| step.crossings(bound));
        let mut ends: Vec<f64> = crossings.filter(|z| z.is_finite()).collect();
        ends.sort_by(f64::total_cmp);
        ends.dedup();
        ends.insert(0, f64::NEG_INFINITY);
        ends.push(f64::INFINITY);
        let cell = |ends: &[f64]| {
            let middle = match (ends[0].is_finite(), ends[1].is_finite()) {
                (true, true) => 0.5 * (ends[0] + ends[1]),
                (true, false) => ends[0] + 1.0,
                (false, true) => ends[1] - 1.0,
                (false, false) => 0.0,
            };
            bounds.partition_point(|&bound| bound < step.at(middle))
        };
        let cells = ends.windows(2).map(cell).collect();
        Self { ends, cells }
    }
}

/// Adds the probability of each cell of the product grid to `row`, which is in row-major order.
pub(crate) fn fill<const D: usize>(
    mix: &Mix<D>,
    pieces: &[Pieces; D],
    strides: &[usize; D],
    row: &mut [f64],
) {
    Rectangles { mix, pieces, strides, normals: [0.0; D] }.fill(D - 1, 1.0, 0, row);
}

struct Rectangles<'a, const D: usize> {
    mix: &'a Mix<D>,
    pieces: &'a [Pieces; D],
    strides: &'a [usize; D],
    /// The independent variables that are given so far, from the last one down.
    normals: [f64; D],
}

impl<const D: usize> Rectangles<'_, D> {
    fn fill(&mut self, f: usize, weight: f64, offset: usize, row: &mut [f64]) {
        let (pieces, stride) = (&self.pieces[f], self.strides[f]);
        let factors = &self.mix.0[f];
        let given: f64 = (f + 1..D).map(|g| factors[g] * self.normals[g]).sum();
        let mut lower = (f64::NEG_INFINITY, 0.0);
        for (cell, end) in pieces.cells.iter().zip(&pieces.ends[1..]) {
            let end = (end - given) / factors[f];
            let upper = (end, normal::cdf(end));
            let (offset, mass) = (offset + cell * stride, upper.1 - lower.1);
            if mass > 0.0 {
                match (f, self.mix.width(f)) {
                    (0, _) => row[offset] += weight * mass,
                    (_, None) => self.fill(f - 1, weight * mass, offset, row),
                    (_, Some(width)) => normal::nodes(lower.0, upper.0, mass, width, |z, of_node| {
                        self.normals[f] = z;
                        self.fill(f - 1, weight * of_node, offset, row);
                    }),
                }
            }
            lower = upper;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const D: usize>(
        correlation: &[[f64; D]; D],
        steps: [Quadratic; D],
        bounds: &[&[f64]; D],
    ) -> Vec<f64> {
        let mut strides = [1; D];
        (0..D - 1).rev().for_each(|f| strides[f] = strides[f + 1] * (bounds[f + 1].len() + 1));
        let mut row = vec![0.0; strides[0] * (bounds[0].len() + 1)];
        let pieces = std::array::from_fn(|f| Pieces::new(&steps[f], bounds[f]));
        fill(&Mix::new(correlation).unwrap(), &pieces, &strides, &mut row);
        row
    }

    const STANDARD: Quadratic = Quadratic { constant: 0.0, linear: 1.0, square: 0.0 };

    #[test]
    fn quadrants_have_their_probability() {
        for rho in [0.0_f64, 0.3, -0.7, 0.925, -0.99] {
            let row = row(&[[1.0, rho], [rho, 1.0]], [STANDARD; 2], &[&[0.0], &[0.0]]);
            let both = 0.25 + rho.asin() / std::f64::consts::TAU;
            for (found, expected) in row.iter().zip([both, 0.5 - both, 0.5 - both, both]) {
                assert!((found - expected).abs() < 1e-12, "{rho}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn octants_have_their_probability() {
        let (a, b, c) = (0.5_f64, -0.3, 0.4);
        let row = row(&[[1.0, a, b], [a, 1.0, c], [b, c, 1.0]], [STANDARD; 3], &[&[0.0], &[0.0], &[0.0]]);
        let expected = 0.125 + (a.asin() + b.asin() + c.asin()) / (2.0 * std::f64::consts::TAU);
        assert!((row[0] - expected).abs() < 1e-12 && (row[7] - expected).abs() < 1e-12, "{row:?}");
    }

    #[test]
    fn marginals_of_a_rectangle_are_those_of_its_sides() {
        let square = Quadratic { constant: 0.1, linear: 0.2, square: 0.15 };
        let bounds = [-1.1, -0.2, 0.3, 0.8, 1.9];
        let of_square = [0.05, 0.2, 0.7];
        let row = row(&[[1.0, -0.9], [-0.9, 1.0]], [STANDARD, square], &[&bounds, &of_square]);
        let ends = |bounds: &[f64]| [&[f64::NEG_INFINITY], bounds, &[f64::INFINITY]].concat();
        for (row, ends) in row.chunks(4).zip(ends(&bounds).windows(2)) {
            let expected = normal::cdf(ends[1]) - normal::cdf(ends[0]);
            assert!((row.iter().sum::<f64>() - expected).abs() < 1e-12, "{row:?} is not {expected}");
        }
        for (j, ends) in ends(&of_square).windows(2).enumerate() {
            let [expected, _] = square.between(&square.edge(ends[0]), &square.edge(ends[1]), 0.0);
            let found: f64 = row.iter().skip(j).step_by(4).sum();
            assert!((found - expected).abs() < 1e-14, "{found} is not {expected}");
        }
    }

    #[test]
    fn impossible_correlations_are_refused() {
        assert!(Mix::new(&[[1.0, 1.0], [1.0, 1.0]]).is_none());
        assert!(Mix::new(&[[1.0, 0.5], [0.4, 1.0]]).is_none());
        assert!(Mix::new(&[[2.0, 0.5], [0.5, 1.0]]).is_none());
        assert!(Mix::new(&[[1.0, f64::NAN], [f64::NAN, 1.0]]).is_none());
        assert!(Mix::new(&[[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]).is_none());
    }
}
