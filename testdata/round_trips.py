"""Models that go through cavy into other programs: what each makes of them, beside what cavy makes of them.

    python testdata/round_trips.py llama-cpp HF_FOLDER     # greedy tokens of every GGUF form in cavy and in llama.cpp
    python testdata/round_trips.py blocks HF_FOLDER        # blocks of our quantizers beside those of llama.cpp's
    python testdata/round_trips.py hugging-face HF_FOLDER  # HF -> cavy -> HF: every tensor's bytes
    python testdata/round_trips.py trained                 # models trained by cavy in transformers: logits

From the root of the repository, after `cargo build --release --workspace --examples`. Needs llama-cpp-python 0.3.36, gguf 0.19,
transformers 5.23, torch 2.15. Prints a line for each case; exit code 1 if one is wrong.

llama.cpp rounds activations to 8 bits in every product with quantized weights (to f16 with f16 ones); cavy does so with `--activations q8`, and by
itself in passes of at most 16 tokens and not in the output head. So tokens of one file must be equal with that flag, and where nothing is rounded: in
f32, and with the same weights written out as f32.
"""
import ctypes
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

CAVY = "target/release/cavy"
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):", "Water boils when it", "The history of bread begins"]
NEW = 48
good = True


def report(right, line):
    global good
    good &= bool(right)
    print(("ok    " if right else "WRONG ") + line, flush=True)


def cavy(*arguments):
    done = subprocess.run([CAVY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"cavy {' '.join(map(str, arguments))}:\n{done.stderr.decode()}")
    return done.stdout


def ours(model, folder, *more):
    prompts = os.path.join(folder, "prompts.jsonl")
    with open(prompts, "w") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
    lines = cavy("generate", "--model", model, "--prompts", prompts, "--temperature", 0, "--max-new-tokens", NEW, "--ignore-eos", *more)
    return [json.loads(line)["tokens"] for line in lines.splitlines()]


class Theirs:
    """llama.cpp with keys and values in f32: its default, f16, rounds them too."""

    def __init__(self, path):
        from llama_cpp import Llama

        self.model = Llama(path, n_ctx=512, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)

    def ids(self, text):
        return self.model.tokenize(text.encode(), add_bos=False, special=False)

    def rows(self, ids, tokens=None):
        """Logits after `ids` and each of `tokens`, fed one at a time; without these, of what it finds likeliest."""
        self.model.reset()
        self.model.eval(ids)
        rows = []
        for i in range(NEW):
            rows.append(np.array(self.model.scores[self.model.n_tokens - 1]))
            self.model.eval([int(rows[-1].argmax()) if tokens is None else tokens[i]])
        return np.stack(rows)


def lead(rows, first, second):
    """By how much `first` is likelier than `second` at each position."""
    at = np.arange(len(rows))
    return rows[at, first] - rows[at, second]


def llama_cpp(folder, source):
    for form in ["f32", "f16", "q8_0", "q4_0", "q4_1"]:
        path, exact = os.path.join(folder, f"{form}.gguf"), os.path.join(folder, f"{form}_f32.gguf")
        cavy("convert", "--model", source, "--quantize", form, "--out", path)
        if form == "f32":
            exact = path
        else:
            cavy("convert", "--model", path, "--quantize", "f32", "--out", exact)
        mine, mine_exact = ours(path, folder, "--activations", "q8"), ours(exact, folder)
        theirs, theirs_exact = Theirs(path), Theirs(exact)
        for prompt, found, found_exact in zip(PROMPTS, mine, mine_exact):
            ids = theirs.ids(prompt)
            tokens = theirs_exact.rows(ids).argmax(1).tolist()
            report(tokens == found_exact, f"{form} as f32: {sum(a == b for a, b in zip(found_exact, tokens))} of {NEW} greedy tokens are "
                   f"llama.cpp's after {prompt!r}")
            if form == "f32":
                continue
            rows = theirs.rows(ids)
            tokens = rows.argmax(1).tolist()
            same = next((i for i, (a, b) in enumerate(zip(found, tokens)) if a != b), NEW)
            line = f"{form}: {same} of {NEW} greedy tokens are llama.cpp's after {prompt!r}"
            if same == NEW:
                report(True, line)
                continue
            # The same text with nothing rounded, in llama.cpp too.
            unrounded = theirs_exact.rows(ids, tokens)
            order = np.argsort(rows, axis=1)
            noise = np.abs(lead(rows, order[:, -1], order[:, -2]) - lead(unrounded, order[:, -1], order[:, -2])).max()
            a, b = tokens[same], found[same]
            gap, true = rows[same][a] - rows[same][b], unrounded[same][a] - unrounded[same][b]
            report(gap < noise, f"{line}; its token leads ours by {gap:.3f} there, in f32 by {true:.3f}; its rounding moves leads by up to "
                   f"{noise:.3f} in this text")


def blocks(folder, source):
    import gguf
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))

    plain = os.path.join(folder, "f32.gguf")
    cavy("convert", "--model", source, "--quantize", "f32", "--out", plain)
    for form, kind in [("q8_0", 7), ("q4_0", 2), ("q4_1", 3), ("f16", 1)]:
        mine, theirs = os.path.join(folder, f"{form}.gguf"), os.path.join(folder, f"{form}_theirs.gguf")
        cavy("convert", "--model", source, "--quantize", form, "--out", mine)
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.nthread, settings.pure = kind, 2, True
        if llama_cpp.llama_model_quantize(plain.encode(), theirs.encode(), ctypes.byref(settings)):
            raise SystemExit(f"llama.cpp did not quantize to {form}")
        mine = {tensor.name: tensor for tensor in gguf.GGUFReader(mine).tensors}
        theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(theirs).tensors}
        report(mine.keys() == theirs.keys(), f"{form}: the same {len(mine)} tensors")
        equal = [name for name in mine if mine[name].tensor_type == theirs[name].tensor_type and np.array_equal(mine[name].data, theirs[name].data)]
        for name in mine.keys() - set(equal):
            a, b = mine[name], theirs[name]
            if a.tensor_type == b.tensor_type:
                apart = np.argwhere(a.data != b.data)
                print(f"      {name}: {len(apart)} of {a.data.size} differ, first {apart[:1].tolist()}")
            else:
                print(f"      {name}: {a.tensor_type.name} here, {b.tensor_type.name} there")
        report(len(equal) == len(mine), f"{form}: {len(equal)} of {len(mine)} tensors have the bytes of llama.cpp's quantizer")


