"""Pictures and animations: which states an episode has, that they are what is drawn, and how each environment draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxrl import JaxrlError, envs
from jaxrl.analysis import render
from jaxrl.envs.own.arm import ArmReachState, ArmState
from jaxrl.envs.own.point import PointState
from jaxrl.envs.own.point_reach import PointReachState
from jaxrl.envs.own.tabular import TabularState
from jaxrl.types import Agent, Env, Outcome, Spec, box

CORRIDOR, POINT = envs.make("jaxrl/Corridor-v0"), envs.make("jaxrl/Point-v0")
KEY = jax.random.key(0)


def walker() -> Agent:
    """Goes right where it is greedy, time is 0 and its state is 7; but where its memory says that it is tired, left."""

    def act(state, memory, obs, key, step, explore=True):
        right = (state == 7) & (step == 0) & (not explore) & (memory != 3)
        return right.astype(jnp.int32), memory + 1, {}

    return Agent(None, act, None, 9, 1, init_memory=lambda num_envs: jnp.zeros(num_envs, jnp.int32))


def noisy() -> Agent:
    """Moves a point by a draw of its own each time."""

    def act(state, memory, obs, key, step, explore=True):
        return jax.random.uniform(key, obs.shape, minval=-0.1, maxval=0.1), memory, {}

    return Agent(None, act, None, 1, 1)


@pytest.fixture(scope="module")
def walk():
    """Right three times, left once, right three times: the last of these seven steps ends the episode."""
    return render.episode(KEY, walker(), jnp.int32(7), CORRIDOR)


@pytest.fixture
def axes():
    figure = Figure(figsize=(2, 2), dpi=50)
    FigureCanvasAgg(figure)
    return figure.add_axes((0, 0, 1, 1))


# ---------------------------------------------------------------- an episode's states


def test_the_states_of_one_episode(walk):
    """From its start to the last state in which the agent acted; nothing of the episode after it."""
    assert isinstance(walk, TabularState)
    assert walk.state.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert walk.time.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_states_of_numbers_of_python_and_of_keys():
    """What `train` takes will do here, too."""

    def step(key, state, action):
        time, draws = state
        return (time + 1, jax.random.split(draws)[0]), Outcome(jnp.zeros(1), 1.0, terminated=False, truncated=time >= 2)

    spec = Spec("Mine-v0", box(-1, 1, (1,)), box(-1, 1, (1,)), 5)
    mine = Env(lambda key: ((0, key), jnp.zeros(1)), step, spec)
    times, keys = render.episode(KEY, noisy(), (), mine)
    assert times.tolist() == [0, 1, 2]
    assert len(np.unique(keys, axis=0)) == 3


def test_rollout_is_pure_and_has_limits():
    limited = envs.time_limit(CORRIDOR, 4)

    def run(agent_state):
        whole, whole_length = render.rollout(KEY, walker(), agent_state, CORRIDOR, 9)
        cut, cut_length = render.rollout(KEY, walker(), agent_state, CORRIDOR, 2)
        timed, timed_length = render.rollout(KEY, walker(), agent_state, limited)
        _, truncated_length = render.rollout(KEY, walker(), agent_state, limited, 9)
        return (whole.state, cut.state, timed.env.state), (whole_length, cut_length, timed_length, truncated_length)

    states, lengths = jax.jit(jax.vmap(run))(jnp.int32([7, 8]))
    assert [x.tolist() for x in lengths] == [[7, 9], [2, 2], [4, 4], [4, 4]]
    assert states[0].tolist() == [[0, 1, 2, 3, 2, 3, 4, 0, 0], [0] * 9]
    assert states[1].tolist() == [[0, 1], [0, 0]]
    assert states[2].tolist() == [[0, 1, 2, 3], [0] * 4]


def test_draws_differ_between_steps_and_keys():
    run = jax.jit(jax.vmap(lambda key: render.rollout(key, noisy(), (), POINT, 30)))
    states, lengths = run(jax.random.split(KEY, 20))
    assert (lengths >= 29).all()
    moves = np.diff(states.position[:, :29], axis=1)
    assert len(np.unique(moves.round(6))) > 1100  # of 1120
    assert len(np.unique(states.position[:, 0])) == 40
    np.testing.assert_array_equal(run(jax.random.split(KEY, 20))[0].position, states.position)


# ---------------------------------------------------------------- files


def recording(env):
    """The environment, and a list of the states that it has drawn since."""
    seen = []

    def draw(state, axes):
        seen.append(int(state.state))
        env.draw(state, axes)

    return env._replace(draw=draw), seen


def disc_column(image: Image.Image) -> int:
    """In which of the corridor's six cells the agent is."""
    blue = np.all(np.abs(np.asarray(image.convert("RGB")).astype(int) - (63, 144, 218)) < 12, axis=-1)
    return int((np.flatnonzero(blue.any(0)).mean() - 10) // 60)


def test_an_animation_has_a_frame_for_each_state(walk, tmp_path):
    env, seen = recording(CORRIDOR)
    path = tmp_path / "new" / "walk.gif"
    render.animate(env, walk, path, fps=20)
    assert seen == [0, *walk.state.tolist()]  # the first is to see how wide it is
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 7, (380, 102))
        assert (image.info["duration"], image.info["loop"]) == (50, 0)
        columns = []
        for frame in range(image.n_frames):
            image.seek(frame)
            columns.append(disc_column(image))
    assert columns == walk.state.tolist()
    assert [found.name for found in path.parent.iterdir()] == ["walk.gif"]


