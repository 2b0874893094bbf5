"""The directional scan: reference against a direct loop, kernel against reference, gradients."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae.scan import directional_scan, operator, register_backend
from pmavae.scan.operator import Backend, backend_for


def random_pair(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, dtype=dtype, generator=generator)
    return a, torch.randn(shape, dtype=dtype, generator=generator)


def visiting_order(direction, height, width):
    rows = [(y, x) for y in range(height) for x in range(width)]
    columns = [(y, x) for x in range(width) for y in range(height)]
    return [rows, columns, rows[::-1], columns[::-1]][direction]


def test_reference_walks_the_four_directions():
    a, b = random_pair((4, 2, 3, 5, 2))
    h = operator.scan_forward(a, b)
    for direction in range(4):
        state = torch.zeros(2, 2, dtype=a.dtype)
        for y, x in visiting_order(direction, 3, 5):
            state = a[direction, :, y, x] * state + b[direction, :, y, x]
            torch.testing.assert_close(h[direction, :, y, x], state)


def test_the_cpu_has_a_compiled_kernel():
    assert backend_for(torch.device("cpu")).forward is not operator.scan_forward


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    batch=st.integers(1, 3),
    lanes=st.sampled_from([1, 3, 64, 65, 130]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_kernel_agrees_with_the_reference(height, width, batch, lanes, dtype):
    a, b = random_pair((4, batch, height, width, lanes), dtype)
    grad_h = torch.randn_like(a)
    kernel = backend_for(torch.device("cpu"))
    h = kernel.forward(a, b)
    torch.testing.assert_close(h, operator.scan_forward(a, b))
    for got, expected in zip(
        kernel.backward(grad_h, a, h), operator.scan_backward(grad_h, a, h), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_reference_backward_is_the_gradient_of_reference_forward():
    a, b = (t.requires_grad_() for t in random_pair((4, 2, 3, 4, 2)))
    h = operator.scan_forward(a, b)
    grad_h = torch.randn_like(h)
    expected = torch.autograd.grad(h, (a, b), grad_h)
    for got, want in zip(operator.scan_backward(grad_h, a, h), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_gradcheck_in_double_precision():
    a, b = (t.requires_grad_() for t in random_pair((4, 1, 3, 2, 3)))
    assert torch.autograd.gradcheck(directional_scan, (a, b))


def test_long_scans_stay_finite_and_exact():
    a, b = random_pair((4, 1, 96, 96, 4), torch.float32)
    a = 1 - a * 1e-4  # decays near 1: the state adds up over nine thousand steps
    exact = operator.scan_forward(a.double(), b.double())
    error = (directional_scan(a, b).double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-4


def test_inputs_need_not_be_contiguous():
    a, b = random_pair((4, 1, 5, 6, 8))
    strided = directional_scan(a.transpose(2, 3).contiguous().transpose(2, 3), b)
    torch.testing.assert_close(strided, directional_scan(a, b))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_follow_torch(threads):
    import numba

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        directional_scan(*random_pair((4, 1, 4, 4, 4)))
        assert numba.get_num_threads() == min(threads, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)


def test_wrong_shapes_and_dtypes_are_refused():
    a, b = random_pair((4, 1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"\(4, B, H, W, M\)"):
        directional_scan(a, b[..., :2])
    with pytest.raises(ValueError, match="one dtype"):
        directional_scan(a, b.float())


def test_a_registered_backend_serves_its_device(monkeypatch):
    calls = []

    def forward(a, b):
        calls.append(a.shape)
        return operator.scan_forward(a, b)

    monkeypatch.setattr(operator, "_registered", {})
    register_backend("cpu", Backend(forward, operator.scan_backward))
    a, b = random_pair((4, 1, 2, 3, 1))
    torch.testing.assert_close(directional_scan(a, b), operator.scan_forward(a, b))
    assert calls == [a.shape]


def test_compile_and_export_see_one_node():
    class Scan(torch.nn.Module):
        def forward(self, a, b):
            return directional_scan(a, b)

    program = torch.export.export(Scan(), random_pair((4, 1, 2, 3, 2)))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["pmavae.directional_scan.default"]


def test_without_a_place_for_the_cache_the_kernel_is_compiled_anew(monkeypatch):
    from pmavae.scan import cpu

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(cpu, "njit", njit)
    assert cpu._compiled(len) is len


def test_the_kernel_leaves_the_number_of_threads_alone():
    code = "import torch; torch.set_num_threads(1); import pmavae.scan.cpu; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
