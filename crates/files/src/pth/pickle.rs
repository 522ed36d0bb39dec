//! A pickle interpreter that knows what state dicts need and calls nothing.
//!
//! Source: `Lib/pickletools.py` of CPython 3.11, which defines the opcodes.

use crate::dtype::Dtype;
use crate::error::FilesError;
use std::collections::HashMap;
use std::path::Path;

/// Most objects of a pickle: a large optimizer's state has some ten thousands.
const MOST_NODES: usize = 1 << 22;
/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// An object of the pickle, by its place in [`Pickle::nodes`].
pub(super) type Ref = u32;

/// What an object is.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// An integer of more than 64 bits or a string of bytes: carried along, never used.
    Other,
    /// A tuple, a list or a `torch.Size`.
    Sequence(Vec<Ref>),
    /// A dict or an `OrderedDict`.
    Dict(Vec<(Ref, Ref)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(View<'a>),
}

/// The names that a state dict may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    OrderedDict,
    Size,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
    /// `torch.float32` and the like: a plain value in settings.
    ElementType(&'static str),
}

const GLOBALS: [(&str, Global); 23] = [
    ("collections.OrderedDict", Global::OrderedDict),
    ("torch.Size", Global::Size),
    ("torch._utils._rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils._rebuild_parameter", Global::RebuildParameter),
    ("torch.DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch.FloatStorage", Global::Storage(Dtype::F32)),
    ("torch.HalfStorage", Global::Storage(Dtype::F16)),
    ("torch.BFloat16Storage", Global::Storage(Dtype::BF16)),
    ("torch.LongStorage", Global::Storage(Dtype::I64)),
    ("torch.IntStorage", Global::Storage(Dtype::I32)),
    ("torch.ShortStorage", Global::Storage(Dtype::I16)),
    ("torch.CharStorage", Global::Storage(Dtype::I8)),
    ("torch.ByteStorage", Global::Storage(Dtype::U8)),
    ("torch.BoolStorage", Global::Storage(Dtype::Bool)),
    ("torch.float64", Global::ElementType("float64")),
    ("torch.float32", Global::ElementType("float32")),
    ("torch.float16", Global::ElementType("float16")),
    ("torch.bfloat16", Global::ElementType("bfloat16")),
    ("torch.int64", Global::ElementType("int64")),
    ("torch.int32", Global::ElementType("int32")),
    ("torch.int8", Global::ElementType("int8")),
    ("torch.uint8", Global::ElementType("uint8")),
    ("torch.bool", Global::ElementType("bool")),
];

/// Elements that tensors are views of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    /// Which member of the archive has them.
    pub(super) key: &'a str,
    pub(super) elements: usize,
}

/// A tensor: a storage, where in it the first element lies, and the steps between elements.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) root: Ref,
}

/// Reads a pickle.
///
/// Errors: any name but those of [`GLOBALS`], any opcode that state dicts do not need, and whatever is cut short.
pub(super) fn parse<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Pickle<'a>, FilesError> {
    let mut machine =
        Machine { path, bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    while !machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { nodes: machine.nodes, root })
}

struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Ref>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Ref>,
}

impl<'a> Machine<'a> {
    fn damaged(&self, found: impl Into<String>) -> FilesError {
        FilesError::Damaged {
            path: self.path.into(),
            what: format!("the pickle before byte {}", self.at),
            found: found.into(),
            expected: "that of a state dict".into(),
        }
    }

    fn too_many(&self, how: &str) -> FilesError {
        let (what, most) = (format!("the number of objects {how} by the pickle"), MOST_NODES as u64);
        FilesError::Limit { path: self.path.into(), what, found: most + 1, most }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], FilesError> {
        let found = self.bytes[self.at..].get(..size).ok_or_else(|| self.damaged("cut short"))?;
        self.at += size;
        Ok(found)
    }

    fn skip(&mut self, size: usize) -> Result<(), FilesError> {
        self.take(size).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FilesError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<usize, FilesError> {
        self.array().map(|[byte]| byte.into())
    }

    fn u32(&mut self) -> Result<u32, FilesError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length of 64 bits; one that does not fit is longer than the pickle in any case.
    fn length(&mut self) -> Result<usize, FilesError> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, FilesError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.damaged("cut short"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.damaged("not UTF-8"))
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), FilesError> {
        if self.nodes.len() == MOST_NODES {
            return Err(self.too_many("made"));
        }
        self.stack.push(self.nodes.len() as Ref);
        self.nodes.push(node);
        Ok(())
    }

    fn push_text(&mut self, size: usize) -> Result<(), FilesError> {
        let bytes = self.take(size)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.push(Node::Text(text))
    }

    fn push_other(&mut self, size: usize) -> Result<(), FilesError> {
        self.take(size)?;
        self.push(Node::Other)
    }

