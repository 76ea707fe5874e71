"""The sections of params.yaml, each with its types, bounds and what must hold between its keys."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .backbone import Arch

# Strict, so that no text is taken for a number in a list or beside None either
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and scikit-learn take
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


class Section(BaseModel):
    """A section of params.yaml: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_other_type_taken_for_a_number(cls, value, info: ValidationInfo):
        """true is not 1, nor '3' 3."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if wanted in (int, float) and isinstance(value, bool | str):
            raise ValueError(f"wants a number, not {value!r}")
        if wanted is not bool and isinstance(value, bool):
            raise ValueError(f"wants a number or a text, not {value!r}")
        return value


class Channels(Section):
    brightfield: int | str = ""
    pi: int | str = ""


class Dataset(Section):
    source: Literal["synthetic", "folder", "mcf7", "jimt1"]
    path: str
    partitions: Annotated[list[Name], Field(min_length=1)]
    pattern: str = ""
    channels: Channels = Channels()
    axes: Annotated[str, Field(pattern="^([TZCYX]{3,5})?$")] = ""
    z: Annotated[int, Field(ge=0, strict=True)] | None = None
    pixel_size_um: Positive | None = None
    repository: str = ""

    @model_validator(mode="after")
    def _unique(self):
        if len({name.casefold() for name in self.partitions}) < len(self.partitions):
            raise ValueError(f"partitions named twice, or differ in case alone: {self.partitions}")
        return self


class Synthetic(Section):
    frames: Count
    height: Annotated[int, Field(ge=224)]
    width: Annotated[int, Field(ge=224)]
    sessions: Count
    seed: Seed


class Acquire(Section):
    max_rejected_fraction: Fraction
    workers: int


class Scaling(Section):
    method: Literal["percentile", "fixed"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self):
        if not self.low < self.high:
            raise ValueError(f"scaling.low {self.low} must be below scaling.high {self.high}")
        if self.method == "percentile" and (self.low < 0 or self.high > 100):
            raise ValueError("scaling.low and scaling.high are percentiles here: 0 to 100")
        return self


class Tile(Section):
    window: Positive
    stride: Positive
    unit: Literal["px", "um"]
    edge: Literal["drop", "anchor"]
    scaling: Scaling
    background: Annotated[float, Field(ge=1, le=50)]
    workers: int


class Filter(Section):
    arch: Arch
    weights: str
    sees: Literal["windows", "frame"]
    annotations: str
    max_border: Fraction
    svm: Literal["two_class", "one_class"]
    kernel: Literal["rbf", "linear"]
    folds: Annotated[int, Field(ge=2)]
    C: Positive
    seed: Seed


class Label(Section):
    intensity: Literal["counts", "background_ratio"]
    log: bool
    fit_on: Literal["all"] | Annotated[list[Name], Field(min_length=1)]
    min_class: Count
    seed: Seed


class Split(Section):
    scheme: Literal["holdout", "kfold"]
    group_by: list[str]
    fractions: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    folds: Annotated[int, Field(ge=3)]
    seed: Seed

    @model_validator(mode="after")
    def _whole(self):
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"train, valid and test must add up to 1, not {sum(self.fractions)}")
        return self


class Check(Section):
    tolerance: Fraction
    min_class: Count
    min_fields: Count
    min_class_fraction: Fraction
    max_discarded_fraction: Fraction
    min_cells_fraction: Fraction
    allow_duplicates: bool
    max_background_lift: Annotated[float, Field(gt=1)]
    max_constant_fraction: Fraction
    max_group_auc: Annotated[float, Field(gt=0.5, le=1)]
    experiment_in_two_splits: bool
    any_experiments: bool
    shared_corners: Count
    near_duplicate_sigmas: Positive


class Model(Section):
    target: Literal["label", "stain"]
    arch: Arch
    weights: str
    pooling: Literal["last", "levels"]


class Train(Section):
    layers: Literal["all", "head"]
    C: Positive
    optimizer: Literal["adam", "adamw"]
    epochs: Count
    samples_per_epoch: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    betas: Annotated[list[Annotated[Fraction, Field(lt=1)]], Field(min_length=2, max_length=2)]
    schedule: Literal["constant", "cosine"]
    warmup_fraction: Fraction
    intensity_augmentation: Fraction
    frozen_epochs: Annotated[int, Field(ge=0)]
    frozen_stages: Annotated[int, Field(ge=0, le=3)]
    patience: Annotated[int, Field(ge=0)]
    precision: Annotated[  # `-S train.precision=32` writes a number
        Literal["auto", "32", "bf16", "16"],
        BeforeValidator(lambda v: str(v) if v in (16, 32) else v),
    ]
    devices: Count
    nodes: Count
    strategy: str
    workers: Annotated[int, Field(ge=0)]
    seed: Seed


class Stain(Section):
    reduction: Literal[1, 2, 4]
    crop: Annotated[int, Field(ge=64, multiple_of=32)]
    magnified: Annotated[list[Fraction], Field(min_length=1)]
    augmentation: Fraction
    place: Annotated[float, Field(ge=0)]
    nuclei: Annotated[float, Field(ge=0)]
    orientations: Literal[1, 2, 4, 8]

    @model_validator(mode="after")
    def _one_orientation_each(self):
        if self.orientations < len(self.magnified):
            raise ValueError(
                f"stain.orientations {self.orientations} are too few for the {len(self.magnified)} "
                "networks of stain.magnified, which take them in turn"
            )
        return self


class Evaluate(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    abstain_error: Annotated[float, Field(gt=0, lt=1)]
    band: Literal["patch", "group"]
    seed: Seed


class Explain(Section):
    patches: Count
    windows: Annotated[int, Field(ge=7)]
    perplexity: Positive
    neighbours: Count
    overlap: Count
    seed: Seed


class Register(Section):
    min_balanced_accuracy: Fraction
    margin: Annotated[float, Field(ge=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    min_groups: Annotated[int, Field(ge=2)]
    warn_after: Count
    seed: Seed


SECTIONS: dict[str, type[Section]] = {
    section.__name__.lower(): section
    for section in (
        Dataset, Synthetic, Acquire, Tile, Filter, Label, Split, Check, Model, Train, Stain,
        Evaluate, Explain, Register,
    )
}  # fmt: skip
