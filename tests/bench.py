"""Measure it: what the program costs, how answers fall with length, what the sandbox runs.

    python tests/bench.py overhead                    against scripted servers, beside a floor
    python tests/bench.py rot                         context rot; without --model it is SIMULATED
    python tests/bench.py sandbox HumanEval.jsonl.gz  the canonical solutions, each in one cell

`overhead` sets each work beside its floor, measured in the same run: the same requests by a bare
`requests` loop, or the same code in plain `exec`. Its aims are ratios to that floor, so a slow
machine says yes where a fast one does. `rot` lets contestants answer the same tasks: the model
alone, a REPL without sub-calls, RLMs of depth 1 to 3. Only `rot --model NAME` measures a model.
"""

import argparse
import asyncio
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
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import requests
from server import Server, completion

from rlm import PROMPTS, RLM, Reply, RLMError
from sandbox import Sandbox


def say(text: str) -> None:
    """Tell how far it is; stdout has the tables alone."""
    print(text, file=sys.stderr, flush=True)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], left: int) -> None:
    """Print aligned columns, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = tuple("-" * width for width in widths)
    for row in (header, rule, *rows):
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cells.append(cell.ljust(width) if i < left else cell.rjust(width))
        print("  ".join(cells).rstrip())


def medians(*works: Callable[[], Any], runs: int) -> list[float]:
    """Return the median seconds of each work; they take turns, and the first turn is lost."""
    taken = [[] for _ in works]
    for run in range(runs + 1):
        for work, seconds in zip(works, taken, strict=True):
            start = time.perf_counter()
            work()
            if run > 0:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in taken]


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
HEADER = ("work", "measured", "floor", "ratio", "aim", "met")
Row = tuple[str, ...]


def ratio_row(work: str, value: float, floor: float, unit: str, aim: float) -> Row:
    """Return a line of the table whose aim is a ratio."""
    ratio = value / floor
    met = "yes" if ratio <= aim else "NO"
    say(f"  {work}: {ratio:.2f} x")
    return work, amount(value, unit), amount(floor, unit), f"{ratio:.2f} x", f"<= {aim:g} x", met


def absolute_row(work: str, value: float, floor: str, unit: str, aim: float, also: bool) -> Row:
    """Return a line of the table whose aim is an amount; `also` is a second condition."""
    met = "yes" if value <= aim and also else "NO"
    say(f"  {work}: {amount(value, unit)}")
    return work, amount(value, unit), floor, "", f"<= {amount(aim, unit)}", met


def amount(value: float, unit: str) -> str:
    """Return "2.65 ms", "1,998 MB": three digits, or all that stand before the point."""
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {unit}"


@contextlib.contextmanager
def serve(reply: Callable[[dict[str, Any]], str], latency_ms: float = 0) -> Iterator[str]:
    """A light server in a process of its own, not for watching but for measuring: yields the URL.

    `reply` is a function at the top level of a module.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(reply, latency_ms / 1000, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(reply: Callable[[dict[str, Any]], str], latency: float, pipe: Any) -> None:
    loop = asyncio.new_event_loop()
    start = loop.create_server(lambda: _Light(reply, latency, loop), "127.0.0.1", 0, backlog=1024)
    port = loop.run_until_complete(start).sockets[0].getsockname()[1]
    pipe.send(f"http://127.0.0.1:{port}/v1")
    loop.run_forever()


class _Light(asyncio.Protocol):
    """One connection: as much of HTTP as a client needs that sends Content-Length."""

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], str],
        latency: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.reply, self.latency, self.loop = reply, latency, loop

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""  # asyncio sets TCP_NODELAY itself

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, _, body = self.data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        if length and len(body) >= int(length):  # else the rest is still to come
            self.data = b""
            self.loop.call_later(self.latency, self.answer, json.loads(body))

    def answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(completion(self.reply(body), prompt_tokens=1, completion_tokens=1))
        head = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.transport.write(f"HTTP/1.1 200 OK\r\n{head}{data}".encode())


