//! Texts from elsewhere, made fit to be shown.

/// At most `longest` characters of a text, as one line that a terminal can show.
pub(super) fn readable(text: &str, longest: usize) -> String {
    let hidden = |c: char| c.is_whitespace() || c.is_control() || is_directional(c);
    let mut line = String::new();
    for word in text.split(hidden).filter(|word| !word.is_empty()) {
        if line.len() > longest * 4 {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.chars().count() > longest {
        line = line.chars().take(longest - 1).chain(['…']).collect();
    }
    line
}

/// Whether a character only changes the order in which others are shown.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
