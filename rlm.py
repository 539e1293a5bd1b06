"""Recursive Language Models: a model that reads what does not fit its window by writing code.

    done = RLM(model="gpt-5-mini").completion("Who won the pageant in 1998?", context=documents)

The context is a variable in a REPL (sandbox.py), not part of the prompt. The model writes code that
looks at it and asks sub-calls about the pieces: `llm_query` is one model call when the piece fits,
and else a child RLM with a REPL of its own, to any depth (Zhang, Kraska, Khattab, arXiv 2512.24601).
In order: records, the recursion, what a tree shares, the HTTP client, the trace and the live view,
the command line. Not here: what is said to models (prompts/), streaming, other kinds of API.
"""

# ruff: noqa: RUF009 - flag() returns a dataclasses.field

import argparse
import ast
import contextlib
import functools
import inspect
import itertools
import json
import os
import re
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
import urllib3
from urllib3.util import Retry

if __package__:
    from .sandbox import Sandbox, SandboxError
else:
    from sandbox import Sandbox, SandboxError

# ------------------------------------------------------------------------ records: what goes in and out


class RLMError(Exception):
    """A run that cannot go on; `usage` holds what it has cost so far."""

    usage: "Usage | None" = None


class ModelError(RLMError):
    """The model or its server failed, and trying again did not or would not help."""


class LimitReached(RLMError):
    """A limit of the tree is reached; the message says which."""


@dataclass
class Reply:
    """What a model said, the tokens and dollars it took, and whether it was cut off."""

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    cut: bool = False


@dataclass
class Usage:
    """Answered calls, tokens and dollars of a whole tree; `cost` is None if nobody reported one."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    models: dict[str, "Usage"] = field(default_factory=dict)

    def add(self, reply: Reply) -> None:
        """Add one call, and what its reply took."""
        self.calls += 1
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            setattr(self, name, getattr(self, name) + getattr(reply, name))
        self.cost = self.cost if reply.cost is None else (self.cost or 0) + reply.cost

    def __str__(self):
        cached = f" ({self.cached_tokens:,} cached)" if self.cached_tokens else ""
        tokens = f"{self.prompt_tokens + self.completion_tokens:,} tokens{cached}"
        cost = "" if self.cost is None else f" · ${self.cost:.4f}"
        return f"{self.calls:,} call{'s' * (self.calls != 1)} · {tokens}{cost}"


@dataclass
class Completion:
    """The answer (any JSON value), how the run ended ("final", "max_turns" or "limit"), its cost.

    depth: the deepest level reached; turns, messages: of the root, exactly as they were sent.
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


def as_text(value: Any) -> str:
    """Return a str as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def size_of(prompt: Any, context: Any) -> int:
    """Return the characters of a sub-call."""
    return len(as_text(prompt)) + (0 if context is None else len(as_text(context)))


def describe(value: Any, deep: bool = True) -> str:
    """Return the type and sizes of a context: "a str of 1,234 characters"."""
    if not isinstance(value, (str, dict, list, tuple)):
        return f"a {type(value).__name__}"
    things = {str: "characters", dict: "keys"}.get(type(value), "items")
    text = f"a {type(value).__name__} of {len(value):,} {things}"
    if isinstance(value, dict) and deep:
        parts = [f"{str(k)[:40]!r}: {describe(v, False)}" for k, v in list(value.items())[:20]]
        return f"{text} ({'; '.join(parts)}{'; ...' * (len(value) > 20)})"
    if isinstance(value, (list, tuple)) and deep:
        sizes = [len(part) for part in value if isinstance(part, (str, list, dict))] or [0]
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        return f"{text} ({kinds}) of sizes {min(sizes):,} to {max(sizes):,}, {sum(sizes):,} in all"
    return text


# ----------------------------------------------------------------------------------------- the recursion


def flag(default, help: str, type: Any = None, **more):
    """Return a field of `RLM`, which is a flag of the command line if it has a type."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"help": help, "type": type}, **more)


def env(name: str, default: str | None = None) -> Callable:
    return lambda: os.environ.get(name, default)


OPENAI, HERE = "https://api.openai.com/v1", str(Path(__file__).parent / "prompts")


