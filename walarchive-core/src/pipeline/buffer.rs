//! Bytes in memory, sealed as an age file that stands for itself.

use crate::cipher::Cipher;
use crate::codec::{Codec, CodecId};
use crate::error::{Error, Result};

use super::{Opener, Sealer};

/// Compresses and seals `content`. With [`AgeCipher`](crate::cipher::age::AgeCipher) the result is an age file whose content the
/// codec's own program unpacks; the head names the codec, for [`open_buffer`].
///
/// # Errors
///
/// `Usage` for a cipher that does not encrypt: what it seals would be proven by nothing.
pub fn seal_buffer(content: &[u8], codec: &dyn Codec, cipher: &dyn Cipher) -> Result<Vec<u8>> {
    if !cipher.encrypts() {
        return Err(Error::usage("sealing a buffer: there is nobody to seal it for").hint("name recipients"));
    }
    let mut sealer = Sealer::new(codec, cipher)?;
    sealer.push(content)?;
    Ok(sealer.finish(|_| Ok(codec.id().name().into()))?.concat())
}

/// The content of what [`seal_buffer`] made, proven; `Damaged` where it is more than `limit` bytes long.
pub fn open_buffer(sealed: &[u8], cipher: &dyn Cipher, limit: u64) -> Result<Vec<u8>> {
    let damaged = |what: &str| Error::damaged(format!("opening a sealed buffer: {what}"));
    let head = cipher.read_head(sealed)?.ok_or_else(|| damaged("it ends within its head"))?;
    let (start, payload) =
        sealed.split_at_checked(head.len).ok_or_else(|| damaged("it ends within its head"))?;
    let codec = head.binding.and_then(|name| CodecId::from_name(std::str::from_utf8(&name).ok()?));
    let codec = codec.ok_or_else(|| damaged("its head does not name a codec, as those of buffers do"))?;
    let mut content = Vec::new();
    let mut opener = Opener::new(&*cipher.open(start)?, &*codec.reader(), limit)?;
    let mut keep = |plain: &[u8]| {
        content.extend_from_slice(plain);
        Ok(())
    };
    opener.push(payload, &mut keep)?;
    opener.finish(&mut keep)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::Plain;
    use crate::cipher::age::{AgeCipher, Identity};
    use crate::codec::CodecSpec;
    use crate::error::Kind;

    fn cipher(identity: Identity) -> AgeCipher {
        AgeCipher::new(vec![identity.recipient()], vec![identity])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_sealed_opens_and_nothing_else_does(
            content in proptest::collection::vec(any::<u8>(), 0..70_000), at in any::<prop::sample::Index>()
        ) {
            let cipher = cipher(Identity::generate().unwrap());
            let sealed = seal_buffer(&content, &*CodecSpec::default().build(), &cipher).unwrap();
            let len = content.len() as u64;
            prop_assert_eq!(&open_buffer(&sealed, &cipher, len).unwrap(), &content);
            let mut changed = sealed.clone();
            *at.get_mut(&mut changed) ^= 1;
            prop_assert!(open_buffer(&changed, &cipher, len).is_err());
            prop_assert!(open_buffer(&sealed[..at.index(sealed.len())], &cipher, len).is_err());
            if len > 0 {
                let found = open_buffer(&sealed, &cipher, len - 1).unwrap_err();
                prop_assert_eq!(found.kind(), Kind::Damaged);
            }
        }
    }

    #[test]
    fn strangers_are_told_that_it_is_the_key() {
        let codec = CodecSpec::default().build();
        let sealed = seal_buffer(b"secret", &*codec, &cipher(Identity::generate().unwrap())).unwrap();
        let stranger = cipher(Identity::generate().unwrap());
        assert_eq!(open_buffer(&sealed, &stranger, 100).unwrap_err().kind(), Kind::Key);
        assert_eq!(seal_buffer(b"secret", &*codec, &Plain).unwrap_err().kind(), Kind::Usage);
    }
}
