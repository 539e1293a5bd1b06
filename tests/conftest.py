"""What the tests share: the path to the modules, their tables of cases, a scripted model, processes.

A table of `cases.json` belongs to the test whose name it has. Nothing here patches or replaces a
part of the program. A model that answers over HTTP is the business of `server.py`.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import Fault, Server

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rlm import RLM, Completion, Reply, RLMError

SECRET = "sk-secret-0123456789"
CONFIGURED = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "RLM_MODEL", "NO_COLOR")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _revive(entry: dict[str, Any]) -> Any:
    """{"Fault": {...}} and {"Reply": {...}} as what they name."""
    for name, kind in (("Fault", Fault), ("Reply", Reply)):
        if entry.keys() == {name}:
            return kind(**entry[name])
    return entry


CASES = json.loads((ROOT / "tests/cases.json").read_text("utf-8"), object_hook=_revive)


def cases(test: Callable) -> Any:
    """Runs a test with each row of its table in cases.json, whose first row names the arguments."""
    names, *rows = CASES[test.__name__]
    return pytest.mark.parametrize(names, rows, ids=[ascii(row[0])[:40] for row in rows])(test)


def repl(code: str) -> str:
    """A reply that is one block of code: 'x = 1' -> '```repl\\nx = 1\\n```'."""
    return f"```repl\n{textwrap.dedent(code).strip()}\n```"


def is_rlm(messages: list[dict[str, Any]]) -> bool:
    """Whether a turn of an RLM asks; a plain call is a single user message."""
    return messages[0]["role"] == "system"


class Script:
    """A model that follows a script: RLM(model=Script(repl("FINAL(1)"))), Server(script.reply).

    The n-th turn of an RLM is answered with the n-th of its replies, the last one again after that.
    Its replies are those of the first name in `tasks` that stands in its first user message, else
    `replies`. A plain call is answered with leaf(text). A reply may be a function of the messages.
    `requests` keeps what was asked, in order of arrival.
    """

    def __init__(
        self, *replies: Any, leaf: Callable[[str], Any] = lambda text: "leaf", **tasks: list[Any]
    ) -> None:
        self.replies, self.leaf, self.tasks = replies, leaf, tasks
        self.requests: list[list[dict[str, Any]]] = []

    def __call__(self, messages: list[dict[str, Any]]) -> Any:
        self.requests.append(json.loads(json.dumps(messages)))  # as it is now; it must be JSON
        if not is_rlm(messages):
            return self.leaf(messages[0]["content"])
        names = (name for name in self.tasks if name in messages[1]["content"])
        name = next(names, None)
        replies = self.replies if name is None else self.tasks[name]
        reply = replies[min(sum(m["role"] == "assistant" for m in messages), len(replies) - 1)]
        return reply(messages) if callable(reply) else reply

    def reply(self, body: dict[str, Any]) -> Any:
        """The same over HTTP."""
        return self(body["messages"])

    @property
    def plain(self) -> list[str]:
        """What the plain calls were asked."""
        return [messages[0]["content"] for messages in self.requests if not is_rlm(messages)]


def follow(*replies: Any, prompt="Q", context="c", **more: Any) -> tuple[Completion, Script]:
    """One completion of a Script. `leaf` and names in capitals are its own; the rest is the RLM's."""
    own = {name: more.pop(name) for name in list(more) if name.isupper() or name == "leaf"}
    script = Script(*replies, **own)
    return RLM(model=script, **more).completion(prompt, context), script


def outputs(script: Script) -> list[str]:
    """What the root was told after each of its turns."""
    root = [messages for messages in script.requests if is_rlm(messages)]
    first = root[0][1]["content"]
    return [m[-1]["content"] for m in root if m[1]["content"] == first and len(m) > 2]


def cell(code: str, context: Any = "some text", **options: Any) -> str:
    """What the model is told after it ran this code in its first turn."""
    script = Script(repl(code), repl("FINAL('end')"))
    RLM(model=script, **options).completion("Do it", context)
    return outputs(script)[0]


def serve(model: Any, tls: Any = None) -> Server:
    """A server of a Script, of a function from the body of a request, or of one reply for all."""
    reply = model.reply if isinstance(model, Script) else model
    return Server(reply if callable(reply) else lambda body: reply, tls)


def over_http(model: Any, prompt="Q", context="c", *, tls=None, url="{}", **options: Any) -> Any:
    """One completion of a model behind a server: the Completion, or what it raised; the server."""
    options = {"model": "some-model", "api_key": SECRET, "tries": 2} | options
    with serve(model, tls) as server:
        try:
            engine = RLM(base_url=url.format(server.url), **options)
            return engine.completion(prompt, context), server
        except RLMError as error:
            assert SECRET not in f"{error} {error!r}"
            error.server = server
            raise


def start(server: Any, *arguments: Any, env: Any = (), **popen: Any) -> subprocess.Popen:
    """The command line as a process, in front of the server."""
    given = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": SECRET} if server else {}
    environment = {k: v for k, v in os.environ.items() if k not in CONFIGURED} | given | dict(env)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = [sys.executable, str(ROOT / "rlm.py"), *map(str, arguments)]
    return subprocess.Popen(program, env=environment, **pipes | popen)


def cli(model: Any, *arguments: Any, stdin: Any = None, **more: Any) -> subprocess.CompletedProcess:
    """Run it to its end, with the model behind a server. `stdin`: bytes to pipe in, or a file."""
    piped = stdin if isinstance(stdin, bytes) else None
    more["stdin"] = subprocess.PIPE if piped is not None else stdin or subprocess.DEVNULL
    with serve(model) as server:
        process = start(server, *arguments, **more)
        out, err = process.communicate(piped, timeout=60)
    assert SECRET.encode() not in out + err
    run = subprocess.CompletedProcess(arguments, process.returncode, out.decode(), err.decode())
    run.requests = server.requests
    return run


def replies(section: str) -> pytest.MarkDecorator:
    """Runs a test with each answer and reply of a section of replies.txt, and of cases.json."""
    text = (ROOT / "tests/replies.txt").read_text("utf-8")
    (text,) = re.findall(rf"(?ms)^=== {section}\b.*?\n(.*?)(?:\n===|\Z)", text)
    found = re.findall(r"(?ms)^--- (.*?)\n(.*?)(?=\n--- |\Z)", text.rstrip("\n"))
    rows = [(json.loads(answer), reply) for answer, reply in found] + CASES["replies"][section]
    return pytest.mark.parametrize(("answer", "reply"), rows, ids=range(len(rows)))


def table() -> dict[int, int]:
    """The living processes, zombies left out: pid -> parent's pid."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it ended meanwhile
                continue
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    return parents


def descendants(pid: int) -> set[int]:
    """The living processes below `pid`."""
    parents, found, level = table(), set(), {pid}
    while level := {child for child, parent in parents.items() if parent in level} - found:
        found |= level
    return found


def workers(pid: int) -> set[int]:
    """The workers below `pid` that are in use: forked, so that the command line is the parent's."""
    parents, below = table(), descendants(pid)
    forked = {child for child in below if command(child) == command(parents.get(child, 0)) != b""}
    return {child for child in forked if not is_waiting(child)}


def is_waiting(pid: int) -> bool:
    """Whether a worker was forked ahead: until it is taken, it holds the pipe that will tell so."""
    try:
        return any("pipe:" in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return True  # it is gone


def command(pid: int) -> bytes:
    """The command line of a process, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """Waits for the condition and returns what it returned, at most so long."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


@pytest.fixture
def clean_env(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment without what configures RLM, here and for programs that a test starts."""
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    return dict(os.environ)
