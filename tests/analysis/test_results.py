"""What results say of their metrics, and that what is loaded is what was saved."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.analysis import results as results_module
from jaxrl.analysis.results import Results, diverged_seeds, format_iqm, format_number
from jaxrl.analysis.statistics import bootstrap_interval, final_return
from jaxrl.checks import JaxrlError
from jaxrl.files import read_json, write_atomically, write_json

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


def test_diverged_seeds():
    assert diverged_seeds([-1, 5, -1, 0]) == [{"seed": 1, "step": 5}, {"seed": 3, "step": 0}]
    assert diverged_seeds(np.array([[-1, -1], [-1, 7]])) == [{"config": 1, "seed": 1, "step": 7}]


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


def test_results_are_shown_in_a_line():
    names = "episode_return, eval_return, episode_count, loss"
    assert repr(run()) == f"<Results of ppo on CartPole-v1: 3 seeds x 20 points of {names}>"
    assert repr(sweep()).startswith("<Results of ppo on CartPole-v1: 2 configurations x 3 seeds x 20 points of ")


def test_format_number():
    assert [format_number(x) for x in (nan, 12345.6, -1234.5, 497.31, 0.012345, 0.0)] == [
        *("-", "12,346", "-1,234", "497.3", "0.0123", "0")
    ]


@pytest.mark.parametrize(
    ("metrics", "configs", "message"),
    [
        ({"loss": np.zeros((2, 3))}, [], r"\{'loss': .*'step', of shape"),
        ({"step": np.arange(3)}, [], "'step', of shape .* and others"),
        ({"step": np.arange(3), "loss": np.zeros((2, 4))}, [], r"'loss' has shape \(2, 4\).*time=3"),
        ({"step": np.arange(3), "loss": np.zeros(3)}, [], r"'loss' has shape \(3,\)"),
        (
            {"step": np.arange(3), "a": np.zeros((2, 3)), "b": np.zeros((1, 3))},
            [],
            r"'b' has shape \(1, 3\).*'a', \(2, 3\)",
        ),
        ({"step": np.arange(3), "loss": np.array([["x"] * 3])}, [], r"'loss' has .*dtype <U1"),
        ({"step": np.arange(3), "loss": np.zeros((2, 1, 3))}, [{}], "configs has 1 entries.* have 2"),
        ({"step": np.arange(3), "loss": np.zeros((2, 1, 3))}, [], "configs has 0 entries.* have 2"),
        ({"step": np.arange(3), "loss": np.zeros((1, 3))}, [{}, {}], "configs has 2 entries.* have 1"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(metrics, configs, message):
    with pytest.raises(JaxrlError, match=message):
        Results({}, metrics, {}, configs)


@pytest.mark.parametrize("records", [3, [1], [{"seed": 3, "step": 0}], [{"seed": 0}]])
def test_diverged_records_that_do_not_fit_are_refused(records):
    with pytest.raises(JaxrlError, match=r"diverged_seeds.*seed and step.*'seed': 3"):
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
    with pytest.raises(JaxrlError, match=r"metrics\.npz cannot be written: disk full"):
        run(seed=2).save(tmp_path)
    np.testing.assert_array_equal(Results.load(tmp_path).metrics["loss"], expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "metrics.npz", "summary.json"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    path = tmp_path / "new" / "x"
    write_atomically(path, lambda file: file.write(b"old"))

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"


def test_json_files(tmp_path):
    value = {"a": np.array([1.5, nan]), 2: (True, np.int32(3), jnp.float32(0.5)), "path": tmp_path, "none": None}
    write_json(tmp_path / "x.json", value, "value")
    assert read_json(tmp_path / "x.json") == {
        "a": [1.5, None],
        "2": [True, 3, 0.5],
        "path": str(tmp_path),
        "none": None,
    }
    with pytest.raises(JaxrlError, match=r"value\['a'\]\[0\]=.*cannot be written"):
        write_json(tmp_path / "x.json", {"a": [{1, 2}]}, "value")
    assert read_json(tmp_path / "x.json")["2"] == [True, 3, 0.5]
    with pytest.raises(JaxrlError, match=r"y\.json: the file is missing"):
        read_json(tmp_path / "y.json")


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


@pytest.mark.parametrize(
    ("name", "entry"),
    [("config", {"configs": 3}), ("config", {"configs": [{}, {}]}), ("summary", {"diverged_seeds": [{"seed": 9}]})]
    + [("summary", {"final_return": wrong}) for wrong in (None, [1.0], {"iqm": "x"}, {"per_seed": [[1.0], 2.0]})],
)
def test_entries_that_nothing_can_be_made_of_are_refused(tmp_path, name, entry):
    run().save(tmp_path)
    write_json(tmp_path / f"{name}.json", read_json(tmp_path / f"{name}.json") | entry, name)
    with pytest.raises(JaxrlError, match="do not fit together"):
        Results.load(tmp_path)


def test_a_cell_of_a_table():
    assert format_iqm(np.array([1.0, 1.0, nan])) == "1 (1 to 1)"
    assert format_iqm(np.array([2.0, nan])) == "2 (- to -)"
    assert format_iqm(np.full(2, 3e9)) == "3e+09 (3e+09 to 3e+09)"
    assert format_iqm(np.array([0.123456])) == "0.123"
