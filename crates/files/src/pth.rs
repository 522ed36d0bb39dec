//! PyTorch checkpoints (`.pth`, `.pt`, `.bin`) as `torch.save` has written them since 1.6: a zip archive of a pickle and
//! of the bytes of each storage. Nothing in the file is executed.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch 2.

mod pickle;
#[cfg(test)]
mod tests;
mod zip;

use crate::backing::{Backing, map};
use crate::error::FilesError;
use crate::gather::Step;
use crate::shards;
use crate::tensors::{TensorInfo, Tensors};
use pickle::{Global, Node, Pickle, Ref, View};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest pickle: it holds names and shapes, not the elements.
const MOST_PICKLE_BYTES: u64 = 16 << 20;
/// Deepest nesting of dicts and lists.
const MOST_DEPTH: usize = 32;
/// Most bytes of names and values in all, so that an object named many times cannot fill the memory.
const MOST_NAME_BYTES: u64 = 64 << 20;
/// Under which keys of a checkpoint the model's own tensors are, the first that is there.
const MODEL_KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];

/// Which part of a checkpoint to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// What is under `model_state_dict`, `state_dict` or `model` if there are tensors, else the whole.
    Model,
    /// Everything, names joined by dots.
    Whole,
    /// What is under this key of the outermost dict.
    Key(&'a str),
}

/// What a PyTorch checkpoint holds.
#[derive(Clone, Debug)]
pub struct Pth {
    /// The tensors of the part, the key of a nested dict before its tensors' names with a dot between.
    pub tensors: Tensors,
    /// The key of the part, if it is not the whole.
    pub key: Option<String>,
    /// Numbers, texts and switches anywhere in the file, named as tensors are; `null` where the pickle has `None`.
    pub values: BTreeMap<String, Value>,
}

impl Pth {
    /// Opens a checkpoint.
    pub fn load(path: &Path, part: Part) -> Result<Self, FilesError> {
        Self::parse(path, map(path)?, part)
    }

    /// The tensors of the shards that an index (`pytorch_model.bin.index.json`) names, each in its folder.
    ///
    /// Errors: a tensor that is not in the shard that the index says, or in two.
    pub fn load_shards(index_path: &Path) -> Result<Tensors, FilesError> {
        shards::load(index_path, |path| Ok(Self::load(path, Part::Model)?.tensors))
    }

    /// Reads a checkpoint's bytes; `path` stands in messages.
    ///
    /// Errors: a pickle that asks for anything but tensors and plain values, which is named; tensors that are not inside
    /// their storage.
    pub fn parse(path: &Path, bytes: Backing, part: Part) -> Result<Self, FilesError> {
        let file = (*bytes).as_ref();
        refuse_other_formats(path, file)?;
        let members = zip::members(path, file)?;
        let Some((folder, pickle)) = members.iter().find_map(|(name, range)| {
            let folder = name.strip_suffix("/data.pkl").filter(|folder| !folder.contains('/'))?;
            Some((folder, range.clone()))
        }) else {
            let (found, expected) = ("a zip archive without a `data.pkl`".into(), "a PyTorch checkpoint");
            let hint = "save it with `torch.save`";
            return Err(FilesError::Format { path: path.into(), found, expected, hint });
        };
        let order = members.get(&format!("{folder}/byteorder")).map(|range| &file[range.clone()]);
        if order.is_some_and(|order| order != b"little") {
            let (found, expected) = ("a checkpoint of a big-endian machine".into(), "a little-endian one");
            let hint = "save it again on another machine";
            return Err(FilesError::Format { path: path.into(), found, expected, hint });
        }
        if pickle.len() as u64 > MOST_PICKLE_BYTES {
            let (what, found) = ("the size of its pickle in bytes".into(), pickle.len() as u64);
            return Err(FilesError::Limit { path: path.into(), what, found, most: MOST_PICKLE_BYTES });
        }
        let pickle = pickle::parse(path, &file[pickle])?;
        let key = choose(path, &pickle, part)?;
        let mut walk = Walk { path, pickle: &pickle, budget: MOST_NAME_BYTES, found: Vec::new() };
        walk.visit(pickle.root, &mut String::new(), 0)?;
        let mut tensors = Tensors::of(path, bytes.clone());
        let mut values = BTreeMap::new();
        let prefix = key.map(|key| format!("{key}.")).unwrap_or_default();
        for (name, leaf) in walk.found {
            match leaf {
                Leaf::Value(value) => {
                    values.insert(name, value);
                }
                Leaf::Tensor(view) => {
                    if let Some(name) = name.strip_prefix(&prefix) {
                        let storage = members.get(&format!("{folder}/data/{}", view.storage.key)).cloned();
                        let (info, steps) = placed(path, name, view, storage)?;
                        tensors.add(info, steps)?;
                    }
                }
            }
        }
        if tensors.is_empty() {
            let (found, expected) = ("a checkpoint without tensors".into(), "a state dict");
            let hint = "save `model.state_dict()`";
            return Err(FilesError::Format { path: path.into(), found, expected, hint });
        }
        Ok(Self { tensors, key: key.map(Into::into), values })
    }
}

