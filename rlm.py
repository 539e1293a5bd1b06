"""Recursive Language Models: a model that reads what does not fit its window by writing code.

    done = RLM(model="gpt-5-mini").completion("Who won the pageant in 1998?", context=documents)

The context is a variable in a REPL (sandbox.py), not part of the prompt. The model writes code that
looks at it and asks sub-calls about the pieces: `llm_query` is one model call when the piece fits,
and else a child RLM with a REPL of its own, to any depth (Zhang, Kraska, Khattab, arXiv 2512.24601).
In order: records, the RLM and its recursion, the tree that all levels share, the HTTP client, the
trace and the live view, the command line. Not here: what is said to models (prompts/), streaming,
tool-call APIs, other APIs than chat completions.
"""

import argparse
import ast
import contextlib
import functools
import heapq
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import string
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

if __package__:
    from .sandbox import Sandbox, SandboxError
else:
    from sandbox import Sandbox, SandboxError

OPENAI = "https://api.openai.com/v1"
LOCK = threading.Lock()
TRACED = set()  # the trace files that this process has begun

# ------------------------------------------------------------------------- records: what goes in and out


class RLMError(Exception):
    """A run that cannot go on. `usage` holds what it has cost so far."""

    usage: "Usage | None" = None


class ModelError(RLMError):
    """The model or its server failed, and trying again did not or would not help."""


class LimitReached(RLMError):
    """One of the limits of the tree is reached; the message says which."""


