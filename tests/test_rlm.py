"""The loop, the recursion, the prompts and the configuration, with a scripted model.

Not here: reading replies (test_replies.py), windows (test_window.py), files and values
(test_files.py), HTTP (test_client.py), limits (test_limits.py), the command line (test_cli.py).
"""

import dataclasses
import itertools
import json
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
from conftest import CASES, ROOT, Script, cases, cell, follow, is_rlm, outputs, repl

import rlm
import sandbox
from rlm import RLM, Completion, Reply, RLMError


# ---- The loop
def test_from_question_to_answer():
    script = Script(repl("n = len(context)\nn"), repl("FINAL(n * 2)"))
    done = RLM(model=script).completion("How long?", "x" * 321)
    assert isinstance(done, Completion)
    assert (done.answer, str(done), done.finish_reason) == (642, "642", "final")
    assert (done.turns, done.depth, done.usage.calls) == (2, 0, 2)
    assert (done.usage.prompt_tokens, done.usage.cost) == (0, None)
    assert 0 < done.seconds < 60
    assert "321" in outputs(script)[0]  # the last line of a cell is shown, as in Python's REPL
    assert "How long?" in script.requests[0][1]["content"]


@cases
def test_contexts_and_answers_are_any_json_value(value):
    done, _ = follow(repl("FINAL([context, type(context).__name__])"), context=value)
    assert done.answer == [value, type(value).__name__]
    done = RLM(model=Script(repl("FINAL(context)"))).completion("Q", value)
    assert done.answer == value
    assert type(done.answer) is type(value)
    assert isinstance(str(done), str)


@cases
def test_final_ends_the_cell(code, answer):
    done = RLM(model=Script(repl(code), repl("FINAL(4)"))).completion("Q", "c")
    assert (done.answer, done.turns) == (answer, 1)


def test_an_answer_that_is_long_or_no_json():
    script = Script(repl("long = 'äb\\n' * 3_500_000\nlen(long)"), repl("FINAL(long)"))
    assert RLM(model=script).completion("Q", "c").answer == "äb\n" * 3_500_000
    answer = follow(repl("FINAL({1: object()})"), repl("FINAL('then this')"))[0].answer
    assert json.loads(json.dumps(answer)) == answer


def test_without_a_context_the_prompt_is_the_context():
    prompt = "Find the needle. " + "hay " * 1_000_000
    script = Script(repl("FINAL(context)"))
    assert RLM(model=script).completion(prompt).answer == prompt
    assert len(json.dumps(script.requests[0])) < 10_000


def test_variables_and_definitions_persist_between_turns():
    script = Script(
        repl("import re\nfound = re.findall('a.', context)\ndef twice(x):\n    return x * 2"),
        repl("found.append(twice('z'))\nprint(SHOW_VARS())"),
        repl("FINAL(found)"),
    )
    assert RLM(model=script).completion("Q", "abacad").answer == ["ab", "ac", "ad", "zz"]
    assert re.search(r"found.*list", outputs(script)[1])


@cases
def test_an_error_is_a_short_traceback_with_the_models_own_lines(code, words):
    told = cell(code)
    assert all(word in told for word in words)
    assert ".py" not in told.replace("python", "")  # no line of ours


def test_long_output_keeps_head_and_tail_and_is_cut_at_the_ends_of_lines():
    told = cell("print('HEAD' + 'x' * 500_000 + 'TAIL')", output_chars=2_000)
    assert "HEAD" in told
    assert "TAIL" in told
    assert 1_500 < len(told) < 3_500
    assert re.search(r"49[89],?\d\d\d", told)  # the middle is counted
    told = cell("for i in range(9_000): print(f'line {i:04} ends')", output_chars=2_000)
    lines = told.splitlines()[:-2]
    note = next(line for line in lines if line.startswith("..."))
    assert re.fullmatch(r"\.{3} \[1\d\d,\d{3} characters left out of the middle; .+\] \.{3}", note)
    assert all(re.fullmatch(r"line \d{4} ends|", line) for line in lines if line != note)


