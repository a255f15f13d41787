"""DIAYN: its reward and both networks' steps against NumPy, when skills are drawn, and what the replay keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_off_policy as slow
from slow_off_policy import BATCH, HIDDEN, SPEC, Network

from jaxrl import JaxrlError, evaluate, init_train, make, sac, train_step
from jaxrl.agents.off_policy.diayn import NOT_DRAWN, diayn, join, joined
from jaxrl.types import Discrete, Env, Outcome, Spec, Transition, box

NUM_SKILLS = 3
RATES = {
    "actor_learning_rate": 0.02,
    "critic_learning_rate": 0.03,
    "temperature_learning_rate": 0.05,
    "tau": 0.3,
    "initial_temperature": 0.6,
    "target_entropy": -0.4,
}
STEPS = 3  # gradient steps of each update
CASES = {
    "fixed temperature": {"n_step": 2},
    "the environment's reward, too": {"n_step": 3, "reward_weight": 0.5, "temperature": "auto"},
    "the second entry alone": {"discriminator_observes": (1,), "layer_norm": True, "num_critics": 3},
}
UPDATE_KEY = jax.random.key(5)
SKILLS = (np.arange(BATCH) % NUM_SKILLS).astype(np.int32)


def sample(seed=0):
    """The shared stretches, each with one skill; where a stretch ended, what follows has another one."""
    drawn = slow.sample(seed)
    skill = np.where(drawn.valid, SKILLS[:, None], (SKILLS[:, None] + 1) % NUM_SKILLS).astype(np.int32)
    return drawn._replace(steps=drawn.steps._replace(extras={"skill": skill}))


def log_q(params, obs):
    logits = slow.dense(params["params"]["head"]["output"], slow.hidden(params["params"]["torso"], obs))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def relabelled(params, options):
    """The sample that SAC should see: observations with a one-hot skill, and the skill's reward, step by step."""
    drawn = sample()
    steps = drawn.steps
    rewards, entries = np.zeros((BATCH, slow.LENGTH)), list(options.get("discriminator_observes", (0, 1)))
    for b in range(BATCH):
        for t in range(slow.LENGTH):
            seen = steps.next_obs[b, t, entries].astype(np.float64)
            told = log_q(params, seen[None])[0, steps.extras["skill"][b, t]] - np.log(1 / NUM_SKILLS)
            rewards[b, t] = told + options.get("reward_weight", 0.0) * steps.reward[b, t]
    one_hot = np.eye(NUM_SKILLS, dtype=np.float32)[steps.extras["skill"]]
    obs, next_obs = (np.concatenate([x, one_hot], -1) for x in (steps.obs, steps.next_obs))
    return drawn._replace(
        steps=steps._replace(obs=obs, next_obs=next_obs, reward=rewards.astype(np.float32), extras={})
    )


def agents(arguments):
    """DIAYN on the sample; and SAC of the same settings on a sample, in an environment of joined observations."""
    shared = slow.SIZES | RATES | arguments | {"replay_ratio": 1}
    own = {name: shared.pop(name) for name in ("reward_weight", "discriminator_observes") if name in shared}
    shared = {"temperature": "fixed", **shared}
    whole = diayn(
        **shared, **own, num_skills=NUM_SKILLS, discriminator_learning_rate=0.04, replay=slow.always(sample(), 1)
    )

    def inside(drawn):
        return sac(**shared, replay=slow.always(drawn, 1))

    return whole, inside


def drawn_state(agent, spec):
    like = jax.eval_shape(lambda: agent.init(jax.random.key(0), spec))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return state._replace(params=slow.drawn_like(like.params, 0), target_params=slow.drawn_like(like.target_params, 3))


def first_step(drawn):
    return jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), drawn.steps)


@pytest.fixture(scope="module")
def updates():
    """For each case the states before and after `STEPS` updates of one gradient step, `[STEPS, ...]`, and metrics."""

    def case(arguments):
        agent = agents(arguments)[0]

        def one(state, step):
            after, metrics = agent.update(state, first_step(sample()), UPDATE_KEY, step)
            return after, (state._replace(spec=()), after._replace(spec=()), metrics)

        return jax.lax.scan(one, drawn_state(agent, SPEC), jnp.arange(STEPS))[1]

    return jax.device_get(jax.jit(lambda: {name: case(arguments) for name, arguments in CASES.items()})())


