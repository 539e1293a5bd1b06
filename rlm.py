"""Recursive Language Models: a model that reads what does not fit its window by writing code.

    done = RLM(model="gpt-5-mini").completion("Who won the pageant in 1998?", context=documents)

The context is a variable in a REPL (sandbox.py), not part of the prompt. The model writes code that
looks at it and asks sub-calls about the pieces: `llm_query` is one model call when the piece fits,
and else a child RLM with a REPL of its own, to any depth (Zhang, Kraska, Khattab, arXiv 2512.24601).
Not here: what is said to models (prompts/), streaming, other kinds of API.
"""

# ruff: noqa: RUF009 - flag() returns a dataclasses.field

import argparse
import ast
import contextlib
import functools
import inspect
import itertools
import json
import math
import os
import re
import signal
import string
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from threading import Thread
from typing import Any

import requests
import urllib3

if __package__:
    from .sandbox import Sandbox, SandboxError
else:
    from sandbox import Sandbox, SandboxError

# ----------------------------------------------------------------- records: what goes in and out


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
        cost = "" if self.cost is None else f" · ${self.cost:.4f}"
        tokens = self.prompt_tokens + self.completion_tokens
        return f"{self.calls:,} call{'s' * (self.calls != 1)} · {tokens:,} tokens{cached}{cost}"


@dataclass
class Completion:
    """The answer, how it ended ("final", "max_turns" or "limit"), the usage and depth of the tree,
    and the root's turns, seconds and messages, exactly as they were sent."""

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


def describe(value: Any, inside: int = 20) -> str:
    """Return the type and sizes of a context: "a str of 1,234 characters"."""
    if isinstance(value, dict):
        some = itertools.islice(value.items(), inside)
        parts = "; ".join(f"{str(key)[:40]!r}: {describe(part, 0)}" for key, part in some)
        more = "; ..." if len(value) > inside else ""
        return f"a dict of {len(value):,} keys" + f" ({parts}{more})" * bool(parts)
    if isinstance(value, list):
        sizes = [len(part) for part in value if isinstance(part, (str, list, dict))] or [0]
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        return f"a list of {len(value):,} items ({kinds}) of sizes {min(sizes):,} to {max(sizes):,}"
    return f"a {type(value).__name__} of {len(as_text(value)):,} characters"


# --------------------------------------------------------------------------------- the recursion

RESERVED = ("context", "llm_query", "llm_query_batched", "FINAL", "FINAL_VAR", "SHOW_VARS")
OPENAI, PROMPTS = "https://api.openai.com/v1", str(Path(__file__).parent / "prompts")
env = os.environ.get


