//! quinn's congestion control, which can be lifted for the one packet that says good-bye.
//!
//! quinn-proto 0.11 holds a CONNECTION_CLOSE back like data when there is data to send that the
//! congestion window or the pacer does not let out yet, and a closed connection handles no
//! acknowledgements that would open them again. The packet is small, and there is only one.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn_proto::{
    Connection, RttEstimator,
    congestion::{Controller, ControllerFactory, CubicConfig},
};

/// Makes controllers as quinn does by default, but for [`lift`].
#[derive(Default)]
pub(super) struct Factory(Arc<CubicConfig>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Liftable { inner: self.0.clone().build(now, mtu), lifted: Arc::default() })
    }
}

/// From now on nothing holds back what `connection` has to send. Only for one that is closed.
pub(super) fn lift(connection: &Connection) {
    // The connection shows its controller to nobody; a copy of it shares the flag.
    if let Ok(controller) = connection.congestion_state().clone_box().into_any().downcast::<Liftable>() {
        controller.lifted.store(true, Ordering::Relaxed);
    }
}

struct Liftable {
    inner: Box<dyn Controller>,
    lifted: Arc<AtomicBool>,
}

impl Controller for Liftable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    /// A window beyond 32 bits also switches quinn's pacer off.
    fn window(&self) -> u64 {
        if self.lifted.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), lifted: self.lifted.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
