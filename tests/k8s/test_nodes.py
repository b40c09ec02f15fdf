"""What a context has, read through the real client; every problem is one sentence that says what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from controller.k8s import Context, ContextReport, Quota, client, contexts, read_context
from tests.k8s.apiserver import ACCESS, World, node, pod, quota
from tests.k8s.conftest import Serve

HERE = Context("here")
TAINT = {"key": "team", "value": "vision", "effect": "NoSchedule"}
NODES, PODS, QUOTAS = "/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces/default/resourcequotas"


def counts(report: ContextReport) -> dict[str, tuple[int, int, int | None, int]]:
    """Nodes, GPUs, used and free by accelerator."""
    return {group.accelerator: (len(group.nodes), group.gpus, group.used, group.free) for group in report.groups}


def only(report: ContextReport) -> str:
    """The one problem, which is a sentence fit to be shown."""
    assert len(report.problems) == 1, report.problems
    return sentence(report.problems[0])


def sentence(said: str) -> str:
    assert said.isprintable() and len(said) < 500 and not re.search(r"[.!] |Traceback|\.$", said), said
    return said


def test_gpus_are_counted_by_type_free_and_used(serve: Serve) -> None:
    nodes = [node("a"), node("b"), node("c", "H200"), node("cpu", gpus=0, labels={})]
    pods = [
        pod("one", "a", 2),
        pod("two", "a", 1, namespace="other"),
        pod("bound", "c", 4, phase="Pending"),
        pod("waits", None, 8, phase="Pending"),
        pod("done", "b", 8, phase="Succeeded"),
        pod("failed", "b", 8, phase="Failed"),
        pod("plain", "a"),
        pod("gives-way", "b", 8, namespace="cw-hpc-verification"),
    ]
    serve(World(nodes, pods))
    report = read_context(HERE)
    assert counts(report) == {"H100": (2, 16, 3, 13), "H200": (1, 8, 4, 4)}
    assert report.usable and report.exact and not report.problems and report.quota is None
    assert [group.label for group in report.groups] == [
        "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.product=NVIDIA-H200",
    ]


def test_a_pod_holds_what_any_of_its_containers_needs(serve: Serve) -> None:
    many = pod("many", "a", 1)
    first = {"resources": {"limits": {"nvidia.com/gpu": "3"}}}
    many["spec"]["containers"] += [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}, {"name": "bare"}]
    many["spec"]["initContainers"] = [first, {}]
    serve(World([node("a")], [many]))
    assert counts(read_context(HERE)) == {"H100": (1, 8, 3, 5)}


def test_long_lists_come_in_pages(serve: Serve) -> None:
    world = serve(World([node(f"n{number}") for number in range(7)], page=3))
    world.pods = [pod(f"p{number}", f"n{number % 7}", 1) for number in range(20)]
    assert counts(read_context(HERE)) == {"H100": (7, 56, 20, 36)}
    assert sum(path.startswith(f"{PODS}?") for path in world.asked) == 7
    assert all("limit=500" in path for path in world.asked if path.startswith((NODES, PODS)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (node("w", cordoned=True), "1 node (w) is cordoned, so none of 8 GPUs there is free: `kubectl uncordon NODE`"),
        (
            node("w", ready="False"),
            "1 node (w) is not ready, so none of 8 GPUs there is free: `kubectl describe node NODE`",
        ),
        (node("w", ready="Unknown"), "1 node (w) is not ready"),
        (node("w", taints=[TAINT]), "1 node (w) is tainted team=vision:NoSchedule, so none of 8 GPUs"),
        (node("w", taints=[{"key": "x", "effect": "NoExecute"}]), "1 node (w) is tainted x:NoExecute"),
    ],
)
def test_a_closed_node_has_nothing_free(wrong: dict[str, object], said: str, serve: Serve) -> None:
    serve(World([node("a"), wrong], [pod("p", "w", 2)]))
    report = read_context(HERE)
    assert counts(report) == {"H100": (2, 16, 2, 8)}
    assert only(report).startswith(said)
    assert report.usable


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
        {"key": "team", "value": "vision", "effect": "PreferNoSchedule"},
    ],
)
def test_these_taints_keep_nobody_out(taint: dict[str, str], serve: Serve) -> None:
    serve(World([node("a", taints=[taint])]))
    assert counts(read_context(HERE)) == {"H100": (1, 8, 0, 8)}


@pytest.mark.parametrize(
    ("toleration", "free"),
    [
        ({"operator": "Exists"}, 8),
        ({"key": "team", "operator": "Exists"}, 8),
        ({"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"}, 8),
        ({"key": "team", "value": "vision"}, 8),
        ({"key": "team", "value": "speech"}, 0),
        ({"key": "other", "operator": "Exists"}, 0),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, 0),
        ("nonsense", 0),
    ],
)
def test_what_pods_tolerate_is_open_to_them(toleration: object, free: int, serve: Serve) -> None:
    serve(World([node("a", taints=[TAINT])]))
    assert read_context(HERE, [toleration]).groups[0].free == free


def test_a_sentence_names_a_few_nodes(serve: Serve) -> None:
    serve(World([node(f"n{number}", cordoned=True) for number in range(9)]))
    assert only(read_context(HERE)).startswith("9 nodes (n0, n1, n2 and 6 more) are cordoned, so none of 72 GPUs")


def test_gpus_that_broke_are_not_there(serve: Serve) -> None:
    serve(World([node("a", broken=2), node("b")]))
    report = read_context(HERE)
    assert counts(report) == {"H100": (2, 14, 0, 14)}
    assert only(report).startswith("2 GPUs are out of service on a: `kubectl describe node NODE`")


def test_wrong_credentials(serve: Serve) -> None:
    world = serve(World([node("a")], refuses={NODES: 401}))
    report = read_context(HERE)
    assert only(report) == (
        f"{world.url} does not accept the credentials of context here:"
        " log in again, or correct its user in the kubeconfig"
    )
    assert not report.groups and not report.usable


def test_nodes_may_not_be_listed(serve: Serve) -> None:
    serve(World([node("a")], refuses={NODES: 403}))
    report = read_context(HERE)
    assert only(report) == (
        'you may not list nodes (nodes is forbidden: User "someone" cannot list resource "nodes" in API group ""):'
        " ask whoever runs the cluster for that permission"
    )
    assert not report.groups and not report.usable


def test_where_pods_may_not_be_listed_nodes_still_are(serve: Serve) -> None:
    serve(World([node("a"), node("b", "H200")], [pod("p", "a", 3)], refuses={PODS: 403}))
    report = read_context(HERE)
    assert counts(report) == {"H100": (1, 8, None, 8), "H200": (1, 8, None, 8)}
    assert only(report).startswith("what is in use is not known, as you may not list pods in all namespaces (pods is")
    assert report.usable and not report.exact


@pytest.mark.parametrize(("status", "said"), [(500, "answered 500"), (503, "answered 503"), (404, "answered 404")])
def test_a_server_in_trouble(status: int, said: str, serve: Serve) -> None:
    serve(World(refuses={NODES: status}))
    assert f"{said} when asked to list nodes (the server says {status}): try again later" in only(read_context(HERE))


@pytest.mark.parametrize("raw", [b"<html>log in</html>", b"[]", b'"text"', b"\xff", b'{"items": 3}', b"[" * 100_000])
def test_something_else_than_kubernetes(raw: bytes, serve: Serve) -> None:
    serve(World(raw=raw))
    assert "answers, but not as Kubernetes' API does" in only(read_context(HERE))


@pytest.mark.parametrize("raw", [b'{"items": null}', b'{"items": [null, 3, "x"]}', b'{"items": [{"status": 7}]}'])
def test_odd_nodes_are_nodes_without_gpus(raw: bytes, serve: Serve) -> None:
    serve(World(raw=raw))
    assert "nvidia.com/gpu" in only(read_context(HERE))


@pytest.mark.parametrize("quantity", ["", "many", "-3", "1e99", None, {}, "9" * 5000])
def test_an_odd_number_of_gpus_is_none(quantity: object, serve: Serve) -> None:
    odd = pod("p", "a", 1)
    odd["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = quantity
    odd["spec"]["containers"][0]["resources"]["limits"] = {}
    serve(World([node("a")], [odd]))
    assert counts(read_context(HERE)) == {"H100": (1, 8, 0, 8)}


def test_a_list_without_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGES", 3)
    serve(World(raw=b'{"items": [], "metadata": {"continue": "1"}}'))
    assert "does not come to the end of its nodes" in only(read_context(HERE))


def test_no_gpus(serve: Serve) -> None:
    serve(World([node("a", gpus=0, labels={}), node("b", gpus=0, labels={})]))
    report = read_context(HERE)
    assert only(report) == (
        "none of the 2 nodes offers nvidia.com/gpu:"
        " add nodes with GPUs, or install NVIDIA's device plugin (or GPU operator) on them"
    )
    assert not report.usable


def test_no_nodes(serve: Serve) -> None:
    serve(World())
    assert only(read_context(HERE)).startswith("there are no nodes")


def test_no_label(serve: Serve) -> None:
    serve(
        World([node("a", labels={}), node("b", labels={"k8s.amazonaws.com/accelerator": "h100"})], [pod("p", "a", 1)])
    )
    report = read_context(HERE)
    assert counts(report) == {"": (2, 16, 1, 15)}
    assert only(report) == (
        "SkyPilot can't tell which GPUs 2 nodes (a, b) have, for want of a label that it knows:"
        " run `python -m sky.utils.kubernetes.gpu_labeler --context here`"
    )


def test_another_label_than_the_one_that_counts_here(serve: Serve) -> None:
    serve(World([node("a"), node("b", labels={"skypilot.co/accelerator": "h200"})]))
    report = read_context(HERE)
    assert counts(report) == {"": (1, 8, 0, 8), "H200": (1, 8, 0, 8)}
    assert "1 node (a) has, for want of the label skypilot.co/accelerator, by which it goes here: run" in only(report)


def test_a_label_for_which_skypilot_refuses_all(serve: Serve) -> None:
    labels = [{"skypilot.co/accelerator": value} for value in ("h100", "H200")]
    serve(World([node(f"n{number}", labels=one) for number, one in enumerate(labels)]))
    report = read_context(HERE)
    assert only(report) == (
        "SkyPilot refuses this context, as skypilot.co/accelerator=H200 on n1 must be in lower case:"
        " correct it with `kubectl label --overwrite node n1 skypilot.co/accelerator=…`"
    )
    assert not report.usable


def test_slices_are_told_of(serve: Serve) -> None:
    serve(World([node("a", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 56)]))
    report = read_context(HERE)
    assert counts(report) == {"H100": (1, 56, 0, 56)}
    assert "are slices of GPUs" in only(report)


def test_the_tightest_quota_binds(serve: Serve) -> None:
    quotas = [
        quota(16, 4, "wide"),
        quota(8, 6, "tight"),
        quota(1, 1, "other-priority", scopeSelector={"matchExpressions": []}),
        quota(1, 1, "with-deadline", scopes=["Terminating"]),
        quota(9, 6, "lasting", scopes=["NotTerminating"]),
        {"metadata": {"name": "of-cpus"}, "status": {"hard": {"requests.cpu": "4"}}},
    ]
    serve(World([node("a")], quotas=quotas))
    report = read_context(HERE)
    assert report.quota == Quota("tight", 8, 6) and report.quota.left == 2
    assert Quota("over", 4, 6).left == 0


def test_whether_a_quota_binds_may_be_unknown(serve: Serve) -> None:
    serve(World([node("a")], refuses={QUOTAS: 403}))
    report = read_context(HERE)
    assert only(report).startswith(
        "whether a quota binds is not known, as you may not list resourcequotas in namespace"
    )
    assert report.usable


def test_pods_may_not_be_created(serve: Serve) -> None:
    serve(World([node("a")], may_create_pods=False))
    report = read_context(HERE)
    assert only(report).startswith("you may not create pods in namespace default: ask whoever runs the cluster")
    assert not report.usable and counts(report) == {"H100": (1, 8, 0, 8)}


def test_not_to_know_what_may_be_created_is_no_problem(serve: Serve) -> None:
    serve(World([node("a")], refuses={ACCESS: 403}))
    assert read_context(HERE).usable and not read_context(HERE).problems


def test_the_namespace_is_that_of_the_context(serve: Serve) -> None:
    world = serve(World([node("a")]))
    read_context(replace(contexts()[0], namespace="team"))
    assert any(path.startswith("/api/v1/namespaces/team/resourcequotas") for path in world.asked)


def test_hostile_names_do_no_harm(serve: Serve) -> None:
    name = "\x1b[31m" + "n\n" * 1000
    serve(
        World(
            [
                node(name, "A\u202e\x1b]0;x\x07" * 100, cordoned=True),
                node("b", broken=1, taints=[{"key": name, "effect": "NoSchedule"}]),
            ]
        )
    )
    report = read_context(HERE)
    assert len(report.problems) == 3
    for said in (*report.problems, *(group.accelerator + group.label for group in report.groups)):
        sentence(said)