def flag(default, help: str, type: Any = None, **more):
    """Return a field of `RLM`, which is a flag of the command line if it has a type."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"help": help, "type": type}, **more)


@dataclass
class RLM:
    """A recursive language model; its fields configure all levels, and may be shared by threads.

    `model` is a name for the HTTP API, or a callable `messages -> str | Reply`.
    """

    model: str | Callable = flag(lambda: env("RLM_MODEL") or "gpt-5-mini", "the model", str)
    sub_model: str | Callable | None = flag(None, "the model below the root, if another", str)
    base_url: str = flag(lambda: env("OPENAI_BASE_URL") or OPENAI, "an OpenAI-compatible API", str)
    api_key: str | None = flag(lambda: env("OPENAI_API_KEY"), "its key", str, repr=False)
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
    prompts: str = flag(PROMPTS, "folder of the prompts", str)
    trace: str | None = flag(None, "file for a trace, for Perfetto or speedscope", str)
    tools: dict = flag(dict, "{name: function} for the REPL, beside llm_query")
    on_event: Callable | None = flag(None, "called with every event: see Tree.span")

    def completion(self, prompt: str, context: Any = None) -> Completion:
        """Answer `prompt` about `context`, any JSON value; without one, the prompt is the context.

        Raises RLMError, with the usage so far on it, when the run cannot go on; TypeError where the
        context is no JSON value, ValueError where the name of a tool is taken.
        """
        for name in self.tools:
            if name in RESERVED or not name.isidentifier():
                raise ValueError(f"a tool cannot be named {name!r}")
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
            text = Path(self.prompts, f"{name}.txt").read_text("utf-8")
            return string.Template(text).substitute(values).strip()
        except (OSError, KeyError, ValueError) as error:
            raise RLMError(f"prompt {name!r} in {self.prompts} is not usable: {error}") from None


@dataclass
class Level:
    """One RLM of the tree: the root, or a child that a sub-call started."""

    tree: "Tree"
    rlm: RLM
    prompt: str
    context: Any
    depth: int = 0
    alone: bool = False  # it goes down in one thread, see Tree.worker
    turns: int = 0
    messages: list[dict] = field(default_factory=list)  # the conversation, as it is sent
    notes: list[str] = field(default_factory=list)  # what the next output tells besides

    def complete(self) -> Completion:
        """Converse until there is an answer."""
        tree = self.tree
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + 50 * self.depth))
        name, self.about = name_of(self.rlm.model), describe(self.context)
        about = {"model": name, "prompt": self.prompt, "context": self.about}
        with tree.span("completion", self.depth, **about) as span:
            try:
                answer, reason = self.converse()
                span.update(answer=answer, finish_reason=reason)
            finally:
                with tree.lock:
                    usage = asdict(tree.usage)
                span.update(turns=self.turns, messages=self.messages, usage=usage)
        about = (tree.usage, tree.deepest, self.turns, span["seconds"], self.messages)
        return Completion(answer, reason, *about)

    def converse(self) -> tuple[Any, str]:
        """Ask for code and run it, turn by turn, until it calls FINAL; return answer and reason."""
        rlm = self.rlm
        if self.depth >= rlm.max_depth:  # the root at max_depth=0: the model alone
            self.tell(self.leaf(self.prompt, self.context))
            return self.ask().text, "final"
        with self.tree.worker(self) as repl:
            self.tell(self.system(), "system")
            self.tell(rlm.say("task", prompt=self.prompt, description=self.about))
            try:
                while self.turns < rlm.max_turns:
                    if final := self.turn(repl):
                        return final.value, "final"
                why, reason = f"all {rlm.max_turns} turns are used", "max_turns"
            except LimitReached as limit:
                why, reason = str(limit), "limit"
                if self.depth:
                    raise
            self.tell(rlm.say("last", reason=why))
            text = self.ask(past_limits=self.depth == 0).text
        for code in textual_final(CODE.sub(r"\1", text)):
            with contextlib.suppress(ValueError, SyntaxError):
                text = ast.literal_eval(code.removeprefix("FINAL"))
        return text, reason

    def llm_query(self, prompt, context=None, recurse=None) -> str:
        """Answer with one model call if all fits, else with a child RLM: this is the recursion.

        recurse=True asks for the child, False for the plain call, None decides by `leaf_chars`.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, not {type(prompt).__name__}")
        rlm, depth = replace(self.rlm, model=self.rlm.sub_model or self.rlm.model), self.depth + 1
        text = None if context is None else as_text(context)
        size = len(prompt) + len(text or "")
        fits = size <= rlm.leaf_chars
        try:
            if depth < rlm.max_depth and (recurse or (recurse is None and not fits)):
                task = (rlm.say("whole"), prompt) if context is None else (prompt, context)
                return as_text(Level(self.tree, rlm, *task, depth, self.alone).complete().answer)
            if fits:
                return self.tree.ask(rlm, [message(self.leaf(prompt, text))], depth).text
        except RLMError as error:
            raise RuntimeError(f"llm_query failed: {error}") from error
        limit = f"{rlm.leaf_chars:,} fit one plain call"
        raise ValueError(f"{size:,} characters are too many, {limit}: cut them up")

    def llm_query_batched(self, prompts, contexts=None, recurse=None) -> list:
        """Answer many prompts in order, here and in a thread for each lane of the tree that is free.

        The caller's own thread always works too, so nested batches cannot deadlock. None stands for
        an answer that failed.
        """
        contexts = [None] * len(prompts) if contexts is None else contexts
        if [type(prompts), type(contexts)] != [list] * 2 or len(prompts) != len(contexts):
            raise ValueError("prompts and contexts must be lists of the same length")
        tree, total, errors, done = self.tree, len(prompts), {}, itertools.count(1)
        todo, helpers, answers = iter(range(total)), [], [None] * total
        helped = recurse is False or self.depth + 1 >= self.rlm.max_depth or not self.alone
        with tree.span("batch", self.depth, total=total) as span:

            def work(lane=None):
                tree.here.id, tree.here.lane = span["id"], lane or tree.here.lane
                while not tree.stopped.is_set() and (i := next(todo, None)) is not None:
                    with contextlib.suppress(IndexError):  # no lane is free
                        if helped and i < total - 1:
                            thread = Thread(target=work, args=[tree.lanes.pop()], daemon=True)
                            thread.start()
                            helpers.append(thread)
                    try:
                        answers[i] = self.llm_query(prompts[i], contexts[i], recurse)
                    except Exception as error:  # noqa: BLE001 - the other items must not be lost
                        errors[i] = error
                    with tree.lock:
                        tree.emit("progress", span, done=next(done), total=total)
                if lane:
                    tree.lanes.append(lane)

            work()
            while helpers:
                helpers.pop().join()
            span["failed"] = len(errors)
        if errors:
            told = "; ".join(f"item {i}: {errors[i]}" for i in sorted(errors)[:9])
            self.notes.append(f"llm_query_batched: {len(errors)} of {total} failed: {told}")
        for error in errors.values():
            if isinstance(error.__cause__, LimitReached):  # what was paid for is shown all the same
                paid = {i: answer for i, answer in enumerate(answers) if answer is not None}
                self.notes.append(f"answers before: {as_text(paid)[: self.rlm.output_chars]}")
                raise error
        return answers

    def turn(self, repl: Sandbox):
        """Ask for code, run it, tell what it printed; return the Final, or None."""
        self.turns, outputs, tree = self.turns + 1, [], self.tree
        with tree.span("turn", self.depth, turn=self.turns):
            reply = self.ask()
            codes = [*CODE.findall(reply.text), *textual_final(CODE.sub("", reply.text))]
            for code in codes * (not reply.cut):
                self.notes = []
                with tree.span("cell", self.depth, code=code) as span:
                    try:
                        output, error, final = repl.run(code, tree.left())
                    except SandboxError as broken:
                        output, error, final = "", f"{broken!r}; your variables are gone", None
                    parts = [output.rstrip("\n"), *self.notes, error]
                    outputs.append("\n".join(filter(None, parts)) or "(no output)")
                    span.update(output=outputs[-1], error=error)
                if final:
                    return final
                if error:
                    break
            output = "\n".join(outputs) or self.rlm.say("cut" if reply.cut else "remind")
            used = [f", {n:,.6g} of {limit:,} {name} used" for name, n, limit in tree.limits()]
            left = f"turn {self.turns} of {self.rlm.max_turns}" + "".join(used)
            self.tell(self.rlm.say("turn", output=output, left=left))

    def system(self) -> str:
        """Return the system prompt, which is the same for all turns."""
        rlm, tools = self.rlm, ""
        for name, tool in rlm.tools.items():
            signature, about = "(...)", (inspect.getdoc(tool) or "").partition("\n")[0]
            with contextlib.suppress(ValueError):  # some builtins have none
                signature = inspect.signature(tool)
            tools += f"- `{name}{signature}`: {about}\n"
        longer = rlm.say("longer" if self.depth + 1 < rlm.max_depth else "longest")
        names = ("output_chars", "leaf_chars", "max_turns")
        limits = {name: f"{getattr(rlm, name):,}" for name in names}
        return rlm.say("system", tools=tools.strip(), longer=longer, **limits)

    def leaf(self, prompt: str, context: Any) -> str:
        """Return the message of a plain call."""
        if context is None:
            return prompt
        return self.rlm.say("leaf", prompt=prompt, context=as_text(context))

    def tell(self, text: str, role: str = "user") -> None:
        self.messages.append(message(text, role))

    def ask(self, past_limits: bool = False) -> Reply:
        reply = self.tree.ask(self.rlm, self.messages, self.depth, past_limits)
        self.tell(reply.text, "assistant")
        return reply


