//! `cavy generate`: continues prompts.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::{ModelArgs, Opened, open, source};
use crate::{Ending, text};
use cavy_generate::{
    BeamSettings, Completion, EarlyStopping, Finish, GenerateSettings, KvStorage, Sampling, beam_search, cache_bytes,
    generate as decode,
};
use cavy_text::{ChatInput, Message, TextStream, encode_chat};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
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

/// How tokens are chosen, and where a completion ends.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Most tokens of a completion
    #[arg(long, default_value_t = 128)]
    pub(crate) max_new_tokens: usize,
    /// Logits are divided by it; 0 takes the likeliest token
    #[arg(long, default_value_t = 0.8)]
    pub(crate) temperature: f64,
    /// Choose among this many likeliest tokens; 0 for all
    #[arg(long, default_value_t = 40)]
    pub(crate) top_k: usize,
    /// Choose among the fewest likeliest tokens that hold this share
    #[arg(long, default_value_t = 0.95)]
    pub(crate) top_p: f64,
    /// Choose among the tokens that are at least this times as likely as the likeliest
    #[arg(long, default_value_t = 0.05)]
    pub(crate) min_p: f64,
    /// Divides the logits of tokens of the prompt and the text so far; 1 for none
    #[arg(long, default_value_t = 1.0)]
    pub(crate) repetition_penalty: f64,
    /// Taken from the logits of tokens of the text so far
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub(crate) presence_penalty: f64,
    /// The same, for every time that a token occurred
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub(crate) frequency_penalty: f64,
    /// Added to a token's logit: `ID=BIAS`, as often as wanted
    #[arg(long, value_name = "ID=BIAS", allow_hyphen_values = true, value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Text that ends a completion, as often as wanted
    #[arg(long)]
    pub(crate) stop: Vec<String>,
    /// Go on after the end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Decides every choice
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Compute everything anew for every token, for comparison
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// How keys and values are stored
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub(crate) kv_cache: Kv,
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Exactly
    F32,
    /// In half the memory
    Bf16,
    /// In a quarter
    Q8,
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

/// `ID=BIAS`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected `ID=BIAS`, such as `50256=-100`")?;
    let id = id.parse().map_err(|_| format!("`{id}` is no token id"))?;
    Ok((id, bias.parse().map_err(|_| format!("`{bias}` is no number"))?))
}

impl SamplingArgs {
    /// What the library is told.
    pub(crate) fn settings(&self, stop_tokens: &[u32]) -> Result<GenerateSettings, CliError> {
        for (name, value, range) in [
            ("temperature", self.temperature, 0.0..=f64::MAX),
            ("top-p", self.top_p, 0.0..=1.0),
            ("min-p", self.min_p, 0.0..=1.0),
            ("repetition-penalty", self.repetition_penalty, f64::MIN_POSITIVE..=f64::MAX),
        ] {
            if !range.contains(&value) {
                let message = format!("`--{name}` is {value}, expected {} to {:.0}", range.start(), range.end());
                return Err(CliError::usage(message, "see `cavy generate --help`"));
            }
        }
        Ok(GenerateSettings {
            max_tokens: self.max_new_tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                logit_bias: self.logit_bias.clone(),
            },
            seed: self.seed,
            stop_tokens: if self.ignore_eos { Vec::new() } else { stop_tokens.to_vec() },
            n: 1,
            batch_size: 1,
            use_cache: !self.no_cache,
            kv_storage: match self.kv_cache {
                Kv::F32 => KvStorage::F32,
                Kv::Bf16 => KvStorage::Bf16,
                Kv::Q8 => KvStorage::Q8,
            },
        })
    }
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
        ..args.sampling.settings(&opened.special.eos)?
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
    let alone = prompts.len() == 1 && settings.n == 1 && !args.json && args.prompts.is_none();
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let new_stream = || TextStream::continuing(&opened.tokenizer, &args.sampling.stop);
    let mut streams: Vec<Vec<TextStream>> =
        prompts.iter().map(|_| (0..settings.n).map(|_| new_stream()).collect()).collect();
    let mut texts = vec![vec![String::new(); settings.n]; prompts.len()];
    let completions = decode(&opened.model, &ids, &settings, &mut |prompt, sample, token| {
        let stream = &mut streams[prompt][sample];
        let piece = stream.push(token);
        if alone {
            text::piece(&piece);
        }
        texts[prompt][sample].push_str(&piece);
        stream.stopped().is_some()
    });
    for (prompt, completions) in completions.iter().enumerate() {
        for (sample, completion) in completions.iter().enumerate() {
            let rest = streams[prompt][sample].finish();
            if alone {
                text::data(&rest);
                continue;
            }
            texts[prompt][sample].push_str(&rest);
            let text = &texts[prompt][sample];
            if args.json || args.prompts.is_some() {
                let stopped = streams[prompt][sample].stopped().map(|index| args.sampling.stop[index].clone());
                text::data(&record(&prompts[prompt].given, sample, text, completion, stopped).to_string());
            } else {
                text::data(text);
            }
        }
    }
    Ok(Ending::Done)
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
    for prompt in prompts {
        for (sample, found) in beam_search(&opened.model, &prompt.ids, &search).into_iter().enumerate() {
            let mut stream = TextStream::continuing(&opened.tokenizer, &args.sampling.stop);
            let mut text: String = found.tokens.iter().map(|&token| stream.push(token)).collect();
            text.push_str(&stream.finish());
            if args.json || args.prompts.is_some() {
                let line = json!({"prompt": prompt.given, "sample": sample, "text": text, "tokens": found.tokens,
                    "logprob": found.logprob, "score": found.score});
                text::data(&line.to_string());
            } else {
                text::data(&text);
            }
        }
    }
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
    let settings =
        GenerateSettings { n: args.n.max(1), batch_size: args.batch_size, ..args.sampling.settings(&special.eos)? };
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
