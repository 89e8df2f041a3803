//! Which images train, which ask, and which are searched.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Error;

/// The stream of random numbers that splits use (docs/architecture.md).
const STREAM: u64 = 1;

/// A part of a data set. No image is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Train, Self::Query, Self::Gallery]
            .into_iter()
            .find(|split| split.to_string() == text)
            .ok_or_else(|| format!("split is `{text}`, expected `train`, `query` or `gallery`"))
    }
}

/// How splits are drawn from a seed: so many queries and training images of each class, the rest is the gallery.
///
/// Source: the paper's protocol for CIFAR-10 (100 queries and 500 training images a class).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Queries of each class.
    pub queries_per_class: usize,
    /// Training images of each class.
    pub train_per_class: usize,
    /// Decides which.
    pub seed: u64,
}

impl Protocol {
    /// Draws the rows of the queries and of the training images, each ascending, from the first label of every row.
    ///
    /// # Errors
    /// [`Error::Split`] if a class does not have that many images.
    pub fn draw(&self, labels: &[u32], class_names: &[String]) -> Result<[Vec<u32>; 2], Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(STREAM);
        let (mut query, mut train) = (Vec::new(), Vec::new());
        for (class, name) in (0..).zip(class_names) {
            let mut rows: Vec<u32> =
                (0..).zip(labels).filter(|&(_, &label)| label == class).map(|(row, _)| row).collect();
            let wanted = self.queries_per_class + self.train_per_class;
            if rows.len() < wanted {
                return Err(Error::Split(format!(
                    "class `{name}` has {} images, the protocol takes {} queries and {} training images of each class, \
                     lower these numbers or add images",
                    rows.len(),
                    self.queries_per_class,
                    self.train_per_class
                )));
            }
            for i in 0..wanted {
                let left = rows.len() - i;
                let chosen = ((u128::from(rng.next_u64()) * left as u128) >> 64) as usize;
                rows.swap(i, i + chosen);
            }
            query.extend_from_slice(&rows[..self.queries_per_class]);
            train.extend_from_slice(&rows[self.queries_per_class..wanted]);
        }
        query.sort_unstable();
        train.sort_unstable();
        Ok([query, train])
    }
}

/// The rows of each split, ascending, disjoint.
#[derive(Debug)]
pub(crate) struct Splits {
    pub(crate) train: Vec<u32>,
    pub(crate) query: Vec<u32>,
    pub(crate) gallery: Vec<u32>,
}

impl Splits {
    /// Makes splits of queries and training images; every other row is the gallery.
    ///
    /// Refuses rows that do not exist, that occur twice, and classes that no training image has.
    pub(crate) fn new(
        query: Vec<u32>,
        train: Vec<u32>,
        n_rows: usize,
        classes_of: &dyn Fn(u32) -> Vec<u32>,
        class_names: &[String],
    ) -> Result<Self, Error> {
        let mut owner: Vec<Option<Split>> = vec![None; n_rows];
        for (split, rows) in [(Split::Query, &query), (Split::Train, &train)] {
            for &row in rows {
                let owner = owner.get_mut(row as usize).ok_or_else(|| {
                    Error::Split(format!("the {split} split has row {row}, the data set has {n_rows} rows"))
                })?;
                if let Some(other) = owner.replace(split) {
                    return Err(Error::Split(format!(
                        "row {row} is in the {other} split and again in the {split} split, expected disjoint splits"
                    )));
                }
            }
        }
        let mut learnt = vec![false; class_names.len()];
        train.iter().flat_map(|&row| classes_of(row)).for_each(|class| learnt[class as usize] = true);
        if let Some(class) = learnt.iter().position(|&learnt| !learnt) {
            return Err(Error::Split(format!(
                "class `{}` has no training image, add some or remove the class",
                class_names[class]
            )));
        }
        let gallery: Vec<u32> =
            (0..).zip(&owner).filter(|(_, owner)| owner.is_none()).map(|(row, _)| row).collect();
        for (split, rows) in [(Split::Query, &query), (Split::Gallery, &gallery)] {
            if rows.is_empty() {
                return Err(Error::Split(format!("the {split} split is empty")));
            }
        }
        let ascending = |mut rows: Vec<u32>| {
            rows.sort_unstable();
            rows
        };
        Ok(Self { train: ascending(train), query: ascending(query), gallery })
    }
}
