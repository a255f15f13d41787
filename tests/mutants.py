"""Small faults put into the library one at a time, to see whether the fast tests notice.

    python tests/mutants.py                       all of them
    python tests/mutants.py --only replay         those of which the file or the text has "replay" in it
    python tests/mutants.py --check               whether each can still be made, without running anything
    python tests/mutants.py --whole --out r.json  what its own tests let pass is given to the whole fast suite

A mutant is a text of a file that is there exactly once, another one in its place, and the tests that are most likely to
notice first. It is applied to a copy of the tree, so the sources stay as they are. It is *killed* where one of its
tests fails, which in the end has to pass without it. Where they take more than `LIMIT` seconds it counts as killed if
they take less than a fifth of that without it. The exit status is 1 where more than 5 % survive, or an entry is stale.

Where a source has changed so that the text is no longer there once, `--check` says so, and the entry is to be adapted.
Mutants that change nothing that anybody could see are of no use: none of these should be one.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 600.0  # seconds for the tests of a mutant
SLOW = f"no end within {LIMIT:.0f} s"
FAILURE = r"^(FAILED|ERROR) (?:tests/)?(.+?)(?: - .*)?$"
WHOLE_SUITE = 7200.0
ACCEPTED = 0.05  # of the mutants may survive


class Mutant(NamedTuple):
    """A change of one file under `jaxrl/`, and the tests to begin with, under `tests/`, apart by spaces."""

    file: str
    old: str
    new: str
    tests: str

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())[:60]} -> {' '.join(self.new.split())[:60]}"


EXPERIENCE = "learning/test_experience.py"
FLOATS = "agents/test_arguments.py::test_every_float_is_used"
OTHERS = "agents/test_arguments.py::test_every_other_argument_is_used"
KEYS = "agents/test_arguments.py::test_keys"
PRESETS = "agents/test_presets.py"
DQN = "agents/test_dqn.py"
HOST = "runs/test_host.py"
M = Mutant
MUTANTS = [
    # ---------------------------------------------------------------- agents with a replay
    M("learning/experience.py", "seen >= self.warmup_steps", "seen > self.warmup_steps", DQN),
    M(
        "learning/experience.py",
        "counts = step // added * gradient_steps + jnp.arange(",
        "counts = jnp.arange(",
        EXPERIENCE,
    ),
    M("learning/experience.py", "relabelled(strategy=hindsight)", "relabelled()", f"{OTHERS}[dqn]"),
    M(
        "learning/experience.py",
        '"alpha": priority_alpha, "beta": priority_beta,',
        '"alpha": priority_alpha,',
        f"{FLOATS}[dqn]",
    ),
    M("learning/experience.py", ', "beta_steps": priority_beta_steps}', "}", f"{OTHERS}[dqn]"),
    M(
        "learning/experience.py",
        "replay.sample(memory, sample_key, seen, length)\n                learner",
        "replay.sample(memory, sample_key, step, length)\n                learner",
        f"{DQN} {EXPERIENCE}",
    ),
    M("learning/experience.py", "aggregate(sample, self.gamma)", "aggregate(sample, 1.0)", DQN),
    M(
        "learning/experience.py",
        "memory, seen_errors = replay.update(memory, *seen_errors), ()",
        "seen_errors = ()",
        f"{EXPERIENCE} {DQN}",
    ),
    M("learning/experience.py", "* added // gradient_steps  #", "* added  #", f"{EXPERIENCE} {DQN}"),
    M(
        "learning/experience.py",
        "normalize.act_normalized(agent) if self.normalized",
        "agent if self.normalized",
        f"{OTHERS}[dqn]",
    ),
    M("learning/value_regression.py", "jnp.mean(weights * out.loss)", "jnp.mean(out.loss)", "agents/test_r2d2.py"),
    M("learning/value_regression.py", "annealed(moment.begin, anneal_steps) * u", "u", f"{OTHERS}[dqn]"),
    M("learning/value_regression.py", "1.0 - (1.0 - tau) ** due)", "tau)", f"{DQN} {EXPERIENCE}"),
    M(
        "learning/value_regression.py",
        "due = moment.end // target_update_every - moment.begin // target_update_every",
        "due = 1 * (moment.end // target_update_every > moment.begin // target_update_every)",
        f"{DQN} {EXPERIENCE}",
    ),
    M("learning/value_regression.py", "target_params, moved)", "target_params, 1.0)", DQN),
    M("learning/value_regression.py", "optax.clip_by_global_norm(max_grad_norm)", "optax.clip(max_grad_norm)", DQN),
    M(
        "agents/value_based/dqn.py",
        "best = jnp.argmax(head.mean(chooser), axis=-1)",
        "best = jnp.argmax(head.mean(outputs), axis=-1)",
        DQN,
    ),
    M(
        "agents/value_based/dqn.py",
        "chooser = apply(params, batch.next_obs, spec, choice_key) if double",
        "chooser = apply(params, batch.next_obs, spec, value_key) if double",
        f"{KEYS}[rainbow]",
    ),
    M(
        "agents/value_based/dqn.py",
        "apply(target_params, batch.next_obs, spec, value_key)",
        "apply(params, batch.next_obs, spec, value_key)",
        DQN,
    ),
    M(
        "agents/value_based/dqn.py",
        "outputs = apply(state.params, obs, state.spec, noise_key)",
        "outputs = apply(state.params, obs, state.spec, jax.random.key(0) if noisy else None)",
        f"{KEYS}[rainbow]",
    ),
    M(
        "agents/value_based/dqn.py",
        'dueling=dueling_aggregation if dueling else "none"',
        'dueling="mean" if dueling else "none"',
        f"{OTHERS}[dqn]",
    ),
    M(
        "agents/value_based/dqn.py",
        "epsilon_at(step) if explore else 0.0), memory",
        "epsilon_at(step)), memory",
        DQN,
    ),
    M(
        "exploration.py",
        "optax.linear_schedule(epsilon_start, epsilon_final, epsilon_decay_steps)",
        "optax.linear_schedule(epsilon_final, epsilon_start, epsilon_decay_steps)",
        DQN,
    ),
    M(
        "learning/value_heads.py",
        "return cross_entropy, cross_entropy - entropy",
        "return cross_entropy, jnp.ones_like(entropy)",
        f"{DQN} {PRESETS}",
    ),
    M(
        "learning/value_heads.py",
        "return quantile_huber_loss(values, target), distance",
        "return quantile_huber_loss(values, target), jnp.ones_like(distance)",
        f"{DQN} {PRESETS}",
    ),
    M(
        "learning/value_heads.py",
        "moved = reward[:, None] + discount[:, None] * support",
        "moved = reward[:, None] + support",
        DQN,
    ),
    M(
        "learning/value_heads.py",
        "support = jnp.linspace(v_min, v_max, atoms)",
        "support = jnp.linspace(v_min, -v_min, atoms)",
        f"{FLOATS}[dqn]",
    ),
    M(
        "learning/value_heads.py",
        "return reward[:, None] + discount[:, None] * next_quantiles",
        "return reward[:, None] + next_quantiles",
        DQN,
    ),
    M(
        "agents/off_policy/td3.py",
        "y = batch.reward + batch.discount * next_q.min(axis=0)",
        "y = batch.reward + batch.discount * next_q.mean(axis=0)",
        "agents/test_td3.py",
    ),
    M(
        "agents/off_policy/td3.py",
        "apply(target.actor, batch.next_obs) + smoothing",
        "apply(params.actor, batch.next_obs) + smoothing",
        "agents/test_td3.py",
    ),
    M(
        "agents/off_policy/td3.py",
        "-target_noise_clip, target_noise_clip)",
        "-target_noise, target_noise)",
        "agents/test_td3.py",
    ),
    M(
        "agents/off_policy/td3.py",
        "lambda x: x[:1], params.critics)",
        "lambda x: x[-1:], params.critics)",
        "agents/test_td3.py",
    ),
    M(
        "agents/off_policy/td3.py",
        "actor_target_update_every or target_update_every",
        "target_update_every",
        f"{OTHERS}[td3]",
    ),
    M("agents/off_policy/td3.py", "if random_warmup:", "if True:", f"{OTHERS}[td3]"),
    M("agents/off_policy/ddpg.py", 'noise: str = "ornstein_uhlenbeck"', 'noise: str = "gaussian"', PRESETS),
    M("agents/off_policy/ddpg.py", "target_noise: float = 0.0", "target_noise: float = 0.2", PRESETS),
    M("agents/off_policy/redq.py", "target_critics: int = 2", "target_critics: int = 0", PRESETS),
    M(
        "agents/off_policy/redq.py",
        "target_critics=target_critics, policy_value=policy_value,",
        "target_critics=target_critics,",
        PRESETS,
    ),
    M("agents/off_policy/redq.py", "dropout: float = 0.01", "dropout: float = 0.0", PRESETS),
    M(
        "constructors.py",
        "agent = renaming(function)(*args",
        "agent = function(*args",
        "test_constructors.py test_checks.py",
    ),
    M("constructors.py", "init=renaming(agent.init)", "init=agent.init", "test_constructors.py"),
    M("constructors.py", "for function in reversed(lineage", "for function in (lineage", "test_constructors.py"),
    M("constructors.py", "if p.name not in gone]", "]", "test_constructors.py"),
    M("constructors.py", "if k not in same}", "}", "test_constructors.py"),
    M(
        "constructors.py",
        "all(map(operator.is_, call.parts, value if call.parts else ()))",
        "True",
        "test_constructors.py",
    ),
    M("learning/off_policy.py", "(count + 1) % period == 0", "count % period == 0", "learning/test_off_policy.py"),
    M(
        "learning/off_policy.py",
        "jnp.abs(errors).mean(axis=0)",
        "jnp.abs(errors.mean(axis=0))",
        "learning/test_off_policy.py",
    ),
    M(
        "learning/off_policy.py",
        "0.5 * jnp.mean(weights * jnp.sum(",
        "0.5 * jnp.mean(jnp.sum(",
        "learning/test_off_policy.py",
    ),
    M(
        "learning/off_policy.py",
        "jnp.where(step < warmup_steps, drawn, action)",
        "jnp.where(step > warmup_steps, drawn, action)",
        "agents/test_sac.py agents/test_td3.py",
    ),
    M(
        "agents/off_policy/sac.py",
        "next_q - next_alpha * next_log_prob  # equation 3",
        "next_q + next_alpha * next_log_prob",
        "agents/test_sac.py",
    ),
    M(
        "agents/off_policy/sac.py",
        "q_values(chosen, batch.next_obs",
        "q_values(params.critics, batch.next_obs",
        "agents/test_sac.py",
    ),
    M(
        "agents/off_policy/sac.py",
        "return jnp.mean(alpha * log_prob - q), -log_prob",
        "return jnp.mean(log_prob - q), -log_prob",
        "agents/test_sac.py",
    ),
    M(
        "agents/off_policy/sac.py",
        "POLICY_VALUES[policy_value](q_values(params.critics,",
        "POLICY_VALUES['min'](q_values(params.critics,",
        f"{OTHERS}[sac]",
    ),
    M(
        "agents/off_policy/sac.py",
        'rngs = None if isinstance(dropout, int | float) and dropout == 0 else {"dropout": key}',
        "rngs = None",
        f"{FLOATS}[sac]",
    ),
    M(
        "agents/off_policy/sac.py",
        "target_entropy * spec.action_space.shape[0], make_torso(",
        "target_entropy, make_torso(",
        "agents/test_sac.py",
    ),
    M(
        "agents/off_policy/sac_v1.py",
        ".min(axis=0) - alpha * log_prob",
        ".mean(axis=0) - alpha * log_prob",
        "agents/test_sac_v1.py",
    ),
    M(
        "agents/off_policy/sac_v1.py",
        "value(spec).apply(target, batch.next_obs)",
        "value(spec).apply(params.value, batch.next_obs)",
        "agents/test_sac_v1.py",
    ),
    M(
        "agents/off_policy/sac_v1.py",
        "moment.count, params.value, target, tau)",
        "moment.count, params.value, target, 1.0)",
        "agents/test_sac_v1.py",
    ),
    M(
        "agents/off_policy/discrete_sac.py",
        "(q - alpha[..., None] * log_pi)",
        "(q + alpha[..., None] * log_pi)",
        "agents/test_discrete_sac.py",
    ),
    M(
        "agents/off_policy/discrete_sac.py",
        "critics(spec).apply(target, batch.next_obs)",
        "critics(spec).apply(params.critics, batch.next_obs)",
        "agents/test_discrete_sac.py",
    ),
    M(
        "agents/off_policy/discrete_sac.py",
        'target_entropy_ratio * math.log(num_actions("discrete_sac", spec))',
        'target_entropy_ratio * num_actions("discrete_sac", spec)',
        "agents/test_discrete_sac.py",
    ),
    M(
        "learning/temperature.py",
        "(entropy - target_entropy)",
        "(target_entropy - entropy)",
        "learning/test_temperature.py",
    ),
    M("learning/temperature.py", "jnp.minimum(step / steps, 1.0)", "step / steps", "learning/test_temperature.py"),
    M(
        "agents/off_policy/diayn.py",
        "log_prob(skill) + math.log(num_skills)",
        "log_prob(skill)",
        "agents/test_diayn.py",
    ),
    M(
        "agents/off_policy/diayn.py",
        "guess(params.discriminator, next_obs)",
        "guess(params.discriminator, obs)",
        "agents/test_diayn.py",
    ),
    M(
        "agents/off_policy/diayn.py",
        "reward=reward + reward_weight * steps.reward",
        "reward=reward",
        f"{FLOATS}[diayn]",
    ),
    M("agents/off_policy/diayn.py", "jnp.where(memory == NOT_DRAWN, drawn, memory)", "drawn", "agents/test_diayn.py"),
    M(
        "agents/value_based/naf.py",
        "return quadratic.value - 0.5 *",
        "return quadratic.value + 0.5 *",
        "agents/test_naf.py",
    ),
    M("agents/value_based/naf.py", '"...ij,...i->...j"', '"...ij,...j->...i"', "agents/test_naf.py"),
    M(
        "agents/value_based/naf.py",
        "network(spec).apply(target_params, batch.next_obs).value",
        "network(spec).apply(params, batch.next_obs).value",
        "agents/test_naf.py",
    ),
    M(
        "agents/value_based/r2d2.py",
        "priority_eta * sizes.max(axis=0)",
        "priority_eta * sizes.mean(axis=0)",
        "agents/test_r2d2.py",
    ),
    M("agents/value_based/r2d2.py", "jax.lax.stop_gradient(carry))", "carry)", "agents/test_r2d2.py"),
    M(
        "agents/value_based/r2d2.py",
        "spread_epsilons(epsilon_at(step), epsilon_spread, len(obs))",
        "spread_epsilons(epsilon_at(step), 7.0, len(obs))",
        f"{FLOATS}[r2d2]",
    ),
    M(
        "agents/value_based/r2d2.py",
        "jnp.column_stack([carries[0], action + 1])",
        "jnp.column_stack([carries[0], action])",
        "agents/test_r2d2.py",
    ),
    M(
        "agents/value_based/r2d2.py",
        "jnp.argmax(jax.lax.stop_gradient(q[1:]) if double else next_q, axis=-1)",
        "jnp.argmax(next_q, axis=-1)",
        f"{OTHERS}[r2d2]",
    ),
    M("agents/value_based/r2d2.py", "counts = valid & used", "counts = valid", "agents/test_r2d2.py"),
    M("agents/value_based/r2d2.py", "root = 2 * constant /", "root = constant /", "agents/test_r2d2.py"),
    M("agents/value_based/r2d2.py", "taken - squash(returns)", "taken - returns", "agents/test_r2d2.py"),
    M(
        "agents/value_based/nfq.py",
        "target = steps.reward + gamma * (1.0 - steps.terminated) * best",
        "target = steps.reward + gamma * best",
        "agents/test_nfq.py",
    ),
    M("agents/value_based/nfq.py", "counts = valid & (slots < seen)", "counts = valid", "agents/test_nfq.py"),
    M(
        "agents/value_based/nfq.py",
        "optax.linear_schedule(learning_rate, 0.0, num_gradient_steps)",
        "learning_rate",
        "agents/test_nfq.py",
    ),
    M(
        "agents/policy_gradient/acer.py",
        "jnp.maximum(0.0, jnp.sum(k * g, axis=-1, keepdims=True) - delta)",
        "jnp.abs(jnp.sum(k * g, axis=-1, keepdims=True) - delta)",
        "agents/test_acer.py",
    ),
    M(
        "agents/policy_gradient/acer.py",
        "jnp.exp(jnp.minimum(log_ratios[0], log_clip))",
        "jnp.exp(jnp.maximum(log_ratios[0], log_clip))",
        "agents/test_acer.py",
    ),
    M(
        "agents/policy_gradient/acer.py",
        "carry.average, 1.0 - average_decay)",
        "carry.average, average_decay)",
        "agents/test_acer.py",
    ),
    M("agents/policy_gradient/acer.py", "log_rhos[0] / space.shape[0])", "log_rhos[0])", "agents/test_acer.py"),
    M(
        "agents/policy_gradient/acer.py",
        "last = ~jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])",
        "last = ~valid",
        "agents/test_acer.py",
    ),
    M(
        "networks/acer.py",
        "value + advantages - sampled.mean(axis=0)",
        "value + advantages",
        "agents/test_acer.py",
    ),
    M(
        "learning/action_noise.py",
        "scale * (final / scale) ** done",
        "scale * (scale / final) ** done",
        "learning/test_action_noise.py",
    ),
    M(
        "learning/action_noise.py",
        "ornstein_uhlenbeck(key, memory[:, :size], theta)",
        "ornstein_uhlenbeck(key, memory[:, :size])",
        f"{FLOATS}[td3]",
    ),
    M("learning/action_noise.py", "memory.at[:, :size].set(wander)", "memory", "learning/test_action_noise.py"),
    M(
        "learning/action_scale.py",
        "(jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0",
        "(action + 1.0) / 2.0",
        "agents/test_ppo.py::test_to_action_space",
    ),
    M(
        "learning/action_scale.py",
        "2.0 * (action - space.low) / (space.high - space.low) - 1.0",
        "2.0 * (action - space.low) / (space.high - space.low)",
        "agents/test_naf.py",
    ),
    # ---------------------------------------------------------------- policy gradients
    M(
        "agents/policy_gradient/ppo.py",
        "-jnp.minimum(ratio * advantage, clipped * advantage)",
        "-jnp.maximum(ratio * advantage, clipped * advantage)",
        "agents/test_ppo.py",
    ),
    M(
        "agents/policy_gradient/ppo.py",
        "value_coef * value_loss - entropy_coef * entropy",
        "value_coef * value_loss + entropy_coef * entropy",
        "agents/test_ppo.py",
    ),
    M(
        "agents/policy_gradient/ppo.py",
        "jnp.maximum(value_error, jnp.square(near - batch.target))",
        "jnp.minimum(value_error, jnp.square(near - batch.target))",
        "agents/test_ppo.py",
    ),
    M("agents/policy_gradient/ppo.py", "kl < target / 1.5, 0.5,", "kl < target / 1.5, 2.0,", "agents/test_ppo.py"),
    M("agents/policy_gradient/ppo.py", "jnp.where(penalty == 0, 0.0, bounded)", "bounded", "agents/test_ppo.py"),
    M(
        "agents/policy_gradient/ppo.py",
        "(jnp.exp(log_ratio) - 1 - log_ratio).mean()",
        "(jnp.exp(log_ratio) - 1 + log_ratio).mean()",
        "agents/test_ppo.py",
    ),
    M("agents/policy_gradient/ppo.py", "kl > target * 1.5", "kl > target * 15", "agents/test_ppo.py"),
    M(
        "agents/policy_gradient/ppo.py",
        "policy, _ = policy_and_value(networks.of(state.spec), params, data)",
        "policy, _ = policy_and_value(networks.of(state.spec), state.params, data)",
        "agents/test_ppo.py",
    ),
    M(
        "agents/policy_gradient/ppo.py",
        "return total + penalty * kl if penalized else total, metrics",
        "return total, metrics",
        "agents/test_ppo.py",
    ),
    M("agents/policy_gradient/ppo.py", "num_workers > 1 else tree", "num_workers > 2 else tree", "agents/test_dppo.py"),
    M(
        "learning/actor_critic.py",
        "discounts = gamma * (1.0 - trajectory.terminated)",
        "discounts = gamma * (1.0 - (trajectory.terminated | trajectory.truncated))",
        "agents/test_ppo.py agents/test_a2c.py",
    ),
    M(
        "learning/actor_critic.py",
        "(values - new.mean) / new.sigma,",
        "values,",
        "agents/test_ppo.py agents/test_a2c.py",
    ),
    M("learning/actor_critic.py", "(targets - new.mean) / new.sigma,", "targets / new.sigma,", "agents/test_ppo.py"),
    M(
        "learning/actor_critic.py",
        "head = preserve_outputs(params[",
        "head = (lambda x, *_: x)(params[",
        "agents/test_a2c.py",
    ),
    M(
        "learning/actor_critic.py",
        "jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])",
        "ended",
        "agents/test_ppo.py agents/test_a2c.py",
    ),
    M(
        "learning/actor_critic.py",
        "gae(trajectory.reward, discounts, values, next_values, gae_lambda, ended)",
        "gae(trajectory.reward, discounts, values, next_values, gae_lambda, trajectory.terminated)",
        "agents/test_ppo.py agents/test_a2c.py",
    ),
    M(
        "learning/advantages.py",
        "centred = advantages - average(advantages.mean(where=where))",
        "centred = advantages",
        "agents/test_ppo.py",
    ),
    M(
        "learning/advantages.py",
        "(targets - values).var(where=where)",
        "(targets - values).var()",
        "agents/test_trpo.py agents/test_reinforce.py",
    ),
    M(
        "agents/policy_gradient/a2c.py",
        "- entropy_coef * entropy, metrics",
        "+ entropy_coef * entropy, metrics",
        "agents/test_a2c.py",
    ),
    M("agents/policy_gradient/a2c.py", "gae_lambda: float = 0.0,", "gae_lambda: float = 1.0,", PRESETS),
    M(
        "agents/policy_gradient/a3c.py",
        "in_turn = jax.tree.map(lambda x: x[order], grads)",
        "in_turn = grads",
        "agents/test_a3c.py",
    ),
    M("agents/policy_gradient/a3c.py", ".set(new[turn])", ".set(new)", "agents/test_a3c.py"),
    M(
        "agents/policy_gradient/a3c.py",
        "// (num_envs * rollout_length) % delay",
        "// num_envs % delay",
        "agents/test_a3c.py",
    ),
    M(
        "learning/minibatch.py",
        "jax.random.permutation(k, num_rows)",
        "jax.numpy.arange(num_rows)",
        "agents/test_ppo.py",
    ),
    M(
        "learning/minibatch.py",
        "(slice(None), rows) if sequences else rows",
        "(rows, slice(None)) if sequences else rows",
        "agents/test_ppo.py agents/test_a2c.py",
    ),
    M(
        "learning/optimizer.py",
        "jnp.maximum(0.0, 1.0 - step / anneal_steps)",
        "1.0 - step / anneal_steps",
        "agents/test_ppo.py agents/test_cem.py",
    ),
    M(
        "learning/optimizer.py",
        "size = learning_rate * annealed(step, anneal_steps)",
        "size = learning_rate",
        f"{OTHERS}[ppo]",
    ),
    M(
        "agents/policy_gradient/trpo.py",
        "loss = -(ratio * advantages).mean(where=counts)",
        "loss = -(ratio * advantages).mean()",
        "agents/test_trpo.py",
    ),
    M(
        "agents/policy_gradient/trpo.py",
        "conjugate_gradient(fisher, -gradient, cg_iterations)",
        "conjugate_gradient(fisher, gradient, cg_iterations)",
        "agents/test_trpo.py",
    ),
    M(
        "agents/policy_gradient/trpo.py",
        "kl = old.kl_divergence(new)",
        "kl = new.kl_divergence(old)",
        "agents/test_trpo.py",
    ),
    M("agents/policy_gradient/trpo.py", "line_search: bool = False,", "line_search: bool = True,", PRESETS),
    M(
        "learning/natural_gradient.py",
        "hessian_product(v) + damping * v",
        "hessian_product(v)",
        "learning/test_natural_gradient.py",
    ),
    M(
        "learning/natural_gradient.py",
        "(trial.loss < loss) & (trial.kl <= max_kl)",
        "(trial.loss < loss)",
        "learning/test_natural_gradient.py",
    ),
    M(
        "learning/natural_gradient.py",
        "jnp.sqrt(2 * max_kl /",
        "jnp.sqrt(max_kl /",
        "learning/test_natural_gradient.py",
    ),
    M(
        "learning/natural_gradient.py",
        "new_square / square * direction",
        "square / new_square * direction",
        "learning/test_natural_gradient.py",
    ),
    M(
        "agents/policy_gradient/reinforce.py",
        "(advantages * log_prob).mean(where=counts)",
        "(advantages * log_prob).mean()",
        "agents/test_reinforce.py",
    ),
    M(
        "agents/policy_gradient/reinforce.py",
        "first = jnp.concatenate([jnp.ones_like(ended[:1]), ended[:-1]])",
        "first = ended",
        "agents/test_reinforce.py",
    ),
    M(
        "learning/baseline.py",
        "features(obs, length - 1)",
        "features(obs, length)",
        "learning/test_baseline.py",
    ),
    M("learning/baseline.py", "gram + ridge * jnp.eye(size)", "gram", "learning/test_baseline.py"),
    M(
        "learning/baseline.py",
        "(targets[rows] - scale.mean) / scale.sigma",
        "targets[rows]",
        "learning/test_baseline.py",
    ),
    M("learning/episodes.py", "return ends | (before == 0)", "return ends", "learning/test_episodes.py"),
    M(
        "agents/value_based/pqn.py",
        "discounts = gamma * (1.0 - trajectory.terminated)",
        "discounts = gamma * (1.0 - 0 * trajectory.terminated)",
        "agents/test_pqn.py",
    ),
    M(
        "agents/value_based/pqn.py",
        "lambda_returns(trajectory.reward, discounts, next_values, lambda_, ended)",
        "lambda_returns(trajectory.reward, discounts, next_values, lambda_)",
        "agents/test_pqn.py",
    ),
    # ---------------------------------------------------------------- search and tables
    M("agents/search/cem.py", "axis=0, where=finite[:, None])", "axis=0)", "agents/test_cem.py"),
    M(
        "agents/search/cem.py",
        "annealed(step + num_envs * rollout_length, noise_decay_steps)",
        "annealed(step, noise_decay_steps)",
        "agents/test_cem.py",
    ),
    M(
        "agents/search/cem.py",
        "state.population if explore else state.mean[None]",
        "state.population if explore else state.population[:1]",
        "agents/test_cem.py",
    ),
    M(
        "agents/search/hill_climbing.py",
        "state.noise / noise_factor, state.noise * noise_factor",
        "state.noise * noise_factor, state.noise / noise_factor",
        "agents/test_cem.py",
    ),
    M(
        "agents/search/hill_climbing.py",
        "(usable.max() >= state.score)",
        "(usable.max() > state.score)",
        "agents/test_cem.py",
    ),
    M(
        "learning/parameter_search.py",
        ".reshape(num_candidates, -1).mean(axis=1)",
        ".reshape(-1, num_candidates).mean(axis=0)",
        "agents/test_cem.py",
    ),
    M(
        "agents/tabular/q_learning.py",
        "gamma * (1 - terminated) * state.q[next_obs].max()",
        "gamma * state.q[next_obs].max()",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/double_q_learning.py",
        "state.tables[1 - learner, next_obs, best]",
        "state.tables[learner, next_obs, best]",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/expected_sarsa.py",
        "epsilon_greedy_probabilities(state.q[next_obs], epsilon_at(step))",
        "epsilon_greedy_probabilities(state.q[next_obs], 0.0)",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/sarsa.py",
        "state.q[next_obs, next_action] - state.q[obs, action]",
        "state.q[next_obs].max() - state.q[obs, action]",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/sarsa_lambda.py",
        "jnp.where(terminated | truncated, 0, gamma * lambda_ * trace)",
        "jnp.where(terminated, 0, gamma * lambda_ * trace)",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/sarsa_lambda.py",
        "jnp.maximum(state.trace, visited)",
        "state.trace + visited",
        "agents/test_tabular.py",
    ),
    M("agents/tabular/monte_carlo.py", "whole & ~(seen[obs, action] & first_visit)", "whole", "agents/test_tabular.py"),
    M(
        "agents/tabular/n_step_sarsa.py",
        "bootstrap = (1 - terminated) * state.q",
        "bootstrap = state.q",
        "agents/test_tabular.py",
    ),
    M("agents/tabular/td.py", "gamma * lambda_ * trace)", "lambda_ * trace)", "agents/test_tabular.py"),
    M("agents/tabular/td.py", "now = ended | online", "now = online", "agents/test_tabular.py"),
    M(
        "learning/tables.py",
        "(age <= window.count) & (ended | (age == n))",
        "(age <= window.count) & ended",
        "agents/test_tabular.py",
    ),
    M(
        "learning/tables.py",
        "jnp.where(memory, state.next_action, chosen) if explore else chosen",
        "chosen",
        "agents/test_tabular.py",
    ),
    # ---------------------------------------------------------------- replays
    M("replay/uniform.py", "jnp.minimum(step, capacity))  # 0 is", "capacity)  # 0 is", "replay/test_uniform.py"),
    M("replay/ring.py", "newest = age == 0", "newest = age < 0", "replay/test_uniform.py"),
    M("replay/ring.py", "apart = truncated | newest", "apart = newest", "replay/test_uniform.py"),
    M("replay/ring.py", "later(layout, slots, 1)", "later(layout, slots, 0)", "replay/test_uniform.py"),
    M("replay/ring.py", "ahead <= last_valid(", "ahead < last_valid(", "replay/test_uniform.py replay/test_n_step.py"),
    M(
        "replay/ring.py",
        "jnp.minimum(first_end, ages(layout, slots, step))",
        "first_end",
        "replay/test_uniform.py replay/test_n_step.py",
    ),
    M("replay/ring.py", "(rows + block - 2) // block + 1", "(rows + block - 2) // block", "replay/test_uniform.py"),
    M("replay/n_step.py", "powers[1:][last]", "powers[last]", "replay/test_n_step.py"),
    M(
        "replay/n_step.py",
        "last = jnp.maximum(jnp.sum(valid, axis=1) - 1, 0)",
        "last = jnp.full(len(valid), length - 1)",
        "replay/test_n_step.py",
    ),
    M(
        "replay/prioritized.py",
        "(jnp.abs(td_errors) + epsilon) ** alpha",
        "(jnp.abs(td_errors) + 1e-3) ** alpha",
        "replay/test_prioritized.py",
    ),
    M(
        "replay/prioritized.py",
        "(jnp.abs(td_errors) + epsilon) ** alpha, 0.0",
        "jnp.abs(td_errors) + epsilon, 0.0",
        "replay/test_prioritized.py",
    ),
    M("replay/prioritized.py", "jnp.maximum(state.highest, highest))", "highest)", "replay/test_prioritized.py"),
    M(
        "replay/prioritized.py",
        "jnp.broadcast_to(state.highest, ",
        "jnp.broadcast_to(1.0, ",
        "replay/test_prioritized.py",
    ),
    M("replay/prioritized.py", "** -beta, 1.0)", "** -1.0, 1.0)", "replay/test_prioritized.py"),
    M("replay/prioritized.py", "least = relative.min()", "least = relative.mean()", "replay/test_prioritized.py"),
    M(
        "replay/prioritized.py",
        "order = jnp.argsort(-errors)",
        "order = jnp.argsort(errors)",
        "replay/test_prioritized.py",
    ),
    M("replay/prioritized.py", 'seen, side="right")', 'seen, side="left") - 1', "replay/test_prioritized.py"),
    M(
        "replay/prioritized.py",
        "(step + added) // sort_every != step // sort_every",
        "step // sort_every == 0",
        "replay/test_prioritized.py",
    ),
    M("replay/sum_tree.py", "here = (child > 0) & (end <= rest)", "here = end <= rest", "replay/test_sum_tree.py"),
    M(
        "replay/sum_tree.py",
        "(jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size",
        "jax.random.uniform(key, (batch_size,))",
        "replay/test_sum_tree.py",
    ),
    M(
        "replay/sum_tree.py",
        "start // FANOUT, len(level) - count)",
        "start // FANOUT, len(level))",
        "replay/test_sum_tree.py",
    ),
    M("replay/hindsight.py", "< probability", "< 0.8", "replay/test_hindsight.py"),
    M("replay/hindsight.py", "first, last + 1)", "first, last)", "replay/test_hindsight.py"),
    M(
        "replay/hindsight.py",
        "return steps, reached_before == 0",
        "return steps, reached_before >= 0",
        "replay/test_hindsight.py",
    ),
    M(
        "replay/hindsight.py",
        "(steps.truncated | steps.terminated) & ~terminated",
        "steps.truncated & ~terminated",
        "replay/test_hindsight.py",
    ),
    # ---------------------------------------------------------------- returns, losses, exploring, statistics
    M("returns.py", "decay * jnp.where(stop, 0.0, acc)", "decay * acc", "test_returns.py"),
    M("returns.py", "discounts * (1 - mix) * next_values", "discounts * mix * next_values", "test_returns.py"),
    M(
        "returns.py",
        "deltas = rewards + discounts * next_values - values\n    advantages",
        "deltas = rewards + next_values - values\n    advantages",
        "test_returns.py",
    ),
    M(
        "returns.py",
        "jnp.where(stops, next_values, jnp.roll(targets, -1, axis=0))",
        "jnp.where(stops, next_values, jnp.roll(values, -1, axis=0))",
        "test_returns.py",
    ),
    M("returns.py", "_clipped_ratios(log_rhos, clip_c)", "_clipped_ratios(log_rhos, clip_rho)", "test_returns.py"),
    M(
        "returns.py",
        "corrections = traces * jnp.where(stops, 0.0, next_q_taken)",
        "corrections = traces * next_q_taken",
        "test_returns.py",
    ),
    M("returns.py", "fori_loop(1, n, one_more", "fori_loop(0, n, one_more", "test_returns.py"),
    M(
        "losses.py",
        "jnp.clip((targets - support[0]) / spacing, 0, last)",
        "(targets - support[0]) / spacing",
        "test_losses.py",
    ),
    M("losses.py", "jnp.where(u < 0, 1 - tau, tau)", "jnp.where(u < 0, tau, 1 - tau)", "test_losses.py"),
    M(
        "losses.py",
        "dtype=quantiles.dtype) + 0.5) / num_quantiles",
        "dtype=quantiles.dtype) + 1.0) / num_quantiles",
        "test_losses.py",
    ),
    M("losses.py", "near = jnp.clip(u, -kappa, kappa)", "near = jnp.clip(u, -1.0, 1.0)", "test_losses.py"),
    M(
        "exploration.py",
        "jax.random.uniform(explore_key, q_values.shape[:-1]) < epsilon",
        "jax.random.uniform(explore_key, q_values.shape[:-1]) > epsilon",
        "test_exploration.py",
    ),
    M(
        "exploration.py",
        "epsilon / q_values.shape[-1] + (1 - epsilon) * greedy",
        "epsilon / q_values.shape[-1] + greedy",
        "test_exploration.py",
    ),
    M("exploration.py", "jnp.sqrt(theta * (2 - theta))", "jnp.sqrt(theta)", "test_exploration.py"),
    M(
        "transforms/normalize.py",
        "batch_var - var + (1 - weight) * jnp.square(delta)",
        "batch_var - var + jnp.square(delta)",
        "transforms/test_normalize.py",
    ),
    M(
        "transforms/normalize.py",
        "moved = weight * (batch_var - var +",
        "moved = weight * (batch_var +",
        "transforms/test_normalize.py",
    ),
    M(
        "transforms/normalize.py",
        "update_statistics(state.statistics, trajectory.obs), inner)",
        "update_statistics(state.statistics, scaled.obs), inner)",
        "transforms/test_normalize.py",
    ),
    M(
        "transforms/normalize.py",
        "next_obs=normalize(state.statistics, trajectory.next_obs, clip)",
        "next_obs=trajectory.next_obs",
        "transforms/test_normalize.py",
    ),
    M("transforms/normalize.py", "jnp.where(ended, 0.0, part)", "part", "transforms/test_normalize.py"),
    M(
        "transforms/normalize.py",
        "begun = sums.nothing((agent.num_envs,)) if agent.episodic else state.returns",
        "begun = state.returns",
        "transforms/test_normalize.py",
    ),
    M(
        "learning/pop_art.py",
        "beta * (1 - beta) * jnp.square(moved)",
        "beta * jnp.square(moved)",
        "transforms/test_normalize.py",
    ),
    M(
        "learning/pop_art.py",
        "(old.mean - new.mean) / new.sigma}",
        "(old.mean - new.mean)}",
        "transforms/test_normalize.py",
    ),
    M(
        "transforms/normalize.py",
        "agent = normalize_rewards(agent, gamma)",
        "agent = normalize_rewards(agent, 0.99)",
        "test_component_arguments.py",
    ),
    M(
        "transforms/report.py",
        "state, own = agent.update(state, trajectory, key, step)\n        return state, own",
        "new, own = agent.update(state, trajectory, key, step)\n        return new, own",
        "transforms/test_report.py",
    ),
    M("transforms/report.py", "& (state.episodes < num_episodes)", "", "transforms/test_report.py"),
    M(
        "transforms/report.py",
        "(trajectory.terminated | trajectory.truncated)[0, 0]",
        "trajectory.terminated[0, 0]",
        "transforms/test_report.py",
    ),
    M(
        "transforms/report.py",
        "act=act, update=update, interrupt=interrupt",
        "act=act, update=update",
        "transforms/test_report.py",
    ),
    # ---------------------------------------------------------------- planning, the loop, evaluation
    M("planning.py", "values = jnp.where(model.terminal, 0.0, values)", "values = +values", "test_planning.py"),
    M("planning.py", "(change > tolerance)", "(change > 10 * tolerance)", "test_planning.py"),
    M(
        "planning.py",
        "going_on = jnp.where(model.terminal, 0.0, 1.0)",
        "going_on = jnp.where(model.terminal, 1.0, 1.0)",
        "test_planning.py",
    ),
    M("loop.py", "fresh = first_memory, *", "fresh = memory, *", "test_loop_episodes.py test_loop.py"),
    M(
        "loop.py",
        "*jax.vmap(env.reset)(keys[1 + width :]), _no_steps(width)",
        "*jax.vmap(env.reset)(keys[1 : 1 + width]), _no_steps(width)",
        "test_loop_episodes.py",
    ),
    M(
        "loop.py",
        "jax.vmap(env.reset)(keys[1 + width :]), _no_steps(width)",
        "jax.vmap(env.reset)(keys[1 + width :]), episode",
        "test_loop_episodes.py",
    ),
    M(
        "loop.py",
        "where(outcome.terminated | truncated, fresh, now)",
        "where(outcome.terminated, fresh, now)",
        "test_loop_episodes.py",
    ),
    M(
        "loop.py",
        "where(outcome.terminated | truncated, fresh, now)",
        "where(jnp.broadcast_to((outcome.terminated | truncated).any(), (width,)), fresh, now)",
        "test_loop_episodes.py",
    ),
    M(
        "loop.py",
        "now = memory, env_state, outcome.obs, episode",
        "now = memory, env_state, obs, episode",
        "test_loop_episodes.py",
    ),
    M(
        "loop.py",
        "truncated = outcome.truncated & ~outcome.terminated  #",
        "truncated = outcome.truncated  #",
        "test_loop.py",
    ),
    M("loop.py", "episode.length + 1)\n", "episode.length + width)\n", "test_loop_episodes.py"),
    M("loop.py", "episode, obs, step + width), transition", "episode, obs, step + 1), transition", "test_loop.py"),
    M(
        "loop.py",
        "env=env_state, episode=_no_steps(width), obs=obs)",
        "env=env_state, obs=obs)",
        "test_loop_episodes.py",
    ),
    M("loop.py", "jax.random.fold_in(state.key, state.step)", "jax.random.fold_in(state.key, 0)", "test_loop.py"),
    M(
        "loop.py",
        "learn(moved, agent, trajectory, keys[0], state.step)",
        "learn(moved, agent, trajectory, keys[0], moved.step)",
        "test_loop.py",
    ),
    M("loop.py", "(first_bad_step < 0) & bad", "bad", "test_loop.py"),
    M(
        "loop.py",
        "return _one_number(episodes.returns.sum) / jnp.maximum(episodes.count, 1)",
        "return _one_number(episodes.returns.sum)",
        "test_loop.py",
    ),
    M(
        "loop.py",
        "jnp.where(episodes.count > 0, mean_return(episodes), state.last_return)",
        "mean_return(episodes)",
        "test_loop.py",
    ),
    M("sums.py", "Sum(total, jnp.where(jnp.isfinite(total), lost, 0))", "Sum(total, 0 * lost)", "test_loop.py"),
    M(
        "evaluation.py",
        "jnp.where(finished, 0, mean_reward(outcome.reward, num_episodes))",
        "mean_reward(outcome.reward, num_episodes)",
        "test_evaluate.py",
    ),
    M(
        "evaluation.py",
        "env_state, obs = where(finished, (env_state, obs), (new, outcome.obs))",
        "env_state, obs = new, outcome.obs",
        "test_evaluate.py",
    ),
    M(
        "evaluation.py",
        "keys[0], jnp.int32(0), explore=False",
        "keys[0], jnp.int32(0), explore=True",
        "test_evaluate.py",
    ),
    M("evaluation.py", "(t < limit) & ~jnp.all(finished)", "(t <= limit) & ~jnp.all(finished)", "test_evaluate.py"),
    M("prng.py", "_ROTATIONS[group % 2]", "_ROTATIONS[0]", "test_prng.py"),
    # ---------------------------------------------------------------- runs
    M(
        "runs/program.py",
        "keys = seed_keys(run_key, jnp.asarray(row % num_seeds))",
        "keys = seed_keys(run_key, jnp.asarray(row))",
        "runs/test_program.py",
    ),
    M("runs/program.py", "values[row // num_seeds]", "values[row % len(values)]", "runs/test_program.py"),
    M(
        "runs/run.py",
        "end // every > start // every or interval",
        "end // every > start // every and interval",
        "runs/test_run.py",
    ),
    M("runs/run.py", "order = np.argsort([i for group", "order = np.array([i for group", "runs/test_run.py"),
    M(
        "runs/trained.py",
        "row = jax.devices()[0], place * ready.job.seeds + seed",
        "row = jax.devices()[0], seed",
        "runs/test_run.py test_cli.py",
    ),
    M("runs/run.py", "metrics[name][:, :, interval] = values", "metrics[name][:, :, 0] = values", "runs/test_run.py"),
    M(
        "runs/checkpoint.py",
        "if was.get(name) != is_.get(name):",
        "if name in was and was.get(name) != is_.get(name):",
        "runs/test_checkpoint.py",
    ),
    M(
        "analysis/results.py",
        "diverged = self.steps >= self.first_bad_step()",
        "diverged = self.steps > self.first_bad_step()",
        "analysis/test_results.py",
    ),
    M("analysis/results.py", "np.ceil(0.1 * finite.sum", "np.ceil(0.2 * finite.sum", "analysis/test_results.py"),
    M("analysis/statistics.py", "TRIMMED = 0.25", "TRIMMED = 0.1", "analysis/test_statistics.py"),
    M("analysis/statistics.py", "x.std(axis, ddof=1)", "x.std(axis)", "analysis/test_statistics.py"),
    M("analysis/statistics.py", "np.argsort(counts == 0,", "np.argsort(counts * 0,", "analysis/test_statistics.py"),
    M("analysis/plot.py", "x[known], low[known], high[known]", "x, low, high", "analysis/test_plot.py"),
    M("analysis/plot.py", "for axes in grid[-1]:", "for axes in grid[0]:", "analysis/test_plot.py"),
    M("analysis/compare.py", "if rows and rows[-1] else", "if rows else", "analysis/test_compare.py"),
    M("analysis/compare.py", '["run_seconds"] / steps[-1]', '["run_seconds"]', "analysis/test_compare.py"),
    # ---------------------------------------------------------------- the host's loop, environments, adapters
    M(
        "runs/host.py",
        "key = _key(state, step, 1 + resets + t * keys_per_step(agent))",
        "key = _key(state, step, 1 + resets + t)",
        HOST,
    ),
    M("runs/host.py", "memory = _restarted(agent, memory, fresh)\n", "\n", HOST),
    M(
        "runs/host.py",
        "agent.act(state.agent, memory, obs, key, step + t * agent.num_envs)",
        "agent.act(state.agent, memory, obs, key, step + t)",
        HOST,
    ),
    M("runs/host.py", "jnp.sign(reward) if clip_rewards else reward", "reward", HOST),
    M(
        "envs/host.py",
        "returns = returns + np.where(finished, 0, outcome.reward)",
        "returns = returns + outcome.reward",
        HOST,
    ),
    M("runs/host.py", "np.where(self.fresh, 0, returns)", "returns", HOST),
    M(
        "envs/adapters/gymnasium.py",
        "truncated & ~terminated, next_obs)",
        "truncated, next_obs)",
        "envs/test_gymnasium.py",
    ),
    M(
        "envs/adapters/gymnasium.py",
        'infos["final_obs"][ended]',
        'infos["final_obs"][ended][::-1]',
        "envs/test_gymnasium.py",
    ),
    M(
        "envs/adapters/gymnasium.py",
        "astype(self.action_dtype) + self.first_action",
        "astype(self.action_dtype)",
        "envs/test_gymnasium.py",
    ),
    M(
        "envs/adapters/gymnasium.py",
        "return obs.copy() if type(obs) is np.ndarray else copy.deepcopy(obs)",
        "return obs",
        "envs/test_gymnasium.py",
    ),
    M("envs/adapters/gymnasium.py", "self.time < max_steps", "self.time <= max_steps", "envs/test_gymnasium.py"),
    M("envs/adapters/gymnax.py", "& ~terminated\n", "\n", "envs/test_envs_gymnax.py"),
    M(
        "envs/adapters/physics.py",
        "EngineState(pack(successor), time)",
        "EngineState(pack(successor), state.time)",
        "envs/test_envs_brax.py",
    ),
    M(
        "envs/adapters/physics.py",
        "truncated = (time >= episode_length) & ~terminated",
        "truncated = (time > episode_length) & ~terminated",
        "envs/test_envs_brax.py",
    ),
    M(
        "envs/wrappers.py",
        "cut = (time >= max_steps) &",
        "cut = (time > max_steps) &",
        "envs/test_envs_wrappers.py",
    ),
    M(
        "envs/wrappers.py",
        "frames), outcome._replace(obs=frames)",
        "frames), outcome._replace(obs=state.frames)",
        "envs/test_envs_wrappers.py",
    ),
    M(
        "envs/wrappers.py",
        "(action + 1) / 2 * width",
        "(action + 1) * width",
        "envs/test_envs_wrappers.py",
    ),
    M("envs/wrappers.py", "lambda reward: scale * reward", "lambda reward: reward", "envs/test_envs_wrappers.py"),
    M("envs/check.py", "_sum((new, outcome))", "_sum(new)", "envs/test_check.py"),
    M("envs/check.py", "_all(_is_number, new) & ~ended", "_all(_is_number, new)", "envs/test_check.py"),
    M("envs/wrappers.py", "outcome._replace(obs=translate(outcome.obs))", "outcome", "envs/test_envs_wrappers.py"),
    M("envs/wrappers.py", "jax.random.randint(key, (), 0, size)", "jnp.int32(0)", "envs/test_envs_wrappers.py"),
    M("envs/wrappers.py", "[index if len(x) > 1 else 0]", "[index % 2]", "envs/test_envs_wrappers.py"),
    M(
        "envs/randomize.py",
        "env_of(state.values).step(key, state.env, action)",
        "env_of(low).step(key, state.env, action)",
        "envs/test_randomize.py",
    ),
    M(
        "envs/randomize.py",
        "values_key, env_key = jax.random.split(key)",
        "values_key = env_key = key",
        "envs/test_randomize.py",
    ),
    M("envs/own/grid.py", 'np.where(flat[to] == "X"', 'np.where(flat[to] == "#"', "envs/test_envs_tabular.py"),
    M("envs/own/grid.py", "np.clip(row + down - lift", "np.clip(row + down + lift", "envs/test_envs_tabular.py"),
    M(
        "envs/own/tabular.py",
        "(time >= max_steps) & ~terminated",
        "(time > max_steps) & ~terminated",
        "envs/test_envs_tabular.py",
    ),
    M(
        "envs/own/arm.py",
        "jnp.where(on_target, old.held + 1, 0)",
        "jnp.where(on_target, old.held + 1, old.held)",
        "envs/test_envs_control.py",
    ),
    M("envs/own/point_reach.py", "<= RADIUS)", "<= 2 * RADIUS)", "envs/test_envs_goals.py"),
    M(
        "envs/own/bit_flip.py",
        "wanted = jnp.where(jnp.all(bits == wanted), other, wanted)\n",
        "\n",
        "envs/test_envs_goals.py",
    ),
    M("envs/adapters/physics.py", "factor**power", "factor", "envs/test_randomize.py"),
    # ---------------------------------------------------------------- networks
    M(
        "networks/noisy.py",
        "rows[:, None] * columns",
        "rows[:, None] * rows.mean() + 0 * columns",
        "networks/test_q_network.py",
    ),
    M("networks/noisy.py", "jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))", "noise", "networks/test_q_network.py"),
    M("networks/noisy.py", "constant(self.sigma * scale)", "constant(self.sigma)", "networks/test_q_network.py"),
    M(
        "networks/q_network.py",
        "DUELING[self.dueling](advantage, axis=-2, keepdims=True)",
        "DUELING[self.dueling](advantage, axis=-1, keepdims=True)",
        "networks/test_q_network.py",
    ),
    M(
        "networks/recurrent.py",
        "h = (1 - keep) * new + keep * h",
        "h = keep * new + (1 - keep) * h",
        "agents/test_r2d2.py",
    ),
    M("networks/recurrent.py", "nn.sigmoid(forget + 1)", "nn.sigmoid(forget)", "agents/test_r2d2.py"),
    M(
        "networks/recurrent.py",
        "cell(jnp.where(fresh[:, None], 0.0, carry), inputs)",
        "cell(carry, inputs)",
        "networks/test_networks.py",
    ),
    M("networks/torsos.py", "x / (1.0 - self.dropout)", "x", "networks/test_off_policy_networks.py"),
    M("networks/torsos.py", ">= self.dropout", "< self.dropout", "networks/test_off_policy_networks.py"),
    M(
        "networks/torsos.py",
        "self.dropout), 0.0)\n            if self.layer_norm:",
        "self.dropout), 0.0)\n            if False:",
        "networks/test_networks.py",
    ),
    M(
        "networks/off_policy.py",
        "jnp.clip(log_std, *LOG_STD_BOUNDS)",
        "log_std",
        "networks/test_off_policy_networks.py",
    ),
    M(
        "networks/off_policy.py",
        "jnp.tanh(policy.distribution.mean())",
        "policy.distribution.mean()",
        "networks/test_off_policy_networks.py",
    ),
    M(
        "networks/actor_critic.py",
        "critic = (None, None) if shared_torso",
        "critic = (None, None) if not shared_torso",
        "networks/test_networks.py",
    ),
    # ---------------------------------------------------------------- numbers, spaces, records
    M("types.py", "jnp.round(x)) if self.whole", "jnp.floor(x)) if self.whole", "test_types.py"),
    M(
        "types.py",
        "jax.random.randint(key, self.shape, first, last + 1)",
        "jax.random.randint(key, self.shape, first, last)",
        "test_types.py",
    ),
    M(
        "networks/torsos.py",
        "return x / 255 if pixels and",
        "return x / 128 if pixels and",
        "networks/test_networks.py",
    ),
    M("planning.py", "jnp.where(rest > 0, (change + error)", "jnp.where(rest > 0, change", "test_planning.py"),
    M(
        "agents/tabular/monte_carlo.py",
        "jax.lax.scan(learn, (state.q, state.seen), steps)",
        "jax.lax.scan(learn, (state.q, state.seen & False), steps)",
        "agents/test_tabular.py",
    ),
    M(
        "agents/tabular/sarsa_lambda.py",
        "trace=jnp.zeros_like(state.trace)",
        "trace=state.trace",
        "agents/test_tabular.py runs/test_host.py",
    ),
    M(
        "learning/tables.py",
        "count=jnp.zeros_like(state.window.count)",
        "count=state.window.count",
        "agents/test_tabular.py runs/test_host.py",
    ),
    M(
        "runs/host.py",
        "agent.tolerates_stale_actions if env.overlap is None else env.overlap",
        "True if env.overlap is None else env.overlap",
        HOST,
    ),
    M("loop.py", "some = jnp.minimum(updates - done, BLOCK)", "some = BLOCK", "test_loop.py"),
    M(
        "envs/wrappers.py",
        "truncates_early=env.spec.truncation_gap == 1 < limit",
        "truncates_early=None",
        "envs/test_envs_wrappers.py",
    ),
    M("runs/folder.py", "if not _lock(file, out):", "if _lock(file, out) is None:", "runs/test_run.py test_cli.py"),
]


class Outcome(NamedTuple):
    """What became of a mutant: killed, survived, or stale; by which test, after how many seconds."""

    mutant: Mutant
    fate: str
    by: str
    seconds: float


def apply(mutant: Mutant, tree: pathlib.Path) -> str:
    """Puts the mutant's text into a tree.

    Raises:
      ValueError: if its old text is not there exactly once, or what comes out is no Python.
    """
    path = tree / "jaxrl" / mutant.file
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    if source.count(mutant.old) != 1:
        raise ValueError(f"the old text is there {source.count(mutant.old)} times, and should be once")
    changed = source.replace(mutant.old, mutant.new)
    compile(changed, str(path), "exec")
    path.write_text(changed, encoding="utf-8")
    return source


def run_pytest(
    tree: pathlib.Path, options: list[str], cache: pathlib.Path, limit: float
) -> tuple[int | None, str, float]:
    """Runs pytest in a tree: its exit status, or None after the limit; what it wrote; and the seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=no", "-rfE"]
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",  # a changed file may have the size and the second of the one before
        "JAXRL_TEST_CACHE": str(cache),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *options], cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, "", time.monotonic() - began
    return process.returncode, text, time.monotonic() - began


