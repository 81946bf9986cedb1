//! What every cipher has to do, run over each of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::cipher::{Cipher, MAX_HEAD, Open, Plain};
use walarchive_core::error::{Kind, Result};

const CHUNK: usize = 65_536;
const SEALED: usize = CHUNK + 16;
const BINDING: &[u8] = br#"{"object":"main/7/wal/00000001/00000000/000000010000000000000001"}"#;
const SIZES: [usize; 10] =
    [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 9 * CHUNK, 16 * CHUNK, (1 << 20) + 3];

/// Bytes that look random and are the same every time.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

struct Sealed {
    head: Bytes,
    payload: Vec<u8>,
}

fn seal(cipher: &dyn Cipher, content: &[u8], steps: &[usize]) -> Sealed {
    let mut seal = cipher.seal().unwrap();
    let early = seal.head(BINDING).unwrap();
    let mut out = Vec::new();
    let mut rest = content;
    for step in steps.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*step));
        seal.push(now, &mut out).unwrap();
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    let head = seal.head(BINDING).unwrap();
    assert_eq!(head, early, "a head does not depend on when it is asked for");
    let foretold = seal.sealed_len(content.len() as u64);
    seal.finish(&mut out).unwrap();
    let payload = out.concat();
    assert_eq!(foretold, payload.len() as u64, "the length for {} bytes", content.len());
    Sealed { head, payload }
}

/// Everything that was released, and how it ended.
fn read(opened: &dyn Open, payload: &[u8], step: usize) -> (Vec<u8>, Result<()>) {
    let mut released = Vec::new();
    let mut stream = opened.stream();
    let result = payload
        .chunks(step)
        .try_for_each(|piece| stream.push(piece, &mut released))
        .and_then(|()| stream.finish(&mut released));
    (released, result)
}

fn read_range(opened: &dyn Open, payload: &[u8], plain: Range<u64>) -> Result<Bytes> {
    let sealed_len = payload.len() as u64;
    let needed = opened.sealed_range(plain.clone(), sealed_len);
    let needed = usize::try_from(needed.start).unwrap()..usize::try_from(needed.end).unwrap();
    opened.open_range(plain, &payload[needed], sealed_len)
}

fn conformance(cipher: &dyn Cipher) {
    for size in SIZES {
        let content = sample(size);
        for steps in [&[usize::MAX][..], &[1000], &[CHUNK], &[300_001, 0, 7]] {
            let sealed = seal(cipher, &content, steps);
            round_trip(cipher, &content, &sealed);
        }
        ranges(cipher, &content);
    }
    heads(cipher);
    head_flips(cipher);
    if cipher.encrypts() {
        payload_flips(cipher);
        payload_cuts_and_moves(cipher);
        nothing_in_common(cipher);
    }
}

fn round_trip(cipher: &dyn Cipher, content: &[u8], sealed: &Sealed) {
    let object = [&sealed.head[..], &sealed.payload].concat();
    let head = cipher.read_head(&object).unwrap().expect("a whole head");
    assert_eq!((head.len, head.binding.as_deref()), (sealed.head.len(), Some(BINDING)));
    let opened = cipher.open(&sealed.head).unwrap();
    assert_eq!(opened.plain_len(sealed.payload.len() as u64).unwrap(), content.len() as u64);
    for step in [usize::MAX, 999, SEALED, 300_000] {
        let (released, result) = read(&*opened, &sealed.payload, step);
        result.unwrap();
        assert!(released == content, "{} bytes read in steps of {step}", content.len());
    }
}

