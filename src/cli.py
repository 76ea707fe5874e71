"""The `unstained` command: what is done by hand, beside `dvc repro`."""

import locale
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import cli_images

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else the ends of a docstring's lines are the screen's
    help=__doc__,
)
app.add_typer(cli_images.app)  # its commands stand beside those here
GRAPH, MODELS = "The graph and its experiments", "Registered models"

# What several commands take
Registered = Annotated[
    str, typer.Argument(help="a registered model, such as unstained-no_treatment")
]
Reason = Annotated[str, typer.Option(help="why; kept on the version")]


@app.command(rich_help_panel=GRAPH)
def digest(
    path: Annotated[
        str, typer.Argument(help="folder of images; default: dataset.path of params.yaml")
    ] = "",
) -> None:
    """Refresh the git-tracked digest list of a source's files, by which `dvc repro` notices changed
    images.
    """
    from .common.acquire import digests
    from .common.workspace.params import load

    dataset = load("dataset")
    if path:
        dataset = dataset.model_copy(update={"source": "folder", "path": path})
    written = digests.refresh(dataset)
    typer.echo(f"wrote {written}; commit it, then run `dvc repro`")


@app.command(rich_help_panel=GRAPH)
def real(
    folder: Annotated[
        Path, typer.Argument(help="folder of stained images; images.csv in it says what they are")
    ],
    recipe: Annotated[
        str, typer.Option(help="how the network learns: a file of presets/")
    ] = "stain",
    name: Annotated[
        str, typer.Option(help="of the DVC experiment; default: the folder's and the recipe's")
    ] = "",
    changes: Annotated[
        list[str] | None, typer.Option("-S", help="section.key=value of params.yaml; repeatable")
    ] = None,
) -> None:
    """Run the whole graph on a folder of real images, as a DVC experiment."""
    from .real import run

    if code := run(folder, recipe, name, changes or []):
        raise typer.Exit(code)
    sync()
    summary()


@app.command(rich_help_panel=GRAPH)
def repro(
    jobs: Annotated[int, typer.Option(parser=cli_images.whole(1), help="stages at a time")] = 2,
) -> None:
    """Do what `dvc repro` does, with stages that do not wait for each other side by side."""
    from .repro import bring_up_to_date

    typer.echo(f"repro: {bring_up_to_date(jobs) or 'no'} stages were out of date")


@app.command(rich_help_panel=GRAPH)
def sync() -> None:
    """Rebuild in MLflow whatever it lacks of the outputs at hand: runs, model versions, aliases;
    never twice.
    """
    from .common.register import synced

    synced.sync()


@app.command(rich_help_panel=MODELS)
def promote(
    model: Registered,
    version: Annotated[
        int,
        typer.Argument(
            parser=cli_images.whole(1), metavar="VERSION", help="the version that becomes champion"
        ),
    ],
    reason: Reason,
) -> None:
    """Make a version the champion by hand."""
    from .common.register.by_hand import promote as move

    typer.echo(move(model, version, reason))


@app.command(rich_help_panel=MODELS)
def rollback(model: Registered, reason: Reason) -> None:
    """Give the champion's alias back to the version that had it before."""
    from .common.register.by_hand import rollback as back

    typer.echo(back(model, reason))


@app.command(rich_help_panel=MODELS)
def history(model: Registered) -> None:
    """Show every move of a model's aliases: when, from which version to which, by whom and why."""
    from rich.console import Console

    from .common.register.by_hand import history as moves

    console = Console()
    console.width = console.width if console.is_terminal else 140
    console.print(moves(model))


@app.command(rich_help_panel=GRAPH)
def compare(
    experiments: Annotated[
        list[str], typer.Argument(help="names of DVC experiments, branches or commits")
    ],
    out: Annotated[Path, typer.Option(help="folder for the page and its figures")] = Path(
        "reports/experiments"
    ),
) -> None:
    """Set experiments beside each other: a table of all their models, and their ROC curves
    together.
    """
    from .common.compare.experiments import compare_experiments

    typer.echo(f"wrote {compare_experiments(experiments, out)}")


@app.command(rich_help_panel=GRAPH)
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="take everything out of it")] = False,
) -> None:
    """Say what is kept of single images, so that a plate that grows costs what is new; or empty it.

    What is computed does not depend on it.
    """
    from .common.workspace import entries

    if clear:
        entries.clear()
    kept, most = entries.opened(), entries.limit() / 1e9
    if kept is None:
        typer.echo(f"{entries.FOLDER}: off, since {entries.BOUND} is 0")
        return
    count, size = kept.size()
    typer.echo(
        f"{entries.FOLDER}: {count} entries, {size / 1e9:.3f} GB of at most {most:g} "
        f"({entries.BOUND})"
    )


@app.command(rich_help_panel=GRAPH)
def summary() -> None:
    """Say what the last `dvc repro` made, and where to look."""
    from .common.workspace.params import load
    from .common.workspace.paths import METRICS, WORKSPACE
    from .common.workspace.records import read_json
    from .common.workspace.words import with_interval

    for partition in load("dataset").partitions:  # others may lie there from earlier runs
        record = read_json(METRICS / "evaluate" / f"{partition}.json")
        metrics = [record["overall"][name] for name in ("balanced_accuracy", "auc")]
        accuracy, auc = (with_interval(m["value"], m["group_interval"]) for m in metrics)
        kind = "SYNTHETIC images" if record["synthetic"] else "real images"
        arch = record["model"]["arch"]
        typer.echo(f"{partition} ({kind}): balanced accuracy {accuracy}, AUC {auc}, {arch}")
    for what, where in (
        ("models beside each other and the paper", "reports/compare.md"),
        ("figures", "reports/evaluate, reports/explain, reports/filter, reports/label"),
        ("gates", "reports/checks"),
        ("runs and registered models", "make ui"),
    ):
        typer.echo(f"  {what}: {where}")
    typer.echo(f"in {WORKSPACE}")


def require_own_clone() -> None:
    """Raises UserError in another clone or worktree than that of this environment, whose data and
    models a command would take without a word.
    """
    from .common.workspace.errors import UserError
    from .common.workspace.paths import WORKSPACE

    place = Path.cwd()
    clones = (up for up in (place, *place.parents) if (up / "src" / "cli.py").exists())
    if (here := next(clones, WORKSPACE)) != WORKSPACE:
        raise UserError(
            f"this is the command of {WORKSPACE}, and you are in {here}: there, "
            "`make env`, then `. .venv/bin/activate`"
        )


def in_utf8() -> None:
    """Begins anew in UTF-8, as src/run does for stages, where the locale has another encoding:
    what is read and written would be other letters, and one package of a model two.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main() -> None:
    """Runs the command; what a user can mend ends as a message, not a traceback."""
    in_utf8()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing here reports to outside
    try:
        require_own_clone()
        app()
    except Exception as error:
        from .common.workspace.errors import of_mlflow
        from .common.workspace.paths import MLRUNS, WORKSPACE
        from .common.workspace.room import of_the_disk

        refused = of_the_disk(error, (WORKSPACE, MLRUNS, Path.cwd()))
        expected = isinstance(error, ValueError | OSError) or of_mlflow(error)
        if not refused and not expected:
            raise
        raise SystemExit(f"error: {refused or error}") from None


if __name__ == "__main__":
    main()
