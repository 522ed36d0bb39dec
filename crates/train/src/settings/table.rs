//! From a table of keys, or the text of flags, to the settings of any verb.

use super::check::demand;
use super::{CheckpointSettings, EvaluationSettings, OptimizationSettings, RunSettings, Warmup};
use crate::SettingsError;
use clap::builder::PossibleValue;
use clap::{Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use toml::{Table, Value};

/// The settings of a verb that trains.
pub trait Settings: Args + Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned {
    /// What it is called on the command line and in recipes.
    const VERB: &'static str;
    /// Keys of its own that change neither weights nor data, so that a resumed run may have others. What the paths of
    /// data hold is compared by fingerprint.
    const FREE: &'static [&'static str];

    /// Where the run lives.
    fn run(&self) -> &RunSettings;
    /// The same, to change it.
    fn run_mut(&mut self) -> &mut RunSettings;
    /// How parameters are changed.
    fn optimization(&self) -> &OptimizationSettings;
    /// How often the run is measured.
    fn evaluation(&self) -> &EvaluationSettings;
    /// What is kept.
    fn checkpoints(&self) -> &CheckpointSettings;

    /// Why `precision = "auto"` is f32 whatever the machine has, if it is.
    fn needs_f32(&self) -> Option<&'static str> {
        None
    }

    /// Checks that the settings can run: sizes above zero, heads that divide the width, fractions in range, rates in
    /// order.
    ///
    /// Errors: the first setting that cannot, with what was found, what was expected and what to do.
    fn validate(&self) -> Result<(), SettingsError>;

    /// Fills in the settings whose default depends on others.
    #[must_use]
    fn decided(self) -> Self {
        self
    }

    /// Checks the groups that all verbs share.
    ///
    /// Errors: as [`Settings::validate`].
    fn validate_groups(&self) -> Result<(), SettingsError> {
        self.run().validate()?;
        self.optimization().validate()?;
        self.evaluation().validate()?;
        self.checkpoints().validate()
    }

    /// Whether a resumed run may have another value for `key`.
    fn is_free(key: &str) -> bool {
        let groups = [&RunSettings::FREE[..], &EvaluationSettings::FREE, &CheckpointSettings::FREE, Self::FREE];
        groups.iter().any(|keys| keys.contains(&key))
    }

    /// The settings that `table` describes, with the defaults for what it does not name. Checks names and types, not
    /// yet whether the values fit together: that is [`Settings::validate`].
    ///
    /// A number may be written whole where a fraction is allowed, and a list of one without brackets.
    ///
    /// Errors: an unknown key, with the nearest known one; a value of the wrong type or sign.
    fn from_table(table: Table) -> Result<Self, SettingsError> {
        let defaults = Self::default().to_table();
        let mut decided = defaults.clone();
        for (key, value) in table {
            let Some(default) = defaults.get(&key) else {
                let nearest = nearest(&key, defaults.keys().map(String::as_str)).map(ToOwned::to_owned);
                return Err(SettingsError::UnknownKey { verb: Self::VERB, key, nearest });
            };
            let value = typed(&key, value, default)?;
            decided.insert(key, value);
        }
        for flag in Self::augment_args(Command::new(Self::VERB)).get_arguments() {
            let key = flag.get_id().as_str();
            // A default that is no variant stands for none.
            if decided.get(key) != defaults.get(key) {
                one_of(&decided, key, &flag.get_possible_values())?;
            }
        }
        let settings: Self = Value::Table(decided).try_into().map_err(|error: toml::de::Error| {
            let key = "settings".to_owned();
            let expected = format!("values of the types that `cavy {} --help` shows", Self::VERB);
            SettingsError::Invalid {
                key,
                found: error.message().to_owned(),
                expected,
                hint: "correct that value".into(),
            }
        })?;
        Ok(settings.decided())
    }

    /// The settings as a table, in the order of the fields: what `run.toml` holds.
    ///
    /// Panics: if `seed` is above `i64::MAX`, which no table or flag can say.
    fn to_table(&self) -> Table {
        match Value::try_from(self) {
            Ok(Value::Table(table)) => table,
            other => unreachable!("settings are a TOML table, not {other:?}"),
        }
    }

    /// A value for `key` from the text of a flag: `8`, `3e-4`, `true` or words, after the type of the default.
    ///
    /// Errors: an unknown key, or text that is no such value.
    fn parse_flag(key: &str, texts: &[String]) -> Result<Value, SettingsError> {
        let defaults = Self::default().to_table();
        let Some(default) = defaults.get(key) else {
            let nearest = nearest(key, defaults.keys().map(String::as_str)).map(ToOwned::to_owned);
            return Err(SettingsError::UnknownKey { verb: Self::VERB, key: key.to_owned(), nearest });
        };
        let text = texts.last().map_or("", String::as_str);
        let number = || {
            let whole = text.parse().map(Value::Integer);
            whole.or_else(|_| text.parse().map(Value::Float)).unwrap_or_else(|_| Value::String(text.to_owned()))
        };
        let value = match default {
            Value::Array(_) => Value::Array(texts.iter().cloned().map(Value::String).collect()),
            Value::Integer(_) | Value::Float(_) => number(),
            Value::Boolean(_) => text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean),
            _ => Value::String(text.to_owned()),
        };
        typed(key, value, default)
    }
}