def test_the_model_sees_what_is_left():
    limits = {"max_turns": 30, "max_calls": 44, "max_seconds": 5_225, "max_tokens": 9_000}
    _, script = follow(repl("llm_query('q')"), repl("2"), repl("FINAL(3)"), max_cost=2, **limits)
    lines = [told.splitlines()[-1] for told in outputs(script)]
    left = "87 min left · 42 calls left · 9,000 tokens left · $2.00 left"
    assert lines[0] == f"[turn 1 of 30 · {left}]"
    assert lines[1].startswith("[turn 2 of 30 · 87 min left · 41 calls left")
    assert re.search(r"\[turn 1 of 30 · \d\d s left\]$", cell("1", max_seconds=50))
    assert cell("1").endswith("[turn 1 of 30]")


def test_depth_zero_asks_the_model_directly():
    script = Script(leaf=lambda text: "direct")
    done = RLM(model=script, max_depth=0).completion("What is it?", ["a", "b"])
    assert (done.answer, done.finish_reason, done.depth) == ("direct", "final", 0)
    assert done.usage.calls == 1
    assert [m["role"] for m in script.requests[0]] == ["user"]
    assert re.search(r'^What is it\?(.|\n)*"a".*"b"', script.plain[0])
    RLM(model=script, max_depth=0).completion("Only this")
    assert script.plain[1] == "Only this"


# ---- A check of the answer, by the caller
async def must_be_even(answer):
    return None if answer % 2 == 0 else f"{answer} is odd"


def test_a_check_sends_an_answer_back_with_what_is_wrong():
    turns = [repl("print('seen')\nFINAL(1)"), repl("FINAL(3)"), repl("FINAL(4)")]
    done, script = follow(*turns, check=must_be_even)
    assert (done.answer, done.finish_reason, done.turns) == (4, "final", 3)
    assert re.match(r"seen\n.*1 is odd", outputs(script)[0])
    assert "3 is odd" in outputs(script)[1]


def test_a_check_is_for_finals_of_the_root_within_its_turns():
    child = "FINAL(int(llm_query('CHILD', 'x', recurse=True)) + 1)"
    assert follow(repl(child), CHILD=[repl("FINAL(1)")], check=must_be_even)[0].answer == 2
    script = Script(repl("FINAL(1)"), repl("FINAL(3)"), "FINAL(5)")  # forced, as its reason tells
    done = RLM(model=script, check=must_be_even, max_turns=2).completion("Q", "c")
    assert (done.answer, done.finish_reason) == ("5", "max_turns")
    script = Script("FINAL(no number)", repl("FINAL('ok')"))  # a textual one is one of them
    done = RLM(model=script, check=lambda answer: answer != "ok" or None).completion("Q", "c")
    assert (done.answer, done.turns) == ("ok", 2)


def test_a_check_that_raises_is_an_error_of_the_callers(tmp_path):
    engine = RLM(model=Script(repl("FINAL('x')")), check=must_be_even, trace=tmp_path / "t.json")
    with pytest.raises(RLMError, match="TypeError") as caught:
        engine.completion("Q", "c")
    assert caught.value.usage.calls == 1
    assert json.loads((tmp_path / "t.json").read_text())


# ---- The recursion
def test_the_base_case_is_one_plain_call():
    script = Script(repl("FINAL(llm_query('Who?', 'Ada ' * 5))"))
    script.leaf = lambda text: f"{text.count('Ada')} times"
    done = RLM(model=script).completion("Q", "c")
    assert (done.answer, done.depth, done.usage.calls) == ("5 times", 1, 2)
    assert script.plain[0].startswith("Who?")
    assert len(script.plain[0]) < len("Who?" + "Ada " * 5) + 40  # what it needs and no more
    assert [m["role"] for m in script.requests[1]] == ["user"]


