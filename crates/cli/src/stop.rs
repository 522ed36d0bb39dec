//! Ctrl-C: once to stop after saving, twice to leave at once.

use crate::text::say;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user has asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// The flag that a signal sets. The first call installs the handler.
pub(crate) fn flag() -> &'static AtomicBool {
    // It fails only if a handler is installed already, which is then ours.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("stopping: this step is finished and saved first; once more leaves at once");
    });
    &STOP
}
