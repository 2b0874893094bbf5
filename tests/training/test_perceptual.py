"""Feature networks: VGG16 out of a Hub, what happens where there is none, gradients to the input alone."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pmavae.errors import PMAVAEError, WeightsError
from pmavae.style_transfer.distances import content_distance
from pmavae.training.perceptual import (
    PERCEPTUAL_NETWORKS,
    VGG16,
    EfficientNetLite,
    PerceptualNetwork,
    perceptual_network,
)

constants = pytest.importorskip("huggingface_hub.constants")

# Torchvision's places of the convolutions in `features`, and their channels.
CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLED_BEFORE = (5, 10, 17, 24)
WANTED = (2, 7, 14, 21, 28)
ROUTE = "/timm/vgg16.tv_in1k/resolve/main/model.safetensors"


def expected_features(tensors, picture):
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (picture - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    features = []
    for place in CONVOLUTIONS:
        if place in POOLED_BEFORE:
            x = F.max_pool2d(x, 2)
        weight, bias = (tensors[f"features.{place}.{part}"].float() for part in ("weight", "bias"))
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
        if place in WANTED:
            features.append(x)
    return features


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of VGG16's convolutions, in fp16, with a tensor of the classifier beside them."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"head.fc.bias": torch.zeros(1000, dtype=torch.float16)}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        tensors[f"features.{place}.weight"] = weight.half()
        tensors[f"features.{place}.bias"] = (0.1 * torch.randn(outputs, generator=generator)).half()
    path = tmp_path_factory.mktemp("vgg16") / "model.safetensors"
    save_file(tensors, path)
    return path


class Hub:
    """The routes of a Hub that a download takes."""

    def __init__(self, data):
        hub = self
        self.data, self.length, self.requests = data, len(data), []
        self.breaks = False  # in the middle of the first download, and is not well after it

        class Handler(BaseHTTPRequestHandler):
            def respond(self, body):
                hub.requests.append(f"{self.command} {self.path}")
                broken = hub.breaks and hub.requests.count(f"GET {ROUTE}") > 1
                found = self.path == ROUTE and hub.data and not broken
                self.send_response(500 if broken else 200 if found else 404)
                if found:
                    self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
                    self.send_header("X-Repo-Commit", "89abcdef0123456789abcdef0123456789abcdef")
                elif not broken:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", str(hub.length if found else 0))
                self.end_headers()
                if body and found:
                    self.wfile.write(hub.data[: hub.length // 2] if hub.breaks else hub.data)

            def do_HEAD(self):
                self.respond(body=False)

            def do_GET(self):
                self.respond(body=True)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(weights):
    server = Hub(weights.read_bytes())
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def process(tmp_path):
    """Run Python with a Hugging Face cache of its own."""

    def run(code, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture
def endpoint(tmp_path, monkeypatch):
    """Let this process use a Hub of ours and an empty cache."""

    def use(url, offline=False):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    return use


def test_vgg16_comes_from_a_mirror_once_and_then_works_offline(server, process, weights, tmp_path):
    code = """if True:
        import torch
        from safetensors.torch import save_file
        from pmavae.training.perceptual import perceptual_network
        picture = torch.rand(1, 3, 40, 36, generator=torch.Generator().manual_seed(0))
        features = perceptual_network("vgg16")(picture)
        save_file({str(i): x for i, x in enumerate(features)}, "%s")
    """
    expected = expected_features(
        load_file(weights), torch.rand(1, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    )
    for variables in ({"HF_ENDPOINT": server.url}, {"HF_HUB_OFFLINE": "1"}):
        done = process(code % (tmp_path / "features.safetensors"), **variables)
        assert done.returncode == 0, done.stderr
        features = load_file(tmp_path / "features.safetensors")
        (tmp_path / "features.safetensors").unlink()
        assert len(features) == len(expected) == 5
        for index, wanted in enumerate(expected):
            torch.testing.assert_close(features[str(index)], wanted, atol=1e-4, rtol=1e-4)
    assert server.requests.count(f"GET {ROUTE}") == 1


def no_server(server):
    server.server.shutdown()
    server.server.server_close()


def half_the_file(server):
    server.breaks = True


def no_file(server):
    server.data = b""


@pytest.mark.parametrize("trouble", [no_server, no_file, half_the_file])
def test_a_hub_that_fails_is_one_sentence_with_the_remedy(server, endpoint, trouble):
    trouble(server)
    endpoint(server.url)
    with pytest.raises(WeightsError, match=r"timm/vgg16\.tv_in1k cannot be had from http://127") as error:
        perceptual_network("vgg16")
    message = str(error.value)
    assert "set HF_ENDPOINT to a mirror" in message and "--perceptual efficientnet-lite0 or none" in message
    assert "\n" not in message and len(message) < 500


def test_offline_without_the_file_is_one_sentence(server, endpoint):
    endpoint(server.url, offline=True)
    with pytest.raises(WeightsError, match="not in the cache, and HF_HUB_OFFLINE is set") as error:
        perceptual_network("vgg16")
    assert "\n" not in str(error.value) and not server.requests


def damaged(tensors):
    return {
        "missing": {k: v for k, v in tensors.items() if k != "features.28.bias"},
        "shape": tensors | {"features.0.weight": torch.zeros(64, 1, 3, 3)},
        "finite": tensors | {"features.5.bias": torch.full((128,), torch.nan)},
    }


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", r"features\.28\.bias has the shape \[512\] there and nothing here"),
        ("shape", r"features\.0\.weight has the shape \[64, 3, 3, 3\] there and \[64, 1, 3, 3\] here"),
        ("finite", r"features\.5\.bias has values that are not finite"),
    ],
)
def test_weights_of_another_network_are_refused_by_file(weights, tmp_path, damage, words):
    path = tmp_path / "other.safetensors"
    save_file(damaged(load_file(weights))[damage], path)
    with pytest.raises(WeightsError, match=rf"other\.safetensors does not have the weights .*{words}"):
        VGG16(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"other\.safetensors does not have"):
        VGG16(path)


def networks(weights):
    yield VGG16(weights)
    pytest.importorskip("efficientnet_lite_pytorch")
    yield EfficientNetLite()


def test_networks_are_frozen_and_give_gradients_to_the_input(weights):
    for network in networks(weights):
        assert isinstance(network, PerceptualNetwork)
        picture = torch.rand(2, 3, 64, 64, requires_grad=True)
        assert not network.train().training and not any(m.training for m in network.modules())
        features = network(picture)
        again = network(picture.detach())
        assert all(torch.equal(a, b) for a, b in zip(features, again, strict=True))
        sides = [x.shape[-1] for x in features]
        assert sides == sorted(sides, reverse=True) and sides[-1] == 4
        other = network(torch.rand(2, 3, 64, 64))
        content_distance(features, other, network.content_layers).backward()
        assert picture.grad is not None and picture.grad.abs().sum() > 0
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_networks_go_by_name():
    assert perceptual_network("none") is None
    assert set(PERCEPTUAL_NETWORKS) == {"vgg16", "efficientnet-lite0", "efficientnet-lite2", "none"}
    with pytest.raises(PMAVAEError, match="no perceptual network 'vgg19': choose one of vgg16, efficientnet"):
        perceptual_network("vgg19")


def test_a_missing_package_is_one_sentence(monkeypatch):
    for module, name in {
        "huggingface_hub": "vgg16",
        "efficientnet_lite_pytorch": "efficientnet-lite0",
    }.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(PMAVAEError, match=f"features of {name} need: pip install"):
            perceptual_network(name)
