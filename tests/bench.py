"""Measure it: what the program costs, how answers fall with length, what the sandbox runs.

    python tests/bench.py overhead                    against scripted servers, beside a floor
    python tests/bench.py rot                         context rot; without --model it is SIMULATED
    python tests/bench.py sandbox HumanEval.jsonl.gz  the canonical solutions, each in one cell

Times are medians, each beside the floor measured in the same run: the same requests by a bare
`requests` loop, or the same code in plain `exec`. Only `rot --model NAME` measures a model.
"""

import argparse
import concurrent.futures
import contextlib
import functools
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
from server import Server, serve

from rlm import RLM, Reply, RLMError
from sandbox import Sandbox

say = functools.partial(print, file=sys.stderr, flush=True)  # how far it is; stdout has the tables


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int) -> None:
    """Prints aligned columns, the first `left` of them to the left."""
    cells = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in [cells[0], ["-" * width for width in widths], *cells[1:]]:
        first = map(str.ljust, row[:left], widths)
        print("  ".join([*first, *map(str.rjust, row[left:], widths[left:])]).rstrip())


def medians(*works: Callable[[], Any], runs: int = 7) -> list[float]:
    """The median of each: of the float it returns, else of its seconds. The first run is lost."""

    def measure(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        value = work()
        return value if isinstance(value, float) else time.perf_counter() - start

    taken = [[measure(work) for work in works] for _ in range(runs + 1)][1:]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


# ------------------------------------------------------------ overhead

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
for i in range(3000):
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
for n in range(120_000):
    date, user, text = f"Date: {n} || User: {n % 97} || what is the number {n}?".split(" || ")
    found += text.lower().startswith("what is") and "77" in user
    words.extend(text.replace("?", "").split())
hits = [" ".join(words).count(str(digit)) for digit in range(10)]""",
    "classes": """class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def plus(self, other):
        return Point(self.x + other.x, self.y + other.y)
total = Point(0, 0)
for i in range(500_000):
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


def ask(model: RLM, script: str, number: int = 0, context: str = "x") -> None:
    """One completion that plays a script, which must come out well."""
    done = model.completion(f"bench: {script} {number}", context)
    if done.answer != 1:
        raise SystemExit(f"{script} {number}: {done.answer!r} ({done.finish_reason})")


def bare(url: str, script: str, number: int, threads: int = 1) -> Callable[[], None]:
    """A function that sends a script's requests (without the root's) without this program."""
    with Server(scripted) as server:
        ask(RLM("bench", base_url=server.url, api_key="k"), script, number)
    bodies = server.requests[number > 0 :]
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))
    session.headers["Authorization"] = "Bearer k"

    def post(body: dict[str, Any]) -> dict[str, Any]:
        return session.post(f"{url}/chat/completions", json=body, timeout=60).json()

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list((map if threads == 1 else pool.map)(post, bodies))

    return work


def row(work: str, value: float, unit: str, floor: str, aim: float = 0, also: bool = True):
    """One line of the table; `also` is a second condition of the aim."""
    shown = f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    say(f"  {work}: {shown}")
    met = "" if not aim else "yes" if value <= aim and also else "NO"
    return work, shown, floor, f"<= {aim:,g} {unit}" if aim else "", met


def calls(url: str, slow: str) -> Iterator[tuple[str, ...]]:
    """The rows about completions and sub-calls. `slow` is a server that answers after 100 ms."""
    model, floor = RLM("bench", base_url=url, api_key="k"), bare(url, "turn", 0)
    a, b = medians(lambda: ask(model, "turn"), floor, runs=30)
    yield row("one completion, one turn", a * 1e3, "ms", f"{b * 1e3:.2f} ms", 5)

    floor = bare(url, "queries", 200)
    a, none, b = medians(lambda: ask(model, "queries", 200), lambda: ask(model, "turn"), floor)
    a, b = (a - none) * 5, b * 5  # of 200, in ms
    note = f"{b:.2f} ms ({a / b:.2f} x)"
    yield row("one sequential llm_query", a, "ms", note, 1, also=a <= 1.5 * b)

    for threads, aim, name in ((16, 450, "defaults"), (64, 170, "concurrency 64")):
        root, floor = lambda m: scripted({"messages": m}), bare(slow, "batch", 64, threads)
        wide = RLM(root, "bench", base_url=slow, api_key="k", concurrency=threads)
        a, b = medians(lambda wide=wide: ask(wide, "batch", 64), floor)
        yield row(f"64 sub-calls of 100 ms, {name}", a * 1e3, "ms", f"{b * 1e3:.0f} ms", aim)

    floor = bare(url, "children", 20)
    a, none, b = medians(lambda: ask(model, "children", 20), lambda: ask(model, "turn"), floor)
    yield row("one level of recursion (a child)", (a - none) * 50, "ms", f"{b * 50:.2f} ms", 6)


def memory(root: int) -> int:
    """Bytes in use by a process and its descendants: the sum of their proportional shares."""
    parents, family, total = {}, [root], 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    for pid in family:  # which grows as it goes
        family += [child for child, parent in parents.items() if parent == pid]
        with contextlib.suppress(OSError):
            share = Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2]
            total += int(share.split()[0]) * 1024
    return total