def message(text: str, role: str = "user") -> dict:
    """Return a message; half a surrogate pair, which servers refuse, becomes "?"."""
    return {"role": role, "content": text.encode("utf-8", "replace").decode("utf-8")}


CODE = re.compile(r"(?ms)^[ \t]*```[ \t]*(?:repl|python|py)\b[^\n]*\n(.*?)(?:^[ \t]*```|\Z)")
FINAL = re.compile(r"(?m)^[ \t]*(?:\*\*|`)?(FINAL|FINAL_VAR)\(")
FINAL_END = re.compile(r"(?m)\)(?=[ \t]*(?:\*\*|`)?\.?[ \t]*$)")


def textual_final(text: str) -> list[str]:
    """Return the code for a final outside code: "So:\\nFINAL(a (b))" has ["FINAL('a (b)')"].

    It begins a line, and its last bracket ends one; what merely mentions FINAL(...) does not.
    """
    for found in FINAL.finditer(text):
        rest = text[found.end() :]
        if insides := [rest[: end.start()] for end in FINAL_END.finditer(rest)]:
            balanced = (inside for inside in insides if inside.count("(") == inside.count(")"))
            inside = next(balanced, insides[-1]).strip()
            if found[1] == "FINAL_VAR":
                return [f"FINAL({inside.strip(chr(34) + chr(39))})"]
            with contextlib.suppress(ValueError, SyntaxError):
                inside = value if isinstance(value := ast.literal_eval(inside), str) else inside
            return [f"FINAL({inside!r})"]
    return []


