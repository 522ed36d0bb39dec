//! Writing files whole or not at all, one tensor at a time.

use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::tensors::Tensors;
use std::borrow::Cow;
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A tensor on its way into a file. Its bytes are asked for when they are written and dropped after, so that saving
/// never holds a second copy of a model.
pub struct Outgoing<'a> {
    /// Its name in the file.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Sizes of its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Makes its elements in row-major order, little-endian.
    pub bytes: Producer<'a>,
}

/// Makes the bytes of a tensor.
pub type Producer<'a> = Box<dyn FnOnce() -> Result<Cow<'a, [u8]>, FilesError> + 'a>;

impl<'a> Outgoing<'a> {
    /// A tensor whose bytes are at hand.
    pub fn new(name: &str, dtype: Dtype, shape: &[usize], bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self { name: name.into(), dtype, shape: shape.into(), bytes: Box::new(|| Ok(bytes)) }
    }

    /// Every tensor of `tensors`, read when it is written.
    pub fn all(tensors: &'a Tensors) -> impl Iterator<Item = Self> {
        tensors.infos().map(move |info| {
            let name = info.name.as_str();
            let bytes = move || tensors.cow(name);
            Self { name: name.into(), dtype: info.dtype, shape: info.shape.clone(), bytes: Box::new(bytes) }
        })
    }

    /// Bytes of its elements.
    ///
    /// Errors: a shape that its type cannot have.
    pub(crate) fn size_bytes(&self, path: &Path) -> Result<usize, FilesError> {
        self.dtype.size_bytes(&self.shape).map_err(|problem| FilesError::Tensor {
            path: path.into(),
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            problem,
            hint: "save it in another type",
        })
    }

    /// Writes the elements.
    ///
    /// Panics: if there are more or fewer bytes than the shape asks for.
    pub(crate) fn write(self, to: &mut AtomicFile) -> Result<(), FilesError> {
        let size = self.size_bytes(&to.path)?;
        let bytes = (self.bytes)()?;
        assert_eq!(bytes.len(), size, "bytes of `{}`, {} {:?}", self.name, self.dtype, self.shape);
        to.write(&bytes)
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Outgoing({}, {}, {:?})", self.name, self.dtype, self.shape)
    }
}

/// A file that appears under its name only once it is whole: written aside, synced and renamed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once the file has its name.
    file: Option<BufWriter<fs_err::File>>,
}

impl AtomicFile {
    /// Begins a file beside `path`.
    pub fn create(path: &Path) -> Result<Self, FilesError> {
        let Some(name) = path.file_name() else { return Err(FilesError::Folder { path: path.into() }) };
        let mut aside = std::ffi::OsString::from(".");
        aside.push(name);
        aside.push(".tmp");
        let temporary = path.with_file_name(aside);
        let file = fs_err::File::create(&temporary).map_err(|source| FilesError::write(path, source))?;
        Ok(Self { path: path.into(), temporary, file: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| FilesError::write(&self.path, source))
    }

    /// Writes zeros up to a whole number of `alignment` bytes, where `at` bytes are written.
    pub(crate) fn pad(&mut self, at: usize, alignment: usize) -> Result<(), FilesError> {
        self.write(&vec![0; at.next_multiple_of(alignment) - at])
    }

    /// Syncs the file and gives it its name.
    pub fn commit(mut self) -> Result<(), FilesError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let finish = || {
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs_err::rename(&self.temporary, &self.path)?;
            // The name itself is on the disk only once the folder is; not every system can sync a folder.
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Ok(folder) = fs_err::File::open(folder.unwrap_or(Path::new("."))) {
                let _best_effort = folder.sync_all();
            }
            Ok(())
        };
        let finished = finish();
        finished.map_err(|source| {
            let _left_behind = fs_err::remove_file(&self.temporary);
            FilesError::write(&self.path, source)
        })
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _left_behind = fs_err::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_given_up_leaves_the_old_one_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        let names = || fs_err::read_dir(folder.path()).unwrap().count();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"old").unwrap();
        file.commit().unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        drop(file);
        assert_eq!((fs_err::read(&path).unwrap().as_slice(), names()), (b"old".as_slice(), 1));
    }

    #[test]
    fn a_file_replaced_keeps_its_bytes_for_those_who_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        fs_err::write(&path, b"old").unwrap();
        let held = crate::map(&path).unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(((*held).as_ref(), fs_err::read(&path).unwrap().as_slice()), (&b"old"[..], &b"new"[..]));
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(&folder.path().join("none/model.bin")).unwrap_err();
        assert!(error.to_string().contains("model.bin"), "{error}");
    }
}
