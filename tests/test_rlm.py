"""The loop and the recursion, with a scripted model in the place of a real one.

Not here: HTTP (test_client.py), limits, failures and concurrency (test_limits.py), the command
line, the trace and what a person sees (test_cli.py), the sandbox.
"""

import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from conftest import ROOT, Script, is_rlm, repl

import rlm
from rlm import RLM, Completion, Reply, RLMError, Usage


def outputs(script: Script) -> list[str]:
    """What the root was told after each of its turns."""
    root = [messages for messages in script.requests if is_rlm(messages)]
    first = root[0][1]["content"]
    return [m[-1]["content"] for m in root if m[1]["content"] == first and len(m) > 2]


def cell(code: str, context: object = "some text", **options: object) -> str:
    """What the model is told after it ran this code in its first turn."""
    script = Script(repl(code), repl("FINAL('end')"))
    RLM(model=script, **options).completion("Do it", context)
    return outputs(script)[0]


# The loop


def test_from_question_to_answer():
    script = Script(repl("n = len(context)\nn"), repl("FINAL(n * 2)"))
    done = RLM(model=script).completion("How long?", "x" * 321)
    assert isinstance(done, Completion)
    assert (done.answer, str(done), done.finish_reason) == (642, "642", "final")
    assert (done.turns, done.depth, done.usage.calls) == (2, 0, 2)
    assert 0 < done.seconds < 60
    assert "321" in outputs(script)[0]  # the last line of a cell is shown, as in Python's REPL
    assert "How long?" in script.requests[0][1]["content"]


@pytest.mark.parametrize(
    "value",
    ["text", "", "Zürich ☃ \U0001f600", 3, -1.5, True, None, [1, [2, {"a": None}]], {"k": ["v"]}],
    ids=repr,
)
def test_a_final_answer_is_any_json_value(value):
    done = RLM(model=Script(repl(f"FINAL({value!r})"))).completion("Q", "c")
    assert done.answer == value
    assert type(done.answer) is type(value)
    assert isinstance(str(done), str)


def test_a_final_answer_of_ten_megabytes_arrives_whole():
    script = Script(repl("long = 'äb\\n' * 3_500_000\nlen(long)"), repl("FINAL(long)"))
    assert RLM(model=script).completion("Q", "c").answer == "äb\n" * 3_500_000


def test_a_final_answer_that_is_not_json_is_the_models_problem():
    script = Script(repl("FINAL({1: object()})"), repl("FINAL('then this')"))
    answer = RLM(model=script).completion("Q", "c").answer
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize(
    "context",
    [
        "",
        "text",
        "quotes \"'",
        "\ud83d lone",
        7,
        2.5,
        False,
        [],
        ["a", 1, None],
        {"a.txt": "x", "": 1},
    ],
    ids=ascii,
)
def test_the_context_is_any_json_value(context):
    script = Script(repl("FINAL([type(context).__name__, context])"))
    expected = [type(context).__name__, context]
    assert RLM(model=script).completion("Q", context).answer == expected


def test_without_a_context_the_prompt_is_the_context():
    prompt = "Find the needle. " + "hay " * 1_000_000
    script = Script(repl("FINAL(context)"))
    assert RLM(model=script).completion(prompt).answer == prompt
    assert len(json.dumps(script.requests[0])) < 10_000


def test_variables_and_definitions_persist_between_turns():
    script = Script(
        repl("import re\nfound = re.findall('a.', context)\ndef twice(x):\n    return x * 2"),
        repl("found.append(twice('z'))"),
        repl("FINAL(found)"),
    )
    assert RLM(model=script).completion("Q", "abacad").answer == ["ab", "ac", "ad", "zz"]


def test_a_fence_of_another_language_inside_code_does_not_end_the_block():
    code = 'p = """Answer so:\n```json\n{}\n"""\nFINAL(p.count("json"))'
    assert RLM(model=Script(f"```repl\n{code}\n```")).completion("Q", "c").answer == 1


def test_tools_cannot_take_the_names_of_the_repl():
    with pytest.raises(RLMError, match="context"):
        RLM(model=Script(repl("FINAL(1)")), tools={"context": len}).completion("Q", "c")


def test_blocks_of_one_reply_run_in_order_up_to_the_first_error():
    two = f"First\n{repl('a = 1')}\nthen\n{repl('print(a + 1)')}"
    bad = f"{repl('print(a + 2); {}[0]')}\n{repl('a = 99')}"
    script = Script(two, bad, repl("FINAL(a)"))
    assert RLM(model=script).completion("Q", "c").answer == 1
    assert "2" in outputs(script)[0]
    assert "3" in outputs(script)[1]
    assert "KeyError: 0" in outputs(script)[1]


