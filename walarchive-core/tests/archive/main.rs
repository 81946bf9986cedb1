//! The archive as a whole: what is pushed comes back, nothing else ever does, and every failure has its kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

mod catalog;
mod damage;
mod flows;
mod forgery;
mod input;
mod manifests;
mod mirrors;
mod race;
mod recorder;
mod rotation;
mod support;
mod writers;
