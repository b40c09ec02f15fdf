"""Prometheus metrics, scraped for real and read back with the library's own parser."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.prometheus import exposition, serve
from controller.records import UserError
from controller.standing import study_json
from tests.foreign import workspace
from tests.studies import open_in

LONG = 60.0
"""Seconds that no test takes: what is waited for comes at once."""

STATE: dict[str, Any] = {
    "study": "mar5",
    "incumbent": {"candidate": "c0007", "score": 0.9812},
    "baseline": {"candidate": "c0001", "score": None},
    "budget": {
        "spent": {"usd": 3.25, "gpu_hours": 2},
        "caps": {"usd": 300, "hours": 8.0, "llm_usd": None},
        "note": "x",
    },
    "counts": {"done": 12, "crash": 1},
    "clusters": [
        {"cluster": "a", "accelerator": "H100"},
        {"cluster": "b", "accelerator": "H200"},
        {"cluster": "c", "accelerator": "H100"},
    ],
    "health": {"controller_running": True, "unfinished_wave": "w0002", "unsandboxed": False, "lost": 3, "rate": 0.5},
}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name.removeprefix("autoresearch_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, study: str = "mar5", **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted({"study": study, **labels}.items()))


def scrape(port: int, path: str = "/metrics") -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=LONG) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def test_every_number_of_the_state_is_a_sample() -> None:
    text = exposition(STATE)
    assert parsed(text) == {
        of("experiments", status="done"): 12,
        of("experiments", status="crash"): 1,
        of("clusters", accelerator="H100"): 2,
        of("clusters", accelerator="H200"): 1,
        of("incumbent_score"): 0.9812,
        of("controller_running"): 1,
        of("budget_spent", unit="usd"): 3.25,
        of("budget_spent", unit="gpu_hours"): 2,
        of("budget_cap", unit="usd"): 300,
        of("budget_cap", unit="hours"): 8,
        of("health", check="controller_running"): 1,
        of("health", check="unsandboxed"): 0,
        of("health", check="lost"): 3,
        of("health", check="rate"): 0.5,
    }
    assert {family.type for family in text_string_to_metric_families(text)} == {"gauge"}


def test_a_state_without_anything_has_no_samples() -> None:
    assert parsed(exposition({"study": "mar5"})) == {}
    nothing = {**dict.fromkeys(STATE), "study": "mar5"}
    assert parsed(exposition(nothing)) == {}


def test_the_state_of_a_real_study(tmp_path: Path) -> None:
    study = open_in(workspace(tmp_path / "foreign"))
    try:
        found = parsed(exposition(study_json(study.journal, study.tag, True)))
    finally:
        study.journal.close()
    assert found[of("controller_running")] == 1
    assert found[of("health", check="unsandboxed")] == 0
    assert of("incumbent_score") not in found, "nothing has been measured"


def test_labels_can_not_forge_samples() -> None:
    evil = 'A100"} 1\nautoresearch_incumbent_score{study="mar5"} 0.1\\\ud800'
    state = {"study": evil, "clusters": [{"cluster": "a", "accelerator": evil}], "health": {evil: 1}}
    found = parsed(exposition(state))
    assert {name for name, _ in found} == {"clusters", "health"} and len(found) == 2
    assert {dict(labels)["study"] for _, labels in found} == {
        'A100"} 1 autoresearch_incumbent_score{study="mar5"} 0.1\\'
    }


def test_each_scrape_reads_anew() -> None:
    states = iter([{"study": "mar5", "counts": {"done": number}} for number in (1, 2)])
    with serve(0, lambda: next(states)) as port:
        assert parsed(scrape(port)) == {of("experiments", status="done"): 1}
        assert parsed(scrape(port, "/metrics?name[]=all")) == {of("experiments", status="done"): 2}
    with pytest.raises(OSError):
        scrape(port)


@contextmanager
def refused(status: int) -> Iterator[list[str]]:
    said: list[str] = []
    with pytest.raises(HTTPError) as raised:
        yield said
    with raised.value as error:
        assert error.code == status
        said.append(error.read().decode())


@pytest.mark.parametrize("state", [RuntimeError("s3cret"), {"study": "mar5", "counts": {"done": 10**400}}, {}])
def test_what_can_not_be_read_is_500_without_a_traceback_and_hurts_nobody(
    state: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([state, STATE])

    def read() -> Mapping[str, Any]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    with serve(0, read) as port:
        with refused(500) as said:
            scrape(port)
        assert parsed(scrape(port))[of("incumbent_score")] == 0.9812
    assert said == ["how the study stands can't be read now\n"]
    assert [record.getMessage() for record in caplog.records] == ["metrics could not be read"]
    assert caplog.records[0].exc_info is None
    assert "".join(capfd.readouterr()) == ""


def test_there_is_nothing_but_metrics() -> None:
    with serve(0, lambda: STATE) as port:
        with refused(404):
            scrape(port, "/../../etc/passwd")
        connection = HTTPConnection("127.0.0.1", port, timeout=LONG)
        connection.request("POST", "/metrics", body=b"")
        assert connection.getresponse().status == 501
        connection.close()


def test_a_port_in_use_is_the_users_mistake() -> None:
    with serve(0, lambda: STATE) as port:
        with pytest.raises(UserError, match=rf"port {port} is in use.*choose another"), serve(port, lambda: STATE):
            pass
        assert parsed(scrape(port))
    with serve(port, lambda: STATE) as again:
        assert again == port and parsed(scrape(port)), "free again at once"


def test_a_port_that_does_not_exist_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"port 70000 can't be opened.*choose another"), serve(70_000, lambda: STATE):
        pass


def test_a_client_that_stalls_or_goes_away_holds_up_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with serve(0, lambda: STATE) as port:
        stalled = socket.create_connection(("127.0.0.1", port), timeout=LONG)
        stalled.sendall(b"GET /metr")
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as gone:
            gone.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert parsed(scrape(port))
    stalled.close()
    assert "".join(capfd.readouterr()) == ""


def test_nothing_is_read_after_the_end_and_never_twice_at_once() -> None:
    inside, go_on = Event(), Event()
    reading: list[int] = []
    most: list[int] = []

    def read() -> Mapping[str, Any]:
        reading.append(1)
        most.append(len(reading))
        inside.set()
        assert go_on.wait(LONG)
        reading.pop()
        return STATE

    def ask(port: int) -> None:
        # The server may end before it has heard of all.
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=LONG) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            client.recv(1)

    with serve(0, read) as port:
        clients = [Thread(target=ask, args=(port,)) for _ in range(3)]
        for client in clients:
            client.start()
        assert inside.wait(LONG)
        go_on.set()
    assert reading == []
    count = len(most)
    for client in clients:
        client.join()
    assert max(most) == 1 and len(most) == count
