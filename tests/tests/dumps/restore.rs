//! Restores beside, in place of, and into what is there; and those that fail.

use walarchive_core::postgres::programs::restricts;
use walarchive_tests::{Options, Product};

use super::Night;

fn begun() -> Option<Night> {
    let night = Night::begin(Options::default())?;
    night.sql("postgres", "create role app");
    night.sql("postgres", "create database app owner app");
    night.sql("app", "create schema s; create table s.t (n int); insert into s.t values (1), (2); create table other as select 7 as n; alter table other owner to app");
    assert_eq!(night.run(&["create"]).code, Some(0));
    night.sql("app", "insert into s.t values (3)");
    Some(night)
}

fn rows(night: &Night, database: &str) -> String {
    night.sql(database, "select string_agg(n::text, ' ' order by n) from s.t")
}

#[test]
fn a_database_is_replaced_only_when_told_and_only_by_a_whole_one() {
    let Some(night) = begun() else { return };
    let refused = night.run(&["restore", "latest", "--database", "app"]);
    assert_eq!((refused.code, rows(&night, "app").as_str()), (Some(3), "1 2 3"), "{refused:?}");

    let status = night.product.json(&["status"]);
    assert_eq!(
        (&status["dumps"]["count"], &status["problems"]),
        (&3.into(), &serde_json::json!([])),
        "{status}"
    );

    let swapped = night.run(&["restore", "latest", "--database", "app", "--swap"]);
    assert_eq!((swapped.code, rows(&night, "app").as_str()), (Some(0), "1 2"), "{swapped:?}");
    let aside = swapped.json()["set_aside"].as_str().unwrap().to_owned();
    assert_eq!(rows(&night, &aside), "1 2 3");

    night.sql("app", "insert into s.t values (4)");
    let replaced = night.run(&["restore", "latest", "--database", "app", "--overwrite"]);
    assert_eq!((replaced.code, rows(&night, "app").as_str()), (Some(0), "1 2"), "{replaced:?}");
    assert_eq!(night.databases(), ["app".to_owned(), aside, "postgres".to_owned()], "the old one is dropped");
}

