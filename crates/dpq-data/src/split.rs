//! Splits: training images, queries and gallery.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Error;
use crate::labels::Labels;

/// The streams of random numbers that splits and [`hold_out`] use (docs/architecture.md).
const STREAM: u64 = 1;
const HOLD_OUT_STREAM: u64 = 5;
const UNSEEN_STREAM: u64 = 6;

/// A part of a data set. No query is in another part. Training images are in the gallery only if
/// the protocol says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// Images that the network learns from.
    Train,
    /// Images that are searched for.
    Query,
    /// Images that are searched.
    Gallery,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Query => "query",
            Self::Gallery => "gallery",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Train, Self::Query, Self::Gallery]
            .into_iter()
            .find(|split| split.to_string() == text)
            .ok_or_else(|| Error::UnknownSplit(text.to_owned()))
    }
}

/// How splits are drawn from a seed: the numbers of queries and training images. Other images are
/// the gallery.
///
/// Source: the paper's protocols. CIFAR-10 has 100 queries and 500 training images of each class,
/// NUS-WIDE 5,000 and 10,000 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "ProtocolTable")]
pub struct Protocol {
    /// The number of queries.
    pub queries: usize,
    /// The number of training images.
    pub train: usize,
    /// True if these are numbers per class, which needs images of one class each. False if they are
    /// totals.
    pub per_class: bool,
    /// The number of classes without training images, drawn by the seed; only images of these
    /// classes are queries and gallery. 0 unless learning is to be judged on new classes. Needs
    /// images of one class each.
    ///
    /// Source: Sablayrolles and others, *How should we evaluate supervised hashing?*, 2017.
    pub unseen_classes: usize,
    /// Decides which images are drawn.
    pub seed: u64,
}

/// The keys of `[protocol]`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ProtocolTable {
    queries_per_class: Option<usize>,
    train_per_class: Option<usize>,
    queries: Option<usize>,
    train: Option<usize>,
    #[serde(default)]
    unseen_classes: usize,
    seed: u64,
}

impl TryFrom<ProtocolTable> for Protocol {
    type Error = &'static str;

    fn try_from(table: ProtocolTable) -> Result<Self, Self::Error> {
        let ProtocolTable { queries_per_class, train_per_class, queries, train, unseen_classes, seed } =
            table;
        let (queries, train, per_class) = match (queries_per_class, train_per_class, queries, train) {
            (Some(queries), Some(train), None, None) => (queries, train, true),
            (None, None, Some(queries), Some(train)) => (queries, train, false),
            _ => return Err("expected `queries_per_class` and `train_per_class`, or `queries` and `train`"),
        };
        Ok(Self { queries, train, per_class, unseen_classes, seed })
    }
}

impl Protocol {
    /// True if every image has to have one class.
    pub(crate) fn needs_single_labels(&self) -> bool {
        self.per_class || self.unseen_classes > 0
    }

