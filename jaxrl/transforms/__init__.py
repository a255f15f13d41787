"""Functions from an agent to an agent, closed under composition."""

from jaxrl.transforms.normalize import normalize_observations, normalize_rewards

__all__ = ["normalize_observations", "normalize_rewards"]
