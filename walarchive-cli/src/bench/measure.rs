//! One codec and cipher on the clock: what a push does between reading a segment and storing the object, and a fetch between
//! reading the object and writing the segment. Nothing is read from disk or written to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use walarchive_core::archive::{Binding, ContentDigest, ObjectKind};
use walarchive_core::cipher::{Cipher, Plain};
use walarchive_core::codec::{Codec, CodecSpec};
use walarchive_core::pipeline::{Opener, Sealer};
use walarchive_core::{Error, Result};

/// How much is handed on at once.
pub(crate) const PIECE: usize = 256 << 10;

/// How many times as long as a measurement it may take to see all objects.
const SURVEY: u32 = 10;

const ARCHIVE: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "main/1/wal/1";

/// Plain bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    pub(crate) one_core: f64,
    pub(crate) all_cores: f64,
}

/// What a codec and cipher made of the sample.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Plain bytes, and those of the payload, of the objects that there was time for, from the first on.
    pub(crate) objects: Vec<(u64, u64)>,
    pub(crate) seal: Speed,
    pub(crate) open: Speed,
    /// The first object's payload.
    pub(crate) payload: Vec<u8>,
    /// How long the first object's head is.
    pub(crate) head: u64,
}

/// How long, and on how many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) seconds: Duration,
    pub(crate) threads: usize,
}

/// A stored object.
struct Sealed {
    head: Vec<u8>,
    payload: Vec<u8>,
}

impl Sealed {
    /// Of the plain bytes that it was made from, and of the payload.
    fn lengths(&self, plain: &[u8]) -> (u64, u64) {
        (plain.len() as u64, self.payload.len() as u64)
    }
}

/// Measures both ways, and proves that what comes back is what was there.
pub(crate) fn measure(
    objects: &[Vec<u8>],
    spec: CodecSpec,
    cipher: &dyn Cipher,
    effort: Effort,
) -> Result<Measured> {
    let codec = spec.build();
    let codec = codec.as_ref();
    let mut sealed: Vec<Sealed> = Vec::new();
    let one_core = repeat(effort.seconds, |turn| {
        let plain = &objects[turn % objects.len()];
        let begun = Instant::now();
        let made = seal(codec, cipher, plain)?;
        let took = begun.elapsed();
        if turn < objects.len() {
            sealed.push(joined(&made));
        }
        Ok((plain.len(), took))
    })?;
    for (object, plain) in sealed.iter().zip(objects) {
        prove(codec, cipher, object, plain).map_err(|error| error.during(format!("measuring {spec}")))?;
    }
    let one = |nth: usize| {
        let plain = &objects[nth % objects.len()];
        let begun = Instant::now();
        let made = seal(codec, cipher, plain)?;
        let took = begun.elapsed();
        drop(made);
        Ok((plain.len(), took))
    };
    let seal = Speed { one_core, all_cores: everywhere(effort, one_core, &one)? };
    let one = |nth: usize| {
        let nth = nth % sealed.len();
        let begun = Instant::now();
        let mut digest = ContentDigest::new(ARCHIVE);
        open(codec, cipher, &sealed[nth], objects[nth].len(), &mut |plain| {
            digest.update(plain);
            Ok(())
        })?;
        std::hint::black_box(digest.hex());
        Ok((objects[nth].len(), begun.elapsed()))
    };
    let one_core = repeat(effort.seconds, one)?;
    let open = Speed { one_core, all_cores: everywhere(effort, one_core, &one)? };
    let lengths = sealed.iter().zip(objects).map(|(object, plain)| object.lengths(plain));
    let objects = lengths.collect();
    let first = sealed.into_iter().next().ok_or_else(|| Error::bug("nothing was measured"))?;
    Ok(Measured { objects, seal, open, head: first.head.len() as u64, payload: first.payload })
}

/// Goes on with the objects behind the known ones on all threads, for the ratio's sake: many times as long as a
/// measurement may take, as a few objects can be unlike all others. What is begun is finished and proven.
pub(crate) fn survey(
    objects: &[Vec<u8>],
    known: Vec<(u64, u64)>,
    spec: CodecSpec,
    effort: Effort,
) -> Result<Vec<(u64, u64)>> {
    let (next, codec) = (AtomicUsize::new(known.len()), spec.build());
    let begun = Instant::now();
    let work = || -> Result<Vec<(usize, (u64, u64))>> {
        let mut found = Vec::new();
        while begun.elapsed() < effort.seconds * SURVEY {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(plain) = objects.get(nth) else { break };
            let made = joined(&seal(codec.as_ref(), &Plain, plain)?);
            prove(codec.as_ref(), &Plain, &made, plain)
                .map_err(|error| error.during(format!("measuring {spec}")))?;
            found.push((nth, made.lengths(plain)));
        }
        Ok(found)
    };
    let threads = effort.threads.min(objects.len().saturating_sub(known.len()));
    let mut found: Vec<_> = on_threads(threads, |_| work())?.into_iter().flatten().collect();
    found.sort_unstable();
    Ok(known.into_iter().chain(found.into_iter().map(|(_, lengths)| lengths)).collect())
}

/// Bytes a second of work that tells how much it did and how long it took, done at least once.
fn repeat(time: Duration, mut work: impl FnMut(usize) -> Result<(usize, Duration)>) -> Result<f64> {
    let (mut bytes, mut taken, mut turn) = (0.0, Duration::ZERO, 0);
    while turn == 0 || taken < time {
        let (more, took) = work(turn)?;
        bytes += more as f64;
        // A clock that stands still must not keep this going for ever.
        taken += took.max(Duration::from_nanos(1));
        turn += 1;
    }
    Ok(bytes / taken.as_secs_f64())
}

