"""Parameters drawn per episode: what the dynamics use, what is drawn when, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_agent import fake
from playing import rollout

import jaxrl
from jaxrl import checks, envs
from jaxrl.envs.adapters import brax as brax_adapter
from jaxrl.envs.adapters import physics
from jaxrl.envs.randomize import RandomizedState
from jaxrl.types import Box

LOW, HIGH = (8.0, 0.8), (12.0, 1.2)
RANGES = {"g": (8.0, 12.0), "l": [0.8, 1.2]}
NUM_ENVS, NUM_STEPS, LENGTH = 64, 30, 7


@pytest.fixture(scope="module")
def played():
    """64 environments, 30 steps of episodes of 7."""
    env = envs.make("Pendulum-v1", max_steps_in_episode=LENGTH, randomize=RANGES, observe_randomized=True)
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    return env, jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: rollout(env, key, NUM_STEPS)))(keys))


def test_the_dynamics_are_those_of_the_value_drawn(played):
    """Each step again, in an environment made with the episode's values as fixed ones."""
    _, (state, _, action, outcome, _) = played

    def fixed_step(state, values, action):
        env = envs.make("Pendulum-v1", max_steps_in_episode=LENGTH, g=values[0], l=values[1])
        return env.step(jax.random.key(0), state, action)[1]

    again = jax.jit(jax.vmap(jax.vmap(fixed_step)))(state.env, state.values, action)
    np.testing.assert_allclose(again.obs, outcome.obs[..., :3], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(again.reward, outcome.reward, rtol=1e-6, atol=1e-6)

    # And by hand: velocity' = velocity + (3 g / (2 l) sin(angle) + 3 / (m l^2) torque) dt, clipped to 8.
    g, length = np.moveaxis(state.values, -1, 0)
    torque = np.clip(action[..., 0], -2, 2)
    push = 3 * g / (2 * length) * np.sin(state.env.theta) + 3 / length**2 * torque
    velocity = np.clip(state.env.theta_dot + 0.05 * push, -8, 8)
    np.testing.assert_allclose(outcome.obs[..., 2], velocity, rtol=1e-5, atol=1e-5)


def test_values_stay_for_an_episode_and_are_drawn_anew_at_its_end(played):
    _, (state, *_, outcome, _) = played
    values, ended = state.values, np.asarray(outcome.truncated)
    assert np.flatnonzero(ended[0]).tolist() == [6, 13, 20, 27]
    same = np.all(values[:, 1:] == values[:, :-1], axis=-1)
    assert np.array_equal(same, ~ended[:, :-1])
    for column in range(2):
        assert len(np.unique(values[..., column])) == NUM_ENVS * 5  # none twice, in any environment or episode


def test_the_draw_is_uniform(played):
    _, (state, *_) = played
    drawn = state.values[:, [0, 7, 14, 21, 28]].reshape(-1, 2)  # [64, 5, 2] -> [320, 2]
    assert np.all((drawn >= np.float32(LOW)) & (drawn < np.float32(HIGH)))
    unit = (drawn - LOW) / np.subtract(HIGH, LOW)
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.05)  # three standard errors
    np.testing.assert_allclose(unit.var(0), 1 / 12, atol=0.015)
    assert np.all(np.histogram(unit, bins=8, range=(0, 1))[0] > 50)
    assert abs(np.corrcoef(unit.T)[0, 1]) < 0.15
    starts = np.arctan2(*np.moveaxis(np.asarray(played[1][1])[:, [0, 7, 14, 21, 28], 1::-1], -1, 0)).ravel()
    assert np.all(np.abs([np.corrcoef(starts, column)[0, 1] for column in drawn.T]) < 0.15)  # other keys than the reset


def test_observed_values_are_those_of_the_observation_s_own_episode(played):
    env, (state, obs, _, outcome, new_obs) = played
    assert env.spec.obs_space == Box(np.float32([-1, -1, -8, *LOW]), np.float32([1, 1, 8, *HIGH]))
    np.testing.assert_array_equal(obs[..., 3:], state.values)
    np.testing.assert_array_equal(outcome.obs[..., 3:], state.values)  # the terminal one's, too
    ended = np.asarray(outcome.truncated)
    assert not np.any(np.all(new_obs[ended] == outcome.obs[ended], axis=-1))
    assert env.spec.max_steps == LENGTH


