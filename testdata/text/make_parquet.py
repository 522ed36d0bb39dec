"""Makes rows.parquet with pyarrow: rows as Hugging Face's datasets keep them, texts and lists of messages.

Usage: python make_parquet.py
"""

from pathlib import Path

import pyarrow
import pyarrow.parquet

rows = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hallo, Bär"}], "score": 1.5, "tag": None},
    {"messages": [{"role": "user", "content": "Two"}, {"role": "assistant", "content": "Zwei"}], "score": -2.0, "tag": "x"},
    {"messages": [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Tschüss"}], "score": 0.25, "tag": "x"},
]
table = pyarrow.Table.from_pylist(rows)
pyarrow.parquet.write_table(table, Path(__file__).parent / "rows.parquet", compression="snappy", row_group_size=2)
