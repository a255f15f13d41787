"""What agents with a replay share: when they learn and how often, and what arguments they share."""

import inspect
import itertools

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import slow_off_policy as slow
from slow_off_policy import SPEC

from jaxrl import JaxrlError, constructors, ddpg, dqn, r2d2, rainbow, redq, sac, td3
from jaxrl.learning import value_regression
from jaxrl.learning.experience import Learner, make_experience
from jaxrl.replay import Replay, prioritized, ranked, uniform
from jaxrl.transforms.normalize import normalize_replay

# ---------------------------------------------------------------- when it is learnt, and how often


class Log:
    """A gradient step that writes down what it is given, in place of learning; at most 32 of them."""

    learner = Learner(jnp.full(32, -1), jnp.zeros(32), {"used": jnp.int32(0)})

    @staticmethod
    def gradient_step(spec, learner, batch, weights, key, moment):
        count, step, _ = moment
        counts, draws, used = learner.params, learner.target_params, learner.opt_state["used"]
        learner = Learner(
            counts.at[used].set(count), draws.at[used].set(jax.random.uniform(key)), {"used": used + 1}
        )  # fmt: skip
        values = {"count": count.astype(jnp.float32), "step": step.astype(jnp.float32), "weight": weights.mean()}
        return learner, 10.0 * batch.reward, values


def logged(step, length=1, num_envs=1, extras=(), **arguments):
    """The agent's state and the metrics after an update at some step."""
    sizes = {"batch_size": 4, "replay_size": 24, "warmup_steps": 12, "rollout_length": length, "num_envs": num_envs}
    experience = make_experience("owner", **sizes | arguments)
    update = experience.make_update(Log.gradient_step, ("count", "step", "weight"), extras=extras)
    state = experience.init(Log.learner, SPEC, {name: jnp.float32(0) for name in extras})
    run = jax.jit(lambda step: update(state, slow.trajectory(length, num_envs), jax.random.key(0), step))
    return [run(jnp.int32(s)) for s in np.atleast_1d(step)]