def scripted(body: dict[str, Any]) -> str:
    """Be the model of the overhead rows: a root or child plays its script, a plain call says ok."""
    messages = body["messages"]
    if messages[0]["role"] != "system":
        return "ok"
    name, number = re.search(r"bench: (\w+) (\d+)", messages[1]["content"]).groups()
    code = SCRIPTS[name].replace("$n", number)
    return f"```repl\n{code}\n```"


def scripted_root(messages: list[dict[str, Any]]) -> str:
    """Be the same model without a server."""
    return scripted({"messages": messages})


def ask(model: RLM, script: str, number: int = 0, context: str = "x") -> None:
    """Run one completion that plays a script, which must come out well."""
    done = model.completion(f"bench: {script} {number}", context)
    if done.answer != 1:
        raise SystemExit(f"{script} {number}: {done.answer!r} ({done.finish_reason})")


def bare(url: str, script: str, number: int = 0, threads: int = 1) -> Callable[[], None]:
    """Return a function that sends a script's requests without this program.

    Of a script with sub-calls these are the sub-calls' requests, without the root's.
    """
    with Server(scripted) as server:
        ask(RLM("bench", base_url=server.url, api_key="k"), script, number)
    bodies = server.requests[1:] or server.requests
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))
    session.headers["Authorization"] = "Bearer k"

    def post(body: dict[str, Any]) -> dict[str, Any]:
        return session.post(f"{url}/chat/completions", json=body, timeout=60).json()

    def one_by_one() -> None:
        for body in bodies:
            post(body)

    def side_by_side() -> None:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(post, bodies))

    return one_by_one if threads == 1 else side_by_side


def calls(url: str, slow: str) -> Iterator[Row]:
    """Yield the rows about completions and sub-calls; `slow` is a server that takes 100 ms."""
    model = RLM("bench", base_url=url, api_key="k")

    def empty() -> None:
        ask(model, "turn")

    def queries() -> None:
        ask(model, "queries", 200)

    def children() -> None:
        ask(model, "children", 20)

    whole, floor = medians(empty, bare(url, "turn"), runs=30)
    yield ratio_row("one completion, one turn", whole * 1e3, floor * 1e3, "ms", 3)

    whole, start, floor = medians(queries, empty, bare(url, "queries", 200), runs=9)
    each = (whole - start) * 1e3 / 200
    yield ratio_row("one sequential llm_query", each, floor * 1e3 / 200, "ms", 1.15)

    for threads, name in ((16, "defaults"), (64, "concurrency=64")):
        wide = RLM(scripted_root, "bench", base_url=slow, api_key="k", concurrency=threads)

        def batch(wide: RLM = wide) -> None:
            ask(wide, "batch", 64)

        whole, floor = medians(batch, bare(slow, "batch", 64, threads), runs=9)
        work = f"64 sub-calls of 100 ms, {name}"
        yield ratio_row(work, whole * 1e3, floor * 1e3, "ms", 1.1)

    whole, start, floor = medians(children, empty, bare(url, "children", 20), runs=9)
    each = (whole - start) * 1e3 / 20
    yield ratio_row("one level of recursion (a child)", each, floor * 1e3 / 20, "ms", 6)


def memory(root: int) -> int:
    """Return the bytes in use by a process and its descendants: their proportional shares."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            after_name = stat.read_text().rpartition(")")[2]
            parents[int(stat.parent.name)] = int(after_name.split()[1])
    family = [root]
    total = 0
    for pid in family:  # which grows as it goes
        family += [child for child, parent in parents.items() if parent == pid]
        with contextlib.suppress(OSError):
            share = Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2]
            total += int(share.split()[0]) * 1024
    return total


def hold(megabytes: int, url: str, pipe: Any) -> None:
    """Run one completion over a big context on a word from the pipe; send its time, and the floor.

    This is a process of its own, warm when it sends its first message.
    """
    model = RLM("bench", base_url=url, api_key="k")
    ask(model, "turn")
    pipe.send("ready")
    pipe.recv()
    line = 'Date: Jan 05, 2023 || User: 48213 || Instance: What does "needle" mean?\n'
    number = megabytes * 1_000_000 // len(line)
    text = line * number
    start = time.perf_counter()
    ask(model, "count", number, text)
    pipe.send(time.perf_counter() - start)
    start = time.perf_counter()
    len(text)
    text.count("needle")
    text.encode()  # one copy
    pipe.send(time.perf_counter() - start)


def big(megabytes: int, url: str, watch: bool = False) -> tuple[float, float, float]:
    """Return the seconds of `hold` and of its floor, and the bytes that were needed at the peak.

    Without `watch` these are 0, as to look at the memory takes time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(megabytes, url, theirs))
    process.start()
    theirs.close()  # so that its end is an EOFError here
    ours.recv()
    before = memory(process.pid) if watch else 0
    peak = before
    ours.send("go")
    while watch and not ours.poll(0.002):
        peak = max(peak, memory(process.pid))
    seconds = ours.recv()
    floor = ours.recv()
    process.join()
    return seconds, floor, peak - before


