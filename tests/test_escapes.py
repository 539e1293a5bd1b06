"""Attacks on the sandbox, in a table, each judged by what it does and never by what it says.

Every attack is ordinary Python that has an effect when `exec` runs it: a marker file appears, a secret that the cell was not
given (a variable of the host, its environment, a file) stands in the output, a connection reaches a listener, bytes reach a
pipe, an object that the cell did not make is changed, the next cell finds other tools, the process ends. That is the control:
an attack without an effect under plain `exec` fails the test. Then none may have any effect (1) against both walls together
and (2) against the language wall alone, in a process that may still do everything. (3) The other way round: native code behind
`lock_down` alone.

Not here: what code may do (test_cells.py), and limits and hostile frames (test_sandbox.py).
"""

import abc
import contextlib
import copyreg
import csv
import ctypes
import decimal
import faulthandler
import fcntl
import importlib
import io
import json
import marshal
import multiprocessing
import os
import platform
import resource
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="about Linux's system calls")

# === technique, --- between its attacks (--- 3.12: not on an older Python), %% between the cells of one attack. A cell knows
# `ask` and `client_ask` (functions of the host), `context` (a list of str), `FINAL`, and `loot(x)`, which tries to get
# something out of whatever x is: a frame, a traceback, a namespace, a module, os.system.

PRELUDE, _, TABLE = (TESTS / "attacks.txt").read_text().partition("\n=== ")


def parse(table: str) -> dict[str, list[str]]:
    r"""The attacks that this Python can compile, by name: "=== a\nx\n%%\ny" -> {"a 1": ["x", "y"]}."""
    found = {}
    for part in table.split("\n=== "):
        technique, _, codes = part.partition("\n")
        for number, code in enumerate(f"---\n{codes}".split("\n---"), start=1):
            version, _, code = code.removeprefix("---").partition("\n")
            if not version.strip() or sys.version_info >= tuple(map(int, version.split("."))):
                found[f"{technique} {number}"] = code.strip("\n").split("\n%%\n")
    return found


ATTACKS = parse(TABLE)
PASSES_THE_LANGUAGE_WALL = {  # name: why it may. All of it is harmless in a worker
    "enum 17": "an own Enum reads the table of members that all Enums without members share",
    "writes to what the cell did not make 29": "an own heir reads a private table of its base in the "
    "library of its own worker",
}
CLOSED_BY_PYTHON = {  # some of 3.13 to 3.15 have no such way any more
    *("__match_args__ 17", "dataclasses 6", "functools 10", "import tricks 25"),
    *("heirs, aliases and copies that lie 1", "heirs, aliases and copies that lie 5"),
    *("library code on foreign objects 1", "library code on foreign objects 20"),
    *("library code on foreign objects 22", "library code on foreign objects 25"),
    *("module internals 26", "named tuples 9", "named tuples 10"),
    *("the real type, and raw methods 4", "writes to what the cell did not make 28"),
    *("writes to what the cell did not make 44", "writes to what the cell did not make 46"),
}
AFTER = """
import json, re
print(json.dumps({"a": [1, 2]}), re.sub("a", "b", "a"), ask("x"), client_ask("y"), context[0], len("abc"))
"""

SECRET = os.environ.get("CANARY_SECRET", "")  # set for the helper processes only


def make_ask(secret):
    def ask(prompt, key=SECRET):
        return f"asked {prompt}{secret[:0]}"

    return ask


class Client:
    """A host's object with a key, whose method is a tool."""

    def __init__(self):
        self.key = SECRET

    def ask(self, prompt):
        return f"client asked {prompt}"


ask, client = make_ask(SECRET), Client()
VARIABLES = {"context": ["alpha", "beta"]}
TOOLS = {"ask": ask, "client_ask": client.ask}
LIBRARY = """
    builtins sys abc ast bisect calendar collections collections.abc concurrent.futures
    contextlib copy csv dataclasses datetime decimal difflib enum fractions functools heapq
    html io itertools json math numbers operator pprint random re statistics string textwrap
    time types typing unicodedata urllib.parse
"""
MODULES = [importlib.import_module(name) for name in LIBRARY.split()]
CLASSES = {c for module in MODULES for c in vars(module).values() if isinstance(c, type)} | {Client}
CHANGING = {
    "__warningregistry__",
    "__annotations__",
    "__slotnames__",
    "last_exc",
    "last_value",
    "last_type",
}  # by themselves


