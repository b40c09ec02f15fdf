from __future__ import annotations

from pathlib import Path

import pytest

from controller.backends.simulated import load
from controller.backends.simulated.scenario import BUILT_IN, MOST, variants
from controller.records import UserError


def test_a_file_says_what_is_different_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("truth: {noise: 3, good: {count: 4}}\nfaults: {attempts: {late: 0.5}}\n")
    own, built_in = load(file), load()
    assert (own.truth.noise, own.truth.good.count, own.faults.attempts.late) == (3, 4, 0.5)
    back = own.but({"truth": {"noise": 1, "good": {"count": 10}}, "faults": {"attempts": {"late": 0.003}}})
    assert back == built_in
    assert load(BUILT_IN) == built_in
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    assert load(empty) == built_in


def test_a_table_of_accelerators_is_given_whole(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("fleet: {A100: 4}\nprices: {A100: 1.5}\ntruth: {offsets: {}}\n")
    own = load(file)
    assert (own.fleet, own.prices, own.truth.offsets) == ({"A100": 4}, {"A100": 1.5}, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("truth: {sigme: 1}", "there is no key truth.sigme"),
        ("trouble: 1", "there is no key trouble"),
        ("truth: {sigma: 0}", "truth.sigma: input should be greater than 0"),
        ("truth: {sigma: often}", "truth.sigma: input should be a valid number"),
        ("truth: {sigma: .inf}", "truth.sigma: input should be a finite number"),
        ("truth: {crash: 1.5}", "truth.crash: input should be less than or equal to 1"),
        ("truth: {good: {count: -1}}", "truth.good.count: input should be greater than or equal to 0"),
        ("truth: {good: {count: 700}}", "truth: good, slight and nothing together are more than all"),
        ("truth: {crash: 0.6, overtime: 0.6}", "truth: crash and overtime together are more than all"),
        ("truth: 3", "truth: input should be a valid dictionary"),
        ("seconds: {boot: [90, 60]}", "seconds.boot: the first number must not be above the second"),
        ("seconds: {boot: 90}", "seconds.boot: input should be a valid tuple"),
        ("faults: {attempts: {late: 0.6, hangs: 0.6}}", "faults.attempts: the shares together are more than all"),
        ("fleet: {}", "fleet: dictionary should have at least 1 item"),
        ("fleet: {H100: 0}", "fleet.H100: input should be greater than 0"),
        ("prices: {H100: free}", "prices.H100: input should be a valid number"),
        ("- truth", "must be keys with values"),
        ("truth: {sigma: 1", "line 1: expected ',' or '}'"),
        ("a: \x00", "is not YAML"),
    ],
)
def test_a_mistake_is_said_in_a_sentence_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file)
    sentence = str(caught.value)
    assert sentence.startswith(f"the scenario {file}")
    assert said in sentence
    assert "\n" not in sentence


def test_a_file_that_is_not_there_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml can't be read \(No such file.*one of calm, drift, noisy"):
        load(tmp_path / "nowhere.yaml")
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not YAML"):
        load(file)


def test_variants_go_by_their_names_unless_there_is_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(Path("drift")).truth.drift == 2
    Path("drift").write_text("truth: {drift: 5}\n")
    assert load(Path("drift")).truth.drift == 5


def test_each_variant_differs_from_the_built_in_world_as_it_says() -> None:
    built_in, found = load(), {name: load(Path(name)) for name in variants()}
    assert sorted(found) == ["calm", "drift", "noisy", "null", "one_accelerator"]
    assert found["drift"] == built_in.with_truth(drift=2)
    assert found["noisy"] == built_in.with_truth(noise=3)
    assert found["null"] == built_in.with_truth(good={"count": 0}, slight={"count": 0})
    assert found["one_accelerator"] == built_in.but({"fleet": {"H100": 16}})
    assert found["calm"] == built_in.with_faults(0)


def test_faults_become_more_frequent_as_far_as_that_makes_sense() -> None:
    built_in = load()
    assert built_in.with_faults(1) == built_in
    double = built_in.with_faults(2).faults
    assert double.attempts.vanishes == pytest.approx(0.012)
    assert double.preemptions == pytest.approx(0.04)
    assert double.outages.an_hour == pytest.approx(0.2)
    assert double.outages.seconds == built_in.faults.outages.seconds
    most = built_in.with_faults(1e6).faults
    assert sum(share for _, share in most.attempts) == pytest.approx(MOST)
    assert (most.duds, most.never_up) == (MOST, MOST)
    assert built_in.with_faults(0).with_faults(5) == built_in.with_faults(0)


def test_a_fleet_is_shared_out_in_proportion_to_the_last_cluster() -> None:
    built_in = load()
    assert built_in.fleet_of(16) == {"H100": 13, "H200": 3}
    assert built_in.fleet_of(1) == {"H100": 1, "H200": 0}
    assert built_in.fleet_of(1000) == {"H100": 813, "H200": 187}
    for clusters in range(1, 100):
        shares = built_in.fleet_of(clusters)
        assert sum(shares.values()) == clusters
        assert abs(shares["H200"] - clusters * 3 / 16) < 1
