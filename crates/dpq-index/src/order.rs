//! Sorts the results of a search: runs by score, and ids that share a score.

/// With fewer items than this, buckets cost more time than they save.
const MIN_ITEMS: usize = 256;

/// Sorts items whose keys are spread about evenly, as scores and ids are. One pass puts the items
/// into one or two buckets per item, then each bucket is sorted. The memory is kept between sorts.
#[derive(Default)]
pub(crate) struct Sorter<T> {
    scratch: Vec<T>,
    ends: Vec<u32>,
}

impl<T: Copy> Sorter<T> {
    /// Sorts by ascending `key`; equal keys come in any order. `spread` chooses the buckets: it is
    /// spread about evenly and never descends where `key` ascends.
    pub(crate) fn sort(&mut self, items: &mut [T], key: impl Fn(&T) -> u64, spread: impl Fn(&T) -> u64) {
        if items.len() < MIN_ITEMS || u32::try_from(items.len()).is_err() {
            return items.sort_unstable_by_key(key);
        }
        if items.is_sorted_by_key(&key) {
            return;
        }
        let (min, max) =
            items.iter().map(&spread).fold((u64::MAX, 0), |(min, max), at| (min.min(at), max.max(at)));
        // One to two buckets per item.
        let shift = (u64::BITS - (max - min).leading_zeros()).saturating_sub(items.len().ilog2() + 1);
        let bucket = |item: &T| ((spread(item) - min) >> shift) as usize;
        self.ends.clear();
        self.ends.resize(((max - min) >> shift) as usize + 1, 0);
        items.iter().for_each(|item| self.ends[bucket(item)] += 1);
        let mut start = 0;
        for end in &mut self.ends {
            start += *end;
            *end = start - *end;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(items);
        for item in &self.scratch {
            let slot = &mut self.ends[bucket(item)];
            items[*slot as usize] = *item;
            *slot += 1;
        }
        let mut start = 0;
        for &end in &self.ends {
            let end = end as usize;
            if end - start > 1 {
                items[start..end].sort_unstable_by_key(&key);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_keys_are_sorted() {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 8
        };
        let mut sorter = Sorter::default();
        for n in [0, 1, MIN_ITEMS - 1, MIN_ITEMS, 1000, 5000] {
            for range in [1, 2, 1000, u64::from(u32::MAX), 1 << 56] {
                let mut keys: Vec<u64> = (0..n).map(|_| next() % range).collect();
                // One key far from the others puts these into one bucket.
                keys.extend([u64::MAX].repeat(usize::from(n % 2 == 1)));
                let mut expected = keys.clone();
                expected.sort_unstable();
                sorter.sort(&mut keys, |&key| key, |&key| key);
                assert!(keys == expected, "{n} keys below {range}");
                sorter.sort(&mut keys, |&key| !key, |&key| !key >> 40);
                expected.reverse();
                assert!(keys == expected, "{n} keys below {range}, descending");
            }
        }
    }
}
