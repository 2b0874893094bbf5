"""What `pmavae train --task classify`, `detect` and `segment` do. Nothing here imports torch at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmavae_cli.api import Batch, Examples, Phase, Training

if TYPE_CHECKING:
    from torch import Tensor, nn

SCORE = 0.5  # of a detection that counts in validation


class VisionTraining(Training):
    """A network over a VMamba of the preset, whose backbone may start from other weights."""

    presets = ("tiny", "small", "base")

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        """Of the backbone."""
        from pmavae_vision.backbone import VARIANTS, backbone_settings

        return backbone_settings(VARIANTS[preset])

    @abstractmethod
    def backbone(self, network: Any) -> nn.Module:
        """The VMamba in a network."""

    def start_from(self, network: nn.Module, weights: Path) -> None:
        """Take the backbone of a VMamba, or of a network that classifies."""
        from pmavae.vmamba import VMamba
        from pmavae_vision.backbone import fill

        backbone = self.backbone(network)
        assert isinstance(backbone, VMamba)
        fill(backbone, weights, f"training {self.name}")


class ClassifyTraining(VisionTraining):
    name = "classify"
    help = "A classifier, on a folder of pictures for each class."
    phases = (Phase("crops", 1.0, crop=224, batch=32, learning_rate=1e-3, warmup=0.05),)
    side = 224  # px, that the network is to see

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        return {**super().network_settings(preset), "side": self.side}

    def open_examples(self, sources: Sequence[Path], validate: Path | None) -> Examples:
        from pmavae_vision.class_folders import open_class_folders

        return open_class_folders(sources, validate, self.side)

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        from pmavae_vision.classifier import build_classifier

        return build_classifier(settings)

    def backbone(self, network: Any) -> nn.Module:
        classifier: nn.Module = network
        return classifier

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        import torch.nn.functional as F

        from pmavae_vision.classifier import normalised

        logits, labels = network(normalised(batch.pictures)).float(), batch.targets.to(batch.pictures.device)
        right = (logits.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=0.1), "accuracy": right}


class SegmentTraining(VisionTraining):
    name = "segment"
    help = "UPerNet, on pictures with masks of classes."
    phases = (Phase("crops", 1.0, crop=512, batch=8, learning_rate=6e-4, warmup=0.05),)
    pyramid = 256  # channels of the decoder

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        return {**super().network_settings(preset), "pyramid": self.pyramid}

    def open_examples(self, sources: Sequence[Path], validate: Path | None) -> Examples:
        from pmavae_vision.class_masks import open_class_masks
        from pmavae_vision.examples import only_source

        return open_class_masks(only_source(sources), validate)

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        from pmavae_vision.segmenter import build_segmenter

        return build_segmenter(settings)

    def backbone(self, network: Any) -> nn.Module:
        body: nn.Module = network.body.network
        return body

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        import torch.nn.functional as F

        from pmavae_vision.class_masks import IGNORED
        from pmavae_vision.classifier import normalised

        logits, labels = network(normalised(batch.pictures)).float(), batch.targets.to(batch.pictures.device)
        known = labels != IGNORED
        right = (logits.argmax(1) == labels)[known].float().mean()
        return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORED), "accuracy": right}

    def score(self, network: nn.Module, batch: Batch) -> Mapping[str, float]:
        from pmavae_vision.class_masks import IGNORED
        from pmavae_vision.classifier import normalised

        labels = batch.targets.to(batch.pictures.device)
        found = network(normalised(batch.pictures)).argmax(1)
        known, shares = labels != IGNORED, []
        for number in labels[known].unique():
            of_label, of_found = labels == number, (found == number) & known
            shares.append(float((of_label & of_found).sum() / (of_label | of_found).sum()))
        return {"iou": sum(shares) / max(1, len(shares))}

    def preview(self, network: nn.Module, batch: Batch) -> Sequence[Tensor]:
        from pmavae_vision.classifier import normalised
        from pmavae_vision.painting import painted

        found = network(normalised(batch.pictures)).argmax(1)
        shown = [painted(batch.pictures, classes) for classes in (found, batch.targets)]
        return [batch.pictures, *shown]


class DetectTraining(VisionTraining):
    name = "detect"
    help = "Mask R-CNN, on pictures with annotations of COCO."
    phases = (Phase("pictures", 1.0, crop=512, batch=8, learning_rate=2e-4, warmup=0.05),)
    pyramid, representation, side = 256, 1024, 512
    samples = 512  # regions of a picture that a step learns from

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        own = {"pyramid": self.pyramid, "representation": self.representation, "side": self.side}
        return {**super().network_settings(preset), **own, "samples": self.samples}

    def open_examples(self, sources: Sequence[Path], validate: Path | None) -> Examples:
        from pmavae_vision.coco import open_coco
        from pmavae_vision.examples import only_source

        return open_coco(only_source(sources), validate)

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        from pmavae_vision.detector import build_detector

        return build_detector(settings)

    def backbone(self, network: Any) -> nn.Module:
        body: nn.Module = network.backbone.body.network
        return body

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        device = batch.pictures.device
        targets = [{name: values.to(device) for name, values in row.items()} for row in batch.targets]
        parts = network(list(batch.pictures), targets)
        return {"loss": sum(parts.values()), **parts}

    def score(self, network: nn.Module, batch: Batch) -> Mapping[str, float]:
        """The mean IoU of each object with the best detection of its class; 0 where there is none."""
        found, (wanted,) = network(list(batch.pictures))[0], batch.targets
        sure = found["scores"] >= SCORE
        masks, labels = found["masks"][sure, 0].cpu() >= SCORE, found["labels"][sure].cpu()
        shares = []
        for mask, label in zip(wanted["masks"].bool(), wanted["labels"], strict=True):
            same = masks[labels == label]
            overlaps = (same & mask).sum((1, 2)) / (same | mask).sum((1, 2))
            shares.append(float(overlaps.max()) if len(same) else 0.0)
        return {"iou": sum(shares) / max(1, len(shares)), "found": float(sure.sum())}
