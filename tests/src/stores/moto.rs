//! moto: S3 in the memory of a Python process.

use std::sync::Mutex;

use super::programs;
use super::raw::status;
use super::server::Program;
use crate::{Port, Scratch};

pub(super) fn server() -> Option<Program> {
    let scratch = Scratch::new();
    let (python, packages) = programs::moto(&scratch)?;
    let port = Port::free();
    let line = [
        python.display().to_string(),
        "-m".into(),
        "moto.server".into(),
        "-H".into(),
        "127.0.0.1".into(),
        "-p".into(),
        port.number().to_string(),
    ];
    Some(Program {
        name: "moto",
        ports: vec![port],
        line: line.into(),
        env: vec![
            ("PYTHONPATH".into(), packages.display().to_string()),
            ("PYTHONDONTWRITEBYTECODE".into(), "1".into()),
            // Otherwise it asks the instance's metadata service who it is.
            ("AWS_EC2_METADATA_DISABLED".into(), "true".into()),
        ],
        ready: |addr| status(addr, "/moto-api/") == Some(200),
        polite: false,
        leaves: Vec::new(),
        running: Mutex::new(None),
        scratch,
    })
}
