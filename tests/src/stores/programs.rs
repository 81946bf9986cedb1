//! Where the servers are that `.ci/prepare` installs below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{skip, target_dir};
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
    let python = target_dir().join("python");
    let packages = fs::read_dir(python.join("lib")).ok().and_then(|mut found| found.next()?.ok());
    let packages = packages.map(|version| version.path().join("site-packages"));
    let Some(packages) = packages.filter(|packages| packages.join("moto/server.py").exists()) else {
        skip("moto (in target/python)");
        return None;
    };
    // The interpreter itself: the environment's link to it may be out of reach.
    let interpreter = fs::canonicalize(python.join("bin/python3")).expect("the environment's Python");
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

/// `path` itself where the unprivileged user can read it, else a copy of it in `scratch`, made of hard links where
/// that can be had.
fn reachable(scratch: &Scratch, path: &Path) -> PathBuf {
    let reached = scratch.command("/usr/bin/test").arg("-r").arg(path).status();
    if reached.is_ok_and(|status| status.success()) {
        return path.to_owned();
    }
    let copy = scratch.join(path.file_name().expect("a name"));
    let linked = [["-a", "-l"].as_slice(), &["-a"]].into_iter().any(|options| {
        let mut command = Command::new("cp");
        let output = command.args(options).arg(path).arg(&copy).output();
        let done = output.is_ok_and(|output| output.status.success());
        if !done {
            let _ = fs::remove_dir_all(&copy);
            let _ = fs::remove_file(&copy);
        }
        done
    });
    assert!(linked, "copy {} to {}", path.display(), copy.display());
    copy
}
