//! The bytes behind tensors: a memory map or a buffer, shared by whoever holds a part of it.

use crate::error::FilesError;
use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// Bytes that live as long as someone holds a part of them.
pub type Backing = Arc<dyn Bytes>;

/// Bytes in memory, or in a file that is mapped there.
pub trait Bytes: AsRef<[u8]> + Send + Sync {
    /// Gives back the memory in which bytes of a file were read. They are read again where they are asked for again.
    fn release(&self) {}
}

impl Bytes for Vec<u8> {}

struct Mapped(memmap2::Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Bytes for Mapped {
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "advice about a map")]
    fn release(&self) {
        // SAFETY: the map is of a file and only read, so that a page which is dropped comes back from the file as it was.
        // Where the advice is not taken the pages stay, which is no error.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// Maps a file into memory, so that only what is read is loaded.
#[expect(unsafe_code, reason = "memory-mapping a file")]
pub fn map(path: &Path) -> Result<Backing, FilesError> {
    let failed = |source| FilesError::read(path, source);
    let file = fs_err::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(FilesError::Folder { path: path.into() });
    }
    // SAFETY: the map is only read. Our own writers replace a file by renaming, which leaves its old
    // bytes in place; another program that cuts it short would end this process by a signal, not corrupt its memory.
    let map = unsafe { memmap2::Mmap::map(file.file()) }.map_err(failed)?;
    Ok(Arc::new(Mapped(map)))
}

/// The bytes of one tensor, without a copy of them where the file has them in order.
///
/// They may begin at any address: formats align to 32, 8 or 1 bytes.
#[derive(Clone)]
pub struct TensorBytes {
    backing: Backing,
    range: Range<usize>,
}

impl TensorBytes {
    /// Panics: if the range is not inside the backing.
    pub(crate) fn new(backing: Backing, range: Range<usize>) -> Self {
        let size = (*backing).as_ref().len();
        assert!(range.start <= range.end && range.end <= size, "bytes {range:?} of {size}");
        Self { backing, range }
    }
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.backing).as_ref()[self.range.clone()]
    }
}

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for TensorBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self::new(Arc::new(bytes), range)
    }
}

impl fmt::Debug for TensorBytes {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "TensorBytes({:?})", self.range)
    }
}
