"""Limits, failures and concurrency of the whole tree: nothing is exceeded, lost or left behind.

What fails, fails in three places (`PLACES`): at the root, in a child three levels down, in one item
of a batch. Not here: what the client makes of single responses (test_client.py), what a cell may do
(the sandbox's tests).
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import (
    CASES,
    ROOT,
    Script,
    cases,
    command,
    descendants,
    follow,
    is_rlm,
    linux_only,
    over_http,
    repl,
    start,
    table,
    until,
    workers,
)
from server import Fault, Server

from rlm import RLM, Completion, ModelError, Reply, RLMError, Usage

LOOP = repl("while True:\n    pass")
TREE = repl("FINAL(llm_query_batched([f'q{i}' for i in range(20)]))")


# ---- Limits
@pytest.mark.parametrize("concurrency", [1, 4, 32])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
def test_max_calls_is_never_exceeded(limit, concurrency):
    """Children, batches, single calls: one account. The root's last question is outside of it."""
    script = Script(
        repl("llm_query_batched(['CHILD'] * 5, ['-'] * 5, recurse=True)"),
        "the best I can say",
        CHILD=[repl("llm_query_batched(['q'] * 5)"), repl("FINAL('done')")],
    )
    done = RLM(model=script, max_calls=limit, concurrency=concurrency).completion("Q", "c")
    assert (done.answer, done.finish_reason) == ("the best I can say", "limit")
    assert len(script.requests) == done.usage.calls == limit + 1
    assert script.requests[-1][1]["content"] == script.requests[0][1]["content"]


def test_calls_that_fail_are_calls_too():
    """Else a loop that tries for ever would never reach the limit."""
    code = "for i in range(100):\n    try:\n        llm_query('q')\n    except RuntimeError:\n        pass"
    _, script = follow(repl(code), "the best", leaf=lambda text: 1 / 0, max_calls=10, max_turns=1)
    assert len(script.requests) == 11


def test_calls_in_flight_never_add_up_to_more_than_max_calls():
    """All calls are held until no more come: they are reserved before, not counted after."""
    started, lock, seen = threading.Semaphore(0), threading.Lock(), []

    def leaf(text):
        with lock:
            seen.append(text)
        started.release()
        release.wait(10)
        return "leaf"

    release = threading.Event()
    script = Script(TREE, "best", leaf=leaf)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(RLM(model=script, max_calls=8, concurrency=16).completion, "Q", "c")
        assert all(started.acquire(timeout=10) for _ in range(7))
        assert not started.acquire(timeout=0.2)
        release.set()
        assert future.result().finish_reason == "limit"
    assert len(seen) == 7


LIMITS = {"max_calls": 5, "max_tokens": 500, "max_cost": 2.1}  # 5 calls of 120 tokens and $0.5


def paid(text: str) -> Reply:
    return Reply(text, prompt_tokens=100, completion_tokens=20, cost=0.5)


@pytest.mark.parametrize("call", ["llm_query('q')", "llm_query_batched(['q'])"])
@pytest.mark.parametrize("limit", LIMITS)
def test_code_that_asks_for_more_is_told_which_limit(limit, call):
    """And may end the run with what it has; else the root is asked for its best answer."""
    code = f"""
        found = 0
        try:
            while True:
                found += len({call}) > 0
        except Exception as e:
            print("told:", type(e).__name__, e)
            context == "c" or FINAL(found)
    """
    script = Script(paid(repl(code)), paid("the best"), leaf=lambda text: paid("leaf"))
    engine = RLM(model=script, **{limit: LIMITS[limit]})
    done = engine.completion("Q", "c")
    assert (done.answer, done.finish_reason) == ("the best", "limit")
    assert len(script.requests) == done.usage.calls == 6
    assert re.search(f"told: .*{limit}", done.messages[3]["content"])
    assert (done.usage.cost, done.usage.prompt_tokens) == (0.5 * 6, 100 * 6)
    done = engine.completion("Q", "end with what is there")
    assert (done.answer, done.finish_reason, done.usage.calls) == (4, "final", 5)


