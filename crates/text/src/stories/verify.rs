//! Checking sums in generated text, by reading it: nothing here is shared with the generator.

/// What [`verify_sums`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SumsReport {
    /// Questions that were answered.
    pub checked: usize,
    /// Those whose final answer is right.
    pub right: usize,
}

/// Finds arithmetic questions in `text` that are followed by a final answer, and says how many answers are right.
///
/// Questions are `What is A + B?` (also `-` and `x`), `Which is bigger, A or B?`, and word problems that end in `How many
/// ...?`; the answer is the next line that begins with `So `. A question whose answer is missing or cut off is not
/// counted: text from a model may end anywhere. Only the final answer counts, not the steps.
pub fn verify_sums(text: &str) -> SumsReport {
    let mut report = SumsReport::default();
    let mut expected: Option<u64> = None;
    for line in text.lines() {
        if let Some(answer) = question(line) {
            expected = Some(answer);
        } else if let Some(answer) = line.strip_prefix("So ")
            && let Some(answer) = answer.strip_suffix('.')
            && let Some(expected) = expected.take()
        {
            report.checked += 1;
            report.right += usize::from(final_number(answer) == Some(expected));
        }
    }
    report
}

/// The right answer to the question in `line`, if it is one.
fn question(line: &str) -> Option<u64> {
    let numbers = numbers(line);
    if let Some(sum) = line.strip_prefix("What is ").and_then(|rest| rest.strip_suffix('?')) {
        let mut parts = sum.split(' ');
        let (a, operator, b) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.parse().ok()?);
        return parts.next().is_none().then(|| apply(a, operator, b)).flatten();
    }
    let &[a, b] = numbers.as_slice() else { return None };
    if line.starts_with("Which is bigger, ") {
        return Some(a.max(b));
    }
    if !line.contains("How many ") || !line.ends_with('?') {
        return None;
    }
    let operator = if line.contains(" each") {
        "x"
    } else if line.ends_with(" left?") {
        "-"
    } else if line.contains(" more") {
        "+"
    } else {
        return None;
    };
    apply(a, operator, b)
}

fn apply(a: u64, operator: &str, b: u64) -> Option<u64> {
    match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "x" => a.checked_mul(b),
        _ => None,
    }
}

/// The number that an answer states: after `=`, or the first one in it.
fn final_number(answer: &str) -> Option<u64> {
    let stated = answer.split_once('=').map_or(answer, |(_, result)| result);
    numbers(stated).first().copied()
}

/// The numbers in `text`, in order; those too large for any sum here are left out.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, checked: usize, right: usize) {
        assert_eq!(verify_sums(text), SumsReport { checked, right }, "{text}");
    }

    #[test]
    fn right_and_wrong_answers_are_told_apart() {
        check("What is 47 + 38?\n7 + 8 = 15, write 5 carry 1.\n4 + 3 + 1 = 8.\nSo 47 + 38 = 85.", 1, 1);
        check("What is 47 + 38?\nSo 47 + 38 = 86.", 1, 0);
        check("What is 52 - 38?\nSo 52 - 38 = 14.\nWhat is 6 x 7?\nSo 6 x 7 = 41.", 2, 1);
        check("Which is bigger, 47 or 52?\nSo 52 is bigger than 47.", 1, 1);
        check("Which is bigger, 47 or 52?\nSo 47 is bigger than 52.", 1, 0);
        check(
            "Tom has 5 apples. Mia gives him 3 more. How many apples does Tom have now?\n5 + 3 = 8.\nSo Tom has 8 apples now.",
            1,
            1,
        );
        check(
            "Tom has 5 apples. He loses 3 of them. How many apples does Tom have left?\nSo Tom has 3 apples left.",
            1,
            0,
        );
        check("There are 4 nuts in each box. Tom has 3 boxes. How many nuts does Tom have?\nSo Tom has 12 nuts.", 1, 1);
    }

    #[test]
    fn questions_without_a_whole_answer_are_not_counted() {
        check("What is 47 + 38?\n7 + 8 = 15, write 5 carry 1.\nSo 47 + 38 = 8", 0, 0);
        check("So he went home.\nWhat is love?\nSo it was.", 0, 0);
        check("What is 3 - 5?\nSo 3 - 5 = 2.", 0, 0);
    }
}
