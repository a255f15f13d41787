"""The benchmark: that it measures, compares with a peer, writes down on what machine, and says why where it cannot."""

import json
import shlex
import sys

import pytest

from jaxrl import JaxrlError, cli
from jaxrl.runs import bench


def printing(code: str) -> str:
    """A command that stands in for another framework's measurement."""
    return shlex.join([sys.executable, "-c", code])


PEER = "import json, sys; print('warming up'); print(json.dumps({'steps_per_second': %s, 'compile_seconds': 2.5}))"


def test_a_measurement():
    measured = bench.measure("ppo", seeds=3, num_steps=2000, repeats=1)
    assert measured.keys() == {"steps_per_second", "compile_seconds", "memory_bytes", "devices", "device"}
    assert measured["steps_per_second"] > 100
    assert measured["compile_seconds"] > 0
    assert measured["memory_bytes"] > 1000
    assert (measured["devices"], measured["device"]) == (2, "cpu")


@pytest.fixture
def short(monkeypatch):
    """Each of our own measurements is one of these, in turn, and no process is started for it; the commands given."""
    speeds, commands, measure = iter([100.0, 300.0, 200.0, 50.0]), [], bench._measure

    def faked(command):
        commands.append(command)
        if "jaxrl.runs.bench" not in command:
            return measure(command)
        return {"steps_per_second": next(speeds), "compile_seconds": 1.0, "memory_bytes": 2**20, "device": "cpu"}

    monkeypatch.setattr(bench, "_measure", faked)
    return commands


def test_what_is_written(short, tmp_path, capsys):
    """The fastest round counts, on both sides; a peer is measured at its numbers of seeds alone, and takes turns."""
    out = tmp_path / "speed.json"
    peer = printing(PEER % "600 if '32' in sys.argv else 0")
    options = {"agents": ("dqn",), "seeds": (32, 64), "peer_seeds": (32,), "rounds": 2, "repeats": 3}
    assert bench.bench(**options, peers={"theirs": peer, "none": printing("print('null')")}, replays=(), out=out) == 0
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "envs", "settings", "rows", "replay_rows"}
    assert report["machine"].keys() == {"date", "processor", "cores", "python", "jax"}
    assert all(report["machine"].values())
    compared, alone = report["rows"]
    assert (compared["agent"], compared["seeds"], compared["num_steps"]) == ("dqn", 32, 2_500)
    assert compared["steps_per_second"] == 300
    assert compared["peers"] == {"theirs": {"steps_per_second": 600, "compile_seconds": 2.5, "ratio": 0.5}}
    assert (alone["seeds"], alone["steps_per_second"], alone["peers"]) == (64, 200, {})
    assert ["jaxrl.runs.bench" in command for command in short] == [True, False, False, True, False, False, True, True]
    ours, theirs = (command[-8:] for command in short[:2])
    assert ours == theirs == ["--agent", "dqn", "--seeds", "32", "--num-steps", "2500", "--repeats", "3"]
    printed = capsys.readouterr().out
    assert "theirs" in printed
    assert "0.50" in printed


def test_prioritized_replay_is_measured(short, tmp_path, capsys):
    out, peer = tmp_path / "speed.json", printing(PEER % "25 if '16384' in sys.argv else 0")
    assert bench.bench(agents=(), replays=(2**14,), replay_peers={"other": peer}, rounds=1, repeats=3, out=out) == 0
    report = json.loads(out.read_text())
    assert report["rows"] == []
    [row] = report["replay_rows"]
    assert (row["capacity"], row["batch_size"], row["steps_per_second"]) == (16384, 64, 100)
    assert row["peers"]["other"]["ratio"] == 4
    ours, theirs = (command[-8:] for command in short)
    assert ours == theirs == ["--capacity", "16384", "--batch-size", "64", "--num-steps", "2000", "--repeats", "3"]
    printed = capsys.readouterr().out
    assert "10.000" in printed  # milliseconds
    assert "40.000" in printed


def test_a_measurement_of_prioritized_replay():
    measured = bench.measure_replay(64, 8, 20, 1)
    assert measured.keys() == {"steps_per_second", "compile_seconds"}
    assert measured["steps_per_second"] > 100


def test_one_measurement_as_a_process(capsys, monkeypatch):
    """What `_measure` starts: its last line is JSON."""
    words = ["--agent", "dqn", "--seeds", "4", "--num-steps", "99", "--repeats", "2", "--devices", "2"]
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    monkeypatch.setattr(bench, "measure", lambda **options: options)
    bench._main()
    asked = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert asked == {"agent": "dqn", "seeds": 4, "num_steps": 99, "repeats": 2, "threads": 2}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no such environment')", "failed:\nno such environment"),
        ("print('done')", "must print a line of JSON with steps_per_second and compile_seconds, not 'done'"),
        ("print('[1]')", "must print a line of JSON"),
        ("print('{\"steps_per_second\": 3}')", "must print a line of JSON"),
        (PEER % "'fast'", "must print a line of JSON"),
        ("", "must print a line of JSON with steps_per_second and compile_seconds, not ''"),
    ],
)
def test_a_peer_that_fails(code, message, short, tmp_path):
    out = tmp_path / "speed.json"
    with pytest.raises(JaxrlError) as error:
        bench.bench(agents=("ppo",), seeds=(1,), replays=(), peers={"other": printing(code)}, rounds=1, out=out)
    assert message in str(error.value)
    assert str(error.value).startswith(shlex.quote(sys.executable))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agents": ("pppo",)}, "bench: agents='pppo' is not accepted; it must be one of a2c, ppo, dqn, td3, sac"),
        ({"agents": (), "replays": ()}, "bench: agents and seeds, or replays, must hold one value at least"),
        ({"replays": (1000,)}, "bench: replays=1000 is not accepted; it must be one of 16384, 131072, 1048576"),
        ({"replay_peers": {"x": "no-such-program"}}, "bench: replay_peers: x='no-such-program' is not accepted"),
        ({"seeds": (), "replays": ()}, "bench: agents and seeds, or replays, must hold one value at least"),
        ({"seeds": (1, 0)}, r"bench: seeds\[1\]=0 is not accepted"),
        ({"rounds": 0}, "bench: rounds=0 is not accepted"),
        ({"repeats": 0}, "bench: repeats=0 is not accepted"),
        ({"peers": {"x": "no-such-program --fast"}}, "bench: peers: x='no-such-program --fast' is not accepted"),
        ({"peers": {"x": " "}}, "bench: peers: x=' ' is not accepted; it must begin with a program that is there"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(options, message, monkeypatch):
    monkeypatch.setattr(bench, "_measure", None)
    with pytest.raises(JaxrlError, match=message):
        bench.bench(**options)


def test_the_command(short, capsys):
    assert cli.main(["bench", "--agents", "ppo", "--seeds", "8", "--rounds", "1"]) == 0
    assert "100" in capsys.readouterr().out
