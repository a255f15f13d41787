"""A policy in float64, for what the natural gradient's parts and TRPO should come to."""

import itertools

import jax
import numpy as np


class SlowPolicy:
    """A policy with one hidden layer in float64, of flat parameters in the order of `ravel_pytree`."""

    def __init__(self, params):
        leaves, self.structure = jax.tree.flatten(params["params"])
        self.shapes = [x.shape for x in leaves]
        self.flat = np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves])

    def _of(self, flat, obs):
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = [x.reshape(shape) for x, shape in zip(np.split(flat, ends), self.shapes, strict=True)]
        tree = jax.tree.unflatten(self.structure, parts)
        layer, head = tree["torso"]["Dense_0"], tree["head"]
        hidden = np.tanh(obs @ layer["kernel"] + layer["bias"])
        return hidden @ head["output"]["kernel"] + head["output"]["bias"], head.get("log_std")

    def log_prob(self, flat, obs, action):
        output, log_std = self._of(flat, obs)
        if log_std is None:
            return output[..., action] - np.log(np.exp(output).sum(-1))
        return (-0.5 * ((action - output) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)

    def mean_kl(self, flat, obs):
        """Of the policy of `self.flat` from that of `flat`."""
        (old, old_log_std), (new, log_std) = self._of(self.flat, obs), self._of(flat, obs)
        if log_std is None:
            old, new = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (old, new))
            return (np.exp(old) * (old - new)).sum(-1).mean()
        square = (np.exp(2 * old_log_std) + (old - new) ** 2) / np.exp(2 * log_std)
        return (log_std - old_log_std + 0.5 * (square - 1)).sum(-1).mean()

    def actions_and_weights(self, obs):
        """What an expectation over actions in one state is the sum of; for Gaussians, exact up to degree 9."""
        output, log_std = self._of(self.flat, obs)
        if log_std is None:
            return [(a, p) for a, p in enumerate(np.exp(output) / np.exp(output).sum())]
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        weights = weights / weights.sum()
        grid = itertools.product(zip(nodes, weights, strict=True), repeat=len(output))
        return [
            (output + np.exp(log_std) * np.array([x for x, _ in point]), np.prod([w for _, w in point]))
            for point in grid
        ]


def gradient(function, x, width=1e-5):
    return np.array([(function(x + e) - function(x - e)) / (2 * width) for e in width * np.eye(len(x))])
