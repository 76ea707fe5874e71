"""Who is champion and challenger, who moved it and why: every move is a tag `alias.TIME` of the
version it went to.
"""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..tracking.origin import login
from ..workspace.errors import UserError
from ..workspace.records import parse
from .card import with_decision

CHAMPION, CHALLENGER = "champion", "challenger"
MOVE = "alias."  # begins the key of a move's tag
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
MOVING = "moving"  # the tag of a version whose move of an alias has begun: that move
REPLACED = "replaced"  # the tag of a former champion: by which version, and why
# What MLflow says of an unknown model, and alias
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
MOVED = ("alias", "from", "to", "kind", "who", "reason")  # what is kept of a move
TAG_LIMIT = 5000  # characters MLflow keeps of a version's tag and of its description
NONE = (
    "none in this store: `unstained sync` registers the models at hand; without any, "
    "`make repro` trains them"
)


class RegistryError(UserError):
    """The registry does not hold what was asked for."""


def version_number(version: ModelVersion) -> str:
    """A version's number as text: MLflow gives a number or text, depending on the store."""
    return str(version.version)


def about(name: str) -> str:
    """The description of a registered model, true of all its versions."""
    return (
        f"Calls patches of bright-field images live or dead. Load `models:/{name}@{CHAMPION}`. "
        "Each version's description is its model card: data (real or SYNTHETIC), results, "
        f"contract, limits, decision. `unstained history {name}` shows who moved the aliases, and "
        "why. For research, not for diagnosis."
    )


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that carries an alias, or None.

    Raises MlflowException if the store does not answer.
    """
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise  # a server that fails must not read as "there is no champion"
        return None


def move(version: ModelVersion, alias: str, reason: str, kind: str) -> None:
    """Gives an alias to a version, which then carries no other of ours, and keeps the move; nothing
    if it has it. A move that a kill cut off is finished first.

    kind: rule, hand or rollback.
    """
    client, number = MlflowClient(), version_number(version)
    before = by_alias(client, version.name, alias)
    for one in filter(None, (version, before)):
        if MOVING in one.tags:
            finish(one, read_move(one, MOVING))
    if before is None or before.version != version.version:
        _move(version, alias, version_number(before) if before else "", number, reason, kind)
    other = CHALLENGER if alias == CHAMPION else CHAMPION
    held = by_alias(client, version.name, other)
    if held and held.version == version.version:
        _move(version, other, number, "", f"is the {alias} now", kind)


def _move(version: ModelVersion, alias: str, left: str, to: str, why: str, kind: str) -> None:
    """Moves an alias from version `left` to version `to` ('' for none), one of which is `version`.

    What is to be done is written on the version first, for `finish`.
    """
    client = MlflowClient()
    time = next_time(versions_of(client, version.name))
    record = {"time": time, "alias": alias, "from": left, "to": to, "kind": kind}
    record |= {"who": who(kind), "reason": why[:4000]}
    text = json.dumps(record, ensure_ascii=False)
    client.set_model_version_tag(version.name, version.version, MOVING, text)
    if to:
        client.set_registered_model_alias(version.name, alias, to)
    else:
        client.delete_registered_model_alias(version.name, alias)
    finish(version, record)


def finish(version: ModelVersion, record: dict) -> None:
    """Keeps a begun move of an alias on the version it concerns, if the alias was moved, and says
    on the champion before that it was replaced. Done twice, it is the same.
    """
    client, told = MlflowClient(), dict(record)
    held = by_alias(client, version.name, record["alias"])
    carries = held is not None and held.version == version.version
    if carries == bool(record["to"]):
        key, text = MOVE + told.pop("time"), json.dumps(told, ensure_ascii=False)
        client.set_model_version_tag(version.name, version.version, key, text)
        if carries and record["alias"] == CHAMPION:
            known = versions_of(client, version.name)
            before = next((v for v in known if version_number(v) == record["from"]), None)
            write_replaced(before, version, record["reason"], record["kind"])
    client.delete_model_version_tag(version.name, version.version, MOVING)


def write_replaced(
    before: ModelVersion | None, version: ModelVersion, reason: str, kind: str
) -> None:
    """Says on the champion `before`, if there was one, that `version` took over and why."""
    client = MlflowClient()
    if REPLACED in version.tags:  # once, and no more
        client.delete_model_version_tag(version.name, version.version, REPLACED)
    if before:
        done = "rolled back to" if kind == "rollback" else "replaced by"
        text = f"{done} version {version_number(version)}: {reason}"
        client.set_model_version_tag(before.name, before.version, REPLACED, text[:TAG_LIMIT])
        write_decision(before, text)


def who(kind: str) -> str:
    """Who moves an alias: a person; of the rule, the experiment it runs in, '' in a plain run."""
    if kind == "rule":
        experiment = os.environ.get("DVC_EXP_NAME")
        return f"experiment {experiment}" if experiment else ""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or login()


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model, oldest first.

    Raises RegistryError naming the models that exist.
    """
    # A quote cannot stand in MLflow's filter, and the names of our models have none
    found = [] if "'" in name else client.search_model_versions(f"name = '{name}'")
    versions = sorted(found, key=lambda version: int(version.version))
    if not versions:
        names = ", ".join(model.name for model in client.search_registered_models()) or NONE
        raise RegistryError(f"no registered model {name}; there are: {names}")
    return versions


