"""What every replay is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxrl.constructors import Call, call_of
from jaxrl.types import Array, Key, PyTree, Spec, Transition


class Sample(NamedTuple):
    """A batch of short stretches of experience, drawn from a replay.

    Attributes:
      steps: the transitions, leaves `[B, L, ...]`: `steps[b, 0]` is what was drawn, and the others follow it in time.
      valid: bool `[B, L]`: whether that step belongs to the same episode and has happened yet. The first always does,
        unless it is void: see `Replay.interrupt`.
      indices: int32 `[B]`, the slots that the first steps are in.
      weights: float32 `[B]`, importance weights, in (0, 1]; 1 where sampling is uniform, and 0 where the first step is
        void.
    """

    steps: Transition
    valid: Array
    indices: Array
    weights: Array


class Replay(NamedTuple):
    """A replay: pure functions, closed over its sizes, and its sizes, where it tells them.

    `step` counts environment steps, those of the call's trajectory not among them in `add`, and among them in `sample`.
    All seeds share it, so that under `vmap` a write stays one slice.

    Attributes:
      init: `init(trajectory, spec) -> state`; an example of what `add` will get, of which only shapes and dtypes count.
      add: `add(state, trajectory, step) -> state`; leaves `[T, N, ...]`, at every call of the same shapes.
      sample: `sample(state, key, step, length=1) -> Sample` of `L = length`; something must have been added.
      update: `update(state, indices, td_errors) -> state`: what the steps of these slots were worth, both `[B]`; an
        index that is no slot is left out. Where sampling is uniform it changes nothing. What it leaves as it is, it
        hands on as the very same arrays, so that no loop that calls it copies them.
      interrupt: `interrupt(state, step) -> state`, `step` as in `sample`; the episodes that are going on will not be
        continued, and no stretch may cross that place. The newest step of each environment, which would need a
        successor of its own, becomes void: stretches end before it, and one that begins with it has weight 0. Left out,
        stretches cross that place: only for a replay that never meets an environment on the host.
      capacity: how many transitions it holds; None where it does not tell.
      batch_size: `B`, how many are drawn at once; None where it does not tell.
      made_by: the call that made it, which `jaxrl.constructors.recorded` notes; a run in a folder records it. The last
        field.
    """

    init: Callable[[Transition, Spec], PyTree]
    add: Callable[[PyTree, Transition, Array], PyTree]
    sample: Callable[..., Sample]
    update: Callable[[PyTree, Array, Array], PyTree]
    interrupt: Callable[[PyTree, Array], PyTree] = lambda state, step: state
    capacity: int | None = None
    batch_size: int | None = None
    made_by: Call | None = None

    def __repr__(self) -> str:
        return repr(call_of(self) or tuple(self))


# How the slots that were drawn are read: `read(ring, key, slots, step, length) -> (steps, valid)`.
Read = Callable[[PyTree, Key, Array, Array, int], tuple[Transition, Array]]

NO_SLOT = 2**30  # an index that no replay has