/// The same on all threads at once, each with objects of its own as far as there are enough. What one thread does
/// is known already.
fn everywhere(
    effort: Effort,
    alone: f64,
    work: &(impl Fn(usize) -> Result<(usize, Duration)> + Sync),
) -> Result<f64> {
    let Effort { seconds, threads } = effort;
    if threads == 1 {
        return Ok(alone);
    }
    let rates = on_threads(threads, |nth| repeat(seconds, |turn| work(nth + turn * threads)))?;
    Ok(rates.into_iter().sum())
}

/// What each of so many threads makes, all at once.
fn on_threads<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let (mut workers, work) = (Vec::new(), &work);
        for nth in 0..threads {
            let started = thread::Builder::new().spawn_scoped(scope, move || work(nth));
            workers
                .push(started.map_err(|error| Error::io(format!("cannot start {threads} threads"), error))?);
        }
        let panicked = |_| Err(Error::bug("a thread that measures has panicked"));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)).collect()
    })
}

fn seal(codec: &dyn Codec, cipher: &dyn Cipher, plain: &[u8]) -> Result<Vec<impl AsRef<[u8]>>> {
    let mut sealer = Sealer::new(codec, cipher)?;
    let mut digest = ContentDigest::new(ARCHIVE);
    for piece in plain.chunks(PIECE) {
        digest.update(piece);
        sealer.push(piece)?;
    }
    let digest = digest.hex();
    sealer.finish(|facts| {
        let mut binding = Binding::new(ARCHIVE, KEY, ObjectKind::Wal, codec.id());
        binding.plain = Some(facts.plain);
        binding.stored = Some(facts.stored);
        binding.sum = facts.sum;
        binding.digest = Some(digest);
        binding.to_bytes()
    })
}

/// The parts of an object, of which the head is the first.
fn joined(parts: &[impl AsRef<[u8]>]) -> Sealed {
    let (head, payload) = parts.split_at(parts.len().min(1));
    let mut sealed = Sealed { head: Vec::new(), payload: Vec::new() };
    head.iter().for_each(|part| sealed.head.extend_from_slice(part.as_ref()));
    payload.iter().for_each(|part| sealed.payload.extend_from_slice(part.as_ref()));
    sealed
}

fn open(
    codec: &dyn Codec,
    cipher: &dyn Cipher,
    object: &Sealed,
    len: usize,
    sink: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
) -> Result<()> {
    let opened = cipher.open(&object.head)?;
    let mut opener = Opener::new(opened.as_ref(), codec, len as u64)?;
    opener.push(&object.payload, sink)?;
    opener.finish(sink)
}

/// Opens an object and holds it against the bytes that it was made from.
fn prove(codec: &dyn Codec, cipher: &dyn Cipher, object: &Sealed, plain: &[u8]) -> Result<()> {
    let differs = || {
        Error::damaged("what came back is not what was stored")
            .hint("memory or processor of this machine may be faulty; please report it if they are not")
    };
    let mut rest = plain;
    open(codec, cipher, object, plain.len(), &mut |piece| {
        rest = rest.strip_prefix(piece).ok_or_else(differs)?;
        Ok(())
    })?;
    if rest.is_empty() { Ok(()) } else { Err(differs()) }
}

#[cfg(test)]
mod tests {
    use walarchive_core::Kind;
    use walarchive_core::cipher::age::{AgeCipher, Identity};

    use super::*;

    fn objects() -> Vec<Vec<u8>> {
        (1..4_u8).map(|seed| (0..300_000_u32).map(|n| (n / 7) as u8 ^ seed).collect()).collect()
    }

    #[test]
    fn both_ways_on_one_core_and_on_three() {
        let identity = Identity::generate().unwrap();
        let age = AgeCipher::new(vec![identity.recipient()], vec![identity]);
        let effort = Effort { seconds: Duration::from_millis(5), threads: 3 };
        for spec in ["none", "lz4", "zstd:3", "gzip:1", "xz:0"] {
            for cipher in [&Plain as &dyn Cipher, &age] {
                let measured = measure(&objects(), spec.parse().unwrap(), cipher, effort).unwrap();
                let (plain, stored) = measured.objects[0];
                assert!(plain == 300_000 && stored > 100, "{spec}: {measured:?}");
                assert!(measured.payload.len() as u64 == stored && measured.head > 50);
                let Measured { seal, open, .. } = measured;
                for speed in [seal.one_core, seal.all_cores, open.one_core, open.all_cores] {
                    assert!(speed.is_finite() && speed > 0.0);
                }
            }
        }
    }

    #[test]
    fn a_survey_goes_on_with_what_is_not_known() {
        let effort = Effort { seconds: Duration::from_secs(60), threads: 2 };
        let spec = CodecSpec::default();
        let all = survey(&objects(), Vec::new(), spec, effort).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(survey(&objects(), all[..1].to_vec(), spec, effort).unwrap(), all);
        assert_eq!(survey(&objects(), all.clone(), spec, effort).unwrap(), all);
        let none = Effort { seconds: Duration::ZERO, threads: 2 };
        assert_eq!(survey(&objects(), all[..1].to_vec(), spec, none).unwrap(), all[..1]);
    }

    #[test]
    fn what_does_not_come_back_is_damage() {
        let codec = CodecSpec::default().build();
        let made = joined(&seal(codec.as_ref(), &Plain, b"what was there").unwrap());
        prove(codec.as_ref(), &Plain, &made, b"what was there").unwrap();
        for other in [&b"what was here"[..], b"what was there!", b"what was ther", b""] {
            let error = prove(codec.as_ref(), &Plain, &made, other).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{other:?}");
        }
        let cut = Sealed { payload: made.payload[..made.payload.len() - 3].to_vec(), head: made.head };
        let error = prove(codec.as_ref(), &Plain, &cut, b"what was there").unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged);
    }
}
