"""The client against a loopback server: what is sent, what comes back, what is tried again.

Not here: failures deeper in the tree (test_limits.py).
"""

import gzip
import itertools
import json
import socket
import time

import pytest
from conftest import Script, repl
from server import Fault, Server, refused_url

from rlm import RLM, Completion, ModelError, RLMError

KEY = "sk-very-secret-0123456789"


def ask(reply, prompt="Q", context=None, **options) -> tuple[Completion, Server]:
    """One completion of the model behind `reply`, asked directly unless `options` say otherwise."""
    with Server(reply) as server:
        settings = {"model": "some-model", "api_key": KEY, "max_depth": 0, "tries": 2} | options
        return RLM(base_url=server.url, **settings).completion(prompt, context), server


def fails(reply, **options) -> tuple[str, Server]:
    """The same where it must fail: the message, which must not hold the key."""
    with Server(reply) as server, pytest.raises(ModelError) as caught:
        settings = {"model": "some-model", "api_key": KEY, "max_depth": 0, "tries": 2} | options
        RLM(base_url=server.url, **settings).completion("Q")
    assert KEY not in str(caught.value) + repr(caught.value)
    return str(caught.value), server


def says(message: dict, **rest) -> dict:
    """A response body with this message and other fields; those of its choice begin `choice_`."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
    choice |= {key.removeprefix("choice_"): rest.pop(key) for key in list(rest) if "choice_" in key}
    return {"id": "x", "object": "chat.completion", "choices": [choice], **rest}


# What is sent


def test_the_request_is_an_ordinary_one():
    done, server = ask(lambda body: "yes", "Why?", options={"temperature": 0.5, "seed": 7})
    message = {"role": "user", "content": "Why?"}
    assert server.requests == [
        {"model": "some-model", "messages": [message], "temperature": 0.5, "seed": 7}
    ]
    headers = server.headers[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"].startswith("application/json")
    assert done.answer == "yes"


def test_options_and_sub_model_in_the_whole_tree():
    code = "FINAL([llm_query('q'), llm_query('CHILD', '-', recurse=True)])"
    script = Script(repl(code), CHILD=[repl("FINAL(llm_query('q'))")])
    options = {"reasoning_effort": "low", "extra": {"deep": [1]}}
    _, server = ask(script.reply, options=options, sub_model="small", max_depth=2)
    assert sorted(r["model"] for r in server.requests) == ["small"] * 3 + ["some-model"]
    assert all(r["reasoning_effort"] == "low" for r in server.requests)
    assert all(r["extra"] == {"deep": [1]} for r in server.requests)


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_base_url_may_end_in_a_slash(slash):
    with Server(lambda body: "yes") as server:
        assert (
            RLM("m", base_url=server.url + slash, api_key="k", max_depth=0).completion("Q").answer
        )


def test_the_environment_names_server_and_key(clean_env, monkeypatch):
    with Server(lambda body: "yes") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("RLM_MODEL", "from-env")
        assert RLM(max_depth=0).completion("Q").answer == "yes"
    assert server.requests[0]["model"] == "from-env"
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_any_text_arrives_unchanged():
    text = "Zürich ☃ \U0001f600 \x00 \u2028 'quotes\" \\ \t end"
    done, server = ask(lambda body: body["messages"][0]["content"], text)
    assert server.requests[0]["messages"][0]["content"] == text == done.answer


def test_a_lone_surrogate_does_not_break_it():
    done, _ = ask(lambda body: "yes", "cut \ud83d off")
    assert done.answer == "yes"


def test_connections_are_reused():
    script = Script(repl("FINAL([llm_query(str(i)) for i in range(20)])"))
    peers = set()
    with Server(script.reply) as server:

        def reply(body):
            peers.update(connection.getpeername() for connection in list(server._open))
            return script.reply(body)

        server.reply = reply
        RLM("m", base_url=server.url, api_key="k").completion("Q")
    assert len(server.requests) == 21
    assert len(peers) == 1


# What comes back: (response body, the text it means)

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}  # Mistral's
BODIES = [
    (says({"content": "plain"}), "plain"),
    (says({"content": " spaced\n"}), "spaced"),
    (
        says({"content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}),
        "in parts",
    ),
    (
        says({"content": [THINKING, {"type": "text", "text": "parts"}]}),
        "parts",
    ),
    (says({"content": "yes", "reasoning": "long thoughts"}), "yes"),
    (says({"content": "yes", "reasoning_content": "long thoughts"}), "yes"),
    (says({"content": "yes", "reasoning": None, "tool_calls": None, "refusal": None}), "yes"),
    (says({"content": "<think>\nno?\n</think>\n\nyes"}), "yes"),
    (says({"content": "no?\n</think>\n\nyes"}), "yes"),
    (says({"content": "yes"}, choice_finish_reason=None), "yes"),
    (says({"content": "yes"}, usage=None), "yes"),
    (says({"content": "yes"}, usage={}, system_fingerprint=None, service_tier="x"), "yes"),
    (says({"content": "yes"}) | {"error": None}, "yes"),
]


@pytest.mark.parametrize(("body", "text"), BODIES, ids=range(len(BODIES)))
def test_what_real_servers_send(body, text):
    done, _ = ask(lambda _: body)
    assert done.answer.strip() == text
    assert done.usage.calls == 1


PLAIN = json.dumps(says({"content": "yes"})).encode()
CHUNKS = b"".join(b"1\r\n%c\r\n" % byte for byte in PLAIN) + b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENCODED = {
    "gzip": Fault(200, gzip.compress(PLAIN), {"Content-Encoding": "gzip"}),
    "in chunks": Fault(then="raw", body=HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS),
    "up to the end of the connection": Fault(then="raw", body=HEAD + b"\r\n" + PLAIN),
    "after spaces that keep it alive": Fault(200, b"\n \n " + PLAIN),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_response_arrives_however_it_is_sent(encoding):
    done, server = ask(lambda _: ENCODED[encoding])
    assert (done.answer, len(server.requests)) == ("yes", 1)


EMPTY = [
    says({"content": None}),
    says({}),
    says({"content": ""}),
    says({"content": []}),
    says({"content": None, "reasoning": "only thoughts: ```repl\nFINAL('wrong')\n```"}),
    says({"content": None, "refusal": "I cannot"}),
    says({"content": "<think>```repl\nFINAL('wrong')\n```"}, choice_finish_reason="length"),
]


@pytest.mark.parametrize("body", EMPTY, ids=range(len(EMPTY)))
def test_an_empty_reply_gets_a_reminder(body):
    script = Script(body, repl("FINAL('right')"))
    done, server = ask(script.reply, max_depth=1)
    assert (done.answer, done.turns) == ("right", 2)
    told = server.requests[1]["messages"]
    assert isinstance(told[-2]["content"], str)  # null would be refused by the server
    assert "```repl" in told[-1]["content"]


def test_a_reply_that_was_cut_off_does_not_end_the_run():
    body = says({"content": "Let me write a very long"}, choice_finish_reason="length")
    done, _ = ask(Script(body, repl("FINAL('right')")).reply, max_depth=1)
    assert (done.answer, done.turns) == ("right", 2)


def test_code_that_was_cut_off_is_not_run():
    """Half a program may do harm that the whole one does not: here it is an answer too early."""
    cut = "```repl\nx = 1\nFINAL('too early')\nif x > 5:\n    FINAL('la"
    script = Script(says({"content": cut}, choice_finish_reason="length"), repl("FINAL('right')"))
    done, _ = ask(script.reply, max_depth=1)
    assert done.answer == "right"


# (usage as sent, options, (prompt, cached, completion, cost) as counted)
USAGES = [
    (None, {}, (0, 0, 0, None)),
    ({}, {}, (0, 0, 0, None)),
    (
        {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
        {},
        (1000, 0, 200, None),
    ),
    ({"prompt_tokens": 1000, "completion_tokens": None}, {}, (1000, 0, 0, None)),
    (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "prompt_tokens_details": {"cached_tokens": 600},
        },
        {},
        (1000, 600, 200, None),
    ),
    (
        {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": None},
        {},
        (1000, 0, 200, None),
    ),
    (
        {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": None},
        },
        {},
        (1, 0, 2, None),
    ),
    ({"prompt_tokens": 1000, "completion_tokens": 200, "cost": 0.0125}, {}, (1000, 0, 200, 0.0125)),
    (
        {"prompt_tokens": 1000, "completion_tokens": 200, "cost": 0.0125},
        {"prices": {"some-model": (1, 0.1, 10)}},  # what the server says counts
        (1000, 0, 200, 0.0125),
    ),
    (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "prompt_tokens_details": {"cached_tokens": 600},
        },
        {"prices": {"some-model": (1, 0.1, 10)}},  # 400 x 1 + 600 x 0.1 + 200 x 10, per million
        (1000, 600, 200, 0.00246),
    ),
    (
        {"prompt_tokens": 1000, "completion_tokens": 200, "cost": 0},
        {"prices": {"some-model": (1, 0.1, 10)}},
        (1000, 0, 200, 0),
    ),
    (
        {"prompt_tokens": 1000, "completion_tokens": 200},
        {"prices": {"another": (1, 1, 1)}},
        (1000, 0, 200, None),
    ),
]


@pytest.mark.parametrize(("sent", "options", "counted"), USAGES, ids=range(len(USAGES)))
def test_usage_as_the_server_reports_it(sent, options, counted):
    body = says({"content": "yes"}) | ({} if sent is None else {"usage": sent})
    done, _ = ask(lambda _: body, **options)
    for usage in (done.usage, done.usage.models["some-model"]):
        assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == counted[:3]
        assert usage.cost == (None if counted[3] is None else pytest.approx(counted[3]))


# What is tried again

ONCE = [
    Fault(429, {"error": {"message": "slow down"}}),
    Fault(429, headers={"Retry-After": "0"}),
    Fault(500, b"oops"),
    Fault(502, b"<html>bad gateway</html>"),
    Fault(503, {"error": "overloaded"}),
    Fault(504),
    Fault(200, b'{"choices": [{"mess', then="reset"),
    Fault(200, b'{"choices": [{"mess', then="close"),
    Fault(then="reset"),
    Fault(then="hang"),
]


@pytest.mark.parametrize("fault", ONCE, ids=str)
def test_a_passing_failure_is_tried_again(fault):
    replies = [fault, "yes"]
    events = []
    done, server = ask(lambda body: replies.pop(0), tries=2, timeout=0.3, on_event=events.append)
    assert done.answer == "yes"
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]
    assert done.usage.calls == 1  # what the server answered
    retries = [event for event in events if event["event"] == "retry"]
    assert [type(event["reason"]) for event in retries] == [str]
    assert KEY not in json.dumps(events)


def test_retry_after_is_obeyed():
    replies = [Fault(429, headers={"Retry-After": "1"}), "yes"]
    begin = time.monotonic()
    ask(lambda body: replies.pop(0))
    assert 1 <= time.monotonic() - begin < 3


def test_the_wait_grows_and_tries_are_counted():
    times = []
    message, server = fails(
        lambda body: times.append(time.monotonic()) or Fault(503, {"error": {"message": "full"}}),
        tries=3,
    )
    assert len(server.requests) == 3
    assert "503" in message
    assert "full" in message
    assert "3 tries" in message
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[-1] > waits[0]


# What fails: (fault, how often it may be asked, what the message says)
LASTING = [
    (
        Fault(429, {"error": {"message": "quota used up"}}, {"Retry-After": "0"}),
        {2},
        ["429", "quota used up", "2"],
    ),
    (Fault(500, b"internal oops"), {2}, ["500", "internal oops"]),
    (Fault(502, b"<html><h1>Bad Gateway</h1></html>"), {2}, ["502"]),
    (Fault(503), {2}, ["503"]),
    (Fault(then="hang"), {2}, ["imeout"]),
    (Fault(200, b'{"choi', then="close"), {2}, []),
    (Fault(200, b"<html>a captive portal</html>"), {1, 2}, ["captive portal"]),
    (Fault(200, b""), {1, 2}, ["not "]),
    (Fault(200, b"\xff\xfe"), {1, 2}, ["not "]),
    (Fault(200, b"[1, 2]"), {1, 2}, ["not "]),
    (Fault(200, b"null"), {1, 2}, ["not "]),
    (Fault(200, {}), {1, 2}, ["not "]),
    (Fault(200, {"choices": []}), {1, 2}, ["not "]),
    (Fault(200, {"choices": None}), {1, 2}, ["not "]),
    (Fault(200, {"choices": [None]}), {1, 2}, []),
    (Fault(200, {"choices": [{"text": "old style"}]}), {1, 2}, []),
    (Fault(200, {"choices": [{"message": None}]}), {1, 2}, []),
    (
        Fault(200, {"error": {"message": "upstream is down", "code": 502}}),
        {1, 2},
        ["upstream is down"],
    ),
    (Fault(200, {"error": "just text"}), {1, 2}, ["just text"]),
    (
        Fault(400, {"error": {"message": "maximum context length is 8192 tokens"}}),
        {1},
        ["400", "8192 tokens"],
    ),
    (
        Fault(401, {"error": {"message": "Incorrect API key provided"}}),
        {1},
        ["401", "Incorrect API key", "OPENAI_API_KEY"],
    ),
    (
        Fault(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        {1},
        ["401", "Incorrect API key"],
    ),
    (Fault(403, {"detail": "not yours"}), {1}, ["403", "not yours"]),
    (
        Fault(404, {"error": {"message": "The model `some-model` does not exist"}}),
        {1},
        ["404", "does not exist", "some-model"],
    ),
    (Fault(404, b"404 page not found"), {1}, ["404", "page not found"]),
    (
        Fault(422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}),
        {1},
        ["422", "field required"],
    ),
    (
        Fault(400, {"object": "error", "message": "vLLM style", "code": 400}),
        {1},
        ["400", "vLLM style"],
    ),
    (Fault(400, b"x" * 1_000_000), {1}, ["400"]),
    (Fault(302, headers={"Location": "http://127.0.0.1:1/"}), {0, 1, 2}, []),
    (Fault(then="raw", body=b"SSH-2.0-OpenSSH_9.2\r\n"), {1, 2}, []),
]


@pytest.mark.parametrize(
    ("fault", "asked", "words"),
    LASTING,
    ids=[
        f"{f.status} {f.body[:30] if isinstance(f.body, bytes) else f.body}"[:60]
        for f, _, _ in LASTING
    ],
)
def test_a_failure_for_good_says_what_it_was(fault, asked, words):
    message, server = fails(lambda body: fault, timeout=0.2)
    assert len(server.requests) in asked
    assert all(word in message for word in words), message
    assert len(message) < 1_500
    assert "\n" not in message.strip()


MALFORMED = [
    says({"content": 5}),
    says({"content": {"text": "yes"}}),
    says({"content": ["in ", "strings"]}),
    says({"content": [None, 7, {"type": "text", "text": ["yes"]}]}),
    says({"content": "yes"}, usage=[1, 2]),
    says({"content": "yes"}, usage="much"),
    says({"content": "yes"}, usage={"prompt_tokens": "many", "completion_tokens": [1]}),
    says({"content": "yes"}, usage={"prompt_tokens": 1, "prompt_tokens_details": [5]}),
    says({"content": "yes"}, usage={"prompt_tokens": 1, "cost": "free"}),
    {"choices": "yes"},
    {"choices": {"0": "yes"}},
    {"choices": [{"message": "yes"}]},
    {"choices": [{"message": {"content": "yes"}}], "error": ["odd"]},
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_response_is_an_error_of_the_model_if_anything(body):
    try:
        done, _ = ask(lambda _: body)
    except ModelError as error:
        assert error.usage.calls in (0, 1)
    else:
        assert isinstance(done.answer, str)
        assert done.usage.prompt_tokens in (0, 1)


def test_an_answer_that_drips_without_end_times_out():
    begin = time.monotonic()
    fails(lambda body: Fault(200, b'{"choices": [', then="drip"), timeout=0.5, tries=1)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    "url",
    [None, "http://no-such-host.invalid/v1", "http://[::1", "no scheme", "ftp://127.0.0.1/v1"],
)
def test_a_server_that_cannot_be_reached_is_named(url):
    url = url or refused_url()
    with pytest.raises(RLMError) as caught:
        RLM("m", base_url=url, api_key=KEY, tries=2, max_depth=0).completion("Q")
    assert url in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_silent_listener_times_out():
    """The connection is made by the kernel; nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        begin = time.monotonic()
        with pytest.raises(ModelError):
            RLM("m", base_url=url, api_key=KEY, timeout=0.2, tries=2, max_depth=0).completion("Q")
    assert time.monotonic() - begin < 5