fn ranges(cipher: &dyn Cipher, content: &[u8]) {
    let sealed = seal(cipher, content, &[usize::MAX]);
    let opened = cipher.open(&sealed.head).unwrap();
    let mut places = vec![0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 9];
    places.extend([content.len(), content.len().saturating_sub(1)]);
    places.retain(|place| *place <= content.len());
    for &start in &places {
        for &end in places.iter().filter(|end| **end >= start) {
            let part = read_range(&*opened, &sealed.payload, start as u64..end as u64).unwrap();
            assert!(part == content[start..end], "bytes {start} to {end} of {}", content.len());
        }
    }
    let (start, len) = (content.len() as u64, sealed.payload.len() as u64);
    assert!(opened.open_range(0..start + 1, &sealed.payload, len).is_err(), "past the end");
    let needed = opened.sealed_range(0..start, len);
    let needed = &sealed.payload[..usize::try_from(needed.end).unwrap()];
    let longer = [needed, b"x"].concat();
    assert!(opened.open_range(0..start, &longer, len).is_err(), "more than was asked for");
    if let Some((_, shorter)) = needed.split_last() {
        assert!(opened.open_range(0..start, shorter, len).is_err(), "less than was asked for");
    }
    // The store may say any length at all.
    for len in [0, 1, 15, 16, 17, 65_552, 65_568, u64::MAX - 1, u64::MAX] {
        let claimed = opened.plain_len(len);
        for plain in [0..0, 0..1, len / 2..len, len..len, u64::MAX..u64::MAX] {
            let range = opened.sealed_range(plain.clone(), len);
            assert!(range.start <= range.end);
            if let Ok(claimed) = claimed {
                assert!(claimed <= len);
            }
            let _ = opened.open_range(plain, b"", len);
        }
    }
}

fn heads(cipher: &dyn Cipher) {
    let sealed = seal(cipher, b"content", &[usize::MAX]);
    for len in 0..sealed.head.len() {
        assert_eq!(cipher.read_head(&sealed.head[..len]).unwrap(), None, "{len} bytes are not a whole head");
        assert_eq!(cipher.open(&sealed.head[..len]).err().expect("cut").kind(), Kind::Damaged);
    }
    let longer = [&sealed.head[..], b"\0"].concat();
    assert_eq!(cipher.open(&longer).err().expect("longer than the head").kind(), Kind::Damaged);
    // Of one object, several heads: they share the payload.
    let seal = cipher.seal().unwrap();
    for len in [0, 1, 47, 48, 49, 95, 96, 97, 5000, 600_000] {
        let binding = sample(len);
        let head = seal.head(&binding).unwrap();
        let read = cipher.read_head(&head).unwrap().unwrap();
        assert_eq!((read.len, read.binding.as_ref()), (head.len(), Some(&binding)));
        cipher.open(&head).unwrap();
    }
    assert!(seal.head(&sample(MAX_HEAD)).is_err(), "no head is written that is too long to be read");
    let mut out = Vec::new();
    seal.finish(&mut out).unwrap();
    // What is no head is refused as soon as it is known, at the latest after 1 MiB.
    let mut endless = sealed.head[..32].to_vec();
    endless.resize(MAX_HEAD, b'A');
    assert_eq!(cipher.read_head(&endless).unwrap_err().kind(), Kind::Damaged);
    for other in [&b"X"[..], b"\x28\xb5\x2f\xfd", b"WMD", &[0; 100]] {
        assert_eq!(cipher.read_head(other).unwrap_err().kind(), Kind::Damaged);
    }
}

fn head_flips(cipher: &dyn Cipher) {
    let content = sample(100);
    let sealed = seal(cipher, &content, &[usize::MAX]);
    for bit in 0..sealed.head.len() * 8 {
        let mut head = sealed.head.to_vec();
        head[bit / 8] ^= 1 << (bit % 8);
        let object = [&head[..], &sealed.payload].concat();
        // A head that does not end is found by whoever read the whole object.
        let Ok(Some(found)) = cipher.read_head(&object) else { continue };
        let Ok(opened) = cipher.open(&object[..found.len]) else { continue };
        let (released, result) = read(&*opened, &object[found.len..], usize::MAX);
        assert!(result.is_err(), "bit {bit} of the head can be flipped");
        assert!(released.is_empty());
    }
}

