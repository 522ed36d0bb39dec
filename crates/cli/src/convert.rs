//! `cavy convert`: a model into another format, or with smaller weights.

use crate::adapters;
use crate::error::CliError;
use crate::open::{DtypeArg, ModelArgs, source, words};
use crate::{Ending, text};
use cavy_files::gguf::{Array, Metadata, Value};
use cavy_files::{AtomicFile, Dtype, HuggingFace, Outgoing, TensorInfo, Tensors, gguf, safetensors};
use cavy_model::{Origin, Source};
use cavy_ops::exec;
use cavy_ops::kernels::packed::{Format, dequantize, quantize};
use cavy_text::{ChatTemplate, SpecialTokens, Tokenizer};
use clap::Args;
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Convert this PEFT adapter of the model instead: `--out` is then a `.gguf` file for llama.cpp's `--lora`
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Where to: a `.gguf` file, or a folder for Hugging Face's form
    #[arg(long, short)]
    out: PathBuf,
    /// Form of the matrices; norms and biases stay f32
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    quantize: DtypeArg,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

/// Reads, converts and writes, each tensor on its own.
pub(crate) fn convert(args: &ConvertArgs) -> Result<Ending, CliError> {
    let source = source(&args.model)?;
    let to_gguf = args.out.extension().is_some_and(|extension| extension == "gguf");
    let there = if to_gguf { args.out.exists() } else { args.out.join("config.json").exists() };
    if there && !args.force {
        let message = format!("{} is already there", args.out.display());
        return Err(CliError::failed(message, "choose another name, or replace it with `--force`"));
    }
    if let Some(adapter) = &args.adapter {
        if !to_gguf || args.quantize != DtypeArg::Auto {
            return Err(CliError::usage(
                "an adapter is written as f32 into a `.gguf` file",
                "give `--out adapter.gguf`",
            ));
        }
        adapters::export(&source, adapter, &args.out)?;
        text::say(&format!("{}: adapter for llama.cpp", args.out.display()));
        return Ok(Ending::Done);
    }
    let (tokenizer, special, template) = words(&source, args.model.tokenizer.as_deref())?;
    let extras = Extras { tokenizer, special, template };
    let bytes = if to_gguf { write_gguf(args, source, &extras)? } else { write_folder(args, &source, &extras)? };
    text::say(&format!("{}: {}", args.out.display(), text::bytes(bytes as f64)));
    Ok(Ending::Done)
}

/// What lies beside the tensors.
pub(crate) struct Extras {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) special: SpecialTokens,
    pub(crate) template: Option<ChatTemplate>,
}

/// The form of a tensor in the file to be written.
fn form(info: &TensorInfo, target: DtypeArg, gguf: bool) -> Dtype {
    let width = info.shape.last().copied().unwrap_or(1);
    let as_stored = if info.dtype.is_quantized() && !gguf { Dtype::F32 } else { info.dtype };
    // Vectors are few and matter; llama.cpp adds positions as f32.
    if gguf && (info.shape.len() < 2 || info.name.starts_with("position_embd")) {
        return Dtype::F32;
    }
    match target.stored().map(|(dtype, _)| dtype) {
        Some(dtype) if info.shape.len() < 2 && dtype.is_quantized() => as_stored,
        Some(dtype) if !width.is_multiple_of(dtype.block().0) => Dtype::F16,
        Some(dtype) => dtype,
        None => as_stored,
    }
}

/// A tensor on its way into a file, converted when it is written.
fn outgoing<'a>(tensors: &'a Tensors, info: &'a TensorInfo, dtype: Dtype) -> Outgoing<'a> {
    let (name, mut shape) = (info.name.clone(), info.shape.clone());
    // Blocks that lie the other way round; what is not quantized can be put right.
    let turned = tensors.is_turned(&info.name) && !dtype.is_quantized();
    if turned {
        shape.reverse();
    }
    let bytes = move || -> Result<Cow<'a, [u8]>, cavy_files::FilesError> {
        let stored = tensors.bytes(&info.name)?;
        if info.dtype == dtype {
            return Ok(stored.to_vec().into());
        }
        let mut values = match Format::from_name(&info.dtype.to_string()) {
            Some(format) => {
                let mut values = vec![0.0; info.elements()];
                dequantize(exec(), format, &stored, &mut values);
                values
            }
            None => tensors.f32(&info.name)?,
        };
        if turned {
            let (rows, columns) = (info.shape[0], info.shape[1]);
            values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
        }
        let format = Format::from_name(&dtype.to_string()).expect("a form that can be written");
        Ok(quantize(exec(), format, &values).expect("a form that can be written").into())
    };
    Outgoing { name, dtype, shape, bytes: Box::new(bytes) }
}

fn write_gguf(args: &ConvertArgs, source: Source, extras: &Extras) -> Result<u64, CliError> {
    let Source { path, fields, tensors, origin, .. } = source;
    let (mut metadata, tensors) = HuggingFace { config: fields, tensors }.to_gguf(&path)?;
    if let Origin::Gguf(before) = &origin {
        for (key, value) in before.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
            metadata.set(key, value.clone());
        }
    } else {
        tokenizer_keys(&mut metadata, extras)?;
    }
    let file_type = args.quantize.stored().map_or(0, |(_, number)| number);
    metadata.set("general.file_type", Value::U32(file_type));
    let outgoing = tensors.infos().map(|info| outgoing(&tensors, info, form(info, args.quantize, true)));
    gguf::save(&args.out, &metadata, outgoing)?;
    fs_err::metadata(&args.out).map(|file| file.len()).map_err(CliError::read(&args.out))
}

