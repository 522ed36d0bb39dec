#![no_main]
//! Any bytes as a Parquet file.

use cavy_text::rows::parse;
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::Once;

static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // A panic of the Parquet crate is caught by the reader, but libFuzzer's hook would take it for a crash.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let read = std::panic::catch_unwind(|| parse(Path::new("a.parquet"), data.to_vec()));
    if read.is_err() {
        std::process::abort();
    }
});
