"""How faithful a codec is: PSNR of decode(encode(picture)) on a folder, and the size of its latents.

    python benchmarks/reconstruction.py FOLDER [--weights tiny] [--json]

The latents go through the bytes of a latent file (fp16), as they do on the command line. Read the
figure against the linear codec of the same latents: 27.8 dB with tiny's on the Kodak pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from pmavae import PMAVAE
from pmavae.training.evaluation import reconstructions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="tiny", help="preset, manifest id, file or folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()

    model = PMAVAE.from_pretrained(args.weights)
    results = reconstructions(model, args.folder)
    mean = statistics.fmean(result.psnr for result in results.values())
    bits = statistics.fmean(result.bits_per_pixel for result in results.values())
    if args.json:
        each = {name: result.psnr for name, result in results.items()}
        print(json.dumps({"weights": model.weights_id, "psnr": mean, "bits_per_pixel": bits, "each": each}))
        return
    for name, result in results.items():
        print(f"{name:32s} {result.psnr:6.2f} dB {result.bits_per_pixel:6.2f} bits a pixel")
    print(f"{'mean, ' + model.weights_id:32s} {mean:6.2f} dB {bits:6.2f} bits a pixel")


if __name__ == "__main__":
    main()
