"""The recipes of recipes.md and the excerpt in README, taken out of their files and run as they are.

The models are scripted, the APIs loopback servers that speak the shape which a recipe is for. Not
here: the program itself.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import ROOT, Script, is_rlm, repl
from server import Server, completion

from rlm import RLM, RLMError

TEXT = (ROOT / "tests/recipes.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", TEXT))
FENCE = re.compile(r"(?ms)^```python\n(.*?)^```$")


def blocks(title: str) -> list[str]:
    """The code of a recipe."""
    return FENCE.findall(SECTIONS[title])


def run(title: str, number: int = 0) -> dict[str, Any]:
    """The names that a recipe defines."""
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(blocks(title)[number], names)  # noqa: S102
    return names


# README's excerpt, and the recipes as a whole


def test_the_recursion_in_the_readme_is_the_one_in_the_file():
    source = (ROOT / "rlm.py").read_text("utf-8")
    excerpt = next(block for block in FENCE.findall(README) if "def llm_query" in block)
    assert re.findall(r"def (\w+)", excerpt) == ["complete", "turn", "llm_query"]
    assert excerpt in source


def test_the_readme_is_short_and_links_to_the_recipes():
    assert "](tests/recipes.md)" in README
    assert len(README.splitlines()) <= 300


def test_recipes_are_short_and_each_is_run_below():
    this = (ROOT / "tests/test_recipes.py").read_text("utf-8")
    assert len(SECTIONS) == 9
    for title in SECTIONS:
        assert f'("{title}"' in this, title
        assert blocks(title)
        for block in blocks(title):
            assert len([line for line in block.splitlines() if line.strip()]) <= 15, title
            assert max(map(len, block.splitlines())) <= 100


def test_the_careful_prompts():
    careful, names = ROOT / "prompts/careful", re.compile(r"\$\w+")
    for path in careful.iterdir():
        text, default = path.read_text("utf-8"), (ROOT / "prompts" / path.name).read_text("utf-8")
        assert text != default
        assert sorted(names.findall(text)) == sorted(names.findall(default))
    system = (careful / "system.txt").read_text("utf-8")
    assert len(system) <= 4200
    example = re.findall(r"```repl\n.*?```", system, re.DOTALL)
    numbers = re.compile(r"(?m)^(\d+): ticket")
    model = Script(*example, leaf=lambda text: numbers.sub(r"\1: yes", text))
    context = "\n\n".join(f"ticket {i}" for i in range(120))
    done = RLM(model=model, prompts=careful).completion("Q", context)
    assert (done.answer, len(model.plain), done.turns) == (120, 3, 4)


# Models


@contextlib.contextmanager
def listen(answer: Callable[[dict[str, Any], Any], tuple[int, bytes]]) -> Iterator[str]:
    """A server of another shape: answer(body, headers) is the status and what is sent."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, data = answer({"path": self.path, **body}, self.headers)
            self.send_response(status)
            self.end_headers()  # HTTP/1.0: the end of the connection is the end of the body
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


ASKING = repl("""
    print(context[:10])
    answer = llm_query("How much?", context[:20])
    FINAL(answer)
    """)


def test_anthropic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-x")
    seen = []

    def answer(body: dict[str, Any], headers: Any) -> tuple[int, bytes]:
        """As the Messages API: the system prompt stands beside the messages, and max_tokens."""
        seen.append(body)
        assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-x", "2023-06-01")
        assert (body["path"], type(body["max_tokens"])) == ("/v1/messages", int)
        assert {message["role"] for message in body["messages"]} <= {"user", "assistant"}
        assert body["messages"][0]["role"] == body["messages"][-1]["role"] == "user"
        first = body["messages"][0]["content"]
        if len(seen) == 1:  # tried again
            return 529, b'{"type": "error", "error": {"type": "x", "message": "Overloaded"}}'
        if "refused" in first:
            return 400, b'{"type": "error", "error": {"type": "x", "message": "too long"}}'
        text = ASKING if "system" in body else "42"
        said = {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": text[:1]},
                {"type": "text", "text": text[1:]},
            ],
            "stop_reason": "max_tokens" if "endless" in first else "end_turn",
            "usage": {"input_tokens": 1000, "output_tokens": 10},
        }
        return 200, json.dumps(said).encode()

    with listen(answer) as url:
        claude = run("Another API")["claude"]
        claude.__defaults__ = (f"{url}/v1/messages",)
        done = RLM(model=claude, prices={"claude": [3, 0.3, 15]}).completion("Q", "some text")
        assert (done.answer, done.usage.calls, "system" in seen[0]) == ("42", 2, True)
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (2000, 20)
        assert done.usage.cost == pytest.approx(2 * 0.00315)
        with pytest.raises(RLMError, match="cut off"):
            RLM(model=claude, max_depth=0).completion("endless")
        with pytest.raises(RLMError, match="400 .*: too long"):
            RLM(model=claude, max_depth=0).completion("refused")


