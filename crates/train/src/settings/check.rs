//! From a table of keys to settings, and from settings to settings that can run.

use super::{Arch, PretrainSettings, Warmup};
use crate::SettingsError;
use clap::ValueEnum;
use toml::{Table, Value};

impl PretrainSettings {
    /// The settings that `table` describes, with the defaults for what it does not name. Checks names and types, not
    /// yet whether the values fit together: that is [`PretrainSettings::validate`].
    ///
    /// A number may be written whole where a fraction is allowed, and a list of one without brackets.
    ///
    /// Errors: an unknown key, with the nearest known one; a value of the wrong type or sign.
    pub fn from_table(table: Table) -> Result<Self, SettingsError> {
        let defaults = Self::default().to_table();
        let mut decided = defaults.clone();
        for (key, value) in table {
            let Some(default) = defaults.get(&key) else {
                let nearest = nearest(&key, defaults.keys().map(String::as_str)).map(ToOwned::to_owned);
                return Err(SettingsError::UnknownKey { key, nearest });
            };
            let value = typed(&key, value, default)?;
            decided.insert(key, value);
        }
        Self::deserialize_checked(decided)
    }

    /// The settings as a table, in the order of the fields: what `run.toml` holds.
    ///
    /// Panics: if `seed` is above `i64::MAX`, which no table or flag can say.
    pub fn to_table(&self) -> Table {
        match Value::try_from(self) {
            Ok(Value::Table(table)) => table,
            other => unreachable!("settings are a TOML table, not {other:?}"),
        }
    }

    /// A value for `key` from the text of a flag: `8`, `3e-4`, `true` or words, after the type of the default.
    ///
    /// Errors: an unknown key, or text that is no such value.
    pub fn parse_flag(key: &str, texts: &[String]) -> Result<Value, SettingsError> {
        let defaults = Self::default().to_table();
        let Some(default) = defaults.get(key) else {
            let nearest = nearest(key, defaults.keys().map(String::as_str)).map(ToOwned::to_owned);
            return Err(SettingsError::UnknownKey { key: key.to_owned(), nearest });
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

    /// Deserializes a table whose names and TOML types are right. What is left to be wrong is the name of a variant.
    fn deserialize_checked(table: Table) -> Result<Self, SettingsError> {
        one_of::<Arch>(&table, "arch")?;
        one_of::<super::WindowOrder>(&table, "window_order")?;
        one_of::<super::LrSchedule>(&table, "lr_schedule")?;
        one_of::<super::WeightInit>(&table, "weight_init")?;
        Value::Table(table).try_into().map_err(|error: toml::de::Error| SettingsError::Invalid {
            key: "settings".to_owned(),
            found: error.message().to_owned(),
            expected: "values of the types that `cavy pretrain --help` shows".to_owned(),
            hint: "correct that value".to_owned(),
        })
    }

    /// Checks that the settings can run: sizes above zero, heads that divide the width, fractions in range, rates in
    /// order.
    ///
    /// Errors: the first setting that cannot, with what was found, what was expected and what to do.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.validate_data()?;
        self.validate_model()?;
        self.validate_rates()?;
        self.validate_pace()
    }

    fn validate_data(&self) -> Result<(), SettingsError> {
        let hint = "give a file, a folder or `builtin:stories`";
        demand(!self.data.is_empty(), "data", "nothing", "at least one path", hint)?;
        demand(!self.out.as_os_str().is_empty(), "out", "nothing", "the path of a directory", "give a run directory")?;
        let hint = "0.1 holds back a tenth; or give `val_data` a file";
        let inside = self.val_fraction > 0.0 && self.val_fraction < 1.0;
        demand(inside || !self.val_data.is_empty(), "val_fraction", self.val_fraction, "above 0 and below 1", hint)?;
        if let Some(count) = self.tokenizer.strip_prefix("bpe:") {
            let enough = count.parse::<usize>().is_ok_and(|count| count >= 257);
            let hint = "write for instance `bpe:4096`";
            demand(enough, "tokenizer", &self.tokenizer, "`bpe:N` with N at least 257", hint)?;
        }
        demand(!self.text_key.is_empty(), "text_key", "nothing", "the name of a field", "the usual name is `text`")
    }

    fn validate_model(&self) -> Result<(), SettingsError> {
        let sizes = self.sizes();
        for (key, size) in [
            ("hidden_size", sizes.hidden_size),
            ("num_hidden_layers", sizes.num_hidden_layers),
            ("num_attention_heads", sizes.num_attention_heads),
        ] {
            let hint = "`arch = \"custom\"` needs every size; a published `arch` brings its own";
            demand(size > 0, key, size, "a number above 0", hint)?;
        }
        let (width, heads) = (sizes.hidden_size, sizes.num_attention_heads);
        if !width.is_multiple_of(heads) {
            let below = (1..heads).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1);
            let hint = format!("use {below} heads, or a hidden size of {}", width.next_multiple_of(heads));
            let expected = format!("a number of heads that divides hidden_size = {width}");
            return demand(false, "num_attention_heads", heads, &expected, &hint);
        }
        let hint = "the more a model may look back, the more it costs; 256 is a good start on a CPU";
        demand(self.context_length > 0, "context_length", self.context_length, "a number above 0", hint)?;
        let hint = "0.1 is usual for small data, 0 for large";
        demand((0.0..1.0).contains(&self.drop_rate), "drop_rate", self.drop_rate, "at least 0 and below 1", hint)
    }