def contexts(url: str) -> Iterator[Row]:
    """Yield the rows about big contexts; each run is a fresh process."""
    runs = [big(100, url) for _ in range(5)]
    seconds = statistics.median(run[0] for run in runs)
    floor = statistics.median(run[1] for run in runs)
    yield ratio_row("100 MB context: load, count, finish", seconds * 1e3, floor * 1e3, "ms", 3)
    if sys.platform != "linux":  # elsewhere nothing tells of memory
        return
    for megabytes, number in ((100, 5), (1000, 3)):
        peaks = [big(megabytes, url, watch=True)[2] / 1e6 for _ in range(number)]
        work = f"memory of all processes, {megabytes:,} MB"
        yield ratio_row(work, statistics.median(peaks), megabytes, "MB", 2.1)


def six_turns() -> Row:
    """Return the row about the characters that the requests of one root add up to."""
    sent = []

    def model(messages: list[dict[str, Any]]) -> str:
        sent.append([dict(message) for message in messages])
        return f"```repl\n{SIX_TURNS[len(sent) - 1]}\n```"

    text = "In 1987 the bridge of Corvale was rebuilt; in 1991 it closed again.\n" * 20_000
    RLM(model).completion("Which year is named most often?", text)
    total = sum(len(message["content"]) for messages in sent for message in messages)
    prefixes = all(after[: len(one)] == one for one, after in itertools.pairwise(sent))
    note = "prefixes" if prefixes else "NO prefixes"  # each request of the next
    whole = prefixes and len(sent) == 6
    return absolute_row("prompt characters, six turns", total, note, "chars", 35_000, whole)


def heavy(name: str, code: str, aim: float) -> Row:
    """Return a row about computing: the same code in a cell and in plain `exec`, both compiled."""

    def plain() -> None:
        exec(code, {})  # noqa: S102

    with Sandbox({}) as repl:

        def cell() -> None:
            result = repl.run(code)
            if result.error:
                raise SystemExit(f"heavy cell, {name}: {result.error}")

        seconds, floor = medians(cell, plain, runs=9)
    return ratio_row(f"heavy cell: {name}", seconds * 1e3, floor * 1e3, "ms", aim)


