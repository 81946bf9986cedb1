//! Numbers as people read them.

use std::fmt::Display;

/// A number of bytes, in the largest decimal unit that leaves something before the point.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// So many of something.
pub fn many<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    format!("{count} {what}{}", if count == N::from(1) { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told() {
        assert_eq!([bytes(999), bytes(1_000), bytes(16_777_216)], ["999 B", "1.0 kB", "16.8 MB"]);
        assert_eq!([bytes(5_000_000_000_000), bytes(u64::MAX)], ["5.0 TB", "18446744.1 TB"]);
        assert_eq!(
            [many(0_u64, "segment"), many(1_u64, "segment"), many(2_u64, "segment")],
            ["0 segments", "1 segment", "2 segments"]
        );
    }
}
