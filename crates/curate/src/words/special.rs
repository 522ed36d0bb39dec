//! Pieces with a rule of their own: contractions, abbreviations, times and the frequent emoticons.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// Longest piece with a rule, in bytes; longer ones are not looked up.
const LONGEST: usize = 16;

/// Pieces that stay whole.
const WHOLE: &str = "' '' \\\") <space> C++ and/or w/o 'Cause 'Cos 'Coz 'Cuz 'S 'bout 'cause 'cos 'coz 'cuz 'd 'em 'll 'nuff 're 's ’ ’’ ’S \
    ’bout ’cause ’d ’em ’ll ’nuff ’re ’s ‘S ‘s ma'am Ma'am ma’am Ma’am o'clock O'clock o’clock O’clock \
    a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü. \
    Adm. Ak. Ala. Apr. Ariz. Ark. Aug. Bros. Calif. Co. Colo. Conn. Corp. D.C. Dec. Del. Dr. E.G. E.g. Feb. Fla. Ga. Gen. Gov. I.E. \
    I.e. Ia. Id. Ill. Inc. Ind. Jan. Jr. Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs. Mich. Minn. Miss. Mo. Mont. Mr. Mrs. \
    Ms. Mt. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. Ph.D. Prof. Rep. Rev. S.C. Sen. Sep. Sept. St. Tenn. \
    Va. Wash. Wis. a.m. co. e.g. i.e. p.m. v.s. vs. :) :-) :)) :-)) :))) (: (-: =) (= :] :-] [: :} 8) 8-) ;) ;-) (; (-; :( :-( :(( ): )-: \
    =( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD \
    ^_^ ^__^ >.< <.< ._. -_- v.v V.V v_v V_V o_o O_O o.o O.O 0.0 0_0 o.0 0.o <3 <33 <333 </3 @_@ ¯\\(ツ)/¯ —";
/// Colloquial words that stay whole with the apostrophe at their end, too.
const DROPPED_G: [&str; 9] = ["doin", "goin", "nothin", "nuthin", "ol", "somethin", "lovin", "havin", "Ol"];
/// Verbs before `n't` and `nt`, and before `n't've` and `ntve`.
const NOT_HAVE: [&str; 15] = [
    "ca", "could", "do", "does", "did", "had", "may", "might", "must", "need", "ought", "sha", "should", "wo", "would",
];
/// Verbs before `n't` and `nt` alone.
const NOT: [&str; 8] = ["ai", "are", "is", "was", "were", "have", "has", "dare"];
/// Words with all of the endings of `wh` words.
const ASKING: [&str; 11] = ["who", "what", "when", "where", "why", "how", "there", "that", "this", "these", "those"];
/// Joined forms that are words of their own.
const NOT_SPLIT: [&str; 8] = ["ill", "its", "hell", "shell", "shed", "were", "well", "whore"];

type Rules = HashMap<Box<str>, Box<[u8]>>;

/// The rules by their bytes, and masks over (first byte, length) of all and of those that consist of letters, which spare most
/// words the look-up.
struct Table {
    rules: HashMap<u128, Box<[u8]>, BuildHasherDefault<Folded>>,
    any: [u32; 256],
    letters: [u32; 256],
}

/// The bytes of a piece of at most [`LONGEST`] as a number.
fn number(piece: &str) -> u128 {
    let mut bytes = [0; LONGEST];
    bytes[..piece.len()].copy_from_slice(piece.as_bytes());
    u128::from_le_bytes(bytes)
}

