#![doc = include_str!("../README.md")]

mod app;
mod error;
mod gallery;
mod info;
mod items;
mod metrics;
mod openapi;
mod options;
mod pace;
mod refusal;
mod search;
mod serve;
mod writer;

pub use error::Error;
pub use gallery::Gallery;
pub use openapi::openapi;
pub use options::{Features, Limits, Options};
pub use serve::Server;
