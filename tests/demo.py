"""The demo: who won the pageant? One of 10,000 documents knows. No key, no network, no patience.

    python tests/demo.py [--seed N] [any flag of rlm.py, such as --trace FILE or --verbose]

Real: the command line's own main, the HTTP client, the REPL and its worker processes, the
recursion. Not real: the model. A script behind a loopback server plays it, with a fixed program as
the root and as a child, and a few regular expressions as the reader that a plain sub-call asks. It
sees nothing but the messages, so the answer is read out of the text: another seed, another winner.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from server import Server

import rlm

# ---------------------------------------------------------------- the documents

FIRST = "Ada Bela Clara Dora Edith Flora Greta Hana Ines Julia Kira Lena Mara Nora Olga Petra Rosa"
LAST = "Abbott Brandt Castell Dorn Ekman Farrow Grieve Hollis Ivarsen Jolley Keane Lindqvist Moran"
TOWNS = "Aldmoor Brackwater Corvale Dunmere Eastholm Fernley Garrick Harrowgate Ironbridge Jarrow"
TITLES = "Saltmarsh Lantern Heather Orchard Harbour Meadow Kingfisher Juniper Amber Clover"
TOPICS = (
    "market bridge lighthouse library ferry mill school brewery railway orchestra chapel quarry"
)
CROWNED = (
    "On the evening of $day August $year, after three rounds, the crown of $title went to $name.",
    "When the last envelope was opened on $day August $year, $name had become $title.",
)
DECOYS = (  # the title and the year, and a name, and none of them won
    "On $day August $year $name was first runner-up for $title, two points short of the crown.",
    "All through the summer of $year the papers were certain that $name would be $title.",
    "$name, who presented the $title evening of $day August $year, had won nothing herself.",
    "An early edition of $day August $year had $name as $title, and took it back at noon.",
)
FILLER = (
    "The $topic of $town was rebuilt in $year with money from the $other council.",
    "Visitors to $town in $year paid $day pence for the tour of the $topic.",
    "A storm in the winter of $year closed the road from $town to $other for $day days.",
    "The archive of $town keeps $day letters about the $topic, the last one dated $year.",
    "$name, keeper of the $topic, retired to $other after $day years of service.",
    "In $year the festival of $town drew $day hundred guests, and a pageant was held on the quay.",
)


def corpus(seed: int) -> tuple[str, str]:
    """(question, documents): 10,000 of some 600 characters, one of which has the answer."""
    rng = random.Random(seed)
    names = [f"{first} {last}" for first in FIRST.split() for last in LAST.split()]
    rng.shuffle(names)
    titles = [f"Miss {word}" for word in TITLES.split()]
    title, year = rng.choice(titles), rng.randint(1950, 2015)

    def sentence(template: str, **facts: Any) -> str:
        facts = {
            "day": rng.randint(3, 28),
            "year": rng.randint(1950, 2015),
            "name": rng.choice(names[40:]),
            "town": rng.choice(TOWNS.split()),
            "other": rng.choice(TOWNS.split()),
            "topic": rng.choice(TOPICS.split()),
        } | facts
        return Template(template).substitute(facts)

    people = iter(names[:40])  # each of them is in the news once
    facts = [sentence(rng.choice(CROWNED), title=title, year=year, name=next(people))]
    facts += [sentence(line, title=title, year=year, name=next(people)) for line in DECOYS]
    for gap in range(1, 13):  # other years of this pageant, and this year's other pageants
        past = {"title": title, "year": year + rng.choice((-gap, gap)), "name": next(people)}
        after = f" It was all unlike {year}." if gap % 2 else ""
        facts.append(sentence(rng.choice(CROWNED), **past) + after)
        elsewhere = rng.choice([other for other in titles if other != title])
        facts.append(sentence(rng.choice(CROWNED), title=elsewhere, year=year, name=next(people)))
    documents = [[sentence(rng.choice(FILLER)) for _ in range(7)] for _ in range(10_000)]
    for fact, document in zip(facts, rng.sample(documents, len(facts)), strict=True):
        document.insert(rng.randrange(len(document)), fact)
    texts = (f"### Document {n:05}\n{' '.join(lines)}\n" for n, lines in enumerate(documents))
    return f"Which person won the beauty pageant {title} in {year}?", "\n".join(texts)


# ---------------------------------------------------------------- the scripted model

PROGRAM = (  # the root's turns
    """Probe: what have I got?
