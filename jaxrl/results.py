"""What a run leaves behind: metrics of every seed, statistics over the seeds, and the files they are kept in.

Seeds are summarised by the interquartile mean with a percentile-bootstrap interval, as recommended by Agarwal et al.,
2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". A seed without a value (it diverged, or no
episode ended) is left out of a statistic, and how many there were is reported beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import uuid
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from jaxrl import checks
from jaxrl.checks import JaxrlError

if TYPE_CHECKING:
    from rich.table import Table

CONFIG_FILE, METRICS_FILE, SUMMARY_FILE = "config.json", "metrics.npz", "summary.json"


# Statistics over seeds


def _sort_finite(x: Any, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorts along `axis`, moved to the end: finite values first, then NaN; and how many of them are finite."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    finite = np.isfinite(x)
    return np.sort(np.where(finite, x, np.nan), axis=-1), finite.sum(axis=-1)


def interquartile_mean(x: Any, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the finite values: `mean(sorted(x)[k : n - k])` with `k = floor(n / 4)`.

    Equal to `scipy.stats.trim_mean(x, 0.25)` of the finite values.

    Args:
      x: numbers of any shape; NaN and infinity stand for a missing value.
      axis: the axis that is averaged over.

    Returns:
      The shape of `x` without `axis`; NaN where no value is finite.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    ordered, count = _sort_finite(x, axis)
    cut, rank = count // 4, np.arange(ordered.shape[-1])
    kept = (rank >= cut[..., None]) & (rank < (count - cut)[..., None])
    lowest = ordered.min(axis=-1, initial=np.inf, where=rank < count[..., None])
    # A mean of distances from the lowest value is exact where all values are equal; a plain mean may be an ulp off.
    distance = np.subtract(ordered, lowest[..., None], out=np.zeros_like(ordered), where=kept)
    return np.where(count > 0, lowest + distance.sum(axis=-1) / np.maximum(count - 2 * cut, 1), np.nan)[()]


def _resampled_weights(n: int, num_resamples: int, rng: int) -> np.ndarray:
    """Weights `[num_resamples, n]` that turn `n` sorted values into the interquartile means of their resamples.

    A resample takes the value of rank i `counts[i]` times. In the sorted resample those copies fill consecutive places,
    and the interquartile mean keeps the places from k to n - k, so rank i weighs as many of its places as lie there.
    """
    counts = np.random.default_rng([rng, n]).multinomial(n, np.full(n, 1 / n), size=num_resamples)
    cut = n // 4
    kept_places = np.clip(np.cumsum(counts, axis=1), cut, n - cut)
    return np.diff(kept_places, axis=1, prepend=cut) / (n - 2 * cut)


def bootstrap_interval(
    per_seed: Any, confidence: float = 0.95, num_resamples: int = 2000, rng: int = 0, *, axis: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap confidence interval of the interquartile mean over seeds.

    What `scipy.stats.bootstrap(method="percentile")` estimates, as one matrix product: every column has its own sorted
    values, but all with the same number of finite seeds share the drawn ranks (`_resampled_weights`). The interval of
    fewer than about ten seeds is too narrow, as any bootstrap's is.

    Args:
      per_seed: `[seed]`, `[seed, time]`, or any shape whose `axis` is the seeds; non-finite values are left out.
      confidence: the interval's nominal coverage, in (0, 1).
      num_resamples: how many resamples are drawn.
      rng: seed of the draws, so that the same values give the same interval.
      axis: the axis of the seeds.

    Returns:
      `(low, high)`, each of the shape of `per_seed` without `axis`; NaN where fewer than two values are finite, for
      one seed says nothing about the spread of seeds.

    Raises:
      JaxrlError: if `confidence`, `num_resamples` or `rng` is not accepted.
    """
    if not 0 < confidence < 1:
        raise JaxrlError(f"bootstrap_interval: confidence={confidence} is not accepted; it must lie between 0 and 1")
    checks.integer("bootstrap_interval", num_resamples=num_resamples)
    checks.integer("bootstrap_interval", low=0, rng=rng)
    ordered, count = _sort_finite(per_seed, axis)
    columns, counts = ordered.reshape(count.size, ordered.shape[-1]), count.ravel()  # [..., seed] -> [column, seed]
    bounds = np.full((2, len(columns)), np.nan)
    for n in np.unique(counts[counts >= 2]):
        weights = _resampled_weights(int(n), num_resamples, rng)
        alike = np.flatnonzero(counts == n)
        for block in np.array_split(alike, math.ceil(len(alike) / 1024)):  # bounds the memory of [resample, column]
            lowest = columns[block, :1]
            means = lowest.T + weights @ (columns[block, :n] - lowest).T  # [resample, column]
            bounds[:, block] = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = bounds.reshape(2, *count.shape)
    return low[()], high[()]


