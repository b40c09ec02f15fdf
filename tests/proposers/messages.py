"""Anthropic's Messages API on this machine: answers are streamed, from a script or by whoever plays the model."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

Block = dict[str, Any]
PIECE = 7
"""Characters of a text or of arguments in one event: few, so that everything comes in pieces."""


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def thought(said: str = "", signature: str = "c2lnbmVk") -> Block:
    return {"type": "thinking", "thinking": said, "signature": signature}


def use(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "json": json.dumps(arguments)}


def use_raw(name: str, arguments: str) -> Block:
    """A use of a tool with arguments that may be no JSON."""
    return {"type": "tool_use", "name": name, "json": arguments}


def proposal(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "hypothesis": f"{name} is better", **more}


def propose(*proposals: dict[str, Any]) -> Block:
    return use("propose", proposals=list(proposals))


@dataclass(frozen=True)
class Usage:
    """What an answer says it cost, in tokens."""

    input: int = 100
    output: int = 50
    stored: int = 0
    cached: int = 0

    @property
    def asked(self) -> dict[str, int]:
        return {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.stored,
            "cache_read_input_tokens": self.cached,
        }


@dataclass(frozen=True)
class Says:
    """An answer of these blocks; `stop` is guessed where it is not given. With `cut` so many events of it are sent."""

    blocks: tuple[Block, ...]
    stop: str = ""
    usage: Usage = Usage()
    cut: int | None = None
    details: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Fails:
    """An error, instead of an answer."""

    status: int
    kind: str = "api_error"
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})


@dataclass(frozen=True)
class Breaks:
    """An error in the middle of the stream."""

    kind: str = "overloaded_error"


@dataclass(frozen=True)
class Hangs:
    """Nothing, until the server is closed."""


@dataclass(frozen=True)
class Garbles:
    """What is no event stream at all."""


Line = Says | Fails | Breaks | Hangs | Garbles
Agent = Callable[[dict[str, Any]], Line]
"""Answers by what is asked: the body of a question."""


def says(*blocks: Block, stop: str = "", usage: Usage | None = None, cut: int | None = None, **details: str) -> Says:
    return Says(blocks, stop, usage or Usage(), cut, details or None)


def results(body: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """What the tools said last in a question: text and whether it went wrong, by the tool's name."""
    *before, last = body["messages"]
    uses = before[-1]["content"] if before else []
    names = {block["id"]: block["name"] for block in uses if block["type"] == "tool_use"}
    return {
        names[block["tool_use_id"]]: (block["content"], block.get("is_error", False))
        for block in last["content"]
        if block["type"] == "tool_result"
    }


class Messages:
    """The server. `asked` are the bodies of the questions so far, `said` what was answered.

    A question is answered with the next line of the script. At its end `agent` answers, or, where there is none, the
    server says that it is done.
    """

    def __init__(self, agent: Agent = lambda body: says(text("I am done."))) -> None:
        self.script: deque[Line] = deque()
        self.asked: list[dict[str, Any]] = []
        self.said: list[Line] = []
        self.headers: list[dict[str, str]] = []
        self._ids = count(1)
        self._closing = threading.Event()
        mine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                mine.asked.append(json.loads(body))
                mine.headers.append({name.lower(): value for name, value in self.headers.items()})
                line = mine.script.popleft() if mine.script else agent(mine.asked[-1])
                mine.said.append(line)
                try:
                    mine._answer(self, line)
                except OSError:  # whoever asked has gone
                    self.close_connection = True

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def then(self, *lines: Line) -> None:
        self.script.extend(lines)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def results(self, turn: int) -> dict[str, tuple[str, bool]]:
        """What the tools said before question `turn`: text and whether it went wrong, by the tool's name."""
        return results(self.asked[turn])

    def _answer(self, handler: BaseHTTPRequestHandler, line: Line) -> None:
        match line:
            case Fails():
                body = json.dumps({"type": "error", "error": {"type": line.kind, "message": "as scripted"}}).encode()
                handler.send_response(line.status)
                for name, value in line.headers.items():
                    handler.send_header(name, value)
                handler.send_header("content-length", str(len(body)))
                handler.send_header("content-type", "application/json")
                handler.end_headers()
                handler.wfile.write(body)
            case Hangs():
                self._closing.wait()
                handler.close_connection = True
            case Garbles():
                handler.send_response(200)
                handler.send_header("content-length", "15")
                handler.end_headers()
                handler.wfile.write(b"<html>hi</html>")
            case Breaks():
                error = {"type": "error", "error": {"type": line.kind, "message": "as scripted"}}
                self._stream(handler, [*list(self._events(says(text("I beg"))))[:2], ("error", error)])
            case Says():
                events = list(self._events(line))
                self._stream(handler, events if line.cut is None else events[: line.cut])

    def _stream(self, handler: BaseHTTPRequestHandler, events: list[tuple[str, Any]]) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for name, data in events:
            chunk = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if events[-1][0] in ("message_stop", "error"):
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True

    def _events(self, line: Says) -> Iterator[tuple[str, Any]]:
        usage = {**line.usage.asked, "output_tokens": 1}
        message = {
            **{"id": f"msg_{next(self._ids)}", "type": "message", "role": "assistant", "model": "the-model"},
            **{"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage},
        }
        yield "message_start", {"type": "message_start", "message": message}
        yield "ping", {"type": "ping"}
        for at, block in enumerate(line.blocks):
            empty, deltas = self._pieces(block)
            yield "content_block_start", {"type": "content_block_start", "index": at, "content_block": empty}
            for delta in deltas:
                yield "content_block_delta", {"type": "content_block_delta", "index": at, "delta": delta}
            yield "content_block_stop", {"type": "content_block_stop", "index": at}
        uses = any(block["type"] == "tool_use" for block in line.blocks)
        stop = line.stop or ("tool_use" if uses else "end_turn")
        delta = {"stop_reason": stop, "stop_sequence": None, "stop_details": line.details}
        yield (
            "message_delta",
            {
                "type": "message_delta",
                "delta": delta,
                "usage": {**line.usage.asked, "output_tokens": line.usage.output},
            },
        )
        yield "message_stop", {"type": "message_stop"}

    def _pieces(self, block: Block) -> tuple[Block, list[Block]]:
        def cut(whole: str) -> list[str]:
            return [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]

        match block["type"]:
            case "text":
                return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
            case "thinking":
                deltas: list[Block] = [
                    {"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])
                ]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
                return {"type": "thinking", "thinking": "", "signature": ""}, deltas
            case _:
                name = f"toolu_{next(self._ids)}"
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(block["json"])]
                return {"type": "tool_use", "id": name, "name": block["name"], "input": {}}, deltas
