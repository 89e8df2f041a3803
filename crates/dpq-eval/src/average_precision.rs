//! Average precision from tie groups.
//!
//! Notation: a span is a run of `m` places after `n0` ranks that contain `r0` relevant items; the
//! span contains `h` relevant items. The sum of the precisions at these h items is, with `D(a, k) =
//! Σ_{i=1..k} 1 / (a + i)`,
//!
//! - relevant items first: `Σ_{i=1..h} (r0 + i) / (n0 + i) = h − (n0 − r0) · D(n0, h)`;
//! - relevant items last: the same after `n0 + m − h` ranks;
//! - in expectation over all orders: an item at place j is relevant with probability h / m and then
//!   has `(j − 1) · s`, `s = (h − 1) / (m − 1)`, relevant items of the span before it, so the sum
//!   is `(h / m) · Σ_j (r0 + 1 + (j − 1) s) / (n0 + j) = (h / m) · (s m + (r0 + 1 − s (n0 + 1)) ·
//!   D(n0, m))`.
//!
//! A tie group is a span that contains all its items. A cut-off inside a group cuts a span of m
//! places from its n items, r of them relevant: h is then hypergeometric, and given h its places
//! are uniform in the span. Rounding changes an average precision by less than 1e-12.

use std::borrow::Cow;

use crate::ranking::Group;
use crate::{Denominator, EmptyQuery, MapRule, Ranking, Ties};

impl MapRule {
    /// Returns the average precision of one ranking under this rule; `None` if the rule skips the
    /// query.
    pub fn average_precision(&self, ranking: &Ranking) -> Option<f64> {
        let ranking = if self.exclude_self { ranking.without_query() } else { Cow::Borrowed(ranking) };
        self.average_precision_as_given(&ranking)
    }

    /// Returns the average precision, whatever `exclude_self` says.
    pub(crate) fn average_precision_as_given(&self, ranking: &Ranking) -> Option<f64> {
        if ranking.n_relevant() == 0 {
            return match self.empty {
                EmptyQuery::Skip => None,
                EmptyQuery::Zero => Some(0.0),
            };
        }
        // The number of items fits u32, so the minimum does.
        let cutoff = self.cutoff.unwrap_or(usize::MAX).min(ranking.len()) as u32;
        let sum_of_precisions = match self.ties {
            Ties::ById => return Some(self.by_id(ranking, cutoff)),
            Ties::Expectation => in_expectation,
            Ties::Minimum => relevant_last,
            Ties::Maximum => relevant_first,
        };

        let n_whole = ranking.groups.partition_point(|group| group.end() <= cutoff);
        let (whole, rest) = ranking.groups.split_at(n_whole);
        let sum: f64 = whole
            .iter()
            .map(|&Group { n_before, size, relevant_before, relevant }| {
                if size == 1 {
                    // The usual group where scores are fine: a single order.
                    return (f64::from(relevant_before) + 1.0) / (f64::from(n_before) + 1.0);
                }
                sum_of_precisions(n_before, relevant_before, size, relevant)
            })
            .sum();
        let found = whole.last().map_or(0, |group| group.relevant_before + group.relevant);

        let Some(&Group { n_before, size, relevant, .. }) =
            rest.first().filter(|group| group.n_before < cutoff)
        else {
            return Some(self.divide(sum, found, ranking));
        };
        let places = cutoff - n_before;
        let value = |h| self.divide(sum + sum_of_precisions(n_before, found, places, h), found + h, ranking);
        let (min, max) = (places.saturating_sub(size - relevant), places.min(relevant));
        Some(match self.ties {
            Ties::Minimum => value(minimize(min, max, value)),
            // The precisions of items put first rise from one to the next (r0 ≤ n0). So divided by
            // the number retrieved, their mean falls until a precision exceeds it, then rises: the
            // maximum is at an end.
            Ties::Maximum => value(min).max(value(max)),
            Ties::Expectation | Ties::ById => hypergeometric_mean(size, relevant, places, value),
        })
    }

    fn by_id(&self, ranking: &Ranking, cutoff: u32) -> f64 {
        let ranks = &ranking.relevant_ranks;
        let found = ranks.partition_point(|&rank| rank < cutoff);
        let sum =
            (1_u32..).zip(&ranks[..found]).map(|(i, &rank)| f64::from(i) / (f64::from(rank) + 1.0)).sum();
        self.divide(sum, found as u32, ranking)
    }

    /// Divides a sum of precisions by the denominator of the rule; 0 if nothing is found, under
    /// every denominator.
    fn divide(&self, sum: f64, found: u32, ranking: &Ranking) -> f64 {
        if found == 0 {
            return 0.0;
        }
        sum / match self.denominator {
            Denominator::Retrieved => f64::from(found),
            Denominator::All => ranking.n_relevant() as f64,
            Denominator::MinCutoff => self.cutoff.unwrap_or(usize::MAX).min(ranking.n_relevant()) as f64,
        }
    }
}

fn relevant_first(n0: u32, r0: u32, _m: u32, h: u32) -> f64 {
    f64::from(h) - f64::from(n0 - r0) * harmonic_difference(n0, h)
}

fn relevant_last(n0: u32, r0: u32, m: u32, h: u32) -> f64 {
    relevant_first(n0 + (m - h), r0, h, h)
}

fn in_expectation(n0: u32, r0: u32, m: u32, h: u32) -> f64 {
    let (n1, r1, m_, h_) = (f64::from(n0) + 1.0, f64::from(r0) + 1.0, f64::from(m), f64::from(h));
    if h == 0 {
        return 0.0;
    }
    if m == 1 {
        return r1 / n1;
    }
    let s = (h_ - 1.0) / (m_ - 1.0);
    h_ / m_ * (s * m_ + (r1 - s * n1) * harmonic_difference(n0, m))
}

