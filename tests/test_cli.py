"""What a person sees: the command line, the live view, events, the trace, the demo, the README.

The program is started as a user starts it, against a loopback server. Not here: signals
(test_limits.py), encodings, folders and odd standard inputs (test_files.py).
"""

import io
import itertools
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Script, linux_only, repl, until
from server import Fault, Server

import rlm
from rlm import RLM

SECRET = "sk-secret-0123456789"


@dataclass
class Run:
    """How a run of the command line ended."""

    status: int
    out: str
    err: str
    requests: list[dict[str, Any]] = field(default_factory=list)


def start(
    arguments: list[str], server: Server | None, env: dict[str, str], **popen: Any
) -> subprocess.Popen:
    """The command line as a process, in front of the server."""
    settings = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": SECRET} if server else {}
    env = (
        {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "RLM_MODEL")} | settings | env
    )
    return subprocess.Popen([sys.executable, str(ROOT / "rlm.py"), *arguments], env=env, **popen)


def cli(
    script: Any, *arguments: str, stdin: bytes | None = None, cwd: Path | None = None, **env: str
) -> Run:
    """Run it to its end. `stdin` is piped in; None is a standard input without anything in it."""
    with Server(script.reply if isinstance(script, Script) else script) as server:
        process = start(
            list(arguments),
            server,
            env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(stdin, timeout=60)
    assert SECRET.encode() not in out + err
    return Run(process.returncode, out.decode(), err.decode(), server.requests)


SHOW = "FINAL([type(context).__name__, context])"


# Question and context


def test_the_answer_and_nothing_else_goes_to_stdout(tmp_path):
    (tmp_path / "data.txt").write_text("some data")
    script = Script(repl("print('noise')\ncontext"), repl("FINAL(context.upper())"))
    run = cli(script, "Shout", str(tmp_path / "data.txt"))
    assert (run.status, run.out) == (0, "SOME DATA\n")
    assert "Shout" in run.requests[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "context"),
    [
        (["a.txt"], None, "first\n"),
        (["a.txt", "d/a.txt"], None, {"a.txt": "first\n", "d/a.txt": "zwei ä"}),
        (["-"], "piped ☃".encode(), "piped ☃"),
        (["-", "a.txt"], b"piped", {"-": "piped", "a.txt": "first\n"}),
        ([], b"piped", "piped"),
        ([], None, "The question"),
        (["a.txt"], b"not read", "first\n"),
    ],
)
def test_files_and_pipes_become_the_context(arguments, stdin, context, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "d/a.txt").write_bytes("zwei ä".encode())
    run = cli(Script(repl(SHOW)), "The question", *arguments, stdin=stdin, cwd=tmp_path)
    assert run.status == 0, run.err
    assert json.loads(run.out) == [type(context).__name__, context]


@pytest.mark.parametrize(
    ("code", "out"),
    [
        ("FINAL('Zürich ☃')", "Zürich ☃\n"),
        ("FINAL('two\\nlines')", "two\nlines\n"),
        ("FINAL(42)", "42\n"),
        ("FINAL('')", "\n"),
        ("FINAL({'ä': [1, None, True]})", '{"ä": [1, null, true]}\n'),
        ("FINAL('x' * 3_000_000)", "x" * 3_000_000 + "\n"),
    ],
    ids=["text", "lines", "number", "nothing", "structure", "long"],
)
def test_the_answer_as_it_is_printed(code, out):
    run = cli(Script(repl(code)), "Q")
    assert (run.status, run.out) == (0, out)


def test_an_answer_that_cannot_be_encoded_is_printed_all_the_same():
    run = cli(Script(repl("FINAL('a\\ud83d b')")), "Q")
    assert run.status == 0, run.err
    assert run.out.startswith("a")
    assert run.out.endswith(" b\n")


# Flags and statuses

FLAGS = {  # flag: a value for it; None: made by the test
    "--model": "other",
    "--option": "temperature=0.5",
    "--max-depth": "2",
    "--sub-model": "small",
    "--base-url": None,
    "--api-key": "k",
    "--max-turns": "5",
    "--leaf-chars": "5000",
    "--max-calls": "5",
    "--max-tokens": "50000",
    "--max-cost": "0.5",
    "--max-seconds": "50",
    "--concurrency": "2",
    "--output-chars": "500",
    "--cell-seconds": "5",
    "--memory-mb": "500",
    "--timeout": "50",
    "--tries": "2",
    "--price": "small=1,0.1,10",
    "--header": "X-Team=blue",
    "--prompts": str(ROOT / "prompts"),
    "--trace": None,
}


