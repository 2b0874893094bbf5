r"""Narrow numbers on the CPU: the decoder's fine stages in bf16, and the whole decoder in int8.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/narrow.py PICTURES [--presets tiny,small] \
        [--sizes 512x512,1920x1088] [--threads 1] [--runs 7] [--tables layers,bf16,int8]

PICTURES is a folder of photographs, such as the 24 of Kodak; of larger ones the middle is taken. All times
are the minimum of `--runs`, in turn in one process; "spread" is median over minimum. Prints for each preset

- layers: what float32 takes over what bf16 takes, in processor time, for each convolution of a block on one
  strip of rows, and the conversion of what goes into it, there and back, as a share of the three in bf16;
- bf16: what decoding takes in float32 over what it takes with its fine stages in bf16; then, of 8-bit pixels
  of all PICTURES, what is lost of the PSNR against the original, mean and worst, by how many levels the two
  differ at most, and how many values differ;
- int8: the same for the exported decoder in onnxruntime, quantised statically (QDQ, int8 weights for each
  channel, uint8 features, calibrated on the first 8 of PICTURES). Needs the extra onnx.

Layers and bf16 need a processor with bf16 instructions; elsewhere torch emulates them, slowly.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from in_turn import in_turn
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae import PMAVAE
from pmavae.images.pixels import Pixels, to_pixels
from pmavae.inference.engine import decode
from pmavae.inference.fused import conv_add, conv_silu, fast_dtype, strips_of
from pmavae.model import MobileConv

CALIBRATION = 8  # pictures
CROP = 256  # px; the side of what is calibrated on
SIZE = 768  # px; of photographs that are larger the middle is taken, for time and memory


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def pictures(folder: Path) -> list[Pixels]:
    found = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")]
    return [middle(np.asarray(Image.open(path).convert("RGB")), SIZE) for path in found]


def middle(pixels: Pixels, side: int) -> Pixels:
    """Of the middle of a picture as many whole 16 px as fit `side`."""
    height, width = (min(n, side) // 16 * 16 for n in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def latents_of(model: PMAVAE, pixels: Pixels) -> tuple[Tensor, Tensor, Tensor]:
    z = model.encode(pixels)
    return z.z_base.contiguous(), z.z_detail.contiguous(), z.z_style.contiguous()


def scaled(pixels: Pixels, size: str) -> Pixels:
    width, height = (int(side) for side in size.split("x"))
    return np.asarray(Image.fromarray(pixels).resize((width, height)))


def show_layers(model: PMAVAE, size: str, runs: int) -> None:
    for stride, stage in ((4, model.decoder.stage4), (2, model.decoder.stage2)):
        block = stage.blocks[0]
        assert isinstance(block, MobileConv)
        width, height = (int(side) // stride for side in size.split("x"))
        print(f"  {size}, stride {stride}: {layers_of(block, height, width, runs)}", flush=True)


def layers_of(block: MobileConv, height: int, width: int, runs: int) -> str:
    expand, depthwise, project = block.expand, block.depthwise, block.project
    rows = strips_of(torch.empty(1, expand.in_channels, height, width), expand.out_channels)[0].stop
    x = torch.randn(1, rows, width, expand.in_channels).permute(0, 3, 1, 2)
    y = torch.randn(1, rows, width, expand.out_channels).permute(0, 3, 1, 2)

    def calls(name: str, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
        return {
            f"expand {name}": lambda: conv_silu(x, expand, expand.weight, expand.bias),
            f"depthwise {name}": lambda: conv_silu(y, depthwise, depthwise.weight, depthwise.bias),
            f"project {name}": lambda: conv_add(y, x, project.weight, project.bias),
        }

    there_and_back: dict[str, Callable[[], object]] = {"conversion": lambda: x.bfloat16().float()}
    narrow = calls("bf16", x.bfloat16(), y.bfloat16())
    costs = in_turn(calls("float32", x, y) | narrow | there_and_back, runs)
    names = ("expand", "depthwise", "project")
    wins = [
        f"{name} {costs[f'{name} float32'].processor / costs[f'{name} bf16'].processor:.2f}" for name in names
    ]
    share = costs["conversion"].processor / sum(costs[name].processor for name in narrow)
    spread = max(cost.spread for cost in costs.values())
    return f"{', '.join(wins)}; conversion {share:.0%} of the three (spread up to {spread:.2f})"


def show_bf16(model: PMAVAE, photos: list[Pixels], sizes: list[str], runs: int) -> None:
    def decoded(latents: tuple[Tensor, ...], dtype: torch.dtype | None) -> Tensor:
        return decode(model.decoder, *latents, paint=False, fine=dtype)

    for size in sizes:
        latents = latents_of(model, scaled(photos[0], size))
        narrow = partial(decoded, latents, torch.bfloat16)
        show_times(f"{size}, fine stages in bf16", partial(decoded, latents, None), narrow, runs)
    show_quality(
        (photo, *(to_pixels(decoded(latents, dtype)[0].clamp(0, 1)) for dtype in (None, torch.bfloat16)))
        for photo, latents in ((photo, latents_of(model, photo)) for photo in photos)
    )


def show_int8(model: PMAVAE, photos: list[Pixels], sizes: list[str], runs: int, threads: int) -> None:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from pmavae.onnx.graphs import decoder_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3

    def opened(path: Path) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def feed(pixels: Pixels) -> dict[str, NDArray[Any]]:
        names = ("z_base", "z_detail", "z_style")
        return dict(zip(names, (z.numpy() for z in latents_of(model, pixels)), strict=True))

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = (feed(middle(photo, CROP)) for photo in photos[:CALIBRATION])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("float32.onnx", "prepared.onnx", "int8.onnx")]
        graph = decoder_graph(model, paint=False)
        end_names_in_a_dot(graph.model.graph)
        files[0].write_bytes(graph.data)
        quant_pre_process(files[0], files[1], skip_symbolic_shape=True)
        quantize_static(
            files[1],
            files[2],
            Crops(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        wide, narrow = opened(files[0]), opened(files[2])
        print(f"  int8: {files[2].stat().st_size / 1e6:.2f} MB of {files[0].stat().st_size / 1e6:.2f}")
    for size in sizes:
        given = feed(scaled(photos[0], size))
        functions = (partial(session.run, None, given) for session in (wide, narrow))
        show_times(f"{size}, convolutions in int8, onnxruntime", *functions, runs)
    show_quality(
        (photo, *(to_pixels(torch.from_numpy(s.run(None, feed(photo))[0][0])) for s in (wide, narrow)))
        for photo in photos
    )


def end_names_in_a_dot(graph: Any) -> None:
    """Rename initializers: the quantiser copies shared ones as val_66 + "0", a name that others may have."""
    names = {tensor.name for tensor in graph.initializer}
    for tensor in graph.initializer:
        tensor.name += "."
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in names:
                node.input[i] = f"{name}."


def show_times(what: str, wide: Callable[[], object], narrow: Callable[[], object], runs: int) -> None:
    costs = in_turn({"wide": wide, "narrow": narrow}, runs)
    one, other = costs["wide"], costs["narrow"]
    print(
        f"  {what}: {one.wall / other.wall:.2f} × faster, {one.processor / other.processor:.2f} × in"
        f" processor time (spread {one.spread:.2f}, {other.spread:.2f})",
        flush=True,
    )


def show_quality(compared: Iterable[tuple[Pixels, ...]]) -> None:
    """Of originals, and what was made of them in float32 and in narrower numbers."""
    scores, losses, most, differ = [], [], [], []
    for photo, wide, narrow in compared:
        scores.append(psnr(wide, photo))
        losses.append(scores[-1] - psnr(narrow, photo))
        off = np.abs(wide.astype(int) - narrow)
        most.append(int(off.max()))
        differ.append(float((off > 0).mean()))
    print(
        f"  {len(scores)} pictures: {np.mean(scores):.2f} dB in float32, loss {np.mean(losses):.4f} dB, worst"
        f" {max(losses):.4f}; at most {max(most)} levels, {np.mean(differ):.1%} of the values differ",
        flush=True,
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--presets", default="tiny,small")
    parser.add_argument(
        "--sizes", default="512x512,1920x1088", help="WIDTHxHEIGHT, multiples of 16, by comma"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--tables", default="layers,bf16,int8")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    photos, sizes, tables = pictures(args.pictures), args.sizes.split(","), args.tables.split(",")
    if fast_dtype(torch.device("cpu")) is None:
        print("this processor has no bf16 instructions: torch emulates them")
    for preset in args.presets.split(","):
        model = PMAVAE.from_pretrained(preset)
        print(preset)
        if "layers" in tables:
            for size in sizes:
                show_layers(model, size, args.runs)
        if "bf16" in tables:
            show_bf16(model, photos, sizes, args.runs)
        if "int8" in tables:
            show_int8(model, photos, sizes, args.runs, args.threads)


if __name__ == "__main__":
    main()