FENCES = [
    "```repl\nFINAL(1)\n```",
    "```python\nFINAL(1)\n```",
    "Let me see.\n\n```repl\nFINAL(1)\n```\n\nThat should do.",
    "```repl\r\nx = 1\r\nFINAL(x)\r\n```\r\n",
    "```repl \nFINAL(1)\n``` ",
    "```repl\nfence = '''\n`` ` ``` '''\ns = 'a ``` b'\nFINAL(1)\n```",
    "<think>\nMaybe ```repl\nFINAL(2)\n``` or so\n</think>\n```repl\nFINAL(1)\n```",
    "<think>a</think><think>\n```repl\nFINAL(2)\n```\n</think>\n\n```repl\nFINAL(1)\n```",
    "```text\nFINAL(2)\n```\n```repl\nFINAL(1)\n```",
    "```json\n{}\n```\n```repl\nFINAL(1)\n```",
]


@pytest.mark.parametrize("reply", FENCES)
def test_code_is_found_however_it_is_fenced(reply):
    done = RLM(model=Script(reply, repl("FINAL(0)"))).completion("Q", "c")
    assert (done.answer, done.turns) == (1, 1)


def test_a_reply_without_code_gets_a_reminder():
    script = Script("I think the answer is near.", "", repl("FINAL('ok')"))
    done = RLM(model=script).completion("Q", "c")
    assert (done.answer, done.turns) == ("ok", 3)
    assert all("```repl" in told for told in outputs(script))


def test_an_error_is_a_short_traceback_with_the_models_own_lines():
    code = "def pick(table):\n    return table['x']  # here\n\nprint('before')\npick({})"
    told = cell(code)
    assert "before" in told
    assert "KeyError: 'x'" in told
    assert "return table['x']  # here" in told
    assert "line 2" in told
    assert "line 5" in told
    assert ".py" not in told.replace("python", "")  # no line of ours


def test_a_syntax_error_names_the_line():
    told = cell("x = 1\nif x\n    y")
    assert "SyntaxError" in told
    assert "line 2" in told


def test_long_output_keeps_head_and_tail():
    told = cell("print('HEAD' + 'x' * 500_000 + 'TAIL')", output_chars=2_000)
    assert "HEAD" in told
    assert "TAIL" in told
    assert 1_500 < len(told) < 3_500
    assert re.search(r"49[89],?\d\d\d", told)  # the middle is counted


def test_the_model_sees_what_is_left():
    script = Script(repl("1"), repl("2"), repl("FINAL(3)"))
    RLM(model=script, max_turns=17, max_calls=90, max_seconds=3000).completion("Q", "c")
    for told, turns, calls in zip(outputs(script), (16, 15), (89, 88), strict=True):
        line = told.replace(",", "").strip().splitlines()[-1]
        numbers = {int(n) for n in re.findall(r"\d+", line)}
        assert numbers & {turns, 17 - turns, 17 - turns + 1}, line  # left, used, or the next one's
        assert numbers & {calls, 90 - calls}, line
        assert re.search(r"turn.*call.*(s\b|second)", line), line


def test_the_names_of_the_repl_survive_being_overwritten():
    script = Script(
        repl("context = llm_query = llm_query_batched = FINAL = FINAL_VAR = SHOW_VARS = look = 0"),
        repl("del context\nkept = 5"),
        repl("print(SHOW_VARS())\nFINAL([context, llm_query('q'), look(), kept])"),
    )
    done = RLM(model=script, tools={"look": lambda: "looked"}).completion("Q", "the text")
    assert done.answer == ["the text", "leaf", "looked", 5]


def test_show_vars_names_types():
    told = cell("table = {'a': 1}\ntext = 'x'\nprint(SHOW_VARS())")
    assert re.search(r"table.*dict", told)
    assert re.search(r"text.*str", told)


@pytest.mark.parametrize("code", ["FINAL_VAR('v')", "FINAL_VAR(v)"])
def test_final_var_in_code(code):
    script = Script(repl(f"v = [1, 2]\n{code}"), repl("FINAL('not')"))
    assert RLM(model=script).completion("Q", "c").answer == [1, 2]


def test_final_ends_the_cell_and_no_except_holds_it():
    script = Script(repl("try:\n    FINAL(1)\nexcept:\n    FINAL(2)\nFINAL(3)"), repl("FINAL(4)"))
    done = RLM(model=script).completion("Q", "c")
    assert (done.answer, done.turns) == (1, 1)


