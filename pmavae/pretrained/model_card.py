"""Model cards: what a repository of weights on the Hugging Face Hub shows, and how it is found there.

    python -m pmavae.pretrained.model_card docs/cards

writes those of the weights that come with pmavae. The front matter is what the Hub reads (YAML), the rest is
for people. No torch is imported until a card is written or a folder is read.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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


def card_text(entry: WeightsEntry, name: str | None = None, datasets: Sequence[str] = ()) -> str:
    """The card of weights, of which what is empty is not known.

    `name` is what `--weights` takes for them, by default their id. `datasets` are those they were trained
    on, as the Hub names them; by default those that the manifest's words tell.
    """
    what = _TITLES.get(entry.task, f"the network of the task {entry.task}")
    lines = [_front_matter(entry, datasets), "", f"# {entry.id}", ""]
    lines += [
        f"Weights for pmavae, preset {entry.preset}: {what}. "
        f"{entry.parameters / 1e6:.2f} M parameters, safetensors.",
        "",
    ]
    lines += [*_use(entry.task, name or entry.id), "", "## Data and licence", ""]
    lines += [f"Trained on: {entry.data or 'not said'}.", ""]
    lines += [f"Licence: {entry.licence or 'not said'}."]
    if entry.scores:
        lines += ["", "## Scores", "", "| score | value |", "| --- | --- |"]
        lines += [f"| {score} | {'∞' if v is None else v} |" for score, v in entry.scores.items()]
        lines += ["", "PSNR is in dB; `kodak24` are the means over the 24 Kodak pictures."]
    if entry.recipe:
        recipe = json.dumps(entry.recipe, indent=2, ensure_ascii=False)
        lines += ["", "## Recipe", "", "```json", recipe, "```"]
    lines += ["", f"SHA-256 of the file: `{entry.sha256}`"]
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
    task, preset = getattr(loaded.config, "task", "base"), loaded.config.preset
    parameters = sum(tensor.numel() for tensor in loaded.state.values())
    unknown = WeightsEntry(loaded.id, MODEL_FILE, preset, task, loaded.sha256, parameters, "", "", {}, {})
    entries = (index or released_weights()).entries
    entry = next((entry for entry in entries if entry.sha256 == loaded.sha256), unknown)
    entry = replace(entry, id=loaded.id, task=task, preset=preset, licence=licence or entry.licence)
    return card_text(entry, name, datasets)


def write_cards(folder: Path, index: WeightsIndex) -> list[Path]:
    """A card for each of the index's weights, ID.md; cards of weights that are gone are removed.

    Raises WeightsError where a card cannot be written.
    """
    from pmavae.files.tensors import write_atomically

    texts = {folder / f"{entry.id}.md": card_text(entry) for entry in index.entries}
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


def _front_matter(entry: WeightsEntry, datasets: Sequence[str]) -> str:
    from huggingface_hub import ModelCardData

    metrics = [metric for metric in METRICS if any(metric in score.split("_") for score in entry.scores)]
    datasets = datasets or [name for words, name in _HUB_DATASETS.items() if words in entry.data]
    data = ModelCardData(
        license=entry.licence.lower().replace(" ", "-") if entry.licence else "unknown",
        library_name=LIBRARY,
        pipeline_tag=_PIPELINES.get(entry.task, PIPELINE),
        tags=["pmavae", "autoencoder" if entry.task == "base" else entry.task, "attention-free"],
        datasets=list(datasets) or None,
        metrics=metrics or None,
    )
    order = ["license", "library_name", "pipeline_tag", "tags", "datasets", "metrics"]
    return f"---\n{data.to_yaml(original_order=order)}\n---"


def _use(task: str, name: str) -> list[str]:
    if task == FEATURES_TASK:
        return ["`pmavae style-mix` compares pictures with it while it paints; it is no model of its own."]
    example = _EXAMPLES.get(task, f"pmavae {task} photo.jpg --weights {{name}} -o out.png")
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
