//! The curated documents, shuffled and tokenized.

use crate::error::CliError;
use cavy_curate::read::parse_line;
use cavy_text::rng::Rng;
use cavy_text::{Document, Place, TextError, Tokenizer, shards};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Writes the documents of `files` in the order that `seed` decides; says how many tokens there are.
///
/// In memory are only the places of the documents, 16 bytes each.
pub(super) fn write(folder: &Path, files: &[PathBuf], tokenizer: &Tokenizer, seed: u64) -> Result<usize, CliError> {
    let mut places: Vec<(u32, u32, u64)> = Vec::new();
    for (index, path) in files.iter().enumerate() {
        let mut file = BufReader::new(fs_err::File::open(path).map_err(CliError::read(path))?);
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let length = file.read_until(b'\n', &mut line).map_err(CliError::read(path))?;
            if length == 0 {
                break;
            }
            places.push((index as u32, length as u32, at));
            at += length as u64;
        }
    }
    Rng::new(seed).shuffle(&mut places);
    let mut open: Vec<Option<fs_err::File>> = files.iter().map(|_| None).collect();
    let documents = places.into_iter().map(|(index, length, at)| {
        let path = &files[index as usize];
        let failed = |source| TextError::Read { path: path.clone(), source };
        let file = match &mut open[index as usize] {
            Some(file) => file,
            slot => slot.insert(fs_err::File::open(path).map_err(failed)?),
        };
        let mut line = vec![0; length as usize];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut line)).map_err(failed)?;
        let document = parse_line(&line).map_err(|found| failed(std::io::Error::other(found)))?;
        Ok(Document { text: document.text, place: Place::File(path.clone()) })
    });
    Ok(shards::write(folder, documents, tokenizer, shards::SHARD_TOKENS)?.len())
}
