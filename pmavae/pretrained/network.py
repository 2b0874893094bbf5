"""What every network with a weights file has, which class serves which task, and plugins' own networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from pmavae.errors import WeightsError
from pmavae.files.header import MAX_NUMBER, is_settings, parse_json
from pmavae.network_configs import FEATURES_TASK, RESTORATIONS, TEXTURE_TASK, VMAMBA_TASK, NetworkConfig
from pmavae.pretrained.manifest import CARD_FILE, CONFIG_FILE, LIBRARY, MODEL_FILE, WeightsIndex
from pmavae.pretrained.resolve import Found, resolve
from pmavae.pretrained.weights import (
    ARCHITECTURE_VERSION,
    AnyConfig,
    LoadedWeights,
    Shapes,
    load_weights,
    save_folder,
    shapes_of,
    weightless,
)

Builder = Callable[[Mapping[str, Any]], nn.Module]  # an untrained network, from its settings


class Pretrained(nn.Module):
    """A network that a weights file describes: made of a configuration, loaded, saved and pushed.

    `Class(config)` is untrained. `weights_id` and `weights_sha256` name the file that the weights came from.
    It must hold no tensor that is not in its state dict.
    """

    config_type: ClassVar[type]  # of `config`
    tasks: ClassVar[tuple[str, ...]]  # that its weights may be for; presets name those for the first
    file_dtype: ClassVar[torch.dtype] = torch.float16

    config: Any
    weights_id = "untrained"
    weights_sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | Found,
        index: WeightsIndex | None = None,
        *,
        task: str | None = None,
        revision: str | None = None,
        offline: bool = False,
        **build: Any,
    ) -> Self:
        """Load a preset ("tiny"), a manifest id, a weights file, a folder with model.safetensors, or
        `org/name[@revision][:file]` of the Hugging Face Hub.

        `task` is what the weights must be for, where a class serves several. `revision` is a branch, a tag or
        a commit of a repository; `offline` opens no socket and takes what is in the Hub's cache. `build` is
        what the class takes beside its configuration. Only safetensors are read. The network is on the CPU
        in float32 and in evaluation mode. Raises WeightsError, in one sentence, where the file is missing,
        damaged, of another task or of another architecture version, or does not fit its own configuration.
        """
        tasks = (task,) if task else cls.tasks
        found = resolve(name_or_path, tasks[0], index, revision=revision, offline=offline)
        made: list[Self] = []

        def shapes(config: AnyConfig) -> Shapes:
            if not isinstance(config, cls.config_type) or getattr(config, "task", "base") not in tasks:
                raise cls.wrong_weights(found.path, getattr(config, "task", "base"), tasks[0])
            with weightless():
                made.append(cls(config, **build))
            return shapes_of(made[0])

        loaded = load_weights(found.path, found.entry, shapes)
        made[0].load_state_dict(loaded.state, assign=True)
        return made[0]._named(loaded, found.path)

    @classmethod
    def wrong_weights(cls, path: Path, found: str, task: str) -> WeightsError:
        """That the weights are those of another task."""
        return WeightsError(
            f"{path} has weights of the task {found}, not {task}: use those that were made for it"
        )

    def save_pretrained(
        self, folder: str | Path, weights_id: str | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write `model.safetensors` (fp16 unless the class or `dtype` says otherwise); returns its path.

        The folder is made where there is none. Raises WeightsError where the file cannot be written.
        """
        name = weights_id or self.weights_id
        return save_folder(folder, self.state_dict(), self.config, name, dtype or self.file_dtype)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        message: str = "Upload a model of pmavae",
        revision: str | None = None,
        weights_id: str | None = None,
    ) -> str:
        """Upload the model, with a model card, to a repository `org/name`, which is made where there is none.

        Needs a token, of HF_TOKEN or of `hf auth login`. Returns the URL of the commit. Raises HubError.
        """
        from pmavae.pretrained.hub import push
        from pmavae.pretrained.model_card import card_of_folder

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, weights_id)
            (Path(folder) / CARD_FILE).write_text(card_of_folder(folder, name=repo), "utf-8")
            return push(Path(folder), repo, private=private, message=message, revision=revision)

    def _named(self, loaded: LoadedWeights, path: Path) -> Self:
        self.weights_id, self.weights_sha256 = loaded.id, loaded.sha256
        return self.eval()


