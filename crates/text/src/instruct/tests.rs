use super::*;
use crate::{Message, tokenizer::END_OF_TEXT};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;
use std::ops::Range;
use std::slice::from_ref;

const IM: [&str; 3] = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"];

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The same, with marks that leave the end of a turn out.
const MARKED: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A byte-level tokenizer with merges across spaces and words, whose end of a turn is `<|im_end|>`.
fn tokenizer() -> (Tokenizer, SpecialTokens) {
    let tokenizer = Tokenizer::train_bpe([crate::stories::text(1, 30_000)], 600, &IM).unwrap();
    let id = |text: &str| tokenizer.token_id(text).unwrap();
    let eos = vec![id("<|im_end|>"), id(END_OF_TEXT)];
    let special = SpecialTokens { bos: Some(id(END_OF_TEXT)), eos, ..SpecialTokens::default() };
    (tokenizer, special)
}

/// What `settings` make of a file of this name and text.
fn load_text(name: &str, text: &str, settings: &FormatSettings, template: Option<&str>) -> Result<Loaded, TextError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, text).unwrap();
    let (tokenizer, special) = tokenizer();
    let template = template.map(|source| ChatTemplate::from_source(source).unwrap());
    let source = Source::new(path.display().to_string());
    load(&[source], settings, &tokenizer, &special, template.as_ref())
}

/// The message for such a file, without the folder's own path.
fn message(name: &str, text: &str, settings: &FormatSettings, template: Option<&str>) -> String {
    let message = load_text(name, text, settings, template).unwrap_err().to_string();
    match message.find(name) {
        // Drops the folder, whose name changes.
        Some(at) => message[at..].to_owned(),
        None => message,
    }
}

/// One item's runs of text with and without loss.
fn runs(item: &Value, settings: &FormatSettings, template: Option<&str>) -> Vec<(String, bool)> {
    let loaded = load_text("a.jsonl", &item.to_string(), settings, template).unwrap();
    let (tokenizer, _) = tokenizer();
    let [example] = &loaded.examples[..] else { panic!("{:?}", loaded.report) };
    spans(example, &tokenizer).into_iter().map(|span| (span.text, span.trained)).collect()
}

/// Asserts that an item is these runs of text.
fn check(item: &Value, settings: &FormatSettings, template: Option<&str>, expected: &[(&str, bool)]) {
    let found = runs(item, settings, template);
    let found: Vec<(&str, bool)> = found.iter().map(|(text, trained)| (text.as_str(), *trained)).collect();
    assert_eq!(found, expected, "{item} {settings:?}");
}

fn all() -> FormatSettings {
    FormatSettings { train_on: TrainOn::All, ..FormatSettings::default() }
}

const ALPACA: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n";

#[test]
fn an_alpaca_item_learns_its_answer_and_its_end() {
    let settings = FormatSettings::default();
    let item = json!({"instruction": "Add.", "input": "1 and 2", "output": "3 it is."});
    let prompt = format!("{ALPACA}Add.\n\n### Input:\n1 and 2\n\n### Response:\n");
    check(&item, &settings, None, &[(&prompt, false), ("3 it is.<|im_end|>", true)]);
    for item in
        [json!({"instruction": "Add.", "output": "3"}), json!({"instruction": "Add.", "input": "", "output": "3"})]
    {
        check(&item, &settings, None, &[(&format!("{ALPACA}Add.\n\n### Response:\n"), false), ("3<|im_end|>", true)]);
    }
    let no_end = FormatSettings { train_eos: false, ..settings.clone() };
    check(&item, &no_end, None, &[(&prompt, false), ("3 it is.", true)]);
    let whole = format!("{prompt}3 it is.<|im_end|>");
    // The first token follows nothing: it cannot be learnt.
    check(&item, &all(), None, &[("B", false), (&whole[1..], true)]);
    let chat = FormatSettings { prompt_template: PromptTemplate::Chat, ..settings.clone() };
    let prompt = "<|im_start|>user\nAdd.\n1 and 2<|im_end|>\n<|im_start|>assistant\n";
    check(&item, &chat, Some(CHATML), &[(prompt, false), ("3 it is.<|im_end|>", true), ("\n", false)]);
    let plain = FormatSettings { prompt_template: PromptTemplate::Plain, ..settings.clone() };
    check(&item, &plain, None, &[("Add.\n1 and 2\n", false), ("3 it is.<|im_end|>", true)]);
    let own = FormatSettings { prompt_template: "Q: {instruction}\nA: {response}\n--".parse().unwrap(), ..settings };
    check(&item, &own, None, &[("Q: Add.\nA: ", false), ("3 it is.\n--<|im_end|>", true)]);
}

