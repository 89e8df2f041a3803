//! The rule of a mean average precision.

use std::fmt;

/// A definition of "mean average precision": every choice in which published numbers differ.
///
/// `AP = (1 / denominator) · Σ over relevant ranks r ≤ cutoff of (relevant items within the first
/// r) / r`, ranks from 1; mAP is its mean over queries. `Display` prints the rule on one line:
/// print it beside every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MapRule {
    /// The number of ranks that count; `None` for all. A cut-off beyond the end of the ranking has
    /// no effect.
    pub cutoff: Option<usize>,
    /// The divisor of the sum of precisions.
    pub denominator: Denominator,
    /// How a query without relevant items counts.
    pub empty: EmptyQuery,
    /// Whether the query itself is removed from its ranking and from its relevant items, if the
    /// ranking says which item it is.
    pub exclude_self: bool,
    /// How items of equal score are ordered.
    pub ties: Ties,
}

/// The divisor of the sum of precisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Denominator {
    /// The number of relevant items within the cut-off, as the authors of DPQ and most papers on
    /// hashing do. With a cut-off this does not penalise missing items: a single relevant item, at
    /// rank 1, gives AP 1.
    Retrieved,
    /// The number of relevant items in the gallery, retrieved or not.
    All,
    /// The minimum of the cut-off and the number of relevant items: those that a perfect ranking
    /// retrieves.
    MinCutoff,
}

/// How a query counts to which no gallery item is relevant.
///
/// A query with relevant items, none of them within the cut-off, is not empty: its AP is 0 under
/// every rule. So the ranking never decides which queries are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum EmptyQuery {
    /// The mean leaves it out.
    Skip,
    /// It counts with AP 0.
    Zero,
}

/// How items of equal score are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Ties {
    /// The exact mean of AP over all orders of tied items, each equally likely. If the cut-off is
    /// inside a tie, the number of relevant items within it, and so [`Denominator::Retrieved`],
    /// varies too and is averaged over.
    Expectation,
    /// By ascending id. Fair only if ids tell nothing about classes.
    ById,
    /// The minimum AP over all orders of tied items.
    Minimum,
    /// The maximum AP over all orders of tied items.
    Maximum,
}

impl MapRule {
    /// Returns the rule of the DPQ paper's protocol: all ranks, divided by the relevant items
    /// retrieved.
    ///
    /// Source: the authors' `Utils.py` (`AQD_mAP`), which divides by the relevant items found and
    /// counts a query without any as 0. Deviation: their order of ties is that of an unstable sort;
    /// this rule takes the expectation over all orders. Set `cutoff` to 5000 for the paper's
    /// mAP@5000.
    pub fn dpq() -> Self {
        Self {
            cutoff: None,
            denominator: Denominator::Retrieved,
            empty: EmptyQuery::Zero,
            exclude_self: false,
            ties: Ties::Expectation,
        }
    }

    /// Returns the rule of text retrieval (TREC's `map`): all ranks, divided by all relevant items,
    /// queries without relevant items left out, ties by ascending id.
    pub fn standard() -> Self {
        Self { denominator: Denominator::All, empty: EmptyQuery::Skip, ties: Ties::ById, ..Self::dpq() }
    }
}

impl fmt::Display for MapRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cutoff {
            Some(cutoff) => write!(f, "mAP@{cutoff}")?,
            None => f.write_str("mAP@all")?,
        }
        let denominator = match self.denominator {
            Denominator::Retrieved => "relevant retrieved",
            Denominator::All => "all relevant",
            Denominator::MinCutoff => "min(cut-off, all relevant)",
        };
        let ties = match self.ties {
            Ties::Expectation => "expectation",
            Ties::ById => "by id",
            Ties::Minimum => "minimum",
            Ties::Maximum => "maximum",
        };
        let empty = match self.empty {
            EmptyQuery::Skip => "skipped",
            EmptyQuery::Zero => "zero",
        };
        let itself = if self.exclude_self { "excluded" } else { "kept" };
        write!(f, ", denominator = {denominator}, ties = {ties}, empty = {empty}, self = {itself}")
    }
}
