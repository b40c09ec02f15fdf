from __future__ import annotations

import gc
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller import repo
from controller.records import UserError
from controller.repo import Draft, Repository, initialise
from tests.foreign import TRAIN, commit, git, refs, workspace
from tests.processes import alive_in, wait_for_the_end_of

AT = 1_800_000_000.7
EDITED = TRAIN.replace("RATE = 0.5", "RATE = 0.25")
BRANCH = "autoresearch/mar5"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace whose path nobody would choose."""
    return workspace(tmp_path / "a workspace, “grün” & 研究")


def edit(root: Path, text: str = EDITED, message: str = "c0001: RATE=0.25") -> str:
    return made_by(Repository.find(root), git(root, "rev-parse", "HEAD"), {"train.py": text}, message)


def made_by(repository: Repository, parent: str, edits: Mapping[str, str], message: str = "m") -> str:
    (made,) = repository.commit_edits(parent, [Draft(edits, message)], AT)
    return made


def made_by_hand(root: Path, parent: str, edits: Mapping[str, bytes], modes: Mapping[str, str]) -> str:
    """The tree of `parent` with these edits, by git's own commands."""
    env = {"GIT_INDEX_FILE": str(root.parent / "by hand.index")}
    git(root, "read-tree", parent, env=env)
    for path, content in edits.items():
        scratch = root.parent / "by hand.txt"
        scratch.write_bytes(content)
        blob = git(root, "hash-object", "-w", "--no-filters", str(scratch))
        git(root, "update-index", "--add", "--cacheinfo", f"{modes.get(path, '100644')},{blob},{path}", env=env)
    return git(root, "write-tree", env=env)


def archived_by_git(root: Path, commit: str) -> bytes:
    local = ("-c", "core.autocrlf=false", "-c", "core.eol=lf")
    command = ["git", *local, "archive", "--format=tar", commit]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout


def members_of(archive: bytes) -> dict[str, bytes | str | None]:
    """What is in an archive: the contents of files, the targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            found[member.name] = file.read() if file else member.linkname if member.issym() else None
    return found


def everything(root: Path) -> dict[str, bytes]:
    """All files below `root` but git's objects and its caches of what it saw."""
    skipped = (".git/objects",)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not str(path.relative_to(root)).startswith(skipped)
    }


def test_a_candidate_is_the_parent_with_the_edit_and_nothing_else(root: Path) -> None:
    made = edit(root)
    assert git(root, "rev-parse", f"{made}^") == git(root, "rev-parse", "HEAD")
    assert git(root, "diff", "--name-only", "HEAD", made) == "train.py"
    assert git(root, "show", f"{made}:train.py") + "\n" == EDITED
    author = "autoresearch <autoresearch@localhost>"
    said = git(root, "log", "-1", "--format=%an <%ae>|%cn <%ce>|%at|%ct|%B", made).strip()
    assert said == f"{author}|{author}|1800000000|1800000000|c0001: RATE=0.25"


def test_making_a_candidate_leaves_index_work_tree_head_stash_and_refs_as_they_are(root: Path) -> None:
    (root / "train.py").write_text("stashed\n")
    git(root, "stash")
    (root / "train.py").write_text("staged\n")
    (root / "new.py").write_text("staged and new\n")
    git(root, "add", "--all")
    (root / "train.py").write_text("changed after that\n")
    (root / "untracked.txt").write_text("mine\n")
    before = everything(root)
    edit(root)
    assert everything(root) == before


