//! SeaweedFS: master, volume server, filer and S3 gateway in one process.

use std::path::PathBuf;
use std::sync::Mutex;

use super::Kind;
use super::programs;
use super::raw::{self, status};
use super::server::Program;
use crate::{Port, Scratch};

/// The credentials of all tests with S3.
pub(super) const KEY: &str = "walarchivetestkey";
pub(super) const SECRET: &str = "walarchivetestsecret";
pub(super) const REGION: &str = "us-east-1";

/// What has a port, with and without gRPC; the gateway first, for that is where clients go.
const PARTS: [&str; 5] = ["s3", "master", "volume", "filer", "admin"];

pub(super) fn server() -> Option<Program> {
    let scratch = Scratch::new();
    let weed = programs::weed(&scratch)?;
    let config = serde_json::json!({"identities": [{
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    let config = scratch.write("s3.json", config.to_string());
    let data = scratch.dir("weed");
    let ports: Vec<Port> = (0..PARTS.len() * 2).map(|_| Port::free()).collect();
    let mut line = vec![weed.display().to_string(), "-logtostderr=true".into(), "mini".into()];
    let mut leaves = Vec::new();
    for (part, pair) in PARTS.iter().zip([0, 2, 4, 6, 8]) {
        let (port, grpc) = (ports[pair].number(), ports[pair + 1].number());
        line.extend([format!("-{part}.port={port}"), format!("-{part}.port.grpc={grpc}")]);
        // It puts these there whatever TMPDIR says.
        leaves.push(PathBuf::from(format!("/tmp/seaweedfs-{part}-grpc-{grpc}.sock")));
    }
    line.extend([format!("-dir={}", data.display()), format!("-s3.config={}", config.display())]);
    for (option, name) in [("filer.localSocket", "f"), ("s3.localSocket", "s"), ("s3.localFilerSocket", "f")]
    {
        line.push(format!("-{option}={}", scratch.join(format!("{name}.sock")).display()));
    }
    // Otherwise it reports home, opens more ports, and makes every bucket that is asked for.
    line.extend(
        ["master.telemetry=false", "admin.ui=false", "webdav=false", "s3.iam=false"]
            .into_iter()
            .chain([
                "s3.port.iceberg=0",
                "s3.port.lance=0",
                "s3.autoCreateBucket=false",
                // Each bucket takes seven volumes; without this, there are as many as the free disk space has room for.
                "volume.max=10000",
                "ip=127.0.0.1",
                "ip.bind=127.0.0.1",
            ])
            .map(|option| format!("-{option}")),
    );
    Some(Program {
        name: "weed",
        ports,
        line,
        env: Vec::new(),
        // The gateway is up before it knows where the objects are that were there before.
        ready: |addr| status(addr, "/healthz") == Some(200) && raw::stores(addr, Kind::Seaweed),
        polite: false,
        leaves,
        running: Mutex::new(None),
        scratch,
    })
}
