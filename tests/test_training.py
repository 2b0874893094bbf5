"""Making weights: the corpus, the linear start, the losses, and a run that resumes exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_config import CONFIG

from pmavae import PMAVAE, PRESETS
from pmavae.errors import PMAVAEError
from pmavae.training.augmentation import augment_styles
from pmavae.training.corpus import STYLE_SHARES, Corpus, build_cache
from pmavae.training.evaluation import reconstruction_psnr
from pmavae.training.linear_start import fit_decoder, fit_encoder
from pmavae.training.losses import edge_loss, feature_loss, kl_per_channel
from pmavae.training.recipe import Recipe
from pmavae.training.style_losses import (
    content_distance,
    gram_distance,
    grid_share,
    moment_distance,
    sliced_wasserstein,
)
from pmavae.training.trainer import Trainer, learning_rate

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in EXAMPLES.glob("*.jpg"):
        picture = Image.open(path)
        picture.thumbnail((640, 640))
        picture.save(pictures / f"{path.stem}.png")
    classes = {p.name: "painting" if p.stem.startswith("style") else "photo" for p in pictures.iterdir()}
    build_cache([pictures], folder / "pictures.u8", classes)
    return folder / "pictures.u8"


def test_crops_are_a_function_of_seed_and_step(cache):
    corpus = Corpus(cache)
    batch = corpus.batch(3, 64, seed=1, step=5)
    assert batch.shape == (3, 3, 64, 64) and batch.min() >= 0 and batch.max() <= 1
    assert torch.equal(batch, Corpus(cache).batch(3, 64, seed=1, step=5))
    assert not torch.equal(batch, corpus.batch(3, 64, seed=1, step=6))
    assert not torch.equal(batch, corpus.batch(3, 64, seed=2, step=5))


def test_every_picture_is_there_whole_and_halved_and_classes_get_their_shares(cache):
    corpus = Corpus(cache, {"photo": 0.8, "painting": 0.2})
    assert len(corpus.views) == 2 * len(list(EXAMPLES.glob("*.jpg")))
    photos = [p for p, view in zip(corpus.probability, corpus.views, strict=True) if view.kind == "photo"]
    assert sum(photos) == pytest.approx(0.8)


def test_a_corpus_without_a_picture_of_the_crop_size_is_refused(cache):
    with pytest.raises(PMAVAEError, match="no picture of the corpus has 4096 px"):
        Corpus(cache).batch(1, 4096, seed=0, step=0)


def test_style_augmentation_keeps_size_and_range():
    torch.manual_seed(0)
    views = augment_styles(torch.rand(4, 3, 64, 64), 32)
    assert views.shape == (4, 3, 32, 32) and views.min() >= 0 and views.max() <= 1


def test_a_linear_start_is_a_usable_codec_before_any_training(cache, tmp_path):
    """Tiny's latents from examples alone; the measured figure on the Kodak pictures is in docs/weights.md."""
    torch.manual_seed(0)
    model = PMAVAE(PRESETS["tiny"]).eval()
    pictures = torch.cat([Corpus(cache).batch(8, 128, seed=0, step=i) for i in range(6)])
    fit_encoder(model, pictures)
    few = fit_decoder(model, pictures[:16], iterations=2)
    many = fit_decoder(model, pictures[:16], iterations=15)
    assert many < few < pictures.var()
    Image.open(EXAMPLES / "content-ridge.jpg").resize((256, 192)).save(tmp_path / "ridge.png")
    (score,) = reconstruction_psnr(model, tmp_path).values()
    assert score > 20


def test_posterior_means_of_a_linear_start_have_unit_variance(cache):
    model = PMAVAE(CONFIG).eval()
    pictures = torch.cat([Corpus(cache).batch(8, 64, seed=0, step=i) for i in range(8)])
    fit_encoder(model, pictures)
    with torch.no_grad():
        for latents in (
            model.encoder.linear_base(pictures - 0.5),
            model.encoder.linear_detail(pictures - 0.5),
        ):
            torch.testing.assert_close(
                latents.square().mean((0, 2, 3)), torch.ones(latents.shape[1]), atol=0.02, rtol=0
            )


