"""Statistics against hand-computed numbers, exact enumeration and scipy; results against what was saved."""

import itertools
import json
import warnings

import numpy as np
import pytest
import scipy.stats

from jaxrl import results as results_module
from jaxrl.checks import JaxrlError
from jaxrl.results import (
    Results,
    bootstrap_interval,
    diverged_seeds,
    final_return,
    format_number,
    interquartile_mean,
    write_atomically,
)

nan, inf = np.nan, np.inf


def slow_iqm(x):
    x = sorted(value for value in x if np.isfinite(value))
    k = len(x) // 4
    return sum(x[k : len(x) - k]) / (len(x) - 2 * k) if x else nan


def run(num_seeds=3, time=20, seed=0, **fields):
    """A run with a rising return, a gap, and an evaluation every fifth interval."""
    rng = np.random.default_rng(seed)
    episode_return = np.arange(time) + rng.normal(size=(num_seeds, time))
    episode_return[:, 4] = nan
    episode_return[0, 7] = nan
    eval_return = np.where(np.arange(time) % 5 == 4, episode_return + 100.0, nan)
    eval_return[:, 4] = 50.0
    metrics = {
        "step": 1000 * np.arange(1, time + 1),
        "episode_return": episode_return,
        "eval_return": eval_return,
        "episode_count": rng.integers(0, 9, size=(num_seeds, time)).astype(np.int32),
        "loss": rng.normal(size=(num_seeds, time)).astype(np.float32),
    }
    config = {"agent": "ppo", "env": "CartPole-v1", "num_steps": 20_000, "seeds": num_seeds, "hyper_parameters": {}}
    return Results(**({"config": config, "metrics": metrics} | fields))


def sweep(num_configs=2):
    runs = [run(seed=i) for i in range(num_configs)]
    stacked = {name: np.stack([r.metrics[name] for r in runs]) for name in runs[0].metrics if name != "step"}
    configs = [{"learning_rate": 10.0**-i, "torso": [64, 64]} for i in range(1, num_configs + 1)]
    return Results(runs[0].config, {"step": runs[0].steps} | stacked, {}, configs)


# Statistics


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([0.0, 1.0, 2.0, 100.0], 1.5),  # one cut at each end
        ([5.0, 1.0, 100.0, 3.0, -9.0], 3.0),  # floor(5 / 4) = 1 cut
        ([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0], 4.5),  # 3, 4, 5, 6 are left
        ([nan, 1.0, inf, 2.0, -inf, 3.0, 100.0], 2.5),
        ([nan, nan], nan),
        ([], nan),
    ],
)
def test_interquartile_mean_by_hand(x, expected):
    np.testing.assert_allclose(interquartile_mean(x), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 30, 101])
def test_interquartile_mean_is_scipys_trimmed_mean(n):
    x = np.random.default_rng(n).standard_cauchy((3, n, 5))
    np.testing.assert_allclose(interquartile_mean(x, axis=1), scipy.stats.trim_mean(x, 0.25, axis=1), rtol=1e-12)


def test_interquartile_mean_leaves_out_what_is_not_finite():
    x = np.random.default_rng(0).normal(size=(40, 11))
    x[np.random.default_rng(1).random(x.shape) < 0.5] = nan
    x[3] = nan
    np.testing.assert_allclose(interquartile_mean(x), [slow_iqm(row) for row in x], rtol=1e-12)
    np.testing.assert_allclose(interquartile_mean(x, axis=0), [slow_iqm(row) for row in x.T], rtol=1e-12)


@pytest.mark.parametrize("x", [[0.0, 1.0, 5.0], [3.0, -1.0, 2.0, 10.0], [0.0, 1.0, 2.0, 3.0, 50.0]])
def test_interval_is_that_of_all_resamples(x):
    """With few seeds, all n^n resamples can be listed: the interval must be their quantiles."""
    everything = np.sort([slow_iqm(resample) for resample in itertools.product(x, repeat=len(x))])
    for confidence in (0.95, 0.5):
        low, high = bootstrap_interval(x, confidence, num_resamples=100_000)
        for bound, level in ((low, (1 - confidence) / 2), (high, (1 + confidence) / 2)):
            # The bound's place in the exact distribution, which has steps where resamples tie.
            below, up_to = np.mean(everything < bound - 1e-9), np.mean(everything <= bound + 1e-9)
            assert below - 0.005 <= level <= up_to + 0.005


