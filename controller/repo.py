"""Git, by plumbing only: candidates, the study branch, exports. No checkout, no stash, no hook.

The index and the work tree stay as they are, with one exception: where the study branch itself is checked out, its
untouched files follow the branch as they would on a fast-forward pull, because a branch that moves under a checkout
would show up there as the user's own undoing of the winner.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import IO, TYPE_CHECKING

from controller.drafts import EMAIL, IDENTITY, Draft, instructions
from controller.objects import Objects, Recent
from controller.records import UserError
from controller.tarball import MAX_AT, Member, members, tarball

if TYPE_CHECKING:
    from git import Repo as GitRepo

__all__ = ["EMAIL", "IDENTITY", "Draft", "Export", "Repository", "initialise"]

LOCK_PATIENCE_MS = 1000
"""How long git waits for another process that is changing one of our refs, which takes milliseconds."""

_CONFIGURATION = ("-c", "core.quotepath=false", "-c", "i18n.commitEncoding=utf-8")
_REPOSITORY_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
_OWN_REFS = "refs/autoresearch/"
_ATTRIBUTES_OF_EXPORTS = {"export-ignore", "export-subst", "text", "crlf", "eol", "ident", "filter"} | {
    "working-tree-encoding"
}


@dataclass(frozen=True)
class Export:
    """The files of a commit: as a tar archive, and the SHA-256 of every regular one's content by its path."""

    archive: bytes
    digests: Mapping[str, str]


