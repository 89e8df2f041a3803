//! Augmentation: random changes of training images.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::split::below;
use crate::{Error, ImageShape};

/// The stream of random numbers that augmentation uses (docs/architecture.md).
const STREAM: u64 = 2;

/// Crop, mirror and cutout, decided by a seed.
///
/// Source: random crop and mirror are the paper's protocol; cutout (DeVries and Taylor, 2017) is
/// ours (docs/deviations.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// The number of black pixels added to each side before a crop of the original size at a random
    /// place.
    pub padding: usize,
    /// True to mirror left and right with probability 1/2.
    pub mirror: bool,
    /// The side of a black square around a random pixel, clipped at the borders; 0 for none.
    pub cutout: usize,
    /// The probability of the square, from 0 to 1.
    pub cutout_probability: f32,
}

impl Augment {
    /// Changes an image `[C, H, W]` as `seed` decides.
    ///
    /// # Errors
    /// [`Error::BufferLength`] if `image` does not have the length of `shape`.
    pub fn apply(&self, shape: ImageShape, image: &mut [u8], seed: u64) -> Result<(), Error> {
        shape.check_buffer(image)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        // Every number is drawn whether it is used or not, so that one setting does not change what
        // another one draws.
        let down = below(&mut rng, 2 * self.padding + 1) as isize - self.padding as isize;
        let right = below(&mut rng, 2 * self.padding + 1) as isize - self.padding as isize;
        let mirror = rng.next_u32() & 1 == 1 && self.mirror;
        let cut = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
        let (row, column) = (below(&mut rng, shape.height), below(&mut rng, shape.width));

        for plane in image.chunks_exact_mut(shape.height * shape.width) {
            shift(plane, shape.width, down);
            for line in plane.chunks_exact_mut(shape.width) {
                shift(line, 1, right);
                if mirror {
                    line.reverse();
                }
            }
            if cut < self.cutout_probability {
                let rows = span(row, self.cutout, shape.height);
                for line in plane.chunks_exact_mut(shape.width).take(rows.end).skip(rows.start) {
                    line[span(column, self.cutout, shape.width)].fill(0);
                }
            }
        }
        Ok(())
    }
}

/// Moves `values` by `by` steps of `step` values towards the end and fills the gap with 0.
fn shift(values: &mut [u8], step: usize, by: isize) {
    let n = (by.unsigned_abs() * step).min(values.len());
    let rest = values.len() - n;
    if by >= 0 {
        values.copy_within(..rest, n);
        values[..n].fill(0);
    } else {
        values.copy_within(n.., 0);
        values[rest..].fill(0);
    }
}

/// Returns the part of `0..size` that a square of side `side` around `centre` covers.
fn span(centre: usize, side: usize, size: usize) -> std::ops::Range<usize> {
    let begin = centre.saturating_sub(side / 2);
    begin..(centre + side - side / 2).min(size).max(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 2, height: 5, width: 4 };
    const NONE: Augment = Augment { padding: 0, mirror: false, cutout: 0, cutout_probability: 0.0 };

    fn image() -> Vec<u8> {
        (1..=SHAPE.len() as u8).collect()
    }

    fn apply(augment: Augment, seed: u64) -> Vec<u8> {
        let mut image = image();
        augment.apply(SHAPE, &mut image, seed).unwrap();
        image
    }

    fn pixel(image: &[u8], channel: usize, row: isize, column: isize) -> u8 {
        let inside = (0..5).contains(&row) && (0..4).contains(&column);
        if inside { image[channel * 20 + (row * 4 + column) as usize] } else { 0 }
    }

    #[test]
    fn no_augmentation_changes_nothing() {
        (0..50).for_each(|seed| assert_eq!(apply(NONE, seed), image()));
    }

    #[test]
    fn crops_are_shifts_and_all_of_them_occur() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let changed = apply(Augment { padding: 2, ..NONE }, seed);
            let matches = |down: isize, right: isize| {
                (0..2).all(|c| {
                    (0..5).all(|y| {
                        (0..4).all(|x| pixel(&changed, c, y, x) == pixel(&image(), c, y - down, x - right))
                    })
                })
            };
            let found: Vec<_> = (-2..=2)
                .flat_map(|down| (-2..=2).map(move |right| (down, right)))
                .filter(|&(down, right)| matches(down, right))
                .collect();
            assert_eq!(found.len(), 1, "seed {seed}");
            seen.extend(found);
        }
        assert_eq!(seen.len(), 25);
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let mirrored: Vec<u8> = image().chunks(4).flat_map(|row| row.iter().rev().copied()).collect();
        let n = (0..400)
            .filter(|&seed| {
                let changed = apply(Augment { mirror: true, ..NONE }, seed);
                assert!(changed == mirrored || changed == image());
                changed == mirrored
            })
            .count();
        assert!((160..240).contains(&n), "{n}");
    }

    #[test]
    fn cutout_blackens_one_square_in_all_channels() {
        for seed in 0..200 {
            let changed = apply(Augment { cutout: 3, cutout_probability: 1.0, ..NONE }, seed);
            let black: Vec<_> = (0..20).filter(|&i| changed[i] == 0).collect();
            assert_eq!(black, (0..20).filter(|&i| changed[20 + i] == 0).collect::<Vec<_>>());
            assert!((4..=9).contains(&black.len()), "a square of side 3, cut at a corner to 2 by 2 at most");
            assert!((0..40).all(|i| changed[i] == 0 || changed[i] == image()[i]));
        }
        let often = (0..400)
            .filter(|&seed| apply(Augment { cutout: 3, cutout_probability: 0.25, ..NONE }, seed) != image())
            .count();
        assert!((70..130).contains(&often), "{often}");
    }

    #[test]
    fn a_seed_decides() {
        let all = Augment { padding: 2, mirror: true, cutout: 2, cutout_probability: 0.5 };
        assert_eq!(apply(all, 3), apply(all, 3));
        assert!((0..10).any(|seed| apply(all, seed) != apply(all, 3)));
    }
}
