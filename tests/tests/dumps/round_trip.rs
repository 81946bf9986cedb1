//! What was dumped comes back as it was.

use std::fs;
use std::process::{Command, Stdio};

use walarchive_tests::{Options, bytes_below, require, sample};

use super::{Night, assert_same, identifier};

/// Names that shells, connection strings, URLs, file names and SQL each would stumble over.
const ODD: [&str; 9] = [
    "with space",
    "quote'd \"twice\"",
    "back\\slash/and/slash",
    "ünïcödé-日本",
    "--option=x host=y",
    "globals",
    "a\nb",
    "*?%20",
    "UPPER.lower",
];

/// Kinds of objects that dumps have to carry.
const OBJECTS: &str = "
create schema \"odd schema\";
create type mood as enum ('sad', 'it''s');
create domain \"größe\" as int check (value > 0);
create table \"odd schema\".parent (id int primary key, at date not null, m mood, g \"größe\",
  twice int generated always as (id * 2) stored, t tsvector, j jsonb, b bytea) ;
create table parts (id int, at date) partition by range (at);
create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01');
create index on parts (id);
insert into parts select n, date '2026-01-01' + n % 300 from generate_series(1, 2000) n;
insert into \"odd schema\".parent (id, at, m, g, t, j, b)
  select n, '2026-02-03', 'it''s', n, to_tsvector('simple', 'wort ' || n), jsonb_build_object('n', n), decode(md5(n::text), 'hex')
  from generate_series(1, 3000) n;
create sequence s start 17; select nextval('s');
create view v as select count(*) from parts;
create materialized view mv as select max(id) from parts;
create function f(int) returns int language plpgsql as $$ begin return $1 + 1; end $$;
create table copies (line text);
insert into copies values (E'\\\\.'), (E'a\\tb\\nc\\rd\\\\'), (null), (''), (E'\\r estrict');
create unlogged table u as select 1 as x;
select lo_from_bytea(0, decode(repeat('00ff41', 5000), 'hex')), lo_from_bytea(0, ''), lo_create(4711);
comment on large object 4711 is 'empty';
";

impl Night {
    fn make_odd_databases(&self) {
        self.cluster.psql("create role \"odd role\" login; create role app");
        for name in ODD {
            let quoted = identifier(name);
            self.sql("postgres", &format!("create database {quoted} owner app encoding 'UTF8' lc_collate 'C' lc_ctype 'C' template template0"));
            self.sql(name, OBJECTS);
            for statement in [
                format!("alter database {quoted} set search_path = \"odd schema\", public"),
                format!("alter database {quoted} set my.setting = 'it''s \\ odd'"),
                format!("alter role \"odd role\" in database {quoted} set work_mem = '8MB'"),
                format!("comment on database {quoted} is 'it''s \\ odd'"),
                format!(
                    "revoke all on database {quoted} from public; grant connect on database {quoted} to \"odd role\" with grant option"
                ),
                format!("alter database {quoted} connection limit 7"),
            ] {
                self.sql("postgres", &statement);
            }
        }
    }
}

