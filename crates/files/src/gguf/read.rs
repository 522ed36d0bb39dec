//! Reading GGUF from bytes that are not trusted: no size is believed before the file is seen to have it.

use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, Gguf, MAGIC, MOST_DIMENSIONS, Metadata, TYPES, Value};
use crate::backing::Backing;
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::tensors::{TensorInfo, Tensors};
use std::ops::Range;
use std::path::Path;

/// Longest key and longest tensor name, in bytes, as the format has it for keys.
const MOST_NAME_BYTES: u64 = u16::MAX as u64;
/// Deepest nesting of arrays. Files in the wild nest none.
const MOST_DEPTH: usize = 4;
/// Bytes of the shortest key with its value, and of the shortest tensor info.
const LEAST_ENTRY_BYTES: u64 = 8 + 4 + 1;
const LEAST_INFO_BYTES: u64 = 8 + 4 + 4 + 8;

pub(super) fn parse(path: &Path, bytes: Backing) -> Result<Gguf, FilesError> {
    let file = (*bytes).as_ref();
    let mut cursor = Cursor { path, file, at: 0 };
    cursor.version()?;
    let tensor_count = cursor.count(LEAST_INFO_BYTES, || "the list of tensors".into())?;
    let key_count = cursor.count(LEAST_ENTRY_BYTES, || "the list of keys".into())?;
    let mut metadata = Metadata::of(path);
    for _ in 0..key_count {
        let key = cursor.name("a key")?;
        let value = cursor.value(&key)?;
        if !metadata.add(key.clone(), value) {
            return Err(FilesError::DuplicateKey { path: path.into(), key });
        }
    }
    let alignment = alignment(path, &metadata)?;
    let mut stored = Vec::new();
    for _ in 0..tensor_count {
        stored.push(cursor.tensor(alignment)?);
    }
    // The tensors' bytes begin at the next aligned byte; a file without any may end before it.
    let data_start = cursor.at.next_multiple_of(alignment);
    let mut tensors = Tensors::of(path, bytes.clone());
    for mut info in stored {
        let moved = |offset: usize| offset.saturating_add(data_start);
        info.range = moved(info.range.start)..moved(info.range.end);
        tensors.add(info, Vec::new())?;
    }
    refuse_overlap(path, &tensors)?;
    Ok(Gguf { metadata, tensors })
}

/// To how many bytes tensors are aligned.
pub(super) fn alignment(path: &Path, metadata: &Metadata) -> Result<usize, FilesError> {
    let alignment = metadata.find_u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT as u64);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        let (key, found) = (ALIGNMENT_KEY.into(), alignment.to_string());
        return Err(FilesError::Key { path: path.into(), key, found, expected: "a power of two up to 2^20" });
    }
    Ok(alignment as usize)
}

fn refuse_overlap(path: &Path, tensors: &Tensors) -> Result<(), FilesError> {
    let mut infos: Vec<&TensorInfo> = tensors.infos().filter(|info| !info.range.is_empty()).collect();
    infos.sort_by_key(|info| info.range.start);
    for pair in infos.windows(2) {
        if pair[0].range.end > pair[1].range.start {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            return Err(FilesError::Overlap { path: path.into(), first, second });
        }
    }
    Ok(())
}

