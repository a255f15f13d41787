"""Runs from Python: what is checked before anything compiles, what is recorded when, and that one bad seed is alone."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from fake_agent import TRACED, fake
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jaxrl
from jaxrl import JaxrlError, Results, cli, dqn, ppo, record
from jaxrl.analysis import render
from jaxrl.analysis.plot import plot_curve
from jaxrl.checks import RunError
from jaxrl.replay import hindsight, prioritized, ranked, uniform
from jaxrl.runs import folder, report, run
from jaxrl.runs.job import Job, from_json, in_json, prepare, steps_after
from jaxrl.runs.program import with_defaults
from jaxrl.runs.run import Interrupted, Listener, execute
from jaxrl.runs.trained import trained

PROBE = "jaxrl/Probe-truncation-v0"  # its episodes last 5 steps, with reward 1 in each

STATISTICS = {f"episode_{what}{end}" for what in ("return", "length") for end in ("", "_min", "_max")}
METRICS = {"step", "eval_return", "episode_count", *STATISTICS, "loss", "weight", "drawn", "seen"}


def job(agent="fake", env=PROBE, num_steps=80, seeds=3, hyper_parameters=None, **options) -> Job:
    return Job(agent, env, num_steps, seeds, hyper_parameters or {}, **options)


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def a_run():
    """84 steps: intervals of two updates, 16 steps, and a rest of 4, too few for an update, that the last one takes."""
    heard = []
    listener = Listener(
        compiled=lambda ready, index, program, done: heard.append(("compiled", index, done)),
        interval=lambda ready, index, interval, steps, metrics: heard.append(
            ("interval", index, interval, steps, {name: values.copy() for name, values in metrics.items()})
        ),
    )
    ready = prepare(job(num_steps=84, log_every=16, eval_every=32, eval_episodes=4), fake)
    return ready, execute(ready, listeners=[listener]), heard


def test_shapes_of_a_run(a_run):
    _, results, _ = a_run
    assert results.metrics.keys() == METRICS
    assert results.steps.tolist() == [16, 32, 48, 64, 84]
    assert {v.shape for k, v in results.metrics.items() if k != "step"} == {(3, 5)}
    assert results.configs == []
    assert not results.is_sweep


def test_metrics_are_means_over_the_interval(a_run):
    """Updates begin at 0, 8, ..., 72; two a interval: the mean of `seen` is the second one's 8 minus 4."""
    _, results, _ = a_run
    assert results.metrics["seen"].tolist() == [[4, 20, 36, 52, 68]] * 3
    assert np.all(results.metrics["loss"] == 0.5)
    assert len(np.unique(results.metrics["drawn"])) == 15
    weights = results.metrics["weight"]
    assert np.array_equal(weights, np.repeat(weights[:, :1], 5, axis=1))
    assert len(np.unique(weights)) == 3