class TaskNetwork(Pretrained):
    """A plugin's network, and what its weights file says of it; the file has the names of the network."""

    def __init__(self, network: nn.Module, config: NetworkConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    @classmethod
    def build(cls, config: NetworkConfig, build: Builder, source: str) -> TaskNetwork:
        """An untrained network; raises WeightsError, naming the source of the settings, if there is none."""
        if not is_settings(config.settings):
            raise WeightsError(
                f"{source} has settings that no weights file can hold: use names with words, truth values "
                f"and numbers, whole ones from 0 to {MAX_NUMBER}"
            )
        try:
            network = build(dict(config.settings))
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{source} has settings from which task {config.task} makes no network "
                f"({type(error).__name__}: {error}): use the version of the plugin that they are for"
            ) from error
        if not isinstance(network, nn.Module) or not any(True for _ in network.parameters()):
            raise WeightsError(
                f"task {config.task} made {type(network).__name__} of the settings of {source}, which is no "
                "torch network with parameters: repair its build_network"
            )
        return cls(network, config)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_path: str | Path | Found,
        task: str,
        build: Builder,
        index: WeightsIndex | None = None,
    ) -> TaskNetwork:
        """As `Pretrained.from_pretrained`; `build` makes the network of the settings in the file."""
        found = resolve(name_or_path, task, index)
        made: list[TaskNetwork] = []

        def shapes(config: AnyConfig) -> Shapes:
            if not isinstance(config, NetworkConfig) or config.task != task:
                raise cls.wrong_weights(found.path, getattr(config, "task", "base"), task)
            try:
                with weightless():
                    return shapes_of(build(dict(config.settings)))
            except Exception:
                # Some networks cannot be made without memory; those that cannot be made at all say so here.
                made.append(cls.build(config, build, str(found.path)))
                return shapes_of(made[0])

        loaded = load_weights(found.path, found.entry, shapes)
        # A buffer that is in no state dict has its values from the constructor, and a count its own dtype.
        model = made[0] if made else cls.build(cast(NetworkConfig, loaded.config), build, str(found.path))
        model.load_state_dict(loaded.state)
        return model._named(loaded, found.path)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        state: dict[str, Any] = self.network.state_dict(*args, **options)
        return state

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        return self.network.load_state_dict(*args, **options)


CODEC_BOUND = frozenset({TEXTURE_TASK})  # tasks whose network serves one autoencoder's latents alone
# The network of each task by module and class, opened when it is needed: they lie in rooms above this one.
NETWORKS = {
    "base": "pmavae.autoencoder:PMAVAE",
    **dict.fromkeys(RESTORATIONS, "pmavae.restoration.network:Restorer"),
    TEXTURE_TASK: "pmavae.texture.network:TexturePrior",
    FEATURES_TASK: "pmavae.style_transfer.features:FeatureNetwork",
    VMAMBA_TASK: "pmavae.vmamba.network:VMamba",
}


def network_class(task: str) -> Any:
    """The class of a task's network. Raises KeyError for a task of a plugin."""
    module, _, name = NETWORKS[task].partition(":")
    return getattr(import_module(module), name)


def network_shapes(config: AnyConfig) -> Shapes | None:
    """The tensors of a network of this configuration, by name; None for that of a plugin."""
    if isinstance(config, NetworkConfig):
        return None
    with weightless():
        return shapes_of(network_class(getattr(config, "task", "base"))(config))


def load_task_model(
    name_or_path: str | Path | Found,
    task: str,
    build: Builder | None = None,
    index: WeightsIndex | None = None,
    **options: Any,
) -> Any:
    """Load the network of a task, as `Pretrained.from_pretrained` does with these options.

    `build` makes the network of a task that is not pmavae's own.
    """
    if build is None or task in NETWORKS:
        kind = network_class(task if task in NETWORKS else RESTORATIONS[0])
        return kind.from_pretrained(name_or_path, index, task=task, **options)
    return TaskNetwork.from_pretrained(name_or_path, task, build, index)


def refuse_foreign_config(folder: Path) -> None:
    """Raise WeightsError where a folder holds a config.json that is not a model's, as a training's does."""
    path = folder / CONFIG_FILE
    if path.exists() and _read(path) is None:
        raise WeightsError(f"{path} is the configuration of something else: save the model to another folder")


def check_config(weights: Path, loaded: LoadedWeights) -> None:
    """Raise WeightsError, with both sides, where config.json beside a weights file says something else.

    One that is not there, or not a model's of pmavae, says nothing.
    """
    path = weights.with_name(CONFIG_FILE)
    if weights.name != MODEL_FILE or (found := _read(path)) is None:
        return
    expected = {
        "architecture": ARCHITECTURE_VERSION,
        "id": loaded.id,
        "config": loaded.config.to_dict(),
    }
    for name, value in expected.items():
        if found.get(name) == value:
            continue
        if name == "architecture":
            raise WeightsError(
                f"{path} is of architecture version {found.get(name)!r:.40}, {weights} and this pmavae have "
                f"{value}: take both from one place, or remove config.json"
            )
        raise WeightsError(
            f"{path} and {weights} are not of one model: {name} is {_brief(found.get(name), value)}; "
            "take both from one place, or remove config.json"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and data.get("library_name") == LIBRARY else None


def _brief(found: Any, expected: Any) -> str:
    """The two sides of a difference; of two objects, those of the first field that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                return f"that of {name}, {found.get(name)!r:.60} here and {expected.get(name)!r:.60} there"
    return f"{found!r:.60} here and {expected!r:.60} there"
