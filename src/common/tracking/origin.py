"""Where a run comes from, as tags: stage, DVC experiment, git revision, digests of its data."""

import getpass
import os
import subprocess
from collections.abc import Sequence

import yaml

from ..workspace.errors import UserError
from ..workspace.paths import WORKSPACE

VARIABLES = {
    "dvc_exp": "DVC_EXP_NAME",
    "dvc_baseline": "DVC_EXP_BASELINE_REV",
    "dvc_stage": "DVC_STAGE",
}

# By DVC and the stages, in every experiment
REWRITTEN = (":!dvc.lock", ":!metrics", ":!params.yaml", ":!sources")


def origin(stage: str) -> dict[str, str]:
    """Tags of a run that a stage makes now."""
    tags = {"stage": stage, "git_revision": git("rev-parse", "HEAD") or "none"}
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *REWRITTEN)
    tags |= {"git_dirty": str(bool(changed)).lower()}
    tags |= {
        tag: value for tag, variable in VARIABLES.items() if (value := os.environ.get(variable))
    }
    return tags | _of_outputs()


def restoration(stage: str) -> dict[str, str]:
    """Tags of a run rebuilt from a stage's outputs; by which revision and experiment they were made
    is not known.
    """
    revision = git("rev-parse", "HEAD") or "none"
    return {"stage": stage, "restored": "true", "restored_at_revision": revision} | _of_outputs()


def _of_outputs() -> dict[str, str]:
    """Tags of the data's digests, and of the experiments that a run's model is part of, begun with
    the present one.
    """
    experiment = os.environ.get("DVC_EXP_NAME")
    belongs = {"dvc_exps": experiment} if experiment else {}
    return belongs | {f"data.{name}": digest for name, digest in data_digests().items()}


def title(name: str, tags: dict[str, str]) -> str:
    """A run's name: the DVC experiment that it was made in, if any, goes before."""
    return f"{tags['dvc_exp']}: {name}" if "dvc_exp" in tags else name


def data_digests() -> dict[str, str]:
    """DVC's digests of the folders of data/, as dvc.lock has them: {"raw": "md5...", ...}."""
    outs = [out for stage in locked_stages().values() for out in stage.get("outs", [])]
    return {
        o["path"].removeprefix("data/"): o["md5"]
        for o in outs
        if o["path"].startswith("data/") and "md5" in o
    }


def login() -> str:
    """Who works here; a number where the system knows no name, as in containers of any user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def locked_stages() -> dict[str, dict]:
    """The stages that dvc.lock has, by name; none without the file."""
    lock = WORKSPACE / "dvc.lock"
    held = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    return (held or {}).get("stages", {})


def git(*arguments: str) -> str:
    """What a git command prints in the workspace; empty if it fails."""
    result = _run(arguments)
    return result.stdout.strip() if result.returncode == 0 else ""


def require_repository() -> None:
    """Raises UserError unless git takes the workspace for a repository with a commit."""
    result = _run(("rev-parse", "--verify", "HEAD"))
    if result.returncode == 0:
        return
    if "dubious ownership" in result.stderr:  # DVC's own git refuses it too, by a traceback
        raise UserError(
            f"{WORKSPACE} belongs to another user, so git refuses it: clone it as yourself, or, if "
            f"you trust what is in it, `git config --global --add safe.directory {WORKSPACE}`"
        )
    raise UserError(f"{WORKSPACE} is no git repository with a commit: use `git clone`")


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess:
    words = ["git", *arguments]
    return subprocess.run(words, cwd=WORKSPACE, capture_output=True, text=True, check=False)