def test_out_of_turns_the_best_answer_is_asked_for():
    script = Script(repl("a = 1"), repl("b = 2"), "Probably 3.")
    done = RLM(model=script, max_turns=2).completion("Q", "c")
    assert (done.answer, done.finish_reason) == ("Probably 3.", "max_turns")
    assert (done.turns, done.usage.calls, len(script.requests)) == (2, 3, 3)


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ("FINAL(3)", "3"),
        ("<think>hm\nFINAL(9)</think>\n3", "3"),
        (repl("FINAL(3)"), 3),  # code is code in the last reply, too
        (repl("print(a + 1)"), "2"),
        ("FINAL_VAR(a)", 1),
        ("```\nThe answer is 3\n```", "The answer is 3"),
    ],
)
def test_the_best_answer_in_every_form(last, answer):
    done = RLM(model=Script(repl("a = 1"), last), max_turns=1).completion("Q", "c")
    assert (done.answer, done.finish_reason) == (answer, "max_turns")


@pytest.mark.parametrize("last", [repl("b = 2"), repl("1 / 0"), repl("print(llm_query('q'))")])
def test_code_without_an_answer_is_no_answer(last):
    with pytest.raises(RLMError, match="no answer"):
        RLM(model=Script(repl("a = 1"), last), max_turns=1).completion("Q", "c")


def test_depth_zero_asks_the_model_directly():
    script = Script(leaf=lambda text: "direct")
    done = RLM(model=script, max_depth=0).completion("What is it?", ["a", "b"])
    assert (done.answer, done.finish_reason, done.depth) == ("direct", "final", 0)
    assert done.usage.calls == 1
    assert [m["role"] for m in script.requests[0]] == ["user"]
    text = script.plain[0]
    assert text.startswith("What is it?")
    assert '"a"' in text
    assert '"b"' in text
    RLM(model=script, max_depth=0).completion("Only this")
    assert script.plain[1] == "Only this"


# The final answer as text: (reply, answer); None: it is no final, the run goes on. `v` is [1, 2].

CODE = "```repl\nw = len(v)\n```"
TEXTUAL = [
    ("FINAL(Paris)", "Paris"),
    ("  FINAL(Paris)  ", "Paris"),
    ("FINAL( Paris )", "Paris"),
    ("I am sure now.\n\nFINAL(Paris)", "Paris"),
    ("I am sure now.\r\nFINAL(Paris)\r\n", "Paris"),
    ("FINAL(Paris)\n\nI hope that this helps (a little).", "Paris"),
    ("FINAL(f(x) = (a + b) * c)", "f(x) = (a + b) * c"),
    ("FINAL(Paris (France))", "Paris (France)"),
    ("FINAL((a) and (b))", "(a) and (b)"),
    ("FINAL(a smile :) at the side)", "a smile :) at the side"),
    ("FINAL(an open ( bracket)", "an open ( bracket"),
    ("FINAL(1) first\n2) second)", "1) first\n2) second"),
    ("FINAL(one\ntwo\n\nthree)", "one\ntwo\n\nthree"),
    ("FINAL(\none (1)\ntwo (2)\n)", "one (1)\ntwo (2)"),
    ("FINAL(it's 5 o'clock)", "it's 5 o'clock"),
    ('FINAL("Paris")', "Paris"),
    ("FINAL('Paris')", "Paris"),
    ('FINAL("""one\ntwo""")', "one\ntwo"),
    ("FINAL('a' and 'b')", "'a' and 'b'"),
    ('FINAL(He said "no)" and left)', 'He said "no)" and left'),
    ("FINAL(v)", [1, 2]),
    ("FINAL(v and unknown)", "v and unknown"),
    ("FINAL(call FINAL(x) to end)", "call FINAL(x) to end"),
    ("FINAL(Zürich ☃)", "Zürich ☃"),
    ("FINAL_VAR(v)", [1, 2]),
    ("FINAL_VAR( v )", [1, 2]),
    ('FINAL_VAR("v")', [1, 2]),
    ("FINAL_VAR('v')", [1, 2]),
    ("Done.\nFINAL_VAR(v)\nBye.", [1, 2]),
    ("FINAL_VAR(unknown)", None),
    ("FINAL_VAR(v) is what I would say if I were sure", None),
    (f"{CODE}\nFINAL_VAR(w)", None),  # beside code it was written before the output was seen
    (f"FINAL_VAR(w)\n{CODE}", None),
    (f"{CODE}\nFINAL(two)", None),
    (f"{CODE}\n```repl\nFINAL('code')\n```\nFINAL(text)", "code"),
    ("```repl\nw = 1 / 0\n```\nFINAL_VAR(w)", None),
    ("```repl\nprint('''\nFINAL(no)\n''')\n```", None),
    ("```repl\n# FINAL(no)\nw = 1\n```", None),
    ("Then I will call FINAL(answer) when I am sure.", None),
    ("My plan: probe, then FINAL(answer)", None),
    ("1. probe\n2. FINAL(answer)\n", None),
    ("My plan:\n* probe\n* FINAL(answer)", None),
    ("- FINAL(answer) ends it\n- FINAL_VAR(v) too", None),
    ("Use `FINAL(answer)` or `FINAL_VAR(v)`.", None),
    ("FINAL_VAR and FINAL( are how it ends", None),
    ("NOT_FINAL(Paris)\nFINALLY(Paris)\nfinal(Paris)", None),
    ("FINAL answer: Paris", None),
    ("<think>\nFINAL(wrong)\n</think>\nFINAL(right)", "right"),
    ("<think>\nFINAL(wrong)\n</think>\nLet me look.", None),
    ("FINAL(wrong)\n</think>\nLet me look.", None),  # servers swallow the opening tag
    ("<think>\nFINAL(wrong)\n", None),  # cut off while it thought
]


