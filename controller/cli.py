"""The command `autoresearch`: parses, calls one function, prints. No logic.

Imports what a command needs inside the command, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller import __version__
from controller.records import AutoresearchError, CheckFailed, Interrupted, UserError

if TYPE_CHECKING:
    from rich.console import Console

Command = Callable[..., None]

_REMEDIES = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EROFS: "make it writable and run again",
    errno.EACCES: "make it writable and run again",
    errno.EPERM: "make it writable and run again",
}
"""What the user can do where the disk refuses."""


class _Group(click.Group):
    """Ends every command with a sentence and an exit code instead of a traceback."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and (close := get_close_matches(args[0], self.commands)):
            ctx.fail(f"There is no command {args[0]!r}, but {' and '.join(close)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            super().main(*args, **{**kwargs, "standalone_mode": False})
        except AutoresearchError as error:
            click.echo(f"autoresearch: {error}", err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            said = error.format_message().rstrip(".")
            where = error.ctx.command_path if error.ctx else "autoresearch"
            click.echo(f"autoresearch: {said[0].lower()}{said[1:]}; see `{where} --help`", err=True)
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("autoresearch: interrupted", err=True)
            sys.exit(Interrupted.exit_code)
        except BrokenPipeError:
            # Whoever read our output has gone, as `| head` does.
            sys.stderr.close()
            sys.exit(0)
        except OSError as error:
            if error.errno not in _REMEDIES:
                raise
            # Of a copy that failed the second file is the one that was written.
            path = error.filename2 or error.filename or "a file"
            said = f"{path} can't be written ({error.strerror}); {_REMEDIES[error.errno]}, nothing is lost"
            click.echo(f"autoresearch: {said}", err=True)
            sys.exit(UserError.exit_code)


def _workspace_option(command: Command) -> Command:
    @click.option(
        "-C",
        "--workspace",
        type=click.Path(path_type=Path),
        default=None,
        help="The workspace to work in; the current folder if not given.",
    )
    @wraps(command)
    def wrapped(workspace: Path | None, **kwargs: Any) -> None:
        command(workspace=workspace or click.get_current_context().obj or Path(), **kwargs)

    return wrapped


_tag_option = click.option("--tag", help="The study; the latest one if not given.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-C", "--workspace", type=click.Path(path_type=Path), help="The workspace to work in.")
@click.version_option(__version__, prog_name="autoresearch")
@click.pass_context
def main(context: click.Context, workspace: Path | None) -> None:
    """Machine-learning research that runs itself: factorial waves, honest scores, reproducible winners.

    \b
    Example:
      autoresearch init demo --profile tiny
      autoresearch -C demo wave --clusters 2 --infra local
      autoresearch -C demo plot
    """
    context.obj = workspace


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    default="tiny",
    show_default=True,
    metavar="tiny|full",
    help="tiny trains on any CPU in seconds, full for five minutes on an H100 or H200.",
)
def init(directory: Path, profile: str) -> None:
    """Make a new workspace in DIRECTORY.

    \b
    Example:
      autoresearch init demo --profile tiny
    """
    from controller.template import init as make

    repository = make(directory, profile)
    click.echo(f"made a workspace with the {profile} profile in {repository.root}")
    click.echo(f"next: cd {directory} && autoresearch wave --clusters 2 --infra local")
    click.echo("then: autoresearch run --clusters 2 --infra local --hours 1, for wave after wave")


def _search_options(command: Command) -> Command:
    """What `wave` and `run` share."""
    options = [
        click.option(
            "--clusters",
            type=click.IntRange(min=1),
            help="How many clusters to use at once; as many as program.md's fleet names, if not given.",
        ),
        click.option(
            "--infra",
            default="skypilot",
            show_default=True,
            envvar="AUTORESEARCH_INFRA",
            show_envvar=True,
            help="Where they are: skypilot leaves it to experiment.yaml; k8s, slurm, aws, k8s/CONTEXT and whatever"
            " else SkyPilot calls an infra; local is this machine; simulated[:FILE] is a made-up fleet that shows what"
            " would be.",
        ),
        click.option("--tag", help="The study to go on with or to begin; the latest, or today's date, if not given."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn."),
        click.option(
            "--proposer",
            default="doe",
            show_default=True,
            help="Who proposes: doe designs experiments, no LLM; optuna; claude; submissions, what is handed in; or a"
            " command that runs an agent.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="Say everything that is written to the log file, too."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_amount = click.FloatRange(min=0, min_open=True)


@main.command()
@_workspace_option
@_search_options
@click.option(
    "--factor",
    "factors",
    multiple=True,
    metavar="KNOB=V1,V2",
    help="Cross these levels instead of asking a proposer; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run, and run nothing.")
@_json_option
def wave(workspace: Path, dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Run one wave: propose, screen, confirm, decide, and commit the winner.

    A wave that was cut off is finished first. Ctrl-C lets what runs come to its end, a second one ends it; the same
    command goes on from there.

    \b
    Example:
      autoresearch wave --clusters 16
      autoresearch wave --clusters 2 --infra local --factor DEPTH=1,2 --factor MATRIX_LR=0.02,0.04,0.08
    """
    from controller.runs import SearchOptions, preview_wave, run_wave

    options = SearchOptions(**asked)
    if dry_run:
        preview_wave(workspace, options, _console(as_json), as_json)
    else:
        run_wave(workspace, options, _console(as_json), as_json)


@main.command()
@_workspace_option
@_search_options
@click.option("--hours", type=_amount, help="Hours that this run may take.")
@click.option("--gpu-hours", type=_amount, help="Hours of accelerators that the study may be billed for, in all.")
@click.option("--usd", type=_amount, help="Dollars that they may cost, in all.")
@click.option("--llm-usd", type=_amount, help="Dollars that language models may cost, in all.")
@click.option("--waves", type=click.IntRange(min=1), help="Waves to begin at most.")
@click.option("--target", type=float, metavar="SCORE", help="Stop once a kept candidate scores this.")
@click.option(
    "--plateau",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    metavar="WAVES",
    help="Stop after so many waves in a row that gave nothing to keep.",
)
@click.option("--metrics", type=click.IntRange(min=0, max=65535), metavar="PORT", help="Serve Prometheus metrics.")
@_json_option
def run(workspace: Path, as_json: bool, **asked: Any) -> None:
    """Run wave after wave, without a pause between them, until the budget is spent or there is nothing left to find.

    Caps that are not given are those of program.md's front matter. Ctrl-C lets what runs come to its end, a second one
    ends it; killed in whatever way, the same command goes on from there.

    \b
    Example:
      autoresearch run --clusters 16 --hours 8
      autoresearch run --clusters 16 --hours 8 --infra simulated
    """
    from controller.runs import SearchOptions, run_search

    run_search(workspace, SearchOptions(**asked), _console(as_json), as_json)


@main.command()
@_workspace_option
@_tag_option
@click.option("--now", is_flag=True, help="End what runs, too.")
def stop(workspace: Path, tag: str | None, now: bool) -> None:
    """Stop a study that runs in another terminal: begin nothing more, and end when what runs has.

    \b
    Example:
      autoresearch stop
    """
    from controller.commands import stop_search

    click.echo(stop_search(workspace, tag, now))


@main.command()
@click.argument("text", required=False)
@_workspace_option
@_tag_option
@click.option("--retire", metavar="NOTE", help="Show proposers this note no longer.")
def note(workspace: Path, text: str | None, tag: str | None, retire: str | None) -> None:
    """Give a hint to whoever proposes, in a study that runs or does not. Without TEXT, list the open notes.

    Agents write notes, too: short lessons. Hints are shown them beside program.md, which is read again before each
    wave: what should hold for good is better written there.

    \b
    Example:
      autoresearch note "depth beyond 12 has never paid off here"
      autoresearch note --retire n0003
    """
    from controller.commands import leave_note

    _echo("\n".join(leave_note(workspace, tag, text, retire)))


@main.command()
@_workspace_option
@_tag_option
@click.option("--edit", type=click.Path(path_type=Path), metavar="FILE", help="The editable file as it should be.")
@click.option(
    "--patch",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A unified diff of it, or SEARCH/REPLACE blocks; - for standard input.",
)
@click.option("--factor", "factors", multiple=True, metavar="KNOB=V1,V2", help="Levels to cross, on top of the edit.")
@click.option("--hypothesis", required=True, help="What makes the metric better, and why.")
@click.option("--name", help="A few words; the hypothesis' first, if not given.")
@click.option(
    "--design", default="full", show_default=True, metavar="full|sweep|screen", help="How levels are combined."
)
@click.option("--predicted", type=float, help="The change of the metric you expect, candidate minus incumbent.")
@click.option("--low", type=float, help="The lower end of the interval that should hold it.")
@click.option("--high", type=float, help="The upper one.")
@click.option("--falsified-by", default="", help="What would show the hypothesis wrong.")
@click.option("--repairs", default="", metavar="CANDIDATE", help="The crashed candidate that the edit repairs.")
@_json_option
def submit(
    workspace: Path,
    tag: str | None,
    edit: Path | None,
    patch: Path | None,
    factors: tuple[str, ...],
    as_json: bool,
    **idea: Any,
) -> None:
    """Hand an idea in to a study that runs, or will: it is checked at once, and part of the next wave.

    What is handed in comes before what `run`'s own proposer has to say; `run --proposer submissions` has no other.

    \b
    Example:
      autoresearch submit --edit train.py --hypothesis "a gate on the residual helps depth" --factor DEPTH=4,6
      autoresearch submit --factor MATRIX_LR=0.02,0.08 --hypothesis "the step is too small" --predicted -0.01
    """
    from controller.commands import submit_idea, text_of

    if edit is not None and patch is not None:
        raise UserError("give --edit or --patch, not both")
    file = edit or patch
    text = text_of(file) if file is not None else ""
    found = submit_idea(workspace, tag, {**idea, "name": idea["name"] or idea["hypothesis"], "edit": text}, factors)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    cells = f"{found['cells']} cell{'s' * (found['cells'] != 1)}"
    left_out = [f"will not run: {line}" for line in found["left_out"]]
    _echo("\n".join([f"{found['submission']}: {cells}; {found['next']}", *left_out]))


@main.command()
@click.argument("submissions", nargs=-1, metavar="[SUBMISSION]...")
@_workspace_option
@_tag_option
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; exit code 1 then.")
@_json_option
def wait(workspace: Path, submissions: tuple[str, ...], tag: str | None, timeout: float | None, as_json: bool) -> None:
    """Wait for what becomes of submissions: those named, or all that are open, or else the last ones.

    \b
    Example:
      autoresearch wait --json
      autoresearch wait s1a2b3c4d --timeout 600
    """
    from controller.commands import wait_for_submissions

    if not wait_for_submissions(workspace, tag, submissions, timeout, as_json, _echo):
        raise CheckFailed("not all have come to an end yet; wait again")


@main.command()
@click.argument("submission")
@_workspace_option
@_tag_option
def withdraw(workspace: Path, submission: str, tag: str | None) -> None:
    """Take back a submission that waits for the next wave.

    \b
    Example:
      autoresearch withdraw s1a2b3c4d
    """
    from controller.commands import withdraw_submission

    click.echo(withdraw_submission(workspace, tag, submission))


@main.command()
@_workspace_option
@_tag_option
def brief(workspace: Path, tag: str | None) -> None:
    """Print what an agent should know of the study: its rules, what was kept, tried and refused, what is open.

    \b
    Example:
      autoresearch brief > brief.md
    """
    from controller.commands import agent_brief

    _echo(agent_brief(workspace, tag))


@main.command()
@_workspace_option
@_tag_option
@click.option("--skill", is_flag=True, help="Print the skill file that teaches agents to use this, and end.")
def mcp(workspace: Path, tag: str | None, skill: bool) -> None:
    """Serve agents over the Model Context Protocol, on standard input and output: submit, wait, look up results.

    \b
    Example:
      autoresearch mcp --skill > .claude/skills/autoresearch/SKILL.md
      claude mcp add autoresearch -- autoresearch -C ~/demo mcp
    """
    from controller.commands import agent_skill, serve_agents

    if skill:
        click.echo(agent_skill(), nl=False)
    else:
        serve_agents(workspace, tag)


@main.command()
@_workspace_option
@_tag_option
def watch(workspace: Path, tag: str | None) -> None:
    """Follow a study that runs in another terminal.

    \b
    Example:
      autoresearch watch
    """
    from controller.commands import watch_search

    watch_search(workspace, tag, _console())


@main.command()
@_workspace_option
@click.option(
    "--clusters",
    type=click.IntRange(min=1),
    help="How many clusters are wanted; as many as program.md's fleet names, else 16, if not given.",
)
@click.option(
    "--context", "contexts", multiple=True, metavar="NAME", help="Only this context of the kubeconfig; may be repeated."
)
@_json_option
def check(workspace: Path, clusters: int | None, contexts: tuple[str, ...], as_json: bool) -> None:
    """Say what so many clusters would get of Kubernetes now, and what is missing.

    Changes nothing there. Works outside a workspace, too.

    \b
    Example:
      autoresearch check --clusters 16
    """
    from controller.commands import run_check

    if not run_check(workspace, clusters, contexts, as_json, _echo):
        raise CheckFailed("not so many clusters can be had now")


@main.command()
@_workspace_option
@_json_option
def clusters(workspace: Path, as_json: bool) -> None:
    """List the clusters that SkyPilot has up: whose, since when, at what cost.

    \b
    Example:
      autoresearch clusters
    """
    from controller.commands import list_clusters

    list_clusters(workspace, _console(as_json), as_json)


@main.command()
@_workspace_option
@_tag_option
@click.option("--all", "every", is_flag=True, help="Those of every study of this workspace.")
def down(workspace: Path, tag: str | None, every: bool) -> None:
    """Take down the study's clusters, and nobody else's. Only for what a run has left: it gives them back itself.

    \b
    Example:
      autoresearch down
    """
    from controller.commands import take_clusters_down

    take_clusters_down(workspace, tag, every, _echo)


@main.command()
@_workspace_option
@_tag_option
@_json_option
@click.option("--prometheus", "as_prometheus", is_flag=True, help="Print metrics in Prometheus' text format.")
def status(workspace: Path, tag: str | None, as_json: bool, as_prometheus: bool) -> None:
    """Say how the study stands.

    \b
    Example:
      autoresearch status
    """
    from controller.opening import open_to_read, study_is_running
    from controller.standing import study_json, study_lines

    journal, tag = open_to_read(workspace, tag)
    running = study_is_running(journal, tag)
    if as_prometheus:
        from controller.prometheus import exposition

        click.echo(exposition(study_json(journal, tag, running)), nl=False)
    elif as_json:
        click.echo(json.dumps(study_json(journal, tag, running), indent=1))
    else:
        click.echo("\n".join(study_lines(journal, tag, running)))


@main.command()
@_workspace_option
@_tag_option
@_json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, one line an experiment.")
@click.option("--tsv", "as_tsv", is_flag=True, help="Print the five columns of upstream's results.tsv.")
def results(workspace: Path, tag: str | None, as_json: bool, as_csv: bool, as_tsv: bool) -> None:
    """List every experiment.

    \b
    Example:
      autoresearch results --json
      autoresearch results --tsv > results.tsv
    """
    from controller.journal import export
    from controller.opening import open_to_read

    if as_json + as_csv + as_tsv > 1:
        raise UserError("choose one of --json, --csv and --tsv")
    journal, tag = open_to_read(workspace, tag)
    if as_json:
        click.echo(export.to_json(journal, tag))
    elif as_csv:
        click.echo(export.to_csv(journal, tag), nl=False)
    elif as_tsv:
        click.echo(export.to_tsv(journal, tag), nl=False)
    else:
        from controller.report import results_table

        _console().print(results_table(journal, tag))


@main.command()
@click.argument("experiment", metavar="ID")
@_workspace_option
@_tag_option
@_json_option
def show(workspace: Path, experiment: str, tag: str | None, as_json: bool) -> None:
    """Show one experiment, candidate or wave.

    \b
    Example:
      autoresearch show e0007
    """
    from controller.opening import open_to_read
    from controller.report import details

    journal, tag = open_to_read(workspace, tag)
    found = details(journal, tag, experiment)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        _echo(f"{name:<14} {value if isinstance(value, str) else json.dumps(value)}")


@main.command()
@click.argument("experiment", metavar="ID")
@_workspace_option
@_tag_option
def diff(workspace: Path, experiment: str, tag: str | None) -> None:
    """Show what an experiment's or candidate's code changed.

    \b
    Example:
      autoresearch diff c0003
    """
    from controller.commands import candidate_diff

    _echo(candidate_diff(workspace, tag, experiment))


@main.command()
@click.argument("experiment", metavar="ID")
@_workspace_option
@_tag_option
@click.option("--tail", type=click.IntRange(min=1), help="Only so many lines from the end.")
def logs(workspace: Path, experiment: str, tag: str | None, tail: int | None) -> None:
    """Print what an experiment's last attempt printed.

    \b
    Example:
      autoresearch logs e0007 --tail 20
    """
    from controller.commands import experiment_log

    _echo(experiment_log(workspace, tag, experiment, tail), nl=False)


@main.command()
@_workspace_option
@_tag_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The page to write.")
def plot(workspace: Path, tag: str | None, output: Path | None) -> None:
    """Draw val_bpb against experiment, as one HTML page that needs no network.

    \b
    Example:
      autoresearch plot -o progress.html
    """
    from controller.runs import draw

    click.echo(f"plot: {draw(workspace, tag, output)}")


@main.command()
@click.argument("commit", required=False)
@_workspace_option
@click.option("--infra", default="local", show_default=True, help="Where to run it: this machine, or as for `wave`.")
@_json_option
def reproduce(workspace: Path, commit: str | None, infra: str, as_json: bool) -> None:
    """Run a kept commit again with its seeds, and say whether its score came back.

    Needs nothing but the repository: a fresh or bare clone will do. COMMIT is the latest kept one if not given.

    \b
    Example:
      autoresearch reproduce autoresearch/nov21
      autoresearch reproduce --infra k8s
    """
    from controller.commands import run_reproduce

    if not run_reproduce(workspace, commit, infra, _console(as_json), as_json):
        raise CheckFailed("not reproduced")


def _echo(text: str, nl: bool = True) -> None:
    """Print what an experiment wrote: byte for byte into a file or pipe, without what a terminal would obey on one."""
    from controller.text import printable

    click.echo(printable(text) if sys.stdout.isatty() else text, nl=nl)


def _console(to_stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=160)
