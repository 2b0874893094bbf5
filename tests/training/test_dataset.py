"""Finding the pictures, decoding them once, and drawing crops that depend on nothing but their number."""

import io
import os
import struct
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pmavae.errors import PMAVAEError
from pmavae.training import dataset as dataset_module
from pmavae.training.dataset import Dataset, build_cache, decoded, open_or_build, to_device
from pmavae.training.objectives.reconstruction import augment_styles
from pmavae.training.sources import find_pictures


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb():
    """A PNG that says it has 40,000 × 40,000 pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def pixels_of(survey_of):
    return {entry.name.rsplit("/", 1)[-1]: pixels for entry, pixels in decoded(survey_of.found)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three pictures of different shapes, and one that is too small to be halved."""
    folder = tmp_path_factory.mktemp("photos")
    for index, size in enumerate([(200, 140), (130, 260), (300, 300), (70, 64)]):
        picture(size, index).save(folder / f"{index}.png")
    (folder / "manifest.csv").write_text("file,class\n0.png,painting\n1.png,photo\n2.png,photo\n")
    return folder


@pytest.fixture(scope="module")
def cache(photos):
    build_cache(find_pictures([photos]), photos / "cache" / "pictures.u8")
    return photos / "cache" / "pictures.u8"


def test_pictures_are_found_in_folders_tars_and_alone_and_a_file_counts_once(photos, tmp_path):
    data = {path.name: path.read_bytes() for path in photos.glob("*.png")}
    write_tar(tmp_path / "a.tar", {f"./deep/{name}": content for name, content in data.items()})
    write_tar(tmp_path / "b.tar.gz", data | {"notes.txt": b"text"}, "w:gz")
    alone = tmp_path / "alone.JPG"
    picture((80, 90)).save(alone)
    found = find_pictures([photos, tmp_path, alone, photos / "0.png"])
    assert not found.refused
    assert [entry.name for entry in found.found] == [
        *(str(photos / f"{i}.png") for i in range(4)),
        *(f"{tmp_path}/a.tar/deep/{name}" for name in data),
        str(alone),
        *(f"{tmp_path}/b.tar.gz/{name}" for name in data),
    ]
    assert found.largest_crop == 300
    pictures = dict(decoded(found.found))
    for entry, pixels in pictures.items():
        assert pixels.shape == (entry.size[1], entry.size[0], 3)
        if entry.name.endswith("1.png"):
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(photos / "1.png")))


def test_what_is_not_meant_as_a_picture_is_passed_over(photos, tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".thumbnails").mkdir()
    data = (photos / "0.png").read_bytes()
    for name in ("__MACOSX/0.png", ".thumbnails/0.png", "._0.png", "notes.txt", "film.mp4", "real.png"):
        (tmp_path / name).write_bytes(data)
    write_tar(tmp_path / "t.tar", {"__MACOSX/a.png": data, "x/.a.png": data, "a.json": b"{}", "in.png": data})
    found = find_pictures([tmp_path])
    names = [entry.name for entry in found.found]
    assert names == [f"{tmp_path}/real.png", f"{tmp_path}/t.tar/in.png"] and not found.refused


