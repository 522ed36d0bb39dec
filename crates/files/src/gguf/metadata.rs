//! The keys and values of a GGUF file.

use crate::error::FilesError;
use std::fmt;
use std::path::{Path, PathBuf};

/// A value of one of the format's thirteen types.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name is the type")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name is the type of the elements")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The value of any integer type that is not negative.
    pub fn to_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::U64(x) => Some(x),
            Self::I8(x) => x.try_into().ok(),
            Self::I16(x) => x.try_into().ok(),
            Self::I32(x) => x.try_into().ok(),
            Self::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// The value of either floating-point type, or of an integer.
    pub fn to_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => self.to_u64().map(|x| x as f64),
        }
    }
}

impl fmt::Display for Value {
    /// Short enough for a message or a listing: arrays by their length, long strings by their beginning.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => write!(to, "{x}"),
            Self::I8(x) => write!(to, "{x}"),
            Self::U16(x) => write!(to, "{x}"),
            Self::I16(x) => write!(to, "{x}"),
            Self::U32(x) => write!(to, "{x}"),
            Self::I32(x) => write!(to, "{x}"),
            Self::U64(x) => write!(to, "{x}"),
            Self::I64(x) => write!(to, "{x}"),
            Self::F32(x) => write!(to, "{x}"),
            Self::F64(x) => write!(to, "{x}"),
            Self::Bool(x) => write!(to, "{x}"),
            Self::String(text) => match text.char_indices().nth(60) {
                Some((end, _)) => write!(to, "{:?}...", &text[..end]),
                None => write!(to, "{text:?}"),
            },
            Self::Array(array) => write!(to, "an array of {}", array.len()),
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(array) => array.len(),
            Self::I8(array) => array.len(),
            Self::U16(array) => array.len(),
            Self::I16(array) => array.len(),
            Self::U32(array) => array.len(),
            Self::I32(array) => array.len(),
            Self::F32(array) => array.len(),
            Self::Bool(array) => array.len(),
            Self::String(array) => array.len(),
            Self::Array(array) => array.len(),
            Self::U64(array) => array.len(),
            Self::I64(array) => array.len(),
            Self::F64(array) => array.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and values in the order of the file. Invariant: a key occurs once.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The file they come from, for messages; empty for a file to be written.
    path: PathBuf,
    entries: Vec<(String, Value)>,
    by_key: std::collections::HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// No keys yet, of a file to be written.
    pub fn new() -> Self {
        Self::default()
    }

    /// No keys yet, of the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// The file they come from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a key at the end; false, and nothing changed, if it is already there.
    pub(super) fn add(&mut self, key: String, value: Value) -> bool {
        let fresh = !self.by_key.contains_key(&key);
        if fresh {
            self.by_key.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
        fresh
    }

    /// Sets a key where it stands, or at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.by_key.get(key) {
            Some(&at) => self.entries[at].1 = value,
            None => {
                self.add(key.into(), value);
            }
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&at| &self.entries[at].1)
    }

    /// The value of a key as what `convert` makes of it.
    fn find<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FilesError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| {
            let (path, key, found) = (self.path.clone(), key.into(), value.to_string());
            FilesError::Key { path, key, found, expected }
        })
    }

    fn required<T>(&self, key: &str, found: Option<T>) -> Result<T, FilesError> {
        found.ok_or_else(|| FilesError::NoKey { path: self.path.clone(), key: key.into() })
    }

    /// A key that holds an integer of any type, at least 0; `None` without the key.
    pub fn find_u64(&self, key: &str) -> Result<Option<u64>, FilesError> {
        self.find(key, "an integer of at least 0", Value::to_u64)
    }

    /// [`Self::find_u64`] of a key that must be there.
    pub fn u64(&self, key: &str) -> Result<u64, FilesError> {
        self.required(key, self.find_u64(key)?)
    }

    /// A key that holds a number of any type; `None` without the key.
    pub fn find_f64(&self, key: &str) -> Result<Option<f64>, FilesError> {
        self.find(key, "a number", Value::to_f64)
    }

    /// [`Self::find_f64`] of a key that must be there.
    pub fn f64(&self, key: &str) -> Result<f64, FilesError> {
        self.required(key, self.find_f64(key)?)
    }

    /// A key that holds true or false; `None` without the key.
    pub fn find_bool(&self, key: &str) -> Result<Option<bool>, FilesError> {
        self.find(key, "true or false", |value| if let Value::Bool(x) = value { Some(*x) } else { None })
    }

    /// [`Self::find_bool`] of a key that must be there.
    pub fn bool(&self, key: &str) -> Result<bool, FilesError> {
        self.required(key, self.find_bool(key)?)
    }

    /// A key that holds text; `None` without the key.
    pub fn find_str(&self, key: &str) -> Result<Option<&str>, FilesError> {
        self.find(key, "text", |value| if let Value::String(x) = value { Some(x.as_str()) } else { None })
    }

    /// [`Self::find_str`] of a key that must be there.
    pub fn str(&self, key: &str) -> Result<&str, FilesError> {
        self.required(key, self.find_str(key)?)
    }

    /// A key that holds an array of any type; `None` without the key.
    pub fn find_array(&self, key: &str) -> Result<Option<&Array>, FilesError> {
        self.find(key, "an array", |value| if let Value::Array(x) = value { Some(x) } else { None })
    }

    /// [`Self::find_array`] of a key that must be there.
    pub fn array(&self, key: &str) -> Result<&Array, FilesError> {
        self.required(key, self.find_array(key)?)
    }

    /// A key that holds an array of texts; `None` without the key.
    pub fn find_strings(&self, key: &str) -> Result<Option<&[String]>, FilesError> {
        self.find(key, "an array of texts", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// [`Self::find_strings`] of a key that must be there.
    pub fn strings(&self, key: &str) -> Result<&[String], FilesError> {
        self.required(key, self.find_strings(key)?)
    }
}
