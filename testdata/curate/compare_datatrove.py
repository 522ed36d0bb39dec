"""Verdicts of datatrove's filters and of ours on the same documents, cut from a folder of real data.

    python compare_datatrove.py FOLDER WORK CAVY [LIMIT]

FOLDER holds wikitext2-*.txt, gsm8k/, instruction-data*.json, tinyshakespeare.txt, the-verdict.txt and extraction/ (pages and their
article text). WORK gets docs.jsonl, datatrove.json (a verdict a document) and differences.jsonl. CAVY is the program.
datatrove 0.10.1, spaCy 3.8.18, Python 3.11.
"""
import collections, gzip, html, json, pathlib, re, subprocess, sys

folder, work, cavy = map(pathlib.Path, sys.argv[1:4])
limit = int(sys.argv[4]) if len(sys.argv) > 4 else 10**9


def documents():
    for split in ("valid", "test"):
        text = (folder / f"wikitext2-{split}.txt").read_text()
        yield from (("wikitext", part) for part in re.split(r"\n (?== [^=])", text))
        # Paragraphs: single ones and runs of three.
        paragraphs = [p.strip() for p in text.split("\n") if len(p) > 300]
        yield from (("wikitext-paragraph", p.replace(" @-@ ", "-").replace(" ,", ",").replace(" .", ".")) for p in paragraphs[::2])
        yield from (("wikitext-run", "\n".join(paragraphs[i : i + 3])) for i in range(0, len(paragraphs) - 3, 4))
    for path in sorted((folder / "extraction/html").glob("*.gz")):
        page = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        page = re.sub(r"(?is)<(script|style|noscript)\b.*?</\1>", " ", page)
        text = html.unescape(re.sub(r"(?s)<[^>]+>", "\n", page))
        lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")]
        yield "page", re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        yield "page-prose", "\n".join(line for line in lines if len(line) > 60)
    for item in json.loads((folder / "extraction/ground-truth.json").read_text()).values():
        yield "article", item["articleBody"]
    rows = [json.loads(line) for split in ("train", "test") for line in open(folder / f"gsm8k/{split}.jsonl")]
    yield from (("gsm8k", row["question"] + "\n" + row["answer"]) for row in rows[::12])
    yield from (("gsm8k-long", "\n\n".join(r["question"] + "\n" + r["answer"] for r in rows[i : i + 4])) for i in range(0, len(rows), 40))
    items = json.loads((folder / "instruction-data-with-preference.json").read_text())
    text = lambda item: "\n".join(filter(None, (item["instruction"], item["input"], item["output"], item["chosen"], item["rejected"])))
    yield from (("instructions", "\n".join(map(text, items[i : i + 6]))) for i in range(0, len(items), 6))
    plays = (folder / "tinyshakespeare.txt").read_text()
    yield from (("shakespeare", plays[i : i + 3000]) for i in range(0, len(plays), 6000))
    story = (folder / "the-verdict.txt").read_text()
    yield from (("story", story[i : i + 1500]) for i in range(0, len(story), 1500))


work.mkdir(parents=True, exist_ok=True)
docs = [(kind, text) for kind, text in documents() if text.strip()][:limit]
with open(work / "docs.jsonl", "w") as out:
    for number, (kind, text) in enumerate(docs):
        out.write(json.dumps({"text": text, "id": f"{kind}-{number}"}) + "\n")

cache = work / "datatrove.json"
if cache.exists() and len(json.loads(cache.read_text())) == len(docs):
    theirs = json.loads(cache.read_text())
else:
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    steps = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]

    def verdict(text):
        doc = Document(text=text, id="")
        for step in steps:
            kept = step.filter(doc)
            if kept is not True:
                return kept[1]
        return "kept"

    theirs = [verdict(text) for _, text in docs]
    cache.write_text(json.dumps(theirs))

recipe = work / "filters.toml"
names = ("gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality")
recipe.write_text("".join(f'[[steps]]\nstep = "{n}"\n' + ("filter_no_terminal_punct = false\n" if n == "c4_quality" else "") for n in names))
command = [cavy, "data", "look", "--data", work / "docs.jsonl", "--recipe", recipe, "--json"]
ours = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]
assert len(ours) == len(docs)
different = [(i, t, o) for i, (t, o) in enumerate(zip(theirs, ours)) if t != o["verdict"]]
print(f"{len(docs)} documents, {len(docs) - len(different)} equal ({100 * (1 - len(different) / len(docs)):.2f} %)")
print("datatrove:", dict(collections.Counter(theirs).most_common()))
with open(work / "differences.jsonl", "w") as out:
    for i, their, our in different:
        rules = {r["rule"]: [r["value"], r["threshold"]] for step in our["steps"] for r in step["rules"]}
        near = {name: rules.get(name) for name in (their, our["verdict"]) if name in rules}
        print(docs[i][0], i, "datatrove", their, "cavy", our["verdict"], near)
        out.write(json.dumps({"id": our["id"], "datatrove": their, "cavy": our["verdict"], "rules": near}) + "\n")
sys.exit(len(docs) < 2000 or len(different) > 0.02 * len(docs))
