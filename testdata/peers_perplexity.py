"""Perplexity by llama.cpp as `cavy eval perplexity` measures it: overlapping windows, each token scored once.

    python testdata/peers_perplexity.py --model MODEL.gguf --data TEXT --max-tokens 20000 [--context 2048] [--stride 1024]

Needs llama-cpp-python (0.3.36) and numpy. Source of the method: "Perplexity of fixed-length models" in the documentation of
Hugging Face's transformers.
"""
import argparse
import json

import numpy as np
from llama_cpp import Llama

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--max-tokens", type=int, default=0)
parser.add_argument("--context", type=int, default=2048)
parser.add_argument("--stride", type=int, default=1024)
parser.add_argument("--threads", type=int, default=2)
a = parser.parse_args()
llm = Llama(a.model, n_ctx=a.context, n_threads=a.threads, n_threads_batch=a.threads, logits_all=True, verbose=False)
ids = llm.tokenize(open(a.data, encoding="utf-8").read().encode(), add_bos=False, special=False)
ids = ids[: a.max_tokens] if a.max_tokens else ids
total, count, scored, start = 0.0, 0, 1, 0
while scored < len(ids):
    end = min(start + a.context, len(ids))
    llm.reset()
    llm.eval(ids[start : end - 1])
    first = scored - start - 1
    for i in range(first, end - 1 - start):
        z = np.asarray(llm.scores[i], dtype=np.float64)
        top = z.max()
        total -= z[ids[start + 1 + i]] - top - np.log(np.exp(z - top).sum())
        count += 1
    scored, start = end, start + a.stride
loss = total / count
print(json.dumps(dict(tool="llama.cpp", loss=loss, perplexity=float(np.exp(loss)), tokens=count)))