def state() -> dict:
    """What a cell must not change, as {where: what stands there}: the tools, the library's modules, classes and functions."""
    found = {"dialects": csv.list_dialects(), "reducers": len(copyreg.dispatch_table)}
    found["decimal"] = decimal.DefaultContext.prec
    functions = [ask, Client.ask]
    for thing in [*MODULES, *CLASSES, client]:
        names = dict(vars(thing))
        for name in CHANGING & names.keys():
            del names[name]
        found[id(thing)] = {name: id(value) for name, value in names.items()}
        for name, value in names.items():
            if type(value) is property:
                found[id(thing), name] = value.fget, value.fset
            elif type(value) is types.FunctionType:
                functions.append(value)
            elif type(value) is dict and type(thing) is not types.ModuleType:
                found[id(thing), name] = {key: id(item) for key, item in value.items()}
        if isinstance(thing, abc.ABCMeta):
            found[id(thing), "registered"] = len(abc._get_dump(thing)[0])
    for f in functions:
        found[id(f)] = (
            f.__code__,
            f.__defaults__,
            f.__name__,
            vars(f).copy(),
            len(f.__annotations__),
        )
    return found


def exec_runner():
    """Plain `exec`, as a function cells -> text: the control."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main).update(VARIABLES | TOOLS, FINAL=print)
    out = sys.stdout = io.StringIO()

    def run(cells):
        secret = SECRET  # for those who climb up to this frame  # noqa: F841
        start = len(out.getvalue())
        for cell in cells:
            try:
                exec(compile(cell, "<cell>", "exec"), vars(main))  # noqa: S102
            except BaseException:  # noqa: BLE001
                io.StringIO.write(out, traceback.format_exc(limit=0))
        return out.getvalue()[start:]

    return run


def interpreter_runner():
    """The language wall alone, in a process that could still do everything."""
    import _strptime  # noqa: F401  # an attack looks there; strptime() would load it

    import sandbox

    sandbox.harden()
    interpreter = sandbox.Interpreter(VARIABLES, TOOLS, 10**7)

    def run(cells):
        secret = SECRET  # noqa: F841
        return "".join(map(str, map(interpreter.run, cells)))

    run(["1 + 1", "def f(): pass\nf()"])
    return run


def forked(run, folder: Path, cells: list[str]) -> tuple[str, list[str]]:
    """Run cells in a fork of this process; return what came out, and the effects seen from inside."""
    report = folder / "report"
    report.unlink(missing_ok=True)
    if not (pid := os.fork()):
        keep_open, dumps, result = open, marshal.dumps, ("", ["the report is missing"])
        faulthandler.dump_traceback_later(10, exit=True, file=keep_open(os.devnull, "w"))
        try:
            text = run(cells)
            after = run([AFTER])
            result = (
                text,
                ["an object of the host is changed"] if state() != forked.state else [],
                after,
            )
        finally:
            with keep_open(report, "wb") as file:
                file.write(dumps(result))
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status or not report.exists():
        return "", [f"the process ended: {status}"]
    text, effects, *after = marshal.loads(report.read_bytes())
    if after and after[0] != forked.after:
        effects.append(f"the next cell is changed: {after[0]}")
    return text, effects


def in_sandbox(folder: Path, cells: list[str]) -> tuple[str, list[str]]:
    """Run cells behind both walls; return what came out, and the effects seen from outside.

    A cell may spoil its own session: what counts is what the next run finds.
    """
    import sandbox

    text = ""
    how = {"cell_seconds": 3, "output_chars": 10**6}
    lies = contextlib.suppress(sandbox.SandboxError)
    with lies, sandbox.Sandbox(VARIABLES, TOOLS, **how) as repl:
        for cell in cells:
            text += str(repl.run(cell))
    with sandbox.Sandbox(VARIABLES, TOOLS, output_chars=10**6) as repl:
        after = str(repl.run(AFTER))
    if after != in_sandbox.after:
        return text, [f"the next run is changed: {after}"]
    return text, []


def helper(mode: str, folder: Path, attacks: dict[str, list[str]]) -> dict[str, dict]:
    """Run every attack one way, in this process or forks of it: {name: {"effects": [...], "text": ...}}."""
    marker, canary, found = folder / "marker", folder / "canary", {}
    canary.write_text(SECRET)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    pipe, inherited = os.pipe()
    os.set_blocking(pipe, False)
    if mode == "sandbox":
        run = in_sandbox
    else:
        runner = exec_runner() if mode == "exec" else interpreter_runner()
        run = lambda folder, cells: forked(runner, folder, cells)
    values = {"$MARKER": marker, "$CANARY": canary, "$PORT": listener.getsockname()[1]}

    def fill(code):
        for name, value in values.items():
            code = code.replace(name, str(value))
        return code

    # what the next cell says when nothing is wrong, with and without a first one before it
    if mode == "sandbox":
        import sandbox

        untouched = state()
        with sandbox.Sandbox(VARIABLES, TOOLS, output_chars=10**6) as repl:
            in_sandbox.after = str(repl.run(AFTER))
    else:
        forked.after, forked.state = runner([AFTER]), state()
    for name, cells in attacks.items():
        text, effects = run(folder, [fill(PRELUDE), *map(fill, cells)])
        if marker.exists():
            effects.append("the marker was written")
            marker.unlink()
        if SECRET in text:
            effects.append("the secret came out")
        with contextlib.suppress(BlockingIOError):
            while listener.accept():
                effects.append("connected")
        with contextlib.suppress(BlockingIOError):
            if os.read(pipe, 1 << 16):
                effects.append("wrote to an open file descriptor")
        found[name] = {"effects": effects, "text": text.replace(SECRET, "SECRET")[-2000:]}
    if mode == "sandbox":
        found["the host"] = {
            "effects": ["an object is changed"] * (state() != untouched),
            "text": "",
        }
    os.close(inherited)
    return found


NATIVE_TABLE = (TESTS / "native.txt").read_text()
NATIVE_USES = fcntl, multiprocessing, resource, select, threading  # loaded before doors are locked
NATIVE = {
    part.partition("\n")[0]: part.partition("\n")[2]
    for part in f"\n{NATIVE_TABLE}".split("\n=== ")[1:]
}


def machine_code(number: int, first: bytes | int, second: int) -> None:
    """Make one system call by the 32-bit entry of x86-64, whose numbers mean other calls than those of 64 bits."""
    if platform.machine() != "x86_64":
        return
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(
        None, 4096, 7, 0x62, -1, 0
    )  # to read, write and run; private, anonymous, below 2 GiB
    if isinstance(first, bytes):
        ctypes.memmove(page + 1024, first + b"\0", len(first) + 1)
        first = page + 1024
    steps = (
        b"\x53\xb8" + struct.pack("I", number) + b"\xbb" + struct.pack("I", first)
    )  # push rbx; mov eax, ..; mov ebx, ..
    steps += (
        b"\xb9" + struct.pack("I", second) + b"\xcd\x80\x5b\xc3"
    )  # mov ecx, ..; int 0x80; pop rbx; ret
    ctypes.memmove(page, steps, len(steps))
    ctypes.CFUNCTYPE(ctypes.c_int)(page)()


def native(folder: Path, attacks: dict[str, str]) -> dict:
    """Run raw Python in forks of this process, free and behind lock_down: {"free": {name: effects}, "locked": ..., "walls": ...}."""
    import sandbox

    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    marker, canary, empty = folder / "marker", folder / "canary", folder / "empty"
    library = shutil.copy(sys.modules["_ctypes"].__file__, folder / "library.so")
    walls, report = os.pipe()
    if not os.fork():
        os.write(report, " ".join(sandbox.lock_down(256)).encode())
        os._exit(0)
    os.wait()
    found = {"walls": os.read(walls, 1000).decode().split()}
    for mode in ("free", "locked"):
        found[mode] = {}
        for name, code in attacks.items():
            for path in (marker, canary, empty):  # undo what the last one did
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
            canary.write_text(SECRET)
            empty.mkdir()
            was = canary.stat()
            if not (victim := os.fork()):
                signal.pause()
            answer, report = os.pipe()
            names = {
                "VICTIM": victim,
                "REPORT": report,
                "PORT": listener.getsockname()[1],
                "LIBRARY": library,
            }
            names |= {
                "FOLDER": str(folder),
                "MARKER": str(marker),
                "CANARY": str(canary),
                "EMPTY": str(empty),
            }
            if not (child := os.fork()):
                run_native(code, mode == "locked", names)
            os.close(report)
            os.waitpid(child, 0)
            with open(answer, "rb") as file:
                effects = [f"said {line}" for line in file.read().decode().splitlines()]
            effects += ["the marker exists"] * os.path.lexists(marker)
            if not canary.exists() or canary.read_text() != SECRET:
                effects.append("the canary is changed")
            elif (now := canary.stat()) and (now.st_mode, now.st_mtime, now.st_uid) != (
                was.st_mode,
                was.st_mtime,
                was.st_uid,
            ):
                effects.append("the canary has other attributes")
            effects += ["the folder is gone"] * (not empty.exists())
            with contextlib.suppress(BlockingIOError):
                while listener.accept():
                    effects.append("connected")
            with contextlib.suppress(ProcessLookupError):  # after what else may be under way
                os.kill(victim, signal.SIGRTMAX)
                os.kill(victim, signal.SIGCONT)
            if os.WTERMSIG(os.waitpid(victim, 0)[1]) != signal.SIGRTMAX:
                effects.append("the victim is dead")
            found[mode][name] = effects
    return found


def run_native(code: str, locked: bool, names: dict) -> None:
    """Be the child that runs raw Python; what it wins it says on its report, a pipe."""
    import sandbox

    faulthandler.dump_traceback_later(5, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    libc = ctypes.CDLL(None)
    names |= {
        "libc": libc,
        "libc_word": ctypes.c_long(1),
        "won": lambda what: os.write(names["REPORT"], f"{what!r}\n".encode()),
    }
    try:
        if locked:
            sandbox.lock_down(256)
        exec(code, globals() | names)  # noqa: S102
    finally:
        os._exit(0)


def run_helper(call: str, folder: Path, **environment: str) -> dict:
    """What `call`, an expression about this module, returns in a process of its own."""
    code = f"import sys, json; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]}; import test_escapes as t; from pathlib import "
    code += (
        f"Path; result = {call}; open({str(folder / 'result')!r}, 'w').write(json.dumps(result))"
    )
    secret = {"CANARY_SECRET": f"canary_{secrets.token_hex(8)}"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=os.environ | secret | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert not done.returncode, done.stderr
    return json.loads((folder / "result").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    """What all the attacks did in all the ways to run them: {"exec" | "language" | ...: {name: {"effects": ..., "text": ...}}}.

    The processes that pytest-xdist runs share one try.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(shared / "escapes.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = shared / "escapes.json"
        if not kept.exists():
            kept.write_text(json.dumps(run_all(tmp_path_factory)))
        return json.loads(kept.read_text())


def run_all(tmp_path_factory) -> dict[str, dict]:
    """Run all the attacks in all the ways, side by side."""
    calls = {"native": "t.native(Path({!r}), t.NATIVE)"} if sys.platform == "linux" else {}
    for mode in ("exec", "language", "sandbox"):
        calls[mode] = f"t.helper({mode!r}, Path({{!r}}), t.ATTACKS)"
    folders = [tmp_path_factory.mktemp(mode) for mode in calls]
    calls = {mode: call.format(str(folder)) for (mode, call), folder in zip(calls.items(), folders)}
    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(run_helper, calls.values(), folders)))