def test_what_was_paid_for_in_a_batch_that_ends_at_a_limit_is_shown():
    batch = repl("llm_query_batched(['q'] * 9)")
    done, _ = follow(batch, "best", leaf=lambda text: "PAID FOR", max_calls=4, concurrency=1)
    assert done.messages[3]["content"].count("PAID FOR") == 3


def test_what_was_paid_for_is_there_when_max_seconds_ends_a_call():
    late = repl("try:\n    llm_query('slow')\nexcept RuntimeError:\n    FINAL(x)")
    leaf = lambda text: time.sleep(1.5) if "slow" in text else "PAID"
    assert follow(repl("x = llm_query('q')"), late, leaf=leaf, max_seconds=1)[0].answer == "PAID"


@pytest.mark.parametrize("limit", ["max_tokens", "max_cost"])
def test_at_most_the_calls_in_flight_go_over(limit):
    script = Script(paid(TREE), paid("best"), leaf=lambda text: paid("leaf"))
    done = RLM(model=script, concurrency=3, **{limit: LIMITS[limit]}).completion("Q", "c")
    assert done.finish_reason == "limit"
    assert 5 <= done.usage.calls - 1 <= 5 + 3
    assert len(script.requests) == done.usage.calls


def test_max_cost_counts_by_the_prices():
    prices = {"some-model": (1_000_000, 1_000_000, 1_000_000)}  # a dollar a token
    done, _ = over_http(Script(TREE, "best"), prices=prices, max_cost=1, concurrency=1)
    assert (done.answer, done.finish_reason, done.usage.calls) == ("best", "limit", 2)


def test_children_end_with_the_limit_and_the_root_is_asked_once():
    """A child is not asked for an answer of its own: the last question is for the root."""
    down = "r = llm_query('LEVEL{}', '-', recurse=True)\nFINAL(r)"
    below = {"LEVEL1": [repl(down.format(2))], "LEVEL2": [repl(down.format(3))]}
    below["LEVEL3"] = [repl("r = llm_query('q')")]
    done, script = follow(repl(down.format(1)), "the best", **below, max_calls=7, max_depth=4)
    assert (done.answer, done.finish_reason, done.depth) == ("the best", "limit", 4)
    levels = [re.search(r"LEVEL\d|$", m[1]["content"])[0] for m in script.requests if is_rlm(m)]
    assert levels == ["", "LEVEL1", "LEVEL2", "LEVEL3", "LEVEL3", ""]
    assert "max_calls" in done.messages[3]["content"]


@cases
def test_max_seconds_bounds_everything_that_waits(what, code, leaf):
    script = Script(code, "the best", leaf=lambda text: leaf, LOOP=[LOOP])
    done, _ = over_http(script, max_seconds=1.1, concurrency=4, tries=10)
    assert (done.answer, done.finish_reason) == ("the best", "limit")
    assert 1 < done.seconds < 4


@pytest.mark.parametrize("max_depth", [0, 1])
@pytest.mark.parametrize("fault", [Fault(then="hang"), Fault(200, b"{", then="drip"), Fault(503)])
def test_a_server_that_never_answers_is_left_soon(fault, max_depth):
    """What the last question gets is bounded by the limit that was set, too."""
    begin = time.monotonic()
    with pytest.raises(RLMError):
        over_http(fault, max_depth=max_depth, max_seconds=1, tries=10)
    assert time.monotonic() - begin < 5


# ---- Failures
PLACES = ["root", "deep", "batch"]


def play(place: str, *trouble, leaf=lambda text: "leaf", **options) -> tuple[Completion, Script]:
    """A run in which one RLM, at `place`, is answered with the replies `trouble`."""
    down = "FINAL(llm_query('LEVEL{}', '-', recurse=True))"
    catch = f"try:\n    {down.format(3)}\nexcept RuntimeError as e:\n    FINAL(f'lost: {{e}}')"
    batch = "r = llm_query_batched(['OTHER', 'TROUBLE', 'OTHER'], ['-'] * 3, recurse=True)"
    replies = {
        "root": [repl("kept = llm_query('q')"), *trouble],
        "deep": [repl(down.format(1))],
        "batch": [repl(f"{batch}\nprint(r)"), repl("FINAL(r)")],
    }[place]
    below = {"LEVEL1": [repl(down.format(2))], "LEVEL2": [repl(catch)], "LEVEL3": [*trouble]}
    below |= {"TROUBLE": [*trouble], "OTHER": [repl("FINAL('other')")]}
    script = Script(*replies, leaf=leaf, **below)
    options = {"tries": 2, "timeout": 1, "max_depth": 4, "max_turns": 4} | options
    done, script.server = over_http(script, **options)
    return done, script


