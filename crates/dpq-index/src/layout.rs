//! The contents of a file: its sections with their types and shapes, and its metadata.
//!
//! Inner-product indexes have version 1, Euclidean ones version 2, whose norms replace the cross
//! terms of version 1. Indexes of product codebooks have version 3, which needs neither.
//!
//! Items are sorted by code bytes, then by id. If there are fewer than half as many distinct codes
//! as items, a *position* is a distinct code, and `starts` gives its items. Otherwise a position is
//! an item. All numbers are little-endian, and nothing is aligned. The sections are listed in
//! docs/formats.md.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::str::FromStr;

use dpq_codebook::{CodeLength, Codebooks, Form};
use dpq_file::Dtype;

use crate::Error;
use crate::norms::MODELLED;

pub(crate) const FORMAT: &str = "dpq-index";
/// The number of items that share an entry of `id_min`.
pub(crate) const ID_BLOCK: usize = 256;
/// The maximum number of codes in `sample`.
const SAMPLE: usize = 65_536;

/// The score that an index ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// 1 to 3.
    pub(crate) version: u8,
    pub(crate) metric: Metric,
    /// The lengths of three levels or more that the file has norms for, ascending.
    pub(crate) norm_lengths: Vec<CodeLength>,
    pub(crate) n_items: usize,
    pub(crate) n_distinct: usize,
    pub(crate) n_levels: usize,
    pub(crate) n_codewords: usize,
    /// The number of values of a codeword.
    pub(crate) width: usize,
}

/// The element types that a section may have.
type Dtypes = &'static [Dtype];
const BYTES: Dtypes = &[Dtype::U8];
const FLOATS: Dtypes = &[Dtype::F32];
/// The narrowest that all values fit; version 1 has no U16.
const INTEGERS: Dtypes = &[Dtype::U32, Dtype::U64, Dtype::U16];

impl Layout {
    /// Returns the layout of a new file, which has norms for `lengths`.
    pub(crate) fn new(
        metric: Metric,
        codebooks: &Codebooks,
        n_items: usize,
        n_distinct: usize,
        lengths: &[CodeLength],
    ) -> Self {
        let [n_levels, n_codewords, width] = codebooks.shape();
        let version = Self::current_version(metric, codebooks.form());
        let mut norm_lengths = lengths.to_vec();
        norm_lengths.retain(|length| version == 2 && length.levels() >= 3);
        norm_lengths.sort_unstable();
        norm_lengths.dedup();
        Self { version, metric, norm_lengths, n_items, n_distinct, n_levels, n_codewords, width }
    }

    /// Returns the version of new files.
    pub(crate) fn current_version(metric: Metric, form: Form) -> u8 {
        match (form, metric) {
            (Form::Product, _) => 3,
            (Form::Progressive, Metric::Euclidean) => 2,
            (Form::Progressive, Metric::InnerProduct) => 1,
        }
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

    /// Returns the number of codes in `sample`.
    pub(crate) fn n_sampled(&self) -> usize {
        self.n_positions().min(SAMPLE)
    }

    /// Returns the position of the sampled code `i`: they ascend evenly.
    pub(crate) fn sample(&self, i: usize) -> usize {
        (i as u128 * self.n_positions() as u128 / self.n_sampled() as u128) as usize
    }

    /// Returns true if `sample` exists. From version 2 on, a sample of all codes is none.
    pub(crate) fn has_sample(&self) -> bool {
        self.version == 1 || self.n_positions() > SAMPLE
    }

    /// Returns true if norms have a model, and the minimum in each cell is known.
    pub(crate) fn has_model(&self) -> bool {
        self.n_positions() > SAMPLE
    }

    /// Returns the number of levels with norms of pairs.
    pub(crate) fn n_pairs(&self) -> usize {
        (self.n_levels - 1).min(if self.has_model() { MODELLED } else { 1 })
    }

    /// Returns the name, possible types and shape of every section.
    pub(crate) fn sections(&self) -> Vec<(String, Dtypes, Vec<usize>)> {
        let (n_positions, k) = (self.n_positions(), self.n_codewords);
        let integers = if self.version == 1 { &INTEGERS[..2] } else { INTEGERS };
        let mut sections = vec![
            ("codebook".to_owned(), FLOATS, vec![self.n_levels, k, self.width]),
            ("cells".to_owned(), integers, vec![self.n_cells() + 1]),
            ("ids".to_owned(), integers, vec![self.n_items]),
            ("id_min".to_owned(), integers, vec![self.n_items.div_ceil(ID_BLOCK)]),
        ];
        sections.extend((1..self.n_levels).map(|level| (plane_name(level), BYTES, vec![n_positions])));
        if self.has_sample() {
            sections.push(("sample".to_owned(), BYTES, vec![self.n_sampled(), self.n_levels]));
        }
        if self.has_starts() {
            sections.push(("starts".to_owned(), integers, vec![n_positions + 1]));
        }
        match (self.metric, self.version) {
            (Metric::InnerProduct, _) | (_, 3) => {}
            (Metric::Euclidean, 1) => {
                let n_pairs = self.n_levels * (self.n_levels - 1) / 2;
                sections.push(("gram".to_owned(), FLOATS, vec![n_pairs, k, k]));
                sections
                    .extend((3..=self.n_levels).map(|n| (format!("cross.{n}"), BYTES, vec![n_positions])));
            }
            (Metric::Euclidean, _) => {
                if self.n_pairs() > 0 {
                    sections.push(("norms.pairs".to_owned(), &[Dtype::U32], vec![self.n_pairs(), k, k]));
                }
                for length in self.norm_lengths.iter().map(|length| length.levels()) {
                    sections.push((norms_name(length, ".high"), BYTES, vec![n_positions]));
                    sections.push((norms_name(length, ".low"), BYTES, vec![n_positions, 3]));
                    sections.push((norms_name(length, ".rows"), &[Dtype::I64], vec![256, 2]));
                    if self.has_model() {
                        sections.push((norms_name(length, ".cells"), BYTES, vec![self.n_cells()]));
                    }
                }
            }
        }
        sections
    }

    /// Returns the metadata of the file, without the checksums that the container adds.
    pub(crate) fn metadata(&self, codebooks: &Codebooks) -> BTreeMap<String, String> {
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", self.version.to_string()),
            ("metric", self.metric.to_string()),
            ("items", self.n_items.to_string()),
            ("distinct", self.n_distinct.to_string()),
        ];
        let metadata = metadata.into_iter().chain(codebooks.metadata());
        let mut metadata: BTreeMap<String, String> =
            metadata.map(|(key, value)| (key.to_owned(), value)).collect();
        if self.version == 2 {
            let lengths: Vec<String> =
                self.norm_lengths.iter().map(|length| length.levels().to_string()).collect();
            metadata.insert("norms".to_owned(), lengths.join(" "));
        }
        metadata
    }
}

pub(crate) fn plane_name(level: usize) -> String {
    format!("plane.{level}")
}

/// Returns the name of a part of the norms at `n_levels` levels.
pub(crate) fn norms_name(n_levels: usize, part: &str) -> String {
    format!("norms.{n_levels}{part}")
}
