"""What befell a cluster, where its infrastructure can say more than SkyPilot does: the pods of Kubernetes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.backends.skypilot.sdk import Record
from controller.records import Label

log = logging.getLogger(__name__)

KUBERNETES = "kubernetes/"
SECONDS = 5.0
"""How long is waited for Kubernetes."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a cluster is not there, in a sentence, and what became of what ran on it."""

    sentence: str
    label: Label


Inquiry = Callable[[Record], Awaitable[Trouble | None]]
"""Finds out what befell a cluster; None where nothing is known."""


async def of_pods(record: Record) -> Trouble | None:
    """What befell the pods of a cluster on Kubernetes; None elsewhere, and where Kubernetes can't be asked."""
    context = record.infra.removeprefix(KUBERNETES)
    if context == record.infra or not record.on_cloud:
        return None
    return await asyncio.to_thread(_read, context, record.on_cloud)


def _read(context: str, cluster: str) -> Trouble | None:
    from controller.k8s import Kind, NoAnswer, contexts, namespace, reasons, skypilot_config

    try:
        known = next((one for one in contexts() if one.name == context), None)
        found = reasons(context, namespace(skypilot_config(), known), cluster, SECONDS) if known else []
    except NoAnswer as error:
        log.info("kubernetes can't be asked", extra={"context": context, "reason": str(error)})
        return None
    if not found:
        return None
    labels = {
        Kind.OOM_KILLED: Label.OUT_OF_MEMORY,
        Kind.PREEMPTED: Label.PREEMPTED,
        Kind.EVICTED: Label.PREEMPTED,
    }
    telling = next((one for one in found if one.kind in labels), found[0])
    return Trouble(telling.sentence, labels.get(telling.kind, Label.LOST))
