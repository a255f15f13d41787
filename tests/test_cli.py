"""The command line: a run's folder, killing and resuming it, and what is said to those who type something wrong."""

import concurrent.futures
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrl import JaxrlError, Results, cli, evaluate, make, ppo, sweep
from jaxrl.agents import AGENTS
from jaxrl.analysis.render import render
from jaxrl.analysis.statistics import interquartile_mean
from jaxrl.constructors import parameters
from jaxrl.runs import folder
from jaxrl.runs.program import EVALUATION
from jaxrl.runs.trained import episode_of_run, evaluations, trained

# Long enough that there is time to kill it after its first checkpoint.
DQN = [
    *("dqn", "--env", "CartPole-v1", "--num-steps", "100000", "--seeds", "3", "--seed", "5", "--devices", "2"),
    *("--hidden-sizes", "8", "--batch-size", "8", "--replay-size", "1000", "--warmup-steps", "100"),
    *("--log-every", "1000", "--eval-every", "25000", "--eval-episodes", "2", "--checkpoint-every", "10000"),
]
PPO = ["ppo", "--env", "CartPole-v1", "--num-steps", "4000", "--devices", "2"]
RUN_FILES = {"config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints"}


def jaxrl(capfd, *words) -> tuple[int, str, str]:
    """Runs a command in this process; its exit status, and what it wrote to stdout and stderr, without line breaks."""
    capfd.readouterr()
    status = cli.main([str(word) for word in words])
    return status, *(" ".join(re.sub("[│╭╮╰╯─]", " ", text).split()) for text in capfd.readouterr())


def metrics_of(folder: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(folder / "metrics.npz") as archive:
        return dict(archive)


def assert_same_metrics(one: pathlib.Path, two: pathlib.Path):
    metrics, others = metrics_of(one), metrics_of(two)
    assert metrics.keys() == others.keys()
    for name, values in metrics.items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def saved(run: pathlib.Path) -> list[int]:
    """The log intervals after which there are checkpoints; one that is still being written has another name."""
    return [int(path.name) for path in (run / "checkpoints" / "group_0").glob("*") if path.name.isdigit()]


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "whole"
    assert cli.main(["train", *DQN, "--out", str(out), "--tensorboard"]) == 0
    return out


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory) -> dict[str, tuple[pathlib.Path, int, str, Any]]:
    """The same run in processes of their own, one killed and one interrupted: folder, exit status and output.

    Before that, another process tries to go on with the first of them; what comes of that is the last entry.
    """
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs),
    }

    def run_and_stop(name: str, number: int):
        out = tmp_path_factory.mktemp("stopped") / name
        command = [sys.executable, "-m", "jaxrl.cli", "train", *DQN, "--out", str(out), "--tensorboard"]
        second = None
        output = out.with_suffix(".txt")
        with open(output, "w") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
            deadline = time.monotonic() + 120
            while not saved(out):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.002)
            if number == signal.SIGKILL:
                process.send_signal(signal.SIGSTOP)
                words = [sys.executable, "-m", "jaxrl.cli", "resume", str(out)]
                second = subprocess.run(words, env=environment, capture_output=True, text=True), process.pid
            process.send_signal(number)
            status = process.wait(60)
        assert not (out / "summary.json").exists(), "it was over before it was stopped"
        return out, status, output.read_text(), second

    signals = {"killed": signal.SIGKILL, "interrupted": signal.SIGINT}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(signals, pool.map(run_and_stop, signals, signals.values()), strict=True))


@pytest.fixture(scope="module")
def swept(whole, tmp_path_factory) -> pathlib.Path:
    """A sweep in place of an old run, among whose files was one of the user's."""
    out = tmp_path_factory.mktemp("swept")
    for name in ("config.json", "summary.json"):
        shutil.copy(whole / name, out)
    shutil.copytree(whole / "checkpoints", out / "checkpoints")
    (out / "notes.txt").write_text("mine")
    small = ["--rollout-length", "16", "--num-minibatches", "1", "--num-epochs", "1", "--hidden-sizes", "4", "4"]
    options = ["--seeds", "2", "--out", str(out), "--overwrite", "--env-params", "max_steps_in_episode=20", "gravity=5"]
    assert cli.main(["sweep", *PPO, *options, *small, "--learning-rate", "1e-3", "1e-2"]) == 0
    return out


