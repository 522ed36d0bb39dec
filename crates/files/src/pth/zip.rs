//! The directory of a zip archive whose members are stored as they are, as `torch.save` writes it.
//!
//! Source: APPNOTE.TXT 6.3.10 of PKWARE, <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>, sections 4.3 and
//! 4.5.3.

use crate::error::FilesError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const LOCATOR64: &[u8] = b"PK\x06\x07";
const LOCATOR64_BYTES: usize = 20;
const END64: &[u8] = b"PK\x06\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const MEMBER: &[u8] = b"PK\x03\x04";
const MEMBER_BYTES: usize = 30;
/// In place of a size or an offset that the 64-bit fields hold.
const IN_64: u64 = u32::MAX as u64;

/// Where each member's bytes lie in the file.
pub(super) type Members = BTreeMap<String, Range<usize>>;

/// Reads the directory at the end of the file and checks each member's checksum. One of zero is none: PyTorch can be told
/// to write none.
pub(super) fn members(path: &Path, file: &[u8]) -> Result<Members, FilesError> {
    let damaged = |what: String, found: &str| FilesError::Damaged {
        path: path.into(),
        what,
        found: found.into(),
        expected: "a whole zip archive".into(),
    };
    let (count, directory) =
        directory(file).ok_or_else(|| damaged("the directory at its end".into(), "missing or cut short"))?;
    let mut members = Members::new();
    let mut rest = &file[directory];
    for i in 0..count {
        let entry = entry(rest).ok_or_else(|| damaged(format!("entry {i} of its directory"), "not one"))?;
        rest = &rest[entry.size..];
        let name = &entry.name;
        if entry.compressed_or_secret {
            let (found, expected) = (format!("an archive whose `{name}` is compressed or encrypted"), "a stored one");
            let hint = "save it again with `torch.save(torch.load(path, weights_only=True), path)`";
            return Err(FilesError::Format { path: path.into(), found, expected, hint });
        }
        let range = member(file, &entry).ok_or_else(|| damaged(format!("`{name}` in it"), "not inside the file"))?;
        let sum = crc32fast::hash(&file[range.clone()]);
        // A fuzzer that had to find the sums of what it makes would not get past them.
        if entry.checksum != 0 && sum != entry.checksum && !cfg!(fuzzing) {
            let (what, found) = (format!("the checksum of `{name}` in it"), format!("{sum:08x}"));
            let expected = format!("{:08x}", entry.checksum);
            return Err(FilesError::Damaged { path: path.into(), what, found, expected });
        }
        if members.insert(name.clone(), range).is_some() {
            return Err(damaged(format!("`{name}` in it"), "there twice"));
        }
    }
    Ok(members)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes).into())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// A range of the file, if it is inside it.
fn inside(file: &[u8], start: u64, size: u64) -> Option<Range<usize>> {
    let end = start.checked_add(size)?;
    (end <= file.len() as u64).then_some(start as usize..end as usize)
}

/// Number of members and where the directory lies.
fn directory(file: &[u8]) -> Option<(u64, Range<usize>)> {
    // The last record ends with the file, after a comment of at most 2^16 bytes.
    let last = file.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(u16::MAX as usize);
    let at = (first..=last).rev().find(|&at| {
        let comment = u16_at(file, at + 20).unwrap_or(0) as usize;
        file[at..].starts_with(END) && at + END_BYTES + comment == file.len()
    })?;
    let (mut count, mut size, mut start) = (u16_at(file, at + 10)?, u32_at(file, at + 12)?, u32_at(file, at + 16)?);
    let locator = at.checked_sub(LOCATOR64_BYTES).filter(|&at| file[at..].starts_with(LOCATOR64));
    if let Some(locator) = locator {
        let end64 = usize::try_from(u64_at(file, locator + 8)?).ok()?;
        let record = file.get(end64..)?.strip_prefix(END64)?;
        // Offsets count from after the signature.
        (count, size, start) = (u64_at(record, 28)?, u64_at(record, 36)?, u64_at(record, 44)?);
    }
    // Each entry takes its bytes, so that no count is larger than the directory.
    (count <= size / ENTRY_BYTES as u64).then_some(())?;
    Some((count, inside(file, start, size)?))
}

/// An entry of the directory.
struct Entry {
    name: String,
    compressed_or_secret: bool,
    /// CRC-32 of the member's bytes.
    checksum: u32,
    /// Bytes of the member, and where its own header begins.
    stored_bytes: u64,
    offset: u64,
    /// Bytes of this entry.
    size: usize,
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    bytes.starts_with(ENTRY).then_some(())?;
    let checksum = u32_at(bytes, 16)? as u32;
    let (flags, method) = (u16_at(bytes, 8)?, u16_at(bytes, 10)?);
    let (mut stored, mut size) = (u32_at(bytes, 20)?, u32_at(bytes, 24)?);
    let mut offset = u32_at(bytes, 42)?;
    let lengths = [u16_at(bytes, 28)? as usize, u16_at(bytes, 30)? as usize, u16_at(bytes, 32)? as usize];
    let [name, extra, comment] = lengths;
    let name_bytes = bytes.get(ENTRY_BYTES..ENTRY_BYTES + name)?;
    let mut extras = bytes.get(ENTRY_BYTES + name..ENTRY_BYTES + name + extra)?;
    while let (Some(kind), Some(length)) = (u16_at(extras, 0), u16_at(extras, 2)) {
        let field = extras.get(4..4 + length as usize)?;
        extras = &extras[4 + length as usize..];
        if kind == 1 {
            // The 64-bit fields stand for those that are full, in this order.
            let mut at = 0;
            for value in [&mut size, &mut stored, &mut offset] {
                if *value == IN_64 {
                    *value = u64_at(field, at)?;
                    at += 8;
                }
            }
        }
    }
    let compressed_or_secret = method != 0 || flags & 1 != 0 || stored != size;
    let name = String::from_utf8(name_bytes.to_vec()).ok()?;
    let entry_size = ENTRY_BYTES + lengths[0] + extra + comment;
    (entry_size <= bytes.len()).then_some(())?;
    Some(Entry { name, compressed_or_secret, checksum, stored_bytes: stored, offset, size: entry_size })
}

/// Where the bytes of a member lie, after a header of their own.
fn member(file: &[u8], entry: &Entry) -> Option<Range<usize>> {
    let header = file.get(usize::try_from(entry.offset).ok()?..)?;
    header.starts_with(MEMBER).then_some(())?;
    let skipped = MEMBER_BYTES as u64 + u16_at(header, 26)? + u16_at(header, 28)?;
    inside(file, entry.offset.checked_add(skipped)?, entry.stored_bytes)
}