/// A hash of such numbers, at less cost than the standard library's.
#[derive(Clone, Copy, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(u128::from(byte));
        }
    }
    fn write_u128(&mut self, number: u128) {
        let mixed =
            (self.0 ^ number as u64 ^ ((number >> 64) as u64).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut rules = Rules::new();
    for whole in WHOLE.split_whitespace() {
        add(&mut rules, &[whole]);
    }
    for word in DROPPED_G {
        for form in [word.to_owned(), titled(word)] {
            add(&mut rules, &[&form]);
            add(&mut rules, &[&format!("{form}'")]);
            add(&mut rules, &[&format!("{form}’")]);
        }
    }
    contractions(&mut rules);
    for hour in 1..=12 {
        for half in ["am", "a.m.", "pm", "p.m."] {
            add(&mut rules, &[&hour.to_string(), half]);
        }
    }
    for parts in
        ["gon na", "Gon na", "got ta", "Got ta", "can not", "Can not", "y all", "y' all", "c'm on", "let 's", "Let 's"]
    {
        add(&mut rules, &parts.split(' ').collect::<Vec<_>>());
    }
    let (mut any, mut letters) = ([0; 256], [0; 256]);
    for rule in rules.keys() {
        let (first, bit) = (rule.as_bytes()[0] as usize, 1 << rule.len());
        any[first] |= bit;
        if rule.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            letters[first] |= bit;
        }
    }
    Table { rules: rules.into_iter().map(|(rule, parts)| (number(&rule), parts)).collect(), any, letters }
});

/// `don't`, `dont`, `she'll've` and so on, with both apostrophes and both cases of the first letter.
fn contractions(rules: &mut Rules) {
    let mut join = |stem: &str, endings: &[&str]| {
        for stem in [stem.to_owned(), titled(stem)] {
            let mut parts = vec![stem.as_str()];
            parts.extend(endings);
            let bare: Vec<String> = parts.iter().map(|part| part.replace('\'', "")).collect();
            let bare: Vec<&str> = bare.iter().map(String::as_str).collect();
            let joined = bare.concat().to_lowercase();
            if !NOT_SPLIT.contains(&joined.as_str()) {
                add(rules, &bare);
            }
            add(rules, &parts);
            let curly: Vec<String> = parts.iter().map(|part| part.replace('\'', "’")).collect();
            add(rules, &curly.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    for verb in NOT_HAVE {
        join(verb, &["n't"]);
        join(verb, &["n't", "'ve"]);
    }
    for verb in NOT {
        join(verb, &["n't"]);
    }
    for verb in ["could", "might", "must", "should", "would", "not", "i", "you", "we", "they"] {
        join(verb, &["'ve"]);
    }
    for pronoun in ["i", "you", "he", "she", "it", "we", "they"].into_iter().chain(ASKING) {
        for endings in [&["'ll"][..], &["'ll", "'ve"], &["'d"], &["'d", "'ve"]] {
            join(pronoun, endings);
        }
    }
    for word in ASKING {
        if !matches!(word, "these" | "those") {
            join(word, &["'s"]);
        }
        if !matches!(word, "that" | "this") {
            join(word, &["'re"]);
            join(word, &["'ve"]);
        }
    }
    for word in ["he", "she", "it"] {
        join(word, &["'s"]);
    }
    for word in ["you", "we", "they"] {
        join(word, &["'re"]);
    }
    join("i", &["'m"]);
    join("i", &["'m", "a"]);
}

fn titled(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn add(rules: &mut Rules, parts: &[&str]) {
    rules.insert(parts.concat().into(), parts.iter().map(|part| part.len() as u8).collect());
}

/// Whether a piece of letters alone could have a rule: whether one has its first letter and its length.
pub(super) fn may_be(letters: &str) -> bool {
    letters.len() <= LONGEST && (TABLE.letters[letters.as_bytes()[0] as usize] >> letters.len()) & 1 == 1
}

/// The lengths in bytes of the words that the rule for `piece` makes of it, if there is a rule.
pub(super) fn parts(piece: &str) -> Option<&'static [u8]> {
    let first = *piece.as_bytes().first()?;
    if piece.len() > LONGEST || (TABLE.any[first as usize] >> piece.len()) & 1 == 0 {
        return None;
    }
    TABLE.rules.get(&number(piece)).map(|lengths| &**lengths)
}