/// Reads a payload that is not what was sealed: an error, and before it nothing but what was sealed.
fn refuses(opened: &dyn Open, content: &[u8], payload: &[u8], what: &str) {
    for step in [usize::MAX, 1000] {
        let (released, result) = read(opened, payload, step);
        let error = result.expect_err(what);
        assert_eq!(error.kind(), Kind::Damaged, "{what}: {error}");
        assert!(content.starts_with(&released), "{what}: released what was not sealed");
    }
    if let Ok(len) = opened.plain_len(payload.len() as u64) {
        let whole = read_range(opened, payload, 0..len);
        assert_eq!(whole.expect_err(what).kind(), Kind::Damaged, "{what}: read as a range");
    }
}

fn payload_flips(cipher: &dyn Cipher) {
    let content = sample(700);
    let sealed = seal(cipher, &content, &[usize::MAX]);
    let opened = cipher.open(&sealed.head).unwrap();
    for place in 0..sealed.payload.len() {
        let mut payload = sealed.payload.clone();
        payload[place] ^= 1 << (place % 8);
        refuses(&*opened, &content, &payload, &format!("flip in byte {place}"));
    }
    let content = sample(6 * CHUNK + 100);
    let sealed = seal(cipher, &content, &[usize::MAX]);
    let opened = cipher.open(&sealed.head).unwrap();
    let (mut payload, len) = (sealed.payload.clone(), content.len() as u64);
    for place in (0..payload.len()).step_by(5003) {
        payload[place] ^= 0x10;
        refuses(&*opened, &content, &payload, &format!("flip in byte {place}"));
        // The chunk itself is refused, and its neighbours are not affected.
        let chunk = (place / SEALED) as u64 * CHUNK as u64;
        assert!(read_range(&*opened, &payload, chunk..chunk + 1).is_err());
        if let Some(before) = chunk.checked_sub(1) {
            assert_eq!(read_range(&*opened, &payload, 0..before).unwrap(), content[..before as usize]);
        }
        let after = (chunk + CHUNK as u64).min(len);
        assert_eq!(read_range(&*opened, &payload, after..len).unwrap(), content[after as usize..]);
        payload[place] ^= 0x10;
    }
}

fn payload_cuts_and_moves(cipher: &dyn Cipher) {
    for size in [10, CHUNK, 6 * CHUNK, 6 * CHUNK + 50] {
        let content = sample(size);
        let sealed = seal(cipher, &content, &[usize::MAX]);
        let opened = cipher.open(&sealed.head).unwrap();
        let whole = &sealed.payload;
        let cuts = (0..whole.len()).step_by(SEALED).chain([1, 15, 16, 17, 25, SEALED - 1, SEALED + 1]);
        for cut in cuts.chain((0..whole.len()).step_by(40_009)).chain(whole.len().checked_sub(1)) {
            if cut < whole.len() {
                refuses(&*opened, &content, &whole[..cut], &format!("cut after {cut} of {}", whole.len()));
            }
        }
        for more in [&b"x"[..], &[0; 16], &[0; 17], &whole[whole.len() - 16..], &whole[..], &sample(SEALED)] {
            let longer = [&whole[..], more].concat();
            refuses(&*opened, &content, &longer, &format!("{} bytes more", more.len()));
        }
        let mut chunks: Vec<&[u8]> = whole.chunks(SEALED).collect();
        if let [first, second, rest @ ..] = &chunks[..] {
            let doubled = [&[*first, first, second], rest].concat().concat();
            refuses(&*opened, &content, &doubled, "a chunk twice");
            let missing = [&[*second], rest].concat().concat();
            refuses(&*opened, &content, &missing, "the first chunk gone");
            chunks.swap(0, 1);
            refuses(&*opened, &content, &chunks.concat(), "chunks swapped");
        }
    }
    let other = seal(cipher, b"the payload of another object", &[usize::MAX]);
    let opened = cipher.open(&seal(cipher, b"content", &[usize::MAX]).head).unwrap();
    refuses(&*opened, b"", &other.payload, "another object's payload");
    let mut stream = opened.stream();
    let mut out = Vec::new();
    assert!(stream.push(&sample(2 * SEALED), &mut out).is_err());
    assert!(stream.push(b"x", &mut out).is_err(), "a stream that failed stays so");
    assert!(stream.finish(&mut out).is_err() && out.is_empty());
}

