"""Tells a person elsewhere what a study has come to, through apprise: mail, chat, telephone, over a hundred services.

Off by default; on where the environment variable AUTORESEARCH_NOTIFY holds apprise URLs. Those hold secrets, so no
sentence and no log names more of one than its position and its scheme.

What is said may quote an agent, so it is sent as plain text: cut to a bound, without control characters, and without
an @ that a chat would take for a call to everybody. It is never handed over as an attachment, which could be a path.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TYPE_CHECKING

from controller.records import UserError
from controller.text import one_line, printable

if TYPE_CHECKING:
    from apprise import Apprise

VARIABLE = "AUTORESEARCH_NOTIFY"
"""The environment variable: apprise URLs, separated by white space."""

TITLE_LENGTH = 100
TEXT_LENGTH = 1_000
"""Characters that are sent at most."""

QUEUE_LENGTH = 100
"""Messages that wait at most; then the oldest goes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """One of the user's URLs: its position in the variable (from 1) and its scheme, which may be shown, and apprise."""

    position: int
    scheme: str
    apprise: Apprise


def notifier(environ: Mapping[str, str]) -> Notifier | None:
    """A notifier for the URLs in AUTORESEARCH_NOTIFY; None where there are none.

    Nothing is sent yet. Raises UserError where apprise can make nothing of a URL.
    """
    urls = environ.get(VARIABLE, "").split()
    return Notifier([_service(position, url) for position, url in enumerate(urls, start=1)]) if urls else None


def _service(position: int, url: str) -> Service:
    from apprise import Apprise, AppriseAsset

    # It quotes URLs, secrets and all.
    logging.getLogger("apprise").disabled = True
    # Without these two apprise sends from a pool of threads of its own, which Python waits for when it exits: a server
    # that hangs would keep the command from ending.
    asset = AppriseAsset(app_id="autoresearch", async_mode=False, service_timeout=0)
    scheme = re.match(r"([a-z][a-z0-9+.-]{0,19}):/", url, re.IGNORECASE)
    shown = scheme[1].lower() if scheme else "without a scheme"
    try:
        known = Apprise.instantiate(url, asset=asset)
    except Exception:  # What a plug-in stumbles over may hold the URL.
        known = None
    if known is None:
        raise UserError(
            f"apprise can't use URL {position} in {VARIABLE} ({shown}); correct it as on https://appriseit.com/services/"
        )
    one = Apprise(asset=asset)
    one.add(known)
    return Service(position, shown, one)


class Notifier:
    """Sends messages from one thread of its own, in order; what goes wrong there is counted and logged, no more.

    `sent` and `failures` count messages by service, `dropped` those that never were tried, as too many waited.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._waiting: deque[tuple[str, str]] = deque()
        self._changed = Condition()
        self._closing = False
        self.sent = 0
        self.failures = 0
        self.dropped = 0
        self._thread = Thread(target=self._work, name="autoresearch-notify", daemon=True)
        self._thread.start()

    def tell(self, title: str, text: str) -> None:
        """Have `title` and `text` sent to every service. Returns at once; never raises."""
        message = (_harmless(one_line(title[:TITLE_LENGTH])), _harmless(_cut(printable(text[: TEXT_LENGTH + 1]))))
        with self._changed:
            if self._closing:
                return
            if len(self._waiting) == QUEUE_LENGTH:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(message)
            self._changed.notify()

    def close(self, patience_seconds: float) -> None:
        """Wait until what was told has been sent, at most `patience_seconds` of real time; nothing is taken after."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        # Real time, whatever the controller's clock: this waits for other people's servers.
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            log.warning("notifications not sent in time", extra={"left": len(self._waiting) + 1})

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                title, text = self._waiting.popleft()
            for service in self._services:
                self._send(service, title, text)

    def _send(self, service: Service, title: str, text: str) -> None:
        error = "refused or not reached"
        try:
            sent = bool(service.apprise.notify(body=text, title=title, body_format="text", interpret_escapes=False))
        except Exception as raised:
            # Not its words: they may hold the URL.
            sent, error = False, type(raised).__name__
        where = {"service": service.position, "scheme": service.scheme}
        if sent:
            self.sent += 1
            log.info("notification sent", extra=where)
        else:
            self.failures += 1
            log.warning("notification failed", extra={**where, "error": error})


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else f"{text[: TEXT_LENGTH - 1]}…"


def _harmless(text: str) -> str:
    """With an @ that looks like one and calls nobody: `@everyone` in a quoted hypothesis would wake a whole team."""
    return text.replace("@", "＠")