def test_interval_is_scipys():
    x = np.random.default_rng(0).gamma(2.0, size=(32, 6))
    expected = scipy.stats.bootstrap(
        (x,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        axis=0,
        n_resamples=20_000,
        method="percentile",
        batch=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = bootstrap_interval(x, num_resamples=20_000)
    np.testing.assert_allclose(low, expected.low, atol=0.03)
    np.testing.assert_allclose(high, expected.high, atol=0.03)
    assert (expected.high - expected.low).min() > 0.5


def test_interval_covers_the_truth_about_as_often_as_it_says():
    x = np.random.default_rng(0).normal(size=(32, 2000))  # the interquartile mean of a standard normal is 0
    for confidence, least, most in ((0.95, 0.90, 0.97), (0.5, 0.44, 0.54)):
        low, high = bootstrap_interval(x, confidence)
        assert least < np.mean((low < 0) & (high > 0)) < most


def test_interval_of_a_column_depends_on_that_column_only():
    x = np.random.default_rng(0).normal(size=(9, 5))
    x[2:4, 1], x[:, 2], x[1:, 3] = nan, nan, nan
    low, high = bootstrap_interval(x)
    for t in range(5):
        np.testing.assert_allclose(bootstrap_interval(x[:, t]), (low[t], high[t]), rtol=1e-12)
    np.testing.assert_allclose(
        bootstrap_interval(x[2:4, 0]), bootstrap_interval(x[[2, 3], 0][::-1])
    )  # order is nothing
    assert np.isnan(low[2:4]).all()  # no seed, and one seed, have no interval
    assert (low[[0, 1, 4]] < high[[0, 1, 4]]).all()
    kept = x[np.isfinite(x[:, 1]), 1]
    np.testing.assert_allclose(bootstrap_interval(kept), (low[1], high[1]), rtol=1e-12)


def test_interval_is_deterministic_and_rng_changes_it():
    x = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(x) == bootstrap_interval(x)
    assert bootstrap_interval(x) != bootstrap_interval(x, rng=1)


def test_equal_seeds_have_an_interval_of_no_width_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(2, 40):
            assert bootstrap_interval(np.full(n, 0.1)) == (0.1, 0.1)
            assert interquartile_mean(np.full(n, 0.1)) == 0.1
        assert np.isnan(bootstrap_interval([3.0])).all()
        assert np.isnan(bootstrap_interval([])).all()
        assert np.isnan(interquartile_mean([nan]))


def test_interval_axis_and_blocks():
    x = np.random.default_rng(0).normal(size=(2, 5, 700))  # more columns than one block of the matrix product
    low, high = bootstrap_interval(x, axis=1, num_resamples=50)
    assert low.shape == high.shape == (2, 700)
    np.testing.assert_allclose(low[1, 699], bootstrap_interval(x[1, :, 699], num_resamples=50)[0], rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"confidence": nan}, {"num_resamples": 0}, {"rng": -1}])
def test_interval_refuses(wrong):
    with pytest.raises(JaxrlError, match=rf"{next(iter(wrong))}=.*must"):
        bootstrap_interval([1.0, 2.0], **wrong)


def test_final_return():
    x = [1.0, 2.0, nan, 3.0, 10.0]
    low, high = bootstrap_interval([1.0, 2.0, 3.0, 10.0])
    assert json.dumps(final_return(x)) == json.dumps(
        {"iqm": 2.5, "ci_low": float(low), "ci_high": float(high), "mean": 4.0, "per_seed": x}
    )
    two = final_return([x, [nan] * 5])
    assert two["iqm"][0] == 2.5
    assert np.isnan([two["iqm"][1], two["mean"][1], two["ci_low"][1]]).all()
    assert two["ci_high"][0] == pytest.approx(high)
    assert final_return([4.0])["mean"] == 4.0
    assert np.isnan(final_return([4.0])["ci_low"])


def test_diverged_seeds():
    assert diverged_seeds([-1, 5, -1, 0]) == [{"seed": 1, "step": 5}, {"seed": 3, "step": 0}]
    assert diverged_seeds(np.array([[-1, -1], [-1, 7]])) == [{"config": 1, "seed": 1, "step": 7}]


# Results


def test_curve_of_a_run_and_of_a_sweep():
    many = sweep()
    steps, iqm, low, high = many.curve()
    assert steps.shape == (20,)
    assert iqm.shape == low.shape == high.shape == (2, 20)
    for config in range(2):
        _, *alone = run(seed=config).curve()
        np.testing.assert_allclose([iqm[config], low[config], high[config]], alone, rtol=1e-12)
    values = many.metrics["episode_return"][1]
    np.testing.assert_allclose(iqm[1], [slow_iqm(column) for column in values.T])
    assert np.isnan(iqm[:, 4]).all()
    assert np.isfinite(iqm[:, 7]).all()  # one seed is missing there, the others count
    with pytest.raises(JaxrlError, match="unknown metric 'eval_retrun': did you mean eval_return"):
        many.curve("eval_retrun")


