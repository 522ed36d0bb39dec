//! Data sets that the program makes itself, as rows: `builtin:instructions`, `builtin:preferences`, `builtin:spam`.
//!
//! Each has a side for training and one that is held out (`builtin:instructions-held-out`); a number after a colon says
//! how many items (`builtin:spam:500`). The items are always the same ones: a run's seed does not change them.

use crate::rows::{Fields, Row};
use crate::spam::{self, Balance};
use crate::stories::{self, Split};
use crate::{Place, TextError};
use serde_json::Value;

/// What built-in names begin with.
const PREFIX: &str = "builtin:";
/// What the names of held-out sides end with.
const HELD_OUT: &str = "-held-out";
/// Decides the items.
const SEED: u64 = 1;
/// More items are not made.
const MOST: usize = 100_000;

/// The data sets: name, items for training and items held out where no number is given.
const SETS: [(&str, usize, usize); 4] = [
    ("instructions", 4000, 400),
    ("preferences", 1000, 100),
    ("spam", 2000, 500),
    // One in seven is spam, as in the SMS Spam Collection.
    ("spam-unbalanced", 2000, 500),
];

/// The name of the held-out side of a built-in source; `None` if `source` is none, or is one already.
pub fn held_out(source: &str) -> Option<String> {
    let name = source.strip_prefix(PREFIX)?.split(':').next()?;
    SETS.iter().any(|(known, ..)| *known == name).then(|| format!("{PREFIX}{name}{HELD_OUT}"))
}

/// The rows of a built-in data set; `None` if `source` does not name one.
///
/// # Errors
/// [`TextError::Builtin`] for a name or number that there is not.
pub fn rows(source: &str) -> Option<Result<Vec<Row>, TextError>> {
    let named = source.strip_prefix(PREFIX)?;
    let unknown = || TextError::Builtin {
        found: source.to_owned(),
        names: SETS.map(|(name, ..)| format!("`{PREFIX}{name}`")).join(", "),
    };
    let (name, count) = match named.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (named, None),
    };
    let (name, side) = match name.strip_suffix(HELD_OUT) {
        Some(name) => (name, Split::HeldOut),
        None => (name, Split::Train),
    };
    let Some(&(name, train, held_out)) = SETS.iter().find(|(known, ..)| *known == name) else {
        return Some(Err(unknown()));
    };
    let usual = if side == Split::Train { train } else { held_out };
    let Some(count) = count.map_or(Some(usual), |count| count.parse().ok()).filter(|count| (1..=MOST).contains(count))
    else {
        return Some(Err(unknown()));
    };
    Some(Ok(make(name, side, count)))
}

fn make(name: &'static str, side: Split, count: usize) -> Vec<Row> {
    let row = |number: usize, fields: &[(&str, &str)]| Row {
        fields: fields.iter().map(|(field, text)| ((*field).to_owned(), Value::from(*text))).collect::<Fields>(),
        place: Place::Made(name, number),
    };
    match name {
        "instructions" => stories::tasks(SEED, side, count)
            .iter()
            .enumerate()
            .map(|(number, task)| {
                let fields = [("instruction", &*task.instruction), ("input", &*task.input), ("output", &*task.output)];
                row(number, &fields)
            })
            .collect(),
        "preferences" => stories::preferences(SEED, side, count)
            .iter()
            .enumerate()
            .map(|(number, pair)| {
                let task = &pair.task;
                let asked = [("instruction", &*task.instruction), ("input", &*task.input)];
                let answers = [("output", &*pair.chosen), ("chosen", &*pair.chosen), ("rejected", &*pair.rejected)];
                row(number, &[&asked[..], &answers[..]].concat())
            })
            .collect(),
        _ => {
            let balance = if name == "spam" { Balance::Even } else { Balance::OneInSeven };
            let messages = spam::messages(SEED, side, count, balance);
            let number = |(number, message): (usize, &spam::Sms)| {
                row(number, &[("label", message.label()), ("text", &message.text)])
            };
            messages.iter().enumerate().map(number).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_made_by_name_side_and_number() {
        let count = |source: &str| rows(source).unwrap().unwrap().len();
        assert_eq!(count("builtin:instructions:30"), 30);
        assert_eq!(count("builtin:preferences-held-out"), 100);
        assert_eq!(count("builtin:spam-unbalanced-held-out:7"), 7);
        assert!(rows("spam.csv").is_none());
        assert_eq!(held_out("builtin:spam:500").as_deref(), Some("builtin:spam-held-out"));
        assert_eq!(held_out("builtin:spam-held-out"), None);
        assert_eq!(held_out("a.json"), None);
        let row = &rows("builtin:preferences:1").unwrap().unwrap()[0];
        assert_eq!(row.place.to_string(), "preferences #0");
        assert_eq!(row.fields.keys().collect::<Vec<_>>(), ["instruction", "input", "output", "chosen", "rejected"]);
    }

    #[test]
    fn names_that_are_not_there_are_refused() {
        for source in ["builtin:poems", "builtin:spam:0", "builtin:spam:x", "builtin:spam:1000000"] {
            let message = rows(source).unwrap().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{source}`")) && message.contains("`builtin:spam`"), "{message}");
        }
    }
}