def test_table_is_as_large_as_it_says():
    techniques = Counter(name.rpartition(" ")[0] for name in ATTACKS)
    assert len(ATTACKS) >= 180 and len(NATIVE) >= 25
    assert {technique for technique, attacks in techniques.items() if attacks < 5} == set()


@pytest.mark.parametrize("name", ATTACKS)
def test_control_the_attack_works_under_exec(results, name):
    if name in CLOSED_BY_PYTHON and not results["exec"][name]["effects"]:
        pytest.skip("this Python has closed it itself")
    assert results["exec"][name]["effects"], results["exec"][name]["text"]


@pytest.mark.parametrize("name", ATTACKS)
def test_language_wall_alone(results, name):
    """In both directions: the table of what passes can neither grow nor be stale unseen."""
    passes = bool(results["language"][name]["effects"])
    told = "\n".join([*ATTACKS[name], str(results["language"][name])])
    assert passes == (name in PASSES_THE_LANGUAGE_WALL), told


@pytest.mark.parametrize("name", [*ATTACKS, "the host"])
def test_both_walls(results, name):
    assert not results["sandbox"][name]["effects"], "\n".join(
        [*ATTACKS.get(name, []), str(results["sandbox"][name])]
    )


@linux_only
@pytest.mark.parametrize("name", NATIVE)
def test_process_wall_alone(results, name):
    found = results["native"]
    assert "rlimits" in found["walls"]
    if "seccomp" not in found["walls"]:
        pytest.skip("seccomp does not hold here")
    if name.endswith("?") and not found["free"][name]:
        pytest.skip("this machine does not let anybody do it")
    assert found["free"][name], "the control had no effect"
    assert not found["locked"][name]
