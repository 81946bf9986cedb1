//! Where the servers are that `.ci/prepare` installs below the target directory.

use std::path::PathBuf;

use crate::programs::{python_packages, reachable, skip, target_dir};
use crate::{Scratch, find};

/// SeaweedFS.
pub(super) fn weed(scratch: &Scratch) -> Option<PathBuf> {
    let weed = target_dir().join("python/bin/weed");
    if !weed.exists() {
        skip("SeaweedFS (target/python/bin/weed)");
        return None;
    }
    Some(reachable(scratch, &weed))
}

/// A Python that anybody can run, and the directory of the packages that moto needs.
pub(super) fn moto(scratch: &Scratch) -> Option<(PathBuf, PathBuf)> {
    let (interpreter, packages) = python_packages("moto/server.py")?;
    Some((interpreter, reachable(scratch, &packages)))
}

/// Node.js, and azurite's program for blobs.
pub(super) fn azurite(scratch: &Scratch) -> Option<(PathBuf, PathBuf)> {
    let modules = target_dir().join("azurite/node_modules");
    let main = "azurite/dist/src/blob/main.js";
    let (Some(node), true) = (find("node"), modules.join(main).exists()) else {
        skip("azurite (target/azurite) or Node.js");
        return None;
    };
    Some((node, reachable(scratch, &modules).join(main)))
}
