//! Data sets from every kind of source, and every way in which they can be invalid.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod archive;
mod cifar;
mod collage;
mod fashion;
mod folder;
mod image;
mod lists;
mod manifest;
mod thumbnail;
