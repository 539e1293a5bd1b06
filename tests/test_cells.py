"""Cells in the manner of the REPL code that language models write, each with what it must print.

A cell's output is judged twice: against the text in the table, and, since the table was not handed down from heaven, the table
against plain Python, wherever the cell can run there too (a title that ends in " !" can not).

Not here: what cells must not do (test_escapes.py), and limits (test_sandbox.py).
"""

import ast
import contextlib
import io
import json
import linecache
import traceback
from pathlib import Path

import pytest

from sandbox import Sandbox

DOCS = [
    "Ann Lee won the Rose pageant in 1998. The winner, Ann Lee, lives in Oslo.",
    "The Lily pageant of 1998 was won by Mary Poe; Ann Lee was second.",
    "In 1999 the judges of the pageant chose nobody. Joe Day was there.",
    "Mary Poe opened the bridge on the river.",
]
RECORDS = [
    {"city": "Oslo", "amount": 10},
    {"city": "Rome", "amount": 7.5},
    {"city": "Oslo", "amount": 31},
]
VARIABLES = {"context": "\n".join(DOCS), "docs": DOCS, "records": RECORDS}
TOOLS = {
    "llm_query": lambda prompt, context=None: f"answer to {prompt[:16]!r}",
    "llm_query_batched": lambda prompts, contexts=None: [f"<{prompt[-8:]}>" for prompt in prompts],
}

# === group, --- title, the cell, >>> and its output; last "error: ..." or "final: ..." if it ends so

TABLE = (Path(__file__).parent / "cells.txt").read_text()


def parse(table: str) -> dict[str, tuple[str, str]]:
    r"""The cells by title: "=== g\n--- t\n1 + 1\n>>>\n2\n" -> {"g: t": ("1 + 1\n", "2\n")}."""
    cells = {}
    for group in f"\n{table}".split("\n=== ")[1:]:
        name, *parts = group.split("\n--- ")
        for part in parts:
            title, _, rest = part.partition("\n")
            code, _, expected = f"{rest}\n".partition("\n>>>\n")
            cells[f"{name}: {title}"] = f"{code}\n", expected.rstrip("\n")
    return cells


CELLS = parse(TABLE)


def reference(code: str) -> str:
    """What plain Python makes of a cell: its output, and the last line of its error."""
    names = {"__name__": "__main__", **json.loads(json.dumps(VARIABLES)), **TOOLS}

    linecache.cache["<cell>"] = (len(code), None, code.splitlines(True), "<cell>")
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            tree = ast.parse(code)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102
            last = last and eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
            if last is not None:
                print(repr(last))
        except SystemExit:
            pass
        except Exception as problem:  # noqa: BLE001
            error = traceback.format_exception_only(problem)[-1]
    return (out.getvalue() + (error and f"error: {error}")).rstrip("\n")


@pytest.fixture(scope="module")
def repl():
    with Sandbox(VARIABLES, TOOLS) as sandbox:
        yield sandbox


@pytest.mark.parametrize("title", CELLS)
def test_cell(repl, title):
    code, expected = CELLS[title]
    result = repl.run(code)
    found = result.output
    if result.error:
        found += f"error: {result.error.splitlines()[-1]}\n"
    if result.final:
        found += f"final: {json.dumps(result.final.value)}\n"
    assert found.rstrip("\n") == expected, result.error


@pytest.mark.parametrize("title", [title for title in CELLS if not title.endswith(" !")])
def test_the_table_is_what_plain_python_does(title):
    code, expected = CELLS[title]
    assert reference(code) == expected


def test_there_are_cells_for_every_group():
    assert len(CELLS) >= 140
