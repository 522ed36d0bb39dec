"""Makes sampler.json: distributions after the logits processors and warpers of transformers 5.23.0.

Usage: python make_sampler.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers.generation import logits_process as warp

assert transformers.__version__ == "5.23.0"


def test_logits(n, salt):
    index = torch.arange(n, dtype=torch.int64)
    return (((index * 7919 + salt * 104729) % 2003).to(torch.float32) / 2003.0 - 0.5) * 12.0


settings = [
    {}, {"temperature": 0.7}, {"temperature": 1.8}, {"temperature": 0.05}, {"top_k": 1}, {"top_k": 5}, {"top_k": 40}, {"top_k": 64},
    {"top_p": 0.9}, {"top_p": 0.3}, {"top_p": 0.01}, {"min_p": 0.1}, {"min_p": 0.9}, {"min_p": 0.001},
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.8}, {"logit_bias": [[3, 4.0], [10, -2.5]]},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.95}, {"temperature": 1.5, "min_p": 0.05, "top_p": 0.8},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    {"repetition_penalty": 1.5, "logit_bias": [[1, 3.0], [2, -3.0], [63, 6.0]], "temperature": 1.2, "top_k": 10},
]
cases = []
for salt, chosen in enumerate(settings):
    case = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "logit_bias": []} | chosen
    case["history"] = [(salt * 5 + 3 * i) % 64 for i in range(12)]
    ids = torch.tensor([case["history"]])
    scores = test_logits(64, salt)[None]
    case["logprobs_raw"] = torch.log_softmax(scores.double(), -1)[0].tolist()
    steps = []
    if case["logit_bias"]:
        steps.append(warp.SequenceBiasLogitsProcessor([[[token], bias] for token, bias in case["logit_bias"]]))
    if case["repetition_penalty"] != 1.0:
        steps.append(warp.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if case["temperature"] != 1.0:
        steps.append(warp.TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"]:
        steps.append(warp.TopKLogitsWarper(case["top_k"]))
    if case["top_p"] < 1.0:
        steps.append(warp.TopPLogitsWarper(case["top_p"]))
    if case["min_p"]:
        steps.append(warp.MinPLogitsWarper(case["min_p"]))
    for step in steps:
        scores = step(ids, scores)
    logprobs = torch.log_softmax(scores.double(), -1)[0].tolist()
    case["logprobs"] = [None if value == float("-inf") else round(value, 7) for value in logprobs]
    case["logprobs_raw"] = [round(value, 7) for value in case["logprobs_raw"]]
    cases.append(json.dumps(case))
lines = ",\n".join(cases)
Path(__file__).with_name("sampler.json").write_text(f'{{"cases": [\n{lines}\n]}}\n')
