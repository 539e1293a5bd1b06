"""The sandbox as its users see it: limits and what survives them, a worker that dies or lies, tools, errors, output, FINAL.

Not here: what code may say (test_cells.py) and what it must not reach (test_escapes.py).
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import datetime
import decimal
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CASES, ROOT, cases

from sandbox import Final, Sandbox, SandboxError

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc or pidfd_getfd")


def run(code: str, **how):
    """The result of one cell in a sandbox of its own."""
    with Sandbox(**how) as repl:
        return repl.run(code)


@pytest.fixture(scope="module")
def repl():
    """A sandbox whose cells have 0.3 s and 150 MiB; tests share it, since it must survive them."""
    with Sandbox({"context": "the context"}, cell_seconds=0.3, memory_mb=150) as sandbox:
        yield sandbox


VALUES = [  # any JSON value is a context, and a final
    *("text", "", "é\ud800\x00😀", "line\nline\r\n\u2028", 0, -1, 2**100, 1.5, 1e300, True, False),
    *(None, [], {}, [1, [2, {"a": [None]}]], {"k": "v", "": 0}, ["x" * 1000] * 1000),
]


def table(title: str) -> dict[str, str]:
    """The cells of one part of endings.txt: "=== title: ...\\n--- name\\ncode" -> {name: code}."""
    part = f"\n{ENDINGS}".split(f"\n=== {title}: ")[1].partition("\n=== ")[0]
    cells = (cell.partition("\n") for cell in part.split("\n--- ")[1:])
    return {name: code.rstrip("\n") for name, _, code in cells}


ENDINGS = Path(__file__).with_name("endings.txt").read_text()
TOO_LONG, DEAF, TOO_MUCH = table("too long"), table("deaf"), table("too much")
ENDS, REFUSED = table("ends"), table("refused")
TOO_DEEP = table("too deep") | {
    "the parser on brackets": "(" * 1000 + ")" * 1000,
    "the parser on a sum": "+".join(["1"] * 10**5) + "\n1 / 0",
    "the parser on attributes": "x" + ".x" * 10**5,
    "the parser on calls": "x" + "()" * 10**5,
    "the parser on minus": "-" * 10**5 + "1",
    "the parser on nots": "not " * 10**5 + "1",
    "the parser on blocks": "".join(f"{' ' * i}if 1:\n" for i in range(150)) + " " * 150 + "1",
    "the parser on f-strings": 'f"{' * 200 + "1" + '}"' * 200,
    "the parser on lambdas": "lambda: " * 10**4 + "1",
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_cell_that_computes_too_long(repl, name):
    repl.run("kept = 'kept'")
    start = time.monotonic()
    result = repl.run(TOO_LONG[name])
    assert time.monotonic() - start < 0.3 + 2 + 1  # 2 s as promised, 1 s for a slow machine
    assert result.error and result.final is None
    if "variables are gone" not in result.error:
        assert re.search("TimeoutError|str.. failed|__del__", result.error)
        assert repl.run("print(kept, context)").output == "kept the context\n"
    else:  # it hung on in spite of the exception
        assert repl.run("print(context)").output == "the context\n"


@pytest.mark.parametrize("name", ["a loop", "a bare except", "except BaseException", "many prints"])
def test_variables_survive_a_cell_that_computes_too_long(name):
    code = TOO_LONG[name].replace("while True:\n    try", "if True:\n    try", 1)
    with Sandbox(cell_seconds=0.3) as repl:
        repl.run("kept = [1, 2]")
        pid = repl.pid
        assert "TimeoutError: " in repl.run(code).error
        assert (repl.run("kept").output, repl.pid) == ("[1, 2]\n", pid)


@pytest.mark.parametrize("name", DEAF)
def test_a_cell_that_cannot_be_interrupted(name):
    with Sandbox({"context": [1, 2]}, cell_seconds=0.3) as repl:
        repl.run("lost = 1")
        start = time.monotonic()
        error = repl.run(DEAF[name]).error
        assert time.monotonic() - start < 0.3 + 2 + 1
        assert error
        if "variables are gone" in error:
            assert "context" in error
            assert "NameError" in repl.run("lost").error
        assert repl.run("context").output == "[1, 2]\n"


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_cell_that_takes_too_much_memory(name):
    with Sandbox({"context": "the context"}, cell_seconds=3, memory_mb=100) as repl:
        repl.run("kept = 'kept'")
        error = repl.run(TOO_MUCH[name]).error
        assert error
        if "variables are gone" not in error:
            assert "MemoryError" in error or "TimeoutError" in error, error
            result = repl.run("x = d = keep = None\nprint(kept, context)")
            assert result.output == "kept the context\n", result
        assert repl.run("print(context)").output == "the context\n"


def test_variables_survive_a_memory_error():
    with Sandbox(memory_mb=100) as repl:
        repl.run("kept = list(range(1000))")
        pid = repl.pid
        assert "MemoryError" in repl.run("'x' * 10**9").error
        assert (repl.run("sum(kept)").output, repl.pid) == ("499500\n", pid)


def test_memory_is_counted_from_the_context():
    with Sandbox({"context": "x" * 50_000_000}, memory_mb=100) as repl:
        assert repl.run("y = 'y' * 60_000_000\nlen(context)").output == "50000000\n"


@pytest.mark.parametrize("name", TOO_DEEP)
def test_a_cell_that_recurses_too_deep(name):
    with Sandbox({"context": "the context"}, {"tool": len}, cell_seconds=5) as repl:
        repl.run("kept = 'kept'")
        result = repl.run(TOO_DEEP[name])
        assert result.error and result.error.strip()
        assert len(result.error) < 6_000
        assert repl.run("print(context)").output == "the context\n"


def test_recursion_in_python_keeps_the_variables():
    with Sandbox() as repl:
        repl.run("kept = 5\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)")
        pid = repl.pid
        assert "RecursionError" in repl.run("f(10**6)").error
        assert (repl.run("f(500) + kept").output, repl.pid) == ("505\n", pid)


@pytest.mark.parametrize("name", ENDS)
def test_exit_ends_the_cell_not_the_worker(repl, name):
    repl.run("kept = 'kept'")
    pid = repl.pid
    result = repl.run(f"print('before')\n{ENDS[name]}\nprint('after')")
    assert (result.output, result.error, result.final) == ("before\n", None, None)
    assert (repl.run("kept").output, repl.pid) == ("'kept'\n", pid)


@pytest.mark.parametrize(
    "name",
    ["KeyboardInterrupt", "GeneratorExit", "BaseException", "BaseException('x')", "StopIteration"],
)
def test_other_ends_of_a_cell(repl, name):
    repl.run("kept = 'kept'")
    pid = repl.pid
    assert repl.run(f"raise {name}").error
    assert (repl.run("kept").output, repl.pid) == ("'kept'\n", pid)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_next(repl, name):
    pid, start = repl.pid, time.monotonic()
    assert repl.run(REFUSED[name]).error
    assert time.monotonic() - start < 2
    assert (repl.run("1 + 1").output, repl.pid) == ("2\n", pid)


def test_waiting_for_a_tool_is_not_the_cells_time():
    def slow(x):
        time.sleep(0.5)
        return x

    with Sandbox(tools={"slow": slow}, cell_seconds=0.3) as repl:
        assert repl.run("print(slow(1), slow(2))").output == "1 2\n"
        assert "TimeoutError" in repl.run("slow(1)\nwhile True: pass").error
        assert repl.run("1").output == "1\n"


def test_seconds_bound_the_wall_clock():
    with Sandbox({"context": "c"}, cell_seconds=60) as repl:
        start = time.monotonic()
        assert repl.run("while True: pass", seconds=0.3).error
        assert time.monotonic() - start < 3
        assert repl.run("context", seconds=10).output == "'c'\n"


def killer(number):
    """A tool that sends a signal to the worker that called it."""
    return {"kill": lambda: os.kill(killer.repl.pid, number)}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_worker_that_is_killed_in_a_cell(number):
    with Sandbox({"context": [1, {"a": None}]}, killer(number)) as killer.repl:
        killer.repl.run("x = 1")
        result = killer.repl.run("kill()\nprint('on')\nwhile True: pass")
        assert "variables are gone" in result.error and "context" in result.error
        assert "NameError" in killer.repl.run("x").error
        assert killer.repl.run("context").output == "[1, {'a': None}]\n"


def test_a_worker_that_is_killed_again_and_again():
    with Sandbox({"context": "c"}) as repl:
        pids = set()
        for _ in range(5):
            pids.add(repl.pid)
            os.kill(repl.pid, signal.SIGKILL)
            assert repl.run("1").error
            assert repl.run("context").output == "'c'\n"
        assert len(pids) == 5


SLEEPY = (
    "import queue\nwhile 1:\n    try: queue.Queue().get(timeout=0.1)\n    except queue.Empty: pass"
)


@pytest.mark.parametrize("code", ["kill()\n1", SLEEPY])
def test_a_worker_that_is_stopped_or_hardly_computes(code):
    with Sandbox({"context": "c"}, killer(signal.SIGSTOP), cell_seconds=0.3) as killer.repl:
        start = time.monotonic()
        assert "gone" in killer.repl.run(code).error
        assert time.monotonic() - start < 6
        assert killer.repl.run("context").output == "'c'\n"


SERVER_KILLED = """
import os, signal
from pathlib import Path
from sandbox import Sandbox
with Sandbox({"context": "c"}) as repl:
    worker = Path(f"/proc/{repl.pid}")
    os.kill(int((worker / "stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    while worker.exists() and ") Z" not in (worker / "stat").read_text():
        pass
    print(repl.run("1").error is None, repl.run("context").output)
with Sandbox() as other:
    print(other.run("2").output)
"""


@linux_only
def test_a_fork_server_that_is_killed():
    """In a process of its own: the other tests' workers hang on their server."""
    command = [sys.executable, "-c", SERVER_KILLED]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=os.environ | path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "'c'", "2"]


def test_a_package_may_have_modules_of_any_name(tmp_path):
    """A fork server that looked into its own folder first would take them for the library's."""
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__init__", "queue", "types", "string", "json"):
        (package / f"{name}.py").write_text("" if name == "__init__" else "raise SystemExit")
    shutil.copy(Path(__file__).parents[1] / "sandbox.py", package / "vendored.py")
    (tmp_path / "sandbox.py").write_text("raise SystemExit")
    code = """
import pathlib, sys
sys.path.insert(0, pathlib.Path(sys.argv[1]))  # a path that is no str, as in notebooks
sys.path.insert(0, sys.argv[1])
from package.vendored import Sandbox
print(Sandbox().run("6 * 7").output)"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["42"]


def message(value) -> bytes:
    """A line as a worker sends it."""
    return json.dumps(value).encode() + b"\n"


LIES = {  # what a worker under somebody else's control could send
    **{name: message(value) for name, value in CASES["lies"].items()},
    "nothing": b"" + b"\n",
    "no JSON": b"hello" + b"\n",
    "bytes": bytes(range(256)) + b"\n",
    "half of JSON": b'["out", null\n',
    "too deep": b"[" * 200_000 + b"]" * 200_000 + b"\n",
    "too many lists": b"[" + b"[]," * 5_000_000 + b"[]]" + b"\n",
    "too many numbers": b"[" + b"1," * 9_000_000 + b"1]" + b"\n",
    "too much output": message(["x" * 20_000, None, None]),
    "too long an error": message(["", "x" * 20_000, None]),
    "too long": b"x" * (65 << 20),
    "a number of many digits": b"[" + b"9" * 100_000 + b", null, null]" + b"\n",
    "not UTF-8": b'["\xff\xfe", null, null]\n',
}


def forge(pid: int, data: bytes) -> None:
    """Write on the host's connection in the name of the worker; what does not fit at once, from a thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    fds = [
        int(f.name)
        for f in Path(f"/proc/{pid}/fd").iterdir()
        if os.readlink(f).startswith("socket:")
    ]
    for number in fds:
        # pidfd_open and pidfd_getfd
        if (fd := libc.syscall(438, libc.syscall(434, pid, 0), number, 0)) < 0:
            pytest.skip(
                f"may not take a file descriptor of the worker: {os.strerror(ctypes.get_errno())}"
            )
        stolen = socket.socket(fileno=fd)
        # not by settimeout(): the worker's own end would not block any more either
        rest = data[stolen.send(data, socket.MSG_DONTWAIT) :]

        def send(stolen=stolen, rest=rest):
            with stolen, contextlib.suppress(OSError):
                stolen.sendall(rest)

        threading.Thread(target=send, daemon=True).start()