fn nothing_in_common(cipher: &dyn Cipher) {
    let content = sample(3 * CHUNK);
    let (one, two) = (seal(cipher, &content, &[usize::MAX]), seal(cipher, &content, &[usize::MAX]));
    assert_ne!(one.head, two.head);
    let common = |one: &[u8], two: &[u8]| one.chunks(16).zip(two.chunks(16)).any(|(one, two)| one == two);
    assert!(!common(&one.payload, &two.payload), "two seals share a block");
    assert!(!common(&one.payload, &content), "a block is in the clear");
    assert!(!common(&one.payload, &one.payload[SEALED..]), "two chunks share a block");
}

fn age(threads: usize) -> AgeCipher {
    let identity = Identity::generate().unwrap();
    AgeCipher::new(vec![identity.recipient()], vec![identity]).with_threads(threads)
}

#[test]
fn age_on_one_thread_conforms() {
    conformance(&age(1));
}

#[test]
fn age_on_two_threads_conforms() {
    conformance(&age(2));
}

#[test]
fn age_with_two_recipients_conforms() {
    let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    conformance(&AgeCipher::new(vec![one.recipient(), two.recipient()], vec![two]).with_threads(3));
}

#[test]
fn plain_conforms() {
    conformance(&Plain);
}

#[test]
fn any_of_the_recipients_opens_and_nobody_else() {
    let identities: Vec<Identity> = (0..3).map(|_| Identity::generate().unwrap()).collect();
    let [one, two, stranger] = &identities[..] else { panic!() };
    let writer = AgeCipher::new(vec![one.recipient(), two.recipient()], Vec::new());
    let sealed = seal(&writer, b"content", &[usize::MAX]);
    let reader = |identities: &[&Identity]| {
        let copies = identities.iter().map(|identity| identity.to_secret_string().parse().unwrap()).collect();
        AgeCipher::new(Vec::new(), copies)
    };
    for keys in [&[one][..], &[two], &[stranger, two], &[stranger, one]] {
        let opened = reader(keys).open(&sealed.head).unwrap();
        assert_eq!(read(&*opened, &sealed.payload, usize::MAX).0, b"content");
    }
    let error = writer.open(&sealed.head).err().expect("no identity");
    assert_eq!(error.kind(), Kind::Key);
    assert!(error.to_string().contains("no identity is configured"), "{error}");
    let error = reader(&[stranger]).open(&sealed.head).err().expect("another identity");
    assert_eq!(error.kind(), Kind::Key);
    assert!(error.to_string().contains("none of the 1 configured identities opens this object"), "{error}");
    let error = reader(&[one]).seal().err().expect("no recipient");
    assert_eq!(error.kind(), Kind::Usage);
    // No key is needed to see which object it is.
    assert_eq!(writer.read_head(&sealed.head).unwrap().unwrap().binding.as_deref(), Some(BINDING));
}

#[test]
fn each_cipher_recognises_the_objects_of_the_other() {
    let encrypted = seal(&age(1), b"content", &[usize::MAX]);
    let plain = seal(&Plain, b"content", &[usize::MAX]);
    let error = Plain.read_head(&encrypted.head).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("it is encrypted"), "{error}");
    let error = age(1).read_head(&plain.head).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("it is not encrypted"), "{error}");
}

#[test]
fn the_stored_bytes_are_as_specified() {
    let encrypted = seal(&age(1), &sample(CHUNK + 1), &[usize::MAX]);
    assert_eq!(encrypted.payload.len(), SEALED + 1 + 16);
    let lines: Vec<&[u8]> = encrypted.head.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines[0], b"age-encryption.org/v1");
    assert!(lines[1].starts_with(b"-> X25519 "));
    let readers = lines[3].strip_prefix(b"-> walarchive.dev/v1 ").unwrap();
    assert!(readers.len() == 16 && readers.iter().all(u8::is_ascii_hexdigit), "{readers:?}");
    assert_eq!(lines[4].len(), 64);
    assert!(lines[6].starts_with(b"--- "));
    let plain = seal(&Plain, b"content", &[usize::MAX]);
    let length = u32::try_from(BINDING.len() + 32).unwrap().to_le_bytes();
    let digest = blake3::hash(BINDING);
    let head = [&[0x57, 0x2A, 0x4D, 0x18], &length[..], BINDING, digest.as_bytes()].concat();
    assert_eq!((&plain.head[..], &plain.payload[..]), (&head[..], &b"content"[..]));
}