    /// Draws the rows of each split, ascending. Rows of no split are left over if there are unseen
    /// classes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are too few images or classes.
    pub(crate) fn draw(&self, labels: &Labels, class_names: &[String]) -> Result<Rows, Error> {
        let unseen = self.draw_unseen(class_names.len())?;
        let rows = |keep: &dyn Fn(usize) -> bool| -> Vec<u32> {
            (0..labels.len()).filter(|&row| keep(row)).map(|row| row as u32).collect()
        };
        let class = |row: usize| labels.of(row)[0] as usize;
        // A group of rows, and the numbers of queries and training images to draw from it.
        let numbers = |unseen: Option<bool>| match unseen {
            None => [self.queries, self.train],
            Some(true) => [self.queries, 0],
            Some(false) => [0, self.train],
        };
        let one_group = self.unseen_classes == 0;
        let groups: Vec<(String, Vec<u32>, [usize; 2])> = if self.per_class {
            let of = |(of, name): (usize, &String)| {
                let numbers = numbers((!one_group).then(|| unseen[of]));
                (format!("class `{name}`"), rows(&|row| class(row) == of), numbers)
            };
            class_names.iter().enumerate().map(of).collect()
        } else if one_group {
            vec![("the data set".to_owned(), rows(&|_| true), numbers(None))]
        } else {
            let of = |(name, is): (&str, bool)| {
                (
                    format!("the set of {name} classes"),
                    rows(&|row| unseen[class(row)] == is),
                    numbers(Some(is)),
                )
            };
            [("seen", false), ("unseen", true)].map(of).into()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(STREAM);
        let (mut query, mut train) = (Vec::new(), Vec::new());
        for (name, mut rows, [queries, trained]) in groups {
            let wanted = queries.saturating_add(trained);
            if rows.len() < wanted {
                let n = rows.len();
                let takes =
                    format!("the protocol takes {queries} queries and {trained} training images of it");
                let found = format!("{name} has {n} images, {takes}");
                return Err(Error::invalid(found, "lower these numbers or add images"));
            }
            draw_first(&mut rng, &mut rows, wanted);
            query.extend_from_slice(&rows[..queries]);
            train.extend_from_slice(&rows[queries..wanted]);
        }
        query.sort_unstable();
        train.sort_unstable();
        let gallery = (!one_group)
            .then(|| rows(&|row| unseen[class(row)] && query.binary_search(&(row as u32)).is_err()));
        Ok(Rows { query, train, gallery })
    }

    /// Draws which classes have no training image.
    fn draw_unseen(&self, n_classes: usize) -> Result<Vec<bool>, Error> {
        let n = self.unseen_classes;
        if n > 0 && n >= n_classes {
            let found = format!("{n} unseen classes of {n_classes}");
            return Err(Error::invalid(found, "expected fewer, the others are learnt"));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(UNSEEN_STREAM);
        let mut classes: Vec<u32> = (0..n_classes as u32).collect();
        draw_first(&mut rng, &mut classes, n);
        Ok((0..n_classes as u32).map(|class| classes[..n].contains(&class)).collect())
    }
}

/// The rows of splits before they are checked.
pub(crate) struct Rows {
    pub(crate) query: Vec<u32>,
    pub(crate) train: Vec<u32>,
    /// None if the gallery is every other row.
    pub(crate) gallery: Option<Vec<u32>>,
}

/// Draws `n` of `rows`, for example training images for validation. Returns the rows that remain
/// and the rows that were drawn, each ascending.
///
/// # Errors
/// [`Error::HoldOut`] if no row would remain.
pub fn hold_out(rows: &[u32], n: usize, seed: u64) -> Result<[Vec<u32>; 2], Error> {
    if n > 0 && n >= rows.len() {
        return Err(Error::HoldOut(n, rows.len()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(HOLD_OUT_STREAM);
    let mut rows = rows.to_vec();
    draw_first(&mut rng, &mut rows, n);
    let mut rest = rows.split_off(n);
    rest.sort_unstable();
    rows.sort_unstable();
    Ok([rest, rows])
}

/// Moves `n` rows, drawn at random, to the front.
fn draw_first(rng: &mut ChaCha8Rng, rows: &mut [u32], n: usize) {
    for i in 0..n {
        let chosen = below(rng, rows.len() - i);
        rows.swap(i, i + chosen);
    }
}

/// Draws a number below `n`.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// The rows of each split, in the order of [`Split`], ascending. No query is in another split, and
/// no training image is in the gallery unless asked for.
#[derive(Debug)]
pub(crate) struct Splits([Vec<u32>; 3]);

impl Splits {
    /// Makes splits of queries and training images. Every other row is the gallery, unless `rows`
    /// name it. With `train_in_gallery` the training images are in the gallery too.
    ///
    /// Refuses rows that do not exist, that occur twice, and classes that no training image has
    /// unless the gallery is named.
    pub(crate) fn new(
        rows: Rows,
        train_in_gallery: bool,
        labels: &Labels,
        class_names: &[String],
    ) -> Result<Self, Error> {
        let (n_rows, Rows { query, train, gallery }) = (labels.len(), rows);
        let mut owner: Vec<Option<Split>> = vec![None; n_rows];
        let named = gallery.iter().map(|rows| (Split::Gallery, rows));
        for (split, rows) in [(Split::Query, &query), (Split::Train, &train)].into_iter().chain(named) {
            for &row in rows {
                let owner = owner.get_mut(row as usize).ok_or_else(|| {
                    let found = format!("the {split} split has row {row}");
                    Error::invalid(found, format!("the data set has {n_rows} rows"))
                })?;
                if let Some(other) = owner.replace(split) {
                    let found = format!("row {row} is in the {other} split and again in the {split} split");
                    return Err(Error::invalid(found, "expected disjoint splits"));
                }
            }
        }
        let mut learnt = vec![false; class_names.len()];
        train
            .iter()
            .flat_map(|&row| labels.of(row as usize))
            .for_each(|&class| learnt[class as usize] = true);
        if let (None, Some(class)) = (&gallery, learnt.iter().position(|&learnt| !learnt)) {
            let found = format!("class `{}` has no training image", class_names[class]);
            return Err(Error::invalid(found, "add some or remove the class"));
        }
        let other = |owner: Option<Split>| match owner {
            None => gallery.is_none(),
            Some(Split::Train) => train_in_gallery,
            Some(owner) => owner == Split::Gallery,
        };
        let gallery: Vec<u32> =
            (0..).zip(owner).filter(|&(_, owner)| other(owner)).map(|(row, _)| row).collect();
        for (split, rows) in [(Split::Query, &query), (Split::Gallery, &gallery)] {
            if rows.is_empty() {
                return Err(Error::invalid(format!("the {split} split is empty"), "expected images"));
            }
        }
        let ascending = |mut rows: Vec<u32>| {
            rows.sort_unstable();
            rows
        };
        Ok(Self([ascending(train), ascending(query), gallery]))
    }

    pub(crate) fn rows(&self, split: Split) -> &[u32] {
        &self.0[split as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_rows_are_drawn_by_the_seed_and_removed_from_the_rest() {
        let rows: Vec<u32> = (0..100).map(|row| 3 * row).collect();
        let [rest, held] = hold_out(&rows, 20, 1).unwrap();
        assert_eq!((rest.len(), held.len()), (80, 20));
        assert!(rest.is_sorted() && held.is_sorted());
        let mut all = [rest.clone(), held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        assert_eq!(hold_out(&rows, 20, 1).unwrap(), [rest, held.clone()]);
        assert_ne!(hold_out(&rows, 20, 2).unwrap()[1], held);
        assert_eq!(hold_out(&rows, 0, 1).unwrap(), [rows.clone(), vec![]]);
        let error = hold_out(&rows, 100, 1).unwrap_err().to_string();
        assert!(error.ends_with("cannot hold out 100 of 100 training images, expected fewer"), "{error}");
    }
}
