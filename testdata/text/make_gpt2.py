"""Makes gpt2.json: GPT-2's ids of tricky strings, by tiktoken 0.14.0.

Usage: python make_gpt2.py path/to/r50k_base.tiktoken
"""

import json
import sys
from pathlib import Path

import tiktoken
from tiktoken.load import load_tiktoken_bpe

assert tiktoken.__version__ == "0.14.0"
encoding = tiktoken.Encoding(
    name="gpt2",
    pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    mergeable_ranks=load_tiktoken_bpe(sys.argv[1]),
    special_tokens={"<|endoftext|>": 50256},
)
texts = [
    "",
    "Every effort moves you",
    "Hello, do you like tea? In the sunlit terraces of someunknownPlace.",
    "I'll say they've said it's what we'd do; DON'T shout, it isn'T.",
    "  two spaces,   three   \t\ttabs\n\n\nnewlines \n and a trailing space ",
    "    def f(x):\r\n        return x ** 2  # indented\r\n",
    "numbers: 3.14159, 1,000,000, 2026-01-31, 0xFF, \u0663\u0664 and \u00bd",
    "na\u00efve caf\u00e9 \u00dcber stra\u00dfe \u0141\u00f3d\u017a e\u0301",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002 \u4e2d\u6587 \ud55c\uad6d\uc5b4 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u05e2\u05d1\u05e8\u05d9\u05ea \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\U0001f600 emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1fa\U0001f1f3 \u2764\ufe0f",
    "<|endoftext|> is not special here",
    "\u00a0no-break\u2003em space\u3000ideographic \u0085 next line",
    "!!!???...---___ ''' \"quoted\" ``code`` $5 & 50% @home #1",
    "a" * 70 + "Z" * 9 + " antidisestablishmentarianism",
    "\x00\x01 control\x7f bytes",
]
cases = [{"text": text, "ids": encoding.encode_ordinary(text)} for text in texts]
lines = ",\n".join(json.dumps(case) for case in cases)
Path(__file__).with_name("gpt2.json").write_text(f'{{"cases": [\n{lines}\n]}}\n')