def test_no_hook_runs_and_no_signature_is_asked_for(root: Path) -> None:
    hooks = root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "commit-msg", "post-commit", "post-checkout", "prepare-commit-msg", "post-rewrite"):
        (hooks / name).write_text("#!/bin/sh\ntouch hook-ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    git(root, "config", "commit.gpgsign", "true")
    git(root, "config", "gpg.program", "/bin/false")
    git(root, "branch", BRANCH)
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    repository.advance(BRANCH, edit(root), tip)
    assert not list(root.rglob("hook-ran"))


def test_a_user_who_never_told_git_a_name_can_run_studies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("HOME", str(root / "nowhere"))
    git(root, "config", "user.useConfigOnly", "true")
    assert git(root, "log", "-1", "--format=%an", edit(root)) == "autoresearch"


def test_the_same_arguments_make_the_same_commit_and_others_another(root: Path) -> None:
    made = edit(root)
    git(root, "config", "user.name", "Somebody Else")
    git(root, "config", "i18n.commitEncoding", "latin1")
    assert edit(root) == made
    assert edit(root, EDITED + "\n") != made
    assert edit(root, message="another") != made


@pytest.mark.parametrize("autocrlf", ["true", "input", "false"])
def test_line_endings_and_bytes_are_kept_whatever_git_is_set_to(root: Path, autocrlf: str) -> None:
    windows = b'RATE = 0.5\r\nNAME = "caf\xe9"\r\nMIXED = 1\n'
    git(root, "config", "core.autocrlf", "false")
    parent = commit(root, {"train.py": windows, ".gitattributes": "*.txt text=auto\n", "note.txt": b"a\r\nb\n"})
    git(root, "config", "core.autocrlf", autocrlf)
    git(root, "config", "core.eol", "crlf")
    repository = Repository.find(root)
    source = repository.read(parent, "train.py")
    assert source is not None
    made = made_by(repository, parent, {"train.py": source.replace("0.5", "0.25")})
    assert repository.read_bytes(made, "train.py") == windows.replace(b"0.5", b"0.25")
    assert members_of(repository.export(made).archive)["train.py"] == windows.replace(b"0.5", b"0.25")


def test_an_executable_file_stays_executable_and_a_new_one_is_plain(root: Path) -> None:
    (root / "train.py").chmod(0o755)
    parent = commit(root, {})
    made = made_by(Repository.find(root), parent, {"train.py": EDITED, "sub folder/neü.py": "X = 1\n"})
    modes = dict(
        reversed(line.split(" ", 1))
        for line in git(root, "ls-tree", "-r", "--format=%(objectmode) %(path)", made).splitlines()
        if "py" in line
    )
    assert modes["train.py"] == "100755"
    assert [mode for path, mode in modes.items() if path.startswith(("sub", '"sub'))] == ["100644"]


@pytest.mark.parametrize("message", ["x" * 300_000, "a\0b", "lone \udc80 surrogate", "# no comment\n\nAnd: text\n"])
def test_a_message_may_be_long_and_strange(root: Path, message: str) -> None:
    made = edit(root, message=message)
    kept = message.replace("\0", "").replace("\udc80", "?")
    assert Repository.find(root).message(made).rstrip("\n") == kept.rstrip("\n")


def test_messages_are_those_of_git_commit_tree(root: Path) -> None:
    strange = [
        "",
        "\n",
        " \n\n a\r\n\n",
        "a\0b",
        "\0",
        "é\udcff",
        "\ud800\ufdd0\ufdef\ufffe\U0001ffff\U0010fffe ",
        "\ufdf0\ufffd\ufeff",
    ]
    strange += ["# no comment\n\nAnd: text\n", "data 5\nfrom :1\n", "\x7f\x80\x85\u2028", "x" * 300_000]
    repository, head = Repository.find(root), git(root, "rev-parse", "HEAD")
    made = repository.commit_edits(head, [Draft({}, message) for message in strange], AT)
    assert made == [repository.commit_tree(head, head, message, AT) for message in strange]


def test_trees_are_those_that_git_s_own_index_makes(root: Path) -> None:
    (root / "link.py").symlink_to("train.py")
    (root / "run.py").touch(mode=0o755)
    parent = commit(root, {"prepare/deep/er.py": "X = 1\n", "prepare/deep.py": "", "prepare/deep-.py": ""})
    edits = {
        "link.py": b"prepare.py",
        "run.py": b"\xff\0\r\n",
        "prepare/deep/er.py": b"",
        "prepare/deep/new/and newer.py": b"data 1\n\n",
        'prepare/"quoted" \\ and\nof two lines': b"X",
        "caf\udce9/研究.py": b"X" * 100_000,
    }
    tree = made_by_hand(root, parent, edits, {"link.py": "120000", "run.py": "100755"})
    repository = Repository.find(root)
    texts = {path: content.decode(errors="surrogateescape") for path, content in edits.items()}
    made = made_by(repository, parent, texts)
    assert git(root, "rev-parse", f"{made}^{{tree}}") == tree
    assert all(repository.read_bytes(made, path) == content for path, content in edits.items() if "\n" not in path)
    assert git(root, "fsck", "--strict", made) == ""


def test_many_candidates_are_made_at_once_with_their_refs(root: Path) -> None:
    repository, head = Repository.find(root), git(root, "rev-parse", "HEAD")
    before = everything(root)
    drafts = [
        Draft({"train.py": f"{TRAIN}# {n}\n"}, f"c{n}", f"refs/autoresearch/mar5/c{n:04d}" if n % 2 else None)
        for n in range(1000)
    ]
    made = repository.commit_edits("HEAD", drafts, AT)
    assert len(set(made)) == 1000
    listing = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch/mar5/")
    assert listing.splitlines() == [
        f"{draft.ref} {commit}" for draft, commit in zip(drafts, made, strict=True) if draft.ref
    ]
    assert made[7] == made_by(repository, head, drafts[7].edits, "c7")
    assert [repository.read(one, "train.py") for one in made] == [draft.edits["train.py"] for draft in drafts]
    after = {path: content for path, content in everything(root).items() if "refs/autoresearch" not in path}
    assert after == before, "no other ref, no file"
    assert repository.commit_edits(head, drafts, AT) == made
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert repository.commit_edits(head, [], AT) == []


def test_refs_all_move_or_none(root: Path) -> None:
    repository, head = Repository.find(root), git(root, "rev-parse", "HEAD")
    before = refs(root)
    drafts = [Draft({}, "m", f"refs/autoresearch/mar5/{name}") for name in ("c1", "c2", "c2/in the way of it")]
    with pytest.raises(UserError, match="git update-ref failed"):
        repository.commit_edits(head, drafts, AT)
    assert refs(root) == before


def test_a_lock_that_a_killed_git_left_on_a_candidate_is_no_obstacle(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repo, "LOCK_PATIENCE_MS", 10)
    drafts = [Draft({}, f"m{n}", f"refs/autoresearch/mar5/c{n}") for n in range(5)]
    head = git(root, "rev-parse", "HEAD")
    locks = [root / ".git" / f"{drafts[n].ref}.lock" for n in (1, 3)]
    other = root / ".git/refs/autoresearch/mar6/c1.lock"
    for lock in (*locks, other):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    made = Repository.find(root).commit_edits(head, drafts, AT)
    assert [git(root, "rev-parse", str(draft.ref)) for draft in drafts] == made
    assert [lock.exists() for lock in (*locks, other)] == [False, False, True]
    theirs = root / ".git/refs/heads/theirs.lock"
    theirs.touch()
    with pytest.raises(UserError, match=r"theirs\.lock': File exists"):
        Repository.find(root).commit_edits(head, [Draft({}, "m", "refs/heads/theirs")], AT)
    assert theirs.exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("prepare", "is a folder"),
        ("train.py/deeper.py", "train.py is no folder"),
        *((path, "no path") for path in ("", "/x", "a//b", "a/", "../x", "a/./b", ".git/config", "a/.GIT/x", "a\0b")),
    ],
)
def test_what_can_be_no_file_is_refused(root: Path, path: str, says: str) -> None:
    head = commit(root, {"prepare/x.py": ""})
    before = everything(root)
    with pytest.raises(UserError, match=says):
        made_by(Repository.find(root), head, {path: "X = 1\n"})
    assert everything(root) == before


