"""What the figures hold: titles, labels, lines and bands; not their pixels."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from jaxrl.analysis.plot import PALETTE, curves, draw_band, draw_bands, new_figure, plot_comparison, plot_curve
from jaxrl.analysis.results import CURVE_RESAMPLES, Results
from jaxrl.analysis.statistics import bootstrap_interval, interquartile_mean
from jaxrl.checks import JaxrlError

nan = np.nan
TIME = 12


def run(num_seeds=5, num_configs=0, evaluated=True, agent="ppo", env="CartPole-v1", summary=None, **hyper_parameters):
    shape = (num_configs, num_seeds, TIME) if num_configs else (num_seeds, TIME)
    episode_return = np.arange(TIME) + np.random.default_rng(0).normal(size=shape)
    episode_return[..., 3:5] = nan
    metrics = {"step": 50_000 * np.arange(1, TIME + 1), "episode_return": episode_return}
    if evaluated:
        metrics["eval_return"] = np.where(np.arange(TIME) % 4 == 3, np.arange(TIME) + episode_return[..., :1], nan)
    config = {"agent": agent, "env": env, "hyper_parameters": hyper_parameters}
    configs = [{"learning_rate": float(np.float32(i / 1000))} for i in range(1, num_configs + 1)]
    return Results(config, metrics, summary or {}, configs)


def parts(figure):
    """Title, solid lines, dashed lines, bands and legend entries of a figure."""
    (axes,) = figure.axes
    legend = axes.get_legend() or figure.legends[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    return {
        "title": axes.get_title(loc="left"),
        "solid": [line for line in axes.lines if line not in dashed],
        "dashed": dashed,
        "bands": [c for c in axes.collections if isinstance(c, PolyCollection)],
        "bars": [c for c in axes.collections if isinstance(c, LineCollection)],
        "legend": [text.get_text() for text in legend.get_texts()],
        "outside": bool(figure.legends),
        "axes": axes,
    }


def test_a_run_with_many_seeds():
    results = run()
    figure = plot_curve(results)
    seen = parts(figure)
    assert seen["title"] == "PPO on CartPole-v1, 5 seeds"
    assert seen["axes"].get_xlabel() == "environment steps"
    assert seen["axes"].get_ylabel() == "return per episode (reward)"
    assert seen["legend"] == ["training, IQM", "95 % bootstrap interval", "greedy evaluation, IQM"]
    assert [len(seen[kind]) for kind in ("solid", "dashed", "bands", "bars")] == [1, 1, 1, 1]
    figure.canvas.draw()
    assert "200k" in [label.get_text() for label in seen["axes"].get_xticklabels()]
    kept = np.r_[0:3, 5:TIME]  # the line joins the finite points over the gap
    values = results.metrics["episode_return"][:, kept]
    np.testing.assert_allclose(seen["solid"][0].get_xdata(), results.steps[kept])
    np.testing.assert_allclose(seen["solid"][0].get_ydata(), interquartile_mean(values, axis=0))
    np.testing.assert_allclose(seen["dashed"][0].get_xdata(), results.steps[3::4])
    corners = seen["bands"][0].get_paths()[0].vertices[:, 1]
    for bound in bootstrap_interval(values, num_resamples=CURVE_RESAMPLES):
        assert np.isin(np.round(bound, 9), np.round(corners, 9)).all()


def test_one_seed_has_no_band():
    seen = parts(plot_curve(run(num_seeds=1)))
    assert seen["title"] == "PPO on CartPole-v1, 1 seed"
    assert not seen["bands"]
    assert not seen["bars"]
    assert seen["legend"] == ["training, one seed", "greedy evaluation, one seed"]


def test_no_evaluation_no_dashed_line_and_diverged_seeds_are_told():
    seen = parts(plot_curve(run(evaluated=False, summary={"diverged_seeds": [{"seed": 2, "step": 200_000}]})))
    assert seen["title"] == "PPO on CartPole-v1, 5 seeds (1 diverged)"
    assert not seen["dashed"]


def test_a_single_metric():
    seen = parts(plot_curve(run(), metric="eval_return"))
    assert len(seen["axes"].lines) == 1
    assert seen["legend"][0] == "greedy evaluation, IQM"
    with pytest.raises(JaxrlError, match="unknown metric 'los'"):
        plot_curve(run(), metric="los")


@pytest.mark.parametrize(("num_configs", "outside", "dashed"), [(2, False, 2), (8, True, 8), (15, True, 0)])
def test_a_sweep(num_configs, outside, dashed):
    seen = parts(plot_curve(run(num_configs=num_configs)))
    assert seen["title"] == f"PPO on CartPole-v1, {num_configs} configurations of 5 seeds"
    assert [len(seen[kind]) for kind in ("solid", "dashed", "bands")] == [num_configs, dashed, num_configs]
    assert seen["legend"][:2] == ["learning_rate=0.001", "learning_rate=0.002"]
    assert len({matplotlib.colors.to_hex(line.get_color()) for line in seen["solid"]}) == num_configs
    assert seen["outside"] is outside
    assert (matplotlib.colors.to_hex(seen["solid"][0].get_color()) == PALETTE[0]) is (num_configs <= 10)


def test_a_long_legend_names_some_of_the_configurations():
    seen = parts(plot_curve(run(num_seeds=2, num_configs=50, evaluated=False)))
    assert len(seen["solid"]) == 50
    assert "(18 of 50 are named)" in seen["legend"]
    assert {"learning_rate=0.001", "learning_rate=0.05"} < set(seen["legend"])


def test_nothing_finite_and_a_single_point_are_drawn_too(tmp_path):
    values = np.full((2, 3), nan)
    plot_curve(Results({}, {"step": np.arange(3), "episode_return": values}), tmp_path / "empty.png")
    values[:, 1] = 4.0
    seen = parts(plot_curve(Results({}, {"step": np.arange(3), "episode_return": values}), tmp_path / "point.png"))
    assert seen["solid"][0].get_marker() == "o"


def test_comparison_takes_evaluation_where_every_run_has_it():
    seen = parts(plot_comparison([run(), run(agent="double_dqn")]))
    assert seen["title"] == "PPO, Double DQN on CartPole-v1, 5 seeds"
    assert seen["legend"][:3] == ["PPO", "Double DQN", "greedy evaluation, IQM over seeds"]
    assert [len(seen[kind]) for kind in ("solid", "bands")] == [2, 2]
    np.testing.assert_allclose(seen["solid"][0].get_xdata(), run().steps[3::4])
    mixed = parts(plot_comparison([run(), run(agent="dqn", evaluated=False)]))
    assert mixed["legend"][2] == "training, IQM over seeds"


def test_comparison_warns_of_different_environments():
    seen = parts(plot_comparison([run(), run(env="Acrobot-v1", num_configs=2)]))
    assert seen["title"].replace("\n", " ") == (
        "CartPole-v1, Acrobot-v1: different environments, returns do not compare"
    )
    assert seen["legend"][:3] == ["CartPole-v1", "Acrobot-v1, learning_rate=0.001", "Acrobot-v1, learning_rate=0.002"]


def test_comparison_labels():
    def labels(*runs, **arguments):
        return parts(plot_comparison(runs, **arguments))["legend"][: len(runs)]

    assert labels(run(), run(), labels=["a", "b"]) == ["a", "b"]
    assert labels(run(gamma=0.9, lr=1), run(gamma=0.99, lr=1)) == ["gamma=0.9", "gamma=0.99"]
    assert labels(run(num_seeds=3), run(num_seeds=4)) == ["3 seeds", "4 seeds"]
    assert labels(run(), run()) == ["run 1", "run 2"]
    with pytest.raises(JaxrlError, match="labels has 1 entries"):
        plot_comparison([run(), run()], labels=["a"])
    with pytest.raises(JaxrlError, match="empty"):
        plot_comparison([])


def test_files(tmp_path):
    plot_curve(run(), tmp_path / "new" / "curve.png")
    plot_comparison([run()], path=str(tmp_path / "curve.svg"))
    assert (tmp_path / "new" / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    with pytest.raises(JaxrlError, match=r"curve\.gif.*must end in \.png"):
        plot_curve(run(), tmp_path / "curve.gif")
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["curve.png", "curve.svg"]


def test_a_new_figure_is_labelled_at_its_edges():
    figure, panels = new_figure("title", ("a", "b"), rows=2, ylabel="loss", size=(6, 3), sharey=True)
    assert figure.get_suptitle() == "title"
    assert tuple(figure.get_size_inches()) == (6, 3)
    assert [axes.get_title() for axes in panels] == ["a", "b", "", ""]
    assert [axes.get_xlabel() for axes in panels] == ["", "", "environment steps", "environment steps"]
    assert [axes.get_ylabel() for axes in panels] == ["loss", "", "loss", ""]
    panels[0].set(ylim=(0, 7), xlim=(0, 4_000))
    assert panels[3].get_ylim() == (0, 7)
    figure.canvas.draw()
    assert "2k" in [label.get_text() for label in panels[0].get_xticklabels()]
    wide, _ = new_figure("", ("", "", ""), xlabel="episode")
    assert wide.get_size_inches()[0] == pytest.approx(3 * 4.2)
    assert new_figure("")[0].get_size_inches()[0] == 8


def test_a_band_spans_what_is_known():
    _, (axes,) = new_figure("")
    x, line = np.arange(5), np.array([nan, 1.0, nan, 3.0, 4.0])
    draw_band(axes, x, line, np.where(x == 4, nan, line - 1), line + 1, "label", PALETTE[2], alpha=0.5)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 1], [3, 3], [4, 4]])
    assert (axes.lines[0].get_label(), axes.lines[0].get_color()) == ("label", PALETTE[2])
    (band,) = axes.collections
    assert band.get_alpha() == 0.5
    np.testing.assert_array_equal(band.get_paths()[0].get_extents().get_points(), [[1, 0], [3, 4]])


def test_bands_of_a_sweep():
    results = run(num_configs=2)
    bands = curves(results, ["a", "b"])
    for i, band in enumerate(bands.values()):
        np.testing.assert_array_equal(band, np.stack(results.curve()[1:])[:, i])
    _, (axes,) = new_figure("")
    draw_bands(axes, results.steps, bands)
    assert [(line.get_label(), line.get_color()) for line in axes.lines] == [("a", PALETTE[0]), ("b", PALETTE[1])]
    assert len(axes.collections) == 2
