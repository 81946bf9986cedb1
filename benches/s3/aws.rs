//! `aws s3 cp` of the segments as the codec alone leaves them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::contenders::as_ourselves;
use walarchive_benches::file_name;
use walarchive_tests::find;

use crate::memory;
use crate::place::Place;

pub struct Aws<'a> {
    place: &'a Place,
    program: PathBuf,
    /// The compressed segments.
    pub files: Vec<PathBuf>,
    dir: PathBuf,
}

impl<'a> Aws<'a> {
    /// `None`, after a note, when it is not in `PATH`.
    pub fn find(place: &'a Place) -> Option<Aws<'a>> {
        let Some(program) = find("aws") else {
            eprintln!("\n** aws is not in PATH: nothing to compare with `aws s3 cp` **\n");
            return None;
        };
        let dir = memory::compressed(place);
        let files: Vec<PathBuf> = place.segments.iter().map(|segment| dir.join(file_name(segment))).collect();
        fs::create_dir(place.scratch.join("down")).expect("make a directory");
        Some(Aws { place, program, files, dir })
    }

    pub fn upload(&self, file: &Path) -> Command {
        self.command(&[file.as_os_str(), self.url(&format!("one/{}", file_name(file))).as_ref()])
    }

    pub fn download(&self, file: &Path) -> Command {
        let target = self.place.scratch.join("down").join(file_name(file));
        self.command(&[self.url(&format!("one/{}", file_name(file))).as_ref(), target.as_os_str()])
    }

    pub fn upload_all(&self) -> Command {
        self.command(&["--recursive".as_ref(), self.dir.as_os_str(), self.url("all/").as_ref()])
    }

    pub fn download_all(&self) -> Command {
        let target = self.place.scratch.join("down");
        self.command(&["--recursive".as_ref(), self.url("all/").as_ref(), target.as_os_str()])
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.place.bucket.name())
    }

    fn command(&self, args: &[&OsStr]) -> Command {
        let mut command = as_ourselves(&self.program, &self.place.scratch);
        command.envs(self.place.bucket.env()).env("AWS_DEFAULT_REGION", "us-east-1");
        command.args(["s3", "cp", "--quiet"]).args(args);
        command
    }
}
