"""Fields by a pattern of file names: a regular expression whose named groups are a manifest's
columns, and `channel`; or the name of a preset (presets.py).

`row` and `column` together, or well96, well384 or well1536 (an index row by row from 1), state the
well too.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from .field import NUMBERS, TEXTS, Found, SourceError
from .files import FileField
from .layout import Layout, as_number, make_field
from .listing import describe, image_files, printable, unread
from .manifest import MANIFEST
from .presets import PRESETS, expression

Files = list[tuple[str, str | None]]  # name, and what its group `channel` reads
GROUPS = ("image_id", "channel", "row", "column", "well96", "well384", "well1536", *TEXTS, *NUMBERS)
CALENDAR = "%Yy%mm%dd_%Hh%Mm"  # a time as Incucyte writes it: 2023y04m01d_06h00m


def by_pattern(folder: Path, layout: Layout, roles: Sequence[str]) -> Found:
    """The fields whose files match the layout's pattern, sorted by their groups. Raises
    SourceError.
    """
    names = image_files(folder)
    by_place = _matches(names, layout)
    if not by_place:
        raise SourceError(
            f"{layout.settings.pattern} {layout.pattern} matches no file of {folder} (presets: "
            f"{', '.join(sorted(PRESETS))}).\n{describe(folder)}"
        )
    tokens = {token for files in by_place.values() for _, token in files if token is not None}
    _check_channels(sorted(tokens), layout, roles)
    left = len(names) - sum(map(len, by_place.values()))
    notes = [f"{left} of {len(names)} files do not match {layout.settings.pattern}"] * bool(left)
    notes += unread(folder, [MANIFEST])
    if others := [token for token in sorted(tokens) if _role(token, layout, roles) is None]:
        notes.append(f"channels that are not used: {', '.join(others)}")
    fields = []
    for groups, files in sorted(by_place.items()):
        fields += _fields(folder, dict(groups), files, layout, roles)
    return Found(fields, tuple(notes))


def _matches(names: Sequence[str], layout: Layout) -> dict[tuple, Files]:
    """The files that match, by what their groups but `channel` read."""
    pattern = expression(layout.pattern, layout.settings.pattern)
    if unknown := sorted(pattern.groupindex.keys() - set(GROUPS)):
        raise SourceError(
            f"{layout.settings.pattern} has unknown groups {', '.join(unknown)}; "
            f"known: {', '.join(GROUPS)}"
        )
    by_place: dict[tuple, Files] = {}
    for name in names:
        shown = printable(name)
        match = pattern.fullmatch(shown if "/" in pattern.pattern else PurePosixPath(shown).name)
        if match:
            groups = {key: text or "" for key, text in match.groupdict().items()}
            channel = groups.pop("channel", None) or None  # also of a name that lacks it
            by_place.setdefault(tuple(groups.items()), []).append((name, channel))
    return _elapsed(by_place)


def _elapsed(by_place: dict[tuple, Files]) -> dict[tuple, Files]:
    """The same, with calendar times in hours since the first of their experiment."""
    times = {place: time for place in by_place if (time := _calendar(dict(place).get("time", "")))}
    first: dict[str | None, datetime] = {}
    for place in sorted(times, key=times.__getitem__):
        first.setdefault(dict(place).get("experiment"), times[place])
    made = {}
    for place, files in by_place.items():
        groups = dict(place)
        if place in times:
            passed = times[place] - first[groups.get("experiment")]
            groups["time"] = f"{passed / timedelta(hours=1):.6g}"
        made[tuple(groups.items())] = files
    return made


def _calendar(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, CALENDAR)
    except ValueError:
        return None


def _check_channels(tokens: Sequence[str], layout: Layout, roles: Sequence[str]) -> None:
    """Raises SourceError where the names have channels and it is not said which are wanted."""
    if not tokens or set(roles) <= {_role(token, layout, roles) for token in tokens}:
        return
    now = " and ".join(f"{role} is {getattr(layout, role)!r}" for role in roles)
    raise SourceError(
        f"{layout.settings.channels} must say which text of the group `channel` is "
        f"{' and which is '.join(roles)}; the files have {', '.join(tokens)}; now {now}"
    )


def _role(token: str, layout: Layout, roles: Sequence[str]) -> str | None:
    """Which channel a file name's text stands for; a number in the settings also stands for its
    zero-padded forms.
    """
    for role in roles:
        wanted = getattr(layout, role)
        if wanted in (token, as_number(token)):
            return role
    return None


def _fields(
    folder: Path, groups: Mapping[str, str], files: Files, layout: Layout, roles: Sequence[str]
) -> Iterator[FileField]:
    """The field that files of one name but for the channel make up; one of each further file that
    claims its place.
    """
    sides: dict[str, list] = {role: [] for role in roles}
    for name, token in files:
        for role in roles if token is None else [_role(token, layout, roles)]:
            if role:
                channel = getattr(layout, role) if token is None else None
                sides[role].append(layout.plane(folder, name, channel))
    again = ("same id twice", f"{layout.settings.pattern} does not tell it from {files[0][0]}")
    for place in range(max(map(len, sides.values()))):
        planes = {role: (own[place:] or [None])[0] for role, own in sides.items()}
        where = f"{folder}, {next(plane.name for plane in planes.values() if plane)}"
        yield make_field(planes, groups, layout, where, again if place else None)
