"""Every request fits the window: what gives way when a conversation grows past `leaf_chars`, and
when a server refuses it all the same. `overflow_cases.json` holds what servers send then.
"""

import functools
import itertools
import json
import re
from pathlib import Path

import pytest
from conftest import Script, cell, follow, is_rlm, over_http, repl
from server import Fault, says

from rlm import RLM, ModelError, Reply, RLMError

CASES = json.loads(Path(__file__).with_name("overflow_cases.json").read_text("utf-8"))
CHILD = repl("FINAL(llm_query('CHILD', 'x', recurse=True))")
TOO_LONG = Fault(400, {"error": {"message": "too long"}})


def size(messages: list[dict]) -> int:
    """The characters of a conversation, without the system prompt."""
    return sum(len(m["content"]) for m in messages if m["role"] != "system")


def at(place: str, *replies, **script) -> Script:
    """A model whose RLM at `place`, the root or a child, gives these replies, one after another."""
    left = iter(replies)  # not by the length of the conversation, which gives way
    turn = lambda messages: next(left)
    return Script(CHILD, CHILD=[turn], **script) if place == "child" else Script(turn, **script)


run = functools.partial(over_http, prompt="The task", tries=1, max_depth=2)


def bounded(script: Script, limit: int, refusal: Fault = TOO_LONG):
    """The same model behind a server that refuses what is longer than `limit` characters."""
    return lambda body: refusal if size(body["messages"]) > limit else script.reply(body)


HABITS = {  # 30 turns of what fills windows; the last one needs what the first one kept
    "outputs": repl("kept = kept + 1 if 'kept' in SHOW_VARS() else 1\nprint('x' * 20_000)"),
    "code": repl(f"print(1)\n# {'long ' * 700}"),
    "cut replies": Reply(f"```repl\n{'x = 1; ' * 3_000}", cut=True),
    "errors": repl("raise ValueError('long ' * 4_000)"),
    "failed batches": repl("llm_query_batched(['bad'] * 50)"),
}


