//! A dump as pg_dump wrote it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::archive::{BackupId, Catalog, DumpFacts, DumpFormat, StreamsReader};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files::NewFile;
use crate::postgres::stop::Stop;
use crate::progress::Progress;

/// Where an exported dump goes.
pub enum Outlet {
    /// A file, or a directory where the dump is one, that must not be there; it appears whole.
    Path(std::path::PathBuf),
    /// Somebody who reads.
    Writer(Box<dyn Write + Send>),
}

/// Writes a dump as pg_dump made it; every byte is proven. What a writer was given before an error must not be used.
pub async fn export(
    catalog: &Catalog,
    id: &BackupId,
    to: Outlet,
    progress: Arc<dyn Progress>,
) -> Result<DumpFacts> {
    let reader = StreamsReader::open(catalog, id).await?;
    let facts = reader.manifest.facts.clone();
    blocking(move || match to {
        Outlet::Path(path) => write_new(&reader, &path, progress.as_ref()),
        Outlet::Writer(mut writer) => {
            let [stream] = reader.streams() else {
                return Err(Error::usage(format!(
                    "dump {} is a directory of files",
                    reader.manifest.facts.id
                ))
                .hint("-o names a directory for it; pg_restore reads that"));
            };
            reader.read(stream, &mut |bytes| {
                progress.advance(bytes.len() as u64)?;
                writer.write_all(bytes).map_err(|error| Error::io("cannot write the dump", error))
            })?;
            writer.flush().map_err(|error| Error::io("cannot write the dump", error))
        }
    })
    .await?;
    Ok(facts)
}

fn write_new(reader: &StreamsReader, path: &Path, progress: &dyn Progress) -> Result<()> {
    let there = || {
        Error::new(Kind::UnsafeTarget, format!("{} exists already; nothing was changed", path.display()))
            .on(path.display())
    };
    if path.symlink_metadata().is_ok() {
        return Err(there());
    }
    if reader.manifest.facts.dump_format == DumpFormat::Directory {
        let written = write(reader, path, &Stop::default(), progress);
        if written.is_err() {
            let _ = std::fs::remove_dir_all(path);
        }
        return written;
    }
    let [stream] = reader.streams() else {
        return Err(Error::damaged("a dump in one file has several streams"));
    };
    let mut file = NewFile::create(path, 0o600)?;
    reader.read(stream, &mut |bytes| {
        progress.advance(bytes.len() as u64)?;
        file.write_all(bytes).map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    })?;
    if file.publish_new()? { Ok(()) } else { Err(there()) }
}

/// Writes a dump for pg_restore: a file, or a new directory. It need not survive a crash.
pub(super) fn write(reader: &StreamsReader, path: &Path, stop: &Stop, progress: &dyn Progress) -> Result<()> {
    let failed = |error| Error::io(format!("cannot write the dump to {}", path.display()), error);
    let is_dir = reader.manifest.facts.dump_format == DumpFormat::Directory;
    if is_dir {
        DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
    }
    for stream in reader.streams() {
        let place = if is_dir { path.join(&stream.record.name) } else { path.to_owned() };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(place).map_err(failed)?;
        reader.read(stream, &mut |bytes| {
            progress.advance(bytes.len() as u64)?;
            stop.check()?;
            file.write_all(bytes).map_err(failed)
        })?;
    }
    Ok(())
}
