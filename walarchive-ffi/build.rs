//! Names the shared library by its ABI, so that a program finds only one that it can use.
#![allow(clippy::print_stdout)] // That is how cargo is told.

const SOURCE: &str = include_str!("src/lib.rs");

fn main() {
    println!("cargo:rerun-if-changed=src/lib.rs");
    let abi = SOURCE.lines().find_map(|line| line.strip_prefix("const ABI: u32 = ")?.strip_suffix(';'));
    if let (Some(abi), Ok("linux")) = (abi, std::env::var("CARGO_CFG_TARGET_OS").as_deref()) {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libwalarchive.so.{abi}");
    }
}