def test_the_rest_of_an_environment_stays_as_it_is():
    plain, drawn = envs.make("CartPole-v1"), envs.make("CartPole-v1", randomize={"length": (0.3, 0.7)})
    assert drawn.spec == plain.spec
    fixed = envs.make("CartPole-v1", randomize={"length": (0.7, 0.7)})
    state, obs = fixed.reset(jax.random.key(3))
    assert obs.shape == (4,)
    assert state.values.tolist() == [np.float32(0.7)]
    long = envs.make("CartPole-v1", length=0.7)
    key = jax.random.key(1)
    np.testing.assert_allclose(fixed.step(key, state, 1)[1].obs, long.step(key, state.env, 1)[1].obs, rtol=1e-6)
    unlike = plain.step(key, state.env, 1)[1].obs
    assert not np.allclose(fixed.step(key, state, 1)[1].obs, unlike, rtol=1e-4)


def test_a_wrapper_that_ends_episodes_draws_anew():
    env = envs.make("Pendulum-v1", randomize={"g": (8.0, 12.0)}, time_limit=3, frame_stack=2)
    state, obs, _, outcome, _ = jax.jit(lambda: rollout(env, jax.random.key(0), 7))()
    values = np.asarray(state.env.env.values)[:, 0]
    assert np.flatnonzero(outcome.truncated).tolist() == [2, 5]
    assert len(set(values[:3].tolist())) == len(set(values[3:6].tolist())) == 1
    assert len(set(values.tolist())) == 3
    assert obs.shape == (7, 6)


def test_keys_are_used_once():
    env = envs.make("Pendulum-v1", max_steps_in_episode=2, randomize={"g": (8.0, 12.0)})
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: rollout(env, key, 5))(jax.random.key(0))


def test_drawing_a_state_of_it():
    from matplotlib.figure import Figure

    env = envs.make("CartPole-v1", randomize={"length": (0.3, 0.7)})
    state = jax.tree.map(np.asarray, env.reset(jax.random.key(0))[0])
    axes = [Figure().subplots() for _ in range(2)]
    env.draw(state, axes[0])
    envs.make("CartPole-v1", length=float(state.values[0])).draw(state.env, axes[1])
    ends = [[line.get_xydata().tolist() for line in drawn.lines] for drawn in axes]
    assert ends[0] == ends[1] != []


def test_training_and_evaluation_draw():
    """Pushed to one side all the time, the cart with the small force keeps its pole up for longer."""
    weak, strong = {"force_mag": (1.0, 1.5)}, {"force_mag": (30.0, 40.0)}
    results = jaxrl.sweep(
        fake, "CartPole-v1", num_steps=160, seeds=2, log_every=160, eval_episodes=8,
        env_params={"randomize": [weak, strong]},
    )  # fmt: skip
    assert results.configs == [{"env.randomize": weak}, {"env.randomize": strong}]
    for metric in ("episode_length", "eval_return"):
        lengths = results.metrics[metric][..., 0]
        assert np.all((lengths[0] > 15) & (lengths[0] < 100)), metric
        assert np.all(lengths[1] < 8), metric


@pytest.mark.parametrize(("backend", "num_steps"), [("generalized", 1), ("spring", 4)])
def test_brax_s_physics(backend, num_steps):
    """A pendulum that leans: gravity turns it, whatever it weighs, and a push moves what is light.

    Each of six environments under one `vmap` has its own values.
    """
    names = ("gravity_scale", "mass_scale")
    make = functools.partial(envs.make, "brax/inverted_pendulum", backend=backend)
    env = make(randomize=dict.fromkeys(names, (0.5, 2.0)))
    values = jnp.array([[0, 1], [1, 1], [2, 1], [2, 3], [0, 3], [0, 1]], jnp.float32)
    push = jnp.array([0, 0, 0, 0, 1, 1], jnp.float32)

    def some_steps(values, push):
        state, _ = make(**dict(zip(names, values, strict=True))).reset(jax.random.key(5))
        first, keys = RandomizedState(state, values), jax.random.split(jax.random.key(0), num_steps)
        _, seen = jax.lax.scan(lambda state, key: env.step(key, state, push[None]), first, keys)
        return state.base.obs, seen.obs[-1]

    before, after = jax.jit(jax.vmap(some_steps))(values, push)
    gained = np.asarray(after - before)[:, 2:]  # velocities of cart and pole
    one, two, heavy = (gained[i, 1] - gained[0, 1] for i in (1, 2, 3))
    assert one < -1e-3  # it leans to the side that counts as negative
    np.testing.assert_allclose([two, heavy], 2 * one, rtol=0.05)
    for i in (0, 1):
        np.testing.assert_allclose(gained[5, i] / gained[4, i], 3, rtol=0.05)


