//! What listeners of every transport have in common: which addresses a bound socket stands for, as
//! interfaces come and go, and which remotes it reaches.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use smidge_runtime::{Handle, Interface, Interfaces};

/// Changes of the interfaces looked at in one go: one that flaps without end must not hold the swarm.
const CHANGES: usize = 4;

/// The addresses that a bound socket is known by.
#[derive(Debug)]
pub(super) struct Announced {
    /// Where the socket is bound, with its real port.
    bound: SocketAddr,
    /// What the layers above believe we listen on.
    ips: Vec<IpAddr>,
}

/// What is new about the addresses of a listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Gone(SocketAddr),
    New(SocketAddr),
}

impl Announced {
    pub(super) fn new(bound: SocketAddr) -> Self {
        Self { bound, ips: Vec::new() }
    }

    /// Where the socket is bound.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether the addresses depend on the interfaces. Loopback never goes away.
    pub(super) fn follows_interfaces(&self) -> bool {
        !self.bound.ip().is_loopback()
    }

    /// Whether the socket stands for this very address.
    pub(super) fn is_at(&self, addr: SocketAddr) -> bool {
        self.bound.port() == addr.port() && (self.bound.ip() == addr.ip() || self.ips.contains(&addr.ip()))
    }

    /// Whether a dial to `remote` may leave from this socket's address.
    pub(super) fn reaches(&self, remote: SocketAddr) -> bool {
        reaches(self.bound.ip(), remote.ip())
    }

    /// What is new about the addresses, given the interfaces there are now. Without a list (it
    /// could not be had) only an address that was bound by name is known.
    pub(super) fn refresh(&mut self, interfaces: Option<&[Interface]>) -> Vec<Change> {
        let now: Vec<IpAddr> = match interfaces {
            Some(list) if self.bound.ip().is_unspecified() => {
                list.iter().map(|i| i.addr).filter(|ip| ip.is_ipv4() == self.bound.is_ipv4()).collect()
            }
            // An address that no interface has can be bound too (127.0.0.2, or one not up yet):
            // it is believed until its interface has been seen and is gone.
            Some(list) if self.ips.is_empty() || list.iter().any(|i| i.addr == self.bound.ip()) => {
                vec![self.bound.ip()]
            }
            Some(_) => Vec::new(),
            None if self.bound.ip().is_unspecified() => self.ips.clone(),
            None => vec![self.bound.ip()],
        };
        let at = |ip: &IpAddr| SocketAddr::new(*ip, self.bound.port());
        let gone = self.ips.iter().filter(|ip| !now.contains(ip));
        let new = now.iter().filter(|ip| !self.ips.contains(ip));
        let changes = gone.map(|ip| Change::Gone(at(ip))).chain(new.map(|ip| Change::New(at(ip)))).collect();
        self.ips = now;
        changes
    }
}

/// Whether a socket bound to `own` can send to `remote`: of the same family, and not from loopback
/// to elsewhere or back, which the kernel refuses.
fn reaches(own: IpAddr, remote: IpAddr) -> bool {
    own.is_ipv4() == remote.is_ipv4() && (own.is_unspecified() || own.is_loopback() == remote.is_loopback())
}

/// A watch over the interfaces that is opened with the first listener that needs it.
pub(super) struct Watch {
    runtime: Handle,
    inner: Option<Box<dyn Interfaces>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("open", &self.inner.is_some()).finish()
    }
}

impl Watch {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, inner: None }
    }

    /// The interfaces there are now.
    pub(super) fn list(&mut self) -> io::Result<Vec<Interface>> {
        if let Some(watch) = &self.inner {
            return watch.list();
        }
        let watch = self.runtime.interfaces()?;
        let list = watch.list();
        self.inner = Some(watch);
        list
    }

    /// Ready with the interfaces there are once they have changed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Interface>> {
        let Some(watch) = &mut self.inner else { return Poll::Pending };
        let mut changed = false;
        for _ in 0..CHANGES {
            if watch.poll_changed(cx).is_pending() {
                break;
            }
            changed = true;
        }
        if !changed {
            return Poll::Pending;
        }
        // Registers again in case the loop above ended on a change.
        cx.waker().wake_by_ref();
        match watch.list() {
            Ok(list) => Poll::Ready(list),
            Err(e) => {
                log::warn!("cannot list the network interfaces after a change: {e}");
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_leaves_from_a_socket_of_its_family_and_its_side_of_loopback() {
        for (own, remote, expected) in [
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("10.0.0.1", "127.0.0.1", false),
            ("10.0.0.1", "10.9.9.9", true),
            ("0.0.0.0", "::1", false),
            ("::", "fd00::1", true),
            ("::1", "fd00::1", false),
            ("::", "10.0.0.1", false),
        ] {
            assert_eq!(reaches(own.parse().unwrap(), remote.parse().unwrap()), expected, "{own} {remote}");
        }
    }

    #[test]
    fn a_wildcard_listener_is_where_the_interfaces_of_its_family_are() {
        let interface = |addr: &str| Interface {
            name: "eth0".into(),
            index: 1,
            addr: addr.parse().unwrap(),
            prefix_len: 24,
        };
        let mut announced = Announced::new("0.0.0.0:7".parse().unwrap());
        assert_eq!(announced.refresh(None), []);
        let both = [interface("10.0.0.1"), interface("fd00::1")];
        assert_eq!(announced.refresh(Some(&both)), [Change::New("10.0.0.1:7".parse().unwrap())]);
        assert_eq!(announced.refresh(Some(&both)), []);
        let moved = announced.refresh(Some(&[interface("10.0.0.2")]));
        let expected =
            [Change::Gone("10.0.0.1:7".parse().unwrap()), Change::New("10.0.0.2:7".parse().unwrap())];
        assert_eq!(moved, expected);
    }
}
