"""Where the text comes from: Jane Austen, vendored beside this file, or climbmix, downloaded shard by shard.

Both give documents, for training and for validation, that never overlap and are the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prepare.fingerprint import file_hash
from prepare.profile import Profile

if TYPE_CHECKING:
    from tenacity.wait import wait_base

AUSTEN = Path(__file__).with_name("austen.txt.xz")
AUSTEN_SHA256 = "ae4140c6e5ab543cc81f68358120258f0935ac9e27a30f44a7a564b349307867"
SEGMENTS = 16

CLIMBMIX_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST_SHARD = 6542
"""The validation shard, whatever the number of training shards (karpathy/autoresearch pins it too)."""

BLOCK = 2**16
"""Bytes written at a time while downloading; a cut connection costs less than one block."""

Documents = Callable[[], Iterator[str]]


class IncompleteDownload(OSError):
    """The connection ended early, or what arrived is not the file it should be. Trying again may help."""


class ChangedData(ValueError):
    """A file is not the one that was recorded: trying again does not help, and scores would not be comparable."""


def identity(profile: Profile) -> str:
    """Names the text a profile uses, before any of it is read."""
    if profile.corpus == "austen":
        return f"austen {AUSTEN_SHA256} {SEGMENTS}"
    return f"climbmix {profile.train_shards} {LAST_SHARD}"


def documents(profile: Profile, cache: Path) -> tuple[Documents, Documents]:
    """Training and validation documents, each as a function that starts a fresh iterator.

    Climbmix's shards are downloaded to `cache / "data"` if they are not there. Raises ChangedData if a text is not the
    one recorded, requests.RequestException or IncompleteDownload if a download fails for good.
    """
    if profile.corpus == "austen":
        train, val = austen()
        return lambda: iter(train), lambda: iter(val)
    *train_paths, val_path = shards(profile.train_shards, cache / "data")
    return lambda: _parquet_texts(train_paths), lambda: _parquet_texts([val_path])


def austen() -> tuple[list[str], list[str]]:
    """The six novels in 16 segments of equal length, the last sixteenth of each for validation.

    Taking a piece of every segment, not the end of the whole, lets every novel appear on both sides. Pieces begin at
    the beginning of a line. Raises ChangedData if the vendored file is not the one pinned here.
    """
    raw = lzma.decompress(AUSTEN.read_bytes())
    if hashlib.sha256(raw).hexdigest() != AUSTEN_SHA256:
        raise ChangedData(f"{AUSTEN} does not hold the text this version of the project was written for")
    text = raw.decode()
    pieces = SEGMENTS * SEGMENTS
    cuts = [0, *(text.index("\n", len(text) * i // pieces) + 1 for i in range(1, pieces)), len(text)]
    train = [text[cuts[i] : cuts[i + SEGMENTS - 1]] for i in range(0, pieces, SEGMENTS)]
    val = [text[cuts[i + SEGMENTS - 1] : cuts[i + SEGMENTS]] for i in range(0, pieces, SEGMENTS)]
    return train, val


def shards(train_shards: int, directory: Path, base_url: str = CLIMBMIX_URL) -> list[Path]:
    """Paths of the first `train_shards` shards and, last, the validation shard; downloads those missing.

    Every file's sha256 is recorded in `directory / "sha256.json"` when it is first seen and compared from then on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / "sha256.json"
    known: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    paths = []
    for index in [*range(train_shards), LAST_SHARD]:
        path = directory / f"shard_{index:05d}.parquet"
        if not path.exists():
            download(f"{base_url}/{path.name}", path, check=check_parquet)
        digest = file_hash(path)
        if known.setdefault(path.name, digest) != digest:
            raise ChangedData(f"{path} is not the file it was (sha256 in {record}): delete it to download it again")
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        partial.replace(record)
        paths.append(path)
    return paths


def download(
    url: str, path: Path, check: Callable[[Path], None], attempts: int = 8, wait: wait_base | None = None
) -> None:
    """Fetch `url` to `path`, whole or not at all: what has arrived is kept in `path`.partial and continued from there.

    The size must be the one announced and `check` must accept the file, or it is fetched again; `path` appears by an
    atomic rename. wait: tenacity's pause between attempts, by default exponential from 1 s to 60 s. Raises
    IncompleteDownload or requests.RequestException after `attempts`, and at once for an answer like 404.
    """
    import requests
    import tenacity

    def passing(error: BaseException) -> bool:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code in (408, 425, 429) or response.status_code >= 500
        return isinstance(error, (requests.RequestException, IncompleteDownload))

    partial = path.with_name(path.name + ".partial")
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passing),
        wait=wait or tenacity.wait_random_exponential(multiplier=1, max=60),
        stop=tenacity.stop_after_attempt(attempts),
        reraise=True,
    )
    for attempt in retrying:
        with attempt:
            _continue(url, partial)
            try:
                check(partial)
            except IncompleteDownload:
                partial.unlink()
                raise
    partial.replace(path)


def check_parquet(path: Path) -> None:
    """Raises IncompleteDownload unless the file ends in a readable parquet footer."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(path)
    except pyarrow.ArrowException as error:
        raise IncompleteDownload(f"{path.name} is not a whole parquet file: {error}") from None


def _continue(url: str, partial: Path) -> None:
    """One request: append what is missing of `url` to `partial`."""
    import requests

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # a compressed answer's ranges and sizes would not be the file's
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as response:
        if response.status_code == 416:  # nothing is left to send, or the file has become shorter
            if _total_size(response) == have:
                return
            partial.unlink()
            raise IncompleteDownload(f"{url} is no longer the file that was begun")
        response.raise_for_status()
        resumed = response.status_code == 206
        size = _total_size(response)
        with partial.open("ab" if resumed else "wb") as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    if size is not None and partial.stat().st_size != size:
        raise IncompleteDownload(f"{partial.stat().st_size} of {size} bytes of {url}")


def _total_size(response: Any) -> int | None:
    """The whole file's size in bytes, from Content-Range ("bytes 5-9/10") or Content-Length."""
    _, _, total = response.headers.get("Content-Range", "").rpartition("/")
    if total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == 200 and length.isdigit() else None


def _parquet_texts(paths: list[Path]) -> Iterator[str]:
    import pyarrow.parquet

    for path in paths:
        file = pyarrow.parquet.ParquetFile(path)
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=["text"]).column("text").to_pylist()
