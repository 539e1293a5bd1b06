"""What goes in besides the question: files and folders, standard input, contexts, tools' values,
async functions; and where the sandbox cannot start.
"""

import asyncio
import dataclasses
import datetime
import decimal
import functools
import json
import math
import os
import socket
import subprocess
import sys
import uuid

import pytest
from conftest import CASES, ROOT, Script, cases, cell, cli, follow, repl

from rlm import RLM, Reply, RLMError

SHOW = Script(repl("FINAL([type(context).__name__, context])"))


def read(*arguments, **popen):
    """The command line, quiet, whose model answers with the context that it got."""
    return cli(SHOW, "--quiet", "The question", *arguments, **popen)


# ---- Encodings
def test_files_and_pipes_in_their_encodings(tmp_path):
    texts = {"late NUL": "x" * 9_000 + "\0"}  # else: name, bytes as Latin-1, text
    (tmp_path / "late NUL").write_text(texts["late NUL"])
    for name, data, text in CASES["test_files_and_pipes_in_their_encodings"]:
        texts[name] = text
        (tmp_path / name).write_bytes(data.encode("latin-1"))
    run = read(*texts, cwd=tmp_path)
    assert json.loads(run.stdout)[1] == texts
    odd, latin = run.stderr.splitlines()  # of what is lost, with --quiet, too
    assert "odd is not UTF-16" in odd
    assert "latin-1 is not UTF-8" in latin
    for name in ("utf-16", "latin-1"):
        run = read(stdin=(tmp_path / name).open())
        assert json.loads(run.stdout) == ["str", texts[name]]
        assert ("standard input is not UTF-8" in run.stderr) == (name == "latin-1")


@cases
def test_a_file_that_is_no_text_is_an_error_that_says_to_convert_it(name, data, tmp_path):
    (tmp_path / name).write_bytes(data.encode("latin-1"))
    run = read(tmp_path / name)
    assert (run.returncode, run.stdout, run.requests) == (1, "", [])
    assert name in run.stderr
    assert "convert" in run.stderr


# ---- Folders
def test_a_folder_is_the_text_files_below_it(tmp_path):
    for name, text in CASES["a folder"].items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(text)
    (tmp_path / "docs/scan.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "docs/outside.txt").symlink_to(ROOT / "README.md")
    (tmp_path / "docs/around").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "docs/pipe")
    run = read("docs", cwd=tmp_path)
    kind, context = json.loads(run.stdout)
    expected = {"docs/a/b/c.txt": "", "docs/a/z.md": "z", "docs/a/ü.txt": "ü", "docs/b.txt": "b"}
    assert (kind, context) == ("dict", expected)
    assert list(context) == sorted(context)
    assert "4 text files read, 3 skipped" in run.stderr
    both = read("docs/a/", "docs/b.txt", cwd=tmp_path)
    assert set(json.loads(both.stdout)[1]) == set(expected)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/only.txt").write_text("1")
    assert json.loads(read("one", cwd=tmp_path).stdout) == ["dict", {"one/only.txt": "1"}]
    assert json.loads(read(".", cwd=tmp_path / "one").stdout) == ["dict", {"only.txt": "1"}]


@pytest.mark.parametrize("data", [None, b"\0"])
def test_a_folder_without_text_is_an_error(data, tmp_path):
    if data:
        (tmp_path / "x").write_bytes(data)
    run = read(tmp_path)
    assert (run.returncode, run.stdout, run.requests) == (1, "", [])
    assert str(tmp_path) in run.stderr.splitlines()[-1]


# ---- Standard input
def test_standard_input_is_a_socket():
    """As from Node, ssh and inetd: /dev/stdin cannot be opened then."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"a log line\n")
        ours.shutdown(socket.SHUT_WR)
        assert json.loads(read(stdin=theirs).stdout) == ["str", "a log line\n"]


def test_standard_input_is_closed():
    run = read(preexec_fn=lambda: os.close(0))
    assert json.loads(run.stdout) == ["str", "The question"], run.stderr


# ---- Contexts
@pytest.mark.parametrize(
    ("context", "words"),
    [
        (b"bytes", ["bytes", "decode"]),
        ({"a": [1, {"when": datetime.date(2024, 1, 1)}]}, ["date", "['a'][1]['when']", "json."]),
        ({"a", "b"}, ["set"]),
        ([1, object()], ["object", "[1]"]),
        ({("a", 1): 2}, ["tuple", "key"]),
        ({1: "a", "1": "b"}, ["same", "keys"]),
        ({"x": [{None: 1, "null": 2}]}, ["same", "['x'][0]"]),
    ],
)
def test_a_context_that_is_no_json_is_named_with_the_way_out(context, words):
    script = Script(repl("FINAL(1)"))
    with pytest.raises(RLMError) as caught:
        RLM(model=script).completion("Q", context)
    assert not script.requests
    for word in ["context", "json.loads(json.dumps(", *words]:
        assert word in str(caught.value)


# ---- Tools: what they are called, what they return, async ones
@dataclasses.dataclass
class Hit:
    title: str
    when: datetime.date


class Vector:
    """As numpy's arrays are."""

    def tolist(self):
        return [1.5, 2.5]


