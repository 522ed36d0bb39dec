//! `cavy generate`: continues prompts.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::{ModelArgs, Opened, open, source};
use crate::sampling::SamplingArgs;
use crate::{Ending, text};
use cavy_generate::{
    BeamSettings, Completion, EarlyStopping, Finish, GenerateSettings, beam_search, cache_bytes, generate_reporting,
};
use cavy_text::{ChatInput, Message, TextStream, encode_chat};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Text to continue
    #[arg(long, short, default_value = "", conflicts_with = "prompts")]
    prompt: String,
    /// JSONL file of prompts: a text under `prompt`, or `messages`; the results are JSONL too
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Take the prompt as a user's message and apply the model's chat template
    #[arg(long)]
    chat: bool,
    /// Print one JSON object for each completion
    #[arg(long)]
    json: bool,
    /// Show the settings and the memory of the cache, without loading weights
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Completions of each prompt
    #[arg(short, long, default_value_t = 1)]
    n: usize,
    /// Sequences decoded together
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Beams of a beam search; 1 for sampling
    #[arg(long, default_value_t = 1, help_heading = "Beam search")]
    num_beams: usize,
    /// A text's score is its log-probability divided by its length to this power
    #[arg(long, default_value_t = 1.0, help_heading = "Beam search")]
    length_penalty: f64,
    /// When the search ends
    #[arg(long, value_enum, default_value_t = Early::False, help_heading = "Beam search")]
    early_stopping: Early,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Early {
    /// Once there are as many finished texts as beams
    True,
    /// Once the best running beam, were it to end now, would not be among them
    False,
    /// Once no running beam can become better
    Never,
}

/// A prompt as it was given, and its ids.
struct Prompt {
    given: Value,
    ids: Vec<u32>,
}

/// Generates and prints.
pub(crate) fn generate(args: &GenerateArgs) -> Result<Ending, CliError> {
    if args.dry_run {
        return dry_run(args);
    }
    let opened = open(&args.model, &args.adapters)?;
    let settings = GenerateSettings {
        n: args.n.max(1),
        batch_size: args.batch_size,
        ..args.sampling.settings(&opened.special.eos, &opened.defaults)?
    };
    let prompts = prompts(args, &opened)?;
    let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
    let context = opened.model.config().context_length();
    if longest > context {
        let message = format!("a prompt has {longest} tokens, the model's context is {context}");
        return Err(CliError::failed(message, "shorten the prompt"));
    }
    let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
    fits(&opened.model.config(), &lengths, &settings)?;
    if args.num_beams > 1 {
        return beams(args, &opened, &prompts, &settings);
    }
    sample(args, &opened, &prompts, &settings);
    Ok(Ending::Done)
}

/// A completion on its way to the user.
struct Growing<'a> {
    stream: TextStream<'a>,
    text: String,
    line: Option<String>,
}

/// Samples, and prints each completion once all before it are there; a single one as it grows.
fn sample(args: &GenerateArgs, opened: &Opened, prompts: &[Prompt], settings: &GenerateSettings) {
    let alone = prompts.len() == 1 && settings.n == 1 && !args.json && args.prompts.is_none();
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let growing = |_| Growing {
        stream: TextStream::continuing(&opened.tokenizer, &args.sampling.stop),
        text: String::new(),
        line: None,
    };
    let all: RefCell<Vec<Growing>> = RefCell::new((0..prompts.len() * settings.n).map(growing).collect());
    let progress = progress(if alone { 0 } else { prompts.len() * settings.n });
    let mut printed = 0;
    let mut on_token = |prompt: usize, sample: usize, token: u32| {
        let growing = &mut all.borrow_mut()[prompt * settings.n + sample];
        let piece = growing.stream.push(token);
        if alone {
            text::piece(&piece);
        }
        growing.text.push_str(&piece);
        growing.stream.stopped().is_some()
    };
    let mut on_done = |prompt: usize, sample: usize, completion: &Completion| {
        let mut all = all.borrow_mut();
        let growing = &mut all[prompt * settings.n + sample];
        let rest = growing.stream.finish();
        growing.text.push_str(&rest);
        growing.line = Some(if alone {
            rest
        } else if args.json || args.prompts.is_some() {
            let stopped = growing.stream.stopped().map(|index| args.sampling.stop[index].clone());
            record(&prompts[prompt].given, sample, &growing.text, completion, stopped).to_string()
        } else {
            std::mem::take(&mut growing.text)
        });
        progress.inc(1);
        while let Some(line) = all.get_mut(printed).and_then(|growing| growing.line.take()) {
            progress.suspend(|| text::data(&line));
            printed += 1;
        }
    };
    generate_reporting(&opened.model, &ids, settings, &mut on_token, &mut on_done);
    progress.finish_and_clear();
}

