//! What clients may publish and hear, in the form of mosquitto's acl_file.

use std::collections::HashMap;

use crate::topic;

/// What a client is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It hears a message.
    Read,
    /// It publishes one.
    Write,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct AclError {
    /// The file's name, as it was handed in.
    pub file: String,
    /// Which line, from 1.
    pub line: usize,
    /// What was expected there.
    pub problem: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read,
    Write,
    Both,
    Deny,
}

impl Permission {
    fn covers(self, operation: Operation) -> bool {
        match self {
            Self::Read => operation == Operation::Read,
            Self::Write => operation == Operation::Write,
            Self::Both => true,
            Self::Deny => false,
        }
    }
}

#[derive(Clone, Debug)]
struct Rule {
    permission: Permission,
    filter: String,
}

/// What a file says. Where it says nothing of a topic, nobody may publish or hear there; `deny` wins.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    /// For clients without a user name.
    anonymous: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    /// For everybody, with `%u` and `%c` for user name and client id.
    patterns: Vec<Rule>,
}

impl Acl {
    /// What a file has: lines `user NAME`, `topic [read|write|readwrite|deny] FILTER`, `pattern [read|write|readwrite|deny]
    /// FILTER`, empty lines and comments. Topics before the first user are those of clients without one. `file` names it in
    /// errors.
    ///
    /// # Errors
    /// With the first line that is something else.
    pub fn parse(file: &str, text: &str) -> Result<Self, AclError> {
        let mut acl = Self::default();
        let mut user: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |problem| AclError { file: file.to_owned(), line: number + 1, problem };
            let (word, rest) =
                line.split_once([' ', '\t']).map_or((line, ""), |(word, rest)| (word, rest.trim()));
            match word {
                "user" if rest.is_empty() => return Err(fail("expected a name after user")),
                "user" => user = Some(rest.to_owned()),
                "topic" | "pattern" => {
                    let rule = Rule::parse(rest).map_err(fail)?;
                    match (&user, word) {
                        (_, "pattern") => acl.patterns.push(rule),
                        (Some(user), _) => acl.users.entry(user.clone()).or_default().push(rule),
                        (None, _) => acl.anonymous.push(rule),
                    }
                }
                _ => return Err(fail("expected user NAME, topic … or pattern …")),
            }
        }
        Ok(acl)
    }

    /// Whether a client may do that on a topic.
    pub fn allows(&self, operation: Operation, user: Option<&str>, client: &str, topic: &str) -> bool {
        let own = match user {
            Some(user) => self.users.get(user).map_or(&[][..], Vec::as_slice),
            None => &self.anonymous,
        };
        let mut allowed = false;
        let mut judge = |permission: Permission| {
            allowed |= permission.covers(operation);
            permission != Permission::Deny
        };
        for rule in own.iter().filter(|rule| topic::matches(&rule.filter, topic)) {
            if !judge(rule.permission) {
                return false;
            }
        }
        for rule in &self.patterns {
            match fill(&rule.filter, user, client) {
                Some(filter) if !topic::matches(&filter, topic) => {}
                // A name that would change what a pattern means has what others with it have: nothing.
                None if rule.permission != Permission::Deny => {}
                _ => {
                    if !judge(rule.permission) {
                        return false;
                    }
                }
            }
        }
        allowed
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (word, rest) =
            text.split_once([' ', '\t']).map_or(("", text), |(word, rest)| (word, rest.trim()));
        let (permission, filter) = match word {
            "read" => (Permission::Read, rest),
            "write" => (Permission::Write, rest),
            "readwrite" => (Permission::Both, rest),
            "deny" => (Permission::Deny, rest),
            // A topic may have spaces.
            _ => (Permission::Both, text),
        };
        if topic::is_filter(filter) {
            Ok(Self { permission, filter: filter.to_owned() })
        } else {
            Err("expected read, write, readwrite or deny (or none of these), and a topic filter")
        }
    }
}

/// A pattern for one client; `None` if its name or id would bring levels or wildcards in, or it has no name.
fn fill(pattern: &str, user: Option<&str>, client: &str) -> Option<String> {
    let mut filled = pattern.to_owned();
    for (place, value) in [("%u", user), ("%c", Some(client))] {
        if filled.contains(place) {
            let value = value.filter(|value| !value.contains(['+', '#', '/', '%']))?;
            filled = filled.replace(place, value);
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Everybody without a name:
topic read public/#

user ada
topic engine/#
topic deny engine/secret
topic write log
topic a topic with spaces
user grace
topic readwrite +
pattern write sensors/%u/%c/#
pattern deny private/#
";

    #[test]
    fn each_has_what_its_lines_say_and_no_more() {
        let acl = Acl::parse("acl", FILE).unwrap();
        for (user, client, topic, read, write) in [
            (None, "c", "public/x", true, false),
            (None, "c", "engine/x", false, false),
            (Some("ada"), "c", "public/x", false, false),
            (Some("ada"), "c", "engine/x/y", true, true),
            (Some("ada"), "c", "engine/secret", false, false),
            (Some("ada"), "c", "log", false, true),
            (Some("ada"), "c", "a topic with spaces", true, true),
            (Some("grace"), "c", "engine", true, true),
            (Some("grace"), "c", "engine/x", false, false),
            (Some("grace"), "c1", "sensors/grace/c1/t", false, true),
            (Some("grace"), "c1", "sensors/grace/c2/t", false, false),
            (Some("grace"), "c1", "sensors/ada/c1/t", false, false),
            (None, "c1", "sensors//c1/t", false, false),
            (Some("grace"), "c", "private/x", false, false),
            (Some("eve"), "c", "engine/x", false, false),
        ] {
            let found = [Operation::Read, Operation::Write].map(|op| acl.allows(op, user, client, topic));
            assert_eq!(found, [read, write], "{user:?} {client} {topic}");
        }
    }

    #[test]
    fn a_name_that_would_widen_a_pattern_has_nothing_of_it() {
        let acl = Acl::parse("acl", "pattern write sensors/%u/%c").unwrap();
        let write = |user, client, topic| acl.allows(Operation::Write, Some(user), client, topic);
        assert!(write("ada", "c", "sensors/ada/c"));
        for (user, client, topic) in [
            ("+", "c", "sensors/eve/c"),
            ("ada", "#", "sensors/ada/x"),
            ("a/b", "c", "sensors/a/b/c"),
            ("%c", "x", "sensors/x/x"),
        ] {
            assert!(!write(user, client, topic), "{user} {client}");
        }
        let deny = Acl::parse("acl", "user #\ntopic x\npattern deny %u").unwrap();
        assert!(!deny.allows(Operation::Write, Some("#"), "c", "x"), "what denies does so in doubt");
    }

    #[test]
    fn an_error_says_the_file_the_line_and_what_was_expected() {
        for (text, line) in [
            ("user", 1),
            ("\ntopic", 2),
            ("topic read", 0),
            ("topic read a#", 1),
            ("topics a", 1),
            ("pattern write #/a", 1),
        ] {
            match Acl::parse("/etc/acl", text) {
                // `read` alone is a topic of that name.
                Ok(_) => assert_eq!(line, 0, "{text}"),
                Err(error) => {
                    assert_eq!(error.line, line, "{text}");
                    assert!(
                        error.to_string().starts_with("/etc/acl, line ")
                            && error.to_string().contains("expected")
                    );
                }
            }
        }
    }
}
