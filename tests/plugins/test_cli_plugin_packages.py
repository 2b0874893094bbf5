"""The example plugins and what `pmavae plugins new` writes: installed by pip, run, and tested."""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image, ImageFilter

from pmavae_cli.commands import COMMANDS
from pmavae_cli.commands.plugins import FILES, check_name, render
from pmavae_cli.main import build_cli
from pmavae_cli.plugin_manager import load_plugins

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    "posterize": ROOT / "examples/plugin-posterize",
    "latent-arithmetic": ROOT / "examples/plugin-latent-arithmetic",
    "deblur": ROOT / "examples/plugin-deblur",
    "vision": ROOT / "examples/plugin-vision",
}
PMAVAE = Path(sys.executable).with_name("pmavae")


def install(site: Path, *sources: Path) -> dict[str, str]:
    """Install packages into a folder; the environment in which they are found."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    copies = [shutil.copytree(source, site.parent / f"source-{source.name}") for source in sources]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", site, *copies],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}


@pytest.fixture(scope="module")
def with_examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which all examples are installed."""
    return install(tmp_path_factory.mktemp("examples") / "site", *EXAMPLES.values())


def run(*arguments: Any, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command as it is installed."""
    return subprocess.run(
        [PMAVAE, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=300
    )


def run_tests(package: Path, env: dict[str, str]) -> None:
    """The package's own tests, on what is installed and not on its source."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", package, package / "tests"],
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


def test_posterize_runs_and_is_listed(with_examples: dict[str, str], weights: str, here: Path) -> None:
    picture().save("a.png")
    done = run("posterize", "a.png", "--step", "2", "-o", "out.png", "--weights", weights, env=with_examples)
    assert (done.returncode, done.stdout) == (0, "out.png\n")
    assert done.stderr == "pmavae: rounding to multiples of 2.0\n"
    rows = {
        row["name"]: row
        for row in map(json.loads, run("plugins", "--json", env=with_examples).stdout.splitlines())
    }
    assert rows["posterize"] == {
        "name": "posterize",
        "version": "0.3.0",
        "origin": "pmavae-posterize",
        "entry_point": "pmavae_posterize",
        "api": 1,
        "tasks": ["posterize"],
        "weights": [],
        "trainings": [],
        "commands": [],
        "state": "ok",
        "error": None,
    }
    assert (rows["latent-arithmetic"]["tasks"], rows["latent-arithmetic"]["state"]) == (["blend"], "ok")
    assert (rows["deblur"]["weights"], rows["deblur"]["state"]) == (["deblur-tiny-1"], "ok")
    assert (rows["encode"]["origin"], rows["encode"]["entry_point"]) == ("built-in", None)


def test_blend_makes_one_picture_of_many(with_examples: dict[str, str], weights: str, here: Path) -> None:
    for name in "abc":
        picture(seed=ord(name)).save(f"{name}.png")
    picture((64, 40)).save("wide.png")
    model = ("--model-weights", weights)
    inputs = ("a.png", "b.png", "c.png")
    done = run("blend", *inputs, "--weights", "1,2,1", "-o", "out.png", *model, env=with_examples)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.png\n", "")
    with Image.open("out.png") as out:
        assert out.size == (48, 40)
    done = run("blend", *inputs, "wide.png", *model, env=with_examples)
    assert (done.returncode, done.stdout) == (1, "")
    assert "wide.png is 64 × 40 px and a.png 48 × 40: make all pictures the same size" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("blend.png").exists()


def test_a_plugin_trains_its_network_and_uses_it(with_examples: dict[str, str], here: Path) -> None:
    (here / "photos").mkdir()
    for seed in range(4):
        picture((96, 80), seed).save(here / f"photos/{seed}.png")
    picture((64, 48), 7).filter(ImageFilter.GaussianBlur(1)).save("a.png")
    options = ("--steps", 6, "--device", "cpu", "--threads", 1, "--set", "precision=fp32")
    train = ("train", "--task", "deblur", "--data", "photos", *options)
    done = run(*train, env=with_examples)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for made in ("model.safetensors", "contact-sheet.png", "config.json", "previews/step-00000006.png"):
        assert Path("runs/deblur-tiny", made).stat().st_size > 100
    done = run("deblur", "a.png", "--weights", "runs/deblur-tiny", "-o", "mine.png", "-v", env=with_examples)
    assert (done.returncode, done.stdout) == (0, "mine.png\n"), done.stderr
    assert "weights deblur-tiny-deblur-tiny-6 on cpu" in done.stderr
    for name in ((), ("--weights", "deblur-tiny-1")):
        shipped = run("deblur", "a.png", *name, "-o", "shipped.png", "-v", "--overwrite", env=with_examples)
        assert shipped.returncode == 0 and "weights deblur-tiny-1 on cpu" in shipped.stderr
    with Image.open("mine.png") as mine, Image.open("shipped.png") as shipped_picture:
        assert mine.size == shipped_picture.size == (64, 48)
        assert mine.tobytes() != shipped_picture.tobytes()
    sharp = run("sharpness", "a.png", "shipped.png", env=with_examples)
    before, after = (float(line.split("\t")[1]) for line in sharp.stdout.splitlines())
    assert after > before


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_tests_of_an_example_pass(name: str, with_examples: dict[str, str]) -> None:
    run_tests(EXAMPLES[name], with_examples)


def test_no_hook_imports_torch(with_examples: dict[str, str]) -> None:
    code = (
        "import sys; from pmavae_cli.main import main; main(['plugins']); main(['train', '--help']); "
        "print(sorted({'torch', 'numpy', 'PIL', 'platformdirs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=with_examples, capture_output=True, text=True)
    assert done.stdout.count("pmavae-") == len(EXAMPLES)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick_with_plugins(with_examples: dict[str, str]) -> None:
    """Against a start of Python with the libraries that any such command needs, in the same run."""
    env = {name: value for name, value in with_examples.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def seconds(*command: Any) -> float:
        """Of the processor, so that a busy machine makes no difference."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(list(map(str, command)), env=env, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    commands = ([sys.executable, "-c", "import click, rich"], [PMAVAE, "--help"], [PMAVAE, "plugins"])
    rounds = [[seconds(*command) for command in commands] for _ in range(9)]  # the first one compiles
    least, *ours = np.median(rounds, axis=0)
    assert max(ours) < 3 * least, rounds


def test_a_new_plugin_installs_runs_and_passes_its_tests(pmavae: Command, weights: str, here: Path) -> None:
    result = pmavae("plugins", "new", "soft-light")
    assert (result.status, result.lines) == (0, ["pmavae-soft-light"])
    assert result.err == "pmavae: pip install -e pmavae-soft-light && pmavae soft-light photo.jpg\n"
    package = here / "pmavae-soft-light"
    written = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert written == {path.format(module="pmavae_soft_light") for path in FILES}
    assert {path.name for path in here.iterdir()} == {"pmavae-soft-light"}
    assert package.stat().st_mode & 0o777 == (package / "src").stat().st_mode & 0o777
    env = install(here / "site", package)
    picture().save("a.png")
    done = run("soft-light", "a.png", "--amount", "0", "-o", "out.png", "--weights", weights, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.png\n", "")
    assert "of every task" in run("soft-light", "--help", env=env).stdout
    run_tests(package, env)


@pytest.mark.parametrize("name", ["task", "none", "class", "a-1-b", "context"])
def test_every_name_gives_a_package_of_sound_code(name: str) -> None:
    check_name(name)
    for path, text in render(name).items():
        assert "$" not in text, path
        if path.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Soft", "is no name for a task"),
        ("soft_light", "is no name for a task"),
        ("../soft", "is no name for a task"),
        ("", "is no name for a task"),
        ("s" * 41, "at most 40 characters"),
        ("pmavae-soft", "write that of its task, 'soft'"),
        ("decode", "has a command decode already"),
        ("plugins", "has a command plugins already"),
    ],
)
def test_a_bad_name_is_refused(pmavae: Command, here: Path, name: str, reason: str) -> None:
    result = pmavae("plugins", "new", name)
    assert (result.status, result.out) == (2, b"")
    assert reason in " ".join(result.err.split())
    assert list(here.iterdir()) == []


def test_a_folder_that_exists_or_cannot_be_made_is_refused(pmavae: Command, here: Path) -> None:
    (here / "mine").mkdir()
    (here / "dangling").symlink_to("nowhere")
    for folder in ("mine", "dangling"):
        result = pmavae("plugins", "new", "soft", "--folder", folder)
        assert result.status == 2
        assert f"{folder} exists already: name another folder with --folder." in result.err
    (here / "file").write_text("")
    result = pmavae("plugins", "new", "soft", "--folder", "file/soft")
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert result.err.startswith("pmavae: file/soft cannot be written (")
    assert sorted(path.name for path in here.iterdir()) == ["dangling", "file", "mine"]
    assert pmavae("plugins", "new", "soft", "--folder", "below/there").lines == ["below/there"]


def test_no_task_can_have_the_name_of_a_command() -> None:
    registry = load_plugins()
    cli = build_cli(registry)
    context = click.Context(cli)
    assert set(cli.list_commands(context)) - set(registry.tasks) == set(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