@dataclass
class Reply:
    """What a model said, the tokens that this took, and its cost in dollars where known."""

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass
class Usage:
    """Calls, tokens and dollars of a whole tree; `cost` is None where nobody reported one."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    models: dict[str, "Usage"] = field(default_factory=dict)

    def add(self, other: "Usage | Reply") -> None:
        """Add the tokens and the cost of a reply."""
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        if other.cost is not None:
            self.cost = (self.cost or 0) + other.cost

    def __str__(self):
        tokens = f"{self.prompt_tokens + self.completion_tokens:,} tokens"
        cached = f" ({self.cached_tokens:,} cached)" if self.cached_tokens else ""
        cost = "" if self.cost is None else f" · ${self.cost:.4f}"
        return f"{self.calls:,} calls · {tokens}{cached}{cost}"


@dataclass
class Completion:
    """The answer (any JSON value), how the run ended, what it cost, and the root's conversation.

    finish_reason: "final", "max_turns" or "limit"; depth: the deepest level reached; turns: those of
    the root; messages: exactly what was sent, with the replies.
    """

    answer: Any
    finish_reason: str
    usage: Usage
    depth: int
    turns: int
    seconds: float
    messages: list[dict]

    def __str__(self):
        return as_text(self.answer)


def as_text(value) -> str:
    """Return a str as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def option(default, help: str, **more):
    """Return a field of `RLM` that is a flag of the command line too, if it has a type."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"help": help, **more})


# --------------------------------------------------------------------------- the RLM and its recursion


@dataclass
class RLM:
    """A recursive language model: its fields are the configuration of every level.

    It can be pickled and shared between threads. `model` is a name for the HTTP API or a callable
    `messages -> str | Reply`. `on_event` gets a dict for every step, see `Tree.span`.
    """

    model: str | Callable = option(
        lambda: os.environ.get("RLM_MODEL", "gpt-5-mini"), "name of the model", type=str
    )
    sub_model: str | Callable | None = option(
        None, "model below the root (default: model)", type=str
    )
    base_url: str = option(
        lambda: os.environ.get("OPENAI_BASE_URL", OPENAI), "an OpenAI-compatible API", type=str
    )
    api_key: str | None = option(
        lambda: os.environ.get("OPENAI_API_KEY"), "key of the API", type=str
    )
    options: dict = option(dict, "more fields of each request, such as temperature")
    max_depth: int = option(3, "from this depth on, calls are plain model calls", type=int)
    max_turns: int = option(30, "turns of each RLM before it must answer", type=int)
    leaf_chars: int = option(100_000, "characters that fit one plain call", type=int)
    max_calls: int | None = option(None, "limit of model calls, whole tree", type=int)
    max_tokens: int | None = option(None, "limit of tokens, whole tree", type=int)
    max_cost: float | None = option(None, "limit of dollars, whole tree", type=float)
    max_seconds: float | None = option(None, "limit of seconds, whole tree", type=float)
    concurrency: int = option(16, "model calls in flight at once, whole tree", type=int)
    output_chars: int = option(10_000, "REPL output shown to the model per turn", type=int)
    cell_seconds: float = option(60, "CPU seconds of one cell", type=float)
    memory_mb: int = option(2048, "MiB of one worker beyond its context", type=int)
    timeout: float = option(600, "seconds to wait for one answer", type=float)
    tries: int = option(5, "tries of a call that fails for now", type=int)
    prices: dict = option(dict, "{model: (input, cached, output) dollars per million tokens}")
    prompts: str = option(
        lambda: str(Path(__file__).parent / "prompts"), "folder of prompts", type=str
    )
    trace: str | None = option(None, "file for a trace in the Chrome Trace Event format", type=str)
    tools: dict = option(dict, "{name: function} more functions for the REPL")
    on_event: Callable | None = option(None, "called with every event")

    def completion(self, prompt: str, context: Any = None) -> Completion:
        """Answer `prompt` about `context`, any JSON value; without one, the prompt is the context.

        Raises RLMError, with the usage so far on it, when the run cannot go on.
        """
        if context is None and self.max_depth > 0:
            prompt, context = self.say("whole"), prompt
        tree = Tree(self)
        try:
            return Level(tree, self, prompt, context).complete()
        except RLMError as error:
            error.usage = tree.usage
            raise
        finally:
            tree.stop()

    def say(self, name: str, **values) -> str:
        """Return the prompt `name`, filled in."""
        return template(self.prompts, name).substitute(values).strip()


@functools.cache
def template(folder: str, name: str) -> string.Template:
    try:
        return string.Template((Path(folder) / f"{name}.txt").read_text("utf-8"))
    except OSError as error:
        raise RLMError(f"the prompt {name!r} cannot be read: {error}") from None


@dataclass
class Level:
    """One RLM of the tree: the root, or a child that a sub-call started."""

    tree: "Tree"
    rlm: RLM
    prompt: str
    context: Any
    depth: int = 0
    parent: int | None = None  # the event that this one happens in

    def complete(self) -> Completion:
        """Ask the model for code and run it, turn by turn, until it calls FINAL."""
        began, tree, rlm = time.monotonic(), self.tree, self.rlm
        tree.deepest = max(tree.deepest, self.depth)
        about = {
            "model": tree.name(rlm.model),
            "prompt": self.prompt,
            "context": describe(self.context),
        }
        with tree.span("completion", self.parent, self.depth, **about) as span:
            self.parent, self.turns = span["id"], 0
            try:
                answer, reason = self.converse()
            finally:
                span.update(turns=self.turns, messages=self.messages, usage=asdict(tree.usage))
            span.update(answer=answer, finish_reason=reason)
        seconds = time.monotonic() - began
        return Completion(
            answer, reason, tree.usage, tree.deepest, self.turns, seconds, self.messages
        )

    def converse(self) -> tuple[Any, str]:
        """Return the answer and the reason why the conversation ended."""
        rlm, self.messages, self.notes = self.rlm, [], []
        if self.depth >= rlm.max_depth:  # the root at max_depth=0: the model alone
            text = self.prompt if self.context is None else self.leaf(self.prompt, self.context)
            self.messages.append({"role": "user", "content": text})
            return self.ask(), "final"
        tools = {
            "llm_query": self.llm_query,
            "llm_query_batched": self.llm_query_batched,
            **rlm.tools,
        }
        limits = {
            name: getattr(rlm, name) for name in ("cell_seconds", "memory_mb", "output_chars")
        }
        with contextlib.closing(Sandbox({"context": self.context}, tools, **limits)) as repl:
            self.tree.repls.add(repl)
            self.messages += [
                {"role": "system", "content": self.system()},
                {"role": "user", "content": self.rlm.say(
                    "task", prompt=self.prompt, description=describe(self.context))},
            ]  # fmt: skip
            try:
                while self.turns < rlm.max_turns:
                    self.turns += 1
                    if (final := self.turn(repl)) is not None:
                        return final.value, "final"
                return self.last(f"all {rlm.max_turns} turns are used"), "max_turns"
            except LimitReached as limit:
                if self.depth:
                    raise
                return self.last(str(limit), free=True), "limit"
            finally:
                self.tree.repls.discard(repl)

    def system(self) -> str:
        """Return the system prompt."""
        rlm = self.rlm
        tools = [
            f"- `{name}{inspect.signature(tool)}`: {(inspect.getdoc(tool) or '').partition(chr(10))[0]}"
            for name, tool in rlm.tools.items()
        ]
        longer = rlm.say("longer" if self.depth + 1 < rlm.max_depth else "longest")
        limits = {"output_chars": f"{rlm.output_chars:,}", "leaf_chars": f"{rlm.leaf_chars:,}"}
        return rlm.say(
            "system", tools="\n".join(tools), longer=longer, max_turns=rlm.max_turns, **limits
        )

    def turn(self, repl: Sandbox):
        """Ask for code, run it, and append what it printed; return the Final, or None."""
        with self.tree.span("turn", self.parent, self.depth, turn=self.turns) as span:
            reply = self.ask(span["id"])
            outputs, final = [], None
            for code in (blocks := code_blocks(reply)):
                final, output, failed = self.cell(repl, code, span["id"])
                outputs.append(output)
                if final or failed:
                    break
            else:
                if (found := textual_final(FENCED.sub("", reply))) is not None:
                    final, output, _ = self.cell(repl, found, span["id"])
                    outputs.append(output)
                elif not blocks:
                    outputs.append(self.rlm.say("remind"))
            if final is None:
                text = self.rlm.say("turn", output="\n".join(outputs), left=self.left())
                self.messages.append({"role": "user", "content": text})
            return final

    def cell(self, repl: Sandbox, code: str, parent: int):
        """Run one cell; return its Final or None, its output with any error, whether it failed."""
        with self.tree.span("cell", parent, self.depth, code=code) as span:
            self.here, self.notes = span["id"], []
            try:
                output, error, final = repl.run(code, self.tree.left())
            except SandboxError as broken:
                output, error, final = "", f"SandboxError: {broken}; your variables are gone", None
            parts = [output.rstrip("\n"), *self.notes, error]
            text = "\n".join(part for part in parts if part) or "(no output)"
            span.update(output=text, error=error)
        return final, text, error is not None

    def left(self) -> str:
        """Return the line that tells the model what is left."""
        left = [f"turn {self.turns} of {self.rlm.max_turns}"]
        for name in ("calls", "tokens", "cost"):
            if (limit := getattr(self.tree.rlm, f"max_{name}")) is not None:
                left.append(f"{self.tree.used(name):,.6g} of {limit:,} {name} used")
        seconds = self.tree.left()
        return ", ".join(left + ([f"{seconds:.0f} s left"] if seconds is not None else []))

    def last(self, reason: str, free: bool = False):
        """Ask outright for the best answer; `free`: outside the limits."""
        text = self.rlm.say("last", reason=reason)
        self.messages.append({"role": "user", "content": text})
        reply = self.ask(free=free)
        found = textual_final(reply) or textual_final("\n".join(code_blocks(reply)))
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(found[len("FINAL(") : -1])
        return reply

    def ask(self, parent: int | None = None, free: bool = False) -> str:
        """Ask this level's model, and append its reply to the conversation."""
        reply = self.tree.ask(self.rlm, self.messages, parent or self.parent, self.depth, free)
        self.messages.append({"role": "assistant", "content": reply})
        return reply

    def leaf(self, prompt: str, context: Any) -> str:
        """Return the message of a plain call."""
        return self.rlm.say("leaf", prompt=prompt, context=as_text(context))

    # What the model's code calls: the recursion

    def llm_query(self, prompt, context=None, recurse=None):
        """Answer `prompt` about `context`: with one model call if it fits, else with a child RLM."""
        try:
            return self.query(prompt, context, recurse, self.here)
        except RLMError as error:
            raise RuntimeError(f"llm_query failed: {error}") from error

    def query(self, prompt, context, recurse, parent) -> str:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, not {type(prompt).__name__}")
        rlm, depth = self.rlm, self.depth + 1
        size = len(prompt) + (0 if context is None else len(as_text(context)))
        child = replace(rlm, model=rlm.sub_model or rlm.model)
        if depth < rlm.max_depth and recurse is not False and (recurse or size > rlm.leaf_chars):
            question = rlm.say("whole") if context is None else prompt
            below = Level(
                self.tree, child, question, prompt if context is None else context, depth, parent
            )
            return as_text(self.tree.with_stack(below.complete, depth).answer)
        if size > rlm.leaf_chars:
            raise ValueError(
                f"{size:,} characters do not fit one plain call ({rlm.leaf_chars:,}): cut them up"
                + (", or let recurse=None start a child" if depth < rlm.max_depth else "")
            )
        self.tree.deepest = max(self.tree.deepest, depth)
        text = prompt if context is None else self.leaf(prompt, context)
        return self.tree.ask(child, [{"role": "user", "content": text}], parent, depth)

    def llm_query_batched(self, prompts, contexts=None, recurse=None):
        """Answer many prompts, side by side, in order; None stands for one that failed."""
        contexts = [None] * len(prompts) if contexts is None else contexts
        if isinstance(prompts, str) or isinstance(contexts, str) or len(prompts) != len(contexts):
            raise ValueError("prompts and contexts must be lists of the same length")
        answers, failures = [None] * len(prompts), {}
        with self.tree.span("batch", self.here, self.depth, total=len(prompts)) as span:

            def one(i):
                try:
                    answers[i] = self.query(prompts[i], contexts[i], recurse, span["id"])
                except Exception as error:  # noqa: BLE001 - the others must not be lost
                    failures[i] = error
                done = len(prompts) - answers.count(None) + len(failures)
                self.tree.emit("progress", "batch", span["id"], span["parent"], self.depth,
                               done=done, total=len(prompts))  # fmt: skip

            self.tree.side_by_side(one, len(prompts), max(self.rlm.max_depth - self.depth - 1, 0))
            span.update(failed=len(failures))
        for i, error in sorted(failures.items()):
            self.notes.append(f"llm_query_batched: item {i} failed: {error}")
            if isinstance(error, LimitReached):
                raise RuntimeError(f"llm_query_batched failed: {error}") from error
        return answers


FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?:repl|python|py)\b[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S
)
FINALS = re.compile(r"^[ \t>*`]*(FINAL|FINAL_VAR)\(", re.M)


def code_blocks(reply: str) -> list[str]:
    """Return the code in a reply: "hm\\n```repl\\nx = 1\\n```" has ["x = 1\\n"]."""
    return FENCED.findall(reply)


def textual_final(text: str) -> str | None:
    """Return the code for a final outside code: "So:\\nFINAL(a (b))" has 'FINAL("a (b)")'.

    It begins a line and its last bracket ends one; what merely mentions FINAL(...) does not.
    """
    for found in FINALS.finditer(text):
        depth, rest = 1, text[found.end() :]
        for end in re.finditer(r"[()]", rest):
            depth += 1 if end.group() == "(" else -1
            if depth == 0:
                break
        tail = rest[end.end() :].partition("\n")[0] if depth == 0 else "unbalanced"
        if tail.strip(" \t*`.") and rest.rstrip(" \t\n*`.").endswith(")"):
            end, tail = list(re.finditer(r"\)", rest))[-1], ""  # a bracket in the answer misled us
        if tail.strip(" \t*`."):
            continue
        inside = rest[: end.start()].strip()
        if found.group(1) == "FINAL_VAR":
            return f"FINAL({inside.strip(chr(34) + chr(39))})"
        with contextlib.suppress(ValueError, SyntaxError):
            inside = value if isinstance(value := ast.literal_eval(inside), str) else inside
        return f"FINAL({inside!r})"
    return None


