//! Which databases are dumped, and in what order: no input or output.

/// A database of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Dumps that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) databases: Vec<Database>,
    /// How many of them at once.
    pub(super) at_once: usize,
    /// How many connections each of them uses.
    pub(super) connections: usize,
}

/// Whether a name fits a pattern: `*` is any run of characters, `?` any one.
pub fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(in_pattern) {
            Some('*') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(c) if *c == '?' || *c == name[at] => (at, in_pattern) = (at + 1, in_pattern + 1),
            _ => match star {
                Some((behind, from)) => {
                    star = Some((behind, from + 1));
                    (at, in_pattern) = (from + 1, behind + 1);
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|c| *c == '*')
}

/// The databases that are wanted, by name; and what of `wanted` fits no database.
pub(super) fn choose(
    all: Vec<Database>,
    wanted: &[String],
    excluded: &[String],
) -> (Vec<Database>, Vec<String>) {
    let has = |name: &str| all.iter().any(|database| database.name == name || fits(&database.name, name));
    let lost = wanted.iter().filter(|name| !has(name));
    let lost = lost.cloned().collect();
    // A name that is said as it is means that database, whatever characters it has.
    let is_named =
        |name: &str, by: &[String]| by.iter().any(|pattern| name == pattern || fits(name, pattern));
    let is_wanted = |database: &Database| {
        (wanted.is_empty() || is_named(&database.name, wanted)) && !is_named(&database.name, excluded)
    };
    (all.into_iter().filter(is_wanted).collect(), lost)
}

/// Shares `jobs` connections among the databases. One that is more work than all others can be at the same time is dumped
/// first, over all connections, if it has `split_from` bytes at least.
pub(super) fn turns(mut databases: Vec<Database>, jobs: usize, split_from: u64) -> Vec<Turn> {
    databases.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let jobs = jobs.max(1);
    let mut turns = Vec::new();
    let mut rest: u64 = databases.iter().map(|database| database.bytes).sum();
    let is_large = |database: &Database, rest: u64| {
        jobs > 1 && database.bytes >= split_from && database.bytes.saturating_mul(jobs as u64) > rest
    };
    while databases.first().is_some_and(|first| is_large(first, rest)) {
        let first = databases.remove(0);
        rest -= first.bytes;
        turns.push(Turn { databases: vec![first], at_once: 1, connections: jobs });
    }
    if !databases.is_empty() {
        turns.push(Turn { databases, at_once: jobs, connections: 1 });
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases(of: &[(&str, u64)]) -> Vec<Database> {
        of.iter().map(|(name, mib)| Database { name: (*name).to_owned(), bytes: mib << 20 }).collect()
    }

    fn names(of: &[Database]) -> Vec<&str> {
        of.iter().map(|database| database.name.as_str()).collect()
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (name, pattern) in [
            ("abc", "*"),
            ("", "*"),
            ("abc", "a*"),
            ("abc", "*c"),
            ("abc", "a?c"),
            ("aXbXc", "a*b*c"),
            ("ä b", "?*b"),
        ] {
            assert!(fits(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [("abc", "b*"), ("abc", "ab"), ("", "?"), ("ab", "a?c"), ("foo-bar", "foo")] {
            assert!(!fits(name, pattern), "{name} {pattern}");
        }
    }

    #[test]
    fn wanted_names_that_nobody_has_are_told() {
        let all = || databases(&[("app", 1), ("app_test", 1), ("odd*name", 1)]);
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (chosen, lost) = choose(all(), &text(&["app*", "gone", "none*"]), &text(&["*_test"]));
        assert_eq!((names(&chosen), lost), (vec!["app"], text(&["gone", "none*"])));
        let (chosen, _) = choose(all(), &[], &text(&["app"]));
        assert_eq!(names(&chosen), ["app_test", "odd*name"]);
    }

    #[test]
    fn what_outweighs_the_rest_is_split() {
        let all = databases(&[("small", 10), ("huge", 9000), ("big", 900), ("tiny", 1)]);
        let split = turns(all.clone(), 2, 256 << 20);
        assert_eq!(
            split
                .iter()
                .map(|turn| (names(&turn.databases), turn.at_once, turn.connections))
                .collect::<Vec<_>>(),
            [(vec!["huge"], 1, 2), (vec!["big"], 1, 2), (vec!["small", "tiny"], 2, 1)]
        );
        for turns in [turns(all.clone(), 1, 256 << 20), turns(all, 2, u64::MAX)] {
            assert_eq!(turns.len(), 1);
            assert_eq!((turns[0].databases.len(), turns[0].connections), (4, 1));
        }
        assert!(turns(Vec::new(), 2, 0).is_empty());
    }
}