def moves(versions: Sequence[ModelVersion]) -> list[dict]:
    """A model's kept alias moves, oldest first: time, alias, from, to, kind, who, reason."""
    tags = [(key, one) for one in versions for key in one.tags if key.startswith(MOVE)]
    made = [{"time": key.removeprefix(MOVE)} | read_move(one, key) for key, one in tags]
    return sorted(made, key=itemgetter("time"))


def read_move(version: ModelVersion, key: str) -> dict:
    """The move that a tag of a version holds. Raises UserError if somebody changed it."""
    held = read_tag(version.tags, key, f"{version.name} version {version.version}")
    return {part: held[part] for part in MOVED} | held


def read_tag(tags: dict[str, str], key: str, owner: str) -> dict:
    """The record that a tag in MLflow holds. Raises UserError if somebody changed it."""
    return parse(tags[key], f"tag {key} of {owner}", "correct or delete it in MLflow")


def champions(versions: Sequence[ModelVersion], now: str | None) -> list[str]:
    """The versions a rollback would walk through, the present champion `now` last; deleted ones are
    left out.

    A rollback takes the last one off; a champion made by other means than ours counts as put on
    top.
    """
    stack: list[str] = []
    for step in moves(versions):
        if step["alias"] != CHAMPION:
            continue
        if step["from"] and (not stack or stack[-1] != step["from"]):
            stack.append(step["from"])  # set in MLflow itself
        if step["kind"] == "rollback":
            stack.pop()
            while stack and stack[-1] != step["to"]:
                stack.pop()  # deleted versions, which a rollback passes over
        if not stack or stack[-1] != step["to"]:
            stack.append(step["to"])
    if now and (not stack or stack[-1] != now):
        stack.append(now)
    there = {version_number(version) for version in versions}
    return [number for number in stack if number in there]


def next_time(versions: Sequence[ModelVersion]) -> str:
    """The time of a move made now, in UTC; just after the last, where a clock was set back since or
    is behind that of another machine: their order says where a rollback leads.
    """
    now = f"{datetime.now(UTC):{TIME}}"
    last = max((step["time"] for step in moves(versions)), default="")
    if now > last:
        return now
    return f"{datetime.strptime(last, TIME) + timedelta(microseconds=1):{TIME}}"


def was_champion(version: ModelVersion) -> bool:
    """Whether a version has been the champion before."""
    return any(step["alias"] == CHAMPION and step["to"] for step in moves([version]))


def write_decision(version: ModelVersion, text: str) -> None:
    """Writes a decision on a version: as the tag `decision`, and at the end of its card."""
    client = MlflowClient()
    client.set_model_version_tag(version.name, version.version, "decision", text[:TAG_LIMIT])
    description = with_decision(version.description or "", text)[:TAG_LIMIT]
    client.update_model_version(version.name, version.version, description)