@pytest.mark.parametrize(
    ("length", "num_envs", "ratio", "steps"),
    [(1, 1, 1, 1), (1, 1, 5, 5), (4, 3, 1, 12), (4, 3, 0.25, 3), (1, 4, 0.5, 2), (2, 3, 1 / 3, 2), (6, 1, 2.5, 15)],
)
def test_the_number_of_gradient_steps(length, num_envs, ratio, steps):
    """`replay_ratio` of them for each environment step, and their counts are those of all updates before, and on."""
    added = length * num_envs
    [(state, metrics)] = logged(36 // added * added, length, num_envs, replay_ratio=ratio)
    before = 36 // added * steps
    np.testing.assert_array_equal(state.params[: steps + 1], [*range(before, before + steps), -1])
    assert state.opt_state["used"] == steps
    assert len(np.unique(state.target_params[:steps])) == steps  # each has its own key
    np.testing.assert_allclose(metrics["count"], before + (steps - 1) / 2, rtol=1e-6)
    assert metrics["step"] == np.mean([36 // added * added + g * added // steps for g in range(steps)])


def test_the_count_goes_on_through_the_warm_up():
    """Nothing is learnt until the update that brings `warmup_steps`; its count is as if all before had learnt, too."""
    outcomes = logged([0, 4, 8, 12], 1, 4, replay_ratio=0.5, warmup_steps=12)
    used = [int(state.opt_state["used"]) for state, _ in outcomes]
    assert used == [0, 0, 2, 2]
    for state, metrics in outcomes[:2]:
        assert (state.params == -1).all()
        assert set(map(float, metrics.values())) == {0.0}
    np.testing.assert_array_equal([state.params[:2] for state, _ in outcomes[2:]], [[4, 5], [6, 7]])


def test_the_replay_gets_the_errors_back_and_keeps_extras():
    """Priorities are those of the slots that were drawn; a weight is an importance weight."""
    [(state, metrics)] = logged(
        0, 4, 4, extras=("kept",), replay="prioritized", priority_alpha=0.5, batch_size=8, warmup_steps=8,
        replay_size=16, replay_ratio=0.125,
    )  # fmt: skip
    tree, numbers = np.asarray(state.replay.tree[-1]).ravel()[:16], np.arange(1, 17)
    learnt = np.sqrt(10.0 * numbers + 1e-3)
    drawn = np.isclose(tree, learnt, rtol=1e-5)
    assert drawn.sum() >= 4
    np.testing.assert_allclose(tree[~drawn], 1.0)
    np.testing.assert_allclose(state.replay.ring.rest.extras["kept"], 2 * numbers)
    assert "left" not in state.replay.ring.rest.extras
    assert metrics["weight"] <= 1


# ---------------------------------------------------------------- what is due every so many environment steps

ANNEAL, TAUS = 100, np.array([0.1, 0.5, 1.0], np.float32)
SCHEDULES = [  # num_envs, rollout_length, replay_ratio and target_update_every, of up to 8 steps at once
    *[(1, 1, 1, 1), (8, 1, 1, 1), (8, 1, 1, 3), (4, 2, 0.5, 1), (4, 2, 0.5, 3), (4, 2, 0.125, 3), (2, 3, 0.5, 7)],
    *[(1, 1, 3, 2), (2, 4, 1.5, 1), (1, 4, 0.25, 10), (3, 2, 1, 5), (1, 8, 0.375, 4)],
]


def regress(num_envs, length, ratio, period, tau, num_steps, learning_rate=1.0, start=(0.0, 0.0), seed=0):
    """A parameter, and its target's, after so many steps; a gradient step adds the annealed learning rate to it."""
    added = num_envs * length
    experience = make_experience(
        "owner", num_envs=num_envs, rollout_length=length, replay_ratio=ratio, replay_size=24, batch_size=1,
        warmup_steps=1,
    )  # fmt: skip
    optimizer = optax.sgd(learning_rate)
    update = value_regression.regress_to_targets(
        experience, optimizer=optimizer, target=lambda *_: (), metrics=(), target_update_every=period, tau=tau,
        loss=lambda params, *_: value_regression.Loss(jnp.full(1, -params), jnp.zeros(1), {}), anneal_steps=ANNEAL,
    )  # fmt: skip
    params, target = map(jnp.float32, start)
    state = value_regression.init_state(experience, params, SPEC, optimizer)._replace(target_params=target)

    def one(state, step):
        return update(state, slow.trajectory(length, num_envs), jax.random.key(seed), step)[0], ()

    state = jax.lax.scan(one, state, jnp.arange(0, num_steps, added, jnp.int32))[0]
    return state.params, state.target_params


@pytest.fixture(scope="module")
def regressions():
    """Every schedule with every tau, `[schedule, tau]`; and a target that goes to a parameter which stays at 1."""

    def run(taus):
        rows = [jax.vmap(lambda tau, s=s: regress(*s, tau, 24))(taus) for s in SCHEDULES]
        still = [regress(n, 1, 1, 1, 0.1, 16, 0.0, start=(1.0, 0.0))[1] for n in (1, 8)]
        return jax.tree.map(lambda *x: jnp.stack(x), *rows), still

    return jax.device_get(jax.jit(run)(TAUS))


@pytest.mark.parametrize("index", range(len(SCHEDULES)), ids=lambda i: "-".join(map(str, SCHEDULES[i])))
def test_targets_and_learning_rates_against_a_loop_over_environment_steps(regressions, index):
    """A target moves as often as its period ends; a gradient step's learning rate is that of its own time."""
    num_envs, length, ratio, period = SCHEDULES[index]
    added = num_envs * length
    steps = round(ratio * added)
    for i, tau in enumerate(TAUS.astype(float)):
        params = target = 0.0
        for first in range(0, 24, added):
            ends = [first + g * added // steps for g in range(steps + 1)]
            for begin, end in itertools.pairwise(ends):
                params += 1.0 - begin / ANNEAL
                for now in range(begin + 1, end + 1):
                    if now % period == 0:
                        target += tau * (params - target)
        np.testing.assert_allclose(regressions[0][0][index, i], params, rtol=1e-5)
        np.testing.assert_allclose(regressions[0][1][index, i], target, rtol=1e-5)


def test_as_many_steps_move_a_target_as_far_in_any_number_of_environments(regressions):
    np.testing.assert_allclose(regressions[1], 1 - 0.9**16, rtol=1e-5)  # 0.815


def test_targets_that_do_not_move_cost_nothing_over_seeds():
    """Learning, and moving the target, stay branches: what decides is the same for all seeds."""
    run = jax.vmap(lambda seed: regress(2, 2, 0.5, 3, 0.1, 4, seed=seed))
    assert jax.jit(run).lower(jnp.arange(3)).as_text().count('"stablehlo.case"') == 2


# ---------------------------------------------------------------- priorities, one gradient step after the other


def drawn(replay, key, errors, gradient_steps=4):
    """16 transitions are added at once; which of them each gradient step draws, 4 a step, and the replay after all."""
    experience = make_experience(
        "owner", replay=replay, replay_size=16, batch_size=4, warmup_steps=4, rollout_length=16,
        replay_ratio=gradient_steps / 16,
    )  # fmt: skip

    def gradient_step(spec, learner, batch, weights, key, moment):
        return learner._replace(params=learner.params.at[moment.count].set(batch.reward)), errors(batch.reward), {}

    state = experience.init(Learner(jnp.zeros((gradient_steps, 4)), (), ()), SPEC)
    state, _ = experience.make_update(gradient_step, ())(state, slow.trajectory(16, 1), key, jnp.int32(0))
    return state.params, state.replay


def test_what_is_learnt_is_not_drawn_again_in_the_same_update():
    """An error of 0 makes a priority of 0.001, beside 1 for what was not drawn yet: 4 times 4 are all 16."""
    replay = prioritized(capacity=16, batch_size=4, alpha=1.0)
    run = jax.jit(jax.vmap(lambda key: drawn(replay, key, lambda reward: 0.0 * reward)[0]))
    rows = run(jax.random.split(jax.random.key(0), 100))
    rows = np.sort(rows.reshape(100, 16), axis=1)
    assert (rows == np.arange(1, 17)).all(axis=1).mean() > 0.95


REPLAYS = {
    "uniform": uniform(capacity=16, batch_size=4),
    "prioritized": prioritized(capacity=16, batch_size=4),
    "ranked": ranked(capacity=16, batch_size=4, sort_every=16),
    "four functions": Replay(*prioritized(capacity=16, batch_size=4)[:4]),
}


@pytest.fixture(scope="module")
def turns():
    """Each replay's draws and its state after an update; and the same of a loop, out of one compiled call."""

    def errors(reward):
        return reward * reward - 50.0

    def in_turns(replay, key, gradient_steps):
        def turn(state, step_key):
            sample = replay.sample(state, jax.random.split(step_key)[0], jnp.int32(16))
            rewards = sample.steps.reward[:, 0]
            return replay.update(state, sample.indices, errors(rewards)), rewards

        trajectory = slow.trajectory(16, 1)._replace(extras={})
        state = replay.add(replay.init(trajectory, SPEC), trajectory, jnp.int32(0))
        state, rows = jax.lax.scan(turn, state, jax.random.split(key, gradient_steps))
        return rows, state

    def run(key):
        return {
            f"{name}, {n}": (drawn(replay, key, errors, n), in_turns(replay, key, n))
            for name, replay in REPLAYS.items()
            for n in ((1, 3) if name == "prioritized" else (3,))
        }

    return jax.device_get(jax.jit(run)(jax.random.key(3)))


@pytest.mark.parametrize("case", ["prioritized, 1", *(f"{name}, 3" for name in REPLAYS)])
def test_gradient_steps_draw_and_tell_in_turns(turns, case):
    """As in a loop that draws a batch, and tells the replay its errors before it draws the next."""
    (rows, state), (expected_rows, expected) = turns[case]
    np.testing.assert_array_equal(rows, expected_rows)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), state, expected)


def results_of_loops(jaxpr):
    """The shapes of all that loops and branches give back, also within one another."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("cond", "scan", "while"):
            yield {x.aval.shape for x in equation.outvars}
        for x in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(x, "eqns") or hasattr(x, "jaxpr"):
                yield from results_of_loops(x if hasattr(x, "eqns") else x.jaxpr)


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.parametrize("normalized", [False, True])
def test_no_loop_or_branch_carries_transitions(name, normalized):
    """It would copy them. With one gradient step it does not carry the priorities, either: two rows of eight."""
    replay = normalize_replay(REPLAYS[name]) if normalized else REPLAYS[name]
    for gradient_steps in (1, 3):
        jaxpr = jax.make_jaxpr(lambda key, n=gradient_steps: drawn(replay, key, jnp.abs, n))(jax.random.key(0))
        # but for sorting all errors, which `ranked` does in a branch of its own
        loops = [shapes for shapes in results_of_loops(jaxpr.jaxpr) if (gradient_steps, 4) in shapes]
        assert len(loops) == 2  # learning or not, and one gradient step after another
        for shapes in loops:
            transitions = {shape for shape in shapes if shape[:1] == (16,)} - ({(16,)} if name == "ranked" else set())
            assert not transitions
            assert ((2, 8) in shapes) == (gradient_steps > 1 and name != "uniform")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"replay_ratio": 0}, ["replay_ratio=0 is not accepted", "(0, inf)"]),
        ({"replay_ratio": -1}, ["replay_ratio=-1 is not accepted"]),
        ({"replay_ratio": "two"}, ["replay_ratio='two' is not accepted"]),
        ({"replay_ratio": 0.5}, ["replay_ratio=0.5 is not accepted", "num_envs * rollout_length = 1", "whole number"]),
        ({"replay_ratio": 1 / 3, "num_envs": 4, "batch_size": 4}, ["replay_ratio=0.333", "= 4 it must be"]),
        ({"gamma": 1.1}, ["gamma=1.1 is not accepted"]),
        ({"n_step": 0}, ["n_step=0 is not accepted"]),
        ({"n_step": True}, ["n_step=True is not accepted"]),
        ({"num_envs": "4"}, ["num_envs='4' is not accepted; it must be a whole number"]),
        ({"rollout_length": 1.5}, ["rollout_length=1.5 is not accepted"]),
        ({"replay": "newest"}, ["replay='newest' is not accepted"]),
        ({"replay_size": 1001, "num_envs": 3}, ["replay_size=1001", "a multiple of num_envs * rollout_length"]),
        ({"batch_size": 2000}, ["batch_size=2000 is not accepted", "warmup_steps=1000"]),
        ({"batch_size": 0}, ["batch_size=0 is not accepted"]),
        ({"warmup_steps": 0}, ["warmup_steps=0 is not accepted"]),
        ({"priority_alpha": 2.0}, ["priority_alpha=2.0 is not accepted"]),
        ({"priority_beta": -1.0}, ["priority_beta=-1.0 is not accepted"]),
        ({"priority_beta_steps": 0}, ["priority_beta_steps=0 is not accepted"]),
        ({"normalize_observations": "yes"}, ["normalize_observations='yes' is not accepted"]),
        ({"hindsight": "past"}, ["hindsight='past' is not accepted"]),
    ],
    ids=lambda x: "-".join(f"{name}={value}" for name, value in x.items()) if isinstance(x, dict) else "",
)
def test_errors_name_the_agent_and_the_argument(arguments, words):
    for constructor in (td3, sac, dqn):
        with pytest.raises(JaxrlError) as error:
            constructor(**arguments)
        text = str(error.value)
        assert text.startswith(f"{constructor.__name__}: ")
        assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("sizes", "arguments", "words"),
    [
        ({"capacity": 15}, {"num_envs": 2}, ["replay.capacity=15", "a multiple of num_envs * rollout_length"]),
        ({"batch_size": 9}, {"warmup_steps": 8}, ["replay.batch_size=9", "at most warmup_steps=8"]),
    ],
)
@pytest.mark.parametrize("make", [uniform, prioritized, ranked])
def test_a_replay_with_sizes_of_its_own_is_checked_for_these(make, sizes, arguments, words):
    with pytest.raises(JaxrlError) as error:
        dqn(replay=make(**{"capacity": 512, "batch_size": 8} | sizes), **arguments)
    text = str(error.value)
    assert text.startswith("dqn: ")
    assert all(word in text for word in words), text


def test_the_sizes_of_a_replay_take_the_place_of_the_arguments():
    """The defaults of `replay_size` and `batch_size`, which fit nothing here, do not count."""
    own = {"num_envs": 3, "warmup_steps": 40, "replay_ratio": 1}  # 10,000 is no multiple of 3, 40 less than 128
    assert dqn(replay=prioritized(capacity=300, batch_size=40), **own).num_envs == 3
    assert dqn(replay=Replay(*uniform(capacity=300, batch_size=40)[:4]), **own).num_envs == 3  # it does not tell them
    assert dqn(replay=uniform(capacity=300, batch_size=40), normalize_observations=True, **own).num_envs == 3
    long = {"burn_in": 10, "unroll": 40, "num_envs": 1, "rollout_length": 4, "replay_ratio": 0.25}
    assert r2d2(replay=uniform(capacity=52, batch_size=2), **long).num_envs == 1
    with pytest.raises(JaxrlError, match=r"^r2d2: replay\.capacity=48 is not accepted; it must be at least .* 50$"):
        r2d2(replay=uniform(capacity=48, batch_size=2), **long)


# ---------------------------------------------------------------- the arguments that agents with a replay share


@pytest.mark.parametrize(
    ("constructor", "own"),
    [
        (td3, {}),
        (ddpg, {}),
        (sac, {}),
        (redq, {"replay_ratio": 20}),
        (dqn, {"replay_size": 10_000, "batch_size": 128}),
        (
            rainbow,
            {"replay_size": 10_000, "batch_size": 128, "n_step": 3, "replay": "prioritized", "priority_alpha": 0.5},
        ),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_signature_and_the_docstring_have_all_arguments(constructor, own):
    parameters = constructors.parameters(constructor)
    shared = inspect.signature(make_experience).parameters
    assert "experience" not in parameters
    assert "owner" not in parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    for name in set(shared) - {"owner"}:
        assert parameters[name].default == own.get(name, shared[name].default)
    documented = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(constructor)).params}
    written = inspect.signature(constructor).parameters
    assert [name.strip("*") for name in documented] == list(written)
    assert all(len(text.split()) >= 2 for text in documented.values())
    kinds = [parameters[name].annotation for name in ("gamma", "n_step", "replay_ratio")]
    assert kinds == [float, int, int | float]


def test_wrong_names_are_errors_that_name_them():
    for constructor in (td3, ddpg):  # one, and one that is a call of it
        name = constructor.__name__
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'gama'"):
            constructor(gama=0.9)
    with pytest.raises(TypeError, match="experience"):
        td3(experience=make_experience("td3"))


def test_an_argument_may_be_left_out():
    assert "hindsight" not in inspect.signature(r2d2).parameters
    assert "hindsight" not in inspect.getdoc(r2d2)
    with pytest.raises(TypeError, match=r"r2d2\(\) got an unexpected keyword argument 'hindsight'"):
        r2d2(hindsight="future")
