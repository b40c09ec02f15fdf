"""Agents that drive us from outside: what they can do, as commands and over MCP. `SKILL.md` teaches it to them."""

from controller.agents.answers import answer
from controller.agents.driving import brief_of, submit, wait_for

__all__ = ["answer", "brief_of", "submit", "wait_for"]
