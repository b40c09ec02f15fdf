"""Kubeconfigs that are missing, broken or lead nowhere: one sentence, and no long wait."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.k8s import Context, NoAnswer, contexts, read_context, reasons
from tests.k8s.apiserver import World, kubeconfig, node
from tests.k8s.conftest import Serve

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Writes a kubeconfig, as text or as bytes, and makes it the one in use."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "config"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return write


def no_answer(context: str = "here") -> str:
    """Why a context can't be asked; the inventory and the pods say the same."""
    report = read_context(Context(context), seconds=0.05)
    with pytest.raises(NoAnswer) as raised:
        reasons(context, "default", "c", seconds=0.05)
    assert not report.usable and not report.groups
    assert report.problems == (str(raised.value),)
    said = report.problems[0]
    assert said.isprintable() and len(said) < 600, said
    return said


def test_contexts_and_their_namespaces(made: Made) -> None:
    made(
        """
        current-context: b
        clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}]
        contexts:
        - {name: a, context: {cluster: x}}
        - {name: b, context: {cluster: x, namespace: team}}
        """
    )
    assert contexts() == [Context("a"), Context("b", "team", True)]


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswer, match=r"^there is no kubeconfig at ~/.kube/config: put your cluster's there, or set"):
        contexts()
    assert "can't be used" in no_answer()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/one:{tmp_path}/two")
    with pytest.raises(NoAnswer, match=r"there is no kubeconfig at .*/one:.*/two: put"):
        contexts()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "- a list",
        "just text",
        "{unclosed",
        "a: b: c",
        b"\xff\xfe\x00",
        "contexts: 3\ncurrent-context: a",
        "contexts: [3]\ncurrent-context: a",
        "contexts: [{name: a}]\ncurrent-context: a\nclusters: []",
        "contexts: [{name: a, context: {cluster: x}}]\ncurrent-context: a\nclusters: []",
        "contexts: [{name: a, context: {cluster: x}}]\ncurrent-context: other\nclusters: [{name: x, cluster: {}}]",
    ],
)
def test_a_broken_kubeconfig(content: str | bytes, made: Made) -> None:
    path = made(content)
    with pytest.raises(NoAnswer) as raised:
        contexts()
    said = str(raised.value)
    assert said.startswith(f"the kubeconfig {path} can't be used: ") and said.isprintable()
    assert said.endswith("; `kubectl config view` shows what is in it")


@pytest.mark.parametrize("content", ["contexts: []", "contexts: [{name: a, context: {cluster: x}}]\nclusters: []"])
def test_no_current_context(content: str, made: Made) -> None:
    path = made(f"{content}\napiVersion: v1")
    with pytest.raises(NoAnswer) as raised:
        contexts()
    assert str(raised.value) == (
        f"the kubeconfig {path} has no current context, and without one SkyPilot uses none of it:"
        " choose one with `kubectl config use-context NAME`"
    )


def test_a_kubeconfig_that_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    with pytest.raises(NoAnswer, match=r"can't be used: .*Is a directory"):
        contexts()


def test_a_context_that_is_not_there(serve: Serve) -> None:
    serve(World([node("a")]))
    assert "Expected object with name nowhere" in no_answer("nowhere")


def test_a_dead_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"here": url})))
    assert no_answer() == (
        f"{url} can't be reached ([Errno 111] Connection refused):"
        " check the network or VPN, and the server of context here in the kubeconfig"
    )


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"here": url})))
        assert f"{url} can't be reached (no answer within 0.05 seconds): check the network" in no_answer()


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1", "http://[", "nonsense", "ftp://x", "http://a\nb", "http://x:99999", "http://"]
)
def test_a_server_that_makes_no_sense(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"here": url})))
    said = no_answer()
    assert "context here" in said and "server" in said


def test_a_server_without_tls(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(World()).url.replace("http:", "https:")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"here": url})))
    assert f"{url} can't be reached (" in no_answer() and "SSL" in no_answer()


def test_a_token_that_is_refused(serve: Serve, tmp_path: Path) -> None:
    url = serve(World([node("a")])).url
    kubeconfig(tmp_path / "kubeconfig", {"here": url}, token="expired")
    assert no_answer() == (
        f"{url} does not accept the credentials of context here: log in again, or correct its user in the kubeconfig"
    )


def test_a_credential_plugin_that_fails(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(tmp_path / "no-such-plugin")}
    kubeconfig(tmp_path / "kubeconfig", {"here": serve(World()).url}, user={"exec": plugin})
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    said = no_answer()
    assert "does not accept the credentials" in said and "; its credential plugin says: " in said
    assert "no-such-plugin" in said
    assert capfd.readouterr() == ("", "")


def test_a_credential_plugin_is_asked(serve: Serve, tmp_path: Path) -> None:
    script = tmp_path / "plugin"
    script.write_text(
        """#!/bin/sh
        echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
               "status": {"token": "the-token"}}'
        """
    )
    script.chmod(0o755)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    kubeconfig(tmp_path / "kubeconfig", {"here": serve(World([node("a")])).url}, user={"exec": plugin})
    assert read_context(Context("here")).groups[0].gpus == 8
