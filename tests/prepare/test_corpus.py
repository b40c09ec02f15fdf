from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import tenacity

from prepare import corpus
from prepare.corpus import BLOCK, ChangedData, IncompleteDownload

NO_PAUSE = tenacity.wait_none()


class Server(ThreadingHTTPServer):
    """Serves `files`, with Range; breaks off the first answers after as many body bytes as `cuts` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if begin >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        body = content[begin:]
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests have nothing to say on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import pyarrow
    import pyarrow.parquet

    words = np.random.default_rng(0).integers(0, 10**9, (600, 50)).astype(str)
    path = tmp_path_factory.mktemp("shard") / "shard.parquet"
    table = pyarrow.table({"text": [" ".join(line) for line in words]})
    pyarrow.parquet.write_table(table, path, row_group_size=64)
    return path.read_bytes()


def accept(path: Path) -> None:
    """No check."""


def refuse_first(times: int) -> Callable[[Path], None]:
    left = [times]

    def check(path: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise IncompleteDownload("damaged")

    return check


def test_austen_is_split_without_overlap_and_every_sixteenth_is_held_out() -> None:
    train, val = corpus.austen()
    assert len(train) == len(val) == 16
    assert sum(map(len, train)) == pytest.approx(15 * sum(map(len, val)), rel=1e-2)
    assert len("".join(a + b for a, b in zip(train, val, strict=True)).encode()) == 4_025_033


def test_another_text_than_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "AUSTEN_SHA256", "0" * 64)
    with pytest.raises(ChangedData):
        corpus.austen()


def test_a_cut_download_is_continued_where_it_broke_off(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"], server.cuts = shard, [BLOCK + 1000, 0, BLOCK + 1000]
    corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert (tmp_path / "a").read_bytes() == shard
    assert server.asked == [None, f"bytes={BLOCK}-", f"bytes={BLOCK}-", f"bytes={2 * BLOCK}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_later_process_continues_what_an_earlier_one_left(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"], server.cuts = shard, [BLOCK + 1000, BLOCK + 1000]
    with pytest.raises((requests.RequestException, IncompleteDownload)):
        corpus.download(f"{server.url}/a", tmp_path / "a", accept, attempts=2, wait=NO_PAUSE)
    assert not (tmp_path / "a").exists()
    corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert (tmp_path / "a").read_bytes() == shard
    assert server.asked[-1] == f"bytes={2 * BLOCK}-"


def test_a_server_without_ranges_is_read_from_the_start_again(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"], server.cuts, server.ranges = shard, [1000], False
    corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert (tmp_path / "a").read_bytes() == shard


def test_a_whole_but_unrenamed_file_is_not_fetched_again(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"] = shard
    (tmp_path / "a.partial").write_bytes(shard)
    corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert (tmp_path / "a").read_bytes() == shard
    assert server.asked == [f"bytes={len(shard)}-"]


def test_leftovers_longer_than_the_file_are_thrown_away(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"] = shard
    (tmp_path / "a.partial").write_bytes(shard + b"more")
    corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert (tmp_path / "a").read_bytes() == shard


def test_a_file_that_fails_its_check_is_fetched_anew(server: Server, shard: bytes, tmp_path: Path) -> None:
    server.files["a"] = shard
    corpus.download(f"{server.url}/a", tmp_path / "a", refuse_first(2), wait=NO_PAUSE)
    assert server.asked == [None] * 3


def test_a_file_that_is_not_there_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        corpus.download(f"{server.url}/a", tmp_path / "a", accept, wait=NO_PAUSE)
    assert len(server.asked) == 1


def test_a_truncated_parquet_file_is_recognised(shard: bytes, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(shard)
    corpus.check_parquet(tmp_path / "good")
    (tmp_path / "bad").write_bytes(shard[:-100])
    with pytest.raises(IncompleteDownload, match="parquet"):
        corpus.check_parquet(tmp_path / "bad")


def test_shards_are_downloaded_once_and_compared_ever_after(server: Server, shard: bytes, tmp_path: Path) -> None:
    names = ["shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"]
    server.files = dict.fromkeys(names, shard)
    paths = corpus.shards(2, tmp_path, server.url)
    assert [path.name for path in paths] == names
    assert list(json.loads((tmp_path / "sha256.json").read_text())) == names

    corpus.shards(2, tmp_path, server.url)
    assert len(server.asked) == 3

    paths[1].write_bytes(shard + b"more")
    with pytest.raises(ChangedData, match="shard_00001"):
        corpus.shards(2, tmp_path, server.url)


def test_texts_are_read_from_shards_in_order(shard: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(shard)
    texts = list(corpus._parquet_texts([path, path]))
    assert len(texts) == 1200
    assert texts[:600] == texts[600:]
