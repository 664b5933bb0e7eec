//! A task's turn: what is always ready gives it up now and then, so that others run on the same thread.
//!
//! Never waits for anything.

use std::{future::poll_fn, mem, task::Poll};

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