    /// An integer of `size` bytes, two's complement.
    fn push_long(&mut self, size: usize) -> Result<(), FilesError> {
        let bytes = self.take(size)?;
        if size > 8 {
            return self.push(Node::Other);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xFF } else { 0 }; 8];
        wide[..size].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(wide)))
    }

    fn pop(&mut self) -> Result<Ref, FilesError> {
        // What lies below a mark belongs to whoever set it.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.damaged("an operation without its operands"));
        }
        self.stack.pop().ok_or_else(|| self.damaged("an operation without its operands"))
    }

    fn top(&self) -> Result<Ref, FilesError> {
        self.stack.last().copied().ok_or_else(|| self.damaged("an operation without its operands"))
    }

    /// What was pushed since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Ref>, FilesError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("an operation without its mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn push_tuple(&mut self, size: usize) -> Result<(), FilesError> {
        let mut items = Vec::with_capacity(size);
        for _ in 0..size {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Sequence(items))
    }

    fn append(&mut self, items: Vec<Ref>) -> Result<(), FilesError> {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::Sequence(list) => list.extend(items),
            _ => return Err(self.damaged("items for what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Ref>) -> Result<(), FilesError> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.nodes[dict as usize] {
            Node::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.damaged("keys and values for what is no dict")),
        }
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), FilesError> {
        let callable = format!("{module}.{name}");
        let known = GLOBALS.iter().find(|(known, _)| *known == callable);
        let (_, global) = known.ok_or_else(|| FilesError::Code { path: self.path.into(), callable })?;
        self.push(Node::Global(*global))
    }

    fn memoize(&mut self, key: u32) -> Result<(), FilesError> {
        let top = self.top()?;
        if self.memo.len() == MOST_NODES {
            return Err(self.too_many("remembered"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), FilesError> {
        let found = *self.memo.get(&key).ok_or_else(|| self.damaged("a reference to nothing"))?;
        self.stack.push(found);
        Ok(())
    }

    /// Does what the next opcode says; true at the end.
    fn step(&mut self) -> Result<bool, FilesError> {
        match self.array()? {
            [b'.'] => return Ok(true),                               // STOP
            [0x80] => self.skip(1)?,                                 // PROTO
            [0x95] => self.skip(8)?,                                 // FRAME
            [b'('] => self.marks.push(self.stack.len()),             // MARK
            [b'}'] => self.push(Node::Dict(Vec::new()))?,            // EMPTY_DICT
            [b']' | b')'] => self.push(Node::Sequence(Vec::new()))?, // EMPTY_LIST, EMPTY_TUPLE
            [b't' | b'l'] => {
                let items = self.pop_mark()?; // TUPLE, LIST
                self.push(Node::Sequence(items))?;
            }
            [size @ 0x85..=0x87] => self.push_tuple(usize::from(size) - 0x84)?, // TUPLE1 to TUPLE3
            [b'd'] => {
                let items = self.pop_mark()?; // DICT
                self.push(Node::Dict(Vec::new()))?;
                self.set_items(items)?;
            }
            [b'a'] => {
                let item = self.pop()?; // APPEND
                self.append(vec![item])?;
            }
            [b'e'] => {
                let items = self.pop_mark()?; // APPENDS
                self.append(items)?;
            }
            [b's'] => {
                let (value, key) = (self.pop()?, self.pop()?); // SETITEM
                self.set_items(vec![key, value])?;
            }
            [b'u'] => {
                let items = self.pop_mark()?; // SETITEMS
                self.set_items(items)?;
            }
            [b'N'] => self.push(Node::None)?,                             // NONE
            [flag @ 0x88..=0x89] => self.push(Node::Bool(flag == 0x88))?, // NEWTRUE, NEWFALSE
            [b'c'] => {
                let (module, name) = (self.line()?, self.line()?); // GLOBAL
                self.push_global(module, name)?;
            }
            [0x93] => {
                let (name, module) = (self.pop()?, self.pop()?); // STACK_GLOBAL
                match (&self.nodes[module as usize], &self.nodes[name as usize]) {
                    (&Node::Text(module), &Node::Text(name)) => self.push_global(module, name)?,
                    _ => return Err(self.damaged("a name that is no text")),
                }
            }
            [b'R'] => self.reduce()?,
            [b'b'] => self.build()?,
            [b'Q'] => self.persistent()?,
            [opcode] => self.literal_or_memo(opcode)?,
        }
        Ok(false)
    }

    /// Numbers, texts and the memo.
    fn literal_or_memo(&mut self, opcode: u8) -> Result<(), FilesError> {
        match opcode {
            b'J' => {
                let value = i32::from_le_bytes(self.array()?); // BININT
                self.push(Node::Int(value.into()))
            }
            b'K' => {
                let value = self.u8()?; // BININT1
                self.push(Node::Int(value as i64))
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?); // BININT2
                self.push(Node::Int(value.into()))
            }
            0x8A => {
                let size = self.u8()?; // LONG1
                self.push_long(size)
            }
            0x8B => {
                let size = self.u32()?; // LONG4
                self.push_long(size as usize)
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?); // BINFLOAT, the one big-endian number
                self.push(Node::Float(value))
            }
            b'X' | b'T' => {
                let size = self.u32()?; // BINUNICODE, BINSTRING
                self.push_text(size as usize)
            }
            0x8C | b'U' => {
                let size = self.u8()?; // SHORT_BINUNICODE, SHORT_BINSTRING
                self.push_text(size)
            }
            0x8D => {
                let size = self.length()?; // BINUNICODE8
                self.push_text(size)
            }
            b'B' => {
                let size = self.u32()?; // BINBYTES
                self.push_other(size as usize)
            }
            b'C' => {
                let size = self.u8()?; // SHORT_BINBYTES
                self.push_other(size)
            }
            b'q' => {
                let key = self.u8()?; // BINPUT
                self.memoize(key as u32)
            }
            b'r' => {
                let key = self.u32()?; // LONG_BINPUT
                self.memoize(key)
            }
            0x94 => self.memoize(self.memo.len() as u32), // MEMOIZE
            b'h' => {
                let key = self.u8()?; // BINGET
                self.recall(key as u32)
            }
            b'j' => {
                let key = self.u32()?; // LONG_BINGET
                self.recall(key)
            }
            other => Err(self.damaged(format!("opcode {other:#04x}"))),
        }
    }

    /// REDUCE, which in Python calls a function: here those few that build tensors, and they are not called.
    fn reduce(&mut self) -> Result<(), FilesError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Node::Sequence(arguments) = &self.nodes[arguments as usize] else {
            return Err(self.damaged("a call without a tuple of arguments"));
        };
        let node = match (&self.nodes[callable as usize], arguments.as_slice()) {
            (Node::Global(Global::OrderedDict), []) => Node::Dict(Vec::new()),
            // The object itself stands for what is made of it: a copy each time could fill the memory.
            (Node::Global(Global::Size | Global::RebuildParameter), &[of, ..]) => {
                self.stack.push(of);
                return Ok(());
            }
            (Node::Global(Global::RebuildTensor), &[storage, offset, shape, strides, ..]) => {
                let Node::Storage(storage) = self.nodes[storage as usize] else {
                    return Err(self.damaged("a tensor without a storage"));
                };
                let (offset, shape, strides) = (self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
                if shape.len() != strides.len() {
                    return Err(self.damaged("a tensor with more sizes than strides, or fewer"));
                }
                Node::Tensor(View { storage, offset, shape, strides })
            }
            _ => return Err(self.damaged("a call with other arguments than a tensor's")),
        };
        self.push(node)
    }

    /// BUILD, which in Python sets attributes: those of a state dict (`_metadata`) are of no use here.
    fn build(&mut self) -> Result<(), FilesError> {
        self.pop()?;
        match self.nodes[self.top()? as usize] {
            Node::Dict(_) => Ok(()),
            _ => Err(self.damaged("attributes for what is no dict")),
        }
    }

    /// BINPERSID: `("storage", type, key, location, number of elements)`.
    fn persistent(&mut self) -> Result<(), FilesError> {
        let id = self.pop()?;
        let Node::Sequence(parts) = &self.nodes[id as usize] else {
            return Err(self.damaged("a persistent id that is no tuple"));
        };
        let &[tag, kind, key, _, elements] = parts.as_slice() else {
            return Err(self.damaged(format!("a persistent id of {} parts", parts.len())));
        };
        match (&self.nodes[tag as usize], &self.nodes[kind as usize], &self.nodes[key as usize]) {
            (Node::Text("storage"), &Node::Global(Global::Storage(dtype)), &Node::Text(key)) => {
                let elements = self.size(elements)?;
                self.push(Node::Storage(Storage { dtype, key, elements }))
            }
            _ => Err(self.damaged("a persistent id that is no storage")),
        }
    }

    fn size(&self, at: Ref) -> Result<usize, FilesError> {
        match self.nodes[at as usize] {
            Node::Int(value) => value.try_into().map_err(|_| self.damaged(format!("a size of {value}"))),
            _ => Err(self.damaged("a size that is no integer")),
        }
    }

    fn sizes(&self, at: Ref) -> Result<Vec<usize>, FilesError> {
        match &self.nodes[at as usize] {
            Node::Sequence(sizes) if sizes.len() <= MOST_DIMENSIONS => sizes.iter().map(|&at| self.size(at)).collect(),
            Node::Sequence(sizes) => Err(self.damaged(format!("a tensor of {} dimensions", sizes.len()))),
            _ => Err(self.damaged("sizes that are no tuple")),
        }
    }
}
