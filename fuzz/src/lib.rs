//! What the fuzz targets share.

use cavy_files::Tensors;
use std::path::Path;

/// The path that stands in messages.
pub fn path() -> &'static Path {
    Path::new("fuzzed")
}

/// Every tensor that a reader let through can be read, and is as long as its shape says.
pub fn check(tensors: &Tensors) {
    // Laying out a few tells as much as laying out thousands.
    for info in tensors.infos().take(16) {
        let bytes = tensors.bytes(&info.name).expect("a tensor that is listed");
        assert_eq!(bytes.len(), info.size_bytes(), "{info:?}");
    }
}
