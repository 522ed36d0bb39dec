//! Instructions in the language of the stories and sums, each with its answer.
//!
//! What an instruction asks for (numbers, words, facts) decides its side of the data, as with stories and sums: a sum
//! that is held out here is held out there.

use super::sums::{Form, Sum};
use super::words::{COUNTED, FEARS, PETS, PLACES, RESCUES, SNACKS, TOYS, Table, WEATHER};
use super::{SPLIT_SEED, Split, cast};
use crate::rng::{Rng, hash_bytes, hash3};
use std::collections::HashSet;

/// What kind of thing is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// A sum, bare or told with things; comparing; counting up or down.
    Sum,
    /// A short story about someone.
    Story,
    /// A question about a text that is given.
    Reading,
    /// A sentence said the other way round.
    Opposite,
    /// A list reversed, sorted, counted, or searched.
    List,
}

/// An instruction and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What kind it is.
    pub kind: TaskKind,
    /// What is asked for.
    pub instruction: String,
    /// What it is about; often empty.
    pub input: String,
    /// The answer, its last sentence the result.
    pub output: String,
    /// The result alone, as short as it can be said.
    pub result: String,
    /// A result that is wrong, but not absurd; empty where there is none.
    pub wrong: String,
    /// The same for tasks that teach each other's answer.
    key: String,
}

impl Task {
    /// The side of the data that the content decides.
    pub fn split(&self) -> Split {
        if hash_bytes(SPLIT_SEED, self.key.as_bytes()).is_multiple_of(10) { Split::HeldOut } else { Split::Train }
    }

    fn draw(rng: &mut Rng) -> Self {
        match rng.below(20) {
            0..7 => sum(rng),
            7..11 => story(rng),
            11..15 => reading(rng),
            15..17 => opposite(rng),
            _ => list(rng),
        }
    }
}

/// Tasks number 0 to `count` of one side, made from `seed`; no two ask the same.
///
/// Law: the same arguments give the same tasks, and the first tasks do not depend on `count`.
///
/// # Panics
/// If `count` is above 100,000: the generator does not have many more.
pub fn tasks(seed: u64, split: Split, count: usize) -> Vec<Task> {
    assert!(count <= 100_000, "{count} tasks, at most 100,000 can be made");
    let side = match split {
        Split::Train => 11,
        Split::HeldOut => 12,
    };
    let mut rng = Rng::new(hash3(seed, side, 0));
    let (mut tasks, mut seen) = (Vec::with_capacity(count), HashSet::new());
    while tasks.len() < count {
        let task = Task::draw(&mut rng);
        if task.split() == split && seen.insert((task.instruction.clone(), task.input.clone())) {
            tasks.push(task);
        }
    }
    tasks
}

/// A question of the kind the sums are, answered with their steps.
fn sum(rng: &mut Rng) -> Task {
    let sum = Sum::draw(rng);
    let form = if sum.suits_a_story() && rng.one_in(3) { Form::Story } else { Form::Bare };
    let told = sum.tell(form, &mut cast(rng), rng);
    let (instruction, output) = told.split_once('\n').expect("a question stands on a line of its own");
    let (result, wrong) = match sum {
        Sum::Add(a, b) => (a + b, a + b + 1 + rng.below(9) as u32),
        Sum::Subtract(a, b) => (a - b, a - b + 1 + rng.below(9) as u32),
        Sum::Multiply(a, b) => (a * b, a * b + 1 + rng.below(9) as u32),
        Sum::Compare(a, b) => (a.max(b), a.min(b)),
        Sum::Count(..) => {
            let numbers = output.trim_end_matches('.');
            let wrong = numbers.rsplit_once(", ").map_or(String::new(), |(numbers, _)| numbers.to_owned());
            return Task {
                kind: TaskKind::Sum,
                instruction: instruction.to_owned(),
                input: String::new(),
                output: output.to_owned(),
                result: numbers.to_owned(),
                wrong,
                key: sum.key(),
            };
        }
    };
    let (result, wrong) = (result.to_string(), wrong.to_string());
    let (instruction, output) = (instruction.to_owned(), output.to_owned());
    Task { kind: TaskKind::Sum, instruction, input: String::new(), output, result, wrong, key: sum.key() }
}

