"""The recipe of a training run: typed options, read from YAML with overrides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from lidcam_rt.errors import InputError
from lidcam_rt.files import read_file
from lidcam_training.methods import METHODS, MethodOptions
from lidcam_training.models import ClassifierSpec, ModelOptions
from lidcam_training.segmentation.spec import NetworkOptions

__all__ = [
    "BaseRecipe",
    "DataOptions",
    "LabelOptions",
    "MapOptions",
    "OptimOptions",
    "Recipe",
    "SegmentRecipe",
    "read_any_recipe",
    "read_recipe",
]


@dataclass(frozen=True)
class DataOptions:
    """Pictures and how they become batches.

    Attributes:
        source: a data set, see `lidcam_bench.data.open_data`.
        train: split for training.
        val: split for validation.
        size: pixels; pictures are stretched to size x size, and validated at that size.
        crop: pixels of the random crop for training; None for none.
        batch_size: per device and step.
        workers: processes that read pictures; 0 reads in the training process.
        cache: keep the resized pictures in memory.
        flip: mirror at random.
        jitter: random brightness and contrast, 0 for none.
        mean: per channel, 0 to 255.
        std: per channel, 0 to 255.
        interpolation: of the resize.
        max_skipped: share of unreadable pictures of an epoch above which training stops.
        limit: use only this many training pictures; None for all.
        sampling: `uniform`: every picture once in an epoch. `balanced`: drawn with replacement, in proportion to the
            mean over its classes of 1 / (pictures of the class), so that rare classes come as often as common ones.
        unknown: how to treat a class when the data set does not say whether it is in a picture: `ignore` leaves
            it out of the loss, `absent` counts it as absent.
    """

    source: str = ""
    train: str = "train"
    val: str = "val"
    size: int = 224
    crop: int | None = None
    batch_size: int = 32
    workers: int = 0
    cache: bool = False
    flip: bool = True
    jitter: float = 0.0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    max_skipped: float = 0.05
    limit: int | None = None
    sampling: Literal["uniform", "balanced"] = "uniform"
    unknown: Literal["ignore", "absent"] = "ignore"


@dataclass(frozen=True)
class OptimOptions:
    """Loss, optimizer and schedule.

    Attributes:
        loss: `auto`: cross_entropy for single-label data and bce for multi-label data. For several labels:
            bce, soft_margin (torch's MultiLabelSoftMarginLoss) or asl (asymmetric loss, Ridnik et al., ICCV 2021), see
            `lidcam_training.losses`.
        optimizer: sgd (Nesterov) or adamw.
        lr: of the head, at the full batch.
        pretrained_lr_scale: the backbone learns at lr times this.
        weight_decay: not applied to biases and norms.
        schedule: cosine to 0, poly ((1 - t) ** 0.9), steps (times 0.1 at the milestones) or constant.
        milestones: epochs, for steps.
        warmup_epochs: linear, may be a fraction.
        label_smoothing: 0 is off.
        accumulate: batches per step of the optimizer.
        clip_norm: gradient norm; 0 is off.
        ema: decay of the averaged weights that are validated and saved; 0 is off.
        asl_gamma_negative: asl: focusing of absent classes.
        asl_gamma_positive: asl: focusing of present classes.
        asl_shift: asl: margin by which the probability of absent classes is shifted down, 0 to 1.
    """

    loss: Literal["auto", "cross_entropy", "bce", "soft_margin", "asl"] = "auto"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    pretrained_lr_scale: float = 1.0
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly", "steps", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    accumulate: int = 1
    clip_norm: float = 0.0
    ema: float = 0.0
    asl_gamma_negative: float = 4.0
    asl_gamma_positive: float = 0.0
    asl_shift: float = 0.05


@dataclass(frozen=True)
class MapOptions:
    """Settings of the map that the exported artifact carries: percentile 0 to 100, theta 0 to 1, and NWC."""

    percentile: float = 98.0
    theta: float = 0.35
    nwc: bool = True


@dataclass(frozen=True)
class LabelOptions:
    """What a segmentation network learns from, the section `labels` of its recipe.

    Attributes:
        folder: label maps for the training pictures, as `lidcam pseudo` writes them; None: the data set's own.
        val: data set of the exact label maps that validation needs; None: `data.source`.
        scales: lowest and highest factor of the random resize before the crop.
    """

    folder: str | None = None
    val: str | None = None
    scales: tuple[float, float] = (0.75, 1.5)


@dataclass(frozen=True)
class BaseRecipe:
    """What the recipes of all networks share.

    Attributes:
        epochs: passes over the training pictures.
        seed: weights, order, crops; the same seed gives the same run on the same machine.
        deterministic: refuse operations that are not reproducible.
        precision: 32-true, bf16-mixed or 16-mixed.
        accelerator: auto, cpu or gpu.
        devices: per node.
        nodes: for torchrun over several machines.
        channels_last: memory layout.
        save_steps: optimizer steps between saves of the state to resume from, within an epoch; 0: after epochs only.
        patience: epochs without a better `monitor` before stopping; 0 never stops early.
        monitor: a validation score, by which `best` is kept too.
        logger: csv (RUN/metrics.csv), or tensorboard (in addition).
    """

    data: DataOptions = field(default_factory=DataOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    epochs: int = 10
    seed: int = 0
    deterministic: bool = False
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    channels_last: bool = True
    save_steps: int = 500
    patience: int = 0
    monitor: str = "val_accuracy"
    logger: Literal["csv", "tensorboard"] = "csv"

    def __post_init__(self) -> None:
        positive = {
            "epochs": self.epochs,
            "data.batch_size": self.data.batch_size,
            "data.size": self.data.size,
            "optim.accumulate": self.optim.accumulate,
            "devices": self.devices,
            "nodes": self.nodes,
        }
        for key, value in positive.items():
            if value < 1:
                raise InputError(f"recipe: {key} is {value}: it must be at least 1")
        if not 0 <= self.data.workers <= 256:
            raise InputError(f"recipe: data.workers is {self.data.workers}: give 0 to 256 processes")
        if self.data.crop is not None and not 1 <= self.data.crop <= self.data.size:
            raise InputError(f"recipe: data.crop {self.data.crop} must be 1 to data.size ({self.data.size})")
        if self.save_steps < 0:
            raise InputError(f"recipe: save_steps is {self.save_steps}: give a number of steps, or 0")
        if not 0 <= self.optim.asl_shift < 1 or min(self.optim.asl_gamma_negative, self.optim.asl_gamma_positive) < 0:
            raise InputError("recipe: optim.asl_shift must be 0 to below 1, and the gammas at least 0")
        if not 0 <= self.optim.ema < 1:
            raise InputError(f"recipe: optim.ema {self.optim.ema} is a decay: give 0 (off) to below 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Everything about a classifier's training run; the sections are those of the recipe's file."""

    model: ModelOptions = field(default_factory=ModelOptions)
    method: MethodOptions = field(default_factory=MethodOptions)
    pas: MapOptions = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method.name not in METHODS:
            raise InputError(f"recipe: method.name {self.method.name!r} is unknown: choose {', '.join(METHODS)}")
        METHODS[self.method.name].check(self.method, self.epochs)

    def classifier(self, num_classes: int) -> ClassifierSpec:
        """The spec of the classifier for this many classes.

        Raises:
            InputError: the recipe has another number.
        """
        if self.model.num_classes not in (None, num_classes):
            raise InputError(
                f"recipe: model.num_classes is {self.model.num_classes}, but the data have {num_classes} classes: "
                "leave it out, or use the data it was written for"
            )
        options = dataclasses.asdict(self.model) | METHODS[self.method.name].spec(self.method)
        return ClassifierSpec(**options | {"num_classes": num_classes})


@dataclass(frozen=True)
class SegmentRecipe(BaseRecipe):
    """Everything about a segmentation network's training run (`task: segmentation` in the recipe's file)."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    monitor: str = "val_mean_iou"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.size % 32 or (self.data.crop or 0) % 32:
            raise InputError("recipe: data.size and data.crop of a segmentation network must be multiples of 32 pixels")
        low, high = self.labels.scales
        if not 0.1 <= low <= high <= 10:
            raise InputError(f"recipe: labels.scales {list(self.labels.scales)}: give lowest and highest, 0.1 to 10")


_Kind = TypeVar("_Kind", bound=BaseRecipe)


def read_recipe(path: str | Path | None, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read the recipe of a classifier.

    Args:
        path: a YAML file, the name of a shipped recipe (`clutter_fashion`), or None for the defaults.
        overrides: `key=value`, for example `model.pooling=gap`.

    Raises:
        InputError: no such file, an unknown key, a wrong value, or a recipe of another task.
    """
    recipe = read_any_recipe(path, overrides)
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe {path} is for a segmentation network; one for a classifier is needed")
    return recipe


def read_any_recipe(
    path: str | Path | None, overrides: list[str] | tuple[str, ...] = ()
) -> Recipe | SegmentRecipe:
    """Read a recipe of any task: `task: segmentation` in its file, else a classifier's.

    Args:
        path: as in `read_recipe`.
        overrides: as in `read_recipe`.

    Raises:
        InputError: no such file, an unknown key or a wrong value.
    """
    values: dict[str, Any] = {} if path is None else _values(path)
    task = values.pop("task", "classification")
    if task not in ("classification", "segmentation"):
        raise InputError(f"recipe {path}: task {task!r} is unknown: classification or segmentation")
    arguments = _flags(values)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"override {override!r}: write key=value, for example model.pooling=gap")
        arguments.append((key, value))
    if task == "segmentation":
        return _parsed(SegmentRecipe, arguments, path)
    return _parsed(Recipe, arguments, path)


