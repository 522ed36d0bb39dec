use super::*;
use crate::filters::{GopherQualityFilter, GopherRepetitionFilter};
use crate::minhash::MinhashConfig;
use crate::pii::{PiiFormatter, PiiTurns};
use crate::recipe::{ExactDedup, Step};
use std::collections::BTreeMap;

/// Prose that the filters keep, different for every number.
fn prose(number: usize) -> String {
    crate::generator::prose(0, 0, number as u64)
}

/// Four shards of documents: prose, copies, near copies and rubbish.
fn corpus(folder: &Path) {
    for shard in 0..4 {
        let mut lines = Vec::new();
        for index in 0..60 {
            let number = shard * 60 + index;
            let text = match index % 6 {
                0 => prose(9000),
                1 => prose(index) + ["", " And more.", " Or less.", " The end."][shard],
                2 => "spam spam spam ".repeat(30),
                3 => format!("{} Write to me{number}@mail.org.", prose(number)),
                _ => prose(number),
            };
            let document = crate::Document { text, id: format!("d{number}"), ..crate::Document::default() };
            crate::read::write_line(&document, &mut lines);
            lines.push(b'\n');
        }
        fs::write(folder.join(format!("part-{shard}.jsonl")), lines).unwrap();
    }
}

fn recipe(folder: &Path, out: &str) -> Recipe {
    Recipe {
        data: vec![folder.join("in").display().to_string()],
        out: folder.join(out),
        steps: vec![
            Step::GopherRepetition(GopherRepetitionFilter::default()),
            Step::GopherQuality(GopherQualityFilter::default()),
            Step::ExactDedup(ExactDedup::default()),
            Step::MinhashDedup(MinhashConfig::default()),
            Step::Pii(PiiFormatter::default()),
        ],
        ..Recipe::default()
    }
}

fn run_quietly(recipe: &Recipe, machine: Machine) -> Result<Outcome, CurateError> {
    run(recipe, Path::new(""), machine, None, &AtomicBool::new(false), &|_| {})
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder.join("data")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect()
}

fn folder_with_corpus() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    corpus(&folder.path().join("in"));
    folder
}

#[test]
fn the_funnel_says_where_documents_went() {
    let folder = folder_with_corpus();
    let outcome = run_quietly(&recipe(folder.path(), "out"), Machine::default()).unwrap();
    let steps: Vec<(&str, u64, u64)> = outcome
        .funnel
        .steps
        .iter()
        .map(|step| (step.step.as_str(), step.input.documents, step.output.documents))
        .collect();
    // 240 documents, 40 of them spam; of the 40 exact copies 39 go.
    assert_eq!(steps[0], ("gopher_repetition", 240, 200));
    assert_eq!(steps[1], ("gopher_quality", 200, 200));
    assert_eq!(steps[2], ("exact_dedup", 200, 161));
    // Ten texts have a copy with another end in each shard.
    assert_eq!(steps[3], ("minhash_dedup", 161, 131));
    assert_eq!(steps[4], ("pii", 131, 131));
    let spam = &outcome.funnel.steps[0].reasons;
    let (reason, count) = spam.iter().next().unwrap();
    assert_eq!((spam.len(), reason.as_str(), count.dropped.documents, count.samples.len()), (1, "top_2_gram", 40, 5));
    assert_eq!(count.samples[0].id, "d2");
    assert_eq!(outcome.funnel.cluster_sizes, [(40, 1), (4, 10)].into());
    assert_eq!(outcome.funnel.lengths.values().sum::<u64>(), steps[4].2);
    let written: Vec<u8> = contents(&folder.path().join("out")).into_values().flatten().collect();
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("email@example.com") && !text.contains("mail.org"));
    assert_eq!(outcome.funnel.steps[4].changed, 40);
}