@pytest.mark.parametrize(("reply", "answer"), TEXTUAL, ids=[ascii(reply) for reply, _ in TEXTUAL])
def test_the_final_answer_as_text(reply, answer):
    script = Script(repl("v = [1, 2]"), reply, repl("FINAL('went on')"))
    done = RLM(model=script).completion("Q", "c")
    assert done.answer == ("went on" if answer is None else answer)
    assert done.turns == (3 if answer is None else 2)


def test_a_fence_inside_the_final_text_stays_in_it():
    reply = "FINAL(Run this:\n```bash\necho (hi)\n```\nand wait)"
    done = RLM(model=Script(reply, repl("FINAL('went on')"))).completion("Q", "c")
    assert done.answer == "Run this:\n```bash\necho (hi)\n```\nand wait"


def test_an_unknown_name_is_named():
    script = Script(repl("v = 1"), "FINAL_VAR(unknown)", repl("FINAL(0)"))
    RLM(model=script).completion("Q", "c")
    assert "unknown" in outputs(script)[1]


# The recursion


def test_the_base_case_is_one_plain_call():
    script = Script(
        repl("FINAL(llm_query('Who?', 'Ada ' * 5))"), leaf=lambda text: text.count("Ada")
    )
    script.leaf = lambda text: f"{text.count('Ada')} times"
    done = RLM(model=script).completion("Q", "c")
    assert (done.answer, done.depth, done.usage.calls) == ("5 times", 1, 2)
    assert script.plain[0].startswith("Who?")
    assert len(script.plain[0]) < len("Who?" + "Ada " * 5) + 40  # what it needs and no more
    assert [m["role"] for m in script.requests[1]] == ["user"]


@pytest.mark.parametrize(
    ("size", "recurse", "max_depth", "child"),
    [
        (500, None, 2, False),
        (2_000, None, 2, True),
        (500, True, 2, True),
        (500, False, 2, False),
        (500, None, 1, False),
        (500, True, 1, False),  # at max_depth there are no children
    ],
)
def test_what_becomes_a_child(size, recurse, max_depth, child):
    script = Script(
        repl(f"FINAL(llm_query('CHILD', 'y' * {size}, recurse={recurse}))"),
        leaf=lambda text: f"plain {text.count('y')}",
        CHILD=[repl("FINAL(f'child {len(context)}')")],
    )
    done = RLM(model=script, leaf_chars=1_000, max_depth=max_depth).completion("Q", "c")
    assert done.answer == f"{'child' if child else 'plain'} {size}"


@pytest.mark.parametrize(
    "call",
    [
        "llm_query('CHILD', 'y' * 3_000, recurse=False)",
        "llm_query('y' * 3_000, recurse=False)",
        "llm_query_batched(['CHILD'], ['y' * 3_000], recurse=False)[0]",
    ],
)
@pytest.mark.parametrize("max_depth", [1, 2])
def test_what_fits_neither_is_an_error_that_says_so(call, max_depth):
    told = cell(
        call if max_depth == 2 else call.replace(", recurse=False", ""),
        max_depth=max_depth,
        leaf_chars=1_000,
    )
    assert "leaf_chars" in told or "1,000" in told or "1000" in told
    assert "leaf\n" not in told


