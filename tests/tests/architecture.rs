//! The rules of ARCHITECTURE.md, held against the source of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Rules = BTreeMap<String, BTreeSet<String>>;

/// A source file of the library.
struct Source {
    path: PathBuf,
    /// The module of the crate's root that it belongs to; empty for the root itself.
    module: String,
    /// The directories and the file's own name, below the crate's root: `["ops", "push"]`.
    place: Vec<String>,
    /// The code: no comments, no literals, no test modules.
    code: String,
}

impl Source {
    /// Whether this is (a part of) the module `a::b`.
    fn lies_in(&self, module: &str) -> bool {
        let wanted: Vec<&str> = module.split("::").collect();
        self.place.len() >= wanted.len() && self.place.iter().zip(&wanted).all(|(part, name)| part == name)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The lines `a -> b, c` of the fenced block with this name.
fn rules(page: &str, block: &str) -> Rules {
    let start = format!("```{block}\n");
    let body = page.split_once(&start).unwrap_or_else(|| panic!("ARCHITECTURE.md has no block {block}")).1;
    let lines = body.split_once("```").unwrap().0.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("not a rule: {line}"));
            let to = to.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "nobody");
            (from.trim().to_owned(), to.map(str::to_owned).collect())
        })
        .collect()
}

fn page() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

fn sources() -> Vec<Source> {
    let base = root().join("walarchive-core/src");
    let mut pending = vec![base.clone()];
    let mut sources = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.extend(source(&base, path));
            }
        }
    }
    assert!(sources.len() > 3, "the library's source was not found in {}", base.display());
    sources
}

fn source(base: &Path, path: PathBuf) -> Option<Source> {
    let below = path.strip_prefix(base).unwrap().with_extension("");
    let place: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if place.iter().any(|part| part == "tests" || part.ends_with("_tests")) {
        return None;
    }
    let module = if place == ["lib"] { String::new() } else { place[0].clone() };
    let code = without_tests(&bare(&fs::read_to_string(&path).unwrap()));
    Some(Source { path, module, place, code })
}

/// Blanks out comments, string literals and character literals.
fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let skipped = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"', ..] | ['r', '#', '"', ..] | ['r', '#', '#', '"', ..] => raw_string(rest),
            ['"', ..] => string(rest),
            ['\'', '\\', _, tail @ ..] => 3 + tail.iter().position(|c| *c == '\'').map_or(0, |end| end + 1),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if skipped == 0 {
            out.push(chars[at]);
        } else {
            out.push(' ');
        }
        at += skipped.max(1);
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[hashes + 2..];
    let length = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    (hashes + 2 + length + end.len()).min(rest.len())
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Takes out what stands behind `#[cfg(test)]`: a block, or what ends with a semicolon.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let mut depth = 0;
        let end = after.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            (*c == ';' || *c == '}') && depth == 0
        });
        rest = end.map_or("", |(at, _)| &after[at + 1..]);
    }
    out + rest
}

/// The first names behind every `prefix`: one of `crate::a::b`, several of `crate::{a::b, c}`.
fn names_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' || before == ':' || before == '$' {
            continue;
        }
        let rest = code[at + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

fn group_names(group: &str) -> BTreeSet<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                items.last_mut().unwrap().push(c);
            }
        }
    }
    items.iter().filter_map(|item| first_name(item.trim())).collect()
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The modules of the crate's root that a file names, by whatever way.
fn named_modules(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let mut names = names_behind(&source.code, "crate::");
    // From `wal/lsn.rs` the root is two steps up, from `wal/mod.rs` one.
    let is_mod = source.place.last().is_some_and(|name| name == "mod");
    let steps = source.place.len() - usize::from(is_mod && source.place.len() > 1);
    names.extend(names_behind(&source.code, &"super::".repeat(steps)));
    names
        .into_iter()
        .filter(|name| modules.contains(name) && *name != source.module && name != "error")
        .collect()
}

#[test]
fn modules_name_only_what_their_arrows_allow() {
    let arrows = rules(&page(), "arrows");
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut broken = Vec::new();
    let mut used: Rules = Rules::new();
    for source in sources.iter().filter(|source| !["", "error"].contains(&source.module.as_str())) {
        let Some(allowed) = arrows.get(&source.module) else {
            broken.push(format!("{}: the module {} has no line", source.path.display(), source.module));
            continue;
        };
        for name in named_modules(source, &modules) {
            if !allowed.contains(&name) {
                broken.push(format!("{}: {} -> {name}", source.path.display(), source.module));
            }
            used.entry(source.module.clone()).or_default().insert(name);
        }
    }
    for source in sources.iter().filter(|source| source.module == "error") {
        let named = names_behind(&source.code, "crate::");
        broken.extend(named.iter().map(|name| format!("{}: error -> {name}", source.path.display())));
    }
    assert!(broken.is_empty(), "not among the arrows of ARCHITECTURE.md:\n{}", broken.join("\n"));
    for (module, allowed) in arrows.iter().filter(|(module, _)| modules.contains(*module)) {
        let unused: Vec<_> =
            allowed.iter().filter(|to| !used.get(module).is_some_and(|set| set.contains(*to))).collect();
        if !unused.is_empty() {
            println!("nothing uses the arrow {module} -> {unused:?}");
        }
    }
}