@dataclass
class RLM:
    """A recursive language model; the fields configure every level of the tree.

    `model` is a name for the HTTP API, or a callable `messages -> str | Reply`. Can be pickled, and
    shared between threads. `on_event` gets a dict for each step, see `Tree.span`.
    """

    model: str | Callable = flag(env("RLM_MODEL", "gpt-5-mini"), "the model", str)
    sub_model: str | Callable | None = flag(None, "the model below the root, if another", str)
    base_url: str = flag(env("OPENAI_BASE_URL", OPENAI), "an OpenAI-compatible API", str)
    api_key: str | None = flag(env("OPENAI_API_KEY"), "its key ($OPENAI_API_KEY)", str, repr=False)
    options: dict = flag(dict, "more fields of each request, such as temperature")
    max_depth: int = flag(3, "calls at this depth and below are plain model calls", int)
    max_turns: int = flag(30, "turns of each RLM before it must answer", int)
    leaf_chars: int = flag(100_000, "characters that fit one plain call", int)
    max_calls: int | None = flag(None, "limit of model calls, whole tree", int)
    max_tokens: int | None = flag(None, "limit of tokens, whole tree", int)
    max_cost: float | None = flag(None, "limit of dollars, whole tree", float)
    max_seconds: float | None = flag(None, "limit of seconds, whole tree", float)
    concurrency: int = flag(16, "model calls in flight at once, whole tree", int)
    output_chars: int = flag(10_000, "output that the model sees of each turn", int)
    cell_seconds: float = flag(60, "CPU seconds of one cell", float)
    memory_mb: int = flag(2048, "MiB of one worker beyond its context", int)
    timeout: float = flag(600, "seconds to wait for one answer", float)
    tries: int = flag(5, "tries of a call that fails for a while", int)
    prices: dict = flag(dict, "{model: (input, cached, output)}, dollars per million tokens")
    prompts: str = flag(HERE, "folder of the prompts", str)
    trace: str | None = flag(None, "file for a trace, to be opened in Perfetto or speedscope", str)
    tools: dict = flag(dict, "{name: function} for the REPL, beside llm_query")
    on_event: Callable | None = flag(None, "called with every event")

    def completion(self, prompt: str, context: Any = None) -> Completion:
        """Answer `prompt` about `context`, any JSON value; without one, the prompt is the context.

        Raises RLMError, with the usage so far on it, when the run cannot go on.
        """
        if context is None and self.max_depth > 0:
            prompt, context = self.say("whole"), prompt
        tree = Tree(self)
        try:
            return Level(tree, self, prompt, context).complete()
        except BaseException as error:
            error.usage = tree.usage
            raise
        finally:
            tree.stop()

    def say(self, name: str, **values) -> str:
        """Return the prompt `name`, filled in."""
        try:
            return prompt_template(str(self.prompts), name).substitute(values).strip()
        except (OSError, KeyError, ValueError) as error:
            raise RLMError(
                f"the prompt {name!r} in {self.prompts} is not usable: {error}"
            ) from None


@functools.cache
def prompt_template(folder: str, name: str) -> string.Template:
    return string.Template(Path(folder, f"{name}.txt").read_text("utf-8"))