/// The keys of a tokenizer and of its chat template.
fn tokenizer_keys(metadata: &mut Metadata, extras: &Extras) -> Result<(), CliError> {
    let vocabulary = extras.tokenizer.to_gguf(&extras.special)?;
    let mut set = |name: &str, value: Value| metadata.set(&format!("tokenizer.ggml.{name}"), value);
    set("model", Value::String(vocabulary.model.clone()));
    if !vocabulary.pre.is_empty() {
        set("pre", Value::String(vocabulary.pre));
    }
    set("tokens", Value::Array(Array::String(vocabulary.tokens)));
    set("token_type", Value::Array(Array::I32(vocabulary.token_types)));
    if vocabulary.model == "llama" {
        set("scores", Value::Array(Array::F32(vocabulary.scores)));
        set("add_space_prefix", Value::Bool(vocabulary.add_space_prefix));
    } else {
        set("merges", Value::Array(Array::String(vocabulary.merges)));
    }
    let ids = [("bos", vocabulary.bos), ("eos", vocabulary.eos), ("unknown", vocabulary.unknown)];
    for (name, id) in ids {
        if let Some(id) = id {
            set(&format!("{name}_token_id"), Value::U32(id));
        }
    }
    set("add_bos_token", Value::Bool(vocabulary.add_bos));
    if let Some(template) = &extras.template {
        metadata.set("tokenizer.chat_template", Value::String(template.source().to_owned()));
    }
    Ok(())
}

/// A file of text, whole or not at all.
fn write_text(dir: &Path, name: &str, text: &str) -> Result<(), CliError> {
    let mut file = AtomicFile::create(&dir.join(name))?;
    file.write(text.as_bytes())?;
    Ok(file.commit()?)
}

/// What lies beside the tensors in a Hugging Face folder: tokenizer, chat template, generation settings.
pub(crate) fn write_beside(dir: &Path, source: &Source, extras: &Extras) -> Result<(), CliError> {
    let write = |name: &str, text: &str| write_text(dir, name, text);
    let mut copied = Vec::new();
    if let Origin::Folder(from) = &source.origin {
        for name in [
            "generation_config.json",
            "tokenizer_config.json",
            "tokenizer.json",
            "special_tokens_map.json",
            "chat_template.jinja",
        ] {
            if let Ok(text) = fs_err::read_to_string(from.join(name)) {
                write(name, &text)?;
                copied.push(name);
            }
        }
    }
    if !copied.contains(&"tokenizer.json") {
        write("tokenizer.json", &extras.tokenizer.to_json()?)?;
    }
    if !copied.contains(&"tokenizer_config.json") {
        let token = |id: Option<u32>| id.map(|id| extras.tokenizer.decode(&[id]));
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token(extras.special.bos),
            "eos_token": token(extras.special.eos.first().copied()), "unk_token": token(extras.special.unk),
            "model_max_length": source.config.context_length(), "clean_up_tokenization_spaces": false,
        });
        write("tokenizer_config.json", &format!("{config:#}\n"))?;
        if let Some(template) = &extras.template {
            write("chat_template.jinja", template.source())?;
        }
    }
    if !copied.contains(&"generation_config.json") {
        let config = json!({"bos_token_id": extras.special.bos, "eos_token_id": extras.special.eos});
        write("generation_config.json", &format!("{config:#}\n"))?;
    }
    Ok(())
}

fn write_folder(args: &ConvertArgs, source: &Source, extras: &Extras) -> Result<u64, CliError> {
    if args.quantize.stored().is_some_and(|(dtype, _)| dtype.is_quantized()) {
        return Err(CliError::usage(
            "a Hugging Face folder holds no quantized blocks",
            "write a `.gguf` file, or choose f32, f16 or bf16",
        ));
    }
    let dir = &args.out;
    fs_err::create_dir_all(dir).map_err(CliError::write(dir))?;
    let write = |name: &str, text: &str| write_text(dir, name, text);
    write_beside(dir, source, extras)?;
    let outgoing: Vec<Outgoing> =
        source.tensors.infos().map(|info| outgoing(&source.tensors, info, form(info, args.quantize, false))).collect();
    let stored = outgoing.iter().find(|tensor| tensor.shape.len() > 1).map_or(Dtype::F32, |tensor| tensor.dtype);
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::save(&dir.join("model.safetensors"), &metadata, outgoing)?;
    let mut fields = source.fields.clone();
    fields["torch_dtype"] = json!(match stored {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    });
    // Transformers 5 reads `dtype` where it is there.
    if let Some(object) = fields.as_object_mut() {
        object.remove("dtype");
    }
    write("config.json", &format!("{fields:#}\n"))?;
    size(&dir.join("model.safetensors"))
}

fn size(path: &Path) -> Result<u64, CliError> {
    fs_err::metadata(path).map(|file| file.len()).map_err(CliError::read(path))
}
