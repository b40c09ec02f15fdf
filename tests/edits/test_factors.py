from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.edits import parse_factor
from controller.records import UserError, Value


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("K=1,2", (1, 2)),
        ("K=0.02, 2e-2,-1", (0.02, -1)),
        ("K=2**19", (524288,)),
        ("K=SSSL,L", ("SSSL", "L")),
        ("K=True,False,None", (True, False, None)),
        ("K=(0.8,0.95),(0.9,0.95)", ((0.8, 0.95), (0.9, 0.95))),
        ("K='a,b',\"(\"", ("a,b", "(")),
        (r"K='it\'s',x", ("it's", "x")),
        ("K=1,1.0,1", (1, 1.0)),
        ("K=flash-attn,a=b", None),
        ("K=relu^2", None),
        ("K=[1,2]", None),
        ("K=1,,2", None),
        ("K=1,", None),
        ("K=", None),
        ("K=(1,2", None),
        ("K='a", None),
        ("K=true", None),
        ("K=9**9**9", None),
        ("K", None),
        ("k=1", None),
        ("=1", None),
        ("K=\0", None),
        ("K=" + "(" * 3000 + ")" * 3000, None),
    ],
)
def test_levels_are_read_as_typed(text: str, levels: tuple[Value, ...] | None) -> None:
    if levels is None:
        with pytest.raises(UserError, match="such as"):
            parse_factor(text)
    else:
        factor = parse_factor(text)
        assert factor.knob == "K"
        assert repr(factor.levels) == repr(levels)


@given(st.text())
def test_any_text_is_a_factor_or_one_sentence(text: str) -> None:
    try:
        assert parse_factor("K=" + text).levels
    except UserError as error:
        assert "\n" not in str(error)