@dataclass
class Level:
    """One RLM of the tree: the root, or a child that a sub-call started."""

    tree: "Tree"
    rlm: RLM
    prompt: str
    context: Any
    depth: int = 0
    parent: int | None = None  # the event in which this happens

    def complete(self) -> Completion:
        """Converse until there is an answer."""
        began, tree = time.monotonic(), self.tree
        tree.deepest = max(tree.deepest, self.depth)
        self.messages, self.notes, self.turns = [], [], 0
        about = {"model": name_of(self.rlm.model), "prompt": self.prompt}
        about["context"] = describe(self.context)
        with tree.span("completion", self.parent, self.depth, **about) as span:
            self.parent = span["id"]
            try:
                answer, reason = self.converse()
                span.update(answer=answer, finish_reason=reason)
            finally:
                span.update(turns=self.turns, messages=self.messages, usage=asdict(tree.usage))
        seconds = time.monotonic() - began
        return Completion(
            answer, reason, tree.usage, tree.deepest, self.turns, seconds, self.messages
        )

    def converse(self) -> tuple[Any, str]:
        """Ask for code and run it, turn by turn, until it calls FINAL; return answer and reason."""
        rlm, say = self.rlm, self.rlm.say
        if self.depth >= rlm.max_depth:  # the root at max_depth=0: the model alone
            self.tell(self.prompt if self.context is None else self.leaf(self.prompt, self.context))
            return self.ask().text, "final"
        tools = {
            "llm_query": self.llm_query,
            "llm_query_batched": self.llm_query_batched,
            **rlm.tools,
        }
        limits = {
            name: getattr(rlm, name) for name in ("cell_seconds", "memory_mb", "output_chars")
        }
        with self.tree.worker(), Sandbox({"context": self.context}, tools, **limits) as repl:
            self.tree.repls.add(repl)
            self.tell(self.system(), "system")
            self.tell(say("task", prompt=self.prompt, description=describe(self.context)))
            try:
                while self.turns < rlm.max_turns:
                    if final := self.turn(repl):
                        return final.value, "final"
                return self.last(f"all {rlm.max_turns} turns are used"), "max_turns"
            except LimitReached as limit:
                if self.depth:
                    raise
                return self.last(str(limit), free=True), "limit"
            finally:
                self.tree.repls.discard(repl)

    def turn(self, repl: Sandbox):
        """Ask for code, run it, tell what it printed; return the Final, or None."""
        self.turns += 1
        with self.tree.span("turn", self.parent, self.depth, turn=self.turns) as span:
            reply = self.ask(span["id"])
            codes, outputs, final = [] if reply.cut else CODE.findall(reply.text), [], None
            if not codes and (found := not reply.cut and textual_final(reply.text)):
                codes = [found]
            elif codes and (found := textual_final(CODE.sub("", reply.text))):
                codes.append(found)
            for code in codes:
                final, output, error = self.cell(repl, code, span["id"])
                outputs.append(output)
                if final or error:
                    break
            if not codes:
                outputs.append(self.rlm.say("cut" if reply.cut else "remind"))
            if not final:
                self.tell(self.rlm.say("turn", output="\n".join(outputs), left=self.left()))
        return final

    def cell(self, repl: Sandbox, code: str, parent: int):
        """Run a cell; return its Final or None, its output with any error, and the error or None."""
        with self.tree.span("cell", parent, self.depth, code=code) as span:
            self.here, self.notes = span["id"], []
            try:
                output, error, final = repl.run(code, self.tree.left())
            except SandboxError as broken:
                output, error, final = "", f"SandboxError: {broken}; your variables are gone", None
            parts = [output.rstrip("\n"), *self.notes, error]
            output = "\n".join(part for part in parts if part) or "(no output)"
            span.update(output=output, error=error)
        return final, output, error

    def last(self, reason: str, free: bool = False) -> Any:
        """Ask outright for the best answer; `free`: outside the limits."""
        self.tell(self.rlm.say("last", reason=reason))
        text = self.ask(free=free).text
        found = textual_final(text) or textual_final("\n".join(CODE.findall(text)))
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(found[6:-1]) if found else text
        return text

    def system(self) -> str:
        """Return the system prompt, which is the same for all turns."""
        rlm, lines = self.rlm, []
        for name, tool in rlm.tools.items():
            try:
                name += str(inspect.signature(tool))
            except ValueError:  # some builtins have none
                name += "(...)"
            lines.append(f"- `{name}`: {(inspect.getdoc(tool) or '').partition(chr(10))[0]}")
        longer = rlm.say("longer" if self.depth + 1 < rlm.max_depth else "longest")
        limits = {"output_chars": f"{rlm.output_chars:,}", "leaf_chars": f"{rlm.leaf_chars:,}"}
        tools = "\n".join(lines)
        return rlm.say("system", tools=tools, longer=longer, max_turns=rlm.max_turns, **limits)

    def left(self) -> str:
        """Return the line that tells the model what is left."""
        left = [f"turn {self.turns} of {self.rlm.max_turns}"]
        for name, used in self.tree.used().items():
            if (limit := getattr(self.tree.rlm, f"max_{name}")) is not None:
                left.append(f"{used:,.6g} of {limit:,} {name} used")
        return ", ".join(left)

    def tell(self, text: str, role: str = "user") -> None:
        self.messages.append({"role": role, "content": text})

    def ask(self, parent: int | None = None, free: bool = False) -> Reply:
        """Ask this level's model, and append its reply to the conversation."""
        reply = self.tree.ask(self.rlm, self.messages, parent or self.parent, self.depth, free)
        self.tell(reply.text, "assistant")
        return reply

    def leaf(self, prompt: str, context: Any) -> str:
        return self.rlm.say("leaf", prompt=prompt, context=as_text(context))

    def llm_query(self, prompt, context=None, recurse=None):
        """Answer `prompt` about `context`, from code: see `query`."""
        try:
            return self.query(prompt, context, recurse, self.here)
        except RLMError as error:
            raise RuntimeError(f"llm_query failed: {error}") from error

    def query(self, prompt, context, recurse, parent) -> str:
        """Answer with one model call if all fits, else with a child RLM: this is the recursion."""
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, not {type(prompt).__name__}")
        rlm, depth, tree = self.rlm, self.depth + 1, self.tree
        size, below = size_of(prompt, context), replace(rlm, model=rlm.sub_model or rlm.model)
        if self.recurses(size, recurse):
            task = (rlm.say("whole"), prompt) if context is None else (prompt, context)
            child = Level(tree, below, *task, depth, parent)
            return as_text(tree.with_stack(child.complete, depth).answer)
        if size > rlm.leaf_chars:  # fits neither
            deeper = ", or let recurse=None start a child" * (depth < rlm.max_depth)
            limit = f"{rlm.leaf_chars:,} fit one plain call"
            raise ValueError(f"{size:,} characters are too many, {limit}: cut them up{deeper}")
        tree.deepest = max(tree.deepest, depth)
        text = prompt if context is None else self.leaf(prompt, context)
        return tree.ask(below, [{"role": "user", "content": text}], parent, depth).text

    def recurses(self, size: int, recurse: bool | None) -> bool:
        """Return whether a sub-call of so many characters is a child RLM: the base case is below."""
        too_long = recurse is None and size > self.rlm.leaf_chars
        return self.depth + 1 < self.rlm.max_depth and bool(recurse or too_long)

    def llm_query_batched(self, prompts, contexts=None, recurse=None):
        """Answer many prompts, side by side, in order; None stands for one that failed."""
        contexts = [None] * len(prompts) if contexts is None else contexts
        if not isinstance(prompts, (list, tuple)) or not isinstance(contexts, (list, tuple)):
            raise TypeError("prompts and contexts must be lists")
        if len(prompts) != len(contexts):
            raise ValueError("prompts and contexts must be of the same length")
        total, answers, errors, done = len(prompts), [None] * len(prompts), {}, itertools.count(1)
        with self.tree.span("batch", self.here, self.depth, total=total) as span:

            def one(i):
                try:
                    answers[i] = self.query(prompts[i], contexts[i], recurse, span["id"])
                except Exception as error:  # noqa: BLE001 - the other items must not be lost
                    errors[i] = error
                with self.tree.lock:
                    where = (span["id"], span["parent"], self.depth)
                    self.tree.emit("progress", "batch", *where, done=next(done), total=total)

            sizes = map(size_of, prompts, contexts)
            plain = not any(self.recurses(size, recurse) for size in sizes)
            self.tree.side_by_side(one, total, plain)
            span.update(failed=len(errors))
        for i in sorted(errors)[:5]:
            self.notes.append(f"llm_query_batched: item {i} failed: {errors[i]}")
        if len(errors) > 5:
            self.notes.append(f"llm_query_batched: {len(errors)} of {total} items failed")
        if limit := next((e for e in errors.values() if isinstance(e, LimitReached)), None):
            if paid := {i: answer for i, answer in enumerate(answers) if answer is not None}:
                self.notes.append(
                    f"answers before the limit: {as_text(paid)[: self.rlm.output_chars]}"
                )
            raise RuntimeError(f"llm_query_batched failed: {limit}") from limit
        return answers