def test_a_parent_that_is_no_commit_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="there is no commit nothing"):
        made_by(Repository.find(root), "nothing", {"train.py": ""})


@pytest.mark.parametrize("kind", ["bare", "sha256", "worktree", "alternates", "shallow", "settings"])
def test_all_kinds_of_repositories_hold_the_same_candidates(root: Path, tmp_path: Path, kind: str) -> None:
    commit(root, {"prepare/x.py": "X = 1\n"})
    place = tmp_path / "of another kind"
    if kind == "sha256":
        place.mkdir()
        git(place, "init", "--quiet", "--initial-branch=main", "--object-format=sha256")
        commit(place, {"train.py": TRAIN, "prepare/x.py": "X = 1\n"})
    elif kind == "worktree":
        git(root, "worktree", "add", "--quiet", "--detach", str(place))
    elif kind == "settings":
        git(root, "clone", "--quiet", str(root), str(place))
        for name in ("core.ignoreCase", "core.bare=false", "commit.gpgSign", "core.logAllRefUpdates=always"):
            git(place, "config", name.partition("=")[0], name.partition("=")[2] or "true")
        git(place, "config", "fastimport.unpackLimit", "1000")
        git(place, "config", "i18n.commitEncoding", "latin1")
    else:
        options = {"bare": ["--bare"], "alternates": ["--shared"], "shallow": ["--depth=1"]}[kind]
        git(root, "clone", "--quiet", *options, root.as_uri() if kind == "shallow" else str(root), str(place))
    repository, head = Repository.find(place), git(place, "rev-parse", "HEAD")
    draft = Draft({"train.py": EDITED, "Train.py": "", "prepare/y.py": "é\n"}, "ü\n", "refs/autoresearch/t/c1")
    (made,) = repository.commit_edits(head, [draft], AT)
    assert git(place, "rev-parse", "refs/autoresearch/t/c1") == made
    assert repository.commit_tree(made, head, draft.message, AT) == made
    assert {path: repository.read(made, path) for path in draft.edits} == draft.edits
    assert git(place, "diff", "--name-only", head, made).splitlines() == ["Train.py", "prepare/y.py", "train.py"]
    assert repository.export(made).archive == archived_by_git(place, made)
    assert git(place, "fsck", "--strict", "--no-dangling") == ""
    if kind != "sha256":
        assert repository.commit_edits(head, [draft], AT) == Repository.find(root).commit_edits(head, [draft], AT)