```repl
documents = context.split("### ")[1:]
print(f"{len(context):,} characters in {len(documents):,} documents; the first of them:")
print(documents[0][:250])
```""",
    """Far too much to read. Decompose: keep the documents that name both the title and the year.
```repl
import re; named = [text for text in documents if re.search(r"\\b$title\\b", text)]
candidates = [text for text in named if re.search(r"\\b$year\\b", text)]
print(f"{len(named)} documents name the pageant, {len(candidates)} of them also the year:")
print(*[text.split("\\n")[0] for text in candidates], sep=", ")
```""",
    """Recurse: two children take one half of the candidates each.
```repl
task = "Find out which of these documents says who won $title in $year."
half = len(candidates) // 2
found = llm_query_batched([task] * 2, [candidates[:half], candidates[half:]], recurse=True)
print(found)
```""",
    """Verify: two fresh calls see the source alone, and are asked differently.
```repl
name, number = next(answer for answer in found if answer != "NONE").split(", ")
source = next(text for text in documents if text.startswith(number))
won = llm_query(f"Does this text say that {name} won $title in $year? YES or NO.", source)
what = llm_query(f"What did {name} win, according to this text? Title and year, or NONE.", source)
print(f"{name} in {number}: {won}; {what}")
```""",
    """Aggregate: the checks decide.
```repl
assert (won, what) == ("YES", "$title in $year"), "the checks disagree"
FINAL(name)
```""",
)
CHILD = (  # a child's turns
    """Probe.
```repl
print(len(context), "documents,", sum(map(len, context)), "characters")
```""",
    """They are few: one plain call for each of them.
```repl
ask = "Who won $title in $year, according to this text? The name alone, or NONE."
names = llm_query_batched([ask] * len(context), context, recurse=False)
winners = [f"{name}, {text[:14]}" for name, text in zip(names, context) if name != "NONE"]
print(f"{len(winners)} of {len(names)} texts name a winner")
```""",
    """```repl
FINAL(winners[0] if winners else "NONE")
```""",
)


def model(body: dict[str, Any]) -> str:
    """The reply to one request, from its messages alone."""
    time.sleep(0.1)  # for whoever watches: about as long as nothing, as models go
    messages = body["messages"]
    task = messages[0 if len(messages) == 1 else 1]["content"]  # a plain call has no system message
    if len(messages) == 1:
        return read(task)
    program = CHILD if "Find out which" in task else PROGRAM
    turn = program[sum(message["role"] == "assistant" for message in messages)]
    title, year = re.search(r"(Miss \w+) in (\d+)", task).groups()
    return turn.replace("$title", title).replace("$year", year)


def read(prompt: str) -> str:
    """A plain call: answers one of three questions out of the text below it."""
    wins = {}  # {"Miss Amber in 1987": "Ada Dorn"}
    groups = {"day": r"\d+", "title": r"(?P<title>Miss \w+)", "year": r"(?P<year>\d+)"}
    for line in CROWNED:  # what wrote the sentence, as a pattern, reads it
        pattern = Template(line).substitute(groups, name=r"(?P<name>\w+ \w+)")
        for win in re.finditer(pattern, prompt):
            wins[f"{win['title']} in {win['year']}"] = win["name"]
    if asked := re.match(r"Who won (Miss \w+ in \d+),", prompt):
        return wins.get(asked[1], "NONE")
    if asked := re.match(r"What did (\w+ \w+) win,", prompt):
        return next((what for what, name in wins.items() if name == asked[1]), "NONE")
    asked = re.match(r"Does this text say that (\w+ \w+) won (Miss \w+ in \d+)", prompt)
    return "YES" if wins.get(asked[2]) == asked[1] else "NO"


SCREEN = """10,000 generated documents, {:.1f} MB, seed {}. A SCRIPTED MODEL behind a loopback
server plays the language model; everything else is the real program:

    python rlm.py "{}" documents.txt
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=1, help="which documents (another winner)")
    options, flags = parser.parse_known_args()
    question, documents = corpus(options.seed)
    with tempfile.TemporaryDirectory() as folder, Server(model) as server:
        file = Path(folder, "documents.txt")
        file.write_text(documents, encoding="utf-8")
        print(SCREEN.format(len(documents) / 1e6, options.seed, question), file=sys.stderr)
        os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none-needed"}
        os.environ |= {"RLM_MODEL": "scripted-model", "NO_PROXY": "127.0.0.1"}
        return rlm.main([question, str(file), *flags])


if __name__ == "__main__":
    sys.exit(main())