def test_every_flag_at_once(tmp_path):
    script = Script(repl("FINAL(llm_query('q'))"))
    with Server(script.reply) as server:
        values = {"--base-url": server.url, "--trace": str(tmp_path / "t.json")}
        arguments = [x for flag, value in FLAGS.items() for x in (flag, values.get(flag, value))]
        arguments += ["--price", "other=1,0.1,10"]  # max_cost needs to know each of them
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = start(
            ["Q", *arguments], None, {"OPENAI_API_KEY": ""}, stdin=subprocess.DEVNULL, **pipes
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"leaf\n"), err
    assert [r["model"] for r in server.requests] == ["other", "small"]
    assert all(r["temperature"] == 0.5 for r in server.requests)
    assert all(headers["X-Team"] == "blue" for headers in server.headers)
    assert "5,000" in json.dumps(server.requests[0]) or "5000" in json.dumps(server.requests[0])
    assert (tmp_path / "t.json").exists()


def test_help_explains_every_flag():
    run = cli(Script(""), "--help", COLUMNS="100")
    assert (run.status, run.err) == (0, "")
    described = re.split(r"\n(?=  -)", run.out)
    for flag in [*FLAGS, "--quiet", "--verbose", "--json"]:
        text = next(part for part in described if re.match(rf"\s*{flag}\s", part))
        assert len(re.sub(r"--?\S+|\b[A-Z_=,]+\b", "", text).split()) >= 2, text
    assert "3" in next(part for part in described if part.strip().startswith("--max-depth"))
    assert all(len(line) <= 100 for line in run.out.splitlines())


