//! Strings of JSON, written at the end of a text.

use crate::text;

/// Adds `said` as a string of JSON, with what steers a terminal as escapes.
pub(super) fn push(out: &mut String, said: &str) {
    if is_plain(said.as_bytes()) {
        out.push('"');
        out.push_str(said);
        out.push('"');
    } else {
        out.push_str(&text::json(&serde_json::to_string(said).unwrap_or_default()));
    }
}

/// Whether these are ASCII characters that JSON has as they are and that can be seen. Eight at a time: most of what is said
/// is of this kind, and each message is looked at.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // Whether one of eight bytes below 128 is below `n`.
    let below = |eight: u64, n: u8| eight.wrapping_sub(ONES * u64::from(n)) & !eight & HIGH != 0;
    let is = |eight: u64, byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    let (eights, rest) = text.as_chunks::<8>();
    let last = {
        let mut last = [b' '; 8];
        last[..rest.len()].copy_from_slice(rest);
        last
    };
    eights.iter().chain([&last]).all(|eight| {
        let eight = u64::from_ne_bytes(*eight);
        eight & HIGH == 0 && !(below(eight, b' ') || is(eight, b'"') || is(eight, b'\\') || is(eight, 0x7f))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_json_is_the_same_whether_it_is_plain_or_not() {
        for at in 0..20 {
            for odd in (0..=0x100).filter_map(char::from_u32).chain([
                '\u{202e}',
                '\u{feff}',
                '\u{e0041}',
                '日',
                '👩',
            ]) {
                let mut said: String = "abcdefgh ijklmnopqr"[..at.min(19)].into();
                said.push(odd);
                said.push_str("xyz~");
                let mut out = String::from("a");
                push(&mut out, &said);
                let plain = matches!(odd, ' '..='~') && !matches!(odd, '"' | '\\');
                assert_eq!(is_plain(said.as_bytes()), plain, "{said:?}");
                assert_eq!(out, format!("a{}", text::json(&serde_json::to_string(&said).unwrap())));
            }
        }
    }
}
