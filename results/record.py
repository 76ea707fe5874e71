"""Keeps the metrics of a run that the README quotes, and fills the README's table from what is
kept.

`python results/record.py NAME` writes results/NAME.json from metrics/ (with data digests,
parameters and revision), if DVC holds them for current; without a name it only fills the README's
table anew.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
START, END = "<!-- results: filled by results/record.py -->", "<!-- end of results -->"


def collect() -> dict:
    """The metrics at hand with all that tells which data, parameters and code they come from."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    # Where images and weights lay on one machine says nothing about them
    params["dataset"]["path"] = ""
    params["model"]["weights"] = Path(params["model"]["weights"]).name
    partitions = params["dataset"]["partitions"]
    refuse_stale(partitions)
    return {
        "git_revision": printed("git", "rev-parse", "HEAD").strip(),
        "data": data_digests(),
        "params": params,
        "filter": metrics("filter"),
        "label": metrics("label"),
        "evaluate": {name: metrics(f"evaluate/{name}") for name in partitions},
    }


def metrics(name: str) -> dict:
    """A record of metrics/."""
    return json.loads((ROOT / "metrics" / f"{name}.json").read_text())


def data_digests() -> dict[str, str]:
    """DVC's digests of the folders of data/, from dvc.lock."""
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", []) if "md5" in out]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith("data/")}


def printed(*command: str) -> str:
    """What a command prints in the repository."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def refuse_stale(partitions: list[str]) -> None:
    """Exits unless every record that is kept is what the present code, parameters and data give, as
    DVC sees it.
    """
    kept = ["filter", "label", *(f"evaluate@{name}" for name in partitions)]
    if changed := json.loads(printed("dvc", "status", "--json", *kept)):
        sys.exit(
            f"error: {', '.join(changed)} would not give these metrics now (`dvc status`): run it "
            "again first"
        )
    code = ["src", "dvc.yaml", "requirements.txt", "requirements.lock"]
    if uncommitted := printed("git", "status", "--porcelain", "--", *code):
        sys.exit(
            "error: the revision to name lacks these changes, commit them first:\n" + uncommitted
        )


def interval(value: dict | None) -> str:
    """A value with its interval over groups."""
    if value is None or value.get("value") is None:
        return "n/a"
    low, high = value.get("group_interval") or (None, None)
    return f"{value['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


def recipe(params: dict) -> str:
    """How a model was trained, in a few words."""
    train = params["train"]
    if train.get("layers") == "head":
        last = params["model"]["pooling"] != "levels"
        return f"head on {'the last layer' if last else 'four levels'}"
    return f"fine-tuned, {train['optimizer']} {float(train['lr']):g}, {train['epochs']} epochs"


HEAD = (
    "data", "backbone, first weights", "recipe", "test patches / groups", "balanced accuracy",
    "AUC", "AUC within sessions: mean (of n)", "weighted by pairs", "AUC of the session alone",
)  # fmt: skip


def row(name: str, partition: str, record: dict, params: dict) -> str:
    """One line of the README's table."""
    kind = "**SYNTHETIC**" if record["synthetic"] else "**real**"
    within = record["within_experiment"] or {}
    alone = (record["baselines"]["experiment_only"] or {}).get("in_sample", {}).get("auc")
    data = record["data"]
    count = f" of {within.get('n_mean', within['n_experiments'])}" if within else ""
    cells = [
        f"{partition} ({kind}, `results/{name}.json`)",
        f"{record['model']['arch']}, {record['model']['weights']}",
        recipe(params),
        f"{data['n_patches']} / {data['n_groups']}",
        interval(record["overall"]["balanced_accuracy"]),
        interval(record["overall"]["auc"]),
        interval(within.get("mean")) + count,
        interval(within.get("pair_weighted")),
        interval(alone),
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """The README's table of every kept run."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text())
        lines += [
            row(path.stem, partition, record, kept["params"])
            for partition, record in kept["evaluate"].items()
        ]
    return "\n".join(lines)


def fill(text: str) -> str:
    """The README's text with the table between its marks renewed."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{table()}\n{END}{after}"


def main() -> None:
    """Keeps a run if named, and fills the README."""
    if len(sys.argv) > 1:
        target = RESULTS / f"{sys.argv[1]}.json"
        target.write_text(json.dumps(collect(), indent=1) + "\n")
        print(f"wrote {target}")
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text()))


if __name__ == "__main__":
    main()
