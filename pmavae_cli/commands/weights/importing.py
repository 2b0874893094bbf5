"""A training run or a state dict becomes a weights file as it is released, and a folder goes to the Hub."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.config import PRESETS
from pmavae.errors import WeightsError
from pmavae.network_configs import RESTORERS, TEXTURE_TASK, VMAMBA_TASK, texture_config
from pmavae.pretrained.hub import push
from pmavae.pretrained.manifest import CARD_FILE, MODEL_FILE, WeightsIndex
from pmavae.pretrained.model_card import card_of_folder
from pmavae.pretrained.weights import AnyConfig, load_weights, shapes_of, state_faults, weightless
from pmavae.restoration.network import Restorer
from pmavae.texture.network import TexturePrior, encoder_fingerprint
from pmavae.vmamba.checkpoints import is_vmamba
from pmavae.vmamba.network import read_checkpoint
from pmavae_cli.api import Training

STATE_DICTS = (".pth", ".pt", ".bin", ".ckpt")
# Under which name a checkpoint keeps a state dict, the averaged weights before those being trained.
WRAPPERS = (
    *("ema", "ema_state_dict", "model_ema", "ema_model", "params_ema"),
    *("state_dict", "model_state_dict", "model", "params", "net", "generator"),
)
# What wrapping a module puts before the names of all its tensors.
PREFIXES = ("module.", "model.", "_orig_mod.", "ema_model.", "ema.", "network.", "net.")
COUNTERS = frozenset({"n_averaged"})  # of torch's AveragedModel, beside the tensors
_DEPTH = 4  # wrappers in wrappers


@dataclass(frozen=True)
class Imported:
    """Weights and what they belong to."""

    state: dict[str, Tensor]
    config: AnyConfig
    id: str | None  # None where the file has none


@dataclass(frozen=True)
class Wanted:
    """What the user says that a state dict is of. None: found out."""

    task: str | None = None
    preset: str | None = None
    codec: str | None = None  # the autoencoder of a texture prior; None: that of the preset


def read_import(
    source: Path, wanted: Wanted, index: WeightsIndex, trainings: Mapping[str, Training]
) -> Imported:
    """Read a run's folder, a weights file or a state dict; raises WeightsError, naming it."""
    if source.is_dir():
        if not (source / MODEL_FILE).is_file():
            begun = (source / "checkpoints").is_dir()
            told = " yet: end the run, or pause it, with pmavae train"
            asked = ": give the folder of a training run, or a .pth file"
            raise WeightsError(f"{source} has no {MODEL_FILE}{told if begun else asked}")
        return _weights(source / MODEL_FILE, wanted)
    if not source.exists():
        raise WeightsError(f"{source} is not there: give a training run's folder or a .pth file")
    if source.suffix.lower() in STATE_DICTS:
        return _fitted(source, read_state_dict(source), wanted, index, trainings)
    return _weights(source, wanted)


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save, by name, out of what wraps them. No code of the file is run.

    Raises WeightsError, naming the file, where it holds anything but tensors and plain values, or none.
    """
    import pickle

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{source} needs code to be run to read it, or is damaged, and was not read: where you trust it, "
            "save its tensors alone with torch.save(model.state_dict(), …)"
        ) from None
    except OSError as reason:
        raise WeightsError(f"{source} cannot be read: {reason.strerror or reason}") from None
    # What a damaged file leads to inside torch is of many kinds.
    except Exception as reason:
        told = " ".join(str(reason).split()) or type(reason).__name__
        raise WeightsError(
            f"{source} is no state dict that torch can read ({told:.120}): save one with "
            "torch.save(model.state_dict(), …)"
        ) from None
    if state := _unwrapped(found):
        return state
    raise WeightsError(f"{source} holds no state dict: save one with torch.save(model.state_dict(), …)")


def _unwrapped(found: Any) -> dict[str, Tensor]:
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            return {}
        inner = (found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping) and found[name])
        if (below := next(inner, None)) is None:
            break
        found = below
    state = {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
    state = {k: v for k, v in state.items() if k not in COUNTERS}
    while state and (prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None)):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def _weights(path: Path, wanted: Wanted) -> Imported:
    loaded = load_weights(path)
    _check_wanted(path, wanted, getattr(loaded.config, "task", "base"), loaded.config.preset)
    return Imported(loaded.state, loaded.config, loaded.id)


def _check_wanted(path: Path, wanted: Wanted, task: str, preset: str) -> None:
    """Raise WeightsError where a file says itself that it is of something else."""
    for what, given, found in (("task", wanted.task, task), ("preset", wanted.preset, preset)):
        if given not in (None, found):
            raise WeightsError(f"{path} has weights of {what} {found}, not {given}: leave out --{what}")


def _fitted(
    source: Path,
    state: dict[str, Tensor],
    wanted: Wanted,
    index: WeightsIndex,
    trainings: Mapping[str, Training],
) -> Imported:
    """The state dict with the configuration of the network that it is of."""
    if wanted.task in (None, VMAMBA_TASK) and is_vmamba(state):
        try:
            state, variant = read_checkpoint(state)
        except WeightsError as reason:
            raise WeightsError(f"{source} was not imported: {reason}") from None
        _check_wanted(source, wanted, VMAMBA_TASK, variant.preset)
        _check_values(source, state)
        return Imported(state, variant, None)
    nearest: tuple[list[str], str] | None = None
    for task, network in _networks(wanted, index, trainings):
        faults = state_faults(state, shapes_of(network))
        if not faults:
            _check_values(source, state)
            return Imported(state, network.config, None)
        if nearest is None or len(faults) < len(nearest[0]):
            nearest = faults, f"preset {network.config.preset} of task {task}"
    if nearest is None:
        raise WeightsError(
            f"{source} was not imported: there is no network of task {wanted.task or 'any'} and preset "
            f"{wanted.preset or 'any'}; name others with --task and --preset"
        )
    faults, name = nearest
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    raise WeightsError(
        f"{source} does not fit {name}: {', '.join(faults[:3])}{more}; "
        "name its network with --task and --preset"
    )


def _check_values(source: Path, state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError for tensors that no weights file can hold."""
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{source} was not imported: {name} is no plain tensor of real numbers")
        if not tensor.isfinite().all():
            raise WeightsError(f"{source} was not imported: {name} has values that are not finite")


