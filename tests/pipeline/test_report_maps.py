"""Maps over gridworlds."""

import numpy as np
import pytest
import torch
from builders import CPU, intrinsic_config, policy_config, world_config
from PIL import Image

from dreamer.envs.episode import episode_seed
from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.tasks.pits import is_pit
from dreamer.envs.vector import VectorEnv
from dreamer.intrinsic.rewards import make_behavior
from dreamer.nn.noise import Noise
from dreamer.saved_agent import SavedAgent
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import COLOURS
from pipeline.report.gridworld import open_world
from pipeline.report.maps import (
    LEAST_SPAN,
    SAMPLES,
    WALL,
    colour_range,
    features,
    maps_picture,
    module_maps,
    on_grid,
    value_map,
    visits_map,
)
from pipeline.report.recording import Recording, record_episode

TASKS = ["DeepSea-v0?size=6", "Pits-v0?size=5", "KeyChain-v0?rooms=3&size=3", "PinPad-v0?pads=4"]


def env_config(name, **changes):
    values = {
        "num_envs": 1,
        "action_repeat": 1,
        "active_modalities": "all",
        "optional_modalities": (),
        "modalities": {},
    }
    return EnvConfig(id=name, **values | changes)


def world_of(name, seed=0, **changes):
    return open_world(env_config(name, **changes), seed)


def make_agent(name, *, intrinsic=None, **policy):
    config = env_config(name)
    env = VectorEnv(config, 0)
    env.close()
    model = MultimodalWorldModel(env.spec, world_config(), 0)
    behavior, rewards = make_behavior(model, policy_config(**policy), intrinsic, 0)
    return SavedAgent(model, behavior, rewards, config, {})


def wake(module, seed=0):
    """Give heads that begin at zero something to say."""
    source = torch.Generator().manual_seed(seed)
    for param in module.parameters():
        param.data.add_(torch.randn(param.shape, generator=source), alpha=0.1)


def random_walk(name, steps, seed):
    """-> recording of random play, and the cells it was in."""
    config = env_config(name)
    env, bare, rng = VectorEnv(config, seed), None, np.random.default_rng(seed)
    bare = env._slots[0].env.unwrapped
    rows, cells = [env.reset()], [bare._cell]
    for _ in range(steps):
        action = np.zeros((1, env.spec.action.dim), np.float32)
        action[0, rng.integers(env.spec.action.dim)] = 1.0
        rows.append(env.step(action))
        cells.append(bare._cell)
        if rows[-1]["is_last"][0]:
            break
    env.close()
    column = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    recording = Recording(
        spec=env.spec,
        obs={key: column.pop(key) for key in env.spec.obs},
        action=np.zeros((len(rows), env.spec.action.dim), np.float32),
        frames=None,
        **column,
    )
    return recording, cells


# Cells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_visits_are_counted_where_the_agent_was(name, seed):
    recording, cells = random_walk(name, 400, seed)
    world = world_of(name)
    counted = on_grid(world, visits_map(world, recording).values)
    for cell in world.cells:
        assert counted[cell] == cells.count(cell), cell
    # Whoever has sunk below the last row of the sea is nowhere.
    assert np.nansum(counted) == sum(cell in world.cells for cell in cells)


def test_keys_that_are_carried_leave_the_agent_where_it_is():
    name = "KeyChain-v0?rooms=5&size=3"
    env, world = make_env(env_config(name)).unwrapped, world_of(name)
    cells = world.cells
    for cell in cells[::7]:
        fewest = cell[1] // 4 + (cell[1] % 4 == 3)
        for held in range(fewest, 5):
            obs = {"vector": env.observation_at(cell, held)[None]}
            recording, _ = random_walk(name, 1, 0)
            recording.obs["vector"] = obs["vector"]
            visits = visits_map(world, recording).values
            assert [cells[i] for i in np.flatnonzero(visits)] == [cell]