# --------------------------------------------------------------------------- what a tree shares


def name_of(model: str | Callable) -> str:
    """Return what usage, prices and events call a model."""
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


@functools.cache
def session(url: str, size: int, pid: int) -> requests.Session:
    """Return the pool of connections of this process; the environment is read once."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=size))
    with contextlib.suppress(ValueError):  # of a url that is none: post() will tell
        found = http.merge_environment_settings(url, {}, None, None, None)
        http.proxies, http.verify = found["proxies"], found["verify"]
    http.trust_env = False  # ~/.netrc must not replace the key
    return http


class Tree:
    """What the levels of one run share: usage and limits, threads and workers, events, HTTP."""

    def __init__(self, rlm: RLM):
        self.rlm, self.usage, self.deepest, self.calls = rlm, Usage(), 0, 0
        self.began, self.stopped, self.lock = time.monotonic(), threading.Event(), threading.RLock()
        self.ids, self.repls, self.here = itertools.count(1), {}, threading.local()
        self.here.id, self.here.lane = None, 0  # of each thread: its event, its lane of the trace
        slots = max(rlm.concurrency, 1)
        self.lanes = list(range(slots - 1, 0, -1))  # one for each helper thread
        self.workers, self.descent = threading.Semaphore(slots + 1), threading.RLock()
        self.sinks = [sink for sink in (rlm.trace and Trace(rlm.trace), rlm.on_event) if sink]
        self.http = session(rlm.base_url, slots, os.getpid())

    def stop(self) -> None:
        """End what is still under way in other threads."""
        self.stopped.set()
        for repl in list(self.repls.values()):
            repl.close()

    def emit(self, event: str, span: dict, **data) -> None:
        """Hand an event to the trace and the callback; an error there ends only that."""
        known = {"event": event, **span, "lane": self.here.lane, "time": time.time(), **data}
        with self.lock:
            for sink in list(self.sinks):
                try:
                    sink(known)
                except Exception as error:  # noqa: BLE001
                    self.sinks.remove(sink)
                    warnings.warn(f"no more events for {sink}: {error!r}", stacklevel=2)

    @contextlib.contextmanager
    def span(self, kind: str, depth: int, **data):
        """Emit the begin and the end of a step; yield a dict for what is known at its end.

        event: "begin", "end", "progress" (of a batch: done, total), "retry" (of a call: reason, wait).
        kind: completion (model, prompt, context; answer, finish_reason, usage, messages, turns), turn
        (turn), cell (code; output), call (model, messages; reply, usage), batch (total; failed). All
        have id, parent, depth, lane and time, ends have seconds and error. A lane is a call stack.
        """
        span = {"kind": kind, "id": next(self.ids), "parent": self.here.id, "depth": depth}
        began = time.monotonic()
        self.emit("begin", span, **data)
        self.here.id = span["id"]
        try:
            yield span
        except BaseException as error:
            span["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.here.id = span["parent"]
            span.update(seconds=time.monotonic() - began, error=span.get("error"))
            self.emit("end", span)

    def limits(self) -> list[tuple]:
        """Return (name, used, limit) of all that has a limit, as [("calls", 3, 10)]."""
        tokens = self.usage.prompt_tokens + self.usage.completion_tokens
        used = (self.calls, tokens, self.usage.cost or 0, round(time.monotonic() - self.began, 3))
        names = ("calls", "tokens", "cost", "seconds")
        limits = [getattr(self.rlm, f"max_{name}") for name in names]
        return [one for one in zip(names, used, limits, strict=True) if one[2] is not None]

    def left(self, past_limits: bool = False) -> float:
        """Return the seconds left, inf without a limit."""
        limit = math.inf if past_limits or self.rlm.max_seconds is None else self.rlm.max_seconds
        return max(self.began + limit - time.monotonic(), 0.001)

    def check(self, past_limits: bool = False) -> None:
        """Raise LimitReached where a limit is."""
        if self.stopped.is_set():
            raise RLMError("the run was stopped")
        for name, used, limit in self.limits():
            if used >= limit and not past_limits:
                raise LimitReached(f"the limit max_{name}={limit} is reached")

    @contextlib.contextmanager
    def worker(self, level: Level):
        """Yield a REPL. At most `concurrency` + 1 run, and one chain of levels more.

        A level that finds none free queues for `descent`; its whole subtree then runs in one thread
        (`alone`), since helpers might queue behind it for what it waits for them to finish.
        """
        got = self.workers.acquire(blocking=False)
        level.alone = level.alone or not got
        tools = {f.__name__: f for f in (level.llm_query, level.llm_query_batched)}
        names = ("cell_seconds", "memory_mb", "output_chars")
        setup = {name: getattr(self.rlm, name) for name in names}
        setup |= {"variables": {"context": level.context}, "tools": tools | self.rlm.tools}
        try:
            with contextlib.nullcontext() if got else self.descent, Sandbox(**setup) as repl:
                self.repls[id(level)] = repl
                yield repl
        finally:
            self.repls.pop(id(level), None)
            got and self.workers.release()

    def ask(self, rlm: RLM, messages: list[dict], depth: int, past_limits: bool = False) -> Reply:
        """Ask a model at the tree's expense (or past its limits); <think> is taken out."""
        name, messages = name_of(rlm.model), list(messages)
        with self.span("call", depth, model=name, messages=messages) as span:
            with self.lock:  # reserved before it is sent
                self.check(past_limits)
                self.calls, self.deepest = self.calls + 1, max(self.deepest, depth)
            try:
                if callable(rlm.model):
                    reply = rlm.model(messages)
                else:
                    reply = self.post(rlm, messages, span, past_limits)
            except RLMError:
                raise
            except Exception as error:
                raise ModelError(f"the model raised {error!r}") from error
            if not isinstance(reply, (str, Reply)):
                raise ModelError(f"the model returned {reply!r}, not a str or a Reply")
            reply = reply if isinstance(reply, Reply) else Reply(reply)
            if reply.cost is None and (prices := rlm.prices.get(name)):
                fresh = reply.prompt_tokens - reply.cached_tokens
                counts = (fresh, reply.cached_tokens, reply.completion_tokens)
                reply.cost = sum(n * price for n, price in zip(counts, prices, strict=True)) / 1e6
            with self.lock:
                for usage in (self.usage, self.usage.models.setdefault(name, Usage())):
                    usage.add(reply)
            usage = asdict(reply)
            span.update(reply=usage.pop("text"), usage=usage)
        text = re.sub(r"(?s)<think>.*?(</think>|\Z)", "", reply.text)
        return replace(reply, text=text.rpartition("</think>")[2].strip())

    def post(self, rlm: RLM, messages: list[dict], span: dict, past_limits: bool) -> Reply:
        """POST to {base_url}/chat/completions until it works, or trying again would not help."""
        url, key = rlm.base_url.rstrip("/") + "/chat/completions", (rlm.api_key or "").strip()
        if not key and rlm.base_url == OPENAI:
            raise RLMError("no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL), or --api-key")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"model": rlm.model, "messages": messages, **rlm.options}
        post = functools.partial(self.http.post, url, headers=headers, json=body, stream=True)
        # the last question, after max_seconds, must not take long
        hurry = past_limits and self.rlm.max_seconds is not None
        timeout, tries = (min(rlm.timeout, 60), 1) if hurry else (rlm.timeout, max(rlm.tries, 1))
        retry = urllib3.Retry(tries - 1, backoff_factor=0.5, backoff_max=30, allowed_methods=None)
        while True:
            wait, text, asked = min(timeout, self.left(past_limits)), bytearray(), None
            end = time.monotonic() + wait
            try:
                with post(timeout=(min(10, wait), wait), allow_redirects=False) as response:
                    while chunk := response.raw.read1(1 << 16, decode_content=True):
                        text += chunk
                        if time.monotonic() > end:
                            raise requests.Timeout("the answer is still dripping in")
                asked = retry.get_retry_after(response.raw)
                return parse(response, text.decode("utf-8", "replace"))
            except requests.HTTPError as error:
                problem, status = error.args
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                advice = isinstance(error, (ValueError, requests.ConnectionError))
                problem = f"{type(error).__name__} at {url}{' (check --base-url)' * advice}"
                status = 0 if isinstance(error, ValueError) else 503  # a bad URL or key, for one
            problem = problem.replace(key, "***") if len(key) > 8 else problem
            if status not in (408, 429) and status < 500:
                long = status == 400 and re.search("context|token|length", problem)
                raise ModelError(problem + ADVICE.get("long" if long else status, ""))
            self.check(past_limits)
            try:
                retry = retry.increment("POST", url, error=OSError(problem))
            except urllib3.exceptions.MaxRetryError:
                raise ModelError(
                    f"{problem} after {tries} tr{'y' if tries == 1 else 'ies'}"
                ) from None
            wait = asked or retry.get_backoff_time() or 0.2
            self.emit("retry", span, reason=problem, wait=wait)
            self.stopped.wait(min(wait, self.left(past_limits)))
            self.check(past_limits)


