//! `cavy data`: from raw text and web archives to what models are trained on.

mod curate;
mod look;
mod make;
mod page;
mod pays;
mod preferences;
mod quality;
mod shards;

use crate::Ending;
use crate::error::CliError;
use cavy_curate::CurateError;
use cavy_curate::recipe::Recipe;
use cavy_text::Tokenizer;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read, filter and deduplicate documents by a recipe
    Curate(curate::CurateArgs),
    /// Show why documents are kept or dropped, rule by rule
    Look(look::LookArgs),
    /// Train the same small model on raw, filtered and deduplicated text, and compare
    Pays(pays::PaysArgs),
    /// Have a model answer instructions several times, and a reward model or a rule make pairs of better and worse answers
    Preferences(preferences::PreferencesArgs),
    /// Train a classifier of good and bad text from examples
    TrainQuality(quality::QualityArgs),
    /// Make a small web of prose, copies, menus and spam to try curation on
    Make(make::MakeArgs),
}

/// Runs the verb.
pub(crate) fn data(args: &DataArgs) -> Result<Ending, CliError> {
    match &args.verb {
        Verb::Curate(args) => curate::curate(args),
        Verb::Look(args) => look::look(args),
        Verb::Pays(args) => pays::run(args),
        Verb::Preferences(args) => preferences::run(args),
        Verb::TrainQuality(args) => quality::run(args),
        Verb::Make(args) => make::run(args),
    }
}

/// FineWeb's order, which is the recipe where none is given.
const FINEWEB: &str = include_str!("../../../recipes/fineweb.toml");

/// The recipe in `path`, or FineWeb's; and the folder from which its paths are read.
fn recipe(path: Option<&Path>) -> Result<(Recipe, PathBuf), CliError> {
    let Some(path) = path else { return Ok((Recipe::parse(FINEWEB).map_err(explained)?, PathBuf::new())) };
    let text = fs_err::read_to_string(path).map_err(CliError::read(path))?;
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok((Recipe::parse(&text).map_err(|error| in_file(path, error))?, base))
}

fn in_file(path: &Path, error: CurateError) -> CliError {
    match error {
        CurateError::Recipe { found, hint } => CliError::usage(format!("{}: {found}", path.display()), hint),
        other => explained(other),
    }
}

/// What the library says, as the program says it.
fn explained(error: CurateError) -> CliError {
    match error {
        CurateError::Read { path, source } => CliError::Read { path, source },
        CurateError::Write { path, source } => CliError::Write { path, source },
        CurateError::Recipe { found, hint } => CliError::usage(found, hint),
        other => {
            let message = other.to_string();
            let (message, hint) =
                message.split_once(", hint: ").map_or((message.as_str(), None), |(text, hint)| (text, Some(hint)));
            CliError::Failed { message: message.to_owned(), hint: hint.map(str::to_owned), source: None }
        }
    }
}

/// The tokenizer that a recipe names: `gpt2`, `bytes`, or a `tokenizer.json`; none for an empty name.
fn tokenizer(name: &str, base: &Path) -> Result<Option<Tokenizer>, CliError> {
    Ok(match name {
        "" => None,
        "gpt2" => Some(Tokenizer::gpt2()),
        "byte" | "bytes" => Some(Tokenizer::bytes()),
        path => Some(Tokenizer::from_file(base.join(path))?),
    })
}