def imports() -> Row:
    """Return the row about `import rlm`, each time in a fresh interpreter with compiled modules."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        taken = {"rlm": [], "requests": []}
        for _ in range(16):
            for module, milliseconds in taken.items():
                code = f"import time; t = time.time(); import {module}; print(time.time() - t)"
                printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env)
                milliseconds.append(float(printed) * 1e3)
    pairs = list(zip(taken["rlm"], taken["requests"], strict=True))[1:]  # the first one compiles
    beyond = statistics.median(ours - floor for ours, floor in pairs)
    floor = statistics.median(floor for _, floor in pairs)
    work = "import rlm, beyond import requests"
    return absolute_row(work, beyond, amount(floor, "ms"), "ms", 50, True)


def overhead(_: argparse.Namespace) -> int:
    """What the program itself costs."""
    load = os.getloadavg()[0]
    with serve(scripted) as url, serve(scripted, 100) as slow:
        rows = [*calls(url, slow), *contexts(url)]
    for name, code in CELLS.items():
        rows.append(heavy(name, code, aim=2 if name == "classes" else 1.15))
    rows += [imports(), six_turns()]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{machine}, load {load:.1f} at the start; medians\n")
    table(HEADER, rows, left=1)
    return 0


def sandbox(options: argparse.Namespace) -> int:
    """How much of HumanEval the sandbox runs, each task with its test in one cell."""
    opened = gzip.open if options.path.suffix == ".gz" else open
    with opened(options.path, "rt") as lines:
        problems = [json.loads(line) for line in lines]
    failed = []
    start = time.perf_counter()
    for problem in problems:
        code = f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n"
        with Sandbox({}) as repl:
            result = repl.run(f"{code}check({problem['entry_point']})\nprint('PASS')")
        if result.error or "PASS" not in result.output:
            why = result.error or result.output or "no output"
            failed.append((problem["task_id"], why.strip().splitlines()[-1][:80]))
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


def first_words(text: str) -> str:
    """Return the two words that tell what an entry asks for."""
    return " ".join(text.split()[:2])


KEY = {first_words(text): label for label, texts in QUESTIONS.items() for text in texts}


@dataclass
class Task:
    """A question with its context, and what a right answer is."""

    kind: str
    tokens: int  # the length of the context
    question: str
    context: str
    expected: Any


def generate(kind: str, tokens: int, seed: int) -> Task:
    """Return a task: needle (constant work), count (linear work) or pairs (quadratic work)."""
    rng = random.Random(f"{kind} {tokens} {seed}")
    labels = rng.choices(list(QUESTIONS), WEIGHTS, k=tokens * 4 // 85)  # a line has 85 characters
    users = rng.sample(range(10_000, 99_999), max(12, len(labels) // 40))
    lines = []
    rare = set()
    for label in labels:
        text = rng.choice(QUESTIONS[label]).format(rng.choice(THINGS), rng.choice(PLACES))
        user = rng.choice(users)
        day = date(2023, 1, 1) + timedelta(rng.randrange(365))
        lines.append(f"Date: {day:%b %d, %Y} || User: {user} || Instance: {text}")
        if label == "abbreviation":
            rare.add(user)
    expected = labels.count("numeric value")
    if kind == "needle":
        expected = f"{rng.choice(THINGS)} of {rng.choice(PLACES)} {rng.randint(100, 999)}"
        text = f"The pass phrase of the night watch is {expected}."
        place = rng.randrange(len(lines))
        lines[place] = f"Date: Jun 01, 2023 || User: {users[0]} || Instance: {text}"
    if kind == "pairs":
        expected = list(itertools.combinations(sorted(rare), 2))
    return Task(kind, tokens, PREAMBLE + TASKS[kind], "\n".join(lines), expected)


def oolong(path: Path, samples: int) -> Iterator[Task]:
    """Yield tasks of a public OOLONG file (JSONL): the first `samples` of each context length."""
    taken = defaultdict(int)
    for line in path.open():
        record = json.loads(line)
        context = record["context_window_text"]
        tokens = record.get("context_len") or len(context) // 4
        taken[tokens] += 1
        if taken[tokens] > samples:
            continue
        expected = str(record["answer"])
        day = re.search(r"datetime\.date\((\d+), (\d+), (\d+)\)", expected)
        if day:
            expected = date(*map(int, day.groups())).isoformat()
        expected = expected.strip("[]'\"")  # "['entity']" is entity, "[17]" is 17
        yield Task("oolong", tokens, record["question"], context, expected)


def score(expected: Any, answer: Any) -> float:
    """Return F1 for pairs, 0.75^|error| for numbers, else 1 or 0; dates and more as OOLONG does."""
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
    comparison = re.search(r"(more|less) common|same frequency", text)
    if comparison:
        return float(comparison[0] in expected)
    return float(text == str(expected).lower())


# ------------------------------------------------------------ rot: the simulated model

PIECE = {1: 16_000, 2: 128_000, 3: 1_000_000}  # levels left -> characters for one sub-call
LABEL = "Write the label of each entry, one a line, in their order."
FIND = "Which pass phrase do these entries tell? The phrase alone, or NONE."
MARKS = {LABEL: "label", FIND: "needle"} | {text: kind for kind, text in TASKS.items()}
PROBE = """lines = context.splitlines()
print(f"{len(context):,} characters, {len(lines):,} entries; the last: {lines[-1]}")"""
BATCH = """pieces = [[]]
size = 0
for line in lines:
    if size + len(line) > $piece:
        pieces.append([])
        size = 0
    pieces[-1].append(line)
    size += len(line) + 1
