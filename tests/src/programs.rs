//! Where the real parts are.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
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
