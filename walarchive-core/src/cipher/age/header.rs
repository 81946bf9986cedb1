//! The text of age's header: reading and writing it, and its MAC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::PREFIX;
use super::keys::{FileKey, Recipient, Stanza};
use crate::cipher::{MAX_HEAD, binding_too_long, none};
use crate::error::{Error, Result};

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const BINDING: &[u8] = b"walarchive.dev/v1";
const X25519: &[u8] = b"X25519";
const SCRYPT: &[u8] = b"scrypt";
const MAC_MARK: &[u8] = b"---";
/// A stanza that makes a header longer.
const FILLER: &[u8] = b"walarchive.dev/filler";
/// `-> `, its name, an argument of one character, and the line feeds behind that and behind its empty body.
const SHORTEST_FILLER: usize = 3 + FILLER.len() + 2 + 2;

/// Characters in a full line of a stanza's body; a shorter one ends it.
const COLUMNS: usize = 64;

/// Length of the nonce that follows the header and from which the payload's key is derived.
pub(super) const NONCE: usize = 16;

/// A header, and the nonce that follows it.
pub(super) struct Header {
    /// The stanzas of X25519 recipients; those of other kinds are passed over.
    pub(super) stanzas: Vec<Stanza>,
    /// The body of our own stanza.
    pub(super) binding: Option<Vec<u8>>,
    /// The argument behind its name: [`FileKey::readers`]
    pub(super) readers: Option<Vec<u8>>,
    /// The nonce of the payload.
    pub(super) nonce: [u8; NONCE],
    /// Length of header and nonce in bytes.
    pub(super) len: usize,
    /// What the MAC covers.
    covered: Vec<u8>,
    mac: [u8; 32],
}

impl Header {
    /// Reads the header that `start` begins with; `None` when `start` ends before header and nonce do.
    pub(super) fn parse(start: &[u8]) -> Result<Option<Header>> {
        let header = Reader { data: &start[..start.len().min(MAX_HEAD)], at: 0 }.header()?;
        if header.is_none() && start.len() >= MAX_HEAD {
            return Err(damaged("it does not end within 1 MiB"));
        }
        Ok(header)
    }

    /// The stanzas that let recipients open what has that key.
    pub(super) fn addressed(file_key: &FileKey, recipients: &[Recipient]) -> Result<Addressed> {
        let stanzas = recipients.iter().map(|to| file_key.wrap(to)).collect::<Result<_>>()?;
        Ok(Addressed { stanzas, readers: file_key.readers(recipients)? })
    }

    /// Proves that somebody who knew the file key wrote this header.
    pub(super) fn verify(&self, file_key: &FileKey) -> Result<()> {
        authenticate(file_key, &self.covered)?
            .verify_slice(&self.mac)
            .map_err(|_| damaged("its MAC does not match: it was changed after it was written"))
    }
}

/// Whom a header is for.
pub(super) struct Addressed {
    stanzas: Vec<Stanza>,
    readers: String,
}

/// Writes a header with our own stanza last, and the nonce behind it; of `len` bytes if it can be as short as that.
pub(super) fn write(
    to: &Addressed,
    binding: &[u8],
    file_key: &FileKey,
    nonce: &[u8; NONCE],
    len: usize,
) -> Result<Vec<u8>> {
    let text = write_padded(to, binding, file_key, nonce, 0)?;
    match len.checked_sub(text.len()) {
        Some(missing) if missing >= SHORTEST_FILLER => write_padded(to, binding, file_key, nonce, missing),
        _ => Ok(text),
    }
}

fn write_padded(
    to: &Addressed,
    binding: &[u8],
    file_key: &FileKey,
    nonce: &[u8; NONCE],
    filler: usize,
) -> Result<Vec<u8>> {
    let mut text =
        Vec::with_capacity(256 + 128 * to.stanzas.len() + binding.len().saturating_mul(3) / 2 + filler);
    text.extend_from_slice(VERSION);
    for stanza in &to.stanzas {
        let share = STANDARD_NO_PAD.encode(stanza.share);
        write_stanza(&mut text, &[X25519, share.as_bytes()], &stanza.body);
    }
    if filler > 0 {
        write_stanza(&mut text, &[FILLER, &vec![b'-'; filler + 1 - SHORTEST_FILLER]], b"");
    }
    write_stanza(&mut text, &[BINDING, to.readers.as_bytes()], binding);
    text.extend_from_slice(MAC_MARK);
    let mac = authenticate(file_key, &text)?.finalize().into_bytes();
    text.push(b' ');
    text.extend_from_slice(STANDARD_NO_PAD.encode(mac).as_bytes());
    text.push(b'\n');
    text.extend_from_slice(nonce);
    if text.len() > MAX_HEAD {
        return Err(binding_too_long(binding.len()));
    }
    Ok(text)
}

fn write_stanza(text: &mut Vec<u8>, arguments: &[&[u8]], body: &[u8]) {
    text.extend_from_slice(b"->");
    for argument in arguments {
        text.push(b' ');
        text.extend_from_slice(argument);
    }
    text.push(b'\n');
    let body = STANDARD_NO_PAD.encode(body);
    let mut lines = body.as_bytes().chunks_exact(COLUMNS);
    for line in &mut lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(lines.remainder());
    text.push(b'\n');
}

