"""Functions from an agent to an agent, closed under composition."""

from jaxrl.transforms.normalize import normalize_observations, normalize_rewards
from jaxrl.transforms.report import report, report_episode_mean

__all__ = ["normalize_observations", "normalize_rewards", "report", "report_episode_mean"]
