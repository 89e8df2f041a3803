//! t-SNE: maps points of many dimensions to two, so that neighbours stay neighbours.
//!
//! `bhtsne` computes the embedding (Barnes-Hut, its default schedule of 1,000 steps). By default it
//! starts at random and breaks ties between equally near neighbours at random. Here it gets the
//! start, the neighbours and a pool of one thread, because sums over several threads have no fixed
//! order. So the same points always give the same picture.

use bhtsne::{Neighbor, tSNE};
use rayon::prelude::*;

use crate::Error;

/// The perplexity of the paper.
const PERPLEXITY: f32 = 50.0;

/// The number of neighbours that attract a point; t-SNE takes three times the perplexity.
pub(crate) const NEIGHBOURS: usize = 3 * PERPLEXITY as usize;

/// How coarse the cells of the tree may be. 0.5 is the usual compromise.
const THETA: f32 = 0.5;

/// The spread of the first coordinate at the start. A small spread lets points move freely.
const START: f64 = 1e-4;

/// Iterations for the principal components. They converge long before.
const ROUNDS: usize = 100;

/// Embeds several sets of points of the same items, f32 `[n, dim]` each, where n exceeds
/// [`NEIGHBOURS`].
///
/// Every set starts from the two principal components of the first, so that an item lies on the
/// same side of all pictures.
pub(crate) fn embed(sets: &[&[f32]], dim: usize) -> Result<Vec<Vec<[f32; 2]>>, Error> {
    let Some(first) = sets.first() else { return Ok(Vec::new()) };
    let components = Components::of(first, dim);
    sets.par_iter().map(|set| embed_one(set, dim, components.start(set))).collect()
}

/// Places points f32 `[n, dim]` on a plane. Returns the name of the method too: t-SNE, or principal
/// components of points that are too few for it.
///
/// # Errors
/// [`Error::Thread`] if the system refuses a thread.
pub fn place(points: &[f32], dim: usize) -> Result<(&'static str, Vec<[f32; 2]>), Error> {
    let n = points.len() / dim.max(1);
    if n > NEIGHBOURS {
        return Ok(("t-SNE", embed(&[points], dim)?.swap_remove(0)));
    }
    let places = if n == 0 { Vec::new() } else { Components::of(points, dim).start(points) };
    Ok(("principal components", places.as_chunks().0.to_vec()))
}

fn embed_one(points: &[f32], dim: usize, start: Vec<f32>) -> Result<Vec<[f32; 2]>, Error> {
    let rows: Vec<&[f32]> = points.chunks_exact(dim).collect();
    let neighbours: Vec<_> = (0..rows.len()).map(|i| neighbours(&rows, i)).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let embedding = pool.install(|| {
        let mut tsne: tSNE<f32, &[f32]> = tSNE::new(&rows);
        tsne.perplexity(PERPLEXITY).initial_embedding(start).barnes_hut_with_neighbors(THETA, &neighbours);
        tsne.embedding()
    });
    Ok(embedding.as_chunks().0.to_vec())
}

/// Returns the nearest neighbours of row `i`. Among equally near rows, those that follow `i` come
/// first, so that equal rows do not all have the same neighbours.
fn neighbours(rows: &[&[f32]], i: usize) -> Vec<Neighbor<f32>> {
    let n = rows.len();
    let mut all: Vec<(f32, usize)> =
        (1..n).map(|step| (squared_distance(rows[i], rows[(i + step) % n]), step)).collect();
    let nearer = |a: &(f32, usize), b: &(f32, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    all.select_nth_unstable_by(NEIGHBOURS - 1, nearer);
    all.truncate(NEIGHBOURS);
    all.sort_unstable_by(nearer);
    all.iter().map(|&(squared, step)| Neighbor { index: (i + step) % n, distance: squared.sqrt() }).collect()
}

/// Adds in eight partial sums, which the compiler vectorizes.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
}

/// The two principal components of points.
struct Components {
    mean: Vec<f64>,
    axes: [Vec<f64>; 2],
    /// The factor that makes the spread along the first axis [`START`].
    scale: f64,
}