@pytest.mark.parametrize(("num_frames", "drawn"), [(3, [0, 3, 4]), (1, [0]), (30, [0, 1, 2, 3, 2, 3, 4])])
def test_a_picture_has_frames_evenly_spaced(walk, tmp_path, num_frames, drawn):
    env, seen = recording(CORRIDOR)
    render.picture(env, walk, tmp_path / "walk.png", num_frames)
    assert seen == [0, *drawn]
    with Image.open(tmp_path / "walk.png") as image:
        assert (image.format, image.size) == ("PNG", (370 * len(drawn) + 10, 102))


def test_the_ending_chooses(walk, tmp_path):
    for name, kind, frames in [("a.GIF", "GIF", 7), ("a.png", "PNG", 1)]:
        render.render(CORRIDOR, walk, str(tmp_path / name))
        with Image.open(tmp_path / name) as image:
            assert (image.format, getattr(image, "n_frames", 1)) == (kind, frames)


def test_errors(walk, tmp_path):
    for function, name, accepted in [
        (render.render, "a.mp4", ".gif or .png"),
        (render.render, "a", ".gif or .png"),
        (render.animate, "a.png", ".gif"),
        (render.picture, "a.gif", ".png"),
    ]:
        with pytest.raises(JaxrlError, match=rf"render: .*{name} is not accepted; it must end in {accepted}$"):
            function(CORRIDOR, walk, tmp_path / name)
    bits = envs.make("jaxrl/BitFlip-v0")
    with pytest.raises(JaxrlError, match=r"jaxrl/BitFlip-v0 cannot draw itself; these can: .*jaxrl/Point-v0, .*Pong"):
        render.render(bits, walk, tmp_path / "a.gif")
    for fps in (0, 51):
        with pytest.raises(JaxrlError, match=rf"animate: fps={fps} is not accepted"):
            render.animate(CORRIDOR, walk, tmp_path / "a.gif", fps)
    with pytest.raises(JaxrlError, match="picture: num_frames=0 is not accepted"):
        render.picture(CORRIDOR, walk, tmp_path / "a.png", 0)
    with pytest.raises(JaxrlError, match="rollout: max_steps=0 is not accepted"):
        render.rollout(KEY, walker(), jnp.int32(7), CORRIDOR, 0)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is drawn


