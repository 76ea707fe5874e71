"""What a package of the BioImage Model Zoo says of itself."""

from pathlib import Path

from bioimageio.spec.model import v0_5 as zoo

TEXT = """# Live or dead, from bright field alone

{kind} Model `{name}`, version {version}, partition `{partition}`, network `{arch}`.

**In**: one bright-field channel, raw counts of 8 or 16 bit as numbers, {pixel}; not scaled
beforehand.
**Out**: for each window of {size} x {size} px, every {stride} px from the upper left corner, the
calibrated probability that it is live. Element (row, column) is the window whose corner is at
({stride} x row, {stride} x column).

What `unstained score` does beyond that is *not* in this package: windows without cells, out of
focus or at a border get a probability here, too; nothing abstains, and no image is refused for
another pixel size, saturation, or being unlike the training data. Windows flush with the right and
bottom edge are left out. `contract.json` has the abstain band and what the model was trained on.
For research, not for diagnosis; validate it against a stain on your own microscope first. What it
yields is the live-patch fraction, not cell viability.

Scaling is by the frame's own percentiles: give whole frames, not tiles. Against the model that it
was exported from, probabilities agree within {tolerance:g}.
"""


def describe(folder: Path, contract: dict, facts: dict, size: int, stride: int) -> zoo.ModelDescr:
    """The description of the files in FOLDER.

    facts: name and version of the model, PyTorch's version, and the tolerance; size and stride of
    windows in px.
    """
    kind = (
        "**Trained on SYNTHETIC images.**" if contract["synthetic"] else "Trained on real images."
    )
    known = contract["pixel_size_um"]
    pixel = f"{known} um per pixel" if known else "pixel size not known"
    text = TEXT.format(kind=kind, pixel=pixel, size=size, stride=stride, arch=contract["arch"],
                       partition=contract["partition"], tolerance=facts["tolerance"],
                       name=facts.get("name"), version=facts.get("version"))  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
    synthetic = " SYNTHETIC" if contract["synthetic"] else ""
    return zoo.ModelDescr(
        name=f"unstained {contract['partition']}{synthetic}",
        description="Probability that windows of a bright-field image hold live cells",
        authors=[zoo.Author(name="unstained maintainers")],
        cite=[
            zoo.CiteEntry(text="Pattarone et al. 2021", doi=zoo.Doi("10.1038/s41598-021-89895-w"))
        ],
        documentation=_file(folder / "README.md"),
        attachments=[zoo.FileDescr(source=folder / "contract.json")],
        tags=["bright-field", "cell-death", "classification", "2d", *synthetic.split()],
        config=zoo.Config(unstained={"digest": contract["digest"], "pixel_size_um": known}),
        inputs=[_input(folder, size, stride)],
        outputs=[_output(folder, size, stride)],
        weights=_weights(folder, facts["torch"]),
    )


def _file(path: Path) -> zoo.FileDescr:
    return zoo.FileDescr(source=path)


def _input(folder: Path, size: int, stride: int) -> zoo.InputTensorDescr:
    """One frame, of any size from one window up."""
    extent = zoo.ParameterizedSize(min=size, step=stride)
    sides = [zoo.SpaceInputAxis(id=zoo.AxisId(name), size=extent) for name in "yx"]
    return zoo.InputTensorDescr(
        id=zoo.TensorId("brightfield"),
        description="raw counts of one bright-field frame",
        axes=[zoo.BatchAxis(), _channel("brightfield"), *sides],
        test_tensor=_file(folder / "frame.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
    )


def _output(folder: Path, size: int, stride: int) -> zoo.OutputTensorDescr:
    """A value for each window; the axes' scale is in pixels of the frame."""
    sides = []
    for name in "yx":
        of = zoo.SizeReference(tensor_id=zoo.TensorId("brightfield"), axis_id=zoo.AxisId(name),
                               offset=1 - size // stride)  # fmt: skip
        sides.append(zoo.SpaceOutputAxis(id=zoo.AxisId(name), size=of, scale=float(stride)))
    return zoo.OutputTensorDescr(
        id=zoo.TensorId("live_probability"),
        description="calibrated probability that a window is live",
        axes=[zoo.BatchAxis(), _channel("live"), *sides],
        test_tensor=_file(folder / "live_probability.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
    )


def _channel(name: str) -> zoo.ChannelAxis:
    return zoo.ChannelAxis(channel_names=[zoo.Identifier(name)])


def _weights(folder: Path, version: str) -> zoo.WeightsDescr:
    script = zoo.TorchscriptWeightsDescr(
        source=folder / "weights.pt", pytorch_version=zoo.Version(version)
    )
    return zoo.WeightsDescr(torchscript=script)
