"""Reading what models write: fences, textual finals, thoughts, prose, last replies, answers that
are none. `replies.txt` holds the replies, each with what it means; `responses.json` holds bodies.
"""

import itertools

import pytest
from conftest import Script, cases, cell, follow, outputs, over_http, repl, replies
from server import Fault, responses

from rlm import RLM, ModelError, Reply, RLMError


# ---- Code: each of these replies ends the run with 1, in its first turn
@replies("code")
def test_code_is_found_however_it_is_fenced(answer, reply):
    done = RLM(model=Script(reply, repl("FINAL(0)"))).completion("Q", "c")
    assert (done.answer, done.turns) == (answer, 1)


@pytest.mark.parametrize("label", ["text", "json", "bash", "markdown", "output"])
def test_a_final_in_a_fence_that_is_no_python_is_nothing(label):
    done, _ = follow(f"```{label}\nFINAL(wrong)\n```", repl("FINAL('asked again')"))
    assert done.answer == "asked again"


def test_blocks_of_one_reply_run_in_order_up_to_the_first_error():
    two = f"First\n{repl('a = 1')}\nthen\n{repl('print(a + 1)')}"
    bad = f"{repl('print(a + 2); {}[0]')}\n{repl('a = 99')}"
    script = Script(two, bad, repl("FINAL(a)"))
    assert RLM(model=script).completion("Q", "c").answer == 1
    assert "2" in outputs(script)[0]
    assert "3" in outputs(script)[1]
    assert "KeyError: 0" in outputs(script)[1]


# ---- The final answer as text. `v` is [1, 2]; null: it is no final, the run goes on.
@replies("textual")
def test_the_final_answer_as_text(reply, answer):
    done, _ = follow(repl("v = [1, 2]"), reply, repl("FINAL('went on')"))
    assert done.answer == ("went on" if answer is None else answer)
    assert done.turns == (3 if answer is None else 2)


def test_a_guess_beside_code_does_not_hide_its_output():
    shown = repl("print(f'{6 * 7:4}')")
    _, script = follow(f"{shown}\nThat is 999.\n\nFINAL(999)", repl("FINAL(0)"))
    assert outputs(script)[0].startswith("  42")


@pytest.mark.parametrize("reply", ["FINAL_VAR(gone)", repl("FINAL_VAR('gone')")])
def test_final_var_of_nothing_is_a_name_error(reply):
    caught = repl("try:\n    FINAL_VAR('gone')\nexcept NameError:\n    FINAL('told')")
    script = Script(reply, caught)
    assert RLM(model=script).completion("Q", "c").answer == "told"
    assert "NameError" in outputs(script)[0]
    assert "gone" in outputs(script)[0]


# ---- Prose, refusals, empty replies: two reminders, then it ends
@cases
def test_three_replies_without_code_in_a_row_end_it(replies, answer, reason, calls):
    done, script = follow(*[lambda m, reply=reply: reply for reply in replies])
    assert (done.answer, done.finish_reason, done.usage.calls) == (answer, reason, calls)
    assert "```repl" in outputs(script)[0]


@cases
def test_nothing_three_times_is_an_error_with_the_reason(replies, words):
    said = [lambda m, reply=reply: reply for reply in replies]
    with pytest.raises(ModelError, match=words) as caught:
        RLM(model=Script(*said)).completion("Q", "c")
    assert caught.value.usage.calls == 3
    code = "try: llm_query('CHILD', 'x', recurse=True)\nexcept RuntimeError as e: FINAL(str(e))"
    assert words in RLM(model=Script(repl(code), CHILD=said)).completion("Q", "c").answer


@pytest.mark.parametrize("how", [{"cut": True}, {"problem": "the answer was broken off"}])
def test_a_reply_that_is_not_whole_is_not_run(how):
    """Half a program may do harm that the whole one does not: here it is an answer too early."""
    half = Reply("```repl\nFINAL('too early')\n```\n```repl\nx = 'la", **how)
    script = Script(lambda m: half, repl("FINAL('right')"))
    assert RLM(model=script).completion("Q", "c").answer == "right"
    assert "cut off" in outputs(script)[0]


