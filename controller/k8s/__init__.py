"""Kubernetes, asked directly where SkyPilot doesn't say: which GPUs a context has, and why a cluster's pods don't run.

Nothing is changed there. Named k8s, as `kubernetes` is the client's package.
"""

from controller.k8s.client import Context, NoAnswer, connected, contexts
from controller.k8s.config import is_allowed, namespace, skypilot_config, tolerations
from controller.k8s.nodes import ContextReport, Node, NodeGroup, Quota, read_context
from controller.k8s.pods import Kind, PodTrouble, reasons, troubles
from controller.k8s.room import Room, chosen, passed_over, room, without_quota

__all__ = [
    "Context",
    "ContextReport",
    "Kind",
    "NoAnswer",
    "Node",
    "NodeGroup",
    "PodTrouble",
    "Quota",
    "Room",
    "chosen",
    "connected",
    "contexts",
    "is_allowed",
    "namespace",
    "passed_over",
    "read_context",
    "reasons",
    "room",
    "skypilot_config",
    "tolerations",
    "troubles",
    "without_quota",
]
