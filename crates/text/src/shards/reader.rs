//! Opening shards: nothing in the files is trusted.

use super::{TokenStore, Tokens, writer::shard_name};
use crate::{TextError, Tokenizer};
use fs_err as fs;
use memmap2::Mmap;
use std::path::{Path, PathBuf};

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const MAGIC: &[u8; 8] = b"CAVYTOKS";
pub(super) const VERSION: u32 = 1;

/// The header of a shard, as the table in the module above lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id_bytes: u32,
    pub(super) vocab_size: u64,
    pub(super) fingerprint: u64,
    pub(super) count: u64,
    pub(super) text_bytes: u64,
    pub(super) number: u32,
    pub(super) is_last: bool,
}

impl Header {
    pub(super) fn write(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.id_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.fingerprint.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.count.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.text_bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.number.to_le_bytes());
        bytes[52..56].copy_from_slice(&u32::from(self.is_last).to_le_bytes());
        bytes
    }

    /// Reads and checks the header of shard file `path`, whose bytes are all of `bytes`.
    fn parse(bytes: &[u8], path: &Path, number: usize) -> Result<Self, TextError> {
        let wrong =
            |found: String, expected: String| Err(TextError::Shard { path: path.to_path_buf(), found, expected });
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return wrong(format!("{} bytes", bytes.len()), format!("at least the {HEADER_BYTES} bytes of a header"));
        };
        if &header[0..8] != MAGIC {
            return wrong(
                "another kind of file".to_owned(),
                "a shard of tokens (it begins with `CAVYTOKS`)".to_owned(),
            );
        }
        if number_u32(header, 8) != VERSION {
            return wrong(format!("version {}", number_u32(header, 8)), format!("version {VERSION}"));
        }
        let this = Self {
            id_bytes: number_u32(header, 12),
            vocab_size: number_u64(header, 16),
            fingerprint: number_u64(header, 24),
            count: number_u64(header, 32),
            text_bytes: number_u64(header, 40),
            number: number_u32(header, 48),
            is_last: number_u32(header, 52) != 0,
        };
        if this.id_bytes != id_bytes(this.vocab_size) {
            let expected = format!("{} for a vocabulary of {}", id_bytes(this.vocab_size), this.vocab_size);
            return wrong(format!("{} bytes per id", this.id_bytes), expected);
        }
        if this.count.checked_mul(u64::from(this.id_bytes)) != Some(body.len() as u64) {
            return wrong(
                format!("{} bytes of ids", body.len()),
                format!("{} ids of {} bytes", this.count, this.id_bytes),
            );
        }
        if this.number as usize != number {
            return wrong(format!("shard number {}", this.number), format!("shard number {number}"));
        }
        Ok(this)
    }
}