def test_the_runs_of_a_sweep_are_counted(monkeypatch):
    """Also where an environment's axis is called like one of the agent's."""
    asked = []

    def use_devices(make_agent, hyper_parameters, *numbers):
        asked.append(numbers)
        raise JaxrlError("no further")

    monkeypatch.setattr("jaxrl.runs.devices.use_devices", use_devices)
    axes = ["--gamma", "0.9", "0.99", "--env-params", "gamma=[1, 2, 3, 4]", "length=5"]
    assert cli.main(["sweep", "ppo", "--env", "CartPole-v1", "--seeds", "3", "--threads", "1", *axes]) == 2
    assert asked == [(2 * 4 * 3, 0, 1)]


def test_the_folder_of_a_run(whole):
    assert {path.name for path in whole.iterdir()} == RUN_FILES | {"tensorboard"}
    assert (whole / "curve.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((whole / "config.json").read_text())
    assert config.keys() == {
        *("agent", "env", "num_steps", "seeds", "hyper_parameters", "env_params", "seed", "log_every", "eval_every"),
        *("env_axes", "eval_episodes", "checkpoint_every", "num_devices", "num_threads", "tensorboard"),
        *("configs", "axes", "constructor", "versions"),
    }
    assert config["versions"] == json.loads((whole / "summary.json").read_text())["versions"]
    assert config["hyper_parameters"].keys() == parameters(AGENTS["dqn"]).keys()
    assert config["hyper_parameters"]["batch_size"] == 8
    assert (config["seed"], config["tensorboard"], config["configs"]) == (5, True, [])
    assert (config["num_devices"], config["num_threads"]) == (2, 2)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary.keys() == {
        *("agent", "env", "num_steps", "seeds", "final_return", "steps_per_second", "compile_seconds", "run_seconds"),
        *("peak_memory_bytes", "device", "num_devices", "versions", "diverged_seeds"),
    }
    assert summary["final_return"].keys() == {"iqm", "ci_low", "ci_high", "mean", "per_seed"}
    assert len(summary["final_return"]["per_seed"]) == 3
    assert summary["steps_per_second"] == pytest.approx(300_000 / summary["run_seconds"])
    metrics = metrics_of(whole)
    assert metrics["step"].tolist() == list(range(1000, 100_001, 1000))
    assert {values.shape for name, values in metrics.items() if name != "step"} == {(3, 100)}
    assert np.flatnonzero(np.isfinite(metrics["eval_return"][0])).tolist() == [24, 49, 74, 99]


def test_a_run_is_loaded(whole):
    results = Results.load(whole)
    assert (results.num_seeds, results.is_sweep) == (3, False)
    np.testing.assert_allclose(results.final(), results.summary["final_return"]["per_seed"])


def scalars(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """A TensorBoard folder's values: records of a length, its checksum, an event and a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    [path] = folder.glob("events.out.tfevents.*")
    content = path.read_bytes()
    while content:
        [length] = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[16 + length :]
    return found


def test_tensorboard_files_hold_the_metrics(whole):
    metrics = metrics_of(whole)
    assert {path.name for path in (whole / "tensorboard").iterdir()} == {"iqm", "seed_0", "seed_1", "seed_2"}
    for seed in range(3):
        values = dict(scalars(whole / "tensorboard" / f"seed_{seed}")["episode_return"])
        returns = metrics["episode_return"][seed]
        expected = {s: r for s, r in zip(metrics["step"].tolist(), returns, strict=True) if np.isfinite(r)}
        assert values.keys() == expected.keys()
        np.testing.assert_allclose(list(values.values()), list(expected.values()), rtol=1e-6)
    found = scalars(whole / "tensorboard" / "iqm")
    assert found.keys() == metrics.keys() - {"step"}
    assert [step for step, _ in found["eval_return"]] == [25_000, 50_000, 75_000, 100_000]
    for step, value in found["loss"]:
        assert value == pytest.approx(interquartile_mean(metrics["loss"][:, step // 1000 - 1]), rel=1e-5)


def test_killed_and_resumed(whole, stopped, capfd):
    """After SIGKILL there is what was last saved, and the rest comes out the same to the bit."""
    out, status, _, _ = stopped["killed"]
    assert status == -signal.SIGKILL
    assert {path.name for path in out.iterdir()} == {"config.json", "checkpoints", "tensorboard", ".lock"}
    status, text, error = jaxrl(capfd, "train", *DQN, "--out", out)
    assert status == 2
    assert f"--out {out} holds a run already" in error
    assert f"--overwrite, or resume it: jaxrl resume {out}" in error
    status, text, _ = jaxrl(capfd, "resume", out)
    assert status == 0
    assert re.search(r"resumes from step [1-9]0,000", text)
    assert_same_metrics(whole, out)
    assert {path.name for path in out.iterdir()} == RUN_FILES | {"tensorboard"}
    assert (out / "config.json").read_text() == (whole / "config.json").read_text()
    for files in (whole / "tensorboard").iterdir():  # all points once, of before and after
        assert scalars(out / "tensorboard" / files.name) == scalars(files)


def test_a_process_does_not_write_into_the_folder_of_another(stopped):
    """It was stopped where it stood, and then killed: the lock has gone with it."""
    out, _, _, (second, first_pid) = stopped["killed"]
    assert second.returncode == 2
    assert re.fullmatch(
        rf"jaxrl: resume: {out} is in use by process {first_pid} on {re.escape(socket.gethostname())} since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d; it must end first, or be stopped\n",
        second.stderr,
    ), second.stderr


def test_a_folder_in_use_is_read_and_not_written(whole, tmp_path, capfd):
    """In one process, too; and a lock that ends otherwise than it should is the operating system's to take back."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "summary.json").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with folder.locked(out, "test:"):
        for words in (["train", *DQN, "--out", out, "--overwrite"], ["resume", out]):
            status, _, error = jaxrl(capfd, *words)
            assert status == 2
            assert f"{out} is in use by process {os.getpid()} on " in error
        assert jaxrl(capfd, "evaluate", out, "--episodes", "1")[0] == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".lock").write_text("process 1 on another machine")  # of one that was killed before it wrote anything
    (empty / f".config.json.{'a' * 32}").write_text('{"agent"')
    with folder.claimed(empty, overwrite=False), pytest.raises(JaxrlError, match="in use"), folder.locked(empty, ""):
        pass
    assert [path.name for path in empty.iterdir()] == [f".config.json.{'a' * 32}"]


def test_a_disk_without_locks_is_told_of(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="cannot be locked .*No locks available"), folder.locked(tmp_path, "--out"):
        pass


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Whoever held it removed the file after it was opened here, though it was there a moment before."""
    path, lock, seen = tmp_path / ".lock", folder._lock, []

    def lock_a_removed_one(file, out):
        seen.append(file)
        if len(seen) == 1:
            path.unlink()
        return lock(file, out)

    monkeypatch.setattr(folder, "_lock", lock_a_removed_one)
    monkeypatch.setattr(pathlib.Path, "exists", lambda path, **_: True)
    with folder.locked(tmp_path, "--out"):
        assert len(seen) == 2
        assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_a_system_without_unix_s_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)
    with contextlib.ExitStack() as stack:
        with pytest.warns(UserWarning, match="cannot be locked"):
            stack.enter_context(folder.locked(tmp_path, "--out"))
        file = os.open(tmp_path / ".lock", os.O_RDONLY)
        stack.callback(os.close, file)
        assert folder._holder(file).startswith(f"process {os.getpid()} on ")


def test_interrupted_evaluated_and_resumed(whole, stopped, capfd):
    """Ctrl-C saves at once, not at the next checkpoint's time, and says how to go on."""
    out, status, text, _ = stopped["interrupted"]
    assert status == 130
    assert "Traceback" not in text
    assert "stopping after this chunk, with a checkpoint" in text
    assert f"stopped, and saved; resume with: jaxrl resume {out}\n" in text
    [point] = saved(out)
    status, text, _ = jaxrl(capfd, "evaluate", out, "--episodes", "4")
    assert status == 0
    assert "dqn on CartPole-v1: final return (greedy evaluation)" in text
    status, text, _ = jaxrl(capfd, "resume", out)
    assert status == 0
    assert f"resumes from step {point},000" in text
    assert_same_metrics(whole, out)


def test_resuming_a_complete_run_says_so(whole, capfd):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert jaxrl(capfd, "resume", whole)[:2] == (0, f"{whole} is complete; jaxrl plot {whole} draws it")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_evaluating_a_complete_run(whole, capfd):
    """Other episodes than in training; the same again, unless another draw is asked for."""
    results = [jaxrl(capfd, "evaluate", whole, "--episodes", "5", *more) for more in ([], [], ["--draw", "2"])]
    assert all(result[0] == 0 for result in results)
    assert results[0] == results[1] != results[2]


def test_rendering_the_best_seed(whole, tmp_path, capfd):
    """The seed with the highest return in the evaluation that is printed, in an episode of its own."""
    ready, _ = folder.read_run(whole)
    [(_, returns)] = evaluations(ready, whole, 5, 1)
    best = int(returns[0].mean(-1).argmax())
    path = tmp_path / "new" / "best.png"
    status, text, _ = jaxrl(capfd, "evaluate", whole, "--episodes", "5", "--render", path)
    assert status == 0
    assert "dqn on CartPole-v1: final return (greedy evaluation)" in text
    assert text.endswith(f"{path}: seed {best}")
    episodes = [episode_of_run(ready, whole, 0, best, draw) for draw in (1, 2)]
    assert episodes[0].x[0] != episodes[1].x[0]
    render(ready.envs[0], episodes[0], tmp_path / "same.png")
    assert (tmp_path / "same.png").read_bytes() == path.read_bytes()


def test_the_agents_of_a_sweep_are_loaded(swept, capfd, tmp_path):
    """What is loaded for a row earns that row's returns, in an environment that tells the rows apart."""
    ready, _ = folder.read_run(swept)
    env = make("CartPole-v1", max_steps_in_episode=60, gravity=30)
    [(_, returns)] = evaluations(ready._replace(envs=[env, env]), swept, 20, 1)  # [C=2, S=2, 20]
    loaded = [trained(ready, swept, config, seed) for config in range(2) for seed in range(2)]
    agent, states = loaded[0][0], jax.tree.map(lambda *rows: np.stack(rows), *(s.agent for _, s in loaded))
    keys = [jax.random.fold_in(s.key, EVALUATION + s.step.astype("uint32")) for _, s in loaded]
    keys = jax.numpy.stack([jax.random.fold_in(key, 1) for key in keys])
    alone = jax.jit(jax.vmap(lambda key, state: evaluate(key, agent, state, env, 20)))(keys, states)
    equal = (np.asarray(alone)[:, None] == returns.reshape(4, 20)).mean(-1)
    assert equal.diagonal().min() >= 0.9
    assert equal[~np.eye(4, dtype=bool)].max() <= 0.6
    # With this gravity of 5 all stay up for the 20 steps that there are; of equals it is the first.
    path = tmp_path / "best.gif"
    text = jaxrl(capfd, "evaluate", swept, "--episodes", "2", "--render", path)[1]
    assert text.endswith(f"{path}: learning_rate=0.001, seed 0")
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames) == ("GIF", 20)


