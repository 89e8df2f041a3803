//! Images of several classes, put together from images of one class each.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::labels::Labels;
use crate::split::below;
use crate::{Dataset, ImageShape, Split};

/// The stream of random numbers that collages use (docs/architecture.md).
const STREAM: u64 = 4;

/// Cells of a collage: two rows of two.
const CELLS: usize = 4;

/// Collages of 2×2 cells, each black or an image of `source`. They are put together when they are read.
#[derive(Debug)]
pub(crate) struct Collages {
    source: Dataset,
    cells: Vec<[Option<u32>; CELLS]>,
}

impl Collages {
    /// Draws collages of one to four distinct classes: how many of them, which ones, where they are, and an image of each,
    /// all uniformly.
    ///
    /// A collage of a split takes images of that split of `source` only, so that no two splits share an image. In one split,
    /// an image may be in several collages. `counts` are those of the training, query and gallery collages, which follow
    /// each other in this order. Every image of `source` has one class.
    pub(crate) fn draw(source: Dataset, counts: [usize; 3], seed: u64) -> Result<(Self, Labels), String> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        let n_classes = source.n_classes();
        if n_classes < CELLS {
            return Err(format!("the source has {n_classes} classes, expected at least {CELLS}"));
        }
        let (mut cells, mut labels) = (vec![], vec![]);
        for (split, count) in [Split::Train, Split::Query, Split::Gallery].into_iter().zip(counts) {
            let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            for &row in source.split(split) {
                match *source.labels(row as usize) {
                    [class] => rows.entry(class).or_default().push(row),
                    _ => return Err("an image of the source has not one class".to_owned()),
                }
            }
            if rows.len() < n_classes {
                return Err(format!("the {split} split of the source lacks images of a class"));
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
        Ok((Self { source, cells }, Labels::new(labels)))
    }

    /// The shape of collages.
    pub(crate) fn shape(&self) -> ImageShape {
        let ImageShape { channels, height, width } = self.source.shape();
        ImageShape { channels, height: 2 * height, width: 2 * width }
    }

    /// Puts a collage together, u8 `[C, 2H, 2W]`.
    pub(crate) fn read(&self, row: usize, out: &mut [u8]) -> Result<(), crate::Error> {
        let ImageShape { channels, height, width } = self.source.shape();
        out.fill(0);
        let mut image = vec![0; self.source.shape().len()];
        for (cell, source) in self.cells[row].iter().enumerate() {
            let Some(source) = source else { continue };
            self.source.read(*source as usize, &mut image)?;
            let (top, left) = (cell / 2 * height, cell % 2 * width);
            for channel in 0..channels {
                for y in 0..height {
                    let from = &image[(channel * height + y) * width..][..width];
                    let to = ((channel * 2 * height) + top + y) * 2 * width + left;
                    out[to..to + width].copy_from_slice(from);
                }
            }
        }
        Ok(())
    }
}
