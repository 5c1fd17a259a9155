//! What the tests share.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Runs `body` and fails when it hangs. A watchdog: no law is about time.
pub(crate) fn watched(body: impl FnOnce() + Send + 'static) {
    let (alive, ended) = channel::<()>();
    let body = thread::spawn(move || {
        let _alive = alive;
        body();
    });
    assert_ne!(
        ended.recv_timeout(Duration::from_secs(60)),
        Err(RecvTimeoutError::Timeout),
        "the watchdog barked"
    );
    if let Err(panic) = body.join() {
        resume_unwind(panic);
    }
}
