//! Reading the same bytes, and digesting or unpacking them, on this thread.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use walarchive_benches::Used;
use walarchive_tests::filled::files_below;

pub fn digest(dir: &Path) -> Used {
    Used::here(|| {
        let mut buffer = vec![0; 1 << 20];
        for path in files_below(dir) {
            let mut file = fs::File::open(&path).expect("open an object");
            let mut hasher = blake3::Hasher::new();
            loop {
                match file.read(&mut buffer).expect("read an object") {
                    0 => break,
                    read => drop(hasher.update(&buffer[..read])),
                }
            }
            std::hint::black_box(hasher.finalize());
        }
    })
}

/// Objects of an archive that is not encrypted are files of zstd.
pub fn unpack(dir: &Path) -> Used {
    Used::here(|| {
        for path in files_below(dir).into_iter().filter(|path| !path.ends_with("archive.json")) {
            let file = fs::File::open(&path).expect("open an object");
            let mut decoder = zstd::Decoder::new(file).expect("a decoder");
            io::copy(&mut decoder, &mut io::sink()).expect("unpack an object");
        }
    })
}
