//! A house with everything: a database host that archives and dumps, a backup machine that pulls, a store offsite. What is lost in it,
//! one after the other, and what comes back from what is left.
//!
//! The backup machine's account on the database host is one of a real OpenSSH server that forces SFTP without writing. SeaweedFS knows no
//! credential that may create and not delete or replace; so what such a one may not do is refused by a proxy in front of it.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use walarchive_tests::proxy::{Answer, Fault, Proxy, Rule};
use walarchive_tests::sample::real_data;
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Cluster, Options, Output, Product, Scratch, Sshd, StopMode, find, verify_backup};

/// Names that nobody who writes SQL by hand would choose.
const ODD: &str = "Zürich; \"drop\"";

struct House {
    scratch: Scratch,
    cluster: Cluster,
    /// The database host and its archive. It holds public keys alone.
    host: Product,
    sshd: Sshd,
    /// The backup machine and the archive that it pulls. It holds public keys alone.
    machine: Product,
    bucket: Bucket,
    /// What of the bucket can be reached with the backup machine's credential.
    proxy: Proxy,
    /// The secret half of the key, which is brought along where something is restored.
    identity: PathBuf,
}

/// A row that was written and archived, and everything that was there then.
struct Moment {
    row: u32,
    committed: String,
    segment: String,
    everything: String,
}

impl Moment {
    /// Where its last segment begins.
    fn begin(&self) -> String {
        self.border(0)
    }

    /// Where the WAL that is archived of it ends.
    fn end(&self) -> String {
        self.border(1)
    }

    fn border(&self, segments: u64) -> String {
        let number = |part: &str| u64::from_str_radix(part, 16).unwrap();
        let border = (number(&self.segment[8..16]) << 32) + ((number(&self.segment[16..]) + segments) << 20);
        format!("{:X}/{:X}", border >> 32, border & 0xffff_ffff)
    }
}

impl House {
    /// `None`, after a loud note, when a part is not installed.
    fn build() -> Option<House> {
        let scratch = Scratch::new();
        let sshd = Sshd::start_with(&scratch, "-R")?;
        let bucket = stores::seaweed(&scratch)?;
        let proxy = Proxy::start(bucket.server().addr().parse().unwrap());
        proxy.set(CREATES_ONLY.iter().map(|rule| rule()));
        let cluster = Cluster::builder(&scratch)
            .wal_segment_mib(1)
            .conf("autovacuum = off")
            .conf("track_commit_timestamp = on")
            .create()?;
        let conninfo = cluster.conninfo();
        let socket = conninfo.split_whitespace().next().unwrap().trim_start_matches("host=").to_owned();
        cluster.append_conf(&format!("unix_socket_directories = '{socket}'"));
        let mut host = Product::new(&scratch);
        let identity = host.identity_file();
        host.unset("WALARCHIVE_IDENTITY_FILE");
        host.set("WALARCHIVE_CONNECTION", &conninfo);
        host.set("PGDATA", cluster.data_dir().to_str().unwrap());
        let mut machine =
            Product::with(&scratch, Options { init: false, encrypted: false, ..Options::default() });
        machine.set("WALARCHIVE_STORE_SSH_IDENTITY", sshd.identity().to_str().unwrap());
        machine.set("WALARCHIVE_STORE_SSH_KNOWN_HOSTS", sshd.known_hosts().to_str().unwrap());
        let credential = bucket.with_endpoint(&proxy.addr().to_string()).env();
        credential.iter().for_each(|(name, value)| machine.set(name, value));
        cluster.archive_with(&host);
        let mut house = House { scratch, cluster, host, sshd, machine, bucket, proxy, identity };
        house.cluster.start();
        house.fill();
        Some(house)
    }

    /// Several databases, with data that people have written, where there are some.
    fn fill(&self) {
        self.cluster.psql("create role shopkeeper login; create table journal (row int primary key)");
        self.cluster.psql("create database shop owner shopkeeper");
        self.cluster.psql(&format!("create database \"{}\"", ODD.replace('"', "\"\"")));
        let made = "create table goods as select n, md5(n::text) as name from generate_series(1, 20000) n;";
        let titles = real_data("netflix.sql").map(|file| fs::read_to_string(file).unwrap());
        self.run_in("shop", &titles.unwrap_or_else(|| made.to_owned()));
        self.run_in(ODD, "create table t (a text unique); insert into t values ('ä'), (null); analyze");
    }

    fn run_in(&self, database: &str, sql: &str) {
        let script = self.scratch.write("script.sql", sql);
        let mut psql = self.cluster.client_command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(script);
        let output = Output::of(&psql.output().unwrap());
        assert_eq!(output.code, Some(0), "{output:#?}");
    }

    /// Writes a row, and waits until it is archived.
    fn write(&self, row: u32) -> Moment {
        self.cluster.psql(&format!("insert into journal values ({row})"));
        self.cluster.psql(&format!("select pg_create_restore_point('row {row}')"));
        let committed = self.cluster.psql(&format!(
            "select {} from journal where row = {row}",
            in_utc("pg_xact_commit_timestamp(xmin)")
        ));
        Moment { row, committed, segment: self.cluster.archive_now(), everything: self.cluster.dump() }
    }