@linux_only
@pytest.mark.parametrize("name", LIES)
def test_a_worker_that_lies(name):
    def lie():
        os.kill(repl.pid, signal.SIGSTOP)  # from here on only the lie speaks
        forge(repl.pid, LIES[name])

    with Sandbox({"context": "c"}, {"lie": lie}, cell_seconds=1) as repl:
        pid = repl.pid
        with pytest.raises(SandboxError):
            repl.run("lie()\nprint('the truth')")
        assert repl.run("context").output == "'c'\n"
        assert repl.pid != pid


@linux_only
def test_a_worker_that_is_killed_in_the_middle_of_a_message():
    def lie():
        os.kill(repl.pid, signal.SIGSTOP)
        forge(repl.pid, b"[")
        os.kill(repl.pid, signal.SIGKILL)

    with Sandbox({"context": "c"}, {"lie": lie}) as repl:
        assert "the worker was lost" in repl.run("lie()").error
        assert repl.run("context").output == "'c'\n"


@linux_only
@pytest.mark.parametrize(
    ("seconds", "told", "most"), [(2, "the time of the run is over", 5), (60, "too slow", 15)]
)
def test_a_worker_that_drips_a_message(seconds, told, most):
    def lie():
        os.kill(repl.pid, signal.SIGSTOP)
        threading.Thread(target=drip, args=(repl.pid,), daemon=True).start()

    def drip(pid):  # a byte each second, as a socket's own time limit begins anew with each
        with contextlib.suppress(OSError):
            for _ in range(60):
                forge(pid, b"[")
                time.sleep(1)

    with Sandbox({"context": "c"}, {"lie": lie}, cell_seconds=30) as repl:
        start = time.monotonic()
        assert told in repl.run("lie()", seconds=seconds).error
        assert time.monotonic() - start < most
        assert repl.run("context").output == "'c'\n"