def went_well(place: str, done: Completion, what: str = "fine") -> bool:
    return done.answer == (["other", what, "other"] if place == "batch" else what)


def is_lost(place: str, done: Completion, why: str) -> bool:
    """Whether the code that asked got an exception, or a None that the output explains."""
    if place == "deep":
        return done.answer.startswith("lost: llm_query failed: ") and why in done.answer
    return done.answer == ["other", None, "other"] and why in done.messages[3]["content"]


def one_by_one(*replies) -> Callable:
    """A reply that is another one each time it is asked for, whatever was asked."""
    left = list(replies)
    return lambda messages: left.pop(0) if len(left) > 1 else left[0]


FINE = repl("FINAL('fine')")


@pytest.mark.parametrize("place", PLACES)
def test_passing_failures_change_nothing(place):
    passing = CASES["test_passing_failures_change_nothing"]
    done, script = play(place, one_by_one(*passing, FINE), tries=5)
    assert went_well(place, done)
    usage = {name: getattr(done.usage, name) for name in script.server.usage}
    assert usage == dict(script.server.usage)


@pytest.mark.parametrize("place", PLACES)
@cases
def test_a_lasting_failure_is_an_exception_where_it_was_asked_for(reply, why, often, place):
    asked = []
    trouble = lambda messages: asked.append(1) or reply
    if place == "root":
        with pytest.raises(ModelError) as caught:
            play(place, trouble)
        assert why in str(caught.value)
        assert isinstance(caught.value.usage, Usage)
        assert caught.value.usage.calls == 2  # the first turn and its sub-call
        assert caught.value.usage.prompt_tokens > 0
    else:
        done, script = play(place, trouble)
        assert is_lost(place, done, why), done.messages
        assert done.usage.calls == script.server.usage["calls"]
    assert len(asked) in often


@pytest.mark.parametrize("place", ["root", "deep"])
def test_a_server_that_goes_for_good(place):
    """The tree cannot go on either: it is an error with what was used up to then."""
    servers = []
    reply = lambda messages: servers[0].close() or Fault(then="reset")
    code = "r = llm_query('CHILD', '-', recurse=True)" if place == "deep" else "llm_query('q')"
    script = Script(repl(code), reply, CHILD=[reply])
    with Server(script.reply) as server, pytest.raises(ModelError) as caught:
        servers.append(server)
        RLM("m", base_url=server.url, api_key="k", tries=2).completion("Q", "c")
    assert caught.value.usage.calls == server.usage["calls"] >= 1


@pytest.mark.parametrize("place", PLACES)
@cases
def test_a_stubborn_model_runs_out_of_turns(habit, code, place):
    """And is then asked for its best answer, whose text is the answer."""
    turns = [code] * (3 if place == "root" else 4)
    done, _ = play(place, *turns, "fine", max_depth={"root": 1, "deep": 4, "batch": 2}[place])
    assert went_well(place, done)
    assert done.finish_reason == ("max_turns" if place == "root" else "final")


def newest_worker() -> int:
    """The worker that was started last: it is the one that calls a tool, where one runs."""
    return max(workers(os.getpid()))


def talk_nonsense() -> None:
    """Write garbage to the host on the worker's own socket, borrowed as a debugger would."""
    call, pid = ctypes.CDLL(None, use_errno=True).syscall, newest_worker()
    pidfd = call(434, pid, 0)  # pidfd_open and pidfd_getfd, which not every Python has
    for entry in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
            borrowed = call(438, pidfd, int(entry), 0)
            if borrowed < 0:
                pytest.skip("this kernel lends no file descriptors")
            os.write(borrowed, b"nonsense\n")
            os.close(borrowed)
    os.close(pidfd)


