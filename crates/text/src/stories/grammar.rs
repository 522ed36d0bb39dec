//! Templates: `[a|b|c]` is one of the three, `{name}` a value set before, `{Name}` the same with a capital letter.

use super::words::Table;
use crate::rng::Rng;
use std::collections::BTreeMap;

/// The facts of one story: names and their values, settled before it is told, so that it cannot contradict itself.
#[derive(Default)]
pub(crate) struct Facts {
    values: BTreeMap<&'static str, String>,
}

impl Facts {
    /// Settles `name` as what `template` tells now.
    pub(crate) fn set(&mut self, name: &'static str, template: &str, rng: &mut Rng) {
        let value = self.tell(template, rng);
        self.values.insert(name, value);
    }

    /// Settles one row of `table`.
    pub(crate) fn draw(&mut self, table: &Table, rng: &mut Rng) {
        let row: &str = rng.pick::<&str>(table.rows);
        for (name, cell) in table.names.iter().zip(row.split(" / ")) {
            self.set(name, cell, rng);
        }
    }

    /// The value of `name`.
    ///
    /// # Panics
    /// If it is not settled.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("the templates name `{name}`, which no table of the plot settles"))
    }

    /// All facts as one text: two stories with the same plot and facts are the same story told in other words.
    pub(crate) fn key(&self) -> String {
        self.values.values().fold(String::new(), |key, value| key + value + "|")
    }

    /// One telling of `template`, with single spaces and none at the ends.
    pub(crate) fn tell(&self, template: &str, rng: &mut Rng) -> String {
        let mut told = String::with_capacity(2 * template.len());
        self.expand(template, rng, &mut told);
        let mut tidy = String::with_capacity(told.len());
        for word in told.split_ascii_whitespace() {
            if !tidy.is_empty() {
                tidy.push(' ');
            }
            tidy.push_str(word);
        }
        tidy
    }

    fn expand(&self, template: &str, rng: &mut Rng, told: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{']) {
            told.push_str(&rest[..at]);
            let (open, after) = (rest.as_bytes()[at], &rest[at + 1..]);
            if open == b'[' {
                let (options, end) = options(after);
                let option: &str = rng.pick::<&str>(&options);
                self.expand(option, rng, told);
                rest = &after[end..];
            } else {
                let end = after.find('}').unwrap_or_else(|| panic!("`{template}` lacks a closing brace"));
                self.push_value(&after[..end], told);
                rest = &after[end + 1..];
            }
        }
        told.push_str(rest);
    }

    /// Adds the value of `name`: `{He}` is `{he}` with a capital letter, `{a toy}` is `{toy}` with its article.
    fn push_value(&self, name: &str, told: &mut String) {
        let (article, name) = match name.strip_prefix("a ").or_else(|| name.strip_prefix("A ")) {
            Some(rest) => (Some(name.starts_with('A')), rest),
            None => (None, name),
        };
        let capital = article.is_none() && !self.values.contains_key(name);
        let value = if capital { self.get(&name.to_lowercase()) } else { self.get(name) };
        if let Some(capital) = article {
            told.push_str(match (capital, starts_with_vowel(value)) {
                (false, false) => "a ",
                (false, true) => "an ",
                (true, false) => "A ",
                (true, true) => "An ",
            });
        }
        let mut letters = value.chars();
        match letters.next() {
            Some(first) if capital => told.extend(first.to_uppercase().chain(letters)),
            Some(_) => told.push_str(value),
            None => {}
        }
    }
}

/// Whether the article before `word` is "an": by its letter, which is right for all words of the tables.
pub(crate) fn starts_with_vowel(word: &str) -> bool {
    word.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U'])
}

/// The alternatives of a choice whose opening bracket has been read, and where the text after it begins.
fn options(text: &str) -> (Vec<&str>, usize) {
    let (mut options, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 0 => {
                options.push(&text[start..at]);
                return (options, at + 1);
            }
            b']' => depth -= 1,
            b'|' if depth == 0 => {
                options.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("`{text}` lacks a closing bracket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_choose_and_fill_in() {
        let mut facts = Facts::default();
        let mut rng = Rng::new(1);
        facts.set("he", "she", &mut rng);
        facts.set("toy", "orange ball", &mut rng);
        assert_eq!(facts.tell("{He} has {a toy}.  {A toy}! [|]", &mut rng), "She has an orange ball. An orange ball!");
        let told: std::collections::BTreeSet<String> = (0..200).map(|_| facts.tell("[a|b[c|d]]e", &mut rng)).collect();
        assert_eq!(told.into_iter().collect::<Vec<_>>(), ["ae", "bce", "bde"]);
    }
}
