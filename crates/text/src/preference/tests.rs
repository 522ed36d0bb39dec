use super::*;
use crate::tokenizer::END_OF_TEXT;
use serde_json::{Value, json};

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn tokenizer() -> (Tokenizer, SpecialTokens) {
    let specials = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"];
    let tokenizer = Tokenizer::train_bpe([crate::stories::text(1, 30_000)], 600, &specials).unwrap();
    let eos = vec![tokenizer.token_id("<|im_end|>").unwrap()];
    (tokenizer, SpecialTokens { eos, ..SpecialTokens::default() })
}

/// What is made of a file with these rows.
fn with_file<T>(
    rows: &[Value],
    then: impl Fn(&[Source], &Tokenizer, &SpecialTokens, &ChatTemplate) -> Result<T, TextError>,
) -> Result<T, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs_err::write(&path, lines.join("\n")).unwrap();
    let (tokenizer, special) = tokenizer();
    let template = ChatTemplate::from_source(CHATML).unwrap();
    let sources = [Source::new(path.display().to_string())];
    then(&sources, &tokenizer, &special, &template)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// The report without the folder's own path.
fn tidy(report: &PairReport) -> String {
    let path = &report.sources[0].path;
    report.to_string().replace(path.as_str(), "a.jsonl")
}

fn load_rows(rows: &[Value], format: &FormatSettings, settings: PairSettings) -> Result<LoadedPairs, String> {
    with_file(rows, |sources, tokenizer, special, template| {
        load(sources, format, &settings, tokenizer, special, Some(template))
    })
}

/// Asserts that a row makes this pair of texts, its ids decoded.
fn check(row: &Value, format: &FormatSettings, [prompt, chosen, rejected]: [&str; 3]) {
    let loaded = load_rows(std::slice::from_ref(row), format, PairSettings::default()).unwrap();
    let (tokenizer, _) = tokenizer();
    let pair = &loaded.pairs[0];
    let decode = |ids: &[u32]| tokenizer.decode(ids);
    assert_eq!([decode(&pair.prompt), decode(&pair.chosen), decode(&pair.rejected)], [prompt, chosen, rejected]);
    assert_eq!(pair.prompt_text, prompt);
    assert_eq!(format!("{}<|im_end|>", pair.chosen_text.trim_start()), chosen.trim_start());
    for (example, answer) in pair.examples().iter().zip([chosen, rejected]) {
        let spans = crate::instruct::spans(example, &tokenizer);
        let shown: Vec<(&str, bool)> = spans.iter().map(|span| (span.text.as_str(), span.trained)).collect();
        assert_eq!(shown, [(prompt, false), (answer, true)]);
    }
}

