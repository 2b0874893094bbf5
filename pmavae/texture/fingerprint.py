"""Which encoder made a latent: what a prior of its latents is tied to."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from pmavae.files.tensors import raw_bytes


def encoder_fingerprint(encoder: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the encoder's tensors in fp16, in the order of their names.

    In fp16, because released weights are: the fingerprint is that of the file, whatever they were loaded
    to. The decoder does not count: it can be trained on without a change to what the latents are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(raw_bytes(tensor.detach().to("cpu", torch.float16).contiguous()))
    return digest.hexdigest()
