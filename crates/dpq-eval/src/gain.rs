//! Mean reciprocal rank and discounted cumulative gain from tie groups, in expectation over all
//! orders of tied items.
//!
//! In a group of n items, r of them relevant, the item at each place is relevant with probability
//! r / n. The first relevant item is at place j, from 1, with probability
//! `C(n − j, r − 1) / C(n, r)`.

use crate::Ranking;

/// Places after the first whose probability is below this are left out. Probabilities fall so fast
/// by then that all of them together change no digit of the result.
const NEGLIGIBLE: f64 = 1e-17;

/// The discounts of normalised discounted cumulative gain: `Σ_{i=1..k} 1 / log2(1 + i)` for each
/// number of ranks k up to a cut-off.
#[derive(Debug, Clone)]
pub(crate) struct Discounts(Vec<f64>);

impl Discounts {
    pub(crate) fn new(cutoff: usize) -> Self {
        let mut sum = 0.0;
        let next = |rank: usize| {
            sum += 1.0 / (1.0 + rank as f64).log2();
            sum
        };
        Self([0.0].into_iter().chain((1..=cutoff).map(next)).collect())
    }

    /// Returns the gain within the first `cutoff` ranks over that of a perfect ranking; 0 without
    /// relevant items. The gain of a relevant item at rank i is 1 / log2(1 + i).
    pub(crate) fn ndcg(&self, ranking: &Ranking, cutoff: usize) -> f64 {
        let within = |ranks: u32| self.0[cutoff.min(ranks as usize)];
        let groups = ranking.groups.iter().take_while(|group| (group.n_before as usize) < cutoff);
        let gain: f64 = groups
            .map(|group| {
                f64::from(group.relevant) / f64::from(group.size)
                    * (within(group.end()) - within(group.n_before))
            })
            .sum();
        match self.0[cutoff.min(ranking.n_relevant())] {
            0.0 => 0.0,
            ideal => gain / ideal,
        }
    }
}

/// Returns the expectation of 1 / rank of the first relevant item; 0 if none is ranked.
pub(crate) fn reciprocal_rank(ranking: &Ranking) -> f64 {
    let Some(group) = ranking.groups.first() else { return 0.0 };
    let [n, r] = [group.size, group.relevant].map(f64::from);
    let (mut probability, mut sum) = (r / n, 0.0);
    for place in 1..=group.size - group.relevant + 1 {
        sum += probability / f64::from(group.n_before + place);
        // The items after this place are n − j, those without the relevant ones n − j − r + 1.
        let rest = n - f64::from(place);
        probability *= (rest - r + 1.0) / rest;
        if probability < NEGLIGIBLE {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In large groups, most places are left out.
    #[test]
    fn what_is_left_out_changes_no_digit() {
        for (size, relevant) in
            [(10u32, 3u32), (1000, 1), (1000, 2), (100_000, 2), (100_000, 300), (1 << 20, 1 << 18)]
        {
            for n_before in [0u32, 7, 1 << 16] {
                let before = (0..n_before).map(|id| (u64::from(id), 1.0, false));
                let group = (0..size).map(|id| (u64::from(n_before + id), 0.0, id < relevant));
                let ranking = Ranking::new(before.chain(group), relevant as usize, None).unwrap();
                let [n, r] = [size, relevant].map(f64::from);
                let (mut probability, mut expected, mut total) = (r / n, 0.0, 0.0);
                for place in 1..=size - relevant + 1 {
                    expected += probability / f64::from(n_before + place);
                    total += probability;
                    let rest = n - f64::from(place);
                    probability *= (rest - r + 1.0) / rest;
                }
                assert!((total - 1.0).abs() < 1e-9, "{size} {relevant}: {total}");
                let found = reciprocal_rank(&ranking);
                assert!(
                    (found - expected).abs() <= 1e-15 * expected,
                    "{size} {relevant}: {found} {expected}"
                );
            }
        }
    }
}
