//! `make install` of the C interface: what is installed is found by `pkg-config`, and works both ways of linking.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::sample::{SYSTEM_ID, segment, segment_name};
use walarchive_tests::{Options, Output, Product, Scratch, library, require};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("walarchive-ffi")
}

/// Runs a command that is to say nothing on stderr; its stdout.
#[track_caller]
fn ok(command: &mut Command) -> String {
    let output = Output::of(&command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}")));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{command:?}: {output:#?}");
    output.stdout
}

/// `make` of the package, from the libraries of this build into `stage`.
fn make(stage: &Path, target: &str, variables: &[String]) {
    let built = library("libwalarchive.a");
    let mut command = Command::new("make");
    command.arg("-s").arg("-C").arg(package()).arg(target).arg("PREFIX=/opt/walarchive");
    command.arg(format!("LIB_BUILD={}", built.parent().unwrap().display()));
    ok(command.arg(format!("DESTDIR={}", stage.display())).args(variables));
}

fn pkg_config(stage: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_LIBDIR", stage.join("opt/walarchive/lib/pkgconfig"));
    let said = ok(command.env("PKG_CONFIG_SYSROOT_DIR", stage).args(args).arg("walarchive"));
    said.split_whitespace().map(str::to_owned).collect()
}

/// The example, compiled as its users do.
fn embed(scratch: &Scratch, stage: &Path, name: &str, args: &[&str]) -> PathBuf {
    let program = scratch.join(name);
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    ok(command.arg(package().join("examples/embed.c")).args(pkg_config(stage, args)));
    program
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

/// The program stores a segment and brings it back.
#[track_caller]
fn works(scratch: &Scratch, program: &Path, libraries: Option<&Path>) {
    let product = Product::with(scratch, Options { init: false, encrypted: false, ..Options::default() });
    let (name, copy) = (segment_name(1, 3), format!("{}.copy", program.display()));
    scratch.write(&name, segment(1, 3, 3));
    let mut command = scratch.command(program);
    let setting = |name: &str| {
        let value = product.env().iter().find(|(known, _)| known == name).map(|(_, value)| value).unwrap();
        format!("{name}={value}")
    };
    command.arg(setting("WALARCHIVE_ARCHIVE")).arg(&name).arg(&copy).arg(setting("WALARCHIVE_CLUSTER"));
    command.arg(format!("WALARCHIVE_SYSTEM_ID={SYSTEM_ID}"));
    libraries.map(|dir| command.env("LD_LIBRARY_PATH", dir));
    assert!(ok(&mut command).contains(&name));
    assert!(fs::read(copy).unwrap() == segment(1, 3, 3));
}

#[test]
fn what_is_installed_is_found_and_works() {
    if ["make", "pkg-config", "cc"].iter().any(|program| require(program).is_none()) {
        return;
    }
    let scratch = Scratch::new();
    let stage = scratch.join("stage");
    make(&stage, "install", &[]);
    for file in files_below(&stage) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o444, 0o444, "{}", file.display());
    }
    let version = pkg_config(&stage, &["--modversion"]);
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);

    let libraries = stage.join("opt/walarchive/lib");
    let shared = embed(&scratch, &stage, "shared", &["--cflags", "--libs"]);
    let needed = ok(Command::new("readelf").arg("-d").arg(&shared));
    let soname = fs::read_link(libraries.join("libwalarchive.so")).unwrap();
    assert!(needed.contains(&format!("[{}]", soname.display())), "{needed}");
    works(&scratch, &shared, Some(&libraries));

    // Where both are, linkers take the shared one.
    fs::remove_file(libraries.join("libwalarchive.so")).unwrap();
    let fixed = embed(&scratch, &stage, "fixed", &["--static", "--cflags", "--libs"]);
    assert!(!ok(Command::new("readelf").arg("-d").arg(&fixed)).contains("libwalarchive"));
    works(&scratch, &fixed, None);

    make(&stage, "uninstall", &[]);
    assert_eq!(files_below(&stage), Vec::<PathBuf>::new());
}

#[test]
fn a_module_goes_where_its_server_looks() {
    if require("make").is_none() || require("cc").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let stage = scratch.join("stage");
    let says = "#!/bin/sh\ncase $1 in --version) echo 'PostgreSQL 16.4 (Debian)' ;; --pkglibdir) echo /srv/pg16/lib ;; esac\n";
    let config = scratch.write("pg_config", says);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o755)).unwrap();
    let out = |name: &str| format!("OUT={}", scratch.join(name).display());
    let asked = [out("16"), format!("PG_CONFIG={}", config.display())];
    let told = [out("18"), "PG_MAJOR=18".to_owned(), "PG_LIBDIR=/srv/pg18/lib".to_owned()];
    for variables in [&asked[..], &told[..]] {
        make(&stage, "archive-module", variables);
        make(&stage, "install-archive-module", variables);
    }
    let mut placed = files_below(&stage);
    placed.sort();
    let module = |dir: &str| stage.join(dir).join("walarchive.so");
    assert_eq!(placed, [module("srv/pg16/lib"), module("srv/pg18/lib")]);
    make(&stage, "uninstall-archive-module", &asked);
    make(&stage, "uninstall-archive-module", &told);
    assert_eq!(files_below(&stage), Vec::<PathBuf>::new());

    let built = library("libwalarchive.a");
    let mut command = Command::new("make");
    command.arg("-s").arg("-C").arg(package()).args(["archive-module", "PG_MAJOR=14"]).arg(out("14"));
    command.arg(format!("LIB_BUILD={}", built.parent().unwrap().display()));
    let refused = Output::of(&command.output().unwrap());
    assert!(refused.code == Some(2) && refused.stderr.contains("must be 15, 16, 17 or 18"), "{refused:#?}");
}