@pytest.fixture(scope="module")
def expected(updates):
    """For each case and update what SAC alone makes of the same state and the relabelled batch, and its metrics."""

    def case(arguments, before, batches):
        def one(inputs):
            before, drawn, step = inputs
            agent = agents(arguments)[1](drawn)
            state = drawn_state(agent, joined(SPEC, NUM_SKILLS))._replace(
                params=before.params.sac, target_params=before.target_params, opt_state=before.opt_state.sac
            )
            after, metrics = agent.update(state, first_step(drawn), UPDATE_KEY, step)
            return after._replace(spec=()), metrics

        return jax.lax.map(one, (before, batches, jnp.arange(STEPS)))

    def run():
        found = {}
        for name, arguments in CASES.items():
            before = updates[name][0]
            batches = [relabelled(q, arguments) for q in discriminators(before)]
            found[name] = case(arguments, before, jax.tree.map(lambda *x: np.stack(x), *batches))
        return found

    return jax.device_get(jax.jit(run)())


def discriminators(states):
    """Of several states, `[STEPS, ...]`, each one's discriminator."""
    return [jax.tree.map(lambda x: x[i], states.params.discriminator) for i in range(STEPS)]


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, expected, name):
    """Each update is SAC's on the batch that the old discriminator relabelled, and the discriminator's in NumPy."""
    before, after, metrics = updates[name]
    inside, wanted = expected[name]
    slow.close(after.params.sac, inside.params, rtol=1e-3, atol=2e-4)
    slow.close(after.target_params, inside.target_params, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(after.replay, inside.replay, rtol=1e-3, atol=1e-4)
    entries = list(CASES[name].get("discriminator_observes", (0, 1)))
    weights, seen = slow.sample().weights.astype(np.float64), sample().steps.next_obs[:, 0, entries].astype(np.float64)
    q, own = Network(discriminators(before)[0], 0.04), []
    for found in discriminators(after):
        log_probs = log_q(q.params, seen)
        of_skill = log_probs[np.arange(BATCH), SKILLS]
        right = (log_probs.argmax(-1) == SKILLS).mean()
        own.append([(of_skill + np.log(NUM_SKILLS)).mean(), -(weights * of_skill).mean(), right])
        q.descend(lambda params: -(weights * log_q(params, seen)[np.arange(BATCH), SKILLS]).mean())
        slow.close(found, q.params, atol=2e-4)
    wanted |= dict(zip(("skill_reward", "discriminator_loss", "accuracy"), np.transpose(own), strict=True))
    assert metrics.keys() == wanted.keys()
    for metric, value in wanted.items():
        np.testing.assert_allclose(metrics[metric], value, rtol=1e-3, atol=1e-4, err_msg=metric)


def test_reward_by_hand():
    """q = (1/2, 1/4, 1/4) everywhere: skill 0 earns log 3/2 and the others log 3/4; batch: two of each."""
    replay = slow.always(sample(), 1)
    agent = diayn(**slow.SIZES | {"gamma": 0.0}, num_skills=NUM_SKILLS, replay=replay)

    def run():
        state = jax.tree.map(jnp.zeros_like, drawn_state(agent, SPEC))
        state.params.discriminator["params"]["head"]["output"]["bias"] = jnp.log(jnp.array([2.0, 1.0, 1.0]))
        after, metrics = agent.update(state, first_step(sample()), UPDATE_KEY, jnp.int32(0))
        return after.replay, metrics

    errors, metrics = jax.device_get(jax.jit(run)())
    np.testing.assert_allclose(errors, np.abs(np.log([1.5, 0.75, 0.75] * 2)), rtol=1e-5)  # gamma is 0, and Q is 0
    np.testing.assert_allclose(metrics["skill_reward"], np.log(1.5 * 0.75**2) / 3, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], 1 / 3, rtol=1e-5)