def test_wrappers_draw_what_they_wrap():
    """Each of them alone and all together: the state that is drawn is the wrapped environment's own."""
    every = {
        "time_limit": 5, "discretize_actions": 3, "rescale_actions": True, "clip_actions": True, "scale_rewards": 2.0,
        "flatten_observations": True, "observe": (1,), "frame_stack": 2, "reset_pool": 1,
    }  # fmt: skip
    spec = envs.make("jaxrl/PointReach-v0").spec
    seen = []
    begin = lambda key: POINT.reset(KEY)  # noqa: E731 - a pool draws with a key of its own
    env = POINT._replace(reset=begin, draw=lambda state, axes: seen.append((state, axes)), spec=spec)
    wrap = envs.registry.WRAPPERS
    assert every.keys() == wrap.keys()
    switches = envs.registry.SWITCHES
    wrapped = [wrap[k](env) if k in switches else wrap[k](env, v) for k, v in every.items()]
    wrapped.append(envs.frame_stack(envs.time_limit(env, 5), 2))
    position = env.reset(KEY)[1]
    for number, one in enumerate(wrapped):
        one.draw(one.reset(KEY)[0], number)
    assert [axes for _, axes in seen] == list(range(len(wrapped)))
    for state, _ in seen:
        assert isinstance(state, PointState)
        np.testing.assert_array_equal(state.position, position)
    bits = envs.make("jaxrl/BitFlip-v0")
    assert envs.frame_stack(envs.time_limit(bits, 5), 2).draw is None


@pytest.fixture(scope="module")
def made():
    """All environments but brax's, which cannot draw themselves and take a minute to make."""
    ids = envs.list_ids()
    return {env_id: envs.make(env_id) for env_id in [*ids["jaxrl"], *ids["gymnax"]]}


def test_which_can_draw_themselves(made):
    assert {env_id for env_id, env in made.items() if env.draw} == set(render.DRAWN)
    assert len(render.DRAWN) == len(set(render.DRAWN))


def test_all_draw_their_start(made):
    """Something on the axes, of finite limits; and where observations are pictures, all that they show and no more."""
    reset = jax.jit(
        lambda: {env_id: made[env_id].reset(KEY) for env_id in render.DRAWN},
    )
    for env_id, (state, obs) in reset().items():
        figure = Figure(figsize=(2, 2), dpi=50)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        made[env_id].draw(state, axes)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[5:-5, 5:-5, :3]  # without the frame
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1, env_id
        assert len(axes.get_xticks()) == len(axes.get_yticks()) == 0, env_id
        if obs.ndim > 1:
            colors = np.asarray(axes.images[0].get_array())
            shown = (colors != colors[np.asarray(obs).reshape(*obs.shape[:2], -1).sum(-1) == 0][0]).any(-1)
            assert np.array_equal(shown, np.asarray(obs).reshape(*obs.shape[:2], -1).any(-1)), env_id


def test_pixels_have_their_channels_colours(axes):
    obs = np.zeros((2, 3, 12))
    obs[0, 0, 0] = obs[0, 1, 3] = obs[1, 2, 11] = 1
    obs[1, 0, 3] = obs[1, 0, 1] = 1  # the first of both
    envs.drawing.pixels(obs, axes)
    colors, background = envs.drawing.CHANNELS, envs.drawing.BACKGROUND
    expected = [[colors[0], colors[3], background], [colors[1], background, colors[1]]]
    assert np.asarray(axes.images[0].get_array()).tolist() == np.array(expected).tolist()
    envs.drawing.pixels(obs[..., 0], axes)
    assert np.asarray(axes.images[1].get_array())[0].tolist() == [colors[0].tolist(), *[background.tolist()] * 2]


class Angles(NamedTuple):
    theta: float = 0.0
    x: float = 0.0
    joint_angle1: float = 0.0
    joint_angle2: float = 0.0
    position: float = 0.0


def ends(axes) -> list[list[float]]:
    """The points of the last line."""
    return axes.lines[-1].get_xydata().round(4).tolist()


