//! UDP as QUIC wants it: buffers, offloads, packets that are not cut up.

use std::{fs, net::Ipv4Addr};

use super::finding::{Finding, size};
use crate::{
    config::Config,
    runtime::{Handle, UdpOptions},
};

/// One receive with GRO may bring this much: less room than that loses data by itself.
const LEAST: u64 = 64 << 10;
/// What the kernel gives without being asked: a system that grants it needs no change.
const USUAL: u64 = 208 << 10;
/// Linux counts its own bookkeeping in, and says twice what was asked for (socket(7)).
const COUNTED: u64 = if cfg!(target_os = "linux") { 2 } else { 1 };

/// A buffer of a socket.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    check: &'static str,
    subject: &'static str,
    sysctl: &'static str,
}

const RECEIVE: Buffer =
    Buffer { check: "udp.receive_buffer", subject: "receive buffer", sysctl: "net.core.rmem_max" };
const SEND: Buffer = Buffer { check: "udp.send_buffer", subject: "send buffer", sysctl: "net.core.wmem_max" };

pub(super) fn check(config: &Config, runtime: &Handle) -> Vec<Finding> {
    let wanted = config.quic.socket_buffer;
    let wish = Some(wanted).filter(|bytes| *bytes > 0);
    let options = UdpOptions { send_buffer: wish, recv_buffer: wish, reuse: false };
    let socket = match runtime.bind_udp((Ipv4Addr::LOCALHOST, 0).into(), options) {
        Ok(socket) => socket,
        Err(e) => {
            let advice = "let this process open UDP sockets: QUIC is made of them";
            return vec![Finding::fail("udp.socket", "socket", format!("cannot be opened: {e}"), advice)];
        }
    };
    let granted = socket.buffer_sizes();
    let ceiling = |buffer: Buffer| {
        let path = format!("/proc/sys/{}", buffer.sysctl.replace('.', "/"));
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok())
    };
    let size_of = |buffer, granted: Option<usize>| {
        judge(buffer, wanted as u64, granted.map(|bytes| bytes as u64 / COUNTED), ceiling(buffer))
    };
    vec![
        size_of(RECEIVE, granted.map(|(_, receive)| receive)),
        size_of(SEND, granted.map(|(send, _)| send)),
        offload("udp.gso", "GSO", socket.max_transmit_segments(), "4.18"),
        offload("udp.gro", "GRO", socket.max_receive_segments(), "5.0"),
        fragments(socket.may_fragment()),
    ]
}

/// `granted` is what can be used, `ceiling` what the kernel lets any process ask for, if it says.
fn judge(buffer: Buffer, wanted: u64, granted: Option<u64>, ceiling: Option<u64>) -> Finding {
    let Buffer { check, subject, sysctl } = buffer;
    let Some(granted) = granted else { return Finding::ok(check, subject, "not reported by this system") };
    let enough = if wanted == 0 { USUAL } else { wanted };
    let asked = if wanted == 0 { "usual" } else { "asked for (quic.socket_buffer)" };
    let found = format!("{} of {} {asked}", size(granted), size(enough));
    let ceiling = match ceiling {
        Some(ceiling) => format!(", {sysctl} is {ceiling}"),
        // Containers do not see it.
        None => String::new(),
    };
    let advice = format!(
        "sysctl -w {sysctl}={enough} (on the host, if this is a container; to keep it, a line {sysctl}={enough} in \
         /etc/sysctl.d/90-smidge.conf)"
    );
    if granted >= enough {
        Finding::ok(check, subject, found)
    } else if granted < LEAST {
        Finding::fail(check, subject, format!("{found}{ceiling}: bursts are lost"), advice)
    } else {
        Finding::warn(check, subject, format!("{found}{ceiling}: bursts may be lost"), advice)
    }
}

fn offload(check: &'static str, subject: &str, segments: usize, kernel: &str) -> Finding {
    match segments {
        0 | 1 => Finding::warn(
            check,
            subject,
            "not there: every packet costs a system call",
            format!("Linux {kernel} and newer has it; sandboxes such as gVisor may not"),
        ),
        n => Finding::ok(check, subject, format!("up to {n} packets at once")),
    }
}

fn fragments(may_fragment: bool) -> Finding {
    let (check, subject) = ("udp.path_mtu", "path MTU");
    if may_fragment {
        let advice = "set quic.mtu_discovery = false if connections stall, or use another kernel";
        return Finding::warn(check, subject, "cannot be probed: the system cuts packets up", advice);
    }
    Finding::ok(check, subject, "can be probed")
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    const KIB: u64 = 1 << 10;

    #[test]
    fn what_was_asked_for_should_be_granted() {
        for (wanted, granted, expected) in [
            (1024 * KIB, None, Verdict::Ok),
            (1024 * KIB, Some(1024 * KIB), Verdict::Ok),
            (1024 * KIB, Some(1024 * KIB - 1), Verdict::Warn),
            (1024 * KIB, Some(208 * KIB), Verdict::Warn),
            (1024 * KIB, Some(64 * KIB), Verdict::Warn),
            (1024 * KIB, Some(64 * KIB - 1), Verdict::Fail),
            (32 * KIB, Some(32 * KIB), Verdict::Ok),
            (0, Some(208 * KIB), Verdict::Ok),
            (0, Some(104 * KIB), Verdict::Warn),
        ] {
            let finding = judge(RECEIVE, wanted, granted, Some(212_992));
            assert_eq!(finding.verdict, expected, "{wanted} {granted:?}");
        }
        let finding = judge(SEND, 1024 * KIB, Some(208 * KIB), Some(212_992));
        assert_eq!(
            finding.found,
            "208 KiB of 1 MiB asked for (quic.socket_buffer), net.core.wmem_max is 212992: bursts may be lost"
        );
        assert!(finding.advice.unwrap().starts_with("sysctl -w net.core.wmem_max=1048576 "));
    }

    #[test]
    fn offloads_that_are_missing_are_no_failure() {
        let verdicts = [0, 1, 64].map(|n| offload("udp.gso", "GSO", n, "4.18").verdict);
        assert_eq!(verdicts, [Verdict::Warn, Verdict::Warn, Verdict::Ok]);
        assert_eq!([fragments(true), fragments(false)].map(|f| f.verdict), [Verdict::Warn, Verdict::Ok]);
    }
}
