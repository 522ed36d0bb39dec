"""Makes vocabularies.json: small GGUF vocabularies, one for each pre-tokenizer, and the ids of texts.py by two libraries.

Ids are by Hugging Face's tokenizers; where llama.cpp (llama-cpp-python 0.3.36) has other ones, those are kept beside
them under `llama_cpp`, and the test says why they differ.

Usage: python make_vocabularies.py, with tokenizers 0.23.3, sentencepiece 0.2.x, gguf and llama-cpp-python 0.3.36
"""

import json
import tempfile
from io import BytesIO
from pathlib import Path

import sentencepiece
import gguf
import llama_cpp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from texts import TEXTS

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


PRE_TOKENIZERS = {
    "gpt-2": byte_level(True),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "llama-bpe": pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]),
    "qwen2": pre_tokenizers.Sequence([split(LLAMA3.replace("{1,3}", "")), byte_level(False)]),
    "default": pre_tokenizers.Sequence(
        [split(r"[\p{P}$+<=>^~|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(False)]
    ),
}


def byte_level_bpe(pre):
    """A vocabulary as SmolLM2's: specials in front, and no token for bytes that the training text lacks."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if pre == "smollm":
        alphabet = [letter for letter in alphabet if letter not in "\u0104\u0106\u0113\u0114\u0116\u011d\u00c0\u00c1"]
    training = [text for text in TEXTS if "gone" not in text]
    trainer = trainers.BpeTrainer(
        vocab_size=520, min_frequency=2, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(training, trainer)
    file = json.loads(tokenizer.to_str())
    if pre == "llama-bpe":
        # A token that no merges lead to: only `ignore_merges` finds it.
        assert "guillemets" not in file["model"]["vocab"]
        file["model"]["vocab"]["guillemets"] = tokenizer.get_vocab_size()
        tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    assert list(map(vocab.get, tokens)) == list(range(len(tokens)))
    types = [3 if token in specials else 4 if token == "<think>" else 1 for token in tokens]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in file["model"]["merges"]]
    vocabulary = {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_types": types, "scores": [], "merges": merges,
        "bos": 1, "eos": 2, "unknown": None, "add_bos": False, "add_space_prefix": False,
    }
    return vocabulary, lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def sentencepiece_bpe():
    """A vocabulary as Llama 2's, trained by SentencePiece."""
    model = BytesIO()
    lines = [line for text in TEXTS for line in text.split("\n")]
    sentences = [line for line in lines if line.strip() and max(line) < "\u0400" and min(line) >= " "]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=620, model_type="bpe", byte_fallback=True,
        character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, split_digits=True, user_defined_symbols=["<think>"], minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    n = processor.vocab_size()
    kind = lambda i: (
        2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i)
        else 4 if processor.id_to_piece(i) == "<think>" else 1
    )
    vocabulary = {
        "model": "llama", "pre": "default", "tokens": [processor.id_to_piece(i) for i in range(n)],
        "token_types": [kind(i) for i in range(n)], "scores": [processor.get_score(i) for i in range(n)], "merges": [],
        "bos": 1, "eos": 2, "unknown": 0, "add_bos": True, "add_space_prefix": True,
    }
    return vocabulary, processor.encode


def llama_cpp_encoder(vocabulary, folder):
    path = Path(folder) / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_types"])
    if vocabulary["scores"]:
        writer.add_token_scores(vocabulary["scores"])
    if vocabulary["merges"]:
        writer.add_token_merges(vocabulary["merges"])
    writer.add_bos_token_id(vocabulary["bos"])
    writer.add_eos_token_id(vocabulary["eos"])
    writer.add_add_bos_token(vocabulary["add_bos"])
    writer.add_add_space_prefix(vocabulary["add_space_prefix"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return lambda text: model.tokenize(text.encode(), add_bos=False, special=True)


def compact(value):
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


with tempfile.TemporaryDirectory() as folder:
    entries = []
    for name in [*PRE_TOKENIZERS, "sentencepiece"]:
        vocabulary, encode = sentencepiece_bpe() if name == "sentencepiece" else byte_level_bpe(name)
        by_llama_cpp = llama_cpp_encoder(vocabulary, folder)
        ids = [encode(text) for text in TEXTS]
        others = {text: by_llama_cpp(text) for text in TEXTS}
        others = {text: found for text, expected in zip(TEXTS, ids) if (found := others[text]) != expected}
        print(name, len(vocabulary["tokens"]), "tokens;", len(others), "texts differ in llama.cpp:", list(others))
        entries.append(f'{{"vocabulary":{compact(vocabulary)},\n"ids":{compact(ids)},\n"llama_cpp":{compact(others)}}}')
    lines = ",\n".join(entries)
    Path(__file__).with_name("vocabularies.json").write_text(f'{{"texts":{compact(TEXTS)},\n"cases":[\n{lines}\n]}}\n')
