"""Git, by plumbing only: candidates, the study branch, exports. No checkout, no stash, no hook.

The index and the work tree stay as they are, with one exception: where the study branch itself is checked out, its
untouched files follow the branch as they would on a fast-forward pull, because a branch that moves under a checkout
would show up there as the user's own undoing of the winner.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controller.records import UserError

if TYPE_CHECKING:
    from git import Repo as GitRepo

_CONFIGURATION = ("-c", "core.quotepath=false", "-c", "i18n.commitEncoding=utf-8")
_REPOSITORY_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}

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
        try:
            import git
        except ImportError:  # GitPython looks for git while it is imported.
            raise UserError("git is not installed, or not on the PATH; install it") from None

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

    def current_branch(self) -> str | None:
        """The branch that is checked out; None where none is."""
        return self._try("symbolic-ref", "--quiet", "--short", "HEAD")

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
        status, kind, _ = self._git_command(["cat-file", "-t", f"{commit}:{path}"], {}, None)
        if status != 0 or kind.strip() != b"blob":
            return None
        status, content, reason = self._git_command(["cat-file", "blob", f"{commit}:{path}"], {}, None)
        if status != 0:
            raise UserError(f"git cat-file failed: {reason}")
        return content

    def message(self, commit: str) -> str:
        """The message of `commit`."""
        return self._run("log", "-1", "--format=%B", commit)

    def committed_at(self, commit: str) -> int:
        """When `commit` was made, in Unix seconds."""
        return int(self._run("log", "-1", "--format=%ct", commit))

    def is_dirty(self, path: str) -> bool:
        """Whether `path` differs from the commit that is checked out."""
        # Without optional locks it writes nothing, not even what it learnt about the files.
        env = {"GIT_OPTIONAL_LOCKS": "0"}
        return not self._git.bare and bool(self._run("status", "--porcelain", "--", path, env=env))

    def diff(self, old: str, new: str) -> str:
        """The difference between two commits, as `git diff` shows it."""
        return self._run("diff", "--no-color", "--no-ext-diff", old, new)

    def log(self, old: str, new: str) -> str:
        """One line a commit, from `old` (exclusive) to `new`."""
        return self._run("log", "--oneline", "--no-color", f"{old}..{new}")

    def archive(self, commit: str) -> bytes:
        """Every file of `commit` as a tar archive: as committed, whatever line endings this machine is set to.

        What the commit's own .gitattributes say (`export-ignore`, `eol`) holds everywhere, and here too.
        """
        local = ("-c", "core.autocrlf=false", "-c", "core.eol=lf")
        status, output, reason = self._git_command([*local, "archive", "--format=tar", commit], {}, None)
        if status != 0:
            raise UserError(f"git archive failed: {reason}")
        return output

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
        with tempfile.NamedTemporaryFile() as file:
            # In a file, as an argument may be only so long; git refuses null bytes.
            file.write(message.replace("\0", "").encode("utf-8", errors="replace"))
            file.flush()
            return self._run("commit-tree", tree, "-p", parent, "-F", file.name, env=env)

    def point(self, ref: str, commit: str) -> None:
        """Make the full ref name `ref` point at `commit`."""
        self._run("update-ref", "-m", "autoresearch", ref, commit)

    def advance(self, branch: str, commit: str, expected: str) -> None:
        """Fast-forward `branch` from `expected` to `commit`, and the files of its checkouts with it.

        Doing it again after being cut off finishes it. Raises UserError where somebody else has moved the branch.
        """
        ref = f"refs/heads/{branch}"
        now = self.resolve(ref)
        if now not in (commit, expected):
            raise UserError(
                f"branch {branch} was moved to {(now or 'nothing')[:10]} while the study was at {expected[:10]};"
                f" point it back, or start a new study with --tag"
            )
        followers = [tree for tree in self._checkouts(branch) if self._is_at(tree, expected)]
        if now != commit:
            self._run("update-ref", "-m", "autoresearch: keep", ref, commit, expected)
        for tree in followers:
            self._run("read-tree", "-m", "-u", expected, commit, tree=tree)

    def exclude(self, pattern: str) -> None:
        """Have git ignore `pattern` in this clone, without touching a file of the user's."""
        file = self.root / self._run("rev-parse", "--git-path", "info/exclude")
        try:
            present = file.read_bytes() if file.exists() else b""
            if pattern.encode() not in present.splitlines():
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("ab") as end:
                    end.write((b"\n" if present and not present.endswith(b"\n") else b"") + pattern.encode() + b"\n")
        except OSError as error:
            raise UserError(
                f"{file} can't be written ({error.strerror}); free or unlock the disk, and run again"
            ) from None

    def _checkouts(self, branch: str) -> list[Path]:
        trees: list[Path] = []
        for block in self._run("worktree", "list", "--porcelain").split("\n\n"):
            lines = block.splitlines()
            if f"branch refs/heads/{branch}" in lines:
                trees.append(Path(lines[0].removeprefix("worktree ")))
        return [tree for tree in trees if tree.exists()]

    def _is_at(self, tree: Path, commit: str) -> bool:
        """Whether index and tracked files of a work tree are those of `commit`, whatever its HEAD says."""
        self._run("status", "--porcelain", "--untracked-files=no", tree=tree)  # looks at touched files again
        staged = self._run("diff-index", "--cached", "--name-only", commit, "--", tree=tree)
        return not staged and not self._run("diff-files", "--name-only", tree=tree)

    def _mode(self, commit: str, path: str) -> str:
        listing = self._run("ls-tree", commit, "--", path)
        return listing.split(" ", 1)[0] if listing else "100644"

    def _run(self, *arguments: str, env: Mapping[str, str] | None = None, tree: Path | None = None) -> str:
        status, output, reason = self._git_command(arguments, env or {}, tree)
        if status != 0:
            raise UserError(f"git {arguments[0]} failed: {reason}")
        return output.decode("utf-8", errors="surrogateescape").removesuffix("\n")

    def _try(self, *arguments: str) -> str | None:
        """What git says; None where it says no without a word, as `--quiet` has it do."""
        status, output, reason = self._git_command(arguments, {}, None)
        if status != 0 and reason:
            raise UserError(f"git {arguments[0]} failed: {reason}")
        return None if status != 0 else output.decode("utf-8", errors="surrogateescape").removesuffix("\n")

    def _git_command(
        self, arguments: Sequence[str], env: Mapping[str, str], tree: Path | None
    ) -> tuple[int, bytes, str]:
        # Run from one of git's own hooks, we would inherit which repository and index that hook is about.
        clean = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
        done = subprocess.run(
            ["git", *_CONFIGURATION, *arguments],
            cwd=tree or self.root,
            env={**clean, "LC_ALL": "C", "LANGUAGE": "C", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout, " ".join(done.stderr.decode("utf-8", errors="replace").split())


def initialise(directory: Path) -> Repository:
    """A new repository in `directory`, with everything in it as the first commit."""
    import git

    try:
        made = git.Repo.init(directory, initial_branch="main")
        # The user's own ignore rules, line endings and hook templates are for their files, not for these.
        made.git.execute(["git", "-c", "core.autocrlf=false", "add", "--all", "--force"])
    except git.GitCommandError as error:
        raise UserError(f"git could not begin a repository in {directory}: {error.stderr.strip()}") from None
    actor = git.Actor(IDENTITY, EMAIL)
    made.index.commit("Begin the workspace", author=actor, committer=actor, skip_hooks=True)
    return Repository(made)