#[test]
fn a_head_says_nothing_that_is_not_so() {
    let identity = Identity::generate().unwrap();
    let cipher = AgeCipher::new(vec![identity.recipient()], vec![identity]);
    let head = seal(&cipher, b"content", &[usize::MAX]).head;
    let text = |from: &str, to: &str| {
        let (text, nonce) = head.split_at(head.len() - 16);
        let changed = std::str::from_utf8(text).unwrap().replace(from, to);
        assert_ne!(changed.as_bytes(), text);
        [changed.as_bytes(), nonce].concat()
    };
    let readers = String::from_utf8_lossy(&head).split("walarchive.dev/v1 ").nth(1).unwrap()[..16].to_owned();
    let own = format!("-> walarchive.dev/v1 {readers}\n");
    // Later versions may add arguments; the MAC tells whether the writer did.
    let more = text("-> walarchive.dev/v1", "-> walarchive.dev/v1 more arguments");
    assert_eq!(cipher.read_head(&more).unwrap().unwrap().binding.as_deref(), Some(BINDING));
    assert_eq!(cipher.open(&more).err().expect("a changed header").kind(), Kind::Damaged);
    for (from, to) in [
        (own.as_str(), "-> walarchive.dev/v1\n\n-> walarchive.dev/v1\n"),
        ("-> X25519", "->  X25519"),
        ("-> X25519 ", "-> X25519 A"),
        (own.as_str(), "-> walarchive.dev/v1 \n"),
        (own.as_str(), "-> walarchive.dev/v1\r\n"),
        (own.as_str(), "-> walarchive.dev/v1 \u{e9}\n"),
        ("--- ", "---"),
        ("--- ", "--- A"),
        ("age-encryption.org/v1\n", "age-encryption.org/v2\n"),
    ] {
        let error = cipher.read_head(&text(from, to)).expect_err(to);
        assert_eq!(error.kind(), Kind::Damaged, "{to}");
    }
    // An age file of somebody else has no binding.
    let end = head.windows(3).position(|mark| mark == b"---").unwrap();
    let start = head.windows(18).position(|mark| mark == b"-> walarchive.dev/").unwrap();
    let foreign = [&head[..start], &head[end..]].concat();
    assert_eq!(cipher.read_head(&foreign).unwrap().unwrap().binding, None);
}

#[test]
fn a_plain_head_of_impossible_length_is_refused_at_once() {
    for body in [0, 31, MAX_HEAD - 7, usize::try_from(u32::MAX).unwrap()] {
        let length = u32::try_from(body).unwrap().to_le_bytes();
        let error = Plain.read_head(&[&[0x57, 0x2A, 0x4D, 0x18], &length[..]].concat()).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{body}");
    }
    let longest = u32::try_from(MAX_HEAD - 8).unwrap().to_le_bytes();
    assert_eq!(Plain.read_head(&[&[0x57, 0x2A, 0x4D, 0x18], &longest[..]].concat()).unwrap(), None);
}

