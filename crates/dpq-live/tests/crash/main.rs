//! A folder opens at its last commit after every failed write, and after a writer was killed at any
//! moment.
//!
//! The system calls that change files go through [`calls`], which fails one of them or kills the
//! process at it.

#![cfg_attr(not(all(target_os = "linux", target_env = "gnu")), allow(unused))]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod calls;
#[path = "../common/mod.rs"]
mod common;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod failures;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kills;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, command, folder, calls] = &args[..]
        && command == "write"
    {
        return kills::write(folder.as_ref(), calls.parse().unwrap());
    }
    failures::run();
    kills::run();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {}
