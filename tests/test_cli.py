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
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import CASES, ROOT, SECRET, Script, cases, cli, linux_only, repl, start
from server import Fault, Server

import rlm
from rlm import RLM


# ---- Question, context, answer
def test_the_answer_and_nothing_else_goes_to_stdout(tmp_path):
    (tmp_path / "data.txt").write_text("some data")
    script = Script(repl("print('noise')\ncontext"), repl("FINAL(context.upper())"))
    run = cli(script, "Shout", tmp_path / "data.txt")
    assert (run.returncode, run.stdout) == (0, "SOME DATA\n")
    assert "Shout" in run.requests[0]["messages"][1]["content"]


@cases
def test_files_and_pipes_become_the_context(arguments, stdin, context, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "d/a.txt").write_bytes("zwei ä".encode())
    show = Script(repl("FINAL([type(context).__name__, context])"))
    run = cli(show, "The question", *arguments, stdin=stdin and stdin.encode(), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [type(context).__name__, context]


@cases
def test_the_answer_as_it_is_printed(code, out):
    run = cli(Script(repl(code)), "Q")
    assert (run.returncode, run.stdout) == (0, out)


def test_a_reader_that_leaves_early_gets_no_traceback():
    script = Script(repl("FINAL('x' * 3_000_000)"))
    assert cli(script, "Q").stdout == "x" * 3_000_000 + "\n"
    with Server(script.reply) as server:
        process = start(server, "Q")
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(20)
        process.stderr.close()
    assert not re.search("Traceback|Exception ignored", err)


# ---- Flags and statuses
FLAGS = CASES["flags"] | {"--prompts": str(ROOT / "prompts")}


def test_every_flag_at_once(tmp_path):
    with Server(Script(repl("FINAL(llm_query('q'))")).reply) as server:
        values = {"--base-url": server.url, "--trace": str(tmp_path / "t.json")}
        arguments = [x for flag, value in FLAGS.items() for x in (flag, values.get(flag, value))]
        arguments += ["--price", "other=1,0.1,10"]  # max_cost needs to know each of them
        process = start(None, "Q", *arguments)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"leaf\n"), err
    assert [r["model"] for r in server.requests] == ["other", "small"]
    assert all(r["temperature"] == 0.5 for r in server.requests)
    assert all(headers["X-Team"] == "blue" for headers in server.headers)
    assert "5,000" in json.dumps(server.requests[0])
    assert (tmp_path / "t.json").exists()


def test_help_explains_every_flag():
    run = cli(Script(""), "--help", env={"COLUMNS": "100"})
    assert (run.returncode, run.stderr) == (0, "")
    described = re.split(r"\n(?=  -)", run.stdout)
    for flag in [*FLAGS, "--quiet", "--verbose", "--json"]:
        text = next(part for part in described if re.match(rf"\s*{flag}\s", part))
        assert len(re.sub(r"--?\S+|\b[A-Z_=,]+\b", "", text).split()) >= 2, text
    assert "3" in next(part for part in described if part.strip().startswith("--max-depth"))
    assert all(len(line) <= 100 for line in run.stdout.splitlines())


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


@cases
def test_how_it_ended_is_told(replies, flags, reason):
    """An answer that was asked for outright is an answer; the last line says how it came about."""
    run = cli(Script(*replies), "Q", *flags, "--json")
    shown = json.loads(run.stdout)
    assert run.returncode == 0
    assert (shown["answer"], shown["finish_reason"]) in [({"n": 3}, reason), ("It is 3.", reason)]
    assert shown["usage"]["calls"] == len(run.requests)
    assert set(shown) == {"answer", "finish_reason", "usage"}
    assert run.stderr.splitlines()[-1].endswith(f"ended by {reason}") == (reason != "final")


