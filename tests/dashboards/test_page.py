"""The page: one file, whole or not at all, and deaf to what experiments write into it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from controller.records import Label, Role, UserError
from dashboards import write_page

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '<a href="javascript:alert(3)">click</a>',
    "<img src=x onerror=alert(4)>",
    "--><!--<b>&lt;b&gt;",
)


class Page(HTMLParser):
    """The elements, the scripts and the text of an HTML file, as a browser would see them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    @property
    def figure(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture
def hostile(study: Any) -> Any:
    """A study whose every text tries to break out."""
    study.start()
    everything = " ".join(HOSTILE)
    study.design(
        ("e1", "k0", Role.CONTROL), ("e2", "k<b>", Role.CELL), ("e3", "k<b>", Role.CELL),
        hypothesis=everything, **{"KNOB</script>": everything},
    )  # fmt: skip
    study.run("e1", 1.0, "<b>H100</b>")
    study.run("e2", 0.9, "<b>H100</b>")
    study.run("e3", Label.CRASH)
    study.confirm(("e4", "k<b>", Role.CONFIRMATION), ("e5", "k0", Role.CONTROL))
    study.run("e4", 0.9, "H200")
    study.run("e5", 1.0, "H200")
    study.keep("k<b>", (0.9,), sentence=everything)
    return study


def test_the_page_is_one_file_that_loads_nothing(study: Any, tmp_path: Path) -> None:
    study.start()
    write_page(study.journal, study.tag, tmp_path / "plot.html")
    page = Page(tmp_path / "plot.html")
    assert not [element for element, attributes in page.elements if {"src", "href"} & set(attributes)]
    assert "connect-src" not in policy_of(page)
    assert policy_of(page).startswith("default-src 'none'")


def policy_of(page: Page) -> str:
    (policy,) = [found for element, found in page.elements if element == "meta" and "http-equiv" in found]
    return policy["content"] or ""


def test_only_the_scripts_of_the_page_may_run(hostile: Any, tmp_path: Path) -> None:
    write_page(hostile.journal, hostile.tag, tmp_path / "plot.html")
    page = Page(tmp_path / "plot.html")
    allowed = re.findall("'sha256-([^']+)'", policy_of(page))
    ran = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert allowed == ran
    assert "'unsafe-inline'" not in policy_of(page).partition("script-src")[2].partition(";")[0]


def test_hostile_text_makes_no_elements(hostile: Any, tmp_path: Path) -> None:
    write_page(hostile.journal, hostile.tag, tmp_path / "plot.html")
    page = Page(tmp_path / "plot.html")
    assert len(page.scripts) == 3
    assert not {"a", "img", "b", "i"} & {element for element, _ in page.elements}
    assert "<script>alert(1)</script>" in page.text


def test_hostile_text_reaches_plotly_without_its_markup(hostile: Any, tmp_path: Path) -> None:
    write_page(hostile.journal, hostile.tag, tmp_path / "plot.html")
    figure = Page(tmp_path / "plot.html").figure
    texts = [*figure["texts"], *(note["text"] for note in figure["layout"]["annotations"])]
    texts += [text for trace in figure["data"] for text in (trace["name"], trace.get("hovertemplate", ""))]
    allowed = re.compile(r"</?b>|<br>|<extra></extra>")
    ours = [trace.get("hovertemplate", "") for trace in figure["data"]]
    for text in texts:
        assert "<" not in (allowed.sub("", text) if text in ours else text.replace("<br>", ""))
    assert any("&lt;script&gt;alert(1)&lt;/script&gt;" in text for text in texts)


def test_long_texts_are_bounded(study: Any, tmp_path: Path) -> None:
    study.start()
    study.design(("e1", "k1", Role.CELL), hypothesis="long " * 100_000, KNOB="x" * 100_000)
    study.run("e1", 1.0)
    write_page(study.journal, study.tag, tmp_path / "plot.html")
    assert max(map(len, Page(tmp_path / "plot.html").figure["texts"])) < 1000


def test_the_summary_says_how_good_the_best_is_and_how_sure(hostile: Any, tmp_path: Path) -> None:
    write_page(hostile.journal, hostile.tag, tmp_path / "plot.html")
    text = Page(tmp_path / "plot.html").text
    assert "5 experiments on branch autoresearch/mar5: 4 with a score, 1 failed." in text
    assert "1 candidate kept." in text
    assert "reaches val_bpb 0.9000 on H200 (mean of 1 run), a change of −0.0100 [−0.0150, −0.0050]" in text


@pytest.mark.parametrize("self_reported", [True, False])
def test_the_page_says_once_in_words_that_scores_are_the_trainer_s_own(
    study: Any, tmp_path: Path, self_reported: bool
) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL))
    study.run("e1", 1.0, self_reported=self_reported)
    write_page(study.journal, study.tag, tmp_path / "plot.html")
    text = Page(tmp_path / "plot.html").text
    assert text.count("The scores are self-reported: the trainer's own word, read from its log.") == self_reported


def test_hover_texts_travel_once_and_are_found_again(hostile: Any, tmp_path: Path) -> None:
    write_page(hostile.journal, hostile.tag, tmp_path / "plot.html")
    figure = Page(tmp_path / "plot.html").figure
    indices = [index for trace in figure["data"] for row in trace.get("customdata", ()) for index in row]
    assert len(set(figure["texts"])) == len(figure["texts"]) == len(set(indices)) < len(indices)


def test_a_page_that_can_not_be_written_leaves_the_old_one_and_nothing_else(study: Any, tmp_path: Path) -> None:
    study.start()
    (tmp_path / "plot.html").mkdir()
    with pytest.raises(UserError, match="can't be written"):
        write_page(study.journal, study.tag, tmp_path / "plot.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "plot.html"]


def test_an_old_page_is_replaced(study: Any, tmp_path: Path) -> None:
    study.start()
    path = tmp_path / "plot.html"
    path.write_text("old")
    write_page(study.journal, study.tag, path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "plot.html"]


def test_a_study_that_is_not_there_is_said_in_a_sentence(study: Any, tmp_path: Path) -> None:
    study.start()
    with pytest.raises(UserError, match=r"no study 'other'.*mar5"):
        write_page(study.journal, "other", tmp_path / "plot.html")


def test_drawing_leaves_the_journal_free_for_its_writer(study: Any, tmp_path: Path) -> None:
    study.start()
    write_page(study.journal, study.tag, tmp_path / "plot.html")
    assert not study.journal.db.in_transaction


def test_importing_dashboards_loads_neither_plotly_nor_pandas() -> None:
    script = "import dashboards, dashboards.page, sys; print({'plotly', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