CODE = re.compile(r"(?ms)^[ \t]*```[ \t]*(?:repl|python|py)\b[^\n]*\n(.*?)(?:^[ \t]*```|\Z)")
FINALS = re.compile(r"^[ \t]*(?:\*\*|`)?(FINAL|FINAL_VAR)\(", re.MULTILINE)


def textual_final(text: str) -> str | None:
    """Return the code for a final outside code: "So:\\nFINAL(a (b))" has 'FINAL("a (b)")'.

    It begins a line, and its last bracket ends one; what merely mentions FINAL(...) does not.
    """
    for found in FINALS.finditer(text):
        rest, open_brackets, end = text[found.end() :], 1, None
        for bracket in re.finditer(r"[()]", rest):
            open_brackets += 1 if bracket.group() == "(" else -1
            if open_brackets == 0:
                end = bracket.start()
                break
        ends_line = re.compile(r"\)[ \t]*(?:\*\*|`)?[.]?[ \t]*(?:\n|\Z)")
        if end is None or not ends_line.match(rest, end):  # the answer has brackets of its own
            end = max((m.start() for m in ends_line.finditer(rest)), default=None)
        if end is None:
            continue
        inside = rest[:end].strip()
        if found.group(1) == "FINAL_VAR":
            return f"FINAL({inside.strip(chr(34) + chr(39))})"
        with contextlib.suppress(ValueError, SyntaxError):
            inside = value if isinstance(value := ast.literal_eval(inside), str) else inside
        return f"FINAL({inside!r})"
    return None


# ------------------------------------------------------------------------------------ what a tree shares


def name_of(model: str | Callable) -> str:
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


