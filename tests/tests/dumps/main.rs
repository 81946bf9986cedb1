//! Logical dumps of real servers.

mod connections;
mod hosts;
mod nights;
mod restore;
mod round_trip;
mod stopping;
mod stores;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walarchive_tests::{Cluster, Options, Output, Product, Scratch, postgres_major};

/// A server, and an archive for its dumps.
struct Night {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
}

impl Night {
    /// `None`, after a loud note, when PostgreSQL is not installed.
    fn begin(options: Options) -> Option<Night> {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start()?;
        let mut product = Product::with(&scratch, options);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.set("WALARCHIVE_STORE_RETRY_BUDGET", "2s");
        Some(Night { scratch, cluster, product })
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.cluster.client_command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &dbname(database), "-c", sql]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{database}: {sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn load(&self, database: &str, file: &Path) {
        let script = self.scratch.write("load.sql", fs::read(file).unwrap());
        let mut psql = self.cluster.client_command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(script);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What pg_dump says of a database, its name and pg_dump's own keys left out.
    fn content(&self, database: &str) -> String {
        let mut command = self.cluster.client_command("pg_dump");
        // PostgreSQL's own tools refuse to make databases with line breaks in their names.
        if !database.contains('\n') {
            command.arg("--create");
        }
        let output = command.args(["-d", &dbname(database)]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let is_own = |line: &&str| {
            line.contains("restrict ") || line.starts_with("\\connect") || line.starts_with("\\encoding")
        };
        let kept = text.lines().filter(|line| !is_own(line));
        let quoted = self.sql("postgres", &format!("select quote_ident({})", literal(database)));
        // Tables may be named like it.
        let of_it = |line: &str| match line.contains("DATABASE") {
            true => line.replace(&quoted, "THE-DATABASE").replace(database, "THE-DATABASE"),
            false => line.to_owned(),
        };
        kept.map(of_it).collect::<Vec<_>>().join("\n")
    }

    /// Whether pg_dump is of a version that sets what this server does not know.
    fn tools_are_too_new(&self) -> bool {
        let version = self.cluster.tool("pg_dump", &["--version"]);
        let digits = version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit);
        digits.collect::<String>().parse::<u32>().unwrap() >= 17 && postgres_major() < Some(17)
    }

    fn databases(&self) -> Vec<String> {
        let names = "select coalesce(json_agg(datname order by datname), '[]') from pg_database where not datistemplate";
        serde_json::from_str(&self.sql("postgres", names)).unwrap()
    }

    fn dumps(&self) -> Vec<Value> {
        self.product.json(&["dump", "list"])["dumps"].as_array().unwrap().clone()
    }

    /// The ids of the dumps of a database, oldest first.
    fn ids(&self, database: &str) -> Vec<String> {
        let dumps = self.dumps();
        let of = dumps.iter().filter(|dump| dump["database"] == database);
        of.map(|dump| dump["id"].as_str().unwrap().to_owned()).collect()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.product.run(&[&["--json", "dump"], args].concat())
    }

    /// A shell script in the scratch directory that can be run.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        let file = self.scratch.write(name, format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }
}

/// Says where two texts differ first.
fn assert_same(found: &str, expected: &str, what: &str) {
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{what} differs first in {differs:?}, in length {:?}",
        (found.len(), expected.len())
    );
}

fn dbname(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