class Repository:
    """One git repository, with a work tree or bare."""

    def __init__(self, git: GitRepo) -> None:
        self._git = git
        self.root = Path(git.working_tree_dir or git.git_dir)
        self._objects = Objects(self.root, _environment())
        self._plain = Recent[bool](64)

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
        found = self._objects.commit(commit)
        entry = self._objects.entry(found.tree, path) if found is not None else None
        if entry is None or not (S_ISREG(entry.mode) or S_ISLNK(entry.mode)):
            return None
        return self._objects.content(entry.id)

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

    def export(self, commit: str) -> Export:
        """The files of `commit`: as committed, whatever line endings this machine is set to.

        What the commit's own .gitattributes say (`export-ignore`, `eol`) holds everywhere, and here too; the archive is
        always that of `git archive`, byte for byte.

        Candidates differ in one file: what they share is read and hashed once. Attributes that are set outside the
        commit are looked at once for all commits with files of the same names.
        """
        found = self._objects.commit(commit)
        packed = members(self._objects, found.tree) if found is not None else None
        if found is None or packed is None or found.at is None or found.at > MAX_AT or not self._is_plain(packed):
            return self._export_by_git(commit)
        files = [member for member in packed if S_ISREG(member.mode)]
        digests = {os.fsdecode(file.name): self._objects.digest(file.id, file.content) for file in files}
        return Export(tarball(found.id, found.at, packed), digests)

    def commit_edits(self, parent: str, drafts: Sequence[Draft], at: float) -> list[str]:
        """A commit on `parent` for each of `drafts`, made at the Unix second `at`; their refs point at them.

        The same arguments give the same commits, so that making them twice makes them once. Cut off before the refs, it
        leaves nothing but objects that nobody refers to; the refs all change, or none where git says no. Raises
        UserError where `parent` is no commit, a path is no file's, or git fails.
        """
        base = self._objects.commit(parent)
        if base is None:
            raise UserError(f"there is no commit {parent} to edit")
        modes = {path: self._mode(base.tree, path) for path in {path for draft in drafts for path in draft.edits}}
        # A pack, however few they are: it is on the disk before a ref is, where git does not wait for loose objects.
        settings = ("-c", "fastimport.unpackLimit=0", "-c", "core.ignoreCase=false")
        with _as_file(instructions(base.id, drafts, modes, at)) as told:
            made = self._run(*settings, "fast-import", "--quiet", told=told).split() if drafts else []
        refs = {draft.ref: commit for draft, commit in zip(drafts, made, strict=True) if draft.ref is not None}
        if refs:
            self._point_all(refs)
        return made

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

    def _mode(self, tree: str, path: str) -> int:
        """The mode of a file that is edited, or a plain one's where it is new. Raises UserError for what is no file."""
        parts = path.split("/")
        if "\0" in path or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
            raise UserError(f"{path!r} is no path of a file in a repository")
        for depth in range(1, len(parts)):
            above = self._objects.entry(tree, "/".join(parts[:depth]))
            if above is not None and not S_ISDIR(above.mode):
                raise UserError(f"{path} can't be a file, as {'/'.join(parts[:depth])} is no folder")
        entry = self._objects.entry(tree, path)
        if entry is None:
            return 0o100644
        if S_ISLNK(entry.mode):
            return 0o120000
        if not S_ISREG(entry.mode):
            raise UserError(f"{path} can't be a file, as it is a folder")
        return 0o100755 if entry.mode & 0o100 else 0o100644

    def _point_all(self, refs: Mapping[str, str]) -> None:
        told = [b"update %s\0%s\0\0" % (os.fsencode(ref), commit.encode()) for ref, commit in refs.items()]
        patience = ("-c", f"core.filesRefLockTimeout={LOCK_PATIENCE_MS}")
        command = (*patience, "update-ref", "-m", "autoresearch", "-z", "--stdin")
        with _as_file(told) as file:
            status, _, reason = self._git_command(command, {}, None, file)
            if status != 0 and ".lock': File exists" in reason:
                # Nobody else changes these refs for so long: git was killed, by a power cut say, while it did.
                common = self.root / self._run("rev-parse", "--git-path", _OWN_REFS)
                for ref in refs:
                    if ref.startswith(_OWN_REFS):
                        Path(common, f"{ref.removeprefix(_OWN_REFS)}.lock").unlink(missing_ok=True)
                status, _, reason = self._git_command(command, {}, None, file)
        if status != 0:
            raise UserError(f"git update-ref failed: {reason}")

    def _is_plain(self, packed: Sequence[Member]) -> bool:
        """Whether no setting outside the commit has a say in how `git archive` packs these."""
        names = b"".join(member.name + b"\0" for member in packed)
        key = sha256(names).hexdigest()
        known = self._plain.get(key)
        if known is None:
            with tempfile.TemporaryDirectory() as nowhere, _as_file([names]) as file:
                env = {"GIT_INDEX_FILE": str(Path(nowhere, "index"))}
                said = self._run("check-attr", "--cached", "--all", "-z", "--stdin", env=env, told=file)
            known = not _ATTRIBUTES_OF_EXPORTS.intersection(said.split("\0")[1::3])
            known = known and self._try("config", "--get", "tar.umask") is None
            self._plain.keep(key, known)
        return known

    def _export_by_git(self, commit: str) -> Export:
        local = ("-c", "core.autocrlf=false", "-c", "core.eol=lf")
        status, output, reason = self._git_command([*local, "archive", "--format=tar", commit], {}, None)
        if status != 0:
            raise UserError(f"git archive failed: {reason}")
        digests: dict[str, str] = {}
        with tarfile.open(fileobj=io.BytesIO(output)) as tar:
            for member in tar:
                if member.isfile():
                    file = tar.extractfile(member)
                    assert file is not None
                    digests[member.name] = sha256(file.read()).hexdigest()
        return Export(output, digests)

    def _run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        tree: Path | None = None,
        told: IO[bytes] | None = None,
    ) -> str:
        status, output, reason = self._git_command(arguments, env or {}, tree, told)
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
        self, arguments: Sequence[str], env: Mapping[str, str], tree: Path | None, told: IO[bytes] | None = None
    ) -> tuple[int, bytes, str]:
        if told is not None:
            told.seek(0)
        done = subprocess.run(
            ["git", *_CONFIGURATION, *arguments],
            cwd=tree or self.root,
            env={**_environment(), **env},
            stdin=told or subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout, " ".join(done.stderr.decode("utf-8", errors="replace").split())


def _environment() -> dict[str, str]:
    # Run from one of git's own hooks, we would inherit which repository and index that hook is about.
    clean = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    return {**clean, "LC_ALL": "C", "LANGUAGE": "C"}


@contextmanager
def _as_file(parts: Iterable[bytes]) -> Iterator[IO[bytes]]:
    """A file to read from: unlike through a pipe, git gets all of it even where we are killed meanwhile."""
    with tempfile.TemporaryFile() as file:
        file.writelines(parts)
        yield file


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
