//! From defaults, a TOML file and flags to decided settings, in that order.

use crate::error::{CliError, parts};
use cavy_train::{Settings, SettingsError};
use clap::builder::NonEmptyStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use miette::{NamedSource, SourceSpan};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// `command` with one flag for each setting of `S`; the help shows the default.
pub(crate) fn with_settings<S: Settings>(command: Command) -> Command {
    let defaults = S::default().to_table();
    // The settings describe themselves; the verb keeps its own description.
    let about = command.get_about().cloned().unwrap_or_default();
    S::augment_args(command).about(about).long_about(None).mut_args(|flag| match defaults.get(flag.get_id().as_str()) {
        Some(default) => as_setting(flag, default),
        None => flag,
    })
}

/// A flag that takes text: what it must be is decided where the settings are checked, for flags and files alike.
fn as_setting(flag: Arg, default: &Value) -> Arg {
    let shown = match default {
        Value::String(text) => Some(text.clone()),
        Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => Some(format!("{number:e}")),
        Value::Array(_) => None,
        other => Some(other.to_string()),
    };
    let flag_is_data = ["data", "val_data"].contains(&flag.get_id().as_str());
    let flag = flag.required(false).allow_negative_numbers(true);
    let flag = match shown {
        Some(shown) => flag.default_value(lasting(shown)),
        None => flag,
    };
    match default {
        Value::Array(_) => flag
            .action(ArgAction::Append)
            .num_args(1..)
            .value_name(if flag_is_data { "PATH" } else { "NAME" })
            .value_parser(NonEmptyStringValueParser::new()),
        Value::Boolean(_) => flag
            .action(ArgAction::Set)
            .num_args(0..=1)
            .default_missing_value("true")
            .value_name("true|false")
            .value_parser(clap::value_parser!(String)),
        _ if !flag.get_possible_values().is_empty() => {
            let names: Vec<_> = flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            flag.action(ArgAction::Set).value_name(lasting(names.join("|"))).value_parser(clap::value_parser!(String))
        }
        Value::Integer(_) => flag.action(ArgAction::Set).value_name("N").value_parser(clap::value_parser!(String)),
        Value::Float(_) => flag.action(ArgAction::Set).value_name("X").value_parser(clap::value_parser!(String)),
        _ if flag.get_id() == "out" => {
            flag.action(ArgAction::Set).value_name("DIR").value_parser(clap::value_parser!(String))
        }
        _ => flag.action(ArgAction::Set).value_name("TEXT").value_parser(clap::value_parser!(String)),
    }
}

/// `text` for the length of the program, as clap asks of names and defaults: a few words, made once.
fn lasting(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// The settings that the user typed as flags.
///
/// Errors: a value that its setting cannot take, named as a flag.
pub(crate) fn given_flags<S: Settings>(matches: Option<&ArgMatches>) -> Result<Table, CliError> {
    let mut table = Table::new();
    let Some(matches) = matches else { return Ok(table) };
    for key in S::default().to_table().keys() {
        if matches.value_source(key) != Some(ValueSource::CommandLine) {
            continue;
        }
        let texts: Vec<String> = matches.get_many(key).into_iter().flatten().cloned().collect();
        table.insert(key.clone(), S::parse_flag(key, &texts).map_err(|error| as_flag(&error))?);
    }
    Ok(table)
}

/// The error of a setting that came as a flag.
fn as_flag(error: &SettingsError) -> CliError {
    let (message, hint) = parts(error);
    let flag = format!("`--{}`", error.key().replace('_', "-"));
    CliError::Usage { message: message.replacen(&format!("`{}`", error.key()), &flag, 1), hint }
}

/// A TOML file that remembers where its keys are.
#[derive(Debug)]
pub(crate) struct TomlFile {
    name: String,
    text: String,
    /// What the file says.
    pub(crate) table: Table,
}

impl TomlFile {
    /// Reads and parses the file at `path`.
    ///
    /// Errors: the disk's; text that is no TOML, with its place.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let text = fs_err::read_to_string(path).map_err(CliError::read(path))?;
        Self::parse(path.display().to_string(), text)
    }

    /// Parses `text`, which errors call `name`.
    ///
    /// Errors: text that is no TOML, with its place.
    pub(crate) fn parse(name: String, text: String) -> Result<Self, CliError> {
        match text.parse() {
            Ok(table) => Ok(Self { name, text, table }),
            Err(error) => {
                let file = Self { name, text, table: Table::new() };
                let hint = Some("lines look like `batch_size = 4` or `tokenizer = \"gpt2\"`".to_owned());
                Err(file.error(error.message().to_owned(), hint, error.span()))
            }
        }
    }

    /// Its first line.
    pub(crate) fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// An error at a place of this file.
    pub(crate) fn error(&self, message: String, hint: Option<String>, at: Option<Range<usize>>) -> CliError {
        let source_code = Arc::new(NamedSource::new(&self.name, self.text.clone()).with_language("toml"));
        CliError::InFile { message, source_code, at: at.map(SourceSpan::from), hint }
    }

    /// The error of a setting that this file sets: at the top, or in its stage number `stage`.
    pub(crate) fn setting_error(&self, error: &SettingsError, stage: Option<usize>) -> CliError {
        let (message, hint) = parts(error);
        self.error(message, hint, self.place(error.key(), stage))
    }

    /// Where `key` stands: at the top, or in a stage.
    pub(crate) fn place(&self, key: &str, stage: Option<usize>) -> Option<Range<usize>> {
        let whole = DeTable::parse(&self.text).ok()?;
        let Some(stage) = stage else { return key_place(whole.get_ref(), key) };
        let stages = whole.get_ref().iter().find(|(name, _)| name.get_ref() == "stage")?.1;
        let DeValue::Array(stages) = stages.get_ref() else { return None };
        match stages.get(stage).map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => key_place(table, key),
            _ => None,
        }
    }
}