def test_what_cannot_be_rendered(whole, swept, tmp_path, capfd):
    status, text, error = jaxrl(capfd, "evaluate", whole, "--render", tmp_path / "a.mp4")
    assert (status, text) == (2, "")
    assert error == f"jaxrl: render: {tmp_path}/a.mp4 is not accepted; it must end in .gif or .png"
    config = json.loads((swept / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"env": "Reacher-misc", "env_params": {}}))
    status, text, error = jaxrl(capfd, "evaluate", tmp_path, "--render", tmp_path / "a.gif")
    assert (status, text) == (2, "")
    assert "jaxrl: render: Reacher-misc cannot draw itself; these can: jaxrl/Corridor-v0, jaxrl/Maze-v0" in error
    assert not list(tmp_path.glob("a.*"))


def test_plots(whole, swept, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert jaxrl(capfd, "plot", whole, "--out", "one.svg", "--metric", "loss")[:2] == (0, "one.svg")
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")
    assert jaxrl(capfd, "plot", whole, whole)[:2] == (0, "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    (swept / "curve.png").unlink()
    assert jaxrl(capfd, "plot", swept)[0] == 0
    assert (swept / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_over_an_old_run(swept, capfd):
    assert {path.name for path in swept.iterdir()} == RUN_FILES | {"notes.txt"}
    assert (swept / "notes.txt").read_text() == "mine"
    results = Results.load(swept)
    assert results.configs == [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}]
    assert results.shape == (2, 2, 62)  # 4000 steps in intervals of an update, 64; the last one takes the rest
    assert results.steps[-1] == 4000
    assert results.config["hyper_parameters"]["hidden_sizes"] == [4, 4]
    assert results.config["env_params"] == {"max_steps_in_episode": 20, "gravity": 5}
    assert np.nanmax(results.metrics["episode_length"]) <= 20
    small = {"rollout_length": 16, "num_minibatches": 1, "num_epochs": 1, "hidden_sizes": (4, 4)}
    env_params = {"max_steps_in_episode": 20, "gravity": 5}
    options = small | {"num_steps": 4000, "seeds": 2, "env_params": env_params, "learning_rate": [1e-3, 1e-2]}
    by_call = sweep(ppo, "CartPole-v1", **options, out=swept)  # the same run
    np.testing.assert_array_equal(by_call.metrics["policy_loss"], results.metrics["policy_loss"])
    status, text, _ = jaxrl(capfd, "evaluate", swept, "--episodes", "2")
    assert status == 0
    assert "0.001" in text
    assert "0.01" in text


def test_what_a_sweep_is_asked_for(capfd, tmp_path, monkeypatch):
    """Several values are an axis, but for tuples; booleans are named, so that both can be."""
    asked = []
    monkeypatch.setattr(cli, "_execute", lambda *arguments: asked.append(arguments) or 0)
    words = [
        "--learning-rate",
        "1e-3",
        "--shared-torso",
        "True",
        "False",
        "--hidden-sizes",
        "8",
        "8",
        "--num-envs",
        "2",
        "4",
    ]
    assert jaxrl(capfd, "sweep", *PPO, "--out", tmp_path / "new", *words)[0] == 0
    [(ready, out, config)] = asked
    assert out == tmp_path / "new"
    assert ready.job.hyper_parameters | {"learning_rate": 1e-3, "hidden_sizes": (8, 8)} == ready.job.hyper_parameters
    assert ready.plan.configs == [{"num_envs": n, "shared_torso": s} for n in (2, 4) for s in (True, False)]
    assert len(ready.plan.groups) == 4
    assert (config["num_devices"], config["tensorboard"], config["seeds"]) == (2, False, 8)
    assert jaxrl(capfd, "train", *PPO, "--out", tmp_path / "new", "--shared-torso", "True")[0] == 0
    assert asked[1][0].job.hyper_parameters["shared_torso"] is True


def test_the_first_signal_asks_and_the_second_ends(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with cli._stop_signal() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


# ---------------------------------------------------------------- help


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from jaxrl.cli import main; status = main(['--help']); "
        "sys.exit(status or any(name in sys.modules for name in ('jax', 'orbax', 'gymnax', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxrl", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "jaxrl"), done.stderr
    assert subprocess.run([sys.executable, "-m", "jaxrl", "tarin"], capture_output=True).returncode == 2


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("agent", AGENTS)
def test_an_agents_help_lists_every_hyper_parameter_and_its_default(command, agent, capfd):
    status, text, _ = jaxrl(capfd, command, agent, "--help")
    assert status == 0
    for name, parameter in parameters(AGENTS[agent]).items():
        if name in ("features", "policy"):  # functions, which nobody types
            assert f"--{name}" not in text
            continue
        default = parameter.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        [(description, found)] = re.findall(rf" --{name.rstrip('_').replace('_', '-')} (.*?) ?\(default: (.*?)\)", text)
        assert found == shown
        assert re.search("[a-z]", description), f"{name} has no description"


def test_a_folder_of_its_own_and_an_option_named_like_a_keyword(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text, _ = jaxrl(
        capfd, "sweep", "sarsa_lambda", "--env", "jaxrl/Corridor-v0", "--num-steps", "200", "--seeds", "2",
        "--lambda", "0", "0.5",
    )  # fmt: skip
    assert status == 0
    out = tmp_path / "runs" / "sarsa_lambda-jaxrl-Corridor-v0"
    assert [config["lambda_"] for config in Results.load(out).configs] == [0, 0.5]
    assert "lambda_" in text


def test_other_ways_to_ask(capfd):
    status, text, _ = jaxrl(capfd, "--version")
    assert (status, re.fullmatch(r"jaxrl \d+\.\d+\.\d+", text) is not None) == (0, True)
    status, text, _ = jaxrl(capfd, "train", "--help")
    assert status == 0
    assert "AGENT is one of: " in text
    assert all(agent in text for agent in AGENTS)
    status, text, _ = jaxrl(capfd, "list")
    assert status == 0
    assert all(name in text for name in (*AGENTS, "CartPole-v1", "brax/ant", "jaxrl/Probe-value-v0"))
    for words in ([], ["train"]):
        status, text, error = jaxrl(capfd, *words)
        assert status == 2
        assert "usage: jaxrl" in text + error


# ---------------------------------------------------------------- wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tran", "ppo"], "unknown command 'tran': did you mean train? (jaxrl --help shows all)"),
        (["train", "pppo"], "unknown agent 'pppo': did you mean ppo or dppo? (jaxrl list shows all)"),
        (["train", "--env", "CartPole-v1"], "usage: jaxrl train AGENT --env ID"),
        (["train", "ppo"], "Missing from jaxrl train ppo: --env STR"),
        (
            ["train", *PPO, "--lerning-rate", "1"],
            "Unrecognized options: --lerning-rate, 1 Perhaps you meant: --learning-",
        ),
        (["train", *PPO, "--learning-rate", "fast"], "--learning-rate: could not convert string to float: 'fast'"),
        (
            ["train", *PPO, "--learning-rate", "nan"],
            "ppo: learning_rate=nan is not accepted; it must be a number in (0,",
        ),
        (["train", *PPO, "--gamma", "1.5"], "ppo: gamma=1.5 is not accepted; it must be a number in [0, 1]"),
        (["train", *PPO, "--num-steps", "1e5"], "--num-steps: invalid literal for int() with base 10: '1e5'"),
        (["train", *PPO, "--num-steps", "100"], "num_steps=100 is not accepted; one update of ppo takes"),
        (["train", *PPO, "--env", "CartPole-v2"], "unknown environment 'CartPole-v2': did you mean CartPole-v1"),
        (["train", *PPO, "--seeds", "0"], "seeds=0 is not accepted; it must be a whole number, at least 1"),
        (
            ["train", *PPO, "--seed", "99999999999999999999"],
            "seed=99999999999999999999 is not accepted; it must be less",
        ),
        (["train", *PPO, "--devices", "-1"], "--devices -1 is not accepted; it must be 0, which chooses, or more"),
        (["train", *PPO, "--threads", "-1"], "--threads -1 is not accepted; it must be 0, which chooses, or more"),
        (["train", *PPO, "--devices", "3"], "--devices 3 is not accepted"),
        (["train", *PPO, "--clip-value-loss", "maybe"], "invalid choice 'maybe' for argument '--clip-value-loss'"),
        (
            ["train", *PPO, "--num-minibatches", "3"],
            "num_minibatches=3 does not divide num_envs * rollout_length = 512",
        ),
        (["train", *PPO, "--env-params", "gravity"], "--env-params gravity is not accepted; it must be name=value"),
        (["train", *PPO, "--env-params", "=1"], "--env-params =1 is not accepted; it must be name=value"),
        (
            ["train", *PPO, "--env-params", "gravity=low"],
            "CartPole-v1: gravity=low is not accepted; it must be a number",
        ),
        (["train", *PPO, "--env-params", "gravity=[1,2]"], "gravity=[1, 2] is not accepted; it must be a number"),
        (
            ["train", *PPO, "--env-params", "gravitas=1"],
            "CartPole-v1: unknown parameter 'gravitas'; there are: max_steps",
        ),
        (["train", "dqn", *PPO[1:], "--env", "Pendulum-v1"], "dqn: Pendulum-v1 has continuous actions"),
        (
            ["train", "dqn", *PPO[1:], "--replay-size", "3000000000"],
            "replay_size=3000000000 is not accepted; it must be",
        ),
        (["sweep", *PPO, "--learning-rate"], "learning_rate=[] is not accepted; it must hold one value at least"),
        (["sweep", *PPO, "--learning-rate", "1e-3", "-1"], "learning_rate=-1.0 is not accepted"),
        (["resume"], "Missing from jaxrl resume: PATH"),
        (["resume", "nowhere"], "nowhere is not a run's folder: there is no such folder"),
        (["resume", "other"], "other is not a run's folder: it has no config.json"),
        (["evaluate", "nowhere"], "nowhere is not a run's folder: there is no such folder"),
        (["evaluate", "other", "--episodes", "0"], "episodes=0 is not accepted; it must be a whole number, at least 1"),
        (["evaluate", "other", "--draw", "-1"], "draw=-1 is not accepted; it must be a whole number, at least 0"),
        (["plot"], "plot: name one run's folder at least"),
        (["plot", "nowhere"], "nowhere/config.json: there is no such folder"),
        (
            ["bench", "--agents", "pppo"],
            "bench: agents='pppo' is not accepted; it must be one of a2c, ppo,",
        ),
    ],
)
def test_wrong_words(words, message, tmp_path, capfd, monkeypatch):
    """Status 2, nothing compiled, nothing written; the message names what was wrong, and what would be right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    if "--num-steps" in words:
        words = [*words, "--out", "out"]
    status, _, error = jaxrl(capfd, *words)
    assert status == 2
    assert message in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("file", [], "--out file is a file; it must be a folder, or not there yet"),
        ("file/out", [], "--out file/out cannot be made: Not a directory"),
        ("[new]", [], "[new] is not accepted; a path of checkpoints must not hold [ or ]"),
        ("full", [], "--out full is a folder with other things in it; choose another"),
        ("full", ["--overwrite"], "--out full is a folder with other things in it; choose another"),
        ("model", ["--overwrite"], "--out model is a folder with other things in it; choose another"),
    ],
)
def test_a_folder_that_is_not_a_runs_is_left_alone(out, options, message, tmp_path, capfd, monkeypatch):
    """Others' programs have a config.json, too."""
    monkeypatch.chdir(tmp_path)
    files = {"file": "x", "full/precious.txt": "x", "model/config.json": '{"hidden_size": 768}'}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    status, _, error = jaxrl(capfd, "train", *PPO, "--out", out, *options)
    assert status == 2
    assert message in error
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: "{", "config.json is damaged or cannot be read"),
        (lambda config: "[]", "config.json is damaged: it holds a list"),
        (lambda config: "{}", "config.json is not the configuration of a run: agent is missing"),
        (lambda config: config | {"num_steps": "many"}, "is not the configuration of a run: num_steps is many"),
        (lambda config: config | {"hyper_parameters": None}, "a run: hyper_parameters is None"),
        (lambda config: config | {"agent": "dqm"}, "unknown agent 'dqm': did you mean dqn?"),
        (lambda config: config | {"hyper_parameters": {"gama": 1}}, "unknown hyper-parameter of dqn 'gama'"),
        (lambda config: config | {"num_steps": 0}, "num_steps=0 is not accepted"),
        (lambda config: config | {"num_steps": 50_000}, "is of another run: num_steps was 100000, and now is 50000"),
    ],
)
def test_a_damaged_config(change, message, whole, tmp_path, capfd):
    config = change(json.loads((whole / "config.json").read_text()))
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for command in ("resume", "evaluate"):
        status, _, error = jaxrl(capfd, command, tmp_path)
        assert status == 2
        assert message in error
        assert "Traceback" not in error