def run_tests(
    tree: pathlib.Path, targets: list[str], cache: pathlib.Path, limit: float
) -> tuple[int | None, str, float]:
    """Runs tests in a tree until one fails: pytest's exit status, or None after the limit; which; and the seconds."""
    code, text, seconds = run_pytest(tree, ["-x", *targets], cache, limit)
    found = re.search(FAILURE, text, re.MULTILINE)
    return code, SLOW if code is None else f"{found[1].lower()} {found[2]}" if found else "", seconds


def targets_of(mutant: Mutant) -> list[str]:
    return [f"tests/{target}" for target in mutant.tests.split()]


def try_mutant(mutant: Mutant, tree: pathlib.Path, cache: pathlib.Path, whole: bool) -> Outcome:
    """Applies a mutant to a tree, runs its tests, and takes it back."""
    try:
        source = apply(mutant, tree)
    except (ValueError, SyntaxError) as error:
        return Outcome(mutant, "stale", str(error), 0.0)
    try:
        code, by, seconds = run_tests(tree, targets_of(mutant), cache, LIMIT)
        if code == 0 and whole:
            code, by, more = run_tests(tree, ["tests"], cache, WHOLE_SUITE)
            seconds += more
    finally:
        (tree / "jaxrl" / mutant.file).write_text(source, encoding="utf-8")
    if code not in (0, 1, None):  # not a test that failed: the module cannot be imported, or a test is not there
        return Outcome(mutant, "stale", by or f"pytest ended with {code}", seconds)
    return Outcome(mutant, "survived" if code == 0 else "killed", by, seconds)