/// What short stories are about: topic, telling, and the tables with their facts.
const SHORT_STORIES: &[(&str, &str, &[&Table])] = &[
    (
        "{a animal} that loses {a thing}",
        r"One {weather} {time} a little {animal} lost {a toy} {in}. It looked {decoy}, but the {thing} was not there. Then it looked {spot}. There was the {thing}! The {animal} was very [glad|happy].",
        &[&RESCUES, &TOYS, &PLACES, &WEATHER],
    ),
    (
        "{a animal} that finds {a thing}",
        r#"One {time} a [clever|little] {animal} found {a toy} {spot}. "Who has lost this {thing}?" it asked. "It is mine," said {N}. The {animal} gave it back, and {N} [smiled|said thank you]."#,
        &[&RESCUES, &TOYS, &PLACES],
    ),
    (
        "a {kid} named {N} who shares {a snack}",
        r#"{N} had {asnack}. It was {taste}. {M} had nothing to eat. "You can have half of my {snack}," said {N}. They ate it together {in}, and then they were friends."#,
        &[&SNACKS, &PLACES],
    ),
    (
        "a {kid} named {N} who is afraid {fear}",
        r#"{N} was afraid {fear}. One evening {he} saw {saw}. "Come quickly!" {he} cried. {M} came and looked. It was {was}. {N} had to laugh."#,
        &[&FEARS],
    ),
    (
        "{a pet} named {pname}",
        r"{N} had {a pet} named {pname}. It {trick}. One day {pname} was gone. {N} held up {food} and waited. Out came {pname}, and {N} held it close.",
        &[&PETS],
    ),
];

fn story(rng: &mut Rng) -> Task {
    let (topic, telling, tables) = *rng.pick(SHORT_STORIES);
    let mut facts = cast(rng);
    for table in tables {
        facts.draw(table, rng);
    }
    let topic = facts.tell(topic, rng);
    let instruction = format!("{} a story about {topic}.", rng.pick(&["Write", "Tell me"]));
    let output = facts.tell(telling, rng);
    Task {
        kind: TaskKind::Story,
        instruction,
        input: String::new(),
        result: output.clone(),
        output,
        wrong: String::new(),
        key: topic,
    }
}

/// A sentence, and what can be asked about it: question, answer, result, and a fact that is not the result.
const READINGS: &[(&str, &[[&str; 4]])] = &[
    (
        "{N} saw {a animal} {in}. {M} was at home.",
        &[
            ["What animal did {N} see?", "{N} saw {a animal}.", "{a animal}", "a cow"],
            ["Where was the {animal}?", "The {animal} was {in}.", "{in}", "at home"],
            ["Who saw the {animal}?", "{N} saw the {animal}.", "{N}", "{M}"],
            ["Who was at home?", "{M} was at home.", "{M}", "{N}"],
        ],
    ),
    (
        "{N} gave {M} {a toy}. {M} gave {N} {asnack}.",
        &[
            ["Who has the {thing} now?", "{M} has the {thing} now.", "{M}", "{N}"],
            ["Who has the {snack} now?", "{N} has the {snack} now.", "{N}", "{M}"],
            ["What did {N} give {M}?", "{N} gave {M} {a toy}.", "{a toy}", "{asnack}"],
            ["What did {M} give {N}?", "{M} gave {N} {asnack}.", "{asnack}", "{a toy}"],
        ],
    ),
    (
        "{N} lost the {toy} {in}. It was lying {spot}, and {M} found it.",
        &[
            ["What did {N} lose?", "{N} lost the {toy}.", "the {toy}", "the key"],
            ["Where did {M} find the {thing}?", "{M} found the {thing} {spot}.", "{spot}", "under the bed"],
            ["Who found the {thing}?", "{M} found the {thing}.", "{M}", "{N}"],
            ["Who lost the {thing}?", "{N} lost the {thing}.", "{N}", "{M}"],
        ],
    ),
];

fn reading(rng: &mut Rng) -> Task {
    let mut facts = cast(rng);
    for table in [&RESCUES, &PLACES, &TOYS, &SNACKS] {
        facts.draw(table, rng);
    }
    let (text, questions) = *rng.pick(READINGS);
    let input = facts.tell(text, rng);
    let [instruction, output, result, wrong] = rng.pick(questions).map(|template| facts.tell(template, rng));
    Task { kind: TaskKind::Reading, instruction, key: input.clone(), input, output, result, wrong }
}

/// Words and their opposites, and what may be so.
const OPPOSITES: &[(&str, &str, &str)] = &[
    ("big", "small", "[dog|house|tree|box|stone|boat]"),
    ("hot", "cold", "[soup|water|tea|day|stone]"),
    ("old", "young", "[man|woman|cat|dog|farmer]"),
    ("full", "empty", "[bucket|basket|cup|box|jar]"),
    ("fast", "slow", "[horse|car|train|boat|rabbit]"),
    ("long", "short", "[rope|road|scarf|story|river]"),
    ("wet", "dry", "[towel|path|coat|grass|hat]"),
    ("loud", "quiet", "[drum|street|child|bird|room]"),
    ("happy", "sad", "[girl|boy|friend|song|king]"),
    ("dark", "bright", "[room|cellar|street|sky|lamp]"),
    ("heavy", "light", "[bag|stone|box|book|bucket]"),
    ("new", "broken", "[toy|lamp|kite|cup|chair]"),
    ("open", "closed", "[door|gate|window|box|shop]"),
    ("clean", "dirty", "[floor|shirt|window|plate|car]"),
];