/// The bytes that an id of this vocabulary takes.
pub(super) fn id_bytes(vocab_size: u64) -> u32 {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

fn number_u32(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn number_u64(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(number_u32(header, at)) | u64::from(number_u32(header, at + 4)) << 32
}

/// One memory-mapped shard whose ids have been checked.
#[derive(Debug)]
pub(super) struct Shard {
    map: Mmap,
    header: Header,
}

impl Shard {
    pub(super) fn open(path: &Path, number: usize) -> Result<Self, TextError> {
        let file = fs::File::open(path).map_err(|source| TextError::read(path, source))?;
        #[expect(unsafe_code, reason = "memory mapping")]
        // SAFETY: the map is read-only and the caller is told not to change the file while it is open; every read is a
        // copy of plain bytes, for which any content is valid.
        let map = unsafe { Mmap::map(file.file()) }.map_err(|source| TextError::read(path, source))?;
        let shard = Self { header: Header::parse(&map, path, number)?, map };
        shard.check_ids(path)?;
        Ok(shard)
    }

    fn check_ids(&self, path: &Path) -> Result<(), TextError> {
        const CHUNK: usize = 4096;
        let mut ids = [0; CHUNK];
        for start in (0..self.len()).step_by(CHUNK) {
            let take = CHUNK.min(self.len() - start);
            self.copy(start, &mut ids[..take]);
            // The maximum of a chunk is a loop without branches; the place is looked for only if it is too large.
            let largest = ids[..take].iter().copied().max().unwrap_or(0);
            if u64::from(largest) >= self.header.vocab_size {
                let at = start + ids[..take].iter().position(|&id| id == largest).unwrap_or(0);
                return Err(TextError::Shard {
                    path: path.to_path_buf(),
                    found: format!("id {largest} at position {at}"),
                    expected: format!("ids below the vocabulary size {}", self.header.vocab_size),
                });
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Copies the ids from `start` on.
    pub(super) fn copy(&self, start: usize, out: &mut [u32]) {
        let width = self.header.id_bytes as usize;
        let bytes = &self.map[HEADER_BYTES + start * width..HEADER_BYTES + (start + out.len()) * width];
        if width == 2 {
            for (id, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *id = u32::from(u16::from_le_bytes(*pair));
            }
        } else {
            for (id, four) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *id = u32::from_le_bytes(*four);
            }
        }
    }
}

/// Opens all shards of `folder` up to the one that says it is the last.
pub(super) fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<TokenStore, TextError> {
    let (mut shards, mut len) = (Vec::new(), 0usize);
    let text_bytes = loop {
        let number = shards.len();
        let path: PathBuf = folder.join(shard_name(number));
        if number > 0 && !path.exists() {
            let expected = "a shard marked as the last".to_owned();
            return Err(TextError::Shard { path, found: "no such shard".to_owned(), expected });
        }
        let shard = Shard::open(&path, number)?;
        let header = shard.header;
        if header.fingerprint != tokenizer.fingerprint() || header.vocab_size != tokenizer.vocab_size() as u64 {
            return Err(TextError::OtherTokenizer { path });
        }
        let start = len;
        len += shard.len();
        // An empty shard is left out: `TokenStore::copy` relies on every start being different.
        if shard.len() > 0 || header.is_last {
            shards.push((start, shard));
        } else {
            let expected = "at least one id in every shard but the last".to_owned();
            return Err(TextError::Shard { path, found: "no ids".to_owned(), expected });
        }
        if header.is_last {
            break header.text_bytes;
        }
    };
    Ok(TokenStore { tokens: Tokens::Mapped(shards), len, vocab_size: tokenizer.vocab_size(), text_bytes })
}

#[cfg(test)]
mod tests {
    use super::super::{TokenStore, write};
    use super::*;
    use crate::{Document, Place};

    fn documents(texts: &[&str]) -> Vec<Result<Document, TextError>> {
        texts.iter().map(|text| Ok(Document { text: (*text).to_owned(), place: Place::Made("test", 0) })).collect()
    }

    fn all(store: &TokenStore) -> Vec<u32> {
        let mut ids = vec![0; store.len()];
        store.copy(0..store.len(), &mut ids);
        ids
    }

    #[test]
    fn shards_hold_what_memory_holds_with_end_of_text_between_documents() {
        let tokenizer = Tokenizer::bytes();
        let texts = ["abc", "", "de <|endoftext|> f", "ghi"];
        let folder = tempfile::tempdir().unwrap();
        let end = tokenizer.end_of_text().unwrap();
        for shard_tokens in [1, 2, 5, 25, 26, 1000] {
            let path = folder.path().join(format!("of-{shard_tokens}"));
            let written = write(&path, documents(&texts), &tokenizer, shard_tokens).unwrap();
            let opened = TokenStore::open(&path, &tokenizer).unwrap();
            let built = TokenStore::build(documents(&texts), &tokenizer).unwrap();
            assert_eq!(all(&built)[..6], [97, 98, 99, end, end, 100]);
            assert_eq!(all(&built), all(&opened), "shards of {shard_tokens}");
            assert_eq!(all(&written), all(&opened));
            assert_eq!((built.text_bytes(), opened.text_bytes()), (24, 24));
            let files = fs::read_dir(&path).unwrap().count();
            assert_eq!(files, built.len().div_ceil(shard_tokens));
            let mut part = [0; 7];
            opened.copy(3..10, &mut part);
            assert_eq!(part, all(&built)[3..10]);
        }
    }

    #[test]
    fn large_vocabularies_take_four_bytes() {
        let header = |vocab_size| id_bytes(vocab_size);
        assert_eq!((header(65_536), header(65_537)), (2, 4));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let header = Header {
            id_bytes: 4,
            vocab_size: 70_000,
            fingerprint: 0,
            count: 2,
            text_bytes: 0,
            number: 0,
            is_last: true,
        };
        let mut bytes = header.write().to_vec();
        bytes.extend([69_999u32, 5].iter().flat_map(|id| id.to_le_bytes()));
        fs::write(&path, bytes).unwrap();
        let mut ids = [0; 2];
        Shard::open(&path, 0).unwrap().copy(0, &mut ids);
        assert_eq!(ids, [69_999, 5]);
    }

    #[test]
    fn damaged_shards_are_named_with_what_is_wrong() {
        let tokenizer = Tokenizer::bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(&path, documents(&["hello there"]), &tokenizer, 4).unwrap();
        let first = path.join(shard_name(0));
        let good = fs::read(&first).unwrap();
        let message = |bytes: &[u8]| {
            fs::write(&first, bytes).unwrap();
            let error = TokenStore::open(&path, &tokenizer).unwrap_err().to_string();
            error.lines().next().unwrap().replace(&format!("{}/", folder.path().display()), "")
        };
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        insta::assert_snapshot!(message(&good[..70]), @"s/tokens-00000.shard: 6 bytes of ids, expected 4 ids of 2 bytes");
        insta::assert_snapshot!(message(&good[..10]), @"s/tokens-00000.shard: 10 bytes, expected at least the 64 bytes of a header");
        insta::assert_snapshot!(message(&[]), @"s/tokens-00000.shard: 0 bytes, expected at least the 64 bytes of a header");
        insta::assert_snapshot!(message(&changed(0, b'X')), @"s/tokens-00000.shard: another kind of file, expected a shard of tokens (it begins with `CAVYTOKS`)");
        insta::assert_snapshot!(message(&changed(8, 9)), @"s/tokens-00000.shard: version 9, expected version 1");
        insta::assert_snapshot!(message(&changed(12, 4)), @"s/tokens-00000.shard: 4 bytes per id, expected 2 for a vocabulary of 257");
        insta::assert_snapshot!(message(&changed(39, 0xFF)), @"s/tokens-00000.shard: 8 bytes of ids, expected 18374686479671623684 ids of 2 bytes");
        insta::assert_snapshot!(message(&changed(48, 3)), @"s/tokens-00000.shard: shard number 3, expected shard number 0");
        insta::assert_snapshot!(message(&changed(67, 9)), @"s/tokens-00000.shard: id 2405 at position 1, expected ids below the vocabulary size 257");
        insta::assert_snapshot!(message(&changed(24, good[24] ^ 1)), @"these shards were made with another tokenizer: s/tokens-00000.shard");
        fs::write(&first, &good).unwrap();
        assert!(TokenStore::open(&path, &tokenizer).is_ok());
        fs::remove_file(path.join(shard_name(2))).unwrap();
        insta::assert_snapshot!(message(&good), @"s/tokens-00002.shard: no such shard, expected a shard marked as the last");
        assert!(matches!(TokenStore::open(&folder.path().join("none"), &tokenizer), Err(TextError::Missing { .. })));
    }

    #[test]
    fn a_failed_rewrite_leaves_the_shards_that_were_there() {
        let tokenizer = Tokenizer::bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(&path, documents(&["old text"]), &tokenizer, 4).unwrap();
        let mut broken = documents(&["new text, longer than before"]);
        broken.push(Err(TextError::Missing { path: "gone.txt".into() }));
        assert!(write(&path, broken, &tokenizer, 4).is_err());
        assert_eq!(tokenizer.decode(&all(&TokenStore::open(&path, &tokenizer).unwrap())), "old text");
        write(&path, documents(&["new"]), &tokenizer, 4).unwrap();
        assert_eq!(tokenizer.decode(&all(&TokenStore::open(&path, &tokenizer).unwrap())), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary folder is left");
    }
}