def test_a_child_has_its_own_context_and_variables():
    script = Script(
        repl("mine = 1\nanswer = llm_query('CHILD', context + [3], recurse=True)"),
        repl("FINAL([answer, context, mine])"),
        CHILD=[repl("print(SHOW_VARS())\nmine = context + [4]"), repl("FINAL(str(mine))")],
    )
    done = RLM(model=script).completion("Q", [1, 2])
    assert done.answer == ["[1, 2, 3, 4]", [1, 2], 1]
    child = next(m for m in script.requests if "CHILD" in m[1]["content"] and len(m) == 4)
    assert "mine" not in child[-1]["content"]


def test_a_sub_call_returns_text():
    code = "r = llm_query('CHILD', [1], recurse=True)\nFINAL([type(r).__name__, r])"
    script = Script(repl(code), CHILD=[repl("FINAL({'a': [1, None]})")])
    kind, text = RLM(model=script).completion("Q", "c").answer
    assert kind == "str"
    assert json.loads(text) == {"a": [1, None]}


def test_a_plain_call_is_given_any_json_value():
    script = Script(repl("FINAL(llm_query('Q', {'k': ['ä', None]}))"), leaf=lambda text: text)
    assert '{"k": ["ä", null]}' in RLM(model=script).completion("Q", "c").answer


def test_fifty_levels_deep():
    """Each level hands its own context down, one shorter; the answer counts the levels."""
    code = """
        if context:
            FINAL(1 + int(llm_query("one less", context[1:], recurse=True)))
        FINAL(0)
    """
    done = RLM(model=Script(repl(code)), max_depth=60).completion("Q", "x" * 50)
    assert (done.answer, done.depth, done.usage.calls) == (50, 50, 51)


def test_depth_follows_from_the_data_as_in_merge_sort():
    """64 pieces, halved at each level until one fits a plain call, which sorts it."""
    numbers = random.Random(0).sample(range(10_000, 100_000), 64 * 20)
    pieces = [" ".join(map(str, numbers[i : i + 20])) for i in range(0, len(numbers), 20)]
    code = """
        import heapq
        pieces = context.splitlines()
        half = len(pieces) // 2
        halves = ["\\n".join(pieces[:half]), "\\n".join(pieces[half:])]
        left, right = llm_query_batched(["Sort these"] * 2, halves)
        merged = heapq.merge(map(int, left.split()), map(int, right.split()))
        FINAL(" ".join(map(str, merged)))
    """
    script = Script(repl(code), leaf=lambda text: " ".join(sorted(re.findall(r"\d{5}", text))))
    rlm = RLM(model=script, max_depth=30, leaf_chars=200, concurrency=8)
    done = rlm.completion("Sort these", "\n".join(pieces))
    assert done.answer.split() == sorted(map(str, numbers))
    assert (done.depth, done.usage.calls) == (6, 63 + 64)
    assert len(script.plain) == 64


def test_calls_below_the_root_go_to_the_sub_model():
    root = Script(repl("FINAL([llm_query('q'), llm_query('CHILD', '-', recurse=True)])"))
    below = Script(CHILD=[repl("FINAL(llm_query('q'))")], leaf=lambda text: "from below")
    done = RLM(model=root, sub_model=below).completion("Q", "c")
    assert done.answer == ["from below", "from below"]
    assert (len(root.requests), len(below.requests)) == (1, 3)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("llm_query_batched(['a', 'b', 'c'])", ["A", "B", "C"]),
        ("llm_query_batched(['a', 'b'], ['x', 'y'])", ["AX", "BY"]),
        ("llm_query_batched(['a', 'b'], contexts=['x', None])", ["AX", "B"]),
        ("llm_query_batched(prompts=['a'])", ["A"]),
        ("llm_query_batched([])", []),
        ("llm_query_batched([f'p{i}' for i in range(100)])", [f"P{i}" for i in range(100)]),
        ("llm_query('a', 'x')", "AX"),
        ("llm_query(prompt='a', context='x', recurse=False)", "AX"),
    ],
)
def test_batches_keep_the_order(call, answer):
    leaf = lambda text: re.sub(r"</?context>|\s", "", text).upper()
    script = Script(repl(f"FINAL({call})"), leaf=leaf)
    assert RLM(model=script).completion("Q", "c").answer == answer


@pytest.mark.parametrize(
    "call",
    [
        "llm_query_batched(['a', 'b'], ['only one'])",
        "llm_query()",
        "llm_query('a', nonsense=1)",
        "llm_query(5)",
        "llm_query_batched('a string')",
        "llm_query(['a'])",
    ],
)
def test_a_wrong_call_is_an_error_in_the_cell(call):
    told = cell(f"{call}\nprint('not ' + 'reached')")
    assert re.search(r"(Type|Value|Runtime)Error: \S", told)
    assert "not reached" not in told


