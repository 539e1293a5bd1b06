"""Measure it: what the program costs, how answers fall with length, what the sandbox runs.

    python tests/bench.py overhead                    against scripted servers, beside a floor
    python tests/bench.py rot                         context rot; without --model it is SIMULATED
    python tests/bench.py sandbox HumanEval.jsonl.gz  the canonical solutions, each in one cell

Times are medians, each beside the floor that the same run measured: the same requests sent by a
bare `requests` loop, or plain `exec` of the same code. Nothing here claims what a real model can
do: `rot --model NAME` measures that, and is paid for.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import gzip
import itertools
import json
import multiprocessing
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import requests

from rlm import RLM, Reply, RLMError
from sandbox import Sandbox
from server import Server, serve

RUNS = 7  # of everything that is timed


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int) -> None:
    """Prints aligned columns, the first `left` of them to the left."""
    cells = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in [cells[0], ["-" * width for width in widths], *cells[1:]]:
        first = map(str.ljust, row[:left], widths)
        print("  ".join([*first, *map(str.rjust, row[left:], widths[left:])]).rstrip())


def say(text: str) -> None:
    """How far it is: on stderr, so that the tables can be kept."""
    print(text, file=sys.stderr, flush=True)


def medians(*works: Callable[[], float], runs: int = RUNS) -> list[float]:
    """The median of each, taken in turns, after one run of each that does not count."""
    taken = [[work() for work in works] for _ in range(runs + 1)][1:]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


# ---------------------------------------------------------------- overhead

SCRIPTS = {  # what the scripted model answers to "bench: NAME NUMBER"
    "turn": "FINAL(1)",
    "queries": "for i in range($n):\n    llm_query(f'question {i}')\nFINAL(1)",
    "batch": "FINAL(int(llm_query_batched(['question'] * $n) == ['ok'] * $n))",
    "children": "for i in range($n):\n    llm_query('bench: turn 0', 'x', recurse=True)\nFINAL(1)",
    "count": "FINAL(int(context.count('needle') == $n))",
}
SIX_TURNS = (
    "print(type(context), len(context))\nprint(context[:200])",
    "lines = context.splitlines()\nprint(len(lines), lines[-1])",
    "import re\nyears = re.findall(r'\\b(?:19|20)\\d\\d\\b', context)\nprint(len(years))",
    "from collections import Counter\nCounter(years).most_common(3)",
    "best = Counter(years).most_common(1)[0]\nprint(best)",
    "FINAL(best[0])",
)
CELLS = {  # heavy cells, some 0.2 s each
    "loops": """total = 0
for i in range(1500):
    for j in range(1000):
        if (i * j) % 7 == 3:
            total += i ^ j""",
    "dicts and lists": """counts, rows = {}, []
for i in range(400_000):
    key = i * 7919 % 1009
    counts[key] = counts.get(key, 0) + 1
    rows.append((key, i))
best = [row[1] for row in sorted(rows)[::3] if row[0] % 2]""",
    "strings": """words, found = [], 0
for n in range(60_000):
    line = f"Date: {n} || User: {n % 97} || Instance: what is the number {n}?"
    date, user, text = line.split(" || ")
    found += text.lower().startswith("instance") and "77" in user
    words.extend(text.replace("?", "").split())
hits = [" ".join(words).count(str(digit)) for digit in range(10)]""",
    "classes": """class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def plus(self, other):
        return Point(self.x + other.x, self.y + other.y)