/// Completions done and the time left, on stderr; nothing to see where there are fewer than two.
fn progress(completions: usize) -> ProgressBar {
    if completions < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(completions as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} completions, {eta} left");
    bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
    bar
}

fn record(prompt: &Value, sample: usize, text: &str, completion: &Completion, stopped: Option<String>) -> Value {
    json!({
        "prompt": prompt, "sample": sample, "text": text, "tokens": completion.tokens, "logprobs": completion.logprobs,
        "raw_logprobs": completion.raw_logprobs,
        "finish_reason": match completion.finish { Finish::Stop => "stop", Finish::Length => "length" },
        "stop": stopped,
    })
}

fn beams(
    args: &GenerateArgs,
    opened: &Opened,
    prompts: &[Prompt],
    settings: &GenerateSettings,
) -> Result<Ending, CliError> {
    if args.num_beams < settings.n {
        let message = format!("`--n` is {}, `--num-beams` {}", settings.n, args.num_beams);
        return Err(CliError::usage(message, "a search returns at most as many texts as it has beams"));
    }
    let search = BeamSettings {
        num_beams: args.num_beams,
        num_return_sequences: settings.n,
        max_tokens: settings.max_tokens,
        length_penalty: args.length_penalty,
        early_stopping: match args.early_stopping {
            Early::True => EarlyStopping::True,
            Early::False => EarlyStopping::False,
            Early::Never => EarlyStopping::Never,
        },
        stop_tokens: settings.stop_tokens.clone(),
        kv_storage: settings.kv_storage,
    };
    let progress = progress(prompts.len());
    for prompt in prompts {
        for (sample, found) in beam_search(&opened.model, &prompt.ids, &search).into_iter().enumerate() {
            let mut stream = TextStream::continuing(&opened.tokenizer, &args.sampling.stop);
            let mut text: String = found.tokens.iter().map(|&token| stream.push(token)).collect();
            text.push_str(&stream.finish());
            if args.json || args.prompts.is_some() {
                let line = json!({"prompt": prompt.given, "sample": sample, "text": text, "tokens": found.tokens,
                    "logprob": found.logprob, "score": found.score});
                progress.suspend(|| text::data(&line.to_string()));
            } else {
                progress.suspend(|| text::data(&text));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Ending::Done)
}

/// The prompts of the command line or of the file.
fn prompts(args: &GenerateArgs, opened: &Opened) -> Result<Vec<Prompt>, CliError> {
    let Some(path) = &args.prompts else {
        let ids = if args.chat {
            chat_ids(opened, &[Message::new("user", args.prompt.as_str())])?
        } else {
            opened.encode(&args.prompt)?
        };
        return Ok(vec![Prompt { given: args.prompt.clone().into(), ids }]);
    };
    let lines = fs_err::read_to_string(path).map_err(CliError::read(path))?;
    let mut prompts = Vec::new();
    for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", path.display(), number + 1);
        let hint = "a line is an object with a text under `prompt`, or a list under `messages`";
        let value: Value = serde_json::from_str(line)
            .map_err(|error| CliError::failed(format!("{place}: not valid JSON: {error}"), hint))?;
        let messages = match (&value["prompt"], &value["messages"]) {
            (Value::String(prompt), _) if !args.chat => {
                prompts.push(Prompt { ids: opened.encode(prompt)?, given: value["prompt"].clone() });
                continue;
            }
            (Value::String(prompt), _) => vec![Message::new("user", prompt.as_str())],
            (_, messages) => serde_json::from_value(messages.clone())
                .map_err(|_| CliError::failed(format!("{place}: neither `prompt` nor `messages`"), hint))?,
        };
        let given = if value["prompt"].is_string() { &value["prompt"] } else { &value["messages"] };
        prompts.push(Prompt { ids: chat_ids(opened, &messages)?, given: given.clone() });
    }
    Ok(prompts)
}

/// The ids of a conversation up to where the assistant speaks.
pub(crate) fn chat_ids(opened: &Opened, messages: &[Message]) -> Result<Vec<u32>, CliError> {
    let Some(template) = &opened.template else {
        return Err(CliError::failed(
            "the model has no chat template",
            "use an instruct model, or leave out `--chat` and `messages`",
        ));
    };
    let (bos, eos) =
        (opened.special_text(opened.special.bos), opened.special_text(opened.special.eos.first().copied()));
    let input = ChatInput {
        messages,
        add_generation_prompt: true,
        bos_token: bos.as_deref(),
        eos_token: eos.as_deref(),
        ..ChatInput::default()
    };
    Ok(encode_chat(&opened.tokenizer, template, &input)?)
}

/// Refuses a cache that does not fit into this machine's free memory.
pub(crate) fn fits(
    config: &cavy_model::ModelConfig,
    prompts: &[usize],
    settings: &GenerateSettings,
) -> Result<usize, CliError> {
    let bytes = if settings.use_cache { cache_bytes(config, prompts, settings) } else { Some(0) };
    let free = free_memory().unwrap_or(usize::MAX);
    match bytes {
        Some(bytes) if bytes <= free => Ok(bytes),
        _ => Err(CliError::failed(
            format!(
                "the cache of keys and values takes {}, {} are free",
                bytes.map_or("more than can be counted".into(), |bytes| text::bytes(bytes as f64)),
                text::bytes(free as f64)
            ),
            "use fewer `--max-new-tokens`, a smaller `--batch-size`, or `--kv-cache q8`",
        )),
    }
}

/// Memory that can be had without swapping, where the system says so.
fn free_memory() -> Option<usize> {
    let info = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<usize>().ok()?.checked_mul(1024)
}

fn dry_run(args: &GenerateArgs) -> Result<Ending, CliError> {
    let source = source(&args.model)?;
    let (tokenizer, special, _) = crate::open::words(&source, args.model.tokenizer.as_deref())?;
    let settings = GenerateSettings {
        n: args.n.max(1),
        batch_size: args.batch_size,
        ..args.sampling.settings(&special.eos, &crate::open::defaults(&source))?
    };
    let prompt = tokenizer.encode(&args.prompt)?.len() + usize::from(special.add_bos);
    let bytes = fits(&source.config, &[prompt], &settings)?;
    let weights: usize = source.tensors.infos().map(cavy_files::TensorInfo::size_bytes).sum();
    text::data(&format!(
        "model        {} parameters, {} in the file",
        text::count(source.config.num_parameters() as f64),
        text::bytes(weights as f64)
    ));
    text::data(&format!("prompt       {prompt} tokens, context {}", source.config.context_length()));
    text::data(&format!("completion   {} of up to {} tokens", settings.n, settings.max_tokens));
    text::data(&format!("kv cache     {} in {:?}", text::bytes(bytes as f64), settings.kv_storage));
    text::data(&format!("sampling     {:?}", settings.sampling));
    Ok(Ending::Done)
}