@cases
def test_an_error_is_one_clear_line(what, arguments, reply, status, words, tmp_path):
    run = cli(lambda body: reply, "Q", *arguments, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (status, "")
    assert "Traceback" not in run.stderr
    assert words in run.stderr
    assert len(run.stderr.strip().splitlines()[-1]) < 500
    assert "--quiet" not in arguments or len(run.stderr.splitlines()) == 1


def test_main_returns_the_status_and_takes_flags_anywhere(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in "ab":
        Path(name).write_text(name)
    with Server(Script(repl("FINAL(context)")).reply) as server:
        flags = ["--base-url", server.url, "--quiet"]
        for order in (["Q", "a", "b", *flags], [*flags, "Q", "a", "b"], ["Q", "a", *flags, "b"]):
            assert rlm.main(order) == 0
            assert capsys.readouterr() == ('{"a": "a", "b": "b"}\n', "")
        assert rlm.main(["Q", "no-such-file", *flags]) == 1
        assert "no-such-file" in capsys.readouterr().err
    assert rlm.main(["Q", "--quiet", "--base-url", rlm.OPENAI]) == 1
    assert re.search("OPENAI_API_KEY.*--api-key", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        rlm.main([])
    assert "usage" in capsys.readouterr().err


def test_no_resource_is_left_open_at_exit():
    with Server(Script(repl("FINAL(llm_query('q'))")).reply) as server:
        flags = ["-W", "error", "-X", "dev", ROOT / "rlm.py", "Q", "--quiet"]
        program = [sys.executable, *flags, "--base-url", server.url]
        process = subprocess.run(program, input=b"c", capture_output=True, timeout=60, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, b"leaf\n", b"")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "2> >(true)"])
def test_streams_that_are_closed(closed, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with Server(Script(repl("FINAL(1)")).reply) as server:
        command = f"env -u PYTHONUNBUFFERED {sys.executable} {ROOT}/rlm.py Q . --base-url {server.url} {closed}"
        run = subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert run.stdout == (b"" if closed == ">&-" else b"1\n")


# ---- The live view
def shown_run() -> Script:
    """Output, an error, a batch of children, each of which loses an item, and a plain call."""
    refused = Fault(400, {"error": {"message": "refused by the script"}})
    run = CASES["a run to look at"]
    leaf = lambda text: refused if "bad" in text else "leaf"
    return Script(*run["replies"], leaf=leaf, CHILD=run["CHILD"])


def test_not_a_terminal_is_plain_lines():
    models = ["--model", "mock-model", "--sub-model", "tiny-model"]
    run = cli(shown_run(), "The question", *models, stdin=b"data " * 500)
    assert run.stdout == "leaf\n"
    assert not re.search(r"\x1b|\r", run.stderr)
    *lines, last = run.stderr.splitlines()
    assert not [text for text in CASES["shown"] if text not in run.stderr]
    assert not re.search("second output|last = 'line'", run.stderr)  # the first line of each
    assert re.search(r"\b4 turns\b.*\b14 calls\b.*tokens.*\bs\b.*deepest level 2$", last)
    assert "$" not in last  # not known, not shown
    assert all(len(line) <= 200 for line in lines)


@pytest.mark.parametrize(("price", "cost"), [("1000", r"\d+\.\d\d"), ("0.001", r"0\.0{4,}[1-9]\d")])
def test_cost_is_shown_where_it_is_known(price, cost):
    flags = ["--model", "m", "--price", f"m={price},{price},{price}"]
    run = cli(Script(repl("FINAL(1)")), "Q", *flags)
    assert re.search(rf" \${cost} ", run.stderr.splitlines()[-1])


def test_quiet_shows_nothing():
    run = cli(shown_run(), "Q", "--quiet")
    assert (run.stdout, run.stderr) == ("leaf\n", "")


def test_verbose_shows_code_and_output_in_full_and_failed_calls():
    long = "\n".join(f"print('line {i} of the output')" for i in range(40))
    refused = Fault(400, {"error": {"message": "refused by the script"}})
    script = Script(repl(long), repl("llm_query('q')"), repl("FINAL(1)"), leaf=lambda _: refused)
    shown = cli(script, "Q", "--verbose").stderr
    assert "\x1b" not in shown
    assert all(f"print('line {i} of the output')" in shown for i in range(40))
    assert all(re.search(rf"(?<!print\(')line {i} of the output", shown) for i in range(40))
    assert re.search(r"(?m)^.*· q → ✗ ModelError: 400 .*refused by the script", shown)


def on_terminal(script: Script, *arguments: str, columns: int = 80, **env: str) -> tuple[str, str]:
    """A run whose stderr is a terminal of its own: its stdout, and what the terminal received."""
    import fcntl
    import pty
    import struct
    import termios

    try:
        ours, theirs = pty.openpty()
    except OSError as error:  # as in some containers
        pytest.skip(str(error))
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = b""
    with Server(script.reply) as server:
        process = start(server, "Q", *arguments, env={"TERM": "xterm"} | env, stderr=theirs)
        os.close(theirs)
        while select.select([ours], [], [], 30)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        os.close(ours)
        out = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 0
    return out, seen.decode().replace("\r\n", "\n")


@linux_only
@pytest.mark.parametrize("columns", [80, 50])
def test_a_terminal_shows_a_tree(columns):
    out, seen = on_terminal(shown_run(), "--model", "mock-model", columns=columns)
    assert out == "leaf\n"
    tree, _, summary = seen.rstrip().rpartition("\n")  # the last line may be longer, and is whole
    lines = [re.sub(r"\x1b\[\d*m", "", line).split("\r\x1b[K") for line in tree.split("\n")]
    for part in itertools.chain(*lines):  # a line that is begun anew ends as its last part
        assert not re.search(r"\x1b|\r", part)
        assert len(part) <= columns
    text = "\n".join(parts[-1] for parts in lines)
    for word in ("mock-model", "look = context[:4]", "first output", "KeyError: 'missing'", "3/3"):
        assert word in text, text
    assert "second output" not in text
    assert re.search(r"(?m)^1 ", text)  # a tree has branches
    assert re.search(r"(?m)^│  1\.\d ", text)
    assert re.search("14 calls.*deepest level 2", summary)
    assert re.search(r"\x1b\[31m.*KeyError: 'missing'.*\x1b\[0m\n", seen)  # red
    _, seen = on_terminal(shown_run(), NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", seen)
    assert "KeyError: 'missing'" in seen


@linux_only
def test_a_progress_bar_moves_while_a_batch_is_under_way():
    script = Script(repl("FINAL(len(llm_query_batched(['q'] * 64)))"))
    out, seen = on_terminal(script, "--concurrency", "2")
    assert out == "64\n"
    counts = {int(n) for n in re.findall(r"[█░]{10} (\d+)/64", seen)}
    assert 64 in counts
    assert len(counts) > 3
    assert on_terminal(Script(repl("FINAL(1)")), "--quiet") == ("1\n", "")


@linux_only
def test_a_terminal_is_safe_from_what_a_model_prints():
    """Escape codes in code and output would draw what they like."""
    evil = "print('\\x1b[2J\\x1b]0;title\\x07 \\x9b1A \\r over \\x08 \\x00')  # \x1b[31m\x07"
    for flags in ([], ["--verbose"]):
        _, seen = on_terminal(Script(repl(evil), repl("FINAL(1)")), *flags)
        assert not re.search(r"\x1b\[2J|\x1b\]|\x07|\x9b|\x00|\x08", seen)
    assert "\x1b" not in cli(Script(repl(evil), repl("FINAL(1)")), "Q").stderr


# ---- Events
KINDS = CASES["events"]  # kind: fields of begin, fields of end
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

    run = CASES["a run side by side"]
    tasks = {name: run[name] for name in ("GRANDCHILD", "CHILD")}  # one is in the other
    script = Script(*run["replies"], leaf=leaf, **tasks)
    events: list[dict[str, Any]] = []
    options |= {"on_event": events.append, "tries": 3, "api_key": SECRET}
    with Server(script.reply) as server:
        return RLM("m", base_url=server.url, **options).completion("Q", "c"), events, script


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
                assert set(KINDS[kind][0]) <= set(event), event
                parent = event["parent"]
                assert parent in opened if opened else parent is None
                assert parent not in closed
                lanes[event["lane"]].append(number)
                opened[number] = event
            case "end":
                assert lanes[event["lane"]].pop() == number  # begin and end nest, on each lane
                assert event["error"] or set(KINDS[kind][1]) <= set(event), event
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
    assert (count["completion"], count["batch"], count["turn"]) == (11, 6, 4 + 5 * 3 + 5)
    calls = [event for event in closed.values() if event["kind"] == "call"]
    assert sum(not call["error"] for call in calls) == done.usage.calls
    assert sum(bool(call["error"]) for call in calls) == 5
    assert sum(event["event"] == "retry" for event in events) == 1
    assert max(event["depth"] for event in events) == done.depth == 3
    (root,) = (e for e in closed.values() if e["kind"] == "completion" and e["parent"] is None)
    assert (root["answer"], root["finish_reason"]) == ("leaf", "final")
    assert root["messages"] == done.messages
    assert len({event["lane"] for event in events}) > 1
    errors = [e["error"] for e in closed.values() if e["kind"] == "cell" and e["error"]]
    assert any("ZeroDivisionError" in error for error in errors)
    batches = [e for e in closed.values() if e["kind"] == "batch"]
    assert all(batch["failed"] == (1 if batch["total"] == 4 else 0) for batch in batches)
    text = (ROOT / "rlm.py").read_text()  # where they are documented
    for name in {key for event in events for key in event} | set(KINDS) | {"progress", "retry"}:
        assert re.search(rf"\b{name}\b", text)


# ---- The trace
def slices(path: Path) -> list[dict[str, Any]]:
    """The ends of the slices of a trace, each with its begin."""
    found, stacks = [], defaultdict(list)
    for event in json.loads(path.read_text()):
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        stack = stacks[event["tid"]]
        if event["ph"] == "B":
            stack.append(event)
        elif event["ph"] == "E":
            begin = stack.pop()  # on one lane a slice is inside the one before, or after it
            assert begin["name"] == event["name"]  # or speedscope takes them for two
            assert begin["ts"] <= event["ts"]
            found.append(event)
    assert not any(stacks.values())
    return found


def test_the_trace_of_a_parallel_nested_run(tmp_path):
    done, _, script = parallel_run(trace=tmp_path / "trace.json")
    found = slices(tmp_path / "trace.json")
    assert {s["cat"] for s in found} == set(KINDS)
    calls = [s["args"] for s in found if s["cat"] == "call"]
    assert sum(call.get("reply") is not None for call in calls) == done.usage.calls
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        spent = sum((call.get("usage") or {}).get(name, 0) for call in calls)
        assert spent == getattr(done.usage, name)
    assert len({s["tid"] for s in found}) > 2
    assert SECRET not in (tmp_path / "trace.json").read_text()
    completions = [s["args"] for s in found if s["cat"] == "completion"]
    (root,) = (c for c in completions if c["messages"] == done.messages)
    assert root["answer"] == "leaf"
    kept = [one.get("messages") or [] for one in (*completions, *calls)]
    for request in script.requests:  # every conversation is there, to be read again or trained on
        assert any(messages[: len(request)] == request for messages in kept)
    cells = [s["args"] for s in found if s["cat"] == "cell"]
    assert any(c["code"].strip() == "x = 1\nx" and "1" in c["output"] for c in cells)
    assert any("ZeroDivisionError" in json.dumps(c) for c in cells)


def test_the_trace_is_whole_at_every_moment_and_each_time(tmp_path):
    path = tmp_path / "trace.json"
    odd = "a\ud83d \u2028 \x00 ☃"
    sizes = []

    def look(text):
        with path.open("rb", buffering=0) as file:  # in one go: others may write meanwhile
            events = json.loads(file.read(1 << 24))
        assert any(event["ph"] == "B" for event in events)
        sizes.append(len(events))
        return "leaf"

    code = repl("r = llm_query_batched(['CHILD'] * 6, ['-'] * 6, recurse=True)")
    script = Script(code, repl("FINAL(context)"), CHILD=[repl("FINAL(llm_query('q'))")], leaf=look)
    engine = RLM(model=script, trace=str(path))
    for _ in range(2):  # an RLM that is used again: each trace is a whole one
        assert engine.completion("Q", odd).answer == odd
        assert len(slices(path)) > 20
        assert slices(path)[-1]["args"]["answer"] == odd
    assert len(sizes) == 12
    assert len(json.loads(path.read_text())) > max(sizes) > 0


# ---- The demo and the README
def test_the_demo_prints_the_winner(clean_env):
    winners = set()
    for seed in "12":
        program = [sys.executable, ROOT / "tests/demo.py", "--seed", seed]
        run = subprocess.run(program, env=clean_env, input=b"", capture_output=True, check=True)
        out, err = run.stdout.decode(), run.stderr.decode()
        assert "script" in (out + err).lower()  # says that the model is a scripted one
        winners.add(out.strip().splitlines()[-1])
    assert len(winners) == 2  # another seed, another winner


def test_the_readme_mentions_everything():
    readme = (ROOT / "README.md").read_text()
    begin = readme[: len(readme) // 3]
    assert not [text for text in CASES["readme"]["begin"] if text not in begin]
    for flag in FLAGS:
        name = flag.strip("-").replace("-", "_")
        assert name in readme or flag in readme, flag
    assert not [text for text in CASES["readme"]["anywhere"] if text not in readme]
    assert not re.search(r"/(root|work|tmp)/", readme)


def test_the_commands_of_the_readme_have_flags_that_exist():
    helped = cli(Script(""), "--help").stdout
    commands = re.findall(r"(?m)^.*\bpython rlm\.py .*$", (ROOT / "README.md").read_text())
    assert commands
    for command in commands:
        for word in shlex.split(command.replace("`", ""), comments=True):
            assert not word.startswith("--") or word.split("=")[0] in helped, command