fn authenticate(file_key: &FileKey, covered: &[u8]) -> Result<Hmac<Sha256>> {
    let key = file_key.mac_key()?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&key[..]).map_err(|_| Error::bug("HMAC refuses a key of 32 bytes"))?;
    mac.update(covered);
    Ok(mac)
}

fn damaged(what: &str) -> Error {
    Error::damaged(format!("reading the header of an encrypted object: {what}"))
}

/// A place in bytes that may end before the header does; every step gives `None` there.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn header(mut self) -> Result<Option<Header>> {
        if !self.version()? {
            return Ok(None);
        }
        let mut stanzas = Vec::new();
        let mut count = 0_usize;
        let mut passphrase = false;
        let (mut binding, mut readers) = (None, None);
        loop {
            let line_start = self.at;
            let Some(line) = self.line() else { return Ok(None) };
            if let Some(mac) = line.strip_prefix(MAC_MARK) {
                check_stanzas(count, passphrase)?;
                let mac = parse_mac(mac)?;
                let covered = self.data[..line_start + MAC_MARK.len()].to_vec();
                let Some(&nonce) = self.data[self.at..].first_chunk() else { return Ok(None) };
                let len = self.at + NONCE;
                return Ok(Some(Header { stanzas, binding, readers, nonce, len, covered, mac }));
            }
            let arguments = parse_arguments(line)?;
            let Some(body) = self.body()? else { return Ok(None) };
            count += 1;
            match arguments.first() {
                Some(&X25519) => stanzas.push(parse_x25519(&arguments, &body)?),
                Some(&BINDING) if binding.is_some() => return Err(damaged("it has two bindings")),
                Some(&BINDING) => {
                    binding = Some(body);
                    readers = arguments.get(1).map(|argument| argument.to_vec());
                }
                Some(&SCRYPT) => passphrase = true,
                _ => {}
            }
        }
    }

    /// Passes over the version line; false when the data ends inside it.
    fn version(&mut self) -> Result<bool> {
        let shown = self.data.len().min(VERSION.len());
        if self.data[..shown] != VERSION[..shown] {
            return Err(not_age(self.data));
        }
        self.at = VERSION.len();
        Ok(shown == VERSION.len())
    }

    /// The next line, without its line feed.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.data.get(self.at..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// The body of a stanza: full lines, and a shorter one, which may be empty.
    fn body(&mut self) -> Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line() else { return Ok(None) };
            if line.len() > COLUMNS {
                return Err(damaged("a line of a stanza's body is longer than 64 columns"));
            }
            STANDARD_NO_PAD
                .decode_vec(line, &mut body)
                .map_err(|_| damaged("a stanza's body is not canonical base64"))?;
            if line.len() < COLUMNS {
                return Ok(Some(body));
            }
        }
    }
}

fn not_age(start: &[u8]) -> Error {
    if start.starts_with(PREFIX) {
        return damaged("its version of the age format is not v1")
            .hint("a newer version may have written it");
    }
    if start.starts_with(&none::MAGIC) {
        return damaged("it is not encrypted, but this archive is")
            .hint("check that the archive's description and the object belong together");
    }
    if start.starts_with(b"-----BEGIN AGE") {
        return damaged("it is an age file in ASCII armor, which archives do not hold");
    }
    damaged("it does not begin as an age file")
}

fn parse_arguments(line: &[u8]) -> Result<Vec<&[u8]>> {
    let Some(arguments) = line.strip_prefix(b"-> ") else {
        return Err(damaged("a line is neither a stanza nor the MAC"));
    };
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == b' ').collect();
    let good = |argument: &&[u8]| !argument.is_empty() && argument.iter().all(u8::is_ascii_graphic);
    if !arguments.iter().all(good) {
        return Err(damaged("a stanza's arguments are not printable words with single spaces between them"));
    }
    Ok(arguments)
}

fn check_stanzas(count: usize, passphrase: bool) -> Result<()> {
    match count {
        0 => Err(damaged("it has no stanza")),
        // Whoever has a passphrase relies on nobody else having been able to write the file.
        2.. if passphrase => Err(damaged("a passphrase stands beside other stanzas, which age forbids")),
        _ => Ok(()),
    }
}

fn parse_x25519(arguments: &[&[u8]], body: &[u8]) -> Result<Stanza> {
    let [_, share] = arguments else {
        return Err(damaged("an X25519 stanza does not have two arguments"));
    };
    let share = decode_32(share).ok_or_else(|| damaged("the share of an X25519 stanza is not 32 bytes"))?;
    let body = body.try_into().map_err(|_| damaged("the body of an X25519 stanza is not 32 bytes"))?;
    Ok(Stanza { share, body })
}

fn parse_mac(rest: &[u8]) -> Result<[u8; 32]> {
    rest.strip_prefix(b" ").and_then(decode_32).ok_or_else(|| damaged("its MAC line is malformed"))
}

fn decode_32(text: &[u8]) -> Option<[u8; 32]> {
    // 43 characters: anything longer need not be decoded to be refused.
    if text.len() != 43 {
        return None;
    }
    STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}