fn opposite(rng: &mut Rng) -> Task {
    let &(one, other, things) = rng.pick(OPPOSITES);
    let (word, opposite) = if rng.one_in(2) { (one, other) } else { (other, one) };
    let mut facts = cast(rng);
    facts.set("noun", things, rng);
    let owner = *rng.pick(&["The {noun}", "{N}'s {noun}", "The {noun} of {M}"]);
    let owner = facts.tell(owner, rng);
    let was = *rng.pick(&["is", "was"]);
    Task {
        kind: TaskKind::Opposite,
        instruction: "Say the opposite.".to_owned(),
        input: format!("{owner} {was} {word}."),
        output: format!("{owner} {was} {opposite}."),
        result: format!("{owner} {was} {opposite}."),
        wrong: format!("{owner} {was} very {word}."),
        key: format!("opposite: {owner} {was} {}", word.min(opposite)),
    }
}

/// What is done with a list.
fn list(rng: &mut Rng) -> Task {
    let length = 3 + rng.below(3);
    let asked = rng.below(5);
    let joined = |items: &[String]| items.join(", ");
    if asked == 0 {
        let mut numbers: Vec<usize> = Vec::new();
        while numbers.len() < length {
            let number = rng.below(100);
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let text = |numbers: &[usize]| joined(&numbers.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let input = text(&numbers);
        let wrong = text(&sorted.iter().rev().copied().collect::<Vec<_>>());
        let output = format!("{}.", text(&sorted));
        let instruction = "Put the numbers in order, the smallest first.".to_owned();
        let key = format!("order: {}", text(&sorted));
        return Task { kind: TaskKind::List, instruction, input, output, result: text(&sorted), wrong, key };
    }
    let mut words: Vec<String> = Vec::new();
    while words.len() < length {
        let word = (*rng.pick(COUNTED)).to_owned();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let input = joined(&words);
    let reversed: Vec<String> = words.iter().rev().cloned().collect();
    let (first, last) = (words[0].clone(), words[length - 1].clone());
    let (instruction, output, result, wrong) = match asked {
        1 => ("Say the words in reverse order.", format!("{}.", joined(&reversed)), joined(&reversed), input.clone()),
        2 => {
            let counted: Vec<String> = words.iter().zip(1..).map(|(word, number)| format!("{number} {word}")).collect();
            let output = format!("{}. So there are {length} words.", joined(&counted));
            ("How many words are there?", output, length.to_string(), (length + 1).to_string())
        }
        3 => ("Which word comes first?", format!("The first word is {first}."), first, last),
        _ => ("Which word comes last?", format!("The last word is {last}."), last, first),
    };
    let key = format!("list: {input}");
    Task { kind: TaskKind::List, instruction: instruction.to_owned(), input, output, result, wrong, key }
}

/// A prompt with an answer to prefer and one to avoid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferenceTask {
    /// What is asked for.
    pub task: Task,
    /// Polite and right.
    pub chosen: String,
    /// Curt, rude or wrong.
    pub rejected: String,
}

/// Preferences number 0 to `count` of one side, made from `seed`, about the same kind of tasks as [`tasks`].
///
/// Law: as [`tasks`]. Chosen and rejected differ.
///
/// # Panics
/// As [`tasks`].
pub fn preferences(seed: u64, split: Split, count: usize) -> Vec<PreferenceTask> {
    let side = match split {
        Split::Train => 21,
        Split::HeldOut => 22,
    };
    let mut rng = Rng::new(hash3(seed, side, 0));
    // Another seed than that of `tasks`, so that the prompts are not those that were just learnt.
    tasks(hash3(seed, 23, 0), split, count).into_iter().map(|task| preference(task, &mut rng)).collect()
}

fn preference(task: Task, rng: &mut Rng) -> PreferenceTask {
    let opening = *rng.pick(&["Of course!", "I am glad that you ask.", "With pleasure!"]);
    let closing = *rng.pick(&["I hope that helps.", "Have a nice day!", "Ask me again any time."]);
    // Worked steps keep their lines.
    let space = if task.output.contains('\n') { "\n" } else { " " };
    let chosen = [opening, &task.output, closing].join(space);
    let rejected = match rng.below(4) {
        0 if task.kind == TaskKind::Story => "No. I do not like stories.".to_owned(),
        0 => format!("{}.", task.result.trim_end_matches('.')),
        1 => (*rng.pick(&["I do not care.", "Find it out yourself.", "Go away."])).to_owned(),
        2 if !task.wrong.is_empty() => format!("{}.", task.wrong.trim_end_matches('.')),
        // Polite words do not make a wrong answer right.
        3 if !task.wrong.is_empty() => {
            [opening, &format!("{}.", task.wrong.trim_end_matches('.')), closing].join(space)
        }
        _ => (*rng.pick(&["What a silly thing to ask.", "That is boring.", "No."])).to_owned(),
    };
    PreferenceTask { task, chosen, rejected }
}

#[cfg(test)]
mod tests;
