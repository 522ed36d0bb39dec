use super::*;
use crate::PretrainSettings;
use crate::settings::{LrSchedule, OptimizationSettings, Sizes};

fn parse(text: &str) -> Result<PretrainSettings, SettingsError> {
    PretrainSettings::from_table(text.parse().unwrap())
}

fn message(text: &str) -> String {
    parse(text).and_then(|settings| settings.validate()).unwrap_err().to_string()
}

#[test]
fn every_key_is_a_flag_with_help_and_every_flag_a_key() {
    let command = PretrainSettings::augment_args(clap::Command::new("pretrain"));
    let flags: Vec<_> = command.get_arguments().map(|flag| flag.get_id().to_string()).collect();
    let keys: Vec<_> = PretrainSettings::default().to_table().keys().cloned().collect();
    assert_eq!(flags, keys);
    for flag in command.get_arguments() {
        assert_eq!(flag.get_long().unwrap(), flag.get_id().as_str().replace('_', "-"));
        assert!(flag.get_help().is_some_and(|help| !help.to_string().is_empty()), "{} has no help", flag.get_id());
    }
}

#[test]
fn decided_settings_written_as_toml_decide_the_same() {
    let settings = PretrainSettings {
        data: vec!["a.txt".to_owned(), "b".to_owned()],
        optimization: OptimizationSettings {
            warmup_steps: Warmup::Steps(27),
            lr_schedule: LrSchedule::Wsd,
            peak_lr: 1e-3,
            ..OptimizationSettings::default()
        },
        ..PretrainSettings::default()
    };
    let text = toml::to_string(&settings).unwrap();
    assert!(text.contains("warmup_steps = 27\n"), "{text}");
    assert_eq!(parse(&text).unwrap(), settings);
}

#[test]
fn whole_numbers_and_single_paths_are_taken_where_more_is_allowed() {
    let settings = parse("max_norm = 1\ndata = 'a.txt'\nwarmup_steps = 100\ntemperature = 0").unwrap();
    assert_eq!((settings.optimization.max_norm, settings.evaluation.temperature), (1.0, 0.0));
    assert_eq!(settings.data, ["a.txt"]);
    assert_eq!(settings.optimization.warmup_steps, Warmup::Steps(100));
    assert_eq!(parse("warmup_steps = 0.2").unwrap().optimization.warmup_steps, Warmup::Fraction(0.2));
}

#[test]
fn a_published_size_brings_its_widths_and_a_size_given_goes_before_it() {
    let sizes = parse("arch = 'gpt2-1558m'\nnum_hidden_layers = 2").unwrap().sizes();
    let expected = Sizes { hidden_size: 1600, num_hidden_layers: 2, num_attention_heads: 25, intermediate_size: 6400 };
    assert_eq!(sizes, expected);
}

#[test]
fn flags_are_read_by_the_type_of_their_default() {
    let flag = |key: &str, text: &str| PretrainSettings::parse_flag(key, &[text.to_owned()]).map_err(|e| e.to_string());
    assert_eq!(flag("batch_size", "8"), Ok(Value::Integer(8)));
    assert_eq!(flag("peak_lr", "3e-4"), Ok(Value::Float(3e-4)));
    assert_eq!(flag("max_norm", "1"), Ok(Value::Float(1.0)));
    assert_eq!(flag("qkv_bias", "false"), Ok(Value::Boolean(false)));
    assert_eq!(flag("start_context", "8"), Ok(Value::String("8".to_owned())));
    insta::assert_snapshot!(flag("batch_size", "-3").unwrap_err(), @"`batch_size` is -3, expected a whole number of at least 0, hint: write it without sign, point or quotes");
    insta::assert_snapshot!(flag("qkv_bias", "yes").unwrap_err(), @r#"`qkv_bias` is "yes", expected true or false, hint: write it without quotes"#);
}

#[test]
fn a_misspelled_key_names_the_nearest() {
    insta::assert_snapshot!(message("bach_size = 4"), @"unknown key `bach_size`, hint: did you mean `batch_size`?");
    insta::assert_snapshot!(message("max-norm = 4"), @"unknown key `max-norm`, hint: did you mean `max_norm`?");
    insta::assert_snapshot!(message("zzz = 4"), @"unknown key `zzz`, hint: `cavy pretrain --help` lists the keys");
}

#[test]
fn heads_that_do_not_divide_the_width_are_named_with_numbers_that_do() {
    insta::assert_snapshot!(
        message("data = 'x'\narch = 'custom'\nhidden_size = 100\nnum_hidden_layers = 2\nnum_attention_heads = 3"),
        @"`num_attention_heads` is 3, expected a number of heads that divides hidden_size = 100, hint: use 2 heads, or a hidden size of 102"
    );
}

#[test]
fn each_setting_that_cannot_run_is_refused_by_name() {
    for (text, key) in [
        ("batch_size = -1", "batch_size"),
        ("batch_size = 0", "batch_size"),
        ("batch_size = 1.5", "batch_size"),
        ("context_length = 0", "context_length"),
        ("arch = 'custom'", "hidden_size"),
        ("arch = 'gpt2-small'", "arch"),
        ("lr_schedule = 'cosin'", "lr_schedule"),
        ("window_order = 1", "window_order"),
        ("val_fraction = 1.0", "val_fraction"),
        ("val_fraction = nan", "val_fraction"),
        ("drop_rate = 1", "drop_rate"),
        ("peak_lr = 0", "peak_lr"),
        ("peak_lr = inf", "peak_lr"),
        ("peak_lr = '1e-3'", "peak_lr"),
        ("min_lr = 1.0", "min_lr"),
        ("initial_lr = 1.0", "initial_lr"),
        ("initial_lr = -1.0", "initial_lr"),
        ("warmup_steps = 1.5", "warmup_steps"),
        ("warmup_steps = -1", "warmup_steps"),
        ("warmup_steps = 9\nmax_steps = 8", "warmup_steps"),
        ("beta2 = 1", "beta2"),
        ("eps = 0", "eps"),
        ("max_norm = -1", "max_norm"),
        ("temperature = -1", "temperature"),
        ("decay_fraction = 0", "decay_fraction"),
        ("epochs = 0", "epochs"),
        ("grad_accum_steps = 0", "grad_accum_steps"),
        ("tokenizer = 'bpe:12'", "tokenizer"),
        ("qkv_bias = 1", "qkv_bias"),
        ("data = []", "data"),
    ] {
        let text = if text.starts_with("data") { text.to_owned() } else { format!("data = 'x'\n{text}") };
        let error = parse(&text).and_then(|settings| settings.validate()).unwrap_err();
        assert_eq!(error.key(), key, "{text}: {error}");
    }
    parse("data = 'x'").unwrap().validate().unwrap();
}
