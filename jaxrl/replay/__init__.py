"""Experience replay: pure functions over jnp arrays, made to live in an agent's state."""

from jaxrl.replay import ring, sum_tree
from jaxrl.replay.hindsight import hindsight
from jaxrl.replay.prioritized import importance_weights, prioritized, ranked
from jaxrl.replay.types import NO_SLOT, Replay, Sample
from jaxrl.replay.uniform import uniform

__all__ = [
    "NO_SLOT",
    "Replay",
    "Sample",
    "hindsight",
    "importance_weights",
    "prioritized",
    "ranked",
    "ring",
    "sum_tree",
    "uniform",
]
