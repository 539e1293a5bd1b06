"""Recursive Language Models: a model that reads what does not fit its window by writing code.

    done = RLM(model="gpt-5-mini").completion("Who won the pageant in 1998?", context=documents)

The context is a variable in a REPL (sandbox.py), not part of the prompt. The model writes code that
looks at it and asks sub-calls about the pieces: `llm_query` is one model call when the piece fits,
and else a child RLM with a REPL of its own, to any depth (Zhang, Kraska, Khattab, arXiv
2512.24601). Not here: what is said to models (prompts/), streaming, other kinds of API.
"""

# ruff: noqa: BLE001, RUF009, RUF012
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

if __package__:
    from .sandbox import Final, Sandbox, SandboxError
else:
    from sandbox import Final, Sandbox, SandboxError

env, OPENAI, HERE = os.environ.get, "https://api.openai.com/v1", Path(__file__).parent
CODE = re.compile(r"(?ms)^[ \t]*```[ \t]*(?:repl|python|py)\b[^\n]*\n(.*?)(?:^[ \t]*```(?!\w)|\Z)")
FINAL = re.compile(r"(?m)^[ \t]*(?:\*\*|`)?(FINAL|FINAL_VAR)\(")
FINAL_END = re.compile(r"(?m)\)(?=[ \t]*(?:\*\*|`)?\.?[ \t]*$)")
RESERVED = {"context", "llm_query", "llm_query_batched", "FINAL", "FINAL_VAR", "SHOW_VARS"}
ADVICE = "check --model, --base-url and OPENAI_API_KEY or --api-key; too long: lower leaf_chars"


class RLMError(Exception):
    """What a run cannot get past; its `usage` is what the run has cost so far."""


class ModelError(RLMError):
    """The model or its server failed, and trying again did not or would not help."""


class LimitReached(RLMError):
    """A limit of the tree is reached; the message says which."""


@dataclass
class Reply:
    """What a model said, the tokens and dollars that it took, and whether it was cut off."""

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    cut: bool = False


@dataclass
class Usage:
    """Answered calls, tokens and dollars of a tree; `cost` is None where nobody reported one."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    models: dict[str, "Usage"] = field(default_factory=dict)

    def add(self, reply: Reply) -> None:
        """Add one call, and what its reply took."""
        self.calls += 1
        for name in vars(self).keys() & vars(reply):  # the tokens and the cost
            if (more := getattr(reply, name)) is not None:
                setattr(self, name, (getattr(self, name) or 0) + more)

    def __str__(self):
        many, cost = "s" * (self.calls != 1), "" if self.cost is None else f" · ${self.cost:.4f}"
        tokens = f"{self.prompt_tokens + self.completion_tokens:,} tokens"
        return f"{self.calls:,} call{many} · {tokens} ({self.cached_tokens:,} cached){cost}"


@dataclass
class Completion:
    """The answer, how it came about, and the root's conversation, exactly as it was sent."""

    answer: Any
    finish_reason: str  # "final", "max_turns" or "limit"
    usage: Usage  # of the whole tree, as is the depth
    depth: int
    turns: int
    seconds: float
    messages: list[dict]

    def __str__(self):
        return as_text(self.answer)


