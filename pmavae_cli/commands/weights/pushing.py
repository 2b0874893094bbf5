"""A folder of weights to the Hub, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pmavae.errors import WeightsError
from pmavae.pretrained.hub_push import push
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.model_card import CARD_FILE, card_of_folder
from pmavae.pretrained.weights import FOLDER_FILE


def push_folder(
    folder: Path,
    repo: str,
    index: WeightsIndex,
    *,
    private: bool = False,
    message: str = "Upload weights",
    revision: str | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Upload; returns the URL of the commit. Raises WeightsError, in one sentence.

    A folder without README.md is left as it is: the card is made elsewhere.
    """
    model, own_card = folder / FOLDER_FILE, folder / CARD_FILE
    if not model.is_file():
        raise WeightsError(
            f"{folder} has no {FOLDER_FILE}: give the folder of a training run, or make one with "
            f"pmavae weights import RUN -o FOLDER/{FOLDER_FILE}"
        )
    if own_card.is_file():
        if licence or datasets:
            raise WeightsError(
                f"{own_card} is the model card: say it there, or leave out --licence and --dataset"
            )
        return push(folder, repo, private=private, message=message, revision=revision)
    card = card_of_folder(folder, name=repo, licence=licence, datasets=datasets, index=index)
    with tempfile.TemporaryDirectory() as made:
        shutil.copyfile(model, Path(made) / FOLDER_FILE)
        (Path(made) / CARD_FILE).write_text(card, "utf-8")
        return push(Path(made), repo, private=private, message=message, revision=revision)