def test_final_is_the_last_evaluation_or_the_last_tenth_of_training():
    one = run()
    np.testing.assert_array_equal(one.final(), one.metrics["eval_return"][:, 19])
    training = one.metrics["episode_return"].copy()
    training[1, 15:] = nan
    without = Results(one.config, {"step": one.steps, "episode_return": training})
    # 19 finite entries or 18, or 14: two of them are the last tenth, rounded up
    expected = [training[0, 18:].mean(), training[1, 13:15].mean(), training[2, 18:].mean()]
    np.testing.assert_allclose(without.final(), expected)
    np.testing.assert_allclose(one.final("episode_return")[[0, 2]], np.asarray(expected)[[0, 2]])
    assert without.final_metric() == "episode_return"
    assert sweep().final().shape == (2, 3)


def test_a_seed_without_the_last_evaluation_has_no_final_return():
    one = run()
    evaluations = one.metrics["eval_return"].copy()
    evaluations[1, 19] = nan
    evaluations[2, 19] = inf
    final = Results(one.config, one.metrics | {"eval_return": evaluations}).final()
    assert np.isnan(final).tolist() == [False, True, True]


def test_a_diverged_seed_counts_until_it_diverged_and_not_after():
    diverged = run(summary={"diverged_seeds": diverged_seeds([-1, 10_000, -1])})
    for metric in ("eval_return", "episode_return"):
        assert np.isfinite(diverged.final(metric)).tolist() == [True, False, True]
    np.testing.assert_array_equal(np.isnan(diverged.values("loss")[1]), np.arange(20) >= 9)  # steps 10,000 and on
    np.testing.assert_allclose(diverged.curve()[1][8], run().curve()[1][8])
    others = run().metrics["episode_return"][[0, 2], 15]
    np.testing.assert_allclose(diverged.curve()[1][15], others.mean())
    many = sweep()
    many = Results(many.config, many.metrics, {"diverged_seeds": [{"config": 1, "seed": 0, "step": 5}]}, many.configs)
    assert np.isnan(many.final()).tolist() == [[False] * 3, [True, False, False]]


def cells(table):
    return {str(column.header): list(column.cells) for column in table.columns}


def test_table_of_a_run():
    one = run(summary={"diverged_seeds": [{"seed": 1, "step": 10_000}]})
    table = cells(one.table())
    low, high = bootstrap_interval(one.final())
    assert table["IQM"] == [format_number(slow_iqm(one.final()))]
    assert table["95 % interval"] == [f"{low:.1f} to {high:.1f}"]
    assert table["min"] == [f"{np.nanmin(one.final()):.1f}"]
    assert table["max"] == [f"{np.nanmax(one.final()):.1f}"]
    assert (table["seeds"], table["diverged"]) == (["2 of 3"], ["1"])
    assert "ppo on CartPole-v1" in one.table().title
    alone = cells(run(num_seeds=1).table())
    assert (alone["95 % interval"], alone["seeds"], alone["diverged"]) == (["-"], ["1"], ["0"])


def test_table_of_a_sweep_and_of_nothing():
    table = cells(sweep().table())
    assert table["learning_rate"] == ["0.1", "0.01"]
    assert table["torso"] == ["[64, 64]"] * 2
    assert len(table["IQM"]) == 2
    empty = Results({}, {"step": np.arange(2), "episode_return": np.full((2, 2), nan)})
    assert cells(empty.table())["IQM"] == ["-"]
    assert cells(empty.table())["seeds"] == ["0 of 2"]


def test_format_number():
    assert [format_number(x) for x in (nan, 12345.6, -1234.5, 497.31, 0.012345, 0.0)] == [
        *("-", "12,346", "-1,234", "497.3", "0.0123", "0")
    ]


