//! Topic names and filters (MQTT 5, section 4.7), as text.

/// What separates two levels.
pub const SEPARATOR: u8 = b'/';

/// Whether a message may have this topic: not empty, no wildcard, no U+0000, 65,535 bytes at most.
pub fn is_name(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= usize::from(u16::MAX)
        && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

/// Whether this can be subscribed to: wildcards fill whole levels, and `#` is the last of them.
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.bytes().any(|byte| matches!(byte, b'+' | b'#'));
        if wild && level != "+" && (level != "#" || levels.peek().is_some()) {
            return false;
        }
    }
    true
}

/// How many levels a name or filter has.
pub fn levels(topic: &str) -> usize {
    1 + topic.bytes().filter(|byte| *byte == SEPARATOR).count()
}

/// Whether a filter has a wildcard.
pub fn is_wild(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// Whether a message with this topic is for that filter. A filter that begins with a wildcard has nothing of topics that
/// begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            // `a/#` has `a`, too.
            (Some(_), None) | (None, Some(_)) | (Some(_), Some(_)) => return false,
        }
    }
}

/// The group and the filter of `$share/GROUP/FILTER`; `None` if it does not begin so.
///
/// # Errors
/// When it does, and is not well formed (MQTT 5, 4.8.2).
pub fn shared(filter: &str) -> Option<Result<(&str, &str), Malformed>> {
    let rest = filter.strip_prefix("$share/")?;
    Some(match rest.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !is_wild(group) && is_filter(filter) => {
            Ok((group, filter))
        }
        _ => Err(Malformed),
    })
}

/// Not as the specification has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_4_7_1_wildcards_fill_whole_levels_and_the_last_is_the_last() {
        for filter in ["#", "+", "a", "a/#", "a/+/b", "+/+", "/+", "/", "//", "+/a/#", "a/+", "$SYS/#", "é/+"]
        {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in
            ["", "a#", "#/a", "a/#/b", "a+", "+a", "a/+b", "a/b+/c", "##", "++", "+#", "a\0b", "x/+y"]
        {
            assert!(!is_filter(filter), "{filter}");
        }
        assert!(is_filter(&"a".repeat(65_535)) && !is_filter(&"a".repeat(65_536)));
    }

    #[test]
    fn mqtt_3_3_2_2_a_name_has_no_wildcard() {
        assert!(["a", "/", "$x", "a b", "a/b/"].into_iter().all(is_name));
        assert!(!["", "+", "a/#", "a\0", "a+b"].into_iter().any(is_name));
        assert!(is_name(&"a".repeat(65_535)) && !is_name(&"a".repeat(65_536)));
    }

    #[test]
    fn mqtt_4_7_1_2_and_4_7_1_3_examples_of_the_specification_match_as_it_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("A", "a", false),
            // [MQTT-4.7.2-1]
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("/", "/", true),
            ("/", "//", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn mqtt_4_8_2_the_name_of_a_group_is_plain() {
        assert_eq!(shared("$share/g/a/#"), Some(Ok(("g", "a/#"))));
        assert_eq!(shared("$share/g//"), Some(Ok(("g", "/"))));
        assert_eq!(shared("a"), None);
        for filter in ["$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g/a#", "$share/"] {
            assert_eq!(shared(filter), Some(Err(Malformed)), "{filter}");
        }
    }
}
