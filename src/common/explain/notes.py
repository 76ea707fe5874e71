"""What an explanation says in words and in few numbers: counts, headings, notes, main figures."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ..workspace.sections import Explain
from .pi_agreement import BRIGHT, SURROUNDINGS

AGREEMENT = ("pointing", "pointing_15px", "iou")
# Of a call, its name in the record
SHARES = {"live": "share_live", "dead": "share_dead", "abstain": "share_abstained"}


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Windows of the test split, by outcome of the conformal call, and wrong ones if all are called
    by the threshold.

    rows: label, outcome (right, wrong, abstained), forced (live, dead).
    """
    found = rows["outcome"].value_counts()
    return {
        "test": len(rows),
        **{outcome: int(found.get(outcome, 0)) for outcome in ("right", "wrong", "abstained")},
        "wrong_at_threshold": int((rows["forced"] != rows["label"]).sum()),
    }


def error_heading(title: str, counted: Mapping[str, int], apart: int, shown: int) -> str:
    """Heading of the gallery of wrong calls: which calls, how many, and why not all of them are
    shown.

    counted: of `counts`; apart: wrong calls of which no two overlap; shown: those on the figure.
    """
    left = ["overlapping windows"] if apart < counted["wrong"] else []
    left += [f"{apart - shown} less confident ones"] if apart > shown else []
    out = f", {' and '.join(left)} left out" if left else ""
    called = counted["right"] + counted["wrong"]
    return (
        f"{title}: most confident wrong calls, live or dead where the model does not abstain "
        "(conformal)\n"
        f"{counted['wrong']} wrong of {called} called, {counted['abstained']} abstained; {shown} "
        f"shown{out}\n"
        f"Confusion matrix: all {counted['test']} called by the threshold, "
        f"{counted['wrong_at_threshold']} of them wrong"
    )


def notes(
    record: dict, settings: Explain, draws: dict, sanity_windows: int, rounds: Sequence[str]
) -> dict[str, str]:
    """What was chosen where the paper leaves it open, and how to read the numbers that stand
    beside.
    """
    drawn, of = record["agreement"]["drawn"], record["agreement"]["dead_windows"]
    sample = (
        f"all {of} truly dead test windows"
        if drawn == of
        else f"a sample of {drawn} of {of} dead test windows"
    )
    return {
        "models": models_used(rounds, record["embedding"]["round"]),
        "calls": "right and wrong are conformal calls; a window abstained on is neither; the "
        "confusion matrix of the evaluation counts wrong_at_threshold",
        "empty_windows": on_empty_windows(record["empty_windows"]),
        "gradcam_target": "margin of the class's logit over the other's; maps unstretched, logit "
        "units per map cell",
        "bright_pi": f"PI above {BRIGHT:g} times its surroundings (morphological opening by a disk "
        f"{SURROUNDINGS:g} of a window wide), at a quarter of the resolution: stained nuclei "
        "without the haze around them",
        "agreement_windows": f"{sample}; overlapping ones stay in, since groups are the sample; "
        "those without nuclei, or with nothing else, left out",
        "pointing": "into a nucleus; pointing_15px with the tolerance of the pointing game as "
        "published: where a map has few cells (map_cells_a_side), one is wider than a nucleus, and "
        "a maximum beside a nucleus no clear miss",
        "chance": "map and nuclei of different groups; observed, chance and gain are means over "
        "groups, each counted once; gain_interval (95%) and p are Student's over the groups' "
        "gains, and rest on as few groups as there are",
        "sanity": f"random networks {draws}; Spearman over map cells, {sanity_windows} dead "
        "windows or fewer",
        "purity": f"{settings.neighbours} nearest by Euclidean distance; other_groups: without "
        "the window's own group",
    }


def models_used(rounds: Sequence[str], mapped: str) -> str:
    """Which network explained which windows."""
    if list(rounds) == ["holdout"]:
        return "one network; all windows are of its test split"
    return (
        "each window by the network of the fold that tested it, trained and validated without it, "
        "never by the final one: Grad-CAM, agreement, randomisation, empty windows (the fold of "
        f"their image); embedding: {mapped} alone"
    )


def on_empty_windows(empty: dict) -> str:
    """What keeps empty windows out."""
    filtered = "it is the filter that keeps empty windows out of the scores"
    if not empty["scored"]:
        return (
            "the filter dropped no window of the test images as empty; "
            f"where there are any, {filtered}"
        )
    return (
        f"trained on cells alone, the network has no class for emptiness: of {empty['scored']} "
        "windows of the test images that the filter dropped as empty it would call "
        f"{empty['share_live']:.0%} live, {empty['share_dead']:.0%} dead, and abstain on "
        f"{empty['share_abstained']:.0%} (mean live probability {empty['live_probability']:.2f}); "
        f"{filtered}"
    )


def key_numbers(record: dict) -> dict:
    """The few numbers of an explanation that tell models apart, flat for `dvc metrics diff`."""
    pure = record["embedding"]["purity"]["features"]["other_groups"]
    sizes = {name: record["embedding"][name] for name in ("windows", "groups")}
    numbers = {name: record[name] for name in ("partition", "arch", "synthetic")}
    numbers["purity"] = {"value": pure["purity"], "chance": pure["chance"]} | sizes
    dead = record["agreement"].get("dead_map")
    if dead:
        numbers["dead_map"] = {name: dead[name] for name in ("windows", "groups", "area_share")}
        numbers["dead_map"] |= {name: flat(dead[name]) for name in AGREEMENT}
        sanity = record["sanity"]
        numbers["rank_correlation"] = {
            "other_windows": sanity["other_windows"]["mean_absolute"],
            "random_head": sanity["head"]["mean_absolute"],
            "random_network": sanity["all"]["mean_absolute"],
        }
    return numbers | {"empty_windows": record["empty_windows"]}


def flat(gain: dict) -> dict:
    """A comparison with chance, its interval as two numbers."""
    low, high = gain["gain_interval"] or (None, None)
    numbers = {name: gain[name] for name in ("observed", "chance", "gain", "p")}
    return numbers | {"gain_low": low, "gain_high": high}


def main_figures(record: dict) -> str:
    """The main numbers in few lines, for the terminal."""
    pure = record["embedding"]["purity"]["features"]["other_groups"]
    lines = [f"purity of neighbours from other groups {pure['purity']}, by chance {pure['chance']}"]
    if dead := record["agreement"].get("dead_map"):
        lines.append(
            f"dead map against PI-stained nuclei, {dead['windows']} windows of {dead['groups']} "
            "groups:"
        )
        lines += [
            f"  {name} {dead[name]['observed']}, by chance {dead[name]['chance']}, gain "
            f"{dead[name]['gain']}, 95% interval over groups {dead[name]['gain_interval']}"
            for name in AGREEMENT
        ]
    lines.append(on_empty_windows(record["empty_windows"]))
    return "\n".join(f"explain@{record['partition']}: {line}" for line in lines)
