//! Where peers would be looked for by multicast DNS. Joins the group there, says nothing, and leaves it.

use super::finding::Finding;
use crate::{
    config::Config,
    mdns::{self, Tried},
    runtime::Handle,
};

const CHECK: &str = "mdns.interface";

pub(super) fn check(config: &Config, runtime: &Handle) -> Vec<Finding> {
    if !config.mdns.enabled {
        return Vec::new();
    }
    match mdns::rehearse(runtime, &config.mdns.interfaces) {
        Ok((tried, trouble)) => judge(tried, trouble),
        Err(e) => judge(Vec::new(), Some(format!("the interfaces cannot be listed: {e}"))),
    }
}

fn judge(tried: Tried, trouble: Option<String>) -> Vec<Finding> {
    let each = tried.into_iter().map(|(segment, joined)| match joined {
        Ok(()) => Finding::ok(CHECK, segment.to_string(), "peers are looked for"),
        Err(e) => Finding::fail(
            CHECK,
            segment.to_string(),
            format!("its group cannot be joined: {e}"),
            "is UDP port 5353 taken by a program that does not share it? ss -lunp sport = 5353 tells which",
        ),
    });
    let advice = "ip link set DEVICE up multicast on, or name others in mdns.interfaces";
    each.chain(trouble.map(|why| Finding::warn(CHECK, "interfaces", why, advice))).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{super::finding::Verdict, *};
    use crate::mdns::Segment;

    #[test]
    fn a_group_that_cannot_be_joined_fails_and_an_interface_that_is_missing_warns() {
        let at = |name: &str| Segment { interface: name.into(), ipv6: false };
        let tried = vec![(at("eth0"), Ok(())), (at("eth1"), Err(io::Error::from(io::ErrorKind::AddrInUse)))];
        let verdicts: Vec<_> = judge(tried, Some("none".into())).into_iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fail, Verdict::Warn]);
    }
}
