//! Sorts items by code bytes, then by id: a radix sort of row numbers, least significant byte
//! first.
//!
//! Every pass is stable. The passes over the bytes of ids come first and those over the bytes of
//! codes last, so ids ascend within equal codes. The memory is two arrays of row numbers, whatever
//! the length of the codes. At four levels, `std`'s unstable sort of packed codes takes 1.7 to 3
//! times as long.

use crate::Error;

/// A row number: four bytes for up to 2³² items, else eight.
pub(crate) trait Row: Copy + Sync {
    fn new(row: usize) -> Self;
    fn get(self) -> usize;
}

impl Row for u32 {
    fn new(row: usize) -> Self {
        row as u32
    }
    fn get(self) -> usize {
        self as usize
    }
}

impl Row for u64 {
    fn new(row: usize) -> Self {
        row as u64
    }
    fn get(self) -> usize {
        self as usize
    }
}

/// Returns the row numbers of `codes` (row-major `[N, L]`, L = `n_levels`) sorted by code bytes,
/// then by id.
///
/// Without `ids`, row numbers are the ids. Refuses the smallest id that is given twice. Ends with
/// the error of `go_on`, which it calls between passes.
pub(crate) fn sorted_rows<R: Row>(
    codes: &[u8],
    n_levels: usize,
    ids: Option<&[u64]>,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<Vec<R>, Error> {
    go_on()?;
    let n_items = codes.len() / n_levels;
    let mut rows: Vec<R> = match ids.filter(|ids| !ids.is_sorted_by(|a, b| a < b)) {
        None => (0..n_items).map(R::new).collect(),
        Some(ids) => {
            let rows: Vec<R> = rows_by_id(n_items, |row| ids[row]);
            if let Some(pair) = rows.windows(2).find(|pair| ids[pair[0].get()] == ids[pair[1].get()]) {
                return Err(Error::DuplicateId { id: ids[pair[0].get()] });
            }
            rows
        }
    };
    let mut scratch = rows.clone();
    for level in (0..n_levels).rev() {
        go_on()?;
        pass(&mut rows, &mut scratch, |row| codes[row * n_levels + level]);
    }
    Ok(rows)
}

/// Returns the row numbers sorted by id.
pub(crate) fn rows_by_id<R: Row>(n_items: usize, id: impl Fn(usize) -> u64) -> Vec<R> {
    let mut rows: Vec<R> = (0..n_items).map(R::new).collect();
    let mut scratch = rows.clone();
    for byte in 0..8 {
        pass(&mut rows, &mut scratch, |row| id(row).to_le_bytes()[byte]);
    }
    rows
}

/// Sorts `rows` by one byte of each, stably. `scratch` is as long as `rows`.
fn pass<R: Row>(rows: &mut Vec<R>, scratch: &mut Vec<R>, byte: impl Fn(usize) -> u8) {
    let mut counts = [0; 256];
    // Counts do not depend on the order of rows, and this order reads memory from front to back.
    for row in 0..rows.len() {
        counts[usize::from(byte(row))] += 1;
    }
    if counts.contains(&rows.len()) {
        return;
    }
    let mut next = 0;
    let mut slots = counts.map(|count| {
        next += count;
        next - count
    });
    for &row in rows.iter() {
        let slot = &mut slots[usize::from(byte(row.get()))];
        scratch[*slot] = row;
        *slot += 1;
    }
    std::mem::swap(rows, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Row>(codes: &[u8], n_levels: usize, ids: Option<&[u64]>) -> Vec<usize> {
        sorted_rows::<R>(codes, n_levels, ids, || Ok(())).unwrap().into_iter().map(Row::get).collect()
    }

    #[test]
    fn equal_codes_are_ordered_by_id() {
        let codes = [[9, 1], [0, 2], [9, 1], [0, 1], [9, 0]].concat();
        let ids = [300, 7, 2, 1 << 40, 0];
        assert_eq!(check::<u32>(&codes, 2, Some(&ids)), [3, 1, 4, 2, 0]);
        assert_eq!(check::<u64>(&codes, 2, Some(&ids)), [3, 1, 4, 2, 0]);
        assert_eq!(check::<u32>(&codes, 2, None), [3, 1, 4, 0, 2]);
        assert!(check::<u32>(&[], 2, Some(&[])).is_empty());
    }

    #[test]
    fn a_sort_ends_between_two_passes() {
        let passes = std::cell::Cell::new(0);
        let go_on = || match passes.replace(passes.get() + 1) {
            2 => Err(Error::Interrupted),
            _ => Ok(()),
        };
        let error = sorted_rows::<u32>(&[0; 40], 10, None, go_on).unwrap_err();
        assert!(matches!(error, Error::Interrupted));
        assert_eq!(passes.get(), 3);
    }

    #[test]
    fn a_duplicate_id_is_named() {
        let error = sorted_rows::<u32>(&[1, 2, 3, 4], 1, Some(&[5, 9, 7, 9]), || Ok(())).unwrap_err();
        assert!(matches!(error, Error::DuplicateId { id: 9 }));
    }
}
