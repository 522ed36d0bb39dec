use super::*;
use serde_json::{Value as Json, json};

/// The time at which transformers' texts were made.
const NOW: LocalTime = LocalTime(1_769_862_896);

fn golden() -> Json {
    serde_json::from_str(include_str!("../../../../testdata/text/chat.json")).unwrap()
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let golden = golden();
    let mut n_texts = 0;
    for entry in golden["templates"].as_array().unwrap() {
        let template = ChatTemplate::from_source(entry["source"].as_str().unwrap()).unwrap();
        for case in entry["cases"].as_array().unwrap() {
            let name = case["messages"].as_str().unwrap();
            let messages: Vec<Message> = serde_json::from_value(golden["conversations"][name].clone()).unwrap();
            let input = ChatInput {
                messages: &messages,
                tools: (name == "tools").then_some(&golden["tools"]),
                add_generation_prompt: case["add_generation_prompt"] == true,
                bos_token: entry["bos_token"].as_str(),
                eos_token: entry["eos_token"].as_str(),
                now: Some(NOW),
                variables: case["variables"].as_object(),
            };
            let rendered = template.render_marked(&input);
            let place = format!("{} {case:#}", entry["name"]);
            let Some(expected) = case["text"].as_str() else {
                assert!(rendered.is_err(), "{place}: {rendered:?}");
                continue;
            };
            let rendered = rendered.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(rendered.text, expected, "{place}");
            let generated: Vec<[usize; 2]> = serde_json::from_value(case["generated"].clone()).unwrap();
            let generated: Vec<_> = generated.into_iter().map(|[start, end]| start..end).collect();
            assert_eq!(rendered.generated, generated, "{place}");
            n_texts += 1;
        }
    }
    assert!(n_texts >= 200);
}

fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
    ChatTemplate::from_source(source)?.render(&ChatInput { messages, ..ChatInput::default() })
}

/// The first line of the message of a failure.
fn message(source: &str) -> String {
    let error = render(source, &[Message::new("user", "hi")]).unwrap_err().to_string();
    error.lines().next().unwrap().to_owned()
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    insta::assert_snapshot!(message("a\n{% for x in %}"), @"the chat template cannot be read: line 2: unexpected end of block");
    insta::assert_snapshot!(message("{{ raise_exception('Roles must ' ~ 'alternate') }}"), @"the chat template refuses this conversation: Roles must alternate");
    insta::assert_snapshot!(message("\n\n{{ messages[0].content + 1 }}"), @"the chat template fails at line 3: invalid operation: tried to use + operator on unsupported types string and number");
    insta::assert_snapshot!(message("{{ missing.field }}"), @"the chat template fails at line 1: undefined value");
    insta::assert_snapshot!(message("{{ messages | unheard_of }}"), @"the chat template fails at line 1: unknown filter: filter unheard_of is unknown");
    insta::assert_snapshot!(message("{{ strftime_now('%Y') }}"), @"the chat template fails at line 1: unknown function: strftime_now is unknown");
}

#[test]
fn a_template_that_never_ends_or_grows_without_bound_is_stopped() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 9999999999 }}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% for a in range(99999) %}{{ messages | tojson(indent=60) }}{% endfor %}",
        "{{ 'a,' | replace(',', 'b' * 99999) | replace('b', 'c' * 99999) | replace('c', 'd' * 99999) }}",
        "{{ ('(' * 100000) }}{% for i in range(99999) %}{{ messages[0].content.split('') }}{{ 'x'.join(['y' * 100000]) }}{% endfor %}",
    ] {
        let found = message(source);
        assert!(found.contains("too much time or memory") || found.contains("recursion"), "{source}: {found}");
    }
    let long = "x".repeat(MAX_SOURCE_BYTES + 1);
    assert!(matches!(ChatTemplate::from_source(&long), Err(TextError::ChatTemplate { .. })));
    let deep = "{% if true %}".repeat(50_000);
    assert!(ChatTemplate::from_source(&deep).is_err());
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(ChatTemplate::from_source(&nested).is_err());
}

#[test]
fn a_long_conversation_is_not_taken_for_an_attack() {
    let golden = golden();
    let messages: Vec<Message> =
        (0..2000).map(|i| Message::new(["user", "assistant"][i % 2], "word ".repeat(400))).collect();
    for entry in golden["templates"].as_array().unwrap().iter().filter(|entry| entry["name"] != "probe") {
        let template = ChatTemplate::from_source(entry["source"].as_str().unwrap()).unwrap();
        let input =
            ChatInput { messages: &messages, bos_token: Some("<s>"), eos_token: Some("</s>"), ..ChatInput::default() };
        assert!(template.render(&input).unwrap().len() > 3_900_000, "{}", entry["name"]);
    }
}

#[test]
fn the_messages_of_an_api_are_read_and_written_as_they_are() {
    let text = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}],"name":"x"}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    let without: Message = serde_json::from_str(r#"{"role":"tool"}"#).unwrap();
    assert_eq!(without.content, Json::Null);
    assert!(serde_json::from_str::<Message>(r#"{"content":"x"}"#).is_err());
}

#[test]
fn special_tokens_of_the_template_become_ids_and_bos_is_there_once() {
    let tokenizer = Tokenizer::train_bpe([""], 258, &["<s>", "</s>"]).unwrap();
    let messages = [Message::new("user", "a"), Message::new("assistant", "b")];
    let input =
        ChatInput { messages: &messages, bos_token: Some("<s>"), eos_token: Some("</s>"), ..ChatInput::default() };
    let source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    let template = ChatTemplate::from_source(source).unwrap();
    let [a, b] = [tokenizer.token_id("a").unwrap(), tokenizer.token_id("b").unwrap()];
    assert_eq!(encode_chat(&tokenizer, &template, &input).unwrap(), [256, a, 257, b, 257]);
}

#[test]
fn a_template_is_found_where_models_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let found = || ChatTemplate::from_model_dir(folder.path()).unwrap().map(|template| template.source().to_owned());
    assert_eq!(found(), None);
    let config = folder.path().join("tokenizer_config.json");
    let write = |value: Json| fs_err::write(&config, value.to_string()).unwrap();
    write(json!({"chat_template": null}));
    assert_eq!(found(), None);
    write(json!({"chat_template": "A"}));
    assert_eq!(found().unwrap(), "A");
    write(json!({"chat_template": [{"name": "rag", "template": "B"}, {"name": "default", "template": "C"}]}));
    assert_eq!(found().unwrap(), "C");
    write(json!({"chat_template": [{"name": "rag", "template": "B"}]}));
    assert_eq!(found().unwrap(), "B");
    fs_err::write(folder.path().join("chat_template.jinja"), "D").unwrap();
    assert_eq!(found().unwrap(), "D");
    fs_err::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    fs_err::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(matches!(ChatTemplate::from_model_dir(folder.path()), Err(TextError::BadConfig { .. })));
}
