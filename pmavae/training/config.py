"""Everything that determines a training run, with the reason beside each number.

A configuration is read from TOML or JSON (`read_config`), changed by NAME=VALUE settings, checked as a
whole, and saved as JSON with the run. Nothing here imports torch.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pmavae.config import BASE_STRIDE, PRESETS
from pmavae.errors import PMAVAEError
from pmavae.training.phases import DEFAULT_PHASES, OBJECTIVES, Phase


class ConfigError(PMAVAEError):
    """A configuration with a field that does not exist or a value that cannot be."""


@dataclass(frozen=True)
class LossConfig:
    """Reconstruction: pixels + perceptual + edge + β·KL (+ λ·PatchGAN)."""

    l1: float = 1.0  # weight of the pixels
    pixels: Literal["l1", "log-mse"] = "l1"  # log-mse: of a crop, which is what PSNR is the mean of
    perceptual: float = 0.5  # feature distance; what it gains in texture it costs in PSNR
    network: str = "vgg16"  # whose features: see perceptual.py; "none" leaves the term out
    edge: float = 0.1  # Sobel gradients
    kl: float = 1e-4  # β after its warm-up
    kl_warmup: float = 0.1  # share of the run over which β rises from 0
    free_nats: float = 0.5  # KL a channel that costs nothing, so that no latent collapses
    equivariance: float = 0.0  # share of steps that decode rotated or halved latents (arXiv 2502.09509)


@dataclass(frozen=True)
class AdversaryConfig:
    """The PatchGAN: a hinge loss on patches, joined late."""

    weight: float = 0.1  # λ, relative to the gradient of the other terms in the last layer; 0 leaves it out
    start: float = 0.6  # share of the run after which it joins
    channels: int = 32  # of the first layer
    learning_rate: float = 2e-4


@dataclass(frozen=True)
class PaintConfig:
    """Style swap: weights of the distances of a repainted picture …"""

    gram: float = 1.5  # … to the style: second moments of features,
    moments: float = 1.0  # means and deviations of features,
    wasserstein: float = 15.0  # patches; palette and strokes without any network
    strokes: float = 0.0  # patches without their mean colour, each projection relative to the style's spread
    content: float = 0.1  # … to the content: deep features
    grid: float = 1.0  # … and the share of what repeats every 16 px


@dataclass(frozen=True)
class DamageConfig:
    """What a restoration network is trained on: shares of crops by damage, and how much of it."""

    # clean, Gaussian noise, Poisson noise, JPEG, noise and then JPEG: the same network meets them all
    shares: tuple[float, ...] = (0.06, 0.46, 0.1, 0.28, 0.1)
    noise: float = 55.0  # the largest standard deviation, in 8-bit units
    jpeg: tuple[int, ...] = (10, 95)  # lowest and highest quality
    rounded: float = 0.5  # share of noisy crops that are clipped and rounded, as a file has them
    moved_grid: float = 0.2  # share of JPEGs that were cropped afterwards
    gated: float = 0.1  # share of crops with a fidelity below 1
    grey: float = 0.06  # share of crops in black and white, whose noise is one for all channels


@dataclass(frozen=True)
class TextureLossConfig:
    """What a texture prior is trained on."""

    codec: str = ""  # autoencoder whose latents it learns; none: that of the preset
    draws: int = 4  # of noise and time, for each crop that is encoded


@dataclass(frozen=True)
class OptimizerConfig:
    """What makes a step of a gradient, and what keeps it sane."""

    # muon: matrices and dense kernels by Muon, all else by AdamW. More a step where steps are scarce; its own
    # work does not grow with the batch, so it wants 8 crops of 192 px or more.
    kind: Literal["adamw", "muon"] = "adamw"
    linear_rate: float = 0.03  # the linear maps learn this much slower: they start at an optimum
    weight_decay: float = 0.01
    beta2: float = 0.99  # short: runs of minutes have few steps
    clip: float = 1.0  # gradient norm
    average_decay: float = 0.999  # of the moving average that is validated and exported
    bad_steps: int = 10  # non-finite steps in a row after which a run gives up


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    preset: str = "tiny"
    task: str = "base"  # the autoencoder itself, or the network of a task, one of a plugin's too
    data: tuple[str, ...] = ()  # folders and tars of pictures
    steps: int = 0  # length of the run; 0 has time_limit tell it
    time_limit: str = "2h"  # over all sessions; phases then have shares of time
    init_from: str = ""  # weights to start from; none: the linear start
    linear_crops: int = 256  # crops of 256 px that the linear start is fitted to
    seed: int = 0
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # of autocast; the scan stays in fp32
    compile: Literal["auto", "on", "off"] = "auto"  # auto: on CUDA; a CPU earns it back after an hour
    phases: tuple[Phase, ...] = DEFAULT_PHASES
    loss: LossConfig = field(default_factory=LossConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    paint: PaintConfig = field(default_factory=PaintConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    texture: TextureLossConfig = field(default_factory=TextureLossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # Shares of crops by class, whatever the numbers of files; pictures without a class are photos.
    shares: dict[str, float] = field(
        default_factory=lambda: {
            "photo": 0.5,
            "texture": 0.2,
            "painting": 0.12,
            "illustration": 0.08,
            "render": 0.1,
        }
    )
    style_shares: dict[str, float] = field(
        default_factory=lambda: {
            "photo": 0.05,
            "texture": 0.25,
            "painting": 0.45,
            "illustration": 0.2,
            "render": 0.05,
        }
    )

    def __post_init__(self) -> None:
        for wrong, sentence in self._faults():
            if wrong:
                raise ConfigError(sentence)

    def _faults(self) -> Iterator[tuple[bool, str]]:
        yield self.preset not in PRESETS, f"preset {self.preset!r} is none of {', '.join(PRESETS)}"
        duration(self.time_limit)
        yield not self.phases, "a run needs at least one phase"
        for phase in self.phases:
            name, batch, least = f"phase {phase.name}:", phase.batch, 2 * BASE_STRIDE
            yield (
                phase.objective not in OBJECTIVES.get(self.task, ("plugin",)),
                f"{name} the objective {phase.objective} does not go with task {self.task}",
            )
            yield (
                phase.crop < least or phase.crop % BASE_STRIDE > 0,
                f"{name} crop {phase.crop} is not a multiple of {BASE_STRIDE} from {least} on",
            )
            yield (
                min(batch, phase.accumulate) < 1 or batch % phase.accumulate > 0,
                f"{name} a batch of {batch} does not divide into {phase.accumulate} micro-batches",
            )
            yield (
                phase.share <= 0 or phase.learning_rate <= 0 or not 0 <= phase.warmup < 1,
                f"{name} share and learning_rate are above 0, warmup from 0 to below 1",
            )
            yield not 0 <= phase.decay <= 1, f"{name} decay is a share from 0 to 1"
        shares, jpeg = self.damage.shares, self.damage.jpeg
        five = len(shares) == 5 and sum(shares) > 0
        yield not five, "damage.shares has five shares, of which one is above 0"
        pair = len(jpeg) == 2 and 1 <= jpeg[0] <= jpeg[1] <= 100
        yield not pair, "damage.jpeg is a lowest and a highest quality, from 1 to 100"
        yield not self.texture.draws, "texture.draws is at least 1"
        yield not 0 <= self.loss.equivariance <= 1, "loss.equivariance is a share from 0 to 1"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `config_from_dict` is its inverse."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def duration(text: str) -> float:
    """Seconds of "2h", "1h30m", "90m" or "45s". Raises ConfigError."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    seconds = (
        sum(int(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if seconds <= 0:
        raise ConfigError(f"{text!r} is no length of time; write 2h, 1h30m, 90m or 45s")
    return float(seconds)


def config_from_dict(data: dict[str, Any]) -> TrainConfig:
    """A checked configuration; what is left out has its default.

    Raises ConfigError that names an unknown field or the field of a value of the wrong type.
    """
    config: TrainConfig = _build(TrainConfig, data, "")
    return config


def read_config(path: Path) -> dict[str, Any]:
    """The fields that a TOML or JSON file sets. Raises ConfigError, naming the file."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path} is not valid {kind}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a table of settings")
    return data


def change(data: dict[str, Any], setting: str) -> None:
    """Apply NAME=VALUE to plain data, in place: `loss.kl=1e-5`, `phases.0.batch=4`.

    The value is JSON, or text that needs no quotes. Raises ConfigError.
    """
    name, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting} is not NAME=VALUE")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    place: Any = data
    *path, last = name.split(".")
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (IndexError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"--set {setting}: there is no {name}") from None


def _build(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{place.rstrip('.') or 'the configuration'} is not a table of settings")
    hints = get_type_hints(kind)
    if unknown := sorted(set(data) - set(hints)):
        raise ConfigError(f"unknown setting {place}{unknown[0]}; there are {', '.join(hints)}")
    values = {name: _value(hints[name], value, f"{place}{name}") for name, value in data.items()}
    for each in fields(kind):
        if each.name not in values and each.default is each.default_factory is MISSING:
            raise ConfigError(f"{place}{each.name} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, place: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, f"{place}.")
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], v, f"{place}.{i}") for i, v in enumerate(value))
    if get_origin(hint) is dict and isinstance(value, dict):
        return {str(k): _value(float, v, f"{place}.{k}") for k, v in value.items()}
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is float and type(value) in (int, float) and value == value and value >= 0:
        return float(value)
    if (hint is int and type(value) is int and value >= 0) or (hint is str and type(value) is str):
        return value
    expected = " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else "of the right kind"
    raise ConfigError(f"{place} = {value!r:.60} is not {expected}")