#[test]
fn prompts_and_completions_stand_side_by_side() {
    let settings = FormatSettings::default();
    let item = json!({"prompt": "The sky is", "completion": " blue."});
    check(&item, &settings, None, &[("The sky is", false), (" blue.<|im_end|>", true)]);
    let ended = json!({"prompt": "The sky is", "completion": " blue.<|im_end|>"});
    check(&ended, &settings, None, &[("The sky is", false), (" blue.<|im_end|>", true)]);
    let messages = json!({"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Ok"}], "completion": [{"role": "assistant", "content": "Bye"}]});
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nOk<|im_end|>\n<|im_start|>assistant\n";
    check(&messages, &settings, Some(CHATML), &[(prompt, false), ("Bye<|im_end|>", true), ("\n", false)]);
}

#[test]
fn columns_may_have_other_names() {
    let columns =
        [("instruction", "question"), ("output", "answer")].map(|(field, column)| (field.into(), column.into()));
    let settings = FormatSettings { columns: columns.into(), ..FormatSettings::default() };
    let item = json!({"question": "Add.", "answer": "3"});
    check(&item, &settings, None, &[(&format!("{ALPACA}Add.\n\n### Response:\n"), false), ("3<|im_end|>", true)]);
    let template = "{n}. {question} ({right}){response}".parse().unwrap();
    let settings = FormatSettings { prompt_template: template, ..settings };
    let item = json!({"question": "Add.", "answer": "3", "n": 7, "right": true});
    check(&item, &settings, None, &[("7. Add. (true)", false), ("3<|im_end|>", true)]);
}

fn talk() -> Value {
    json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"}])
}

#[test]
fn a_chat_learns_the_messages_of_its_roles_and_turns() {
    let settings = FormatSettings::default();
    let item = json!({ "messages": talk() });
    let before = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let between = "\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    let expected = [
        (before, false),
        ("Hello there<|im_end|>", true),
        (between, false),
        ("See you<|im_end|>", true),
        ("\n", false),
    ];
    check(&item, &settings, Some(CHATML), &expected);
    check(&item, &settings, Some(MARKED), &expected);
    let shared = json!({"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello there"}, {"from": "human", "value": "Bye"}, {"from": "gpt", "value": "See you"}]});
    check(&shared, &settings, Some(CHATML), &expected);
    check(&json!({ "conversations": talk() }), &settings, Some(CHATML), &expected);
    let first = format!("{before}Hello there<|im_end|>{between}");
    let last = FormatSettings { train_turns: Turns::Last, ..settings.clone() };
    check(&item, &last, Some(CHATML), &[(&first, false), ("See you<|im_end|>", true), ("\n", false)]);
    let no_end = FormatSettings { train_eos: false, ..settings.clone() };
    let between = format!("<|im_end|>{between}");
    let expected =
        [(before, false), ("Hello there", true), (&between, false), ("See you", true), ("<|im_end|>\n", false)];
    check(&item, &no_end, Some(CHATML), &expected);
    check(&item, &no_end, Some(MARKED), &expected);
    let users = FormatSettings { train_roles: vec!["user".into()], ..settings };
    let found = runs(&item, &users, Some(CHATML));
    let found: Vec<&str> = found.iter().filter(|(_, trained)| *trained).map(|(text, _)| text.as_str()).collect();
    assert_eq!(found, ["Hi<|im_end|>", "Bye<|im_end|>"]);
}