def test_a_failed_item_does_not_lose_the_others():
    def leaf(text):
        if "bad" in text:
            raise RLMError("no such luck")
        return text.upper()

    code = "r = llm_query_batched(['a', 'bad', 'c', 'bad'])\nr"
    script = Script(repl(code), repl("FINAL(r)"), leaf=leaf)
    done = RLM(model=script).completion("Q", "c")
    assert done.answer == ["A", None, "C", None]
    assert "no such luck" in outputs(script)[0]
    assert re.search(r"\b1\b", outputs(script)[0])
    assert re.search(r"\b3\b", outputs(script)[0])


def test_a_failed_sub_call_is_an_exception_in_the_cell():
    def leaf(text):
        raise ConnectionError("no such luck")

    code = """
        try:
            llm_query("a")
        except RuntimeError as e:
            FINAL(f"caught {e}")
    """
    answer = RLM(model=Script(repl(code), leaf=leaf)).completion("Q", "c").answer
    assert answer.startswith("caught llm_query failed: ")
    assert "no such luck" in answer


def test_a_model_that_raises_at_the_root_is_an_rlm_error_with_the_usage():
    def fail(messages):
        raise ConnectionError("no such luck")

    script = Script(repl("llm_query('a')"), fail)
    with pytest.raises(RLMError, match="no such luck") as caught:
        RLM(model=script).completion("Q", "c")
    assert caught.value.usage.calls == 2  # those that were answered


# The prompts


def first_request(prompt: str, context: object, **options: object) -> list[dict[str, str]]:
    script = Script(repl("FINAL(0)"))
    RLM(model=script, **options).completion(prompt, context)
    return script.requests[0]


def test_the_system_prompt_is_short_and_says_what_there_is():
    system = first_request("Q", "c", leaf_chars=77_777)[0]["content"]
    assert len(system) <= 4_200
    for word in ("llm_query(", "llm_query_batched(", "FINAL(", "context", "```repl", "77,777"):
        assert word in system.replace("77777", "77,777"), word
    assert "$" not in system  # a placeholder that was not filled in


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("x" * 1_000, "x" * 100_000_000),
        (["x" * 10] * 100, ["x" * 100_000] * 1_000),
        ({f"{i:06}": "x" for i in range(100)}, {f"{i:06}": "x" * 100_000 for i in range(1_000)}),
        ([["x"] * 50] * 100, [["x"] * 50] * 10_000),
    ],
    ids=["str", "list", "dict", "nested"],
)
def test_the_first_message_is_short_for_every_size_of_context(small, large):
    assert len(first_request("Q", small)[1]["content"]) <= 2_500  # up to 2,000 are shown whole
    assert len(first_request("Q", large)[1]["content"]) <= 1_500


KEYS = [f"key{i}" for i in range(20)]
TABLES = {a: {b: dict.fromkeys(KEYS, "value") for b in KEYS} for a in KEYS}


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("x" * 4_321, ["str", "4321"]),
        (["x" * 17, "y" * 4_321], ["list", "2", "17", "4321"]),
        ({"a.txt": "x" * 4_321, "b.txt": "y" * 17}, ["dict", "a.txt", "4321", "b.txt", "17"]),
        ({"k" * 9_000: 1}, ["dict"]),
        (TABLES, ["dict", "20", "key0"]),
        (None, ["str"]),  # the prompt
    ],
    ids=["str", "list", "dict", "long key", "dicts in dicts", "none"],
)
def test_the_model_is_told_what_the_context_is(context, words):
    request = first_request("The question", context)
    text = request[1]["content"].replace(",", "").replace("_", "")
    assert all(word in text for word in words)
    assert len(request[0]["content"] + text) < 8_000


def test_each_request_begins_with_the_one_before():
    script = Script(repl("1"), "no code", repl("llm_query('a')"), repl("{}[0]"), repl("FINAL(1)"))
    done = RLM(model=script).completion("Q", "c")
    root = [messages for messages in script.requests if is_rlm(messages)]
    assert len(root) == 5
    for earlier, later in itertools.pairwise(root):
        assert later[: len(earlier)] == earlier
        assert [m["role"] for m in later[len(earlier) :]] == ["assistant", "user"]
    assert done.messages[: len(root[-1])] == root[-1]
    assert done.messages[len(root[-1])] == {"role": "assistant", "content": repl("FINAL(1)")}


