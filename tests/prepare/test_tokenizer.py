from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prepare import corpus, tokenizer

TEXTS = corpus.austen()[1]


def test_training_is_repeatable_and_survives_the_disk(tmp_path: Path) -> None:
    first = tokenizer.train(TEXTS, 300, tmp_path / "a.tiktoken")
    tokenizer.train(TEXTS, 300, tmp_path / "b.tiktoken")
    assert (tmp_path / "a.tiktoken").read_bytes() == (tmp_path / "b.tiktoken").read_bytes()
    assert tokenizer.load(tmp_path / "a.tiktoken").encode_ordinary(TEXTS[0]) == first.encode_ordinary(TEXTS[0])


def test_the_vocabulary_has_the_size_asked_for_with_specials_last(tmp_path: Path) -> None:
    encoding = tokenizer.train(TEXTS, 300, tmp_path / "a.tiktoken")
    assert encoding.n_vocab == 300
    assert [encoding.encode_single_token(name) for name in tokenizer.SPECIALS] == [296, 297, 298, 299]


def test_too_little_text_for_the_vocabulary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow"):
        tokenizer.train(["to be or not to be"], 300, tmp_path / "a.tiktoken")


def test_token_bytes_add_up_to_the_text_even_where_characters_are_split(tmp_path: Path) -> None:
    encoding = tokenizer.train(TEXTS, 300, tmp_path / "a.tiktoken")
    lengths = tokenizer.token_bytes(encoding)
    text = "£ 20, ein Häuschen, 漢字, \N{GRINNING FACE}, <|reserved_1|>"
    stream = tokenizer.encode(encoding, [text, text])
    assert lengths[stream].sum() == 2 * len(text.encode())
    assert lengths[-4:].tolist() == [0] * 4
    assert np.count_nonzero(stream >= 296) == 2


def test_every_document_begins_with_bos_and_can_be_read_back(tmp_path: Path) -> None:
    encoding = tokenizer.train(TEXTS, 300, tmp_path / "a.tiktoken")
    stream = tokenizer.encode(encoding, ["Emma", "", "Anne"])
    assert stream.dtype == np.uint16
    assert encoding.decode(stream.tolist()) == "<|reserved_0|>Emma<|reserved_0|><|reserved_0|>Anne"
