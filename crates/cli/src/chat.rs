//! `cavy chat`: a conversation in the terminal.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::generate::chat_ids;
use crate::open::{ModelArgs, Opened, open};
use crate::sampling::SamplingArgs;
use crate::{Ending, text};
use cavy_generate::{Chat, GenerateSettings, Sampling};
use cavy_text::{Message, TextStream};
use clap::Args;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// What the model is told before the conversation
    #[arg(long)]
    system: Option<String>,
    /// Most tokens of the whole conversation; 0 for the model's context
    #[arg(long, default_value_t = 0)]
    context: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Whether Ctrl-C asked for the answer to stop.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const HELP: &str = "/reset forgets the conversation, /system TEXT starts it anew with that instruction, /save FILE writes \
    it as JSON, /params shows the settings, /params NAME=VALUE changes one, /quit leaves; Ctrl-C stops an answer";

/// Talks until the input ends.
pub(crate) fn chat(args: &ChatArgs) -> Result<Ending, CliError> {
    let opened = open(&args.model, &args.adapters)?;
    let mut settings = args.sampling.settings(&opened.special.eos, &opened.defaults)?;
    let context = opened.model.config().context_length();
    let longest = if args.context == 0 { context.min(8192) } else { args.context.min(context) };
    let mut cache = Chat::new(&opened.model, longest, settings.kv_storage);
    let mut messages = start(args.system.as_deref());
    // Fails only if there is a handler already.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst));
    let shows_prompt = std::io::stdin().is_terminal();
    if shows_prompt {
        text::say(HELP);
    }
    let stdin = std::io::stdin();
    let mut seed = settings.seed;
    loop {
        if shows_prompt {
            text::piece("\n> ");
        }
        let mut line = String::new();
        if stdin.lock().read_line(&mut line).map_err(CliError::read("standard input"))? == 0 {
            return Ok(Ending::Done);
        }
        let line = line.trim();
        match line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim())) {
            ("", _) => {}
            ("/quit" | "/exit", _) => return Ok(Ending::Done),
            ("/help", _) => text::say(HELP),
            ("/reset", _) => {
                messages = start(args.system.as_deref());
                text::say("the conversation begins anew");
            }
            ("/system", instruction) => {
                messages = start(Some(instruction));
                text::say("the conversation begins anew");
            }
            ("/save", path) => save(path, &messages),
            ("/params", change) => params(&mut settings, change),
            (command, _) if command.starts_with('/') => text::say(&format!("unknown command `{command}`; {HELP}")),
            _ => {
                messages.push(Message::new("user", line));
                settings.seed = seed;
                seed = seed.wrapping_add(1);
                match answer(&opened, &mut cache, &messages, &settings, &args.sampling.stop) {
                    Ok(reply) => messages.push(Message::new("assistant", reply)),
                    Err(error) => {
                        messages.pop();
                        text::say(&format!("{:?}", miette::Report::new(error)));
                    }
                }
            }
        }
    }
}

fn start(system: Option<&str>) -> Vec<Message> {
    system.map(|system| Message::new("system", system)).into_iter().collect()
}

/// Streams the next answer and returns it.
fn answer(
    opened: &Opened,
    cache: &mut Chat,
    messages: &[Message],
    settings: &GenerateSettings,
    stop: &[String],
) -> Result<String, CliError> {
    let ids = chat_ids(opened, messages)?;
    let room = cache.longest().saturating_sub(ids.len());
    if room == 0 {
        let message = format!("the conversation has {} tokens, there is room for {}", ids.len(), cache.longest());
        return Err(CliError::failed(message, "begin anew with /reset, or start with a longer `--context`"));
    }
    INTERRUPTED.store(false, Ordering::SeqCst);
    let settings = GenerateSettings { max_tokens: settings.max_tokens.min(room), ..settings.clone() };
    let mut stream = TextStream::new(&opened.tokenizer, stop);
    let mut reply = String::new();
    cache.answer(&opened.model, &ids, &settings, &mut |token| {
        let piece = stream.push(token);
        text::piece(&piece);
        reply.push_str(&piece);
        stream.stopped().is_some() || INTERRUPTED.load(Ordering::SeqCst)
    });
    let rest = stream.finish();
    text::data(&rest);
    reply.push_str(&rest);
    Ok(reply)
}

fn save(path: &str, messages: &[Message]) {
    if path.is_empty() {
        return text::say("/save needs a file name");
    }
    let json = serde_json::to_string_pretty(&messages).unwrap_or_default();
    match fs_err::write(PathBuf::from(path), json + "\n") {
        Ok(()) => text::say(&format!("saved {} messages", messages.len())),
        Err(error) => text::say(&error.to_string()),
    }
}

/// Shows the settings, or changes one.
fn params(settings: &mut GenerateSettings, change: &str) {
    if let Some((name, value)) = change.split_once('=') {
        let Ok(value) = value.trim().parse::<f64>() else { return text::say(&format!("`{value}` is no number")) };
        match name.trim().replace('-', "_").as_str() {
            "temperature" if value >= 0.0 => settings.sampling.temperature = value,
            "top_k" if value >= 0.0 => settings.sampling.top_k = value as usize,
            "top_p" if (0.0..=1.0).contains(&value) => settings.sampling.top_p = value,
            "min_p" if (0.0..=1.0).contains(&value) => settings.sampling.min_p = value,
            "repetition_penalty" if value > 0.0 => settings.sampling.repetition_penalty = value,
            "max_new_tokens" if value >= 1.0 => settings.max_tokens = value as usize,
            _ => return text::say(&format!("`{change}`: no such setting, or a value that it cannot have")),
        }
    }
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = &settings.sampling;
    text::say(&format!(
        "temperature={temperature} top_k={top_k} top_p={top_p} min_p={min_p} repetition_penalty={repetition_penalty} \
         max_new_tokens={}",
        settings.max_tokens
    ));
}
