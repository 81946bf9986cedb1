//! The rules of deny.toml, held against the dependency graph: what `cargo deny check bans licenses sources` would
//! check, without building it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 50, "the graph has only {} packages", packages.len());
    packages
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

#[test]
fn no_banned_crate_is_in_the_graph() {
    let rules = rules();
    let banned: Vec<&str> =
        rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["name"].as_str().unwrap()).collect();
    assert!(banned.contains(&"openssl"));
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        let known = package["name"].as_str().unwrap();
        assert!(!banned.contains(&known), "{} is banned", name(&package));
        versions.entry(known.to_owned()).or_default().push(package["version"].as_str().unwrap().to_owned());
    }
    versions.retain(|_, versions| versions.len() > 1);
    println!("in several versions: {versions:?}");
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in packages() {
        let from = package["source"].as_str();
        assert!(from.is_none_or(|from| from == REGISTRY), "{} comes from {from:?}", name(&package));
        let is_ours = Path::new(package["manifest_path"].as_str().unwrap()).starts_with(root());
        assert_eq!(from.is_none(), is_ours, "{} lies outside the workspace", name(&package));
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|_| is_ours) {
            let wild = dependency["req"] == "*" && dependency["path"].is_null();
            assert!(!wild, "{} takes any version of {}", name(&package), dependency["name"]);
        }
    }
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let allowed: Vec<&str> = rules["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| licence.as_str().unwrap())
        .collect();
    for package in packages() {
        let expression =
            package["license"].as_str().unwrap_or_else(|| panic!("{} names no licence", name(&package)));
        assert!(permitted(expression, &allowed), "{}: {expression} is not allowed", name(&package));
    }
}

/// Whether a licence expression (SPDX, or the older form with `/` for `OR`) can be met with `allowed` alone.
fn permitted(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allowed);
    assert!(words.peek().is_none(), "not an expression: {expression}");
    met
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let word = words.next().unwrap_or_default();
    if word == "(" {
        let met = any(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return met;
    }
    match words.next_if_eq(&"WITH") {
        Some(_) => allowed.contains(&format!("{word} WITH {}", words.next().unwrap_or_default()).as_str()),
        None => allowed.contains(&word),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let permitted = |expression| permitted(expression, &["MIT", "Apache-2.0"]);
    assert!(permitted("MIT"));
    assert!(permitted("GPL-3.0-only OR MIT"));
    assert!(permitted("Unlicense/MIT"));
    assert!(permitted("(GPL-3.0-only OR MIT) AND Apache-2.0"));
    assert!(!permitted("GPL-3.0-only"));
    assert!(!permitted("GPL-3.0-only AND MIT"));
    assert!(!permitted("MIT AND (GPL-3.0-only OR Unlicense)"));
    assert!(!permitted("Apache-2.0 WITH LLVM-exception"));
    assert!(permitted("Apache-2.0 WITH LLVM-exception OR MIT"));
}
