"""Model cards: those in the docs are what the generator makes, and the Hub's own reader takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.pretrained.manifest import MODEL_FILE, WeightsEntry, released_weights
from pmavae.pretrained.model_card import card_of_folder, card_text, write_cards
from pmavae.pretrained.weights import save_weights

CARDS = Path(__file__).parents[2] / "docs" / "cards"
INDEX = released_weights()


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    return found


def test_the_cards_in_the_docs_are_those_of_the_manifest(tmp_path: Path) -> None:
    made = write_cards(tmp_path, INDEX)
    assert {path.name for path in CARDS.iterdir()} == {path.name for path in made}
    for path in made:
        assert (CARDS / path.name).read_text() == path.read_text(), (
            "python -m pmavae.pretrained.model_card docs/cards"
        )


@pytest.mark.parametrize("entry", INDEX.entries, ids=lambda entry: entry.id)
def test_the_hub_reads_the_front_matter(entry: Any) -> None:
    data = front_matter((CARDS / f"{entry.id}.md").read_text())
    assert data["license"] == {"MIT": "mit", "Apache-2.0": "apache-2.0"}[entry.licence]
    assert data["library_name"] == "pmavae"
    assert data["pipeline_tag"] == "image-to-image" or entry.task == "features"
    assert data["tags"][0] == "pmavae" and data["datasets"]
    # A metric is named exactly where one of it was measured.
    assert ("psnr" in data.get("metrics", [])) == any("psnr" in score for score in entry.scores)


@pytest.mark.parametrize("entry", INDEX.entries, ids=lambda entry: entry.id)
def test_a_card_tells_hash_data_and_scores(entry: Any) -> None:
    text = (CARDS / f"{entry.id}.md").read_text()
    assert entry.sha256 in text and entry.data in text and entry.licence in text
    for name, value in entry.scores.items():
        assert f"| {name} | {value} |" in text


def test_cards_of_weights_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "old-1.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "notes.md").write_text("Mine.\n")
    write_cards(tmp_path, INDEX)
    assert not (tmp_path / "old-1.md").exists() and (tmp_path / "notes.md").exists()


@pytest.mark.parametrize("odd", ["no", "1.0", "a: b", "#1", 'say "hi"', "Ünï", "[x]", "- x", "null", "a\nb"])
def test_any_words_are_the_same_words_in_yaml(odd: str) -> None:
    entry = WeightsEntry("id", MODEL_FILE, "tiny", "base", "0" * 64, 1, "MIT", "", {}, {})
    data = front_matter(card_text(entry, datasets=[odd]))
    assert data["datasets"] == [odd]


def test_the_card_of_a_folder_says_what_is_known(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(tmp_path / MODEL_FILE, PMAVAE(CONFIG).state_dict(), CONFIG, "mine-1")
    data = front_matter(card_of_folder(tmp_path))
    assert (data["license"], data.get("datasets"), data.get("metrics")) == ("unknown", None, None)
    text = card_of_folder(tmp_path, name="org/mine", licence="CC BY 4.0", datasets=["a/b"])
    data = front_matter(text)
    assert (data["license"], data["datasets"]) == ("cc-by-4.0", ["a/b"])
    assert "# mine-1" in text and "--weights org/mine" in text


def test_the_card_of_released_weights_is_known_by_their_hash(tmp_path: Path) -> None:
    entry = INDEX.find("upscale-tiny-1")
    assert entry
    (tmp_path / MODEL_FILE).write_bytes(INDEX.path(entry).read_bytes())
    assert card_of_folder(tmp_path, name="upscale-tiny-1") == (CARDS / "upscale-tiny-1.md").read_text()


def test_a_folder_without_weights_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        card_of_folder(tmp_path)
