"""The training notebook runs from its first cell to its last, with a tiny budget."""

from pathlib import Path

import pytest
from conftest import picture

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "PMA_VAE_Colab_Training.ipynb"
SHORT = (
    "--device cpu --threads 1 --perceptual none --log-every 1 --set linear_crops=16 "
    '--set phases=[{"name":"short","share":1,"crop":64,"batch":2}]'
)


def test_the_notebook_trains_evaluates_and_exports(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(6):
        picture((160, 128), seed).save(photos / f"{seed}.png")
    for name, value in {
        "PMAVAE_PRESET": "tiny",
        "PMAVAE_DATA": str(photos),
        "PMAVAE_OUT": str(tmp_path / "run"),
        "PMAVAE_LENGTH": "--steps 3",
        "PMAVAE_EXTRA": SHORT,
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "6 pictures in" in said and "step 3: PSNR" in said and "nothing was pushed" in said
    assert (tmp_path / "run" / "model.safetensors").stat().st_size > 4_000_000
    assert (tmp_path / "run" / "mixed.png").exists()
