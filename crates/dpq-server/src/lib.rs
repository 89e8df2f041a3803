#![doc = include_str!("../README.md")]

mod app;
mod browse;
mod catalog;
mod code;
mod error;
mod gallery;
mod info;
mod items;
mod metrics;
mod openapi;
mod options;
mod pace;
mod page;
mod permit;
mod refusal;
mod sample;
mod search;
mod serve;
mod writer;

pub use catalog::{Catalog, DrawMap, Drawn, Picture};
pub use error::Error;
pub use gallery::Gallery;
pub use openapi::openapi;
pub use options::{Features, Limits, Options};
pub use serve::Server;
