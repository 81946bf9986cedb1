//! The same segments through codec, digest and cipher in memory: what cannot be spared. In a process of its own, for the
//! measuring process has to be small: its memory counts in that of its children.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walarchive_benches::{compress, file_name, open, seal, thread_time};
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::cipher::{Cipher, Plain};
use walarchive_core::codec::CodecSpec;

use crate::place::Place;
use crate::report::{Batches, Unit};

/// The argument that makes this program the process of its own.
const ASKED: &str = "--in-memory";

/// Where the compressed segments are put, next to the directory of the segments.
const COMPRESSED: &str = "compressed";

/// The directory of segments, when this is the process of its own.
pub fn asked_for() -> Option<PathBuf> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == ASKED).then(|| args.next().expect("a directory").into())
}

/// Has a batch measured, and its segments compressed, by another process.
pub fn add(place: &Place, report: &mut Batches) {
    let wal = place.segments[0].parent().expect("a segment is in a directory");
    let output = Command::new(std::env::current_exe().expect("the path of this program"))
        .arg(ASKED)
        .arg(wal)
        .output()
        .expect("run this program");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "in memory: {}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        let (name, seconds) = line.split_once('=').expect("NAME=SECONDS");
        let cpu = Duration::from_secs_f64(seconds.parse().expect("seconds"));
        report.add_in_memory(name, Unit { wall: cpu, cpu, rss: 0 });
    }
    let sizes = place.segments.iter().map(|segment| compressed(place).join(file_name(segment)));
    let stored: u64 = sizes.map(|file| fs::metadata(file).expect("a compressed segment").len()).sum();
    report.stored(stored, place.segments.len());
}

/// The directory of the compressed segments of a batch.
pub fn compressed(place: &Place) -> PathBuf {
    place.segments[0].ancestors().nth(2).expect("a segment is in pg_wal").join(COMPRESSED)
}

/// Prints the CPU time that a segment takes on one thread, the mean of all in the directory.
pub fn measure(wal: &Path) {
    let out = wal.parent().expect("pg_wal is in a directory").join(COMPRESSED);
    fs::create_dir(&out).expect("make a directory");
    let codec = CodecSpec::default().build();
    let codec = codec.as_ref();
    let identity = Identity::generate().expect("random bytes");
    let age = AgeCipher::new(vec![identity.recipient()], vec![identity]);
    let mut content = Vec::new();
    let mut taken = [("the codec alone", Duration::ZERO); 5];
    let mut count = 0;
    for entry in fs::read_dir(wal).expect("list the segments") {
        let path = entry.expect("list the segments").path();
        if !path.is_file() {
            continue;
        }
        let plain = fs::read(&path).expect("read a segment");
        count += 1;
        let mut add = |at: usize, name: &'static str, work: &mut dyn FnMut()| {
            let begun = thread_time();
            work();
            taken[at] = (name, taken[at].1 + thread_time().saturating_sub(begun));
        };
        add(0, "the codec alone", &mut || compress(codec, &plain, &mut content));
        fs::write(out.join(file_name(&path)), &content).expect("write a compressed segment");
        let ciphers: [(&dyn Cipher, _, _); 2] = [
            (&age, "sealed, age", "opened, age"),
            (&Plain, "sealed, not encrypted", "opened, not encrypted"),
        ];
        for (at, (cipher, sealing, opening)) in ciphers.into_iter().enumerate() {
            let mut stored = Vec::new();
            add(1 + at, sealing, &mut || stored = black_box(seal(codec, cipher, &plain)));
            add(3 + at, opening, &mut || open(codec, cipher, &stored));
        }
    }
    for (name, time) in taken {
        println!("{name}={}", time.as_secs_f64() / f64::from(count));
    }
}
