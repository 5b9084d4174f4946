"""An agent comes back from its files as it was."""

import pytest
import torch
from builders import (
    CPU,
    assert_same,
    audio,
    image,
    intrinsic_config,
    policy_config,
    random_obs,
    text,
    vector_spec,
    world_config,
)

from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.rewards import make_behavior
from dreamer.saved_agent import load_agent, save_agent
from dreamer.world_model.model import MultimodalWorldModel

ALL = {"camera": image(8, 8), "sound": audio(64), "said": text(12)}


@pytest.mark.parametrize("senses", [{}, ALL])
@pytest.mark.parametrize("intrinsic", [None, intrinsic_config(icm=0.1, empowerment=0.1)])
def test_an_agent_of_any_senses_comes_back_as_it_was(tmp_path, senses, intrinsic):
    spec = vector_spec(3, discrete=(2,), **senses)
    model = MultimodalWorldModel(spec, world_config(), 1)
    behavior, rewards = make_behavior(model, policy_config(hierarchy=True), intrinsic, 1)
    env = EnvConfig(
        id="CueBits-v0",
        num_envs=2,
        action_repeat=1,
        active_modalities=("image", "text"),
        optional_modalities=(),
        modalities={},
    )
    save_agent(tmp_path / "a", model, behavior, rewards, env, {"env_step": 7})
    agent = load_agent(tmp_path / "a", CPU)
    assert (agent.model.config, agent.env, agent.facts) == (model.config, env, {"env_step": 7})
    assert agent.behavior.config == behavior.config
    assert agent.intrinsic.config == intrinsic
    for one, other in (
        (agent.model, model),
        (agent.behavior, behavior),
        (agent.intrinsic, rewards),
    ):
        assert_same(dict(one.state_dict()), dict(other.state_dict()))
    obs = random_obs(spec, (4,))
    with torch.no_grad():
        assert torch.equal(agent.model.encode(obs), model.encode(obs))