@cases
def test_what_becomes_a_child(size, recurse, max_depth, child):
    script = Script(
        repl(f"FINAL(llm_query('CHILD', 'y' * {size}, recurse={recurse}))"),
        leaf=lambda text: f"plain {text.count('y')}",
        CHILD=[repl("FINAL(f'child {len(context)}')")],
    )
    done = RLM(model=script, leaf_chars=1_000, max_depth=max_depth).completion("Q", "c")
    assert done.answer == f"{'child' if child else 'plain'} {size}"


@cases
@pytest.mark.parametrize("max_depth", [1, 2])
def test_what_fits_neither_is_an_error_that_says_so(call, max_depth):
    call = call if max_depth == 2 else call.replace(", recurse=False", "")
    told = cell(call, max_depth=max_depth, leaf_chars=1_000)
    assert "leaf_chars" in told
    assert "leaf\n" not in told


def test_a_child_has_its_own_context_and_variables():
    done, script = follow(
        repl("mine = 1\nanswer = llm_query('CHILD', context + [3], recurse=True)"),
        repl("FINAL([answer, context, mine])"),
        context=[1, 2],
        CHILD=[repl("print(SHOW_VARS())\nmine = context + [4]"), repl("FINAL(str(mine))")],
    )
    assert done.answer == ["[1, 2, 3, 4]", [1, 2], 1]
    child = next(m for m in script.requests if "CHILD" in m[1]["content"] and len(m) == 4)
    assert "mine" not in child[-1]["content"]


def test_a_sub_call_takes_any_json_value_and_returns_text():
    code = "r = llm_query('CHILD', [1], recurse=True)\nFINAL([type(r).__name__, r, {}])"
    code = code.format("llm_query('Q', {'k': ['ä', None]})")
    done, _ = follow(repl(code), CHILD=[repl("FINAL({'a': [1, None]})")], leaf=lambda text: text)
    kind, text, plain = done.answer
    assert (kind, json.loads(text)) == ("str", {"a": [1, None]})
    assert '{"k": ["ä", null]}' in plain


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
    assert (done.depth, done.usage.calls, len(script.plain)) == (6, 63 + 64, 64)


@cases
def test_batches_keep_the_order(call, answer):
    leaf = lambda text: re.sub(r"</?context>|\s", "", text).upper()
    assert follow(repl(f"FINAL({call})"), leaf=leaf)[0].answer == answer


@cases
def test_a_wrong_call_is_an_error_in_the_cell(call):
    told = cell(f"{call}\nprint('not ' + 'reached')")
    assert re.search(r"(Type|Value|Runtime)Error: \S", told)
    assert "not reached" not in told


def test_a_failed_sub_call_is_an_exception_and_loses_no_other_of_its_batch():
    def leaf(text):
        if "bad" in text:
            raise ConnectionError("no such luck")
        return text.upper()

    batch = repl("r = llm_query_batched(['a', 'bad', 'c', 'bad'])\nr")
    one = repl("try:\n    llm_query('bad')\nexcept RuntimeError as e:\n    FINAL([r, str(e)])")
    script = Script(batch, one, leaf=leaf)
    items, told = RLM(model=script).completion("Q", "c").answer
    assert items == ["A", None, "C", None]
    assert re.search(r"item 1: .*no such luck.*item 3: ", outputs(script)[0])
    assert re.fullmatch("llm_query failed: .*no such luck", told)


def test_a_model_that_raises_at_the_root_is_an_rlm_error_with_the_usage():
    def fail(messages):
        raise ConnectionError("no such luck")

    script = Script(repl("llm_query('a')"), fail)
    with pytest.raises(RLMError, match="no such luck") as caught:
        RLM(model=script).completion("Q", "c")
    assert caught.value.usage.calls == 2  # those that were answered


# ---- The prompts
def first_request(prompt: str, context: object, **options: object) -> list[dict[str, str]]:
    _, script = follow(repl("FINAL(0)"), prompt=prompt, context=context, **options)
    return script.requests[0]


