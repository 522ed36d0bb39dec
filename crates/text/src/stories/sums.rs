//! Arithmetic with worked steps: the answer always follows from lines a pupil would write.

use super::grammar::Facts;
use super::words::COUNTED;
use crate::rng::Rng;
use std::fmt::Write;

/// A question about two numbers. What it asks decides, with the numbers, which side of the data it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Add(u32, u32),
    Subtract(u32, u32),
    Multiply(u32, u32),
    Compare(u32, u32),
    /// From, to, step; downwards if `to` is smaller.
    Count(u32, u32, u32),
}

/// The two ways to ask for a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bare,
    Story,
}

impl Sum {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        // Small numbers come often enough to be learnt by heart, large ones need the steps.
        let size = [10, 20, 100, 100, 100, 1000][rng.below(6)];
        let (a, b) = (rng.below(size) as u32, rng.below(size) as u32);
        match rng.below(20) {
            0..7 => Self::Add(a, b),
            7..13 => Self::Subtract(a.max(b), a.min(b)),
            13..15 => Self::Multiply(1 + rng.below(10) as u32, 1 + rng.below(10) as u32),
            15 => Self::Multiply(11 + rng.below(89) as u32, 2 + rng.below(8) as u32),
            16..18 => Self::Compare(a, if a == b { b + 1 } else { b }),
            _ => {
                let step = [1, 1, 2, 5, 10][rng.below(5)];
                let (from, length) = (rng.below(80) as u32, 3 + rng.below(6) as u32);
                let to = from + step * length;
                if rng.one_in(3) { Self::Count(to, from, step) } else { Self::Count(from, to, step) }
            }
        }
    }

    /// Whether it can be told with things: nobody finds 0 apples or puts them into 1 box.
    pub(super) fn suits_a_story(self) -> bool {
        match self {
            Self::Add(a, b) | Self::Subtract(a, b) => a > 0 && b > 0,
            Self::Multiply(a, b) => a > 1 && b > 1,
            Self::Compare(..) | Self::Count(..) => false,
        }
    }

    /// The same for sums that teach each other's answer: 3 + 5 and 5 + 3, told with apples or bare.
    pub(super) fn key(self) -> String {
        match self {
            Self::Add(a, b) => format!("{} + {}", a.min(b), a.max(b)),
            Self::Subtract(a, b) => format!("{a} - {b}"),
            Self::Multiply(a, b) => format!("{} x {}", a.min(b), a.max(b)),
            Self::Compare(a, b) => format!("{} ? {}", a.min(b), a.max(b)),
            Self::Count(from, to, step) => format!("{from} .. {to} by {step}"),
        }
    }

    /// Question, steps and answer, one a line. `facts` has a hero `N` and a friend `M` for the word problems.
    pub(super) fn tell(self, form: Form, facts: &mut Facts, rng: &mut Rng) -> String {
        match (form, self) {
            (Form::Bare, Self::Add(a, b)) => {
                format!("What is {a} + {b}?\n{}So {a} + {b} = {}.", add_steps(a, b), a + b)
            }
            (Form::Bare, Self::Subtract(a, b)) => {
                format!("What is {a} - {b}?\n{}So {a} - {b} = {}.", subtract_steps(a, b), a - b)
            }
            (Form::Bare, Self::Multiply(a, b)) => {
                format!("What is {a} x {b}?\n{}So {a} x {b} = {}.", multiply_steps(a, b), a * b)
            }
            (_, Self::Compare(a, b)) => compare(a, b),
            (_, Self::Count(from, to, step)) => count(from, to, step),
            (Form::Story, _) => self.tell_story(facts, rng),
        }
    }

    fn tell_story(self, facts: &mut Facts, rng: &mut Rng) -> String {
        let (a, b, operator, steps, result) = match self {
            Self::Add(a, b) => (a, b, '+', add_steps(a, b), a + b),
            Self::Subtract(a, b) => (a, b, '-', subtract_steps(a, b), a - b),
            Self::Multiply(a, b) => (a, b, 'x', multiply_steps(a, b), a * b),
            Self::Compare(..) | Self::Count(..) => unreachable!("`suits_a_story` keeps these out"),
        };
        let things = *rng.pick(COUNTED);
        for (name, number) in [("a", a), ("b", b), ("r", result)] {
            facts.set(name, &number.to_string(), rng);
            // One thing loses the ending of the plural.
            let noun = if number == 1 { singular(things) } else { things.to_owned() };
            facts.set(
                match name {
                    "a" => "as",
                    "b" => "bs",
                    _ => "rs",
                },
                &noun,
                rng,
            );
        }
        facts.set("things", things, rng);
        let question = match operator {
            '+' => {
                "{N} has {a} {as}. [{M} gives {him} {b} more.|{He} finds {b} more.|{He} gets {b} more from {M}.] How many {things} does {N} have now?"
            }
            '-' => {
                "{N} has {a} {as}. [{He} gives {b} of them to {M}.|{He} loses {b} of them.|{He} sells {b} of them to {M}.] How many {things} does {N} have left?"
            }
            _ => {
                "[There are {a} {things} in each box. {N} has {b} boxes.|{N} has {b} bags with {a} {things} in each.] How many {things} does {N} have?"
            }
        };
        let question = facts.tell(question, rng);
        let answer = match operator {
            '-' => "{N} has {r} {rs} left.",
            '+' => "{N} has {r} {rs} now.",
            _ => "{N} has {r} {rs}.",
        };
        let answer = facts.tell(answer, rng);
        let equation = format!("{a} {operator} {b} = {result}.\n");
        let steps = if steps == equation { equation } else { format!("{steps}{equation}") };
        format!("{question}\n{steps}So {answer}")
    }
}