def as_text(value: Any) -> str:
    """Return a str as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def describe(value: Any, keys: int = 20) -> str:
    """Return the type and sizes of a context: "a str of 1,234 characters"."""
    if isinstance(value, dict):
        parts = itertools.islice(value.items(), keys)
        parts = [f"{str(key)[:40]!r}: {describe(part, 0)}" for key, part in parts]
        parts += ["..."] * (len(value) > keys > 0)
        return f"a dict of {len(value):,} keys" + f" ({'; '.join(parts)})" * bool(parts)
    if isinstance(value, list):
        sizes = [len(part) for part in value if isinstance(part, (str, list, dict))] or [0]
        kinds = ", ".join(sorted({type(part).__name__ for part in value}))
        return f"a list of {len(value):,} items ({kinds}) of sizes {min(sizes):,} to {max(sizes):,}"
    return f"a {type(value).__name__} of {len(as_text(value)):,} characters"


def textual_final(text: str) -> list[str]:
    """Return the code for a final outside code: "So:\\nFINAL(a (b))" means ["FINAL('a (b)')"]."""
    found = FINAL.search(text)  # it begins a line; what merely mentions FINAL(...) does not
    ends = FINAL_END.finditer(text, found.end()) if found else ()
    insides = [text[found.end() : end.start()].strip() for end in ends]
    inside = next((i for i in insides if i.count("(") == i.count(")")), (insides or [""])[-1])
    if insides and found[1] == "FINAL":
        with contextlib.suppress(ValueError, SyntaxError):  # a literal, as in FINAL("Paris")
            inside = value if isinstance(value := ast.literal_eval(inside), str) else inside
        return [f"FINAL({inside!r})"]
    return [f"FINAL({inside.strip(chr(34) + chr(39))})"] if insides else []


def pair(text: str) -> tuple[str, Any]:
    """Parse K=V, where V is JSON if it can be, as in "seed=7" or "model=1,0.1,10"."""
    name, value = text.split("=", 1)
    with contextlib.suppress(ValueError):
        values = json.loads(f"[{value}]")
        value = values if len(values) > 1 else values[0]
    return name, value


def flag(default: Any, help: str, kind: Callable | None = None, **more) -> Any:
    """Return a field of `RLM`, which is a flag of the command line if it has a kind."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"help": help, "type": kind}, **more)


@dataclass
class RLM:
    """A recursive language model. A model may also be a callable: messages -> str | Reply."""

    model: str | Callable = flag(lambda: env("RLM_MODEL") or "gpt-5-mini", "the model", str)
    sub_model: str | Callable | None = flag(None, "the model below the root, if another", str)
    base_url: str = flag(lambda: env("OPENAI_BASE_URL") or OPENAI, "an OpenAI-compatible API", str)
    api_key: str | None = flag(lambda: env("OPENAI_API_KEY"), "its key", str, repr=False)
    options: dict = flag(dict, "more fields of each request, such as temperature", pair)
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
    prices: dict = flag(dict, "MODEL=INPUT,CACHED,OUTPUT: dollars per million tokens", pair)
    prompts: str = flag(str(HERE / "prompts"), "folder of the prompts", str)
    trace: str | None = flag(None, "file for a trace, for Perfetto or speedscope", str)
    tools: dict = flag(dict, "{name: function} for the REPL, beside llm_query")
    on_event: Callable | None = flag(None, "called with every event: see Level.step")

    def completion(self, prompt: str, context: Any = None) -> Completion:
        """Answer `prompt` about `context`, any JSON value; without one, the prompt is the context.

        Raises RLMError, with the `usage` so far, when the run cannot go on.
        """
        tree = Tree(self)
        try:
            if taken := RESERVED & self.tools.keys():
                raise RLMError(f"tools cannot be named {', '.join(taken)}")
            tree.sinks += [Trace(self.trace)] if self.trace else []
            root = Level(tree, self, prompt, context)
            answer, reason = root.complete(plain=self.max_depth < 1)
            about = (tree.usage, tree.deepest, root.turns, tree.used()["seconds"], root.messages)
            return Completion(answer, reason, *about)
        except BaseException as cause:
            foreign = isinstance(cause, Exception) and not isinstance(cause, RLMError)
            error = RLMError(f"{type(cause).__name__}: {cause}") if foreign else cause
            error.usage = tree.usage
            raise error from (cause if foreign else cause.__cause__)
        finally:
            tree.stopped.set()  # for what is still under way in other threads
            tree.sinks.clear()
            for repl in list(tree.repls):
                repl.close()

    def say(self, name: str, **values) -> str:
        """Return the prompt `name`, filled in with `values` and the fields of this RLM."""
        text = Path(self.prompts, f"{name}.txt").read_text("utf-8")
        known = vars(self) | {"api_key": None} | values
        return string.Template(text).safe_substitute(known).strip()


