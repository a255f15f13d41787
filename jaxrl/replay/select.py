"""A replay by its name: what agents offer as options."""

from __future__ import annotations

from jaxrl import checks
from jaxrl.replay import ring
from jaxrl.replay.hindsight import STRATEGIES, hindsight
from jaxrl.replay.prioritized import prioritized, ranked
from jaxrl.replay.types import Replay
from jaxrl.replay.uniform import uniform

REPLAYS = ("uniform", "prioritized", "ranked")


def select(
    owner: str,
    replay: str | Replay,
    *,
    capacity: int,
    batch_size: int,
    alpha: float = 0.6,
    beta: float = 0.4,
    beta_steps: int = 100_000,
    relabel: str = "none",
) -> Replay:
    """The replay that an agent's options name, or the very one that it was given.

    Args:
      owner: the agent, for the error's text.
      replay: one of `REPLAYS`, or a `Replay`, whose own arguments then count and not these.
      capacity: see `uniform`.
      batch_size: see `uniform`.
      alpha: see `prioritized` and `ranked`.
      beta: the same.
      beta_steps: the same.
      relabel: a strategy of `hindsight`, or none.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.one_of(owner, ("none", *STRATEGIES), hindsight=relabel)
    if isinstance(replay, Replay):
        return replay
    checks.one_of(owner, REPLAYS, replay=replay)
    read = ring.window if relabel == "none" else hindsight(strategy=relabel)
    sizes = {"capacity": capacity, "batch_size": batch_size, "read": read}
    if replay == "uniform":
        return uniform(**sizes)
    return {"prioritized": prioritized, "ranked": ranked}[replay](
        **sizes, alpha=alpha, beta=beta, beta_steps=beta_steps
    )