def test_walls_are_no_cells_and_pits_are_marked():
    world = world_of("Pits-v0?size=5")
    grid = on_grid(world, np.arange(len(world.cells)))
    assert np.argwhere(np.isnan(grid)).tolist() == [[1, 0], [3, 4]]
    assert world.pits == [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert world.seen["vector"].shape == (23, 10)
    assert world_of("DeepSea-v0?size=4").pits == []


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "MiniGrid-Empty-5x5-v0"])
def test_other_environments_are_no_gridworlds(name):
    assert world_of(name) is None


def test_wrappers_do_not_hide_a_gridworld():
    world = world_of("Pits-v0?size=5", action_repeat=2)
    assert world.shape == (5, 5)
    # Two steps at a time from the bottom left: what is an odd number of steps away needs a wall.
    assert (4, 1) not in world.cells
    assert (4, 2) in world.cells


# Ways -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_way_leads_to_its_cell(name):
    world, cells = world_of(name, seed=5), make_env(env_config(name)).unwrapped.cells()
    assert world.cells == cells
    for end, cell in list(zip(world.ends, cells, strict=True))[::5]:
        way = [end]
        while world.places[way[0]].parent >= 0:
            way.insert(0, world.places[way[0]].parent)
        assert [world.places[place].depth for place in way] == list(range(len(way)))
        env = make_env(env_config(name))
        obs, _ = env.reset(seed=episode_seed(5, 0, 0))
        for place in way[1:]:
            assert np.array_equal(obs, world.seen["vector"][world.places[place].parent])
            obs, *_ = env.step(world.places[place].action)
        assert np.array_equal(obs, world.seen["vector"][end])
        assert env.unwrapped._cell == cell
    # Nothing is kept but the ways.
    parents = {place.parent for place in world.places} | set(world.ends)
    assert parents == set(range(-1, len(world.places)))


def test_ways_are_shortest_and_nothing_leads_out_of_a_pit():
    world = world_of("Pits-v0?size=7")
    distance, border = {(6, 0): 0}, [(6, 0)]
    while border:
        row, column = border.pop(0)
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if cell in world.cells and cell not in distance and not is_pit((row, column)):
                distance[cell] = distance[row, column] + 1
                border.append(cell)
    depths = [world.places[end].depth for end in world.ends]
    assert dict(zip(world.cells, depths, strict=True)) == distance


