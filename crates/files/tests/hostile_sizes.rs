//! No file makes a reader ask for much more memory than the file has bytes, whatever sizes it claims: every field of the
//! golden files in turn says that something is huge.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use cavy_files::pth::{Part, Pth};
use cavy_files::{Gguf, HuggingFace, Llama2c, Safetensors, Tensors, hugging_face};
use peak_alloc::PeakAlloc;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most bytes beside the file. The files have at most 12 KB; what they claim begins at 99 MB.
const MOST: usize = 1 << 20;

fn golden(name: &str) -> Vec<u8> {
    fs_err::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/files").join(name)).unwrap()
}

/// Reads a file with every reader of its kind, and what can be made of it.
fn read(name: &str, bytes: Vec<u8>) {
    let (path, bytes) = (PathBuf::from(name), Arc::new(bytes));
    let gathered = |tensors: &Tensors| tensors.infos().take(16).for_each(|info| drop(tensors.bytes(&info.name)));
    let whole = |config, tensors: Tensors| {
        gathered(&tensors);
        drop((HuggingFace { config, tensors }).to_gguf(&path));
    };
    match path.extension().and_then(OsStr::to_str).unwrap() {
        "gguf" => {
            if let Ok(model) = Gguf::parse(&path, bytes).and_then(HuggingFace::from_gguf) {
                whole(model.config, model.tensors);
            }
        }
        "pth" => {
            for part in [Part::Model, Part::Whole] {
                if let Ok(read) = Pth::parse(&path, bytes.clone(), part) {
                    gathered(&read.tensors);
                    drop(hugging_face::from_book(read.tensors));
                }
            }
        }
        "bin" => {
            if let Ok(read) = Llama2c::parse(&path, bytes) {
                whole(read.header.config(), read.tensors);
            }
        }
        _ => {
            if let Ok(read) = Safetensors::parse(&path, bytes) {
                gathered(&read.tensors);
                drop(hugging_face::from_book(read.tensors));
            }
        }
    }
}

/// Fails if reading `bytes` takes more than [`MOST`] beside them.
fn check(name: &str, what: &str, bytes: Vec<u8>) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    read(name, bytes);
    let peak = MEMORY.peak_usage().saturating_sub(before);
    assert!(peak <= MOST, "{name}, {what}: {peak} bytes");
}

#[test]
fn a_size_that_a_file_claims_is_not_asked_for() {
    let sizes: [&[u8]; 6] = [
        &[0xFF; 8],
        &(1_u64 << 40).to_le_bytes(),
        &(i64::MAX as u64).to_le_bytes(),
        &(1_u32 << 31).to_le_bytes(),
        &(i32::MAX as u32).to_le_bytes(),
        b"99999999",
    ];
    let names = [
        "tiny.gguf",
        "llama.gguf",
        "tiny.safetensors",
        "plain.pth",
        "views.pth",
        "nested.pth",
        "expanded.pth",
        "tiny.llama2c.bin",
    ];
    for name in names {
        let whole = golden(name);
        check(name, "as it is", whole.clone());
        // Headers and metadata come first, the directory of an archive last.
        let places = (0..whole.len()).filter(|at| *at < 3000 || at + 1000 > whole.len());
        for at in places {
            for size in sizes.iter().filter(|size| at + size.len() <= whole.len()) {
                let mut bytes = whole.clone();
                bytes[at..at + size.len()].copy_from_slice(size);
                check(name, &format!("{size:?} at {at}"), bytes);
            }
        }
    }
}
