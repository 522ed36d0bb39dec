//! Which format a file is in.

use crate::backing::map;
use crate::error::FilesError;
use crate::{Gguf, Llama2c, Pth, Safetensors, Tensors, pth};
use std::path::{Path, PathBuf};

/// The formats of model files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A `.safetensors` file, the index of its shards or a folder with either.
    Safetensors,
    /// A `.gguf` file.
    Gguf,
    /// A PyTorch checkpoint, the index of its shards or a folder with either and no safetensors.
    Pth,
    /// A `.bin` file of llama2.c.
    Llama2c,
}

/// What a folder's tensors are in: one file, or the index of several.
const SAFETENSORS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
const PYTORCH: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The PyTorch checkpoint, or the index of its shards, in a folder.
fn pytorch_of(folder: &Path) -> Option<PathBuf> {
    PYTORCH.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

impl Format {
    /// Tells the format by a file's first bytes and, where they say nothing, by its name.
    ///
    /// Errors: a file that is not there. One of no known format is taken for the most likely one, whose reader then says
    /// what is wrong with it.
    pub fn detect(path: &Path) -> Result<Self, FilesError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            let is_pth = !SAFETENSORS.iter().any(|name| path.join(name).exists()) && pytorch_of(path).is_some();
            return Ok(if is_pth { Self::Pth } else { Self::Safetensors });
        }
        if path.ends_with(PYTORCH[1]) {
            return Ok(Self::Pth);
        }
        if matches!(extension, "safetensors" | "json") {
            return Ok(Self::Safetensors);
        }
        let file = map(path)?;
        let file = (*file).as_ref();
        Ok(match file {
            [b'G', b'G', b'U', b'F', ..] => Self::Gguf,
            [b'P', b'K', ..] | [0x80, ..] => Self::Pth,
            _ if matches!(extension, "pth" | "pt" | "ckpt") => Self::Pth,
            _ if extension == "gguf" => Self::Gguf,
            // The length of a safetensors header, below 2^32, then its JSON.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Self::Safetensors,
            _ => Self::Llama2c,
        })
    }

    /// The tensors of a file of any format, under the names it has them.
    pub fn load_tensors(path: &Path) -> Result<Tensors, FilesError> {
        Ok(match Self::detect(path)? {
            Self::Safetensors => Safetensors::load(path)?.tensors,
            Self::Gguf => Gguf::load(path)?.tensors,
            Self::Pth => {
                let path = pytorch_of(path).unwrap_or_else(|| path.into());
                let is_index = path.ends_with(PYTORCH[1]);
                if is_index { Pth::load_shards(&path)? } else { Pth::load(&path, pth::Part::Model)?.tensors }
            }
            Self::Llama2c => Llama2c::load(path)?.tensors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{golden, golden_bytes, test_input};

    #[test]
    fn formats_are_told_by_their_bytes_whatever_the_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, format, tensors) in [
            ("tiny.safetensors", Format::Safetensors, 6),
            ("tiny.gguf", Format::Gguf, 11),
            ("nested.pth", Format::Pth, 4),
            ("tiny.llama2c.bin", Format::Llama2c, 20),
        ] {
            let other = folder.path().join("pytorch_model.bin");
            fs_err::write(&other, golden_bytes(name)).unwrap();
            for path in [golden(name), other] {
                assert_eq!(Format::detect(&path).unwrap(), format, "{path:?}");
                assert_eq!(Format::load_tensors(&path).unwrap().len(), tensors, "{path:?}");
            }
        }
        assert_eq!(Format::detect(&golden("sharded")).unwrap(), Format::Safetensors);
        let folder = golden("sharded_pth");
        assert_eq!(Format::detect(&folder).unwrap(), Format::Pth);
        for path in [folder.clone(), folder.join(PYTORCH[1])] {
            let tensors = Format::load_tensors(&path).unwrap();
            assert_eq!(tensors.len(), 3);
            assert_eq!(tensors.f32("b").unwrap(), test_input(4, 2));
        }
        assert_eq!(Format::detect(&golden("legacy.pth")).unwrap(), Format::Pth);
        assert!(Format::detect(&golden("absent")).unwrap_err().to_string().contains("no such file"));
    }
}