@pytest.mark.parametrize("name", ["hopper", "ant", "halfcheetah"])
def test_masses_of_springs_are_those_that_brax_computes_with(name):
    """In these models brax takes masses to the power of 0, or of 0.7: all of a scaled one must reach its states."""

    def masses(**scale):
        env = envs.make(f"brax/{name}", **scale)
        physics_state = env.reset(jax.random.key(0))[0].base.pipeline_state
        return physics_state.mass, physics_state.i_inv

    run = jax.jit(lambda scale: (masses(), masses(mass_scale=1.0), masses(mass_scale=scale)))
    (mass, inverse_inertia), same, (scaled, scaled_inverse) = run(3.0)
    np.testing.assert_allclose(scaled, 3 * mass, rtol=1e-5)
    np.testing.assert_allclose(3 * scaled_inverse, inverse_inertia, rtol=1e-4, atol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), same, (mass, inverse_inertia))


def test_scales_of_physics_change_what_they_name():
    with physics.quiet():
        from brax import envs as brax_envs

        system = brax_envs.get_environment("hopper", backend="spring").sys
    scaled = physics.scale_physics("x", system, {"gravity_scale": 0.5, "friction_scale": 2.0, "mass_scale": 3.0})
    for factor, read in (
        (0.5, lambda s: (s.gravity, s.opt.gravity)),
        (2.0, lambda s: s.geom_friction),
        (3.0, lambda s: (s.body_mass, s.body_inertia, s.body_subtreemass, s.link.inertia.mass, s.link.inertia.i)),
        (1 / 3, lambda s: (s.body_invweight0, s.dof_invweight0, s.link.invweight, s.dof.invweight)),
        (3.0, lambda s: (s.link.constraint_stiffness, s.link.constraint_ang_damping)),
        (1.0, lambda s: (s.dof.armature, s.link.inertia.transform, s.init_q)),
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, factor * y, rtol=1e-6), read(scaled), read(system))
    same = physics.scale_physics("x", system, {"gravity_scale": 1.0, "mass_scale": 1})
    assert same is system


def refused(env_id, **params):
    try:
        envs.make(env_id, **params)
    except checks.JaxrlError as error:
        return "so it must be left out" in str(error)
    return False


def rollouts(name, backend, cases, num_steps=40):
    """Generalised positions `[case, T, q]` of random actions, each case a dictionary of factors, and of forces."""
    from brax import envs as brax_envs

    with physics.quiet():
        base = brax_envs.get_environment(name, backend=backend)
    system = base.sys

    def one(gravity, friction, mass, force):
        scaled = physics.with_masses_in_use(system) if backend in physics.MASSES_TO_A_POWER else system
        scales = {"gravity_scale": gravity, "friction_scale": friction, "mass_scale": mass}
        scaled = physics.scale_physics("x", scaled, scales)
        forces = {"actuator.gear": system.actuator.gear, "actuator_gear": system.actuator_gear}
        forces |= {f"dof.{x}": getattr(system.dof, x) for x in ("armature", "damping", "stiffness")}
        forces |= {x: getattr(system, x) for x in ("dof_armature", "dof_damping", "jnt_stiffness")}
        base.sys = scaled.tree_replace({x: jnp.asarray(value) * force for x, value in forces.items()})
        state = base.reset(jax.random.key(0))

        def body(state, key):
            state = base.step(state, jax.random.uniform(key, (base.action_size,), minval=-1, maxval=1))
            return state, (state.pipeline_state.q, state.pipeline_state.qd)

        positions, velocities = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), num_steps))[1]
        base.sys = system
        return jnp.concatenate([positions, velocities], axis=-1)

    factors = jnp.array(cases, jnp.float32)
    return np.asarray(jax.jit(lambda x: jax.vmap(one)(*x.T))(factors))