#[test]
fn a_message_may_say_that_it_is_not_learnt() {
    for flag in [json!({"train": false}), json!({"weight": 0})] {
        let mut turns = talk();
        let fields = turns[2].as_object_mut().unwrap();
        fields.extend(flag.as_object().unwrap().clone());
        let found = runs(&json!({ "messages": turns }), &FormatSettings::default(), Some(CHATML));
        let found: Vec<&str> = found.iter().filter(|(_, trained)| *trained).map(|(text, _)| text.as_str()).collect();
        assert_eq!(found, ["See you<|im_end|>"], "{flag}");
    }
}

#[test]
fn plain_text_is_learnt_from_its_second_token_on() {
    let item = json!({"text": "Once more."});
    check(&item, &all(), None, &[("O", false), ("nce more.<|im_end|>", true)]);
    let asked = FormatSettings { format: Format::Text, ..FormatSettings::default() };
    check(&item, &asked, None, &[("O", false), ("nce more.<|im_end|>", true)]);
    insta::assert_snapshot!(message("a.jsonl", &item.to_string(), &FormatSettings::default(), None), @r#"
    every token of 6 carries loss
    hint: the data is plain text, without prompts: say `train_on = "all"` if that is wanted
    "#);
}

#[test]
fn every_known_template_learns_what_the_assistant_says_and_nothing_else() {
    let golden: Value = serde_json::from_str(include_str!("../../../../testdata/text/chat.json")).unwrap();
    let turns = json!([{"role": "user", "content": "QUESTION one"}, {"role": "assistant", "content": "ANSWER one"},
        {"role": "user", "content": "QUESTION two"}, {"role": "assistant", "content": "ANSWER two"}]);
    let mut n_templates = 0;
    for entry in golden["templates"].as_array().unwrap() {
        let source = entry["source"].as_str().unwrap();
        if ["probe", "generation"].contains(&entry["name"].as_str().unwrap()) {
            continue;
        }
        for train_turns in [Turns::All, Turns::Last] {
            let settings = FormatSettings { train_turns, ..FormatSettings::default() };
            let found = runs(&json!({ "messages": turns }), &settings, Some(source));
            let learnt: String = found.iter().filter(|(_, trained)| *trained).map(|(text, _)| text.as_str()).collect();
            let rest: String = found.iter().filter(|(_, trained)| !trained).map(|(text, _)| text.as_str()).collect();
            assert!(learnt.contains("ANSWER two") && !learnt.contains("QUESTION"), "{} {learnt}", entry["name"]);
            assert_eq!(learnt.contains("ANSWER one"), train_turns == Turns::All, "{} {learnt}", entry["name"]);
            assert!(rest.contains("QUESTION one") && rest.contains("QUESTION two"), "{} {rest}", entry["name"]);
            let overhead = learnt.replace("ANSWER one", "").replace("ANSWER two", "");
            assert!(overhead.len() <= 60, "{}: {learnt}", entry["name"]);
        }
        n_templates += 1;
    }
    assert!(n_templates >= 12);
}

#[test]
fn an_answer_that_would_merge_with_its_prompt_is_encoded_apart() {
    let (tokenizer, _) = tokenizer();
    let loaded = load_text(
        "a.jsonl",
        r#"{"prompt": "They went to th", "completion": "e park."}"#,
        &FormatSettings::default(),
        None,
    )
    .unwrap();
    let example = &loaded.examples[0];
    assert_eq!(loaded.report.encoded_apart, 1);
    assert_eq!(example.ids[..example.prompt_len], tokenizer.encode(&example.prompt).unwrap());
    assert_ne!(example.ids[..example.ids.len() - 1], tokenizer.encode("They went to the park.").unwrap());
    assert_eq!(tokenizer.decode(&example.ids), "They went to the park.<|im_end|>");
}

#[test]
fn long_items_are_cut_or_dropped_and_counted() {
    let mut text = String::new();
    for length in [2, 40, 4] {
        writeln!(text, "{}", json!({"prompt": "Say it:", "completion": " go".repeat(length)})).unwrap();
    }
    let settings = FormatSettings { max_length: 20, ..FormatSettings::default() };
    let cut = load_text("a.jsonl", &text, &settings, None).unwrap();
    assert_eq!((cut.report.kept, cut.report.cut, cut.examples[1].ids.len()), (3, 1, 20));
    assert!(cut.examples[1].trained[19]);
    let settings = FormatSettings { overlong: Overlong::Drop, ..settings };
    let dropped = load_text("a.jsonl", &text, &settings, None).unwrap();
    assert_eq!((dropped.report.kept, dropped.report.cut), (2, 0));
    assert_eq!(dropped.report.dropped["longer than `max_length`"], 1);
    assert!(dropped.report.first_dropped["longer than `max_length`"].ends_with("a.jsonl:2"));
}

#[test]
fn sources_are_reported_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs_err::write(path("a.json"), r#"[{"prompt": "Hi", "completion": " there"}, {"prompt": "Hi", "completion": ""}]"#)
        .unwrap();
    fs_err::write(path("b.csv"), "instruction,output\nAdd.,3\nDivide.,\"4,\n5\"\n").unwrap();
    let (tokenizer, special) = tokenizer();
    let settings = FormatSettings { bad_items: BadItems::Drop, ..FormatSettings::default() };
    let sources = [Source::new(path("a.json")), Source { path: path("b.csv"), weight: 2.0 }];
    let loaded = load(&sources, &settings, &tokenizer, &special, None).unwrap();
    let shown = loaded.report.to_string().replace(&format!("{}/", folder.path().display()), "");
    insta::assert_snapshot!(shown, @r"
    a.json: prompt-completion, 2 items
    b.csv: alpaca, 2 items, weight 2
    3 examples (0 cut, 1 dropped)
      dropped: 1 empty field, first a.json:1
    lengths: 4 to 97, median 93, 95 % at most 97 tokens (prompts 2 to 92, median 91, 95 % at most 92)
    loss on 9 of 194 tokens (4.6 %)
    ");
    assert_eq!(loaded.examples.iter().map(|example| example.source).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(loaded.mix(&[0, 1, 2], 1), [1, 2, 0, 1, 2]);
}

#[test]
fn what_is_wrong_with_an_item_is_named_with_its_line() {
    let settings = FormatSettings::default();
    let good = r#"{"instruction": "a", "output": "b"}"#;
    let bad = |line: &str| message("a.jsonl", &format!("{good}\n\n{line}\n"), &settings, Some(CHATML));
    insta::assert_snapshot!(bad(r#"{"instruction": "a"}"#), @r#"
    a.jsonl:3: found the fields `instruction`, expected the field `output`
    hint: name the column that holds it, e.g. `columns = { output = "..." }`
    "#);
    insta::assert_snapshot!(bad(r#"{"instruction": "a", "output": " "}"#), @r#"
    a.jsonl:3: `output` is empty
    hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
    "#);
    insta::assert_snapshot!(bad(r#"{"instruction": ["a"], "output": "b"}"#), @"a.jsonl:3: `instruction` is a list, expected a text");
    let chat = |turns: &str| message("a.jsonl", &format!("{{\"messages\": {turns}}}"), &settings, Some(CHATML));
    insta::assert_snapshot!(chat(r#"[{"role": "user", "content": "a"}, {"role": "boss", "content": "b"}]"#), @"a.jsonl:1: unknown role `boss` of message 1, expected one of `system`, `developer`, `user`, `assistant`, `tool`, `function`, `ipython`");
    insta::assert_snapshot!(chat(r#"[{"role": "user", "content": "a"}]"#), @r#"
    a.jsonl:1: no message is by `assistant`, so there is nothing to learn from
    hint: set `train_roles`, or `train_on = "all"`
    "#);
    insta::assert_snapshot!(chat(r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]"#), @r#"
    a.jsonl:1: `messages[1].content` is empty
    hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
    "#);
    insta::assert_snapshot!(chat(r#"[{"role": "user"}, "b"]"#), @"a.jsonl:1: `messages[1]` is a text, expected a message with `role` and `content`");
    insta::assert_snapshot!(chat("[]"), @r#"
    a.jsonl:1: `messages` is empty
    hint: give it a text, or take the item out (instructions and pairs: `bad_items = "drop"`)
    "#);
    insta::assert_snapshot!(chat(r#""hello""#), @"a.jsonl:1: `messages` is a text, expected a list of messages");
    insta::assert_snapshot!(message("a.jsonl", r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "robot", "value": "b"}]}"#, &settings, Some(CHATML)), @"a.jsonl:1: unknown role `robot` of message 1, expected one of `human`, `user`, `gpt`, `assistant`, `chatgpt`, `bing`, `bard`, `model`, `system`, `tool`, `function`, `observation`, `function_response`");
    insta::assert_snapshot!(message("a.jsonl", r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#, &settings, None), @r"
    a.jsonl:1: the model has no chat template, which these items need
    hint: use a model that has one, put a `chat_template.jinja` beside it, or set `prompt_template`
    ");
    insta::assert_snapshot!(message("a.jsonl", r#"{"question": "a", "answer": "b"}"#, &settings, None), @r#"
    a.jsonl: found the fields `question`, `answer`, expected `messages`, `conversations`, `prompt` and `completion`, `instruction` and `output`, or `text`
    hint: say which column is which, e.g. `columns = { instruction = "question", output = "answer" }`
    "#);
    insta::assert_snapshot!(message("a.jsonl", r#"{"prompt": "", "completion": "b c d"}"#, &settings, None), @r#"
    every token of 4 carries loss
    hint: no item has a prompt before its answer: say `train_on = "all"` if that is wanted
    "#);
    let short = FormatSettings { max_length: 8, ..FormatSettings::default() };
    insta::assert_snapshot!(message("a.jsonl", &format!("{{\"prompt\": \"{}\", \"completion\": \"b\"}}", "a ".repeat(20)), &short, None), @r#"
    a.jsonl:1: the prompt has 21 tokens, which leaves no room for an answer within 8
    hint: raise `max_length`, or leave such items out with `overlong = "drop"`
    "#);
}

#[test]
fn settings_that_cannot_be_met_are_refused() {
    let refused = |settings: FormatSettings, special: SpecialTokens| {
        load(&[Source::new("none.jsonl")], &settings, &Tokenizer::bytes(), &special, None).unwrap_err().to_string()
    };
    let special = SpecialTokens { eos: vec![256], ..SpecialTokens::default() };
    let settings = FormatSettings { prompt_template: PromptTemplate::Chat, ..FormatSettings::default() };
    insta::assert_snapshot!(refused(settings, special.clone()), @r"
    the model has no chat template, which these items need
    hint: use a model that has one, put a `chat_template.jinja` beside it, or set `prompt_template`
    ");
    insta::assert_snapshot!(refused(FormatSettings::default(), SpecialTokens::default()), @"`train_eos` is true, expected false, as this tokenizer has no end-of-text token");
    insta::assert_snapshot!(refused(FormatSettings { max_length: 1, ..FormatSettings::default() }, special), @"`max_length` is 1, expected at least 2 tokens, or 0 for no bound");
    insta::assert_snapshot!(Source::parse("a.json=0").unwrap_err().to_string(), @"`weight` is 0, expected a number above 0 and at most 1000 for a.json");
    assert_eq!(Source::parse("a=b.json=0.5").unwrap(), Source { path: "a=b.json".into(), weight: 0.5 });
    assert_eq!(Source::parse("a=b.json").unwrap(), Source::new("a=b.json"));
}

#[test]
fn a_text_begins_with_bos_where_the_model_wants_it_and_once() {
    let (tokenizer, special) = tokenizer();
    let bos = tokenizer.token_id("<|im_start|>");
    let special = SpecialTokens { bos, add_bos: true, ..special };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs_err::write(&path, "{\"prompt\": \"Hi\", \"completion\": \" there\"}\n{\"prompt\": \"<|im_start|>Hi\", \"completion\": \" there\"}").unwrap();
    let source = Source::new(path.display().to_string());
    let loaded = load(&[source], &FormatSettings::default(), &tokenizer, &special, None).unwrap();
    let [one, two] = &loaded.examples[..] else { panic!() };
    assert_eq!((&one.ids, &one.trained, one.prompt_len), (&two.ids, &two.trained, two.prompt_len));
    assert_eq!(spans(one, &tokenizer)[0].text, "<|im_start|>Hi");
}

#[test]
fn settings_are_read_from_toml_names() {
    let settings: FormatSettings =
        serde_json::from_value(json!({"format": "prompt-completion", "train_on": "all", "overlong": "drop",
        "prompt_template": "{q}{response}", "columns": {"output": "a"}}))
        .unwrap();
    assert_eq!(settings.format, Format::PromptCompletion);
    assert_eq!(settings.prompt_template, PromptTemplate::Custom("{q}{response}".into()));
    let written = serde_json::to_value(&settings).unwrap();
    assert_eq!(serde_json::from_value::<FormatSettings>(written).unwrap(), settings);
    let error =
        serde_json::from_value::<FormatSettings>(json!({"prompt_template": "alpacca"})).unwrap_err().to_string();
    assert!(error.contains("no place for the answer"), "{error}");
}

/// Asserts that the ids are `text` and that exactly the tokens within `learnt` carry loss, by counting bytes.
fn assert_mask(example: &Example, text: &str, learnt: &[Range<usize>]) -> Result<(), TestCaseError> {
    let (tokenizer, _) = tokenizer();
    let mut at = 0;
    for (number, &id) in example.ids.iter().enumerate() {
        let bytes = tokenizer.decode_bytes(&[id]);
        let end = at + bytes.len();
        prop_assert_eq!(&text.as_bytes()[at..end], &bytes[..]);
        let within = learnt.iter().any(|range| range.start <= at && end <= range.end);
        let outside = learnt.iter().all(|range| end <= range.start || range.end <= at);
        prop_assert!(within != outside, "a token lies on a border of {learnt:?}");
        prop_assert_eq!(example.trained[number], within && number > 0, "token {} of {:?}", number, text);
        at = end;
    }
    prop_assert_eq!(at, text.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn masks_follow_from_the_text_of_instructions(
        instruction in "[ a-eäß\n.]{1,12}[a-e]", input in "[ a-e\n]{0,6}", output in "[ a-eé\n]{0,9}[a-e]",
        whole in prop::bool::ANY,
    ) {
        let item = json!({"instruction": instruction, "input": input, "output": output});
        let middle = if input.is_empty() { String::new() } else { format!("\n\n### Input:\n{input}") };
        let prompt = format!("{ALPACA}{instruction}{middle}\n\n### Response:\n");
        let text = format!("{prompt}{output}<|im_end|>");
        let settings = if whole { all() } else { FormatSettings::default() };
        let loaded = load_text("a.jsonl", &item.to_string(), &settings, None).unwrap();
        let start = if whole { 0 } else { prompt.len() };
        assert_mask(&loaded.examples[0], &text, from_ref(&(start..text.len())))?;
        prop_assert_eq!(&loaded.examples[0].prompt, &prompt);
    }

    #[test]
    fn masks_follow_from_the_text_of_prompts(prompt in "Say[ a-e\n]{1,12}", completion in "[ a-eé\n]{0,9}[a-e]") {
        let item = json!({"prompt": prompt, "completion": completion});
        let loaded = load_text("a.jsonl", &item.to_string(), &FormatSettings::default(), None).unwrap();
        let text = format!("{prompt}{completion}<|im_end|>");
        assert_mask(&loaded.examples[0], &text, from_ref(&(prompt.len()..text.len())))?;
    }

    #[test]
    fn masks_follow_from_the_text_of_chats(
        turns in prop::collection::vec(("[ a-e\n]{0,6}", "[ a-eé\n]{0,6}[a-e]"), 1..5), marked in prop::bool::ANY, last in prop::bool::ANY,
    ) {
        let (mut messages, mut text, mut learnt) = (Vec::new(), String::new(), Vec::new());
        for (question, answer) in &turns {
            messages.extend([Message::new("user", question.clone()), Message::new("assistant", answer.clone())]);
            write!(text, "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").unwrap();
            let start = text.len();
            write!(text, "{answer}<|im_end|>").unwrap();
            learnt.push(start..text.len());
            text.push('\n');
        }
        let train_turns = if last { Turns::Last } else { Turns::All };
        if last {
            learnt = learnt.split_off(learnt.len() - 1);
        }
        let settings = FormatSettings { train_turns, ..FormatSettings::default() };
        let item = json!({ "messages": messages }).to_string();
        let loaded = load_text("a.jsonl", &item, &settings, Some(if marked { MARKED } else { CHATML })).unwrap();
        assert_mask(&loaded.examples[0], &text, &learnt)?;
        prop_assert_eq!(&loaded.examples[0].reference, &turns.last().unwrap().1);
    }

    #[test]
    fn masks_follow_from_the_text_of_texts(text in "[ a-eé\n]{2,20}[a-e]") {
        let loaded = load_text("a.jsonl", &json!({ "text": text }).to_string(), &all(), None).unwrap();
        let text = format!("{text}<|im_end|>");
        assert_mask(&loaded.examples[0], &text, from_ref(&(0..text.len())))?;
    }
}

/// What TRL makes of the golden items, and what they are here.
#[test]
fn ids_and_masks_are_those_of_trl() {
    let golden: Value = serde_json::from_str(include_str!("../../../../testdata/text/instruct.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs_err::write(path("tokenizer.json"), golden["tokenizer"].to_string()).unwrap();
    fs_err::write(path("items.json"), golden["items"].to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(path("tokenizer.json")).unwrap();
    let eos = vec![tokenizer.token_id("<|im_end|>").unwrap()];
    let special = SpecialTokens { eos, ..SpecialTokens::default() };
    let template = ChatTemplate::from_source(golden["chat_template"].as_str().unwrap()).unwrap();
    let source = [Source::new(path("items.json").display().to_string())];
    let mut n_apart = 0;
    for (name, prompt_template) in [("sft", PromptTemplate::Alpaca), ("chat", PromptTemplate::Chat)] {
        let settings = FormatSettings { prompt_template, ..FormatSettings::default() };
        // An input is a line of the user's message here, and TRL was given none.
        let mut items = golden["items"].clone();
        if name == "chat" {
            items.as_array_mut().unwrap().iter_mut().for_each(|item| item["input"] = json!(""));
        }
        fs_err::write(path("items.json"), items.to_string()).unwrap();
        let loaded = load(&source, &settings, &tokenizer, &special, Some(&template)).unwrap();
        for (example, expected) in loaded.examples.iter().zip(golden[name].as_array().unwrap()) {
            let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
            let mask: Vec<u8> = serde_json::from_value(expected["mask"].clone()).unwrap();
            if example.ids != ids {
                // TRL lets a prompt's last token merge with the answer and says that training then differs from
                // inference; here they are encoded apart.
                assert_eq!(tokenizer.decode(&example.ids), tokenizer.decode(&ids));
                let prompt = tokenizer.encode(&example.prompt).unwrap();
                assert!(!ids.starts_with(&prompt) && example.ids.starts_with(&prompt), "{}", example.prompt);
                n_apart += 1;
                continue;
            }
            let mut learnt: Vec<u8> = example.trained.iter().map(|&trained| u8::from(trained)).collect();
            if name == "chat" {
                // The line break after the end of the turn, which no model writes.
                assert_eq!((learnt.last(), tokenizer.decode(&ids[ids.len() - 1..]).as_str()), (Some(&0), "\n"));
                *learnt.last_mut().unwrap() = 1;
            }
            assert_eq!(learnt, mask, "{name} {}", example.prompt);
        }
        assert_eq!(loaded.examples.len(), golden["items"].as_array().unwrap().len());
    }
    // The items that begin with a space or a line break, once in each form.
    assert!((2..=6).contains(&n_apart), "{n_apart}");
}
