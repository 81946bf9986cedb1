//! Measuring codecs on one's own files.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use walarchive_core::codec::CodecSpec;

use super::parse::{codec, seconds, size, size_per_second};

/// A direction: towards the archive, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Into the archive: compressed
    In,
    /// Out of the archive: decompressed
    Out,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// WAL segments, dumps or other files that are like what is to be stored
    #[arg(value_name = "FILE", required_unless_present = "memory_of")]
    pub files: Vec<PathBuf>,
    /// Measure this codec, for example zstd:3; can be said several times. By default a choice of levels
    #[arg(long, value_name = "SPEC", value_parser = codec)]
    pub codec: Vec<CodecSpec>,
    /// Measure every level of every codec
    #[arg(long, conflicts_with = "codec")]
    pub all_levels: bool,
    /// How many threads work at once where all cores are measured; by default as many as there are cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// About how long each measurement takes: each codec has eight, and up to ten times as long to see all of the files. What is begun is finished
    #[arg(long, value_name = "N", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// How much of the files is read, in all
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub max_bytes: u64,
    /// How much WAL the cluster writes, for example 10MiB/s: tells what each codec would store a month. By default what the times of the segments tell
    #[arg(long, value_name = "SIZE/s", value_parser = size_per_second)]
    pub wal_rate: Option<u64>,
    /// Draw ratio against speed into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// In a process of its own: the memory that one codec needs for what comes on standard input
    #[arg(long, value_enum, hide = true, requires = "codec", conflicts_with = "files")]
    pub memory_of: Option<Way>,
}
