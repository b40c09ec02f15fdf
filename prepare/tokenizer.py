"""Byte-pair encoding: trained with rustbpe, kept as tiktoken's plain text file, used as a tiktoken encoding.

The last four ids are special tokens, `<|reserved_0|>` to `<|reserved_3|>`; the first stands before every document.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tiktoken

SPECIALS = tuple(f"<|reserved_{i}|>" for i in range(4))
BOS = SPECIALS[0]

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""Where merges may not cross. GPT-4's pattern, but numbers in groups of two: small vocabularies waste ids on three."""


def train(texts: Iterable[str], vocab_size: int, path: Path) -> tiktoken.Encoding:
    """Learn merges from `texts`, write them to `path` (one "base64 rank" a line) and return the encoding.

    Deterministic in the texts and their order. Raises ValueError if the texts hold too few different pairs.
    """
    import rustbpe

    learner = rustbpe.Tokenizer()
    learner.train_from_iterator(iter(texts), vocab_size - len(SPECIALS), pattern=PATTERN)
    ranks = [(bytes(token), rank) for token, rank in learner.get_mergeable_ranks()]
    if len(ranks) != vocab_size - len(SPECIALS):
        raise ValueError(f"the texts allow {len(ranks)} tokens, {vocab_size - len(SPECIALS)} were asked for")
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks))
    return load(path)


def load(path: Path) -> tiktoken.Encoding:
    """The encoding written by `train`."""
    import tiktoken

    lines = (line.split() for line in path.read_text().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    return tiktoken.Encoding(path.stem, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def token_bytes(encoding: tiktoken.Encoding) -> NDArray[np.int32]:
    """Length in bytes of every token's text, [vocab_size]; 0 for special tokens, which stand for no text.

    Taken from the token's own bytes: a token may be part of a character, and decoding it to a string would count the
    replacement character instead.
    """
    lengths = np.zeros(encoding.n_vocab, np.int32)
    for token in range(encoding.n_vocab - len(SPECIALS)):
        lengths[token] = len(encoding.decode_single_token_bytes(token))
    return lengths


def encode(encoding: tiktoken.Encoding, documents: list[str]) -> NDArray[np.uint16]:
    """All documents as one stream of tokens, each after a BOS; text that looks like a special token is only text."""
    bos = encoding.encode_single_token(BOS)
    streams = encoding.encode_ordinary_batch(documents)
    return np.concatenate([np.array([bos, *stream], np.uint16) for stream in streams])