def _values(path: str | Path) -> dict[str, Any]:
    """The contents of a recipe's file."""
    import yaml

    file = Path(path)
    shipped = Path(__file__).parent / "recipes" / f"{file.name.removesuffix('.yaml')}.yaml"
    if not file.is_file():
        if len(file.parts) > 1 or not shipped.is_file():
            names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
            raise InputError(f"recipe {path} does not exist: give a YAML file, or one of {names}")
        file = shipped
    try:
        values = yaml.safe_load(read_file(file).decode()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"recipe {path}: expected keys and values")
    return values


def _parsed(kind: type[_Kind], arguments: list[tuple[str, str]], path: str | Path | None) -> _Kind:
    from jsonargparse import ArgumentError, ArgumentParser

    _check_keys(kind, arguments, path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--recipe", type=kind, default=kind())
    parser.add_argument("--config", action="config")
    try:
        parsed = parser.parse_args([f"--recipe.{key}={value}" for key, value in arguments])
        recipe: _Kind = parser.instantiate_classes(parsed).recipe
        return recipe
    except (ArgumentError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"recipe {path or ''}: {' '.join(str(error).split())[:400]}") from error


def _flags(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    import json

    out: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            out += _flags(value, f"{prefix}{key}.")
        else:
            out.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return out


def _check_keys(kind: type[BaseRecipe], arguments: list[tuple[str, str]], path: str | Path | None) -> None:
    import difflib

    known: list[str] = []
    for entry in dataclasses.fields(kind):
        section = getattr(kind(), entry.name)
        if dataclasses.is_dataclass(section):
            known += [f"{entry.name}.{inner.name}" for inner in dataclasses.fields(section)]
        else:
            known.append(entry.name)
    for key, _ in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, known, 3, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; keys: {', '.join(known)}"
            raise InputError(f"recipe {path or ''}: unknown key {key!r}{hint}")
