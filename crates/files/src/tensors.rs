//! The tensors of one or several files, by name.

use crate::backing::{Backing, TensorBytes};
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::floats::f32_values;
use crate::gather::Step;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is known of a tensor without reading its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Sizes of its dimensions, outermost first, whatever the format's own order.
    pub shape: Vec<usize>,
    /// The bytes of the file (of the archive, for `.pth`) that its elements lie in.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of its elements in row-major order. A tensor in a [`Tensors`] has been checked, so this cannot overflow.
    pub fn size_bytes(&self) -> usize {
        self.dtype.size_bytes(&self.shape).unwrap_or(0)
    }
}

/// One tensor with the file it lies in.
#[derive(Clone)]
struct Entry {
    info: TensorInfo,
    file: usize,
    /// From the bytes of the range to row-major order; none where they lie in it.
    steps: Vec<Step>,
    /// Whether it is to be read as transposed, which its quantized blocks are not.
    turned: bool,
}

/// A file that tensors lie in.
#[derive(Clone)]
struct File {
    path: PathBuf,
    bytes: Backing,
}

/// Tensors by name. Invariant: every range is inside its file and as long as type and shape ask for; names are unique.
#[derive(Clone, Default)]
pub struct Tensors {
    files: Vec<File>,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

impl Tensors {
    /// No tensors yet, of one file.
    pub(crate) fn of(path: &Path, bytes: Backing) -> Self {
        Self { files: vec![File { path: path.into(), bytes }], ..Self::default() }
    }

    /// Adds a tensor of the first file after checking that its bytes are there.
    pub(crate) fn add(&mut self, info: TensorInfo, steps: Vec<Step>) -> Result<(), FilesError> {
        self.push(Entry { info, file: 0, steps, turned: false })
    }

