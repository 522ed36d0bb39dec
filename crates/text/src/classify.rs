//! Labelled texts for classification: CSV, TSV, JSON lines, JSON, Parquet, and the form of the SMS Spam Collection.

use crate::rows::{self, Row, field_names, type_name};
use crate::{ItemProblem, Place, SpecialTokens, TextError, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// A text and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// Its tokens, at most `max_length`.
    pub ids: Vec<u32>,
    /// The index of its label among [`LabelledTexts::labels`].
    pub label: usize,
    /// The text.
    pub text: String,
    /// Where it came from.
    pub place: Place,
}

/// How labelled texts are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifySettings {
    /// The column of texts
    pub text_column: String,
    /// The column of labels
    pub label_column: String,
    /// The labels in the order of their indices (empty: those of the data, sorted)
    pub labels: Vec<String>,
    /// Tokens of a text, at most (0: no bound); the rest is cut off
    pub max_length: usize,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        Self { text_column: "text".to_owned(), label_column: "label".to_owned(), labels: Vec::new(), max_length: 1024 }
    }
}

/// What [`load`] made of its sources.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledTexts {
    /// The texts in the order of the files.
    pub texts: Vec<LabelledText>,
    /// The labels by index.
    pub labels: Vec<String>,
    /// How many texts have each label.
    pub counts: Vec<usize>,
    /// Texts that were cut to `max_length`.
    pub cut: usize,
    /// Tokens of all texts.
    pub tokens: usize,
}

impl LabelledTexts {
    /// The accuracy of always saying the most frequent label: what a classifier has to beat.
    pub fn majority_share(&self) -> f64 {
        let most = self.counts.iter().copied().max().unwrap_or(0);
        most as f64 / self.texts.len().max(1) as f64
    }

    /// As many texts of each label as the rarest has, the first of each, in their order.
    pub fn balanced(&self) -> Vec<usize> {
        let least = self.counts.iter().copied().min().unwrap_or(0);
        let mut taken = vec![0; self.labels.len()];
        let keep = |&at: &usize| {
            let label = self.texts[at].label;
            taken[label] += 1;
            taken[label] <= least
        };
        (0..self.texts.len()).filter(keep).collect()
    }
}

impl fmt::Display for LabelledTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} texts, {} tokens, {} cut", self.texts.len(), self.tokens, self.cut)?;
        for (label, count) in self.labels.iter().zip(&self.counts) {
            let share = 100.0 * *count as f64 / self.texts.len().max(1) as f64;
            write!(f, "\n  {label}: {count} ({share:.1} %)")?;
        }
        Ok(())
    }
}

/// Reads labelled texts: rows with a text and a label column, or lines `label<tab>text` without a header in a `.tsv` or
/// other text file, as the SMS Spam Collection has them; or `builtin:spam`.
///
/// A text is encoded as it is, with BOS before it if the model wants one and no end-of-text token after it.
///
/// # Errors
/// An unreadable source; a missing field, an empty text, a label that is not among `labels`, each with its line; fewer than
/// two labels.
pub fn load(
    sources: &[String],
    settings: &ClassifySettings,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
) -> Result<LabelledTexts, TextError> {
    let mut pairs = Vec::new();
    for source in sources {
        for row in labelled_rows(source, settings)? {
            let (label, text) =
                read_row(&row, settings).map_err(|problem| TextError::Item { place: row.place.clone(), problem })?;
            pairs.push((label, text, row.place));
        }
    }
    let labels = if settings.labels.is_empty() {
        let mut labels: Vec<String> = pairs.iter().map(|(label, ..)| label.clone()).collect();
        labels.sort_by(|a, b| by_number(a, b));
        labels.dedup();
        labels
    } else {
        settings.labels.clone()
    };
    if labels.len() < 2 {
        let (found, expected) = (format!("{labels:?}"), "at least two labels".to_owned());
        return Err(TextError::Setting { name: "labels", found, expected });
    }
    let encoded: Vec<Result<(LabelledText, bool), TextError>> = pairs
        .into_par_iter()
        .map(|(label, text, place)| encode(&label, text, place, &labels, settings, tokenizer, special))
        .collect();
    let mut texts = Vec::with_capacity(encoded.len());
    let (mut counts, mut cut) = (vec![0; labels.len()], 0);
    for encoded in encoded {
        let (text, was_cut) = encoded?;
        counts[text.label] += 1;
        cut += usize::from(was_cut);
        texts.push(text);
    }
    let tokens = texts.iter().map(|text| text.ids.len()).sum();
    Ok(LabelledTexts { texts, labels, counts, cut, tokens })
}