# The key


def test_a_missing_key_names_what_to_set(clean_env):
    with pytest.raises(RLMError) as caught:
        RLM("m").completion("Q")
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "--api-key" in str(caught.value) or "api_key" in str(caught.value)


def test_a_local_server_needs_no_key(clean_env):
    """Ollama and vLLM have none; whatever is sent then, nothing is asked of the user."""
    with Server(lambda body: "yes") as server:
        assert RLM("m", base_url=server.url, max_depth=0).completion("Q").answer == "yes"


@pytest.mark.parametrize("key", ["sk-line\nbreak", "sk-ünicode", " sk-spaces "])
def test_an_odd_key_is_an_error_that_does_not_show_it(key):
    with Server(lambda body: "yes") as server:
        try:
            RLM("m", base_url=server.url, api_key=key, max_depth=0).completion("Q")
        except RLMError as error:
            assert key.strip() not in str(error)
        else:
            assert server.headers[0]["Authorization"].startswith("Bearer ")


def test_the_key_shows_nowhere(tmp_path):
    """Not in events, messages, the trace, the repr or an error; and the worker does not have it."""
    replies = [
        Fault(500, f"your key is {KEY}".encode()),
        repl("print(SHOW_VARS(), dir())"),
        repl("FINAL(llm_query('a'))"),
    ]
    events, trace = [], tmp_path / "trace.json"

    def reply(body):
        return replies.pop(0) if replies else Fault(401, {"error": {"message": f"bad key {KEY}"}})

    with Server(reply) as server:
        engine = RLM("m", base_url=server.url, api_key=KEY, on_event=events.append, trace=trace)
        with pytest.raises(ModelError) as caught:
            engine.completion("Q", "c")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    shown = json.dumps(events, default=repr) + trace.read_text() + repr(engine) + repr(caught.value)
    shown += json.dumps(server.requests) + str(caught.value)
    assert KEY not in shown


def test_the_whole_tree_over_http_counts_what_the_server_counted():
    code = "FINAL(llm_query_batched(['CHILD'] * 3, ['x'] * 3, recurse=True) + [llm_query('q')])"
    script = Script(repl("1"), repl(code), CHILD=[repl("FINAL(llm_query('q'))")])
    done, server = ask(script.reply, max_depth=2)
    assert done.answer == ["leaf"] * 4
    usage = {name: getattr(done.usage, name) for name in server.usage}
    assert usage == dict(server.usage)
    assert usage["calls"] == 9
    assert usage["cached_tokens"] > 0
