//! The error of this crate.

/// An error in labels, a ranking or an evaluation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A multi-hot matrix does not consist of whole rows.
    #[error(
        "found {n_values} label values for rows of {n_classes} classes, expected a multi-hot matrix [n, classes]"
    )]
    LabelShape {
        /// The number of values.
        n_values: usize,
        /// The number of classes per row.
        n_classes: usize,
    },
    /// A label is neither 0 nor 1.
    #[error(
        "the label of row {row}, class {class} is {value}, expected 0 or 1 (multi-hot, not class numbers)"
    )]
    LabelValue {
        /// The row of the value.
        row: usize,
        /// The class (column) of the value.
        class: usize,
        /// The value.
        value: u8,
    },
    /// Queries and gallery have different sets of classes.
    #[error(
        "the query labels have {query} classes and the gallery labels {gallery}, expected the same classes"
    )]
    ClassCount {
        /// The number of classes of the queries.
        query: usize,
        /// The number of classes of the gallery.
        gallery: usize,
    },
    /// There is no such item.
    #[error("item {item} was asked for, expected one of the {n_items} items that have labels")]
    Item {
        /// The item.
        item: usize,
        /// The number of items.
        n_items: usize,
    },
    /// A score is not a number.
    #[error("the score of item {at} (id {id}) is NaN, expected a number")]
    NanScore {
        /// The position of the item in the input, from 0.
        at: usize,
        /// Its id.
        id: u64,
    },
    /// The items are not in the total order.
    #[error(
        "the item at rank {rank} (id {id}) is out of order or given twice, expected score descending, then id ascending"
    )]
    Order {
        /// The rank of the item, from 0.
        rank: usize,
        /// Its id.
        id: u64,
    },
    /// The ranking has more relevant items than the gallery.
    #[error("{found} relevant items are ranked, expected at most the {n_relevant} of the whole gallery")]
    RelevantCount {
        /// The number of relevant items in the ranking.
        found: usize,
        /// The number of relevant items in the gallery, as given.
        n_relevant: usize,
    },
    /// The ranking has 2³² items or more.
    #[error("the ranking has 2^32 items or more, expected fewer")]
    TooManyItems,
    /// The runs do not divide the items.
    #[error(
        "run {run} starts at item {start}, expected runs of at least one item that divide the {n_items} items in order"
    )]
    Runs {
        /// The first run that is wrong.
        run: usize,
        /// Its first item.
        start: u32,
        /// The number of items.
        n_items: usize,
    },
    /// An array has another length than its shape requires.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// The array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length required.
        expected: usize,
    },
    /// The evaluator has no rule.
    #[error("the evaluator has no rule, expected at least one")]
    NoRules,
    /// A cut-off is 0.
    #[error("a cut-off is 0, expected at least 1: ranks count from 1")]
    ZeroCutoff,
    /// The result comes from an evaluator with other rules, cut-offs or recall steps.
    #[error("the result comes from an evaluator with other settings, expected one of this evaluator")]
    OtherEvaluator,
    /// There is no query to average over.
    #[error(
        "none of the {n_queries} queries counts, {n_empty} of them have no relevant item: check the labels"
    )]
    NoQueries {
        /// The number of queries added.
        n_queries: usize,
        /// The number of queries without a relevant item.
        n_empty: usize,
    },
}
