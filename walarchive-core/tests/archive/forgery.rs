//! Objects in places where they do not belong, keys that do not fit, and objects made to harm.

use std::time::{Duration, Instant};

use bytes::Bytes;
use walarchive_core::archive::{Archive, Binding, Keys, ObjectKind};
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::cipher::{Cipher, Plain};
use walarchive_core::codec::CodecId;
use walarchive_core::error::Kind;
use walarchive_core::storage::{Created, Storage};

use crate::recorder::Trouble;
use crate::support::*;

const OTHER: &str = "000000020000000000000124";

#[test]
fn objects_that_were_swapped_are_damaged() {
    run(async {
        for bench in Bench::all().await {
            bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
            bench.push("zstd:1", OTHER, &segment(OTHER, 1)).await.unwrap();
            bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
            bench.push("zstd:1", "00000003.history", HISTORY_TEXT).await.unwrap();
            for (asked, given) in
                [(SEGMENT, OTHER), (OTHER, SEGMENT), (HISTORY, "00000003.history"), (HISTORY, SEGMENT)]
            {
                let given = bench.stored(&bench.key(given)).await;
                bench.store.set(Trouble::Lies(Box::new(move |_, _| given.clone())));
                let error = refused(bench.fetch(asked).await, Kind::Damaged, asked);
                assert!(error.story().contains("swapped"), "{error:?}");
            }
        }
    });
}

/// Gives out, in `here`, what `there` has stored under the same key.
async fn from_elsewhere(here: &Bench, there: &Bench, what: &str) {
    let content = segment(SEGMENT, 1);
    here.push("zstd:1", SEGMENT, &content).await.unwrap();
    there.push("zstd:1", SEGMENT, &content).await.unwrap();
    let foreign = there.stored(&there.key(SEGMENT)).await;
    here.store.set(Trouble::Lies(Box::new(move |_, _| foreign.clone())));
    refused(here.fetch(SEGMENT).await, Kind::Damaged, what);
    refused(here.push("zstd:1", SEGMENT, &content).await, Kind::Damaged, what);
}

#[test]
fn objects_of_another_archive_are_damaged() {
    run(async {
        for encrypted in [false, true] {
            let here = Bench::in_memory(encrypted).await;
            let there = here.sibling([1; 16], encrypted).await;
            from_elsewhere(&here, &there, "another archive with the same keys").await;
        }
    });
}

/// The archives have the same id, so only the cipher tells them apart.
#[test]
fn plain_and_encrypted_objects_do_not_mix() {
    run(async {
        let keys = Bench::in_memory(true).await;
        for encrypted in [false, true] {
            let here = keys.sibling([7; 16], encrypted).await;
            let there = keys.sibling([7; 16], !encrypted).await;
            from_elsewhere(&here, &there, "of the other kind").await;
        }
    });
}

#[test]
fn what_no_key_opens_says_so() {
    run(async {
        let bench = Bench::in_memory(true).await;
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
        let stranger = Identity::generate().unwrap();
        for identities in [vec![], vec![stranger]] {
            let archive = bench.with_keys(Keys { identities, ..Keys::default() }).await;
            for text in [SEGMENT, HISTORY] {
                refused(fetch_from(&catalog(&archive), text).await, Kind::Key, "no key fits");
            }
            refused(fetch_from(&catalog(&archive), OTHER).await, Kind::Absent, "absence needs no key");
            let path = bench.file(OTHER, &segment(OTHER, 1));
            refused(push_path(&pusher(&archive, "zstd:1"), &path).await, Kind::Usage, "no recipient");
        }
        refused(bench.fetch(OTHER).await, Kind::Absent, "nothing was stored without a recipient");
    });
}

/// Content that was stored well, under a name that lies about it.
#[test]
fn content_that_is_not_what_its_name_says_is_damaged() {
    run(async {
        for bench in Bench::all().await {
            for (text, content) in [
                (SEGMENT, segment(OTHER, 1)),
                (SEGMENT, segment_of(SEGMENT, SYSTEM + 1, &noise(1, MIB))),
                (SEGMENT, segment(SEGMENT, 1)[..MIB / 2].to_vec()),
                (SEGMENT, vec![0; MIB]),
                (SEGMENT, vec![]),
                (HISTORY, b"not a history".to_vec()),
                (HISTORY, vec![]),
            ] {
                let key = bench.key(text);
                let put = move |sink: walarchive_core::codec::PlainSink<'_>| sink(&content);
                bench.archive.put(&key, ObjectKind::Wal, codec("zstd:1"), put).await.unwrap();
                refused(bench.fetch(text).await, Kind::Damaged, text);
                refused(bench.archive.prove(&key, None).await, Kind::Damaged, text);
                bench.store.delete(&key).await.unwrap();
            }
        }
    });
}

