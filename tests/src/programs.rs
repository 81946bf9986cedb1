//! Where the real parts are.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Scratch;

/// The path of `program`, or `None` after a loud note, upon which the test returns.
///
/// # Panics
///
/// Where `CI` is set, a missing program is a failure: CI may not skip.
pub fn require(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(program);
    }
    found
}

/// Says loudly that a test is skipped because `part` is missing; panics where `CI` is set.
pub(crate) fn skip(part: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        env::var_os("CI").is_none(),
        "{test}: {part} is not installed, and CI may not skip; run .ci/prepare"
    );
    eprintln!("\nSKIPPED: {test}: {part} is not installed; `.ci/prepare` installs it\n");
}

/// The path of `program`: PostgreSQL's own programs all come from [`postgres_bin`], others from `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = postgres_bin().into_iter().chain(env::split_paths(&path).collect::<Vec<_>>());
    places.map(|place| place.join(program)).find(|file| is_executable(file))
}

/// The directory of PostgreSQL's programs: `$WALARCHIVE_TEST_PG`, else the newest version that the
/// distribution's packages installed, else the directory in `PATH` that has `initdb`.
pub fn postgres_bin() -> Option<PathBuf> {
    if let Some(chosen) = env::var_os("WALARCHIVE_TEST_PG") {
        return Some(PathBuf::from(chosen));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    newest_packaged().or_else(|| env::split_paths(&path).find(|place| is_executable(&place.join("initdb"))))
}

fn newest_packaged() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let place = |version: u32| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    versions.filter(|version| is_executable(&place(*version).join("initdb"))).max().map(place)
}

/// The major version of the PostgreSQL that the tests use.
pub fn postgres_major() -> Option<u32> {
    let output = Command::new(find("postgres")?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The Python of the virtual environment that `.ci/prepare` makes, with `pyrage` and `zstandard`: see
/// [`require`] about missing parts. It lies in the target directory: other users may be unable to reach it.
pub fn python() -> Option<PathBuf> {
    let python = target_dir().join("python/bin/python3");
    if is_executable(&python) {
        return Some(python);
    }
    skip("the Python environment in target/python");
    None
}

/// The interpreter behind that environment, which anybody can run, and the directory of the environment's packages: among them
/// `part`, or `None` after a loud note.
pub fn python_packages(part: &str) -> Option<(PathBuf, PathBuf)> {
    let python = target_dir().join("python");
    let packages = fs::read_dir(python.join("lib")).ok().and_then(|mut found| found.next()?.ok());
    let packages = packages.map(|version| version.path().join("site-packages"));
    let Some(packages) = packages.filter(|packages| packages.join(part).exists()) else {
        skip(&format!("{part} (in target/python)"));
        return None;
    };
    // The environment's link to the interpreter may be out of reach.
    let interpreter = fs::canonicalize(python.join("bin/python3")).expect("the environment's Python");
    Some((interpreter, packages))
}

/// The directory that cargo builds into.
pub fn target_dir() -> PathBuf {
    let workspace = workspace();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace.join(dir),
        None => workspace.join("target"),
    }
}

/// The root of the checkout.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `path` itself where the unprivileged user can read it, else a copy of it in `scratch`, made of hard links where
/// that can be had.
pub fn reachable(scratch: &Scratch, path: &Path) -> PathBuf {
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