fn singular(plural: &str) -> String {
    plural.strip_suffix("ies").map_or_else(
        || plural.trim_end_matches('s').to_owned(),
        |stem| {
            // "cookies" is the one of the words in which the y was never there.
            if stem == "cook" { "cookie".to_owned() } else { format!("{stem}y") }
        },
    )
}

fn digits(mut number: u32) -> Vec<u32> {
    let mut digits = vec![number % 10];
    while number >= 10 {
        number /= 10;
        digits.push(number % 10);
    }
    digits
}

/// Column addition, ones first.
fn add_steps(a: u32, b: u32) -> String {
    let (a, b) = (digits(a), digits(b));
    let columns = a.len().max(b.len());
    let (mut steps, mut carry) = (String::new(), 0);
    for column in 0..columns {
        let (x, y) = (a.get(column).copied().unwrap_or(0), b.get(column).copied().unwrap_or(0));
        let total = x + y + carry;
        let plus = if carry == 1 { " + 1" } else { "" };
        let end = match (column + 1 == columns, total >= 10) {
            (true, _) => String::new(),
            (false, true) => format!(", write {} carry 1", total - 10),
            (false, false) => format!(", write {total}"),
        };
        let _ = writeln!(steps, "{x} + {y}{plus} = {total}{end}.");
        carry = total / 10;
    }
    steps
}

/// Column subtraction of `b` from `a >= b`, ones first, with borrowing.
fn subtract_steps(a: u32, b: u32) -> String {
    let (a, b) = (digits(a), digits(b));
    let (mut steps, mut borrow) = (String::new(), 0);
    for (column, &x) in a.iter().enumerate() {
        let y = b.get(column).copied().unwrap_or(0);
        let (minus, plus) = if borrow == 1 { (" - 1", " + 1") } else { ("", "") };
        let is_last = column + 1 == a.len();
        if x < y + borrow {
            let left = x + 10 - y - borrow;
            let _ = writeln!(
                steps,
                "{x} is less than {y}{plus}, so borrow 1: {} - {y}{minus} = {left}, write {left}.",
                x + 10
            );
            borrow = 1;
        } else {
            let left = x - y - borrow;
            let end = if is_last { String::new() } else { format!(", write {left}") };
            let _ = writeln!(steps, "{x} - {y}{minus} = {left}{end}.");
            borrow = 0;
        }
    }
    steps
}

/// Small products by counting in steps of `a`, larger ones by tens and ones.
fn multiply_steps(a: u32, b: u32) -> String {
    if a <= 10 {
        let multiples: Vec<String> = (1..=b).map(|n| (a * n).to_string()).collect();
        return format!("{}.\n", multiples.join(", "));
    }
    let (tens, ones) = (a / 10 * 10, a % 10);
    format!("{tens} x {b} = {}.\n{ones} x {b} = {}.\n{} + {} = {}.\n", tens * b, ones * b, tens * b, ones * b, a * b)
}

/// Which of two different numbers is bigger: by length, then by the first digit that differs.
fn compare(a: u32, b: u32) -> String {
    let (big, small) = (a.max(b), a.min(b));
    let (x, y) = (a.to_string(), b.to_string());
    let why = if x.len() == y.len() {
        let at = x.bytes().zip(y.bytes()).position(|(x, y)| x != y).unwrap_or(0);
        let place = ["ones", "tens", "hundreds"][x.len() - 1 - at];
        let (x, y) = (&x[at..=at], &y[at..=at]);
        let same = if at == 0 { "Look at" } else { "The digits before are the same. Look at" };
        format!("{same} the {place}: {} is more than {}.", x.max(y), x.min(y))
    } else {
        format!("{big} has more digits than {small}.")
    };
    format!("Which is bigger, {a} or {b}?\n{why}\nSo {big} is bigger than {small}.")
}

fn count(from: u32, to: u32, step: u32) -> String {
    let length = from.abs_diff(to) / step;
    let number = |n: u32| if to >= from { from + n * step } else { from - n * step };
    let numbers: Vec<String> = (0..=length).map(|n| number(n).to_string()).collect();
    let by = if step == 1 { String::new() } else { format!(" by {step}") };
    let down = if to < from { " down" } else { "" };
    format!("Count{down}{by} from {from} to {to}.\n{}.", numbers.join(", "))
}