def tensors_of(folder):
    from safetensors import safe_open

    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as file:
                for key in file.keys():
                    found[key] = file.get_tensor(key)
    return found


def same_tensors(what, before, after):
    import torch

    bits = lambda x: x.contiguous().view(torch.uint8)
    equal = sum(key in after and before[key].dtype == after[key].dtype and torch.equal(bits(before[key]), bits(after[key])) for key in before)
    report(before.keys() == after.keys() and equal == len(before), f"{what}: {equal} of {len(before)} tensors come back with the same bytes")


def small(kind, folder, tokenizer, vocab_size, dtype="float32", **more):
    """A random model of transformers in several shards, with the tokenizer of another model's folder."""
    import shutil

    import torch
    import transformers

    torch.manual_seed(1)
    sizes = dict(vocab_size=vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
                 max_position_embeddings=256)
    if kind == "GPT2":
        sizes = dict(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    config = getattr(transformers, f"{kind}Config")(**sizes, **more)
    model = getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="40KB")
    shutil.copy(os.path.join(tokenizer, "tokenizer.json"), folder)


def hugging_face(folder, source):
    out = os.path.join(folder, "again")
    cavy("convert", "--model", source, "--out", out)
    same_tensors("SmolLM2", tensors_of(source), tensors_of(out))
    for kind in ["GPT2", "Llama", "Mistral", "Qwen2", "Qwen3"]:
        for dtype in ["float32", "bfloat16", "float16"]:
            there, back = os.path.join(folder, f"{kind}-{dtype}"), os.path.join(folder, f"{kind}-{dtype}-back")
            small(kind, there, source, 49152, dtype)
            cavy("convert", "--model", there, "--out", back)
            shards = sum(name.endswith(".safetensors") for name in os.listdir(there))
            same_tensors(f"{kind} in {dtype}, {shards} shards", tensors_of(there), tensors_of(back))


def logits(model, ids):
    out = subprocess.run(["target/release/examples/logits", model, *map(str, ids)], check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(out, "<f4").reshape(len(ids), -1)


def in_transformers(what, folder):
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(30)]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    gap = np.abs(logits(folder, ids) - expected).max()
    report(gap <= 1e-4, f"{what}: logits of 30 tokens are at most {gap:.1e} from transformers', of up to {np.abs(expected).max():.1f}")
    text = "Once there was a cat. It sat on the mat, and 12 dogs ran."
    line = json.loads(cavy("generate", "--model", folder, "--prompt", text, "--temperature", 0, "--max-new-tokens", 16, "--ignore-eos", "--json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**prompt, max_new_tokens=16, min_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1]:].tolist()
    report(out == line["tokens"], f"{what}: its tokenizer and 16 greedy tokens are transformers'")


def trained(folder, _):
    run = os.path.join(folder, "gpt2")
    cavy("pretrain", "--data", "builtin:stories:1", "--tokenizer", "bpe:300", "--arch", "custom", "--hidden-size", 64, "--num-hidden-layers", 2,
         "--num-attention-heads", 2, "--context-length", 64, "--batch-size", 4, "--max-steps", 60, "--peak-lr", 3e-3, "--sample-tokens", 0,
         "--eval-iter", 1, "--out", run)
    in_transformers("GPT-2 pretrained by cavy", os.path.join(run, "model"))
    for kind in ["Llama", "Qwen2", "Qwen3"]:
        base, tuned = os.path.join(folder, kind), os.path.join(folder, f"{kind}-tuned")
        small(kind, base, os.path.join(run, "model"), 300, tie_word_embeddings=True)
        cavy("sft", "--model", base, "--data", "builtin:instructions", "--max-steps", 20, "--peak-lr", 1e-3, "--out", tuned)
        in_transformers(f"{kind} trained by cavy", os.path.join(tuned, "model"))


if __name__ == "__main__":
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    modes = {"llama-cpp": llama_cpp, "blocks": blocks, "hugging-face": hugging_face, "trained": trained}
    with tempfile.TemporaryDirectory() as folder:
        modes[sys.argv[1]](folder, sys.argv[2] if len(sys.argv) > 2 else None)
    sys.exit(0 if good else 1)
