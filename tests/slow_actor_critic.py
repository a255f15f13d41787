"""An actor-critic with one hidden layer of tanh units, in NumPy and float64, that agents' losses are compared with."""

import jax
import numpy as np


def flat(params):
    """The parameters as one float64 vector, and a function that undoes it."""
    leaves, structure = jax.tree.flatten(params["params"])
    sizes = np.cumsum([x.size for x in leaves])[:-1]
    shapes = [x.shape for x in leaves]

    def unflat(vector):
        parts = np.split(vector, sizes)
        return jax.tree.unflatten(structure, [x.reshape(s) for x, s in zip(parts, shapes, strict=True)])

    return np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves]), unflat


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def value_of(params, obs):
    torso = params.get("critic_torso", params["torso"])
    return dense(params["value_head"], np.tanh(dense(torso["Dense_0"], obs)))[..., 0]


def log_prob_and_entropy(params, obs, action):
    output = dense(params["head"]["output"], np.tanh(dense(params["torso"]["Dense_0"], obs)))
    if "log_std" not in params["head"]:
        log_probs = output - np.log(np.exp(output).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_probs, action[..., None], -1)[..., 0]
        return chosen, -(np.exp(log_probs) * log_probs).sum(-1)
    log_std = params["head"]["log_std"]
    log_density = -0.5 * ((action - output) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return log_density.sum(-1), np.full(obs.shape[:-1], (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum())


def slow_gae(rows, values, next_values, gamma, lambda_):
    advantages = np.zeros_like(values)
    for n in range(values.shape[1]):
        following = 0.0
        for t in reversed(range(len(values))):
            bootstrap = 0.0 if rows.terminated[t, n] else gamma * next_values[t, n]
            delta = rows.reward[t, n] + bootstrap - values[t, n]
            ended = rows.terminated[t, n] or rows.truncated[t, n]
            following = delta + (0.0 if ended else gamma * lambda_ * following)
            advantages[t, n] = following
    return advantages


def descend(objective, vector, learning_rate, max_grad_norm, direction_of):
    """A gradient step by central differences: the clipped gradient, turned into a direction."""
    grads, width = np.zeros_like(vector), 1e-6
    for i, unit in enumerate(np.eye(len(vector)) * width):
        grads[i] = (objective(vector + unit) - objective(vector - unit)) / (2 * width)
    grads *= min(1.0, max_grad_norm / np.linalg.norm(grads))
    return vector - learning_rate * direction_of(grads)


class Adam:
    """Its directions, one after another (Kingma and Ba 2015, algorithm 1), with an epsilon of 1e-5."""

    def __init__(self):
        self.steps, self.m, self.v = 0, 0.0, 0.0

    def __call__(self, grads):
        self.steps += 1
        self.m, self.v = 0.9 * self.m + 0.1 * grads, 0.999 * self.v + 0.001 * grads**2
        return (self.m / (1 - 0.9**self.steps)) / (np.sqrt(self.v / (1 - 0.999**self.steps)) + 1e-5)