total = Point(0, 0)
for i in range(150_000):
    total = total.plus(Point(1, 2))
    total.x -= 2""",
}


def scripted(body: dict[str, Any]) -> str:
    """The model of the overhead rows: a root or child plays its script, a plain call says ok."""
    messages = body["messages"]
    if messages[0]["role"] != "system":
        return "ok"
    name, number = re.search(r"bench: (\w+) (\d+)", messages[1]["content"]).groups()
    return f"```repl\n{SCRIPTS[name].replace('$n', number)}\n```"


def ask(model: RLM, script: str, number: int = 0, context: Any = None) -> float:
    """Seconds of one completion that plays a script, which must come out well."""
    start = time.perf_counter()
    done = model.completion(f"bench: {script} {number}", context)
    seconds = time.perf_counter() - start
    if (done.answer, done.finish_reason) != (1, "final"):
        raise SystemExit(f"{script} {number} answered {done.answer!r} ({done.finish_reason})")
    return seconds


def bare(url: str, script: str, number: int, threads: int = 1) -> Callable[[], float]:
    """A function that sends a script's requests (but the root's) without this program: seconds."""
    with Server(scripted) as server:
        ask(RLM("bench", base_url=server.url, api_key="k"), script, number)
    bodies = server.requests[number > 0 :]
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))
    session.headers["Authorization"] = "Bearer k"

    def post(body: dict[str, Any]) -> str:
        reply = session.post(f"{url}/chat/completions", json=body, timeout=60).json()
        return reply["choices"][0]["message"]["content"]

    def work() -> float:
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list((map if threads == 1 else pool.map)(post, bodies))
        return time.perf_counter() - start

    return work


def row(work: str, value: float, unit: str, floor: str, aim: float = 0, also: bool = True):
    """One line of the table; `also` is a second condition of the aim."""
    say(f"  {work}: {value:,.4g} {unit}")
    met = "" if not aim else "yes" if value <= aim and also else "NO"
    return work, f"{value:,.4g} {unit}", floor, f"<= {aim:,g} {unit}" if aim else "", met


def calls(url: str, slow: str) -> Iterator[tuple[str, ...]]:
    """The rows about completions and sub-calls. `slow` is a server that answers after 100 ms."""
    model, floor = RLM("bench", base_url=url, api_key="k"), bare(url, "turn", 0)
    a, b = medians(lambda: ask(model, "turn"), floor, runs=30)
    yield row("one completion, one turn", a * 1e3, "ms", f"{b * 1e3:.2f} ms", 5)

    floor = bare(url, "queries", 200)
    a, b = medians(lambda: ask(model, "queries", 220) - ask(model, "queries", 20), floor)
    note = f"{b * 5:.2f} ms ({a / b:.2f} x)"
    yield row("one sequential llm_query", a * 5, "ms", note, 1, also=a <= 1.5 * b)

    for threads, aim, name in ((16, 450, "defaults"), (64, 170, "concurrency 64")):
        wide, floor = RLM("bench", base_url=slow, api_key="k"), bare(slow, "batch", 64, threads)
        wide.concurrency = threads
        a, b = medians(lambda wide=wide: ask(wide, "batch", 64) - 0.1, floor)  # the root's is 0.1
        yield row(f"64 sub-calls of 100 ms, {name}", a * 1e3, "ms", f"{b * 1e3:.0f} ms", aim)

    floor = bare(url, "children", 20)
    a, b = medians(lambda: ask(model, "children", 22) - ask(model, "children", 2), floor)
    yield row("one level of recursion (a child)", a * 50, "ms", f"{b * 50:.2f} ms", 6)


def memory(root: int) -> int:
    """Bytes in use by a process and its descendants: the sum of their proportional shares."""
    children, total = defaultdict(list), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    family = [root]
    for pid in family:  # which grows as it goes
        family += children[pid]
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(text.partition("\nPss:")[2].split()[0]) * 1024
    return total


def hold(megabytes: int, url: str, pipe: Any) -> None:
    """In a process of its own: one completion over a big context, on a word from the pipe."""
    model = RLM("bench", base_url=url, api_key="k")
    pipe.send(ask(model, "turn"))
    pipe.recv()
    line = 'Date: Jan 05, 2023 || User: 48213 || Instance: What does "needle" mean?\n'
    number = megabytes * 1_000_000 // len(line)
    pipe.send(ask(model, "count", number, line * number))


def big(megabytes: int, url: str, watch: bool) -> float:
    """Seconds of `hold`, or with `watch` the MB by which all its processes grew at the peak."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(megabytes, url, theirs))
    process.start()
    theirs.close()  # so that its end is an EOFError here
    ours.recv()
    before = peak = memory(process.pid) if watch else 0
    ours.send("go")
    while watch and not ours.poll(0.002):
        peak = max(peak, memory(process.pid))
    seconds = ours.recv()
    process.join()
    return (peak - before) / 1e6 if watch else seconds


