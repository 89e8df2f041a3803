#![doc = include_str!("../README.md")]

mod average_precision;
mod error;
mod evaluator;
mod gain;
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