@pytest.mark.parametrize("broken", [False, True])
def test_a_server_that_only_streams(broken: bool):
    def answer(body: dict[str, Any], headers: Any) -> tuple[int, bytes]:
        """As vLLM and others stream: comments, a role, pieces of text, a usage without choices."""
        assert (body["path"], body["stream"]) == ("/v1/chat/completions", True)
        assert body["stream_options"] == {"include_usage": True}
        text = ASKING if is_rlm(body["messages"]) else "4\u20282"  # a line end to str.splitlines
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        deltas += [{"content": text[i : i + 7]} for i in range(0, len(text), 7)]
        ends = [None] * len(deltas) + ([] if broken else ["stop"])
        choices = [{"index": 0, "delta": d} for d in (*deltas, {})]
        chunks = [{"choices": [c | {"finish_reason": e}]} for c, e in zip(choices, ends)]
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        chunks += [] if broken else [{"choices": [], "usage": usage}]
        events = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
        end = "" if broken else "data: [DONE]\n\n"
        return 200, "".join([": ping\n\n", *events, end]).encode()

    with listen(answer) as url:
        streaming = run("A server that only streams")["streaming"]
        streaming.__defaults__ = (f"{url}/v1/chat/completions",)
        if broken:
            with pytest.raises(RLMError, match="cut off"):
                RLM(model=streaming).completion("Q", "some text")
            return
        done = RLM(model=streaming).completion("Q", "some text")
    assert (done.answer, done.usage.prompt_tokens, done.usage.calls) == ("4\u20282", 200, 2)


def test_a_second_run_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    def answer(body: dict[str, Any]) -> Any:
        text = ASKING if is_rlm(body["messages"]) else "42"
        return completion(text, prompt_tokens=10, completion_tokens=1, cost=0.5)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers").mkdir()
    with Server(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        cached = run("A second run that costs nothing")["cached"]
        first, second = (RLM(model=cached).completion("Q", "some text") for _ in range(2))
        assert (first.answer, first.usage.cost, second.answer) == ("42", 1, "42")
        assert (second.usage.calls, second.usage.cost, len(server.requests)) == (2, 0, 2)
        assert RLM(model=cached).completion("Q", "other text").usage.cost == 1
    assert len(list((tmp_path / "answers").iterdir())) == 4


def test_a_script_in_place_of_the_model():
    assert run("A script in place of the model")["model"]([{"role": "user"}]) == "forty-two"


# Answers


def test_three_runs_and_a_vote():
    together = threading.Barrier(3, timeout=10)
    answers = iter(["Paris", " paris", "Rome"])

    def model(messages: list[dict[str, Any]]) -> str:
        together.wait()  # or the runs are not side by side
        return repl(f"FINAL({next(answers)!r})")

    best, share = run("Three runs and a vote")["vote"](RLM(model=model), "Q", "text")
    assert best.strip().lower() == "paris"
    assert share == pytest.approx(2 / 3)


@pytest.mark.parametrize("number", [0, 1])
def test_an_answer_that_fits_a_schema(number: int):
    if number:
        pytest.importorskip("jsonschema")
    wrong = ["'Ada'", "{'winner': 'Ada', 'year': '1991'}"], ["[{'id': 'x'}]", "{}"]
    told = ["with exactly the keys winner, year", "year must be of type int"], ["[0].id", "array"]
    right = {"winner": "Ada", "year": 1991}, [{"id": 1}]
    model = Script(*[repl(f"FINAL({answer})") for answer in (*wrong[number], repr(right[number]))])
    rlm = run("An answer that fits a schema", number)["rlm"]
    rlm.model = model
    assert rlm.completion("Q", "text").answer == right[number]
    seen = [messages[-1]["content"] for messages in model.requests[1:]]
    assert [word in text for word, text in zip(told[number], seen, strict=True)] == [True, True]


# Contexts and tools


def answer_about(context: Any, code: str) -> Any:
    """What a model finds that runs this code over a context."""
    return RLM(model=Script(repl(code))).completion("Q", context).answer


def sources(number: int) -> dict[str, Any]:
    return run("A DataFrame, a PDF, a folder of mail", number)


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, None], "day": pandas.to_datetime(["1991-08-03"] * 2)})
    context = sources(0)["rows"](frame)
    code = "FINAL([context[0]['day'][:10], context[1]['n']])"
    assert answer_about(context, code) == ["1991-08-03", None]