def test_failures_that_are_no_ones_words(tmp_path, capfd, monkeypatch):
    """A disk or a memory that is full is told in a line; a fault in the program itself keeps its traceback."""

    class InternalFloatingPointError(Exception):  # JAX's is public nowhere
        pass

    for error, message in [
        (OSError(28, "No space left on device", "run/metrics.npz"), "No space left on device: 'run/metrics.npz'"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 32 bytes."), "out of memory; fewer seeds, smaller"),
        (MemoryError("Unable to allocate 7 TiB"), "out of memory; fewer seeds, smaller"),
        (InternalFloatingPointError("jit(train)", "nan"), "JAX_DEBUG_NANS is set, and jit(train) computed nan\n"),
    ]:

        def failing(words, error=error):
            raise error

        monkeypatch.setitem(cli.COMMANDS, "list", failing)
        status, _, text = jaxrl(capfd, "list")
        assert status == 1
        assert message in f"{text}\n"
    monkeypatch.setitem(cli.COMMANDS, "list", lambda words: {}["fault"])
    with pytest.raises(KeyError):
        cli.main(["list"])


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ((), {}),
        (("a=1", "b=1.5", "c=True", "d=spring", "e=(1,2)", "f=x=y", "g="), None),
        (("a=1e3", "b='1'", "c=None", "d=true"), {"a": 1000.0, "b": "1", "c": None, "d": "true"}),
    ],
)
def test_parameters(pairs, expected):
    if expected is None:
        expected = {"a": 1, "b": 1.5, "c": True, "d": "spring", "e": (1, 2), "f": "x=y", "g": ""}
    assert cli._parameters(pairs) == expected


@pytest.mark.parametrize("pair", ["", "a", "=1"])
def test_parameters_that_are_no_pairs(pair):
    with pytest.raises(JaxrlError, match="must be name=value"):
        cli._parameters([pair])