def test_the_system_prompt_is_short_and_says_what_there_is():
    system = first_request("Q", "c", leaf_chars=77_777)[0]["content"]
    assert len(system) <= 4_200
    assert f"Modules: {', '.join(sandbox.MODULES)}." in system
    for word in ("llm_query(", "llm_query_batched(", "FINAL(", "context", "```repl", "77,777"):
        assert word in system, word
    assert "$" not in system  # a placeholder that was not filled in
    assert "10,000" in system  # output_chars
    assert "1,000" in first_request("Q", "c", leaf_chars=4_000)[0]["content"]


MANY = {  # 100 MB each, but for the last
    "str": lambda: "first line\n" + "x" * 100_000_000 + "\nlast line",
    "list": lambda: ["first item" + "x" * 100_000] * 1_000,
    "dict": lambda: {f"{i:06}": "first item" + "x" * 100_000 for i in range(1_000)},
    "nested": lambda: [["first"] * 50] * 1_000,
}


@pytest.mark.parametrize("kind", MANY)
def test_the_first_message_is_short_however_long_the_context(kind):
    text = first_request("Q", MANY[kind]())[1]["content"]
    assert len(text) <= 1_500
    assert "first" in text
    assert "last line" in text or kind != "str"


KEYS = [f"key{i}" for i in range(20)]
TABLES = {a: {b: dict.fromkeys(KEYS, "value") for b in KEYS} for a in KEYS}
LINES = "\n".join(f"line {i:05} ends" for i in range(9_000))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("x" * 4_321, ["str", "4321"]),
        (LINES, ["line 00000 ends", "line 08999 ends"]),
        (["x" * 17, "y" * 4_321], ["list", "2", "17", "4321", "xxxxx", "yyyyy"]),
        (
            {"a.txt": "x" * 4_321, "b.txt": "y" * 17},
            ["dict", "a.txt", "4321", "xxx", "b.txt' (a str of 17"],
        ),
        ({"k" * 9_000: 1}, ["dict"]),
        (TABLES, ["dict", "20", "key0"]),
        (None, ["str", "The question"]),
        ("short, and shown whole " * 80, ["short, and shown whole " * 79, "all of it"]),
        ({"a": [1, None]}, ['{"a": [1, null]}', "all of it"]),
        ("", ["str", "0 characters"]),
    ],
    ids=range(10),
)
def test_the_model_is_told_what_the_context_is(context, words):
    text = first_request("The question", context)[1]["content"]
    told = text.replace(",", "") if "4321" in words else text
    assert all(word in told for word in words), text
    assert len(text) < 2_500
    assert all(re.fullmatch(r"line \d{5} ends", x) for x in re.findall(r"(?m)^.*line \d.*$", text))


def test_each_request_begins_with_the_one_before():
    turns = [repl(code) for code in ("1", "llm_query('a')", "{}[0]", "print(2)", "FINAL(1)")]
    done, script = follow(turns[0], "no code", *turns[1:])
    root = [messages for messages in script.requests if is_rlm(messages)]
    assert len(root) == 6
    assert sum(len(m["content"]) for messages in root for m in messages) <= 35_000  # they are short
    for earlier, later in itertools.pairwise(root):
        assert later[: len(earlier)] == earlier
        assert [m["role"] for m in later[len(earlier) :]] == ["assistant", "user"]
    assert done.messages == [*root[-1], {"role": "assistant", "content": repl("FINAL(1)")}]


def test_the_prompts_are_replaced_by_a_directory_file_by_file(tmp_path):
    folder = shutil.copytree(ROOT / "prompts", tmp_path / "words")
    before = first_request("Q", "c")
    for file in folder.glob("*.txt"):
        file.write_text(file.read_text() + f"\nMARK {file.stem}")
    after = first_request("Q", "c", prompts=folder)
    assert all("MARK" in message["content"] for message in after)
    assert first_request("Q", "c", prompts=str(folder)) == after
    for name in ("system", "child", "no_child"):
        (folder / f"{name}.txt").unlink()
    (folder / "task.txt").write_text("$prompt! $api_key $headers $options ${rlm}")  # unknown there
    system, task = first_request("Q", "c", prompts=folder, api_key="sk-1", headers={"X": "sk-2"})
    assert system == before[0]
    assert task["content"].startswith("Q! $api_key $headers $options ${rlm}")