ADVICE = {
    "long": " (if the prompt is too long, lower leaf_chars and output_chars)",
    401: " (check OPENAI_API_KEY or --api-key)",
    403: " (check OPENAI_API_KEY or --api-key)",
    404: " (check --model and --base-url)",
}


def parse(response: requests.Response, text: str) -> Reply:
    """Return the reply in the body of a response; raise HTTPError(what went wrong, status)."""
    status = response.status_code
    try:
        body = json.loads(text)
        if status == 200 and not body.get("error"):
            choice, usage = body["choices"][0], body.get("usage") or {}
            said, cost = choice["message"].get("content") or "", usage.get("cost")
            cost = response.headers.get("x-litellm-response-cost") if cost is None else cost
            if isinstance(said, list):
                said = [p for p in said if isinstance(p, dict) and p.get("type") == "text"]
                said = "".join(part["text"] for part in said)
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
            cost = None if cost is None else float(cost)
            cut = choice.get("finish_reason") == "length"
            return Reply(said + "", *(int(count or 0) for count in counts), cost, cut)
        problem = body.get("error") or body.get("message") or body.get("detail") or text
    except (ValueError, LookupError, TypeError, AttributeError):
        problem = text if status != 200 else f"not a chat completion: {text[:200]}"
    if isinstance(problem, dict):
        status = problem["code"] if isinstance(problem.get("code"), int) else status  # a gateway's
        problem = problem.get("message") or problem
    reason = response.reason if status == response.status_code != 200 else ""
    raise requests.HTTPError(
        f"{status} {reason}: {' '.join(as_text(problem).split())[:500]}", status
    )


