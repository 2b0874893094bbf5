"""Vision tasks for pmavae over a VMamba: what is in a picture, where, and which pixels of it."""

from __future__ import annotations

import click

from pmavae_cli.api import Training, hookimpl
from pmavae_vision.classify_command import classify
from pmavae_vision.detect_command import detect
from pmavae_vision.erf_command import erf
from pmavae_vision.segment_command import segment
from pmavae_vision.trainings import ClassifyTraining, DetectTraining, SegmentTraining

PMAVAE_API = 1


@hookimpl
def register_trainings() -> list[Training]:
    return [ClassifyTraining(), DetectTraining(), SegmentTraining()]


@hookimpl
def register_commands() -> list[click.Command]:
    return [
        classify,
        detect,
        segment,
        erf,
    ]
