use super::*;
use crate::stories::verify_sums;
use std::collections::BTreeMap;

fn both(count: usize) -> (Vec<Task>, Vec<Task>) {
    (tasks(5, Split::Train, count), tasks(5, Split::HeldOut, count / 4))
}

#[test]
fn sides_share_no_task_and_no_content() {
    let (train, held_out) = both(8000);
    let keys: HashSet<&str> = train.iter().map(|task| task.key.as_str()).collect();
    assert!(held_out.iter().all(|task| !keys.contains(task.key.as_str())));
    let asked: HashSet<_> = train.iter().map(|task| (&task.instruction, &task.input)).collect();
    assert_eq!(asked.len(), train.len());
    assert!(held_out.iter().all(|task| !asked.contains(&(&task.instruction, &task.input))));
    // A sum that is held out here is held out of the stories' text too, whose key it has.
    let sums = held_out.iter().filter(|task| task.kind == TaskKind::Sum);
    let stories: HashSet<String> =
        crate::stories::generate(1, Split::Train, 20_000).into_iter().map(|document| document.text).collect();
    assert!(sums.clone().count() > 300);
    sums.for_each(|task| assert!(!stories.contains(&format!("{}\n{}", task.instruction, task.output))));
}

#[test]
fn the_same_seed_gives_the_same_tasks() {
    let first = tasks(3, Split::Train, 200);
    assert_eq!(first, tasks(3, Split::Train, 200));
    assert_eq!(first[..50], tasks(3, Split::Train, 50)[..]);
    assert_ne!(first, tasks(4, Split::Train, 200));
    assert_eq!(preferences(3, Split::Train, 50), preferences(3, Split::Train, 50));
}

#[test]
fn every_kind_comes_and_every_sum_is_right() {
    let (train, _) = both(4000);
    let mut kinds: BTreeMap<TaskKind, usize> = BTreeMap::new();
    let mut checked = 0;
    for task in &train {
        *kinds.entry(task.kind).or_default() += 1;
        if task.kind == TaskKind::Sum {
            let report = verify_sums(&format!("{}\n{}", task.instruction, task.output));
            assert_eq!(report.checked, report.right, "{task:?}");
            checked += report.checked;
            let wrong = task.output.replace(&task.result, &task.wrong);
            assert_ne!(wrong, task.output, "{task:?}");
        }
    }
    assert!(kinds.values().all(|&count| count > 200), "{kinds:?}");
    assert!(checked > 900, "{checked}");
}

/// The words of a list.
fn words(list: &str) -> Vec<&str> {
    list.trim_end_matches('.').split(", ").collect()
}

#[test]
fn lists_and_texts_are_answered_right_by_an_independent_reader() {
    let (train, _) = both(6000);
    let mut n_checked = 0;
    for task in &train {
        let given = words(&task.input);
        let expected = match task.instruction.as_str() {
            "Put the numbers in order, the smallest first." => {
                let mut numbers: Vec<u32> = given.iter().map(|number| number.parse().unwrap()).collect();
                numbers.sort_unstable();
                format!("{}.", numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            "Say the words in reverse order." => {
                format!("{}.", given.iter().rev().copied().collect::<Vec<_>>().join(", "))
            }
            "Which word comes first?" => format!("The first word is {}.", given[0]),
            "Which word comes last?" => format!("The last word is {}.", given[given.len() - 1]),
            "How many words are there?" => {
                assert!(task.output.ends_with(&format!("So there are {} words.", given.len())), "{task:?}");
                continue;
            }
            _ if task.kind == TaskKind::Reading => {
                // The result is in the text, word by word.
                assert!(task.input.contains(task.result.as_str()) && task.output.contains(&task.result), "{task:?}");
                assert_ne!(task.result, task.wrong, "{task:?}");
                n_checked += 1;
                continue;
            }
            _ => continue,
        };
        assert_eq!(task.output, expected);
        n_checked += 1;
    }
    assert!(n_checked > 1500, "{n_checked}");
}

#[test]
fn tasks_are_whole_sentences_that_fit_a_small_context() {
    let (train, held_out) = both(6000);
    let mut longest = 0;
    for task in train.iter().chain(&held_out) {
        let text = format!("{}\n{}\n{}", task.instruction, task.input, task.output);
        for flaw in ["{", "}", "[", "]", "|", "  ", " .", " ,", "..", " a a", " a e", " a i", " a o", " an b", " an t"]
        {
            assert!(!text.contains(flaw), "`{flaw}` in {text}");
        }
        assert!(task.output.ends_with(['.', '!', '"']), "{text}");
        assert!(!task.result.is_empty());
        longest = longest.max(text.len());
    }
    // At three bytes a token and more, 128 tokens hold them.
    assert!(longest < 400, "{longest} bytes");
}

#[test]
fn preferences_are_polite_and_right_against_curt_or_wrong() {
    let pairs = preferences(2, Split::Train, 3000);
    let (mut polite_and_wrong, mut curt) = (0, 0);
    for pair in &pairs {
        assert_ne!(pair.chosen, pair.rejected);
        assert!(pair.chosen.contains(&pair.task.output), "{pair:?}");
        let opening = pair.chosen.split(['!', '.']).next().unwrap();
        // A right answer is worse only where it is curt.
        assert!(
            !pair.rejected.contains(&pair.task.output) || pair.rejected.len() <= pair.task.output.len(),
            "{pair:?}"
        );
        polite_and_wrong += usize::from(pair.rejected.starts_with(opening));
        curt += usize::from(pair.rejected.len() < 30);
    }
    assert!(polite_and_wrong > 300 && curt > 1000, "{polite_and_wrong} {curt}");
    let learnt: HashSet<_> =
        tasks(2, Split::Train, 3000).into_iter().map(|task| (task.instruction, task.input)).collect();
    let again = pairs.iter().filter(|pair| learnt.contains(&(pair.task.instruction.clone(), pair.task.input.clone())));
    assert!(again.count() < 600);
}