/// `Σ_{i=1..k} 1 / (a + i)`, to a relative error below 1e-13.
///
/// A few terms are added one by one. Many terms come from the asymptotic series `ln n + 1/(2n) −
/// 1/(12n²) + 1/(120n⁴) − 1/(252n⁶)` of the harmonic numbers, whose next term is below 4e-15 from n
/// = 32 on.
fn harmonic_difference(a: u32, k: u32) -> f64 {
    let direct = if k <= 16 { k } else { k.min(32_u32.saturating_sub(a)) };
    let sum: f64 = (1..=direct).map(|i| 1.0 / (f64::from(a) + f64::from(i))).sum();
    if direct == k {
        return sum;
    }
    let from = f64::from(a) + f64::from(direct);
    let to = f64::from(a) + f64::from(k);
    let series = |n: f64| {
        let q = 1.0 / (n * n);
        0.5 / n - q * (1.0 / 12.0 - q * (1.0 / 120.0 - q / 252.0))
    };
    sum + ((to - from) / from).ln_1p() + series(to) - series(from)
}

/// The h in `min..=max` at which `value` is smallest, for a value that falls and then rises.
///
/// With relevant items last, one more of them adds the precision at its place and raises those
/// after it: the steps of the sum grow with h. So divided by a constant the value only rises;
/// divided by the number retrieved it is a mean that falls until a step exceeds it. The turning
/// point may be anywhere, hence the search.
fn minimize(min: u32, max: u32, value: impl Fn(u32) -> f64) -> u32 {
    let (mut low, mut high) = (min, max);
    while low < high {
        let middle = low + (high - low) / 2;
        if value(middle + 1) < value(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// The mean of `value(h)`, where h is the number of relevant items among `m` drawn from `n` items,
/// `r` of them relevant.
///
/// Weights run from the mode outwards by the ratio of neighbours, so nothing overflows and no
/// logarithms are needed. They fall faster than geometrically: all beyond a weight of 1e-20 of the
/// mode's add up to less than 1e-17 of the whole.
fn hypergeometric_mean(n: u32, r: u32, m: u32, value: impl Fn(u32) -> f64) -> f64 {
    const NEGLIGIBLE: f64 = 1e-20;
    let (min, max) = (m.saturating_sub(n - r), m.min(r));
    let mode = ((u64::from(m) + 1) * (u64::from(r) + 1) / (u64::from(n) + 2)) as u32;
    let mode = mode.clamp(min, max);
    // Probability of h + 1 over probability of h.
    let ratio = |h: u32| {
        let missing = f64::from(n - r) - f64::from(m) + f64::from(h);
        f64::from(r - h) * f64::from(m - h) / ((f64::from(h) + 1.0) * (missing + 1.0))
    };

    let (mut weights, mut sum) = (1.0, value(mode));
    let mut add = |weight: f64, h| {
        weights += weight;
        sum += weight * value(h);
    };
    let mut weight = 1.0;
    for h in mode + 1..=max {
        weight *= ratio(h - 1);
        if weight < NEGLIGIBLE {
            break;
        }
        add(weight, h);
    }
    weight = 1.0;
    for h in (min..mode).rev() {
        weight /= ratio(h);
        if weight < NEGLIGIBLE {
            break;
        }
        add(weight, h);
    }
    sum / weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmonic_differences_equal_their_sums() {
        for a in [0, 1, 15, 16, 31, 32, 33, 1_000, 64_000] {
            for k in [0, 1, 2, 16, 17, 18, 33, 1_000, 64_000] {
                // Smallest terms first, so that the reference itself is accurate to a few units.
                let sum: f64 = (1..=k).rev().map(|i| 1.0 / f64::from(a + i)).sum();
                let got = harmonic_difference(a, k);
                assert!((got - sum).abs() <= 1e-13 * sum, "D({a}, {k}): {got} is not {sum}");
            }
        }
    }

    #[test]
    fn hypergeometric_mean_equals_the_full_sum() {
        let ln_factorials: Vec<f64> = std::iter::once(0.0)
            .chain((1..=64_000).scan(0.0, |sum, i| {
                *sum += f64::from(i).ln();
                Some(*sum)
            }))
            .collect();
        let ln_choose = |n: u32, k: u32| {
            ln_factorials[n as usize] - ln_factorials[k as usize] - ln_factorials[(n - k) as usize]
        };
        let f = |h: u32| 1.0 / (f64::from(h) + 3.0);
        for (n, r, m) in
            [(1, 1, 1), (5, 2, 4), (64_000, 6_400, 5_000), (64_000, 63_990, 31), (64_000, 32_000, 32_000)]
        {
            let (fewest, most) = (m - u32::min(m, n - r), u32::min(m, r));
            let full: f64 = (fewest..=most)
                .map(|h| (ln_choose(r, h) + ln_choose(n - r, m - h) - ln_choose(n, m)).exp() * f(h))
                .sum();
            // The reference carries the error of exponentiating logarithms of order 1e6.
            let got = hypergeometric_mean(n, r, m, f);
            assert!((got - full).abs() <= 1e-8 * full, "({n}, {r}, {m}): {got} is not {full}");
            let mean = hypergeometric_mean(n, r, m, f64::from);
            let expected = f64::from(m) * f64::from(r) / f64::from(n);
            assert!((mean - expected).abs() <= 1e-12 * expected, "({n}, {r}, {m}): {mean} is not {expected}");
        }
    }
}