def test_ten_and_ten_steps_are_twenty_steps_bit_for_bit(cache, tmp_path):
    recipe = Recipe(steps=20, batch=2, crop=32, warmup=5, kl_warmup=5)

    def trainer():
        torch.manual_seed(0)
        return Trainer(PMAVAE(CONFIG), Corpus(cache), recipe)

    straight = trainer()
    reports = list(straight.run(20, tmp_path / "straight.safetensors"))
    assert [r["step"] for r in reports] == list(range(20)) and reports[-1]["skipped"] == 0

    list(trainer().run(10, tmp_path / "halves.safetensors"))
    second = trainer()
    second.state.load(tmp_path / "halves.safetensors")
    list(second.run(20, tmp_path / "halves.safetensors"))
    for model in ("model", "average"):
        expected, got = getattr(straight, model).state_dict(), getattr(second, model).state_dict()
        assert all(torch.equal(expected[k], got[k]) for k in expected)


def test_training_lowers_the_loss(cache, tmp_path):
    torch.manual_seed(0)
    trainer = Trainer(
        PMAVAE(CONFIG), Corpus(cache), Recipe(steps=60, batch=4, crop=32, warmup=5, linear_rate=1.0)
    )
    losses = [report["l1"] for report in trainer.run(60, tmp_path / "run.safetensors")]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(cache):
    trainer = Trainer(PMAVAE(CONFIG), Corpus(cache), Recipe(steps=5, batch=1, crop=32))
    with torch.no_grad():
        trainer.model.decoder.out[0].bias.fill_(float("nan"))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert trainer.step()["skipped"] == 1
    after = trainer.model.state_dict()
    assert all(torch.equal(before[k], after[k]) or not before[k].isfinite().all() for k in before)


def test_the_learning_rate_rises_then_falls_to_nothing():
    recipe = Recipe(steps=100, warmup=10)
    rates = [learning_rate(step, recipe) for step in range(101)]
    assert rates[0] < rates[5] < max(rates) <= recipe.learning_rate
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_distances_are_zero_for_the_same_and_grow_with_the_difference():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 64)
    near, far = picture + 0.01, picture**3
    features = [
        [torch.nn.functional.avg_pool2d(x, s) - 0.4 for s in (1, 2, 4, 4, 8, 8)] for x in (picture, near, far)
    ]
    for distance in (gram_distance, moment_distance, feature_loss):
        values = [float(distance(f, features[0])) for f in features]
        assert values[0] == pytest.approx(0, abs=1e-6) and values[1] < values[2]
    assert float(content_distance(features[1], features[0])) == pytest.approx(0, abs=1e-4)
    assert float(content_distance(features[2], features[0])) > 1e-3
    assert float(edge_loss(picture, picture)) == 0 and float(edge_loss(far, picture)) > 0


def test_sliced_wasserstein_ignores_where_things_are_and_sees_what_they_are():
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def distance(a, b):
        return float(sliced_wasserstein(a, b, torch.Generator().manual_seed(1)))

    assert distance(picture, picture.flip(-1).roll(13, -2)) < 0.25 * distance(picture, picture * 0.5)


def test_kl_of_a_standard_normal_is_zero():
    mean, logvar = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    assert torch.equal(kl_per_channel(mean, logvar), torch.zeros(3))
    assert (kl_per_channel(mean + 1, logvar) == 0.5).all()


def test_unknown_recipe_fields_are_named():
    with pytest.raises(ValueError, match="unknown recipe fields: stepz"):
        Recipe.from_dict({"stepz": 3})


class Edges(torch.nn.Module):
    """Stands in for the feature network: six maps of fixed random filters."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.filters = torch.randn(8, 3, 3, 3, generator=generator)

    def forward(self, picture):
        maps = torch.nn.functional.conv2d(picture, self.filters.to(picture.dtype)).relu()
        return [torch.nn.functional.avg_pool2d(maps, size) for size in (1, 1, 2, 2, 4, 4)]


def test_painting_changes_the_paint_and_nothing_of_the_codec(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("pmavae.training.trainer.EfficientNetLite", Edges)
    torch.manual_seed(0)
    recipe = Recipe(objective="paint", steps=40, batch=2, crop=48, warmup=5, learning_rate=0.01)
    trainer = Trainer(PMAVAE(CONFIG), Corpus(cache), recipe, Corpus(cache, STYLE_SHARES))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    losses = [report["loss"] for report in trainer.run(40, tmp_path / "paint.safetensors")]
    assert sum(losses[-10:]) < sum(losses[:10])
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all("paint" in name for name in changed)


def test_a_grid_is_seen_and_a_photograph_is_not():
    photo = Image.open(EXAMPLES / "content-ridge.jpg").convert("RGB").resize((256, 192))
    picture = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    assert grid_share(picture) < 0.03
    tile = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 12, 16)
    assert grid_share(tile) > 0.9
    assert grid_share(picture + 0.3 * tile) > 0.3