@linux_only
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGSTOP"])  # it is gone, or never answers
def test_a_worker_that_breaks_is_replaced(sent, place):
    """And the model is told that its variables are gone."""
    code = repl("v = 1\nbreak_it()\nFINAL('believed')")
    told = lambda m: repl("FINAL('fine' if context else 0)") if "gone" in m[-1]["content"] else code
    tools = {"break_it": lambda: os.kill(newest_worker(), getattr(signal, sent))}
    done, _ = play(place, code, told, concurrency=1, cell_seconds=0.3, tools=tools)
    assert went_well(place, done)


@linux_only
@pytest.mark.parametrize("place", PLACES)
def test_a_worker_that_talks_nonsense_is_not_believed(place):
    code = repl("v = 1\nbreak_it()\nFINAL('believed')")
    options = {"concurrency": 1, "tools": {"break_it": talk_nonsense}}
    if place == "root":
        with pytest.raises(RLMError, match="JSON") as caught:
            play(place, code, **options)
        assert caught.value.usage.calls == 3
    else:
        done, _ = play(place, code, **options)
        assert is_lost(place, done, "JSON")


@linux_only
@pytest.mark.parametrize("place", ["root", "deep"])
def test_a_fork_server_that_breaks_is_replaced(place):
    """All workers of all levels die with it; each level is told, and does its cell once more."""

    def kill():
        server = table()[newest_worker()]
        below = descendants(server)
        os.kill(server, signal.SIGKILL)
        assert until(lambda: not below & set(table()))

    told = []
    note = lambda e: e["event"] == "end" and e["kind"] == "cell" and e["error"] and told.append(e)
    trouble = one_by_one(repl("break_it()"), FINE)
    done, _ = play(place, trouble, concurrency=1, tools={"break_it": kill}, on_event=note)
    assert went_well(place, done)
    depths = sorted(event["depth"] for event in told)
    assert depths == ([0] if place == "root" else [0, 1, 2, 3])  # each of them once


@pytest.mark.parametrize("place", PLACES)
def test_out_of_memory_is_an_error_in_the_cell(place):
    code = repl("kept = 'fine'\nblocks = []\nwhile True:\n    blocks.append(bytes(10**7))")
    last = lambda m: repl(f"FINAL(kept if {'MemoryError' in m[-1]['content']} else 'not told')")
    done, _ = play(place, code, last, memory_mb=100)
    assert went_well(place, done)


@pytest.mark.parametrize("path", ["gone/trace.json", ".", "/dev/full"])
def test_a_trace_that_cannot_be_begun_is_told_before_anything_is_paid_for(path, tmp_path):
    script = Script(repl("FINAL(1)"))
    with pytest.raises(RLMError, match=re.escape(str(tmp_path / path))):
        RLM(model=script, trace=tmp_path / path).completion("Q", "c")
    assert not script.requests


@pytest.mark.filterwarnings("ignore:no more events")
@pytest.mark.parametrize("place", PLACES)
def test_a_callback_or_a_trace_that_fails_breaks_nothing(place, tmp_path):
    def on_event(event):
        raise ValueError("from the callback")

    path = tmp_path / "trace.json"
    lose = lambda messages: path.unlink(missing_ok=True) or path.mkdir() or FINE
    done, _ = play(place, lose, trace=path, on_event=on_event)
    assert went_well(place, done)


@linux_only
def test_no_worker_survives_a_host_that_was_killed():
    code = "llm_query_batched(['LOOP', 'WAIT', 'LOOP'], ['-'] * 3, recurse=True)"
    script = Script(repl(code), LOOP=[LOOP], WAIT=[Fault(then="hang")])
    with Server(script.reply) as server, start(server, "Q") as host:
        assert until(lambda: len(workers(host.pid)) >= 4), "the run never began"
        below = descendants(host.pid)
        host.kill()
    assert until(lambda: not below & set(table())), [command(pid) for pid in below & set(table())]


