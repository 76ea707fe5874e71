"""What people do with a registered model's aliases: promote, roll back, look at the history."""

from collections.abc import Sequence

from mlflow.entities.model_registry import ModelVersion
from rich.markup import escape
from rich.table import Table

from ..tracking import runs as tracking
from ..tracking.server import alone
from ..workspace.words import number
from .aliases import (
    CHALLENGER,
    CHAMPION,
    RegistryError,
    by_alias,
    champions,
    move,
    moves,
    version_number,
    versions_of,
    write_decision,
)

HOW = {"hand": "by hand"}  # kinds of moves in words, where that differs


@alone()
def promote(name: str, chosen: int, reason: str) -> str:
    """Makes a version champion by hand; returns what was done and what it overrides.

    Raises RegistryError if there is no such version, or no reason.
    """
    return _by_hand(name, str(chosen), reason, "hand")


@alone()
def rollback(name: str, reason: str) -> str:
    """Gives the champion's alias back to the version before.

    Raises RegistryError if none is known.
    """
    client = tracking.connect()
    versions = versions_of(client, name)
    champion = by_alias(client, name, CHAMPION)
    known = champions(versions, version_number(champion) if champion else None)
    if champion is None or len(known) < 2:
        now = "it has no champion"
        if champion:
            now = f"its champion, version {champion.version}, replaced no other"
        raise RegistryError(
            f"{name}: {now}; {listed(versions)}; `unstained promote` makes any of them champion"
        )
    return _by_hand(name, known[-2], reason, "rollback")


def _by_hand(name: str, chosen: str, reason: str, kind: str) -> str:
    client = tracking.connect()
    versions = versions_of(client, name)
    version = next((one for one in versions if version_number(one) == chosen), None)
    if version is None:
        raise RegistryError(f"no version {chosen} of {name}; {listed(versions)}")
    if not reason.strip():
        raise RegistryError("a reason is needed: it is kept on the version")
    before = by_alias(client, name, CHAMPION)
    if before and version_number(before) == chosen:
        return f"{name} version {chosen} is the champion already"
    if kind == "hand":
        loud = [f"WARNING, this overrides: {line}" for line in overrides(version, before)]
        told = f"{CHAMPION}: by hand: {reason}"
    else:
        loud = []
        told = f"{CHAMPION} again: version {version_number(before)} was rolled back ({reason})"
    write_decision(version, told)
    move(version, CHAMPION, reason, kind)
    was = f", was {before.version}" if before else ""
    return "\n".join([*loud, f"models:/{name}@{CHAMPION} is now version {chosen}{was}"])


def overrides(version: ModelVersion, champion: ModelVersion | None) -> list[str]:
    """What speaks against a version as champion, by what is written on it."""
    tags, before = version.tags, champion.tags if champion else {}
    against = []
    if tags.get("gates", "passed") != "passed":
        against.append(f"a gate on its data: {tags['gates']}")
    if tags.get("weights") == "random":
        over = "" if before.get("weights", "random") == "random" else " over pretrained ones"
        against.append(f"random first weights{over}")
    if tags.get("synthetic") == "true":
        over = " over a model of real images" if before.get("synthetic") == "false" else ""
        against.append(f"trained on SYNTHETIC images{over}: not for real plates")
    decision = tags.get("decision", "")
    if decision.startswith(CHALLENGER):
        against.append(f"the rule, which said {decision}")
    if decision.startswith("rolled back"):
        against.append(f"that it was {decision}")
    return against


def listed(versions: Sequence[ModelVersion]) -> str:
    """The versions there are, for a message."""
    return "there are: " + "; ".join(_described(version) for version in versions)


def _described(version: ModelVersion) -> str:
    accuracy = version.tags.get("balanced_accuracy")
    shown = number(float(accuracy) if accuracy else None)
    arch = version.tags.get("arch", "?")
    return f"{version.version} ({arch}, balanced accuracy {shown})"


def history(name: str) -> Table:
    """Every move of a model's aliases, oldest first, for the terminal.

    Raises RegistryError without such a model.
    """
    client = tracking.connect()
    versions = versions_of(client, name)
    held = sorted(client.get_registered_model(name).aliases.items())
    now = ", ".join(f"{alias} is version {holder}" for alias, holder in held) or "no alias"
    table = Table(title=f"{name}: {now}", title_justify="left")
    for column in ("time (UTC)", "alias", "from", "to", "how", "who", "why"):
        table.add_column(column, no_wrap=column in ("time (UTC)", "alias"))
    for step in moves(versions):
        time = step["time"][:16].replace("T", " ")
        how = HOW.get(step["kind"], step["kind"])
        cells = (time, step["alias"], step["from"], step["to"], how, step["who"], step["reason"])
        table.add_row(*(escape(cell or "-") for cell in cells))
    return table
