//! Archives to test with, and WAL to put into them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use walarchive_core::archive::{Archive, ArchiveInfo, Catalog, Keys, Place, SystemId};
use walarchive_core::cipher::age::Identity;
use walarchive_core::codec::{Codec, CodecSpec};
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::ops::fetch::fetch;
use walarchive_core::ops::push::{Push, Pushed};
use walarchive_core::source::{FileSource, WalFile, WalSource};
use walarchive_core::storage::{LocalStorage, MemoryStorage, Storage};
use walarchive_core::wal::{SegmentName, SegmentSize, WalName};

use crate::recorder::{Recorder, Trouble};

pub const SYSTEM: u64 = 7_300_000_000_000_000_001;
pub const MIB: usize = 1 << 20;
pub const CODECS: [&str; 5] = ["zstd:1", "lz4:1", "gzip:1", "xz:0", "none"];
pub const SEGMENT: &str = "000000020000000000000123";
pub const HISTORY: &str = "00000002.history";
pub const HISTORY_TEXT: &[u8] = b"1\t0/12300028\tno recovery target specified\n";

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test);
}

pub fn codec(spec: &str) -> Arc<dyn Codec> {
    spec.parse::<CodecSpec>().unwrap().build()
}

pub fn name(text: &str) -> WalName {
    text.parse().unwrap()
}