def describe(value: Any) -> str:
    """Return the type and the sizes of a context, in a line or a few."""
    if isinstance(value, str):
        return f"a str of {len(value):,} characters"
    if isinstance(value, dict):
        parts = [f"{key[:40]!r} ({describe(part)})" for key, part in list(value.items())[:20]]
        more = ", ..." if len(value) > 20 else ""
        return f"a dict of {len(value):,} keys: {', '.join(parts)}{more}"
    if isinstance(value, (list, tuple)) and value:
        sizes = [len(part) for part in value if isinstance(part, (str, list, dict))]
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        spread = f" of {min(sizes):,} to {max(sizes):,} ({sum(sizes):,} in all)" if sizes else ""
        return f"a list of {len(value):,} items ({kinds}){spread}"
    return f"a {type(value).__name__}"


# ---------------------------------------------------------------------- the tree that all levels share


class Tree:
    """What the levels of one run share: usage and limits, threads, events, live REPLs."""

    def __init__(self, rlm: RLM):
        self.rlm, self.usage, self.deepest, self.repls = rlm, Usage(), 0, set()
        self.began, self.stopped, self.lock = time.monotonic(), threading.Event(), threading.RLock()
        self.ids, self.lanes, self.local = itertools.count(1), [], threading.local()
        self.threads, self.workers = max(rlm.concurrency, 1) - 1, max(rlm.concurrency, 1)
        self.most_lanes = 0
        trace = [Trace(rlm.trace)] if rlm.trace else []
        self.sinks = trace + ([rlm.on_event] if rlm.on_event else [])

    def stop(self) -> None:
        """End all that is still under way, such as the other threads after Ctrl-C."""
        self.stopped.set()
        for repl in list(self.repls):
            repl.close()

    # Events

    def emit(self, event, kind, id, parent, depth, **data) -> None:
        """Hand one event to the trace and the callback, one at a time; their errors end only them."""
        lane = getattr(self.local, "lane", 0)
        known = {"event": event, "kind": kind, "id": id, "parent": parent, "depth": depth}
        with self.lock:
            for sink in list(self.sinks):
                try:
                    sink(known | {"lane": lane, "time": time.time()} | data)
                except Exception as error:  # noqa: BLE001
                    self.sinks.remove(sink)
                    warnings.warn(f"events are no longer told to {sink}: {error}", stacklevel=2)

    @contextlib.contextmanager
    def span(self, kind: str, parent: int | None, depth: int, **data):
        """Emit the begin and the end of a step; yield a dict for what is known at its end.

        event: "begin", "end", "progress" (batch: done, total) or "retry" (call: reason, wait).
        kind: completion (model, prompt, context; answer, finish_reason, usage, messages, turns),
        turn (turn), cell (code; output), call (model, messages; reply, usage), batch (total; failed).
        All have id, parent, depth, lane, time, and at the end seconds and error. On one lane they
        nest like a call stack.
        """
        began, span = time.monotonic(), {"id": next(self.ids), "parent": parent}
        self.emit("begin", kind, span["id"], parent, depth, **data)
        try:
            yield span
        except BaseException as error:
            span["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            more = {"seconds": time.monotonic() - began, "error": None, **span}
            more = {k: v for k, v in more.items() if k not in ("id", "parent")}
            self.emit("end", kind, span["id"], parent, depth, **more)

    # Limits

    def left(self) -> float | None:
        """Return the seconds left, or None without a limit."""
        limit = self.rlm.max_seconds
        return None if limit is None else max(limit - (time.monotonic() - self.began), 0.001)

    def used(self, name: str) -> float:
        """Return how many calls, tokens, cost or seconds are used."""
        usage = self.usage
        return {
            "calls": usage.calls,
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "cost": usage.cost or 0,
            "seconds": time.monotonic() - self.began,
        }[name]

    def reserve(self, model: str, free: bool) -> None:
        """Count one call before it is sent, or raise LimitReached."""
        with self.lock:
            for name in ("calls", "tokens", "cost", "seconds"):
                limit = getattr(self.rlm, f"max_{name}")
                if not free and limit is not None and self.used(name) >= limit:
                    raise LimitReached(f"the limit max_{name}={limit} is reached")
            self.usage.calls += 1
            self.usage.models.setdefault(model, Usage()).calls += 1

    @staticmethod
    def name(model) -> str:
        """Return the name of a model."""
        return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)

    def ask(self, rlm: RLM, messages: list[dict], parent, depth: int, free: bool = False) -> str:
        """Ask a model, at the tree's expense; return its text without <think>."""
        name, messages = self.name(rlm.model), list(messages)
        with self.span("call", parent, depth, model=name, messages=messages) as span:
            if self.stopped.is_set():
                raise RLMError("the run was stopped")
            self.reserve(name, free)
            if callable(rlm.model):
                try:
                    reply = rlm.model(messages)
                except RLMError:
                    raise
                except Exception as error:
                    raise ModelError(f"the model raised {type(error).__name__}: {error}") from error
                reply = Reply(reply) if isinstance(reply, str) else reply
                self.charge(rlm, name, reply)
            else:
                reply = self.request(rlm, name, messages, span, free)
            text = re.sub(r"<think>.*?(</think>|\Z)", "", reply.text, flags=re.S)
            text = text.rpartition("</think>")[2].strip()
            span.update(reply=reply.text, usage=asdict(reply) | {"text": None})
            return text

    def charge(self, rlm: RLM, name: str, reply: Reply) -> None:
        """Add a reply to the usage, priced if the server did not say what it cost."""
        if reply.cost is None and (prices := self.rlm.prices.get(name)):
            cached = reply.cached_tokens
            parts = (reply.prompt_tokens - cached, cached, reply.completion_tokens)
            reply.cost = sum(n * price for n, price in zip(parts, prices, strict=True)) / 1e6
        with self.lock:
            self.usage.add(reply)
            self.usage.models[name].add(reply)

    # Concurrency

    def side_by_side(self, work: Callable, count: int, below: int) -> None:
        """Call work(0) to work(count - 1), here and in as many threads as are free.

        The caller's own thread always works too, so nested batches cannot deadlock. A helper is
        started only if it also finds `below` free workers, one for each level that it may descend
        to: so there are never more than `concurrency` threads, calls in flight or helpers' workers.
        """
        todo, helpers = iter(range(count)), []

        def drain():
            while not self.stopped.is_set():
                with self.lock:
                    i = next(todo, None)
                    free = i is not None and i < count - 1 and self.threads > 0
                    if free := free and self.workers >= below:
                        self.threads, self.workers = self.threads - 1, self.workers - below
                if i is None:
                    return
                if free:
                    (helper := threading.Thread(target=help, daemon=True)).start()
                    helpers.append(helper)
                work(i)

        def help():
            with self.lock:
                self.local.lane = heapq.heappop(self.lanes) if self.lanes else self.new_lane()
            try:
                drain()
            finally:
                with self.lock:
                    heapq.heappush(self.lanes, self.local.lane)
                    self.threads, self.workers = self.threads + 1, self.workers + below

        drain()
        while helpers:
            helpers.pop().join()

    def new_lane(self) -> int:
        self.most_lanes += 1
        return self.most_lanes

    def with_stack(self, work: Callable, depth: int):
        """Call `work`; every forty levels in a thread of its own, as Python's stack is bounded."""
        if depth % 40:
            return work()
        lane, results = getattr(self.local, "lane", 0), []

        def run():
            self.local.lane = lane
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again below
                results.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    # The HTTP client

    def request(self, rlm: RLM, name: str, messages, span: dict, free: bool) -> Reply:
        """POST to {base_url}/chat/completions until it works, or trying again would not help."""
        url = rlm.base_url.rstrip("/") + "/chat/completions"
        if not rlm.api_key and rlm.base_url == OPENAI:
            raise RLMError(
                "no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL), or give --api-key"
            )
        headers = {"Authorization": f"Bearer {rlm.api_key}"} if rlm.api_key else {}
        body = {"model": name, "messages": messages, **rlm.options}
        retry = Retry(rlm.tries - 1, backoff_factor=0.5, backoff_max=30, allowed_methods=None)
        while True:
            left, response = None if free else self.left(), None
            wait = rlm.timeout if left is None else min(rlm.timeout, left)
            try:
                http = session(rlm.concurrency, os.getpid())
                response = http.post(url, json=body, headers=headers, timeout=(min(10, wait), wait))
                reply, reason = self.read(rlm, name, response), ""
                if isinstance(reply, Reply):
                    return reply
                reason = reply
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                reason = f"{type(error).__name__} at {url}"
            except requests.RequestException as error:
                raise ModelError(f"{url}: {error}") from None
            try:
                retry = retry.increment("POST", url, error=RLMError(reason))
            except (MaxRetryError, RLMError):
                raise ModelError(f"{reason} after {rlm.tries} tries") from None
            asked = retry.get_retry_after(response.raw) if response is not None else None
            wait = asked or retry.get_backoff_time()
            self.emit("retry", "call", span["id"], span["parent"], 0, reason=reason, wait=wait)
            left = None if free else self.left()
            if self.stopped.wait(wait if left is None else min(wait, left)):
                raise RLMError("the run was stopped")
            if left is not None and left <= wait:
                raise LimitReached(f"the limit max_seconds={self.rlm.max_seconds} is reached")

    def read(self, rlm: RLM, name: str, response: requests.Response) -> "Reply | str":
        """Return the reply in a response, or the reason to try again; else raise ModelError."""
        try:
            body = response.json()
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        error = body.get("error") or {}
        status = response.status_code
        if status == 200 and isinstance(error, dict) and isinstance(error.get("code"), int):
            status = error["code"]  # some gateways wrap the failure of the server behind them
        said = error.get("message") if isinstance(error, dict) else error
        said = str(said or response.reason or "")[:500] if error or status != 200 else ""
        said = said.replace(rlm.api_key, "***") if rlm.api_key else said
        if status == 429 or status >= 500:
            return f"{status} {response.reason}: {said}"
        if status != 200 or error:
            raise ModelError(f"{status} {said}{ADVICE.get(status, '')}")
        usage = body.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        counts = (
            usage.get("prompt_tokens"),
            details.get("cached_tokens"),
            usage.get("completion_tokens"),
        )
        reply = Reply("", *(count or 0 for count in counts), usage.get("cost"))
        self.charge(rlm, name, reply)
        try:
            choice = body["choices"][0]
            content = choice["message"].get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ModelError(f"not a chat completion: {response.text[:200]!r}") from None
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        if not content and choice.get("finish_reason") == "length":
            raise ModelError(
                "the reply was cut off before it began: raise max_tokens in the options"
            )
        reply.text = content
        return reply


