"""One way to a language model: Anthropic's Messages API through its own SDK, with every token accounted for.

Answers are streamed, and put together here rather than by the SDK's helper, which gives up an answer, and what it says
of its cost, over one malformed argument of a tool. The SDK repeats what may be repeated (rate limits, overload, errors
of the server, connections that fail), as late as `retry-after` asks for. An answer that is cut off on its way is asked
for again here.

What was billed is what the interface says. Where it had no time to, a call counts as the most that it can have cost: an
answer cut off as if it had been as long as it might be, a question of which nobody knows whether it arrived as answered
so. A token holds a byte at least, so that bytes bound what a question costs before it is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from controller.proposers.prices import Meter, Tokens
from controller.text import clip

if TYPE_CHECKING:
    from anthropic import (
        APIConnectionError,
        APIError,
        APIRequest,
        AsyncAnthropic,
        AsyncAPIResponse,
        AsyncCallNext,
    )
    from anthropic.types import MessageParam, RawMessageStreamEvent, TextBlockParam, ToolParam

Block = dict[str, Any]
"""A content block of a message, as it is sent."""

RETRIES = 4
"""Times that the SDK repeats a request which was not answered."""
CUTS = 2
"""Times that an answer which was cut off is asked for again."""
SILENCE_SECONDS = 120.0
"""The longest that nothing may come: a streamed answer is kept alive by pings."""
CONNECT_SECONDS = 10.0
MOST_ANSWER = 32_000
"""Tokens of one answer, thinking included."""
LEAST_ANSWER = 3_000
"""With fewer an answer would be cut off before it says anything."""
UNSEEN = 2_000
"""Tokens of a question that the interface adds to what is sent."""


class Unavailable(Exception):
    """The language model gives no answer; the message is a sentence that says why."""


class Spent(Unavailable):
    """What is left of the call's money does not pay for another answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its blocks, as they are sent back, and why it ended.

    `broken` says of each use of a tool whose arguments could not be read why; `category` why it was refused, if so.
    """

    blocks: tuple[Block, ...]
    stop: str
    broken: Mapping[str, str]
    category: str = ""


class Api:
    """One conversation's way to the model; to be entered and left, as it holds a connection."""

    def __init__(self, model: str, effort: str | None, meter: Meter, *, silence: float = SILENCE_SECONDS) -> None:
        self._model = model
        self._effort = effort
        self._meter = meter
        self._silence = silence
        self._known = 0
        """Tokens of the conversation up to its last answer."""
        self._worst = 0.0
        self._client: AsyncAnthropic

    async def __aenter__(self) -> Api:
        from anthropic import AsyncAnthropic, Timeout

        timeout = Timeout(self._silence, connect=CONNECT_SECONDS)
        self._client = AsyncAnthropic(max_retries=RETRIES, timeout=timeout, middleware=[self._watch])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, system: Sequence[Block], tools: Sequence[Block], messages: Sequence[Block]) -> Answer:
        """The next answer. Raises Spent where it might cost more than is left, Unavailable where there is none."""
        for left in reversed(range(CUTS + 1)):
            try:
                return await self._ask(system, tools, messages)
            except _Cut as error:
                if not left:
                    raise Unavailable(f"{self._model} does not end its answers: {error}") from None
        raise AssertionError("unreachable")

    async def _ask(self, system: Sequence[Block], tools: Sequence[Block], messages: Sequence[Block]) -> Answer:
        from anthropic import APIError

        question = self._tokens_at_most(system, tools, messages)
        most = min(MOST_ANSWER, self._meter.affordable_answer(question))
        if most < LEAST_ANSWER:
            raise Spent(f"another answer may cost more than the {self._meter.left:.2f} dollars that are left of a call")
        self._worst = self._meter.worst(question, most)
        options: dict[str, Any] = {"output_config": {"effort": self._effort}} if self._effort else {}
        if not _thinks_by_budget(self._model):
            options["thinking"] = {"type": "adaptive"}
        try:
            stream = await self._client.messages.create(
                model=self._model,
                max_tokens=most,
                system=cast("list[TextBlockParam]", system),
                tools=cast("list[ToolParam]", tools),
                messages=cast("list[MessageParam]", messages),
                stream=True,
                **options,
            )
        except APIError as error:
            raise Unavailable(_sentence(error, self._model)) from None
        except UnicodeError:
            raise Unavailable("the conversation holds half a character, and cannot be sent") from None
        reader = _Reader()
        try:
            async with stream:
                await _read(stream, reader)
        finally:
            self._account(reader, most)
        self._known = reader.tokens.question + reader.tokens.output
        return reader.answer()

    def _tokens_at_most(self, system: Sequence[Block], tools: Sequence[Block], messages: Sequence[Block]) -> int:
        if not self._known:
            return _bytes([*system, *tools, *messages]) + UNSEEN
        new = messages[max((at for at, one in enumerate(messages) if one["role"] == "assistant"), default=-1) + 1 :]
        return self._known + _bytes(new) + UNSEEN

    def _account(self, reader: _Reader, most: int) -> None:
        meter = self._meter
        if reader.ended:
            meter.tokens += reader.tokens
        elif reader.begun:
            asked = reader.tokens
            meter.tokens += Tokens(asked.input, 0, asked.stored, asked.cached)
            meter.unknown += meter.worst(0, most)
        else:
            meter.unknown += self._worst

    async def _watch(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        """Between the SDK's repetitions and each single request: books what may have been billed unseen."""
        from anthropic import APIConnectionError

        try:
            return await call_next(request)
        except asyncio.CancelledError:
            self._meter.unknown += self._worst
            raise
        except APIConnectionError as error:
            if not _never_arrived(error):
                self._meter.unknown += self._worst
                if self._meter.left < self._worst:
                    raise Unavailable(_sentence(error, self._model)) from None
            raise


class _Cut(Exception):
    """An answer was cut off on its way."""


class _Reader:
    """An answer while it comes."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.begun = False
        self._stop = ""
        self._category = ""
        self._blocks: dict[int, Block] = {}
        self._arguments: dict[int, list[str]] = {}

    @property
    def ended(self) -> bool:
        """Whether it came to its end, and has said what it cost."""
        return self.begun and bool(self._stop)

    def take(self, event: RawMessageStreamEvent) -> None:
        match event.type:
            case "message_start":
                self.begun = True
                self._count(event.message.usage)
            case "content_block_start":
                self._blocks[event.index] = event.content_block.to_dict()
            case "content_block_delta" if event.index in self._blocks:
                self._add(event.index, event.delta)
            case "message_delta":
                self._count(event.usage)
                self._stop = event.delta.stop_reason or ""
                self._category = getattr(event.delta.stop_details, "category", None) or ""

    def answer(self) -> Answer:
        blocks, broken = [], {}
        for at, block in sorted(self._blocks.items()):
            if block["type"] == "tool_use":
                block["input"], wrong = _arguments("".join(self._arguments.get(at, [])), block.get("input"))
                if wrong:
                    broken[str(block["id"])] = wrong
            # The interface refuses a text without text, though it may have sent one.
            if block["type"] != "text" or str(block.get("text", "")).strip():
                blocks.append(_as_sent(block))
        return Answer(tuple(blocks), self._stop, broken, self._category)

    def _add(self, at: int, delta: Any) -> None:
        block = self._blocks[at]
        match delta.type:
            case "text_delta":
                block["text"] = block.get("text", "") + delta.text
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta.thinking
            case "signature_delta":
                block["signature"] = delta.signature
            case "input_json_delta":
                self._arguments.setdefault(at, []).append(delta.partial_json)

    def _count(self, usage: Any) -> None:
        """Take in what is said of tokens: each number is a total, and what is left out stays as it was."""

        def said(name: str, before: int) -> int:
            found = getattr(usage, name, None)
            return max(0, int(found)) if isinstance(found, int | float) else before

        self.tokens = Tokens(
            said("input_tokens", self.tokens.input),
            said("output_tokens", self.tokens.output),
            said("cache_creation_input_tokens", self.tokens.stored),
            said("cache_read_input_tokens", self.tokens.cached),
        )


async def _read(stream: Any, reader: _Reader) -> None:
    """Read an answer to its end. Raises _Cut where it does not come to it."""
    from anthropic import APIError
    from httpx2 import HTTPError, StreamError

    try:
        async for event in stream:
            reader.take(event)
    except (APIError, HTTPError, StreamError, ValueError, AttributeError, TypeError) as error:
        if not reader.ended:
            raise _Cut(clip(str(error) or type(error).__name__, 200)) from None
    if not reader.ended:
        raise _Cut("the connection was closed")


def _arguments(text: str, at_once: object) -> tuple[dict[str, Any], str]:
    """A tool's arguments, and why they could not be read."""
    if not text.strip():
        return (dict(at_once), "") if isinstance(at_once, Mapping) else ({}, "")
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half a character could not be sent back
    except (ValueError, RecursionError) as error:
        return {}, f"the arguments are no JSON ({clip(str(error), 120)})"
    return (found, "") if isinstance(found, dict) else ({}, "the arguments are no JSON object")


def _as_sent(block: Block) -> Block:
    """A block as it is sent back: without what the interface only says."""
    kept = {
        "text": ("type", "text"),
        "thinking": ("type", "thinking", "signature"),
        "tool_use": ("type", "id", "name", "input"),
    }.get(block["type"])
    return block if kept is None else {key: block[key] for key in kept if key in block}


def _bytes(blocks: Sequence[Block]) -> int:
    return sum(len(json.dumps(block, ensure_ascii=False).encode(errors="replace")) for block in blocks)


def _thinks_by_budget(model: str) -> bool:
    """Whether it is one of those that know no adaptive thinking."""
    return "-4-5" in model


def _never_arrived(error: APIConnectionError) -> bool:
    from httpx2 import ConnectError, ConnectTimeout, PoolTimeout

    return isinstance(error.__cause__, ConnectError | ConnectTimeout | PoolTimeout)


def _sentence(error: APIError, model: str) -> str:
    """What went wrong, for a person."""
    from anthropic import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return f"{model} did not answer in time"
    if isinstance(error, APIConnectionError):
        return f"{model} cannot be reached: {clip(str(error.__cause__ or error), 160)}"
    if not isinstance(error, APIStatusError):
        return f"{model} gave no answer: {clip(error.message, 200)}"
    said = clip(error.api_message or error.message, 200)
    match error.status_code:
        case 401 | 403:
            return f"the key for {model} was refused; set another in ANTHROPIC_API_KEY ({said})"
        case 404:
            return f"there is no model {model} to be had with this key; name another in program.md under llm ({said})"
        case 429:
            return f"{model} was asked too often, even after {RETRIES} pauses ({said})"
        case code if code >= 500:
            return f"{model} is overloaded or out of order, even after {RETRIES} pauses ({code}: {said})"
        case code:
            return f"{model} takes no such question ({code}: {said})"