#[test]
fn every_name_round_trips_with_all_that_belongs_to_it() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.make_odd_databases();
    let done = night.run(&["create", "--jobs", "2"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let expected: Vec<String> = ODD.iter().map(|name| night.content(name)).collect();
    for (name, expected) in ODD.iter().zip(&expected) {
        let beside = night.product.run(&["dump", "restore", "latest", "--database", name, "--as", "beside"]);
        assert_eq!(beside.code, Some(0), "{beside:?}");
        // Of a name with a line break, pg_dump does not tell what belongs to its database.
        if !name.contains('\n') {
            assert_same(&night.content("beside"), expected, name);
        }
        night.sql("postgres", "drop database beside");
        night.sql("postgres", &format!("drop database {}", identifier(name)));
        let again = night.run(&["restore", "latest", "--database", name, "--jobs", "2"]);
        assert_eq!(again.code, Some(0), "{again:?}");
        assert_same(&night.content(name), expected, name);
    }
    assert!(!night.databases().iter().any(|name| name.contains("restore_")), "{:?}", night.databases());
}

#[test]
fn directories_and_plain_scripts_bring_back_the_same() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.product.set("WALARCHIVE_DUMP_PARALLEL_FROM", "1");
    night.sql("postgres", "create database app");
    night.sql("app", OBJECTS);
    night.sql("app", "create table large as select n, md5(n::text) t from generate_series(1, 200000) n");
    let expected = night.content("app");
    for (args, format) in
        [(["--jobs", "3"], "directory"), (["--format", "plain"], "plain"), (["--jobs", "1"], "custom")]
    {
        let done = night.run(&[&["create", "--database", "app", "--no-globals"], &args[..]].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        let dump = &done.json()["dumps"][0];
        assert_eq!(dump["format"], format, "{dump}");
        let id = dump["id"].as_str().unwrap();
        for jobs in ["1", "2"] {
            let restored = night.run(&["restore", id, "--as", "beside", "--jobs", jobs]);
            assert_eq!(restored.code, Some(0), "{restored:?}");
            assert_same(&night.content("beside"), &expected, format);
            night.sql("postgres", "drop database beside");
        }
        let exported = night.scratch.join(format!("exported-{format}"));
        let export = night.run(&["export", id, "-o", exported.to_str().unwrap()]);
        assert_eq!(export.code, Some(0), "{export:?}");
        if format != "plain" {
            let mut list = night.cluster.client_command("pg_restore");
            assert!(list.arg("--list").arg(&exported).output().unwrap().status.success());
        }
        assert_eq!(
            night.run(&["export", id, "-o", exported.to_str().unwrap()]).code,
            Some(3),
            "it is there already"
        );
    }
}

#[test]
fn a_dump_as_one_file_needs_only_standard_tools() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let (Some(age), Some(zstd)) = (require("age"), require("zstd")) else { return };
    night.sql("postgres", "create database app");
    night.sql("app", OBJECTS);
    let expected = night.content("app");
    for format in ["plain", "custom"] {
        let done =
            night.run(&["create", "--database", "app", "--no-globals", "--as-file", "--format", format]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let id = done.json()["dumps"][0]["id"].as_str().unwrap().to_owned();
        let shown = night.run(&["show", &id]).json();
        let objects = shown["objects"].as_array().unwrap();
        assert_eq!(objects.len(), 1, "{shown}");
        let object = night.product.archive_dir().join(objects[0].as_str().unwrap());
        let mut open = Command::new(&age)
            .args(["-d", "-i"])
            .arg(night.product.identity_file())
            .arg(object)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let plain = Command::new(&zstd).arg("-d").stdin(open.stdout.take().unwrap()).output().unwrap();
        assert!(open.wait().unwrap().success() && plain.status.success(), "{plain:?}");
        night.sql("postgres", "create database by_hand template template0");
        let file = night.scratch.write("by-hand", &plain.stdout);
        let mut restore = match format {
            "plain" => night.cluster.client_command("psql"),
            _ => night.cluster.client_command("pg_restore"),
        };
        if format == "plain" {
            let stop = if night.tools_are_too_new() { "ON_ERROR_STOP=0" } else { "ON_ERROR_STOP=1" };
            restore.args(["-X", "-q", "-v", stop, "-f"]).arg(&file).args(["-d", "by_hand"]);
        } else {
            restore.args(["-d", "by_hand"]).arg(&file);
        }
        let restored = restore.output().unwrap();
        let is_well = restored.status.success() || night.tools_are_too_new();
        assert!(is_well, "{}", String::from_utf8_lossy(&restored.stderr));
        assert_same(&night.content("by_hand"), &expected, format);
        night.sql("postgres", "drop database by_hand");
    }
}

#[test]
fn a_changed_row_costs_a_chunk_and_each_dump_stands_alone() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let Some(pagila) = sample::real_data("pagila.sql") else { return };
    night.sql("postgres", "create database pagila");
    night.load("pagila", &pagila);
    assert_eq!(night.run(&["create"]).code, Some(0));
    let first = night.content("pagila");
    let before = bytes_below(&night.product.archive_dir());
    night.sql("pagila", "update film set rental_rate = 9.99 where film_id = 77");
    let done = night.run(&["create", "--no-globals", "--database", "pagila"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let more = bytes_below(&night.product.archive_dir()) - before;
    assert!(more < 64 * 1024, "{more} bytes were stored for one row");
    let second = night.content("pagila");
    assert_ne!(first, second);
    let ids = night.ids("pagila");
    // The first goes; what the second points to of it stays.
    assert_eq!(night.run(&["delete", &ids[0], "--yes"]).code, Some(0));
    night.product.but("WALARCHIVE_PRUNE_GRACE", "0s").ok(&["prune", "--yes"]);
    assert_eq!(night.run(&["restore", &ids[1], "--as", "second"]).code, Some(0));
    // The server fills pages as it sees fit: of what was updated, the order may change.
    assert_same(&sorted(&night.content("second")), &sorted(&second), "the second");
    assert_eq!(night.run(&["restore", &ids[0], "--as", "first"]).code, Some(1), "it is deleted");
    assert_eq!(night.run(&["delete", &ids[1], "--yes"]).code, Some(3), "it is the last one");
    assert_eq!(night.run(&["delete", &ids[1], "--yes", "--even-the-last"]).code, Some(0));
    let packs = night.product.archive_dir().join("main/dumps/packs");
    let left: Vec<_> =
        fs::read_dir(packs).unwrap().flatten().filter(|dir| bytes_below(&dir.path()) > 0).collect();
    assert_eq!(left.len(), 2, "the packs of globals and of database postgres alone: {left:?}");
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn netflix_round_trips() {
    let Some(file) = sample::real_data("netflix.sql") else { return };
    let Some(night) = Night::begin(Options::default()) else { return };
    night.sql("postgres", "create database netflix");
    night.load("netflix", &file);
    assert_eq!(night.run(&["create", "--no-globals", "--database", "netflix"]).code, Some(0));
    assert_eq!(night.run(&["restore", "latest", "--database", "netflix", "--as", "again"]).code, Some(0));
    assert_same(&night.content("again"), &night.content("netflix"), "netflix");
}