def test_options_are_json_where_they_can_be_and_headers_are_text(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    given = {"seed": "7", "reasoning_effort": "low", "extra": '{"a": [1]}', "text": "a=b"}
    flags = [x for name, value in given.items() for x in ("--option", f"{name}={value}")]
    flags += ["--header", "X-Number=7", "--header", "X-Text= a=b ", "--max-depth", "0"]
    with Server(lambda body: "yes") as server:
        assert rlm.main(["Q", "--quiet", "--base-url", server.url, *flags]) == 0
    sent = {"seed": 7, "reasoning_effort": "low", "extra": {"a": [1]}, "text": "a=b"}
    assert sent.items() <= server.requests[0].items()
    assert (server.headers[0]["X-Number"], server.headers[0]["X-Text"]) == ("7", "a=b")


@pytest.mark.parametrize(
    ("replies", "flags", "reason"),
    [
        ([repl("FINAL({'n': 3})")], [], "final"),
        (["It is 3."], [], "text"),
        ([repl("1"), "It is 3."], ["--max-turns", "1"], "max_turns"),
        ([repl("llm_query('q')"), "It is 3."], ["--max-calls", "1"], "limit"),
    ],
)
def test_how_it_ended_is_told(replies, flags, reason):
    """An answer that was asked for outright is an answer; the last line says how it came about."""
    run = cli(Script(*replies), "Q", *flags, "--json")
    shown = json.loads(run.out)
    assert run.status == 0
    assert (shown["answer"], shown["finish_reason"]) in [({"n": 3}, reason), ("It is 3.", reason)]
    assert shown["usage"]["calls"] == len(run.requests)
    assert set(shown) == {"answer", "finish_reason", "usage"}
    assert run.err.splitlines()[-1].endswith(f"ended by {reason}") == (reason != "final")


ERRORS = {  # what is wrong: (arguments, reply of the model, status, what the line says)
    "missing file": (["Q", "no-such-file"], "", 1, "no-such-file"),
    "wrong key": (["Q"], Fault(401, {"error": {"message": "bad key"}}), 1, "401"),
    "no such model": (["Q"], Fault(404, {"error": {"message": "no model"}}), 1, "no model"),
    "server down": (["Q", "--tries", "1"], Fault(503), 1, "503"),
    "nobody": (["Q", "--base-url", "http://127.0.0.1:1/v1", "--tries", "1"], "", 1, "127.0.0.1"),
    "trace": (["Q", "--trace", "no/such/folder/t.json"], "", 1, "no/such/folder/t.json"),
    "prompts": (["Q", "--prompts", "no/such/folder"], "", 1, "no/such/folder"),
    "no question": ([], "", 2, "usage"),
    "unknown flag": (["Q", "--nonsense"], "", 2, "--nonsense"),
    "not a number": (["Q", "--max-depth", "many"], "", 2, "--max-depth"),
    "a bad option": (["Q", "--option", "nonsense"], "", 2, "--option"),
    "a bad header": (["Q", "--header", "nonsense"], "", 2, "--header"),
    "a bad price": (["Q", "--price", "m=1"], "", 2, "--price"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_is_one_clear_line(what, tmp_path):
    arguments, reply, status, words = ERRORS[what]
    run = cli(lambda body: reply, *arguments, cwd=tmp_path)
    assert (run.status, run.out) == (status, "")
    assert "Traceback" not in run.err
    assert words in run.err
    assert len(run.err.strip().splitlines()[-1]) < 500


@pytest.mark.parametrize(
    "order", ["Q a b --quiet", "--quiet Q a b", "Q --quiet a b", "Q a --quiet b"]
)
def test_flags_stand_anywhere(order, tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    run = cli(Script(repl("FINAL(context)")), *order.split(), cwd=tmp_path)
    assert run.status == 0, run.err
    assert json.loads(run.out) == {"a": "1", "b": "2"}


def test_main_returns_the_status(capsys, monkeypatch):
    with Server(Script(repl("FINAL(1)")).reply) as server:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        flags = ["--base-url", server.url, "--api-key", "k", "--quiet"]
        assert rlm.main(["Q", *flags]) == 0
        assert capsys.readouterr() == ("1\n", "")
        assert rlm.main(["Q", "no-such-file", *flags]) == 1
        assert "no-such-file" in capsys.readouterr().err
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert rlm.main(["Q", "--quiet"]) == 1
        assert re.search("OPENAI_API_KEY.*--api-key", capsys.readouterr().err)


def test_a_reader_that_leaves_early_gets_no_traceback():
    with Server(Script(repl("FINAL('x' * 3_000_000)")).reply) as server:
        pipes = dict.fromkeys(["stdout", "stderr"], subprocess.PIPE)
        process = start(["Q"], server, {}, stdin=subprocess.DEVNULL, **pipes)
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(20)
        process.stderr.close()
    assert "Traceback" not in err
    assert "Exception ignored" not in err


# The live view

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown_run() -> Script:
    """Output, an error, a batch of children, each of which loses an item, and a plain call."""

    def leaf(text):
        return (
            Fault(400, {"error": {"message": "refused by the script"}}) if "bad" in text else "leaf"
        )

    code = "r = llm_query_batched(['CHILD'] * 3, ['-'] * 3, recurse=True)\nprint(r)\nlast = 'line'"
    return Script(
        repl("look = context[:4]\nprint('first output')\nprint('second output')"),
        repl("{}['missing']"),
        repl(code),
        repl("FINAL(llm_query('q'))"),
        CHILD=[repl("p = llm_query_batched(['good', 'bad'])"), repl("FINAL(p[0])")],
        leaf=leaf,
    )


def test_not_a_terminal_is_plain_lines():
    models = ["--model", "mock-model", "--sub-model", "tiny-model"]
    run = cli(shown_run(), "The question", *models, stdin=b"data " * 500)
    assert run.out == "leaf\n"
    assert "\x1b" not in run.err
    assert "\r" not in run.err
    lines = run.err.splitlines()
    for text in (
        "mock-model", "tiny-model", "2,500", "look = context[:4]", "first output",
        "KeyError: 'missing'",
        "r = llm_query_batched(", "refused by the script", "3/3", "2/2",
    ):  # fmt: skip
        assert text in run.err, text
    assert "second output" not in run.err  # the first line of each
    assert "last = 'line'" not in run.err
    assert re.search(r"\b4 turns\b.*\b14 calls\b.*tokens.*\bs\b", lines[-1]), lines[-1]
    assert re.search(r"(depth|level)\D*2|2\D*(level|deep)", lines[-1]), lines[-1]
    assert "$" not in lines[-1]  # not known, not shown
    assert all(len(line) <= 200 for line in lines)


@pytest.mark.parametrize(
    ("price", "cost"), [("1000", r"\$\d+\.\d\d"), ("0.001", r"\$0\.0{4,}[1-9]\d")]
)
def test_cost_is_shown_where_it_is_known(price, cost):
    run = cli(
        Script(repl("FINAL(1)")), "Q", "--model", "m", "--price", f"m={price},{price},{price}"
    )
    assert re.search(rf" {cost} ", run.err.splitlines()[-1])


def test_no_resource_is_left_open_at_exit():
    with Server(Script(repl("FINAL(llm_query('q'))")).reply) as server:
        flags = ["-W", "error", "-X", "dev", str(ROOT / "rlm.py"), "Q", "--quiet"]
        run = subprocess.run([sys.executable, *flags, "--base-url", server.url], text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "leaf\n", "")


def test_quiet_shows_nothing_but_an_error():
    run = cli(shown_run(), "Q", "--quiet")
    assert (run.out, run.err) == ("leaf\n", "")
    run = cli(lambda body: Fault(404, {"error": {"message": "no model"}}), "Q", "--quiet")
    assert (run.status, run.out, len(run.err.splitlines())) == (1, "", 1)
    assert "no model" in run.err


def test_verbose_shows_code_and_output_in_full_and_failed_calls():
    long = "\n".join(f"print('line {i} of the output')" for i in range(40))
    refused = Fault(400, {"error": {"message": "refused by the script"}})
    script = Script(repl(long), repl("llm_query('q')"), repl("FINAL(1)"), leaf=lambda _: refused)
    run = cli(script, "Q", "--verbose")
    assert "\x1b" not in run.err
    assert all(f"print('line {i} of the output')" in run.err for i in range(40))
    assert all(re.search(rf"(?<!print\(')line {i} of the output", run.err) for i in range(40))
    assert re.search(r"(?m)^.*· q → ✗ ModelError: 400 .*refused by the script", run.err)


def on_terminal(script: Script, *arguments: str, columns: int = 80, **env: str) -> tuple[str, str]:
    """A run whose stderr is a terminal of its own: its stdout, and what the terminal received."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with Server(script.reply) as server:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": theirs}
        process = start(["Q", *arguments], server, {"TERM": "xterm"} | env, **pipes)
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
        os.close(ours)
        out = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 0
    return out, seen.decode()


def screen(text: str, columns: int) -> list[str]:
    """What stands on the terminal in the end: a line may be begun anew, and have colours."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).split("\r\x1b[K") for line in text.split("\n")]
    for part in itertools.chain(*lines):
        assert "\x1b" not in part
        assert "\r" not in part
        assert len(part) <= columns
    return [parts[-1].rstrip() for parts in lines]


@linux_only
@pytest.mark.parametrize("columns", [80, 50])
def test_a_terminal_shows_a_tree(columns):
    out, seen = on_terminal(shown_run(), "--model", "mock-model", columns=columns)
    assert out == "leaf\n"
    assert "\x1b[" in seen
    tree, _, summary = (
        seen.replace("\r\n", "\n").rstrip().rpartition("\n")
    )  # the last line may be longer, and is whole
    lines = screen(tree, columns)
    text = "\n".join(lines)
    for word in ("mock-model", "look = context[:4]", "first output", "KeyError: 'missing'", "3/3"):
        assert word in text, text
    assert "second output" not in text
    indents = {len(line) - len(line.lstrip(" │├└─|`+-╰╭")) for line in lines if line}
    assert len(indents) >= 2  # a tree has branches
    assert "14 calls" in summary
    assert "deepest level 2" in summary
    errors = [line for line in seen.split("\n") if "KeyError: 'missing'" in line]
    assert any(re.search(r"\x1b\[[0-9;]*31m|\x1b\[[0-9;]*91m", line) for line in errors)  # red


@linux_only
def test_a_progress_bar_moves_while_a_batch_is_under_way():
    out, seen = on_terminal(
        Script(repl("FINAL(len(llm_query_batched(['q'] * 64)))")), "--concurrency", "2"
    )
    assert out == "64\n"
    counts = {int(n) for n in re.findall(r"(\d+)/64", ESCAPE.sub("", seen))}
    assert 64 in counts
    assert len(counts) > 3


@linux_only
def test_no_color_is_honoured():
    _, seen = on_terminal(shown_run(), NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", seen)
    assert "KeyError: 'missing'" in seen


@linux_only
def test_quiet_on_a_terminal_shows_nothing():
    assert on_terminal(Script(repl("FINAL(1)")), "--quiet") == ("1\n", "")


@linux_only
def test_a_terminal_is_safe_from_what_a_model_prints():
    """Escape codes in code and output would draw what they like."""
    evil = "print('\\x1b[2J\\x1b]0;title\\x07 \\x9b1A \\r over \\x08 \\x00')  # \x1b[31m\x07"
    for flags in ([], ["--verbose"]):
        _, seen = on_terminal(Script(repl(evil), repl("FINAL(1)")), *flags)
        assert not re.search(r"\x1b\[2J|\x1b\]|\x07|\x9b|\x00|\x08", seen)
    run = cli(Script(repl(evil), repl("FINAL(1)")), "Q")
    assert "\x1b" not in run.err


# Events

KINDS = {  # kind: (fields of begin, fields of end)
    "completion": (
        {"model", "prompt", "context"},
        {"answer", "finish_reason", "usage", "messages", "turns"},
    ),
    "turn": ({"turn"}, set()),
    "cell": ({"code"}, {"output"}),
    "call": ({"model", "messages"}, {"reply", "usage"}),
    "batch": ({"total"}, {"failed"}),
}
COMMON = {"event", "kind", "id", "parent", "depth", "lane", "time"}


def parallel_run(**options: Any) -> tuple[Any, list[dict[str, Any]], Script]:
    """Children side by side, each with a batch; some items fail, some are tried again."""
    lock, count = threading.Lock(), [0]

    def leaf(text):
        if "bad" in text:
            return Fault(400, {"error": {"message": "bad"}})
        with lock:
            count[0] += 1
            return Fault(503) if count[0] == 4 else "leaf"

    script = Script(
        repl("x = 1\nx"),
        repl("r = llm_query_batched(['CHILD'] * 5, ['-'] * 5, recurse=True)\nr"),
        repl("1 / 0"),
        repl("FINAL(llm_query('q'))"),
        CHILD=[
            "no code",
            repl("p = llm_query_batched(['q', 'bad', 'q', 'q'])") + repl("llm_query('q')"),
            repl("FINAL(llm_query('GRANDCHILD', '-', recurse=True))"),
        ],
        leaf=leaf,
    )
    script.tasks = {"GRANDCHILD": [repl("FINAL(llm_query('q'))")]} | script.tasks
    events: list[dict[str, Any]] = []
    with Server(script.reply) as server:
        script.server = server
        engine = RLM(
            "m", base_url=server.url, api_key=SECRET, on_event=events.append, tries=3, **options
        )
        return engine.completion("Q", "c"), events, script


def test_events_tell_the_whole_run():
    done, events, _ = parallel_run()
    json.dumps(events)  # plain data: a server can send them on
    opened, closed = {}, {}
    lanes: dict[int, list[int]] = defaultdict(list)
    for event in events:
        assert COMMON <= set(event), event
        kind, number = event["kind"], event["id"]
        match event["event"]:
            case "begin":
                assert number not in opened
                assert KINDS[kind][0] <= set(event), event
                parent = event["parent"]
                assert parent in opened if opened else parent is None
                assert parent not in closed
                lanes[event["lane"]].append(number)
                opened[number] = event
            case "end":
                assert lanes[event["lane"]].pop() == number  # begin and end nest, on each lane
                assert (KINDS[kind][1] if not event["error"] else set()) <= set(event), event
                assert event["seconds"] >= 0
                same = ("kind", "parent", "depth", "lane")
                assert [event[k] for k in same] == [opened[number][k] for k in same]
                closed[number] = event
            case "progress":
                assert kind == "batch"
                assert 0 <= event["done"] <= event["total"]
            case "retry":
                assert (kind, event["depth"]) == ("call", opened[number]["depth"])
                assert event["wait"] >= 0
                assert "503" in event["reason"]
            case other:
                raise AssertionError(other)
    assert set(opened) == set(closed)
    count = Counter(event["kind"] for event in opened.values())
    assert count["completion"] == 1 + 5 + 5
    assert count["batch"] == 6
    assert count["turn"] == 4 + 5 * 3 + 5
    calls = [event for event in closed.values() if event["kind"] == "call"]
    assert sum(not call["error"] for call in calls) == done.usage.calls
    assert sum(bool(call["error"]) for call in calls) == 5
    assert sum(event["event"] == "retry" for event in events) == 1
    assert max(event["depth"] for event in events) == done.depth == 3
    (root,) = (e for e in closed.values() if e["kind"] == "completion" and e["parent"] is None)
    assert (root["answer"], root["finish_reason"], root["messages"]) == (
        "leaf",
        "final",
        done.messages,
    )
    assert len({event["lane"] for event in events}) > 1
    assert any(
        e["kind"] == "cell" and "ZeroDivisionError" in e["error"]
        for e in closed.values()
        if e["error"]
    )
    for batch in (e for e in events if (e["event"], e["kind"]) == ("end", "batch")):
        total = opened[batch["id"]]["total"]
        assert batch["failed"] == (1 if total == 4 else 0) or len(batch["failed"]) == (total == 4)


def test_events_are_those_that_are_documented():
    _, events, _ = parallel_run()
    text = (ROOT / "rlm.py").read_text() + (ROOT / "README.md").read_text()
    for name in {key for event in events for key in event} | set(KINDS) | {"progress", "retry"}:
        assert re.search(rf"\b{name}\b", text)
    assert "on_event" in (ROOT / "README.md").read_text()


# The trace


@dataclass
class Slice:
    """One slice of a trace, of microseconds."""

    name: str
    kind: str
    lane: tuple[Any, Any]
    begin: float
    end: float
    args: dict[str, Any]


def slices(trace: list[dict[str, Any]]) -> list[Slice]:
    """The slices of a trace, from complete events (X) and from pairs (B and E)."""
    found, stacks = [], defaultdict(list)
    for event in trace:
        lane = (event.get("pid"), event.get("tid"))
        if event["ph"] in "XB":
            args = event.get("args", {})
            found.append(
                Slice(
                    event["name"],
                    event.get("cat", ""),
                    lane,
                    event["ts"],
                    event["ts"] + event.get("dur", 0),
                    args,
                )
            )
        if event["ph"] == "B":
            stacks[lane].append(found[-1])
        if event["ph"] == "E":
            slice = stacks[lane].pop()
            assert slice.name == event["name"]  # or speedscope takes them for two
            slice.end, slice.args = event["ts"], slice.args | event.get("args", {})
    return found


def test_the_trace_of_a_parallel_nested_run(tmp_path):
    done, _, script = parallel_run(trace=tmp_path / "trace.json")
    text = (tmp_path / "trace.json").read_text()
    trace = json.loads(text)
    assert isinstance(trace, list)
    assert all(isinstance(event["pid"], int) and isinstance(event["tid"], int) for event in trace)
    assert all(isinstance(event.get("ts", 0), int | float) for event in trace)
    found = slices(trace)
    assert {s.kind for s in found} == set(KINDS)
    for lane in {
        s.lane for s in found
    }:  # on one lane a slice is inside the one before, or after it
        stack: list[Slice] = []
        for s in sorted((s for s in found if s.lane == lane), key=lambda s: (s.begin, -s.end)):
            assert s.end >= s.begin
            while stack and stack[-1].end <= s.begin:
                stack.pop()
            assert not stack or s.end <= stack[-1].end, (s, stack[-1])
            stack.append(s)
    calls = [s for s in found if s.kind == "call"]
    assert len([s for s in calls if s.args.get("reply") is not None]) == done.usage.calls
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        spent = sum((s.args.get("usage") or {}).get(name, 0) for s in calls)
        assert spent == getattr(done.usage, name)
    assert len({s.lane for s in found}) > 2
    (root,) = (
        s for s in found if s.kind == "completion" and s.args.get("messages") == done.messages
    )
    assert root.args["answer"] == "leaf"
    assert SECRET not in text
    children = [s.args["messages"] for s in found if s.kind == "completion" and s is not root]
    for request in script.requests:  # every conversation is there, to be read again or trained on
        kept = [*children, done.messages, *(s.args.get("messages") or [] for s in calls)]
        assert any(messages[: len(request)] == request for messages in kept)
    cells = [s for s in found if s.kind == "cell"]
    assert any(s.args["code"].strip() == "x = 1\nx" and "1" in s.args["output"] for s in cells)
    assert any("ZeroDivisionError" in json.dumps(s.args) for s in cells)


def test_the_trace_is_whole_at_every_moment(tmp_path):
    path = tmp_path / "trace.json"
    sizes = []

    def look(text):
        sizes.append(len(json.loads(path.read_text())))
        return "leaf"

    code = repl("r = llm_query_batched(['CHILD'] * 6, ['-'] * 6, recurse=True)")
    script = Script(
        look and code, repl("FINAL(r)"), CHILD=[repl("FINAL(llm_query('q'))")], leaf=look
    )
    done = RLM(model=script, trace=str(path)).completion("Q", "c" * 10_000)
    assert done.answer == ["leaf"] * 6
    assert len(sizes) == 6
    assert len(json.loads(path.read_text())) > max(sizes) > 0


@linux_only
@pytest.mark.parametrize("moment", [1, 5, 12])
def test_a_run_killed_in_the_middle_leaves_a_trace_that_loads(moment, tmp_path):
    path = tmp_path / "trace.json"
    script = Script(
        repl("r = llm_query_batched(['CHILD'] * 50, ['-'] * 50, recurse=True)"),
        CHILD=[repl("print('x' * 5_000)\nr = llm_query('q')\nFINAL(r)")],
    )
    with Server(script.reply) as server:
        null = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.DEVNULL)
        process = start(["Q", "--trace", str(path)], server, {}, **null)
        assert until(lambda: len(server.requests) >= moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        trace = json.loads(path.read_text())
    assert any(event["ph"] in "XB" for event in trace)


def test_a_trace_of_several_completions(tmp_path):
    """One RLM that is used again: each trace is a whole one."""
    engine = RLM(model=Script(repl("FINAL(1)")), trace=tmp_path / "trace.json")
    for _ in range(2):
        engine.completion("Q", "c")
        found = slices(json.loads((tmp_path / "trace.json").read_text()))
        assert any(s.kind == "completion" for s in found)


def test_text_of_every_kind_in_a_trace(tmp_path):
    path = tmp_path / "trace.json"
    odd = "a\ud83d \u2028 \x00 ☃"
    RLM(model=Script(repl("print(context)\nFINAL(context)")), trace=path).completion(odd, odd)
    assert any(
        odd in json.dumps(s.args, ensure_ascii=False) or s.args.get("answer") == odd
        for s in slices(json.loads(path.read_text()))
    )


# The demo and the README


def test_the_demo_prints_the_winner(clean_env):
    winners = set()
    for seed in "123":
        run = subprocess.run(
            [sys.executable, str(ROOT / "tests/demo.py"), "--seed", seed],
            env=clean_env,
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        assert (
            "script" in (run.stdout + run.stderr).lower()
        )  # says that the model is a scripted one
        winners.add(run.stdout.strip().splitlines()[-1])
    assert len(winners) == 3  # another seed, another winner


def test_the_readme_mentions_everything():
    readme = (ROOT / "README.md").read_text()
    begin = readme[: len(readme) // 3]
    for text in (
        "pip install -r requirements.txt",
        "python tests/demo.py",
        "pip install -r tests/requirements.txt",
        "pytest",
    ):
        assert text in begin, text
    for flag in FLAGS:
        name = {"--option": "options", "--price": "prices"}.get(
            flag, flag.strip("-").replace("-", "_")
        )
        assert name in readme or flag in readme, flag
    for text in (
        "OPENAI_API_KEY", "OPENAI_BASE_URL", "RLM_MODEL", "OpenAI", "OpenRouter", "Ollama", "vLLM",
        "RAG", "ViperGPT", "2603.02615", "Perfetto", "seccomp", "RestrictedPython", "llm_query",
        "llm_query_batched", "FINAL", "on_event",
        "macOS", "Windows", "--quiet", "--verbose", "SIMULATED", "LiteLLM",
    ):  # fmt: skip
        assert text in readme, text
    assert not re.search(r"/(root|work|tmp)/", readme)


def test_the_commands_of_the_readme_have_flags_that_exist():
    readme, helped = (ROOT / "README.md").read_text(), cli(Script(""), "--help").out
    commands = re.findall(r"^.*\bpython rlm\.py .*$", readme, re.MULTILINE)
    assert commands
    for command in commands:
        for word in shlex.split(command.replace("`", ""), comments=True):
            assert not word.startswith("--") or word.split("=")[0] in helped, command
