"""The commands that work with images and a registered model, beside the graph: see cli.py."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
IMAGES = "Images and a model"


def whole(least: int, most: float = math.inf) -> Callable[[str | int], int]:
    """A parser of whole numbers within bounds: digits 0 to 9, as in tables, where int() would also
    take 1_0 for 10, and digits of other scripts.
    """

    def parse(given: str | int) -> int:
        from .common.workspace.csv_table import number_of

        number = number_of(str(given))
        if number is None or number % 1 or not least <= number <= most:
            bounds = f"from {least} on" if most == math.inf else f"from {least} to {most}"
            raise typer.BadParameter(f"wants a whole number {bounds}, not {given!r}")
        return int(number)

    return parse


def _above_zero(text: str) -> float:
    """A pixel size that can be one. Raises BadParameter."""
    from .common.workspace.csv_table import number_of

    size = number_of(text)
    if size is None or not 0 < size < math.inf:
        raise typer.BadParameter(f"a pixel has a size above 0 um, such as 0.3112, and not {text}")
    return size


def _order(axes: str) -> str:
    """Axes in capitals, each once. Raises BadParameter for what is no order of T, C, Z, Y, X."""
    given = axes.upper()
    each = set(given)
    if not given or ({"Y", "X"} <= each <= set("TCZYX") and len(each) == len(given)):
        return given
    raise typer.BadParameter(f"give each of T, C, Z, Y, X once at most, Y and X too, not {axes!r}")


# Options that several commands take
Model = Annotated[
    str, typer.Option(help="a registered model, such as models:/unstained-no_treatment@champion")
]
Manifest = Annotated[Path | None, typer.Option(help="CSV instead of the folder's images.csv")]
Pattern = Annotated[
    str, typer.Option(help="file names by a regular expression or a preset, such as opera")
]
PixelSize = Annotated[
    float | None,
    typer.Option(parser=_above_zero, metavar="FLOAT", help="where neither manifest nor file says"),
]
BrightField = Annotated[
    str, typer.Option(help="channel of bright-field: a number from 0, or a name")
]
Axes = Annotated[
    str, typer.Option(callback=_order, help="axis order of files that do not state it, such as CYX")
]
Plane = Annotated[
    int | None,
    typer.Option(parser=whole(0), metavar="INTEGER", help="focus plane of z-stacks, from 0"),
]


@app.command(rich_help_panel=IMAGES)
def annotate(
    annotations: Annotated[
        Path | None, typer.Option(help="the CSV; default: filter.annotations")
    ] = None,
    annotator: Annotated[str, typer.Option(help="your name; default: your login")] = "",
    port: Annotated[
        int, typer.Option(parser=whole(1, 65535), metavar="INTEGER", help="of 127.0.0.1")
    ] = 8080,
    pool: Annotated[
        int, typer.Option(parser=whole(1), metavar="INTEGER", help="most windows to choose from")
    ] = 1500,
    batch: Annotated[
        int,
        typer.Option(
            parser=whole(1), metavar="INTEGER", help="answers between two fits of the filter"
        ),
    ] = 1,
    order: Annotated[str, typer.Option(help="uncertain (first) or random")] = "uncertain",
) -> None:
    """Say on a local page what windows hold (cells, empty, unusable), those first of which the
    filter is unsure.
    """
    from .annotation.page import check_port, serve
    from .annotation.start import begin
    from .common.tracking.origin import login

    check_port(port)
    session, title, synthetic = begin(annotations, annotator or login(), pool, batch, order)
    serve(session, port, title, synthetic)


@app.command(rich_help_panel=IMAGES)
def score(
    images: Annotated[
        list[Path],
        typer.Argument(help="a folder (with or without images.csv), a manifest, or files"),
    ],
    model: Model,
    out: Annotated[
        Path, typer.Option(help="folder for tables, overlays and the page; the same one goes on")
    ],
    manifest: Manifest = None,
    pattern: Pattern = "",
    pixel_size_um: PixelSize = None,
    brightfield: BrightField = "",
    axes: Axes = "",
    z: Plane = None,
    allow_synthetic: Annotated[
        bool, typer.Option(help="take a model trained on synthetic images")
    ] = False,
    overlays: Annotated[bool, typer.Option(help="a picture of each image with its calls")] = True,
    stain: Annotated[bool, typer.Option(help="the predicted PI as OME-TIFF, one an image")] = False,
    controls: Annotated[
        bool, typer.Option(help="set each plate's operating point from its control wells")
    ] = False,
) -> None:
    """Score bright-field images without stain: tables, pictures and a summary page."""
    from .assay.score import Options
    from .assay.score import score as run
    from .common.images.layout import Layout, as_number

    layout = Layout((), pattern, as_number(brightfield or None), None, axes, z)
    options = Options(layout, manifest, pixel_size_um, overlays, stain, controls)
    table = run(images, model, out, options, allow_synthetic)
    for status, part in table.groupby("status", sort=False):
        first = part.iloc[0]
        such = "" if status == "scored" else f", such as {first['image_id']}: {first['reason']}"
        images_of = "1 image" if len(part) == 1 else f"{len(part)} images"
        typer.echo(f"{images_of} {status}{such}")
    typer.echo(f"wrote {out / 'summary.html'}")


@app.command(rich_help_panel=IMAGES)
def validate(
    images: Annotated[
        Path, typer.Argument(help="folder of stained images: images.csv with brightfield and pi")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for the page, tables and figures")],
    manifest: Manifest = None,
    pattern: Pattern = "",
    pixel_size_um: PixelSize = None,
    brightfield: BrightField = "",
    pi: Annotated[str, typer.Option(help="channel of PI, likewise")] = "",
    axes: Axes = "",
    z: Plane = None,
    thresholds: Annotated[
        str, typer.Option(help="of PI: the model's, or own (fitted to these images)")
    ] = "model",
) -> None:
    """Set a registered model against the PI stain of control images: does it hold on this
    microscope?
    """
    from .assay.validate import Options
    from .assay.validate import validate as run
    from .common.images.layout import Layout, as_number

    if thresholds not in ("model", "own"):
        raise ValueError(f"--thresholds is model or own, not {thresholds!r}")
    channels = as_number(brightfield), as_number(pi)
    layout = Layout(["validation"], pattern, *channels, axes, z)
    record = run(images, model, out, Options(layout, manifest, pixel_size_um), thresholds == "own")
    typer.echo(f"{record['verdict']['outcome']}: {record['verdict']['text']}")
    for wanted in record["verdict"]["settle"]:
        typer.echo(f"what would settle it: {wanted}")
    typer.echo(f"wrote {out / 'validation.html'}")


@app.command(rich_help_panel=IMAGES)
def adapt(
    images: Annotated[
        Path, typer.Argument(help="stained fields, or control wells, of one session")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for adaptation.json")],
    controls: Annotated[
        bool, typer.Option(help="from wells whose control is negative or positive, without stain")
    ] = False,
    learn: Annotated[
        bool,
        typer.Option(help="a stain network also learns on from the stained fields, two or more"),
    ] = False,
    manifest: Manifest = None,
    pixel_size_um: PixelSize = None,
) -> None:
    """Adapt a model to a new session, and register it as a version of its own."""
    from .assay.adapt import adapt as run
    from .assay.stained import Options
    from .common.images.layout import Layout

    options = Options(Layout(["adapt"]), manifest, pixel_size_um)
    record = run(images, model, out, options, controls, learn)
    typer.echo(
        f"network {record['network']}, evidence shifted by {record['shift']:+.2f} (logit), from "
        f"{record['images']} images; registered as models:/{record['model']}/{record['version']}, "
        "no alias moved"
    )


@app.command(rich_help_panel=IMAGES)
def export(
    model: Annotated[
        str,
        typer.Argument(help="a registered model, such as models:/unstained-no_treatment@champion"),
    ],
    out: Annotated[Path, typer.Argument(help="the package to write, such as model.zip")],
) -> None:
    """Write a model as a package of the BioImage Model Zoo, for ilastik, deepImageJ, napari."""
    from .assay.model import load
    from .export.package import export as write

    loaded = load(model, allow_synthetic=True)  # the package says SYNTHETIC in its name
    scorer = loaded.pyfunc.unwrap_python_model().scorer
    typer.echo(f"wrote {write(scorer, loaded.facts, out)}")
