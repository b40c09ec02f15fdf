"""Notification through apprise, to real servers on this machine."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from controller.notify import QUEUE_LENGTH, TEXT_LENGTH, TITLE_LENGTH, VARIABLE, Notifier, notifier
from controller.records import UserError

LONG = 60.0
"""Seconds that no test takes: what is waited for comes at once."""


class Server:
    """Takes what is posted to it and answers with `status`, once `gate` is open."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[dict[str, Any]] = []
        self.called, self.gate = Event(), Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.called.set()
                outer.gate.wait(LONG)
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"json://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def serving(status: int = 200) -> Iterator[Server]:
    server = Server(status)
    try:
        yield server
    finally:
        server.close()


def opened(*urls: str) -> Notifier:
    found = notifier({VARIABLE: "\n ".join(urls)})
    assert found is not None
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_without_urls_there_is_no_notifier() -> None:
    assert notifier({}) is None
    assert notifier({VARIABLE: " \n"}) is None


def test_a_message_arrives_with_its_title_and_figures() -> None:
    with serving() as server:
        one = opened(f"{server.url}/path")
        one.tell("study mar5: kept c0007", "val_bpb 0.9812 (-0.0031, -0.0040 to -0.0022)\n128 experiments, 3.2 usd")
        one.close(LONG)
    (got,) = server.got
    assert got["title"] == "study mar5: kept c0007"
    assert got["message"] == "val_bpb 0.9812 (-0.0031, -0.0040 to -0.0022)\n128 experiments, 3.2 usd"
    assert got["attachments"] == []
    assert (one.sent, one.failures, one.dropped) == (1, 0, 0)


def test_messages_arrive_in_order_at_every_service_whatever_another_does() -> None:
    with serving() as first, serving(500) as broken, serving() as last:
        one = opened(first.url, broken.url, last.url)
        for number in range(5):
            one.tell("wave", str(number))
        one.close(LONG)
    for server in (first, broken, last):
        assert [got["message"] for got in server.got] == list("01234")
    assert (one.sent, one.failures) == (10, 5)


@pytest.mark.parametrize("form", ["text", "html", "markdown"])
def test_what_an_agent_wrote_is_text_and_nothing_else(form: str) -> None:
    quoted = "/etc/hostname file:///etc/hostname <b>bold</b> \\n @everyone \x1b[2J\ud800\u202e :smile: ${HOME}"
    with serving() as server:
        one = opened(f"{server.url}/?format={form}")
        one.tell("a title\r\nBcc: all@example.org", quoted)
        one.close(LONG)
    (got,) = server.got
    assert got["title"] == "a title Bcc: all＠example.org"
    assert got["attachments"] == []
    assert "＠everyone" in got["message"] and "@" not in got["message"]
    assert "\x1b" not in got["message"] and "\n" not in got["message"] and "\u202e" not in got["message"]
    assert ":smile:" in got["message"] and "${HOME}" in got["message"].replace("\\", "")
    if form == "html":
        assert "<b>" not in got["message"]
    if form == "text":
        assert got["message"] == (
            "/etc/hostname file:///etc/hostname <b>bold</b> \\n ＠everyone \\x1b[2J\\ud800\\u202e :smile: ${HOME}"
        )


def test_long_messages_are_cut() -> None:
    with serving() as server:
        one = opened(server.url)
        one.tell("t" * 10_000, "\x00" * 10_000)
        one.tell("t", "x" * TEXT_LENGTH)
        one.close(LONG)
    cut, whole = server.got
    assert len(cut["title"]) == TITLE_LENGTH
    assert len(cut["message"]) == TEXT_LENGTH and cut["message"].endswith("…")
    assert whole["message"] == "x" * TEXT_LENGTH


def test_a_server_that_fails_or_is_not_there_is_counted_and_logged_without_its_url(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(500) as server, caplog.at_level(logging.DEBUG):
        one = opened(f"{server.url}/s3cret", f"json://user:s3cret@127.0.0.1:{free_port()}/s3cret")
        one.tell("title", "text")
        one.close(LONG)
    assert (one.sent, one.failures) == (0, 2)
    ours = [record for record in caplog.records if record.name == "controller.notify"]
    assert [(record.levelname, record.service, record.scheme) for record in ours] == [  # type: ignore[attr-defined]
        ("WARNING", 1, "json"),
        ("WARNING", 2, "json"),
    ]
    assert not any(record.name == "apprise" for record in caplog.records)
    assert not any("s3cret" in str(vars(record)) for record in ours)
    assert "s3cret" not in "".join(capfd.readouterr())


def test_a_service_that_raises_is_counted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        one = opened(server.url)

        def broken(*_: object, **__: object) -> bool:
            raise RuntimeError("json://user:s3cret@host")

        monkeypatch.setattr(one._services[0].apprise, "notify", broken)
        one.tell("title", "text")
        one.close(LONG)
    assert (one.sent, one.failures) == (0, 1)
    (record,) = [record for record in caplog.records if record.name == "controller.notify"]
    assert record.error == "RuntimeError" and "s3cret" not in str(vars(record))  # type: ignore[attr-defined]


def test_a_server_that_never_answers_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        server.gate.clear()
        one = opened(f"{server.url}/?rto={LONG}")
        one.tell("title", "0")
        assert server.called.wait(LONG)
        for number in range(1, QUEUE_LENGTH + 3):
            one.tell("title", str(number))
        one.close(0.01)
        assert one._thread.is_alive()
        one.tell("title", "too late")
        assert one.dropped == 2
        server.gate.set()
        one.close(LONG)
    assert [got["message"] for got in server.got] == ["0", *map(str, range(3, QUEUE_LENGTH + 3))]
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.left == QUEUE_LENGTH + 1  # type: ignore[attr-defined]


HUNG = """
import sys
from controller.notify import notifier
one = notifier({"AUTORESEARCH_NOTIFY": sys.argv[1]})
one.tell("title", "text")
sys.stdin.readline()
one.close(0)
"""


def test_a_server_that_never_answers_does_not_keep_the_command_from_ending() -> None:
    with serving() as server:
        server.gate.clear()
        command = [sys.executable, "-c", HUNG, f"{server.url}/?rto={LONG}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert server.called.wait(LONG)
            _, err = process.communicate("\n", timeout=LONG / 2)
        assert not server.gate.is_set()
    assert process.returncode == 0 and "127.0.0.1" not in err


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("nonsense-s3cret", "URL 1 in AUTORESEARCH_NOTIFY (without a scheme)"),
        ("json://127.0.0.1/ no-such-service://s3cret", "URL 2 in AUTORESEARCH_NOTIFY (no-such-service)"),
        ("slack://s3cret", "URL 1 in AUTORESEARCH_NOTIFY (slack)"),
        ("https://example.org/s3cret", "URL 1 in AUTORESEARCH_NOTIFY (https)"),
        ("json://user:s3cret@[::bad", "URL 1 in AUTORESEARCH_NOTIFY (json)"),
    ],
)
def test_a_malformed_url_is_the_users_mistake_and_not_shown(
    urls: str, said: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(UserError) as raised:
        notifier({VARIABLE: urls})
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert "s3cret" not in str(raised.value) + "".join(capfd.readouterr()) + caplog.text