fn refuse_other_formats(path: &Path, file: &[u8]) -> Result<(), FilesError> {
    if file.starts_with(b"PK") {
        return Ok(());
    }
    let (found, hint) = if file.starts_with(&[0x80]) {
        let hint = "save it again with `torch.save(torch.load(path, weights_only=True), path)`";
        ("a pickle, as PyTorch wrote before 1.6".into(), hint)
    } else {
        let start = &file[..file.len().min(4)];
        (format!("a file that begins with `{}`", start.escape_ascii()), "it may be cut short or of another format")
    };
    Err(FilesError::Format { path: path.into(), found, expected: "a PyTorch checkpoint (a zip archive)", hint })
}

/// The key of the part that is asked for, if it is not the whole.
fn choose<'a>(path: &Path, pickle: &'a Pickle, part: Part) -> Result<Option<&'a str>, FilesError> {
    let dict = match &pickle.nodes[pickle.root as usize] {
        Node::Dict(dict) => dict.as_slice(),
        _ => &[],
    };
    let find = |wanted: &str| {
        dict.iter().find_map(|&(key, value)| match pickle.nodes[key as usize] {
            Node::Text(key) if key == wanted => Some((key, value)),
            _ => None,
        })
    };
    match part {
        Part::Whole => Ok(None),
        Part::Key(wanted) => match find(wanted) {
            Some((key, _)) => Ok(Some(key)),
            None => Err(FilesError::NoKey { path: path.into(), key: wanted.into() }),
        },
        Part::Model => Ok(MODEL_KEYS.iter().find_map(|key| {
            let (key, value) = find(key)?;
            holds_tensors(pickle, value).then_some(key)
        })),
    }
}

/// Whether an object is a dict with a tensor in it.
fn holds_tensors(pickle: &Pickle, at: Ref) -> bool {
    let Node::Dict(dict) = &pickle.nodes[at as usize] else { return false };
    dict.iter().any(|&(_, value)| matches!(pickle.nodes[value as usize], Node::Tensor(_)))
}

enum Leaf<'a> {
    Tensor(&'a View<'a>),
    Value(Value),
}

/// Collects everything with its name.
struct Walk<'a> {
    path: &'a Path,
    pickle: &'a Pickle<'a>,
    budget: u64,
    found: Vec<(String, Leaf<'a>)>,
}

