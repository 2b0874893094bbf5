"""Peak memory of every task, by the size of the picture.

    python benchmarks/memory.py PICTURE [--size 1920x1080]... [--task encode]... [--option=--max-memory=64M]

The picture is enlarged to each size (tiled beyond 8192 px) and goes through the installed command, in a
process of its own for each task. A row has the peak resident memory of that process in MiB, beside it what is
left without the peak of `python -c "import torch"`, and the seconds. The rows named "model alone" encode and
decode an array in one process, without the command; at 1920x1080 there is also diffusers' AutoencoderTiny
(random weights, the whole picture at once), where diffusers is installed, and the ratio of the two beyond
what torch takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Nothing large is imported here: a process that is started is counted with what its parent had.

SIZES = ("512x512", "1920x1080", "3840x2160", "7680x4320")
TASKS = {
    "encode": ("encode", "{source}", "-o", "{folder}/out.safetensors"),
    "decode": ("decode", "{latents}", "-o", "{folder}/out.png"),
    "reconstruct": ("decode", "{source}", "-o", "{folder}/out.png"),
    "denoise": ("denoise", "{source}", "--sigma", "15", "-o", "{folder}/out.png"),
    "upscale": ("upscale", "{source}", "-o", "{folder}/out.png"),
    "style-mix": ("style-mix", "{source}", "{style}", "--refine", "30", "-o", "{folder}/out.png"),
    "style-mix --refine 0": ("style-mix", "{source}", "{style}", "--refine", "0", "-o", "{folder}/out.png"),
    "style-mix --preserve": (
        *("style-mix", "{source}", "{style}", "--refine", "30", "-o", "{folder}/out.png"),
        *("--preserve-color", "--preserve-detail", "0.5"),
    ),
    "texture-vary": ("texture-vary", "{source}", "-o", "{folder}/out.png"),
}
LIBRARY = "model alone"
PEER = "AutoencoderTiny"
PEER_SIZE = "1920x1080"

ENLARGE = """
import sys
from PIL import Image
source, target, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
Image.MAX_IMAGE_PIXELS = None
picture = Image.open(source).convert("RGB")
tile = picture.resize((min(width, 8192), min(height, 8192)), Image.Resampling.LANCZOS)
whole = Image.new("RGB", (width, height))
for top in range(0, height, tile.height):
    for left in range(0, width, tile.width):
        whole.paste(tile, (left, top))
whole.save(target, quality=95)
"""
ALONE = """
import sys
import numpy as np, torch
from PIL import Image
from pmavae import PMAVAE
Image.MAX_IMAGE_PIXELS = None
torch.set_num_threads(int(sys.argv[2]))
model = PMAVAE.from_pretrained("tiny")
with Image.open(sys.argv[1]) as image:
    pixels = np.asarray(image)
del image
latents = model.encode(pixels)
del pixels
model.decode_pixels(latents)
"""
OTHER = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[3])
from any_torchvision import allow_any_torchvision
allow_any_torchvision()
from diffusers import AutoencoderTiny
from PIL import Image
torch.set_num_threads(int(sys.argv[2]))
model = AutoencoderTiny().eval()
with Image.open(sys.argv[1]) as image:
    pixels = torch.from_numpy(np.asarray(image).copy())
del image
picture = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
edges = (0, -picture.shape[3] % 8, 0, -picture.shape[2] % 8)
picture = torch.nn.functional.pad(picture, edges, mode="reflect")
with torch.inference_mode():
    model.decode(model.encode(picture).latents)
"""


def peak_of(command: list[str]) -> tuple[float, float]:
    """Peak resident memory in MiB, and seconds; a command that fails ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command[-8:])} failed")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), time.perf_counter() - start


def has_diffusers() -> bool:
    return (
        subprocess.run([sys.executable, "-c", "import diffusers"], stderr=subprocess.DEVNULL).returncode == 0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", action="append", metavar="WxH")
    parser.add_argument("--task", action="append", choices=[*TASKS, LIBRARY])
    parser.add_argument("--threads", default="1")
    parser.add_argument(
        "--option", action="append", default=[], help="for every task, --option=--max-memory=1G"
    )
    args = parser.parse_args()
    torch_alone, _ = peak_of([sys.executable, "-c", "import torch"])
    print(f"import torch alone: {torch_alone:.0f} MiB\n")
    print(f"{'picture':>12}  {'task':22}{'peak MiB':>10}{'beyond torch':>14}{'s':>8}", flush=True)

    def told(size: str, name: str, command: list[str]) -> float:
        peak, seconds = peak_of(command)
        print(f"{size:>12}  {name:22}{peak:>10.0f}{peak - torch_alone:>14.0f}{seconds:>8.1f}", flush=True)
        return peak - torch_alone

    with tempfile.TemporaryDirectory() as folder:
        names = {"folder": folder, "source": f"{folder}/in.jpg", "style": f"{folder}/style.jpg"}
        names["latents"] = f"{folder}/in.safetensors"
        pmavae = [sys.executable, "-m", "pmavae_cli"]
        common = ["--threads", args.threads, "--overwrite", "-q"]

        def enlarge(name: str, size: str) -> None:
            command = [sys.executable, "-c", ENLARGE, str(args.picture), names[name], *size.split("x")]
            subprocess.run(command, check=True)

        enlarge("style", "1024x768")
        for size in args.size or SIZES:
            enlarge("source", size)
            for task in args.task or [*TASKS, LIBRARY]:
                if task == LIBRARY:
                    command = [sys.executable, "-c", ALONE, names["source"], args.threads]
                    own = told(size, task, command)
                    if size == PEER_SIZE and has_diffusers():
                        command = [*command[:2], OTHER, *command[3:], str(Path(__file__).parent)]
                        other = told(size, PEER, command)
                        print(f"{'':>12}  {PEER} / {LIBRARY}: {other / own:.1f}", flush=True)
                    continue
                if task == "decode":
                    peak_of([*pmavae, "encode", names["source"], "-o", names["latents"], *common])
                command = [*pmavae, *(part.format_map(names) for part in TASKS[task]), *common, *args.option]
                told(size, task, command)


if __name__ == "__main__":
    main()
