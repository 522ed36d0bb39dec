//! A JSONL file that grows with the run and can be cut back to a checkpoint.

use crate::TrainError;
use crate::files::write_error;
use crate::metrics::write_line;
use fs_err as fs;
use serde::Serialize;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// An open log. Every record is handed to the system at once, so a crash of the program loses none.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: fs::File,
}

impl Log {
    /// Opens `path`, or creates it, and forgets what follows its first `keep` bytes.
    ///
    /// Returns also whether all of them were there.
    pub(crate) fn open(path: &Path, keep: u64) -> Result<(Self, bool), TrainError> {
        let open = || {
            let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            let length = file.metadata()?.len();
            file.set_len(length.min(keep))?;
            file.seek(SeekFrom::End(0))?;
            Ok((Self { path: path.to_path_buf(), file }, length >= keep))
        };
        open().map_err(write_error(path))
    }

    /// Adds one record.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        write_line(&mut self.file, record).map_err(write_error(&self.path))
    }

    /// Waits until everything is on the disk, and returns how many bytes that is.
    pub(crate) fn sync(&mut self) -> Result<u64, TrainError> {
        let synced = self.file.sync_data().and_then(|()| self.file.stream_position());
        synced.map_err(write_error(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_back_and_grows_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let (mut log, _) = Log::open(&path, 0).unwrap();
        log.write(&1).unwrap();
        let keep = log.sync().unwrap();
        log.write(&22).unwrap();
        drop(log);
        let (mut log, whole) = Log::open(&path, keep).unwrap();
        assert!(whole);
        log.write(&333).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n333\n");
        assert_eq!(log.sync().unwrap(), 6);
        assert!(!Log::open(&path, 100).unwrap().1);
    }
}
