"""What of SkyPilot's own settings decides where it puts pods: ~/.sky/config.yaml, read without SkyPilot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.k8s.client import Context, part, parts


def skypilot_config(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The user's SkyPilot settings; empty where there are none, or none that can be read."""
    path = Path(environ.get("SKYPILOT_GLOBAL_CONFIG") or "~/.sky/config.yaml").expanduser()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}  # SkyPilot itself says what is wrong with it
    return found if isinstance(found, dict) else {}


def is_allowed(config: Mapping[str, Any], context: Context, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether SkyPilot uses `context`: only the current one, where nothing says which."""
    allowed = part(config, "kubernetes", "allowed_contexts")
    if allowed is None and environ.get("SKYPILOT_ALLOW_ALL_KUBERNETES_CONTEXTS", "").lower() in ("1", "true"):
        allowed = "all"
    if allowed is None:
        return context.current
    return allowed == "all" or (isinstance(allowed, list) and context.name in allowed)


def namespace(config: Mapping[str, Any], context: Context) -> str:
    """The namespace in which SkyPilot creates pods in `context`."""
    own = part(config, "kubernetes", "context_configs", context.name, "namespace")
    return str(own or part(config, "kubernetes", "namespace") or context.namespace)


def tolerations(config: Mapping[str, Any], context: Context) -> list[Any]:
    """The tolerations that pods get in `context`."""
    own = ("kubernetes", "context_configs", context.name, "pod_config", "spec", "tolerations")
    return [*parts(config, "kubernetes", "pod_config", "spec", "tolerations"), *parts(config, *own)]
