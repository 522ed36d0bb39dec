//! A made-up web: prose among copies, menus and spam, for trying curation out and for measuring what it is worth.
//!
//! Everything follows from the seed and the number of a document, so any part can be made without the others.

use crate::document::Document;
use serde_json::Value;

/// What a made document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Prose of its own.
    Clean,
    /// Prose of its own with lines about cookies and terms around it.
    Framed,
    /// One of a few texts that are everywhere, a word changed in half of the copies.
    Copy,
    /// A menu: short lines without an end.
    Menu,
    /// The same offer again and again.
    Spam,
}

impl Sort {
    /// The name in the metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Framed => "framed",
            Self::Copy => "copy",
            Self::Menu => "menu",
            Self::Spam => "spam",
        }
    }
}

/// SplitMix64 with a few draws on top.
struct Random(u64);

impl Random {
    fn of(seed: u64, stream: u64, number: u64) -> Self {
        let mut random =
            Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const NAMES: [&str; 24] = [
    "Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Irene", "Jonas", "Karla", "Leon", "Maria",
    "Niels", "Olga", "Peter", "Quinn", "Rosa", "Simon", "Tessa", "Ulla", "Victor", "Wanda", "Yusuf",
];
const NOUNS: [&str; 40] = [
    "garden",
    "kitchen",
    "harbour",
    "library",
    "mountain",
    "river",
    "station",
    "theatre",
    "village",
    "window",
    "bridge",
    "letter",
    "market",
    "museum",
    "orchard",
    "painting",
    "piano",
    "school",
    "storm",
    "sweater",
    "table",
    "teacher",
    "tower",
    "train",
    "valley",
    "violin",
    "winter",
    "workshop",
    "bakery",
    "candle",
    "castle",
    "farmer",
    "forest",
    "island",
    "journey",
    "lantern",
    "meadow",
    "neighbour",
    "recipe",
    "sailor",
];
const ADJECTIVES: [&str; 24] = [
    "old", "quiet", "bright", "narrow", "famous", "empty", "green", "heavy", "kind", "patient", "broken", "early",
    "gentle", "hidden", "long", "modern", "noisy", "proud", "simple", "strange", "warm", "wooden", "young", "careful",
];
const VERBS: [&str; 20] = [
    "found",
    "painted",
    "visited",
    "repaired",
    "described",
    "remembered",
    "watched",
    "followed",
    "measured",
    "opened",
    "crossed",
    "lost",
    "carried",
    "sold",
    "drew",
    "cleaned",
    "counted",
    "admired",
    "finished",
    "shared",
];
const TIMES: [&str; 14] = [
    "in the morning",
    "after the rain",
    "last spring",
    "before noon",
    "during the war",
    "every Sunday",
    "at midnight",
    "in early autumn",
    "on a cold day",
    "while nobody looked",
    "for many years",
    "without a word",
    "a week later",
    "long before sunrise",
];

/// One sentence; `{n}` is the document's hero, so that what follows can be learnt from what came before.
fn sentence(random: &mut Random, hero: &str, topic: &[&str; 4]) -> String {
    let noun = |random: &mut Random| if random.below(2) == 0 { topic[random.below(4)] } else { random.pick(&NOUNS) };
    let (a, b) = (noun(random), noun(random));
    let (adjective, other) = (random.pick(&ADJECTIVES), random.pick(&ADJECTIVES));
    let (verb, second, time) = (random.pick(&VERBS), random.pick(&VERBS), random.pick(&TIMES));
    let friend = random.pick(&NAMES);
    match random.below(11) {
        0 => format!("{hero} {verb} the {adjective} {a} {time}."),
        1 => format!("The {a} was {adjective}, and {friend} {verb} it {time}."),
        2 => format!("\"Have you {second} the {b}?\" asked {friend}, but {hero} only {verb} the {a}."),
        3 => format!("Nobody in the {a} knew that {hero} had {verb} such {adjective} things with {friend}."),
        4 => format!("{time}, {hero} and {friend} {verb} the {b} of a {other} {a}.", time = capital(time)),
        5 => format!("It seemed {adjective} to {hero} because the {a} had always been {other}."),
        6 => format!("They {verb} the {a} and then {second} the {adjective} {b}."),
        7 => format!("What {friend} {verb} {time} was to be the {a} with the {other} {b}."),
        8 => format!("If the {a} is {adjective}, said {hero}, we have to be {other}."),
        9 => format!("Of all the people {hero} {verb}, {friend} liked the {b} most."),
        _ => format!("A {adjective} {a} stood near the {b}, which {friend} {second} {time}."),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// Prose number `number` of `stream`: three to five paragraphs of three to five sentences.
pub fn prose(seed: u64, stream: u64, number: u64) -> String {
    let mut random = Random::of(seed, stream, number);
    let hero = random.pick(&NAMES);
    let topic = [random.pick(&NOUNS), random.pick(&NOUNS), random.pick(&NOUNS), random.pick(&NOUNS)];
    let paragraphs = 3 + random.below(3);
    let paragraph = |random: &mut Random| {
        let count = 3 + random.below(3);
        (0..count).map(|_| sentence(random, hero, &topic)).collect::<Vec<_>>().join(" ")
    };
    (0..paragraphs).map(|_| paragraph(&mut random)).collect::<Vec<_>>().join("\n")
}

/// How many texts are copied everywhere.
const COPIED: usize = 12;

/// Document `number` of the made web: three tenths prose, one tenth framed, a quarter copies, a fifth menus, three twentieths spam.
pub fn document(seed: u64, number: u64) -> (Document, Sort) {
    let mut random = Random::of(seed, 1, number);
    let sort = match random.below(20) {
        0..6 => Sort::Clean,
        6..8 => Sort::Framed,
        8..13 => Sort::Copy,
        13..17 => Sort::Menu,
        _ => Sort::Spam,
    };
    let text = match sort {
        Sort::Clean => prose(seed, 2, number),
        Sort::Framed => {
            let text = prose(seed, 2, number);
            format!(
                "This site uses cookies to show you what you want.\n{text}\nPlease read our terms of use and the privacy policy."
            )
        }
        Sort::Copy => {
            let text = prose(seed, 3, random.below(COPIED) as u64);
            // The last word of half of the copies is another.
            if random.below(2) == 0 { text } else { format!("{} Copied {}.", text, random.pick(&TIMES)) }
        }
        Sort::Menu => menu(&mut random),
        Sort::Spam => spam(&mut random),
    };
    let mut made = Document { text, id: format!("made-{number}"), ..Document::default() };
    made.metadata
        .insert("url".to_owned(), Value::from(format!("https://www.{}.example/{number}", random.pick(&NOUNS))));
    made.metadata.insert("sort".to_owned(), Value::from(sort.name()));
    (made, sort)
}

fn menu(random: &mut Random) -> String {
    let mut lines = Vec::new();
    for _ in 0..30 + random.below(30) {
        let line = match random.below(4) {
            0 => format!(
                "{} | {} | {}",
                capital(random.pick(&NOUNS)),
                capital(random.pick(&NOUNS)),
                capital(random.pick(&NOUNS))
            ),
            1 => format!("» {} ({})", capital(random.pick(&NOUNS)), random.below(400)),
            2 => format!("{} {}", capital(random.pick(&ADJECTIVES)), random.pick(&NOUNS)),
            _ => "Log in to share".to_owned(),
        };
        lines.push(line);
    }
    lines.join("\n")
}

fn spam(random: &mut Random) -> String {
    let (adjective, noun) = (random.pick(&ADJECTIVES), random.pick(&NOUNS));
    let mut lines = Vec::new();
    for _ in 0..12 + random.below(20) {
        lines.push(match random.below(3) {
            0 => format!(
                "Buy the {adjective} {noun} now at $ {}.99 only!!! Best {adjective} {noun} online!!!",
                random.below(90)
            ),
            1 => format!("Click here for {adjective} {noun} and {adjective} {noun} with free shipping of {noun}!!!"),
            _ => {
                format!("Best {adjective} {noun} online, best {adjective} {noun} deals, best {adjective} {noun} store.")
            }
        });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::fineweb_filters;
    use crate::scratch::Scratch;
    use std::collections::BTreeMap;

    #[test]
    fn the_filters_keep_prose_and_drop_the_rest() {
        let filters = fineweb_filters();
        let mut kept: BTreeMap<Sort, (usize, usize)> = BTreeMap::new();
        let mut scratch = Scratch::default();
        for number in 0..1000 {
            let (mut made, sort) = document(5, number);
            scratch.forget();
            let stays = filters.iter().all(|filter| filter.drops(&mut made, &mut scratch).is_none());
            let count = kept.entry(sort).or_default();
            count.0 += usize::from(stays);
            count.1 += 1;
            if stays {
                assert!(!made.text.contains("cookies") && !made.text.contains("privacy"), "{}", made.text);
            }
        }
        for sort in [Sort::Clean, Sort::Framed, Sort::Copy] {
            assert!(kept[&sort].0 as f64 >= 0.9 * kept[&sort].1 as f64, "{sort:?}: {kept:?}");
        }
        assert_eq!((kept[&Sort::Menu].0, kept[&Sort::Spam].0), (0, 0), "{kept:?}");
    }

    #[test]
    fn a_number_always_makes_the_same_document() {
        assert_eq!(document(1, 77), document(1, 77));
        assert_ne!(document(1, 77).0.text, document(2, 77).0.text);
    }
}