@pytest.mark.parametrize(
    ("metrics", "configs", "message"),
    [
        ({"loss": np.zeros((2, 3))}, [], "'step' of shape"),
        ({"step": np.arange(3)}, [], "nothing besides 'step'"),
        ({"step": np.arange(3), "loss": np.zeros((2, 4))}, [], r"'loss' has shape \(2, 4\).*time=3"),
        ({"step": np.arange(3), "loss": np.zeros(3)}, [], r"'loss' has shape \(3,\)"),
        ({"step": np.arange(3), "a": np.zeros((2, 3)), "b": np.zeros((1, 3))}, [], r"'b' has shape .*'a' has"),
        ({"step": np.arange(3), "loss": np.array([["x"] * 3])}, [], "'loss' has dtype"),
        ({"step": np.arange(3), "loss": np.zeros((2, 1, 3))}, [{}], "configs has 1 entries.* have 2"),
        ({"step": np.arange(3), "loss": np.zeros((2, 1, 3))}, [], "configs has 0 entries.* have 2"),
        ({"step": np.arange(3), "loss": np.zeros((1, 3))}, [{}, {}], "configs has 2 entries.* have 1"),
        ({"step": np.arange(3), "loss": np.zeros((1, 3))}, [None], "list of dictionaries"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(metrics, configs, message):
    with pytest.raises(JaxrlError, match=message):
        Results({}, metrics, {}, configs)


@pytest.mark.parametrize("records", [3, [1], [{"seed": 3, "step": 0}], [{"seed": -1, "step": 0}], [{"seed": 0}]])
def test_diverged_records_that_do_not_fit_are_refused(records):
    with pytest.raises(JaxrlError, match=r"diverged_seeds.*seed, step.*'seed': 3"):
        run(summary={"diverged_seeds": records})


# Files


@pytest.mark.parametrize("make", [run, sweep])
def test_what_is_loaded_is_what_was_saved(tmp_path, make):
    saved = make()
    summary = {
        "final_return": final_return(saved.final()),
        "peak_memory_bytes": None,
        "steps_per_second": np.float64(12.5),
        "diverged_seeds": [],
    }
    saved = Results(saved.config, saved.metrics, summary, saved.configs)
    saved.save(tmp_path / "a" / "run")
    assert sorted(p.name for p in (tmp_path / "a" / "run").iterdir()) == ["config.json", "metrics.npz", "summary.json"]
    loaded = Results.load(tmp_path / "a" / "run")
    assert loaded.metrics.keys() == saved.metrics.keys()
    for name, values in saved.metrics.items():
        np.testing.assert_array_equal(loaded.metrics[name], values)
        assert loaded.metrics[name].dtype == values.dtype
    assert (loaded.config, loaded.configs) == (saved.config, saved.configs)
    assert json.dumps(loaded.summary) == json.dumps(summary)  # as text, for NaN is not equal to itself
    np.testing.assert_array_equal(loaded.final(), saved.final())


def test_nan_is_null_in_the_file_and_nan_in_memory(tmp_path):
    one = run(num_seeds=1, summary={"final_return": final_return([4.0]), "other": [nan, inf, np.float32(0.5)]})
    one.save(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["final_return"]["ci_low"] is None
    loaded = Results.load(tmp_path).summary
    assert np.isnan(loaded["final_return"]["ci_low"])
    assert loaded["final_return"]["per_seed"] == [4.0]
    assert loaded["other"] == [None, None, 0.5]


def test_what_json_cannot_hold_is_named_before_anything_is_written(tmp_path):
    config = {"agent": "dqn", "hyper_parameters": {"network": [1, len]}}
    with pytest.raises(JaxrlError, match=r"config\['hyper_parameters'\]\['network'\]\[1\]=<built-in"):
        run(config=config).save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_save_replaces_and_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    run(seed=0).save(tmp_path)
    run(seed=1).save(tmp_path)
    expected = run(seed=1).metrics["loss"]
    np.testing.assert_array_equal(Results.load(tmp_path).metrics["loss"], expected)

    def half(file, **arrays):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(results_module.np, "savez_compressed", half)
    with pytest.raises(OSError, match="disk full"):
        run(seed=2).save(tmp_path)
    np.testing.assert_array_equal(Results.load(tmp_path).metrics["loss"], expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "metrics.npz", "summary.json"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    for i in range(200, len(content) - 200, 97):
        content[i] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["config.json", "metrics.npz", "summary.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (truncate, "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\xff\xfe garbage \x00" * 9), "damaged"),
        (lambda path: path.write_text("[1, 2]"), "damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path, name, damage, message):
    run().save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(JaxrlError, match=rf"{name}.*{message}"):
        Results.load(tmp_path)


def test_more_damage(tmp_path):
    with pytest.raises(JaxrlError, match=r"nowhere.*no such folder"):
        Results.load(tmp_path / "nowhere")
    run().save(tmp_path)
    flip(tmp_path / "metrics.npz")
    with pytest.raises(JaxrlError, match=r"metrics\.npz is damaged"):
        Results.load(tmp_path)
    np.save(tmp_path / "metrics", np.zeros(3))
    (tmp_path / "metrics.npy").rename(tmp_path / "metrics.npz")
    with pytest.raises(JaxrlError, match=r"metrics\.npz is damaged"):
        Results.load(tmp_path)
    np.savez(tmp_path / "metrics.npz", step=np.array([print]))  # a pickle could run anything
    with pytest.raises(JaxrlError, match=r"metrics\.npz is damaged.*allow_pickle"):
        Results.load(tmp_path)
    np.savez(tmp_path / "metrics.npz", step=np.arange(2), loss=np.zeros((1, 3)))
    with pytest.raises(JaxrlError, match=r"do not fit together.*'loss' has shape"):
        Results.load(tmp_path)
