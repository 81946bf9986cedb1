//! The memory that one encoder or decoder needs: how far a process of its own grows while it does nothing else.
//!
//! The process first reads all of its input, so that what it grows by is the codec's own. Memory that is reserved and never
//! touched is not counted. What is compressed is dropped piece by piece. The cipher is not part of it.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use walarchive_core::codec::{Codec, CodecSpec};
use walarchive_core::{Error, Result};

use super::measure::PIECE;
use crate::args::Way;
use crate::run::Context;

/// Bytes that the codec needs for `input`; `None` where the system does not tell.
pub(crate) fn needed(spec: CodecSpec, way: Way, input: &[u8]) -> Option<u64> {
    let way = match way {
        Way::In => "in",
        Way::Out => "out",
    };
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["--json", "bench", "--memory-of", way, "--codec", &spec.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    // The pipe ends here, whether all was taken or not.
    let fed = child.stdin.take().map(|mut pipe| pipe.write_all(input));
    let output = child.wait_with_output().ok()?;
    fed?.ok()?;
    let document: Value = serde_json::from_slice(&output.stdout).ok()?;
    document["memory_bytes"].as_u64()
}

/// What the process does that [`needed`] starts.
pub(crate) fn measure(context: &Context, spec: CodecSpec, way: Way) -> Result<u8> {
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .map_err(|error| Error::io("cannot read from standard input", error))?;
    let codec = spec.build();
    let before = begin();
    match way {
        Way::In => compress(codec.as_ref(), &input)?,
        Way::Out => decompress(codec.as_ref(), &input)?,
    }
    let grown = before.and_then(|before| Some(status("VmHWM:")?.saturating_sub(before)));
    context.output.result(&json!({ "memory_bytes": grown }), || format!("{grown:?}"))?;
    Ok(0)
}

/// Sets the mark of the highest memory back to what there is now, and tells it.
fn begin() -> Option<u64> {
    fs::write("/proc/self/clear_refs", "5").ok()?;
    status("VmRSS:")
}

fn status(name: &str) -> Option<u64> {
    value_of(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// A value of /proc/self/status, in bytes.
fn value_of(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn compress(codec: &dyn Codec, plain: &[u8]) -> Result<()> {
    let mut out = Vec::new();
    let mut encoder = codec.encoder()?;
    for piece in plain.chunks(PIECE) {
        encoder.push(piece, &mut out)?;
        out.clear();
    }
    encoder.finish(&mut out)
}

fn decompress(codec: &dyn Codec, stored: &[u8]) -> Result<()> {
    let mut decoder = codec.decoder()?;
    for piece in stored.chunks(PIECE) {
        decoder.push(piece, &mut |_| Ok(()))?;
    }
    decoder.finish(&mut |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_system() {
        let text = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t12 pages\n";
        assert_eq!(value_of(text, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(value_of(text, "VmRSS:"), None);
        assert_eq!(value_of(text, "VmPeak:"), None);
    }
}
