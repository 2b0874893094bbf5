"""The training loop: draw crops, reconstruct them, swap their styles, step, average."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.encoder import Posterior
from pmavae.style import join_style, split_style
from pmavae.training.augmentation import augment_styles
from pmavae.training.checkpoint import TrainingState
from pmavae.training.corpus import Corpus
from pmavae.training.losses import edge_loss, feature_loss, kl_loss, sample
from pmavae.training.perceptual import EfficientNetLite
from pmavae.training.recipe import Recipe
from pmavae.training.style_losses import content_distance, gram_distance, moment_distance, sliced_wasserstein

LINEAR = ("encoder.linear_", "decoder.lapped_")
STYLE = (".paint.", ".style_head.")


def rate(name: str, recipe: Recipe) -> float:
    """How fast a parameter learns, relative to the recipe's learning rate."""
    if name.startswith(LINEAR):
        return recipe.linear_rate * recipe.codec_rate
    return 1.0 if any(part in name for part in STYLE) else recipe.codec_rate


def parameter_groups(model: PMAVAE, recipe: Recipe) -> list[dict[str, object]]:
    """By rate and weight decay; none for biases, norms, linear maps, A_log and D."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        exempt = parameter.dim() < 2 or name.endswith(("A_log", ".D", "dt_bias")) or name.startswith(LINEAR)
        decay = 0.0 if exempt else recipe.weight_decay
        groups.setdefault((rate(name, recipe), decay), []).append(parameter)
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
        needs_features = recipe.features > 0 or recipe.style > 0
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
        """The whole objective on the crops of one step."""
        recipe = self.recipe
        pictures = self.corpus.batch(recipe.batch, recipe.crop, seed=recipe.seed, step=step)
        if recipe.style > 0:
            styles = self.styles.batch(recipe.batch, 2 * recipe.crop, seed=recipe.seed + 1, step=step)
            pictures = torch.cat((pictures, augment_styles(styles, recipe.crop)))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            with torch.no_grad():
                features = self.features(pictures) if self.features else []
            posterior = self.model.encoder(pictures)
            total, report = self._reconstruction(pictures, features, posterior, step)
            if recipe.style > 0:
                swap, swap_report = self._style_swap(pictures, features, posterior)
                total = total + recipe.style * swap
                report |= swap_report
        return total, report

    def _reconstruction(
        self, pictures: Tensor, features: list[Tensor], posterior: Posterior, step: int
    ) -> tuple[Tensor, dict[str, float]]:
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
            distance = feature_loss(self.features(decoded), features)
            total = total + recipe.features * distance
            report["features"] = float(distance.detach())
        mse = float((decoded - pictures).detach().square().mean())
        return total, report | {"l1": float(l1.detach()), "psnr": -10 * math.log10(mse)}

    def _style_swap(
        self, pictures: Tensor, features: list[Tensor], posterior: Posterior
    ) -> tuple[Tensor, dict[str, float]]:
        """Decode the first half's latents in the second half's styles and judge the result.

        The codec's latents are detached: restyling must not change what they mean. Only the
        learned numbers of z_style are taught by it.
        """
        assert self.features is not None
        recipe, config = self.recipe, self.model.config
        style = pictures.chunk(2)[1]
        z_base, z_detail = (z.detach().chunk(2)[0] for z in (posterior.z_base, posterior.z_detail))
        base, detail, learned, amount = split_style(posterior.z_style.chunk(2)[1], config)
        swapped = join_style(base.detach(), detail.detach(), learned, torch.ones_like(amount))
        painted = self.model.decoder(z_base, z_detail, swapped)
        painted_features = [f.float() for f in self.features(painted)]
        content_features, style_features = zip(*(f.float().chunk(2) for f in features), strict=True)
        with torch.autocast("cpu", enabled=False):
            parts = {
                "gram": gram_distance(painted_features, style_features),
                "moments": moment_distance(painted_features, style_features),
                "wasserstein": sliced_wasserstein(painted, style),
                "content": content_distance(painted_features, content_features),
            }
        weights = recipe.to_dict()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        outside = (painted - painted.clamp(0, 1)).abs().mean()  # what the final clamp would cut off
        return total + outside, {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.average_decay, (1 + self.state.step) / (10 + self.state.step))
        for average, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
