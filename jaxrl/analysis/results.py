"""What a run leaves behind: the metrics of every seed, what is said about them, and the files they are kept in."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl import checks
from jaxrl.analysis.statistics import final_return, finite_mean, iqm_interval
from jaxrl.checks import JaxrlError
from jaxrl.files import json_text, read_json, write_atomically
from jaxrl.record import decode, encode, shown

if TYPE_CHECKING:
    from rich.table import Table

CONFIG_FILE, METRICS_FILE, SUMMARY_FILE = "config.json", "metrics.npz", "summary.json"
CURVE_RESAMPLES = 1000  # for each point of a curve: half of what a final return has, for there are many


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
      JaxrlError: at construction, if the metrics, configurations or diverged seeds do not fit together.
    """

    config: dict[str, Any]
    metrics: dict[str, np.ndarray]
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    configs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        object.__setattr__(self, "metrics", {name: np.asarray(values) for name, values in self.metrics.items()})
        _check_metrics(self.metrics, self.configs)
        self.first_bad_step()  # raises where the records do not fit

    def __repr__(self) -> str:
        configs = f"{self.shape[0]} configurations x " if self.is_sweep else ""
        what = f"{self.config.get('agent', 'unknown agent')} on {self.config.get('env', 'unknown environment')}"
        names = ", ".join(name for name in self.metrics if name != "step")
        return f"<Results of {what}: {configs}{self.num_seeds} seeds x {len(self.steps)} points of {names}>"

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
        records = self.summary.get("diverged_seeds", [])
        names = ("config", "seed")[-steps.ndim :]
        try:
            for record in records:
                steps[tuple(record[name] for name in names)] = record["step"]
        except (TypeError, KeyError, IndexError) as error:
            raise JaxrlError(
                f"Results: summary['diverged_seeds']={records!r} is not accepted; it must be a list of dictionaries "
                f"with {', '.join(names)} and step, within {dict(zip(names, steps.shape, strict=True))}"
            ) from error
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
        return self.steps, *iqm_interval(self.values(metric), axis=-2, num_resamples=CURVE_RESAMPLES)

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
            last = finite_mean(np.where(finite & (rank_from_end <= num_last), values, np.nan))
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

        JSON has no NaN: in the two JSON files it is written as null, but for `configs`, which come back as they are.

        Args:
          directory: where to; made if it is not there. Files of an earlier save are replaced.

        Raises:
          JaxrlError: naming the entry of `config` or `summary` that JSON cannot hold; then nothing is written.
        """
        configs = [
            {name: encode(value, f"config['configs'][{index}][{name!r}]") for name, value in config.items()}
            for index, config in enumerate(self.configs)
        ]
        config = json_text({**self.config, "configs": configs}, "config")
        summary = json_text(self.summary, "summary")
        directory = pathlib.Path(directory)
        write_atomically(directory / CONFIG_FILE, lambda file: file.write(config))
        arrays: dict[str, Any] = self.metrics
        write_atomically(directory / METRICS_FILE, lambda file: np.savez_compressed(file, **arrays))
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
        files = (CONFIG_FILE, METRICS_FILE, SUMMARY_FILE)
        for path in (directory / name for name in files):
            if not path.is_file():
                reason = "the file is missing" if directory.is_dir() else "there is no such folder"
                raise JaxrlError(f"{path}: {reason}; a run's folder holds {', '.join(files)}")
        config, summary = read_json(directory / CONFIG_FILE), read_json(directory / SUMMARY_FILE)
        metrics = _read_metrics(directory / METRICS_FILE)
        configs = config.pop("configs", [])
        try:
            if "final_return" in summary:  # numbers, lists of them, and null for NaN, which NumPy turns into NaN again
                statistics = summary["final_return"].items()
                summary["final_return"] = {name: np.asarray(x, np.float64).tolist() for name, x in statistics}
            configs = [{k: decode(v, trusted=False) for k, v in one.items()} for one in configs]
            return cls(config=config, metrics=metrics, summary=summary, configs=configs)
        except (ValueError, TypeError, AttributeError) as error:  # a JaxrlError is a ValueError
            raise JaxrlError(f"{directory}: the files do not fit together: {error}") from error


def _check_metrics(metrics: dict[str, np.ndarray], configs: list[dict[str, Any]]) -> None:
    """Raises a JaxrlError unless `step` is `[time]`, all other metrics share a shape, and `configs` fits it."""
    steps, others = metrics.get("step"), {name: values for name, values in metrics.items() if name != "step"}
    if steps is None or steps.ndim != 1 or not others:
        shapes = {name: values.shape for name, values in metrics.items()}
        raise JaxrlError(f"Results: metrics have the shapes {shapes}; they must be 'step', of shape [time], and others")
    first, shape = next((name, values.shape) for name, values in others.items())
    for name, values in others.items():
        fits = len(shape) in (2, 3) and shape[-1] == len(steps) and values.shape == shape
        if not fits or values.dtype.kind not in "fiub":
            raise JaxrlError(
                f"Results: metric {name!r} has shape {values.shape} and dtype {values.dtype}; it must be real numbers, "
                f"[seed, time] or [config, seed, time] with time={len(steps)}, of the same shape as {first!r}, {shape}"
            )
    num_configs = shape[0] if len(shape) == 3 else 1
    if len(configs) != num_configs and (configs or len(shape) == 3):
        raise JaxrlError(f"Results: configs has {len(configs)} entries, but the metrics have {num_configs}")


def _read_metrics(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and the array header each have their own, half a dozen in all
        raise JaxrlError(f"{path} is damaged or cannot be read: {error}") from error


def format_number(x: float) -> str:
    """A statistic for people: about four digits, thousands separated, "-" where there is none."""
    if not math.isfinite(x):
        return "-"
    size = abs(x)
    return f"{x:,.0f}" if size >= 1000 else f"{x:.1f}" if size >= 10 else f"{x:.3g}"


def format_iqm(per_seed: Any) -> str:
    """A table's cell: the interquartile mean over seeds `[seed]` and, of several, its 95 % bootstrap interval.

    >>> format_iqm([1.0, 1.0, math.nan])
    '1 (1 to 1)'
    """
    iqm, low, high = (f"{x:.2g}" if abs(x) > 1e6 else format_number(x) for x in map(float, iqm_interval(per_seed)))
    return f"{iqm} ({low} to {high})" if np.size(per_seed) > 1 else iqm


def format_value(value: Any) -> str:
    """A hyper-parameter for people: numbers without the digits that a float32 adds."""
    if isinstance(value, (float, np.floating)):
        return f"{float(value):g}"
    return str(value) if isinstance(value, (str, pathlib.PurePath)) else shown(value)


def _statistics_cells(per_seed: np.ndarray) -> list[str]:
    """The table's cells from IQM to seeds, of one configuration; `per_seed` is `[seed]`."""
    finite = per_seed[np.isfinite(per_seed)]
    ends = (finite.min(), finite.max()) if finite.size else (math.nan, math.nan)
    statistics = final_return(per_seed)
    iqm, low, high, mean, least, most = (
        format_number(x) for x in (*(statistics[name] for name in ("iqm", "ci_low", "ci_high", "mean")), *ends)
    )
    interval = f"{low} to {high}" if finite.size > 1 else "-"
    seeds = str(per_seed.size) if finite.size == per_seed.size else f"{finite.size} of {per_seed.size}"
    return [iqm, interval, mean, least, most, seeds]
