//! Durations ("700ms", "1h30m") and sizes ("64KiB") as people write them.
//!
//! A number without a unit is refused as a duration: the unit would be a guess. A size without one is bytes.

use std::time::Duration;

/// The longest duration taken, 3650 days: far from the end of any clock.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Units of time with their length in nanoseconds, longest first.
const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size with their length in bytes.
const SIZES: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Parses a duration: whole numbers with units, added up.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("an empty duration".into());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        if unit.is_empty() {
            return Err(format!("no unit behind {number} (write \"{number}s\" for seconds)"));
        }
        let (_, length) = TIMES
            .into_iter()
            .find(|(name, _)| *name == unit || (unit == "µs" && *name == "us"))
            .ok_or_else(|| format!("unknown unit {unit:?} (known: d, h, m, s, ms, us, ns)"))?;
        nanos += u128::from(number) * u128::from(length);
        if nanos > LONGEST.as_nanos() {
            return Err("longer than 3650d".into());
        }
        rest = after;
    }
    // At most 3650 days of nanoseconds, which is less than 2^59.
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Writes a duration so that [`parse_duration`] reads it back, in one unit where one will do.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (name, length) in TIMES {
        let length = u128::from(length);
        // One unit for the whole of "36h": days only where they leave no rest.
        if name == "d" && !nanos.is_multiple_of(length) {
            continue;
        }
        if nanos >= length {
            out += &format!("{}{name}", nanos / length);
            nanos %= length;
        }
    }
    out
}

/// Parses a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    if !rest.is_empty() {
        return Err(format!("{rest:?} behind the unit"));
    }
    let (_, length) = SIZES
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("unknown unit {unit:?} (known: B, KiB, MiB, GiB, kB, MB, GB)"))?;
    number
        .checked_mul(length)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "more bytes than this machine can address".into())
}

/// Writes a size so that [`parse_size`] reads it back, in the largest binary unit that leaves no rest.
pub(crate) fn format_size(bytes: usize) -> String {
    for (name, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{name}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Splits the number and the unit off the front of `text`.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return Err("no number in front".into());
    }
    let number = text[..digits].parse().map_err(|_| format!("{} is too large a number", &text[..digits]))?;
    let rest = text[digits..].trim_start();
    let unit = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let after = rest[unit..].trim_start();
    if !after.is_empty() && !after.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{after:?} is no whole number with a unit"));
    }
    Ok((number, &rest[..unit], after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("700ms", 700),
            ("1s", 1_000),
            ("36h", 129_600_000),
            ("1h30m", 5_400_000),
            ("1m 30s", 90_000),
            ("0s", 0),
            (" 2 s ", 2_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(36 * 3600)), "36h");
        assert_eq!(format_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(format_duration(Duration::from_secs(2 * 86_400)), "2d");
    }

    #[test]
    fn a_bad_duration_is_refused_and_says_why() {
        for (text, why) in [
            ("", "an empty duration"),
            ("5", "no unit behind 5 (write \"5s\" for seconds)"),
            ("s", "no number in front"),
            ("-1s", "no number in front"),
            ("1.5s", "\".5s\" is no whole number with a unit"),
            ("7 parsecs", "unknown unit \"parsecs\" (known: d, h, m, s, ms, us, ns)"),
            ("99999d", "longer than 3650d"),
            ("99999999999999999999999s", "99999999999999999999999 is too large a number"),
        ] {
            assert_eq!(parse_duration(text), Err(why.into()), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("64KiB", 65_536), ("64MiB", 67_108_864), ("1kB", 1_000), ("100", 100), ("100B", 100), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(format_size(65_536), "64KiB");
        assert_eq!(format_size(1_000), "1000B");
    }

    #[test]
    fn a_bad_size_is_refused_and_says_why() {
        for (text, why) in [
            ("", "no number in front"),
            ("64 kb", "unknown unit \"kb\" (known: B, KiB, MiB, GiB, kB, MB, GB)"),
            ("1KiB 2B", "\"2B\" behind the unit"),
            ("18446744073709551615GiB", "more bytes than this machine can address"),
        ] {
            assert_eq!(parse_size(text), Err(why.into()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0..LONGEST.as_nanos() as u64, bytes in 0usize..1 << 31) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
