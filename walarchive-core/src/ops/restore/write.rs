//! A backup's files, written in parallel and verified to the last byte.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::choice::Choice;
use super::delta;
use super::fill::{fill, read_small};
use super::give::Giver;
use super::layout::Layout;
use super::survey::Survey;
use crate::archive::{BackupId, Catalog, Facts, FileRecord, Manifest, OpenPacks, scan};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::control::ControlFile;
use crate::postgres::datadir::CONTROL_FILE;
use crate::progress::Progress;

/// A restore being carried out.
#[derive(Clone)]
pub(super) struct Restore {
    pub(super) catalog: Catalog,
    pub(super) id: BackupId,
    pub(super) layout: Layout,
    pub(super) choice: Choice,
    pub(super) recovery: String,
    pub(super) standby: bool,
    pub(super) jobs: usize,
    pub(super) progress: Arc<dyn Progress>,
}

impl Restore {
    /// Restores; gives the bytes that were written, and what people should know.
    pub(super) async fn run(mut self) -> Result<(u64, Vec<String>)> {
        let survey = Survey { choice: self.choice.clone(), ..Survey::default() };
        let (manifest, mut survey) =
            scan(&self.catalog.archive, &self.catalog.place, &self.id, survey).await?;
        let control = survey
            .control
            .take()
            .ok_or_else(|| Error::damaged(format!("backup {} has no pg_control", self.id)))?;
        let packs =
            OpenPacks::open(&self.catalog, &manifest.packs, &survey.packs).await.map_err(|error| {
                error.during(format!("backup {} cannot be restored; nothing was written", self.id))
            })?;
        let (bytes, mut notes) = (survey.bytes.values().sum(), self.notes(&survey));
        notes.extend(self.begin(&manifest.facts, &control, survey).await?);
        self.progress.begin("restoring", bytes);
        let packs = Arc::new(packs);
        let written = self.write_files(packs.clone()).await;
        self.progress.end();
        let written = written?;
        self.finish(&manifest, control, packs).await?;
        if self.layout.belongs_to_root() {
            notes.push(
                "the files belong to root, and PostgreSQL does not run as root: give them to its user first"
                    .to_owned(),
            );
        }
        Ok((written, notes))
    }

    fn notes(&self, survey: &Survey) -> Vec<String> {
        let mut notes = Vec::new();
        if !survey.has_config {
            notes.push(
                "postgresql.conf is not in the backup, as it lies outside of the data directory: supply it before starting"
                    .to_owned(),
            );
        }
        if !self.choice.left_out.is_empty() {
            notes.push(format!(
                "not restored, and only to be dropped: {}; connect to another database and DROP DATABASE each",
                self.choice.left_out.join(", ")
            ));
        }
        notes
    }

    /// Makes the directories, marks them as incomplete, and clears them of what does not belong there.
    async fn begin(&mut self, facts: &Facts, control: &FileRecord, survey: Survey) -> Result<Vec<String>> {
        let mode = if control.mode & 0o040 != 0 { 0o750 } else { 0o700 };
        let (mut layout, facts) = (self.layout.clone(), facts.clone());
        let (layout, notes) = blocking(move || {
            if !layout.is_over {
                check_space(&layout, &survey.bytes)?;
            }
            layout.begin(mode, &facts)?;
            let notes =
                if layout.is_over { delta::sweep(&layout, &facts, &survey.paths)? } else { Vec::new() };
            Ok((layout, notes))
        })
        .await?;
        self.layout = layout;
        Ok(notes)
    }

    async fn write_files(&self, packs: Arc<OpenPacks>) -> Result<u64> {
        let give = |tasks| async move {
            let (layout, choice) = (self.layout.clone(), self.choice.clone());
            let giver = Giver { layout, choice, pg_manifest: None, tasks };
            let (manifest, giver) = scan(&self.catalog.archive, &self.catalog.place, &self.id, giver).await?;
            blocking(move || giver.finish(&manifest.facts)).await
        };
        fill(packs, self.jobs, self.progress.clone(), give).await
    }

    /// What makes the directory a cluster comes last, when all else is durable.
    async fn finish(&self, manifest: &Manifest, control: FileRecord, packs: Arc<OpenPacks>) -> Result<()> {
        let (restore, facts) = (self.clone(), manifest.facts.clone());
        blocking(move || {
            let layout = &restore.layout;
            layout.link()?;
            let signal = if restore.standby { "standby.signal" } else { "recovery.signal" };
            let mode = control.mode;
            files::write(&layout.target.join(signal), mode, b"")?;
            append(&layout.target.join("postgresql.auto.conf"), mode, restore.recovery.as_bytes())?;
            let bytes = read_small(&packs, &control)?;
            if ControlFile::parse(&bytes)?.system_id.to_string() != facts.system_id {
                return Err(Error::damaged("the backup's pg_control belongs to another cluster"));
            }
            layout.give_all()?;
            layout.sync()?;
            let place = layout.target.join(CONTROL_FILE);
            files::write(&place, mode, &bytes)?;
            std::fs::set_permissions(&place, Permissions::from_mode(mode))
                .map_err(|error| Error::io("cannot set the mode of pg_control", error))?;
            layout.give(&place)?;
            layout.end()
        })
        .await
    }
}

/// Appends to a file that may not be there.
fn append(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut all = if path.exists() { files::read(path, 64 << 20)? } else { Vec::new() };
    all.extend_from_slice(bytes);
    files::write(path, mode, &all)
}

/// Refuses when the data will not fit. What is not there yet is looked up in the nearest directory that is.
pub(super) fn check_space(layout: &Layout, bytes: &BTreeMap<Option<u32>, u64>) -> Result<()> {
    let mut wanted: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    for (tablespace, bytes) in bytes {
        let elsewhere = layout.tablespaces.iter().find(|known| Some(known.oid) == *tablespace);
        let dir = elsewhere.map_or(layout.target.as_path(), |known| known.location.as_path());
        let Some(place) = dir.ancestors().find(|place| place.exists()) else { continue };
        let Ok(facts) = std::fs::metadata(place) else { continue };
        wanted.entry(facts.dev()).or_insert((place, 0)).1 += bytes;
    }
    for (place, bytes) in wanted.values() {
        let Ok(facts) = rustix::fs::statvfs(*place) else { continue };
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        if free < *bytes {
            let place = place.display();
            let message =
                format!("{place} has {free} bytes free, the restore needs {bytes}; nothing was written");
            return Err(Error::new(Kind::Local, message));
        }
    }
    Ok(())
}
