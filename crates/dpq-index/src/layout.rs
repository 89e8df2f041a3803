//! The contents of a version-1 file: its sections with their types and shapes, and its metadata.
//!
//! Items are sorted by code bytes, then by id. If there are fewer than half as many distinct codes
//! as items, a *position* is a distinct code, and `starts` gives its items. Otherwise a position is
//! an item. All numbers are little-endian, and nothing is aligned. The sections are listed in
//! docs/formats.md.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::str::FromStr;

use dpq_codebook::{Assignment, Codebooks};
use dpq_file::Dtype;

use crate::Error;
use crate::norms::Quantizer;

pub(crate) const FORMAT: &str = "dpq-index";
pub(crate) const VERSION: &str = "1";
/// The number of items that share an entry of `id_min`.
pub(crate) const ID_BLOCK: usize = 256;
/// The maximum number of codes in `sample`.
const SAMPLE: usize = 65_536;

/// The score that an index ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The inner product ⟨q, x̂⟩ of the query and the reconstruction of the item at the length
    /// searched.
    InnerProduct,
    /// 2⟨q, x̂⟩ − ‖x̂‖², which is ‖q‖² minus the squared distance
    /// ([`Index::squared_distances`](crate::Index::squared_distances)).
    Euclidean,
}

impl Display for Metric {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InnerProduct => "ip",
            Self::Euclidean => "l2",
        })
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "ip" => Ok(Self::InnerProduct),
            "l2" => Ok(Self::Euclidean),
            _ => Err(Error::Metric(name.to_owned())),
        }
    }
}

/// The numbers that determine the sections of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) metric: Metric,
    pub(crate) n_items: usize,
    pub(crate) n_distinct: usize,
    pub(crate) n_levels: usize,
    pub(crate) n_codewords: usize,
    pub(crate) dim: usize,
}

/// The element types that a section may have.
type Dtypes = &'static [Dtype];
const BYTES: Dtypes = &[Dtype::U8];
const FLOATS: Dtypes = &[Dtype::F32];
/// U32 when all values fit, else U64.
const INTEGERS: Dtypes = &[Dtype::U32, Dtype::U64];

impl Layout {
    pub(crate) fn new(metric: Metric, codebooks: &Codebooks, n_items: usize, n_distinct: usize) -> Self {
        let (n_levels, n_codewords) = (codebooks.n_levels(), codebooks.n_codewords());
        Self { metric, n_items, n_distinct, n_levels, n_codewords, dim: codebooks.dim() }
    }

    /// Returns true if positions are distinct codes, and `starts` exists.
    pub(crate) fn has_starts(&self) -> bool {
        self.n_distinct < self.n_items.div_ceil(2)
    }

    pub(crate) fn n_positions(&self) -> usize {
        if self.has_starts() { self.n_distinct } else { self.n_items }
    }

    pub(crate) fn n_cells(&self) -> usize {
        if self.n_levels == 1 { 256 } else { 65_536 }
    }

    /// Returns the positions in `sample`, ascending.
    pub(crate) fn sample(&self) -> impl Iterator<Item = usize> + use<> {
        let n_positions = self.n_positions();
        let n_sampled = n_positions.min(SAMPLE);
        (0..n_sampled).map(move |i| (i as u128 * n_positions as u128 / n_sampled as u128) as usize)
    }

    /// Returns the lengths, in levels, that have a `cross` section.
    pub(crate) fn cross_lengths(&self) -> std::ops::RangeInclusive<usize> {
        let longest = if self.metric == Metric::Euclidean { self.n_levels } else { 0 };
        3..=longest
    }

    /// Returns the name, possible types and shape of every section.
    pub(crate) fn sections(&self) -> Vec<(String, Dtypes, Vec<usize>)> {
        let (n_positions, k) = (self.n_positions(), self.n_codewords);
        let mut sections = vec![
            ("codebook".to_owned(), FLOATS, vec![self.n_levels, k, self.dim]),
            ("cells".to_owned(), INTEGERS, vec![self.n_cells() + 1]),
            ("ids".to_owned(), INTEGERS, vec![self.n_items]),
            ("id_min".to_owned(), INTEGERS, vec![self.n_items.div_ceil(ID_BLOCK)]),
            ("sample".to_owned(), BYTES, vec![n_positions.min(SAMPLE), self.n_levels]),
        ];
        sections.extend((1..self.n_levels).map(|level| (plane_name(level), BYTES, vec![n_positions])));
        if self.has_starts() {
            sections.push(("starts".to_owned(), INTEGERS, vec![n_positions + 1]));
        }
        if self.metric == Metric::Euclidean {
            let n_pairs = self.n_levels * (self.n_levels - 1) / 2;
            sections.push(("gram".to_owned(), FLOATS, vec![n_pairs, k, k]));
        }
        sections.extend(self.cross_lengths().map(|n| (cross_name(n), BYTES, vec![n_positions])));
        sections
    }

    /// Returns the metadata of the file, without the checksums that the container adds.
    pub(crate) fn metadata(
        &self,
        fingerprint: &str,
        assignment: Assignment,
        cross: &[Quantizer],
    ) -> BTreeMap<String, String> {
        let mut metadata: BTreeMap<String, String> = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("metric", self.metric.to_string()),
            ("items", self.n_items.to_string()),
            ("distinct", self.n_distinct.to_string()),
            ("fingerprint", fingerprint.to_owned()),
            ("assignment", assignment.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for (n, quantizer) in self.cross_lengths().zip(cross) {
            metadata.insert(format!("cross.{n}.min"), quantizer.min.to_string());
            metadata.insert(format!("cross.{n}.step"), quantizer.step.to_string());
        }
        metadata
    }
}

pub(crate) fn plane_name(level: usize) -> String {
    format!("plane.{level}")
}

pub(crate) fn cross_name(n_levels: usize) -> String {
    format!("cross.{n_levels}")
}