@pytest.mark.parametrize("leaf_chars", [8_000, 24_000, 100_000])
@pytest.mark.parametrize("place", ["root", "child"])
@pytest.mark.parametrize("habit", HABITS)
def test_no_request_is_longer_than_the_window(habit, place, leaf_chars):
    def leaf(text):
        raise RLMError("refused " * 100)

    turns = [repl("first = 7")] + [HABITS[habit], repl("x = 1")] * 15
    script = at(place, *turns[:29], repl("FINAL(str(first))"), leaf=leaf)
    done = RLM(model=script, leaf_chars=leaf_chars).completion("TASK", "c")
    assert done.answer == "7"
    asked = [m for m in script.requests if is_rlm(m)][place == "child" :]
    assert len(asked) == 30
    rewritten = 0
    for earlier, later in itertools.pairwise([asked[0], *asked]):
        assert size(later) <= leaf_chars
        assert ("CHILD" if place == "child" else "TASK") in later[1]["content"]
        roles = [m["role"] for m in later[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        rewritten += later[: len(earlier)] != earlier
    assert rewritten <= 15  # in one go, down to half


def test_what_gives_way_is_counted_and_the_last_turns_stay():
    turns = [repl(f"v{i} = {i}\nprint('{i}' * 3_000)") for i in range(9)]
    done, script = follow(*turns, repl("FINAL(v0 + v8)"), leaf_chars=20_000)
    assert done.answer == 8
    contents = [m["content"] for m in script.requests[-1][1:]]
    lines = [text for text in contents if "left out" in text]
    assert lines
    words = r"3,0\d\d characters left out here.*variables are still"
    assert all(re.search(words, line) for line in lines)
    assert "8" * 3_000 in contents[-1]
    assert turns[0] in contents  # code gives way after outputs, if need be
    assert done.messages[:-1] == script.requests[-1]  # what was sent last


def test_below_the_window_requests_only_grow():
    _, script = follow(*[repl("print('x' * 3_000)")] * 6, repl("FINAL(1)"), leaf_chars=30_000)
    for earlier, later in itertools.pairwise(script.requests):
        assert later[: len(earlier)] == earlier


@pytest.mark.parametrize("output_chars", [10_000, 500])
def test_one_output_is_a_quarter_of_the_window_at_most(output_chars):
    told = cell("print('x' * 50_000)", leaf_chars=8_000, output_chars=output_chars)
    assert told.count("x") <= min(output_chars, 2_000) + 10
    assert told.count("x") > min(output_chars, 2_000) - 100


def test_the_sample_is_a_tenth_of_the_window_at_most():
    _, script = follow(repl("FINAL(1)"), context="x" * 1_500, leaf_chars=2_000)
    assert script.requests[0][1]["content"].count("x") < 220


# ---- Questions that are too long
LONG = "Which of these is odd? " + "word " * 4_000


def test_a_long_question_alone_is_a_context():
    turns = iter([repl("FINAL(llm_query(context, recurse=True))"), repl("FINAL(len(context))")])
    script = Script(lambda messages: next(turns))
    assert RLM(model=script, leaf_chars=10_000).completion(LONG).answer == str(len(LONG))
    assert all(size(messages) < 10_000 for messages in script.requests)


def test_a_long_question_beside_a_context_says_to_put_it_there():
    with pytest.raises(RLMError, match="context"):
        RLM(model=Script(repl("FINAL(1)")), leaf_chars=10_000).completion(LONG, "c")
    told = cell(f"llm_query({LONG!r}, 'c', recurse=True)", leaf_chars=10_000)
    assert re.search(r"RuntimeError.*question is too long.*context", told)


def test_without_a_repl_there_is_no_bound():
    script = Script(leaf=lambda text: f"{len(text)}")
    done = RLM(model=script, leaf_chars=10_000, max_depth=0).completion(LONG)
    assert done.answer == str(len(LONG))


# ---- Servers that refuse a conversation all the same
@pytest.mark.parametrize("place", ["root", "child"])
@pytest.mark.parametrize("case", CASES, ids=[case["server"] for case in CASES])
def test_a_conversation_that_a_server_refuses_is_shortened(case, place):
    script = at(place, *[repl("print('x' * 3_000)")] * 6, repl("FINAL('done')"))
    fault = Fault(case["status"], case["body"].encode())
    done, server = run(bounded(script, 8_000, fault), max_turns=7)
    assert (done.answer, done.finish_reason) == ("done", "final")
    refused = len(server.requests) - server.usage["calls"]
    assert 1 <= refused <= 6


def test_a_server_of_8k_tokens_is_enough_for_twelve_turns():
    first = repl("words = {i: f'word {i}' for i in range(100)}\nprint('x ' * 4_000)")
    script = Script(first, *[repl("print('y ' * 4_000)")] * 10, repl("FINAL(words[42])"))
    done, _ = run(bounded(script, 8_192 * 4), max_turns=12)
    assert (done.answer, done.turns) == ("word 42", 12)


@pytest.mark.parametrize("place", ["root", "child"])
def test_a_reply_that_was_cut_at_the_end_of_the_window_is_not_sent_back_whole(place):
    cut = says({"content": "HEAD " + "so " * 3_000}, choice_finish_reason="length")
    script = at(place, repl("print(1)"), cut, repl("FINAL('done')"))
    done, server = run(bounded(script, 4_000))
    assert done.answer == "done"
    assert len(server.requests) == server.usage["calls"]  # none was refused
    kept = server.requests[-1]["messages"][-2]["content"]
    assert kept.startswith("HEAD")
    assert "left out" in kept
    assert len(kept) < 500


@pytest.mark.parametrize(("place", "turns"), [("root", 30), ("root", 1), ("child", 30)])
def test_if_nothing_helps_the_best_answer_is_asked_for(place, turns):
    """The last output alone is too long; the variables are in the last question."""
    script = at(place, repl("found = [1]\nprint('x' * 9_000)"), "It is 1.", leaf=lambda text: "")
    done, server = run(bounded(script, 5_000), max_turns=turns)
    assert done.answer == "It is 1."
    assert done.finish_reason == ("window" if place == "root" else "final")
    last = server.requests[3 if place == "child" else 2]["messages"]
    assert "found" in last[-1]["content"]
    assert [m["role"] for m in last] == ["system", "user"]


@pytest.mark.parametrize("status", [400, 413, 500])
def test_what_can_be_shortened_no_more_fails_as_it_is(status):
    """The first request is refused; then the error tells why, and what a person can do."""
    with pytest.raises(ModelError, match="such a window") as caught:
        run(lambda body: Fault(status, {"error": {"message": "such a window"}}))
    assert caught.value.usage.calls == 0
    assert "leaf_chars" in str(caught.value) or status == 500


@pytest.mark.parametrize("status", [401, 404, 422])
def test_other_refusals_are_not_answered_by_shortening(status):
    script = Script(*[repl("print('x' * 3_000)")] * 6)
    sizes = []

    def reply(body):
        sizes.append(size(body["messages"]))
        return bounded(script, 8_000, Fault(status, {"error": {"message": "no"}}))(body)

    with pytest.raises(ModelError, match=str(status)):
        run(reply)
    assert sizes == sorted(sizes)


def test_requests_that_were_refused_count_as_calls_and_not_as_turns():
    script = at("root", *[repl("print('x' * 3_000)")] * 3, "the best")
    done, server = run(bounded(script, 8_000), max_calls=4)
    assert (done.answer, done.finish_reason, done.turns) == ("the best", "limit", 4)
    assert len(server.requests) == 4 + 1
