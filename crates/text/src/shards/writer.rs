//! Writing shards: into a temporary folder that takes its name only when it is whole.

use super::reader::{Header, id_bytes};
use super::{TokenStore, for_each_batch};
use crate::{Document, TextError, Tokenizer};
use fs_err as fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// How many ids a shard holds unless told otherwise: 64 MB at two bytes an id.
pub const SHARD_TOKENS: usize = 1 << 25;

pub(super) fn shard_name(number: usize) -> String {
    format!("tokens-{number:05}.shard")
}

/// Tokenizes documents into shards of at most `shard_tokens` ids in `folder`, and opens them.
///
/// The ids are those of [`TokenStore::build`]. Shards that were in `folder` are replaced, and only once the new ones
/// are safely on disk.
///
/// # Errors
/// Those of the documents, of encoding and of the disk.
///
/// # Panics
/// If `shard_tokens` is 0.
pub fn write(
    folder: &Path,
    documents: impl IntoIterator<Item = Result<Document, TextError>>,
    tokenizer: &Tokenizer,
    shard_tokens: usize,
) -> Result<TokenStore, TextError> {
    assert!(shard_tokens > 0, "a shard holds at least one id");
    let partial = sibling(folder, "partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(|source| TextError::write(&partial, source))?;
    let mut writer =
        Writer { folder: partial.clone(), tokenizer, shard_tokens, ids: Vec::new(), text_bytes: 0, number: 0 };
    let written =
        for_each_batch(documents, tokenizer, |ids, bytes| writer.push(ids, bytes)).and_then(|()| writer.finish());
    if let Err(error) = written {
        // The first error is the one to report, whether or not the clearing up succeeds.
        let _ = remove(&partial);
        return Err(error);
    }
    let old = sibling(folder, "old");
    remove(&old)?;
    if folder.exists() {
        fs::rename(folder, &old).map_err(|source| TextError::write(folder, source))?;
    }
    fs::rename(&partial, folder).map_err(|source| TextError::write(folder, source))?;
    remove(&old)?;
    TokenStore::open(folder, tokenizer)
}

/// `folder` with `.ending` added to its name.
fn sibling(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn remove(folder: &Path) -> Result<(), TextError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|source| TextError::write(folder, source))?;
    }
    Ok(())
}

struct Writer<'a> {
    folder: PathBuf,
    tokenizer: &'a Tokenizer,
    shard_tokens: usize,
    /// Ids that wait for their shard. A full shard is written only when an id follows it, so that the last is known.
    ids: Vec<u32>,
    text_bytes: u64,
    number: usize,
}

impl Writer<'_> {
    fn push(&mut self, ids: &[u32], text_bytes: u64) -> Result<(), TextError> {
        self.ids.extend_from_slice(ids);
        self.text_bytes += text_bytes;
        let mut start = 0;
        while self.ids.len() - start > self.shard_tokens {
            self.write_shard(start..start + self.shard_tokens, false)?;
            start += self.shard_tokens;
        }
        self.ids.drain(..start);
        Ok(())
    }

    fn finish(mut self) -> Result<(), TextError> {
        self.write_shard(0..self.ids.len(), true)?;
        sync_folder(&self.folder)
    }

    fn write_shard(&mut self, range: std::ops::Range<usize>, is_last: bool) -> Result<(), TextError> {
        let path = self.folder.join(shard_name(self.number));
        let vocab_size = self.tokenizer.vocab_size() as u64;
        let header = Header {
            id_bytes: id_bytes(vocab_size),
            vocab_size,
            fingerprint: self.tokenizer.fingerprint(),
            count: range.len() as u64,
            text_bytes: self.text_bytes,
            number: self.number as u32,
            is_last,
        };
        write_file(&path, &header, &self.ids[range]).map_err(|source| TextError::write(&path, source))?;
        self.number += 1;
        Ok(())
    }
}

fn write_file(path: &Path, header: &Header, ids: &[u32]) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    file.write_all(&header.write())?;
    for id in ids {
        file.write_all(&id.to_le_bytes()[..header.id_bytes as usize])?;
    }
    file.into_inner()?.sync_all()
}

/// Makes the names in `folder` last: on Unix a folder is synced like a file, elsewhere there is nothing to do.
fn sync_folder(folder: &Path) -> Result<(), TextError> {
    if cfg!(unix) {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| TextError::write(folder, source))?;
    }
    Ok(())
}
