"""Model cards: what a repository of weights on the Hugging Face Hub shows, and how it is found there.

    python -m pmavae.pretrained.model_card docs/cards

writes those of the weights that come with pmavae. The front matter is what the Hub reads (YAML), the rest is
for people. No torch is imported until a card is written or a folder is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pmavae.errors import WeightsError
from pmavae.network_configs import FEATURES_TASK, VMAMBA_TASK
from pmavae.pretrained.manifest import LIBRARY, MODEL_FILE, WeightsEntry, WeightsIndex, released_weights

PIPELINE = "image-to-image"  # the Hub's name for what all tasks do, but for the feature network
METRICS = ("psnr", "ssim")  # names of scores begin with these, which are the Hub's names too

# By the words for them in a manifest: the Hub's name, or a plain one where it does not have the data.
_HUB_DATASETS = {"ImageNet": "ILSVRC/imagenet-1k", "Debian 12 packages": "debian-12-pictures"}
_TITLES = {
    "base": "an image autoencoder without attention",
    "denoise": "removes noise and JPEG artefacts",
    "upscale": "enlarges pictures two or four times",
    "texture-vary": "gives surfaces other textures",
    FEATURES_TASK: "compares pictures by their features",
    VMAMBA_TASK: "a classifier and backbone without attention",
}
_PIPELINES = {FEATURES_TASK: "image-feature-extraction", VMAMBA_TASK: "image-classification"}
_EXAMPLES = {
    "base": "pmavae style-mix photo.jpg painting.jpg --weights {name} -o out.png",
    "texture-vary": "pmavae texture-vary photo.jpg --weights {name} --count 4",
    VMAMBA_TASK: "pmavae train --data photos/ --perceptual vmamba-tiny={name}",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. None and nothing mean that it is not known."""

    id: str
    task: str  # "base" for the autoencoder
    preset: str
    parameters: int
    sha256: str
    licence: str | None = None  # as SPDX has it
    data: str | None = None  # what it was trained on, in a sentence
    datasets: Sequence[str] = ()  # as the Hub names them
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: WeightsEntry) -> CardFacts:
        """Those of an entry of a manifest."""
        known = [name for words, name in _HUB_DATASETS.items() if words in entry.data]
        return cls(
            id=entry.id,
            task=entry.task,
            preset=entry.preset,
            parameters=entry.parameters,
            sha256=entry.sha256,
            licence=entry.licence,
            data=entry.data,
            datasets=known,
            recipe=entry.recipe,
            scores=entry.scores,
        )


def card_text(facts: CardFacts, name: str | None = None) -> str:
    """A card; `name` is what `--weights` takes for these weights, by default their id."""
    what = _TITLES.get(facts.task, f"the network of the task {facts.task}")
    lines = [_front_matter(facts), "", f"# {facts.id}", ""]
    lines += [
        f"Weights for pmavae, preset {facts.preset}: {what}. "
        f"{facts.parameters / 1e6:.2f} M parameters, safetensors.",
        "",
    ]
    lines += [*_use(facts, name or facts.id), "", "## Data and licence", ""]
    lines += [f"Trained on: {facts.data or 'not said'}.", ""]
    lines += [f"Licence: {facts.licence or 'not said'}."]
    if facts.scores:
        lines += ["", "## Scores", "", "| score | value |", "| --- | --- |"]
        lines += [f"| {score} | {'∞' if v is None else v} |" for score, v in facts.scores.items()]
        lines += ["", "PSNR is in dB; `kodak24` are the means over the 24 Kodak pictures."]
    if facts.recipe:
        recipe = json.dumps(facts.recipe, indent=2, ensure_ascii=False)
        lines += ["", "## Recipe", "", "```json", recipe, "```"]
    lines += ["", f"SHA-256 of the file: `{facts.sha256}`"]
    return "\n".join(lines) + "\n"


def card_of_folder(
    folder: str | Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    index: WeightsIndex | None = None,
) -> str:
    """The card of a folder with model.safetensors; raises WeightsError where that cannot be read.

    Of a file that the index knows, by its hash, the manifest tells the rest. `licence` and `datasets` count
    before that.
    """
    from pmavae.pretrained.weights import load_weights

    loaded = load_weights(Path(folder) / MODEL_FILE)
    entries = (index or released_weights()).entries
    entry = next((entry for entry in entries if entry.sha256 == loaded.sha256), None)
    task, preset = getattr(loaded.config, "task", "base"), loaded.config.preset
    parameters = sum(tensor.numel() for tensor in loaded.state.values())
    facts = (
        replace(CardFacts.of(entry), id=loaded.id, task=task, preset=preset)
        if entry
        else CardFacts(loaded.id, task, preset, parameters, loaded.sha256)
    )
    facts = replace(facts, licence=licence or facts.licence, datasets=datasets or facts.datasets)
    return card_text(facts, name)


def write_cards(folder: Path, index: WeightsIndex) -> list[Path]:
    """A card for each of the index's weights, ID.md; cards of weights that are gone are removed.

    Raises WeightsError where a card cannot be written.
    """
    from pmavae.files.tensors import write_atomically

    texts = {folder / f"{entry.id}.md": card_text(CardFacts.of(entry)) for entry in index.entries}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.md"):
            if path not in texts and path.read_text("utf-8").startswith("---\n"):
                path.unlink()
    except OSError as reason:
        raise WeightsError(f"{folder} cannot be written: {reason.strerror or reason}") from None
    for path, text in texts.items():
        write_atomically(path, text.encode(), error=WeightsError)
    return list(texts)


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    metrics = [metric for metric in METRICS if any(metric in score.split("_") for score in facts.scores)]
    data = ModelCardData(
        license=facts.licence.lower().replace(" ", "-") if facts.licence else "unknown",
        library_name=LIBRARY,
        pipeline_tag=_PIPELINES.get(facts.task, PIPELINE),
        tags=["pmavae", "autoencoder" if facts.task == "base" else facts.task, "attention-free"],
        datasets=list(facts.datasets) or None,
        metrics=metrics or None,
    )
    order = ["license", "library_name", "pipeline_tag", "tags", "datasets", "metrics"]
    return f"---\n{data.to_yaml(original_order=order)}\n---"


def _use(facts: CardFacts, name: str) -> list[str]:
    if facts.task == FEATURES_TASK:
        return ["`pmavae style-mix` compares pictures with it while it paints; it is no model of its own."]
    example = _EXAMPLES.get(facts.task, f"pmavae {facts.task} photo.jpg --weights {{name}} -o out.png")
    return ["```", example.format(name=name), "```"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pmavae.pretrained.model_card", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the cards go, as docs/cards")
    for path in write_cards(parser.parse_args().folder, released_weights()):
        print(path)


if __name__ == "__main__":
    main()