fn hostile_starts() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        Just(b"age-encryption.org/v1\n".to_vec()),
        Just(b"-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\n".to_vec()),
        Just(b"EmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n".to_vec()),
        Just(b"-> walarchive.dev/v1\n".to_vec()),
        Just(b"--- Vn+54jqiiUCE+WZcEVY3f1sqHjlu/z1LCQ/T7Xm7qI0\n".to_vec()),
        Just(vec![0x57, 0x2A, 0x4D, 0x18]),
        Just(vec![b'A'; 64]),
        Just(b"\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..80),
    ];
    proptest::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pushes_of_any_size_make_no_difference(
        size in 0..(12 * CHUNK),
        steps in proptest::collection::vec(1..200_000_usize, 1..6),
        step in 1..400_000_usize,
        threads in 1..4_usize,
    ) {
        let content = sample(size);
        let cipher = age(threads);
        let sealed = seal(&cipher, &content, &steps);
        let opened = cipher.open(&sealed.head).unwrap();
        let (released, result) = read(&*opened, &sealed.payload, step);
        prop_assert!(result.is_ok());
        prop_assert!(released == content);
    }

    #[test]
    fn any_range_reads_what_is_there(size in 1..(12 * CHUNK), from in any::<u32>(), to in any::<u32>()) {
        let content = sample(size);
        let places = [from as usize % (size + 1), to as usize % (size + 1)];
        let (start, end) = (places[0].min(places[1]), places[0].max(places[1]));
        let cipher = age(2);
        let sealed = seal(&cipher, &content, &[usize::MAX]);
        let opened = cipher.open(&sealed.head).unwrap();
        let part = read_range(&*opened, &sealed.payload, start as u64..end as u64).unwrap();
        prop_assert!(part == content[start..end]);
    }
}

proptest! {
    #[test]
    fn hostile_starts_never_panic(start in hostile_starts()) {
        for cipher in [&age(1) as &dyn Cipher, &Plain] {
            if let Ok(Some(head)) = cipher.read_head(&start) {
                prop_assert!(head.len <= start.len());
                prop_assert_eq!(cipher.read_head(&start[..head.len]).unwrap().unwrap(), head);
            }
            let _ = cipher.open(&start);
        }
    }
}

#[test]
fn a_head_for_others_opens_the_same_payload_for_them_alone() {
    let [old, new, third] = [(); 3].map(|()| Identity::generate().unwrap());
    let copy = |identity: &Identity| -> Identity { identity.to_secret_string().parse().unwrap() };
    let two = AgeCipher::new(vec![old.recipient(), third.recipient()], vec![copy(&old)]);
    let sealed = seal(&two, b"content", &[usize::MAX]);
    assert!(two.is_for_readers(&sealed.head).unwrap());
    let reordered = AgeCipher::new(vec![third.recipient(), old.recipient()], vec![copy(&old)]);
    assert!(reordered.is_for_readers(&sealed.head).unwrap());
    for recipients in [vec![new.recipient()], vec![new.recipient(), third.recipient()]] {
        let to = AgeCipher::new(recipients.clone(), vec![copy(&old)]);
        assert!(!to.is_for_readers(&sealed.head).unwrap());
        let head = to.rewrap(&sealed.head, BINDING).unwrap();
        assert_eq!(head.len(), sealed.head.len(), "for {} readers", recipients.len());
        let before = to.read_head(&sealed.head).unwrap().unwrap();
        let after = to.read_head(&head).unwrap().unwrap();
        assert_eq!((after.len, after.binding, after.payload), (head.len(), before.binding, before.payload));
        let reader = AgeCipher::new(recipients, vec![copy(&new)]);
        assert!(reader.is_for_readers(&head).unwrap());
        let open = reader.open(&head).unwrap();
        let mut content = Vec::new();
        let mut stream = open.stream();
        stream.push(&sealed.payload, &mut content).unwrap();
        stream.finish(&mut content).unwrap();
        assert_eq!(content, b"content");
        assert_eq!(open.commitment(), two.open(&sealed.head).unwrap().commitment());
        assert_eq!(two.open(&head).err().expect("the old reader").kind(), Kind::Key);
    }
    let more: Vec<_> = [&old, &new, &third].map(Identity::recipient).to_vec();
    let longer = AgeCipher::new(more, vec![copy(&old)]).rewrap(&sealed.head, BINDING).unwrap();
    assert!(longer.len() > sealed.head.len());
    let nobody = AgeCipher::new(vec![], vec![old]);
    assert_eq!(nobody.rewrap(&sealed.head, BINDING).expect_err("nobody").kind(), Kind::Usage);
    assert_eq!(
        AgeCipher::new(vec![new.recipient()], vec![])
            .rewrap(&sealed.head, BINDING)
            .expect_err("no identity")
            .kind(),
        Kind::Key
    );
}