# ---- Ctrl-C and SIGTERM, on the command line
@linux_only
@cases
def test_a_signal_ends_it_cleanly(moment, sent, code, leaf, expected, tmp_path):
    script = Script(code, leaf=lambda text: leaf, LOOP=[LOOP])
    trace = tmp_path / "trace.json"
    with Server(script.reply) as server:
        run = start(server, "Q", "--trace", trace, start_new_session=True)
        assert until(lambda: len(server.requests) >= expected)
        if "cell" in moment:  # a child that computes has used some time on a processor
            assert until(lambda: any(busy(pid) for pid in workers(run.pid)))
        below = descendants(run.pid)
        assert below
        begin = time.monotonic()
        (os.killpg if sent == "SIGINT" else os.kill)(run.pid, getattr(signal, sent))
        out, err = run.communicate(timeout=20)
        assert time.monotonic() - begin < 5
    assert (run.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert re.search(rf"\b{server.usage['calls']} calls?\b", err.decode().splitlines()[-1]), err
    assert until(lambda: not below & set(table()))
    assert isinstance(json.loads(trace.read_text()), list)


def busy(pid: int) -> bool:
    """Whether the process has used a twentieth of a second of processor time."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[11]) + int(fields[12]) >= os.sysconf("SC_CLK_TCK") / 20


# ---- Concurrency
class Gauge:
    """A model that counts calls in flight, threads and workers: the most there were of each."""

    def __init__(self, script: Script) -> None:
        self.script, self.lock = script, threading.Lock()
        self.threads_before = threading.active_count()
        self.now = self.calls = self.threads = self.workers = 0

    def __call__(self, messages: list[dict[str, str]]) -> str:
        with self.lock:
            self.now += 1
            self.calls = max(self.calls, self.now)
            self.threads = max(self.threads, threading.active_count() - self.threads_before)
            self.workers = max(self.workers, len(workers(os.getpid())))
        time.sleep(0.001)  # as a model does: others can come in meanwhile
        with self.lock:
            self.now -= 1
        return self.script(messages)


def nest(width: int) -> Script:
    """Batches in batches, as deep as the context is long; the answer is the number of leaves."""
    code = f"""
        if len(context) > 1:
            parts = llm_query_batched(["down"] * {width}, [context[1:]] * {width}, recurse=True)
        else:
            parts = llm_query_batched(["leaf"] * {width})
        FINAL(sum(map(int, parts)))
    """
    return Script(repl(code), leaf=lambda text: "1")


@linux_only
@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize(("width", "deep"), [(2, 4), (5, 2), (40, 1)])
def test_nested_batches_stay_within_bounds_and_do_not_deadlock(width, deep, concurrency):
    gauge = Gauge(nest(width))
    engine = RLM(model=gauge, max_depth=10, concurrency=concurrency)
    done = engine.completion("Q", "x" * deep)
    assert done.answer == width**deep
    assert done.usage.calls == sum(width**level for level in range(deep + 1))
    assert gauge.calls <= concurrency
    assert gauge.threads <= concurrency + deep
    assert gauge.workers <= concurrency * (deep + 1)


@pytest.mark.parametrize("recurse", [None, False, True])
@pytest.mark.parametrize("concurrency", [2, 16])
def test_a_batch_uses_all_the_slots(concurrency, recurse):
    """So many calls must be in flight together before the first of them is answered."""
    barrier = threading.Barrier(concurrency)
    code = f"FINAL(llm_query_batched(['CHILD'] * 32, ['-'] * 32, recurse={recurse}))"
    leaf = lambda text: str(barrier.wait(3) * 0)
    script = Script(repl(code), leaf=leaf, CHILD=[repl("FINAL(llm_query('q'))")])
    engine = RLM(model=script, concurrency=concurrency, max_turns=1)
    assert engine.completion("Q", "c").answer == ["0"] * 32


def test_batches_in_a_batch_use_all_the_slots():
    barrier = threading.Barrier(16)
    code = "FINAL(llm_query_batched(['CHILD'] * 2, ['-'] * 2, recurse=True))"
    child = [repl("FINAL(''.join(llm_query_batched(['q'] * 8)))")]
    leaf = lambda text: str(barrier.wait(3) * 0)
    assert follow(repl(code), leaf=leaf, CHILD=child, max_turns=1)[0].answer == ["0" * 8] * 2


def test_a_batch_that_fails_a_thousand_times_does_not_flood_the_window():
    leaf = lambda text: {}["broken " * 10]
    script = Script(repl("llm_query_batched(['q'] * 1000)"), "the best", leaf=leaf)
    done = RLM(model=script, max_turns=1, output_chars=2_000).completion("Q", "c")
    assert "1000" in done.messages[3]["content"].replace(",", "")
    assert len(done.messages[3]["content"]) < 8_000


# ---- Nothing is lost, nothing is left
def test_usage_is_what_the_server_counted():
    """A run with retries, failures, children, a batch in a batch, and a limit that ends it."""
    run, lock, count = CASES["a run with everything"], threading.Lock(), [0]

    def leaf(text):
        with lock:
            count[0] += 1
        fault = run["faults"].get(str(count[0]), "leaf")
        return Fault(400, {"error": "no"}) if "bad" in text else fault

    script = Script(*run["replies"], leaf=leaf, CHILD=run["CHILD"])
    done, server = over_http(script, max_calls=40, tries=3)
    assert (done.answer, done.finish_reason) == ("the best", "limit")
    usage = {name: getattr(done.usage, name) for name in server.usage}
    assert usage == dict(server.usage)
    assert usage["calls"] > 25


MANY = f"""
import gc, json, os, sys, tempfile, threading
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from conftest import Script, descendants, repl, until
from rlm import RLM, RLMError

def fail(text):
    raise ConnectionError("broken")

tree = repl("print(llm_query_batched(['CHILD', 'bad'], ['-'] * 2, recurse=True))")
child = repl("FINAL(llm_query('q'))")
model = Script("FINAL(1)", leaf=lambda text: fail(text) if "bad" in text else "leaf",
    CHILD=[child], TREE=[tree, "FINAL(1)"], BROKEN=["no code", fail])
engines = [
    RLM(model=model),
    RLM(model=model, max_calls=3),
    RLM("m", base_url=sys.argv[1], api_key="k"),
    RLM(model=model, trace=os.path.join(tempfile.gettempdir(), "trace.json")),
]

def run(count):
    for i in range(count):
        try:
            engines[i % 4].completion({{0: "TREE", 1: "BROKEN"}}.get(i % 21, "Q"), "context " * 100)
        except RLMError:
            pass
        model.requests.clear()
    gc.collect()

def pages(pid):
    return int(open(f"/proc/{{pid}}/statm").read().split()[1])

def left():
    below = descendants(os.getpid())
    files, temporary = os.listdir("/proc/self/fd"), os.listdir(tempfile.gettempdir())
    return len(files), threading.active_count(), len(below), len(temporary)

run(20)
until(lambda: len(descendants(os.getpid())) == 2)  # the fork server, and the worker that waits
before, pages_before = left(), sum(map(pages, descendants(os.getpid()) | {{os.getpid()}}))
run(280)
until(lambda: left() == before)
after, pages_after = left(), sum(map(pages, descendants(os.getpid()) | {{os.getpid()}}))
print(json.dumps([before, after, (pages_after - pages_before) * os.sysconf("SC_PAGESIZE") / 2**20]))
"""


@linux_only
def test_hundreds_of_completions_leave_nothing_behind(tmp_path):
    """Files, threads, processes, temporary files as after the first few; memory but for some MB."""
    with Server(Script(repl("FINAL(llm_query('q'))")).reply) as server:
        program = [sys.executable, "-c", MANY, server.url]
        env = os.environ | {"TMPDIR": str(tmp_path)}
        run = subprocess.run(program, env=env, check=True, stdout=subprocess.PIPE, timeout=100)
    before, after, grown = json.loads(run.stdout.splitlines()[-1])
    assert after == before
    assert grown < 5


@linux_only
@pytest.mark.parametrize("moment", [1, 7])
def test_a_run_that_is_killed_leaves_a_trace_that_loads(moment, tmp_path):
    code = repl("llm_query_batched(['CHILD'] * 50, ['-'] * 50, recurse=True)")
    script = Script(code, CHILD=[repl("print('x' * 5_000)\nFINAL(llm_query('q'))")])
    with Server(script.reply) as server:
        with start(server, "Q", "--trace", tmp_path / "trace.json") as process:
            assert until(lambda: len(server.requests) >= moment)
            process.kill()
        trace = json.loads((tmp_path / "trace.json").read_text())
    assert any(event["ph"] == "B" for event in trace)
