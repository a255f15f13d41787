"""Stopping and going on: a resumed run equals the uninterrupted one to the bit, and a bad checkpoint is reported."""

import contextlib
import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest
from fake_agent import FakeState, fake

from jaxrl import JaxrlError, dqn, ppo
from jaxrl.runs import checkpoint, run
from jaxrl.runs.job import Job, in_json, prepare
from jaxrl.runs.program import placed, stored_shapes
from jaxrl.runs.run import Interrupted, Listener, compile_for, execute
from jaxrl.runs.trained import evaluations

PROBE = "jaxrl/Probe-truncation-v0"
SMALL_PPO = {"num_envs": 2, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (4,)}
SMALL_DQN = {"replay_size": 64, "batch_size": 8, "warmup_steps": 8, "target_update_every": 5, "hidden_sizes": (4,)}


def run_in_pieces(ready, out: pathlib.Path, stop_after: list[int]):
    """Runs with a stop after so many intervals, again and again; returns the results and the last piece's events."""
    for intervals in [*stop_after, None]:
        events = []
        listener = Listener(
            compiled=lambda _, group, program, done, events=events: events.append(("compiled", group, done)),
            interval=lambda _, group, interval, *rest, events=events: events.append(("interval", group, interval)),
        )
        done = iter(range(1, 1000))
        stop = lambda intervals=intervals, done=done: next(done) == intervals  # noqa: E731
        if intervals is None:
            return execute(ready, out, [listener], stop), events
        with pytest.raises(Interrupted):
            execute(ready, out, [listener], stop)
        assert len([event for event in events if event[0] == "interval"]) == intervals


def assert_same(one, two):
    assert one.metrics.keys() == two.metrics.keys()
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values, two.metrics[name], err_msg=name)
        assert values.dtype == two.metrics[name].dtype
    assert one.first_bad_step().tolist() == two.first_bad_step().tolist()
    assert one.configs == two.configs


