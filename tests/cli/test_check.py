"""`autoresearch check`: what so many clusters would get of Kubernetes, and what is missing, for people and machines.

The API server is the made-up one of tests/k8s: no real cluster was at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import controller.infra
from controller.cli import main
from controller.records import NothingRan
from tests.cli.conftest import Said
from tests.foreign import commit, workspace
from tests.k8s.apiserver import World, kubeconfig, node, pod, quota, served

Check = Callable[..., Said]
Serve = Callable[..., None]

TWO_KINDS = World([node("a"), node("b"), node("c", "H200")], [pod("one", "a", 3), pod("two", "c", 5)])
GKE = "cloud.google.com/gke-accelerator"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "KUBECONFIG", "SKYPILOT_GLOBAL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(controller.infra, "enabled_infras", lambda: ["Kubernetes", "Slurm"])


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves worlds, each as the context of its name, of which the first is the current one."""
    with ExitStack() as stack:

        def start(**worlds: World) -> None:
            urls = {name: stack.enter_context(served(world)).url for name, world in worlds.items()}
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", urls)))

        yield start


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The command in this process, outside a workspace unless told otherwise."""

    def run(*arguments: str, root: Path = tmp_path) -> Said:
        done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), "check", *arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    return run


def made(root: Path, experiment: object = None, program: str = "") -> Path:
    """A workspace with this experiment.yaml and program.md."""
    workspace(root)
    said = experiment if isinstance(experiment, str) else yaml.safe_dump(experiment)
    commit(root, {"program.md": program or "# Research\n", **({"experiment.yaml": said} if experiment else {})})
    return root


def sky_config(home: Path, config: object) -> None:
    (home / "home/.sky").mkdir(parents=True)
    (home / "home/.sky/config.yaml").write_text(yaml.safe_dump(config))


def test_as_a_user_gives_it(run_process: Callable[..., Said], serve: Serve, tmp_path: Path) -> None:
    serve(prod=TWO_KINDS)
    said = run_process("check", "--clusters", "16", cwd=tmp_path, env={"SKYPILOT_API_SERVER_ENDPOINT": NOWHERE})
    first, *lines = said.out.splitlines()
    # That SkyPilot can't be asked keeps nobody from looking.
    assert first.startswith("SkyPilot's API server can't be reached (") and "Traceback" not in said.err
    assert lines == [
        "context prod, namespace default, current",
        "  accelerator  nodes  GPUs  used  free",
        "  H100             2    16     3    13",
        "  H200             1     8     5     3",
        "  `--clusters 16` would get 13 H100 and 3 H200",
    ]
    assert said.code == 0


def test_without_a_kubeconfig(check: Check) -> None:
    said = check()
    assert said.out.splitlines() == [
        "SkyPilot has access to Kubernetes, Slurm",
        "there is no kubeconfig at ~/.kube/config: put your cluster's there, or set KUBECONFIG to it",
        "`--clusters 16` would get nothing now",
    ]
    assert (said.code, said.err) == (1, "autoresearch: not so many clusters can be had now\n")


@pytest.mark.parametrize(
    ("world", "arguments", "code", "lines"),
    [
        (TWO_KINDS, ["--clusters", "1"], 0, ["  `--clusters 1` would get 1 H100"]),
        (
            TWO_KINDS,
            ["--clusters", "17"],
            1,
            ["  `--clusters 17` would get 13 H100 and 3 H200 now; 1 H100 or H200 is lacking"],
        ),
        (
            World([node("a")], quotas=[quota(8, 6)]),
            [],
            1,
            [
                "  `--clusters 16` would get 2 H100 now; 14 H100 or H200 are lacking",
                "  - quota gpus leaves 2 of the 8 GPUs of namespace default: have it raised, or give back what is used",
            ],
        ),
        (
            World([node("a"), node("b", "NVIDIA-H100-PCIe")]),
            [],
            1,
            [
                "  `--clusters 16` would get 8 H100 now; 8 H100 or H200 are lacking",
                "  - 1 node is not counted, as SkyPilot finds H100 under one label only, and passes over"
                " nvidia.com/gpu.product=NVIDIA-H100-PCIe: to have all, label each node with GPUs by SkyPilot's own"
                " skypilot.co/accelerator, such as h100",
            ],
        ),
        (
            World([node(name, labels={GKE: f"nvidia-h100-{name}80gb"}) for name in ("", "mega-")]),
            ["--clusters", "8"],
            0,
            [
                "  `--clusters 8` would get 8 H100",
                f"  - 1 node is not counted, as SkyPilot finds H100 under one label only, and passes over"
                f" {GKE}=nvidia-h100-mega-80gb: ask for H100-MEGA-80GB in experiment.yaml, too",
            ],
        ),
    ],
)
def test_what_is_said_of_a_context(
    world: World, arguments: Sequence[str], code: int, lines: list[str], serve: Serve, check: Check
) -> None:
    serve(prod=world)
    said = check(*arguments)
    assert said.code == code
    assert said.out.splitlines()[-len(lines) :] == lines


def test_what_is_in_use_may_be_unknown(serve: Serve, check: Check) -> None:
    serve(prod=World([node("a")], refuses={"/api/v1/pods": 403}))
    said = check("--clusters", "8")
    assert "  H100             1     8     ?     ?" in said.out.splitlines()
    assert "`--clusters 8` would get at most 8 H100" in said.out and said.code == 0


def test_contexts_add_up(serve: Serve, check: Check, tmp_path: Path) -> None:
    serve(one=World([node("a")]), two=World([node("a", "H200")]), three=World(refuses={"/api/v1/nodes": 403}))
    sky_config(tmp_path, {"kubernetes": {"allowed_contexts": ["one", "two"]}})
    said = check()
    assert said.code == 0
    assert said.out.splitlines()[-1] == "in all, `--clusters 16` would get 8 H100 and 8 H200"
    assert "  - you may not list nodes (" in said.out and "  - SkyPilot does not use context three: " in said.out
    said = check("--context", "two", "--clusters", "8")
    assert said.code == 0 and "context one" not in said.out
    assert check("--context", "two", "--clusters", "9").code == 1


def test_only_the_current_context_counts_unless_skypilot_is_told(
    serve: Serve, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(one=World([node("a")]), two=World([node("a", "H200")]))
    said = check("--clusters", "9")
    assert said.code == 1 and "name it under kubernetes.allowed_contexts in ~/.sky/config.yaml" in said.out
    assert check("--clusters", "8").code == 0
    assert check("--context", "two", "--clusters", "1").code == 1
    monkeypatch.setenv("SKYPILOT_ALLOW_ALL_KUBERNETES_CONTEXTS", "1")
    assert check("--clusters", "16").code == 0


def test_the_names_of_the_json_object(serve: Serve, check: Check) -> None:
    serve(prod=World([node("a"), node("b", "H200", cordoned=True)], [pod("p", "a", 2)], quotas=[quota(9, 1)]))
    said = check("--json", "--clusters", "6")
    assert said.code == 0 and said.err == ""
    assert json.loads(said.out) == {
        "infras": ["Kubernetes", "Slurm"],
        "clusters": 6,
        "accelerators": {"H100": 1, "H200": 1},
        "fleet": None,
        "contexts": [
            {
                "context": "prod",
                "namespace": "default",
                "current": True,
                "usable": True,
                "accelerators": [
                    {
                        "accelerator": "H100",
                        "label": "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3",
                        "nodes": 1,
                        "gpus": 8,
                        "used": 2,
                        "free": 6,
                        "closed": {},
                    },
                    {
                        "accelerator": "H200",
                        "label": "nvidia.com/gpu.product=NVIDIA-H200",
                        "nodes": 1,
                        "gpus": 8,
                        "used": 0,
                        "free": 0,
                        "closed": {"b": "cordoned"},
                    },
                ],
                "quota": {"hard": 9, "used": 1},
                "gets": {"H100": 6},
                "lacks": {},
                "exact": True,
                "enough": True,
                "problems": [
                    "1 node (b) is cordoned, so none of 8 GPUs there is free: `kubectl uncordon NODE` opens one again"
                ],
            }
        ],
        "gets": {"H100": 6},
        "lacks": {},
        "exact": True,
        "enough": True,
        "problems": [],
    }


def test_json_says_what_is_wrong_too(check: Check) -> None:
    said = check("--json")
    found = json.loads(said.out)
    assert said.code == 1 and found["contexts"] == [] and found["lacks"] == {"H100 or H200": 16}
    assert [problem.partition(":")[0] for problem in found["problems"]] == ["there is no kubeconfig at ~/.kube/config"]


@pytest.mark.parametrize(
    ("resources", "clusters", "said"),
    [
        ({"accelerators": {"H100": 1, "H200": 1}}, 16, "would get 13 H100 and 3 H200"),
        ({"accelerators": "H200:1"}, 3, "would get 3 H200"),
        ({"accelerators": "H100"}, 13, "would get 13 H100"),
        ({"accelerators": ["H100:4", "H200:2"]}, 4, "would get 1 H200 and 3 H100"),
        ({"any_of": [{"accelerators": "H200:1"}, {"accelerators": "H100:1"}]}, 4, "would get 3 H200 and 1 H100"),
        ({"cpus": 4}, 16, "would get 13 H100 and 3 H200"),
        (None, 16, "would get 13 H100 and 3 H200"),
    ],
)
def test_a_workspace_says_what_a_cluster_has(
    resources: dict[str, Any] | None, clusters: int, said: str, serve: Serve, check: Check, tmp_path: Path
) -> None:
    serve(prod=TWO_KINDS)
    root = made(tmp_path / "w", {"resources": resources, "run": "python train.py"} if resources else None)
    found = check("--clusters", str(clusters), root=root)
    assert f"`--clusters {clusters}` {said}\n" in found.out and found.code == 0, found


def test_the_gpus_of_a_cluster_are_on_one_node(serve: Serve, check: Check, tmp_path: Path) -> None:
    serve(prod=TWO_KINDS)
    root = made(tmp_path / "w", {"resources": {"accelerators": "H100:8"}})
    assert (
        "would get 1 H100 now, each with all its GPUs on one node; 1 H100 is lacking"
        in check("--clusters", "2", root=root).out
    )


@pytest.mark.parametrize(
    ("fleet", "arguments", "said", "code"),
    [
        ("{H100: 13, H200: 3}", [], "`--clusters 16` would get 13 H100 and 3 H200\n", 0),
        ("{H100: 8, H200: 8}", [], "would get 8 H100 and 3 H200 now; 5 H200 are lacking\n", 1),
        ("{H100: 13, H200: 3}", ["--clusters", "4"], "`--clusters 4` would get 3 H100 and 1 H200\n", 0),
    ],
)
def test_a_fleet_is_to_be_had_as_it_is_named(
    fleet: str, arguments: list[str], said: str, code: int, serve: Serve, check: Check, tmp_path: Path
) -> None:
    serve(prod=TWO_KINDS)
    root = made(tmp_path / "w", program=f"---\nfleet: {fleet}\n---\n")
    found = check(*arguments, root=root)
    assert said in found.out and found.code == code


def test_what_pods_are_set_to_tolerate(serve: Serve, check: Check, tmp_path: Path) -> None:
    taint = {"key": "team", "value": "vision", "effect": "NoSchedule"}
    serve(prod=World([node("a", taints=[taint])]))
    tolerant = {"kubernetes": {"pod_config": {"spec": {"tolerations": [{"key": "team", "operator": "Exists"}]}}}}
    assert check("--clusters", "1").code == 1
    root = made(tmp_path / "w", {"resources": {"accelerators": "H100:1"}, "config": tolerant})
    assert check("--clusters", "1", root=root).code == 0
    sky_config(tmp_path, tolerant)
    assert check("--clusters", "1").code == 0


@pytest.mark.parametrize("config", ["text", {"kubernetes": 3}, {"kubernetes": {"allowed_contexts": 7}}, []])
def test_settings_of_skypilot_that_make_no_sense(config: object, serve: Serve, check: Check, tmp_path: Path) -> None:
    serve(prod=World([node("a")]))
    sky_config(tmp_path, config)
    assert check("--clusters", "1").code in (0, 1)


def test_kubernetes_that_skypilot_does_not_use(serve: Serve, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(prod=World([node("a")]))
    monkeypatch.setattr(controller.infra, "enabled_infras", lambda: ["AWS"])
    said = check("--clusters", "1")
    assert said.code == 0, "nobody can say that AWS has none"
    assert said.out.splitlines()[:3] == [
        "SkyPilot has access to AWS",
        "SkyPilot has no access to Kubernetes; `sky check k8s` says why",
        "AWS: what is free there is not looked into; `sky gpus list --infra AWS` may say",
    ]


def test_who_has_another_infra_needs_no_kubeconfig(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.infra, "enabled_infras", lambda: ["slurm"])
    said = check("--clusters", "16")
    assert (said.code, said.out.splitlines()) == (
        0,
        [
            "SkyPilot has access to slurm",
            "slurm: what is free there is not looked into; `sky gpus list --infra slurm` may say",
        ],
    )


def test_no_infra_at_all(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.infra, "enabled_infras", lambda: [])
    said = check("--clusters", "16")
    assert said.code == 1
    assert "SkyPilot has access to no infra; `sky check` says what each one needs" in said.out.splitlines()


def test_skypilot_that_can_not_be_asked(serve: Serve, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> list[str]:
        raise NothingRan("SkyPilot is away")

    serve(prod=World([node("a")]))
    monkeypatch.setattr(controller.infra, "enabled_infras", unreachable)
    said = check("--clusters", "1", "--json")
    found = json.loads(said.out)
    assert said.code == 0 and found["infras"] is None and found["problems"] == ["SkyPilot is away"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--context", "nowhere"], "the kubeconfig has no context nowhere; it has prod"),
        (["--clusters", "0"], "invalid value for '--clusters': 0 is not in the range x>=1"),
        (["--clusters", "many"], "invalid value for '--clusters'"),
        (["spare"], "got unexpected extra argument (spare)"),
    ],
)
def test_mistakes(arguments: list[str], said: str, serve: Serve, check: Check) -> None:
    serve(prod=World([node("a")]))
    assert said in check(*arguments).sentence


@pytest.mark.parametrize(
    ("experiment", "program", "said"),
    [
        ("{unclosed", "", "experiment.yaml"),
        ("- a list", "", "experiment.yaml must be a SkyPilot task"),
        ({"resources": {"accelerators": "H100:many"}}, "", "'many' is no number of accelerators"),
        (None, "---\nflet: 3\n---\n", "unknown key flet"),
        (None, "---\nfleet: {H100: 3}\n---\n", "program.md's fleet names 3 clusters"),
    ],
)
def test_mistakes_of_a_workspace(
    experiment: object, program: str, said: str, serve: Serve, check: Check, tmp_path: Path
) -> None:
    serve(prod=World([node("a")]))
    assert said in check("--clusters", "4", root=made(tmp_path / "w", experiment, program)).sentence


def test_a_folder_that_is_not_there(check: Check, tmp_path: Path) -> None:
    assert "does not exist; give -C the folder of a workspace" in check(root=tmp_path / "none").sentence


def test_nothing_a_server_says_is_obeyed_by_a_terminal(serve: Serve, check: Check) -> None:
    name = "\x1b[31m" + "x\n" * 1000
    serve(prod=World([node(name, name, cordoned=True), node("b", labels={})]))
    said = check()
    assert all(line.isprintable() and len(line) < 600 for line in said.out.splitlines())
    assert len(said.out.splitlines()) < 10
