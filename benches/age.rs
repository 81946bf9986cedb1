//! Sealing and opening with age, on one thread and on two, next to the bare cipher.

use std::time::Duration;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use criterion::{Criterion, Throughput};
use walarchive_core::cipher::Cipher;
use walarchive_core::cipher::age::{AgeCipher, Identity};

const CHUNK: usize = 64 << 10;

/// How codecs hand bytes on.
const PIECE: usize = 256 << 10;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for mib in [16, 64] {
        let mut content = vec![0; mib << 20];
        getrandom::fill(&mut content).expect("random bytes");
        bare(&mut criterion, mib, &mut content);
        for threads in [1, 2] {
            age(&mut criterion, mib, threads, &content);
        }
    }
    criterion.final_summary();
}

fn bare(criterion: &mut Criterion, mib: usize, content: &mut [u8]) {
    let cipher = ChaCha20Poly1305::new(&[7; 32].into());
    let nonce = Nonce::default();
    let mut group = criterion.benchmark_group(format!("age-{mib}MiB"));
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("bare-in-place", |bench| {
        bench.iter(|| {
            for chunk in content.chunks_mut(CHUNK) {
                cipher.encrypt_inout_detached(&nonce, b"", chunk.into()).expect("encrypt");
            }
        });
    });
    group.finish();
}

fn age(criterion: &mut Criterion, mib: usize, threads: usize, content: &[u8]) {
    let identity = Identity::generate().expect("random bytes");
    let cipher = AgeCipher::new(vec![identity.recipient()], vec![identity]).with_threads(threads);
    let mut group = criterion.benchmark_group(format!("age-{mib}MiB"));
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function(format!("seal-{threads}"), |bench| bench.iter(|| seal(&cipher, content)));

    let (head, payload) = seal(&cipher, content);
    let payload: Vec<u8> = payload.iter().flat_map(|piece| piece.iter().copied()).collect();
    let open = cipher.open(&head).expect("open");
    group.bench_function(format!("open-stream-{threads}"), |bench| {
        let mut out = Vec::new();
        bench.iter(|| {
            let mut stream = open.stream();
            for piece in payload.chunks(PIECE) {
                out.clear();
                stream.push(piece, &mut out).expect("open");
            }
            stream.finish(&mut out).expect("open");
        });
    });
    group.bench_function(format!("open-range-{threads}"), |bench| {
        bench
            .iter(|| open.open_range(0..content.len() as u64, &payload, payload.len() as u64).expect("open"));
    });
    group.finish();
}

fn seal(cipher: &AgeCipher, content: &[u8]) -> (bytes::Bytes, Vec<bytes::Bytes>) {
    let mut seal = cipher.seal().expect("seal");
    let head = seal.head(b"binding").expect("a head");
    let mut payload = Vec::new();
    content.chunks(PIECE).for_each(|piece| seal.push(piece, &mut payload).expect("seal"));
    seal.finish(&mut payload).expect("seal");
    (head, payload)
}