# ---- The last reply, which was asked for as text. `a` is 1; null: it is no answer.
@replies("last")
@pytest.mark.parametrize("end", [{"max_turns": 1}, {"max_calls": 1, "max_depth": 2}])
def test_the_last_reply_in_every_form(answer, reply, end):
    script = Script(repl("a = 1\nprint(a)"), lambda m: reply)
    if answer is None:
        with pytest.raises(RLMError):
            RLM(model=script, **end).completion("Q", "c")
    else:
        done = RLM(model=script, **end).completion("Q", "c")
        assert done.answer == answer
        assert done.finish_reason == ("max_turns" if "max_turns" in end else "limit")
    assert len(script.requests) == 2


# ---- Names of the REPL that a cell binds anew
def test_a_context_that_was_bound_anew_is_back_and_the_cell_is_told():
    done, script = follow(
        repl("context = context.split()\nprint(len(context))"),
        repl("print(len(context), context_1)\ncontext = 'twice'"),
        repl("del context"),
        repl("FINAL([context, context_1])"),
        context="a b c",
    )
    assert done.answer == ["a b c", "twice"]
    first, second, _ = outputs(script)
    assert first.startswith("3")
    assert "context_1" in first
    assert "5 ['a', 'b', 'c']" in second
    assert "context_1" in second


def test_the_functions_survive_being_overwritten():
    names = ["llm_query", "llm_query_batched", "FINAL", "FINAL_VAR", "SHOW_VARS", "look"]
    done, script = follow(
        repl(f"{' = '.join(names)} = 0"),
        repl("def llm_query(prompt):\n    return 'made up'"),
        repl("print(SHOW_VARS())\nFINAL([context, llm_query('q'), look()])"),
        context="the text",
        tools={"look": lambda: "looked"},
    )
    assert done.answer == ["the text", "leaf", "looked"]
    assert all(f"{name}_1" in outputs(script)[0] for name in names)
    assert "llm_query_1" in outputs(script)[1]


def test_the_note_counts_as_output():
    told = cell("context = 0\nprint('x' * 500_000)", output_chars=1_000)
    assert "context_1" in told
    assert len(told) < 1_300


# ---- Answers that are none: cut off, refused, filtered, broken off, empty
@pytest.mark.parametrize("entry", responses("none"), ids=lambda entry: entry["words"])
def test_an_answer_that_is_none_is_an_exception_where_it_was_asked_for(entry):
    one = repl("try: llm_query('q')\nexcept RuntimeError as e: kept = str(e)")
    batch = repl("r = llm_query_batched(['q', 'q'])\nprint(r)")
    script = Script(one, batch, repl("FINAL([kept, r])"), leaf=lambda text: entry["body"])
    done, _ = over_http(script, tries=1)
    assert done.answer[1] == [None, None]
    assert entry["words"] in done.answer[0]
    assert entry["words"] in outputs(script)[1]


# ---- Strict servers: roles alternate, no message is empty, in every request of every kind of run
@pytest.mark.parametrize("prompt", ["Q", ""])
@cases
def test_roles_alternate_and_no_message_is_empty(run, replies, options, prompt):
    script = Script(*replies, CHILD=["", repl("print(1)"), repl("FINAL(1)")])

    def strict(body):
        roles = [m["role"] for m in body["messages"] if m["role"] != "system"]
        wrong = roles[0] != "user" or any(a == b for a, b in itertools.pairwise(roles))
        if wrong or any(not m["content"].strip() for m in body["messages"]):
            return Fault(400, {"error": {"message": f"roles must alternate: {roles}"}})
        return script.reply(body)

    done, server = over_http(strict, prompt, tries=1, **options)
    assert done.answer in (1, "1", "leaf", "the best")
    assert server.usage["calls"] == len(server.requests)