/// A place in the file that moves on as values are read.
struct Cursor<'a> {
    path: &'a Path,
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn cut(&self, what: String, needed: u64) -> FilesError {
        FilesError::Cut { path: self.path.into(), what, at: self.at as u64, needed, size: self.file.len() as u64 }
    }

    fn take(&mut self, size: u64, what: impl FnOnce() -> String) -> Result<&'a [u8], FilesError> {
        let rest = &self.file[self.at..];
        let found = usize::try_from(size).ok().and_then(|size| rest.get(..size));
        let found = found.ok_or_else(|| self.cut(what(), size))?;
        self.at += found.len();
        Ok(found)
    }

    fn bytes<const N: usize>(&mut self, what: impl FnOnce() -> String) -> Result<[u8; N], FilesError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, FilesError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, FilesError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A number of things of at least `least_bytes` each, all of which the rest of the file could hold.
    fn count(&mut self, least_bytes: u64, what: impl Fn() -> String) -> Result<usize, FilesError> {
        let count = self.u64(&what)?;
        let most = (self.file.len() - self.at) as u64 / least_bytes;
        if count > most {
            return Err(self.cut(what(), count.saturating_mul(least_bytes)));
        }
        Ok(count as usize)
    }

    /// Magic and version.
    fn version(&mut self) -> Result<(), FilesError> {
        let wrong = |found, hint| {
            let expected = "a little-endian GGUF file of version 2 or 3";
            FilesError::Format { path: self.path.into(), found, expected, hint }
        };
        let Some((magic, rest)) = self.file.split_first_chunk::<4>() else {
            return Err(wrong(format!("a file of {} bytes", self.file.len()), "it may be cut short; copy it again"));
        };
        if magic != MAGIC {
            return Err(wrong(
                format!("a file that begins with `{}`", magic.escape_ascii()),
                "GGUF files begin with `GGUF`",
            ));
        }
        let version = rest.first_chunk().map(|&bytes| u32::from_le_bytes(bytes));
        match version {
            Some(2 | 3) => self.at = 8,
            Some(found) if matches!(found.swap_bytes(), 1..=3) => {
                return Err(wrong("a big-endian GGUF file".into(), "convert the model again for little-endian"));
            }
            Some(found) => {
                return Err(wrong(format!("a GGUF file of version {found}"), "convert the model again"));
            }
            None => return Err(self.cut("the version".into(), 8)),
        }
        Ok(())
    }

    fn text(&mut self, most: u64, what: impl Fn() -> String) -> Result<String, FilesError> {
        let length = self.u64(&what)?;
        if length > most {
            let what = format!("the length of {}", what());
            return Err(FilesError::Limit { path: self.path.into(), what, found: length, most });
        }
        let at = self.at;
        let bytes = self.take(length, &what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| FilesError::Damaged {
            path: self.path.into(),
            what: format!("{} at byte {at}", what()),
            found: "not UTF-8".into(),
            expected: "text".into(),
        })?;
        Ok(text.to_string())
    }

    fn name(&mut self, what: &str) -> Result<String, FilesError> {
        self.text(MOST_NAME_BYTES, || what.into())
    }

    fn value(&mut self, key: &str) -> Result<Value, FilesError> {
        let what = || format!("key `{key}`");
        let kind = self.u32(what)?;
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.bytes(what)?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes(what)?)),
            4 => Value::U32(u32::from_le_bytes(self.bytes(what)?)),
            5 => Value::I32(i32::from_le_bytes(self.bytes(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes(what)?)),
            7 => {
                let byte = u8::from_le_bytes(self.bytes(what)?);
                Value::Bool(self.boolean(byte, key)?)
            }
            8 => Value::String(self.text(u64::MAX, what)?),
            9 => Value::Array(self.array(key, 1)?),
            10 => Value::U64(u64::from_le_bytes(self.bytes(what)?)),
            11 => Value::I64(i64::from_le_bytes(self.bytes(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes(what)?)),
            other => return Err(self.unknown_type(key, other)),
        })
    }

    fn unknown_type(&self, key: &str, found: u32) -> FilesError {
        let (what, expected) = (format!("the type of key `{key}`"), "0 to 12".into());
        FilesError::Damaged { path: self.path.into(), what, found: found.to_string(), expected }
    }

    fn boolean(&self, byte: u8, key: &str) -> Result<bool, FilesError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(FilesError::Damaged {
                path: self.path.into(),
                what: format!("key `{key}`"),
                found: found.to_string(),
                expected: "0 or 1".into(),
            }),
        }
    }

    /// An array's type, length and elements.
    fn array(&mut self, key: &str, depth: usize) -> Result<Array, FilesError> {
        let what = || format!("key `{key}`");
        if depth > MOST_DEPTH {
            let (what, found, most) = (format!("the nesting of key `{key}`"), depth as u64, MOST_DEPTH as u64);
            return Err(FilesError::Limit { path: self.path.into(), what, found, most });
        }
        Ok(match self.u32(what)? {
            0 => Array::U8(self.numbers(key, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(key, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(key, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(key, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(key, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(key, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(key, f32::from_le_bytes)?),
            7 => {
                let bytes = self.numbers(key, u8::from_le_bytes)?;
                Array::Bool(bytes.into_iter().map(|byte| self.boolean(byte, key)).collect::<Result<_, _>>()?)
            }
            8 => {
                let count = self.count(8, what)?;
                Array::String((0..count).map(|_| self.text(u64::MAX, what)).collect::<Result<_, _>>()?)
            }
            9 => {
                let count = self.count(4 + 8, what)?;
                Array::Array((0..count).map(|_| self.array(key, depth + 1)).collect::<Result<_, _>>()?)
            }
            10 => Array::U64(self.numbers(key, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(key, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(key, f64::from_le_bytes)?),
            other => return Err(self.unknown_type(key, other)),
        })
    }

    fn numbers<T, const N: usize>(&mut self, key: &str, from: fn([u8; N]) -> T) -> Result<Vec<T>, FilesError> {
        let what = || format!("key `{key}`");
        let count = self.count(N as u64, what)?;
        let bytes = self.take((count * N) as u64, what)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| from(bytes)).collect())
    }

    /// A tensor info, its range counted from the beginning of the tensors' bytes.
    fn tensor(&mut self, alignment: usize) -> Result<TensorInfo, FilesError> {
        let name = self.name("a tensor's name")?;
        let what = || format!("the description of tensor `{name}`");
        let dimensions = self.u32(what)?;
        if dimensions as usize > MOST_DIMENSIONS {
            let (what, most) = (format!("the number of dimensions of tensor `{name}`"), MOST_DIMENSIONS as u64);
            return Err(FilesError::Limit { path: self.path.into(), what, found: dimensions.into(), most });
        }
        let mut shape = Vec::with_capacity(MOST_DIMENSIONS);
        for _ in 0..dimensions {
            shape.push(self.u64(what)? as usize);
        }
        shape.reverse(); // The file has the innermost first.
        let kind = self.u32(what)?;
        let dtype = TYPES.iter().find(|(number, _)| *number == kind).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| FilesError::Dtype {
            path: self.path.into(),
            name: name.clone(),
            found: unsupported_type(kind),
            supported: "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
        })?;
        let offset = self.u64(what)? as usize;
        let range = self.range(&name, dtype, &shape, offset, alignment)?;
        Ok(TensorInfo { name, dtype, shape, range })
    }

    fn range(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        offset: usize,
        alignment: usize,
    ) -> Result<Range<usize>, FilesError> {
        let wrong = |problem| {
            let (path, name, shape) = (self.path.into(), name.into(), shape.to_vec());
            FilesError::Tensor { path, name, dtype, shape, problem, hint: "the file is damaged" }
        };
        if !offset.is_multiple_of(alignment) {
            return Err(wrong("its place in the file is not a multiple of the alignment"));
        }
        let size = dtype.size_bytes(shape).map_err(wrong)?;
        let end = offset.checked_add(size).ok_or_else(|| wrong("its place is beyond 64 bits"))?;
        Ok(offset..end)
    }
}

/// The name of a type that is not read, from the rest of `enum ggml_type`.
fn unsupported_type(number: u32) -> String {
    const NAMES: [(u32, &str); 20] = [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
        (40, "NVFP4"),
        (41, "Q1_0"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_string());
    name.unwrap_or_else(|| format!("number {number}"))
}