    fn push(&mut self, entry: Entry) -> Result<(), FilesError> {
        let File { path, bytes } = &self.files[entry.file];
        let (info, file_size) = (&entry.info, (**bytes).as_ref().len());
        let wrong = |problem| {
            let TensorInfo { name, dtype, shape, .. } = info.clone();
            FilesError::Tensor { path: path.clone(), name, dtype, shape, problem, hint: "the file is damaged" }
        };
        let size = info.dtype.size_bytes(&info.shape).map_err(wrong)?;
        let found = info.range.end.checked_sub(info.range.start);
        if found.is_none() || info.range.end > file_size {
            let (what, at) = (format!("tensor `{}`", info.name), info.range.start as u64);
            return Err(FilesError::Cut { path: path.clone(), what, at, needed: size as u64, size: file_size as u64 });
        }
        if entry.steps.is_empty() && found != Some(size) {
            return Err(wrong("its bytes are more or fewer than its shape asks for"));
        }
        if let Some(&earlier) = self.by_name.get(&info.name) {
            let other = self.files[self.entries[earlier].file].path.clone();
            return Err(FilesError::Duplicate { path: path.clone(), name: info.name.clone(), other });
        }
        self.by_name.insert(info.name.clone(), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    /// The tensors of several files as if they were one.
    ///
    /// Errors: a name that occurs in two of them.
    pub fn joined(parts: impl IntoIterator<Item = Self>) -> Result<Self, FilesError> {
        let mut all = Self::default();
        for part in parts {
            let first = all.files.len();
            all.files.extend(part.files);
            for entry in part.entries {
                all.push(Entry { file: first + entry.file, ..entry })?;
            }
        }
        Ok(all)
    }

    /// The same tensors under other names; those for which there is no name are left out.
    ///
    /// Errors: two tensors that get the same name.
    pub fn renamed(self, mut name: impl FnMut(&str) -> Option<String>) -> Result<Self, FilesError> {
        let mut renamed = Self { files: self.files, ..Self::default() };
        for entry in self.entries {
            if let Some(name) = name(&entry.info.name) {
                renamed.push(Entry { info: TensorInfo { name, ..entry.info }, ..entry })?;
            }
        }
        Ok(renamed)
    }

    /// Adds a tensor that is in no file.
    ///
    /// Errors: a name that is already there, bytes that are not as many as the shape asks for.
    pub fn insert(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Result<(), FilesError> {
        let info = TensorInfo { name: name.into(), dtype, shape: shape.into(), range: 0..bytes.len() };
        let path = self.files.first().map(|file| file.path.clone()).unwrap_or_default();
        self.files.push(File { path, bytes: Arc::new(bytes) });
        self.push(Entry { info, file: self.files.len() - 1, steps: Vec::new(), turned: false })
    }

    /// Gives back the memory that the files take where they were read, once their tensors are copied.
    pub fn release(&self) {
        self.files.iter().for_each(|file| file.bytes.release());
    }

    /// The error of a tensor that cannot be laid out in another way.
    fn unmovable(&self, entry: &Entry, problem: &'static str, hint: &'static str) -> FilesError {
        let TensorInfo { name, dtype, shape, .. } = entry.info.clone();
        FilesError::Tensor { path: self.files[entry.file].path.clone(), name, dtype, shape, problem, hint }
    }

    /// Gives a tensor's rows another order: row `i` becomes what row `rows[i]` is. They move when they are read.
    ///
    /// Errors: a tensor that is not there or has another number of rows.
    pub fn reorder_rows(&mut self, name: &str, rows: Vec<usize>) -> Result<(), FilesError> {
        let entry = self.entry(name)?;
        let TensorInfo { dtype, shape, .. } = &entry.info;
        let count = shape.first().copied().unwrap_or(0);
        let splits_blocks = shape.len() < 2 && dtype.is_quantized();
        if splits_blocks || count != rows.len() || rows.iter().any(|&row| row >= count) {
            let hint = "the model's settings and its tensors must come from one file";
            return Err(self.unmovable(entry, "its rows cannot be put in the order of the heads", hint));
        }
        let at = self.by_name[name];
        self.entries[at].steps.push(Step::Rows(rows.into()));
        Ok(())
    }

    /// Makes a matrix's rows its columns. Elements move when they are read; quantized blocks cannot, so that such a matrix
    /// stays as it is and [`Self::is_turned`].
    ///
    /// Law: twice is not at all.
    ///
    /// Errors: a tensor that is not there or has not two dimensions.
    pub fn transpose(&mut self, name: &str) -> Result<(), FilesError> {
        let entry = self.entry(name)?;
        let &[rows, columns] = entry.info.shape.as_slice() else {
            return Err(self.unmovable(entry, "only a matrix can be transposed", "the file is damaged"));
        };
        let at = self.by_name[name];
        let Entry { info, steps, turned, .. } = &mut self.entries[at];
        if info.dtype.is_quantized() {
            *turned = !*turned;
            return Ok(());
        }
        steps.push(Step::transpose(rows, columns, info.dtype.block().1));
        info.shape = vec![columns, rows];
        Ok(())
    }

    /// Whether a tensor's shape and elements are the transpose of what its name stands for.
    pub fn is_turned(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|&at| self.entries[at].turned)
    }

    /// Adds a tensor that is others below each other, which stay as they are.
    ///
    /// Errors: tensors that are not there, are not in one file or differ in type or in the size of a row.
    pub fn stack(&mut self, parts: &[String], name: &str) -> Result<(), FilesError> {
        let Some(first) = parts.first() else { return Ok(()) };
        let first = self.entry(first)?;
        let mut shape = first.info.shape.clone();
        let mut rows = 0_usize;
        let mut ranges = Vec::new();
        for part in parts {
            let part = self.entry(part)?;
            let fits = part.file == first.file && part.info.dtype == first.info.dtype && part.steps.is_empty();
            if !fits || shape.is_empty() || part.info.shape.get(1..) != shape.get(1..) {
                let hint = "the parts must be saved in one file, in one type, with rows of one size";
                return Err(self.unmovable(part, "it cannot be joined with the other parts", hint));
            }
            rows = rows.saturating_add(part.info.shape[0]);
            ranges.push(part.info.range.clone());
        }
        shape[0] = rows;
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let within: Vec<Range<usize>> = ranges.iter().map(|range| range.start - start..range.end - start).collect();
        let info = TensorInfo { name: name.into(), dtype: first.info.dtype, shape, range: start..end };
        let file = first.file;
        self.push(Entry { info, file, steps: vec![Step::Parts(within.into())], turned: false })
    }

    /// What is known of each tensor, in the order of the files.
    pub fn infos(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.entries.iter().map(|entry| &entry.info)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The files that the tensors lie in.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn entry(&self, name: &str) -> Result<&Entry, FilesError> {
        if let Some(&at) = self.by_name.get(name) {
            return Ok(&self.entries[at]);
        }
        let path = self.files.first().map(|file| file.path.clone()).unwrap_or_default();
        let same_end = self.entries.iter().map(|entry| &entry.info.name).find(|known| known.ends_with(name));
        let nearest = match (same_end, self.entries.first()) {
            (Some(near), _) => format!("there is a `{near}`"),
            (None, Some(first)) => format!("it has {} others, such as `{}`", self.len(), first.info.name),
            (None, None) => "it has no tensors at all".to_string(),
        };
        Err(FilesError::NoTensor { path, name: name.into(), nearest })
    }

    /// What is known of the tensor of this name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, FilesError> {
        self.entry(name).map(|entry| &entry.info)
    }

    /// The elements of the tensor of this name in row-major order, little-endian: the file's own bytes where they lie
    /// in that order, else a copy.
    pub fn bytes(&self, name: &str) -> Result<TensorBytes, FilesError> {
        let Entry { info, file, steps, .. } = self.entry(name)?;
        let stored = TensorBytes::new(self.files[*file].bytes.clone(), info.range.clone());
        Ok(laid_out(&stored, steps).map_or_else(|| stored.clone(), Into::into))
    }

    /// [`Self::bytes`] for as long as `self` lives.
    pub(crate) fn cow(&self, name: &str) -> Result<Cow<'_, [u8]>, FilesError> {
        let Entry { info, file, steps, .. } = self.entry(name)?;
        let stored = &(*self.files[*file].bytes).as_ref()[info.range.clone()];
        Ok(laid_out(stored, steps).map_or(Cow::Borrowed(stored), Cow::Owned))
    }

    /// The elements of a tensor of plain floating-point numbers.
    ///
    /// Errors: quantized blocks and integers.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, FilesError> {
        let Entry { info, file, .. } = self.entry(name)?;
        f32_values(info.dtype, &self.cow(name)?).ok_or_else(|| FilesError::Dtype {
            path: self.files[*file].path.clone(),
            name: name.into(),
            found: info.dtype.to_string(),
            supported: "F32, F16, BF16, F64",
        })
    }
}

/// The bytes after all steps; `None` if there are none.
fn laid_out(stored: &[u8], steps: &[Step]) -> Option<Vec<u8>> {
    let (first, rest) = steps.split_first()?;
    Some(rest.iter().fold(first.apply(stored), |bytes, step| step.apply(&bytes)))
}

impl fmt::Debug for Tensors {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_list().entries(self.infos()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::backing;

    fn tensors(file: &str, names: &[&str]) -> Tensors {
        let mut tensors = Tensors::of(Path::new(file), backing(&[0, 1, 10, 11, 20, 21]));
        for name in names {
            let info = TensorInfo { name: (*name).into(), dtype: Dtype::U8, shape: vec![3, 2], range: 0..6 };
            tensors.add(info, Vec::new()).unwrap();
        }
        tensors
    }

    #[test]
    fn a_missing_tensor_is_named_with_one_that_is_near() {
        let error = tensors("m.bin", &["transformer.wte.weight"]).bytes("wte.weight").unwrap_err();
        insta::assert_snapshot!(error.to_string(), @r"
        m.bin: tensor `wte.weight` is missing
        hint: there is a `transformer.wte.weight`
        ");
        let error = tensors("m.bin", &["a", "b"]).bytes("c").unwrap_err();
        insta::assert_snapshot!(error.to_string(), @r"
        m.bin: tensor `c` is missing
        hint: it has 2 others, such as `a`
        ");
    }

    #[test]
    fn a_name_may_occur_once_in_all_files_and_after_renaming() {
        assert!(Tensors::joined([tensors("1", &["a"]), tensors("2", &["b"])]).is_ok());
        let error = Tensors::joined([tensors("1", &["a"]), tensors("2", &["b", "a"])]).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @r"
        2: tensor `a` is already in 1
        hint: a name may occur once in the files of a model
        ");
        assert!(tensors("1", &["a", "b"]).renamed(|_| Some("c".into())).is_err());
        let kept = tensors("1", &["a", "b"]).renamed(|name| (name == "a").then(|| "x".into())).unwrap();
        assert!(kept.len() == 1 && kept.contains("x"));
    }

    #[test]
    fn rows_are_reordered_when_they_are_read() {
        let mut tensors = tensors("m.bin", &["a"]);
        tensors.reorder_rows("a", vec![2, 0, 1]).unwrap();
        assert_eq!(*tensors.bytes("a").unwrap(), [20, 21, 0, 1, 10, 11]);
        tensors.reorder_rows("a", vec![1, 2, 0]).unwrap();
        assert_eq!(*tensors.bytes("a").unwrap(), [0, 1, 10, 11, 20, 21]);
        assert!(tensors.reorder_rows("b", vec![]).is_err());
    }

    #[test]
    fn matrices_are_stacked_and_transposed_when_they_are_read() {
        let mut tensors = tensors("m.bin", &["a", "b"]);
        tensors.reorder_rows("b", vec![2, 1, 0]).unwrap();
        assert!(tensors.stack(&["a".into(), "b".into()], "c").is_err()); // `b` does not lie in order.
        tensors.stack(&["a".into(), "a".into()], "c").unwrap();
        tensors.transpose("c").unwrap();
        assert_eq!(tensors.info("c").unwrap().shape, [2, 6]);
        assert_eq!(*tensors.bytes("c").unwrap(), [0, 10, 20, 0, 10, 20, 1, 11, 21, 1, 11, 21]);
        tensors.insert("d", Dtype::F16, &[2, 1], vec![1, 2, 3, 4]).unwrap();
        tensors.insert("e", Dtype::Q8_0, &[1, 32], vec![0; 34]).unwrap();
        assert!(tensors.insert("d", Dtype::U8, &[], vec![1]).is_err());
        assert!(tensors.insert("f", Dtype::U8, &[2], vec![1]).is_err());
        assert!(tensors.stack(&["a".into(), "d".into()], "g").is_err());
        assert!(tensors.transpose("none").is_err());
        // Blocks stay where they are, and the tensor says so, under another name as well.
        tensors.transpose("e").unwrap();
        assert!(tensors.is_turned("e") && !tensors.is_turned("c"));
        assert_eq!(tensors.info("e").unwrap().shape, [1, 32]);
        let mut tensors = tensors.renamed(|name| Some(format!("x.{name}"))).unwrap();
        assert!(tensors.is_turned("x.e"));
        tensors.transpose("x.e").unwrap();
        assert!(!tensors.is_turned("x.e"));
    }

    #[test]
    fn rows_that_are_not_there_are_refused() {
        for rows in [vec![0, 1], vec![0, 1, 3], vec![0, 1, 2, 2]] {
            assert!(tensors("m.bin", &["a"]).reorder_rows("a", rows).is_err());
        }
    }

    #[test]
    fn bytes_outside_the_file_are_refused() {
        let mut tensors = tensors("m.bin", &[]);
        for range in [0..7, 2..8, 0..5, 7..13] {
            let info = TensorInfo { name: "x".into(), dtype: Dtype::U8, shape: vec![6], range };
            assert!(tensors.add(info, Vec::new()).is_err());
        }
    }
}