def contexts(url: str) -> Iterator[tuple[str, ...]]:
    """The rows about big contexts; each run is a fresh process."""
    for megabytes, seconds, more in ((100, 0.3, 220), (1000, 0, 0)):
        name = f"context of {megabytes:,} MB"
        (a,) = medians(lambda mb=megabytes: big(mb, url, watch=False), runs=5)
        yield row(f"{name}: load, count, finish", a, "s", "", seconds)
        if sys.platform == "linux":
            (a,) = medians(lambda mb=megabytes: big(mb, url, watch=True), runs=5)
            yield row(f"{name}: memory, all processes", a, "MB", f"{megabytes:,} MB", more)


def six_turns() -> tuple[str, ...]:
    """The row about the characters that the requests of one root add up to."""
    sent: list[list[dict[str, Any]]] = []

    def model(messages: list[dict[str, Any]]) -> str:
        sent.append([dict(message) for message in messages])
        return f"```repl\n{SIX_TURNS[len(sent) - 1]}\n```"

    text = "In 1987 the bridge of Corvale was rebuilt; in 1991 it closed again.\n" * 20_000
    RLM(model).completion("Which year is named most often?", text)
    total = sum(len(message["content"]) for messages in sent for message in messages)
    grows = len(sent) == 6 and all(b[: len(a)] == a for a, b in itertools.pairwise(sent))
    note = "each a prefix of the next" if grows else "NOT prefixes of each other"
    return row("prompt characters, six turns", total, "chars", note, 21_000, also=grows)


def heavy(name: str, code: str) -> tuple[str, ...]:
    """A row about computing: the same code in a cell and in plain `exec`."""

    def inside() -> float:
        start = time.perf_counter()
        if error := repl.run(code).error:
            raise SystemExit(error)
        return time.perf_counter() - start

    def outside() -> float:
        start = time.perf_counter()
        exec(compile(code, "cell", "exec"), {})
        return time.perf_counter() - start

    with Sandbox({}) as repl:
        a, b = medians(inside, outside)
    aim = 0 if name == "classes" else 1.5  # these are stated, not promised
    return row(f"heavy cell, {name}", a / b, "x", f"exec: {b * 1e3:.0f} ms", aim)


def imports() -> tuple[str, ...]:
    """The row about `import rlm`, each in a fresh interpreter."""

    def seconds(module: str) -> float:
        code = (
            f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        )
        return float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))

    a, b = medians(lambda: seconds("rlm"), lambda: seconds("requests"))
    return row("import rlm", a * 1e3, "ms", f"import requests: {b * 1e3:.0f} ms", 150)


def overhead(_: argparse.Namespace) -> int:
    with serve(scripted) as url, serve(scripted, 100) as slow:
        rows = [*calls(url, slow), *contexts(url), six_turns()]
    rows += [*itertools.starmap(heavy, CELLS.items()), imports()]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    print(f"\n{machine}, Python {platform.python_version()}; medians of 5 runs or more\n")
    table(("work", "measured", "floor", "aim", "met"), rows, left=1)
    return 0


# ---------------------------------------------------------------- rot: the tasks

