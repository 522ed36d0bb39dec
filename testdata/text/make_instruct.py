"""Makes instruct.json: token ids and loss masks of instructions and preferences as trl 1.16.0 prepares them.

The tokenizer is a small byte-level BPE made here, the items are made up. `SFTTrainer` and `DPOTrainer` themselves prepare the
data; the model they are given is a tiny one that is never run.

Usage: python make_instruct.py
       python make_instruct.py path/to/smollm2 instruction-data.json instruction-data-with-preference.json
The second form writes instruct_smollm2.json: hashes (FNV-1a of 64 bits over ids and masks) of the first 200 items of real
data with SmolLM2-135M-Instruct's tokenizer, which `crates/text/examples/instruct_hashes.rs` prints for cavy.
"""

import json
import sys
from pathlib import Path

import tokenizers
import transformers
import trl
from datasets import Dataset
from tokenizers import models, pre_tokenizers, decoders, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

assert trl.__version__ == "1.16.0", trl.__version__
FOLDER = Path(__file__).parent

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ITEMS = [
    dict(instruction="Name a color.", input="", output="Blue is a color.", rejected="No."),
    dict(instruction="Add the numbers.", input="12, 7 and 300", output="12 + 7 + 300 = 319", rejected="It is 320."),
    dict(instruction="Translate to German.", input="The bear is hungry.", output="Der Bär hat Hunger.", rejected="Der Bar."),
    dict(instruction="Write a haiku\nabout rain.", input="", output="Rain on the tin roof,\n\n  soft as a tale\n", rejected="Rain,\nrain"),
    dict(instruction="Repeat with two spaces.", input="a  b", output="  a  b  ", rejected=" a b"),
    dict(instruction="Begin with a line break.", input="", output="\n\nLike this.", rejected="\nLike that."),
    dict(instruction="Say it in emoji: happy 🙂 day", input="🙂", output="🙂🌞", rejected="🙂 no"),
    dict(instruction="Which number is bigger?", input="3.14 or 2.71", output="3.14 is bigger than 2.71.", rejected="2.71 is bigger than 3.14."),
    dict(instruction="Explain \"loss\".", input="\tin one line", output="It's how wrong a model is, e.g. 0.693.", rejected="Google it yourself..."),
    dict(instruction="Finish: one two three", input="", output="four", rejected="two"),
]


def alpaca(item):
    text = ("Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\n" + item["instruction"])
    if item["input"]:
        text += "\n\n### Input:\n" + item["input"]
    return text + "\n\n### Response:\n"


def small_tokenizer():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = [alpaca(item) + item["output"] + item["rejected"] for item in ITEMS]
    tokenizer.train_from_iterator(texts * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML)


def tiny_model(tokenizer):
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.eos_token_id = tokenizer.eos_token_id
    return LlamaForCausalLM(config)


def sft(rows, tokenizer):
    """Ids and masks: 1 where a label is, but not for the first token, which nothing predicts."""
    args = trl.SFTConfig(output_dir="/tmp/make-instruct", report_to=[], use_cpu=True, bf16=False, dataloader_pin_memory=False)
    trainer = trl.SFTTrainer(model=tiny_model(tokenizer), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    found = []
    for row in trainer.train_dataset:
        mask = [int(label != -100) for label in row["labels"]]
        found.append(dict(ids=list(row["input_ids"]), mask=[0] + mask[1:]))
    return found


def dpo(rows, tokenizer):
    args = trl.DPOConfig(output_dir="/tmp/make-instruct", report_to=[], use_cpu=True, bf16=False, dataloader_pin_memory=False, max_length=1024)
    trainer = trl.DPOTrainer(model=tiny_model(tokenizer), ref_model=tiny_model(tokenizer), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return [dict(prompt=list(row["prompt_ids"]), chosen=list(row["chosen_ids"]), rejected=list(row["rejected_ids"])) for row in trainer.train_dataset]


def fnv(numbers):
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in int(number).to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def small():
    tokenizer = small_tokenizer()
    says = lambda role, text: [dict(role=role, content=text)]
    chats = [dict(prompt=says("user", item["instruction"]), completion=says("assistant", item["output"])) for item in ITEMS]
    out = dict(
        versions=dict(trl=trl.__version__, transformers=transformers.__version__, tokenizers=tokenizers.__version__),
        tokenizer=json.loads(tokenizer.backend_tokenizer.to_str()),
        chat_template=CHATML,
        items=ITEMS,
        sft=sft([dict(prompt=alpaca(item), completion=item["output"]) for item in ITEMS], tokenizer),
        chat=sft(chats, tokenizer),
        dpo=dpo([dict(prompt=alpaca(item), chosen=item["output"], rejected=item["rejected"]) for item in ITEMS], tokenizer),
    )
    (FOLDER / "instruct.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")


def real(model, instructions, preferences):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rows = json.load(open(instructions))[:200]
    tuned = sft([dict(prompt=alpaca(item), completion=item["output"]) for item in rows], tokenizer)
    rows = json.load(open(preferences))[:200]
    pairs = dpo([dict(prompt=alpaca(item), chosen=item["chosen"], rejected=item["rejected"]) for item in rows], tokenizer)
    out = dict(
        sft=[fnv(row["ids"] + row["mask"]) for row in tuned],
        dpo=[fnv([len(row["prompt"])] + row["prompt"] + row["chosen"] + row["rejected"]) for row in pairs],
    )
    (FOLDER / "instruct_smollm2.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    real(*sys.argv[1:]) if len(sys.argv) > 1 else small()
