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

from dreamer import checkpoint
from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.rewards import make_behavior
from dreamer.saved_agent import load_agent, save_agent
from dreamer.types import CheckpointError
from dreamer.world_model.model import MultimodalWorldModel

ALL = {"camera": image(8, 8), "sound": audio(64), "said": text(12)}


ENV = EnvConfig(
    id="CueBits-v0",
    num_envs=2,
    action_repeat=1,
    active_modalities=("image", "text"),
    optional_modalities=(),
    modalities={},
)


@pytest.mark.parametrize("senses", [{}, ALL])
@pytest.mark.parametrize("intrinsic", [None, intrinsic_config(icm=0.1, empowerment=0.1)])
def test_an_agent_of_any_senses_comes_back_as_it_was(tmp_path, senses, intrinsic):
    spec = vector_spec(3, discrete=(2,), **senses)
    model = MultimodalWorldModel(spec, world_config(), 1)
    behavior, rewards = make_behavior(model, policy_config(hierarchy=True), intrinsic, 1)
    save_agent(tmp_path / "a", model, behavior, rewards, ENV, {"env_step": 7})
    agent = load_agent(tmp_path / "a", CPU)
    assert (agent.model.config, agent.env, agent.facts) == (model.config, ENV, {"env_step": 7})
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


@pytest.mark.parametrize("section", ["env", "world_model", "policy", "spec"])
@pytest.mark.parametrize("change", [{"unheard_of": 1}, None])
def test_an_agent_of_another_version_is_one_line(tmp_path, section, change):
    spec = vector_spec(3, discrete=(2,))
    model = MultimodalWorldModel(spec, world_config(), 1)
    behavior, rewards = make_behavior(model, policy_config(), None, 1)
    save_agent(tmp_path / "a", model, behavior, rewards, ENV, {})
    tensors, meta = checkpoint.read(tmp_path / "a", CPU)
    found = meta["spec"]["obs"]["v0"] if section == "spec" else meta[section]
    if change is None:
        del found[max(found)]
    else:
        found.update(change)
    checkpoint.write(tmp_path / "a", tensors, meta)
    with pytest.raises(CheckpointError, match=r"a: the agent was saved by another version of this"):
        load_agent(tmp_path / "a", CPU)