@pytest.mark.parametrize(
    ("constructor", "hyper_parameters", "num_steps", "stop_after"),
    [
        (ppo, SMALL_PPO | {"normalize_observations": True, "normalize_rewards": True}, 16 * 6, [4]),
        (dqn, SMALL_DQN, 120, [1, 3]),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(constructor, hyper_parameters, num_steps, stop_after, tmp_path):
    """Of an odd number of seeds; no periodic checkpoint is due, so it is the stop's own that is resumed from."""
    job = Job(
        constructor.__name__, "CartPole-v1", num_steps, 3, hyper_parameters, eval_episodes=2, eval_every=num_steps // 3,
        log_every=num_steps // 6, checkpoint_every=10**6,
    )  # fmt: skip
    ready = prepare(job, constructor)
    whole = execute(ready)
    pieces, events = run_in_pieces(ready, tmp_path, stop_after)
    assert_same(whole, pieces)
    assert events[0] == ("compiled", 0, sum(stop_after))
    assert pieces.summary["run_seconds"] > 0
    assert not any(np.all(values == values.flat[0]) for name, values in whole.metrics.items() if "loss" in name)


def test_a_sweep_stopped_in_each_of_its_groups(tmp_path):
    """Its second group is stopped, too; its first, once finished, is not trained again."""
    axes = {"num_envs": [2, 4], "rate": [0.1, 0.2], "blow_up": 0.5, "blow_up_at": 16}
    ready = prepare(Job("fake", PROBE, 80, 3, axes, log_every=16, eval_episodes=2), fake)
    pieces, events = run_in_pieces(ready, tmp_path, [2, 4])
    assert events == [("compiled", 0, 5), ("compiled", 1, 1), *(("interval", 1, i) for i in (1, 2, 3, 4))]
    assert_same(execute(ready), pieces)
    assert pieces.summary["diverged_seeds"]

    again, events = run_in_pieces(ready, tmp_path, [])  # all of it is there
    assert events == [("compiled", 0, 5), ("compiled", 1, 5)]
    assert_same(again, pieces)
    assert again.summary["run_seconds"] == pieces.summary["run_seconds"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_run_resumes_on_another_number_of_devices(before, after, programs, tmp_path, monkeypatch):
    """Of three seeds, which two devices pad to four. The same number gives the same bits; another rounds elsewhere."""
    ready, compiled = programs
    whole = {}
    for folder, stop_at, devices in [("whole", 0, before), ("pieces", 2, before), ("pieces", 0, after)]:
        monkeypatch.setattr(run, "compile_for", lambda *_, devices=devices: compiled[devices])
        asked, starts = [], []
        listener = Listener(lambda ready, index, program, done, starts=starts: starts.append((program.mesh.size, done)))
        stop = lambda asked=asked, stop_at=stop_at: asked.append(1) or len(asked) == stop_at  # noqa: E731
        with pytest.raises(Interrupted) if stop_at else contextlib.nullcontext():
            whole[folder] = execute(ready, tmp_path / folder, [listener], stop)
    assert starts == [(after, 2)]
    one, two = whole["whole"], whole["pieces"]
    if before == after:
        assert_same(one, two)
    for name, values in one.metrics.items():
        np.testing.assert_allclose(two.metrics[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(np.unique(one.metrics["loss"][:, -1])) == 3


@pytest.fixture(scope="module")
def programs():
    """A run of an odd number of seeds, and its program on two devices and on one."""
    job = Job("dqn", "CartPole-v1", 64, 3, SMALL_DQN, log_every=16, eval_every=32, eval_episodes=2)
    ready, devices = prepare(job, dqn), jax.devices()
    compiled = {}
    with pytest.MonkeyPatch.context() as patch:
        for number in (1, 2):
            patch.setattr(jax, "devices", lambda number=number: devices[:number])
            compiled[number] = compile_for(ready, ready.plan.groups[0])
    return ready, compiled


def test_without_a_folder_a_stop_is_only_a_stop():
    ready = prepare(Job("fake", PROBE, 16, 1, log_every=8), fake)
    with pytest.raises(Interrupted):
        execute(ready, should_stop=lambda: True)


# ---------------------------------------------------------------- one checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run, its folder with its last checkpoint, its results and its program."""
    out = tmp_path_factory.mktemp("run")
    ready = prepare(Job("fake", PROBE, 32, 3, {"sizes": (2,)}, log_every=8, eval_episodes=2), fake)
    results = execute(ready, out)
    return ready, out, results, compile_for(ready, ready.plan.groups[0], parts=())


def restore(folder: pathlib.Path, program, job, **changes):
    with checkpoint.manager(folder, read_only=True) as opened:
        return checkpoint.restore(opened, stored_shapes(program)._replace(**changes), job)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_restored(saved):
    ready, out, results, program = saved
    assert [path.name for path in (out / "checkpoints" / "group_0").iterdir()] == ["4"]  # the newest alone is kept
    found = restore(out / "checkpoints" / "group_0", program, in_json(ready.job))
    assert found.point == 4
    assert found.job == in_json(ready.job)
    assert found.facts["first_bad_step"] == [[-1, -1, -1]]
    for name, values in found.metrics.items():
        np.testing.assert_array_equal(values[0], results.metrics[name], err_msg=name)
    assert {len(leaf) for leaf in jax.tree.leaves(found.state.agent)} == {3}  # the padding to four rows is not kept
    state, shapes = placed(program, found.state), program.shapes
    assert isinstance(state.agent, FakeState)
    assert jax.tree.structure(state) == jax.tree.structure(shapes)
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(shapes), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (like.shape, like.dtype, like.sharding)
    assert state.step == 32
    weight = np.asarray(state.agent.weight).mean((1, 2))
    np.testing.assert_array_equal(weight, results.metrics["weight"][[0, 1, 2, 0], -1])


def test_no_checkpoint_is_none(saved, tmp_path):
    ready, _, _, program = saved
    assert restore(tmp_path, program, in_json(ready.job)) is None
    with pytest.raises(JaxrlError, match="there is no checkpoint yet; jaxrl resume"):
        list(evaluations(ready, tmp_path, 1, 0))


def test_a_path_that_orbax_would_take_for_a_pattern(tmp_path):
    with (
        pytest.raises(JaxrlError, match=r"a path of checkpoints must not hold \[ or \]"),
        checkpoint.manager(tmp_path / "[a]"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def damages(content: bytes) -> dict[str, bytes | None]:
    return {"deleted": None, "halved": content[: len(content) // 2], "garbage": b"garbage" * 10}


def test_what_is_newest_is_read_while_a_run_puts_another_in_its_place(saved, tmp_path, monkeypatch):
    """A checkpoint that is gone before it has been read is no damaged one."""
    ready, out, _, program = saved
    shutil.copytree(out / "checkpoints" / "group_0", tmp_path / "group_0")
    read, calls = checkpoint.restore, []

    def restore(*arguments):
        if not calls:
            (tmp_path / "group_0" / "4").rename(tmp_path / "group_0" / "5")
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(checkpoint, "restore", restore)
    assert checkpoint.newest(tmp_path / "group_0", stored_shapes(program), in_json(ready.job)).point == 5
    assert len(calls) == 2


def test_any_damage_is_an_error_or_does_no_harm(saved, tmp_path, capfd):
    """Each file of a checkpoint in turn; some are of no consequence, and then what is read is what was saved."""
    ready, out, _, program = saved
    folder, job = out / "checkpoints" / "group_0", in_json(ready.job)
    right = restore(folder, program, job)
    errors = {}
    for name, content in contents(folder).items():
        for kind, damaged in damages(content).items():
            copy = tmp_path / f"{name.replace('/', '-')}-{kind}"
            shutil.copytree(folder, copy)
            (copy / name).unlink() if damaged is None else (copy / name).write_bytes(damaged)
            before = contents(copy)
            try:
                found = restore(copy, program, job)
            except JaxrlError as error:
                errors[name, kind] = str(error).replace(str(copy), "FOLDER")
            else:
                assert (found.point, found.facts, found.job) == (4, right.facts, right.job)
                jax.tree.map(np.testing.assert_array_equal, found.state, right.state)
                jax.tree.map(np.testing.assert_array_equal, found.metrics, right.metrics)
            assert contents(copy) == before
    assert all(message.startswith("FOLDER/4: the checkpoint is damaged") for message in errors.values())
    assert all("\n" not in message for message in errors.values())
    harmful = {name for name, _ in errors}
    assert {"4/facts/metadata", "4/state/manifest.ocdbt", "4/history/manifest.ocdbt"} <= harmful
    assert len(harmful) == 7  # besides these, two descriptions and two files of numbers
    assert len(errors) == 3 * 7
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_does_not_go_over_a_damaged_checkpoint(saved, tmp_path):
    ready, out, _, _ = saved
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/checkpoints/group_0/4/state/manifest.ocdbt").write_bytes(b"")
    before = contents(tmp_path)
    for go_on in (lambda: execute(ready, tmp_path / "run"), lambda: list(evaluations(ready, tmp_path / "run", 1, 0))):
        with pytest.raises(JaxrlError, match="run/checkpoints/group_0/4: the checkpoint is damaged"):
            go_on()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 40}, r"num_steps was 32, and now is 40"),
        ({"seed": 1}, r"seed was 0, and now is 1"),
        ({"hyper_parameters": {"sizes": (3,)}}, r"hyper_parameters\['sizes'\] was \[2\], and now is \[3\]"),
        ({"hyper_parameters": {"sizes": (2,), "rate": 0.1}}, r"hyper_parameters\['rate'\] was None, and now is 0.1"),
        ({"env": "jaxrl/Probe-value-v0"}, "env was 'jaxrl/Probe-truncation-v0', and now is 'jaxrl/Probe-value-v0'"),
        ({"env_params": {"time_limit": 3}}, r"env_params\['time_limit'\] was None, and now is 3"),
    ],
)
def test_a_checkpoint_of_another_run(saved, change, message):
    ready, out, _, program = saved
    job = dataclasses.replace(ready.job, **change)
    with pytest.raises(JaxrlError, match=f"group_0/4: the checkpoint is of another run: {message}"):
        restore(out / "checkpoints" / "group_0", program, in_json(job))


def test_a_checkpoint_of_another_program(saved):
    """As a later version's might be: the job is the same, the arrays are not."""
    ready, out, _, program = saved
    folder, job, weight = out / "checkpoints" / "group_0", in_json(ready.job), stored_shapes(program).agent.weight
    for wrong, message in [
        (
            jax.ShapeDtypeStruct((3, 1, 3), weight.dtype),
            r"agent.weight is float32\[3, 1, 2\], where float32\[3, 1, 3\]",
        ),
        (jax.ShapeDtypeStruct(weight.shape, np.int32), r"agent.weight is float32\[3, 1, 2\], where int32\[3, 1, 2\]"),
        ({"bias": weight, "weight": weight}, r"agent\['\w+'\] is missing|agent.weight is not needed"),
        ((), "agent.weight is not needed"),
    ]:
        agent = FakeState(wrong) if isinstance(wrong, jax.ShapeDtypeStruct) else wrong
        with pytest.raises(JaxrlError, match=f"group_0/4: the checkpoint is of another program: .*({message})"):
            restore(folder, program, job, agent=agent)
