"""Command lines of every task on small pictures of every kind, for `same_outputs.py`; it prints nothing.

The pictures are parts of those in `examples/`: a JPEG file, one that is turned, 16 bits, transparency, greys,
noise, and pictures that take more than one strip or tile. Some lines are run with a low limit of what is
read as a whole, so that the picture is read and written by strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

CHECKOUT = Path(__file__).resolve().parents[1]
DAMAGED = "damaged.jpg"


@dataclass(frozen=True)
class Case:
    """One command line, whose outputs are below the folder GROUP/NAME."""

    name: str
    line: str  # without -o where `to` names the output
    to: str = ""  # below GROUP, a file or a folder that ends in /
    stdin: str = ""  # a file that is piped in; the output is then stdout, and goes to `to`
    low_limit: bool = False  # whether a picture of 8,000 pixels is read and written by strips


ALL = "inputs/photo.jpg inputs/turned.jpg inputs/deep.png inputs/alpha.png inputs/grey.png"
BAND = "--max-memory 64M"
GROUPS: dict[str, list[Case]] = {
    "codec": [
        Case("encode", f"encode {ALL}", "latents/"),
        Case("encode-float32", "encode inputs/photo.jpg inputs/deep.png --dtype float32", "latents32/"),
        Case("decode", f"decode {ALL}", "direct/"),
        Case("decode-latents", "decode codec/latents", "decoded/"),
        Case("decode-jpg", "decode codec/latents/photo.safetensors --quality 90", "photo.jpg"),
        Case("decode-webp", "decode codec/latents/alpha.safetensors", "alpha.webp"),
        Case("decode-tif", "decode codec/latents32/deep.safetensors", "deep.tif"),
        Case("decode-bmp", "decode inputs/grey.png --metadata strip", "grey.bmp"),
        Case("piped", "decode - --format png", "piped.png", stdin="inputs/photo.jpg"),
    ],
    "small": [
        Case("encode", "encode inputs/photo.jpg inputs/deep.png --preset small", "latents/"),
        Case("decode", "decode small/latents --preset small", "decoded/"),
    ],
    "upscale": [
        Case("x2", f"upscale {ALL}", "x2/"),
        Case("x4", "upscale inputs/photo.jpg inputs/deep.png --scale 4", "x4/"),
        Case("as-is", "upscale inputs/photo.jpg --as-is --tile off", "as-is.png"),
        Case("tiles", "upscale inputs/photo.jpg inputs/deep.png --tile 64", "tiles/"),
    ],
    "denoise": [
        Case("auto", f"denoise {ALL} inputs/noisy.png -v", "auto/"),
        Case("sigma", "denoise inputs/noisy.png inputs/deep.png --mode noise --sigma 20", "sigma/"),
        Case("jpeg", "denoise inputs/photo.jpg --mode jpeg --jpeg-quality 30", "jpeg.png"),
        Case("fidelity", "denoise inputs/noisy.png --fidelity 0.5 --strength 1.5 --tile 64", "fidelity.png"),
        Case("to-latents", "denoise inputs/noisy.png", "noisy.safetensors"),
        Case("of-latents", "denoise denoise/noisy.safetensors --strength 0.5", "of-latents.png"),
    ],
    "style": [
        Case("styles", "encode inputs/style-1.jpg inputs/style-2.jpg --only style", "styles/"),
        Case("encode", "encode inputs/photo.jpg inputs/deep.png", "latents/"),
        Case("paint", f"style-mix {ALL} inputs/style-1.jpg --refine 2", "paint/"),
        Case("rough", f"style-mix {ALL} inputs/style-1.jpg --refine 0", "rough/"),
        Case(
            "two",
            "style-mix inputs/photo.jpg inputs/style-1.jpg:2 --style inputs/style-2.jpg:1 --refine 2",
            "two.png",
        ),
        Case(
            "half",
            "style-mix inputs/photo.jpg inputs/style-2.jpg --refine 2 --strength 0.5 --preserve-color",
            "half.png",
        ),
        Case(
            "rough-half",
            "style-mix inputs/photo.jpg inputs/deep.png inputs/style-1.jpg --refine 0 --strength 0.5 "
            "--style inputs/style-2.jpg --preserve-color --preserve-detail 0.5 --style-scale 2",
            "rough-half/",
        ),
        Case("of-files", "style-mix inputs/photo.jpg style/styles --refine 0", "of-files.png"),
        Case("latents", "style-mix style/latents style/styles/style-1.safetensors --refine 0", "mixed/"),
        Case("painted-latents", "style-mix style/latents inputs/style-1.jpg --refine 1", "painted/"),
        Case("chained", "decode style/mixed", "chained/"),
        Case(
            "grid",
            "style-mix inputs/photo.jpg inputs/grey.png inputs/style-1.jpg --style inputs/style-2.jpg "
            "--grid --refine 1",
            "grid.png",
        ),
    ],
    "texture": [
        Case("vary", f"texture-vary {ALL} --seed 7", "vary/"),
        Case("count", "texture-vary inputs/photo.jpg --seed 7 --count 2 --amount 1", "count/"),
        Case("region", "texture-vary inputs/photo.jpg --region inputs/mask.png --seed 3", "region.png"),
        Case("latents", "texture-vary inputs/deep.png --seed 7", "deep.safetensors"),
        Case("chained", "decode texture/deep.safetensors", "chained.png"),
    ],
    "large": [
        Case("encode", f"encode inputs/wide.jpg inputs/wide-deep.png {BAND}", "latents/"),
        Case("decode", f"decode large/latents {BAND}", "decoded/"),
        Case("denoise", f"denoise inputs/wide.jpg {BAND}", "denoise.png"),
        Case("upscale", f"upscale inputs/wide-deep.png {BAND}", "upscale.png"),
        Case("rough", f"style-mix inputs/wide.jpg inputs/style-1.jpg --refine 0 {BAND}", "rough.png"),
        Case("paint", f"style-mix inputs/wide.jpg inputs/style-1.jpg --refine 1 {BAND}", "paint.jpg"),
        Case("texture", f"texture-vary inputs/wide.jpg {BAND}", "texture.jpg"),
    ],
    # One input a command: of several, the next is read ahead as if its size were no matter.
    "strips": [
        Case("encode", "encode inputs/deep.png", "deep.safetensors", low_limit=True),
        Case("decode", "decode strips/deep.safetensors", "deep.png", low_limit=True),
        Case("tif", "decode strips/deep.safetensors", "deep.tif", low_limit=True),
        Case("jpg", "decode inputs/photo.jpg", "photo.jpg", low_limit=True),
        Case("grey", "decode inputs/grey.png", "grey.png", low_limit=True),
        Case("refused", "denoise inputs/photo.jpg", "refused.png", low_limit=True),
    ],
    "reports": [
        Case("encode", "encode inputs/photo.jpg", "photo.safetensors"),
        Case("style", "encode inputs/photo.jpg --only style", "style.safetensors"),
        Case("info", f"info {ALL} reports/photo.safetensors reports/style.safetensors"),
        Case("info-text", "info inputs/deep.png reports/photo.safetensors"),
        *(Case(f"info-{preset}", f"info --preset {preset}") for preset in ("tiny", "small", "base")),
        Case("compare", "compare inputs/photo.jpg inputs/noisy.png --resize"),
        Case("compare-sizes", "compare inputs/photo.jpg inputs/noisy.png"),
        Case("compare-alpha", "compare inputs/alpha.png inputs/grey.png --resize --gain 3", "compared.png"),
        Case("compare-latents", "compare reports/photo.safetensors inputs/photo.jpg", "compared.html"),
        Case("weights", "weights list"),
        Case("weights-text", "weights verify"),
        Case("plugins", "plugins"),
        Case("missing", "decode inputs/missing.jpg"),
        Case("damaged", "decode inputs/damaged.jpg inputs/grey.png", "damaged/"),
        Case("collision", "decode inputs/photo.jpg inputs/photo.jpg", "collision/"),
        Case("unknown-weights", "decode inputs/photo.jpg --weights no-such-weights"),
        Case("not-a-style", "style-mix inputs/photo.jpg inputs/damaged.jpg --refine 0", "none.png"),
        Case("wrong-option", "upscale inputs/photo.jpg --scale 3"),
    ],
    "help": [
        *(
            Case(name or "pmavae", f"{name} --help")
            for name in ("", "encode", "decode", "upscale", "denoise")
        ),
        *(
            Case(name, f"{name} --help")
            for name in ("style-mix", "texture-vary", "train", "bench", "compare")
        ),
        *(Case(name, f"{name} --help") for name in ("info", "weights", "export", "plugins", "completion")),
        *(
            Case(f"weights-{name}", f"weights {name} --help")
            for name in ("fetch", "import", "list", "path", "push", "verify")
        ),
        Case("bash", "completion bash"),
    ],
}
WITHOUT_JSON = {"weights-text", "info-text"}


def make_inputs(folder: Path) -> None:
    """Small pictures of every kind, the same in every run."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def part(name: str, left: int, top: int, width: int, height: int) -> Image.Image:
        with Image.open(CHECKOUT / "examples" / f"{name}.jpg") as image:
            return image.convert("RGB").crop((left, top, left + width, top + height))

    def sixteen_bits(image: Image.Image, path: Path) -> None:
        values = np.asarray(image).astype(np.uint16) * 254
        noise = random.integers(0, 600, (*values.shape[:2], 1), np.uint16)
        path.write_bytes(bytes(imagecodecs.png_encode(values + noise)))

    exif = Image.Exif()
    exif[0x010E] = "a ridge"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # when it was made
    photo = part("content-ridge", 300, 250, 200, 152)
    photo.save(folder / "photo.jpg", quality=80, exif=exif, icc_profile=bytes(profile))
    exif[0x0112] = 6
    part("content-seeds", 200, 200, 120, 90).save(folder / "turned.jpg", quality=92, exif=exif)
    sixteen_bits(part("content-mountains", 500, 380, 150, 117), folder / "deep.png")
    ramp = Image.linear_gradient("L")
    alpha = part("content-mountains", 100, 300, 112, 96)
    alpha.putalpha(ramp.resize(alpha.size))
    alpha.save(folder / "alpha.png")
    part("content-ridge", 700, 400, 101, 83).convert("L").save(folder / "grey.png")
    values = np.asarray(part("content-seeds", 500, 300, 160, 128)).astype(np.float64)
    noisy = (values + random.normal(0, 18, values.shape)).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / "noisy.png")
    ramp.resize((100, 76)).save(folder / "mask.png")
    part("style-starry-night", 200, 100, 300, 240).save(folder / "style-1.jpg", quality=90)
    part("style-hollyhocks", 300, 400, 240, 300).save(folder / "style-2.jpg", quality=90)
    wide = part("content-ridge", 0, 0, 1280, 852)  # more than a strip of 64 MiB takes
    wide.save(folder / "wide.jpg", quality=85)
    sixteen_bits(wide.crop((0, 200, 1280, 641)), folder / "wide-deep.png")
    (folder / DAMAGED).write_bytes((folder / "photo.jpg").read_bytes()[:3000])
