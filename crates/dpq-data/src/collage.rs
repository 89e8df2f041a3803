//! The drawing of collages: images of several classes, put together from images of one class each.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::labels::Labels;
use crate::split::{Splits, below};
use crate::{Error, Split};

/// The stream of random numbers that collages use (docs/architecture.md).
const STREAM: u64 = 4;

/// The cells of a collage: two rows of two.
const CELLS: usize = 4;

/// The row of the source in each cell of a collage.
type Cells = [Option<u32>; CELLS];

/// Draws collages of one to four distinct classes: their number, the classes, their cells, and an
/// image of each class, all uniformly. Returns the row of the source in each cell, and the classes
/// of each collage.
///
/// A collage of a split takes images of that split of the source only, so that no two splits share
/// an image. Within a split an image may be in several collages. `counts` are those of training,
/// query and gallery collages, which follow each other in this order.
pub(crate) fn draw(
    source_labels: &Labels,
    source_splits: &Splits,
    n_classes: usize,
    counts: [usize; 3],
    seed: u64,
) -> Result<(Vec<Cells>, Labels), Error> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(STREAM);
    if n_classes < CELLS {
        return Err(Error::invalid(format!("the source has {n_classes} classes"), "expected at least 4"));
    }
    let (mut cells, mut labels) = (vec![], vec![]);
    for (split, count) in [Split::Train, Split::Query, Split::Gallery].into_iter().zip(counts) {
        let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &row in source_splits.rows(split) {
            match *source_labels.of(row as usize) {
                [class] => rows.entry(class).or_default().push(row),
                ref classes => {
                    let found = format!("row {row} of the source has {} classes", classes.len());
                    return Err(Error::invalid(found, "expected one"));
                }
            }
        }
        if rows.len() < n_classes {
            let found = format!("the {split} split of the source lacks images of a class");
            return Err(Error::invalid(found, "expected images of all classes"));
        }
        for _ in 0..count {
            let mut classes: Vec<u32> = (0..n_classes as u32).collect();
            let mut places = [0, 1, 2, 3];
            let n = 1 + below(&mut rng, CELLS);
            let mut collage = [None; CELLS];
            for i in 0..n {
                classes.swap(i, i + below(&mut rng, n_classes - i));
                places.swap(i, i + below(&mut rng, CELLS - i));
                let own = &rows[&classes[i]];
                collage[places[i]] = Some(own[below(&mut rng, own.len())]);
            }
            classes.truncate(n);
            labels.push(classes);
            cells.push(collage);
        }
    }
    Ok((cells, Labels::new(labels)))
}
