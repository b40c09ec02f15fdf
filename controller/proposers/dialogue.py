"""A dialogue with a language model: it looks things up, proposes, corrects, and comes to an end in any case."""

from __future__ import annotations

from collections.abc import Sequence

from controller.proposers.api import Answer, Api, Block, Spent, Unavailable
from controller.proposers.prompt import CACHED
from controller.proposers.tools import TOOLS, Desk

TURNS = 24
HURRY = 4
"""Turns before the last at which it is told to come to an end."""
MOST_USES = 16
"""Tools used in one turn."""


async def converse(api: Api, desk: Desk, system: Sequence[Block], first: Block) -> str:
    """Lead a dialogue that begins with the message `first`, until nothing more is to be had from it; returns why.

    Whatever `desk` has accepted by then counts. Raises Unavailable where that is nothing because there was no answer.
    """
    messages = [first]
    told: set[str] = set()

    def once(what: str, text: str) -> list[Block]:
        """The text, the first time; nothing after that."""
        if what in told:
            return []
        told.add(what)
        return [{"type": "text", "text": text}]

    for turn in range(TURNS):
        try:
            answer = await api.ask(system, TOOLS, _marked(messages))
        except Unavailable as error:
            if not desk.accepted and not (isinstance(error, Spent) and turn):
                raise
            return str(error)
        blocks = _whole_ones(answer)
        if blocks:
            messages.append({"role": "assistant", "content": blocks})
        reply = _results(answer, blocks, desk)
        match answer.stop:
            case "pause_turn":
                continue
            case "refusal":
                if not desk.accepted:
                    about = f" ({answer.category})" if answer.category else ""
                    raise Unavailable(f"the model refuses to answer{about}")
                return "it refused to go on"
            case "max_tokens":
                reply += once("cut", "Your answer was cut off, as it was too long. Go on in shorter steps.")
            case "tool_use":
                pass
            case _ if not desk.accepted:
                nothing = "Nothing is proposed that may run. Call `propose`; or end your turn if you have no idea left."
                reply += once("nothing", nothing)
        if desk.full:
            return "the wave is full"
        if desk.hopeless:
            return "too much of it was refused"
        if not reply:
            return "it has no more to say"
        if turn >= TURNS - 1 - HURRY:
            reply += once("hurry", f"You have {TURNS - 1 - turn} turns left: propose now what you have.")
        messages.append({"role": "user", "content": reply})
    return f"{TURNS} turns are enough"


def _whole_ones(answer: Answer) -> list[Block]:
    """The blocks of an answer, without the last one where that was cut off and is more than a text."""
    blocks = list(answer.blocks)
    if answer.stop == "max_tokens" and blocks and blocks[-1]["type"] != "text":
        blocks.pop()
    return blocks


def _results(answer: Answer, blocks: Sequence[Block], desk: Desk) -> list[Block]:
    found: list[Block] = []
    for number, block in enumerate(block for block in blocks if block["type"] == "tool_use"):
        if number >= MOST_USES:
            text, wrong = f"only {MOST_USES} tools can be used in one turn", True
        elif broken := answer.broken.get(block["id"]):
            text, wrong = f"{broken}; send them again", True
        else:
            text, wrong = desk.use(block["name"], block["input"])
        result: Block = {"type": "tool_result", "tool_use_id": block["id"], "content": text}
        found.append({**result, "is_error": True} if wrong else result)
    return found


def _marked(messages: Sequence[Block]) -> list[Block]:
    """The messages, up to the last of which the next turn will find everything in the cache."""
    *before, last = messages
    if last["role"] != "user":
        return list(messages)
    *blocks, end = last["content"]
    return [*before, {**last, "content": [*blocks, {**end, "cache_control": CACHED}]}]