def _networks(
    wanted: Wanted, index: WeightsIndex, trainings: Mapping[str, Training]
) -> Iterator[tuple[str, Any]]:
    """Task and network of what is wanted, without values; a texture prior or a plugin's only by its task."""
    kinds: list[tuple[str, Callable[[Any], nn.Module], AnyConfig]] = []
    if wanted.task in (None, "base"):
        kinds += [("base", PMAVAE, config) for config in PRESETS.values()]
    kinds += [(task, Restorer, c) for (task, _), c in RESTORERS.items() if wanted.task in (None, task)]
    if wanted.task == TEXTURE_TASK:
        codec = PMAVAE.from_pretrained(wanted.codec or wanted.preset or "tiny", index)
        fingerprint = encoder_fingerprint(codec.encoder)
        kinds.append((TEXTURE_TASK, TexturePrior, texture_config(codec.config, fingerprint)))
    for task, kind, config in kinds:
        if wanted.preset in (None, config.preset):
            with weightless():
                network = kind(config)
            yield task, network
    if plan := trainings.get(wanted.task or ""):
        from pmavae.training.objectives.plugin import new_network

        for preset in plan.presets:
            if wanted.preset in (None, preset):
                # Made as it is: it may need its values to be made.
                yield plan.name, new_network(plan, preset)


def push_folder(
    folder: Path, repo: str, index: WeightsIndex, licence: str | None, datasets: Sequence[str], **commit: Any
) -> str:
    """Upload; returns the URL of the commit. Raises WeightsError, in one sentence.

    A folder without README.md is left as it is: the card is made elsewhere. commit: as `push` takes it.
    """
    model, own_card = folder / MODEL_FILE, folder / CARD_FILE
    if not model.is_file():
        raise WeightsError(
            f"{folder} has no {MODEL_FILE}: give the folder of a training run, or make one with "
            f"pmavae weights import RUN -o FOLDER/{MODEL_FILE}"
        )
    if own_card.is_file():
        if licence or datasets:
            raise WeightsError(
                f"{own_card} is the model card: say it there, or leave out --licence and --dataset"
            )
        return push(folder, repo, **commit)
    card = card_of_folder(folder, name=repo, licence=licence, datasets=datasets, index=index)
    with tempfile.TemporaryDirectory() as made:
        shutil.copyfile(model, Path(made) / MODEL_FILE)
        (Path(made) / CARD_FILE).write_text(card, "utf-8")
        return push(Path(made), repo, **commit)