#[test]
fn a_transformation_runs_before_anybody_sees_the_database() {
    let Some(night) = begun() else { return };
    let script = |text: &str| night.scratch.write("scrub.sql", text).display().to_string();
    let wrong = script("update s.t set n = n * 10; select nonsense");
    let failed = night.run(&["restore", "latest", "--database", "app", "--swap", "--transform", &wrong]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(failed.stderr.contains("nonsense"), "{failed:?}");
    assert_eq!((rows(&night, "app").as_str(), night.databases().len()), ("1 2 3", 2), "nothing was changed");
    // Nothing in the script makes psql pass over errors.
    for command in ["\\set ON_ERROR_STOP 0", "\\set ON_ERROR_ROLLBACK on \\set ON_ERROR_STOP off", "\\! true"]
    {
        let weak = script(&format!("select 1; {command}\nselect nonsense;\nupdate s.t set n = n * 10;"));
        let refused = night.run(&["restore", "latest", "--database", "app", "--swap", "--transform", &weak]);
        assert_eq!(refused.code, Some(2), "{command}: {refused:?}");
        assert!(refused.stderr.contains("line 1"), "{refused:?}");
        assert_eq!((rows(&night, "app").as_str(), night.databases().len()), ("1 2 3", 2), "{command}");
    }
    // Nor where texts are read in another way than by the standard, if psql itself can be forbidden its commands.
    let version = night.cluster.tool("pg_dump", &["--version"]);
    if restricts(version.split_whitespace().nth(2).unwrap()) {
        let hidden = "set standard_conforming_strings = off;\nselect '\\', ';\n\\set ON_ERROR_STOP 0\nselect nonsense;";
        let hidden = script(hidden);
        let refused =
            night.run(&["restore", "latest", "--database", "app", "--swap", "--transform", &hidden]);
        assert_eq!((refused.code, rows(&night, "app").as_str()), (Some(3), "1 2 3"), "{refused:?}");
        assert!(refused.stderr.contains("restricted"), "{refused:?}");
    }
    // A transaction that is not ended counts.
    let good = script("begin; update s.t set n = n * 10");
    let done = night.run(&["restore", "latest", "--database", "app", "--swap", "--transform", &good]);
    assert_eq!((done.code, rows(&night, "app").as_str()), (Some(0), "10 20"), "{done:?}");
}

#[test]
fn one_table_or_schema_comes_back_alone() {
    let Some(night) = begun() else { return };
    let done = night.run(&["restore", "latest", "--database", "app", "--as", "part", "--table", "other"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(night.sql("part", "select n from other"), "7");
    assert_eq!(night.sql("part", "select to_regclass('s.t') is null"), "t");

    let of_schema = night.run(&["restore", "latest", "--database", "app", "--as", "schema", "--schema", "s"]);
    assert_eq!((of_schema.code, rows(&night, "schema").as_str()), (Some(0), "1 2"), "{of_schema:?}");
    let named = night.run(&["restore", "latest", "--database", "app", "--as", "named", "--table", "s.t"]);
    assert_eq!((named.code, rows(&night, "named").as_str()), (Some(0), "1 2"), "{named:?}");
    for nobody in [["--table", "nobody"], ["--table", "s.nobody"], ["--schema", "nobody"]] {
        let absent =
            night.run(&[&["restore", "latest", "--database", "app", "--as", "none"], &nobody[..]].concat());
        assert_eq!(absent.code, Some(1), "{absent:?}");
    }
    assert!(!night.databases().contains(&"none".to_owned()));

    if night.tools_are_too_new() {
        let refused = night.run(&["restore", "latest", "--database", "app", "--table", "other", "--add"]);
        assert_eq!(refused.code, Some(6), "{refused:?}");
        return;
    }
    night.sql("app", "drop table other");
    let added = night.run(&["restore", "latest", "--database", "app", "--table", "other", "--add"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(
        (night.sql("app", "select n from other").as_str(), rows(&night, "app").as_str()),
        ("7", "1 2 3")
    );
    let twice = night.run(&["restore", "latest", "--database", "app", "--table", "other", "--add"]);
    assert_eq!(twice.code, Some(3), "it is there already: {twice:?}");
    let part = night.run(&["restore", "latest", "--database", "app", "--table", "other", "--swap"]);
    assert_eq!(part.code, Some(2), "a part is no replacement: {part:?}");
    let mixed = night.run(&[
        "restore",
        "latest",
        "--database",
        "app",
        "--as",
        "x",
        "--table",
        "other",
        "--table",
        "s.t",
    ]);
    assert_eq!(mixed.code, Some(2), "{mixed:?}");
    assert_eq!(night.sql("app", "select count(*) from other"), "1", "all or nothing");
    assert_eq!(night.run(&["restore", "latest", "--database", "app", "--add"]).code, Some(2));
}

#[test]
fn what_cannot_be_restored_whole_leaves_nothing() {
    let Some(night) = begun() else { return };
    night.sql("postgres", "drop database app");
    night.sql("postgres", "drop role app");
    let failed = night.run(&["restore", "latest", "--database", "app"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(
        failed.stderr.contains("globals") && failed.stderr.contains("role \"app\" does not exist"),
        "{failed:?}"
    );
    assert_eq!(night.databases(), ["postgres"]);
    let without = night.run(&["restore", "latest", "--database", "app", "--no-owner"]);
    assert_eq!((without.code, rows(&night, "app").as_str()), (Some(0), "1 2"), "{without:?}");
    night.sql("postgres", "drop database app");
    let globals = night.run(&["restore", "latest", "--globals"]);
    assert_eq!(globals.code, Some(0), "{globals:?}");
    assert!(globals.json()["left_alone"].as_array().unwrap().contains(&"postgres".into()), "{globals:?}");
    let done = night.run(&["restore", "latest", "--database", "app"]);
    assert_eq!((done.code, rows(&night, "app").as_str()), (Some(0), "1 2"), "{done:?}");
}

#[test]
fn an_older_dump_does_not_pass_for_the_latest() {
    let Some(night) = begun() else { return };
    assert_eq!(night.run(&["create"]).code, Some(0));
    let ids = night.ids("app");
    let manifest = night.product.archive_dir().join("main/dumps/manifests").join(&ids[1]).join("manifest");
    std::fs::write(&manifest, "damaged").unwrap();
    let refused = night.run(&["restore", "latest", "--database", "app", "--overwrite"]);
    assert_eq!((refused.code, rows(&night, "app").as_str()), (Some(4), "1 2 3"), "{refused:?}");
    assert!(refused.stderr.contains(&ids[1]) && refused.stderr.contains(&ids[0]), "{refused:?}");
    assert_eq!(night.run(&["restore", &ids[0], "--overwrite"]).code, Some(0));
    assert_eq!(rows(&night, "app"), "1 2");
}

#[test]
fn a_damaged_dump_is_refused_and_named() {
    let Some(night) = begun() else { return };
    let id = night.ids("app").pop().unwrap();
    let packs = night.product.archive_dir().join("main/dumps/packs").join(&id);
    let pack = packs.join("00000000");
    let whole = std::fs::read(&pack).unwrap();
    // Beyond the header: what is within it is another test's.
    for at in [whole.len() / 2, whole.len() - 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&pack, &bytes).unwrap();
        for args in [&["restore", &id, "--as", "x"][..], &["show", &id], &["export", &id, "-o", "exported"]] {
            let refused = night.run(args);
            assert_eq!(refused.code, Some(4), "byte {at}: {args:?}: {refused:?}");
            assert!(refused.stderr.contains("packs"), "{refused:?}");
        }
        assert_eq!(night.databases(), ["app", "postgres"]);
        assert!(!night.scratch.join("exported").exists());
    }
    std::fs::remove_file(&pack).unwrap();
    assert_eq!(night.run(&["restore", &id, "--as", "x"]).code, Some(4), "a missing pack is damage");
    let unreachable = Product::clone(&night.product).but("WALARCHIVE_ARCHIVE", "file:///nowhere/at/all");
    assert_eq!(unreachable.run(&["dump", "list"]).code, Some(5));
}

#[test]
fn names_with_dots_are_quoted() {
    let Some(night) = begun() else { return };
    night.sql("app", "create schema \"s.x\"; create table \"s.x\".\"a.b\" as select 5 as n; create table \"a.b\" as select 6 as n");
    assert_eq!(night.run(&["create"]).code, Some(0));
    let quoted = "\"s.x\".\"a.b\"";
    for (part, table, found) in [
        (["--table", quoted], quoted, "5"),
        (["--table", "public.\"a.b\""], "public.\"a.b\"", "6"),
        (["--schema", "\"s.x\""], quoted, "5"),
        (["--schema", "s.x"], quoted, "5"),
    ] {
        let restore = ["restore", "latest", "--database", "app", "--as", "part"];
        let done = night.run(&[&restore[..], &part[..]].concat());
        assert_eq!(done.code, Some(0), "{part:?}: {done:?}");
        assert_eq!(night.sql("part", &format!("select n from {table}")), found);
        night.sql("postgres", "drop database part");
    }
    for wrong in ["a.b.c", "\"a.b", "s."] {
        let refused =
            night.run(&["restore", "latest", "--database", "app", "--as", "part", "--table", wrong]);
        assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
    }
}