ADVICE = {
    400: " (if the prompt is too long, lower leaf_chars and output_chars)",
    401: " (check OPENAI_API_KEY or --api-key)",
    403: " (check OPENAI_API_KEY or --api-key)",
    404: " (check --model and --base-url)",
}


@functools.cache
def session(size: int, pid: int) -> requests.Session:
    """Return the pool of connections of this process."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, HTTPAdapter(pool_maxsize=max(size, 1)))
    return http


# --------------------------------------------------------------------------- the trace and the live view


class Trace:
    """Writes events in the Chrome Trace Event format; the file is valid JSON after each of them."""

    runs = itertools.count(1)

    def __init__(self, path: str):
        self.path, self.run = os.path.abspath(path), next(self.runs)
        with LOCK:
            if self.path not in TRACED:
                try:
                    Path(path).write_text("[\n\n]", "utf-8")
                except OSError as error:
                    raise RLMError(f"the trace cannot be written: {error}") from None
                TRACED.add(self.path)

    def __call__(self, event: dict) -> None:
        kind, phase = event["kind"], {"begin": "B", "end": "E"}.get(event["event"], "i")
        data = {k: v for k, v in event.items() if k not in ("event", "kind", "lane", "time")}
        names = {"turn": f"turn {event.get('turn')}", "batch": f"batch of {event.get('total')}"}
        slice = {
            "name": names.get(kind, kind) if phase == "B" else event["event"],
            "cat": kind,
            "ph": phase,
            "ts": round(event["time"] * 1e6),
            "pid": self.run,
            "tid": event["lane"],
            "args": data,
        }
        with LOCK, open(self.path, "r+b") as file:
            start = file.seek(-2, os.SEEK_END)
            comma = b",\n" if start > 2 else b""
            file.write(comma + json.dumps(slice, default=str).encode() + b"\n]")


class Live:
    """Shows a run on a terminal as a tree that grows, and elsewhere as plain lines."""

    def __init__(self, stream, verbose: bool = False):
        self.stream, self.verbose, self.tty = stream, verbose, stream.isatty()
        self.color = self.tty and not os.environ.get("NO_COLOR")
        self.names, self.children, self.steps, self.bars = {None: ""}, {}, {}, {}

    def __call__(self, event: dict) -> None:
        lines = [line for text in self.lines(event) for line in text.splitlines()]
        if self.tty:
            width = shutil.get_terminal_size().columns
            lines = [line if self.verbose else line[: width - 1] for line in lines]
            bars = [bar[: width - 1] for bar in self.bars.values()]
            up = f"\x1b[{self.drawn}A" if getattr(self, "drawn", 0) else ""
            self.drawn = len(bars)
            self.stream.write(up + "\r\x1b[J" + "".join(f"{self.paint(x)}\n" for x in lines + bars))
        else:
            self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def paint(self, line: str) -> str:
        """Colour errors red and the numbers of turns and levels grey."""
        if not self.color:
            return line
        return f"\x1b[31m{line}\x1b[0m" if " ! " in line else line

    def lines(self, event: dict):
        """Yield the lines that an event adds, and keep the bars of batches under way."""
        kind, id, parent, ended = (
            event["kind"],
            event["id"],
            event["parent"],
            event["event"] == "end",
        )
        indent = "│  " * event["depth"]
        seconds, error = f"{event.get('seconds', 0):.1f} s", event.get("error")
        if kind == "completion":
            above = self.names.get(parent, "")
            if event["event"] == "begin":
                self.children[above] = self.children.get(above, 0) + 1
                self.names[id] = f"{above}.{self.children[above]}".lstrip(".")
                yield f"{indent}┌ RLM {self.names[id]} · {event['model']} · depth {event['depth']} · {event['context']}"
            elif ended:
                yield (
                    f"{indent}└ RLM {self.names[id]} · "
                    + (f" ! {error}" if error else f"{first(event['answer'])}")
                    + f" · {seconds}"
                )
                if parent is None:
                    yield f"{event['turns']} turns · {usage_line(event['usage'])} · {seconds} · deepest level {self.deepest}"
            self.deepest = max(getattr(self, "deepest", 0), event["depth"])
        elif event["event"] == "begin":
            self.names[id] = self.names.get(parent, "")
            self.steps[id] = dict(event)
            if kind == "batch":
                self.bars[id] = f"{indent}│ {bar(0, event['total'])}"
        elif event["event"] == "progress":
            self.bars[id] = f"{indent}│ {bar(event['done'], event['total'])}"
        elif event["event"] == "retry":
            yield f"{indent}│ ! retry in {event['wait']:.1f} s: {event['reason']}"
        else:
            begun = self.steps.pop(id, {})
            name = self.names.pop(id, "")
            if kind == "batch":
                self.bars.pop(id, None)
                yield f"{indent}│ {name} batch {event['total'] if 'total' in event else begun['total']} calls · {event.get('failed', 0)} failed · {seconds}"
            elif kind == "cell":
                mark = " ! " if error else ""
                if self.verbose:
                    yield f"{indent}│ {name} code:\n{begun['code']}\noutput:\n{event['output']}"
                else:
                    yield f"{indent}│ {name} {first(begun['code'])} → {mark}{first(error.splitlines()[-1] if error else event.get('output', ''))} · {seconds}"
            elif kind == "call" and error:
                yield f"{indent}│ {name} ! {error}"


def first(value) -> str:
    """Return the first line of a text, shortened."""
    line = next(iter(as_text(value).strip().splitlines()), "")
    return line if len(line) < 50 else line[:47] + "..."


def bar(done: int, total: int) -> str:
    """Return a progress bar: bar(24, 64) is "[#######.............] 24/64"."""
    full = 20 * done // max(total, 1)
    return f"[{'#' * full}{'.' * (20 - full)}] {done}/{total}"


def usage_line(usage: dict) -> str:
    """Return the usage in a line."""
    return str(Usage(**usage))


# --------------------------------------------------------------------------------------- the command line


def read_context(files: list[str]):
    """Return the context: one file or standard input is a str, several files are a dict by name."""
    if not files and not sys.stdin.isatty():
        files = ["-"]
    texts = {f: sys.stdin.read() if f == "-" else Path(f).read_text("utf-8") for f in files}
    return texts if len(texts) > 1 else next(iter(texts.values()), None) or None


def main(argv: list[str] | None = None) -> int:
    """Answer a question from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        "rlm.py", description="Ask a question about any amount of text."
    )
    parser.add_argument("question")
    parser.add_argument("files", nargs="*", help="text files; - or piped input: standard input")
    for one in fields(RLM):
        if "type" in one.metadata:
            flag, help = "--" + one.name.replace("_", "-"), one.metadata["help"]
            parser.add_argument(
                flag, type=one.metadata["type"], help=help, metavar="X", default=argparse.SUPPRESS
            )
    parser.add_argument(
        "--option", action="append", default=[], metavar="K=V", help="field of each request"
    )
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="MODEL=IN,CACHED,OUT",
        help="dollars per million tokens",
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing but the answer")
    parser.add_argument("--verbose", action="store_true", help="show code and output in full")
    given = vars(parser.parse_args(argv))
    question, files = given.pop("question"), given.pop("files")
    quiet, verbose = given.pop("quiet"), given.pop("verbose")
    options, prices = given.pop("option"), given.pop("price")
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for pair in options:
            name, _, value = pair.partition("=")
            with contextlib.suppress(ValueError):
                value = json.loads(value)
            given.setdefault("options", {})[name] = value
        for pair in prices:
            name, _, numbers = pair.rpartition("=")
            given.setdefault("prices", {})[name] = tuple(float(n) for n in numbers.split(","))
        live = None if quiet else Live(sys.stderr, verbose)
        print(RLM(on_event=live, **given).completion(question, read_context(files)))
    except KeyboardInterrupt:
        print("rlm.py: interrupted", file=sys.stderr)
        return 130
    except (RLMError, SandboxError, OSError, ValueError) as error:
        print(f"rlm.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
