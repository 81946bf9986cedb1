//! Keys of 32 bytes as text.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

use crate::error::Result;

/// Five-bit characters that encode 32 bytes.
const CHARACTERS: usize = 52;

/// The 32 bytes behind a Bech32 text with that prefix, or what is wrong with it, without any part of it.
pub(super) fn decode(text: &str, hrp: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let shown = format!("{hrp}1");
    if !text.starts_with(&shown) {
        return Err(format!("it does not begin with {shown}"));
    }
    let checked = CheckedHrpstring::new::<Bech32>(text)
        .map_err(|_| "it is mistyped or cut short (its checksum does not hold)".to_owned())?;
    let canonical = checked.hrp().as_str() == hrp
        && checked.data_part_ascii_no_checksum().len() == CHARACTERS
        && checked.validate_segwit_padding().is_ok();
    if !canonical {
        return Err("it is not a key of 32 bytes".to_owned());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (place, byte) in bytes.iter_mut().zip(checked.byte_iter()) {
        *place = byte;
    }
    Ok(bytes)
}

/// A public key as text.
pub(super) fn public(f: &mut std::fmt::Formatter<'_>, hrp: &str, key: &[u8; 32]) -> std::fmt::Result {
    let hrp = Hrp::parse(hrp).map_err(|_| std::fmt::Error)?;
    bech32::encode_lower_to_fmt::<Bech32, _>(f, hrp, key).map_err(|_| std::fmt::Error)
}

/// A secret key as text, for a file that its owner alone can read.
pub(super) fn secret(hrp: &str, key: &[u8; 32]) -> Zeroizing<String> {
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(128));
    if let Ok(hrp) = Hrp::parse(hrp) {
        // A String takes whatever is written to it, and 32 bytes are within the code's length.
        let _ = bech32::encode_upper_to_fmt::<Bech32, String>(&mut text, hrp, key);
    }
    text
}