#[test]
fn a_segment_stored_as_something_else_is_damaged() {
    run(async {
        for bench in Bench::all().await {
            let (key, content) = (bench.key(SEGMENT), segment(SEGMENT, 1));
            let put = move |sink: walarchive_core::codec::PlainSink<'_>| sink(&content);
            bench.archive.put(&key, ObjectKind::Pin, codec("zstd:1"), put).await.unwrap();
            refused(bench.fetch(SEGMENT).await, Kind::Damaged, "another kind of object");
        }
    });
}

/// A zstd frame of `blocks` blocks, each 128 KiB of zeros in four bytes.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 7 << 3];
    for block in 1..=blocks {
        let header = (128_u32 << 10 << 3) | (1 << 1) | u32::from(block == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Stores `content` sealed as an honest writer would, with a binding that promises `plain` bytes.
async fn plant(bench: &Bench, cipher: &dyn Cipher, text: &str, content: &[u8], plain: Option<u64>) {
    let key = bench.key(text);
    let mut seal = cipher.seal().unwrap();
    let mut payload = Vec::new();
    let stored = seal.sealed_len(content.len() as u64);
    seal.push(content, &mut payload).unwrap();
    let mut binding = Binding::new(bench.archive.info().id(), &key, ObjectKind::Wal, CodecId::Zstd);
    (binding.plain, binding.stored) = (plain, Some(stored));
    binding.sum = (!cipher.encrypts()).then(|| blake3::hash(content).to_hex().to_string());
    let mut object: Vec<Bytes> = vec![seal.head(&binding.to_bytes().unwrap()).unwrap()];
    seal.finish(&mut payload).unwrap();
    object.extend(payload);
    assert_eq!(bench.store.create(&key, object).await.unwrap(), Created::New);
}

#[test]
fn a_bomb_is_damage_and_found_at_once() {
    run(async {
        let bomb = zstd_bomb(10 << 13);
        assert!(bomb.len() < 400_000, "10 GiB in little");
        for encrypted in [false, true] {
            let bench = Bench::in_memory(encrypted).await;
            let cipher: Box<dyn Cipher> = match &bench.identity {
                Some(identity) => Box::new(AgeCipher::new(vec![identity.recipient()], vec![])),
                None => Box::new(Plain),
            };
            plant(&bench, &*cipher, SEGMENT, &bomb, Some(16 << 20)).await;
            plant(&bench, &*cipher, HISTORY, &bomb, None).await;
            plant(&bench, &*cipher, "00000003.history", &bomb, Some(10 << 30)).await;
            let start = Instant::now();
            for text in [SEGMENT, HISTORY, "00000003.history"] {
                let error = refused(bench.fetch(text).await, Kind::Damaged, text);
                assert!(error.story().contains("unpacks to more"), "{error:?}");
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn an_honest_bomb_of_allowed_size_is_not_what_its_name_says() {
    run(async {
        let bench = Bench::in_memory(false).await;
        plant(&bench, &Plain, SEGMENT, &zstd_bomb(8), Some(MIB as u64)).await;
        let error = refused(bench.fetch(SEGMENT).await, Kind::Damaged, "a mebibyte of zeros");
        assert!(error.story().contains("zeros"), "the stream itself was read: {error:?}");
    });
}

#[test]
fn an_archive_that_describes_itself_wrongly_is_refused() {
    run(async {
        let good = r#"{"format":1,"archive":"00112233445566778899aabbccddeeff","created":"2026-01-01T00:00:00Z","encrypted":false}"#;
        let storage = || std::sync::Arc::new(walarchive_core::storage::MemoryStorage::new());
        for (from, to) in [
            ("", ""),
            ("\"format\":1", "\"format\":2"),
            ("00112233", "0011223"),
            ("00112233", "xx112233"),
            ("false", "\"no\""),
            ("}", ""),
        ] {
            let text = if from.is_empty() { String::new() } else { good.replace(from, to) };
            let storage = storage();
            storage.create("archive.json", vec![text.into()]).await.unwrap();
            refused(Archive::open(storage, Keys::default()).await, Kind::Damaged, to);
        }
        let storage = storage();
        storage.create("archive.json", vec![good.into()]).await.unwrap();
        Archive::open(storage, Keys::default()).await.unwrap();
    });
}
