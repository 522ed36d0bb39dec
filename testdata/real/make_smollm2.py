"""What transformers and llama.cpp make of SmolLM2-135M-Instruct, for `.ci/real-data`.

    python make_smollm2.py MODEL.gguf HF_FOLDER WIKITEXT2_VALID      # transformers 5.14, torch 2.15, llama-cpp-python 0.3

`HF_FOLDER` is the GGUF dequantized to f32 by transformers itself. Of the logits at each of 200 positions the file keeps the logarithm of
the sum of exponentials over the whole vocabulary, the eight largest and sixteen that a formula picks, so that all 49,152 are covered
by a sum and 24 of them one by one; f32. Greedy continuations are 64 tokens, or fewer where the model ends. Perplexity is llama.cpp's over
the first tokens of the file, in windows of 512 that start 256 apart, each token but the first scored once.
"""
import hashlib
import json
import math
import os
import sys

import llama_cpp
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
# Edith Wharton, "The Verdict" (1908), in the public domain.
TEXT = (
    "I HAD always thought Jack Gisburn rather a cheap genius--though a good fellow enough--so it was no great surprise to me to "
    "hear that, in the height of his glory, he had dropped his painting, married a rich widow, and established himself in a villa "
    "on the Riviera. (Though I rather thought it would have been Rome or Florence.)\n\n\"The height of his glory\"--that was what "
    "the women called it. I can hear Mrs. Gideon Thwing--his last Chicago sitter--deploring his unaccountable abdication. \"Of course "
    "it's going to send the value of my picture 'way up; but I don't think of that, Mr. Rickham--the loss to Arrt is all I think "
    "of.\" The word, on Mrs. Thwing's lips, multiplied its _rs_ as though they were reflected in an endless vista of mirrors. And it "
    "was not only the Mrs. Thwings who mourned. Had not the exquisite Hermia Croft, at the last Grafton Gallery show, stopped me "
    "before Gisburn's \"Moon-dancers\" to say, with tears in her eyes: \"We shall not look upon its like again\"?"
)
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):", "Water boils when it", "The history of bread begins"]
POSITIONS, NEW, PPL_TOKENS, WINDOW, STRIDE = 200, 64, 2000, 512, 256


def sampled(position, vocabulary):
    return [(position * 7919 + k * 104729 + 13) % vocabulary for k in range(16)]


def logits(model, ids):
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].float()
    found = []
    for position, row in enumerate(rows):
        top = torch.topk(row, 8)
        picked = row[sampled(position, len(row))]
        digits = lambda x: [round(float(v), 6) for v in x]
        found.append({"log_sum_exp": round(float(torch.logsumexp(row.double(), 0)), 6), "top_ids": top.indices.tolist(),
                      "top": digits(top.values), "sampled": digits(picked)})
    return found


def greedy(model, tokenizer):
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        out = model.generate(**ids, max_new_tokens=NEW, do_sample=False, eos_token_id=tokenizer.eos_token_id)[0].tolist()
        new = out[ids["input_ids"].shape[1]:]
        found.append({"prompt": prompt, "ids": ids["input_ids"][0].tolist(), "tokens": [t for t in new if t != tokenizer.eos_token_id]})
    return found


def perplexity(path, text):
    model = llama_cpp.Llama(path, n_ctx=WINDOW, n_batch=WINDOW, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False)
    ids = model.tokenize(text.encode(), add_bos=False, special=False)[:PPL_TOKENS]
    total, count, scored, start = 0.0, 0, 1, 0
    while scored < len(ids):
        end = min(start + WINDOW, len(ids))
        model.reset()
        model.eval(ids[start:end])
        rows = np.array(model.scores[: end - start], dtype=np.float64)
        for at in range(scored, end):
            row = rows[at - start - 1]
            top = row.max()
            total += top + math.log(np.exp(row - top).sum()) - row[ids[at]]
            count += 1
        scored, start = end, start + STRIDE
    return {"perplexity": math.exp(total / count), "scored": count, "max_tokens": PPL_TOKENS, "context": WINDOW, "stride": STRIDE}


def main():
    gguf, folder, wikitext = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][:POSITIONS]
    assert len(ids) == POSITIONS
    out = {
        "transformers": transformers.__version__, "torch": torch.__version__, "llama_cpp_python": llama_cpp.__version__,
        "sha256": hashlib.sha256(open(gguf, "rb").read()).hexdigest(),
        "text": TEXT, "ids": ids, "eos": [tokenizer.eos_token_id], "logits": logits(model, ids), "greedy": greedy(model, tokenizer),
        "llama_cpp": perplexity(gguf, open(wikitext).read()),
    }
    with open(os.path.join(HERE, "smollm2.json"), "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
