"""How faithful a codec is: PSNR of decode(encode(picture)) on a folder, and the size of its latents.

    python benchmarks/reconstruction.py FOLDER [--weights tiny] [--json]

The latents go through the bytes of a latent file (fp16), as they do on the command line. Read the
figure against the linear codec of the same latents: 27.8 dB with tiny's on the Kodak pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pmavae import PMAVAE, PRESETS
from pmavae.latent_file import LatentHeader, latents_to_bytes, read_latents
from pmavae.training.evaluation import picture_paths, psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="tiny", help="preset, manifest id, file or folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()

    model = PMAVAE.from_pretrained(args.weights)
    header = LatentHeader(model.config.preset, model.weights_id, model.weights_sha256)
    scores, sizes = {}, {}
    for path in picture_paths(args.folder):
        picture = np.asarray(Image.open(path).convert("RGB"))
        latents = model.encode(picture).replace(logvar_base=None, logvar_detail=None)
        data = latents_to_bytes(latents, header)
        decoded = model.decode(read_latents(data, PRESETS.__getitem__, name=path.name)[0])[0]
        scores[path.name] = psnr(picture, (decoded.permute(1, 2, 0) * 255).round().byte().numpy())
        sizes[path.name] = 8 * len(data) / (picture.shape[0] * picture.shape[1])
    mean, bits = float(np.mean(list(scores.values()))), float(np.mean(list(sizes.values())))
    if args.json:
        print(json.dumps({"weights": model.weights_id, "psnr": mean, "bits_per_pixel": bits, "each": scores}))
        return
    for name, score in scores.items():
        print(f"{name:32s} {score:6.2f} dB {sizes[name]:6.2f} bits a pixel")
    print(f"{'mean, ' + model.weights_id:32s} {mean:6.2f} dB {bits:6.2f} bits a pixel")


if __name__ == "__main__":
    main()