    /// What is done every night.
    fn night(&self) {
        self.host.ok(&["dump", "create"]);
        self.host.ok(&["backup", "create"]);
        self.pull();
        self.send_offsite();
    }

    fn pull(&self) {
        let from = self.sshd.url(self.host.archive_dir());
        assert!(self.machine.json(&["copy", "--from", &from])["objects"].as_u64().unwrap() > 0);
    }

    fn send_offsite(&self) {
        assert!(self.machine.json(&["copy", "--to", &self.bucket.url()])["objects"].as_u64().unwrap() > 0);
        assert_eq!(self.proxy.applied(), 0, "something was to be removed or replaced offsite");
    }

    /// The accounts of the backup machine can do what they have to, and no harm.
    fn accounts_are_bound(&self) {
        let back = self.machine.run(&["copy", "--to", &self.sshd.url(self.scratch.join("elsewhere"))]);
        assert_ne!(back.code, Some(0), "the account of the pull can write: {back:#?}");
        let before = self.bucket.raw().list();
        let id = self.offsite().json(&["backup", "list"])["backups"][0]["id"].as_str().unwrap().to_owned();
        let deleted = self.offsite().run(&["backup", "delete", &id, "--yes", "--even-the-last"]);
        assert_ne!(deleted.code, Some(0), "the credential offsite can delete: {deleted:#?}");
        assert_eq!(self.bucket.raw().list(), before);
        self.proxy.set(CREATES_ONLY.iter().map(|rule| rule()));
    }

    /// The archive on the host's second disk, for whoever restores.
    fn onsite(&self) -> Product {
        self.host.but("WALARCHIVE_IDENTITY_FILE", self.identity.to_str().unwrap())
    }

    /// The pulled archive, for whoever restores.
    fn pulled(&self) -> Product {
        self.machine.but("WALARCHIVE_IDENTITY_FILE", self.identity.to_str().unwrap())
    }

    /// The archive offsite, for whoever restores with the backup machine's credential.
    fn offsite(&self) -> Product {
        let state = self.scratch.join("state-offsite").display().to_string();
        self.pulled().but("WALARCHIVE_ARCHIVE", &self.bucket.url()).but("WALARCHIVE_STATE_DIR", &state)
    }

    fn lose_disk(&mut self) {
        self.cluster.kill9();
        fs::remove_dir_all(self.cluster.data_dir()).unwrap();
    }

    fn lose_onsite_archive(&self) {
        fs::remove_dir_all(self.host.archive_dir()).unwrap();
        assert_eq!(self.onsite().run(&["status"]).code, Some(5), "what is lost does not pass for empty");
    }

    /// Back into service from the host's own archive, and on.
    fn back_into_service(&mut self, newest: &Moment) {
        let _guard = Stopped(&self.cluster, &self.scratch);
        let report = self.onsite().json(&[
            "restore-latest",
            "--yes",
            "--check-sql",
            "select 1 / count(*) from journal",
        ]);
        assert_eq!(report["reached_lsn"], newest.end(), "{report:#}");
        assert_eq!(report["reached_time"], newest.committed, "{report:#}");
        assert!(self.cluster.dump() == newest.everything, "row {} and what was there with it", newest.row);
        drop(_guard);
        self.cluster.start();
    }

    /// Says what an archive leads to: all of it, to the last byte that was archived.
    fn leads_to(&self, place: &Product, newest: &Moment) {
        // Told on another machine: the data directory may be lost.
        let mut elsewhere = place.clone();
        elsewhere.unset("PGDATA");
        let status = elsewhere.json(&["status"]);
        assert_eq!(status["problems"], json!([]), "{status:#}");
        assert_eq!(newest_of(&status["recoverable"])["to_lsn"], newest.end(), "{status:#}");
        let proven = place.json(&["verify", "--deep"]);
        assert_eq!((&proven["ok"], &proven["opened"]), (&true.into(), &true.into()), "{proven:#}");
        for backup in proven["backups"].as_array().unwrap() {
            assert_eq!(backup["restorable"], true);
            assert_eq!(newest_of(&backup["leads_to"])["to_lsn"], newest.end(), "{backup:#}");
        }
        assert!(proven["dumps"].as_array().unwrap().iter().all(|dump| dump["restorable"] == true));
    }

    /// A server on what was restored from an archive, not started.
    fn restored(&self, place: &Product, to: &str) -> Cluster {
        let target = (1..).map(|nth| self.scratch.join(format!("restored{nth}"))).find(|dir| !dir.exists());
        let target = target.unwrap();
        let output = place.restore_to(&target, &["--to", to]);
        assert_eq!(output.code, Some(0), "{output:#?}");
        verify_backup(&self.scratch, &target);
        let quiet = Cluster::adopt(&self.scratch).option("archive_mode", "off").env_of(place);
        quiet.existing(target).unwrap()
    }