def test_episodes_are_summarised_over_the_interval(a_run):
    """Both environments are reset at the start and end an episode every 5 steps: steps 5, 10, 15, ... of each."""
    _, results, _ = a_run
    ended = np.diff([8 * i // 5 for i in range(6)])  # in each environment, 8 steps an interval
    assert results.metrics["episode_count"].tolist() == [(2 * ended).tolist()] * 3
    for name in STATISTICS:
        assert np.all(results.metrics[name] == 5), name


def test_evaluations_come_in_their_period_and_at_the_end(a_run):
    _, results, _ = a_run
    assert np.array_equal(np.isfinite(results.metrics["eval_return"]), [[False, True, False, True, True]] * 3)
    assert results.metrics["eval_return"][0, [1, 3, 4]].tolist() == [5, 5, 5]


def test_listeners_hear_each_step_in_turn(a_run):
    _, results, heard = a_run
    assert heard[0] == ("compiled", 0, 0)
    assert [event[:4] for event in heard[1:]] == [("interval", 0, i, s) for i, s in enumerate([16, 32, 48, 64, 84])]
    for interval, event in enumerate(heard[1:]):
        assert event[4].keys() == METRICS - {"step"} - ({"eval_return"} if interval == 0 else set())
        for name, values in event[4].items():
            np.testing.assert_array_equal(values, results.metrics[name][None, :, interval], err_msg=name)


def test_the_summary(a_run):
    _, results, _ = a_run
    summary = results.summary
    assert summary.keys() == {
        *("agent", "env", "num_steps", "seeds", "final_return", "steps_per_second", "compile_seconds", "run_seconds"),
        *("peak_memory_bytes", "device", "num_devices", "versions", "diverged_seeds"),
    }
    assert (summary["agent"], summary["env"], summary["num_steps"], summary["seeds"]) == ("fake", PROBE, 84, 3)
    assert summary["steps_per_second"] == pytest.approx(3 * 80 / summary["run_seconds"])  # 80 of 84 fill updates
    assert summary["compile_seconds"] > 0
    assert summary["peak_memory_bytes"] > 0
    assert (summary["device"], summary["num_devices"]) == ("cpu", 2)
    assert summary["versions"]["jaxrl"] == jaxrl.__version__
    for name in ("gymnasium", "mujoco"):
        assert (name in summary["versions"]) == (importlib.util.find_spec(name) is not None)
    assert summary["diverged_seeds"] == []
    assert summary["final_return"]["per_seed"] == [5, 5, 5]
    assert results.config["hyper_parameters"] == {}


def test_the_same_run_again_is_the_same_to_the_bit_and_another_seed_is_not(a_run):
    ready, results, _ = a_run
    again = execute(prepare(ready.job, fake))
    for name, values in results.metrics.items():
        np.testing.assert_array_equal(values, again.metrics[name], err_msg=name)
    other = jaxrl.sweep(fake, PROBE, num_steps=84, seeds=3, log_every=16, run_seed=1)
    assert not np.any(other.metrics["drawn"] == results.metrics["drawn"])


# ---------------------------------------------------------------- a sweep


@pytest.fixture(scope="module")
def a_sweep() -> Results:
    """Two sizes, and so two programs, of two thresholds each, of which the second lets some seeds' losses be NaN."""
    TRACED.clear()
    axes = {"blow_up": [2.0, 0.5], "num_envs": np.array([2, 4])}
    return jaxrl.sweep(fake, PROBE, num_steps=64, seeds=5, log_every=16, eval_episodes=2, **axes, blow_up_at=24)


def test_a_sweep_has_an_axis_of_configurations_in_the_grids_order(a_sweep):
    assert isinstance(a_sweep, Results)
    assert a_sweep.configs == [{"blow_up": b, "num_envs": n} for b in (2.0, 0.5) for n in (2, 4)]
    assert {v.shape for k, v in a_sweep.metrics.items() if k != "step"} == {(4, 5, 4)}
    given = {"blow_up": [2.0, 0.5], "num_envs": [2, 4], "blow_up_at": 24}
    assert a_sweep.config["hyper_parameters"] == given | {"rate": 0.5, "rollout_length": 4, "label": "a", "sizes": []}
    assert a_sweep.config["axes"] == ["blow_up", "num_envs"]
    # Updates begin every 8 steps with 2 environments, every 16 with 4.
    assert a_sweep.metrics["seen"][:, 0].tolist() == [[4, 20, 36, 52], [0, 16, 32, 48]] * 2
    assert np.array_equal(a_sweep.metrics["weight"][0], a_sweep.metrics["weight"][1])  # seed i is seed i everywhere
    assert len(TRACED) == 2
    assert np.array(a_sweep.summary["final_return"]["per_seed"]).shape == (4, 5)


def test_a_seed_that_diverges_is_marked_and_the_others_go_on(a_sweep):
    """The loss is NaN in the update that begins at 24, which only two environments have: from 32 on."""
    bad = a_sweep.metrics["weight"][0, :, 0] > 0.5
    assert 0 < bad.sum() < 5
    first_bad = np.full((4, 5), np.inf)
    first_bad[2, bad] = 32
    assert np.array_equal(a_sweep.first_bad_step(), first_bad)
    assert a_sweep.summary["diverged_seeds"] == [{"config": 2, "seed": int(i), "step": 32} for i in np.flatnonzero(bad)]
    assert np.array_equal(np.isnan(a_sweep.metrics["loss"][2]), bad[:, None] & (np.arange(4) == 1))
    for name, values in a_sweep.metrics.items():
        if name != "step":
            assert np.array_equal(values[2, ~bad], values[0, ~bad], equal_nan=True), name
    final = np.array(a_sweep.summary["final_return"]["per_seed"], float)
    assert np.array_equal(np.isnan(final), np.isfinite(first_bad))


def test_one_value_in_a_list_is_an_axis_of_one():
    results = jaxrl.sweep(fake, "jaxrl/Probe-policy-v0", num_steps=16, seeds=1, eval_episodes=64, rate=[0.25])
    assert results.configs == [{"rate": 0.25}]
    assert results.shape == (1, 1, 2)
    assert np.all(np.abs(results.metrics["eval_return"]) < 1)  # each of its episodes returns 1 or -1: it is their mean


@pytest.mark.parametrize("progress", [False, True])
def test_a_sweep_says_how_it_goes_on_if_asked_to(progress, capsys):
    jaxrl.sweep(fake, "jaxrl/Probe-policy-v0", num_steps=16, seeds=1, progress=progress)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("1 seed, 16 steps each" in said.err) == progress
    assert bool(said.err) == progress


# ---------------------------------------------------------------- a sweep in a folder

IN_A_FOLDER = {"num_steps": 80, "seeds": 3, "log_every": 16, "eval_episodes": 2, "rate": [0.25, 0.5]}


def test_a_sweep_in_a_folder_goes_on_after_an_interruption_and_is_loaded_when_complete(tmp_path, capsys):
    out, whole, asked = tmp_path / "run", jaxrl.sweep(fake, PROBE, **IN_A_FOLDER), []
    job = dataclasses.replace(from_json(whole.config), constructor="fake_agent:fake")
    ready, config = prepare(job, fake), folder.config_of(job, 1, tensorboard=False)
    with pytest.raises(Interrupted):
        folder.train(ready, out, config, should_stop=lambda: asked.append(1) or len(asked) == 2)
    results = jaxrl.sweep(fake, PROBE, **IN_A_FOLDER, out=out, progress=True)
    assert "resumes from step 32" in capsys.readouterr().err
    assert {"config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints"} == {p.name for p in out.iterdir()}
    TRACED.clear()
    again = jaxrl.sweep(fake, PROBE, **IN_A_FOLDER, out=str(out))
    assert TRACED == []
    for run_of_it in (results, again):
        assert run_of_it.configs == whole.configs
        for name, values in whole.metrics.items():
            np.testing.assert_array_equal(run_of_it.metrics[name], values, err_msg=name)


def test_a_folder_that_a_sweep_cannot_have(tmp_path):
    def refused(out, message, **changes):
        with pytest.raises(JaxrlError, match=message):
            jaxrl.sweep(fake, PROBE, **IN_A_FOLDER | changes, out=out)

    kept, file, others = tmp_path / "run", tmp_path / "file", tmp_path / "others"
    file.touch()
    others.mkdir()
    (others / "thesis.tex").touch()
    jaxrl.sweep(fake, PROBE, **IN_A_FOLDER, out=kept)
    refused(kept, r"sweep: out = .*run: what it holds is of another run: num_steps was 80, and now is 96", num_steps=96)
    refused(kept, r"of another run: hyper_parameters\['rate'\] was \[0.25, 0.5\], and now is 0.5", rate=0.5)
    refused(file, "sweep: out = .*file is a file")
    refused(file / "run", "sweep: out = .*run cannot be made")
    refused(others, "sweep: out = .*others is a folder with other things in it")
    refused(tmp_path / "new", r"config\['hyper_parameters'\]\['label'\]", label=object())
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- what a run in a folder records

SHORT = {"num_steps": 8, "seeds": 1, "eval_episodes": 1}


def small(rate: float = 0.5, *, label: str = "a", sizes: tuple[int, ...] = ()) -> jaxrl.Agent:
    """A constructor that takes a positional argument."""
    return fake(rate=rate, label=label, sizes=sizes)


def with_a_list(*, rate: float = 0.5, units: list[int] = [4]) -> jaxrl.Agent:  # noqa: B006
    return fake(rate=rate)


partial = functools.partial


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (partial(fake, rate=0.25), partial(fake, rate=0.5), r"hyper_parameters\['rate'\] was 0.25, and now is 0.5"),
        (partial(small, 0.25), small, r"hyper_parameters\['rate'\] was 0.25, and now is 0.5"),
        (
            partial(partial(fake, rate=0.25, label="b"), label="c"),
            partial(fake, rate=0.25),
            "'label'. was 'c', and now",
        ),
        (fake, small, "agent was 'fake', and now is 'small'"),
    ],
)
def test_a_partials_arguments_are_part_of_the_run(one, other, name, tmp_path):
    """The same folder is the same numbers only where all is the same; whichever way an argument is given."""
    first = jaxrl.sweep(one, PROBE, **SHORT, out=tmp_path / "run")
    with pytest.raises(JaxrlError, match=f"what it holds is of another run: .*{name}"):
        jaxrl.sweep(other, PROBE, **SHORT, out=tmp_path / "run")
    given = {k: v for k, v in first.config["hyper_parameters"].items() if k in ("rate", "label")}
    again = jaxrl.sweep(getattr(one, "func", one), PROBE, **SHORT, out=tmp_path / "run", **given)
    assert again.metrics["loss"].tolist() == first.metrics["loss"].tolist() == [[given["rate"]]]


