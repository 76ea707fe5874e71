"""Champion or challenger: the rule by which a new version replaces the champion, or does not.

In words: docs/experiments.md.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

from ..metrics.paired import Incomparable, judge
from ..tracking import runs as tracking
from ..workspace.sections import Register
from . import aliases
from .aliases import CHALLENGER, CHAMPION

IS_CHAMPION = "is the champion"


@dataclass(frozen=True)
class Decision:
    """Which alias a version gets, why, and the paired numbers if there are any; did they decide?"""

    alias: str
    reason: str
    numbers: dict | None = None
    by_test: bool = False


def decide(
    version: ModelVersion,
    champion: ModelVersion | None,
    rule: Register,
    compare: Callable[[], dict],
) -> Decision:
    """Which alias a version gets. `compare` is called only where the two models must be compared,
    and returns the paired numbers.

    The first model good enough becomes champion. Later ones replace it only outside experiments and
    only by the paired comparison; a version that lost the alias once gets it back by hand alone.
    """
    if champion and aliases.version_number(version) == aliases.version_number(champion):
        return Decision(CHAMPION, IS_CHAMPION)
    if failing := not_good_enough(version.tags, rule):
        return Decision(CHALLENGER, failing)
    if champion is None and aliases.was_champion(version):
        return Decision(CHALLENGER, former(version, "taken down in MLflow"))
    if champion is None:
        accuracy = float(version.tags["balanced_accuracy"])
        return Decision(CHAMPION, f"first version of balanced accuracy {accuracy:.3f}")
    excluded = exclusion(version, champion.tags)
    if not excluded and version.tags[tracking.DIGEST] == champion.tags.get(tracking.DIGEST):
        return Decision(CHAMPION, "the champion's weights, packaged anew")
    try:
        numbers = compare()
    except Incomparable as error:
        reason = excluded or f"not compared with the champion: {error}; it stays"
        return Decision(CHALLENGER, reason)
    better, told = judge(numbers, rule)
    if excluded:
        return Decision(CHALLENGER, f"{excluded}; for information: {told}", numbers)
    return Decision(CHAMPION if better else CHALLENGER, told, numbers, by_test=better is not None)


def not_good_enough(tags: dict[str, str], rule: Register) -> str:
    """Why a version can be no champion at all, by its tags; '' if it can."""
    accuracy = float(tags["balanced_accuracy"])
    if tags["gates"] != "passed":
        return f"gates {tags['gates']}"
    if accuracy < rule.min_balanced_accuracy:
        return f"balanced accuracy {accuracy:.3f} is below {rule.min_balanced_accuracy}"
    return ""


def former(version: ModelVersion, how: str) -> str:
    """Why a former champion stays one, and how it lost the alias, unless it has that written."""
    lost = version.tags.get(aliases.REPLACED, how)
    return f"only `unstained promote` brings it back: it was champion before and was {lost}"


def exclusion(version: ModelVersion, champion: dict[str, str]) -> str:
    """Why a version cannot replace the champion (its tags) whatever its numbers; '' if it may."""
    if aliases.was_champion(version):
        return former(version, "replaced")
    if os.environ.get("DVC_EXP_NAME"):
        return "an experiment never moves the champion: `unstained promote` does"
    if version.tags["synthetic"] == "true" and champion.get("synthetic") == "false":
        return "a model of synthetic images never replaces one of real images"
    if version.tags["weights"] == "random" and champion.get("weights") != "random":
        return (
            "random first weights never replace pretrained ones: `unstained promote` wants a reason"
        )
    return ""