QUESTIONS = {  # what an entry asks for -> how such entries read; the first two words tell
    "numeric value": ("How many {} are in {}?", "What year were the {} of {} built?"),
    "human being": ("Who built the {} of {}?", "Which singer praised the {} of {}?"),
    "location": ("Where did the {} of {} stand first?", "In which country are the {} of {}?"),
    "entity": ("What animal guards the {} of {}?", "Which language has a word for {} of {}?"),
    "description": ("Why did the {} of {} close?", "How does one repair the {} of {}?"),
    "abbreviation": ("What is the abbreviation for {} of {}?", "Short form of {} of {}?"),
}
WEIGHTS = (20, 20, 20, 20, 18.7, 1.3)  # the last label is rare
KEY = {" ".join(q.split()[:2]): label for label, texts in QUESTIONS.items() for q in texts}
THINGS = ("bridges", "lanterns", "ferries", "mills", "orchards", "archives", "bells", "gardens")
PLACES = ("Aldmoor", "Brackwater", "Corvale", "Dunmere", "Eastholm", "Fernley", "Garrick", "Lorne")
PREAMBLE = (
    "The context has one entry a line: a date, a user and a question that this user asked. What a "
    f"question asks for is one of: {', '.join(QUESTIONS)}; this label is not shown.\n"
)
TASKS = {
    "needle": "One entry, unlike the others, tells the pass phrase of the night watch. What is the "
    "pass phrase? Answer with the phrase alone.",
    "count": "How many of the questions ask for a numeric value? Answer with the number alone.",
    "pairs": "List all pairs of users in which both have at least one question that asks for an "
    "abbreviation. Answer with one pair a line, as `lower ID, higher ID`, each pair once.",
}


@dataclass
class Task:
    kind: str
    tokens: int  # the length asked for, at 4 characters a token
    question: str
    context: str
    expected: Any