#[test]
fn pairs_of_every_format_become_ids_with_a_border_between_tokens() {
    let format = FormatSettings::default();
    let alpaca =
        json!({"instruction": "Add.", "input": "1 2", "output": "3", "rejected": "4 I guess", "chosen": "It is 3."});
    let prompt = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n";
    check(&alpaca, &format, [prompt, "It is 3.<|im_end|>", "4 I guess<|im_end|>"]);
    let chat = FormatSettings { prompt_template: "chat".parse().unwrap(), ..format.clone() };
    let asked = "<|im_start|>user\nAdd.\n1 2<|im_end|>\n<|im_start|>assistant\n";
    check(&alpaca, &chat, [asked, "It is 3.<|im_end|>", "4 I guess<|im_end|>"]);
    let plain = json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " wet."});
    check(&plain, &format, ["The sky is", " blue.<|im_end|>", " wet.<|im_end|>"]);
    let user = json!({"role": "user", "content": "Hi"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let asked = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    for row in [
        json!({"prompt": [user], "chosen": [says("Hello")], "rejected": [says("What")]}),
        json!({"chosen": [user, says("Hello")], "rejected": [user, says("What")]}),
        json!({"prompt": "Hi", "chosen": [user, says("Hello")], "rejected": [user, says("What")]}),
    ] {
        check(&row, &format, [asked, "Hello<|im_end|>", "What<|im_end|>"]);
    }
}

#[test]
fn dialogues_part_at_the_last_answer_that_they_share_a_question_for() {
    let row = json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant: So that", "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant: Some"});
    let prompt = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant:";
    check(&row, &FormatSettings::default(), [prompt, " So that<|im_end|>", " Some<|im_end|>"]);
    let chat = FormatSettings { prompt_template: "chat".parse().unwrap(), ..FormatSettings::default() };
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nWhy<|im_end|>\n<|im_start|>assistant\n";
    check(&row, &chat, [prompt, "So that<|im_end|>", "Some<|im_end|>"]);
}

#[test]
fn a_pairs_ids_are_those_of_the_same_item_for_instruction_tuning() {
    let rows = [
        json!({"prompt": "They went to th", "chosen": "e park.", "rejected": "at place."}),
        json!({"prompt": "One day", "chosen": " Tom fell asleep.", "rejected": "\nTom."}),
    ];
    let loaded = load_rows(&rows, &FormatSettings::default(), PairSettings::default()).unwrap();
    assert_eq!(loaded.report.encoded_apart, 1);
    for answer in ["chosen", "rejected"] {
        let rows = rows.each_ref().map(|row| json!({"prompt": row["prompt"], "completion": row[answer]}));
        let tuned = with_file(&rows, |sources, tokenizer, special, template| {
            crate::instruct::load(sources, &FormatSettings::default(), tokenizer, special, Some(template))
        });
        for (pair, tuned) in loaded.pairs.iter().zip(tuned.unwrap().examples) {
            let [chosen, rejected] = pair.examples();
            let example = if answer == "chosen" { chosen } else { rejected };
            assert_eq!((example.ids, example.trained), (tuned.ids, tuned.trained));
        }
    }
}

fn sky(chosen: &str, rejected: &str) -> Value {
    json!({"prompt": "The sky is", "chosen": chosen, "rejected": rejected})
}

#[test]
fn equal_answers_are_counted_if_few_and_refused_if_many() {
    let settings = |equal_pairs| PairSettings { equal_pairs, ..PairSettings::default() };
    let mut rows = vec![sky(" blue", " wet"); 99];
    rows.push(sky(" blue", " blue"));
    let format = FormatSettings::default();
    let few = load_rows(&rows, &format, settings(EqualPairs::Few)).unwrap();
    assert_eq!((few.pairs.len(), few.report.equal), (100, 1));
    insta::assert_snapshot!(tidy(&few.report), @r"
    a.jsonl: prompt, 100 items
    100 pairs (0 cut, 0 dropped)
      1 with equal answers, which teach nothing, first a.jsonl:100
    prompts: 6 to 6, median 6, 95 % at most 6 tokens
    chosen: 5 to 5, median 5, 95 % at most 5 tokens
    rejected: 3 to 5, median 3, 95 % at most 3 tokens
    the chosen answer is the longer one in 99.0 %
    ");
    let dropped = load_rows(&rows, &format, settings(EqualPairs::Drop)).unwrap();
    assert_eq!((dropped.pairs.len(), dropped.report.dropped["equal answers"]), (99, 1));
    let refused = load_rows(&rows, &format, settings(EqualPairs::Error)).unwrap_err();
    insta::assert_snapshot!(refused, @r"
    a.jsonl:100: the chosen and the rejected answer are the same
    hint: see `equal_pairs`
    ");
    assert_eq!(
        load_rows(&rows[1..], &format, settings(EqualPairs::Few)).unwrap_err(),
        refused.replace(":100:", ":99:")
    );
    assert_eq!(load_rows(&rows[1..], &format, settings(EqualPairs::Keep)).unwrap().pairs.len(), 99);
}

#[test]
fn long_pairs_are_cut_or_dropped_and_counted() {
    let rows = [sky(" blue", " wet"), sky(&" blue".repeat(30), " wet")];
    let format = FormatSettings { max_length: 12, ..FormatSettings::default() };
    let cut = load_rows(&rows, &format, PairSettings::default()).unwrap();
    let long = &cut.pairs[1];
    assert_eq!((cut.report.cut, long.prompt.len() + long.chosen.len()), (1, 12));
    assert_eq!(cut.pairs[0].rejected, long.rejected);
    let format = FormatSettings { overlong: crate::instruct::Overlong::Drop, ..format };
    let dropped = load_rows(&rows, &format, PairSettings::default()).unwrap();
    assert_eq!((dropped.pairs.len(), dropped.report.dropped["longer than `max_length`"]), (1, 1));
}

#[test]
fn labels_and_pairs_become_answers_that_were_liked_or_not() {
    let load = |rows: &[Value]| {
        with_file(rows, |sources, tokenizer, special, template| {
            load_labelled(
                sources,
                &FormatSettings::default(),
                &PairSettings::default(),
                tokenizer,
                special,
                Some(template),
            )
        })
    };
    let row =
        |completion: &str, label: Value| json!({"prompt": "The sky is", "completion": completion, "label": label});
    let found = load(&[row(" blue", json!(true)), row(" wet", json!(0)), row(" red", json!("False"))]).unwrap();
    let labels: Vec<(&str, bool)> =
        found.answers.iter().map(|answer| (answer.completion_text.as_str(), answer.label)).collect();
    assert_eq!(labels, [(" blue", true), (" wet", false), (" red", false)]);
    insta::assert_snapshot!(tidy(&found.report), @r"
    a.jsonl: kto, 3 items
    3 answers (0 cut, 0 dropped)
    prompts: 6 to 6, median 6, 95 % at most 6 tokens
    liked: 5 to 5, median 5, 95 % at most 5 tokens
    disliked: 3 to 3, median 3, 95 % at most 3 tokens
    33.3 % liked
    ");
    let paired = load(&[sky(" blue", " wet")]).unwrap();
    assert_eq!(paired.answers[0], Labelled { place: paired.answers[0].place.clone(), ..found.answers[0].clone() });
    assert_eq!((paired.answers[1].completion_text.as_str(), paired.answers[1].label), (" wet", false));
    insta::assert_snapshot!(load(&[row(" blue", json!("good"))]).unwrap_err(), @r#"a.jsonl:1: `label` is "good", expected true or false"#);
}

#[test]
fn what_is_wrong_with_a_pair_is_named_with_its_line() {
    let format = FormatSettings { max_length: 12, ..FormatSettings::default() };
    let bad = |row: Value| load_rows(&[sky(" blue", " wet"), row], &format, PairSettings::default()).unwrap_err();
    insta::assert_snapshot!(bad(sky(" blue", "")), @r#"
    a.jsonl:2: `rejected` is empty
    hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
    "#);
    insta::assert_snapshot!(bad(json!({"prompt": "The sky is", "chosen": " blue"})), @r#"
    a.jsonl:2: found the fields `prompt`, `chosen`, expected the field `rejected`
    hint: name the column that holds it, e.g. `columns = { rejected = "..." }`
    "#);
    insta::assert_snapshot!(bad(json!({"prompt": "the ".repeat(20), "chosen": " blue", "rejected": " wet"})), @r#"
    a.jsonl:2: the prompt has 22 tokens, which leaves no room for an answer within 12
    hint: raise `max_length`, or leave such items out with `overlong = "drop"`
    "#);
    insta::assert_snapshot!(bad(json!({"prompt": "", "chosen": " blue", "rejected": " wet"})), @r#"
    a.jsonl:2: `prompt` is empty
    hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
    "#);
    insta::assert_snapshot!(bad(json!({"prompt": "The sky is", "chosen": " blue", "rejected": " wet", "margin": "big"})), @"a.jsonl:2: `margin` is a text, expected a number");
    let first = |row: Value| load_rows(&[row], &format, PairSettings::default()).unwrap_err();
    insta::assert_snapshot!(first(json!({"question": "a", "better": "b"})), @r#"
    a.jsonl: found the fields `question`, `better`, expected `chosen` and `rejected`, with `prompt` or `instruction` or as conversations
    hint: say which column is which, e.g. `columns = { chosen = "better", rejected = "worse" }`
    "#);
    insta::assert_snapshot!(first(json!({"chosen": "Hello", "rejected": "Bye"})), @r#"a.jsonl:1: `chosen` is "Hello", expected turns that begin with "\n\nHuman:" and end in one of "\n\nAssistant:""#);
    let says = |text: &str| json!([{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]);
    insta::assert_snapshot!(first(json!({"chosen": says("a"), "rejected": says("c")})), @r"
    a.jsonl:1: chosen and rejected begin with different conversations
    hint: give them the same messages up to the last answer
    ");
    insta::assert_snapshot!(first(json!({"prompt": [{"role": "boss", "content": "a"}], "chosen": says("a"), "rejected": says("c")})), @"a.jsonl:1: unknown role `boss` of message 0, expected one of `system`, `developer`, `user`, `assistant`, `tool`, `function`, `ipython`");
}

#[test]
fn a_margin_is_read() {
    let mut row = sky(" blue", " wet");
    row["margin"] = json!(1.5);
    let loaded = load_rows(&[row, sky(" blue", " wet")], &FormatSettings::default(), PairSettings::default()).unwrap();
    assert_eq!(loaded.pairs.iter().map(|pair| pair.margin).collect::<Vec<_>>(), [Some(1.5), None]);
}

#[test]
fn the_built_in_pairs_fit_a_small_context() {
    let (tokenizer, special) = tokenizer();
    let format =
        FormatSettings { prompt_template: "plain".parse().unwrap(), max_length: 200, ..FormatSettings::default() };
    let sources = [Source::new("builtin:preferences:300")];
    let loaded = load(&sources, &format, &PairSettings::default(), &tokenizer, &special, None).unwrap();
    assert_eq!((loaded.pairs.len(), loaded.report.cut, loaded.report.equal), (300, 0, 0));
    assert_eq!(loaded.pairs[0].place.to_string(), "preferences #0");
}

#[test]
fn ids_of_pairs_are_those_of_trl() {
    let golden: Value = serde_json::from_str(include_str!("../../../../testdata/text/instruct.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs_err::write(path("tokenizer.json"), golden["tokenizer"].to_string()).unwrap();
    let mut items = golden["items"].clone();
    items.as_array_mut().unwrap().iter_mut().for_each(|item| item["chosen"] = item["output"].clone());
    fs_err::write(path("items.json"), items.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(path("tokenizer.json")).unwrap();
    let eos = vec![tokenizer.token_id("<|im_end|>").unwrap()];
    let special = SpecialTokens { eos, ..SpecialTokens::default() };
    let sources = [Source::new(path("items.json").display().to_string())];
    let loaded =
        load(&sources, &FormatSettings::default(), &PairSettings::default(), &tokenizer, &special, None).unwrap();
    let mut n_same = 0;
    for (pair, expected) in loaded.pairs.iter().zip(golden["dpo"].as_array().unwrap()) {
        let ids = |name: &str| -> Vec<u32> { serde_json::from_value(expected[name].clone()).unwrap() };
        let prompt = ids("prompt");
        if prompt.len() < pair.prompt.len() {
            // TRL leaves the end of the prompt out where it merges with an answer.
            assert!(pair.prompt.starts_with(&prompt));
            continue;
        }
        assert_eq!((&pair.prompt, &pair.chosen, &pair.rejected), (&prompt, &ids("chosen"), &ids("rejected")));
        n_same += 1;
    }
    assert!(n_same >= 7, "{n_same}");
}
