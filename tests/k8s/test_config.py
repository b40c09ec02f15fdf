"""SkyPilot's own settings, as far as they decide where it puts pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.k8s import Context, is_allowed, namespace, skypilot_config, tolerations

HERE, THERE = Context("here", "own", True), Context("there", "theirs")
ANY, TEAM = {"operator": "Exists"}, {"key": "team", "operator": "Exists"}


def pods(*those: dict[str, str]) -> dict[str, Any]:
    return {"pod_config": {"spec": {"tolerations": list(those)}}}


@pytest.mark.parametrize(
    ("said", "environ", "here", "there"),
    [
        ({}, {}, True, False),
        ({"allowed_contexts": ["there"]}, {}, False, True),
        ({"allowed_contexts": []}, {}, False, False),
        ({"allowed_contexts": "all"}, {}, True, True),
        ({}, {"SKYPILOT_ALLOW_ALL_KUBERNETES_CONTEXTS": "1"}, True, True),
        ({"allowed_contexts": ["here"]}, {"SKYPILOT_ALLOW_ALL_KUBERNETES_CONTEXTS": "true"}, True, False),
    ],
)
def test_contexts_that_skypilot_uses(said: dict[str, Any], environ: dict[str, str], here: bool, there: bool) -> None:
    config = {"kubernetes": said}
    assert (is_allowed(config, HERE, environ), is_allowed(config, THERE, environ)) == (here, there)


def test_what_is_set_for_one_context_goes_first() -> None:
    own = {"context_configs": {"here": {"namespace": "special", **pods(TEAM)}}}
    config = {"kubernetes": {"namespace": "general", **pods(ANY), **own}}
    assert (namespace(config, HERE), namespace(config, THERE)) == ("special", "general")
    assert (namespace({}, HERE), namespace({}, THERE)) == ("own", "theirs")
    assert tolerations(config, HERE) == [ANY, TEAM] and tolerations(config, THERE) == [ANY]
    assert tolerations({}, HERE) == []


@pytest.mark.parametrize("content", [b"", b"- a list", b"{unclosed", b"\xff"])
def test_settings_that_can_not_be_read_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    assert skypilot_config({"SKYPILOT_GLOBAL_CONFIG": str(tmp_path / "config.yaml")}) == {}
    assert skypilot_config({"SKYPILOT_GLOBAL_CONFIG": str(tmp_path / "none.yaml")}) == {}
