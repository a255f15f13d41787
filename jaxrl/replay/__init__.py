"""Experience replay: pure functions over jnp arrays, made to live in an agent's state."""

from jaxrl.replay import sum_tree
from jaxrl.replay.types import Replay, Sample
from jaxrl.replay.uniform import uniform

__all__ = ["Replay", "Sample", "sum_tree", "uniform"]
