//! The golden files and what their values are made from, for tests.

use crate::backing::Backing;
use std::path::PathBuf;
use std::sync::Arc;

/// Test values in [-0.5, 0.5), the twin of `test_input` in `testdata/files/make_golden.py`.
pub(crate) fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// A golden file's path.
pub(crate) fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../testdata/files", name].iter().collect()
}

/// A golden file's bytes.
pub(crate) fn golden_bytes(name: &str) -> Vec<u8> {
    fs_err::read(golden(name)).unwrap()
}

/// Bytes as a reader takes them.
pub(crate) fn backing(bytes: &[u8]) -> Backing {
    Arc::new(bytes.to_vec())
}
