"""The training loop: draw crops, reconstruct or repaint them, step, average."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.style import join_style, mix_style, split_style
from pmavae.training.augmentation import augment_styles
from pmavae.training.checkpoint import TrainingState
from pmavae.training.corpus import Corpus
from pmavae.training.losses import edge_loss, feature_loss, kl_loss, sample
from pmavae.training.perceptual import EfficientNetLite
from pmavae.training.recipe import Recipe
from pmavae.training.style_losses import (
    content_distance,
    gram_distance,
    grid_share,
    moment_distance,
    sliced_wasserstein,
)

LINEAR = ("encoder.linear_", "decoder.lapped_")


def parameter_groups(model: PMAVAE, recipe: Recipe) -> list[dict[str, object]]:
    """What the objective trains, by rate and weight decay.

    No decay for biases, norms, linear maps, A_log and D; the linear maps learn at a rate of their own.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(("paint" in name) == (recipe.objective == "paint"))
        if not parameter.requires_grad:
            continue
        linear = name.startswith(LINEAR)
        exempt = linear or parameter.dim() < 2 or name.endswith(("A_log", ".D", "dt_bias"))
        key = (recipe.linear_rate if linear else 1.0, 0.0 if exempt else recipe.weight_decay)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to nothing at the last step."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    return recipe.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))


class Trainer:
    """Trains `model` in place on a corpus; `average` is the copy to evaluate and export."""

    def __init__(self, model: PMAVAE, corpus: Corpus, recipe: Recipe, styles: Corpus | None = None) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.corpus, self.styles, self.recipe = corpus, styles or corpus, recipe
        needs_features = recipe.features > 0 or recipe.objective == "paint"
        self.features = EfficientNetLite() if needs_features else None
        self.optimizer = torch.optim.AdamW(parameter_groups(model, recipe), lr=0.0, betas=(0.9, 0.99))
        self.state = TrainingState(self.model, self.average, self.optimizer)
        self.skipped = 0  # steps whose gradient was not finite

    def run(self, until: int, checkpoint: Path, save_every: int = 500) -> Iterator[dict[str, float]]:
        """Train up to step `until`, saving now and then; yields one report a step."""
        while self.state.step < until:
            began = time.perf_counter()
            report = self.step()
            report["seconds"] = time.perf_counter() - began
            if self.state.step % save_every == 0 or self.state.step == until:
                self.state.save(checkpoint, self.recipe.to_dict())
            yield report

    def step(self) -> dict[str, float]:
        """One optimizer step; a non-finite gradient is counted and skipped."""
        step, recipe = self.state.step, self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe) * group["scale"]
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        loss, report = self.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        if torch.isfinite(norm + loss):  # either alone can hide the other: sign(nan) is 0
            self.optimizer.step()
            self._update_average()
        else:
            self.skipped += 1
        self.state.step += 1
        return report | {
            "step": step,
            "loss": float(loss.detach()),
            "grad_norm": float(norm),
            "skipped": self.skipped,
        }

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The objective on the crops of one step."""
        recipe = self.recipe
        pictures = self.corpus.batch(recipe.batch, recipe.crop, seed=recipe.seed, step=step)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        if recipe.objective == "codec":
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
                return self._reconstruction(pictures, step)
        styles = self.styles.batch(recipe.batch, 2 * recipe.crop, seed=recipe.seed + 1, step=step)
        styles = augment_styles(styles, recipe.crop)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            return self._repainting(pictures, styles)

    def _reconstruction(self, pictures: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        posterior = self.model.encoder(pictures)
        recipe, config = self.recipe, self.model.config
        base, detail, learned, amount = split_style(posterior.z_style, config)
        drawn = sample(learned, posterior.logvar_style.flatten(1))
        decoded = self.model.decoder(
            sample(posterior.z_base, posterior.logvar_base),
            sample(posterior.z_detail, posterior.logvar_detail),
            join_style(base, detail, drawn, amount),
            paint=False,
        )
        kl, report = kl_loss(posterior, learned[:, :, None, None], recipe.free_nats)
        l1 = (decoded - pictures).abs().mean()
        total = recipe.l1 * l1 + recipe.edge * edge_loss(decoded, pictures)
        total = total + recipe.kl * min(1.0, step / recipe.kl_warmup) * kl
        if recipe.features > 0:
            assert self.features is not None
            with torch.no_grad():
                features = self.features(pictures)
            distance = feature_loss(self.features(decoded), features)
            total = total + recipe.features * distance
            report["features"] = float(distance.detach())
        mse = float((decoded - pictures).detach().square().mean())
        return total, report | {"l1": float(l1.detach()), "psnr": -10 * math.log10(mse)}

    def _repainting(self, contents: Tensor, styles: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Decode each content in the style beside it and judge the result."""
        assert self.features is not None
        with torch.no_grad():
            of_content, of_style = self.model.encoder(contents), self.model.encoder(styles)
            content_features, style_features = self.features(contents), self.features(styles)
        z_style = mix_style(of_content.z_style, [(of_style.z_style, 1.0)])
        painted = self.model.decoder(of_content.z_base, of_content.z_detail, z_style)
        features = self.features(painted)
        with torch.autocast("cpu", enabled=False):
            features, content_features, style_features = (
                [f.float() for f in maps] for maps in (features, content_features, style_features)
            )
            parts = {
                "gram": gram_distance(features, style_features),
                "moments": moment_distance(features, style_features),
                "wasserstein": sliced_wasserstein(painted, styles),
                "content": content_distance(features, content_features),
                "grid": grid_share(painted),
            }
        weights = self.recipe.to_dict()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        outside = (painted - painted.clamp(0, 1)).abs().mean()  # what the final clamp would cut off
        return total + outside, {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.average_decay, (1 + self.state.step) / (10 + self.state.step))
        for average, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