def confirmed(outcomes: list[Outcome], tree: pathlib.Path, cache: pathlib.Path) -> list[Outcome]:
    """The outcomes, without what was killed by a test that fails without the mutant, too, or takes nearly as long."""
    killers = sorted({o.by.partition(" ")[2] for o in outcomes if o.fate == "killed" and o.by.startswith("failed")})
    failing = set()
    if killers:
        targets = [f"tests/{killer.removeprefix('tests/')}" for killer in killers]
        print(f"{len(killers)} tests noticed; each has to pass without a mutant", flush=True)
        _, text, _ = run_pytest(tree, [*targets, "--maxfail=1000"], cache, WHOLE_SUITE)
        failing = set(re.findall(FAILURE, text, re.MULTILINE))
    found = []
    for outcome in outcomes:
        if outcome.fate == "killed" and any(outcome.by.endswith(name) for _, name in failing):
            outcome = outcome._replace(fate="stale", by=f"{outcome.by}, which fails without the mutant, too")
        elif outcome.fate == "killed" and outcome.by == SLOW:
            _, _, seconds = run_tests(tree, targets_of(outcome.mutant), cache, LIMIT)
            if seconds > LIMIT / 5:
                outcome = outcome._replace(fate="stale", by=f"{SLOW}, and without the mutant in {seconds:.0f} s")
        found.append(outcome)
    return found


