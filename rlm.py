"""Recursive Language Models: questions about more text than a model can read.

    done = RLM(model="gpt-5-mini").completion("Who won the pageant in 1998?", context=documents)

The text is not part of the prompt. It is `context`, a variable in a Python REPL (sandbox.py), and
the model writes code that looks at it. In that code `llm_query(prompt, piece)` asks the model about
a piece: one plain call if the piece fits, else a child with a REPL of its own, to any depth (Zhang,
Kraska, Khattab, arXiv 2512.24601).

`RLM` is the configuration. A `Run` is what one completion shares, a `Node` one question of its
tree: `complete`, `turn` and `llm_query` are the recursion. What is said to models is in prompts/.
Not here: streaming, other kinds of API (a model may be any function).
"""

import argparse
import ast
import atexit
import builtins
import functools
import inspect
import io
import itertools
import json
import os
import random
import re
import reprlib
import signal
import socket
import string
import sys
import textwrap
import threading
import time
import urllib.parse
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from math import floor, inf, log10
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import requests
import urllib3

if __package__:
    from .sandbox import MODULES, Final, Output, Sandbox, SandboxError, settle
else:
    from sandbox import MODULES, Final, Output, Sandbox, SandboxError, settle

OPENAI = "https://api.openai.com/v1"
PROMPTS = Path(__file__).parent / "prompts"
RESERVED = {"context", "llm_query", "llm_query_batched", "FINAL", "FINAL_VAR", "SHOW_VARS"}
LIMITS = ("seconds", "calls", "tokens", "cost")
TOO_LONG = {400, 413, 500}  # how servers refuse a request that does not fit; wordings differ
SHORT = 200  # characters; a shorter message is not worth leaving out
LAST_SECONDS = 60  # for the last question of a run that has reached a limit
LONGEST_WAIT = 300  # seconds that a server may ask for, where there is no max_seconds

WAY_OUT = (
    "decode bytes, or pass json.loads(json.dumps(x, default=str)); "
    "of a DataFrame df.to_dict('records') or df.to_csv()"
)

# ------------------------------------------------------------------------------ results and errors


class RLMError(Exception):
    """What a run cannot get past; its `usage` is what the run has cost so far."""

    usage = None


@dataclass(eq=False)
class ModelError(RLMError):
    """The model or its server failed; trying again makes sense within `patience` seconds."""

    problem: str  # without advice for a person
    advice: str = ""
    status: int = 0  # of HTTP
    patience: float = 0
    wait: float | None = None  # what the server asks for

    def __str__(self):
        return f"{self.problem} ({self.advice})" if self.advice else self.problem


class LimitReached(RLMError):
    """A limit of the run is reached; the message says which."""

    finish_reason = "limit"


class TurnsUsed(LimitReached):
    """The turns of one node are used."""

    finish_reason = "max_turns"


class WindowFull(LimitReached):
    """The server refuses the conversation, of which nothing more can be left out."""

    finish_reason = "window"


@dataclass
class Reply:
    """What a model said, the tokens that it took, and dollars where they are known."""

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    cut: bool = False  # at the length limit
    problem: str = ""  # why it is no answer, such as a refusal in its own words

    def answer(self) -> str:
        """Return the text; raise ModelError where it is no whole answer."""
        if self.problem:
            raise ModelError(self.problem)
        if self.cut:
            raise ModelError("the answer was cut off at the length limit")
        if not self.text:
            raise ModelError("the answer is empty")
        return self.text


@dataclass
class Usage:
    """Answered calls, tokens and dollars of a run; `cost` is None where a part is not known."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0
    models: dict[str, "Usage"] = field(default_factory=dict)

    def add(self, reply: Reply):
        """Add one call, and what its reply took."""
        if None in (self.cost, reply.cost):
            self.cost = None  # a sum of some parts would be taken for the whole
        else:
            self.cost += reply.cost
        self.calls += 1
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens
        self.completion_tokens += reply.completion_tokens

    def __str__(self):
        tokens = self.prompt_tokens + self.completion_tokens
        text = f"{plural(self.calls, 'call')} · {tokens:,} tokens ({self.cached_tokens:,} cached)"
        return text if self.cost is None else f"{text} · {dollars(self.cost)}"


@dataclass
class Completion:
    """The answer, how it came about, and the root's conversation as it was sent last.

    `finish_reason` is "final" (code called FINAL), "text" (the model answered without code), or why
    the best answer was asked for: "max_turns", "limit", "window".
    """

    answer: Any
    finish_reason: str
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


def plural(number: int, noun: str) -> str:
    """Return "1 call", "2 calls"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def dollars(cost: float) -> str:
    """Return "$1.25"; below a cent with two significant digits, "$0.00013"."""
    digits = 2
    if 0 < cost < 0.01:
        digits = 1 - floor(log10(cost))
    return f"${cost:,.{digits}f}"


def tell(problem):
    """Print a line on stderr, for as long as somebody reads it."""
    with suppress(OSError):
        print(f"rlm.py: {problem}", file=sys.stderr)


# ---------------------------------------------------------------------------- the configuration


@dataclass
class RLM:
    """A recursive language model: its configuration, which can be shared and pickled.

    A model is a name, or a function (which may be async) from messages to a str or a `Reply`. The
    command line takes what it tells of its flags from here.

    model         the model
    sub_model     the model below the root, if another
    base_url      an OpenAI-compatible API
    api_key       its key
    options       NAME=VALUE: one more field of each request
    headers       NAME=VALUE: one more header
    max_depth     calls at this depth and below are plain model calls
    max_turns     turns of each RLM before it must answer
    leaf_chars    characters that fit one request
    max_calls     limit of model calls, whole tree
    max_tokens    limit of tokens, whole tree
    max_cost      limit of dollars, whole tree
    max_seconds   limit of seconds, whole tree
    concurrency   model calls in flight at once, whole tree
    output_chars  output that the model sees of each turn
    cell_seconds  CPU seconds of one cell
    memory_mb     MiB of one worker beyond its context
    timeout       seconds to wait for one answer
    tries         tries of a call that fails for a while
    prices        MODEL=INPUT,CACHED,OUTPUT: dollars a million tokens
    prompts       a folder with prompts in place of the default ones
    trace         file for a trace, for Perfetto or speedscope
    tools         {name: function} for the REPL, beside llm_query
    on_event      called with every event: see Node.step
    check         from an answer to None, or to what is wrong with it
    """

    model: str | Callable = field(
        default_factory=lambda: os.getenv("RLM_MODEL") or "gpt-5-mini",
    )
    sub_model: str | Callable | None = None
    base_url: str = field(
        default_factory=lambda: os.getenv("OPENAI_BASE_URL") or OPENAI,
        repr=False,
    )
    api_key: str | None = field(
        default_factory=lambda: os.getenv("OPENAI_API_KEY"),
        repr=False,
    )
    options: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict, repr=False)
    max_depth: int = 3
    max_turns: int = 30
    leaf_chars: int = 100_000
    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    concurrency: int = 16
    output_chars: int = 10_000
    cell_seconds: float = 60
    memory_mb: int = 2048
    timeout: float = 600
    tries: int = 10
    prices: dict = field(default_factory=dict)
    prompts: str = str(PROMPTS)
    trace: str | None = None
    tools: dict = field(default_factory=dict)
    on_event: Callable | None = None
    check: Callable | None = None

    def completion(self, prompt: str, context: Any = None) -> Completion:
        """Answer `prompt` about `context`, any JSON value; without one, the prompt is the context.

        Raises RLMError, with the `usage` so far, when the run cannot go on.
        """
        with Run(self) as run:
            require_json(context)
            taken = RESERVED & self.tools.keys()
            if taken:
                raise RLMError(f"tools cannot be named {', '.join(sorted(taken))}")
            if not Path(self.prompts).is_dir():
                raise RLMError(f"there is no folder {self.prompts} with prompts")
            if self.trace:
                run.sinks.append(Trace(self.trace))
            root = Node(run, prompt, context)
            answer = root.complete()
            return Completion(
                answer=answer,
                finish_reason=root.finish_reason,
                usage=run.usage,
                depth=run.deepest,
                turns=root.turns,
                seconds=run.seconds(),
                messages=root.messages,
            )

    def say(self, name: str, **values) -> str:
        """Return a prompt, filled in; one that the folder does not have is the default one."""
        path = Path(self.prompts, f"{name}.txt")
        if not path.exists():
            path = PROMPTS / path.name
        template = string.Template(path.read_text("utf-8").strip())
        return template.safe_substitute(values)


