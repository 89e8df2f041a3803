//! What can be wrong with labels, rankings and settings.

/// Why labels, a ranking or an evaluation were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A multi-hot matrix does not consist of whole rows.
    #[error(
        "{n_values} label values do not make rows of {n_classes} classes; expected a multi-hot matrix [n, classes]"
    )]
    LabelShape {
        /// Values found.
        n_values: usize,
        /// Classes expected in each row.
        n_classes: usize,
    },
    /// A label is neither 0 nor 1.
    #[error("label of row {row}, class {class} is {value}; expected 0 or 1 (multi-hot, not class numbers)")]
    LabelValue {
        /// Row of the value.
        row: usize,
        /// Class (column) of the value.
        class: usize,
        /// The value found.
        value: u8,
    },
    /// Queries and gallery are labelled with different sets of classes.
    #[error(
        "the query labels have {query} classes and the gallery labels {gallery}; expected the same classes"
    )]
    ClassCount {
        /// Classes of the queries.
        query: usize,
        /// Classes of the gallery.
        gallery: usize,
    },
    /// A score is not a number.
    #[error("the score of item {at} (id {id}) is NaN; expected a number")]
    NanScore {
        /// Place of the item among those given, from 0.
        at: usize,
        /// Its id.
        id: u64,
    },
    /// The items are not in the total order.
    #[error(
        "the item at rank {rank} (id {id}) is out of order or given twice; expected score descending, then id ascending"
    )]
    Order {
        /// Rank of the item, from 0.
        rank: usize,
        /// Its id.
        id: u64,
    },
    /// More relevant items were ranked than are said to exist.
    #[error(
        "{found} relevant items are ranked but only {n_relevant} are said to exist; count those of the whole gallery"
    )]
    RelevantCount {
        /// Relevant items in the ranking.
        found: usize,
        /// Relevant items said to exist.
        n_relevant: usize,
    },
    /// The evaluator was asked for something that has no meaning.
    #[error("cannot evaluate {0}")]
    Settings(&'static str),
    /// There is nothing to average over.
    #[error(
        "no query counts ({n_queries} seen, {n_empty} of them without a relevant item); check the labels"
    )]
    NoQueries {
        /// Queries added.
        n_queries: usize,
        /// Those without a relevant item.
        n_empty: usize,
    },
}