/// Bytes that do not compress, the same for every `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A whole segment of 1 MiB: the headers of a server of version 15 on every page, and `body` between them.
pub fn segment_of(text: &str, system: u64, body: &[u8]) -> Vec<u8> {
    let name: SegmentName = text.get(..24).unwrap().parse().unwrap();
    let size = SegmentSize::new(MIB as u64).unwrap();
    let start = name.start(size).unwrap().0;
    let mut bytes: Vec<u8> = body.iter().copied().cycle().take(MIB).collect();
    for (number, page) in bytes.chunks_exact_mut(8192).enumerate() {
        let info: u16 = if number == 0 { 2 } else { 0 };
        page[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        page[2..4].copy_from_slice(&info.to_le_bytes());
        page[4..8].copy_from_slice(&name.timeline.get().to_le_bytes());
        page[8..16].copy_from_slice(&(start + number as u64 * 8192).to_le_bytes());
        page[16..24].fill(0);
    }
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes[32..36].copy_from_slice(&(MIB as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

/// A segment that does not compress; `seed` tells different ones of one name apart.
pub fn segment(text: &str, seed: u64) -> Vec<u8> {
    segment_of(text, SYSTEM, &noise(seed, MIB))
}

/// A segment that compresses, as most do.
pub fn thin_segment(text: &str, seed: u64) -> Vec<u8> {
    segment_of(text, SYSTEM, &[&noise(seed, 500)[..], &[0; 7000]].concat())
}

/// An archive, the store below it, and a place for files.
pub struct Bench {
    pub store: Arc<Recorder>,
    pub archive: Archive,
    pub identity: Option<Identity>,
    pub files: TempDir,
    /// Kept for as long as the store is used.
    _root: Option<TempDir>,
}

impl Bench {
    /// An archive in memory.
    pub async fn in_memory(encrypted: bool) -> Bench {
        Bench::over(Arc::new(MemoryStorage::new()), None, encrypted).await
    }

    /// An archive in a directory.
    pub async fn in_directory(encrypted: bool) -> Bench {
        let root = TempDir::new().unwrap();
        let storage = LocalStorage::open(root.path()).unwrap();
        Bench::over(Arc::new(storage), Some(root), encrypted).await
    }

    /// One of each kind.
    pub async fn all() -> Vec<Bench> {
        let mut all = Vec::new();
        for encrypted in [false, true] {
            all.push(Bench::in_memory(encrypted).await);
            all.push(Bench::in_directory(encrypted).await);
        }
        all
    }

    async fn over(inner: Arc<dyn Storage>, root: Option<TempDir>, encrypted: bool) -> Bench {
        let store = Arc::new(Recorder::new(inner));
        let (info, new) = Archive::init(store.as_ref(), encrypted).await.unwrap();
        assert!(new && info.encrypted() == encrypted);
        let identity = encrypted.then(|| Identity::generate().unwrap());
        let archive = Archive::open(store.clone(), keys(identity.as_ref())).await.unwrap();
        store.take_calls();
        Bench { store, archive, identity, files: TempDir::new().unwrap(), _root: root }
    }

    /// An archive with a given id, in memory, that knows the same keys.
    pub async fn sibling(&self, id: [u8; 16], encrypted: bool) -> Bench {
        let store = Arc::new(Recorder::new(Arc::new(MemoryStorage::new())));
        let info = ArchiveInfo::new(id, Timestamp::UNIX_EPOCH, encrypted);
        info.create(store.as_ref()).await.unwrap();
        let identity = self.identity.as_ref().filter(|_| encrypted).map(copy);
        let archive = Archive::open(store.clone(), keys(identity.as_ref())).await.unwrap();
        Bench { store, archive, identity, files: TempDir::new().unwrap(), _root: None }
    }

    /// The same archive, opened with other keys.
    pub async fn with_keys(&self, keys: Keys) -> Archive {
        Archive::open(self.store.clone(), keys).await.unwrap()
    }

    pub fn catalog(&self) -> Catalog {
        catalog(&self.archive)
    }

    pub fn pusher(&self, codec_spec: &str) -> Push {
        pusher(&self.archive, codec_spec)
    }

    /// Writes a WAL file.
    pub fn file(&self, text: &str, content: &[u8]) -> PathBuf {
        let path = self.files.path().join(text);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a WAL file and pushes it.
    pub async fn push(&self, codec_spec: &str, text: &str, content: &[u8]) -> Result<Pushed> {
        push_path(&self.pusher(codec_spec), &self.file(text, content)).await
    }

    /// Fetches a WAL file. What fails leaves no file, and what succeeds no other.
    pub async fn fetch(&self, text: &str) -> Result<Vec<u8>> {
        fetch_from(&self.catalog(), text).await
    }

    /// What is stored under a key, byte for byte, whatever trouble the store makes.
    pub async fn stored(&self, key: &str) -> Bytes {
        self.store.set(Trouble::None);
        self.store.get(key, None).await.unwrap().bytes
    }

    pub fn key(&self, text: &str) -> String {
        place().wal(&name(text))
    }
}

pub fn copy(identity: &Identity) -> Identity {
    identity.to_secret_string().parse().unwrap()
}

pub fn keys(identity: Option<&Identity>) -> Keys {
    Keys {
        recipients: identity.iter().map(|identity| identity.recipient()).collect(),
        identities: identity.iter().map(|identity| copy(identity)).collect(),
        ..Keys::default()
    }
}

pub fn place() -> Place {
    Place::of_system("main".parse().unwrap(), SystemId(SYSTEM))
}

pub fn catalog(archive: &Archive) -> Catalog {
    Catalog { archive: archive.clone(), place: place() }
}

pub fn pusher(archive: &Archive, codec_spec: &str) -> Push {
    Push {
        archive: archive.clone(),
        cluster: "main".parse().unwrap(),
        codec: codec(codec_spec),
        system: Some(SystemId(SYSTEM)),
    }
}

/// The one file that `archive_command` would name.
pub async fn wal_file(path: &Path) -> WalFile {
    let mut source = FileSource::new(path).unwrap();
    let file = source.next().await.unwrap().unwrap();
    assert_eq!(source.next().await.unwrap(), None);
    file
}

pub async fn push_path(push: &Push, path: &Path) -> Result<Pushed> {
    push.run(&wal_file(path).await).await
}

pub async fn fetch_from(catalog: &Catalog, text: &str) -> Result<Vec<u8>> {
    let dir = TempDir::new().unwrap();
    let dest = dir.path().join("dest");
    let result = fetch(catalog, &name(text), &dest).await;
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, usize::from(result.is_ok()), "files after {result:?}");
    let len = result?;
    let content = std::fs::read(&dest).unwrap();
    assert_eq!(content.len() as u64, len);
    Ok(content)
}

#[track_caller]
pub fn refused<T>(result: Result<T>, kind: Kind, what: &str) -> Error {
    let Err(error) = result else { panic!("{what}: success instead of {kind:?}") };
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    error
}
