"""A run on a folder of real images, as a DVC experiment: `unstained real FOLDER`.

What can be refused is refused first: the changes are tried on a copy of params.yaml, and the
partitions are read. Only then DVC writes params.yaml.
"""

import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .common.acquire import digests, sources
from .common.tracking.origin import git, locked_stages, require_repository
from .common.workspace import room
from .common.workspace.errors import UserError
from .common.workspace.overrides import applied, quoted
from .common.workspace.params import parse, read
from .common.workspace.paths import WORKSPACE
from .common.workspace.sections import Dataset

# Part of a model's name and, with endings, of files' and git's names, which 255 bytes bound
PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
LONGEST = 100
OF_A_FOLDER = ("pattern=''", "channels.brightfield=''", "channels.pi=''", "axes=''", "z=null",
               "pixel_size_um=null")  # fmt: skip

ROOM = 1e8  # bytes: with less on a disk, that is why a run ended


class RealRunError(UserError):
    """A run on real images cannot begin."""


def run(folder: Path, recipe: str, name: str, changes: Sequence[str]) -> int:
    """Runs the graph on a folder of images as a DVC experiment; returns DVC's exit code.

    folder: with images.csv, or with `dataset.pattern=...` among the changes.
    recipe: a file of presets/.
    name: of the experiment; '' makes it of the folder's name and the recipe's.
    changes: further `section.key=value`, as `dvc exp run -S` takes them.
    Raises UserError before anything is changed.
    """
    require_repository()
    place = usable(folder)
    every = [*preset("real"), *preset(recipe), *source_of(place), *changes]
    dataset, partitions = partitions_of(every, place)
    if not any(change.startswith("dataset.partitions=") for change in changes):
        every.append(f"dataset.partitions=[{','.join(map(quoted, partitions))}]")
    name = free_name(name, f"{short(place.name)}-{recipe}")
    print(f"experiment {name}: {place}, partition {', '.join(partitions)}, recipe {recipe}")
    for line in left_over(every):
        print(f"note: params.yaml has {line}, other than the last commit")
    if not set(partitions) <= trained():
        print("note: DVC warns first of files whose hash it does not know: this run makes them")
    print(f"wrote {digests.refresh(dataset).relative_to(WORKSPACE)}", flush=True)
    code = subprocess.run(command(name, every), cwd=WORKSPACE, check=False).returncode
    if code:
        print(f"error: experiment {name} has not finished: {why_not()}", file=sys.stderr)
    return code


def why_not() -> str:
    """Why DVC may have ended, and what to do: its own words name neither the disk nor a cure."""
    written = ("", ".dvc/cache", "data", "models", "reports", "mlruns", ".git")
    places = [*(WORKSPACE / name for name in written), Path(tempfile.gettempdir())]
    for place in (each for each in places if each.exists()):
        if (left := room.free(place)) < ROOM:
            return (
                f"the disk of {place} has {left / 1e6:.0f} MB left. Make room there and repeat the "
                "command: it goes on where it stopped"
            )
    return (
        "the lines above name the stage that stopped, and why. Mend that and repeat the command: "
        "what is done is not done again"
    )


def command(name: str, changes: Sequence[str]) -> list[str]:
    """The argument vector of `dvc exp run`."""
    options = [word for change in changes for word in ("-S", change)]
    return [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *options]


def usable(folder: Path) -> Path:
    """The folder as an absolute path that params.yaml can hold. Raises RealRunError."""
    place = folder.expanduser().resolve()
    if not place.is_dir():
        raise RealRunError(f"{place} is no folder: name the folder that holds the images")
    if "${" in str(place) or not str(place).isprintable():
        raise RealRunError(
            f"params.yaml cannot hold {str(place)!r}: rename the folder, without line breaks, "
            "'${' and other characters that are not printed"
        )
    return place


def preset(name: str) -> list[str]:
    """The changes that a file of presets/ lists. Raises RealRunError for an unknown name."""
    known = sorted(path.stem for path in (WORKSPACE / "presets").glob("*.txt"))
    if name not in known:
        recipes = ", ".join(stem for stem in known if stem != "real")
        raise RealRunError(f"there is no recipe {name!r}: known are {recipes}")
    return (WORKSPACE / "presets" / f"{name}.txt").read_text(encoding="utf-8").split()[1::2]


