"""Trainable parameters of every size against the counts of the official networks."""

from __future__ import annotations

import pytest
import torch
from builders import image, num_trainable, policy_config, vector, vector_spec, world_config

from dreamer.intrinsic.rewards import make_behavior
from dreamer.types import EnvSpec
from dreamer.world_model.model import MultimodalWorldModel
from dreamer.world_model.sizes import SIZES

WALKER = vector_spec(height=vector(1), orientations=vector(14), velocity=vector(9), continuous=6)
CRAFTER = vector_spec(image=image(64, 64), discrete=(17,))
OTHERS = {  # entries of all observation keys, and of the action
    "cartpole": (5, 1),
    "reacher": (6, 2),
    "cheetah": (17, 6),
    "finger_spin": (9, 2),
    "ball_in_cup": (8, 2),
    "pendulum": (3, 1),
}


def agent(spec: EnvSpec, size: str):
    # No memory is needed to count.
    with torch.device("meta"):
        model = MultimodalWorldModel(spec, world_config(size=size), 0)
        behavior, intrinsic = make_behavior(model, policy_config(), None, 0)
    assert num_trainable(intrinsic) == 0
    return model, behavior


@pytest.mark.parametrize(
    ("size", "walker", "crafter"),
    [
        ("size1m", 640_867, 687_875),
        ("size12m", 9_738_019, 10_498_259),
        ("size25m", 21_782_947, 23_495_475),
        ("size50m", 38_612_003, 41_658_259),
        ("size100m", 86_622_499, 93_480_531),
        ("size200m", 153_769_507, 165_965_075),
        ("size400m", 345_473_059, 372_920_979),
    ],
)
def test_totals_of_every_size(size, walker, crafter):
    assert num_trainable(*agent(WALKER, size)) == walker
    assert num_trainable(*agent(CRAFTER, size)) == crafter


def test_every_official_size_is_counted():
    assert set(SIZES) == {"tiny"} | {f"size{n}m" for n in (1, 12, 25, 50, 100, 200, 400)}


@pytest.mark.parametrize(
    ("task", "small", "large"),
    [
        ("cartpole", 637_446, 9_724_422),
        ("reacher", 637_769, 9_725_705),
        ("cheetah", 639_964, 9_734_428),
        ("finger_spin", 638_156, 9_727_244),
        ("ball_in_cup", 638_027, 9_726_731),
        ("pendulum", 637_188, 9_723_396),
    ],
)
def test_totals_of_other_tasks(task, small, large):
    entries, action = OTHERS[task]
    spec = vector_spec(entries, continuous=action)
    assert num_trainable(*agent(spec, "size1m")) == small
    assert num_trainable(*agent(spec, "size12m")) == large


def test_parts_of_the_small_walker():
    model, behavior = agent(WALKER, "size1m")
    parts = {
        "encoder": model.encoders,
        "dynamics": model.rssm,
        "decoder": model.decoders,
        "reward": model.reward,
        "continue": model.cont,
        "policy": behavior.top.actor,
        "value": behavior.top.critic,
    }
    assert {name: num_trainable(part) for name, part in parts.items()} == {
        "encoder": 10_112,
        "dynamics": 364_416,
        "decoder": 51_096,
        "reward": 57_663,
        "continue": 41_153,
        "policy": 50_316,
        "value": 66_111,
    }


def test_a_projection_adds_its_own_parameters_only():
    spec = vector_spec(4, discrete=(2,))
    plain, projected = (
        MultimodalWorldModel(spec, world_config(embed_dim=e), 0) for e in ("auto", 32)
    )
    units, hidden = SIZES["tiny"].units, SIZES["tiny"].hidden
    want = units * 32 + 32 + (32 - units) * hidden
    assert num_trainable(projected) - num_trainable(plain) == want