@pytest.mark.slow
@pytest.mark.parametrize("backend", brax_adapter.BACKENDS)
@pytest.mark.parametrize("name", [name for name in brax_adapter.NAMES if name not in brax_adapter.WITHOUT_PHYSICS])
def test_every_scale_of_every_brax_environment(name, backend):
    """A factor changes what happens, or is refused. With all masses and all forces scaled alike nothing changes."""
    ones = (1, 1, 1, 1)
    usual, gravity, friction, mass, alike = rollouts(
        name, backend, [ones, (2, 1, 1, 1), (1, 0.1, 1, 1), (1, 1, 3, 1), (1, 1, 3, 3)]
    )
    size = np.abs(usual).max()
    for scale, other in (("gravity_scale", gravity), ("friction_scale", friction), ("mass_scale", mass)):
        changed = np.abs(other - usual).max() / size
        if refused(f"brax/{name}", backend=backend, **{scale: 2.0}):
            assert changed < 0.02, scale  # springs give way a little
        elif (name, scale) != ("pusher", "friction_scale"):  # whose arm seldom touches the object
            assert changed > 1e-3, scale
    # Later on small differences grow. Two engines look for the forces of contacts, and stop before they have them.
    tolerance = 2e-3 if backend in physics.MASSES_TO_A_POWER else 0.02
    np.testing.assert_allclose(alike[:2], usual[:2], atol=tolerance * np.abs(usual[:2]).max())


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        ("Pendulum-v1", {"randomize": {"gg": (1, 2)}}, "unknown float parameter of Pendulum-v1 in randomize 'gg'"),
        (
            "Pendulum-v1",
            {"randomize": {"max_steps_in_episode": (1, 2)}},
            "unknown float parameter of Pendulum-v1 in randomize 'max_steps_in_episode': there are: dt, g, l, m,",
        ),
        ("Pendulum-v1", {"randomize": {"scale_rewards": (1, 2)}}, "in randomize 'scale_rewards'"),
        ("Pendulum-v1", {"randomize": {"g": (12, 8)}}, "have the lower bound first, and g=(12, 8) has not"),
        ("Pendulum-v1", {"randomize": {"g": (8, 10, 12)}}, "have a pair (low, high) for g, and (8, 10, 12) is not"),
        ("Pendulum-v1", {"randomize": {"g": 8}}, "have a pair (low, high) for g, and 8 is not"),
        ("Pendulum-v1", {"randomize": {"g": (8, float("inf"))}}, "randomize: g=inf is not accepted"),
        ("Pendulum-v1", {"randomize": {"g": (float("nan"), 8)}}, "randomize: g=nan is not accepted"),
        ("Pendulum-v1", {"randomize": {"g": (8, 1e39)}}, "have numbers, and between them a distance, that"),
        ("Pendulum-v1", {"randomize": {"g": (-3e38, 3e38)}}, "a distance, that float32 holds for g"),
        ("Pendulum-v1", {"randomize": {"g": (8, "x")}}, "randomize: g=x is not accepted"),
        ("Pendulum-v1", {"randomize": (8, 12)}, "randomize=(8, 12) is not accepted; it must be a dictionary"),
        ("Pendulum-v1", {"randomize": {}}, "randomize={} is not accepted; it must be a dictionary"),
        ("Pendulum-v1", {"randomize": {"g": (8, 12)}, "g": 9.0}, "not have g, which is given a value as well"),
        ("Pendulum-v1", {"randomize": {"max_torque": (1, 2)}}, "would make the action space traced"),
        ("Pendulum-v1", {"observe_randomized": True}, "observe_randomized=True is not accepted; it must be left out"),
        (
            "Pendulum-v1",
            {"randomize": {"g": (8, 12)}, "observe_randomized": 1},
            "observe_randomized=1 is not accepted; it must be True or False",
        ),
        (
            "DeepSea-bsuite",
            {"randomize": {"unscaled_move_cost": (0, 1)}, "observe_randomized": True},
            "DeepSea-bsuite: observe_randomized=True is not accepted; the environment's observations must be vectors",
        ),
        ("jaxrl/Point-v0", {"randomize": {"max_steps": (1, 2)}}, "the environment has no float parameters"),
        ("brax/fast", {"randomize": {"gravity_scale": (1, 2)}}, "the environment has no float parameters"),
        ("brax/fast", {"mass_scale": 2.0}, "brax/fast: unknown parameter 'mass_scale'"),
        ("brax/pusher", {"gravity_scale": 2.0}, "gravity_scale=2.0 is not accepted; gravity moves nothing in it"),
        ("brax/reacher", {"friction_scale": 2.0}, "friction_scale=2.0 is not accepted; nothing in it touches anything"),
        ("brax/pusher", {"randomize": {"gravity_scale": (1, 2)}}, "gravity_scale=1.0 is not accepted; gravity moves"),
        ("brax/reacher", {"mass_scale": 0.0}, "brax/reacher: mass_scale=0.0 is not accepted"),
        ("brax/reacher", {"randomize": {"mass_scale": (-1.0, 1.0)}}, "brax/reacher: mass_scale=-1.0 is not accepted"),
    ],
)
def test_errors_say_what_to_do(env_id, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(env_id, **params)
    assert message in str(error.value)