# ------------------------------------------------------------------ the trace and the live view


class Trace:
    """Writes events in the Chrome Trace Event format; the file is valid JSON after each of them."""

    lock, begun, runs = threading.Lock(), set(), itertools.count(1)
    HEAD = '[\n{"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "rlm"}}\n]'

    def __init__(self, path: str):
        self.path, self.run, self.names = Path(path).absolute(), next(self.runs), {}
        with self.lock:
            try:
                self.path in self.begun or self.path.write_text(self.HEAD)
            except OSError as error:
                raise RLMError(f"the trace {path} cannot be written: {error}") from None
            self.begun.add(self.path)

    def __call__(self, event: dict) -> None:
        phase, kind = {"begin": "B", "end": "E"}.get(event["event"], "i"), event["kind"]
        name = f"{kind} {event.get('turn', event.get('total', ''))}".strip()
        if phase == "B":
            self.names[event["id"]] = name
        elif phase == "E":  # named as its begin, or speedscope takes them for two
            name = self.names.pop(event["id"], kind)
        known = {"name": name if phase != "i" else event["event"], "cat": kind, "ph": phase}
        known |= {"ts": round(event["time"] * 1e6), "pid": self.run, "tid": event["lane"]}
        known["args"] = {k: event[k] for k in event.keys() - {"event", "kind", "lane", "time"}}
        with self.lock, self.path.open("r+b") as file:
            file.seek(-2, os.SEEK_END)  # in place of the last bracket
            file.write(f",\n{json.dumps(known, default=str)}\n]".encode())


