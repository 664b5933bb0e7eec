//! From quinn-proto's transmits to datagrams on a socket.

use std::{cell::RefCell, io};

use quinn_proto::Transmit;
use smidge_runtime::{self as runtime, EcnCodepoint, UdpSocket};

thread_local! {
    /// Where datagrams are written before they are sent: one for each thread, not one for each
    /// connection, so that idle connections hold none.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with an empty buffer of this thread.
pub(super) fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            work(&mut buffer)
        }
        // Only if `work` came back here, which it does not; then a fresh one serves.
        Err(_) => work(&mut Vec::new()),
    })
}

/// Sends `bytes`, the beginning of which is what `transmit` describes.
pub(super) fn send(socket: &dyn UdpSocket, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
    socket.try_send(&runtime::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size.min(bytes.len())],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    })
}