class Tree:
    """What the levels of one run share: usage and limits, threads and workers, events."""

    def __init__(self, rlm: RLM):
        self.rlm, self.usage, self.deepest, self.repls = rlm, Usage(), 0, set()
        self.calls = 0  # answered, failed or under way
        self.began, self.stopped, self.lock = time.monotonic(), threading.Event(), threading.RLock()
        self.ids, self.local = itertools.count(1), threading.local()
        self.lanes = list(range(max(rlm.concurrency, 1) - 1, 0, -1))  # one for each helper thread
        self.workers = threading.Semaphore(max(rlm.concurrency, 1))
        self.descent = threading.Lock()
        self.sinks = [sink for sink in (rlm.trace and Trace(rlm.trace), rlm.on_event) if sink]

    def stop(self) -> None:
        """End what is still under way in other threads."""
        self.stopped.set()
        for repl in list(self.repls):
            repl.close()

    def emit(self, event: str, kind: str, id: int, parent: int | None, depth: int, **data) -> None:
        """Hand an event to the trace and the callback, one at a time; an error there ends only it."""
        known = {"event": event, "kind": kind, "id": id, "parent": parent, "depth": depth}
        known |= {"lane": getattr(self.local, "lane", 0), "time": time.time()}
        with self.lock:
            for sink in list(self.sinks):
                try:
                    sink(known | data)
                except Exception as error:  # noqa: BLE001
                    self.sinks.remove(sink)
                    warnings.warn(f"no more events for {sink}: {error!r}", stacklevel=2)

    @contextlib.contextmanager
    def span(self, kind: str, parent: int | None, depth: int, **data):
        """Emit the begin and the end of a step; yield a dict for what is known at its end.

        event: "begin", "end", "progress" (of a batch: done, total), "retry" (of a call: reason, wait).
        kind: completion (model, prompt, context; answer, finish_reason, usage, messages, turns), turn
        (turn), cell (code; output), call (model, messages; reply, usage), batch (total; failed). All
        have id, parent, depth, lane and time, ends have seconds and error. A lane is a call stack.
        """
        began, span = time.monotonic(), {"id": next(self.ids), "parent": parent, "error": None}
        span["depth"] = depth
        self.emit("begin", kind, span["id"], parent, depth, **data)
        try:
            yield span
        except BaseException as error:
            span["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            seconds = time.monotonic() - began
            self.emit("end", kind, seconds=seconds, **span)

    def left(self) -> float | None:
        """Return the seconds left, or None without a limit."""
        limit = self.rlm.max_seconds
        return None if limit is None else max(limit - (time.monotonic() - self.began), 0.001)

    def used(self) -> dict[str, float]:
        """Return what is used of each thing that can be limited."""
        tokens = self.usage.prompt_tokens + self.usage.completion_tokens
        seconds = round(time.monotonic() - self.began, 3)
        cost = self.usage.cost or 0
        return {"calls": self.calls, "tokens": tokens, "cost": cost, "seconds": seconds}

    def check(self) -> None:
        """Raise LimitReached where a limit is."""
        for name, used in self.used().items():
            limit = getattr(self.rlm, f"max_{name}")
            if limit is not None and used >= limit:
                raise LimitReached(f"the limit max_{name}={limit} is reached")

    def ask(self, rlm: RLM, messages: list[dict], parent, depth: int, free: bool = False) -> Reply:
        """Ask a model at the tree's expense; the text comes back without <think>."""
        name, messages = name_of(rlm.model), list(messages)
        with self.span("call", parent, depth, model=name, messages=messages) as span:
            with self.lock:  # reserved before it is sent
                if self.stopped.is_set():
                    raise RLMError("the run was stopped")
                free or self.check()
                self.calls += 1
            reply = self.local_reply(rlm, messages) or self.request(rlm, name, messages, span, free)
            if reply.cost is None and (prices := rlm.prices.get(name)):
                counts = (reply.prompt_tokens - reply.cached_tokens, reply.cached_tokens)
                counts += (reply.completion_tokens,)
                reply.cost = sum(n * price for n, price in zip(counts, prices, strict=True)) / 1e6
            with self.lock:
                for usage in (self.usage, self.usage.models.setdefault(name, Usage())):
                    usage.add(reply)
            span.update(
                reply=reply.text, usage={k: v for k, v in asdict(reply).items() if k != "text"}
            )
            text = re.sub(r"<think>.*?(</think>|\Z)", "", reply.text, flags=re.DOTALL)
            return replace(reply, text=text.rpartition("</think>")[2].strip())

    @staticmethod
    def local_reply(rlm: RLM, messages: list[dict]) -> Reply | None:
        """Return the reply of a model that is a callable."""
        if not callable(rlm.model):
            return None
        try:
            reply = rlm.model(messages)
        except RLMError:
            raise
        except Exception as error:
            raise ModelError(f"the model raised {type(error).__name__}: {error}") from error
        if not isinstance(reply, (str, Reply)):
            raise ModelError(f"the model returned a {type(reply).__name__}, not a str or a Reply")
        return reply if isinstance(reply, Reply) else Reply(reply)

    def side_by_side(self, work: Callable, count: int, plain: bool) -> None:
        """Call work(0) to work(count - 1), here and in as many helper threads as are free.

        The caller's own thread always works too, so nested batches cannot deadlock. Unless all is
        `plain`, a helper needs a free worker too, and none starts below a thread that has to take
        turns (see `worker`): so there are at most `concurrency` threads, and as many calls in flight.
        """
        todo, helpers = iter(range(count)), []

        def drain():
            while not self.stopped.is_set():
                with self.lock:
                    i = next(todo, None)
                    more = i is not None and i < count - 1 and self.lanes
                    alone = getattr(self.local, "alone", False)
                    if more and (plain or (not alone and self.workers.acquire(blocking=False))):
                        lane = self.lanes.pop()
                        helper = threading.Thread(target=help, args=[lane], daemon=True)
                        helper.start()
                        helpers.append(helper)
                if i is None:
                    return
                work(i)

        def help(lane):
            self.local.lane, self.local.worker = lane, not plain
            try:
                drain()
            finally:
                with self.lock:
                    self.lanes.append(lane)
                    plain or self.workers.release()

        drain()
        while helpers:
            helpers.pop().join()

    @contextlib.contextmanager
    def worker(self):
        """Wait for the right to start a worker: at most `concurrency` live, and one chain below.

        Who finds none free waits for a turn to go down to the leaves alone.
        """
        mine = self.local.__dict__
        had, alone = mine.get("worker", not mine), mine.get("alone")  # the root has its own
        token = had or alone or self.workers.acquire(blocking=False)
        if not token:
            self.descent.acquire()
        mine["worker"], mine["alone"] = False, alone or not token
        try:
            yield
        finally:
            mine["worker"], mine["alone"] = had, alone
            if not token:
                self.descent.release()
            elif not had and not alone:
                self.workers.release()

    def with_stack(self, work: Callable, depth: int):
        """Return work(); every 40 levels in a thread of its own, as Python's stack is bounded."""
        if depth % 40:
            return work()
        mine, results = dict(self.local.__dict__), []

        def run():
            self.local.__dict__.update(mine)
            try:
                results.append((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised below
                results.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        if results[0][1]:
            raise results[0][1]
        return results[0][0]

    # ------------------------------------------------------------------------------------ the HTTP client

    def request(self, rlm: RLM, name: str, messages: list, span: dict, free: bool) -> Reply:
        """POST to {base_url}/chat/completions until it works, or trying again would not help."""
        url = rlm.base_url.rstrip("/") + "/chat/completions"
        if not rlm.api_key and rlm.base_url == OPENAI:
            raise RLMError(
                "no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL), or give --api-key"
            )
        headers = {"Authorization": f"Bearer {rlm.api_key}"} if rlm.api_key else {}
        body = {"model": name, "messages": messages, **rlm.options}
        timeout, tries = rlm.timeout, rlm.tries
        if free and self.rlm.max_seconds is not None:  # the last question is not to take long
            timeout, tries = min(timeout, 60), 1
        retry = Retry(tries - 1, backoff_factor=0.5, backoff_max=30, allowed_methods=None)
        while True:
            left = None if free else self.left()
            wait, response, asked = min(timeout, left or timeout), None, None
            try:
                http, end = (
                    session(url, max(rlm.concurrency, 1), os.getpid()),
                    time.monotonic() + wait,
                )
                response = http.post(
                    url, json=body, headers=headers, timeout=(min(10, wait), wait), stream=True,
                    allow_redirects=False,
                )  # fmt: skip
                text, status = read_body(response, end), response.status_code
                reply, status, problem = parse(text, status)
                asked = retry.get_retry_after(response.raw)
                problem = f"{status} {response.reason if status != 200 else ''}: {problem}"
            except (
                requests.ConnectionError,
                requests.Timeout,
                urllib3.exceptions.HTTPError,
            ) as error:
                reply, status, problem = None, 503, f"{type(error).__name__} at {url}"
            except (requests.RequestException, ValueError) as error:
                raise ModelError(f"{url}: {error}") from None
            finally:
                response and response.close()
            if reply:
                return reply
            if rlm.api_key and len(rlm.api_key) > 8:
                problem = problem.replace(rlm.api_key, "***")
            if status != 429 and status < 500:
                raise ModelError(problem + ADVICE.get(status, ""))
            try:
                retry = retry.increment("POST", url, error=LimitReached())
            except (urllib3.exceptions.MaxRetryError, LimitReached):
                free or self.check()
                raise ModelError(f"{problem} after {tries} tries") from None
            wait, left = asked or retry.get_backoff_time(), None if free else self.left()
            self.emit(
                "retry",
                "call",
                span["id"],
                span["parent"],
                span["depth"],
                reason=problem,
                wait=wait,
            )
            if self.stopped.wait(wait if left is None else min(wait, left)):
                raise RLMError("the run was stopped")
            free or self.check()


ADVICE = {
    400: " (if the prompt is too long, lower leaf_chars and output_chars)",
    401: " (check OPENAI_API_KEY or --api-key)",
    403: " (check OPENAI_API_KEY or --api-key)",
    404: " (check --model and --base-url)",
}


@functools.cache
def session(url: str, size: int, pid: int) -> requests.Session:
    """Return this process's pool of connections to `url`; the environment is read once."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=size))
    found = http.merge_environment_settings(url, {}, None, None, None)
    http.proxies, http.verify, http.cert = found["proxies"], found["verify"], found["cert"]
    http.trust_env = False  # or ~/.netrc would replace the key
    return http


def read_body(response: requests.Response, end: float) -> str:
    """Return the body; raise requests.Timeout when it is not whole at the time `end`."""
    body = bytearray()
    while chunk := response.raw.read1(1 << 16, decode_content=True):
        body += chunk
        if time.monotonic() > end:
            raise requests.Timeout("the answer is still dripping in")
    return body.decode("utf-8", "replace")


def parse(text: str, status: int) -> tuple[Reply | None, int, str]:
    """Return the reply in the body of a response, or None, the status, and what went wrong."""
    try:
        body = json.loads(text)
        error = body.get("error") or (status != 200 and (body.get("message") or body.get("detail")))
    except (ValueError, AttributeError):
        body, error = {}, text if status != 200 else f"not a chat completion: {text[:200]!r}"
    if error or status != 200:
        said = error.get("message") or error if isinstance(error, dict) else error
        if isinstance(error, dict) and isinstance(error.get("code"), int):
            status = error["code"]  # a gateway tells of a failure behind it
        return None, status, " ".join(as_text(said or text).split())[:500]
    try:
        choice = body["choices"][0]
        content, usage = choice["message"].get("content") or "", body.get("usage") or {}
        if isinstance(content, list):
            parts = [part if isinstance(part, dict) else {"text": part} for part in content]
            content = "".join(p.get("text") or "" for p in parts if p.get("type", "text") == "text")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
        cut, cost = choice.get("finish_reason") == "length", usage.get("cost")
        reply = Reply("" + content, *(int(n or 0) for n in counts), cost and float(cost), cut)
        return reply, status, ""
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None, status, f"not a chat completion: {' '.join(text.split())[:200]}"


# --------------------------------------------------------------------------- the trace and the live view


class Trace:
    """Writes events in the Chrome Trace Event format; the file is valid JSON after each of them."""

    lock, begun, runs = threading.Lock(), set(), itertools.count(1)

    def __init__(self, path: str):
        self.path, self.run, self.names = os.path.abspath(path), next(self.runs), {}
        with self.lock:
            if self.path not in self.begun:
                try:
                    Path(self.path).write_text("[\n]", "utf-8")
                except OSError as error:
                    raise RLMError(f"the trace {path} cannot be written: {error}") from None
                self.begun.add(self.path)

    def __call__(self, event: dict) -> None:
        phase, kind = {"begin": "B", "end": "E"}.get(event["event"], "i"), event["kind"]
        data = {k: v for k, v in event.items() if k not in ("event", "kind", "lane", "time")}
        name = f"{kind} {event.get('turn', event.get('total', ''))}".strip()
        if phase == "B":
            self.names[event["id"]] = name
        elif phase == "E":  # named as its begin, or speedscope takes them for two
            name = self.names.pop(event["id"], kind)
        known = {"name": name if phase != "i" else event["event"], "cat": kind, "ph": phase}
        known |= {"ts": round(event["time"] * 1e6), "pid": self.run, "tid": event["lane"]}
        with self.lock, open(self.path, "r+b") as file:
            comma = b",\n" if file.seek(-2, os.SEEK_END) > 1 else b"\n"  # over the last bracket
            file.write(comma + json.dumps(known | {"args": data}, default=str).encode() + b"\n]")


class Live:
    """Shows a run as a tree that grows, with bars for the batches under way on a terminal."""

    def __init__(self, stream, verbose: bool = False):
        self.stream, self.verbose, self.tty = stream, verbose, stream.isatty()
        self.color = self.tty and not os.environ.get("NO_COLOR")
        self.names, self.children, self.begun, self.bars = {}, {}, {}, {}
        self.drawn = self.deepest = 0

    def __call__(self, event: dict) -> None:
        self.deepest = max(self.deepest, event["depth"])
        id, kind, parent, phase = event["id"], event["kind"], event["parent"], event["event"]
        if phase == "begin":
            self.begun[id] = event
            name = self.names.get(parent, "")
            if kind == "completion":
                self.children[name] = self.children.get(name, 0) + 1
                name = f"{name}.{self.children[name]}".strip(".")
            self.names[id] = name
        if kind == "batch":
            self.bars[id] = self.line(
                event, f"{bar(event.get('done', 0), self.begun[id]['total'])}"
            )
            if phase == "end":
                del self.bars[id]
        lines = list(getattr(self, f"{phase}_{kind}", lambda event: ())(event))
        if phase == "end":
            del self.begun[id], self.names[id]
        if lines or (self.tty and kind == "batch"):
            self.draw([part for line in lines for part in line.splitlines()])

    def begin_completion(self, e):
        yield self.line(e, f"● {e['model']} · depth {e['depth']} · {e['context']}")

    def end_completion(self, e):
        result = f"✗ {e['error']}" if e["error"] else f"✓ {first(e['answer'])}"
        yield self.line(e, f"{result} · {e['seconds']:.1f} s")
        if e["parent"] is None:
            turns = f"{e['turns']} turn{'s' * (e['turns'] != 1)}"
            yield f"{turns} · {Usage(**e['usage'])} · {e['seconds']:.1f} s · deepest level {self.deepest}"

    def end_cell(self, e):
        code, output = self.begun[e["id"]]["code"], e.get("output") or ""
        if self.verbose:
            yield from (self.line(e, x) for x in [*code.splitlines(), "→", *output.splitlines()])
        else:
            room, turn = max((self.width() - 44) // 2, 20), self.begun.get(e["parent"], {})
            said = f"✗ {e['error'].splitlines()[-1]}" if e["error"] else first(output, room)
            cost = f"{e['seconds']:.1f} s · {turn.get('tokens', 0):,} tokens"
            yield self.line(e, f"turn {turn.get('turn')} · {first(code, room)} → {said} · {cost}")

    def end_batch(self, e):
        total, failed = self.begun[e["id"]]["total"], e.get("failed", 0)
        yield self.line(e, f"  {bar(total, total)} · {failed} failed · {e['seconds']:.1f} s")

    def end_call(self, e):
        begun, turn = self.begun[e["id"]], self.begun.get(e["parent"], {})
        if not e["error"]:
            turn["tokens"] = e["usage"]["prompt_tokens"] + e["usage"]["completion_tokens"]
        if e["error"]:
            yield self.line(e, f"  ✗ {begun['model']}: {e['error']}")
        elif turn.get("kind") == "cell":
            asked = first(begun["messages"][0]["content"])
            said = f"{begun['model']} · {turn['tokens']:,} tokens · {asked} → {first(e['reply'])}"
            yield self.line(e, f"  {said}")

    def retry_call(self, e):
        yield self.line(e, f"  ✗ again in {e['wait']:.1f} s: {e['reason']}")

    def line(self, e: dict, text: str) -> str:
        """Return a line with the branch and the name of the RLM that it belongs to."""
        name = self.names.get(e["id"], "")
        return f"{'│  ' * name.count('.')}{name} {text}"

    def width(self) -> int:
        return os.get_terminal_size(self.stream.fileno()).columns if self.tty else 160

    def draw(self, lines: list[str]) -> None:
        """Write lines above the bars; what a model printed cannot move the cursor."""
        bars = list(self.bars.values()) if self.tty else []
        width = self.width() - 1
        out = [re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "?", line) for line in lines + bars]
        out = [line if self.verbose else line[:width] for line in out]
        if self.color:
            out = [f"\x1b[31m{line}\x1b[0m" if "✗" in line else line for line in out]
        up = f"\x1b[{self.drawn}A\r\x1b[J" if self.drawn else ""
        self.stream.write(up + "".join(f"{line}\n" for line in out))
        self.stream.flush()
        self.drawn = len(bars)


def first(value: Any, room: int = 40) -> str:
    """Return the first line, shortened to `room` characters."""
    line = next(iter(as_text(value).strip().splitlines()), "")
    return line if len(line) <= room else line[: room - 1] + "…"


def bar(done: int, total: int) -> str:
    """Return a progress bar: bar(1, 4) is "█████░░░░░░░░░░░░░░░ 1/4"."""
    full = 20 * done // max(total, 1)
    return f"{'█' * full}{'░' * (20 - full)} {done}/{total}"


# ---------------------------------------------------------------------------------------- the command line


def key_value(text: str) -> tuple[str, Any]:
    """Parse temperature=0.5, or MODEL=0.25,0.03,2."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError
    with contextlib.suppress(ValueError):
        return name, json.loads(value)
    return name, value


def price(text: str) -> tuple[str, tuple]:
    name, _, numbers = text.rpartition("=")
    prices = tuple(float(number) for number in numbers.split(","))
    if not name or len(prices) != 3:
        raise ValueError
    return name, prices


def read_context(files: list[str]):
    """Return the context: one file or standard input is a str, several files are a dict by name."""
    if not files and not sys.stdin.isatty():
        piped = (
            sys.stdin.buffer.read().decode("utf-8", "replace")
            if hasattr(sys.stdin, "buffer")
            else ""
        )
        return piped or None
    texts = {
        name: (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode(
            "utf-8", "replace"
        )
        for name in files
    }
    return texts if len(texts) > 1 else next(iter(texts.values()), None)


def main(argv: list[str] | None = None) -> int:
    """Answer a question from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        "rlm.py", description="Ask a question about any amount of text."
    )
    parser.add_argument("question")
    parser.add_argument("files", nargs="*", help="text files; - or a pipe: standard input")
    for one in fields(RLM):
        if kind := one.metadata["type"]:
            default = "" if one.name == "api_key" else one.default_factory()
            help = one.metadata["help"] + (f" (default: {default})" if default else "")
            name, kind_name = "--" + one.name.replace("_", "-"), kind.__name__.upper()
            parser.add_argument(
                name, type=kind, help=help, metavar=kind_name, default=argparse.SUPPRESS
            )
    parser.add_argument(
        "--option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="options",
        help="a field of each request",
    )
    parser.add_argument(
        "--price",
        type=price,
        action="append",
        default=[],
        metavar="MODEL=INPUT,CACHED,OUTPUT",
        dest="prices",
        help="dollars per million tokens",
    )
    parser.add_argument("--quiet", action="store_true", help="show the answer and nothing else")
    parser.add_argument("--verbose", action="store_true", help="show code and output in full")
    given = vars(parser.parse_intermixed_args(argv))
    question, files, quiet, verbose = (
        given.pop(k) for k in ("question", "files", "quiet", "verbose")
    )
    given["options"], given["prices"] = dict(given["options"]), dict(given["prices"])
    live = None if quiet else Live(sys.stderr, verbose)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        done = RLM(on_event=live, **given).completion(question, read_context(files))
        sys.stdout.reconfigure(errors="replace") if hasattr(sys.stdout, "reconfigure") else None
        print(done, flush=True)
    except KeyboardInterrupt as stop:
        print(f"rlm.py: interrupted after {getattr(stop, 'usage', 'no call')}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (RLMError, SandboxError, OSError, TypeError, ValueError) as error:
        print(f"rlm.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