def source_of(place: Path) -> list[str]:
    """What a folder changes in params.yaml: until they are read, one partition of its name."""
    own = f"{place.name}.csv"
    known = {path.name for path in (WORKSPACE / "annotations").glob("*.csv")}
    annotations = f"annotations/{own if own in known else 'folder.csv'}"
    return [
        *forgotten(place),
        "dataset.source=folder",
        f"dataset.path={quoted(str(place))}",
        f"dataset.partitions=[{quoted(plain(place.name))}]",
        f"filter.annotations={quoted(annotations)}",
    ]


def forgotten(place: Path) -> list[str]:
    """What sets back the settings of another folder's files, which an earlier run left in
    params.yaml: a pixel size of theirs would make wrong models of these without a word.
    """
    present = read(params_text()).get("dataset") or {}
    return [] if present.get("path") == str(place) else [f"dataset.{key}" for key in OF_A_FOLDER]


def short(name: str) -> str:
    """A folder's name, no longer than a part of a file's name may be."""
    return name.encode(errors="replace")[:LONGEST].decode(errors="ignore")


def plain(name: str) -> str:
    """A folder's name as a partition's: letters without accents, all else an underscore."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"\W+", "_", letters).strip("_")[:LONGEST] or "folder"


def params_text() -> str:
    """params.yaml as it is now."""
    return (WORKSPACE / "params.yaml").read_text(encoding="utf-8")


def partitions_of(changes: Sequence[str], place: Path) -> tuple[Dataset, list[str]]:
    """The section `dataset` and the partitions that the manifest or the file names give, sorted.

    Raises RealRunError for a partition that cannot name a model, SourceError for a bad folder,
    UserError for a change that cannot be made, or leaves a value that is not allowed.
    """
    text = applied(params_text(), changes)
    dataset = parse(text, "params.yaml with these changes")["dataset"]
    files = {entry.partition: entry.name for entry in sources.find(dataset, None).fields}
    for name, file in files.items():
        if not PARTITION.fullmatch(name):
            raise RealRunError(
                f"{place}: partition {name!r} (of {file}) cannot name a model: use letters A to Z, "
                f"digits, '_', '.' and '-', {LONGEST} at most, beginning with a letter or a digit"
            )
    spelled = sorted(files, key=str.casefold)
    for one, other in pairwise(spelled):
        if one.casefold() == other.casefold():
            raise RealRunError(
                f"{place}: partitions {one!r} (of {files[one]}) and {other!r} (of {files[other]}) "
                "differ in case alone: spell them alike, as they name files"
            )
    return dataset, sorted(files)


def free_name(wanted: str, default: str) -> str:
    """The experiment's name; the default gets a number where it is taken.

    Raises RealRunError if the wanted one is taken, or cannot be a name in git.
    """
    name = wanted or re.sub(r"[^\w+=]+", "-", default).strip("-")
    if (
        len(name.encode()) > 2 * LONGEST
        or "/" in name
        or git("check-ref-format", "--branch", name) != name
    ):
        raise RealRunError(
            f"--name {name!r} cannot name an experiment: use letters, digits, - and _, "
            f"{2 * LONGEST} bytes at most"
        )
    refs = git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    taken = {ref.rpartition("/")[2] for ref in refs}
    if wanted in taken:
        raise RealRunError(
            f"experiment {wanted!r} exists: give another --name, or remove it by dvc"
        )
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


def trained() -> set[str]:
    """The partitions whose models DVC knows, by its lock."""
    return {name.partition("@")[2] for name in locked_stages() if name.startswith("train@")}


def left_over(changes: Sequence[str]) -> list[str]:
    """What params.yaml has other than the last commit and the changes do not set."""
    committed = read(git("show", "HEAD:params.yaml")) or {}
    present = read(params_text())
    stated = {change.partition("=")[0] for change in changes}
    return [
        f"{section}.{key}={value}"
        for section, values in present.items()
        for key, value in values.items()
        if f"{section}.{key}" not in stated and committed.get(section, {}).get(key) != value
    ]
