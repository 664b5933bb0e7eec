//! What the doctor says: findings in groups, as lines for people and as JSON for programs.
//!
//! Identifiers (`check`) and verdicts are a contract; the texts are not.

use serde_json::{Value, json};

use crate::text::steers;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Ok,
    /// A node runs, but worse than it could, or only for now.
    Warn,
    /// A node does not start, or does not do what its configuration says.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at: stable, `group.what`.
    pub(super) check: &'static str,
    /// Which one of them, where there may be several; otherwise what it is called.
    pub(super) subject: String,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do; none where all is well.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { check, subject, verdict: Verdict::Ok, found, advice: None }
    }

    pub(super) fn warn(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::ok(check, subject, found) }
    }

    pub(super) fn fail(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, advice: Some(advice.into()), ..Self::ok(check, subject, found) }
    }
}

/// All that was found, in groups.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<(&'static str, Vec<Finding>)>);

impl Report {
    pub(super) fn group(&mut self, name: &'static str, findings: Vec<Finding>) {
        if !findings.is_empty() {
            self.0.push((name, findings));
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().flat_map(|(_, findings)| findings).filter(|f| f.verdict == verdict).count()
    }

    pub(super) fn failed(&self) -> bool {
        self.count(Verdict::Fail) > 0
    }

    pub(super) fn text(&self) -> String {
        let all = self.0.iter().flat_map(|(_, findings)| findings);
        let width = all.map(|f| f.subject.chars().count()).filter(|n| *n <= WIDEST).max().unwrap_or(0);
        let mut text = String::new();
        for (name, findings) in &self.0 {
            text.push_str(&format!("{name}\n"));
            for Finding { subject, verdict, found, advice, .. } in findings {
                let (subject, found) = (clean(subject), clean(found));
                text.push_str(&format!("  {:4}  {subject:width$}  {found}\n", verdict.word()));
                if let Some(advice) = advice {
                    text.push_str(&format!("        {:width$}  do: {}\n", "", clean(advice)));
                }
            }
        }
        let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(|verdict| self.count(verdict));
        text.push_str(&format!("{ok} ok, {warn} to look at, {fail} failed\n"));
        text
    }

    pub(super) fn json(&self) -> Value {
        let checks: Vec<_> = self
            .0
            .iter()
            .flat_map(|(group, findings)| findings.iter().map(move |finding| (group, finding)))
            .map(|(group, f)| {
                json!({
                    "group": group,
                    "check": f.check,
                    "subject": f.subject,
                    "verdict": f.verdict.word(),
                    "found": f.found,
                    "advice": f.advice,
                })
            })
            .collect();
        let count = |verdict| self.count(verdict);
        json!({
            "ok": !self.failed(),
            "counts": { "ok": count(Verdict::Ok), "warn": count(Verdict::Warn), "fail": count(Verdict::Fail) },
            "checks": checks,
        })
    }
}

/// A longer subject shifts its own line only.
const WIDEST: usize = 44;

/// On one line: some of it comes from other machines, and must not steer this terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Bytes in the unit that people use.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.group("host", vec![Finding::ok("host.clock", "clock", "now")]);
        report.group("nothing", Vec::new());
        report.group(
            "links",
            vec![
                Finding::warn("links.mtu", "eth0", "1300", "raise it"),
                Finding::fail("links.mtu", "veth-1", "1000\u{1b}[31m", "raise it\nnow"),
            ],
        );
        report
    }

    #[test]
    fn lines_are_aligned_and_steer_no_terminal() {
        let expected = "host\n\
                        \x20 ok    clock   now\n\
                        links\n\
                        \x20 warn  eth0    1300\n\
                        \x20               do: raise it\n\
                        \x20 fail  veth-1  1000 [31m\n\
                        \x20               do: raise it now\n\
                        1 ok, 1 to look at, 1 failed\n";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn only_a_failure_fails() {
        assert!(report().failed());
        let mut report = Report::default();
        report.group("g", vec![Finding::warn("c", "s", "f", "a")]);
        assert!(!report.failed());
        assert_eq!(report.json()["ok"], true);
        assert_eq!(report.json()["counts"], json!({ "ok": 0, "warn": 1, "fail": 0 }));
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [size(0), size(1023), size(1024), size(212_992), size(1_500_000), size(3 << 30)];
        assert_eq!(sizes, ["0 bytes", "1023 bytes", "1 KiB", "208 KiB", "1.4 MiB", "3 GiB"]);
    }
}
