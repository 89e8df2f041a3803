//! Retrieval metrics with a stated rule: mean average precision, precision, recall.
//!
//! One query comes in as its ranking, items with scores and whether they are relevant, and leaves as a few
//! numbers; an [`Evaluator`] adds the queries up, so memory does not grow with queries times gallery. Where
//! the ranking came from (codes, features, another system) is unknown here. Every mean average precision
//! carries its [`MapRule`], because "mAP" alone names at least a dozen different numbers.
//!
//! Short codes give many items the same score, so what a metric says about ties matters: [`Ties`] offers the
//! exact expectation over all orders of tied items, the order by id, and the worst and the best order. A
//! ranking is reduced once to its tie groups, from which each rule follows in closed form (see
//! `average_precision.rs`).
//!
//! ```
//! use dpq_eval::{Evaluator, Labels, MapRule, Ranking};
//!
//! let gallery = Labels::from_multi_hot(&[1, 0, 0, 1, 1, 0], 2)?; // three items, two classes
//! let queries = Labels::from_multi_hot(&[1, 0], 2)?;
//! let relevant = queries.relevant(0, &gallery)?;
//! let hits = [(1, 0.9), (0, 0.5), (2, 0.5)]; // (id, score): score descending, then id ascending
//! let items = hits.map(|(id, score)| (id, score, relevant[id as usize]));
//! let ranking = Ranking::new(items, relevant.iter().filter(|&&r| r).count(), None)?;
//!
//! let mut evaluator = Evaluator::new(&[MapRule::dpq()], &[1, 2], 10)?;
//! evaluator.add(&evaluator.query(&ranking)); // `query` is pure: run it on as many threads as you like
//! let (rule, map) = evaluator.finish()?.map[0];
//! assert_eq!(
//!     rule.to_string(),
//!     "mAP@all, denominator = relevant retrieved, ties = expectation, empty = zero, self = kept"
//! );
//! assert!((map - (1.0 / 2.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
//! # Ok::<(), dpq_eval::Error>(())
//! ```

mod average_precision;
mod error;
mod evaluator;
mod labels;
mod ranker;
mod ranking;
mod rule;

pub use error::Error;
pub use evaluator::{Evaluator, QueryResult, Report};
pub use labels::Labels;
pub use ranker::Ranker;
pub use ranking::Ranking;
pub use rule::{Denominator, EmptyQuery, MapRule, Ties};