fn key_place(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some(name.span().start..value.span().end)
}

/// The settings that defaults, `file` and `flags` decide. Not yet validated, since some verbs need no data.
///
/// Errors: an unknown or impossible key of the file, with its line.
pub(crate) fn resolve<S: Settings>(file: Option<&TomlFile>, flags: &Table) -> Result<S, CliError> {
    let mut table = file.map_or_else(Table::new, |file| file.table.clone());
    if let Some(file) = file {
        S::from_table(table.clone()).map_err(|error| file.setting_error(&error, None))?;
    }
    table.extend(flags.clone());
    S::from_table(table).map_err(|error| as_flag(&error))
}

/// Checks settings, and blames the flag or the line that is at fault.
///
/// Errors: the first setting that cannot run.
pub(crate) fn validate(settings: &impl Settings, file: Option<&TomlFile>, flags: &Table) -> Result<(), CliError> {
    let blame = |error: SettingsError| match file {
        _ if flags.contains_key(error.key()) => as_flag(&error),
        Some(file) if file.table.contains_key(error.key()) => file.setting_error(&error, None),
        _ => CliError::from(error),
    };
    settings.validate().map_err(blame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cavy_train::PretrainSettings;

    #[test]
    fn every_setting_is_a_flag_whose_help_shows_its_default() {
        let mut command = with_settings::<PretrainSettings>(Command::new("pretrain"));
        let help = command.render_long_help().to_string();
        for (key, default) in PretrainSettings::default().to_table() {
            let flag = command.get_arguments().find(|flag| flag.get_id() == key.as_str()).unwrap();
            let has_default = !flag.get_default_values().is_empty();
            assert_eq!(has_default, !default.is_array(), "{key}");
            assert!(help.contains(&format!("--{} ", key.replace('_', "-"))), "{key} is not in the help");
        }
        assert!(help.contains("[default: 6e-4]") && help.contains("[default: gpt2-124m]"), "{help}");
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let file = TomlFile::parse("x.toml".into(), "batch_size = 8\nmax_norm = 2".into()).unwrap();
        let command = with_settings::<PretrainSettings>(Command::new("pretrain"));
        let matches =
            command.get_matches_from(["pretrain", "--max-norm", "3", "--qkv-bias", "false", "--data", "a", "b"]);
        let settings =
            resolve::<PretrainSettings>(Some(&file), &given_flags::<PretrainSettings>(Some(&matches)).unwrap())
                .unwrap();
        assert_eq!(
            (settings.optimization.batch_size, settings.optimization.max_norm, settings.qkv_bias),
            (8, 3.0, false)
        );
        assert_eq!((settings.data, settings.optimization.grad_accum_steps), (vec!["a".to_owned(), "b".to_owned()], 1));
    }

    #[test]
    fn an_unknown_key_is_found_in_its_stage() {
        let text = "[recipe]\nname = 'x'\n[[stage]]\nname = 'a'\n[[stage]]\nbach = 1\n";
        let file = TomlFile::parse("x.toml".into(), text.into()).unwrap();
        let at = file.place("bach", Some(1)).unwrap();
        assert_eq!(&text[at], "bach = 1");
        assert_eq!(file.place("bach", Some(0)), None);
    }
}