@linux_only
def test_a_worker_that_calls_without_end():
    calls = message({"call": "note", "args": [], "kwargs": {}}) * 1_000_000

    def lie():
        os.kill(repl.pid, signal.SIGSTOP)
        forge(repl.pid, calls)

    tools = {"note": lambda: time.sleep(0.01), "lie": lie}
    with Sandbox(tools=tools) as repl, pytest.raises(SandboxError, match="Extra data"):
        repl.run("lie()", seconds=20)  # a worker waits for the answer to its call


@linux_only
def test_a_worker_that_calls_a_tool_it_was_given_is_believed():
    calls = []
    forged = message({"call": "note", "args": ["forged"], "kwargs": {}})
    tools = {"note": calls.append, "lie": lambda: forge(repl.pid, forged)}
    # the answer to the lie is one too many for the worker
    with contextlib.suppress(SandboxError), Sandbox(tools=tools) as repl:
        repl.run("lie()\nsum(range(10**7))\nnote('true')", seconds=20)
    assert "forged" in calls  # the control: what `forge` writes does arrive


def test_close():
    repl = Sandbox({"context": "c"})
    pid = repl.pid
    repl.close()
    repl.close()
    with pytest.raises(SandboxError):
        repl.run("1")
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_close_from_another_thread_ends_a_running_cell():
    started = threading.Event()
    with Sandbox(tools={"begin": started.set}) as repl, ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: repl.run("begin()\nwhile True: pass"))
        assert started.wait(10)
        repl.close()
        with contextlib.suppress(SandboxError):
            assert running.result(timeout=10).error
        with pytest.raises(SandboxError):
            repl.run("1")


