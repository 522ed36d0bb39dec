//! Writing GGUF, version 3.

use super::{Array, MAGIC, MOST_DIMENSIONS, Metadata, TYPES, Value};
use crate::error::FilesError;
use crate::save::{AtomicFile, Outgoing};
use std::collections::HashSet;
use std::path::Path;

/// Writes a GGUF file, whole or not at all. Keys and tensors keep their order; tensors are aligned to 32 bytes or to
/// what `general.alignment` says.
///
/// Errors: a name that occurs twice, more than four dimensions, a type that the format does not have.
///
/// Panics: if a tensor's bytes are not as many as its shape asks for.
pub fn save<'a>(
    path: &Path,
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = Outgoing<'a>>,
) -> Result<(), FilesError> {
    let tensors: Vec<Outgoing> = tensors.into_iter().collect();
    let alignment = super::read::alignment(path, metadata)?;
    let mut head = Vec::new();
    head.extend_from_slice(MAGIC);
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        put_text(&mut head, key);
        put_value(&mut head, value);
    }
    let mut names = HashSet::new();
    let mut offset = 0_usize;
    for tensor in &tensors {
        if !names.insert(&tensor.name) {
            let name = tensor.name.clone();
            return Err(FilesError::Duplicate { path: path.into(), name, other: path.into() });
        }
        put_info(&mut head, path, tensor, offset)?;
        offset = (offset + tensor.size_bytes(path)?).next_multiple_of(alignment);
    }
    let mut file = AtomicFile::create(path)?;
    file.write(&head)?;
    file.pad(head.len(), alignment)?;
    for tensor in tensors {
        let size = tensor.size_bytes(path)?;
        tensor.write(&mut file)?;
        file.pad(size, alignment)?;
    }
    file.commit()
}

fn put_info(head: &mut Vec<u8>, path: &Path, tensor: &Outgoing, offset: usize) -> Result<(), FilesError> {
    let Outgoing { name, dtype, shape, .. } = tensor;
    if shape.len() > MOST_DIMENSIONS {
        return Err(FilesError::Tensor {
            path: path.into(),
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            problem: "it has more than four dimensions",
            hint: "save it as safetensors",
        });
    }
    let number = TYPES.iter().find(|(_, known)| known == dtype).map(|(number, _)| *number);
    let number = number.ok_or_else(|| FilesError::Dtype {
        path: path.into(),
        name: name.clone(),
        found: dtype.to_string(),
        supported: "F32, F16, BF16, Q8_0, Q4_0, Q4_1",
    })?;
    put_text(head, name);
    head.extend((shape.len() as u32).to_le_bytes());
    for &size in shape.iter().rev() {
        head.extend((size as u64).to_le_bytes());
    }
    head.extend(number.to_le_bytes());
    head.extend((offset as u64).to_le_bytes());
    Ok(())
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// A value's type and the value.
fn put_value(to: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        to.extend(kind.to_le_bytes());
        to.extend(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::String(text) => {
            put(8, &[]);
            put_text(to, text);
        }
        Value::Array(array) => {
            put(9, &[]);
            put_array(to, array);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

/// An array's type, length and elements.
fn put_array(to: &mut Vec<u8>, array: &Array) {
    let mut put = |kind: u32, bytes: Vec<u8>| {
        to.extend(kind.to_le_bytes());
        to.extend((array.len() as u64).to_le_bytes());
        to.extend(bytes);
    };
    match array {
        Array::U8(xs) => put(0, xs.clone()),
        Array::I8(xs) => put(1, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::U16(xs) => put(2, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::I16(xs) => put(3, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::U32(xs) => put(4, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::I32(xs) => put(5, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::F32(xs) => put(6, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::Bool(xs) => put(7, xs.iter().map(|&x| u8::from(x)).collect()),
        Array::String(texts) => {
            put(8, Vec::new());
            texts.iter().for_each(|text| put_text(to, text));
        }
        Array::Array(arrays) => {
            put(9, Vec::new());
            arrays.iter().for_each(|inner| put_array(to, inner));
        }
        Array::U64(xs) => put(10, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::I64(xs) => put(11, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::F64(xs) => put(12, xs.iter().flat_map(|x| x.to_le_bytes()).collect()),
    }
}