def pdf(*texts: str) -> bytes:
    """A PDF with one line of text a page, whose table of contents has to be made anew."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(texts)))
    parts = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(texts)}>>"]
    parts.append("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    for i, text in enumerate(texts):
        page = f"/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {5 + 2 * i} 0 R"
        parts.append(f"<</Type/Page{page}/Resources<</Font<</F 3 0 R>>>>>>")
        drawn = f"BT /F 12 Tf 50 700 Td ({text}) Tj ET"
        parts.append(f"<</Length {len(drawn)}>>stream\n{drawn}\nendstream")
    body = "".join(f"{n} 0 obj{part}endobj\n" for n, part in enumerate(parts, 1))
    return f"%PDF-1.4\n{body}trailer<</Root 1 0 R>>\nstartxref\n0\n%%EOF".encode()


def test_a_pdf(tmp_path: Any):
    pytest.importorskip("pypdf")
    (tmp_path / "a.pdf").write_bytes(pdf("It was rebuilt in 1987", "and closed in 1991"))
    context = sources(1)["pages"](tmp_path / "a.pdf")
    found = answer_about(context, "FINAL({page: text[-4:] for page, text in context.items()})")
    assert found == {"page 1": "1987", "page 2": "1991"}


def test_a_folder_of_mail(tmp_path: Any):
    head = "From: a@example.org\nTo: b@example.org\nSubject: =?utf-8?q?caf=C3=A9?=\n"
    head += "MIME-Version: 1.0\n"
    plain = f"{head}Content-Type: text/plain; charset=iso-8859-1\n\nna\xefve\n"
    two = f'{head}Content-Type: multipart/alternative; boundary="x"\n\n'
    two += "--x\nContent-Type: text/html\n\n<b>yes</b>\n--x\nContent-Type: text/plain\n\nyes\n--x--"
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/1.eml").write_bytes(plain.encode("latin-1"))
    (tmp_path / "inbox/2.eml").write_bytes(two.encode())
    context = sources(2)["mails"](tmp_path)
    code = "FINAL([[mail['subject'], mail['text'].strip()] for mail in context])"
    assert answer_about(context, code) == [["café", "naïve"], ["café", "yes"]]


def test_a_retrieval_tool():
    passages = ["the bridge of Corvale", "the mill of Corvale", "the ferry of Aldmoor", "the inn"]
    search = run("A retrieval tool beside the context")["searcher"](passages)
    model = Script(repl("FINAL(search('the Corvale bridge', limit=2))"))
    done = RLM(model=model, tools={"search": search}).completion("Q", "text")
    assert done.answer == [[0, passages[0]], [1, passages[1]]]
    system = model.requests[0][0]["content"]
    assert "search(query: str, limit: int = 5)" in system
    assert "the number and the text of the passages" in system


# Scale


@pytest.mark.parametrize("number", [0, 1])
def test_many_questions_at_once(number: int, tmp_path: Any, clean_env: dict[str, str]):
    if number:
        pytest.importorskip("dask.distributed")

    def answer(body: dict[str, Any]) -> Any:
        name = re.search(r"Question: (\w+)", body["messages"][1]["content"])[1]
        reply = repl(f"FINAL({name!r} + context)")
        return completion(reply, prompt_tokens=1, completion_tokens=1, cost=0.01)

    script = tmp_path / "many.py"
    call = 'if __name__ == "__main__":\n    print(ask_all(["ab", "cd", "ef"], "!"))\n'
    recipe = blocks("Many questions at once")[number]
    script.write_text(f"{recipe}\n\n{call}")
    with Server(answer) as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "k", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script)]
        text = subprocess.check_output(command, env=clean_env | env, text=True, timeout=90)
    assert text.strip() == "['ab!', 'cd!', 'ef!']"
    assert len(server.requests) == 3