def test_a_conversation_of_six_turns_is_short():
    script = Script(*[repl(f"print({i})") for i in range(5)], repl("FINAL(1)"))
    RLM(model=script).completion("Q", "c")
    characters = sum(len(m["content"]) for messages in script.requests for m in messages)
    assert characters <= 35_000


def lookup(name: str, limit: int = 3) -> list[str]:
    """Finds people by name.

    The second paragraph is for programmers.
    """
    return [name.upper()] * limit


def test_tools_are_listed_and_called_in_root_and_child():
    code = "FINAL(lookup('a', limit=2) + [llm_query('CHILD', 'x', recurse=True)])"
    script = Script(repl(code), CHILD=[repl("FINAL(lookup('b')[0])")])
    tools = {"lookup": lookup, "sqrt": math.sqrt, "first": functools.partial(lookup, limit=1)}
    done = RLM(model=script, tools=tools | {"biggest": max, "plain": lambda x: x}).completion(
        "Q", "c"
    )
    assert done.answer == ["A", "A", "B"]
    for request in (script.requests[0], script.requests[1]):
        text = request[0]["content"] + request[1]["content"]
        assert "lookup(name: str, limit: int = 3) -> list[str]" in text
        assert "Finds people by name." in text
        assert "second paragraph" not in text
        assert all(name in text for name in ("sqrt", "first", "biggest", "plain"))


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        (lambda: {}["gone"], "KeyError: "),
        (lambda: object(), "object"),
        (lambda: {1: object()}, "object"),
        (lambda x: x, "missing 1 required"),
    ],
)
def test_a_tool_that_fails_is_an_exception_in_the_cell(tool, error):
    told = cell("print('before')\ntool()\nprint('after' + 'wards')", tools={"tool": tool})
    assert "before" in told
    assert "afterwards" not in told
    assert error in told


def test_the_prompts_are_replaced_by_a_directory(tmp_path):
    folder = shutil.copytree(ROOT / "prompts", tmp_path / "words")
    for file in folder.iterdir():
        file.write_text(file.read_text() + f"\nMARK {file.stem}")
    before, after = (first_request("Q", "c", **o) for o in ({}, {"prompts": folder}))
    assert all("MARK" not in m["content"] and "MARK" in n["content"] for m, n in zip(before, after))
    assert first_request("Q", "c", prompts=str(folder)) == after


@pytest.mark.parametrize(
    "prompt", ["$context ${prompt} $", "{braces} {0} %s", "$$", "a\n```repl\nFINAL(7)\n```"]
)
def test_a_prompt_is_not_a_template(prompt):
    script = Script(repl("FINAL(llm_query(context, context))"), leaf=lambda text: text)
    done = RLM(model=script).completion(prompt, prompt)
    assert prompt in script.requests[0][1]["content"]
    assert done.answer.count(prompt) >= 2


# Completion, Usage, the configuration


def test_usage_adds_up_over_the_tree_and_by_model():
    root = Script(
        lambda m: Reply(repl("x = llm_query('CHILD', '-', recurse=True)"), 100, 20, 10, 0.5),
        lambda m: Reply(repl("FINAL(x)"), 200, 100, 20, 0.25),
    )
    below = Script(
        CHILD=[lambda m: Reply(repl("FINAL(llm_query('a'))"), 1, 0, 2, 0.125)],
        leaf=lambda text: Reply("leaf", 3, 1, 4, 0.125),
    )
    usage = RLM(model=root, sub_model=below).completion("Q", "c").usage
    assert dataclasses.asdict(usage) | {"models": None} == {
        "calls": 4,
        "prompt_tokens": 304,
        "cached_tokens": 121,
        "completion_tokens": 36,
        "cost": 1.0,
        "models": None,
    }
    parts = usage.models.values()
    assert sum(part.calls for part in parts) == 4
    assert sum(part.prompt_tokens for part in parts) == 304


def test_usage_without_a_cost_has_none():
    usage = RLM(model=Script(repl("FINAL(1)"))).completion("Q", "c").usage
    assert isinstance(usage, Usage)
    assert (usage.calls, usage.prompt_tokens, usage.cost) == (1, 0, None)


FIELDS = {
    "max_depth": 3,
    "max_turns": 30,
    "leaf_chars": 100_000,
    "max_calls": None,
    "max_tokens": None,
    "max_cost": None,
    "max_seconds": None,
    "concurrency": 16,
    "output_chars": 10_000,
    "cell_seconds": 60,
    "memory_mb": 2048,
    "tools": {},
    "options": {},
    "prices": {},
    "on_event": None,
    "trace": None,
    "timeout": 600,
    "tries": 10,
    "headers": {},
    "check": None,
}