    /// The newest state, with all databases, and one of them from its last dump as well.
    fn comes_back(&self, place: &Product, newest: &Moment) {
        self.leads_to(place, newest);
        let mut restored = self.restored(place, "latest");
        restored.start_promoted();
        assert_eq!(restored.psql("select pg_last_wal_replay_lsn()"), newest.end());
        let last = format!("select {}", in_utc("pg_last_xact_replay_timestamp()"));
        assert_eq!(restored.psql(&last), newest.committed);
        assert!(restored.dump() == newest.everything, "row {} and what was there with it", newest.row);
        let dumps = place.connected(&restored);
        dumps.ok(&["dump", "restore", "latest", "--database", "shop", "--as", "from_dump"]);
        let names = "select count(*) from pg_database where datname in ('shop', 'from_dump')";
        assert_eq!(restored.psql(names), "2");
        restored.stop(StopMode::Fast);
    }
}

/// What a credential may not do that can only create.
const CREATES_ONLY: [fn() -> Rule; 2] = [
    || Rule::always(Fault::Answer(Answer::s3(403, "AccessDenied", "no deletes"))).method("DELETE"),
    || {
        let replaces =
            Rule::always(Fault::Answer(Answer::s3(403, "AccessDenied", "no replacing"))).method("PUT");
        replaces
            .when(|request| request.header("if-none-match").is_none() && !request.path.contains("uploadId"))
    },
];

/// Stops the server that `restore-latest` has started.
struct Stopped<'a>(&'a Cluster, &'a Scratch);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let mut command = self.1.command(find("pg_ctl").unwrap());
        let _ = command.args(["-s", "-w", "-m", "fast", "-D"]).arg(self.0.data_dir()).arg("stop").status();
    }
}

/// A time as reports give it.
fn in_utc(time: &str) -> String {
    format!("to_char({time} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

/// Of stretches that can be restored, that on the newest timeline.
fn newest_of(stretches: &Value) -> &Value {
    let stretches = stretches.as_array().unwrap().iter();
    stretches.max_by_key(|stretch| stretch["timeline"].as_u64()).unwrap_or(&Value::Null)
}

#[test]
fn whatever_is_lost_comes_back_from_what_is_left() {
    let Some(mut house) = House::build() else { return };
    let begun = Instant::now();
    house.write(1);
    house.night();
    house.accounts_are_bound();
    let archived = house.write(2);
    house.cluster.psql("insert into journal values (3)");
    house.lose_disk();
    house.leads_to(&house.onsite(), &archived);
    house.back_into_service(&archived);

    let earlier = house.write(4);
    house.night();
    let newest = house.write(5);
    house.pull();
    house.send_offsite();
    house.write(6);
    house.lose_disk();
    house.lose_onsite_archive();
    house.comes_back(&house.pulled(), &newest);
    house.comes_back(&house.offsite(), &newest);

    damaged_offsite(&house, &earlier, &newest);
    println!("all of it took {:?}", begun.elapsed());
}

/// An object offsite that is damaged is named with what it endangers; the rest can be restored, and the pulled copy heals it.
fn damaged_offsite(house: &House, earlier: &Moment, newest: &Moment) {
    let raw = house.bucket.raw();
    let key = raw.list().into_iter().map(|(key, _)| key).find(|key| key.ends_with(&newest.segment)).unwrap();
    let sound = raw.get(&key).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    raw.put(&key, damaged.clone());

    let found = house.offsite().run(&["--json", "verify", "--deep"]);
    assert_eq!(found.code, Some(4), "{found:#?}");
    let problems = found.json()["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 1, "{problems:#}");
    assert_eq!((&problems[0]["kind"], &problems[0]["object"]), (&"damaged".into(), &json!(key)));

    let lost =
        format!("everything on timeline 2 from {} on, but with backups that begin after it", newest.begin());
    assert_eq!(problems[0]["endangers"], json!([lost]));
    for backup in found.json()["backups"].as_array().unwrap() {
        assert_eq!(
            (&backup["restorable"], &newest_of(&backup["leads_to"])["to_lsn"]),
            (&true.into(), &json!(newest.begin()))
        );
    }

    let mut before = house.restored(&house.offsite(), &format!("name:row {}", earlier.row));
    before.start_promoted();
    assert!(before.dump() == earlier.everything, "row {} does not need what is damaged", earlier.row);
    before.stop(StopMode::Fast);
    let mut newer = house.restored(&house.offsite(), "latest");
    newer.launch();
    assert!(!newer.wait_ended(), "what is before the damage passes for the newest state");

    let pulled = format!("file://{}", house.machine.archive_dir().display());
    let repair = ["--json", "verify", "--deep", "--repair-from", &pulled];
    assert_ne!(house.offsite().run(&repair).code, Some(0));
    assert!(raw.get(&key) == Some(damaged), "a credential that can only create has replaced it");
    let mut owner = house.offsite();
    house.bucket.env().iter().for_each(|(name, value)| owner.set(name, value));
    let repaired = owner.run(&repair);
    assert_eq!(
        (repaired.code, &repaired.json()["repaired"][0]["object"]),
        (Some(0), &json!(key)),
        "{repaired:#?}"
    );
    assert!(raw.get(&key) == Some(sound));
    house.comes_back(&house.offsite(), newest);
}