def export_is_git_s(root: Path, commit: str) -> dict[str, bytes | str | None]:
    export = Repository.find(root).export(commit)
    assert export.archive == archived_by_git(root, commit)
    found = members_of(export.archive)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items() if type(content) is bytes}
    assert export.digests == digests
    return found


LONG = "folder/" * 20


@pytest.mark.parametrize(
    "name",
    ["plain.txt", "prepare/ünder/score", "x" * 100, "x" * 101, f"{LONG}x", 'a "b"\n', "caf\udce9", f"{LONG}{LONG}x"],
)
def test_an_export_is_what_git_archive_makes(root: Path, name: str) -> None:
    (root / "link").symlink_to("t" * 100)
    (root / "run.sh").touch(mode=0o755)
    (root / "empty").touch()
    head = commit(root, {name: b"\0\xff\r\n" * 1000, "full": b"x" * 512})
    found = export_is_git_s(root, head)
    assert found[name] == b"\0\xff\r\n" * 1000 and found["link"] == "t" * 100


@pytest.mark.parametrize("records", range(12, 21))
def test_an_export_ends_as_git_archive_ends_it(root: Path, records: int) -> None:
    """Six records are there anyway; git writes whole blocks of twenty, of which the last two are empty."""
    git(root, "rm", "--quiet", "prepare.py", "program.md")
    export_is_git_s(root, commit(root, {"train.py": b"x" * (records - 3) * 512}))


def test_links_with_long_targets_submodules_and_empty_folders_are_exported_as_git_does(root: Path) -> None:
    (root / "link").symlink_to("t" * 101)
    assert export_is_git_s(root, commit(root, {}))["link"] == "t" * 101
    git(root, "rm", "--quiet", "link")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},a/submodule")
    git(root, "commit", "--quiet", "-m", "with a submodule")
    head = git(root, "rev-parse", "HEAD")
    assert export_is_git_s(root, head)["a/submodule"] is None
    assert Repository.find(root).read(head, "a/submodule") is None
    empty = git(root, "hash-object", "-w", "-t", "tree", os.devnull)
    (root.parent / "tree").write_text(
        f"040000 tree {empty}\tempty\n100644 blob {git(root, 'rev-parse', 'HEAD:train.py')}\tx\n"
    )
    with (root.parent / "tree").open() as told:
        tree = subprocess.run(["git", "mktree"], cwd=root, stdin=told, stdout=subprocess.PIPE, check=True).stdout
    made = Repository.find(root).commit_tree(tree.decode().strip(), head, "m", AT)
    assert set(export_is_git_s(root, made)) == {"x"}


