#![doc = include_str!("../README.md")]

mod chain;
mod error;
mod joint;
mod mixture;
mod model;
mod normal;
mod price;
mod solver;
mod update;

pub use chain::{Chain, Search, Settings, Slice};
pub use error::Error;
pub use model::{Cev, Gbm, Heston, Model, Sabr, SteinStein, ThreeHalves};
pub use solver::Solver;
pub use update::{Coefficients, Update};
