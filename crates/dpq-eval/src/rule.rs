//! The rule by which a mean average precision is computed, so that the number means one stated thing.

use std::fmt;

/// What "mean average precision" means: every choice on which published numbers differ.
///
/// `AP = (1 / denominator) · Σ over relevant ranks r ≤ cutoff of (relevant items within the first r) / r`,
/// ranks from 1; mAP is its mean over queries. `Display` prints the rule on one line; print it next to every
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapRule {
    /// Ranks that count; `None` for all. A cut-off beyond the end of the ranking is the same as none.
    pub cutoff: Option<usize>,
    /// What the sum of precisions is divided by.
    pub denominator: Denominator,
    /// What becomes of a query to which nothing in the gallery is relevant.
    pub empty: EmptyQuery,
    /// Whether the query itself is taken out of its ranking and out of its relevant items, where the ranking
    /// says which item that is.
    pub exclude_self: bool,
    /// How items of equal score are ordered.
    pub ties: Ties,
}

/// What the sum of precisions is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denominator {
    /// The relevant items found within the cut-off, as the authors of DPQ and most papers on hashing do. With
    /// a cut-off this does not punish missing items: finding a single one, at rank 1, gives AP 1.
    Retrieved,
    /// All relevant items of the gallery, retrieved or not.
    All,
    /// The smaller of the cut-off and the number of all relevant items: what a perfect ranking would find.
    MinCutoff,
}

/// What becomes of a query to which no gallery item is relevant.
///
/// A query that has relevant items, none of them within the cut-off, is not empty: its AP is 0 under every
/// rule, and which queries are empty never depends on the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmptyQuery {
    /// It is left out of the mean.
    Skip,
    /// It counts with AP 0.
    Zero,
}

/// How items of equal score are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ties {
    /// The exact mean of AP over all orders of tied items, each equally likely. At a cut-off inside a tie the
    /// number of relevant items within the cut, and with it [`Denominator::Retrieved`], is random too and
    /// averaged over.
    Expectation,
    /// By ascending id. Fair only where ids say nothing about classes.
    ById,
    /// The smallest AP that any order of tied items gives.
    Minimum,
    /// The largest AP that any order of tied items gives.
    Maximum,
}

impl MapRule {
    /// The rule of the DPQ paper's protocol: all ranks, divided by the relevant items retrieved.
    ///
    /// Source: the authors' `Utils.py` (`AQD_mAP`), which divides by the relevant items found and lets a
    /// query without any count as 0. Deviation: they leave ties to an unstable sort; we take the expectation
    /// over tie orders. Set `cutoff` to 5000 for the paper's mAP@5000.
    pub fn dpq() -> Self {
        Self {
            cutoff: None,
            denominator: Denominator::Retrieved,
            empty: EmptyQuery::Zero,
            exclude_self: false,
            ties: Ties::Expectation,
        }
    }

    /// The rule of text retrieval (TREC's `map`): all ranks of the list as it stands, divided by all relevant
    /// items, queries without any left out. Ties stand in this workspace's total order, by ascending id.
    pub fn standard() -> Self {
        Self {
            cutoff: None,
            denominator: Denominator::All,
            empty: EmptyQuery::Skip,
            exclude_self: false,
            ties: Ties::ById,
        }
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