WHEN = datetime.datetime(2024, 1, 2, 3, 4)
VALUES = [
    (WHEN, str(WHEN)),
    (WHEN.date(), "2024-01-02"),
    ({"eur": decimal.Decimal("1.50")}, {"eur": "1.50"}),
    (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    ([Hit("a", WHEN.date())], [{"title": "a", "when": "2024-01-02"}]),
    ({3}, [3]),
    ((1, frozenset("x")), [1, ["x"]]),
    (Vector(), [1.5, 2.5]),
    ({1: None}, {"1": None}),
]


@pytest.mark.parametrize(("value", "seen"), VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_a_tool_returns(value, seen, kind):
    async def later():
        await asyncio.sleep(0)
        return value

    tool = later if kind == "async" else lambda: value
    found = follow(repl("FINAL(tool())"), tools={"tool": tool})[0].answer
    if isinstance(value, datetime.datetime):
        found = found.replace("T", " ")
    assert found == seen


class Secretive:
    def __repr__(self):
        return "the inside"


async def fail():
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        (lambda: {}["gone"], "KeyError: "),
        (Secretive, "Secretive"),
        (lambda: {"x": [Secretive()]}, "Secretive"),
        (lambda: open, "Error"),
        (lambda x: x, "missing 1 required"),
        (fail, "LookupError: no such thing"),
    ],
)
def test_a_tool_that_fails_is_an_exception_in_the_cell(tool, error):
    told = cell("print('before')\ntool()\nprint('after' + 'wards')", tools={"tool": tool})
    assert told.startswith("before")
    assert "afterwards" not in told
    assert error in told
    assert "the inside" not in told


@pytest.mark.parametrize("name", ["name", "self", "tool", "call", "value", "args", "kwargs", "x"])
def test_a_tool_has_parameters_of_any_name(name):
    tools = {"tool": lambda **given: sorted(given.items())}
    assert follow(repl(f"FINAL(tool({name}='v'))"), tools=tools)[0].answer == [[name, "v"]]


def lookup(name: str, limit: int = 3) -> list[str]:
    """Finds people by name.

    The second paragraph is for programmers.
    """
    return [name.upper()] * limit


def test_tools_are_listed_and_called_in_root_and_child():
    code = "FINAL(lookup('a', limit=2) + [llm_query('CHILD', 'x', recurse=True)])"
    script = Script(repl(code), CHILD=[repl("FINAL(lookup('b')[0])")])
    tools = {"lookup": lookup, "sqrt": math.sqrt, "biggest": max, "plain": lambda x: x}
    tools["first"] = functools.partial(lookup, limit=987_123)
    assert RLM(model=script, tools=tools).completion("Q", "c").answer == ["A", "A", "B"]
    for request in script.requests[:2]:
        text = request[0]["content"]
        assert "lookup(name: str, limit: int = 3) -> list[str]" in text
        assert "Finds people by name." in text
        assert "second paragraph" not in text
        assert "first(name: str)" in text
        assert "987" not in text  # what is bound may be a password
        assert all(name in text for name in tools)


async def model(messages):
    await asyncio.sleep(0)
    code = "FINAL(llm_query_batched(['q'] * 3))"
    return repl(code) if len(messages) > 1 else Reply("leaf", 1, 0, 1)


async def nested(messages):
    inner = RLM(model=model).completion("Q", "c")  # which waits for the loop that it holds
    return repl(f"FINAL({inner.answer} and tool())")


def test_a_model_may_be_async_in_a_notebook_too():
    """There a loop is running already in the thread that asks."""
    engine = RLM(model=model)
    assert engine.completion("Q", "c").answer == ["leaf"] * 3

    async def notebook():
        other = RLM(model=nested, tools={"tool": fine})
        return engine.completion("Q", "c").answer, other.completion("Q", "c").answer

    async def fine():
        return "from a tool"

    assert asyncio.run(notebook()) == (["leaf"] * 3, "from a tool")


# ---- Where the sandbox cannot start as usual
ALONE = f"""
import resource, sys, tempfile
sys.path.insert(0, {str(ROOT)!r})
from rlm import RLM, RLMError
asked = []
def model(messages):
    asked.append(1)
    return "```repl\\nFINAL(len(context))\\n```"
{{}}
try:
    print(RLM(model=model).completion("Q", "abc").answer)
except RLMError as error:
    print(len(asked), error)
"""


def alone(setup: str) -> str:
    """What a program prints that does this before its completion."""
    command = [sys.executable, "-c", ALONE.format(setup)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_without_a_writable_temporary_folder():
    """No file can get a byte; standard output is a pipe."""
    nowhere = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    check = "try:\n    tempfile.gettempdir()\nexcept OSError: pass\nelse: sys.exit('there is one')"
    assert alone(nowhere + check) == "3\n"


def test_a_worker_that_never_comes_up_is_an_error_at_once(tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho a reason of its own >&2\nexit 3\n")
    program.chmod(0o755)
    told = alone(f"sys.executable = {str(program)!r}")
    assert told.startswith("0 the sandbox does not start: ")  # no model was asked
    assert "a reason of its own" in told
