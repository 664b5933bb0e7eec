//! MQTT: whether its ports are free, and what its files say.

use std::{os::unix::fs::PermissionsExt, path::Path, time::UNIX_EPOCH};

use super::{
    finding::Finding,
    listen::{self, Running},
};
use crate::{
    config::{Config, Mqtt},
    error::chain,
    mqtt::{Offer, read_access, read_tls},
    runtime::{Handle, wall},
};

const ACCESS: &str = "mqtt.access";
const TLS: &str = "mqtt.tls";
/// How long before a certificate expires that is said, in seconds.
const SOON: i64 = 14 * 24 * 3600;

pub(super) async fn check(config: &Config, runtime: &Handle, running: &Running) -> Vec<Finding> {
    let mqtt = &config.mqtt;
    if !mqtt.is_on() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (key, listen) in [("mqtt.listen", &mqtt.listen), ("mqtt.websocket", &mqtt.websocket)] {
        findings.extend(listen::local(key, listen, runtime, running.api).await);
    }
    let files = mqtt.clone();
    match runtime.unblock(move || (access(&files), tls(&files))).await {
        Ok((access, tls)) => findings.extend([access, tls]),
        Err(e) => findings.push(Finding::fail(ACCESS, "files", e.to_string(), "try again")),
    }
    findings
}

/// Who may come, and do what.
fn access(mqtt: &Mqtt) -> Finding {
    let subject = "users and access";
    let access = match read_access(mqtt) {
        Ok(access) => access,
        Err(e) => {
            let advice = "mosquitto_passwd makes mqtt.users; mqtt.acl has the form of mosquitto's acl_file";
            return Finding::fail(ACCESS, subject, chain(&e), advice);
        }
    };
    let who = match (access.users.as_ref().map(|users| users.len()), access.anonymous) {
        (Some(users), false) => format!("{users} users"),
        (Some(users), true) => format!("{users} users, and anybody without a name"),
        (None, _) => "anybody".into(),
    };
    let what = if access.acl.is_some() { "as mqtt.acl says" } else { "all topics" };
    let found = format!("{who}; {what}");
    if mqtt.is_exposed() && access.anonymous && access.acl.is_none() {
        let advice = "set mqtt.users, without mqtt.anonymous, or mqtt.acl";
        return Finding::warn(ACCESS, subject, format!("{found}, also from other machines"), advice);
    }
    if mqtt.is_exposed() && access.users.is_some() && mqtt.tls_cert.is_none() {
        let advice = "set mqtt.tls_cert and mqtt.tls_key";
        return Finding::warn(
            ACCESS,
            subject,
            format!("{found}; passwords cross the network as they are"),
            advice,
        );
    }
    Finding::ok(ACCESS, subject, found)
}

/// What the node shows, and asks for.
fn tls(mqtt: &Mqtt) -> Finding {
    let subject = "certificates";
    let offer = match read_tls(mqtt) {
        Ok(Some(offer)) => offer,
        Ok(None) => return Finding::ok(TLS, subject, "none: without TLS"),
        Err(e) => {
            let advice = "docs/mqtt.md has the commands that make a certificate and its key";
            return Finding::fail(TLS, subject, chain(&e), advice);
        }
    };
    let now = wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    judge(
        &offer,
        i64::try_from(now).unwrap_or(i64::MAX),
        is_open(mqtt.tls_key.as_deref()),
        mqtt.tls_ca.is_some(),
    )
}

fn judge(offer: &Offer, now: i64, key_is_open: bool, has_authorities: bool) -> Finding {
    let subject = "certificates";
    if let Some(warning) = offer.warnings.first() {
        return Finding::warn(TLS, subject, warning.clone(), "get another one; SIGHUP has it read");
    }
    if key_is_open {
        let found = "everybody on this machine can read mqtt.tls_key";
        return Finding::warn(TLS, subject, found, "chmod 640, and the group that the node runs as");
    }
    let days = offer.until.map(|until| until.saturating_sub(now) / (24 * 3600));
    if offer.until.is_some_and(|until| until.saturating_sub(now) < SOON) {
        let found = format!("mqtt.tls_cert expires in {} days", days.unwrap_or(0));
        return Finding::warn(TLS, subject, found, "get another one; SIGHUP has it read");
    }
    let lasts = days.map_or_else(String::new, |days| format!(", for another {days} days"));
    let asks = if has_authorities { "; clients show one, too" } else { "" };
    Finding::ok(TLS, subject, format!("the key is the certificate's{lasts}{asks}"))
}

/// Whether everybody may read a file.
fn is_open(path: Option<&Path>) -> bool {
    path.and_then(|path| path.metadata().ok()).is_some_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::finding::Verdict, *};
    use crate::config::ApiListen;

    #[test]
    fn who_may_come_from_other_machines_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            Some(folder.path().join(name))
        };
        let passwords = include_str!("../../../crates/mqtt/tests/data/passwords");
        let (users, acl) = (file("users", passwords), file("acl", "topic read a\n"));
        let none = None;
        let here = || ApiListen::Tcp(([127, 0, 0, 1], 1883).into());
        let everywhere = || ApiListen::Tcp(([0, 0, 0, 0], 1883).into());
        for (listen, users, acl, anonymous, cert, expected, says) in [
            (here(), &none, &none, false, false, Verdict::Ok, "anybody; all topics"),
            (everywhere(), &none, &none, true, true, Verdict::Warn, "also from other machines"),
            (everywhere(), &none, &acl, true, false, Verdict::Ok, "as mqtt.acl says"),
            (everywhere(), &users, &none, false, false, Verdict::Warn, "cross the network as they are"),
            (everywhere(), &users, &none, false, true, Verdict::Ok, "2 users; all topics"),
            (here(), &file("bad", "ada:lovelace\n"), &none, false, false, Verdict::Fail, "bad, line 1"),
        ] {
            let mut mqtt = Config::default().mqtt;
            (mqtt.listen, mqtt.users, mqtt.acl, mqtt.anonymous) =
                (listen, users.clone(), acl.clone(), anonymous);
            mqtt.tls_cert = cert.then(|| "cert".into());
            let finding = access(&mqtt);
            assert_eq!(finding.verdict, expected, "{}", finding.found);
            assert!(finding.found.contains(says), "{}", finding.found);
        }
    }

    #[test]
    fn files_that_are_not_there_fail_and_without_any_there_is_no_tls() {
        let mut mqtt = Config::default().mqtt;
        assert_eq!(tls(&mqtt).verdict, Verdict::Ok);
        (mqtt.tls_cert, mqtt.tls_key) = (Some("/nowhere/cert".into()), Some("/nowhere/key".into()));
        let finding = tls(&mqtt);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.found.contains("mqtt.tls_cert: cannot read /nowhere/cert"), "{}", finding.found);
    }
}