def test_close_before_the_worker_is_ready():
    context = "x" * 50_000_000  # takes a while to load
    with ThreadPoolExecutor(1) as pool:
        repl = Sandbox({"context": context})
        running = pool.submit(repl.run, "while True: pass")
        repl.close()
        with pytest.raises(SandboxError, match="closed"):
            running.result(timeout=30)


def test_walls_are_reported():
    with Sandbox() as repl:
        walls = repl.walls
    assert isinstance(walls, tuple) and set(walls) <= {"language", "rlimits", "seccomp"}
    assert {"language", "rlimits"} <= set(walls)


@linux_only
def test_what_a_worker_has(tmp_path):
    os.environ["SANDBOX_TEST_SECRET"] = "must not be inherited"
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        with Sandbox({"context": "c"}) as repl:
            repl.run("1")
            process = Path(f"/proc/{repl.pid}")
            status = dict(
                line.split(":\t", 1)
                for line in (process / "status").read_text().splitlines()
                if ":\t" in line
            )
            limits = (process / "limits").read_text()
            assert b"SANDBOX_TEST_SECRET" not in (process / "environ").read_bytes()
            assert not any(
                b"KEY" in name for name in (process / "environ").read_bytes().split(b"\0")
            )
            targets = sorted(os.readlink(fd) for fd in (process / "fd").iterdir())
            assert [t for t in targets if not t.startswith("socket:")] == ["/dev/null"] * 3
            assert len(targets) == 4  # the null device three times, and the connection
            assert not os.path.exists(os.readlink(process / "cwd"))
            assert status["NoNewPrivs"] == "1"
            for name in ("open files", "processes", "file size", "core file size"):
                assert re.search(rf"Max {name} +0 +0 ", limits), limits
            if "seccomp" in repl.walls:
                assert status["Seccomp"] == "2"
    finally:
        os.close(inherited)
        del os.environ["SANDBOX_TEST_SECRET"]


STARTS = {
    "no Python to start": "sys.executable = '/nowhere/python'",
    "a library that fails": "sys.path[:] = []",
}


@pytest.mark.parametrize("what", STARTS)
def test_a_worker_that_never_comes_up_is_told_at_once(what):
    code = f"""
import sys, time
from sandbox import Sandbox, SandboxError
{STARTS[what]}
start = time.monotonic()
try: Sandbox().run("6 * 7")
except SandboxError as error: print(error, time.monotonic() - start < 10)"""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert "no worker came up: " in done.stdout and done.stdout.endswith("True\n"), done
    assert re.search("nowhere|Error", done.stdout)
    assert not done.stderr


@linux_only
def test_without_a_folder_for_temporary_files(tmp_path):
    """Root may write anywhere; so the fork server is told of folders that are not there."""
    code = f"""
import sandbox, tempfile
from pathlib import Path
source = Path(sandbox.__file__).read_text()
lost = source.replace("import tempfile", "import tempfile; tempfile.tempdir = '/proc/nowhere'")
assert lost != source
Path({str(tmp_path)!r}, "lost.py").write_text(lost)
import sys
sys.path.insert(0, {str(tmp_path)!r})
from lost import Sandbox
print(Sandbox().run("6 * 7").output)"""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["42"], done


@linux_only
def test_no_resource_warning_at_exit():
    code = """
import asyncio
from sandbox import Sandbox
async def tool(): return 1
with Sandbox(tools={"tool": tool}) as repl: print(repl.run("tool()").output)
with Sandbox() as repl: repl.run("1")"""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    done = subprocess.run(
        command, env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert (done.stdout.split(), done.stderr) == (["1"], "")


LEFT_BEHIND = """
import os, threading, time
from sandbox import Sandbox
def state(): return len(os.listdir("/proc/self/fd")), threading.active_count()
def living(): return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
with Sandbox() as repl: repl.run("1")
before, pids = state(), []
for _ in range(30):
    with Sandbox({"context": "c"}, {"f": len}) as repl:
        repl.run("f(context)")
        pids.append(repl.pid)
assert state() == before, (state(), before)
deadline = time.monotonic() + 5
while living() and time.monotonic() < deadline: time.sleep(0.01)
assert not living()"""


@linux_only
def test_nothing_is_left_behind():  # in a process where no other test leaves anything
    subprocess.run([sys.executable, "-c", LEFT_BEHIND], cwd=ROOT, check=True)


def test_many_sandboxes_at_once():
    def work(i):
        with Sandbox({"context": i}, {"double": lambda x: 2 * x}) as repl:
            repl.run("x = double(context)")
            return repl.run("x + 1").output

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(32))) == [f"{2 * i + 1}\n" for i in range(32)]