# ------------------------------------------------------------------------------------ the recursion


class Node:
    """One question of the tree: the root, named "1", or a sub-call such as "1.2"."""

    turns = 0
    silent = 0  # turns without code in a row
    final = None
    finish_reason = "final"  # anything else once the last question is asked

    def __init__(self, run: "Run", prompt: str, context: Any, above: "Node | None" = None):
        self.run = run
        self.rlm = run.rlm
        self.prompt = prompt
        self.context = context
        self.name = f"{above.name}.{next(above.children)}" if above else "1"
        self.depth = self.name.count(".")
        self.plain = self.depth >= self.rlm.max_depth  # one call of the model, without a REPL
        self.children = itertools.count(1)
        self.model = (above and self.rlm.sub_model) or self.rlm.model
        self.span = above.span if above else {}  # the step that is under way
        self.messages = []
        self.notes = []  # what the model is told beside the output of a cell
        self.output_chars = min(self.rlm.output_chars, self.rlm.leaf_chars // 4)

    def complete(self) -> Any:
        """Answer the prompt about the context."""
        if self.plain:  # the base case: one call of the model, which reads it all
            self.append("user", self.as_one_message())
            return self.ask().answer()
        with self.open_repl():  # where the context is a variable
            try:
                while not self.final:
                    self.turn()
            except LimitReached as end:
                self.ask_for_the_best(end)
        return self.final.value

    def turn(self):
        """Ask for code, run it, and show what it printed; FINAL in it sets `self.final`."""
        if self.turns >= self.rlm.max_turns:
            raise TurnsUsed("all turns are used")
        self.turns += 1
        with self.step("turn", turn=self.turns) as span:
            reply = self.ask()
            output = self.execute(reply)
            span.update(output=output, usage=spent(reply))
        if not self.final:
            shown = self.rlm.say("turn", output=output, left=self.status())
            self.append("user", shown)

    def llm_query(self, prompt: str, context: Any = None, recurse: bool | None = None) -> str:
        """Answer with one call of the model if all fits, else with a child that has its own REPL."""
        try:
            child = self.child(prompt, context, recurse)
            return as_text(child.complete())
        except Exception as error:
            raise RuntimeError(f"llm_query failed: {getattr(error, 'problem', error)}") from error

    # -- sub-calls

    def child(self, prompt: str, context: Any, recurse: bool | None) -> "Node":
        """Return the node of a sub-call, `plain` where all fits or where the tree ends."""
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, not {type(prompt).__name__}")
        if self.finish_reason != "final":
            raise LimitReached("no more model calls: answer from what is there")
        child = Node(self.run, prompt, context, above=self)
        size = len(child.as_one_message())
        most = self.rlm.leaf_chars
        if recurse is None:
            recurse = size > most
        child.plain |= not recurse
        if child.plain and size > most:
            raise ValueError(
                f"{size:,} characters, {most:,} (leaf_chars) fit a plain call: cut it up"
            )
        # the frames of all levels are on the stack of one thread
        frames = 1000 + 50 * child.depth
        sys.setrecursionlimit(max(sys.getrecursionlimit(), frames))
        return child

    def as_one_message(self) -> str:
        """Return prompt and context, as a plain call gets them."""
        if self.context is None:
            return self.prompt
        context = as_text(self.context)
        return self.rlm.say("leaf", prompt=self.prompt, context=context)

    def llm_query_batched(self, prompts: list, contexts: list | None = None, recurse=None) -> list:
        """Answer many prompts in order, side by side; None stands for an answer that failed."""
        if contexts is None:
            contexts = [None] * len(prompts)
        lists = isinstance(prompts, list) and isinstance(contexts, list)
        if not lists or len(prompts) != len(contexts):
            raise ValueError("prompts and contexts must be lists of the same length")
        answers = [None] * len(prompts)
        errors = {}
        done = itertools.count(1)
        with self.step("batch", total=len(prompts)) as span:

            def answer(i):
                try:
                    answers[i] = self.llm_query(prompts[i], contexts[i], recurse)
                except Exception as error:  # noqa: BLE001
                    errors[i] = error
                self.run.emit("progress", span, done=next(done))

            self.run.side_by_side(answer, len(prompts))
            span["failed"] = len(errors)
        if errors:
            told = "; ".join(f"item {i}: {errors[i]}" for i in sorted(errors)[:9])
            self.notes.append(f"llm_query_batched: {len(errors)} of {len(prompts)} failed: {told}")
        for error in errors.values():
            if isinstance(error.__cause__, LimitReached):  # what was paid for is shown
                self.notes.append(f"answers before: {as_text(answers)[: self.output_chars]}")
                raise error
        return answers

    # -- one turn

    @contextmanager
    def open_repl(self) -> Iterator[None]:
        """Start a REPL, with the context and the tools in it, and the conversation."""
        if self.context is None:
            self.context = self.prompt
            self.prompt = self.rlm.say("no_context")
        if len(self.prompt) > self.rlm.leaf_chars // 2:
            size = f"{len(self.prompt):,} characters, leaf_chars is {self.rlm.leaf_chars:,}"
            raise RLMError(f"the question is too long ({size}): put it into the context")
        functions = {"llm_query": self.llm_query, "llm_query_batched": self.llm_query_batched}
        self.repl = Sandbox(
            {"context": self.context},
            tools=self.rlm.tools | functions,
            cell_seconds=self.rlm.cell_seconds,
            memory_mb=self.rlm.memory_mb,
            output_chars=self.output_chars,
        )
        about = describe(self.context)
        with self.run.lock:
            self.run.repls.add(self.repl)
        completion = self.step("completion", prompt=self.prompt, context=about)
        with self.repl, completion as span:
            try:
                self.repl.start()  # without a worker no model is asked
            except (SandboxError, OSError) as error:
                raise RLMError(f"the sandbox does not start: {error}") from error
            self.first_messages(about)
            yield
            with self.run.lock:
                span.update(
                    usage=asdict(self.run.usage),
                    answer=self.final.value,
                    finish_reason=self.finish_reason,
                    turns=self.turns,
                    messages=self.messages,
                )

    def execute(self, reply: Reply) -> str:
        """Run the code of a reply, or take its text for what it is; return what to show of it."""
        # half of a program may do what the whole would not
        broken = reply.cut or reply.problem
        codes = [] if broken else self.code_of(reply.text)
        self.span["code"] = "\n".join(codes)
        if codes:
            self.silent = 0
            shown, self.span["error"] = self.run_cells(codes)
            return shown or "(no output)"
        self.silent += 1
        if self.silent < 3:
            return self.rlm.say("cut" if broken and reply.text else "remind")
        self.finish_reason = "text"
        self.final = Final(reply.answer())
        return reply.text

    def code_of(self, text: str) -> list[str]:
        """Return the blocks of Python in a reply, or its FINAL(...) outside of code, as code."""
        fences, outside = split_fences(text)
        codes = [code for label, code in fences if is_python(label, code)]
        if codes:
            return codes
        function, inside = textual_final(text, outside)
        if not function:
            return []
        if is_program(text):  # which forgot its fence
            return [text]
        value = self.value_of(inside) if function == "FINAL" else inside
        return [f"{function}({value!r})"]

    def value_of(self, inside: str) -> Any:
        """Return what FINAL(inside) outside of code means.

        An expression over variables that exist means its value, everything else is text.
        """
        tree = parse(inside, "eval")
        if not tree:
            return inside
        match tree.body:
            case ast.Constant(str(text)):  # as in FINAL("Paris")
                return text
        loaded = set()
        stored = set()  # the variables of comprehensions, the arguments of a lambda
        for node in ast.walk(tree):
            match node:
                case ast.Name(name, ast.Load()):
                    loaded.add(name)
                case ast.Name(name) | ast.arg(name):
                    stored.add(name)
        loaded -= stored
        known = self.value_in_repl("SHOW_VARS()", {}).keys()
        if loaded & known and loaded <= known | set(dir(builtins)):
            return self.value_in_repl(inside, inside)
        return inside

    def value_in_repl(self, expression: str, default: Any) -> Any:
        """Return the value of an expression in the REPL, or the default where it has none."""
        seconds = self.run.remaining("seconds")
        # on a line of its own, as the expression may end in a comment
        final = self.repl.run(f"FINAL({expression}\n)", seconds).final
        return final.value if final else default

    def run_cells(self, codes: list[str]) -> tuple[str, str | None]:
        """Run cells up to the first error or FINAL; return what to show of them, and the error."""
        outputs = []
        error = None
        for code in codes:
            self.notes = []
            seconds = self.run.remaining("seconds")
            with self.step("cell", code=code) as span:
                output, error, final = self.repl.run(code, seconds)
                span.update(output=output, error=error)
            if final:
                self.accept(final)
            outputs += [output.rstrip("\n"), *self.notes, error]
            if final or error:
                break
        shown = Output(2 * self.output_chars)  # of several cells together
        shown.write("\n".join(filter(None, outputs)))
        return shown.text(), error

    def accept(self, final: Final):
        """Take it for the answer, unless the caller's check says what is wrong with it."""
        if self.rlm.check and self.depth == 0 and self.finish_reason == "final":
            problem = settle(self.rlm.check(final.value))
            if problem is not None:
                self.notes.append(self.rlm.say("check", problem=problem))
                return
        self.final = final

    def ask_for_the_best(self, end: LimitReached):
        """Ask outright for an answer; the root goes past the limits, and by a minute at most."""
        self.finish_reason = end.finish_reason
        if self.depth == 0:
            self.run.lift_limits()
        self.append("user", self.rlm.say("last", reason=end))
        try:
            text = self.ask().answer()
        except WindowFull as full:  # the task and this question are left, and can be sent once more
            return self.ask_for_the_best(full)
        codes = self.code_of(text)
        answer, error = self.run_cells(codes)
        if self.final:
            return
        if error or not answer.strip():
            fences, outside = split_fences(text)
            answer = text
            if not outside.strip():
                insides = [inside for label, inside in fences if not PYTHON.fullmatch(label)]
                answer = "".join(insides)
            elif codes:
                answer = outside
        answer = answer.strip()
        if not answer:
            raise RLMError("no answer: the last reply was code that gave none")
        self.final = Final(answer)

    # -- the conversation

    def ask(self) -> Reply:
        """Send the conversation, shortened where it must be; keep and return the reply."""
        if self.size() > self.rlm.leaf_chars:
            self.shorten(self.rlm.leaf_chars // 2)
        try:
            with self.step("call", messages=list(self.messages)) as span:
                self.run.begin_call(self.depth)
                reply = ask_model(self, span)
                self.run.charge(reply, span)
                if not callable(self.model):
                    self.run.check_report(reply, span)
                span.update(reply=reply.text, usage=spent(reply))
        except ModelError as error:
            if error.status not in TOO_LONG:
                raise
            if self.shorten(self.size() // 2):
                return self.ask()
            turns = self.messages[2:]
            if all(length(message) <= SHORT for message in turns):
                raise
            del self.messages[2:]
            variables = as_text(self.value_in_repl("SHOW_VARS()", {}))
            shown = variables[: self.output_chars]
            raise WindowFull(f"the window is full; your variables are {shown}") from error
        kept = without_thoughts(reply.text)
        reply.text = kept
        if reply.cut and len(kept) > SHORT:  # as a whole it may not fit once more
            kept = f"{kept[:SHORT]}\n{left_out(len(kept) - SHORT)}"
        self.append("assistant", kept)
        return reply

    def append(self, role: str, text: str):
        """Add to the conversation, in which roles alternate and no message is empty."""
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair would be refused
        text = text if text.strip() else "(empty)"
        if self.messages and self.messages[-1]["role"] == role:
            text = f"{self.messages.pop()['content']}\n\n{text}"
        self.messages.append({"role": role, "content": text})

    def size(self) -> int:
        """Return the characters of the conversation, without the system prompt."""
        return sum(map(length, self.messages[1:]))

    def shorten(self, limit: int) -> bool:
        """Let the oldest outputs, then the oldest code give way, down to `limit` characters.

        The task and the last turn stay. Returns whether anything gave way.
        """
        before = self.size()
        older = range(2, len(self.messages) - 2)
        outputs = older[1::2]  # as replies and outputs alternate
        replies = older[::2]
        for i in (*outputs, *replies):
            message = self.messages[i]
            if self.size() > limit and length(message) > SHORT:
                self.messages[i] = message | {"content": left_out(length(message))}
        while self.size() > limit and len(self.messages) > 4:  # these lines are too many
            del self.messages[2:4]
        return self.size() < before

    def first_messages(self, about: str):
        """Begin with the system prompt; then the question, what the context is, and a sample."""
        has_children = self.depth + 1 < self.rlm.max_depth
        tools = itertools.starmap(tool_line, self.rlm.tools.items())
        system = self.rlm.say(
            "system",
            leaf_chars=f"{self.rlm.leaf_chars:,}",
            output_chars=f"{self.output_chars:,}",
            max_turns=self.rlm.max_turns,
            longer=self.rlm.say("child" if has_children else "no_child"),
            modules=", ".join(MODULES),
            tools="\n".join(tools),
        )
        name, shown = sample(self.context, self.rlm.leaf_chars // 10)
        task = self.rlm.say(
            "task",
            prompt=self.prompt,
            description=about,
            sample=self.rlm.say(name, shown=shown),
        )
        self.append("system", system)
        self.append("user", task)

    def status(self) -> str:
        """Return what is left: "turn 3 of 30 · 87 min left · 42 calls left"."""
        parts = [f"turn {self.turns} of {self.rlm.max_turns}"]
        for name in LIMITS:
            amount = self.run.remaining(name)
            if amount == inf:
                continue
            if name == "cost":
                shown = dollars(amount)
            elif name == "seconds":
                shown = f"{amount / 60:.0f} min" if amount >= 120 else f"{amount:.0f} s"
            else:
                shown = f"{amount:,} {name}"
            parts.append(f"{shown} left")
        return " · ".join(parts)

    @contextmanager
    def step(self, kind: str, **data) -> Iterator[dict]:
        """Emit the begin and the end of a step; yield the event, to add what the end knows.

        `RLM.on_event` gets each event as a dict, one at a time:
        event               begin, end; progress: done, total; retry: reason, wait; warning: reason
        kind                "completion", "turn", "cell", "call" or "batch"
        rlm, depth, model   which RLM of the tree, as "1" (the root) or "1.2" (its second sub-call)
        id, parent, within  numbers of the step and of the one around it, and the kind of that
        lane, time          on one lane begins and ends nest like a call stack; seconds since 1970
        at the end          all that the begin had, and seconds, error
        completion          prompt, context; then answer, finish_reason, usage, messages, turns
        turn                turn; then code, output, usage
        cell, call, batch   code, then output; messages, then reply, usage; total, then failed
        """
        above = self.span
        model = self.model
        if callable(model):
            model = getattr(model, "__name__", type(model).__name__)
        span = {
            "kind": kind,
            "id": next(self.run.ids),
            "parent": above.get("id"),
            "within": above.get("kind"),
            "rlm": self.name,
            "depth": self.depth,
            "model": model,
            "error": None,
            **data,
        }
        began = monotonic()
        self.span = span
        self.run.emit("begin", span)
        try:
            yield span
        except BaseException as error:
            span["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.span = above
            self.run.emit("end", span, seconds=monotonic() - began)


def spent(reply: Reply) -> dict:
    """Return the tokens and dollars that a reply took, for an event."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost": reply.cost,
    }


def length(message: dict) -> int:
    """Return the characters of a message."""
    return len(message["content"])


def left_out(size: int) -> str:
    """Return the line that stands for what is left out of the conversation."""
    return f"[{size:,} characters left out here; your variables are still there]"


# ------------------------------------------------------------------------------- what a run shares


class Run(AbstractContextManager):
    """What the nodes of one completion share: usage and limits, threads and workers, events."""

    deepest = 0
    ended = None  # the error that ends the run, in whatever sub-call it came up
    warned = False  # of a server that cuts silently

    def __init__(self, rlm: RLM):
        self.rlm = rlm
        self.began = monotonic()
        self.budget = {}  # of each limit; the seconds are those from the beginning
        for name in LIMITS:
            most = getattr(rlm, f"max_{name}")
            self.budget[name] = inf if most is None else most
        self.usage = Usage()
        self.lock = threading.RLock()
        self.stopped = threading.Event()
        self.helpers = threading.Semaphore(max(rlm.concurrency, 1) - 1)  # beside the first thread
        self.ids = itertools.count(1)
        self.sinks = [rlm.on_event] if rlm.on_event else []
        self.repls = weakref.WeakSet()  # those that are not closed are among them

    def __exit__(self, kind, error, traceback):
        """End what is still under way in other threads; an error is an RLMError with the usage."""
        self.ended = RLMError("the run was stopped")
        self.stopped.set()
        with self.lock:
            self.sinks.clear()
            for repl in self.repls:
                repl.close()
        if error:
            error.usage = self.usage
        if isinstance(error, Exception) and not isinstance(error, RLMError):
            wrapped = RLMError(f"{kind.__name__}: {error}")
            wrapped.usage = self.usage
            raise wrapped from error

    def seconds(self) -> float:
        """Return how long the run has taken so far."""
        return monotonic() - self.began

    def remaining(self, name: str) -> float:
        """Return what is left of a limit, inf where there is none."""
        used = self.seconds() if name == "seconds" else 0
        return max(self.budget[name] - used, 0)

    def check_limits(self, names=LIMITS):
        """Raise LimitReached where a limit is, or what has ended the run."""
        if self.ended:
            raise self.ended
        for name in names:
            if not self.remaining(name):
                most = getattr(self.rlm, f"max_{name}")
                raise LimitReached(f"the limit max_{name}={most} is reached")

    def lift_limits(self):
        """Leave no limit for the last question but one of time: a minute, or max_seconds."""
        self.budget = dict.fromkeys(LIMITS, inf)
        most = self.rlm.max_seconds
        if most is not None:
            self.budget["seconds"] = self.seconds() + min(LAST_SECONDS, most)

    def begin_call(self, depth: int):
        """Reserve a call before it is sent: those in flight never add up to more than max_calls."""
        with self.lock:
            self.check_limits()
            self.budget["calls"] -= 1
            self.deepest = max(self.deepest, depth)

    def charge(self, reply: Reply, span: dict):
        """Add a reply to the usage, at the price that is given where the server reports none."""
        name = span["model"]
        if reply.cost is None and name in self.rlm.prices:
            new, cached, output = self.rlm.prices[name]
            fresh = max(reply.prompt_tokens - reply.cached_tokens, 0)
            millionths = new * fresh + cached * reply.cached_tokens
            reply.cost = (millionths + output * reply.completion_tokens) / 1e6
        with self.lock:
            self.usage.add(reply)
            self.usage.models.setdefault(name, Usage()).add(reply)
            self.budget["tokens"] -= reply.prompt_tokens + reply.completion_tokens
            self.budget["cost"] -= reply.cost or 0

    def check_report(self, reply: Reply, span: dict):
        """End the run where a limit counts what a server does not report; tell of a silent cut."""
        if self.rlm.max_cost is not None and reply.cost is None:
            price = f"prices (--price {span['model']}=INPUT,CACHED,OUTPUT)"
            self.ended = RLMError(f"max_cost needs {price}: the server reports no cost")
        if self.rlm.max_tokens is not None and not reply.prompt_tokens + reply.completion_tokens:
            self.ended = RLMError("max_tokens needs a server that reports usage; this does not")
        if self.ended:
            raise self.ended
        size = sum(map(length, span["messages"]))
        if size > 20_000 and 0 < reply.prompt_tokens < size / 10 and not self.warned:
            self.warned = True
            read = f"{reply.prompt_tokens:,} tokens of {size:,} characters"
            reason = f"the server read {read}: widen its window, or lower leaf_chars"
            self.emit("warning", span, reason=reason)
            tell(reason)

    def side_by_side(self, work: Callable, count: int):
        """Call work(0), work(1), ... in this thread and in as many helpers as are free.

        This thread works, too, so a batch goes on where no helper is free: batches within batches
        cannot wait for each other.
        """
        todo = iter(range(count))
        threads = []
        name = threading.current_thread().name  # by which settle() knows a run within a run

        def helper_thread():
            try:
                work_on()
            finally:
                self.helpers.release()

        def work_on():
            for i in todo:
                if i + 1 < count and self.helpers.acquire(blocking=False):
                    helper = threading.Thread(target=helper_thread, name=name, daemon=True)
                    threads.append(helper)
                    helper.start()
                work(i)

        work_on()
        for thread in threads:  # there may be more of them meanwhile
            thread.join()

    def emit(self, what: str, span: dict, **data):
        """Hand an event to the trace and the callback; an error there ends only that."""
        if not self.sinks:
            return
        event = {
            "event": what,
            **span,
            "lane": threading.get_native_id(),
            "time": time.time(),
            **data,
        }
        with self.lock:
            for sink in list(self.sinks):
                try:
                    sink(event)
                except Exception as error:  # noqa: BLE001
                    self.sinks.remove(sink)
                    warnings.warn(f"no more events for {sink}: {error!r}", stacklevel=2)


# --------------------------------------------------------------------------------- the HTTP client

ADVICE = {  # for a person, by status
    400: "too long? lower leaf_chars",
    401: "check OPENAI_API_KEY or --api-key",
    403: "check OPENAI_API_KEY or --api-key",
    404: "check --model and --base-url",
    413: "too long? lower leaf_chars",
}
UNREACHABLE = "check --base-url, that the server runs, and SSL_CERT_FILE for its certificate"
CUT_REASON = re.compile("length|max_|window")  # in a finish_reason
NO_ANSWER_REASON = re.compile(
    "filter|safety|sensitive|recit|prohib|block|spii|error|abort|cancel|time|refus|malformed|insuff"
)


def ask_model(node: Node, span: dict) -> Reply:
    """Ask the function that is the model, or the server, until an answer comes or none will."""
    rlm = node.rlm
    run = node.run
    messages = span["messages"]
    began = monotonic()
    longest = rlm.max_seconds or LONGEST_WAIT
    for tried in itertools.count(1):
        try:
            if not callable(node.model):
                seconds = min(rlm.timeout, run.remaining("seconds") + 0.001)
                return post(rlm, node.model, messages, seconds)
            reply = settle(node.model([*map(dict, messages)]))  # which it may change
            return Reply(reply) if isinstance(reply, str) else reply
        except ModelError as error:
            problem = hide_secrets(error.problem, rlm)
            wait = error.wait or 0
            waited = monotonic() - began
            if tried >= rlm.tries or waited >= error.patience or wait > longest:
                run.check_limits(["seconds"])
                if tried > 1:
                    problem += f" after {tried} tries"
                raise ModelError(problem, error.advice, error.status) from None
            if error.wait is None:  # random, so that calls that failed together do not meet again
                wait = random.uniform(0, min(2**tried / 4, 30, error.patience))
        run.emit("retry", span, reason=problem, wait=wait)
        run.stopped.wait(min(wait, run.remaining("seconds")))
        run.check_limits(["seconds"])


def post(rlm: RLM, model: str, messages: list, seconds: float) -> Reply:
    """Send one request and read the reply, each within `seconds`; raise ModelError."""
    base, _, query = rlm.base_url.strip().partition("?")
    url = f"{base.rstrip('/')}/chat/completions"
    end = monotonic() + seconds
    data = bytearray()
    try:
        with session(os.getpid(), url).post(
            url,
            params=query,
            json={"model": model, "messages": messages, **rlm.options},
            headers=request_headers(rlm),
            timeout=(min(10, seconds), seconds),
            stream=True,
            allow_redirects=False,
        ) as response:
            read = getattr(response.raw, "read1", response.raw.read)  # not in urllib3 1 to 2.1
            while chunk := read(1 << 16, decode_content=True):
                data += chunk
                if monotonic() > end:
                    raise requests.Timeout("the answer is still dripping in")
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise no_response(error, url) from error
    text = data.decode("utf-8-sig", "replace")
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        if response.ok:
            reply = read_reply(json.loads(text), response.headers)
            if reply.problem:
                reply.problem = hide_secrets(reply.problem, rlm)
            return reply
    raise no_completion(response, text)


@functools.cache
def session(pid: int, url: str) -> requests.Session:
    """Return the connections of this process to a server, by the environment's proxies."""
    http = requests.Session()
    found = http.merge_environment_settings(url, {}, False, None, None)
    http.proxies = found["proxies"]
    http.verify = os.getenv("SSL_CERT_FILE") or found["verify"]
    http.trust_env = False  # to look once is enough, and ~/.netrc would replace the key
    http.auth = lambda request: request  # as would a user in the URL
    http.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=512))
    atexit.register(http.close)
    return http


def request_headers(rlm: RLM) -> dict[str, str]:
    """Return the key and the other headers; of one that is malformed the error tells the name."""
    headers = {}
    key = (rlm.api_key or "").strip()
    if key:
        headers["Authorization"] = f"Bearer {key}"
    headers |= rlm.headers
    if not headers and rlm.base_url.strip().rstrip("/") == OPENAI:
        raise RLMError("no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL), or --api-key")
    for name, value in headers.items():
        value = value.strip()
        headers[name] = value
        if not re.fullmatch(r"(?a)[\w!#$%&'*+.^`|~-]+", name):
            raise RLMError(f"a header cannot have the name {name!r}")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise RLMError(f"the header {name} has characters that a header cannot have")
    return headers


def read_reply(body: dict, headers: dict) -> Reply:
    """Return what a chat completion says, in the shapes that servers send; raise if it is none."""
    choice = body["choices"][0]
    message = choice["message"]
    content = message.get("content") or ""
    if isinstance(content, list):  # parts, of which some may be thoughts
        texts = [part["text"] for part in content if part["type"] == "text"]
        content = "".join(texts)
    reason = str(choice.get("finish_reason")).lower()
    problem = ""
    if NO_ANSWER_REASON.search(reason):
        problem = f"the answer was filtered or broken off ({reason})"
    if message.get("refusal"):
        problem = f"the model refused: {message['refusal']}"
    error = choice.get("error") or body.get("error")
    if error:
        problem = f"the answer was broken off: {server_message(json.dumps(error))}"
    usage = body.get("usage")
    cost = number(headers, "x-litellm-response-cost")
    cost = number(usage, "cost", "total_cost", default=cost)  # where `cost` is an object
    return Reply(
        text=content + "",  # a TypeError if it is no text
        prompt_tokens=int(number(usage, "prompt_tokens", default=0)),
        cached_tokens=int(number(usage, "prompt_tokens_details", "cached_tokens", default=0)),
        completion_tokens=int(number(usage, "completion_tokens", default=0)),
        cost=number(usage, "cost", default=cost),
        cut=bool(CUT_REASON.search(reason)),
        problem=problem,
    )


def number(value: Any, *path: str, default=None) -> Any:
    """Return the number at the end of a path, also one that is written as text, or the default."""
    with suppress(LookupError, TypeError, ValueError, OverflowError):
        for name in path:
            value = value[name]
        if 0 <= float(value) < inf:
            return float(value)
    return default


def no_response(error: Exception, url: str) -> ModelError:
    """Return the innermost reason why a request got no response."""
    reason = error
    while isinstance(reason.__context__, OSError | urllib3.exceptions.HTTPError):
        reason = reason.__context__
    problem = f"{type(error).__name__} at {url}: {reason}"
    patience = inf
    if isinstance(reason, ConnectionRefusedError | socket.gaierror):
        patience = 10
    if isinstance(reason, ValueError | requests.exceptions.InvalidJSONError):  # nothing to wait for
        patience = 0
    return ModelError(problem, UNREACHABLE, patience=patience)


def no_completion(response: requests.Response, text: str) -> ModelError:
    """Return what a response says that is no chat completion."""
    status = response.status_code
    what = response.reason
    if status == 200:
        what = "not a chat completion"
        code = re.search(r'"code"\s*:\s*"?(\d{3})\b', text)
        if code:  # of a gateway, about the server behind it
            status = int(code[1])
    patience = inf if status >= 500 or status in (408, 429) else 0
    problem = f"{status} {what}: {server_message(text)}"
    wait = None
    for name in ("llm_provider-retry-after", "Retry-After"):
        with suppress(Exception):  # it is not there, or makes no sense
            wait = urllib3.Retry().parse_retry_after(response.headers[name])
    return ModelError(problem, ADVICE.get(status, ""), status, patience, wait)


def server_message(text: str) -> str:
    """Return the message in the body of an error, or all of it."""
    found = re.search(r'"(?:message|detail|error)"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    if found:
        with suppress(ValueError):  # of an escape that JSON does not have
            return json.loads(found[1], strict=False)
    return text


def hide_secrets(text: str, rlm: RLM) -> str:
    """Return a line without what a text quotes of the key, the headers and the query."""
    query = rlm.base_url.partition("?")[2]
    values = re.findall(r"=([^&]+)", query)
    secrets = [rlm.api_key or "", query, *values]
    secrets += " ".join(rlm.headers.values()).split()
    secrets += map(urllib.parse.unquote_plus, values)
    secrets = map(str.strip, secrets)
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        if len(secret) > 3:
            text = text.replace(secret, "***")
    text = re.sub(r"//[^/\s]*@", "//", text)
    return " ".join(text.split())[:500]


# ------------------------------------------------------------- reading replies, describing contexts

FENCE = re.compile(
    r"""(?mx) ^ (?:
        (?P<margin> (?: [-*+\ufeff\u200b \t] | \d+[.)] )* )  # a line, or an item of a list, begins
      | .* [ \t] (?= [`~]{3,} \w+ [ \t\r]* $ )  # or it is labelled, at the end of a line
    )
    (?P<mark> `{3,}+ | ~{3,}+ ) [ \t{.]*+ (?P<label> [^\s`},:;]*+ ) [^`\n]*+ (?: \n | \Z )
    (?= (?P<indent> [ \t]* ) )"""
)
PYTHON = re.compile(r"(?i)repl|i?py(thon)?[\d.]*|tool_code")
FINAL_START = re.compile(r"(?m)^[ \t]*(?:\*\*|`)?(FINAL|FINAL_VAR)\(")
FINAL_END = re.compile(r"(?m)\)(?=[ \t]*+(?:\*\*|`)?\.?[ \t\r]*+$)")
THOUGHTS = re.compile(
    r"""(?isx) \A (?: [\s\ufeff\u200b]* (?:
        <(think|thinking|thought|reasoning)> .*? (?: </\1> | \Z )
      | \[THINK\] .*? (?: \[/THINK\] | \Z )
      | (?: <\|start\|>assistant )? <\|channel\|> (?:
          (?: analysis | commentary ) .*? (?: <\|end\|> | (?=<\|channel\|>final) | \Z )
        | final .*? <\|message\|>
        )
    ))+"""
)
# some servers swallow the beginning
LONE_END = re.compile(r"(?i)(?<![`'\"])(?:</think(?:ing)?>|\[/THINK\])")
ANSWER_BEGUN = re.compile(r"(?m)^[ \t]*(?:```|~~~)|<think")
LAST_MARK = re.compile(r"<\|\w+\|>\s*\Z")
REPLY = "<reply>"  # the file name under which the code of a reply is parsed
warnings.filterwarnings("ignore", module=REPLY)  # of escapes in it that mean nothing


def without_thoughts(text: str) -> str:
    """Return a reply without the thoughts that it begins with."""
    text = THOUGHTS.sub("", text)
    end = LONE_END.search(text)
    if end and not ANSWER_BEGUN.search(text, 0, end.start()):
        text = text[end.end() :]
    return LAST_MARK.sub("", text).strip()


def parse(code: str, mode: str = "exec") -> ast.AST | None:
    """Return the tree of Python code, None for anything else."""
    try:
        return ast.parse(code, REPLY, mode)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def is_python(label: str, code: str) -> bool:
    """Return whether a fence holds code to be run: by its label, or without one if it parses."""
    if label:
        return bool(PYTHON.fullmatch(label))
    return bool(code.strip() and parse(code))


def is_program(text: str) -> bool:
    """Return whether a text is Python that does more than prose may: "Yes" and "Why: no" parse, too."""
    tree = parse(text) or ast.Module([])
    kinds = set(map(type, tree.body))
    return bool(kinds - {ast.Expr, ast.AnnAssign})


def split_fences(text: str) -> tuple[list[tuple], str]:
    """Return the label and the inside of each fence, and the text with spaces in their places.

    split_fences("So:\\n```repl\\nx = 1\\n```") is ([("repl", "x = 1\\n")], "So:\\n" + spaces)
    """
    fences = []
    outside = text
    opening = FENCE.search(text)
    while opening:
        inside, end = inside_of(text, opening)
        fences.append((opening["label"], inside))
        blank = " " * (end - opening.start())
        outside = outside[: opening.start()] + blank + outside[end:]
        opening = FENCE.search(text, end)
    return fences, outside


def inside_of(text: str, opening: re.Match) -> tuple[str, int]:
    """Return the inside of a fence, without the indentation of a list, and where the fence ends.

    That is at the first closing mark with which the inside parses, else at the first.
    """
    start = opening.end()
    mark = opening["mark"]
    closing = re.compile(rf"(?m)^[ \t]*{mark}(?!\w).*\n?|{mark}[ \t\r]*$|\Z")
    margin = opening["margin"] or ""
    width = min(len(margin), len(opening["indent"]))
    indent = re.compile(rf"(?m)^[ \t]{{0,{width}}}")
    tried = []
    for closed in itertools.islice(closing.finditer(text, start), 20):
        inside = text[start : closed.start()]
        inside = textwrap.dedent(indent.sub("", inside))
        if parse(inside):
            return inside, closed.end()
        tried.append((inside, closed.end()))
    return tried[0]


def textual_final(text: str, outside: str) -> tuple[str, str]:
    """Return the final of a reply without code: "So:\\nFINAL(a (b))" is ("FINAL", "a (b)").

    It begins a line outside of fences; what merely mentions FINAL(...) is none: ("", "").
    """
    start = FINAL_START.search(outside)
    if not start:
        return "", ""
    function = ""
    inside = ""
    ends = FINAL_END.finditer(text, start.end())
    for end in itertools.islice(ends, 100):
        function = start[1]
        inside = text[start.end() : end.start()].strip()
        if inside.count("(") == inside.count(")"):
            break
    if function == "FINAL_VAR":
        inside = inside.strip("'\"")
    return function, inside


def describe(value: Any) -> str:
    """Return the type and size of a context: "a str of 1,234 characters"."""
    kind = "list"
    parts = value
    if isinstance(value, dict):
        kind = "dict"
        parts = value.values()
    elif not isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(as_text(value)):,} characters"
    kinds = {type(part).__name__ for part in parts}
    sizes = [len(part) for part in parts if hasattr(part, "__len__")]
    sizes = sizes or [0]
    items = f"{plural(len(value), 'item')} ({', '.join(sorted(kinds))})"
    return f"a {kind} of {items} of sizes {min(sizes):,} to {max(sizes):,}"


def sample(value: Any, limit: int) -> tuple[str, str]:
    """Return what to show of a context in the first message, after the prompt that says how."""
    if not isinstance(value, list | tuple | dict):
        value = as_text(value)
    if len(value) <= 2000:  # JSON of more would be long work for nothing
        text = as_text(value)
        if len(text) <= min(2000, limit):
            return "whole", text
    limit = min(800, limit)
    if isinstance(value, str):
        half = limit // 2
        head = value[:half]
        tail = value[len(value) - half :]
        head = head.rpartition("\n")[0] or head
        tail = tail.partition("\n")[2] or tail
        return "sample", f"{head}\n...\n{tail}"
    short = reprlib.Repr()
    short.maxstring = short.maxother = max(limit // 8, 20)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    lines = [
        f"{short.repr(key)} ({describe(part)}): {short.repr(part)}"
        for key, part in itertools.islice(items, 6)
    ]
    return "sample", "\n".join(lines)[:limit]


def require_json(value: Any, where: str = "context"):
    """Raise RLMError where a value is not JSON: what it is, where, and what to do."""
    parts = []
    try:
        if isinstance(value, (list, tuple)):
            parts = enumerate(value)
        elif isinstance(value, dict):
            parts = value.items()
            texts = json.loads(json.dumps(dict.fromkeys(value)))
            if len(texts) < len(value):
                raise TypeError("two keys are the same as text")
        elif not isinstance(value, (str, int, float, type(None))):
            raise TypeError(f"it is of type {type(value).__name__}")
    except TypeError as error:  # of json, it names the type of a key
        raise RLMError(f"{where} is not JSON: {error}: {WAY_OUT}") from None
    for key, part in parts:
        require_json(part, f"{where}[{key!r}]")


def tool_line(name: str, tool: Callable) -> str:
    """Return what a model is told of a tool, without what a functools.partial has bound."""
    function = getattr(tool, "func", tool)
    bound = getattr(tool, "keywords", {})
    parameters = "(...)"
    with suppress(ValueError, TypeError):  # some builtins have no signature
        signature = inspect.signature(tool)
        named = signature.parameters
        free = [named[key] for key in named if key not in bound]
        parameters = signature.replace(parameters=free)
    about = (inspect.getdoc(function) or "").partition("\n")[0]
    return f"- `{name}{parameters}`: {about}"


# ------------------------------------------------------------------- watching: trace and live view

PHASES = {"begin": "B", "end": "E"}  # of the trace format; anything else is an instant


class Trace:
    """Writes events in the Chrome Trace Event format; the file is valid JSON after each of them."""

    lock = threading.Lock()  # of a file that several runs may have

    def __init__(self, path: str):
        self.path = Path(path).absolute()
        start = '[\n{"name": "process_name", "ph": "M", "pid": 1, "tid": 0}\n]'
        try:
            with self.lock:
                self.path.write_text(start)
        except OSError as error:
            raise RLMError(f"the trace {path} cannot be written: {error}") from None

    def __call__(self, event: dict):
        shown = dict(event)
        if event["event"] != "end":
            shown.pop("messages", None)  # the end has them
        entry = {
            "name": f"{event['kind']} {event.get('turn', event['rlm'])}",
            "cat": event["kind"],
            "ph": PHASES.get(event["event"], "i"),
            "ts": round(event["time"] * 1e6),
            "pid": 1,
            "tid": event["lane"],
            "args": shown,
        }
        with self.lock, self.path.open("r+b") as file:
            file.seek(-2, os.SEEK_END)  # in place of the last bracket
            file.write(f",\n{json.dumps(entry, default=str)}\n]".encode())


@dataclass
class Live:
    """Shows events as lines of a tree; on a terminal, the batch under way in a bar below."""

    stream: Any
    verbose: bool = False

    def __call__(self, event: dict):
        terminal = self.stream.isatty()
        width = 180
        if terminal:
            columns = os.get_terminal_size(self.stream.fileno()).columns
            width = (columns or width) - 1  # some terminals do not know
            self.stream.write("\r\x1b[K")  # in place of the bar
        branch = "│  " * event["depth"] + event["rlm"]
        room = max(width // 3, 18)
        for line in self.text(event, room).splitlines():
            line = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "?", f"{branch} {line}")
            if not self.verbose:
                line = line[:width]
            if terminal and "✗" in line and not os.getenv("NO_COLOR"):
                line = f"\x1b[31m{line}\x1b[0m"
            self.stream.write(f"{line}\n")
        if terminal and event["event"] == "progress":
            blocks = "█" * (10 * event["done"] // event["total"])
            bar = f"{branch} {blocks:░<10} {event['done']}/{event['total']}"
            self.stream.write(bar[:width])
        self.stream.flush()

    def text(self, event: dict, room: int) -> str:
        """Return what is shown of an event; calls of turns and batches only where they failed."""

        def short(text: str) -> str:
            line = text.strip().partition("\n")[0]
            return line if len(line) <= room else f"{line[: room - 1]}…"

        shorten = str if self.verbose else short
        error = event["error"] and f"✗ {event['error'].splitlines()[-1]}"
        took = f"{event.get('seconds', 0):.1f} s"
        usage = event.get("usage")
        if usage:
            took += f" · {usage['prompt_tokens'] + usage['completion_tokens']:,} tokens"
        match f"{event['event']} {event['kind']}":
            case "begin completion":
                return f"● {event['model']} · depth {event['depth']} · {event['context']}"
            case "end completion":
                return f"→ {error or short(as_text(event['answer']))} · {event['seconds']:.1f} s"
            case "end turn" if "output" in event:
                told = error or shorten(event["output"])
                return f"turn {event['turn']} · {shorten(event['code'])} → {told} · {took}"
            case "end call" if error or event["within"] in ("cell", None):
                asked = short(event["messages"][-1]["content"])
                told = error or short(event["reply"])
                return f"{event['model']} · {asked} → {told} · {took}"
            case "end batch" if "failed" in event:
                total = event["total"]
                return f"batch {total}/{total} · {event['failed']} failed · {took}"
            case "retry call":
                return f"✗ again in {event['wait']:.1f} s: {event['reason']}"
        return ""


# ------------------------------------------------------------------------------------- command line

BOMS = {  # UTF-32 first: its mark begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\xef\xbb\xbf": "UTF-8-SIG",
    b"": "UTF-8",
}
BINARY = re.compile(  # how files begin that are no text: PDF, archives, Office, images, or a NUL
    rb"(?s)%PDF-|PK\x03\x04|\x1f\x8b|BZh\d1AY|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|\xd0\xcf\x11\xe0"
    rb"|\x89PNG|\xff\xd8\xff|.{,7999}\0"
)


def decode(data: bytes, name: str) -> str:
    """Return the text of a file: a byte order mark decides, else it is UTF-8; stderr has losses."""
    mark = next(filter(data.startswith, BOMS))
    encoding = BOMS[mark]
    if encoding == "UTF-8" and BINARY.match(data):
        raise RLMError(f"{name} is no text: convert it first, a PDF with pdftotext for example")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        tell(f"{name} is not {encoding}, some of it is lost: {error}")
    return data.decode(encoding, "replace")


def read_folder(folder: str) -> dict[str, str]:
    """Return the text files below a folder by path; links and hidden files are skipped."""
    texts = {}
    found = 0
    for place, folders, names in os.walk(folder, onerror=tell):
        folders[:] = [name for name in folders if name[0] != "."]  # they are not looked into
        for name in names:
            if name[0] == ".":
                continue
            found += 1
            path = Path(place, name)
            key = str(path)
            with suppress(RLMError, OSError):
                if path.is_file() and not path.is_symlink():
                    texts[key] = decode(path.read_bytes(), key)
    tell(f"{folder}: {plural(len(texts), 'text file')} read, {found - len(texts):,} skipped")
    if not texts:
        raise RLMError(f"the directory {folder} has no text files")
    return dict(sorted(texts.items()))


def read_context(names: list[str]) -> Any:
    """Return the context: the text of one file, a dict of several; None where there is nothing."""
    piped = getattr(sys.stdin, "buffer", io.BytesIO())  # it may be closed
    if not names and not piped.isatty():
        return decode(piped.read(), "standard input") or None
    texts = {}
    for name in names:
        if name == "-":
            texts[name] = decode(piped.read(), "standard input")
        elif os.path.isdir(name):
            texts |= read_folder(name)
        else:
            texts[name] = decode(Path(name).read_bytes(), name)
    if len(names) == 1:
        return texts.get(names[0], texts)
    return texts or None


def header(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE, or NAME: VALUE as curl has it; the value may be a secret."""
    name, value = re.split("[=:]", text, maxsplit=1)
    return name.strip(), value


def option(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, where the value is JSON if it can be, as in "seed=7"."""
    name, value = text.split("=", 1)
    with suppress(ValueError):
        value = json.loads(value)
    return name, value


def price(text: str) -> tuple[str, list[float]]:
    """Parse MODEL=INPUT,CACHED,OUTPUT."""
    name, numbers = text.split("=", 1)
    new, cached, output = map(float, numbers.split(","))
    return name, [new, cached, output]


PARSERS = {"options": option, "headers": header, "prices": price}  # of flags that may be repeated


def command_line() -> argparse.ArgumentParser:
    """Return the parser, made from the fields of `RLM`."""
    parser = argparse.ArgumentParser(
        "rlm.py",
        description="Ask about any amount of text.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("question")
    add("files", nargs="*", help="text files, folders; - or a pipe: standard input")
    add("--json", action="store_true", help="print answer, reason and usage as JSON")
    add("--quiet", action="store_true", help="do not show the tree")
    add("--verbose", action="store_true", help="show code and output in full")
    defaults = vars(RLM(base_url=OPENAI, api_key=None))  # none of the environment's secrets
    for name, about in re.findall(r"(?m)^(\w+)  +(.+)$", inspect.getdoc(RLM)):
        flag = "--" + name.replace("_", "-")
        kind = RLM.__annotations__[name]
        kinds = get_args(kind)  # of int | None
        if kinds:
            kind = kinds[0]
        if name in PARSERS:
            add(
                flag.removesuffix("s"),
                type=PARSERS[name],
                action="append",
                default=[],
                help=about,
            )
        elif kind in (str, int, float):
            add(flag, type=kind, default=defaults[name], help=about)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Answer a question from the command line; return the exit status."""
    sys.stdout = sys.stdout or io.TextIOWrapper(io.BytesIO())  # it is None where it is closed
    sys.stderr = sys.stderr or io.StringIO()
    rlm = RLM()  # argparse sets its fields, and beside them what is none, as `rlm.question`
    command_line().parse_intermixed_args(argv, rlm)
    rlm.options = dict(rlm.option)
    rlm.headers = dict(rlm.header)
    rlm.prices = dict(rlm.price)
    try:
        context = read_context(rlm.files)
        if not rlm.quiet:
            rlm.on_event = Live(sys.stderr, rlm.verbose)
        done = rlm.completion(rlm.question, context)
        shown = done.answer
        if rlm.json:
            shown = {
                "answer": shown,
                "finish_reason": done.finish_reason,
                "usage": asdict(done.usage),
            }
        sys.stdout.reconfigure(errors="replace")
        print(as_text(shown), flush=True)
        if not rlm.quiet:
            took = f"{plural(done.turns, 'turn')} · {done.usage} · {done.seconds:.1f} s"
            ended = "" if done.finish_reason == "final" else f" · ended by {done.finish_reason}"
            print(f"{took} · deepest level {done.depth}{ended}", file=sys.stderr)
    except BrokenPipeError:  # nobody reads on
        pass
    except (KeyboardInterrupt, RLMError, OSError) as error:
        usage = getattr(error, "usage", None)
        told = str(error) or "interrupted"
        tell(f"{told}, after {usage}" if usage else told)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        flush_streams()
    return 0


def flush_streams():
    """Write what is left to be written; where nobody reads it, that would fail once more at exit."""
    for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
