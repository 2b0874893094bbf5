"""The directional scan as ONNX operators, without a loop over time.

A graph has no cheap loop: a Loop or Scan node runs its body once a step. Here the number of operators does
not depend on the number of steps, so one graph serves every size of picture.

With P[s, t] = a[s+1] ··· a[t], the decay from step s to step t, the recurrence h[t] = a[t] h[t-1] + b[t] is

    h[t] = Σ P[s, t] b[s]  over s ≤ t,

the product with a lower-triangular matrix. Every decay is in [0, 1], so every entry is, and nothing can
overflow (exp(−cumsum(log a)), by which such a product is often had, does). It is applied in chunks:

1. CHUNK consecutive steps are composed, for all chunks at once: the states of a chunk that starts from zero,
   and the decay from its start to each of its steps.
2. The last state and the whole decay of each chunk are a recurrence again, CHUNK times as short. After
   LEVELS of these, n = T / CHUNK ** LEVELS of T steps are left.
3. For these the matrix is built, from differences of cumulated log decays, which are never positive, and
   multiplied: n² entries a lane.
4. Back through the levels, each step adds what the chunks before its own carry in, times the decay to it.

With a matrix in every chunk as well, a step would cost CHUNK exponentials: benchmarks/onnx_export.py has
that form.
"""

from typing import Any

import numpy as np
from onnxscript import opset18 as op

from pmavae.scan import DIRECTIONS

CHUNK = 8
LEVELS = 3

# Of what a chunk keeps: what is below it is lost in float32 anyway, and sums of its logs stay precise.
SMALLEST_DECAY = 1e-10


def directional_scan(a: Any, b: Any) -> Any:
    """What `pmavae.scan.directional_scan` computes, of one picture: (4, 1, H, W, M) to the same shape.

    To be traced by the exporter. The decays a are in [0, 1].
    """
    lanes = int(a.shape[-1])
    rows_shape = op.Shape(a, start=1)  # (1, H, W, M)
    columns_shape = op.Gather(rows_shape, _integers(0, 2, 1, 3))
    h = _scan(_unroll(a, lanes), _unroll(b, lanes), lanes, LEVELS)
    ahead, back = op.Split(h, axis=0, num_outputs=2)
    parts = []
    for both in (ahead, _reversed(back)):
        rows, columns = op.Split(both, axis=0, num_outputs=2)
        parts.append(op.Reshape(rows, rows_shape))
        parts.append(op.Transpose(op.Reshape(columns, columns_shape), perm=[0, 2, 1, 3]))
    return op.Unsqueeze(op.Concat(*parts, axis=0), _integers(1))


def _unroll(x: Any, lanes: int) -> Any:
    """(4, 1, H, W, M) to (4, T, M): each direction's positions in the order that it visits them."""
    parts = []
    for direction, part in enumerate(op.Split(x, axis=0, num_outputs=DIRECTIONS)):
        by_columns = direction % 2 == 1
        part = op.Transpose(part, perm=[0, 1, 3, 2, 4]) if by_columns else part
        parts.append(op.Reshape(part, _integers(1, -1, lanes)))
    return op.Concat(op.Concat(*parts[:2], axis=0), _reversed(op.Concat(*parts[2:], axis=0)), axis=0)


def _reversed(x: Any) -> Any:
    """(N, T, M), from the last step to the first."""
    return op.Slice(x, _integers(-1), _integers(np.iinfo(np.int64).min), _integers(1), _integers(-1))


def _scan(a: Any, b: Any, lanes: int, levels: int) -> Any:
    """h[t] = a[t] h[t-1] + b[t] along the middle of (4, T, M)."""
    if not levels:
        return _product(a, b)
    steps = op.Shape(a, start=1, end=2)
    # Steps after the last, which change nothing before them.
    missing = op.Mod(op.Neg(steps), _integers(CHUNK))
    pads = op.Concat(_integers(0, 0, 0, 0), missing, _integers(0), axis=0)
    # (4, n · CHUNK, M) as CHUNK times (4, n, 1, M), the first steps of all chunks first.
    shape = _integers(DIRECTIONS, -1, CHUNK, lanes)
    decays, states = (
        [*op.Split(op.Reshape(op.Pad(x, pads), shape), axis=2, num_outputs=CHUNK)] for x in (a, b)
    )
    for t in range(1, CHUNK):
        states[t] = op.Add(states[t], op.Mul(decays[t], states[t - 1]))
        decays[t] = op.Mul(decays[t], decays[t - 1])
    end_decays, end_states = (op.Squeeze(x[-1], _integers(2)) for x in (decays, states))
    after = _scan(end_decays, end_states, lanes, levels - 1)
    before = op.Pad(after, _integers(0, 1, 0, 0, -1, 0))  # what each chunk starts from
    carried = op.Unsqueeze(before, _integers(2))
    states = [op.Add(state, op.Mul(decay, carried)) for state, decay in zip(states, decays, strict=True)]
    together = op.Reshape(op.Concat(*states, axis=2), _integers(DIRECTIONS, -1, lanes))
    return op.Slice(together, _integers(0), steps, _integers(1))


def _product(a: Any, b: Any) -> Any:
    """As `_scan`, by one product with the matrix of decays."""
    smallest = op.CastLike(op.Constant(value_float=SMALLEST_DECAY), a)
    logs = op.Transpose(op.Log(op.Max(a, smallest)), perm=[0, 2, 1])  # (4, M, T)
    sums = op.CumSum(logs, op.Constant(value_int=2))
    differences = op.Sub(op.Unsqueeze(sums, _integers(3)), op.Unsqueeze(sums, _integers(2)))
    # Above the diagonal they are positive, and nothing of it is kept.
    nothing = op.CastLike(op.Constant(value_float=0.0), a)
    decays = op.Trilu(op.Exp(op.Min(differences, nothing)), upper=0)  # (4, M, T, T)
    drive = op.Unsqueeze(op.Transpose(b, perm=[0, 2, 1]), _integers(3))
    return op.Transpose(op.Squeeze(op.MatMul(decays, drive), _integers(3)), perm=[0, 2, 1])


def _integers(*values: int) -> Any:
    return op.Constant(value_ints=[int(value) for value in values])
