"""Pictures of a study. They only read the journal; nothing here writes state.

`write_page` is loaded when it is first asked for, so that commands that draw nothing don't wait for plotly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dashboards.page import write_page

__all__ = ["write_page"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dashboards.page import write_page

    return write_page