def test_joined_observations():
    obs = np.array([[0.5, -2.0], [1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(join(obs, jnp.array([2, 0]), 3), [[0.5, -2, 0, 0, 1], [1, 3, 1, 0, 0]])
    assert joined(SPEC, 3).obs_space.shape == (5,)


def test_bytes_are_divided_by_255():
    """By what acts and by both networks that learn: the same as from floats of a 255th."""
    sizes = {"batch_size": BATCH, "warmup_steps": BATCH, "num_envs": BATCH, "replay_size": 2 * BATCH}
    agent = diayn(num_skills=NUM_SKILLS, hidden_sizes=(HIDDEN,), **sizes)
    seen = np.random.default_rng(0).integers(0, 256, (2, BATCH, 2)).astype(np.uint8)

    def run(space, seen):
        state = agent.init(jax.random.key(0), SPEC._replace(obs_space=space))
        memory, keys = agent.init_memory(BATCH), jax.random.split(jax.random.key(1))
        action, _, extras = agent.act(state, memory, seen[0], keys[0], jnp.int32(0), explore=False)
        flag = jnp.zeros((1, BATCH), bool)
        steps = (seen[None, 0], action[None], jnp.zeros((1, BATCH)), flag, flag, seen[None, 1])
        trajectory = Transition(*steps, jax.tree.map(lambda x: x[None], extras))
        return action, agent.update(state, trajectory, keys[1], jnp.int32(0))[1]

    found = jax.jit(run, static_argnums=0)(box(0, 255, (2,), np.uint8), seen)
    wanted = jax.jit(run, static_argnums=0)(box(0, 1, (2,)), seen.astype(np.float32) / 255)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


# ---------------------------------------------------------------- in an environment


def counting(length=3):
    """Observes (the number of the step, 100 times the environment's own number); ends after some steps."""

    def reset(key):
        obs = jnp.array([0.0, jax.random.randint(key, (), 1, 1000)], jnp.float32)
        return obs, obs

    def step(key, obs, action):
        new = obs.at[0].add(1.0)
        return new, Outcome(new, jnp.float32(0), new[0] >= length, jnp.bool(False))

    return Env(reset, step, Spec("Counting-v0", box(-np.inf, np.inf, (2,)), box(-1, 1, (1,)), max_steps=100))


WIDTH, LENGTH, UPDATES = 16, 2, 12  # rollouts of 2 steps, episodes of 3


@pytest.fixture(scope="module")
def rollouts():
    """The state after training on a replay that nothing falls out of, metrics, and what the replay keeps."""
    agent = diayn(
        num_skills=4, num_envs=WIDTH, rollout_length=LENGTH, replay_size=WIDTH * LENGTH * UPDATES, batch_size=64,
        warmup_steps=64, replay_ratio=1 / 32, hidden_sizes=(HIDDEN,), n_step=2,
    )  # fmt: skip
    env = counting()

    def run(key):
        return jax.lax.scan(lambda s, _: train_step(s, agent, env), init_train(key, agent, env), length=UPDATES)

    state, metrics = jax.jit(run)(jax.random.key(0))
    return state, jax.device_get(metrics), jax.device_get(state.agent.replay)


def test_a_skill_is_drawn_once_an_episode_and_the_replay_keeps_it(rollouts):
    state, metrics, ring = rollouts
    skill = ring.rest.extras["skill"].reshape(-1, WIDTH)
    time = ring.obs.reshape(-1, WIDTH, 2)[..., 0]
    terminated = ring.rest.terminated.reshape(-1, WIDTH)
    assert skill.shape == (LENGTH * UPDATES, WIDTH)
    np.testing.assert_array_equal(time, np.tile(np.arange(LENGTH * UPDATES)[:, None] % 3, WIDTH))
    episodes = skill.reshape(-1, 3, WIDTH)
    assert (episodes == episodes[:, :1]).all()  # through the rollouts' ends, which fall at all places of an episode
    drawn = episodes[:, 0]
    assert set(drawn.ravel()) == {0, 1, 2, 3}
    assert (drawn != drawn[:, :1]).any()  # not one for all environments
    assert 0.15 < (drawn[1:] == drawn[:-1]).mean() < 0.35  # and not the last one's
    assert np.bincount(drawn.ravel()).min() > drawn.size / 4 * 0.6
    assert terminated[2::3].all()
    assert (np.asarray(state.memory) == NOT_DRAWN).all()  # the last step of all was an episode's
    assert np.isfinite(metrics["critic_loss"]).all()
    assert (metrics["accuracy"][2:] > 0).any()


def test_terminal_states_reach_the_discriminator(rollouts):
    """What follows a terminal step is kept, although nothing bootstraps from it: here, a 3 that is never acted on."""
    _, _, ring = rollouts
    kept, obs = ring.apart[: LENGTH * UPDATES * WIDTH], ring.obs
    assert len(kept) == len(obs)
    np.testing.assert_array_equal(kept[:, 0], obs[:, 0] + 1)
    np.testing.assert_array_equal(kept[:, 1], obs[:, 1])


def test_acting():
    """A skill that is carried stays, the others are drawn; policy, extras and memory agree; also when exploiting."""
    agent = diayn(num_skills=4, hidden_sizes=(HIDDEN,), warmup_steps=300)
    memory = jnp.concatenate([jnp.full(2000, NOT_DRAWN), jnp.arange(4, dtype=jnp.int32)])
    obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (2004, 2))

    def run():
        state = drawn_state(agent, SPEC)
        return state.params.sac.actor, [
            agent.act(state, memory, obs, jax.random.key(i), jnp.int32(1000), explore=bool(i)) for i in range(2)
        ]

    actor, acted = jax.device_get(jax.jit(run)())
    for action, skill, extras in acted:
        np.testing.assert_array_equal(skill[2000:], np.arange(4))
        np.testing.assert_array_equal(extras["skill"], skill)
        assert skill.dtype == np.int32
        np.testing.assert_allclose(np.bincount(skill[:2000], minlength=4) / 2000, 0.25, atol=0.05)
        assert action.shape == (2004, 2)
    assert (acted[0][1][:2000] != acted[1][1][:2000]).mean() > 0.6  # another key, other skills
    greedy, skill, _ = acted[0]
    seen = np.concatenate([np.asarray(obs), np.eye(4)[skill]], -1)
    mean = slow.output(actor, seen)[:, :2]
    np.testing.assert_allclose(greedy, np.tanh(mean) * [2, 5] + [0, 5], atol=1e-4)
    assert len(np.unique(greedy[:, 0].round(4))) == 4  # one action a skill
    np.testing.assert_array_equal(agent.init_memory(3), [NOT_DRAWN] * 3)


def test_evaluation_averages_over_skills():
    """Each episode of Point-v0 keeps its skill: returns differ, although all policies are deterministic."""
    env = make("jaxrl/Point-v0", max_steps=5)
    agent = diayn(num_skills=4, hidden_sizes=(HIDDEN,))

    def fixed_start(key):
        state, _ = env.reset(key)
        state = state._replace(position=jnp.zeros(2))
        return state, state.position

    still = env._replace(reset=fixed_start)

    def run():
        return evaluate(jax.random.key(0), agent, drawn_state(agent, env.spec), still, 64)

    returns = np.asarray(jax.jit(run)())
    assert len(np.unique(returns.round(5))) == 4


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "change", "words"),
    [
        ({}, {"action_space": Discrete(3)}, ["discrete actions"]),
        ({}, {"action_space": box(-1, np.inf, (1,))}, ["finite"]),
        ({}, {"obs_space": Discrete(4)}, ["Discrete(n=4)", "vectors"]),
        ({}, {"obs_space": box(0, 1, (5, 5, 2))}, ["vectors"]),
        ({"discriminator_observes": (0, 2)}, {}, ["discriminator_observes[1]=2", "one of 0, 1"]),
    ],
    ids=["discrete", "unbounded", "integers", "images", "entries"],
)
def test_environments_that_do_not_fit(arguments, change, words):
    with pytest.raises(JaxrlError) as error:
        diayn(**arguments).init(jax.random.key(0), SPEC._replace(**change))
    assert all(word in str(error.value) for word in ("diayn: ", *words)), error.value


def test_entries_are_whole_numbers():
    with pytest.raises(JaxrlError, match=r"diayn: discriminator_observes\[0\]=-1 is not accepted"):
        diayn(discriminator_observes=(-1,))