def hold(megabytes: int, url: str, pipe: Any) -> None:
    """In a process of its own: one completion over a big context, on a word from the pipe."""
    model = RLM("bench", base_url=url, api_key="k")
    pipe.send(ask(model, "turn"))
    pipe.recv()
    line = 'Date: Jan 05, 2023 || User: 48213 || Instance: What does "needle" mean?\n'
    number = megabytes * 1_000_000 // len(line)
    text, start = line * number, time.perf_counter()
    ask(model, "count", number, text)
    pipe.send(time.perf_counter() - start)


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
    for mb, aims in ((100, (0.3, 220)), (1000, (0, 0))):
        work = [lambda watch=watch, mb=mb: big(mb, url, watch) for watch in (False, True)]
        (seconds,) = medians(work[0], runs=5)
        yield row(f"context of {mb:,} MB: load, count, finish", seconds, "s", "", aims[0])
        if sys.platform == "linux":  # elsewhere nothing tells
            (peak,) = medians(work[1], runs=5)
            yield row(f"context of {mb:,} MB: memory, all processes", peak, "MB", "", aims[1])


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
    """A row about computing: the same code in a cell and in plain `exec`, compiled in both."""
    with Sandbox({}) as repl:
        a, b = medians(lambda: repl.run(code), lambda: exec(code, {}))  # noqa: S102
    aim = 1.5 * (name != "classes")  # these are stated, not promised
    return row(f"heavy cell, {name}", a / b, "x", f"exec: {b * 1e3:.0f} ms", aim)


def imports() -> tuple[str, ...]:
    """The row about `import rlm`, each time in a fresh interpreter."""

    def seconds(module: str) -> float:
        code = f"import time; t = time.time(); import {module}; print(time.time() - t)"
        return float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))

    a, b = medians(lambda: seconds("rlm"), lambda: seconds("requests"))
    return row("import rlm", a * 1e3, "ms", f"import requests: {b * 1e3:.0f} ms", 150)


def overhead(_: argparse.Namespace) -> int:
    """What the program itself costs."""
    with serve(scripted) as url, serve(scripted, 100) as slow:
        rows = [*calls(url, slow), *contexts(url), six_turns()]
    rows += [*itertools.starmap(heavy, CELLS.items()), imports()]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{machine}; medians of 5 runs or more\n")
    table(("work", "measured", "floor", "aim", "met"), rows, left=1)
    return 0