def test_links_are_followed_and_loops_end(photos, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "photos").symlink_to(photos)
    (tmp_path / "same.png").symlink_to(photos / "0.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    found = find_pictures([tmp_path])
    assert len(found.found) == 4
    assert sorted(refusal.name for refusal in found.refused) == [
        f"{tmp_path}/gone.png",
        f"{tmp_path}/pipe.png",
    ]


def evil_files():
    photo = encoded(picture((100, 100)), "JPEG")
    return {
        "empty.png": (b"", "is not a picture"),
        "text.jpg": (b"just text " * 50, "is not a picture"),
        "tiny.png": (encoded(picture((200, 63))), "is too small (200×63 px)"),
        "bomb.png": (bomb(), "million pixels"),
        "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "is not a picture"),
        "float.tif": (encoded(Image.new("F", (99, 99)), "TIFF"), "pixels of kind F"),
        **{f"cut{i}.jpg": (photo[: len(photo) * i // 8], "") for i in range(1, 8)},
    }


@pytest.mark.parametrize("in_tar", [False, True])
def test_evil_files_are_refused_by_name_and_the_others_go_on(tmp_path, in_tar):
    evil = evil_files()
    good = encoded(picture((100, 90)))
    files = {name: data for name, (data, _) in evil.items()} | {"good.png": good, "wrong.jpg": good}
    if in_tar:
        write_tar(tmp_path / "all.tar", files)
    else:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    found = find_pictures([tmp_path])
    refused = found.refused + build_cache(found, tmp_path / "cache.u8")
    reasons = {refusal.name.rsplit("/", 1)[-1]: refusal.reason for refusal in refused}
    assert sorted(reasons) == sorted(evil)
    for name, (_, words) in evil.items():
        assert reasons[name].startswith(str(tmp_path)) and "\n" not in reasons[name]
        assert words in reasons[name]
    assert len(Dataset(tmp_path / "cache.u8").views) == 2  # too small to be halved


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_damaged_tar_gives_what_comes_before_the_damage(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (4, 100, 100, 3), np.uint8)
    files = {f"{i}.png": encoded(Image.fromarray(x)) for i, x in enumerate(noise)}
    path = tmp_path / f"cut{suffix}"
    write_tar(path, files, "w:gz" if suffix.endswith("gz") else "w")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    found = find_pictures([path])
    assert 2 <= len(found.found) <= 3
    assert [refusal.name for refusal in found.refused] == [str(path)]
    failed = build_cache(found, tmp_path / "cache.u8")
    assert len(failed) == len(found.found) - 2


def test_a_tar_with_a_damaged_header_is_not_taken_to_end_there(tmp_path):
    path = tmp_path / "bad.tar"
    write_tar(path, {f"{i}.png": encoded(picture((100, 100), i)) for i in range(2)})
    data = bytearray(path.read_bytes())
    second = data.index(b"1.png")
    data[second : second + 512] = b"x" * 512
    path.write_bytes(data)
    found = find_pictures([path])
    assert len(found.found) == 1 and found.refused[0].reason.startswith(f"{path} is no tar or is damaged")


def test_sources_without_pictures_are_one_sentence(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "none.tar", {"a.txt": b"text"})
    (tmp_path / "not.tar").write_bytes(b"not a tar" * 100)
    (tmp_path / "text.png").write_text("text")
    for source, words in {
        "nowhere": "does not exist",
        "empty": "has no picture",
        "none.tar": "has no picture",
        "not.tar": "is no tar or is damaged",
        "text.png": "no picture to train on",
    }.items():
        with pytest.raises(PMAVAEError, match=words) as error:
            find_pictures([tmp_path / source])
        assert str(tmp_path / source) in str(error.value) and "\n" not in str(error.value)
    # One bad file among many is told, not fatal.
    assert len(find_pictures([tmp_path / "text.png", photos]).refused) == 1


def test_classes_come_from_the_nearest_manifest_or_the_given_one(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png", "sub/c.png"):
        picture((70, 70)).save(tmp_path / name)
    write_tar(
        tmp_path / "t.tar", {"x/a.png": encoded(picture((70, 70))), "d.png": encoded(picture((70, 70)))}
    )
    (tmp_path / "manifest.csv").write_text("class,file\npainting,a.png\ntexture,sub/c.png\nrender,d.png\n")
    (tmp_path / "sub" / "manifest.csv").write_text("file,checksum\na.png,123\n")  # of something else

    def kinds(classes=None):
        return {e.name.removeprefix(f"{tmp_path}/"): e.kind for e in find_pictures([tmp_path], classes).found}

    assert kinds() == {
        "a.png": "painting",
        "b.png": "photo",
        "sub/a.png": "painting",
        "sub/c.png": "texture",
        "t.tar/x/a.png": "painting",
        "t.tar/d.png": "render",
    }
    given = tmp_path / "given.csv"
    given.write_text("file,class\nb.png,illustration\n")
    assert set(kinds(given).values()) == {"photo", "illustration"} and kinds(given)["b.png"] == "illustration"
    given.write_text("name,kind\nb.png,illustration\n")
    with pytest.raises(PMAVAEError, match=r"given\.csv does not have the columns file and class"):
        kinds(given)
    with pytest.raises(PMAVAEError, match=r"none\.csv cannot be read"):
        kinds(tmp_path / "none.csv")


def test_unusual_pixels_become_upright_rgb(tmp_path):
    image = picture((120, 90))
    rgb = np.asarray(image).astype(int)
    grey = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[274] = 6  # the camera was held turned to the right
    image.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    image.quantize(64).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "ink.tif")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (0, 0, 60, 90))
    image.putalpha(alpha)
    image.save(tmp_path / "clear.webp", lossless=True)
    Image.fromarray(grey).convert("LA").save(tmp_path / "la.png")
    pixels = pixels_of(find_pictures([tmp_path]))
    assert all(array.dtype == np.uint8 and array.shape[2] == 3 for array in pixels.values())
    np.testing.assert_array_equal(pixels["turned.png"], np.rot90(rgb, -1))
    np.testing.assert_array_equal(pixels["sixteen.png"], grey[..., None].repeat(3, 2))
    np.testing.assert_array_equal(pixels["la.png"], grey[..., None].repeat(3, 2))
    assert np.abs(pixels["palette.png"] - rgb).mean() < 12
    assert np.abs(pixels["ink.tif"] - rgb).mean() < 3
    np.testing.assert_array_equal(pixels["clear.webp"][:, :60], rgb[:, :60])
    assert (pixels["clear.webp"][:, 60:] == 255).all()


def test_every_picture_is_there_whole_and_halved(photos, cache):
    corpus = Dataset(cache)
    shapes = [(view.width, view.height) for view in corpus.views]
    assert shapes == [(200, 140), (100, 70), (130, 260), (65, 130), (300, 300), (150, 150), (70, 64)]
    data = np.fromfile(cache, np.uint8)
    first = np.asarray(Image.open(photos / "0.png"))
    np.testing.assert_array_equal(data[: first.size].reshape(first.shape), first)
    assert len(data) == corpus.views[-1].offset + 70 * 64 * 3


def test_a_cache_is_used_again_until_the_pictures_change(photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in photos.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad.png").write_bytes(path.read_bytes()[:300])
    cache = tmp_path / "cache" / "pictures.u8"
    calls = []

    def used_again():
        calls.clear()
        refused = open_or_build(find_pictures([folder]), cache, lambda *done: calls.append(done))
        assert [refusal.name for refusal in refused] == [str(folder / "bad.png")]
        return not calls

    assert not used_again() and calls == [(i, 5) for i in range(1, 6)]
    assert used_again()
    os.utime(folder / "0.png", ns=(1, 1))
    assert not used_again() and used_again()
    (folder / "manifest.csv").write_text("file,class\n0.png,painting\n")
    assert not used_again() and used_again()
    assert Dataset(cache, {"painting": 1}).probabilities(64)[:2].sum() == pytest.approx(1)
    for damage in (b"", b"{}", b"[1, 2]", b"{"):
        cache.with_suffix(".json").write_bytes(damage)
        with pytest.raises(PMAVAEError, match=r"pictures\.u8 is not a whole cache"):
            Dataset(cache)
        assert not used_again() and used_again()
    cache.write_bytes(cache.read_bytes()[:-1])
    assert not used_again() and used_again()


def test_a_build_that_fails_leaves_no_trace(photos, tmp_path, monkeypatch):
    found = find_pictures([photos])
    with pytest.raises(PMAVAEError, match=r"let it end in \.u8"):
        build_cache(found, photos / "0.png")
    cache = tmp_path / "pictures.u8"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(found, cache, interrupt)
    with pytest.raises(PMAVAEError, match="no picture could be decoded"):
        build_cache(replace(found, found=[replace(found.found[0], source=str(tmp_path / "x.png"))]), cache)
    usage = dataset_module.shutil.disk_usage(tmp_path)
    needed = sum(view.height * view.width * 3 for view in Dataset(photos / "cache" / "pictures.u8").views)
    monkeypatch.setattr(dataset_module.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(PMAVAEError, match=r"make room, or put the cache elsewhere"):
        build_cache(found, cache)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(dataset_module.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    build_cache(found, cache)


def test_crops_are_a_function_of_seed_step_and_row(cache):
    corpus = Dataset(cache)
    batch = corpus.crops(6, 64, seed=1, step=5)
    assert batch.shape == (6, 64, 64, 3) and batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, Dataset(cache).crops(6, 64, seed=1, step=5))
    for other in ({"seed": 2, "step": 5}, {"seed": 1, "step": 6}, {"seed": 5, "step": 1}):
        assert (corpus.crops(6, 64, **other) != batch).any(axis=(1, 2, 3)).all()
    floats = corpus.batch(6, 64, seed=1, step=5)
    torch.testing.assert_close(floats.permute(0, 2, 3, 1), torch.from_numpy(batch) / 255)
    assert floats.is_contiguous(memory_format=torch.channels_last)


rows = st.integers(0, 9)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**63), step=st.integers(0, 2**40), first=rows, count=rows, size=st.integers(32, 130)
)
def test_parts_of_a_batch_are_its_rows_and_lie_in_their_pictures(cache, seed, step, first, count, size):
    corpus = Dataset(cache)
    places = []
    cut = corpus._crop

    def record(view, *arguments):
        places.append(view)
        crop = cut(view, *arguments)
        assert crop.shape == (size, size)
        return crop

    whole = corpus.crops(first + count, size, seed=seed, step=step)
    corpus._crop = record
    part = corpus.crops(count, size, seed=seed, step=step, first=first)
    np.testing.assert_array_equal(whole[first:], part)
    assert all(min(view.height, view.width) >= size for view in places)


@settings(deadline=None)
@given(vertical=st.floats(0, 1, exclude_max=True), horizontal=st.floats(0, 1, exclude_max=True))
def test_a_crop_is_a_square_of_its_picture(cache, vertical, horizontal):
    corpus = Dataset(cache)
    view = corpus.views[2]
    crop = corpus._crop(view, 64, vertical, horizontal)
    pixels = np.fromfile(cache, np.uint8)[view.offset :][: 130 * 260 * 3].reshape(260, 130, 3)
    top, left = int(vertical * 197), int(horizontal * 67)
    square = crop.copy().view(np.uint8).reshape(64, 64, 3)
    np.testing.assert_array_equal(square, pixels[top : top + 64, left : left + 64])


def test_half_of_the_crops_are_mirrored(tmp_path):
    ramp = np.zeros((80, 80, 3), np.uint8)
    ramp[...] = np.arange(80)[None, :, None] * 3
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    build_cache(find_pictures([tmp_path]), tmp_path / "pictures.u8")
    crops = Dataset(tmp_path / "pictures.u8").crops(400, 70, seed=0, step=0).astype(int)
    rising = crops[:, 0, -1, 0] > crops[:, 0, 0, 0]
    steps = np.diff(crops[..., 0], axis=2)
    assert (np.abs(steps) == 3).all() and (steps[:, 0, 0] > 0).tolist() == rising.tolist()
    assert 160 < rising.sum() < 240


def test_crops_follow_the_shares_and_within_a_class_the_area(cache):
    corpus = Dataset(cache, {"photo": 0.6, "painting": 0.2, "render": 0.2})
    chances = corpus.probabilities(64)
    assert chances[:2].sum() == pytest.approx(0.25)  # the share of renders, which are not there, is shared
    assert chances[4] / chances[5] == pytest.approx(4) and chances.sum() == pytest.approx(1)
    # Smaller views drop out, and their class keeps its share.
    chances = corpus.probabilities(120)
    assert chances[1] == 0 and chances[0] == pytest.approx(0.25)
    assert Dataset(cache).probabilities(64)[0] == pytest.approx(
        200 * 140 / sum(view.width * view.height for view in corpus.views)
    )
    assert corpus.largest_crop == 300

    counts = np.zeros(len(corpus.views))
    cut = corpus._crop

    def count(view, *arguments):
        counts[corpus.views.index(view)] += 1
        return cut(view, *arguments)

    corpus._crop = count
    corpus.crops(4000, 64, seed=0, step=0)
    np.testing.assert_allclose(counts / counts.sum(), corpus.probabilities(64), atol=0.025)


def test_crops_that_nobody_can_draw_are_refused(cache):
    with pytest.raises(PMAVAEError, match="no picture of the corpus has 301 px"):
        Dataset(cache).crops(1, 301, seed=0, step=0)
    with pytest.raises(PMAVAEError, match="no picture of 300 px on both sides is of a class with a share"):
        Dataset(cache, {"painting": 1}).crops(1, 300, seed=0, step=0)


def test_flat_crops_are_drawn_again_whatever_their_colour(tmp_path):
    pixels = np.full((200, 400, 3), (30, 90, 200), np.uint8)  # a blue sky …
    pixels[:, 300:] = np.asarray(picture((100, 200)))  # … beside something
    Image.fromarray(pixels).save(tmp_path / "sky.png")
    build_cache(find_pictures([tmp_path]), tmp_path / "pictures.u8")
    crops = Dataset(tmp_path / "pictures.u8").crops(200, 64, seed=0, step=0)
    assert (crops.reshape(200, -1, 3).std(axis=1).mean(axis=1) < 2).mean() < 0.08  # 0.5 if drawn once


def test_style_augmentation_is_its_generator_s():
    crops = torch.rand(4, 3, 64, 64)

    def views(seed):
        return augment_styles(crops, 32, torch.Generator().manual_seed(seed))

    before = torch.random.get_rng_state()
    assert views(0).shape == (4, 3, 32, 32) and views(0).min() >= 0 and views(0).max() <= 1
    assert torch.equal(views(0), views(0)) and not torch.equal(views(0), views(1))
    assert torch.equal(torch.random.get_rng_state(), before)
    grey = augment_styles(torch.full((16, 3, 64, 64), 0.5), 32, torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey.median(), torch.tensor(0.5), atol=1e-3, rtol=0)


def test_bytes_become_floats_on_the_device():
    crops = np.arange(256, dtype=np.uint8).reshape(1, 8, 32)[..., :30].reshape(1, 8, 10, 3)
    batch = to_device(crops, torch.device("cpu"))
    assert batch.shape == (1, 3, 8, 10) and batch.dtype == torch.float32
    np.testing.assert_array_equal((batch * 255).round().byte().permute(0, 2, 3, 1).numpy(), crops)