def test_keys_are_fetched_on_the_way():
    world = world_of("KeyChain-v0?rooms=3&size=3")
    marks = world.seen["vector"][world.ends]
    held = marks[:, -2:].sum(1).tolist()
    fewest = [cell[1] // 4 + (cell[1] % 4 == 3) for cell in world.cells]
    assert held == fewest


# Numbers ----------------------------------------------------------------------------------------


def test_an_untrained_agent_expects_nothing():
    agent = make_agent("Pits-v0?size=5", intrinsic=intrinsic_config(icm=1.0, empowerment=1.0))
    feat = features(agent, open_world(agent.env, 0), Noise(0, CPU))
    maps = [*module_maps(agent, feat), value_map(agent, feat)]
    assert [each.title.split(" ")[0] for each in maps] == ["curiosity", "empowerment", "value"]
    assert all((each.values == 0).all() for each in maps)
    assert maps[1].title == "empowerment (2 actions, nats of 3.22)"  # 2 ln 5


@pytest.mark.parametrize("hierarchy", [False, True])
def test_maps_are_means_over_latents_on_the_way(hierarchy):
    intrinsic = intrinsic_config(icm=1.0, empowerment=1.0)
    agent = make_agent("Pits-v0?size=5", intrinsic=intrinsic, hierarchy=hierarchy)
    wake(agent.intrinsic)
    wake(agent.behavior)
    world, model = open_world(agent.env, 7), agent.model
    feat = features(agent, world, Noise(7, CPU))
    curiosity, empowerment = module_maps(agent, feat)
    value = value_map(agent, feat)
    assert len(set(curiosity.values)) > 1
    for n in (0, 11, 22):
        own = walk(model, world, world.ends[n], Noise(7, CPU))
        torch.testing.assert_close(feat[:, n], own, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            surprise = agent.intrinsic.icm.head(own).mean().clamp_min(0.0)
            nats = agent.intrinsic.empowerment.value(own)
            task = agent.behavior.top.critic(own).mean()[:, 0]
        for each, brute in ((curiosity, surprise), (empowerment, nats), (value, task)):
            assert each.values[n] == pytest.approx(float(brute.double().mean()), rel=1e-3, abs=1e-5)


def walk(model, world, place, noise):
    """Latents of one place by going there alone."""
    parent, action, depth = world.places[place]
    peers = [i for i, each in enumerate(world.places) if each.depth == depth]
    draws = noise.uniform("picture/cells", depth, (len(peers) * SAMPLES, model.rssm.size.groups))
    draws = draws.unflatten(0, (len(peers), SAMPLES))[peers.index(place)]
    taken = torch.zeros(SAMPLES, 5)
    state = model.rssm.initial(SAMPLES)
    if depth:
        before = walk(model, world, parent, noise)
        deter = model.rssm.size.deter
        state = model.rssm.latent(before[:, :deter], before[:, deter:])
        taken[:, action] = 1.0
    seen = torch.from_numpy(world.seen["vector"][place]).expand(SAMPLES, -1)
    first = torch.full((SAMPLES,), depth == 0)
    with torch.no_grad():
        return model.feat(model.observe_step({"vector": seen}, state, taken, first, draws))


def test_each_module_has_its_map_and_options_have_none():
    def titles(**modules):
        intrinsic = intrinsic_config(**modules)
        agent = make_agent("DeepSea-v0?size=3", intrinsic=intrinsic, hierarchy=True)
        feat = features(agent, open_world(agent.env, 0), Noise(0, CPU))
        return [each.title.split(" ")[0] for each in module_maps(agent, feat)]

    assert titles(icm=1.0) == ["curiosity"]
    assert titles(empowerment=1.0, steps=1) == ["empowerment"]
    assert titles(empowerment=1.0, kind="option") == []
    assert titles() == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 1.0, 2.0], (0.0, 2.0)),
        ([-3.0, 1.0], (-3.0, 1.0)),
        ([10.0, 10.0], (9.5, 10.5)),
        ([10.0, 10.5], (9.725, 10.775)),
        ([0.0, 0.0], (-LEAST_SPAN / 2, LEAST_SPAN / 2)),
    ],
)
def test_small_differences_look_small(values, wanted):
    assert colour_range(np.array(values)) == pytest.approx(wanted)


# Pictures ---------------------------------------------------------------------------------------


def record(agent):
    return record_episode(
        agent.model, agent.behavior.policy, agent.env, seed=1, choice="sample", max_steps=20
    )


def colours(path):
    with Image.open(path) as image:
        return {
            f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 20)
        }


def test_the_same_agent_gives_the_same_bytes(tmp_path):
    agent = make_agent("Pits-v0?size=5", intrinsic=intrinsic_config(icm=1.0, empowerment=1.0))
    wake(agent.intrinsic)
    recording = record(agent)
    for part in ("a.png", "b.png"):
        maps_picture(tmp_path / part, agent, recording, noise=Noise(2, CPU))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    wake(agent.intrinsic, seed=1)
    maps_picture(tmp_path / "c.png", agent, recording, noise=Noise(2, CPU))
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("name", TASKS)
def test_every_gridworld_is_drawn_with_its_walls(tmp_path, name):
    agent = make_agent(name, intrinsic=intrinsic_config(icm=1.0))
    wake(agent.intrinsic)
    maps_picture(tmp_path / "m.png", agent, record(agent), noise=Noise(2, CPU))
    shown = colours(tmp_path / "m.png")
    assert (WALL in shown) == (not name.startswith("PinPad"))
    assert len(shown) > 50


@pytest.mark.parametrize(
    ("name", "modules"), [("CartPole-v1", {"icm": 1.0}), ("Pits-v0?size=5", {})]
)
def test_where_there_is_nothing_to_map_the_picture_says_so(tmp_path, name, modules):
    agent = make_agent(name, intrinsic=intrinsic_config(**modules))
    maps_picture(tmp_path / "m.png", agent, record(agent), noise=Noise(0, CPU))
    with Image.open(tmp_path / "m.png") as image:
        assert image.height < 100
    assert not colours(tmp_path / "m.png") & set(COLOURS)