/// Numbers by their size, before words by their letters.
fn by_number(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        _ => a.cmp(b),
    }
}

fn encode(
    label: &str,
    text: String,
    place: Place,
    labels: &[String],
    settings: &ClassifySettings,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
) -> Result<(LabelledText, bool), TextError> {
    let item = |problem| TextError::Item { place: place.clone(), problem };
    let Some(label) = labels.iter().position(|known| known == label) else {
        let known = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        return Err(item(ItemProblem::UnknownLabel { label: label.to_owned(), known }));
    };
    let mut ids = tokenizer.encode_ordinary(&text).map_err(|error| item(ItemProblem::Encode(error.to_string())))?;
    if special.add_bos {
        ids.splice(0..0, special.bos);
    }
    let is_long = settings.max_length > 0 && ids.len() > settings.max_length;
    if is_long {
        ids.truncate(settings.max_length);
    }
    Ok((LabelledText { ids, label, text, place }, is_long))
}

/// Rows with the settings' columns.
fn labelled_rows(source: &str, settings: &ClassifySettings) -> Result<Vec<Row>, TextError> {
    let path = Path::new(source);
    let ends_in = |ending: &str| source.to_lowercase().ends_with(ending);
    let named = [".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".gz"].iter().any(|ending| ends_in(ending));
    if source.starts_with("builtin:") || named {
        return rows::open(source);
    }
    let bytes = fs_err::read(path).map_err(|error| TextError::read(path, error))?;
    let records = rows::records(&bytes, path, b'\t')?;
    let has_header = records.first().is_some_and(|(_, names)| names.contains(&settings.text_column));
    if has_header {
        return rows::read_delimited(&bytes, path, b'\t');
    }
    let columns = [settings.label_column.clone(), settings.text_column.clone()];
    let row = |(line, record): (usize, Vec<String>)| match <[String; 2]>::try_from(record) {
        Ok(record) => {
            let fields = columns.iter().cloned().zip(record.into_iter().map(Value::from)).collect();
            Ok(Row { fields, place: Place::Line(path.to_path_buf(), line) })
        }
        Err(record) => {
            let reason = format!("found {} fields, expected a label, a tab and a text", record.len());
            Err(TextError::BadRow { path: path.to_path_buf(), line, reason })
        }
    };
    records.into_iter().map(row).collect()
}

/// Label and text of a row.
fn read_row(row: &Row, settings: &ClassifySettings) -> Result<(String, String), ItemProblem> {
    let field = |column: &String| {
        let missing = || ItemProblem::MissingColumn { column: column.clone(), found: field_names(&row.fields) };
        row.fields.get(column).ok_or_else(missing)
    };
    let wrong = |column: &String, value: &Value, expected| ItemProblem::Type {
        field: column.clone(),
        found: type_name(value).to_owned(),
        expected,
    };
    let label = match field(&settings.label_column)? {
        Value::String(label) => label.trim().to_owned(),
        label @ (Value::Number(_) | Value::Bool(_)) => label.to_string(),
        other => return Err(wrong(&settings.label_column, other, "a name or a number")),
    };
    let text = match field(&settings.text_column)? {
        Value::String(text) => text.clone(),
        other => return Err(wrong(&settings.text_column, other, "a text")),
    };
    if label.is_empty() {
        return Err(ItemProblem::Empty { field: settings.label_column.clone() });
    }
    if text.trim().is_empty() {
        return Err(ItemProblem::Empty { field: settings.text_column.clone() });
    }
    Ok((label, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(name: &str, text: &str, settings: &ClassifySettings) -> Result<LabelledTexts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs_err::write(&path, text).unwrap();
        let special = SpecialTokens { bos: Some(256), add_bos: true, ..SpecialTokens::default() };
        let loaded = load(&[path.display().to_string()], settings, &Tokenizer::bytes(), &special);
        loaded.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn message(name: &str, text: &str) -> String {
        load_text(name, text, &ClassifySettings::default()).unwrap_err()
    }

    #[test]
    fn the_same_texts_are_read_from_every_form() {
        let settings = ClassifySettings::default();
        let expected = load_text("a.csv", "label,text\nspam,\"a, b\"\nham,c\n", &settings).unwrap();
        assert_eq!((expected.labels.join(" "), &expected.counts), ("ham spam".to_owned(), &vec![1, 1]));
        assert_eq!(expected.texts[0].ids, [256, 97, 44, 32, 98]);
        assert_eq!((expected.texts[0].label, expected.texts[1].label), (1, 0));
        for (name, text) in [
            ("a.tsv", "label\ttext\nspam\ta, b\nham\tc\n"),
            ("SMSSpamCollection", "spam\ta, b\nham\tc\n"),
            ("b.tsv", "spam\ta, b\nham\tc\n"),
            ("a.jsonl", "{\"label\": \"spam\", \"text\": \"a, b\"}\n{\"label\": \"ham\", \"text\": \"c\"}"),
            ("a.json", "[{\"label\": \"spam\", \"text\": \"a, b\"}, {\"label\": \"ham\", \"text\": \"c\"}]"),
        ] {
            let found = load_text(name, text, &settings).unwrap();
            let ids = |loaded: &LabelledTexts| {
                loaded.texts.iter().map(|text| (text.ids.clone(), text.label)).collect::<Vec<_>>()
            };
            assert_eq!(ids(&found), ids(&expected), "{name}");
        }
    }

    #[test]
    fn labels_may_be_numbers_and_have_an_order() {
        let text =
            "[{\"label\": 10, \"text\": \"a\"}, {\"label\": 9, \"text\": \"b\"}, {\"label\": 9, \"text\": \"c\"}]";
        let loaded = load_text("a.json", text, &ClassifySettings::default()).unwrap();
        assert_eq!(loaded.labels, ["9", "10"]);
        assert_eq!(loaded.balanced(), [0, 1]);
        assert!((loaded.majority_share() - 2.0 / 3.0).abs() < 1e-12);
        insta::assert_snapshot!(loaded.to_string(), @r"
        3 texts, 6 tokens, 0 cut
          9: 2 (66.7 %)
          10: 1 (33.3 %)
        ");
        let labels = vec!["10".to_owned(), "9".to_owned()];
        let loaded =
            load_text("a.json", text, &ClassifySettings { labels, max_length: 1, ..ClassifySettings::default() })
                .unwrap();
        assert_eq!((loaded.texts[0].label, loaded.cut, loaded.texts[0].ids.as_slice()), (0, 3, &[256][..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        insta::assert_snapshot!(message("a.csv", "label,body\nspam,a\n"), @r#"
        a.csv:2: found the fields `label`, `body`, expected the column `text`
        hint: name it, e.g. `text_column = "message"`
        "#);
        insta::assert_snapshot!(message("a.csv", "label,text\nspam,a\nham, \n"), @r#"
        a.csv:3: `text` is empty
        hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
        "#);
        insta::assert_snapshot!(message("a.csv", "label,text\n,a\n"), @r#"
        a.csv:2: `label` is empty
        hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
        "#);
        insta::assert_snapshot!(message("a.csv", "label,text\nspam,a\nspam,b\n"), @r#"`labels` is ["spam"], expected at least two labels"#);
        insta::assert_snapshot!(message("a.txt", "spam\ta\nham\n"), @"a.txt:2: found 1 fields, expected a label, a tab and a text");
        insta::assert_snapshot!(message("a.jsonl", "{\"label\": [1], \"text\": \"a\"}"), @"a.jsonl:1: `label` is a list, expected a name or a number");
        let settings = ClassifySettings { labels: vec!["ham".into(), "spam".into()], ..ClassifySettings::default() };
        insta::assert_snapshot!(load_text("a.csv", "label,text\nspam,a\nspan,b\n", &settings).unwrap_err(), @"a.csv:3: the label `span` is none of `ham`, `spam`");
    }

    #[test]
    fn the_built_in_messages_are_labelled() {
        let special = SpecialTokens::default();
        let loaded =
            load(&["builtin:spam:100".to_owned()], &ClassifySettings::default(), &Tokenizer::gpt2(), &special).unwrap();
        assert_eq!((loaded.texts.len(), loaded.labels.join(" ")), (100, "ham spam".to_owned()));
    }
}
