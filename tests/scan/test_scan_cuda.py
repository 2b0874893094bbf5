"""The Triton kernels against the reference: on CUDA where there is a device, else in Triton's interpreter.

The interpreter has to be asked for before Triton is imported, and then holds for the whole process, so
it runs in a process of its own.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch

import pmavae.scan
from pmavae.scan import directional_scan, operator, register_backend
from pmavae.scan.operator import Backend, backend_for

ON_CUDA = torch.cuda.is_available()
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
needs_cuda = pytest.mark.skipif(not ON_CUDA, reason="no CUDA device")

SHAPES = [(1, 1, 1, 1), (1, 1, 7, 1), (2, 7, 1, 3), (3, 5, 3, 6), (1, 9, 17, 5)]  # B, H, W, M


def problem(shape, lowest=0.0, dtype=torch.float32):
    """Decays in [lowest, 1), what each step adds, and a gradient, each (4, B, H, W, M)."""
    generator = torch.Generator().manual_seed(0)
    a = lowest + (1 - lowest) * torch.rand(4, *shape, dtype=dtype, generator=generator)
    b, grad_h = torch.randn(2, 4, *shape, dtype=dtype, generator=generator)
    return a, b, grad_h


def exact(a, b, grad_h):
    """h, grad_a and grad_b by the reference in double precision."""
    a, b, grad_h = a.double(), b.double(), grad_h.double()
    h = operator.scan_forward(a, b)
    return h, *operator.scan_backward(grad_h, a, h)


def assert_near(got, expected, tolerance):
    for ours, theirs in zip(got, expected, strict=True):
        error = (torch.as_tensor(ours).double().cpu() - theirs).abs().max() / theirs.abs().max().clamp(min=1)
        assert error < tolerance


def kernels(a, b, grad_h, dtype, tile):
    """h, grad_a and grad_b by the kernels, in double precision as NumPy arrays."""
    from pmavae.scan import cuda

    device = "cuda" if ON_CUDA else "cpu"
    a, b, grad_h = (torch.as_tensor(x).to(device, dtype) for x in (a, b, grad_h))
    with patch.multiple(cuda, STEPS=tile[0], LANES=tile[1]):
        h = cuda.scan_forward(a, b)
        results = h, *cuda.scan_backward(grad_h, a, h)
    assert all(result.dtype == dtype for result in results)
    return tuple(result.double().cpu().numpy() for result in results)


def operator_on_kernels(a, b, grad_h):
    """h, grad_a and grad_b by the operator and autograd, with these kernels behind it."""
    if not ON_CUDA:
        from pmavae.scan import cuda

        register_backend("cpu", Backend(cuda.scan_forward, cuda.scan_backward))
    a, b, grad_h = (torch.as_tensor(x, device="cuda" if ON_CUDA else "cpu") for x in (a, b, grad_h))
    assert backend_for(a.device).forward is not operator.scan_forward
    h = directional_scan(a.requires_grad_(), b.requires_grad_())
    grads = torch.autograd.grad(h, (a, b), grad_h)
    return tuple(result.detach().cpu().numpy() for result in (h, *grads))


def is_interpreting():
    import triton

    return triton.knobs.runtime.interpret if hasattr(triton, "knobs") else "TRITON_INTERPRET" in os.environ


@pytest.fixture(scope="module")
def run():
    """Call a function where the kernels run: here on CUDA, else in a process that interprets them."""
    if ON_CUDA:
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with patch.dict(os.environ, TRITON_INTERPRET="1"):
            assert pool.submit(is_interpreting).result()

        def elsewhere(function, *arguments):
            arrays = [x.numpy() if isinstance(x, torch.Tensor) else x for x in arguments]
            return pool.submit(function, *arrays).result()

        yield elsewhere


@needs_triton
@pytest.mark.parametrize("tile", [(32, 4), (128, 16)], ids=["small", "default"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_agree_with_the_reference(run, shape, tile):
    arguments = problem(shape)
    assert_near(run(kernels, *arguments, torch.float32, tile), exact(*arguments), 1e-5)


@needs_triton
def test_what_a_step_keeps_may_be_negative(run):
    arguments = problem((3, 5, 3, 6), lowest=-1.0)
    assert_near(run(kernels, *arguments, torch.float32, (8, 4)), exact(*arguments), 1e-5)


@needs_triton
def test_double_precision_is_kept(run):
    arguments = problem((2, 5, 3, 3), dtype=torch.float64)
    assert_near(run(kernels, *arguments, torch.float64, (8, 4)), exact(*arguments), 1e-13)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_summed_in_single(run, dtype):
    ones = torch.ones(4, 1, 18, 18, 1)  # a sum kept in bfloat16 stops growing at 256
    results = run(kernels, ones, ones, ones, dtype, (32, 1))
    h, _, grad_b = exact(ones, ones, ones)
    assert_near((results[0], results[2]), (h, grad_b), torch.finfo(dtype).eps)


@needs_triton
@pytest.mark.parametrize("shape", [(1, 3, 2, 3), pytest.param((3, 61, 67, 50), marks=needs_cuda)], ids=str)
def test_the_operator_differentiates_through_the_kernels(run, shape):
    arguments = problem(shape)
    assert_near(run(operator_on_kernels, *arguments), exact(*arguments), 1e-5)


@needs_cuda
@needs_triton
def test_tensors_of_more_elements_than_an_int_counts():
    if torch.cuda.mem_get_info()[0] < 36 << 30:
        pytest.skip("needs 36 GB of GPU memory")
    from pmavae.scan import cuda

    a = torch.full((4, 1, 2, 2, 2**27 + 1), 0.5, dtype=torch.float16, device="cuda")
    h = cuda.scan_forward(a, a)
    grad_a, grad_b = cuda.scan_backward(a, a, h)
    results = [x[..., -3:].cpu() for x in (h, grad_a, grad_b)]
    end = a[..., -3:].cpu()
    assert_near(results, exact(end, end, end), 1e-3)


def test_without_triton_cuda_falls_back_with_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "pmavae.scan.cuda", raising=False)
    monkeypatch.delattr(pmavae.scan, "cuda", raising=False)
    with pytest.warns(RuntimeWarning, match="pip install triton"):
        backend = operator._compiled.__wrapped__("cuda")
    assert backend.forward is operator.scan_forward