def test_what_is_given_overrides_a_partial_and_its_lists_are_axes():
    results = jaxrl.sweep(partial(small, [0.25, 0.75], label="b"), PROBE, **SHORT, label="c")
    assert results.configs == [{"rate": 0.25}, {"rate": 0.75}]
    assert results.config["hyper_parameters"] == {"rate": [0.25, 0.75], "label": "c", "sizes": []}
    with pytest.raises(JaxrlError, match=r"fake: .* is not accepted; too many positional arguments"):
        jaxrl.sweep(partial(fake, 0.5), PROBE, **SHORT)


def test_configurations_are_in_the_grid_s_order():
    """Six in three programs, of which the first trains the first and the fourth."""
    results = jaxrl.sweep(fake, PROBE, **SHORT, rate=[0.25, 0.75], label=["a", "b", "c"])
    assert [config["label"] for config in results.configs] == ["a", "b", "c"] * 2
    assert results.metrics["loss"][:, 0, 0].tolist() == [config["rate"] for config in results.configs]


def test_what_cannot_be_recorded_is_refused_in_a_folder_and_nowhere_else(tmp_path):
    def own(**hyper_parameters):
        return fake(**hyper_parameters)

    cases = [
        (own, {}, "constructor=<function .*own.* cannot be recorded.* top level of a module, or leave `out` away"),
        (lambda rate=0.5: fake(rate=rate), {}, "constructor=<function .*lambda.* cannot be recorded"),
        (with_a_list, {}, r"with_a_list has the default units=\[4\].*make it a tuple"),
        (fake, {"label": own}, r"config\['hyper_parameters'\]\['label'\]=<function .*own.* cannot be recorded"),
        (partial(fake, label=partial(own, 1)), {}, r"\['label'\]=functools.partial.* cannot be recorded"),
        (fake, {"label": np.zeros(2).view}, r"\['label'\]=<built-in method view"),
        (fake, {"label": {"a": (1, {2})}}, r"\['label'\]\['a'\]\[1\]=\{2\} cannot be recorded"),
        (
            fake,
            {"label": jaxrl.transforms.normalize.normalize_replay(uniform(capacity=8, batch_size=8))},
            "or a replay of a func",
        ),
        (fake, {"label": uniform(capacity=8, batch_size=8)._replace(update=fake)}, "or a replay of a func"),
    ]
    for constructor, hyper_parameters, message in cases:
        with pytest.raises(JaxrlError, match=message):
            jaxrl.sweep(constructor, PROBE, **SHORT, **hyper_parameters, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert jaxrl.sweep(cases[1][0], PROBE, **SHORT).metrics["loss"].tolist() == [[0.5]]


def test_a_changed_default_is_another_run(tmp_path, monkeypatch):
    """As of a later version: what was left at its default is recorded with the value that it had."""
    jaxrl.sweep(small, PROBE, **SHORT, out=tmp_path / "run")
    monkeypatch.setitem(small.__kwdefaults__, "label", "b")
    with pytest.raises(JaxrlError, match=r"hyper_parameters\['label'\] was 'a', and now is 'b'"):
        jaxrl.sweep(small, PROBE, **SHORT, out=tmp_path / "run")
    assert folder.read_run(tmp_path / "run")[0].job.hyper_parameters["label"] == "a"


def test_numpy_s_integers_make_the_same_run(tmp_path):
    numbers = {name: np.int64(value) for name, value in (SHORT | {"run_seed": 3, "log_every": 8}).items()}
    before = jaxrl.sweep(fake, PROBE, **numbers, out=tmp_path / "run")
    after = jaxrl.sweep(fake, PROBE, **SHORT, run_seed=3, log_every=8, out=tmp_path / "run")
    assert after.metrics["weight"] == before.metrics["weight"]
    assert {"num_steps": 8, "seeds": 1, "seed": 3}.items() <= after.config.items()


def test_the_order_of_the_axes_is_part_of_the_run(tmp_path):
    rates, labels = [0.25, 0.5], ["a", "b"]
    jaxrl.sweep(fake, PROBE, **SHORT, rate=rates, label=labels, out=tmp_path / "run")
    with pytest.raises(JaxrlError, match=r"axes was \['rate', 'label'\], and now is \['label', 'rate'\]"):
        jaxrl.sweep(fake, PROBE, **SHORT, label=labels, rate=rates, out=tmp_path / "run")


def test_jaxs_settings_and_devices_are_no_part_of_the_run(tmp_path, capsys):
    out = tmp_path / "run"
    before = jaxrl.sweep(fake, PROBE, **SHORT, out=out)
    with jax.enable_x64(True), jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        assert cli.main(["evaluate", str(out), "--episodes", "1"]) == 0
        (out / "summary.json").unlink()  # so that its checkpoint is read, and what is missing written again
        loaded = jaxrl.sweep(fake, PROBE, **SHORT, out=out)
        fresh = jaxrl.sweep(fake, PROBE, **SHORT)
    for name, values in before.metrics.items():
        np.testing.assert_array_equal(loaded.metrics[name], values, err_msg=name)
        np.testing.assert_array_equal(fresh.metrics[name], values, err_msg=name)
    config = json.loads((out / "config.json").read_text())
    assert config["versions"]["jax"] == jax.__version__
    noted = {"num_devices": 64, "num_threads": 64, "versions": {"jax": "0.0.1"}}
    (out / "config.json").write_text(json.dumps(config | noted))
    again = jaxrl.sweep(fake, PROBE, **SHORT, out=out)
    assert again.metrics["weight"] == before.metrics["weight"]
    assert {name: again.config[name] for name in noted} == noted


REPLAYS = [
    uniform(capacity=64, batch_size=8),
    uniform(capacity=64, batch_size=16),
    uniform(capacity=64, batch_size=8, read=hindsight(strategy="final")),
    uniform(capacity=64, batch_size=8, read=hindsight(strategy="final", probability=0.5)),
    prioritized(capacity=64, batch_size=8),
    prioritized(capacity=64, batch_size=8, beta=0.5),
    ranked(capacity=64, batch_size=8),
]


def test_replays_are_recorded_by_how_they_were_made():
    texts = {json.dumps(record.encode(replay, "replay")) for replay in REPLAYS}
    assert len(texts) == len(set(map(repr, REPLAYS))) == len(REPLAYS)
    for replay in REPLAYS:
        again = record.decode(json.loads(json.dumps(record.encode(replay, "replay"))))
        assert record.encode(again, "replay") == record.encode(replay, "replay")
    assert repr(REPLAYS[1]).startswith("uniform(capacity=64, batch_size=16, read=window)")
    assert repr(REPLAYS[5]).startswith("prioritized(capacity=64, batch_size=8, alpha=0.6, beta=0.5, beta_steps=100000")


def test_a_run_with_a_replay_goes_on_from_its_record(tmp_path, capsys):
    """By the same call and by its folder alone; another replay is another run."""
    small = {"hidden_sizes": (4,), "replay_size": 64, "batch_size": 8, "warmup_steps": 8}
    options = {"num_steps": 64, "seeds": 1, "log_every": 16, "eval_episodes": 1} | small
    replay = prioritized(capacity=64, batch_size=8, beta=0.7)
    hyper_parameters = with_defaults(dqn, small | {"replay": replay})
    job, asked = Job("dqn", PROBE, 64, 1, hyper_parameters, log_every=16, eval_episodes=1), []
    ready, config = prepare(job, dqn), folder.config_of(job, 1, tensorboard=False)
    with pytest.raises(Interrupted):
        folder.train(ready, tmp_path / "run", config, should_stop=lambda: asked.append(1) or len(asked) == 2)
    with pytest.raises(JaxrlError, match=r"\['replay'\]\['keywords'\]\['beta'\] was 0.7, and now is 0.4"):
        jaxrl.sweep(dqn, PROBE, **options, replay=prioritized(capacity=64, batch_size=8), out=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert cli.main(["resume", str(tmp_path / "copy")]) == 0
    capsys.readouterr()
    again = prioritized(capacity=64, batch_size=8, beta=0.7)
    by_call = jaxrl.sweep(dqn, PROBE, **options, replay=again, out=tmp_path / "run", progress=True)
    assert "resumes from step 32" in capsys.readouterr().err
    for name, values in Results.load(tmp_path / "copy").metrics.items():
        np.testing.assert_array_equal(by_call.metrics[name], values, err_msg=name)


def test_a_sweep_over_replays_is_loaded_saved_and_drawn_as_it_was(tmp_path):
    """Reading imports nothing, so they stay as they are recorded; a person sees the same."""
    replays = [*REPLAYS[:4], partial(uniform, 64, sizes=(2,), rate=float("inf")), (follow, np.int64(1)), jax.numpy.tanh]
    steps, configs = np.arange(2), [{"replay": replay} for replay in replays]
    metrics = {"step": steps, "episode_return": np.zeros((len(replays), 1, 2))}
    made = Results({"agent": "dqn", "env": PROBE}, metrics, {}, configs)
    made.save(tmp_path / "one")
    loaded = Results.load(tmp_path / "one")
    loaded.save(tmp_path / "two")
    again = Results.load(tmp_path / "two")
    assert loaded.configs == again.configs
    labels = [[results.label(i) for i in range(len(replays))] for results in (made, loaded, again)]
    assert labels[0] == labels[1] == labels[2]
    assert not re.search(r"0x|\$", str(labels))
    assert labels[0][0] == "replay=uniform(capacity=64, batch_size=8, read=window)"
    assert labels[0][2].startswith("replay=uniform(capacity=64, batch_size=8, read=hindsight(")
    assert labels[0][4:] == ["replay=uniform(64, sizes=(2,), rate=inf)", "replay=(follow, 1)", "replay=tanh"]
    plot_curve(loaded, tmp_path / "curve.png")


def follow(key, obs):
    return jax.random.randint(key, (), 0, 2)


def test_functions_are_recorded_by_name(tmp_path):
    env, options = "jaxrl/Corridor-v0", {"num_steps": 40, "seeds": 1, "log_every": 20, "eval_episodes": 1}
    results = jaxrl.sweep(jaxrl.td, env, **options, policy=follow, out=tmp_path / "run")
    assert results.config["hyper_parameters"]["policy"] == {"$import": "test_run:follow"}
    assert results.config["hyper_parameters"]["features"] is None
    assert folder.read_run(tmp_path / "run")[0].job.hyper_parameters["policy"] is follow
    for message, change in [
        ("'policy'.* cannot be imported: No module named 'nowhere'", {"policy": {"$import": "nowhere:follow"}}),
        ("'policy'.* cannot be imported: .* has no attribute 'lead'", {"policy": {"$import": "test_run:lead"}}),
        ("lead was defined in a script or notebook; the same call", {"policy": {"$import": "__main__:lead"}}),
        (r"\{'\$eval': 'x'\} is not what a run records", {"policy": {"$eval": "x"}}),
    ]:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        config["hyper_parameters"] |= change
        (tmp_path / "run" / "config.json").write_text(json.dumps(config))
        with pytest.raises(JaxrlError, match=message.replace("'policy'.* ", "")):
            folder.read_run(tmp_path / "run")


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(), st.floats(),
        st.builds(np.float32, st.floats(width=32)), st.builds(np.int64, st.integers(-9, 9)),
        st.builds(np.bool_, st.booleans()), st.builds(jax.numpy.float32, st.floats(-9, 9, width=32)),
        st.builds(pathlib.Path, st.just("a/ü")),
        st.sampled_from([fake, jaxrl.ppo, jax.numpy.tanh, dict, partial(fake, 1, sizes=(2,))]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text().filter(lambda name: not name.startswith("$")), inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


def described(value):
    """A value's types and all: NaN is itself, -0.0 is not 0.0, True is not 1, and partials of one thing are one."""
    if isinstance(value, dict):
        return {name: described(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [described(entry) for entry in value]
    if isinstance(value, partial):
        return value.func, described(value.args), described(value.keywords)
    return type(value), repr(value)


@given(value=values, axis=st.lists(values, min_size=1, max_size=3), order=st.permutations(["given", "axis"]))
@settings(max_examples=200, deadline=None)
def test_any_value_comes_back_from_a_record(value, axis, order):
    """As a hyper-parameter, an environment's parameter, and an axis of either; their order, too."""
    assume(not isinstance(value, list))
    chosen = {name: {"given": value, "axis": axis}[name] for name in order}
    axes = [record.plain(entry) for entry in axis]
    job = Job("fake", PROBE, 8, 1, chosen, {"given": value}, env_axes={"axis": axis})
    text = json.dumps(in_json(job), allow_nan=False)
    back = from_json(json.loads(text))
    assert list(back.hyper_parameters) == list(order)
    assert described(back.hyper_parameters["given"]) == described(back.env_params["given"])
    assert described(back.env_params["given"]) == described(record.plain(value))
    assert described(back.hyper_parameters["axis"]) == described(back.env_axes["axis"]) == described(axes)
    assert json.dumps(in_json(back)) == text


def test_axes_of_tuples_come_back(tmp_path):
    """From the folder alone: the plan, the configurations of its results, and what is evaluated."""
    axes, observe = {"sizes": [(2,), (3, 1)], "rate": [float("inf"), 0.5]}, {"observe": [(0, 2)]}
    results = jaxrl.sweep(fake, "CartPole-v1", **SHORT, **axes, env_params=observe, out=tmp_path / "r")
    ready, _ = folder.read_run(tmp_path / "r")
    expected = [{"sizes": s, "rate": r, "env.observe": (0, 2)} for s in axes["sizes"] for r in axes["rate"]]
    assert ready.plan.configs == results.configs == Results.load(tmp_path / "r").configs == expected
    assert cli.main(["evaluate", str(tmp_path / "r"), "--episodes", "1"]) == 0


# ---------------------------------------------------------------- what cannot be written


@contextlib.contextmanager
def full(limit: int):
    """No file can be longer than so many bytes while the block lasts: the system's errors are those of a full disk.

    Nothing is written to the compilation cache meanwhile, where JAX would leave halves of files.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    jax.config.update("jax_enable_compilation_cache", False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run in a folder that was stopped in the middle, and the whole run's results."""
    out, asked = tmp_path_factory.mktemp("half") / "run", []
    job = Job("fake", PROBE, 80, 3, {"sizes": (50, 50)}, log_every=16, eval_episodes=2, constructor="fake_agent:fake")
    ready = prepare(job, fake)
    with pytest.raises(Interrupted):
        folder.train(ready, out, folder.config_of(job, 2, tensorboard=True), (), lambda: asked.append(1) or asked[1:])
    return out, execute(ready)


@pytest.mark.parametrize(
    ("limit", "message", "complete"),
    [
        (500, "config.json cannot be written: File too large", False),
        (1000, "tensorboard cannot be written: File too large", False),
        (5000, "checkpoints/group_0: the checkpoint cannot be written: File too large", False),
        (40_000, "curve.png cannot be written: File too large", True),
    ],
)
def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on_when_there_is_room(
    limit, message, complete, half, tmp_path, capfd
):
    out, whole = tmp_path / "run", half[1]
    shutil.copytree(half[0], out)
    with full(limit):
        status = cli.main(["resume", str(out)])
    error = capfd.readouterr().err
    assert status == 1
    assert error == f"jaxrl: {out}/{message}; jaxrl resume {out} resumes from the newest checkpoint\n"
    assert [path.name for path in (out / "checkpoints" / "group_0").glob("*") if path.name.isdigit()] == (
        ["5"] if complete else ["2"]
    )
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert cli.main(["resume", str(out)]) == 0
    results = Results.load(out)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(results.metrics[name], values, err_msg=name)
    assert [path.name for path in (out / "checkpoints" / "group_0").iterdir()] == ["5"]


def test_a_process_whose_disk_is_full_ends_with_a_line(half, tmp_path):
    """No thread writes what it thinks of it, or keeps the process."""
    out = tmp_path / "run"
    shutil.copytree(half[0], out)
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ["bash", "-c", 'ulimit -f 5; exec "$@"', "-", sys.executable, "-m", "jaxrl", "resume", str(out)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert re.fullmatch("jaxrl: .*group_0: the checkpoint cannot be written: File too large; .*\n", ended.stderr)


def test_what_an_interruption_leaves_is_no_obstacle(half, tmp_path):
    """A first checkpoint that was not written to the end, a lock, a copy, a path of any letters."""
    out = tmp_path / "ein Ürlauf 🚀 %s {x}" / "run"
    shutil.copytree(half[0], out)
    (out / ".lock").touch()
    checkpoints = out / "checkpoints" / "group_0"
    (checkpoints / "2").rename(checkpoints / "9.orbax-checkpoint-tmp")
    (checkpoints / "9.orbax-checkpoint-tmp" / "facts").rename(checkpoints / "9.orbax-checkpoint-tmp" / "f.orbax-tmp")
    with pytest.raises(JaxrlError, match="there is no checkpoint yet"):
        trained(folder.read_run(out)[0], out, 0, 0)
    assert [path.name for path in checkpoints.iterdir()] == ["9.orbax-checkpoint-tmp"]
    assert cli.main(["resume", str(out)]) == 0
    assert [path.name for path in checkpoints.iterdir()] == ["5"]
    for name, values in half[1].metrics.items():
        np.testing.assert_array_equal(Results.load(out).metrics[name], values, err_msg=name)


def test_tensorboard_s_files_may_be_more_than_a_process_has_by_itself(tmp_path, monkeypatch):
    """Each seed has one: the soft limit is raised, and where the hard one is too low that is said at once."""
    ready = prepare(job(num_steps=8, seeds=150, eval_episodes=1), fake)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        with report.tensorboard(tmp_path / "files", ready) as listener:
            listener.interval(ready, 0, 0, 8, {"episode_return": np.ones((1, 150))})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(list((tmp_path / "files").glob("*/events*"))) == 151
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    message = r"tensorboard: 150 seeds need 151 open files, and the system allows 128 \(ulimit -n\); train fewer seeds"
    with pytest.raises(JaxrlError, match=message), report.tensorboard(tmp_path / "files", ready):
        pass


def test_what_is_written_outside_of_a_run(tmp_path):
    """Each file by its name, and the old one stays; nothing is left beside it."""
    results = jaxrl.sweep(fake, PROBE, **SHORT, out=tmp_path / "run")
    env = jaxrl.make("jaxrl/Corridor-v0")
    states = jax.tree.map(lambda x: np.asarray(x)[None], env.reset(jax.random.key(0))[0])
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with full(100):
        for name, write in [
            ("run/config.json", lambda: results.save(tmp_path / "run")),
            ("run/curve.png", lambda: plot_curve(results, tmp_path / "run" / "curve.png")),
            ("a.gif", lambda: render.animate(env, states, tmp_path / "a.gif")),
            ("a.png", lambda: render.picture(env, states, tmp_path / "a.png")),
        ]:
            with pytest.raises(RunError, match=f"{tmp_path}/{name} cannot be written: File too large"):
                write()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_learning_rate_that_is_too_large():
    """PPO itself: parameters that overflow are found, though the loss may still be finite."""
    small = {"num_envs": 2, "rollout_length": 8, "num_epochs": 1, "num_minibatches": 1, "hidden_sizes": (4,)}
    results = jaxrl.sweep(ppo, PROBE, num_steps=64, seeds=2, eval_episodes=1, learning_rate=[1e-3, 3e38], **small)
    assert {(r["config"], r["seed"]) for r in results.summary["diverged_seeds"]} == {(1, 0), (1, 1)}
    assert np.all(np.isfinite(results.metrics["policy_loss"][0]))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("num_steps", "options", "steps"),
    [
        (8, {}, [8]),
        (8, {"log_every": 1000}, [8]),
        (15, {}, [15]),
        (16, {}, [8, 16]),
        (23, {}, [8, 23]),
        (90, {"log_every": 16}, [16, 32, 48, 64, 80, 90]),
        (90, {"log_every": 20}, [20, 40, 60, 80, 90]),
        (85, {"log_every": 20}, [20, 40, 60, 85]),
        (800, {}, list(range(8, 801, 8))),
        (1000, {}, [*range(16, 977, 16), 992, 1000]),
    ],
)
def test_log_intervals(num_steps, options, steps):
    """Every interval holds an update, of 8 steps; left to itself there are at most a hundred, of whole updates."""
    ready = prepare(job(num_steps=num_steps, **options), fake)
    assert [steps_after(ready, i + 1) for i in range(ready.num_intervals)] == steps
    assert all(end // 8 > start // 8 for start, end in zip([0, *steps], steps, strict=False))


def test_periods_left_out_are_tenths_of_the_run():
    ready = prepare(job(num_steps=1000), fake)
    assert (ready.eval_every, ready.checkpoint_every) == (100, 100)


# ---------------------------------------------------------------- refused before anything compiles


@pytest.mark.parametrize(
    ("constructor", "changes", "message"),
    [
        (fake, {"num_steps": 7}, "num_steps=7 is not accepted; one update of fake takes .* = 8 environment steps"),
        (fake, {"num_steps": 0}, "run: num_steps=0 is not accepted; it must be a whole number, at least 1"),
        (fake, {"num_steps": 80.0}, "run: num_steps=80.0 is not accepted; it must be a whole number"),
        (fake, {"num_steps": 2**31}, "run: num_steps=2147483648 is not accepted; it must be less than"),
        (fake, {"seeds": 0}, "run: seeds=0 is not accepted"),
        (fake, {"seeds": -3}, "run: seeds=-3 is not accepted"),
        (fake, {"seed": -1}, "run: seed=-1 is not accepted; it must be a whole number, at least 0"),
        (fake, {"seed": 2**40}, "run: seed=1099511627776 is not accepted; it must be less than"),
        (fake, {"eval_episodes": 0}, "run: eval_episodes=0 is not accepted"),
        (fake, {"eval_every": -5}, "run: eval_every=-5 is not accepted"),
        (fake, {"checkpoint_every": -5}, "run: checkpoint_every=-5 is not accepted"),
        (fake, {"log_every": -8}, "run: log_every=-8 is not accepted"),
        (fake, {"log_every": 7}, "run: log_every=7 is not accepted; it must be at least the 8 steps of one update"),
        (fake, {"log_every": 15, "hyper_parameters": {"num_envs": [2, 4]}}, "log_every=15 .* at least the 16 steps"),
        (fake, {"num_steps": 15, "hyper_parameters": {"num_envs": [2, 4]}}, "num_steps=15 is not accepted"),
        (fake, {"hyper_parameters": {"rat": 1}}, "unknown hyper-parameter of fake 'rat': did you mean rate"),
        (fake, {"env": "CartPole-v2"}, "unknown environment 'CartPole-v2': did you mean CartPole-v1"),
        (fake, {"env": "CartPole-v1", "env_params": {"gravy": 1}}, "CartPole-v1: unknown parameter 'gravy'"),
        (fake, {"env": "CartPole-v1", "env_params": {"gravity": [1, 2]}}, r"gravity=\[1, 2\] is not accepted"),
        (dqn, {"env": "Pendulum-v1"}, "dqn: Pendulum-v1 has continuous actions"),
        (ppo, {"hyper_parameters": {"learning_rate": float("nan")}}, "ppo: learning_rate=nan is not accepted"),
        (ppo, {"hyper_parameters": {"gamma": 1.5}}, r"ppo: gamma=1.5 is not accepted; it must be a number in \[0, 1\]"),
        (ppo, {"hyper_parameters": {"num_minibatches": 3}}, "num_minibatches=3 does not divide .* = 512"),
        (ppo, {"num_steps": 512, "env": "CartPole-v1", "hyper_parameters": {"torso": "cnn"}}, "torso='cnn'"),
    ],
)
def test_a_bad_job_is_refused_before_anything_compiles(constructor, changes, message, monkeypatch):
    monkeypatch.setattr(run, "compile_group", None)
    with pytest.raises(JaxrlError, match=message):
        prepare(job(**changes), constructor)


@pytest.mark.parametrize("not_one", ["ppo", ppo(), None])
def test_a_sweep_of_what_is_not_a_constructor(not_one):
    with pytest.raises(JaxrlError, match=r"sweep: constructor=.* is not accepted; one is jaxrl\.ppo"):
        jaxrl.sweep(not_one, PROBE, num_steps=80, seeds=1)