def test_the_fields_are_the_whole_configuration(clean_env):
    fields = {field.name for field in dataclasses.fields(RLM)}
    assert fields == {"model", "sub_model", "base_url", "api_key", "prompts", *FIELDS}
    default = RLM()
    assert {name: getattr(default, name) for name in FIELDS} == FIELDS
    assert default.model == "gpt-5-mini"


def test_the_environment_configures_it(clean_env, monkeypatch):
    monkeypatch.setenv("RLM_MODEL", "other")
    assert RLM().model == "other"
    assert RLM(model="this").model == "this"


def test_a_key_does_not_show_in_the_repr():
    assert "sk-secret" not in repr(RLM(api_key="sk-secret"))


# Pickling, processes, threads


def count_letters(messages: list[dict[str, str]]) -> str:
    """A model that pickles, being at the top level: a child counts, the root passes on."""
    if "CHILD" in messages[1]["content"]:
        return repl("FINAL(context.count('a'))")
    return repl("FINAL([int(llm_query('CHILD', context, recurse=True)), context])")


def test_it_pickles():
    engine = RLM(model=count_letters, max_depth=7, options={"temperature": 0})
    copy = pickle.loads(pickle.dumps(engine))
    assert copy == engine
    assert copy.completion("Q", "banana").answer == [3, "banana"]
    assert pickle.loads(pickle.dumps(engine)) == engine  # and after use


def test_a_completion_pickles():
    done = RLM(model=count_letters).completion("Q", "banana")
    copy = pickle.loads(pickle.dumps(done))
    assert (copy.answer, copy.usage, copy.messages) == (done.answer, done.usage, done.messages)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_maps_it_over_questions(method):
    """Forked from a process that has used it already, too: nothing of the parent's is shared."""
    engine = RLM(model=count_letters)
    assert engine.completion("Q", "aa").answer == [2, "aa"]
    contexts = ["a" * n for n in range(6)]
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        done = list(pool.map(engine.completion, ["Q"] * 6, contexts))
    assert [d.answer for d in done] == [[n, "a" * n] for n in range(6)]
    assert engine.completion("Q", "aa").answer == [2, "aa"]


def test_sixty_four_threads_share_one():
    barrier = threading.Barrier(64)
    engine = RLM(model=count_letters)

    def run(n: int) -> Completion:
        barrier.wait()
        return engine.completion(f"Question-{n}-", "a" * n)

    with ThreadPoolExecutor(64) as pool:
        done = list(pool.map(run, range(64)))
    for n, one in enumerate(done):
        assert (one.answer, one.usage.calls, one.turns) == ([n, "a" * n], 2, 1)
        assert f"Question-{n}-" in one.messages[1]["content"]


# Vendoring

HOST = """
import sys
sys.path.insert(0, {path!r})
{statement}

def model(messages):
    if len(messages) == 1:
        return "leaf"
    code = "FINAL(llm_query('q', recurse=True) if context == 'top' else llm_query('q') + context)"
    return f"```repl\\n{{code}}\\n```"

if __name__ == "__main__":
    print(RLM(model=model, max_depth=2).completion("Q", "top").answer)
    print(RLM.__module__, "sandbox" in sys.modules)
"""


@pytest.mark.parametrize(
    ("folder", "statement", "module"),
    [
        ("", "from rlm import RLM", "rlm True"),
        ("", "import rlm; RLM = rlm.RLM", "rlm True"),
        ("acme", "from acme.rlm import RLM", "acme.rlm False"),
        (
            "acme/parts/engine",
            "from acme.parts.engine.rlm import RLM",
            "acme.parts.engine.rlm False",
        ),
        ("acme", "from acme import rlm; RLM = rlm.RLM", "acme.rlm False"),
    ],
)
def test_vendored(folder, statement, module, tmp_path):
    """The two files and the prompts, copied: as plain modules, and inside another package."""
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for name in ("rlm.py", "sandbox.py"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "prompts", place / "prompts")
    if folder:
        (tmp_path / "acme/__init__.py").touch()
    host = tmp_path / "host.py"
    host.write_text(HOST.format(path=str(tmp_path), statement=statement))
    run = [sys.executable, "-I", str(host)]
    result = subprocess.run(run, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.splitlines() == ["leafq", module], result.stderr


def test_the_module_says_what_it_offers():
    offered = (
        "RLM",
        "Completion",
        "Usage",
        "Reply",
        "RLMError",
        "ModelError",
        "LimitReached",
        "main",
    )
    assert all(getattr(rlm, name).__doc__ for name in offered)
