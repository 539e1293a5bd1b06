"""Loopback chat-completions servers: what tests, demo and benchmarks put in a model's place.

    with Server(lambda body: "```repl\\nFINAL(42)\\n```") as server:
        RLM("some-model", base_url=server.url, api_key="k").completion("...")
    server.requests, server.headers, server.usage    # what came, parsed; the sum over its answers

It records everything and fails in every way that real servers do. It neither streams nor checks
keys.
"""

import contextlib
import json
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A reply that is no ordinary one. `body` is sent as it is (text as Latin-1, a dict as
    JSON), and `then`:

    "keep"   nothing more: a whole response, and the connection stays open
    "close"  the connection ends before the length that was announced
    "reset"  the same with a TCP reset; with an empty body before the status line
    "drip"   a space every 50 ms, without end: never silent, never done
    "hang"   nothing at all is sent, until the server closes
    "raw"    the body is everything that is sent, status line included
    Fault(429, headers={"Retry-After": "1"})    Fault(200, b'{"choices": [', then="reset")
    """

    status: int = 200
    body: bytes | str | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    then: str = "keep"


Reply = Callable[[dict[str, Any]], str | dict[str, Any] | Fault]  # body -> text, whole body, fault


def completion(text: str, **usage: Any) -> dict[str, Any]:
    """The response body of an ordinary answer: completion("yes", prompt_tokens=9, cost=0.5)."""
    return says({"content": text}, **({"usage": usage} if usage else {}))


def says(message: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A body with this message and other fields; those of its choice begin `choice_`."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
    choice |= {key[7:]: rest.pop(key) for key in list(rest) if key.startswith("choice_")}
    return {"id": "chatcmpl-0", "object": "chat.completion", "choices": [choice], **rest}


def responses(section: str) -> list[dict[str, Any]]:
    """The entries of a section of responses.json; where they have a message, with a whole body."""
    text = Path(__file__).with_name("responses.json").read_text("utf-8")
    more = {"words", "text"}  # what is not of the body
    for entry in (entries := json.loads(text)[section]):
        if "message" in entry:
            entry["body"] = says(**{key: entry[key] for key in entry.keys() - more})
    return entries


def refused_url() -> str:
    """An address on which nobody listens: a connection to it is refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


class Server(ThreadingHTTPServer):
    """A server whose model is the function `reply`, called in the thread of its connection."""

    request_queue_size = 1024

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.reply = reply
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_address[1]}/v1"
        self.paths: list[str] = []  # as they came, in the order of `requests`
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []  # mappings, names in any case; in the order of `requests`
        self.usage = Counter(calls=0, prompt_tokens=0, cached_tokens=0, completion_tokens=0)
        self.in_flight = self.peak = 0  # requests being answered now, and the most that ever were
        self.lock, self.closed = threading.Lock(), threading.Event()
        self._open: set[socket.socket] = set()
        self._seen: set[int] = set()  # hashes of beginnings of conversations
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self, *_: object) -> None:
        """Ends the listener and every connection. May be called from `reply`, and twice."""
        self.closed.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # it has ended before
                connection.shutdown(socket.SHUT_RDWR)

    __exit__ = close

    def handle_error(self, *_: Any) -> None: ...  # a client that hangs up is no news

    def count(self, messages: list[dict[str, Any]], text: str) -> dict[str, Any]:
        """A plausible `usage`: 4 characters a token; a beginning seen before counts as cached."""
        beginning = prompt = cached = 0
        with self.lock:
            for message in messages:
                beginning = hash((beginning, message["role"], str(message["content"])))
                prompt += len(str(message["content"])) // 4 + 3
                cached = prompt if beginning in self._seen else cached
                self._seen.add(beginning)
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4 + 1}
        return usage | {"prompt_tokens_details": {"cached_tokens": cached}}


def _dict(value: Any) -> dict[str, Any]:
    """A dict as it is; an empty one for what else a script may put in its place."""
    return value if isinstance(value, dict) else {}


class _Handler(BaseHTTPRequestHandler):
    """One connection: HTTP/1.1 with keep-alive, each response written in one piece."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered, flushed once a response

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.partition("?")[0].endswith("/v1/chat/completions"):  # whole, for a proxy
            return self.send(Fault(404, {"error": {"message": f"no such path: {self.path}"}}))
        with server.lock:
            server._open.add(self.connection)
            server.paths.append(self.path)
            server.requests.append(body)
            server.headers.append(self.headers)
            server.in_flight += 1
            server.peak = max(server.peak, server.in_flight)
        try:
            answer = server.reply(body)
        except Exception as error:  # noqa: BLE001 (a mistake in the script: said at once, by name)
            answer = Fault(400, {"error": {"message": f"the scripted model failed: {error!r}"}})
        if isinstance(answer, str):
            answer = completion(answer, **server.count(body["messages"], answer))
        fault = Fault(200, answer) if isinstance(answer, dict) else answer
        with server.lock:
            server.in_flight -= 1
            if fault is not answer:
                usage = _dict(answer.get("usage"))
                usage = {"calls": 1} | usage | _dict(usage.get("prompt_tokens_details"))
                for name in server.usage:
                    server.usage[name] += usage[name] if isinstance(usage.get(name), int) else 0
        self.send(fault)

    def send(self, fault: Fault) -> None:
        data = json.dumps(fault.body) if isinstance(fault.body, dict) else fault.body
        data = data.encode("latin-1") if isinstance(data, str) else data
        self.close_connection = fault.then != "keep"
        if fault.then not in ("hang", "raw") and (data or fault.then != "reset"):
            self.send_response(fault.status)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + 10**9 * (fault.then != "keep")))
            self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        while fault.then in ("hang", "drip") and not self.server.closed.wait(0.05):
            self.wfile.write(b" " if fault.then == "drip" else b"")
            self.wfile.flush()
        if fault.then == "reset":  # linger on, for zero seconds (two C ints): close means reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
            os.close(self.connection.detach())  # now, not after the shutdown that socketserver does
