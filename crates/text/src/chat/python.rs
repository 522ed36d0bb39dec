//! Where minijinja differs from Jinja2 under Python as transformers sets it up.

use super::refuse;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value as Json;

/// Makes filters, tests, functions and methods those that a chat template finds in transformers.
pub(super) fn make_python(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", refuse);
    environment.add_filter("tojson", to_json);
    environment.add_test("sequence", |value: &Value| {
        value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
}

/// Python's methods that minijinja's own collection lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            "index" => {
                let (wanted,): (&str,) = from_args(args)?;
                let at = text.find(wanted);
                let missing = || Error::new(ErrorKind::InvalidOperation, "substring not found");
                return Ok(text[..at.ok_or_else(missing)?].chars().count().into());
            }
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, args)
}

/// Transformers' `tojson`: Python's `json.dumps` with `ensure_ascii=False`, and nothing escaped for HTML.
fn to_json(state: &mut State, value: &Value, args: Kwargs) -> Result<Value, Error> {
    let ascii = args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = args.get::<Option<usize>>("indent")?.filter(|&width| width <= 64);
    let separators = args.get::<Option<Vec<String>>>("separators")?;
    args.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::BadSerialization, "an undefined value is not JSON"));
    }
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if sorted {
        json.sort_all_objects();
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut text = String::new();
    JsonStyle { ascii, indent, item, key }.write(&json, 0, &mut text);
    state.consume_fuel(text.len() as u64 / 16)?;
    Ok(text.into())
}

/// How `json.dumps` is asked to write.
struct JsonStyle {
    ascii: bool,
    indent: Option<usize>,
    /// Between items, and between a key and its value.
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, value: &Json, depth: usize, text: &mut String) {
        match value {
            Json::Null => text.push_str("null"),
            Json::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => text.push_str(&float_text(float)),
                _ => text.push_str(&number.to_string()),
            },
            Json::String(string) => self.write_string(string, text),
            Json::Array(items) => self.write_all(['[', ']'], items.iter(), depth, text, |item, text| {
                self.write(item, depth + 1, text);
            }),
            Json::Object(fields) => self.write_all(['{', '}'], fields.iter(), depth, text, |(name, field), text| {
                self.write_string(name, text);
                text.push_str(&self.key);
                self.write(field, depth + 1, text);
            }),
        }
    }

    fn write_all<T>(
        &self,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        text: &mut String,
        write: impl Fn(T, &mut String),
    ) {
        let is_empty = items.len() == 0;
        let line = |depth: usize| match self.indent {
            Some(width) if !is_empty => format!("\n{}", " ".repeat(width * depth)),
            _ => String::new(),
        };
        text.push(open);
        for (at, item) in items.enumerate() {
            if at > 0 {
                text.push_str(&self.item);
            }
            text.push_str(&line(depth + 1));
            write(item, text);
        }
        text.push_str(&line(depth));
        text.push(close);
    }

    fn write_string(&self, string: &str, text: &mut String) {
        let quoted = Json::from(string).to_string();
        if !self.ascii {
            text.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                text.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format_args!("\\u{unit:04x}").to_string());
                }
            }
        }
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent from 1e16 on and below 1e-4.
fn float_text(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{float:?}"),
    }
}
