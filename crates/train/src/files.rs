//! Writing files so that a crash leaves the old one or the new one, and telling whether one was damaged since.

use crate::TrainError;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 20;

/// The error of failing to write `path`.
pub(crate) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> TrainError {
    let path = path.to_path_buf();
    move |source| TrainError::Write { path, source }
}

/// Writes `bytes` under a temporary name in the same folder, and takes the name `path` once they are on the disk.
///
/// Errors: the disk's. A file that was there before is still whole then.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let partial = Path::new(&name);
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial, path)
    };
    write().map_err(|error| {
        // The first error is the one to report, whether or not the clearing up succeeds.
        let _ = fs::remove_file(partial);
        write_error(path)(error)
    })
}

/// Makes the names in `folder` last: on Unix a folder is synced like a file, elsewhere there is nothing to do.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    if cfg!(unix) {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(write_error(folder))?;
    }
    Ok(())
}

/// What a file was when it was written: its length and a hash of its content.
///
/// The hash tells damage, not malice: any change of one 8-byte word changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Length.
    pub(crate) bytes: u64,
    /// Hash of the content.
    pub(crate) hash: u64,
}

impl Fingerprint {
    /// Of the file `path`.
    pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = fs::File::open(path)?;
        let mut block = vec![0; BLOCK];
        let (mut hash, mut bytes) = (Hash::default(), 0);
        loop {
            let filled = fill(&mut file, &mut block)?;
            bytes += filled as u64;
            hash.add(&block[..filled]);
            if filled < BLOCK {
                return Ok(Self { bytes, hash: hash.finish() });
            }
        }
    }
}

/// Reads until `block` is full or the file ends.
fn fill(file: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Four lanes of FNV-1a over 8-byte words: each step is a bijection of its lane, and the lanes run at once.
struct Hash {
    lanes: [u64; 4],
}

const FNV_PRIME: u64 = 0x0100_0000_01B3;

impl Default for Hash {
    fn default() -> Self {
        Self { lanes: [0xCBF2_9CE4_8422_2325, 1, 2, 3] }
    }
}

impl Hash {
    /// Adds a block. Every block but the last is a multiple of 32 bytes long.
    fn add(&mut self, block: &[u8]) {
        let (whole, rest) = block.as_chunks::<32>();
        let mut last = [0; 32];
        last[..rest.len()].copy_from_slice(rest);
        let padded = if rest.is_empty() { &[][..] } else { std::slice::from_ref(&last) };
        for chunk in whole.iter().chain(padded) {
            for (lane, word) in self.lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(FNV_PRIME);
            }
        }
    }

    fn finish(self) -> u64 {
        self.lanes.into_iter().fold(0, |hash, lane| cavy_text::rng::mix(hash ^ lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_notices_every_flipped_bit_and_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Fingerprint::of_file(&path).unwrap()
        };
        let bytes: Vec<u8> = (0..77u8).map(|i| i.wrapping_mul(37)).collect();
        let whole = of(&bytes);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_ne!(of(&flipped).hash, whole.hash, "byte {at}");
            assert_ne!(of(&bytes[..at]), whole);
        }
        assert_eq!(of(&bytes), whole);
        // Past one block, so that blocks are joined.
        let long = vec![7; BLOCK + 40];
        assert_ne!(of(&long), of(&long[..BLOCK + 39]));
        assert_eq!(of(&long).bytes, BLOCK as u64 + 40);
    }

    #[test]
    fn a_write_that_fails_names_the_path_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        write_atomically(&path, b"first").unwrap();
        // A folder in the way of the temporary name makes the write fail for any user.
        fs::create_dir(folder.path().join("old.partial")).unwrap();
        let error = write_atomically(&path, b"second").unwrap_err().to_string();
        assert!(error.contains("old") && error.contains("hint:"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
