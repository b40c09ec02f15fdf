from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proposers.messages import Messages


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Messages]:
    """The Messages API, as whose clients all are set up that a test makes. Repetitions do not wait."""
    import anthropic._base_client

    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-a-test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(anthropic._base_client, "INITIAL_RETRY_DELAY", 0.0)
    found = Messages()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", found.url)
    yield found
    found.close()