    fn validate_rates(&self) -> Result<(), SettingsError> {
        for (key, rate) in [("initial_lr", self.initial_lr), ("peak_lr", self.peak_lr), ("min_lr", self.min_lr)] {
            let hint = "6e-4 is a usual peak at 124M parameters, 1e-3 below 10M";
            demand(rate >= 0.0 && rate.is_finite(), key, rate, "a finite number of at least 0", hint)?;
        }
        let peak = self.peak_lr;
        demand(peak > 0.0, "peak_lr", peak, "a number above 0", "6e-4 is a usual peak at 124M parameters")?;
        let expected = format!("at most peak_lr = {peak}");
        let hint = "a tenth of the peak is usual; for a rate that stays, set `lr_schedule = \"constant\"`";
        demand(self.min_lr <= peak, "min_lr", self.min_lr, &expected, hint)?;
        demand(
            self.initial_lr <= peak,
            "initial_lr",
            self.initial_lr,
            &expected,
            "the warmup rises from it to the peak",
        )?;
        let fraction = self.decay_fraction;
        demand(fraction > 0.0 && fraction <= 1.0, "decay_fraction", fraction, "above 0 and at most 1", "0.2 is usual")?;
        if let Warmup::Steps(steps) = self.warmup_steps {
            let fits = self.max_steps == 0 || steps <= self.max_steps;
            let expected = format!("at most max_steps = {}", self.max_steps);
            demand(fits, "warmup_steps", steps, &expected, "a fraction such as 0.05 fits any number of steps")?;
        }
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            demand((0.0..1.0).contains(&beta), key, beta, "at least 0 and below 1", "0.9 and 0.999 are AdamW's own")?;
        }
        demand(self.eps > 0.0 && self.eps < 1.0, "eps", self.eps, "above 0 and below 1", "1e-8 is AdamW's own")?;
        for (key, value) in [("weight_decay", self.weight_decay), ("max_norm", self.max_norm)] {
            demand(value >= 0.0 && value.is_finite(), key, value, "a finite number of at least 0", "0 turns it off")?;
        }
        let temperature = self.temperature;
        let fits = temperature >= 0.0 && temperature.is_finite();
        demand(fits, "temperature", temperature, "a finite number of at least 0", "0 takes the likeliest token")
    }

    fn validate_pace(&self) -> Result<(), SettingsError> {
        for (key, count) in [
            ("batch_size", self.batch_size),
            ("grad_accum_steps", self.grad_accum_steps),
            ("eval_iter", self.eval_iter),
            ("max_skipped_steps", self.max_skipped_steps),
            ("keep_last", self.keep_last),
            ("log_every", self.log_every),
        ] {
            demand(count > 0, key, count, "a number above 0", "1 is the least")?;
        }
        let steps = self.epochs > 0 || self.max_steps > 0;
        demand(steps, "epochs", self.epochs, "a number above 0", "or set `max_steps`")
    }
}

/// An error for `key` unless `holds`.
#[expect(clippy::needless_pass_by_value, reason = "numbers and borrowed text are handed over as they are")]
fn demand(holds: bool, key: &str, found: impl ToString, expected: &str, hint: &str) -> Result<(), SettingsError> {
    if holds {
        return Ok(());
    }
    let (key, expected, hint) = (key.to_owned(), expected.to_owned(), hint.to_owned());
    Err(SettingsError::Invalid { key, found: found.to_string(), expected, hint })
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
        (Value::Array(_), _) => ("a list of paths", "write for instance [\"a.txt\", \"b.txt\"]"),
        (_, Value::String(_)) => return Ok(value),
        _ => ("text", "put it in quotes"),
    };
    demand(false, key, value, expected, hint).map(|()| Value::Boolean(false))
}

/// Checks that `table[key]` names a variant of `E`.
fn one_of<E: ValueEnum>(table: &Table, key: &str) -> Result<(), SettingsError> {
    let found = table.get(key).and_then(Value::as_str).unwrap_or_default();
    if E::from_str(found, false).is_ok() {
        return Ok(());
    }
    let possible = E::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names: Vec<String> = possible.map(|value| value.get_name().to_owned()).collect();
    let hint = nearest(found, names.iter().map(String::as_str))
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
