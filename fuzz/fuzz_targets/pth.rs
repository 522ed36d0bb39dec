#![no_main]
//! Any bytes as a PyTorch checkpoint: as the archive if they begin as one, else as the pickle in one.

use cavy_files::pth::{Part, Pth};
use cavy_fuzz::{check, path};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// An archive with this pickle and three storages of 48 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let storage = [0; 48];
    let members = [("m/data.pkl", pickle), ("m/data/0", &storage), ("m/data/1", &storage), ("m/data/2", &storage)];
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let (size, length) = ((bytes.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        directory.extend([b"PK\x01\x02".as_slice(), &[0; 16], &size, &size, &length, &[0; 12]].concat());
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend([b"PK\x03\x04".as_slice(), &[0; 14], &size, &size, &length, &[0; 2], name.as_bytes()].concat());
        file.extend(bytes);
    }
    let (start, count) = ((file.len() as u32).to_le_bytes(), (members.len() as u16).to_le_bytes());
    let end = [b"PK\x05\x06".as_slice(), &[0; 4], &count, &count, &(directory.len() as u32).to_le_bytes(), &start];
    [file, directory, end.concat(), vec![0; 2]].concat()
}

fuzz_target!(|data: &[u8]| {
    let file = if data.starts_with(b"PK") { data.to_vec() } else { archive(data) };
    for part in [Part::Model, Part::Whole] {
        if let Ok(read) = Pth::parse(path(), Arc::new(file.clone()), part) {
            check(&read.tensors);
        }
    }
});
