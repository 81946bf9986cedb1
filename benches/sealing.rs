//! What the product does with a segment between its file and its object, in memory.

use std::hint::black_box;

use bytes::Bytes;
use walarchive_core::archive::{Binding, ContentDigest, ObjectKind};
use walarchive_core::cipher::Cipher;
use walarchive_core::codec::Codec;
use walarchive_core::pipeline::{Opener, Sealer};

/// How a push hands plain bytes on.
const PIECE: usize = 256 << 10;

const ARCHIVE: &str = "0123456789abcdef0123456789abcdef";

/// The codec alone.
pub fn compress(codec: &dyn Codec, plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut encoder = codec.encoder().expect("an encoder");
    plain.chunks(PIECE).for_each(|piece| encoder.push(piece, out).expect("compress"));
    encoder.finish(out).expect("compress");
}

/// The digest of the content alone.
pub fn digest(plain: &[u8]) -> String {
    let mut digest = ContentDigest::new(ARCHIVE);
    plain.chunks(PIECE).for_each(|piece| digest.update(piece));
    digest.hex()
}

/// What a push does between reading the segment and storing the object: its head, and the payload.
pub fn seal(codec: &dyn Codec, cipher: &dyn Cipher, plain: &[u8]) -> Vec<Bytes> {
    let mut sealer = Sealer::new(codec, cipher).expect("seal");
    let mut digest = ContentDigest::new(ARCHIVE);
    for piece in plain.chunks(PIECE) {
        digest.update(piece);
        sealer.push(piece).expect("seal");
    }
    let digest = digest.hex();
    let made = sealer.finish(|facts| {
        let mut binding = Binding::new(ARCHIVE, "main/1/wal/1", ObjectKind::Wal, codec.id());
        binding.plain = Some(facts.plain);
        binding.stored = Some(facts.stored);
        binding.sum = facts.sum;
        binding.digest = Some(digest);
        binding.to_bytes()
    });
    made.expect("seal")
}

/// What a fetch does between reading the object and writing the segment.
pub fn open(codec: &dyn Codec, cipher: &dyn Cipher, stored: &[Bytes]) {
    let (head, payload) = stored.split_first().expect("a head");
    let open = cipher.open(head).expect("open");
    let mut opener = Opener::new(open.as_ref(), codec, 1 << 30).expect("open");
    let mut digest = ContentDigest::new(ARCHIVE);
    let mut sink = |plain: &[u8]| {
        digest.update(plain);
        Ok(())
    };
    payload.iter().for_each(|piece| opener.push(piece, &mut sink).expect("open"));
    opener.finish(&mut sink).expect("open");
    black_box(digest.hex());
}