def test_workers_draw_different_random_numbers():
    code = "import random\nrandom.random(), random.Random().random()"
    assert len({run(code).output for _ in range(3)}) == 3


def test_a_sandbox_in_a_forked_child_of_the_host():
    with Sandbox({"context": "c"}) as repl:
        repl.run("x = 1")
        if not (child := os.fork()):
            try:
                os._exit(0 if run("1 + 1").output == "2\n" else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert repl.run("x").output == "1\n"


class OwnError(Exception):
    pass


ERRORS = {  # what a tool raises, and what the cell is told
    "ValueError": (ValueError("bad value"), "bad value"),
    "KeyError": (KeyError("the key"), "the key"),
    "RuntimeError": (RuntimeError("429 Too Many Requests"), "RuntimeError: 429 Too Many Requests"),
    "TimeoutError": (TimeoutError("slow"), "slow"),
    "a class of the host": (OwnError("own text"), "own text"),
    "an OSError": (OSError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file"),
    "an ExceptionGroup": (ExceptionGroup("several", [OwnError()]), "several"),
    "a UnicodeDecodeError": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"), "bad byte"),
    "an empty error": (ValueError(), "ValueError"),
    "no ASCII": (ValueError("é \ud800 \x00"), "é"),
    "a StopIteration": (StopIteration("stop"), "stop"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_a_tool_is_an_exception_in_the_cell(name):
    error, text = ERRORS[name]

    def tool():
        raise error

    with Sandbox(tools={"tool": tool}) as repl:
        result = repl.run("tool()")
        assert text in result.error.splitlines()[-1]
        assert "tool()" in result.error and "test_sandbox" not in result.error
        assert repl.run(
            "try:\n    tool()\nexcept Exception as e:\n    print('caught', type(e).__name__)"
        ).output.startswith("caught ")


def test_an_interrupt_in_a_tool_reaches_the_host():
    def tool():
        raise KeyboardInterrupt

    with Sandbox({"context": "c"}, {"tool": tool}) as repl:
        with pytest.raises(KeyboardInterrupt):
            repl.run("try:\n    tool()\nexcept:\n    pass")
        assert repl.run("context").output == "'c'\n"


def test_values_that_cross():
    seen = []

    def tool(*args, **kwargs):
        seen.append((args, kwargs))
        return {"args": args, "kwargs": kwargs}

    with Sandbox(tools={"tool": tool}) as repl:
        result = repl.run(f"FINAL(tool(*{VALUES!r}, key={VALUES!r}))")
    assert seen == [(tuple(VALUES), {"key": VALUES})]
    assert result.final == Final({"args": VALUES, "kwargs": {"key": VALUES}})


def test_values_that_do_not_cross():
    def tool(x=None):
        return object()

    with Sandbox(tools={"tool": tool, "echo": lambda x: x}) as repl:
        assert "JSON" in repl.run("tool()").error  # the tool's result is no JSON value
        assert "JSON" in repl.run("tool(object())").error  # the argument is none
        assert "argument" in repl.run("tool(1, 2, 3)").error  # too many arguments
        assert "argument" in repl.run("echo(x=1, y=2)").error
        assert (
            repl.run("echo((1, 2)), sorted(echo({3, 4})), echo(str(5))").output
            == "([1, 2], [3, 4], '5')\n"
        )


@dataclasses.dataclass
class Hit:
    title: str
    when: datetime.date


class Array:
    """As much of numpy as counts."""

    def tolist(self):
        return [1, 2]


TOLD = [  # what a tool returns, and what the cell gets
    (datetime.date(2024, 1, 2), "2024-01-02"),
    (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
    (datetime.time(3, 4), "03:04:00"),
    ({"eur": decimal.Decimal("1.5")}, {"eur": "1.5"}),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ([Hit("a", datetime.date(2024, 1, 2))], [{"title": "a", "when": "2024-01-02"}]),
    ({"a"}, ["a"]),
    (frozenset([2]), [2]),
    (Array(), [1, 2]),
]


@pytest.mark.parametrize(("value", "told"), TOLD, ids=[type(value).__name__ for value, _ in TOLD])
def test_results_of_tools_that_json_does_not_have(value, told):
    assert run("FINAL(tool())", tools={"tool": lambda: value}).final == Final(told)


@pytest.mark.parametrize("value", [object(), b"bytes", range(3), Hit, iter([1])], ids=range(5))
def test_a_result_that_is_no_json_is_an_error_and_never_its_repr(value):
    error = run("tool()", tools={"tool": lambda: value}).error
    assert "JSON" in error and type(value).__name__ in error and " object at 0x" not in error


def test_async_tools():
    async def search(query):
        await asyncio.sleep(0)
        return f"found {query}"

    async def inside():  # as in a notebook, where a loop is running in this thread
        return run("search('x')", tools={"search": search}).output

    assert run("search('x')", tools={"search": search}).output == "'found x'\n"
    assert asyncio.run(inside()) == "'found x'\n"


@pytest.mark.parametrize("name", ["name", "self", "args", "kwargs", "tool", "cls", "call", "fd"])
def test_a_parameter_may_have_any_name(name):
    tools = {"echo": lambda **words: words}
    assert run(f"echo({name}=1)", tools=tools).output == f"{{'{name}': 1}}\n"


def test_a_tool_has_no_public_attributes():
    code = "print([name for name in dir(tool) if name[0] != '_'])"
    assert run(code, tools={"tool": len}).output == "[]\n"


def test_text_that_looks_like_lists_crosses():
    with Sandbox(tools={"same": lambda text: text}) as repl:
        code = r"""text = '[{,"\\' * 3_000_000; same(text) == text"""
        assert repl.run(code).output == "True\n"


def test_large_values_cross():
    with Sandbox(tools={"echo": lambda x: x, "size": len}) as repl:
        assert repl.run(
            "size('x' * 20_000_000), len(echo('é' * 5_000_000)), len(echo(list(range(10**5))))"
        ).output == ("(20000000, 5000000, 100000)\n")


def test_a_tool_may_use_a_sandbox():
    def outer(code):
        return run(code).output

    assert run("outer('1 + 1')", tools={"outer": outer}).output == "'2\\n'\n"


def test_one_cell_at_a_time():
    with Sandbox(tools={"again": lambda: repl.run("1 + 1").output}) as repl:
        result = repl.run("""
try: again()
except Exception as error: print(error)
print("still here")""")
        assert (
            result.output
            == "this sandbox is running a cell: one after another, please\nstill here\n"
        )
        assert repl.run("2").output == "2\n"


REBOUND = (
    "context = llm = FINAL = FINAL_VAR = SHOW_VARS = None",
    "del context, llm",
    "def llm(): pass\nclass context: pass",
)


@pytest.mark.parametrize("code", REBOUND)
def test_variables_and_tools_are_restored_before_each_cell(code):
    with Sandbox({"context": "c"}, {"llm": lambda p: f"answer to {p}"}) as repl:
        assert repl.run(code).error is None
        assert repl.run("context, llm('p')").output == "('c', 'answer to p')\n"
        assert repl.run("FINAL(callable(SHOW_VARS) and callable(FINAL_VAR))").final == Final(True)


def test_what_a_cell_rebinds_is_kept_and_told_in_that_very_cell():
    with Sandbox({"context": "a b"}, {"llm": len}) as repl:
        told = repl.run("print('first')\ncontext = context.split()").output
        assert told.startswith("first\n") and "`context`" in told and "`context_1`" in told
        assert repl.run("context, context_1").output == "('a b', ['a', 'b'])\n"
        repl.run("context = 5\ndef llm(): return 7")
        assert repl.run("context_1, llm_1(), llm('xyz')").output == "(5, 7, 3)\n"
        assert repl.run("del context").output == ""  # nothing of it is lost


def test_what_is_told_of_a_rebinding_is_part_of_the_output_that_is_cut():
    result = run("print('x' * 5000)\ncontext = 1", variables={"context": "c"}, output_chars=1000)
    assert "context_1" in result.output and len(result.output) < 1200


def test_a_context_is_restored_after_an_error_that_cannot_be_told():
    code = "class E(Exception):\n    __str__ = None\ncontext = 5\nraise E"
    with Sandbox({"context": "c"}) as repl:
        result = repl.run(code)
        assert result.error and "`context_1`" in result.output
        assert repl.run("context, context_1").output == "('c', 5)\n"


def test_restoring_is_under_the_cells_time():
    """The value that is kept replaces one whose finalizer never ends."""
    code = """
class Slow:
    def __init__(self): self.me = 1
    def __del__(self):
        while True: pass
context = Slow()"""
    with Sandbox({"context": "c"}, cell_seconds=0.3) as repl:
        repl.run(code.replace("__del__", "close"))
        start = time.monotonic()
        repl.run(code)
        repl.run("context = 2")
        assert time.monotonic() - start < 15
        assert repl.run("print(context)").output.endswith("c\n")


def test_variables_of_cells_persist():
    with Sandbox() as repl:
        repl.run("import json\nx = 1\ndef f(): return x + 1\nclass C: y = 2")
        repl.run("x += 10")
        assert repl.run("x, f(), C.y, json.dumps([C().y])").output == "(11, 12, 2, '[2]')\n"


@cases
def test_the_last_expression_is_shown(repl, code, output):
    result = repl.run(code)
    assert (result.output, result.error) == (output, None)


def test_a_traceback_shows_the_models_own_lines(repl):
    error = repl.run('def first(d):\n    return d["key"]\n\n\nfirst({})\n').error
    lines = error.splitlines()
    assert lines[-1] == "KeyError: 'key'"
    assert (
        "line 5" in error
        and "first({})" in error
        and "line 2" in error
        and 'return d["key"]' in error
    )
    assert "in first" in error
    assert error.index("line 5") < error.index("line 2")
    for word in ("sandbox.py", "/", "RestrictedPython", "eval(", "@"):
        assert word not in error, error


def test_a_traceback_shows_lines_of_earlier_cells(repl):
    repl.run("\n\ndef earlier(x):\n    return 1 / x  # here")
    error = repl.run("earlier(0)").error
    assert "line 4" in error and "return 1 / x  # here" in error and "earlier(0)" in error
    assert error.endswith("ZeroDivisionError: division by zero")


def test_a_traceback_leaves_out_the_library_and_the_guards(repl):
    error = repl.run("import json, re\nclass A: pass\nA().b = 1\njson.loads('{')").error
    assert "line 4" in error and "json.loads('{')" in error and "decoder.py" not in error
    assert (
        error.splitlines()[-1].startswith("json.decoder.JSONDecodeError: ")
        or "JSONDecodeError: " in error.splitlines()[-1]
    )
    error = repl.run("class A: pass\nA().nothing").error
    assert error.splitlines()[-1] == "AttributeError: 'A' object has no attribute 'nothing'"
    assert "line 2" in error and "sandbox" not in error


def test_a_traceback_of_a_deep_recursion_is_short(repl):
    error = repl.run("def f(n):\n    return f(n + 1)\nf(0)").error
    assert len(error) < 2_500 and "RecursionError" in error.splitlines()[-1] and "f(0)" in error


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('x' * 10**6)",
        "class E(Exception):\n    pass\nraise E('y ' * 10**6)",
        "{}['k' * 10**6]",
    ],
)
def test_a_long_error_is_cut(repl, code):
    error = repl.run(code).error
    assert len(error) < 6_000 and "Error" in error or "E: y" in error
    assert "line" in error


def test_errors_in_errors(repl):
    for code in (
        "class E(Exception):\n    def __str__(self): raise ValueError('inner')\nraise E",
        "class E(Exception):\n    def __str__(self): return 5\nraise E",
        "class E(Exception):\n    def __repr__(self): exit()\n    __str__ = __repr__\nraise E",
        "class R:\n    def __repr__(self): return 5\nR()",
        "class R:\n    def __repr__(self): raise KeyError('in repr')\nR()",
        "class E(Exception):\n    name = path = obj = args = 5\nraise E",
        "class E(SyntaxError):\n    text = filename = lineno = offset = print\nraise E",
        "class E(NameError):\n    name = property(lambda self: 1 / 0)\nraise E",
        "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError(2)])])",
    ):
        assert repl.run(code).error, code
        assert repl.run("2").output == "2\n", code


@cases
def test_a_syntax_error_names_the_line(repl, code, line):
    error = repl.run(code).error
    assert re.search(r"(Syntax|Indentation|Value)Error: ", error), error
    assert line in error.lower()


@cases
def test_a_refusal_is_useful(repl, code, words):
    error = repl.run(code).error
    assert error and not [word for word in words if word not in error.replace("Line", "line")], (
        error
    )


def test_all_refusals_of_a_cell_are_told_at_once(repl):
    error = repl.run("x.__globals__\ny = 1\ny.__code__").error
    assert "__globals__" in error and "__code__" in error


def test_the_middle_is_cut_out_at_the_ends_of_lines():
    output = run("for i in range(1000): print('line', i)", output_chars=400).output
    lines = output.splitlines()
    marks = [i for i, line in enumerate(lines) if "left out of the middle" in line]
    assert len(marks) == 1
    count = re.fullmatch(
        r"\.\.\. \[([\d,]+) characters left out of the middle; print less, or in parts\] \.\.\.",
        lines[marks[0]],
    )
    assert all(re.fullmatch(r"line \d+", line) for i, line in enumerate(lines) if i != marks[0])
    whole = sum(len(f"line {i}\n") for i in range(1000))
    shown = sum(len(line) + 1 for i, line in enumerate(lines) if i != marks[0])
    assert int(count[1].replace(",", "")) == whole - shown


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 10**6])
def test_output_of_any_length(length):
    result = run(f"import sys\n_ = sys.stdout.write('x' * {length})", output_chars=100)
    assert result.output == "x" * length if length <= 100 else len(result.output) < 200


def test_output_without_end_takes_no_memory():
    with Sandbox(cell_seconds=1, memory_mb=60) as repl:
        result = repl.run("print('first')\nwhile True: print('spam' * 1000)")
        assert "TimeoutError" in result.error and result.output.startswith("first\nspam")
        assert len(result.output) < 11_000
        assert repl.run("print('x' * 5_000_000)").error is None
        assert repl.run("1").output == "1\n"


def test_output_with_odd_characters(repl):
    result = repl.run("print('\\ud800 \\x00 é 😀 \\r \\x1b[31m')")
    assert result.output == "\ud800 \x00 é 😀 \r \x1b[31m\n" and result.error is None


def test_stderr_and_write_are_output(repl):
    code = "import sys\nprint('e', file=sys.stderr)\nsys.stdout.write('w')\nsys.stdout.flush()\nprint(file=sys.stdout)"
    assert repl.run(code).output.startswith("e\nw")


def test_telling_of_a_syntax_error_opens_no_file(tmp_path):
    (tmp_path / "x").write_text("fro secret in it: pass")
    cell = f"raise SyntaxError('invalid', ({str(tmp_path / 'x')!r}, 1, 1, 'x', 1, 2, (1, 1, None)))"
    code = f"import sandbox; print(sandbox.Interpreter({{}}, {{}}).run({cell!r}).error)"
    told = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert "SyntaxError" in told and "secret" not in told


def test_stdout_is_whole_again_in_the_next_cell(repl):
    repl.run("import contextlib, io\ncontextlib.redirect_stdout(io.StringIO()).__enter__()")
    repl.run("import sys\nkept = sys.stdout\nkept.close()\nsys.stdout = None")
    assert repl.run("print('x')\nprint('y', file=kept, flush=True)").output == "x\ny\n"


@pytest.mark.parametrize("value", VALUES, ids=[repr(value)[:20] for value in VALUES])
def test_final(repl, value):
    result = repl.run(f"print('before')\nFINAL({value!r})\nprint('after')")
    assert (result.output, result.error, result.final) == ("before\n", None, Final(value))
    assert type(result.final.value) is type(value)
    assert repl.run("1").final is None


def test_final_of_ten_megabytes():
    with Sandbox() as repl:
        text = repl.run("text = 'é0123456789' * 1_000_000\nFINAL(text)").final.value
        assert text == "é0123456789" * 1_000_000
        assert repl.run("FINAL([text, len(text)])").final.value == [text, len(text)]
        numbers = repl.run("FINAL({str(i): [i] for i in range(100_000)})").final.value
        assert numbers == {str(i): [i] for i in range(100_000)}
        assert repl.run("len(text)").output == "11000000\n"


FINAL_LIKE = {  # what is no JSON value, and what becomes of it
    "(1, 2)": [1, 2],
    "{1: 'a', None: 'b', True: 'c'}": {"1": "c", "null": "b"},
    "{3}": [3],
    "frozenset([4])": [4],
    "range(3)": [0, 1, 2],
    "(i * i for i in range(3))": [0, 1, 4],
    "{'a': 1}.keys()": ["a"],
    "__import_counter": {"a": 2},
}


@pytest.mark.parametrize("code", FINAL_LIKE)
def test_final_of_what_can_be_json(repl, code):
    code = code.replace("__import_counter", "Counter('aa')")
    result = repl.run(f"from collections import Counter\nFINAL({code})")
    assert result.error is None and result.final.value == FINAL_LIKE.get(code, {"a": 2})


@pytest.mark.parametrize(
    "code",
    ["object()", "len", "{(1, 2): 3}", "1j", "ValueError('x')", "{'a': [object()]}", "print"],
)
def test_final_of_what_is_no_json(repl, code):
    repl.run("kept = 1")
    result = repl.run(f"FINAL({code})")
    assert result.final is None and "TypeError" in result.error
    assert "JSON" in result.error or "keys must be" in result.error
    assert repl.run("kept").output == "1\n"


def test_final_through_handlers(repl):
    assert repl.run("try:\n    FINAL(1)\nexcept Exception:\n    pass\nprint('on')").final == Final(
        1
    )
    assert repl.run("try:\n    FINAL(2)\nexcept:\n    pass").final == Final(2)
    assert repl.run("try:\n    FINAL(3)\nfinally:\n    print('finally')").final == Final(3)
    assert repl.run("def f(x):\n    FINAL(x)\n[f(i) for i in range(4, 9)]").final == Final(4)
    assert repl.run(
        "import contextlib\nwith contextlib.suppress(Exception):\n    FINAL(5)"
    ).final == Final(5)


def test_final_var(repl):
    assert repl.run("answer = [1, 2]\nFINAL_VAR('answer')").final == Final([1, 2])
    assert repl.run("FINAL_VAR('context')").final == Final("the context")
    assert repl.run("FINAL_VAR(answer)").final == Final([1, 2])


def test_final_var_of_a_name_that_does_not_exist(repl):
    result = repl.run("FINAL_VAR('final_answer')")
    assert result.final is None
    assert "NameError" in result.error and "final_answer" in result.error
    assert "SHOW_VARS()" in result.error
    assert repl.run("FINAL_VAR('two words')").final == Final("two words")


def test_show_vars():
    with Sandbox({"context": "c"}, {"llm": len}) as repl:
        code = "import json\nx = 1\ndef f(): pass\nclass C: pass\n_hidden = 2\nitems = [C()]"
        repl.run(code)
        result = repl.run("print(SHOW_VARS())")
        for word in ("x", "int", "f", "function", "items", "list", "C"):
            assert re.search(rf"\b{word}\b", result.output), result.output
        for word in ("_hidden", "llm", "FINAL", "__builtins__", "__name__"):
            assert word not in result.output


@pytest.mark.parametrize("value", VALUES, ids=[repr(value)[:20] for value in VALUES])
def test_contexts_of_every_type(value):
    with Sandbox({"context": value, "other": 1}) as repl:
        assert repl.run("FINAL([context, other])").final == Final([value, 1])
        assert repl.run("type(context).__name__").output == f"{type(value).__name__!r}\n"


def test_large_contexts():
    text, items = "0123456789é" * 3_000_000, [f"document {i}" for i in range(200_000)]
    with Sandbox(
        {"text": text, "items": items, "table": {str(i): [i, None] for i in range(50_000)}}
    ) as repl:
        assert repl.run("len(text), text[-3:], len(items), items[-1], table['49999']").output == (
            "(33000000, '89é', 200000, 'document 199999', [49999, None])\n"
        )


def test_no_variables_and_no_tools():
    with Sandbox() as repl:
        assert repl.run("1").output == "1\n"
        assert "NameError" in repl.run("context").error


def test_the_hosts_values_are_copies():
    value = {"list": [1]}
    with Sandbox({"context": value}, {"give": lambda: value}) as repl:
        repl.run("context['list'].append(2)\ngive()['list'].append(3)")
    assert value == {"list": [1]}
