"""Nested states: every kind of value comes back exactly, and what cannot be held is named."""

import numpy as np
import pytest
import torch

from dreamer import checkpoint
from dreamer.nested_state import flatten, unflatten
from dreamer.types import CheckpointError


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert (
            left.contiguous()
            .view(-1)
            .view(torch.uint8)
            .equal(right.contiguous().view(-1).view(torch.uint8))
        )
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape, left.tobytes()) == (
            right.dtype,
            right.shape,
            right.tobytes(),
        )
    else:
        assert repr(left) == repr(right)


def test_flatten_round_trip_through_the_disk(tmp_path):
    state = {
        "model": {
            "enc.weight": torch.randn(2, 3, dtype=torch.bfloat16),
            "half": torch.ones(2).half(),
        },
        "z": {"later": torch.tensor(True), "earlier": torch.tensor(2**40)},
        "optim": {
            "state": {0: {"m": torch.ones(3)}, 1: {}},
            "betas": (0.9, 0.99),
            "groups": [[0, 1]],
        },
        "array": np.arange(4, dtype=np.uint8).reshape(2, 2),
        "zero_d": np.array(1.5, dtype=np.float16),
        "scalars": [None, True, 1, -0.0, 0.1, "text", float("inf"), float("nan"), 2**127],
        "tensor": {"tensor": "a dict that looks like a mark"},
        "empty": [{}, [], ()],
    }
    tensors, meta = flatten(state)
    assert "model.enc.weight" in tensors
    checkpoint.write(tmp_path / "ck", tensors, {"state": meta})
    read, document = checkpoint.read(tmp_path / "ck")
    assert_same(unflatten(read, document["state"]), state)


def test_equal_paths_do_not_collide():
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "": torch.full((1,), 2.0)}
    state["__metadata__"] = torch.full((1,), 3.0)
    tensors, meta = flatten(state)
    assert len(tensors) == 4
    assert "__metadata__" not in tensors
    assert_same(unflatten(tensors, meta), state)


def test_an_optimiser_resumes_exactly(tmp_path):
    def run(steps, state=None):
        parameter = torch.nn.Parameter(torch.ones(3))
        optimiser = torch.optim.Adam([parameter], lr=0.1)
        if state:
            parameter.data.copy_(state["parameter"])
            optimiser.load_state_dict(state["optimiser"])
        for _ in range(steps):
            optimiser.zero_grad()
            (parameter**2).sum().backward()
            optimiser.step()
        return {"parameter": parameter.detach(), "optimiser": optimiser.state_dict()}

    tensors, meta = flatten(run(3))
    checkpoint.write(tmp_path / "ck", tensors, {"state": meta})
    read, document = checkpoint.read(tmp_path / "ck")
    resumed = run(2, unflatten(read, document["state"]))
    assert resumed["parameter"].equal(run(5)["parameter"])


def test_what_cannot_be_held_is_named():
    with pytest.raises(TypeError, match=r"a\.b: .*set"):
        flatten({"a": {"b": {1}}})
    with pytest.raises(TypeError, match="float64"):
        flatten({"x": np.float64(1)})
    with pytest.raises(TypeError, match="key"):
        flatten({True: 1})
    with pytest.raises(CheckpointError, match="no tensor 'w'"):
        unflatten({}, {"tensor": "w"})
    with pytest.raises(CheckpointError, match="no state that is known"):
        unflatten({}, {"picture": 1})