impl Walk<'_> {
    /// Takes `bytes` from what names and values may take in all.
    fn spend(&mut self, bytes: usize) -> Result<(), FilesError> {
        let left = self.budget.checked_sub(bytes as u64);
        self.budget = left.ok_or_else(|| FilesError::Limit {
            path: self.path.into(),
            what: "the size of all names in bytes".into(),
            found: MOST_NAME_BYTES + 1,
            most: MOST_NAME_BYTES,
        })?;
        Ok(())
    }

    fn visit(&mut self, at: Ref, name: &mut String, depth: usize) -> Result<(), FilesError> {
        if depth > MOST_DEPTH {
            let (what, found) = ("the nesting of its dicts".into(), depth as u64);
            return Err(FilesError::Limit { path: self.path.into(), what, found, most: MOST_DEPTH as u64 });
        }
        // An entry of `found` takes about this much beside the name.
        self.spend(64 + name.len())?;
        let value = match &self.pickle.nodes[at as usize] {
            Node::Dict(dict) => {
                for &(key, value) in dict {
                    match &self.pickle.nodes[key as usize] {
                        Node::Text(key) => self.visit_under(key, value, name, depth)?,
                        Node::Int(key) => self.visit_under(&key.to_string(), value, name, depth)?,
                        _ => self.visit_under("?", value, name, depth)?,
                    }
                }
                return Ok(());
            }
            Node::Sequence(items) => {
                for (i, &item) in items.iter().enumerate() {
                    self.visit_under(&i.to_string(), item, name, depth)?;
                }
                return Ok(());
            }
            Node::Tensor(view) => {
                self.found.push((name.clone(), Leaf::Tensor(view)));
                return Ok(());
            }
            Node::None => Value::Null,
            Node::Bool(value) => (*value).into(),
            Node::Int(value) => (*value).into(),
            Node::Float(value) => (*value).into(),
            Node::Text(text) => {
                self.spend(text.len())?;
                (*text).into()
            }
            Node::Global(Global::ElementType(text)) => (*text).into(),
            Node::Other | Node::Global(_) | Node::Storage(_) => return Ok(()),
        };
        self.found.push((name.clone(), Leaf::Value(value)));
        Ok(())
    }

    fn visit_under(&mut self, key: &str, at: Ref, name: &mut String, depth: usize) -> Result<(), FilesError> {
        self.spend(key.len())?;
        let length = name.len();
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(key);
        self.visit(at, name, depth + 1)?;
        name.truncate(length);
        Ok(())
    }
}

/// Where a tensor's elements lie in the file, and how to pick them if they are not in order.
fn placed(
    path: &Path,
    name: &str,
    view: &View,
    storage: Option<std::ops::Range<usize>>,
) -> Result<(TensorInfo, Vec<Step>), FilesError> {
    let View { storage: of, offset, shape, strides } = view;
    let wrong = |problem, hint| FilesError::Tensor {
        path: path.into(),
        name: name.into(),
        dtype: of.dtype,
        shape: shape.clone(),
        problem,
        hint,
    };
    let damaged = |problem| wrong(problem, "the file is damaged; copy it again");
    let storage = storage.ok_or_else(|| damaged("its storage is not in the archive"))?;
    let (_, width) = of.dtype.block();
    let size = of.dtype.size_bytes(shape).map_err(damaged)?;
    if of.elements.checked_mul(width) != Some(storage.len()) {
        return Err(damaged("its storage is longer or shorter than it says"));
    }
    // One past the last element of the view, in elements from the beginning of the storage.
    let span = || {
        let steps = shape.iter().zip(strides).map(|(&size, &stride)| (size - 1).checked_mul(stride));
        let last = steps.sum::<Option<usize>>()?.checked_add(*offset)?;
        last.checked_add(1).filter(|&end| end <= of.elements)
    };
    let end = if size == 0 { Some(*offset).filter(|&at| at <= of.elements) } else { span() };
    let end = end.ok_or_else(|| damaged("it reaches past its storage"))?;
    let range = storage.start + offset * width..storage.start + end * width;
    let row_major = size == 0 || is_row_major(shape, strides);
    if !row_major && size > storage.len() {
        return Err(wrong("it repeats elements of a smaller storage", "save `tensor.contiguous()` instead"));
    }
    let info = TensorInfo { name: name.into(), dtype: of.dtype, shape: shape.clone(), range };
    let (shape, strides) = (shape.as_slice().into(), strides.as_slice().into());
    Ok((info, if row_major { Vec::new() } else { vec![Step::Strided { shape, strides, width }] }))
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    })
}