def sandbox(options: argparse.Namespace) -> int:
    """How much of HumanEval the sandbox runs, each task with its test in one cell."""
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
    table(("task", "why it does not pass"), failed or [("-", "all pass")], left=2)
    passed = f"{len(problems) - len(failed)} of {len(problems)} tasks pass"
    print(f"\n{passed}, in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


# ------------------------------------------------------------ rot: the tasks

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
Task = tuple[str, int, str, str, Any]  # kind, length in tokens, question, context, answer


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
        text = f"The pass phrase of the night watch is {expected}."
        lines[rng.randrange(len(lines))] = f"Date: Jun 01, 2023 || User: {user} || Instance: {text}"
    if kind == "pairs":
        expected = list(itertools.combinations(sorted(rare), 2))
    return kind, tokens, PREAMBLE + TASKS[kind], "\n".join(lines), expected


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
        if taken[tokens] <= samples:  # "['entity']" is entity, "[17]" is 17
            yield "oolong", tokens, record["question"], context, expected.strip("[]'\"")


def score(expected: Any, answer: Any) -> float:
    """F1 for pairs, 0.75^|error| for numbers, else 1 or 0; dates and comparisons as OOLONG does."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    if isinstance(expected, list):
        given = {(int(a), int(b)) for a, b in re.findall(r"(\d{5})\D{1,9}(\d{5})", text)}
        both = len(given) + len(expected)
        return 2 * len(given.intersection(expected)) / max(both, 1)
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


# ------------------------------------------------------------ rot: the simulated model, the runs

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


@dataclass
class Simulated:
    """A make-believe model of which only the mechanics are real. Deterministic by its seed.

    A plain call reads each entry by the generator's own key, or guesses, with a probability that
    grows with the fourth power of the length of its prompt and is one half at 64,000 tokens. A
    needle stands out sixteen times longer; relating all to all fails at half the length.
    """

    depth: int
    seed: int

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
        length = len(text) / 4 * {"needle": 1 / 16, "pairs": 2}.get(kind, 1)
        wrong, rng = 1 / (1 + (64_000 / length) ** 4), random.Random(f"{self.seed} {text}")
        lines = [line for line in text.splitlines() if line.startswith("Date: ")]
        if kind == "needle":
            told = [line.rpartition(" is ")[2] for line in lines if "night watch is " in line]
            return told[0].rstrip(".") if told and rng.random() > wrong else "NONE"
        labels = [KEY[" ".join(line.split("Instance: ")[1].split(" ", 2)[:2])] for line in lines]
        names = list(QUESTIONS)
        labels = [rng.choice(names) if rng.random() < wrong else label for label in labels]
        marked = (line for line, label in zip(lines, labels, strict=True) if label == names[-1])
        users = sorted({line.split("User: ")[1][:5] for line in marked})
        pairs = [f"{a}, {b}" for a, b in itertools.combinations(users, 2)]
        answers = {"label": labels, "pairs": pairs, "count": [str(labels.count(names[0]))]}
        return "\n".join(answers[kind])


FIELDS = ("task", "contestant", "length", "score", "calls", "tokens", "cost", "seconds")
FIELDS += ("finish_reason", "expected", "answer")  # these only in the file


def attempt(task: Task, depth: int, options: argparse.Namespace) -> dict[str, Any]:
    """One contestant's answer to one task, with what it cost: what `--json` keeps."""
    kind, length, question, context, expected = task
    given = {k: v for k, v in vars(options).items() if k in RLM.__dataclass_fields__ and v}
    given["model"] = options.model or Simulated(depth, options.seed)
    given["prices"] = {options.model: options.prices} if options.prices else {}
    limit = 100_000 if depth else 10**12  # asked directly, the model gets it all
    start = time.perf_counter()
    try:
        done = RLM(max_depth=depth, leaf_chars=limit, **given).completion(question, context)
        answer, usage, reason = done.answer, done.usage, done.finish_reason
    except RLMError as error:
        answer, usage, reason = "", error.usage, str(error)
        say(f"  at depth {depth}: {reason}")
    name, points = f"depth {depth}" if depth else "direct", score(expected, answer)
    tokens, seconds = usage.prompt_tokens + usage.completion_tokens, time.perf_counter() - start
    values = (kind, name, length, points, usage.calls, tokens, usage.cost, seconds, reason)
    return dict(zip(FIELDS, (*values, expected, answer), strict=True))


def rot(options: argparse.Namespace) -> int:
    """Scores over lengths, asked directly and as RLMs."""
    if options.oolong and not options.model:
        raise SystemExit("--oolong needs a --model: the simulated one reads only its own tasks")
    samples = options.samples or (1 if options.model else 3)
    some = (8_000, 32_000, 128_000)
    lengths = options.lengths or (some if options.model else (*some, 512_000, 1_000_000))
    cases = itertools.product(options.tasks, lengths, range(samples))
    tasks = (generate(kind, length, options.seed + sample) for kind, length, sample in cases)
    answers = []
    for task in oolong(options.oolong, samples) if options.oolong else tasks:
        say(f"{task[0]} of {task[1]:,} tokens ...")
        answers += [attempt(task, depth, options) for depth in options.depths]
    model = f"model {options.model}" if options.model else "SIMULATED model at imaginary prices"
    if options.json:
        options.json.write_text(json.dumps({"model": model, "answers": answers}))
    report(model, answers)
    return 0


def report(model: str, answers: list[dict[str, Any]]) -> None:
    """Two tables of means: the score by length, and everything."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        groups[answer["task"], answer["contestant"], answer["length"]].append(answer)

    def mean(key: tuple[str, str, int], field: str, digits: int) -> str:
        values = [answer[field] for answer in groups[key]]
        return "-" if None in values else f"{statistics.mean(values):,.{digits}f}"

    lengths, names = sorted({key[2] for key in groups}), dict.fromkeys(key[:2] for key in groups)
    print(f"\nScore by length in tokens, {model}\n")
    rows = ([*name, *(mean((*name, n), "score", 2) for n in lengths)] for name in names)
    table((*FIELDS[:2], *(f"{n // 1000}K" for n in lengths)), rows, left=2)
    print(f"\nOne answer, cost in dollars, {model}\n")
    columns = list(zip(FIELDS[3:8], (2, 0, 0, 4, 2), strict=True))  # how many digits
    rows = ([*key[:2], f"{key[2]:,}", *(mean(key, *c) for c in columns)] for key in groups)
    table(FIELDS[:8], rows, left=2)


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(required=True)
    for run in (overhead, rot, sandbox):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
    command.add_argument("path", type=Path, help="HumanEval.jsonl.gz")
    add = commands.choices["rot"].add_argument
    add("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    add("--lengths", nargs="+", type=int, help="in tokens; default: 8000 and more, to 1000000")
    add("--depths", nargs="+", type=int, default=[0, 1, 2, 3], help="0 asks the model directly")
    add("--samples", type=int, help="tasks of each kind and length; default: 1, simulated 3")
    add("--seed", type=int, default=0)
    add("--oolong", type=Path, help="the tasks of a public OOLONG file (JSONL) instead")
    add("--json", type=Path, help="keep every answer in this file")
    add("--model", help="a real model; without it the model is SIMULATED")
    add("--sub-model", help="default: the model")
    add("--base-url", help="default: $OPENAI_BASE_URL or OpenAI's")
    add("--max-cost", type=float, help="dollars for one answer")
    add("--max-seconds", type=float, help="seconds for one answer")
    add("--prices", nargs=3, type=float, help="dollars a million tokens: input, cached, output")
    return (options := parser.parse_args()).run(options)


if __name__ == "__main__":
    sys.exit(main())