@pytest.mark.parametrize(
    ("attributes", "matters"),
    [
        ("secret/ export-ignore", True),
        ("*.md export-ignore", True),
        ("stamp export-subst", True),
        ("*.txt eol=crlf", True),
        ("* text=auto", False),
        ("*.txt ident", True),
        ("*.txt filter=shout", True),
        ("*.txt text working-tree-encoding=UTF-16", True),
        ("*.py diff=python -merge", False),
    ],
)
@pytest.mark.parametrize("place", ["commit", "folder", "info", "setting", "checked out only"])
def test_attributes_have_their_effect_wherever_git_archive_looks_for_them(
    root: Path, tmp_path: Path, attributes: str, matters: bool, place: str
) -> None:
    files = {"secret/kept": "", "stamp": "$Format:%H$\n", "text.txt": "ä\n$Id$\n", "a.md": ""}
    before = commit(root, {f"below/{name}" if place == "folder" else name: text for name, text in files.items()})
    git(root, "config", "filter.shout.smudge", "tr a-z A-Z")
    plain = members_of(archived_by_git(root, before))
    file = {"info": root / ".git/info/attributes", "setting": tmp_path / "set", "folder": root / "below/.gitattributes"}
    target = file.get(place, root / ".gitattributes")
    target.parent.mkdir(exist_ok=True)
    target.write_text(f"{attributes}\n")
    if place == "setting":
        git(root, "config", "core.attributesFile", str(target))
    if place in ("commit", "folder"):
        git(root, "add", str(target))
        git(root, "commit", "--quiet", "-m", "attributes")
    found = export_is_git_s(root, git(root, "rev-parse", "HEAD"))
    found = {name: content for name, content in found.items() if not name.endswith(".gitattributes")}
    assert (found != plain) == (matters and place != "checked out only")