impl Components {
    /// Finds them by subspace iteration, started from the first point and the one in the middle.
    fn of(points: &[f32], dim: usize) -> Self {
        let n = points.len() / dim;
        let mut mean = vec![0.0; dim];
        for row in points.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / n as f64);
        }
        let centred =
            |row: &[f32]| row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean).collect::<Vec<_>>();
        let rows: Vec<Vec<f64>> = points.chunks_exact(dim).map(centred).collect();
        let mut axes = [rows[0].clone(), rows[n / 2].clone()];
        for _ in 0..ROUNDS {
            axes = axes.map(|axis| {
                let mut next = vec![0.0; dim];
                for row in &rows {
                    let along = dot(row, &axis);
                    next.iter_mut().zip(row).for_each(|(next, x)| *next += along * x);
                }
                next
            });
            let [first, second] = &mut axes;
            normalise(first);
            let along = dot(first, second);
            second.iter_mut().zip(&*first).for_each(|(x, first)| *x -= along * first);
            normalise(second);
        }
        let variance = rows.iter().map(|row| dot(row, &axes[0]).powi(2)).sum::<f64>() / n as f64;
        Self { mean, axes, scale: START / variance.sqrt().max(f64::MIN_POSITIVE) }
    }

    /// Returns where points, `[n, dim]`, start, `[n, 2]`.
    fn start(&self, points: &[f32]) -> Vec<f32> {
        let along = |row: &[f32], axis: &[f64]| {
            let terms =
                row.iter().zip(&self.mean).zip(axis).map(|((&x, mean), axis)| (f64::from(x) - mean) * axis);
            (terms.sum::<f64>() * self.scale) as f32
        };
        points
            .chunks_exact(self.mean.len())
            .flat_map(|row| self.axes.each_ref().map(|axis| along(row, axis)))
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Scales to unit length. Zero stays zero.
fn normalise(x: &mut [f64]) {
    let norm = dot(x, x).sqrt();
    if norm > 0.0 {
        x.iter_mut().for_each(|x| *x /= norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three groups of 80 points in 10 dimensions, far from each other, and the same with equal
    /// points in each group.
    fn sets() -> [Vec<f32>; 2] {
        let noise = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 1000) as f32 / 1000.0;
        let group = |i: usize, j: usize| if j == i % 3 { 20.0 } else { 0.0 };
        let set = |noisy: f32| {
            (0..240).flat_map(|i| (0..10).map(move |j| group(i, j) + noisy * noise(i, j))).collect()
        };
        [set(1.0), set(0.0)]
    }

    #[test]
    fn groups_stay_together_and_pictures_repeat() {
        let sets = sets();
        let sets = sets.each_ref().map(Vec::as_slice);
        let embedded = embed(&sets, 10).unwrap();
        assert_eq!(embedded, embed(&sets, 10).unwrap());
        for points in embedded {
            let distance = |a: usize, b: usize| {
                let [x, y] = [0, 1].map(|i| points[a][i] - points[b][i]);
                x.hypot(y)
            };
            // 150 neighbours include other groups, so groups touch, but members of one are nearer.
            let mean = |same: bool| {
                let pairs = (0..240)
                    .flat_map(|a| (0..a).map(move |b| (a, b)))
                    .filter(|(a, b)| (a % 3 == b % 3) == same);
                let distances: Vec<f32> = pairs.map(|(a, b)| distance(a, b)).collect();
                distances.iter().sum::<f32>() / distances.len() as f32
            };
            assert!(2.0 * mean(true) < mean(false), "{} {}", mean(true), mean(false));
        }
    }

    #[test]
    fn few_points_lie_along_their_principal_components() {
        assert_eq!(place(&[], 3).unwrap(), ("principal components", Vec::new()));
        let (method, places) = place(&[0.0, 0.0, 3.0, 3.0, 1.0, 1.0], 2).unwrap();
        assert_eq!((method, places.len()), ("principal components", 3));
        assert!((places[0][0] < places[2][0]) == (places[2][0] < places[1][0]), "{places:?}");
        let (method, places) = place(&sets()[0], 10).unwrap();
        assert_eq!((method, places.len()), ("t-SNE", 240));
    }

    #[test]
    fn the_start_is_along_the_principal_components() {
        // Spread 3 along (1, 1), 1 along (1, -1).
        let points: Vec<f32> = [3.0, -3.0, 0.0, 0.0]
            .iter()
            .zip([0.0, 0.0, 1.0, -1.0])
            .flat_map(|(a, b): (&f32, f32)| [a + b + 5.0, a - b + 5.0])
            .collect();
        let start = Components::of(&points, 2).start(&points);
        let unit = start[0].abs() / 3.0;
        for (found, expected) in start.iter().zip([3.0, 0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 1.0]) {
            assert!((found.abs() / unit - expected).abs() < 1e-3, "{start:?}");
        }
        let spread: f32 = start.chunks(2).map(|point| point[0] * point[0]).sum::<f32>() / 4.0;
        assert!((f64::from(spread.sqrt()) / START - 1.0).abs() < 1e-3);
    }
}
