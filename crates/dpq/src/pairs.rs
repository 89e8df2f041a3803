//! Pairs of a query and an item that matches it.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use dpq_formats::npy;

/// Reads pairs of rows, int64 [P, 2]: a row of `n_queries`, and one of `n_items`. No pair occurs
/// twice.
pub(crate) fn read(path: &Path, n_queries: usize, n_items: usize) -> Result<Vec<[u32; 2]>> {
    let (file, pairs) = (path.display(), npy::read_matrix::<i64>(path)?);
    let columns = pairs.columns;
    ensure!(columns == 2, "{file} has {columns} columns, expected 2: the row of a query and of an item");
    ensure!(pairs.rows > 0, "{file} has no pair, expected at least one");
    let row = |at: usize, what: &str, n: usize| -> Result<u32> {
        match u32::try_from(pairs.values[at]) {
            Ok(row) if (row as usize) < n => Ok(row),
            _ => {
                let (pair, found) = (at / 2, pairs.values[at]);
                bail!("{file}: pair {pair} names {what} {found}, expected a row from 0 below {n}")
            }
        }
    };
    let pair = |at: usize| Ok([row(2 * at, "query", n_queries)?, row(2 * at + 1, "item", n_items)?]);
    let pairs = (0..pairs.rows).map(pair).collect::<Result<Vec<_>>>()?;
    let mut sorted = pairs.clone();
    sorted.sort_unstable();
    if let Some([[query, item], _]) = sorted.array_windows().find(|[a, b]| a == b) {
        bail!("{file} has the pair of query {query} and item {item} twice, expected each pair once");
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_rows_and_occur_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pairs = |columns: usize, values: &[i64]| {
            npy::write(file.path(), &[values.len() / columns, columns], values).unwrap();
            read(file.path(), 2, 3).map_err(|error| error.to_string())
        };
        assert_eq!(pairs(2, &[1, 2, 0, 0, 1, 0]).unwrap(), [[1, 2], [0, 0], [1, 0]]);
        for (columns, values, expected) in [
            (3, &[0, 0, 0][..], "has 3 columns, expected 2"),
            (2, &[], "has no pair"),
            (2, &[0, 0, 2, 0], "pair 1 names query 2, expected a row from 0 below 2"),
            (2, &[0, 3], "pair 0 names item 3, expected a row from 0 below 3"),
            (2, &[0, -1], "pair 0 names item -1"),
            (2, &[1, 1, 0, 0, 1, 1], "has the pair of query 1 and item 1 twice"),
        ] {
            let error = pairs(columns, values).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