def test_an_export_is_made_without_git_archive_where_no_attribute_of_exports_is_set(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("*.py diff=python\n")
    expected = archived_by_git(root, "HEAD")
    monkeypatch.delattr(Repository, "_export_by_git")
    repository = Repository.find(root)
    assert repository.export("HEAD").archive == expected
    git(root, "commit", "--quiet", "--allow-empty", "-m", "another")
    assert repository.export("HEAD").archive == archived_by_git(root, "HEAD") != expected


def test_permissions_in_an_archive_are_as_the_user_has_set_them(root: Path) -> None:
    git(root, "config", "tar.umask", "0077")
    export_is_git_s(root, git(root, "rev-parse", "HEAD"))


def test_a_bare_repository_s_own_attributes_count_too(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(root, "clone", "--quiet", "--bare", str(root), str(bare))
    head = git(root, "rev-parse", "HEAD")
    assert "program.md" in export_is_git_s(bare, head)
    (bare / "info").mkdir(exist_ok=True)
    (bare / "info/attributes").write_text("*.md export-ignore\n")
    assert "program.md" not in export_is_git_s(bare, head)


def test_a_commit_that_is_not_there_cannot_be_exported(root: Path) -> None:
    with pytest.raises(UserError, match="git archive failed: fatal: not a tree object: 1111"):
        Repository.find(root).export("1" * 40)


def test_objects_are_read_by_one_process_that_sees_new_ones_and_ends_with_the_repository(root: Path) -> None:
    repository = Repository.find(root)
    for number in range(20):
        head = commit(root, {"train.py": f"{number}\n"})
        assert repository.read("HEAD", "train.py") == repository.read(head, "train.py") == f"{number}\n"
    git(root, "gc", "--quiet", "--prune=now")
    assert repository.read("HEAD~7", "train.py") == "12\n"
    assert [command.strip() for command in alive_in(root).values()] == ["git cat-file --batch"]
    del repository
    gc.collect()
    assert alive_in(root) == {}


@pytest.mark.parametrize("end", ["", "import os; os.kill(os.getpid(), 9)"])
def test_a_program_that_ends_takes_its_reading_process_with_it(root: Path, end: str) -> None:
    script = (
        "import sys; from pathlib import Path; from controller.repo import Repository\n"
        "repository = Repository.find(Path(sys.argv[1]))\n"
        f"print(len(repository.read('HEAD', 'train.py')), *repository._objects._running().args, flush=True)\n{end}"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{len(TRAIN)} git cat-file --batch\n", ""), done
    assert done.returncode == (-9 if end else 0)
    wait_for_the_end_of(*alive_in(root))


def test_a_reading_process_that_somebody_ends_is_begun_anew(root: Path) -> None:
    repository = Repository.find(root)
    assert repository.read("HEAD", "train.py") == TRAIN
    (reader,) = alive_in(root)
    os.kill(reader, signal.SIGKILL)
    assert repository.read("HEAD", "prepare.py") is not None
    assert reader not in alive_in(root)


def test_ctrl_c_on_a_terminal_does_not_end_the_reading_process(root: Path) -> None:
    repository = Repository.find(root)
    repository.read("HEAD", "train.py")
    (reader,) = alive_in(root)
    assert os.getpgid(reader) != os.getpgrp()


def test_a_repository_can_be_read_by_many_threads(root: Path) -> None:
    texts = {f"file {number}": f"{number}\n" * number * 100 for number in range(40)}
    head = commit(root, texts)
    repository = Repository.find(root)
    wrong: list[str] = []

    def read() -> None:
        wrong.extend(name for name, text in texts.items() if repository.read(head, name) != text)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_through_its_own(root: Path) -> None:
    repository = Repository.find(root)
    assert repository.read("HEAD", "train.py") == TRAIN
    readers = set(alive_in(root))
    child = os.fork()
    if child == 0:
        right = repository.read("HEAD", "prepare.py") is not None and repository.read("HEAD", "train.py") == TRAIN
        repository.__dict__.clear()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert repository.read("HEAD", "program.md") is not None
    assert set(alive_in(root)) == readers


def test_a_repository_that_git_cannot_read_is_one_sentence(root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    repository = Repository.find(root)
    (root / ".git/HEAD").unlink()
    with pytest.raises(UserError, match="git gives no answer"):
        repository.read(head, "train.py")


@pytest.mark.parametrize("name", ["HEAD", "main", "v1", "HEAD~0", ":/By a", "nothing", "a\nb", "", "HEAD missing"])
def test_files_are_read_at_whatever_means_a_commit(root: Path, name: str) -> None:
    git(root, "tag", "-a", "-m", "annotated", "v1")
    means = Repository.find(root).resolve(name) is not None if "\n" not in name else False
    assert Repository.find(root).read(name, "train.py") == (TRAIN if means else None)


def test_a_repository_named_by_the_environment_of_a_hook_is_not_mistaken_for_ours(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = workspace(tmp_path / "other")
    before = refs(other)
    head = git(root, "rev-parse", "HEAD")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", str(other / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
        repository = Repository.find(root)
        repository.point(f"refs/heads/{BRANCH}", head)
    assert git(root, "rev-parse", BRANCH) == head
    assert refs(other) == before


def test_a_branch_fast_forwards_and_doing_it_again_changes_nothing(root: Path) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    git(root, "branch", BRANCH)
    made = edit(root)
    repository.advance(BRANCH, made, tip)
    after = everything(root)
    assert git(root, "rev-parse", BRANCH) == made
    repository.advance(BRANCH, made, tip)
    assert everything(root) == after


def test_a_branch_that_somebody_else_moved_is_left_alone(root: Path) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    made = edit(root)
    git(root, "checkout", "--quiet", "-b", BRANCH)
    theirs = commit(root, {"train.py": "# by hand\n"})
    before = everything(root)
    with pytest.raises(
        UserError, match=f"branch {BRANCH} was moved to {theirs[:10]} while the study was at {tip[:10]}"
    ):
        repository.advance(BRANCH, made, tip)
    git(root, "checkout", "--quiet", "main")
    git(root, "branch", "-D", BRANCH)
    with pytest.raises(UserError, match="was moved to nothing"):
        repository.advance(BRANCH, made, tip)
    assert before["train.py"] == b"# by hand\n"
    assert BRANCH not in refs(root)


@pytest.mark.parametrize("linked", [False, True])
def test_a_clean_checkout_of_the_branch_follows_it(root: Path, tmp_path: Path, linked: bool) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    tree = root
    if linked:
        tree = tmp_path / "linked tree ü"
        git(root, "worktree", "add", "--quiet", "-b", BRANCH, str(tree))
    else:
        git(root, "checkout", "--quiet", "-b", BRANCH)
    (tree / "results.csv").write_text("untracked\n")
    os.utime(tree / "train.py", (1, 1))  # touched, not changed
    repository.advance(BRANCH, edit(root), tip)
    assert (tree / "train.py").read_text() == EDITED
    assert git(tree, "status", "--porcelain") == "?? results.csv"
    assert git(tree, "rev-parse", "HEAD") == git(root, "rev-parse", BRANCH)


def test_a_checkout_left_behind_by_a_crash_follows_when_it_is_done_again(root: Path) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    git(root, "checkout", "--quiet", "-b", BRANCH)
    made = edit(root)
    git(root, "update-ref", f"refs/heads/{BRANCH}", made)  # and here the power went
    repository.advance(BRANCH, made, tip)
    assert (root / "train.py").read_text() == EDITED
    assert git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("file", ["train.py", "prepare.py"])
def test_what_the_user_has_not_committed_is_kept_in_the_branch_s_own_checkout(
    root: Path, file: str, staged: bool
) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    git(root, "checkout", "--quiet", "-b", BRANCH)
    (root / file).write_text("# work of an hour\n")
    if staged:
        git(root, "add", "--all")
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    index = git(root, "ls-files", "--stage")
    made = edit(root)
    repository.advance(BRANCH, made, tip)
    assert git(root, "rev-parse", BRANCH) == made
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == before
    assert git(root, "ls-files", "--stage") == index


def test_checkouts_of_other_branches_and_of_no_branch_do_not_move(root: Path, tmp_path: Path) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    git(root, "branch", BRANCH)
    git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "detached"))
    repository.advance(BRANCH, edit(root), tip)
    for tree in (root, tmp_path / "detached"):
        assert (tree / "train.py").read_text() == TRAIN
        assert git(tree, "status", "--porcelain") == ""
        assert git(tree, "rev-parse", "HEAD") == tip


def test_a_worktree_whose_folder_is_gone_is_no_obstacle(root: Path, tmp_path: Path) -> None:
    repository, tip = Repository.find(root), git(root, "rev-parse", "HEAD")
    git(root, "worktree", "add", "--quiet", "-b", BRANCH, str(tmp_path / "gone"))
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    made = edit(root)
    repository.advance(BRANCH, made, tip)
    assert git(root, "rev-parse", BRANCH) == made


def test_a_bare_repository_can_be_read_and_exported(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bäre repository.git"
    git(root, "clone", "--quiet", "--bare", str(root), str(bare))
    repository = Repository.find(bare)
    head = repository.resolve("main")
    assert head == git(root, "rev-parse", "HEAD") and repository.root == bare
    assert repository.read(head, "train.py") == TRAIN
    assert sorted(members_of(repository.export(head).archive)) == ["prepare.py", "program.md", "train.py"]
    made = made_by(repository, head, {"train.py": EDITED})
    repository.point(f"refs/heads/{BRANCH}", head)
    repository.advance(BRANCH, made, head)
    assert repository.branches("autoresearch/") == {BRANCH: made}
    assert not repository.is_dirty("train.py")


def test_in_a_clone_the_branches_of_origin_are_found_unless_there_is_a_local_one(root: Path, tmp_path: Path) -> None:
    for tag in ("mar5", "apr6"):
        git(root, "branch", f"autoresearch/{tag}")
    git(root, "clone", "--quiet", str(root), str(tmp_path / "clone"))
    clone, head = Repository.find(tmp_path / "clone"), git(root, "rev-parse", "HEAD")
    assert clone.branches("autoresearch/") == {BRANCH: head, "autoresearch/apr6": head}
    made = made_by(clone, head, {"train.py": EDITED})
    clone.point(f"refs/heads/{BRANCH}", made)
    assert clone.branches("autoresearch/") == {BRANCH: made, "autoresearch/apr6": head}
    assert clone.branches(BRANCH) == {BRANCH: made}


@pytest.mark.parametrize("name", ["nothing", "", "--all", "main..main", "0" * 40, "HEAD:train.py", "a b", "@{-9}"])
def test_a_name_that_means_no_commit_resolves_to_none(root: Path, name: str) -> None:
    assert Repository.find(root).resolve(name) is None


def test_branches_tags_and_short_hashes_resolve_to_commits(root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    git(root, "tag", "-a", "-m", "annotated", "v1")
    repository = Repository.find(root)
    assert {repository.resolve(name) for name in ("HEAD", "main", "v1", head, head[:10], "refs/heads/main")} == {head}


def test_files_that_are_not_there_read_as_none(root: Path) -> None:
    head = commit(root, {"prepare": "a file where other workspaces have a folder\n"})
    repository = Repository.find(root)
    for path in ("nothing.py", "prepare/protocol.py", "train.py/deeper", "no/such/folder.py"):
        assert repository.read_bytes(head, path) is None
    git(root, "rm", "--quiet", "prepare")
    head = commit(root, {"prepare/protocol.py": "X = 1\n"})
    assert repository.read_bytes(head, "prepare") is None, "a folder is no file"
    assert repository.read(head, "prepare/protocol.py") == "X = 1\n"


def test_git_hides_our_folder_without_a_change_to_the_user_s_files(root: Path) -> None:
    exclude = root / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_bytes(b"*.tmp\r\ncaf\xe9")
    repository = Repository.find(root)
    for _ in range(2):
        repository.exclude("/.autoresearch/")
    assert exclude.read_bytes() == b"*.tmp\r\ncaf\xe9\n/.autoresearch/\n"
    (root / ".autoresearch").mkdir()
    (root / ".autoresearch" / "journal.db").touch()
    assert git(root, "status", "--porcelain") == ""


def test_a_linked_worktree_hides_our_folder_too(root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "linked"
    git(root, "worktree", "add", "--quiet", "-b", "other", str(tree))
    Repository.find(tree).exclude("/.autoresearch/")
    (tree / ".autoresearch").mkdir()
    (tree / ".autoresearch" / "journal.db").touch()
    assert git(tree, "status", "--porcelain") == ""


def test_a_folder_in_no_repository_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not in a git repository"):
        Repository.find(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        Repository.find(tmp_path / "missing")


def test_a_repository_of_another_user_is_refused_with_git_s_own_reason(root: Path) -> None:
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "65534", str(root)], check=True)
        with pytest.raises(UserError, match="dubious ownership"):
            Repository.find(root).resolve("HEAD")
    else:
        assert Repository.find(root).resolve("HEAD") is not None


def test_a_machine_without_git_is_told_so(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from controller.repo import Repository\n"
        "from controller.records import UserError\n"
        "try: Repository.find(Path(sys.argv[1]))\nexcept UserError as error: print(error)"
    )
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env={"PATH": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "git is not installed, or not on the PATH; install it\n"


def test_a_new_repository_holds_every_file_whatever_the_user_ignores_and_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template" / "hooks"
    template.mkdir(parents=True)
    (template / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (template / "pre-commit").chmod(0o755)
    (tmp_path / "ignored").write_text("*.py\n")
    (tmp_path / "config").write_text(
        f"[core]\n\texcludesFile = {tmp_path}/ignored\n\tautocrlf = true\n"
        f"[init]\n\ttemplateDir = {tmp_path}/template\n\tdefaultBranch = trunk\n[commit]\n\tgpgSign = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "train.py").write_bytes(b"A = 1\r\n")
    initialise(made)
    assert git(made, "log", "--format=%s|%an") == "Begin the workspace|autoresearch"
    assert git(made, "ls-tree", "-r", "--name-only", "main") == "train.py"
    assert git(made, "cat-file", "-s", "main:train.py") == "7"
