//! `cavy data make`: the built-in web of prose, copies, menus and spam.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_curate::generator::{document, prose};
use cavy_curate::read::write_line;
use clap::Args;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    /// Folder for `raw/*.jsonl` and `held-out.jsonl`
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Documents of the web
    #[arg(long, default_value_t = 4000)]
    pub(crate) documents: u64,
    /// Files that they are spread over
    #[arg(long, default_value_t = 4)]
    pub(crate) files: u64,
    /// Documents of clean prose that none of the web's is
    #[arg(long, default_value_t = 200)]
    pub(crate) held_out: u64,
    /// Which web
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// The stream of the generator that the web does not draw from.
const HELD_OUT: u64 = 9;

/// Writes it.
pub(crate) fn run(args: &MakeArgs) -> Result<Ending, CliError> {
    let raw = args.out.join("raw");
    fs_err::create_dir_all(&raw).map_err(CliError::write(&raw))?;
    let files = args.files.clamp(1, args.documents.max(1));
    for file in 0..files {
        let numbers = args.documents * file / files..args.documents * (file + 1) / files;
        lines(&raw.join(format!("{file:04}.jsonl")), numbers.map(|number| document(args.seed, number).0))?;
    }
    let path = args.out.join("held-out.jsonl");
    let clean = |number| cavy_curate::Document {
        id: format!("held-out-{number}"),
        ..cavy_curate::Document::of(prose(args.seed, HELD_OUT, number))
    };
    lines(&path, (0..args.held_out).map(clean))?;
    text::say(&format!(
        "{} documents in {}, {} clean ones in {}",
        args.documents,
        raw.display(),
        args.held_out,
        path.display()
    ));
    Ok(Ending::Done)
}

fn lines(path: &Path, documents: impl Iterator<Item = cavy_curate::Document>) -> Result<(), CliError> {
    let mut file = BufWriter::new(fs_err::File::create(path).map_err(CliError::write(path))?);
    let mut line = Vec::new();
    for document in documents {
        line.clear();
        write_line(&document, &mut line);
        line.push(b'\n');
        file.write_all(&line).map_err(CliError::write(path))?;
    }
    file.flush().map_err(CliError::write(path))
}
