"""Tables and figures of several agents: what their cells, panels, lines and bands hold."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from jaxrl.analysis.compare import comparison_table, plot_environments, table
from jaxrl.analysis.plot import PALETTE
from jaxrl.analysis.results import Results
from jaxrl.checks import JaxrlError

nan = np.nan


def run(shift=0.0, seconds=10.0, **metrics):
    """A run of three seeds and four intervals, with evaluations after the second and the last."""
    evaluated = np.array([nan, 1.0, nan, 3.0]) + shift + np.array([[0.0], [1.0], [2.0]])
    metrics = metrics or {"eval_return": evaluated}
    return Results({}, {"step": 500 * np.arange(1, 5), **metrics}, {"run_seconds": seconds})


def test_a_table_has_arrays_by_their_mean_and_interval():
    values = np.array([1.0, 1.0, nan])
    made = table("title", ("name", "number", "return"), [("a", 1, values), ("b", 20, "-"), ("c",)])
    assert [column.justify for column in made.columns] == ["left", "right", "right"]
    assert [list(column.cells) for column in made.columns] == [
        ["a", "b", "c"],
        ["1", "20", ""],
        ["1 (1 to 1)", "-", ""],
    ]


def test_a_table_with_other_text_and_sections():
    made = table("title", ("number", "name"), [(1, "a"), (), (2, "b")], text=("name",))
    assert [column.justify for column in made.columns] == ["right", "left"]
    assert [row.end_section for row in made.rows] == [True, False]
    assert [column.justify for column in table("title", ("number", "name"), [], text=()).columns] == ["right"] * 2


def test_a_comparison_names_each_environment_once():
    runs = {"Pole": {"DQN": run(), "PPO": run(4, seconds=2000)}, "Car": {"DQN": run(8)}}
    made = comparison_table("greedy", runs)
    assert [list(column.cells) for column in made.columns] == [
        ["Pole, 2,000 steps", "", "Car, 2,000 steps"],
        ["DQN", "PPO", "DQN"],
        ["4 (3 to 5)", "8 (7 to 9)", "12.0 (11.0 to 13.0)"],
        ["10", "2,000", "10"],
    ]
    assert [row.end_section for row in made.rows] == [False, True, True]  # a line below each environment


def test_a_panel_for_each_environment():
    figure = plot_environments("title", {"Pole": {"DQN": run(), "PPO": run(4)}, "Car": {"DQN": run(8)}})
    pole, car = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["Pole", "Car"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["environment steps"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["greedy return", ""]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert all(axes.get_legend() is not None for axes in figure.axes)  # for the agents differ
    for line, color, iqm in zip(pole.lines, PALETTE, ([2, 4], [6, 8]), strict=False):
        assert line.get_color() == color
        np.testing.assert_array_equal(line.get_xdata(), [1_000, 2_000])
        np.testing.assert_array_equal(line.get_ydata(), iqm)
    (band,) = (c for c in car.collections if isinstance(c, PolyCollection))
    assert band.get_paths()[0].get_extents().ymin == 9


def test_the_same_agents_have_one_legend_and_time_a_row_of_its_own():
    runs = {"Pole": {"DQN": run(seconds=4)}, "Car": {"DQN": run(seconds=1)}}
    figure = plot_environments("title", runs, by_time=True, ylabel="score")
    assert [axes.get_legend() is not None for axes in figure.axes] == [True, False, False, False]
    assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ["environment steps", "seconds, all seeds side by side"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["score", "", "score", ""]
    assert [list(axes.lines[0].get_xdata()) for axes in figure.axes[2:]] == [[2, 4], [0.5, 1]]


def test_another_metric_and_none():
    figure = plot_environments("title", {"Pole": {"DQN": run(loss=np.ones((3, 4)))}}, metric="loss")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1, 1, 1, 1])
    for compare in (comparison_table, plot_environments):
        with pytest.raises(JaxrlError, match="unknown metric 'eval_return'"):
            compare("title", {"Pole": {"DQN": run(loss=np.ones((3, 4)))}})