def final_return(per_seed: Any) -> dict[str, Any]:
    """The statistics of final returns that `summary.json` holds.

    Args:
      per_seed: `[seed]`, or `[config, seed]`; NaN for a seed that has none.

    Returns:
      `{"iqm", "ci_low", "ci_high", "mean", "per_seed"}` over the finite seeds: floats and a list of them, and with a
      leading axis `config` lists of those. NaN where there is nothing to compute from (null in the file).
    """
    per_seed = np.asarray(per_seed, np.float64)
    finite = np.isfinite(per_seed)
    per_seed = np.where(finite, per_seed, np.nan)
    low, high = bootstrap_interval(per_seed, axis=-1)
    statistics = {
        "iqm": interquartile_mean(per_seed),
        "ci_low": low,
        "ci_high": high,
        "mean": _finite_mean(per_seed, finite),
        "per_seed": per_seed,
    }
    return {name: np.asarray(value).tolist() for name, value in statistics.items()}


def _finite_mean(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are kept; NaN where none is."""
    count = kept.sum(axis=-1)
    return np.where(count > 0, np.where(kept, x, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def diverged_seeds(first_bad_step: Any) -> list[dict[str, int]]:
    """The records of seeds that stopped being finite, as `summary["diverged_seeds"]` holds them.

    Args:
      first_bad_step: `[seed]` or `[config, seed]`, environment steps; negative for a seed that never diverged.

    Returns:
      One `{"seed": index, "step": first bad step}` for each diverged seed; in a sweep, with `"config": index`.

    >>> diverged_seeds([-1, 4096])
    [{'seed': 1, 'step': 4096}]
    """
    steps = np.asarray(first_bad_step)
    names = ("config", "seed")[-steps.ndim :]
    indices = np.argwhere(steps >= 0).tolist()
    return [dict(zip(names, index, strict=True)) | {"step": int(steps[tuple(index)])} for index in indices]


# A run's results


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """Metrics of all seeds of a run, or, with one more leading axis, of all configurations of a sweep.

    Attributes:
      config: what was run: agent, env, num_steps, seeds, hyper_parameters and the like; JSON-able.
      metrics: `step` is `[time]`, the environment steps that a seed had taken at the end of each interval; every other
        metric is `[seed, time]`, or `[config, seed, time]`. Among them are, over the training episodes that ended in
        the interval, `episode_return`, `episode_return_min`, `episode_return_max`, the same three of `episode_length`
        (NaN where none ended), `episode_count`; and `eval_return`, the mean of the greedy evaluation episodes (NaN
        where there was no evaluation).
      summary: what `summary.json` holds; `summary["diverged_seeds"]`, where present, is as `diverged_seeds` returns it.
      configs: for each configuration of a sweep the hyper-parameters that vary; empty where nothing was swept.

    Raises:
      JaxrlError: at construction, if the metrics' shapes do not fit together.
    """

    config: dict[str, Any]
    metrics: dict[str, np.ndarray]
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    configs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        object.__setattr__(self, "metrics", {name: np.asarray(values) for name, values in self.metrics.items()})
        _check_metrics(self.metrics, self.configs)
        _check_diverged(self.summary.get("diverged_seeds", []), self.shape[:-1])

    @property
    def steps(self) -> np.ndarray:
        """Environment steps that each seed had taken at the end of each interval; `[time]`."""
        return self.metrics["step"]

    @property
    def shape(self) -> tuple[int, ...]:
        """`(seed, time)`, or `(config, seed, time)` of a sweep: the shape of every metric but `step`."""
        return next(values.shape for name, values in self.metrics.items() if name != "step")

    @property
    def num_seeds(self) -> int:
        """The number of seeds, of each configuration."""
        return self.shape[-2]

    @property
    def is_sweep(self) -> bool:
        """Whether the metrics have a leading axis `config`."""
        return len(self.shape) == 3

    def first_bad_step(self) -> np.ndarray:
        """The environment step at which each seed was found to have diverged, infinity if never; `[..., seed]`."""
        steps = np.full(self.shape[:-1], np.inf)
        for record in self.summary.get("diverged_seeds", []):
            steps[(record["config"], record["seed"]) if self.is_sweep else record["seed"]] = record["step"]
        return steps

    def has(self, metric: str) -> bool:
        """Whether the metric was recorded, with at least one finite value."""
        return metric in self.metrics and bool(np.isfinite(self.metrics[metric]).any())

    def values(self, metric: str) -> np.ndarray:
        """A metric as floats, with NaN from the step on at which a seed diverged; `[..., seed, time]`.

        Raises:
          JaxrlError: if there is no such metric.
        """
        if metric not in self.metrics or metric == "step":
            raise checks.unknown_name("metric", metric, (name for name in self.metrics if name != "step"))
        diverged = self.steps >= self.first_bad_step()[..., None]
        return np.where(diverged, np.nan, self.metrics[metric].astype(np.float64))

    def curve(self, metric: str = "episode_return") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Interquartile mean over the seeds at each time, and its 95 % bootstrap interval.

        Args:
          metric: which metric.

        Returns:
          `(steps, iqm, low, high)`: steps are `[time]`, the others `[time]`, or `[config, time]` in a sweep. NaN where
          no seed has a value; `low` and `high` also where only one has.

        Raises:
          JaxrlError: if there is no such metric.
        """
        values = self.values(metric)
        return self.steps, interquartile_mean(values, axis=-2), *bootstrap_interval(values, axis=-2)

    def final_metric(self) -> str:
        """What final returns are taken from: `eval_return` if anything was evaluated, else `episode_return`."""
        return "eval_return" if self.has("eval_return") else "episode_return"

    def final(self, metric: str | None = None) -> np.ndarray:
        """The final value of each seed; `[seed]`, or `[config, seed]`.

        Of an evaluation (`eval_...`) it is the value at the last interval at which any seed was evaluated, of another
        metric the mean of the seed's last 10 % of finite values. A seed that diverged has none: NaN, and never what it
        had reached before.

        Args:
          metric: which metric; `final_metric()` unless given.

        Raises:
          JaxrlError: if there is no such metric.
        """
        metric = metric or self.final_metric()
        values = self.values(metric)
        finite = np.isfinite(values)
        if metric.startswith("eval_"):
            evaluated = np.flatnonzero(finite.any(axis=tuple(range(values.ndim - 1))))
            last = values[..., evaluated[-1]] if evaluated.size else np.full(values.shape[:-1], np.nan)
        else:
            rank_from_end = np.cumsum(finite[..., ::-1], axis=-1)[..., ::-1]  # 1 for the last finite value
            num_last = np.ceil(0.1 * finite.sum(axis=-1, keepdims=True))
            last = _finite_mean(values, finite & (rank_from_end <= num_last))
        return np.where(np.isfinite(self.first_bad_step()) | ~np.isfinite(last), np.nan, last)

    def label(self, config: int) -> str:
        """The varied hyper-parameters of one configuration, such as `learning_rate=0.0003`; "" if nothing varies."""
        varied = self.configs[config] if self.configs else {}
        return ", ".join(f"{name}={format_value(value)}" for name, value in varied.items())

    def table(self) -> Table:
        """The statistics of the final returns as a `rich` table, one row per configuration.

        Columns: the hyper-parameters that vary, interquartile mean, its 95 % interval, mean, min, max, seeds ("30 of
        32" where the others have no final return) and how many diverged.
        """
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        agent, env = self.config.get("agent", "agent"), self.config.get("env", "environment")
        source = "greedy evaluation" if self.final_metric() == "eval_return" else "last 10 % of training"
        table = Table(title=escape(f"{agent} on {env}: final return ({source})"), box=SIMPLE_HEAD)
        varied = list(dict.fromkeys(name for config in self.configs for name in config)) if self.is_sweep else []
        for name in varied:
            table.add_column(escape(name), overflow="fold")
        for name in ("IQM", "95 % interval", "mean", "min", "max", "seeds", "diverged"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = np.atleast_2d(self.final())
        diverged = np.atleast_2d(np.isfinite(self.first_bad_step())).sum(axis=-1)
        for row, per_seed in enumerate(rows):
            values = [escape(format_value(self.configs[row].get(name, ""))) for name in varied]
            table.add_row(*values, *_statistics_cells(per_seed), str(diverged[row]))
        return table

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `config.json` (with `configs`), `metrics.npz` and `summary.json`, each of them whole or not at all.

        JSON has no NaN: in the two JSON files it is written as null.

        Args:
          directory: where to; made if it is not there. Files of an earlier save are replaced.

        Raises:
          JaxrlError: naming the entry of `config` or `summary` that JSON cannot hold; then nothing is written.
        """
        config = _json_text({**self.config, "configs": self.configs}, "config")
        summary = _json_text(self.summary, "summary")
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / CONFIG_FILE, lambda file: file.write(config))
        write_atomically(directory / METRICS_FILE, lambda file: np.savez_compressed(file, **self.metrics))
        write_atomically(directory / SUMMARY_FILE, lambda file: file.write(summary))

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Results:
        """Reads what `save` wrote.

        Args:
          directory: the run's folder.

        Raises:
          JaxrlError: if a file is missing or damaged, naming it and what is wrong.
        """
        directory = pathlib.Path(directory)
        config, summary = _read_json(directory / CONFIG_FILE), _read_json(directory / SUMMARY_FILE)
        metrics = _read_metrics(directory / METRICS_FILE)
        configs = config.pop("configs", [])
        if "final_return" in summary:
            summary["final_return"] = _null_to_nan(summary["final_return"])
        try:
            return cls(config=config, metrics=metrics, summary=summary, configs=configs)
        except JaxrlError as error:
            raise JaxrlError(f"{directory}: the files do not fit together: {error}") from error


def _check_metrics(metrics: dict[str, np.ndarray], configs: list[dict[str, Any]]) -> None:
    """Raises a JaxrlError unless `step` is `[time]` and all other metrics share one shape that fits it."""
    step = metrics.get("step")
    if step is None or step.ndim != 1:
        got = "none" if step is None else f"shape {step.shape}"
        raise JaxrlError(f"Results: metrics need 'step' of shape [time]; got {got}")
    others = {name: values for name, values in metrics.items() if name != "step"}
    if not others:
        raise JaxrlError("Results: metrics hold nothing besides 'step'")
    first, shape = next((name, values.shape) for name, values in others.items())
    for name, values in metrics.items():
        if values.dtype.kind not in "fiub":
            raise JaxrlError(f"Results: metric {name!r} has dtype {values.dtype}; it must be real numbers")
    for name, values in others.items():
        if values.ndim not in (2, 3) or values.shape[-1] != len(step) or 0 in values.shape[:-1]:
            raise JaxrlError(
                f"Results: metric {name!r} has shape {values.shape}; it must be [seed, time] or [config, seed, time], "
                f"with time={len(step)} as 'step' has"
            )
        if values.shape != shape:
            raise JaxrlError(f"Results: metric {name!r} has shape {values.shape}, but {first!r} has {shape}")
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise JaxrlError(f"Results: configs={configs!r} is not accepted; it must be a list of dictionaries")
    num_configs = shape[0] if len(shape) == 3 else 1
    if len(configs) != num_configs and (configs or len(shape) == 3):
        raise JaxrlError(f"Results: configs has {len(configs)} entries, but the metrics have {num_configs}")


def _check_diverged(records: Any, shape: tuple[int, ...]) -> None:
    """Raises a JaxrlError unless each record of a diverged seed names a step, and a seed that there is."""
    names = ("config", "seed")[-len(shape) :]
    for record in records if isinstance(records, list) else [records]:
        keys = (*names, "step")
        whole = isinstance(record, dict) and all(isinstance(record.get(key), (int, np.integer)) for key in keys)
        if not whole or not all(0 <= record[name] < size for name, size in zip(names, shape, strict=True)):
            raise JaxrlError(
                f"Results: summary['diverged_seeds'] holds {record!r}; it must be a list of dictionaries with whole "
                f"numbers for {', '.join(keys)}, within {dict(zip(names, shape, strict=True))}"
            )


# Formatting


def format_number(x: float) -> str:
    """A statistic for people: about four digits, thousands separated, "-" where there is none."""
    if not math.isfinite(x):
        return "-"
    size = abs(x)
    return f"{x:,.0f}" if size >= 1000 else f"{x:.1f}" if size >= 10 else f"{x:.3g}"


def format_value(value: Any) -> str:
    """A hyper-parameter for people: numbers without the digits that a float32 adds."""
    return f"{float(value):g}" if isinstance(value, (float, np.floating)) else str(value)


def _statistics_cells(per_seed: np.ndarray) -> list[str]:
    """The table's cells from IQM to seeds, of one configuration; `per_seed` is `[seed]`."""
    finite = per_seed[np.isfinite(per_seed)]
    low, high = bootstrap_interval(per_seed)
    interval = f"{format_number(low)} to {format_number(high)}" if math.isfinite(low) else "-"
    numbers = [finite.mean(), finite.min(), finite.max()] if finite.size else [math.nan] * 3
    seeds = str(per_seed.size) if finite.size == per_seed.size else f"{finite.size} of {per_seed.size}"
    return [format_number(interquartile_mean(per_seed)), interval, *map(format_number, numbers), seeds]


# Files


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that others see the old content or the new, never a part of it.

    Args:
      path: the file; its folder must be there.
      write: is called with a binary file to write the content to. If it raises, the old file stays as it was.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # beside it: a rename is atomic on one disk only
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _json_text(value: Any, name: str) -> bytes:
    return (json.dumps(_jsonable(value, name), indent=2, allow_nan=False) + "\n").encode()


def _jsonable(value: Any, name: str) -> Any:
    """The value in JSON's types: arrays become lists, NaN and infinities None."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "dtype") and np.asarray(value).dtype.kind in "fiub":  # arrays and scalars of NumPy and JAX
        return _jsonable(np.asarray(value).tolist(), name)
    raise JaxrlError(
        f"Results: {name}={value!r} cannot be written as JSON; it must be numbers, text, lists and the like"
    )


def _null_to_nan(value: Any) -> Any:
    """Undoes what `_jsonable` did to NaN, in a part of a file that holds only numbers."""
    if isinstance(value, dict):
        return {key: _null_to_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_null_to_nan(entry) for entry in value]
    return math.nan if value is None else value


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        raise JaxrlError(f"{path} is damaged or cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise JaxrlError(f"{path} is damaged: it holds a {type(content).__name__}, not an object with named entries")
    return content


def _read_metrics(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # zip, zlib and the array header each have their own, half a dozen in all
        raise JaxrlError(f"{path} is damaged or cannot be read: {error}") from error


def _missing(path: pathlib.Path) -> JaxrlError:
    reason = "there is no such folder" if not path.parent.is_dir() else "the file is missing"
    return JaxrlError(f"{path}: {reason}; a run's folder holds {CONFIG_FILE}, {METRICS_FILE} and {SUMMARY_FILE}")