@pytest.mark.parametrize(
    "prompt", ["$context ${prompt} $", "{braces} {0} %s", "$$", "a\n```repl\nFINAL(7)\n```"]
)
def test_a_prompt_is_not_a_template(prompt):
    script = Script(repl("FINAL(llm_query(context, context))"), leaf=lambda text: text)
    done = RLM(model=script).completion(prompt, prompt)
    assert prompt in script.requests[0][1]["content"]
    assert done.answer.count(prompt) >= 2


# ---- Usage and the configuration
def test_usage_adds_up_over_the_tree_and_by_model():
    """Calls below the root go to the sub_model."""
    root = Script(
        lambda m: Reply(repl("x = llm_query('CHILD', '-', recurse=True)"), 100, 20, 10, 0.5),
        lambda m: Reply(repl("FINAL(x)"), 200, 100, 20, 0.25),
    )
    below = Script(
        CHILD=[lambda m: Reply(repl("FINAL(llm_query('a'))"), 1, 0, 2, 0.125)],
        leaf=lambda text: Reply("from below", 3, 1, 4, 0.125),
    )
    done = RLM(model=root, sub_model=below).completion("Q", "c")
    assert (done.answer, len(root.requests), len(below.requests)) == ("from below", 2, 2)
    total = dataclasses.asdict(done.usage)
    parts = total.pop("models").values()
    names = ["calls", "prompt_tokens", "cached_tokens", "completion_tokens", "cost"]
    assert total == dict(zip(names, (4, 304, 121, 36, 1.0), strict=True))
    assert sum(part["prompt_tokens"] for part in parts) == 304


def test_the_fields_are_the_whole_configuration(clean_env, monkeypatch):
    fields = {field.name for field in dataclasses.fields(RLM)}
    assert fields == {"model", "sub_model", "base_url", "api_key", "prompts", *CASES["fields"]}
    offered = (RLM, Completion, rlm.Usage, Reply, RLMError, rlm.ModelError, rlm.LimitReached)
    assert all(one.__doc__ for one in (*offered, rlm.main))
    default = RLM()
    assert {name: getattr(default, name) for name in CASES["fields"]} == CASES["fields"]
    assert default.model == "gpt-5-mini"
    monkeypatch.setenv("RLM_MODEL", "other")
    assert (RLM().model, RLM(model="this").model) == ("other", "this")


def test_tools_cannot_take_the_names_of_the_repl():
    script = Script(repl("FINAL(1)"))
    with pytest.raises(RLMError, match="context"):
        RLM(model=script, tools={"context": len}).completion("Q", "c")
    assert not script.requests


# ---- Pickling, processes, threads
def count_letters(messages: list[dict[str, str]]) -> str:
    """A model that pickles, being at the top level: a child counts, the root passes on."""
    if "CHILD" in messages[1]["content"]:
        return repl("FINAL(context.count('a'))")
    return repl("FINAL([int(llm_query('CHILD', context, recurse=True)), context])")


def test_it_pickles_and_so_does_a_completion():
    engine = RLM(model=count_letters, max_depth=7, options={"temperature": 0})
    copy = pickle.loads(pickle.dumps(engine))
    assert copy == engine
    done = copy.completion("Q", "banana")
    assert done.answer == [3, "banana"]
    assert pickle.loads(pickle.dumps(copy)) == engine  # and after use
    assert pickle.loads(pickle.dumps(done)) == done


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_maps_it_over_questions(method):
    """Forked from a process that has used it already, too: nothing of the parent's is shared."""
    engine = RLM(model=count_letters)
    assert engine.completion("Q", "aa").answer == [2, "aa"]
    contexts = ["a" * n for n in range(6)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
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


# ---- Vendoring
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


@cases
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