#[test]
fn arrows_have_no_cycle() {
    let mut arrows = rules(&page(), "arrows");
    while !arrows.is_empty() {
        let known: BTreeSet<String> = arrows.keys().cloned().collect();
        let before = arrows.len();
        arrows.retain(|_, to| to.iter().any(|name| known.contains(name)));
        assert!(arrows.len() < before, "a cycle among {known:?}");
    }
}

#[test]
fn the_flows_do_not_name_each_other() {
    let sources = sources();
    let flow = |source: &Source| source.place.get(1).filter(|name| *name != "mod").cloned();
    let ops: Vec<&Source> = sources.iter().filter(|source| source.module == "ops").collect();
    let flows: BTreeSet<String> = ops.iter().filter_map(|source| flow(source)).collect();
    for source in ops {
        let Some(own) = flow(source) else { continue };
        let is_mod = source.place.last().is_some_and(|name| name == "mod");
        let steps = source.place.len() - 1 - usize::from(is_mod);
        let mut named = names_behind(&source.code, "crate::ops::");
        named.extend(names_behind(&source.code, &"super::".repeat(steps)));
        let others: Vec<_> = named.iter().filter(|name| flows.contains(*name) && **name != own).collect();
        assert!(
            others.is_empty(),
            "{} names {others:?}: move what they share further down",
            source.path.display()
        );
    }
}

#[test]
fn what_has_one_place_is_nowhere_else() {
    let places = rules(&page(), "places");
    let forbidden = rules(&page(), "forbidden");
    let mut broken = Vec::new();
    for source in sources() {
        for (word, modules) in &places {
            let allowed = modules.iter().any(|module| source.lies_in(module));
            if !allowed && has_word(&source.code, word) {
                broken.push(format!("{}: {word} is for {modules:?} alone", source.path.display()));
            }
        }
        for word in forbidden.get(&source.module).into_iter().flatten() {
            if has_word(&source.code, word) {
                broken.push(format!("{}: {word} is forbidden in {}", source.path.display(), source.module));
            }
        }
    }
    assert!(broken.is_empty(), "against ARCHITECTURE.md:\n{}", broken.join("\n"));
}

/// Whether `word` stands in `code` as a word of its own; `std::fs` is also found in `use std::{fs, io}`.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let spelled = code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let after = code[at + word.len()..].chars().next().unwrap_or(' ');
        !(is_part(before) && word.starts_with(is_part) || is_part(after) && word.ends_with(is_part))
    });
    let grouped = word.rsplit_once("::").is_some_and(|(path, name)| {
        code.match_indices(&format!("{path}::{{"))
            .any(|(at, start)| group_names(&code[at + start.len()..]).contains(name))
    });
    spelled || grouped
}

#[test]
fn the_reader_of_code_sees_what_it_must() {
    let code = r##"
        use crate::{archive::Key, /* storage:: */ wal::{Lsn, page}, error};
        // crate::ops::push
        fn f() { let x = "crate::config::x \" crate::y"; let c = '"'; crate::codec::g(r#"crate::cipher"#, '\'', 'a'); }
        #[cfg(test)]
        mod tests { use crate::source::S; fn g() { if true { } } }
        use super::super::files::write; use std::{fmt, fs}; println!("x");
    "##;
    let code = without_tests(&bare(code));
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names_behind(&code, "crate::"), set(&["archive", "wal", "error", "codec"]));
    assert_eq!(names_behind(&code, "super::super::"), set(&["files"]));
    assert!(has_word(&code, "std::fs") && has_word(&code, "println!"));
    assert!(!has_word(&code, "print!") && !has_word(&code, "std::io") && !has_word(&code, "std::f"));
    let file = |place: &[&str]| Source {
        path: PathBuf::new(),
        module: place[0].to_owned(),
        place: place.iter().map(|part| (*part).to_owned()).collect(),
        code: code.clone(),
    };
    assert!(file(&["wal", "lsn"]).lies_in("wal") && file(&["wal", "lsn"]).lies_in("wal::lsn"));
    assert!(!file(&["wal", "lsn"]).lies_in("wal::page") && !file(&["wal", "mod"]).lies_in("wal::lsn"));
    let modules = set(&["archive", "wal", "codec", "cipher", "files", "storage", "error", "ops"]);
    assert_eq!(named_modules(&file(&["wal", "lsn"]), &modules), set(&["archive", "codec", "files"]));
    assert_eq!(named_modules(&file(&["wal", "mod"]), &modules), set(&["archive", "codec"]));
}