LINES = {
    "begin completion": "● {model} · depth {depth} · {context}",
    "end completion": "→ {result} · {seconds:.1f} s",
    "end cell": "turn {turn} · {code} → {result} · {seconds:.1f} s · {spent:,} tokens",
    "progress batch": "  {bar} {done}/{total}",
    "end batch": "  batch {total}/{total} · {failed} failed · {seconds:.1f} s",
    "end call in cell": "  {model} · {tokens:,} tokens · {ask} → {result} · {seconds:.1f} s",
    "failed call": "  {model} {result}",
    "retry call": "  ✗ again in {wait:.1f} s: {reason}",
}


class Live:
    """Shows a run as a tree that grows, with bars for the batches under way on a terminal."""

    def __init__(self, stream, verbose: bool = False):
        self.stream, self.verbose, self.tty = stream, verbose, stream.isatty()
        self.open, self.children, self.bars, self.drawn, self.deepest = {}, Counter(), {}, 0, 0

    def __call__(self, event: dict) -> None:
        id, phase, kind, error = (event.get(key) for key in ("id", "event", "kind", "error"))
        if phase == "begin":
            above = self.open.get(event["parent"], {"name": "", "kind": ""})
            name, self.deepest = above["name"], max(self.deepest, event["depth"])
            if kind == "completion":
                self.children[name] += 1
                name = f"{name}.{self.children[name]}".strip(".")
            self.open[id] = above | event | {"name": name, "within": above["kind"]}
        known = self.open.pop(id) if phase == "end" else self.open[id]
        branch, known = "│  " * known["name"].count(".") + known["name"], known | event
        step = f"{phase} {kind}"
        if step == "end call":  # those of turns and batches have lines of their own
            step = "failed call" if error else f"end call in {known['within']}"
        columns = os.get_terminal_size(self.stream.fileno()).columns if self.tty else 160
        usage = known.get("usage") or {}
        known["tokens"] = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        if step == "end call in turn":
            self.open[event["parent"]]["spent"] = known["tokens"]
        known["bar"] = f"{'█' * (20 * known.get('done', 0) // (known.get('total') or 1)):░<20}"
        lines = [self.line(step, known, columns - len(branch) - 2)] if step in LINES else []
        if step == "end cell" and self.verbose:
            lines = [*known["code"].splitlines(), "→", *known.get("output", "").splitlines()]
        lines = [f"{branch} {line}" for line in lines]
        self.bars.pop(id, None)
        if step == "progress batch":
            self.bars[id] = lines.pop()
        if step == "end completion" and event["parent"] is None:
            turns, usage = event["turns"], Usage(**event["usage"])
            spent = f"{turns} turn{'s' * (turns != 1)} · {usage} · {event['seconds']:.1f} s"
            lines.append(f"{spent} · deepest level {self.deepest}")
        if lines or (self.tty and kind == "batch"):
            self.draw(lines, list(self.bars.values()) if self.tty else [], columns - 1)

    def line(self, step: str, known: dict, width: int) -> str:
        """Fill in a line of `LINES`; the texts in it share the room that is left."""
        result = known.get("answer", known.get("output", known.get("reply", "")))
        texts = {"code": known.get("code", ""), "result": result}
        texts["ask"] = known.get("messages", [{"content": ""}])[0]["content"]
        blank = {"spent": 0, **known, **dict.fromkeys(texts, "")}
        room = max((width - len(LINES[step].format_map(blank))) // 2, 18)
        texts = {name: first(text, room) for name, text in texts.items()}
        if error := known.get("error"):
            texts["result"] = f"✗ {error.splitlines()[-1]}"
        return LINES[step].format_map(blank | texts)

    def draw(self, lines: list[str], bars: list[str], width: int) -> None:
        """Write lines above the bars; what a model printed cannot move the cursor."""
        out = f"\x1b[{self.drawn}A\r\x1b[J" if self.drawn else ""
        for line in lines + bars:
            line = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "?", line)
            line = line if self.verbose else line[:width]
            red = self.tty and "✗" in line and not env("NO_COLOR")
            out += f"\x1b[31m{line}\x1b[0m\n" if red else f"{line}\n"
        self.drawn = len(bars)
        self.stream.write(out)
        self.stream.flush()