def generate(kind: str, tokens: int, seed: int) -> Task:
    """A task of the given length: needle (constant work), count (linear), pairs (quadratic)."""
    rng = random.Random(f"{kind} {tokens} {seed}")
    labels = rng.choices(list(QUESTIONS), WEIGHTS, k=tokens * 4 // 85)  # a line has 85 characters
    users = rng.sample(range(10_000, 99_999), max(12, len(labels) // 40))
    lines, rare, expected = [], set(), labels.count("numeric value")
    for label in labels:
        text = rng.choice(QUESTIONS[label]).format(rng.choice(THINGS), rng.choice(PLACES))
        user, day = rng.choice(users), date(2023, 1, 1) + timedelta(rng.randrange(365))
        lines.append(f"Date: {day:%b %d, %Y} || User: {user} || Instance: {text}")
        rare |= {user} if label == "abbreviation" else set()
    if kind == "needle":
        expected = f"{rng.choice(THINGS)} of {rng.choice(PLACES)} {rng.randint(100, 999)}"
        where = rng.randrange(len(lines))
        start = lines[where].rpartition(": ")[0]
        lines[where] = f"{start}: The pass phrase of the night watch is {expected}."
    if kind == "pairs":
        expected = list(itertools.combinations(sorted(rare), 2))
    return Task(kind, tokens, PREAMBLE + TASKS[kind], "\n".join(lines), expected)


def oolong(path: Path, samples: int) -> Iterator[Task]:
    """Tasks of a public OOLONG file (JSONL): the first `samples` of each context length."""
    taken: dict[int, int] = defaultdict(int)
    for line in path.open():
        record = json.loads(line)
        context, expected = record["context_window_text"], str(record["answer"])
        tokens = record.get("context_len") or len(context) // 4
        taken[tokens] += 1
        if day := re.search(r"datetime\.date\((\d+), (\d+), (\d+)\)", expected):
            expected = date(*map(int, day.groups())).isoformat()
        elif expected.startswith("["):  # "['entity']", "[17]"
            expected = ast.literal_eval(expected)[0]
        if taken[tokens] <= samples:
            yield Task("oolong", tokens, record["question"], context, expected)


def score(expected: Any, answer: Any) -> float:
    """F1 for pairs, 0.75^|error| for numbers, else 1 or 0; dates and comparisons as OOLONG does."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    if isinstance(expected, list):
        given = {(int(a), int(b)) for a, b in re.findall(r"(\d{5})\D{1,9}(\d{5})", text)}
        both = len(given) + len(expected)
        return 2 * len(given.intersection(expected)) / both if both else 1.0
    text = text.strip().rpartition("\n")[2].rpartition(": ")[2].strip(" *[]'\"`.").lower()
    if str(expected).isdigit():
        numbers = re.findall(r"-?\d+", text.replace(",", ""))
        return 0.75 ** abs(int(expected) - int(numbers[-1])) if numbers else 0.0
    for form in ("%B %d, %Y", "%b %d, %Y", "%m/%d/%Y"):
        with contextlib.suppress(ValueError):  # another form, or no date at all
            text = datetime.strptime(text, form).date().isoformat()
    if comparison := re.search(r"(more|less) common|same frequency", text):
        return float(comparison[0] in expected)
    return float(text == str(expected).lower())


# ---------------------------------------------------------------- rot: the simulated model

PIECE = {1: 16_000, 2: 128_000, 3: 1_000_000}  # levels left -> characters for one sub-call
LABEL = "Write the label of each entry, one a line, in their order."
FIND = "Which pass phrase do these entries tell? The phrase alone, or NONE."
MARKS = {LABEL: "label", FIND: "needle"} | {text: kind for kind, text in TASKS.items()}
PROGRAM = {  # turn of a root or child, with the kind of its task where that matters -> its code
    "0": """lines = context.splitlines()
print(f"{len(context):,} characters, {len(lines):,} entries; the first: {lines[0]}")""",
    "1": """pieces, size = [[]], 0
for line in lines:
    if size + len(line) > $piece:
        pieces.append([])
        size = 0
    pieces[-1].append(line)
    size += len(line) + 1
contexts = ["\\n".join(piece) for piece in pieces]
replies = llm_query_batched(["$ask"] * len(contexts), contexts, recurse=$recurse)
print(f"{len(replies)} replies, the first begins {replies[0][:40]!r}")""",
    "2 needle": """FINAL(next((reply for reply in replies if reply != "NONE"), "NONE"))""",
    "2 label": """FINAL("\\n".join(replies))""",
    "2 count": """FINAL("\\n".join(replies).split("\\n").count("numeric value"))""",
    "2 pairs": """labels = "\\n".join(replies).split("\\n")
marked = [line for line, label in zip(lines, labels) if label == "abbreviation"]
users = sorted({int(line.split("User: ")[1][:5]) for line in marked})
FINAL([[a, b] for a in users for b in users if a < b])""",
}


class Simulated:
    """A make-believe model of which only the mechanics are real. Deterministic by its seed.

    A plain call reads each entry by the generator's own key and errs with a probability that grows
    with the fourth power of the length of its prompt, to one half and more past 64,000 tokens. A
    needle stands out sixteen times longer; relating all to all fails at a quarter of the length.
    """

    def __init__(self, depth: int, seed: int) -> None:
        self.depth, self.seed = depth, seed

    def __call__(self, messages: list[dict[str, Any]]) -> Reply:
        sizes = [len(message["content"]) // 4 for message in messages]
        plain = messages[0]["role"] != "system"
        text = self.read(messages[0]["content"]) if plain else self.play(messages)
        text = text[:128_000]  # as real models, it cannot write more in one go
        new, cached, answer = sum(sizes[-2:]), sum(sizes[:-2]), len(text) // 4
        dollars = (new + cached / 10 + answer * 4) / 1e6  # imaginary: $1, $0.1 and $4 a million
        return Reply(text, new + cached, cached, answer, dollars)

    def play(self, messages: list[dict[str, Any]]) -> str:
        """A root or child: probe, batch, aggregate, with children where levels are left."""
        task, turn = messages[1]["content"], sum(m["role"] == "assistant" for m in messages)
        levels = int(found[1]) if (found := re.search(r"Levels left: (\d)", task)) else self.depth
        kind = next(kind for mark, kind in MARKS.items() if mark in task)
        ask = f"{FIND if kind == 'needle' else LABEL} Levels left: {levels - 1}"
        code = Template(PROGRAM.get(str(turn)) or PROGRAM[f"{turn} {kind}"])
        code = code.safe_substitute(piece=PIECE[min(levels, 3)], ask=ask, recurse=levels > 1)
        return f"```repl\n{code}\n```"

    def read(self, text: str) -> str:
        """A plain call: the answer to one prompt with its entries, more or less right."""
        kind = next(kind for mark, kind in MARKS.items() if mark in text)
        length = len(text) / 4 * {"needle": 1 / 16, "pairs": 4}.get(kind, 1)
        wrong, rng = 1 / (1 + (64_000 / length) ** 4), random.Random(f"{self.seed} {text}")
        entries = [line for line in text.splitlines() if line.startswith("Date: ")]
        if kind == "needle":
            told = [line.rpartition(" is ")[2] for line in entries if "night watch is " in line]
            return told[0].rstrip(".") if told and rng.random() > wrong else "NONE"
        labels = [KEY[" ".join(line.split("Instance: ")[1].split(" ", 2)[:2])] for line in entries]
        names = list(QUESTIONS)
        labels = [rng.choice(names) if rng.random() < wrong else label for label in labels]
        marked = [e for e, label in zip(entries, labels, strict=True) if label == "abbreviation"]
        users = sorted({line.split("User: ")[1][:5] for line in marked})
        pairs = (f"{a}, {b}" for a, b in itertools.combinations(users, 2))
        count = labels.count("numeric value")
        return str(count) if kind == "count" else "\n".join(pairs if kind == "pairs" else labels)


# ---------------------------------------------------------------- rot: the experiment


def size(text: str) -> int:
    """'8K' -> 8000, '1M' -> 1000000."""
    return int(float(text.rstrip("KM")) * {"K": 1_000, "M": 1_000_000}.get(text[-1], 1))


def short(number: float) -> str:
    """8000 -> '8K', 1234567 -> '1.2M'."""
    for unit, name in ((1_000_000, "M"), (1_000, "K")):
        if number >= unit:
            return f"{number / unit:.1f}".removesuffix(".0") + name
    return f"{number:.0f}"


def attempt(task: Task, depth: int, options: argparse.Namespace) -> dict[str, Any]:
    """One contestant's answer to one task, with what it cost: what `--json` keeps."""
    names = ("model", "sub_model", "base_url", "max_cost", "max_seconds", "prices")
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    given.setdefault("model", Simulated(depth, options.seed))
    limit = 100_000 if depth else 10**12  # asked directly, the model gets it all
    start = time.perf_counter()
    try:
        done = RLM(max_depth=depth, leaf_chars=limit, **given).completion(
            task.question, task.context
        )
        answer, usage, reason = done.answer, done.usage, done.finish_reason
    except RLMError as error:
        answer, usage, reason = None, error.usage, str(error)
        say(f"  at depth {depth}: {reason}")
    result = {"task": task.kind, "length": task.tokens}
    result |= {"contestant": f"depth {depth}" if depth else "direct", "finish_reason": reason}
    result |= {"score": 0.0 if answer is None else score(task.expected, answer)}
    result |= {"calls": usage.calls, "tokens": usage.prompt_tokens + usage.completion_tokens}
    result |= {"cost": usage.cost, "seconds": time.perf_counter() - start}
    return result | {"question": task.question, "expected": task.expected, "answer": answer}


def rot(options: argparse.Namespace) -> int:
    if options.oolong and not options.model:
        raise SystemExit("--oolong needs a --model: the simulated one reads only its own tasks")
    few = "8K,32K,128K"
    lengths = map(
        size, (options.lengths or (few if options.model else few + ",512K,1M")).split(",")
    )
    samples = options.samples or (1 if options.model else 3)
    cases = itertools.product(options.tasks.split(","), lengths, range(samples))
    tasks = (generate(kind, length, options.seed + sample) for kind, length, sample in cases)
    answers = []
    for task in oolong(options.oolong, samples) if options.oolong else tasks:
        say(f"{task.kind} {short(task.tokens)} ...")
        answers += [attempt(task, int(depth), options) for depth in options.depths.split(",")]
    model = (
        options.model or "SIMULATED: make-believe at imaginary prices, nothing that was measured"
    )
    if options.json:
        options.json.write_text(json.dumps({"model": model, "answers": answers}))
    report(model, answers)
    return 0


def report(model: str, answers: list[dict[str, Any]]) -> None:
    """Two tables: the score by length, and everything."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        groups[answer["task"], answer["contestant"], answer["length"]].append(answer)

    def mean(key: tuple[str, str, int], field: str, form: Callable[[float], str]) -> str:
        values = [answer[field] for answer in groups[key]]
        return "-" if None in values else form(statistics.mean(values))

    lengths = sorted({length for _, _, length in groups})
    names = dict.fromkeys(key[:2] for key in groups)
    print(f"\nModel {model}\n\nScore by length in tokens (means)\n")
    rows = (
        (*name, *(mean((*name, n), "score", "{:.2f}".format) for n in lengths)) for name in names
    )
    table(("task", "contestant", *map(short, lengths)), rows, left=2)
    print(f"\nModel {model}\n\nMeans for one answer\n")
    fields = {"score": "{:.2f}".format, "calls": "{:.0f}".format, "tokens": short}
    fields |= {"cost": "${:.4f}".format, "seconds": "{:.2f}".format}
    rows = ((*k[:2], short(k[2]), *(mean(k, *field) for field in fields.items())) for k in groups)
    table(("task", "contestant", "length", *fields), rows, left=2)


# ---------------------------------------------------------------- sandbox


def sandbox(options: argparse.Namespace) -> int:
    """Each HumanEval task in one cell: prompt, canonical solution, test, and the test's call."""
    with (gzip.open if options.path.suffix == ".gz" else open)(options.path, "rt") as lines:
        problems = [json.loads(line) for line in lines]
    failed, start = [], time.perf_counter()
    for problem in problems:
        code = f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n"
        with Sandbox({}) as repl:
            result = repl.run(f"{code}check({problem['entry_point']})\nprint('PASS')")
        if result.error or "PASS" not in result.output:
            why = (result.error or result.output or "no output").strip().splitlines()[-1]
            failed.append((problem["task_id"], why[:80]))
    table(("task", "why it does not pass"), failed or [("-", "-")], left=2)
    seconds = time.perf_counter() - start
    print(f"\n{len(problems) - len(failed)} of {len(problems)} tasks pass, in {seconds:.1f} s")
    return 1 if failed else 0


def price(text: str) -> tuple[str, tuple[float, ...]]:
    """'MODEL=IN,CACHED,OUT' -> (MODEL, (IN, CACHED, OUT))."""
    name, _, numbers = text.rpartition("=")
    return name, tuple(map(float, numbers.split(",")))


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("overhead", help="what the program itself costs")
    command.set_defaults(run=overhead)
    command = commands.add_parser("sandbox", help="how much of HumanEval the sandbox runs")
    command.set_defaults(run=sandbox)
    command.add_argument("path", type=Path, help="HumanEval.jsonl.gz")
    command = commands.add_parser("rot", help="scores over lengths, asked directly and as RLMs")
    command.set_defaults(run=rot)
    add = command.add_argument
    add("--tasks", default=",".join(TASKS), help="default: %(default)s")
    add("--lengths", help="in tokens; default: 8K,32K,128K, and 512K,1M where simulated")
    add("--depths", default="0,1,2,3", help="0 asks the model directly; default: %(default)s")
    add("--samples", type=int, help="tasks of each kind and length; default: 1, simulated 3")
    add("--seed", type=int, default=0)
    add("--oolong", type=Path, help="the tasks of a public OOLONG file (JSONL) instead")
    add("--json", type=Path, help="keep every answer in this file")
    add("--model", help="a real model; without it the model is SIMULATED")
    add("--sub-model", help="default: the model")
    add("--base-url", help="default: $OPENAI_BASE_URL or OpenAI's")
    add("--max-cost", type=float, help="dollars for one answer")
    add("--max-seconds", type=float, help="seconds for one answer")
    add("--price", type=price, action="append", default=[], help="MODEL=IN,CACHED,OUT")
    options = parser.parse_args()
    options.prices = dict(vars(options).get("price", []))
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
