//! azurite: Microsoft's emulator of Azure Blob Storage.

use std::sync::Mutex;

use super::programs;
use super::raw::status;
use super::server::Program;
use crate::{Port, Scratch};

/// The emulator's one account, and its key, as Microsoft's documentation gives them.
pub(super) const ACCOUNT: &str = "devstoreaccount1";
pub(super) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub(super) fn server() -> Option<Program> {
    let scratch = Scratch::new();
    let (node, main) = programs::azurite(&scratch)?;
    let port = Port::free();
    let data = scratch.dir("azurite");
    let mut line = vec![node.display().to_string(), main.display().to_string()];
    line.extend(["--blobHost", "127.0.0.1", "--blobPort"].map(str::to_owned));
    line.extend([port.number().to_string(), "--location".into(), data.display().to_string()]);
    line.extend(["--skipApiVersionCheck", "--disableTelemetry", "--silent"].map(str::to_owned));
    Some(Program {
        name: "azurite-blob",
        ports: vec![port],
        line,
        env: Vec::new(),
        ready: |addr| status(addr, "/").is_some(),
        polite: true,
        leaves: Vec::new(),
        running: Mutex::new(None),
        scratch,
    })
}