def first(value: Any, room: int) -> str:
    """Return the first line, shortened to `room` characters."""
    line = as_text(value).strip().partition("\n")[0]
    return line if len(line) <= room else line[: room - 1] + "…"


# ------------------------------------------------------------------------------ the command line


def option(text: str) -> tuple[str, Any]:
    """Parse temperature=0.5; the value is JSON where it can be."""
    name, value = text.split("=", 1)
    with contextlib.suppress(ValueError):
        value = json.loads(value)
    return name, value


def price(text: str) -> tuple[str, tuple]:
    """Parse MODEL=0.25,0.03,2."""
    name, numbers = text.rsplit("=", 1)
    uncached, cached, output = map(float, numbers.split(","))
    return name, (uncached, cached, output)


def read(name: str) -> str:
    """Return the text of a file, or of standard input for "-"."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return data.decode("utf-8", "replace")


def main(argv: list[str] | None = None) -> int:
    """Answer a question from the command line; return the exit status."""
    parser = argparse.ArgumentParser("rlm.py", description="Ask about any amount of text.")
    add, many = parser.add_argument, {"action": "append", "default": []}
    add("question")
    add("files", nargs="*", help="text files; - or a pipe: standard input")
    for one in fields(RLM):
        if kind := one.metadata["type"]:
            default = one.name != "api_key" and one.default_factory()
            about = {"help": one.metadata["help"] + f" (default: {default})" * bool(default)}
            about |= {"type": kind, "metavar": kind.__name__.upper(), "default": argparse.SUPPRESS}
            add("--" + one.name.replace("_", "-"), **about)
    add("--option", dest="options", type=option, metavar="K=V", help="a field of requests", **many)
    about = {"metavar": "MODEL=INPUT,CACHED,OUTPUT", "help": "dollars per million tokens"}
    add("--price", dest="prices", type=price, **about, **many)
    add("--quiet", action="store_true", help="show the answer and nothing else")
    add("--verbose", action="store_true", help="show code and output in full")
    given = vars(parser.parse_intermixed_args(argv))
    question, files, quiet, verbose = map(given.pop, ("question", "files", "quiet", "verbose"))
    given |= {"options": dict(given["options"]), "prices": dict(given["prices"])}
    live = None if quiet else Live(sys.stderr, verbose)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        piped = not files and hasattr(sys.stdin, "buffer") and not sys.stdin.isatty()
        texts = {name: read(name) for name in files or ["-"] * piped}
        context = texts if len(texts) > 1 else next(iter(texts.values()), None)
        context = context or None if piped else context
        done = RLM(on_event=live, **given).completion(question, context)
        getattr(sys.stdout, "reconfigure", dict)(errors="replace")
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
