"""The client against a loopback server: what is sent, what comes back, what is tried again, what
a failure says, and what it never shows.

Not here: failures deeper in the tree (test_limits.py), answers that are none (test_replies.py).
"""

import functools
import json
import pickle
import re
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT, SECRET, Script, cases, follow, outputs, over_http, repl
from server import Fault, Server, completion, refused_url, responses, says

from rlm import RLM, ModelError, RLMError

KEY = SECRET
ask = functools.partial(over_http, context=None, max_depth=0)  # no REPL, unless told otherwise


def fails(model, kind=ModelError, **options) -> tuple[str, Server]:
    """The same where it must fail: the message, and the server."""
    with pytest.raises(kind) as caught:
        ask(model, **options)
    return str(caught.value), caught.value.server


# ---- What is sent
def test_the_request_is_an_ordinary_one():
    done, server = ask("yes", "Why?", options={"temperature": 0.5, "seed": 7})
    message = {"role": "user", "content": "Why?"}
    expected = {"model": "some-model", "messages": [message], "temperature": 0.5, "seed": 7}
    assert server.requests == [expected]
    headers = server.headers[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"].startswith("application/json")
    assert done.answer == "yes"


def test_options_headers_and_sub_model_in_the_whole_tree():
    code = "FINAL([llm_query('q'), llm_query('CHILD', '-', recurse=True)])"
    script = Script(repl(code), CHILD=[repl("FINAL(llm_query('q'))")])
    more = {"options": {"reasoning_effort": "low", "extra": {"deep": [1]}}}
    more["headers"] = {"X-Team": "blue", "api-key": "a key for Azure"}
    _, server = ask(script, sub_model="small", max_depth=2, **more)
    assert sorted(r["model"] for r in server.requests) == ["small"] * 3 + ["some-model"]
    assert all(r["reasoning_effort"] == "low" for r in server.requests)
    assert all(r["extra"] == {"deep": [1]} for r in server.requests)
    assert all(h["X-Team"] == "blue" and h["API-Key"][0] == "a" for h in server.headers)


@cases
def test_the_base_url_in_every_form(url, path):
    done, server = ask("yes", url=url)
    assert (done.answer, server.paths) == ("yes", [path])


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
    assert ask("yes", "a lone surrogate \ud83d")[0].answer == "yes"


def test_connections_are_reused():
    _, server = ask(Script(repl("FINAL([llm_query(str(i)) for i in range(20)])")), max_depth=1)
    assert (len(server.requests), len(server._open)) == (21, 1)


# ---- What stands between: netrc, proxies, certificates
def test_netrc_replaces_neither_the_key_nor_a_header(clean_env, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    own = {"Authorization": "Basic abc"}  # which replaces the key
    ways = [(KEY, {}, f"Bearer {KEY}"), (None, {}, None), (None, own, "Basic abc")]
    for key, headers, sent in ways:
        _, server = ask("yes", api_key=key, headers=headers)
        assert server.headers[0]["Authorization"] == sent


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with Server(lambda body: "through the proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        engine = RLM("m", base_url="http://models.invalid/v1", api_key=KEY, max_depth=0)
        assert engine.completion("Q").answer == "through the proxy"
    assert proxy.paths == ["http://models.invalid/v1/chat/completions"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A server's TLS context with a certificate that it signed itself, and the file of that."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl that makes a certificate")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return tls, str(folder / "cert.pem")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_of_ones_own_is_taken_from_the_environment(variable, certificate):
    """In a process of its own: connections that are open are not checked again."""
    tls, file = certificate
    code = "from rlm import RLM; print(RLM('m', max_depth=0, tries=5).completion('Q').answer)"
    with Server(lambda body: "yes", tls) as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        given = {"capture_output": True, "text": True, "timeout": 60}
        run = lambda env: subprocess.run(command, env=env, check=False, **given)
        trusted, unknown = run(env | {variable: file}), run(env)
    assert trusted.stdout == "yes\n", trusted.stderr
    assert "certificate verify failed" in unknown.stderr
    assert "SSL_CERT_FILE" in unknown.stderr
    assert "tries" not in unknown.stderr.splitlines()[-1]  # nothing changes by trying again
    assert len(server.requests) == 1


# ---- What comes back: `responses.json` holds bodies as servers send them
@pytest.mark.parametrize("entry", responses("answers"), ids=range(13))
def test_what_real_servers_send(entry):
    done, _ = ask(entry["body"])
    assert done.answer.strip() == entry["text"]
    assert done.usage.calls == 1


@cases
def test_a_response_arrives_however_it_is_sent(encoding, response):
    done, server = ask(response)
    assert (done.answer, len(server.requests)) == ("yes", 1)


@pytest.mark.parametrize("entry", responses("empty"), ids=range(8))
def test_an_empty_reply_gets_a_reminder(entry):
    script = Script(entry["body"], repl("FINAL('right')"))
    done, server = ask(script, max_depth=1)
    assert (done.answer, done.turns) == ("right", 2)
    assert server.requests[1]["messages"][-2]["content"].strip()
    assert "```repl" in server.requests[1]["messages"][-1]["content"]


# ---- Usage, costs, and limits of them
def tokens(prompt, completion=0, **more) -> dict:
    """A usage: tokens(1000, 200, cost=0.5)."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


@pytest.mark.parametrize("entry", responses("usage"), ids=range(22))
def test_usage_as_the_server_reports_it(entry):
    body = says({"content": "yes"}, usage=entry["usage"])
    done, _ = ask(body, **entry["options"])
    *counted, cost = entry["counted"]
    for usage in (done.usage, done.usage.models["some-model"]):
        assert [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens] == counted
        assert usage.cost == (None if cost is None else pytest.approx(cost))
    assert done.answer == "yes"


def test_the_cost_that_litellm_reports_in_a_header():
    body = json.dumps(completion("yes", **tokens(1000, 200))).encode()
    fault = Fault(200, body, {"x-litellm-response-cost": "0.25"})
    assert ask(fault, max_cost=1)[0].usage.cost == 0.25


def test_a_sum_of_which_a_part_is_unknown_is_not_shown():
    costs = iter([0.5, None, 0.5])
    script = Script(repl("llm_query('q')"), repl("FINAL(1)"))

    def reply(body):
        return completion(script.reply(body), **tokens(9, 9, cost=next(costs)))

    usage = ask(reply, max_depth=1)[0].usage
    assert (usage.calls, usage.cost) == (3, None)
    assert "$" not in str(usage)


@pytest.mark.parametrize(
    ("limit", "words"), [("max_cost", "--price some-model="), ("max_tokens", "usage")]
)
@pytest.mark.parametrize("place", ["root", "batch"])
def test_a_limit_that_cannot_be_counted_stops_at_the_first_reply(limit, words, place):
    code = "try: llm_query_batched(['q'] * 9)\nexcept BaseException: pass"
    usage = tokens(9, 9) if limit == "max_cost" else {}
    known = tokens(9, 9, cost=0.1) if place == "batch" else usage
    leaf = lambda text: says({"content": "x"}, usage=usage)
    script = Script(says({"content": repl(code)}, usage=known), leaf=leaf)
    message, server = fails(script, RLMError, max_depth=1, concurrency=1, **{limit: 1_000})
    assert words in message
    assert len(server.requests) == (1 if place == "root" else 2)


def test_a_model_that_is_a_function_needs_no_usage_for_a_limit():
    assert follow(repl("FINAL(1)"), max_cost=1, max_tokens=9)[0].answer == 1


def test_a_server_that_cuts_silently_is_told_of_once(capsys):
    replies = [completion(repl("1"), **tokens(2_000, 5))] * 2
    script = Script(*replies, repl("FINAL(1)"))
    events = []
    options = {"max_depth": 1, "on_event": events.append}
    ask(script, "word " * 4_000 + "?", context="c", **options)
    warnings = [event for event in events if event["event"] == "warning"]
    (told,) = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    for text in (told, warnings[0]["reason"]):
        assert "2,000 tokens" in text
        assert re.search(r"2\d,\d{3} characters", text)
        assert "leaf_chars" in text
    script = Script(completion(repl("FINAL(1)"), **tokens(2_500, 5)))
    ask(script, "word " * 4_000, context="c", **options)
    assert not capsys.readouterr().err


# ---- What is tried again
@cases
def test_a_passing_failure_is_tried_again(fault):
    replies = [fault, "yes"]
    events = []
    done, server = ask(lambda body: replies.pop(0), timeout=0.3, on_event=events.append)
    assert done.answer == "yes"
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]
    assert done.usage.calls == 1  # what the server answered
    retries = [event for event in events if event["event"] == "retry"]
    assert [type(event["reason"]) for event in retries] == [str]
    assert KEY not in json.dumps(events)


@pytest.mark.parametrize("header", ["Retry-After", "llm_provider-retry-after"])
def test_a_wait_that_is_asked_for_is_obeyed(header):
    replies = [Fault(429, headers={header: "1"}), "yes"]
    begin = time.monotonic()
    ask(lambda body: replies.pop(0))
    assert 1 <= time.monotonic() - begin < 4


@pytest.mark.parametrize(("seconds", "options"), [(301, {}), (6, {"max_seconds": 5})])
def test_a_wait_that_is_too_long_fails_at_once(seconds, options):
    fault = Fault(429, {"error": {"message": "quota"}}, {"Retry-After": str(seconds)})
    message, server = fails(fault, **options)
    assert "quota" in message
    assert len(server.requests) == 1


def test_waits_are_random_and_grow_and_tries_are_counted():
    """So that calls which failed together do not meet again."""
    waits = []
    note = lambda event: event["event"] == "retry" and waits.append(event["wait"])
    for _ in range(3):
        message, server = fails(Fault(503, {"error": {"message": "full"}}), tries=3, on_event=note)
        assert all(word in message for word in ("503", "full", "3 tries"))
        assert len(server.requests) == 3
    assert all(0 <= wait <= 0.5 for wait in waits[::2])
    assert all(0 <= wait <= 1 for wait in waits[1::2])
    assert len(set(waits)) == 6


def test_a_server_that_is_loading_is_waited_for():
    """By default, through more failures than the five tries of old."""
    replies = [Fault(503, headers={"Retry-After": "0"})] * 9 + ["yes"]
    assert ask(lambda body: replies.pop(0), tries=RLM().tries)[0].answer == "yes"


def test_a_server_that_is_not_there_is_given_up_sooner():
    """Both at once: the ten tries of a default RLM would take minutes."""

    def reach(url):
        with pytest.raises(ModelError) as caught:
            RLM("m", base_url=url, api_key=KEY, max_depth=0).completion("Q")
        return str(caught.value)

    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        refused, unknown = pool.map(reach, [refused_url(), "http://no-such-host.invalid/v1"])
    assert 5 < time.monotonic() - begin < 50
    assert "refused" in refused
    assert re.search(r"not known|resolution|resolve", unknown)


# ---- What fails
@pytest.mark.parametrize("entry", responses("failures"), ids=range(30))
def test_a_failure_for_good_says_what_it_was(entry):
    fault = Fault(**json.loads(json.dumps(entry["fault"]).replace("$KEY", KEY)))
    message, server = fails(fault, timeout=0.2)
    assert len(server.requests) in entry["asked"]
    assert all(word in message for word in entry["words"]), message
    assert "\n" not in message.strip()
    assert len(message) < 1_500


@pytest.mark.parametrize("status", [400, 401, 404])
def test_the_advice_for_a_person_is_not_for_the_model(status):
    refused = Fault(status, "no way")
    script = Script(repl("llm_query('q')"), repl("FINAL(1)"), leaf=lambda text: refused)
    ask(script, max_depth=1)
    told = outputs(script)[0]
    assert f"llm_query failed: {status}" in told
    assert "no way" in told
    assert not re.search("leaf_chars|OPENAI|--", told)


@pytest.mark.parametrize("entry", responses("malformed"), ids=range(8))
def test_a_malformed_response_is_an_error_of_the_model_if_anything(entry):
    try:
        done, _ = ask(entry["body"])
    except ModelError as error:
        assert error.usage.calls in (0, 1)
    else:
        assert isinstance(done.answer, str)


def test_an_answer_that_drips_without_end_times_out():
    begin = time.monotonic()
    fails(Fault(200, b'{"choices": [', then="drip"), timeout=0.5, tries=1)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("url", [None, "http://[::1", "no scheme", "ftp://127.0.0.1/v1"])
def test_a_server_that_cannot_be_reached_is_named(url):
    address = url or refused_url()
    message = fails("", url=address)[0]
    assert address in message
    assert "base-url" in message
    assert url or "refused" in message
    assert len(message) < 1_000


# ---- The key, the headers and the query
@pytest.mark.parametrize("secret", ["sk-line\nbreak", "sk-ünicode", " sk-spaces "])
@pytest.mark.parametrize("place", ["key", "header"])
def test_an_odd_secret_is_an_error_that_does_not_show_it(secret, place):
    settings = {"api_key": secret} if place == "key" else {"headers": {"X-Odd": secret}}
    with Server(lambda body: "yes") as server:
        try:
            RLM("m", base_url=server.url, max_depth=0, **settings).completion("Q")
        except RLMError as error:
            assert secret.strip() not in str(error)
            assert ("X-Odd" if place == "header" else "Authorization") in str(error)
        else:
            assert secret == " sk-spaces "
    for name in ("X:Y", "X Y"):
        with pytest.raises(RLMError, match=name):
            RLM("m", base_url=server.url, headers={name: "v"}, max_depth=0).completion("Q")


def test_secrets_show_nowhere(tmp_path):
    """Not in events, messages, the trace, the repr or an error; the worker does not have them."""
    secrets = [KEY, "header-secret-1", "query-secret-2", "password-3"]
    quoted = " ".join(secrets[:3])
    replies = [Fault(500, f"you sent {quoted}"), repl("print(SHOW_VARS(), dir())")]
    replies.append(repl("FINAL(llm_query('a'))"))
    events, trace = [], tmp_path / "trace.json"

    def reply(body):
        return replies.pop(0) if replies else Fault(401, f"bad: {quoted}")

    options = {"on_event": events.append, "trace": trace}
    options["headers"] = {"X-Key": f"Bearer {secrets[1]}"}
    with Server(reply) as server:
        url = server.url.replace("//", f"//me:{secrets[3]}@") + f"?code={secrets[2]}"
        engine = RLM("m", base_url=url, api_key=KEY, **options)
        with pytest.raises(ModelError) as caught:
            engine.completion("Q", "c")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["X-Key"] == f"Bearer {secrets[1]}"
    shown = json.dumps(events, default=repr) + trace.read_text() + repr(caught.value)
    shown += json.dumps(server.requests) + str(caught.value)
    url = f"http://me:{secrets[3]}@127.0.0.1:1/v1?code={secrets[2]}"
    unreachable = RLM("m", base_url=url, api_key=KEY, headers={"X-Key": secrets[1]}, tries=1)
    with pytest.raises(ModelError) as caught:
        pickle.loads(pickle.dumps(unreachable)).completion("Q")
    shown += str(caught.value)
    for secret in secrets:
        assert secret not in shown
    assert KEY not in repr(engine)
    assert secrets[1] not in repr(engine)