contexts = ["\\n".join(piece) for piece in pieces]
replies = llm_query_batched(["$ask"] * len(contexts), contexts, recurse=$recurse)
print(f"{len(replies)} replies, the first begins {replies[0][:40]!r}")"""
AGGREGATE = {
    "needle": """FINAL(next((reply for reply in replies if reply != "NONE"), "NONE"))""",
    "label": """FINAL("\\n".join(replies))""",
    "count": """FINAL("\\n".join(replies).split("\\n").count("numeric value"))""",
    "pairs": """labels = "\\n".join(replies).split("\\n")
marked = [line for line, label in zip(lines, labels) if label == "abbreviation"]
users = sorted({int(line.split("User: ")[1][:5]) for line in marked})
FINAL([[a, b] for a in users for b in users if a < b])""",
}
BY_CODE = {  # without sub-calls: a search, or a guess by key words
    "needle": """import re
found = re.search(r"pass phrase .* is (.*)\\.", context)
FINAL(found[1] if found else "NONE")""",
    "count": """FINAL(sum("How many" in line for line in lines))""",
    "pairs": """marked = [line for line in lines if "abbreviation" in line]
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
    by_code: bool  # whether it must do without sub-calls

    def __call__(self, messages: list[dict[str, Any]]) -> Reply:
        sizes = [len(message["content"]) // 4 for message in messages]
        if messages[0]["role"] == "system":
            text = self.play(messages)
        else:
            text = self.read(messages[0]["content"])
        text = text[:128_000]  # as real models, it cannot write more in one go
        new = sum(sizes[-2:])
        cached = sum(sizes[:-2])
        answer = len(text) // 4
        dollars = (new + cached / 10 + answer * 4) / 1e6  # imaginary: $1, $0.1 and $4 a million
        return Reply(text, new + cached, cached, answer, dollars)

    def play(self, messages: list[dict[str, Any]]) -> str:
        """Be a root or child: probe, batch, aggregate, with children where levels are left."""
        task = messages[1]["content"]
        turn = sum(message["role"] == "assistant" for message in messages)
        kind = next(kind for mark, kind in MARKS.items() if mark in task)
        found = re.search(r"Levels left: (\d)", task)
        levels = int(found[1]) if found else self.depth
        aim = FIND if kind == "needle" else LABEL
        code = (PROBE, BATCH, AGGREGATE[kind])[turn]
        if self.by_code and turn == 1:
            code = BY_CODE[kind]
        code = Template(code).safe_substitute(
            piece=PIECE[min(levels, 3)],
            ask=f"{aim} Levels left: {levels - 1}",
            recurse=levels > 1,
        )
        return f"```repl\n{code}\n```"

    def read(self, text: str) -> str:
        """Be a plain call: the answer to one prompt with its entries, more or less right."""
        kind = next(kind for mark, kind in MARKS.items() if mark in text)
        length = len(text) / 4 * {"needle": 1 / 16, "pairs": 2}.get(kind, 1)
        wrong = 1 / (1 + (64_000 / length) ** 4)
        rng = random.Random(f"{self.seed} {text}")
        lines = [line for line in text.splitlines() if line.startswith("Date: ")]
        if kind == "needle":
            told = [line.rpartition(" is ")[2] for line in lines if "night watch is " in line]
            seen = told and rng.random() > wrong
            return told[0].rstrip(".") if seen else "NONE"
        labels = []
        for line in lines:
            guesses = rng.random() < wrong
            right = KEY[first_words(line.split("Instance: ")[1])]
            labels.append(rng.choice(list(QUESTIONS)) if guesses else right)
        if kind == "label":
            return "\n".join(labels)
        if kind == "count":
            return str(labels.count("numeric value"))
        entries = zip(lines, labels, strict=True)
        marked = [line for line, label in entries if label == "abbreviation"]
        users = sorted({line.split("User: ")[1][:5] for line in marked})
        return "\n".join(f"{a}, {b}" for a, b in itertools.combinations(users, 2))


# ------------------------------------------------------------ rot: the runs

CONTESTANTS = {  # name -> max_depth
    "model alone": 0,
    "REPL alone": 1,  # with prompts that do not speak of sub-calls, and with none to be had
    "depth 1": 1,
    "depth 2": 2,
    "depth 3": 3,
}
BY_YOURSELF = """How to work:
1. Probe: learn the format before you rely on it; then plan.
2. Narrow down with code: search, filter, count and sort.
3. Read what needs judgement yourself: print it in parts that fit one output.
4. Verify what could change the answer (close counts, borderline items, single decisive facts).

Example: in which year was the bridge of Corvale closed?
```repl
near = [line for line in context.splitlines() if "Corvale" in line and "bridge" in line]
print(len(near), near[:40])
```
"""


def prompts_without_sub_calls(folder: str) -> None:
    """Write a system prompt into a folder: the default one, but without what it says of sub-calls.

    The other prompts are taken from the default folder, as the new one does not have them.
    """
    text = Path(PROMPTS, "system.txt").read_text()
    facts = text.partition("How to work:")[0].splitlines(keepends=True)
    facts = "".join(line for line in facts if "llm_query" not in line)
    prompt = facts + BY_YOURSELF
    if re.search("llm_query|sub-call|child", prompt):
        raise SystemExit("prompts/system.txt has changed: it speaks of sub-calls in another place")
    Path(folder, "system.txt").write_text(prompt)


def no_sub_calls(messages: list[dict[str, Any]]) -> str:
    """Be the model of sub-calls where there are none."""
    raise RuntimeError("there are no sub-calls here: read it yourself")


@dataclass
class Answer:
    """One contestant's answer to one task, with what it cost: what `--json` keeps."""

    task: str
    contestant: str
    length: int
    score: float
    calls: int
    tokens: int
    dollars: float | None
    seconds: float
    finish_reason: str
    expected: Any
    answer: Any


def contestant(name: str, options: argparse.Namespace, repeat: int, prompts: str) -> RLM:
    """Return what answers under this name; `prompts` is a folder for the REPL alone."""
    depth = CONTESTANTS[name]
    alone = name == "REPL alone"
    given = {}
    for field in ("base_url", "sub_model", "max_cost", "max_seconds"):
        value = getattr(options, field)
        if value:
            given[field] = value
    if options.prices:
        given["prices"] = {options.model: options.prices}
    if alone:
        given["prompts"] = prompts
        given["sub_model"] = no_sub_calls
    model = options.model or Simulated(depth, options.seed + repeat, by_code=alone)
    return RLM(model, max_depth=depth, **given)


def attempt(name: str, rlm: RLM, task: Task) -> Answer:
    """Return a contestant's answer to one task; an error is an answer that scores nothing."""
    start = time.perf_counter()
    try:
        done = rlm.completion(task.question, task.context)
        answer = done.answer
        reason = done.finish_reason
        usage = done.usage
    except RLMError as error:
        answer = ""
        reason = str(error)
        usage = error.usage
        say(f"  {name}: {reason}")
    return Answer(
        task=task.kind,
        contestant=name,
        length=task.tokens,
        score=score(task.expected, answer),
        calls=usage.calls,
        tokens=usage.prompt_tokens + usage.completion_tokens,
        dollars=usage.cost,
        seconds=time.perf_counter() - start,
        finish_reason=reason,
        expected=task.expected,
        answer=answer,
    )


def rot(options: argparse.Namespace) -> int:
    """How answers fall with length: the model alone, a REPL alone, RLMs of depth 1 to 3."""
    if options.oolong and not options.model:
        raise SystemExit("--oolong needs a --model: the simulated one reads only its own tasks")
    lengths = options.lengths or [8_000, 32_000, 128_000]
    if not options.lengths and not options.model:
        lengths += [512_000, 1_000_000]
    if options.oolong:
        tasks = list(oolong(options.oolong, options.samples))
    else:
        cases = itertools.product(options.tasks, lengths, range(options.samples))
        tasks = (generate(kind, length, options.seed + i) for kind, length, i in cases)
    answers = []
    with tempfile.TemporaryDirectory() as prompts:
        prompts_without_sub_calls(prompts)
        with Sandbox({}) as repl:  # the first one starts the fork server, at nobody's expense
            repl.run("1")
        for task in tasks:
            say(f"{task.kind} of {task.tokens:,} tokens ...")
            for name, repeat in itertools.product(options.contestants, range(options.repeats)):
                rlm = contestant(name, options, repeat, prompts)
                answers.append(attempt(name, rlm, task))
    model = f"model {options.model}" if options.model else "SIMULATED model at imaginary prices"
    if options.json:
        kept = [vars(answer) for answer in answers]
        options.json.write_text(json.dumps({"model": model, "answers": kept}))
    report(f"{model}; median and range, runs of each: {options.repeats}", answers)
    return 0


def short(value: float) -> str:
    """Return a number with few digits: "0.0042", "17", "8.4K", "1.2M"."""
    unit = ""
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if value >= size:
            value /= size
            unit = letter
    return f"{value:.0f}{unit}" if value >= 10 else f"{value:.2g}{unit}"


def two_digits(value: float) -> str:
    """Return a number with two digits after the point."""
    return f"{value:.2f}"


NUMBERS = {  # of an Answer -> how the tables show them
    "score": two_digits,
    "calls": short,
    "tokens": short,
    "dollars": short,
    "seconds": two_digits,
}


def spread(answers: list[Answer], number: str) -> str:
    """Return the median, and the range where there is one: "0.87 0.75-1.00"; "-" if unknown."""
    values = [getattr(answer, number) for answer in answers]
    if None in values:
        return "-"
    show = NUMBERS[number]
    median = show(statistics.median(values))
    low = show(min(values))
    high = show(max(values))
    return median if low == high else f"{median} {low}-{high}"


def report(title: str, answers: list[Answer]) -> None:
    """Print two tables: the score by length, and everything."""
    groups = defaultdict(list)
    for answer in answers:
        groups[answer.task, answer.contestant, answer.length].append(answer)
    lengths = sorted({answer.length for answer in answers})
    print(f"\nScore by length in tokens, {title}\n")
    rows = []
    for task, name in dict.fromkeys((answer.task, answer.contestant) for answer in answers):
        scores = [spread(groups[task, name, length], "score") for length in lengths]
        rows.append((task, name, *scores))
    table(("task", "contestant", *map(short, lengths)), rows, left=2)
    print(f"\nOne answer, {title}\n")
    rows = []
    for (task, name, length), same in groups.items():
        numbers = [spread(same, number) for number in NUMBERS]
        rows.append((task, name, short(length), *numbers))
    table(("task", "contestant", "length", *NUMBERS), rows, left=2)


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(required=True)
    for run in (overhead, rot, sandbox):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
    commands.choices["sandbox"].add_argument("path", type=Path, help="HumanEval.jsonl.gz")
    add = commands.choices["rot"].add_argument
    add("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    add("--lengths", nargs="+", type=int, help="in tokens; default: 8000 and more, to 1000000")
    names = list(CONTESTANTS)
    told = f"default: {', '.join(names)}"
    add("--contestants", nargs="+", default=names, choices=names, metavar="NAME", help=told)
    add("--repeats", type=int, default=3, help="runs of each contestant on each task")
    add("--samples", type=int, default=1, help="tasks of each kind and length")
    add("--seed", type=int, default=0)
    add("--oolong", type=Path, help="the tasks of a public OOLONG file (JSONL) instead")
    add("--json", type=Path, help="keep every answer in this file")
    add("--model", help="a real model; without it the model is SIMULATED")
    add("--sub-model", help="default: the model")
    add("--base-url", help="default: $OPENAI_BASE_URL or OpenAI's")
    add("--max-cost", type=float, help="dollars for one answer")
    add("--max-seconds", type=float, help="seconds for one answer")
    add("--prices", nargs=3, type=float, help="dollars a million tokens: input, cached, output")
    options = parser.parse_args()
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
