//! `barman-cloud-wal-archive` and `-restore`: S3 only, and not encrypted.

use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::Scratch;
use walarchive_tests::stores::Bucket;

use super::{as_ourselves, look_for, runs};

/// The two programs, and the bucket that they store in.
pub struct Barman {
    scratch: Scratch,
    archive: PathBuf,
    restore: PathBuf,
    bucket: Bucket,
    compression: &'static [&'static str],
}

impl Barman {
    /// `None`, after a note, where they are not in `PATH`.
    pub fn find(scratch: &Scratch, bucket: &Bucket) -> Option<Barman> {
        let archive = look_for(&["barman-cloud-wal-archive"])?;
        let restore = look_for(&["barman-cloud-wal-restore"])?;
        let mut asked = as_ourselves(&archive, scratch);
        asked.arg("--help");
        let help = String::from_utf8_lossy(&runs("barman-cloud", asked)?.stdout).into_owned();
        // Older ones have only slow codecs, or none at the level that the others have.
        let has_zstd = help.contains("--zstd") && help.contains("--compression-level");
        let compression: &[&str] =
            if has_zstd { &["--zstd", "--compression-level", "1"] } else { &["--gzip"] };
        let (scratch, bucket) = (scratch.clone(), bucket.clone());
        Some(Barman { scratch, archive, restore, bucket, compression })
    }

    /// What its rows are called.
    pub fn name(&self, what: &str) -> String {
        format!("barman-cloud-wal-{what}, {}", self.compression[0].trim_start_matches('-'))
    }

    /// Stores a segment.
    pub fn push(&self, segment: &Path) -> Command {
        let mut command = self.command(&self.archive);
        command.args(self.compression).arg(self.url()).arg("main").arg(segment);
        command
    }

    /// Gets a segment back.
    pub fn fetch(&self, name: &str, target: &Path) -> Command {
        let mut command = self.command(&self.restore);
        command.arg(self.url()).args(["main", name]).arg(target);
        command
    }

    fn url(&self) -> String {
        format!("s3://{}/barman", self.bucket.name())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = as_ourselves(program, &self.scratch);
        command.envs(self.bucket.env()).env("AWS_DEFAULT_REGION", "us-east-1");
        command.arg("--endpoint-url").arg(format!("http://{}", self.bucket.endpoint()));
        command
    }
}
