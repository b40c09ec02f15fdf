"""Git, by plumbing only: candidates, the study branch, exports. No checkout, no stash, no hook.

The index and the work tree stay as they are, with one exception: where the study branch itself is checked out, its
untouched files follow the branch as they would on a fast-forward pull, because a branch that moves under a checkout
would show up there as the user's own undoing of the winner.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from controller.records import UserError

if TYPE_CHECKING:
    from git import Repo as GitRepo

IDENTITY = "autoresearch"
EMAIL = "autoresearch@localhost"


class Repository:
    """One git repository, with a work tree or bare."""

    def __init__(self, git: GitRepo) -> None:
        self._git = git
        self.root = Path(git.working_tree_dir or git.git_dir)

    @classmethod
    def find(cls, start: Path) -> Repository:
        """The repository around `start`. Raises UserError where there is none, or none with a commit."""
        import git

        if not start.exists():
            raise UserError(f"{start} does not exist; give -C the folder of a workspace")
        try:
            found = git.Repo(start, search_parent_directories=True)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError):
            raise UserError(f"{start} is not in a git repository; `autoresearch init DIR` makes a workspace") from None
        return cls(found)

    def resolve(self, name: str) -> str | None:
        """The commit that `name` (branch, tag, hash) means; None where it means none."""
        return self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")

    def valid_branch(self, name: str) -> bool:
        """Whether git accepts `name` as a branch's."""
        return self._try("check-ref-format", f"refs/heads/{name}") is not None

    def branches(self, prefix: str) -> dict[str, str]:
        """Branches whose name starts with `prefix`, with their commits: local ones first, else origin's.

        In a fresh clone only origin's are there.
        """
        found: dict[str, str] = {}
        for namespace in ("refs/heads/", "refs/remotes/origin/"):
            listing = self._run("for-each-ref", "--format=%(objectname) %(refname)", f"{namespace}{prefix}*")
            for line in listing.splitlines():
                commit, ref = line.split(" ", 1)
                found.setdefault(ref.removeprefix(namespace), commit)
        return found

    def read(self, commit: str, path: str) -> str | None:
        """The text of `path` at `commit`; None where there is no such file."""
        data = self.read_bytes(commit, path)
        return None if data is None else data.decode("utf-8", errors="surrogateescape")

    def read_bytes(self, commit: str, path: str) -> bytes | None:
        """The bytes of `path` at `commit`; None where there is no such file."""
        try:
            blob = self._git.commit(commit).tree / path
        except KeyError:
            return None
        return bytes(blob.data_stream.read()) if blob.type == "blob" else None

    def message(self, commit: str) -> str:
        """The message of `commit`."""
        return str(self._git.commit(commit).message)

    def committed_at(self, commit: str) -> int:
        """When `commit` was made, in Unix seconds."""
        return int(self._git.commit(commit).committed_date)

    def is_dirty(self, path: str) -> bool:
        """Whether `path` differs from the commit that is checked out."""
        return bool(self._run("status", "--porcelain", "--", path))

    def diff(self, old: str, new: str) -> str:
        """The difference between two commits, as `git diff` shows it."""
        return self._run("diff", "--no-color", "--no-ext-diff", old, new)

    def log(self, old: str, new: str) -> str:
        """One line a commit, from `old` (exclusive) to `new`."""
        return self._run("log", "--oneline", "--no-color", f"{old}..{new}")

    def archive(self, commit: str) -> bytes:
        """Every file of `commit` as a tar archive, byte for byte as committed."""
        process = self._git.git.execute(
            ["git", "-c", "core.autocrlf=false", "archive", "--format=tar", commit], stdout_as_string=False
        )
        assert isinstance(process, bytes)
        return process

    def commit_edit(self, parent: str, edits: Mapping[str, str], message: str, at: float) -> str:
        """A commit on `parent` in which the files in `edits` have new texts; no ref points at it yet.

        The same arguments give the same commit, so that making it twice makes it once.
        """
        with tempfile.TemporaryDirectory() as scratch:
            env = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self._run("read-tree", parent, env=env)
            for path, text in edits.items():
                file = Path(scratch, "blob")
                file.write_bytes(text.encode("utf-8", errors="surrogateescape"))
                blob = self._run("hash-object", "-w", "--no-filters", str(file))
                mode = self._mode(parent, path)
                self._run("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", env=env)
            tree = self._run("write-tree", env=env)
        return self.commit_tree(tree, parent, message, at)

    def commit_tree(self, tree: str, parent: str, message: str, at: float) -> str:
        """A commit of `tree` (a tree, or a commit whose tree is meant) on `parent`."""
        stamp = f"{int(at)} +0000"
        env = {
            **{f"GIT_{who}_NAME": IDENTITY for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": EMAIL for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_DATE": stamp for who in ("AUTHOR", "COMMITTER")},
        }
        tree = self._run("rev-parse", f"{tree}^{{tree}}")
        return self._run("commit-tree", tree, "-p", parent, "-m", message, env=env)

    def point(self, ref: str, commit: str) -> None:
        """Make the full ref name `ref` point at `commit`."""
        self._run("update-ref", "-m", "autoresearch", ref, commit)

    def advance(self, branch: str, commit: str, expected: str) -> None:
        """Fast-forward `branch` from `expected` to `commit`, and the files of its checkouts with it.

        Does nothing where the branch is there already. Raises UserError where somebody else has moved it.
        """
        ref = f"refs/heads/{branch}"
        now = self.resolve(ref)
        if now == commit:
            return
        if now != expected:
            raise UserError(
                f"branch {branch} was moved to {(now or 'nothing')[:10]} while the study was at {expected[:10]};"
                f" point it back, or start a new study with --tag"
            )
        followers = [tree for tree in self._checkouts(branch) if not self._changed(tree)]
        self._run("update-ref", "-m", "autoresearch: keep", ref, commit, expected)
        for tree in followers:
            self._run("-C", str(tree), "read-tree", "-m", "-u", expected, commit)

    def exclude(self, pattern: str) -> None:
        """Have git ignore `pattern` in this clone, without touching a file of the user's."""
        path = Path(self._run("rev-parse", "--git-path", "info/exclude"))
        file = path if path.is_absolute() else self.root / path
        lines = file.read_text().splitlines() if file.exists() else []
        if pattern not in lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([*lines, pattern]) + "\n")

    def _checkouts(self, branch: str) -> list[Path]:
        trees: list[Path] = []
        for block in self._run("worktree", "list", "--porcelain").split("\n\n"):
            lines = block.splitlines()
            if f"branch refs/heads/{branch}" in lines:
                trees.append(Path(lines[0].removeprefix("worktree ")))
        return [tree for tree in trees if tree.exists()]

    def _changed(self, tree: Path) -> bool:
        return bool(self._run("-C", str(tree), "status", "--porcelain", "--untracked-files=no"))

    def _mode(self, commit: str, path: str) -> str:
        listing = self._run("ls-tree", commit, "--", path)
        return listing.split(" ", 1)[0] if listing else "100644"

    def _run(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        import git

        try:
            output = self._git.git.execute(
                ["git", "-c", "core.quotepath=false", *arguments],
                env={**os.environ, **(env or {})},
                strip_newline_in_stdout=True,
            )
        except git.GitCommandError as error:
            reason = " ".join(str(error.stderr).replace("stderr:", "").split())
            raise UserError(f"git {arguments[0]} failed: {reason}") from None
        return str(output)

    def _try(self, *arguments: str) -> str | None:
        try:
            return self._run(*arguments)
        except UserError:
            return None


def initialise(directory: Path) -> Repository:
    """A new repository in `directory`, with everything in it as the first commit."""
    import git

    made = git.Repo.init(directory, initial_branch="main")
    made.git.add("--all")
    actor = git.Actor(IDENTITY, EMAIL)
    made.index.commit("Begin the workspace", author=actor, committer=actor)
    return Repository(made)