#[test]
fn workers_machines_and_memory_do_not_change_a_byte() {
    let folder = folder_with_corpus();
    let expected = run_quietly(&recipe(folder.path(), "one"), Machine::default()).unwrap();
    let check = |out: &str, outcome: &Outcome| {
        assert_eq!(contents(&folder.path().join(out)), contents(&folder.path().join("one")), "{out}");
        assert_eq!(outcome.funnel, expected.funnel, "{out}");
    };
    let outcome = run_quietly(&recipe(folder.path(), "three"), Machine { threads: 3, ..Machine::default() }).unwrap();
    check("three", &outcome);
    let small = Recipe { memory_mb: 0, ..recipe(folder.path(), "small") };
    check("small", &run_quietly(&small, Machine { threads: 2, ..Machine::default() }).unwrap());
    let shared = recipe(folder.path(), "ranks");
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..2)
            .map(|rank| {
                scope.spawn({
                    let shared = &shared;
                    move || run_quietly(shared, Machine { rank, world_size: 2, threads: 1 }).unwrap()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    outcomes.iter().for_each(|outcome| check("ranks", outcome));
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let folder = folder_with_corpus();
    run_quietly(&recipe(folder.path(), "whole"), Machine::default()).unwrap();
    let recipe = recipe(folder.path(), "stopped");
    for shards in 1..4 {
        let stop = AtomicBool::new(false);
        let stopped = run(&recipe, Path::new(""), Machine::default(), None, &stop, &|progress| {
            // Every call gets one phase or one shard further.
            if progress.done >= shards {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert!(matches!(stopped, Err(CurateError::Stopped)), "{stopped:?}");
    }
    let outcome = run_quietly(&recipe, Machine::default()).unwrap();
    assert_eq!(outcome.documents_read, 60 + 200 + 161);
    assert_eq!(contents(&recipe.out), contents(&folder.path().join("whole")));
    // A second call finds everything done; another recipe is refused.
    assert_eq!(run_quietly(&recipe, Machine::default()).unwrap().documents_read, 0);
    let other = Recipe { samples: 1, ..recipe };
    let error = run_quietly(&other, Machine::default()).unwrap_err().to_string();
    assert!(error.contains("another recipe"), "{error}");
}

#[test]
fn a_sampler_takes_its_share_and_the_same_again() {
    let draw = |rate, seed| {
        let step = prepare(&Step::Sampler(crate::recipe::Sampler { rate, seed }), Path::new("")).unwrap().unwrap();
        let keeps = |id: usize| {
            let mut document = crate::Document { id: id.to_string(), ..crate::Document::default() };
            step.apply(&mut document, &mut crate::Scratch::default(), &mut PiiTurns::default())
                == crate::pipeline::Done::Same
        };
        (0..1000).filter(|&id| keeps(id)).collect::<Vec<_>>()
    };
    assert!((400..600).contains(&draw(0.5, 42).len()));
    assert_eq!(draw(0.5, 42), draw(0.5, 42));
    assert_ne!(draw(0.5, 42), draw(0.5, 43));
    assert_eq!((draw(1.0, 0).len(), draw(0.0, 0).len()), (1000, 0));
}

#[test]
fn text_is_repaired_before_it_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("words.csv"), "word,count\nthe,5\ncafé,3\nis,2\n").unwrap();
    let text = "[[steps]]\nstep = \"ftfy\"\n[[steps]]\nstep = \"symbol_lines\"\n\
        [[steps]]\nstep = \"unigram_log_prob\"\nunigram_frequencies = \"words.csv\"\nlogprobs_threshold = -2.0\n";
    let recipe = Recipe::parse(text).unwrap();
    assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    let ready: Vec<_> = recipe.steps.iter().map(|step| prepare(step, folder.path()).unwrap().unwrap()).collect();
    let names: Vec<&str> = recipe.steps.iter().map(Step::name).collect();
    let mut counting = crate::pipeline::Counting::new(&names, None, 5);
    let mut pass = |text: &str| {
        let mut document = crate::Document::of(text);
        counting.pass(&ready, 0, &mut document).map(|words| (words, document.text))
    };
    assert_eq!(pass("The cafÃ© is\n---\nthe &eacute;"), None);
    assert_eq!(pass("The cafÃ© is\n---\nthe cafÃ©"), Some((5, "The café is\nthe café".to_owned())));
    assert_eq!(pass("the café"), Some((2, "the café".to_owned())));
    let changed: Vec<u64> = counting.funnel.steps.iter().map(|step| step.changed).collect();
    assert_eq!(changed, [2, 2, 0]);
    assert_eq!(counting.funnel.steps[2].reasons["unigram_log_prob"].dropped.documents, 1);
}

#[test]
fn a_pattern_drops_the_documents_in_which_it_is_found() {
    let step = Step::Regex(crate::recipe::RegexFilter { regex_exp: "(?i)copyright".to_owned() });
    let step = prepare(&step, Path::new("")).unwrap().unwrap();
    let apply = |text: &str| {
        let mut document = crate::Document::of(text);
        step.apply(&mut document, &mut crate::Scratch::default(), &mut PiiTurns::default())
    };
    assert_eq!(apply("Some prose.\n\nCoPyRiGhT"), crate::pipeline::Done::Dropped("regex".into()));
    assert_eq!(apply("Some prose.\n\nCopy right"), crate::pipeline::Done::Same);
}

#[test]
fn the_language_is_written_down_whether_it_stays_or_not() {
    let languages = vec!["en".to_owned(), "it".to_owned()];
    let settings = crate::language::LanguageSettings { languages, ..crate::language::LanguageSettings::default() };
    let step = prepare(&Step::Language(settings), Path::new("")).unwrap().unwrap();
    let check = |text: &str, language: &str, stays: bool| {
        let mut document = crate::Document::of(text);
        let done = step.apply(&mut document, &mut crate::Scratch::default(), &mut PiiTurns::default());
        assert_eq!(document.metadata["language"], language, "{text:?}");
        assert_eq!(done == crate::pipeline::Done::Same, stays, "{text:?}");
    };
    check("The boats are late today because the wind comes from the north and the harbour is full of ice.", "en", true);
    check(
        "Os barcos estão atrasados hoje porque o vento vem do norte e o porto está cheio de gelo; ninguém sabe quando \
        chegam, mas todos esperam na praia com as suas crianças.",
        "pt",
        false,
    );
}
