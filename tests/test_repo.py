from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from controller.records import UserError
from controller.repo import Repository, initialise
from tests.foreign import TRAIN, commit, git, refs, workspace

AT = 1_800_000_000.7
EDITED = TRAIN.replace("RATE = 0.5", "RATE = 0.25")
BRANCH = "autoresearch/mar5"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace whose path nobody would choose."""
    return workspace(tmp_path / "a workspace, “grün” & 研究")


def edit(root: Path, text: str = EDITED, message: str = "c0001: RATE=0.25") -> str:
    repository = Repository.find(root)
    return repository.commit_edit(git(root, "rev-parse", "HEAD"), {"train.py": text}, message, AT)


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
    made = repository.commit_edit(parent, {"train.py": source.replace("0.5", "0.25")}, "m", AT)
    assert repository.read_bytes(made, "train.py") == windows.replace(b"0.5", b"0.25")
    with tarfile.open(fileobj=io.BytesIO(repository.archive(made))) as tar:
        file = tar.extractfile("train.py")
        assert file is not None and file.read() == windows.replace(b"0.5", b"0.25")


def test_an_executable_file_stays_executable_and_a_new_one_is_plain(root: Path) -> None:
    (root / "train.py").chmod(0o755)
    parent = commit(root, {})
    made = Repository.find(root).commit_edit(parent, {"train.py": EDITED, "sub folder/neü.py": "X = 1\n"}, "m", AT)
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
    with tarfile.open(fileobj=io.BytesIO(repository.archive(head))) as tar:
        assert sorted(tar.getnames()) == ["prepare.py", "program.md", "train.py"]
    made = repository.commit_edit(head, {"train.py": EDITED}, "m", AT)
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
    made = clone.commit_edit(head, {"train.py": EDITED}, "m", AT)
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