/// `value` as the type of `default`, or an error that says what that type is.
fn typed(key: &str, value: Value, default: &Value) -> Result<Value, SettingsError> {
    let (expected, hint) = match (default, &value) {
        // The warmup is a count or a fraction, so its own type checks it.
        (_, Value::Integer(_) | Value::Float(_)) if key == "warmup_steps" => {
            let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)).unwrap_or(f64::NAN);
            if Warmup::try_from(number).is_ok() {
                return Ok(value);
            }
            ("a count of steps, or a fraction of all steps between 0 and 1", "0.05 is usual")
        }
        (Value::Integer(_), Value::Integer(count)) if *count >= 0 => return Ok(value),
        (Value::Integer(_), _) => ("a whole number of at least 0", "write it without sign, point or quotes"),
        (Value::Float(_), Value::Float(_)) | (Value::Boolean(_), Value::Boolean(_)) => return Ok(value),
        (Value::Float(_), Value::Integer(whole)) => return Ok(Value::Float(*whole as f64)),
        (Value::Float(_), _) => ("a number", "write it without quotes, for instance 0.1 or 3e-4"),
        (Value::Boolean(_), _) => ("true or false", "write it without quotes"),
        (Value::Array(_), Value::String(_)) => return Ok(Value::Array(vec![value])),
        (Value::Array(_), Value::Array(items)) if items.iter().all(Value::is_str) => return Ok(value),
        (Value::Array(_), _) => ("a list of texts", "write for instance [\"a.txt\", \"b.txt\"]"),
        (_, Value::String(_)) => return Ok(value),
        _ => ("text", "put it in quotes"),
    };
    demand(false, key, value, expected, hint).map(|()| Value::Boolean(false))
}

/// Checks that `table[key]` is one of the names that its flag takes, where those are few.
fn one_of(table: &Table, key: &str, possible: &[PossibleValue]) -> Result<(), SettingsError> {
    let Some(found) = table.get(key).and_then(Value::as_str) else { return Ok(()) };
    let names: Vec<&str> = possible.iter().map(PossibleValue::get_name).collect();
    if names.is_empty() || names.contains(&found) {
        return Ok(());
    }
    let hint = nearest(found, names.iter().copied())
        .map_or_else(|| format!("write for instance `{}`", names[0]), |name| format!("did you mean `{name}`?"));
    demand(false, key, format!("`{found}`"), &format!("one of `{}`", names.join("`, `")), &hint)
}

/// The name most like `found`, if one is like it at all.
///
/// Numbers: Jaro-Winkler similarity of at least 0.75, with dashes read as underscores.
pub fn nearest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.replace('-', "_");
    let likeness = |name: &str| strsim::jaro_winkler(&found, &name.replace('-', "_"));
    let scored = names.into_iter().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= 0.75);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