def check(mutants: list[Mutant]) -> list[str]:
    """What is wrong with the list as the sources are now."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder)
        shutil.copytree(ROOT / "jaxrl", tree / "jaxrl", ignore=shutil.ignore_patterns("__pycache__"))
        for mutant in mutants:
            try:
                source = apply(mutant, tree)
                (tree / "jaxrl" / mutant.file).write_text(source, encoding="utf-8")
            except (ValueError, SyntaxError) as error:
                wrong.append(f"{mutant.name}: {error}")
            missing = [t for t in targets_of(mutant) if not (ROOT / t.partition("::")[0]).exists()]
            wrong += [f"{mutant.name}: there is no {target}" for target in missing]
    return wrong


def run(mutants: list[Mutant], jobs: int, whole: bool, confirm: bool) -> list[Outcome]:
    """Tries all, several at a time, each worker in a copy of the tree of its own."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.Queue[pathlib.Path] = queue.Queue()
        for index in range(jobs):
            ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
            trees.put(shutil.copytree(ROOT, pathlib.Path(folder) / str(index), ignore=ignored))
        cache = pathlib.Path(os.environ.get("JAXRL_TEST_CACHE", ROOT / ".jax_cache"))

        def in_a_tree(function, *arguments):
            tree = trees.get()
            try:
                return function(tree, *arguments)
            finally:
                trees.put(tree)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            outcomes = []
            pending = [pool.submit(in_a_tree, lambda tree, m=m: try_mutant(m, tree, cache, whole)) for m in mutants]
            for future in concurrent.futures.as_completed(pending):
                outcomes.append(future.result())
                mutant, fate, by, took = outcomes[-1]
                print(f"{len(outcomes):3}/{len(mutants)} {fate:8} {took:5.0f} s  {mutant.name}  [{by}]", flush=True)
        return confirmed(outcomes, trees.get(), cache) if confirm else outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a pattern that a mutant's file or texts must match")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--whole", action="store_true", help="give what survives to the whole fast suite")
    parser.add_argument("--out", help="a JSON file for the outcomes")
    parser.add_argument("--check", action="store_true", help="only see whether each can be applied")
    parser.add_argument("--trust", action="store_true", help="do not run what noticed without a mutant")
    options = parser.parse_args()
    mutants = [m for m in MUTANTS if re.search(options.only, f"{m.file} {m.old} {m.new} {m.tests}")]
    wrong = check(mutants)
    for line in wrong:
        print(line)
    print(f"{len(mutants)} mutants, of which {len(wrong)} cannot be made")
    if options.check or wrong or not mutants:
        return 1 if wrong or not mutants else 0
    began = time.monotonic()
    outcomes = run(mutants, options.jobs, options.whole, not options.trust)
    counts = {fate: sum(o.fate == fate for o in outcomes) for fate in ("killed", "survived", "stale")}
    print(f"{counts} in {(time.monotonic() - began) / 60:.0f} minutes")
    for outcome in outcomes:
        if outcome.fate != "killed":
            print(f"{outcome.fate}: {outcome.mutant.name} ({outcome.mutant.tests}) {outcome.by}")
    if options.out:
        report = [o.mutant._asdict() | {"fate": o.fate, "by": o.by, "seconds": round(o.seconds, 1)} for o in outcomes]
        pathlib.Path(options.out).write_text(json.dumps(counts | {"mutants": report}, indent=1), encoding="utf-8")
    return 1 if counts["stale"] or counts["survived"] > ACCEPTED * len(mutants) else 0


if __name__ == "__main__":
    sys.exit(main())
