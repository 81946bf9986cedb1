//! Servers that are reached in all of libpq's ways, and the programs that fit them.

use std::fs;
use std::path::PathBuf;

use walarchive_tests::{Options, Output, Product, find, postgres_major};

use super::Night;

/// Characters that `.pgpass` and connection strings each have to quote.
const PASSWORD: &str = r"ge:hei\m 'wort'";

impl Night {
    /// From now on the role `dumper` needs its password; `postgres` needs none.
    fn ask_for_a_password(&self) {
        // In one session: before PostgreSQL 14 the default is md5.
        let role = "create role dumper superuser login password E'ge:hei\\\\m ''wort'''";
        self.sql("postgres", &format!("set password_encryption = 'scram-sha-256'; {role}"));
        let rules = "local all dumper scram-sha-256\nlocal all all trust\n";
        fs::write(self.cluster.data_dir().join("pg_hba.conf"), rules).unwrap();
        self.cluster.reload();
    }

    /// PostgreSQL's client programs, which note their arguments in a file.
    fn programs_that_tell(&self) -> (PathBuf, PathBuf) {
        let (dir, log) = (self.scratch.dir("telling"), self.scratch.join("arguments"));
        for program in ["psql", "pg_dump", "pg_dumpall", "pg_restore"] {
            let real = find(program).unwrap();
            let text =
                format!("printf '%s\\n' \"$0\" \"$@\" >> {}; exec {} \"$@\"", log.display(), real.display());
            self.program(&format!("telling/{program}"), &text);
        }
        (dir, log)
    }

    /// The product, made to connect in one way only.
    fn connecting(&self, variables: &[(&str, &str)]) -> Product {
        let mut product = self.product.clone();
        product.unset("WALARCHIVE_CONNECTION");
        variables.iter().for_each(|(name, value)| product.set(name, value));
        product
    }
}

fn create(product: &Product) -> Output {
    product.run(&["--json", "-v", "dump", "create"])
}

#[test]
fn services_and_password_files_are_found_and_passwords_told_to_nobody() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.ask_for_a_password();
    let (programs, arguments) = night.programs_that_tell();
    night.product.set("WALARCHIVE_BIN_DIR", programs.to_str().unwrap());
    let conninfo = night.cluster.conninfo().replace("user=postgres", "user=dumper");
    let service = night.scratch.write("services", format!("[night]\n{}\n", conninfo.replace(' ', "\n")));
    let service = service.to_str().unwrap();
    let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    let with_password = format!("{conninfo} password='{quoted}'");
    let plain = [("WALARCHIVE_CONNECTION", conninfo.as_str())];
    let by_service = [("WALARCHIVE_CONNECTION", "service=night"), ("PGSERVICEFILE", service)];
    let by_variable = [("PGSERVICE", "night"), ("PGSERVICEFILE", service)];
    let by_string = [("WALARCHIVE_CONNECTION", with_password.as_str())];

    let in_file = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let mut seen = Vec::new();
    for (line, way, code) in [
        (in_file.as_str(), &by_service[..], 0),
        (&in_file, &by_variable, 0),
        (&in_file, &plain, 0),
        ("", &by_string, 0),
        ("", &plain, 5),
        ("ge:heimnis", &by_service, 5),
    ] {
        night.scratch.write(".pgpass", format!("*:*:*:dumper:{line}\n"));
        if line.is_empty() {
            fs::remove_file(night.scratch.join(".pgpass")).unwrap();
        }
        let done = create(&night.connecting(way));
        assert_eq!(done.code, Some(code), "{line:?} {way:?}: {done:?}");
        seen.push(format!("{done:?}"));
    }
    // And back: the same programs, the same connection.
    night.scratch.write(".pgpass", format!("*:*:*:dumper:{in_file}\n"));
    let restore = ["dump", "restore", "latest", "--database", "postgres", "--as", "proof"];
    let restored = night.connecting(&by_service).run(&restore);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    seen.push(fs::read_to_string(&arguments).unwrap());
    assert!(
        ["pg_dump", "pg_dumpall", "pg_restore"].iter().all(|program| seen.last().unwrap().contains(program))
    );
    for text in &seen {
        assert!(!text.contains("ge:") && !text.contains("hei"), "a password is told: {text}");
    }
}

impl Night {
    /// A directory with client programs that say they are of this version, and are those of the server; `psql` passes what
    /// it says through a filter.
    fn programs_of(&self, version: &str, filter: &str) -> PathBuf {
        let dir = self.scratch.dir(format!("of-{version}"));
        for program in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
            let real = find(program).unwrap();
            let real = real.display();
            let text = match program {
                "psql" => format!("{real} \"$@\" | {filter}"),
                _ => format!(
                    "[ \"$1\" = --version ] && echo '{program} (PostgreSQL) {version}' && exit\nexec {real} \"$@\""
                ),
            };
            self.program(&format!("of-{version}/{program}"), &text);
        }
        dir
    }
}

#[test]
fn of_several_versions_the_server_s_own_dumps_or_the_newest_that_is_not_older() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let Some(major) = postgres_major() else { return };
    let says = |version: u32| format!("sed -E 's/^{major}[0-9]{{4}}\\t/{version}0001\\t/'");
    let dirs = [
        night.programs_of(&format!("{}.22", major - 2), "cat"),
        night.programs_of("94.1", "cat"),
        night.programs_of(&format!("{major}.98"), "cat"),
        night.programs_of(&format!("{major}.99"), "cat"),
        night.programs_of("93.2", "cat"),
    ];
    // What the first psql in PATH says counts as the server's version; none that is really installed is as new as these.
    let asked = |name: u32| night.programs_of(&format!("{}.{name}", major - 3), &says(90 + name));
    let run = |first: Option<&PathBuf>| {
        let path = first.into_iter().chain(&dirs).map(|dir| dir.to_str().unwrap()).collect::<Vec<_>>();
        night
            .product
            .but("PATH", &format!("{}:/usr/bin:/bin", path.join(":")))
            .run(&["--json", "dump", "create"])
    };
    let version = |output: &Output| output.json()["dump_version"].as_str().unwrap_or_default().to_owned();

    let own = run(None);
    assert_eq!((own.code, version(&own)), (Some(0), format!("{major}.99")), "{own:?}");
    // None is of the server's version: the newest that is newer.
    let newer = run(Some(&asked(2)));
    assert_eq!((newer.code, version(&newer)), (Some(0), "94.1".to_owned()), "{newer:?}");
    // All are older.
    let older = run(Some(&asked(9)));
    assert_eq!(older.code, Some(6), "{older:?}");
    assert!(older.stderr.contains("pg_dump 99 or newer"), "{older:?}");
    assert!(older.stderr.contains("94.1"), "it says what is there: {older:?}");
    // One that is named is taken, and is refused when it is too old.
    let named = night.product.but("WALARCHIVE_BIN_DIR", dirs[2].to_str().unwrap());
    let named = named.run(&["--json", "dump", "create"]);
    assert_eq!((named.code, version(&named)), (Some(0), format!("{major}.98")), "{named:?}");
    let old = night.product.but("WALARCHIVE_BIN_DIR", dirs[0].to_str().unwrap());
    assert_eq!(old.run(&["--json", "dump", "create"]).code, Some(6));
}
