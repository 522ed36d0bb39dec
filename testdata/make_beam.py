"""Beam searches of tiny golden models by Hugging Face's transformers.

    python make_beam.py        # transformers 5.23, torch 2.15

Models are those of `make_llama_golden.py`, in f64. Every case keeps the texts found, without the prompt and the token that ends them, and
their scores. `early_stopping` is `true`, `false` or `"never"`.
"""
import itertools
import json
import os

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))


def test_input(n, salt):
    i = np.arange(n, dtype=np.int64)
    return np.float32((i * 7919 + salt * 104729) % 2003) / np.float32(2003) - np.float32(0.5)


def values(name, tensor, index):
    x = torch.tensor(test_input(tensor.numel(), 100 + index)).reshape(tensor.shape)
    if "norm" in name:
        return 0.25 * x + 1
    return (0.25 if tensor.ndim == 1 else 0.5) * x


def model(name):
    with open(os.path.join(HERE, "models", name + ".json")) as file:
        fields = json.load(file)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    with torch.no_grad():
        for index, (key, parameter) in enumerate(sorted(model.named_parameters())):
            parameter.copy_(values(key, parameter, index))
    return model


def main():
    cases = []
    for name, prompt in [("llama", [3, 10, 17]), ("qwen3", [40, 2])]:
        network = model(name)
        for beams, penalty, early, ends in itertools.product(
            [2, 3, 5], [0.0, 1.0, 2.0, -0.5], [True, False, "never"], [[], [5, 11, 29, 44], list(range(0, 61, 4))]
        ):
            stop = ends or None
            out = network.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                num_beams=beams, num_return_sequences=beams, length_penalty=penalty, early_stopping=early,
                max_new_tokens=9, eos_token_id=stop, pad_token_id=60, return_dict_in_generate=True, output_scores=True)
            texts = []
            for sequence, score in zip(out.sequences.tolist(), out.sequences_scores.tolist()):
                new = sequence[len(prompt):]
                end = next((i for i, token in enumerate(new) if token in ends), None)
                texts.append({"tokens": new if end is None else new[:end], "score": round(score, 9)})
            cases.append({"model": name, "prompt": prompt, "num_beams": beams, "length_penalty": penalty,
                          "early_stopping": early, "stop": ends, "max_new_tokens": 9, "texts": texts})
    with open(os.path.join(HERE, "beam.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main()