class Level:
    """One RLM of the tree: the root, called "1", or a child such as "1.2" that a sub-call began."""

    def __init__(self, tree: "Tree", rlm: RLM, prompt: str, context: Any, above=None):
        self.tree, self.rlm, self.prompt, self.context = tree, rlm, prompt, context
        self.name = f"{above.name}.{next(above.children)}" if above else "1"
        self.depth, self.children = self.name.count("."), itertools.count(1)
        self.span, self.alone = (above.span, above.alone) if above else ({}, False)
        self.turns, self.messages, self.notes = 0, [], []
        name = getattr(rlm.model, "__name__", type(rlm.model).__name__)
        self.model = rlm.model if isinstance(rlm.model, str) else name  # for usage, prices, events

    def complete(self, plain: bool) -> tuple[Any, str]:
        """Ask the model once, or for code, turn by turn, until that calls FINAL: answer, reason."""
        rlm, tree, final = self.rlm, self.tree, None
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + 50 * self.depth))
        if plain:  # the base case
            given = {"prompt": self.prompt, "context": as_text(self.context)}
            self.tell(self.prompt if self.context is None else rlm.say("leaf", **given))
            return self.ask().text, "final"
        if self.context is None:
            self.prompt, self.context = rlm.say("whole"), self.prompt
        about = {"prompt": self.prompt, "context": describe(self.context)}
        tools = rlm.tools | {f.__name__: f for f in (self.llm_query, self.llm_query_batched)}
        setup = {n: getattr(rlm, n) for n in ("cell_seconds", "memory_mb", "output_chars")}
        with self.step("completion", **about) as span, contextlib.ExitStack() as stack:
            if tree.workers.acquire(blocking=False):
                stack.callback(tree.workers.release)
            else:  # one chain of levels more, without helpers: they would queue behind it
                self.alone = stack.enter_context(tree.descent)
            repl = stack.enter_context(Sandbox({"context": self.context}, tools, **setup))
            tree.repls.add(repl)
            stack.callback(tree.repls.discard, repl)
            self.tell(self.system(), "system")
            self.tell(rlm.say("task", prompt=self.prompt, description=about["context"]))
            try:
                while not final and self.turns < rlm.max_turns:
                    final = self.turn(repl)
                reason, why = "max_turns", f"all {rlm.max_turns} turns are used"
            except LimitReached as limit:
                reason, why = "limit", str(limit)
            answer, reason = (final.value, "final") if final else (self.best(why), reason)
            with tree.lock:
                span |= {"answer": answer, "finish_reason": reason, "turns": self.turns}
                span |= {"messages": self.messages, "usage": asdict(tree.usage)}
        return answer, reason

    def system(self) -> str:
        """Return the system prompt."""
        lines, rlm = [], self.rlm
        for name, tool in rlm.tools.items():
            signature, about = "(...)", (inspect.getdoc(tool) or "").partition("\n")[0]
            with contextlib.suppress(ValueError):  # some builtins have none
                signature = inspect.signature(tool)
            lines.append(f"- `{name}{signature}`: {about}")
        longer = rlm.say("longer" if self.depth + 1 < rlm.max_depth else "longest")
        return rlm.say("system", longer=longer, tools="\n".join(lines))

    def best(self, why: str) -> str:
        """Ask outright for an answer; the root goes past the limits, and by a minute at most."""
        if self.depth == 0:
            minute = {"seconds": self.tree.used()["seconds"] + 60}
            self.tree.limits = minute if "seconds" in self.tree.limits else {}
        self.tell(self.rlm.say("last", reason=why))
        text = self.ask().text
        for code in textual_final(CODE.sub(r"\1", text)):
            with contextlib.suppress(ValueError, SyntaxError):
                text = ast.literal_eval(code.removeprefix("FINAL"))
        return text

    def llm_query(self, prompt, context=None, recurse=None) -> str:
        """Answer with one model call if all fits, else with a child RLM: this is the recursion."""
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, not {type(prompt).__name__}")
        rlm = replace(self.rlm, model=self.rlm.sub_model or self.rlm.model)
        size = len(prompt) + (0 if context is None else len(as_text(context)))
        fits, child = size <= rlm.leaf_chars, Level(self.tree, rlm, prompt, context, self)
        wanted = not fits if recurse is None else recurse  # a child
        plain = child.depth >= rlm.max_depth or not wanted
        if plain and not fits:
            raise ValueError(f"{size:,} characters, {rlm.leaf_chars:,} fit a plain call: cut up")
        try:
            return as_text(child.complete(plain)[0])
        except Exception as error:
            raise RuntimeError(f"llm_query failed: {error}") from error

    def llm_query_batched(self, prompts, contexts=None, recurse=None) -> list:
        """Answer many prompts in order, side by side; None stands for an answer that failed."""
        contexts = [None] * len(prompts) if contexts is None else contexts
        if [type(prompts), type(contexts)] != [list] * 2 or len(prompts) != len(contexts):
            raise ValueError("prompts and contexts must be lists of the same length")
        tree, total, errors, helpers = self.tree, len(prompts), {}, []
        todo, done, answers = iter(range(total)), itertools.count(1), [None] * total

        def work(lane: int = 0) -> None:
            tree.here.lane = lane or tree.here.lane
            for i in todo:
                with contextlib.suppress(IndexError):  # no lane is free
                    if i < total - 1 and not self.alone:
                        helper = threading.Thread(None, work, None, [tree.lanes.pop()], daemon=True)
                        helper.start()
                        helpers.append(helper)
                try:
                    answers[i] = self.llm_query(prompts[i], contexts[i], recurse)
                except Exception as error:
                    errors[i] = error
                tree.emit("progress", span, done=next(done))
            if lane:
                tree.lanes.append(lane)

        with self.step("batch", total=total) as span:
            work()  # in this thread, so that a batch within a batch cannot wait for ever
            for helper in helpers:  # there may be more of them meanwhile
                helper.join()
            span["failed"] = len(errors)
        if errors:
            told = "; ".join(f"item {i}: {errors[i]}" for i in sorted(errors)[:9])
            self.notes.append(f"llm_query_batched: {len(errors)} of {total} failed: {told}")
        for error in errors.values():
            if isinstance(error.__cause__, LimitReached):  # what was paid for is shown all the same
                self.notes.append(f"answers before: {as_text(answers)[: self.rlm.output_chars]}")
                raise error
        return answers

    def turn(self, repl: Sandbox) -> Final | None:
        """Ask for code and run it; tell what it printed, or return what it passed to FINAL."""
        rlm, tree, outputs, error, final = self.rlm, self.tree, [], None, None
        self.turns += 1
        with self.step("turn", turn=self.turns) as span:
            reply = self.ask()
            codes = [*CODE.findall(reply.text), *textual_final(CODE.sub("", reply.text))]
            for code in codes * (not reply.cut):
                with self.step("cell", code=code) as cell:
                    self.notes = []
                    try:
                        output, error, final = repl.run(code, tree.left())
                    except SandboxError as broken:
                        output, error = "", f"{broken!r}; your variables are gone"
                    parts = filter(None, [output.rstrip("\n"), *self.notes, error])
                    outputs.append("\n".join(parts) or "(no output)")
                    cell.update(output=outputs[-1], error=error)
                if final or error:
                    break
            output = "\n".join(outputs) or rlm.say("cut" if reply.cut else "remind")
            span |= {"code": "\n".join(codes), "output": output, "error": error}
            span["usage"] = vars(reply) | {"text": ""}
            left, used = [f"turn {self.turns} of {rlm.max_turns}"], tree.used()
            left += [f"{round(used[n], 3):,} of {m:,} {n} used" for n, m in tree.limits.items()]
            if not final:
                self.tell(rlm.say("turn", output=output, left=", ".join(left)))
        return final

    def ask(self) -> Reply:
        """Ask the model at the tree's expense; keep and return its reply, without its <think>."""
        tree, rlm = self.tree, self.rlm
        with self.step("call", messages=list(self.messages)) as span:
            with tree.lock:  # reserved before it is sent
                tree.check()
                tree.calls, tree.deepest = tree.calls + 1, max(tree.deepest, self.depth)
            reply = rlm.model(span["messages"]) if callable(rlm.model) else post(self, span)
            reply = Reply(reply) if isinstance(reply, str) else reply
            if reply.cost is None and self.model in rlm.prices:
                new, cached, output = (price / 1e6 for price in rlm.prices[self.model])
                reply.cost = new * (reply.prompt_tokens - reply.cached_tokens)
                reply.cost += cached * reply.cached_tokens + output * reply.completion_tokens
            with tree.lock:
                tree.usage.add(reply)
                tree.usage.models.setdefault(self.model, Usage()).add(reply)
            span |= {"reply": reply.text, "usage": vars(reply) | {"text": ""}}
        text = re.sub(r"(?s)<think>.*?(</think>|\Z)", "", reply.text)
        self.tell(text.rpartition("</think>")[2].strip(), "assistant")
        return replace(reply, text=self.messages[-1]["content"])

    def tell(self, text: str, role: str = "user") -> None:
        """Add a message; half a surrogate pair, which servers refuse, becomes "?"."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        self.messages.append({"role": role, "content": text})

    @contextlib.contextmanager
    def step(self, kind: str, **data):
        """Emit begin and end of a step; yield the event (see README), to add what the end knows."""
        above, began = self.span, time.monotonic()
        self.span = span = {"kind": kind, "id": next(self.tree.ids), "parent": above.get("id")}
        span |= {"within": above.get("kind"), "rlm": self.name, "depth": self.depth}
        span |= {"model": self.model, "error": None, **data}
        self.tree.emit("begin", span)
        try:
            yield span
        except BaseException as error:
            span["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.span = above
            self.tree.emit("end", span, seconds=time.monotonic() - began)


class Tree:
    """What the levels of one run share: usage and limits, threads and workers, events."""

    def __init__(self, rlm: RLM):
        limits = {n: getattr(rlm, f"max_{n}") for n in ("calls", "tokens", "cost", "seconds")}
        self.limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.usage, self.calls, self.deepest, self.began = Usage(), 0, 0, time.monotonic()
        self.ids, self.lock, self.stopped = itertools.count(1), threading.RLock(), threading.Event()
        self.here, slots = threading.local(), max(rlm.concurrency, 1)
        self.here.lane, self.lanes = 0, list(range(slots - 1, 0, -1))  # one for each helper thread
        self.workers, self.descent = threading.Semaphore(slots + 1), threading.RLock()
        self.sinks, self.repls = [rlm.on_event] if rlm.on_event else [], set()

    def used(self) -> dict[str, float]:
        """Return what counts against the limits, so far."""
        tokens, cost = self.usage.prompt_tokens + self.usage.completion_tokens, self.usage.cost
        seconds = time.monotonic() - self.began
        return {"calls": self.calls, "tokens": tokens, "cost": cost or 0, "seconds": seconds}

    def left(self) -> float:
        """Return the seconds left, inf without a limit."""
        return max(self.limits.get("seconds", float("inf")) - self.used()["seconds"], 0.001)

    def check(self) -> None:
        """Raise LimitReached where a limit is."""
        if self.stopped.is_set():
            raise RLMError("the run was stopped")
        used = self.used()
        for name, limit in self.limits.items():
            if used[name] >= limit:
                raise LimitReached(f"the limit max_{name}={limit} is reached")

    def emit(self, event: str, span: dict, **data) -> None:
        """Hand an event to the trace and the callback; an error there ends only that."""
        known = {"event": event, **span, "lane": self.here.lane, "time": time.time(), **data}
        with self.lock:
            for sink in list(self.sinks):
                try:
                    sink(known)
                except Exception as error:
                    self.sinks.remove(sink)
                    warnings.warn(f"no more events for {sink}: {error!r}", stacklevel=2)


@functools.cache
def session(url: str, pid: int) -> requests.Session:
    """Return the pool of connections of this process; the environment is read once."""
    http = requests.Session()
    http.adapters = dict.fromkeys(http.adapters, requests.adapters.HTTPAdapter(pool_maxsize=512))
    with contextlib.suppress(ValueError):  # of a url that is none: the request will tell
        known = http.merge_environment_settings(url, {}, None, None, None)
        http.proxies, http.verify = known["proxies"], known["verify"]
    http.trust_env = False  # or ~/.netrc would replace the key
    return http


def post(level: Level, span: dict) -> Reply:
    """POST to {base_url}/chat/completions until it works, or trying again would not help."""
    rlm, tree = level.rlm, level.tree
    url, key = rlm.base_url.rstrip("/") + "/chat/completions", (rlm.api_key or "").strip()
    if not key and rlm.base_url == OPENAI:
        raise RLMError("no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL), or --api-key")
    request = {"json": {"model": rlm.model, "messages": span["messages"], **rlm.options}}
    request["headers"] = {"Authorization": f"Bearer {key}"} if key else {}
    request |= {"stream": True, "allow_redirects": False}
    for tried in itertools.count(1):
        data, wait, seconds = bytearray(), min(0.25 * 2**tried, 30), min(rlm.timeout, tree.left())
        request["timeout"], end = (min(10, seconds), seconds), time.monotonic() + seconds
        try:
            with session(url, os.getpid()).post(url, **request) as response:
                while chunk := response.raw.read1(1 << 16, decode_content=True):
                    data += chunk
                    if time.monotonic() > end:
                        raise requests.Timeout("the answer is still dripping in")
            text, status = data.decode("utf-8", "replace"), response.status_code
            body = json.loads(text) if status == 200 else {}
            choice, usage = body["choices"][0], body.get("usage") or {}
            said = choice["message"].get("content") or ""
            if isinstance(said, list):  # parts, of which some may be thoughts
                said = "".join(part["text"] for part in said if part["type"] == "text")
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
            cost = usage.get("cost", response.headers.get("x-litellm-response-cost"))
            cost, cut = cost and float(cost), choice.get("finish_reason") == "length"
            return Reply(said + "", *(int(count or 0) for count in counts), cost, cut)
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
            problem, again = f"{type(error).__name__} at {url}", not isinstance(error, ValueError)
        except (ValueError, LookupError, TypeError, AttributeError):  # no chat completion
            if status == 200 and (code := re.search(r'"code"\s*:\s*(\d{3})\b', text)):
                status = int(code[1])  # of a gateway, about the server behind it
            again = status >= 500 or status in (408, 429)
            wait = urllib3.Retry().get_retry_after(response) or wait
            what = "not a chat completion" if status == 200 else response.reason
            said = re.search(r'"(?:message|detail|error)"\s*:\s*("(?:[^"\\]|\\.)*")', text)
            said = json.loads(said[1], strict=False) if said else text
            problem = f"{status} {what}: {' '.join(said.split())[:500]}"
        problem = problem.replace(key, "***") if len(key) > 8 else problem
        if not again or tried >= rlm.tries:
            raise ModelError(f"{problem} after {tried} tries" if again else f"{problem} ({ADVICE})")
        tree.emit("retry", span, reason=problem, wait=wait)
        tree.stopped.wait(min(wait, tree.left()))
        tree.check()


class Trace:
    """Writes events in the Chrome Trace Event format; the file is valid JSON after each of them."""

    lock, runs = threading.Lock(), itertools.count(1)
    HEAD = '[\n{"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "rlm"}}\n]'

    def __init__(self, path: str):
        self.path, self.run = Path(path).absolute(), next(self.runs)
        try:
            self.path.write_text(self.HEAD)
        except OSError as error:
            raise RLMError(f"the trace {path} cannot be written: {error}") from None

    def __call__(self, event: dict) -> None:
        phase, kind = {"begin": "B", "end": "E"}.get(event["event"], "i"), event["kind"]
        name = event["event"] if phase == "i" else f"{kind} {event.get('turn', event['rlm'])}"
        known = {"name": name, "cat": kind, "ph": phase, "ts": round(event["time"] * 1e6)}
        hidden = ("event", "kind", "lane", "time", "" if phase == "E" else "messages")
        args = {key: event[key] for key in event if key not in hidden}
        known |= {"pid": self.run, "tid": event["lane"], "args": args}
        with self.lock, self.path.open("r+b") as file:
            file.seek(-2, os.SEEK_END)  # in place of the last bracket
            file.write(f",\n{json.dumps(known, default=str)}\n]".encode())


class Live:
    """Shows events as lines of a tree; on a terminal, the batches under way in one line below."""

    LINES = {
        "begin completion": "● {model} · depth {depth} · {context}",
        "end completion": "→ {result} · {seconds:.1f} s",
        "end turn": "turn {turn} · {what} → {result} · {seconds:.1f} s · {tokens:,} tokens",
        "end call": "{model} · {what} → {result} · {seconds:.1f} s · {tokens:,} tokens",
        "end batch": "batch {total}/{total} · {failed} failed · {seconds:.1f} s",
        "retry call": "✗ again in {wait:.1f} s: {reason}",
    }

    def __init__(self, stream, verbose: bool = False):
        self.stream, self.verbose, self.tty, self.bars = stream, verbose, stream.isatty(), {}

    def __call__(self, event: dict) -> None:
        step, kind, error = f"{event['event']} {event['kind']}", event["kind"], event["error"]
        width = os.get_terminal_size(self.stream.fileno()).columns - 1 if self.tty else 160
        branch = "│  " * event["rlm"].count(".") + event["rlm"]
        room, usage = max((width - len(branch) - 40) // 2, 18), event.get("usage") or {}
        what = event.get("code") or (event.get("messages") or [{"content": ""}])[-1]["content"]
        result = as_text(event.get("answer", event.get("output", event.get("reply", ""))))
        if not self.verbose or kind != "turn":
            what, result = (text.strip().partition("\n")[0] for text in (what, result))
            what, result = (t if len(t) <= room else f"{t[: room - 1]}…" for t in (what, result))
        result = f"✗ {error.splitlines()[-1]}" if error and not self.verbose else result
        tokens = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        known = event | {"what": what, "result": result, "tokens": tokens}
        told = step in self.LINES
        if step == "end call":  # those of turns and batches have no line of their own
            told = error or event["within"] in ("cell", None)
        elif step == "end turn":  # where its call failed, that has been told
            told = "output" in event
        out = "\r\x1b[K" * self.tty
        for line in self.LINES[step].format_map(known).splitlines() if told else ():
            line = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "?", f"{branch} {line}")
            line = line if self.verbose else line[:width]
            red = self.tty and "✗" in line and not env("NO_COLOR")
            out += f"\x1b[31m{line}\x1b[0m\n" if red else f"{line}\n"
        if kind == "batch":
            done, total = event.get("done", 0), event["total"]
            bar = "█" * (10 * done // max(total, 1))
            self.bars[event["id"]] = f"{event['rlm']} {bar:░<10} {done}/{total}  "
        if event["event"] == "end":
            self.bars.pop(event["id"], None)
            self.bars = self.bars if event["parent"] else {}
        self.stream.write(out + "".join(self.bars.values())[:width] * self.tty)
        self.stream.flush()


def main(argv: list[str] | None = None) -> int:
    """Answer a question from the command line; return the exit status."""
    parser = argparse.ArgumentParser("rlm.py", description="Ask about any amount of text.")
    parser.add_argument("question")
    parser.add_argument("files", nargs="*", help="text files; - or a pipe: standard input")
    for one in fields(RLM):
        if kind := one.metadata["type"]:
            given = "" if one.name == "api_key" else one.default_factory()
            about = {"help": one.metadata["help"] + f" (default: {given})" * bool(given)}
            about |= {"type": kind, "action": "append" if kind is pair else "store"}
            name = one.name.replace("_", "-").removesuffix("s" * (kind is pair))
            parser.add_argument(f"--{name}", dest=one.name, default=argparse.SUPPRESS, **about)
    parser.add_argument("--quiet", action="store_true", help="show the answer and nothing else")
    parser.add_argument("--verbose", action="store_true", help="show code and output in full")
    given = vars(parser.parse_intermixed_args(argv))
    question, files, quiet, verbose = map(given.pop, ("question", "files", "quiet", "verbose"))
    given = {name: dict(v) if isinstance(v, list) else v for name, v in given.items()}
    if any(str(price).count(",") != 2 for price in given.get("prices", {}).values()):
        parser.error("--price takes MODEL=INPUT,CACHED,OUTPUT, in dollars per million tokens")
    try:
        names = files or ["-"] * (not sys.stdin.isatty())
        paths = {name: Path("/dev/stdin" if name == "-" else name) for name in names}
        texts = {name: path.read_bytes().decode("utf-8", "replace") for name, path in paths.items()}
        context = texts if len(texts) > 1 else "".join(texts.values())
        rlm = RLM(on_event=None if quiet else Live(sys.stderr, verbose), **given)
        done = rlm.completion(question, context if files or context else None)
        if not quiet:
            spent = f"{done.turns} turn{'s' * (done.turns != 1)} · {done.usage}"
            spent += f" · {done.seconds:.1f} s · deepest level {done.depth}"
            print(spent, file=sys.stderr)
        sys.stdout.reconfigure(errors="replace")
        print(done, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, RLMError, OSError) as error:
        spent = getattr(error, "usage", "0 calls")
        print(f"rlm.py: {str(error) or 'interrupted'}, after {spent}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
