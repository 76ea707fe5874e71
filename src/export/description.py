"""What a package of the BioImage Model Zoo says of itself."""

from pathlib import Path

from bioimageio.spec.model import v0_5 as zoo

from .frames import Exported

README = """# Live or dead, from bright field alone

{kind} Model `{name}`, version {version}, partition `{partition}`, network `{arch}`.

**In**: one bright-field channel, raw counts of 8 or 16 bit as numbers, {pixel}; not scaled
beforehand.
**Out**: {out}

What `unstained score` does beyond that is *not* in this package: {left} No image is refused for
another pixel size, saturation, or being unlike the training data. `contract.json` has the abstain
band and what the model was trained on. For research, not for diagnosis; validate it against a stain
on your own microscope first. What it yields is not cell viability.

Scaling is by the frame's own percentiles: give whole frames, not tiles. Against the model that it
was exported from, values agree within {tolerance:g}.
"""


def describe(folder: Path, contract: dict, facts: dict, made: Exported) -> zoo.ModelDescr:
    """The description of the files in FOLDER. facts: name and version of the model, and PyTorch's
    version.
    """
    synthetic = " SYNTHETIC" if contract["synthetic"] else ""
    kind = f"**Trained on{synthetic} images.**" if synthetic else "Trained on real images."
    known = contract["pixel_size_um"]
    pixel = f"{known} um per pixel" if known else "pixel size not known"
    text = README.format(**contract | vars(made) | facts, kind=kind, pixel=pixel)
    (folder / "README.md").write_text(text, encoding="utf-8")
    weights = zoo.TorchscriptWeightsDescr(
        source=folder / "weights.pt", pytorch_version=zoo.Version(facts["torch"])
    )
    return zoo.ModelDescr(
        name=f"unstained {contract['partition']}{synthetic}",
        description="Live or dead cells in a bright-field image, by windows or predicted stain",
        authors=[zoo.Author(name="unstained maintainers")],
        cite=[
            zoo.CiteEntry(text="Pattarone et al. 2021", doi=zoo.Doi("10.1038/s41598-021-89895-w"))
        ],
        documentation=zoo.FileDescr(source=folder / "README.md"),
        attachments=[zoo.FileDescr(source=folder / "contract.json")],
        tags=["bright-field", "cell-death", "classification", "2d", *synthetic.split()],
        config=zoo.Config(unstained={"digest": contract["digest"], "pixel_size_um": known}),
        inputs=[_input(folder, made)],
        outputs=[_output(folder, made)],
        weights=zoo.WeightsDescr(torchscript=weights),
    )


def _input(folder: Path, made: Exported) -> zoo.InputTensorDescr:
    """One frame, of any size from the least up."""
    extent = zoo.ParameterizedSize(min=made.least, step=made.step)
    sides = [zoo.SpaceInputAxis(id=zoo.AxisId(name), size=extent) for name in "yx"]
    return zoo.InputTensorDescr(
        id=zoo.TensorId("brightfield"),
        description="raw counts of one bright-field frame",
        axes=[zoo.BatchAxis(), _channels("brightfield"), *sides],
        test_tensor=zoo.FileDescr(source=folder / "frame.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
    )


def _output(folder: Path, made: Exported) -> zoo.OutputTensorDescr:
    """A value for each window or pixel; the axes' scale is in pixels of the frame."""
    sides = []
    for name in "yx":
        of = zoo.SizeReference(tensor_id=zoo.TensorId("brightfield"), axis_id=zoo.AxisId(name),
                               offset=made.offset)  # fmt: skip
        sides.append(zoo.SpaceOutputAxis(id=zoo.AxisId(name), size=of, scale=float(made.scale)))
    return zoo.OutputTensorDescr(
        id=zoo.TensorId(made.name),
        description=made.what,
        axes=[zoo.BatchAxis(), _channels(*made.channels), *sides],
        test_tensor=zoo.FileDescr(source=folder / f"{made.name}.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32", range=(0.0, None)),
    )


def _channels(*names: str) -> zoo.ChannelAxis:
    return zoo.ChannelAxis(channel_names=[zoo.Identifier(name) for name in names])