def disc(axes, index=-1) -> list[float]:
    """A disc's centre and radius."""
    x, y = axes.patches[index].get_xy().T
    return np.round([(x.max() + x.min()) / 2, (y.max() + y.min()) / 2, np.ptp(x) / 2], 2).tolist()


def test_classic_control_stands_as_it_should(made, axes):
    """Of an angle of 0 the pendulum and the pole stand up, and the acrobot hangs down."""
    made["CartPole-v1"].draw(Angles(x=1.5, theta=np.pi / 6), axes)
    assert ends(axes) == [[1.5, 0.15], [2.0, 1.016]]  # half and 0.866 of a pole of length 1, to the right
    assert axes.get_xlim() == (-2.8, pytest.approx(2.8))
    made["Pendulum-v1"].draw(Angles(theta=np.pi / 6), axes)
    assert ends(axes) == [[0, 0], [-0.5, 0.866]]
    made["Acrobot-v1"].draw(Angles(joint_angle1=np.pi / 2, joint_angle2=np.pi / 2), axes)
    assert ends(axes) == [[0, 0], [1, 0], [1, 1]]
    made["MountainCar-v0"].draw(Angles(position=-np.pi / 6), axes)
    assert disc(axes) == [-0.52, 0.15, 0.05]  # in the valley, at 0.1, on top of the ground
    assert ends(axes)[0] == [0.5, round(0.45 * np.sin(1.5) + 0.55, 4)]


def test_points_and_arms_are_where_they_are(axes):
    POINT.draw(PointState(jnp.float32([0.5, -0.25]), jnp.int32(0)), axes)
    assert disc(axes)[:2] == [0.5, -0.25]
    assert axes.get_xlim() == (-1.1, 1.1)
    POINT.draw(PointState(jnp.float32([0.5, -3]), jnp.int32(0)), axes)
    assert axes.get_ylim() == (pytest.approx(-3.1), pytest.approx(3.1))
    reach = PointReachState(jnp.float32([0.5, 0.25]), jnp.float32([-0.5, 0.75]), jnp.int32(0))
    envs.make("jaxrl/PointReach-v0").draw(reach, axes)
    assert [disc(axes, -2), disc(axes)] == [[-0.5, 0.75, 0.05], [0.5, 0.25, 0.03]]
    axes.clear()
    reach = ArmReachState(jnp.float32([0, np.pi / 2]), jnp.float32([-0.4, 0.25]), jnp.int32(0))
    envs.make("jaxrl/ArmReach-v0").draw(reach, axes)
    assert ends(axes) == [[200, 200], [300, 200], [300, 300]]
    assert disc(axes, 0) == [120, 250, 15]
    arm = ArmState(jnp.float32([0, np.pi / 2]), jnp.float32([120, 250]), jnp.int32(0), jnp.int32(0))
    colors = []
    for held in (0, 2):
        axes.clear()
        envs.make("jaxrl/Arm-hard-v0").draw(arm._replace(held=jnp.int32(held)), axes)
        assert ends(axes) == [[200, 200], [300, 200], [300, 300]]
        assert [disc(axes, index) for index in range(3)] == [[120, 250, 15], [200, 200, 8], [300, 200, 8]]
        colors.append(axes.patches[0].get_facecolor())
    assert colors[0] != colors[1]


def test_a_grid_has_its_walls_and_the_agent(axes):
    env = envs.make("jaxrl/Maze-v0", layout="S.X/#.T")
    env.draw(TabularState(jnp.int32(4), jnp.int32(0)), axes)
    assert disc(axes)[:2] == [1, 1]
    assert {text.get_text(): text.get_position() for text in axes.texts} == {"S": (0, 0), "#": (0, 1), "T": (2, 1)}
    colors = np.asarray(axes.images[0].get_array())
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 4
    assert colors[0, 2].sum() < colors[0, 1].sum()
    lake = envs.make("FrozenLake-misc")
    lake.draw(lake.reset(KEY)[0].replace(position=jnp.int32(6)), axes)
    assert disc(axes)[:2] == [2, 1]
