//! The Python package: a wheel as pip has maturin build it, its types, and its own tests on a real server.

use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::{
    Output, Scratch, find, postgres_bin, python_packages, reachable, require, target_dir,
};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("walarchive-ffi")
}

/// A program of the environment that `.ci/prepare` makes, as the user who builds. `PATH` stays as it is: with another one
/// dependencies would be built anew.
fn tool(name: &str) -> Command {
    let mut command = Command::new(target_dir().join("python/bin").join(name));
    command.current_dir(package());
    command
}

fn done(command: &mut Command) -> Output {
    let output = Output::of(&command.output().unwrap());
    assert_eq!(output.code, Some(0), "{command:?}: {output:#?}");
    output
}

/// The wheel, unpacked; built with the profile of the tests, as nothing is measured here.
fn installed(scratch: &Scratch) -> PathBuf {
    let (wheels, site) = (scratch.dir("wheels"), scratch.dir("site"));
    let mut build = tool("maturin");
    build.args(["build", "--quiet", "--profile", "dev", "--out"]).arg(&wheels);
    build.arg("--interpreter").arg(target_dir().join("python/bin/python3"));
    done(build.env("CARGO_TARGET_DIR", target_dir()));
    let [wheel] = &wheels.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..]
    else {
        panic!("one wheel was to be made")
    };
    let mut install = tool("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    done(install.arg(&site).arg(wheel));
    scratch.own(&site);
    site
}

#[test]
fn the_wheel_keeps_what_the_package_promises() {
    let Some((interpreter, packages)) = python_packages("maturin/__init__.py") else { return };
    let (Some(_), Some(bin)) = (require("initdb"), postgres_bin()) else { return };
    let scratch = Scratch::new();
    let site = installed(&scratch);
    let packages = reachable(&scratch, &packages);
    let tests = scratch.dir("tests");
    for entry in package().join("python/tests").read_dir().unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), tests.join(entry.file_name())).unwrap();
        }
    }
    scratch.own(&tests);

    let mut pytest = scratch.command(&interpreter);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"]);
    pytest.arg(scratch.join("pytest")).arg(&tests).current_dir(&tests);
    pytest.env("PYTHONPATH", format!("{}:{}", site.display(), packages.display()));
    pytest.env("PYTHONDONTWRITEBYTECODE", "1");
    let path = std::env::var("PATH").unwrap_or_default();
    pytest.env("PATH", format!("{}:{path}", bin.display()));
    let output = Output::of(&pytest.output().unwrap());
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    assert!(output.stdout.contains(" passed") && !output.stdout.contains("skipped"), "{}", output.stdout);
}

#[test]
fn its_types_hold() {
    let Some(_) = python_packages("mypy/__init__.py") else { return };
    assert!(find("python3").is_some());
    let scratch = Scratch::new();
    let user = scratch.write(
        "user.py",
        "import walarchive\n\n\
         class Heard(walarchive.Progress):\n    def advance(self, bytes: int) -> None:\n        print(bytes)\n\n\
         def copy(name: str) -> str:\n    \
         with walarchive.Cluster(archive=\"file:///a\", retry_budget=\"5s\") as cluster:\n        \
         cluster.push(name, progress=Heard())\n        found = cluster.backup(full=True)\n        \
         reveal_type(found)\n    return 7\n",
    );
    let mut mypy = tool("mypy");
    mypy.args(["--strict", "--no-incremental", "--cache-dir=/dev/null", "python/walarchive"]).arg(&user);
    mypy.env("MYPYPATH", "python");
    let output = Output::of(&mypy.output().unwrap());
    let errors: Vec<&str> = output.stdout.lines().filter(|line| line.contains("error:")).collect();
    assert!(errors.len() == 1 && errors[0].contains("got \"int\", expected \"str\""), "{output:#?}");
    assert!(output.stdout.contains("str, Any]\""), "{output:#?}");
}
