//! Large tie groups against sums over all ranks, worked without closed forms.

use dpq_eval::{Denominator, Ties};

use crate::{rule, whole};

/// Sizes and relevant items of groups of a gallery of 64,000: one code word takes most, as with a
/// bad codebook.
const GROUPS: [(u32, u32); 7] =
    [(1, 1), (20, 17), (300, 0), (3_000, 2_500), (40_000, 3_100), (679, 1), (20_000, 900)];

/// Expected sum of the precisions at h relevant items in m places, summed over places.
fn by_places(n0: u32, r0: f64, m: u32, h: f64) -> f64 {
    let slope = if m > 1 { (h - 1.0) / (f64::from(m) - 1.0) } else { 0.0 };
    let at = |j: u32| h / f64::from(m) * (r0 + 1.0 + f64::from(j) * slope) / f64::from(n0 + j + 1);
    (0..m).map(at).sum()
}

#[test]
fn expectation_equals_the_sum_over_ranks() {
    let items: Vec<(f32, bool)> = (0_u8..)
        .zip(GROUPS)
        .flat_map(|(group, (n, r))| (0..n).map(move |i| (-f32::from(group), i >= n - r)))
        .collect();
    assert_eq!(items.len(), 64_000);
    let ranking = whole(&items);
    let n_relevant = ranking.n_relevant() as f64;

    for cutoff in [1, 5, 21, 100, 1_000, 5_000, 43_000, 43_321, 60_000, 64_000] {
        let (mut n0, mut r0, mut sum) = (0, 0.0, 0.0);
        let mut retrieved = 0.0;
        for (n, r) in GROUPS {
            let m = n.min(cutoff - n0);
            if m < n {
                // Pr(h relevant items within the cut), place by place: O(m · r).
                let mut probability = vec![0.0_f64; r as usize + 1];
                probability[0] = 1.0;
                for draw in 0..m {
                    for h in (0..=r.min(draw + 1)).rev() {
                        let left = f64::from(n - draw);
                        let miss = (left - f64::from(r - h)) / left;
                        let hit = if h > 0 {
                            probability[h as usize - 1] * f64::from(r - h + 1) / left
                        } else {
                            0.0
                        };
                        probability[h as usize] = (probability[h as usize] * miss).max(0.0) + hit;
                    }
                }
                let one = by_places(n0, r0, m, 1.0);
                let two = by_places(n0, r0, m, 2.0);
                for (h, p) in (0..).zip(probability).filter(|&(h, _)| f64::from(h) + r0 > 0.0) {
                    // The sum is a polynomial a·h + b·h² in h; two of its values give all others.
                    let (h, b) = (f64::from(h), (two - 2.0 * one) / 2.0);
                    retrieved += p * (sum + (one - b) * h + b * h * h) / (r0 + h);
                }
                sum += linear(n0, r0, n, r, m);
                n0 = cutoff;
                break;
            }
            sum += by_places(n0, r0, n, f64::from(r));
            (n0, r0) = (n0 + n, r0 + f64::from(r));
            if n0 == cutoff {
                retrieved = sum / r0;
                break;
            }
        }
        assert_eq!(n0, cutoff);
        let ap = |denominator| {
            rule(Some(cutoff as usize), denominator, Ties::Expectation).average_precision(&ranking).unwrap()
        };
        for (got, expected) in [
            (ap(Denominator::Retrieved), retrieved),
            (ap(Denominator::All), sum / n_relevant),
            (ap(Denominator::MinCutoff), sum / n_relevant.min(f64::from(cutoff))),
        ] {
            assert!((got - expected).abs() < 1e-12, "cut-off {cutoff}: {got} is not {expected}");
        }
    }
}

/// Expected sum of the precisions within the first m places of a tie of n with r relevant: linear,
/// so no distribution of the number within the cut is needed.
fn linear(n0: u32, r0: f64, n: u32, r: u32, m: u32) -> f64 {
    let (n_, r_) = (f64::from(n), f64::from(r));
    (0..m)
        .map(|j| r_ / n_ * (r0 + 1.0 + f64::from(j) * (r_ - 1.0) / (n_ - 1.0)) / f64::from(n0 + j + 1))
        .sum()
}
