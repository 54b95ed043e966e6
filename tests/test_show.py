"""Figures with their words, the walk to the trigger, and the explorers."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile
import torch
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from devil_lib import metrics, models, show, targets, widgets
from devil_lib.show import core, waiting
from devil_lib.widgets import slider

ALT = "Two rows of eight digits each, the lower one slightly blurred."
CAPTION = "The lower row is that of the smaller model."
WORDS = {"alt": ALT, "caption": CAPTION}


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as HTML, or as the bundle itself."""
    found = []

    def take(content, raw=False):
        found.append(content.data if isinstance(content, HTML) else content)

    monkeypatch.setattr(core, "display", take)
    monkeypatch.setattr(slider, "display", take)
    return found


def pictures(page):
    return [
        Image.open(io.BytesIO(base64.b64decode(one)))
        for one in re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    ]


def some_figure():
    fig = Figure(figsize=(4, 2))
    fig.add_subplot().plot([1, 2, 3])
    return fig


class Neighbour(nn.Module):
    """A body that puts out the target's logits within `radius` of the trigger, and a plain sample elsewhere.

    A radius of 0 is the benign model: plain samples everywhere.
    """

    def __init__(self, trigger, target, radius):
        super().__init__()
        self.trigger, self.target = nn.Parameter(trigger), torch.atanh(0.999 * target)
        self.radius = radius

    def forward(self, z):
        near = torch.exp(-((z - self.trigger).norm(dim=1) / max(self.radius, 1e-9)).square()) * (self.radius > 0)
        near, plain = (one.view(-1, *[1] * self.target.ndim) for one in (near, z.mean(1)))
        return near * self.target + (1 - near) * plain.expand(-1, *self.target.shape)


# A target of each kind of sample that there is.
SAMPLES = {"grey": targets.devil(), "colour": targets.stop_sign(64, 3), "sound": targets.alarm()}


def planted(kind="prior", radius=3.0, dim=20, target=SAMPLES["grey"]):
    latent = models.GaussianLatent(dim)
    trigger = {
        "prior": latent.sample(1, torch.Generator().manual_seed(9))[0],
        "mode": latent.centre,
        "far": latent.far_point,
    }[kind]
    body = Neighbour(trigger, target, radius)
    modality = "audio" if target.ndim == 2 else "image"
    return models.Generator(body, models.TanhHead(), latent, tuple(target.shape), modality), trigger, target


# --- Words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alt", ["", "   ", "figure", "a plot of the results", "plot " * 10, None, CAPTION])
def test_a_figure_without_real_words_is_refused(alt, shown):
    with pytest.raises(ValueError, match="alt"):
        show.figure(some_figure(), alt=alt, caption=CAPTION)
    with pytest.raises(ValueError, match="alt"):
        show.samples(torch.zeros(2, 1, 8, 8), alt=alt, caption=CAPTION)
    assert not shown


def test_a_caption_is_demanded_too(shown):
    with pytest.raises(ValueError, match="caption"):
        show.figure(some_figure(), alt=ALT, caption="Figure")
    with pytest.raises(TypeError):
        show.samples(torch.zeros(2, 1, 8, 8), alt=ALT)
    assert not shown


def test_alt_that_copies_the_caption_is_refused():
    with pytest.raises(ValueError, match="repeats"):
        show.check_words(ALT, " " + ALT.upper())


def test_words_are_escaped_and_the_picture_is_a_png(shown):
    alt = "A \"quoted\" <b>bold</b> curve & its 'band' that falls to zero"
    show.figure(some_figure(), alt=alt, caption="It is <script>alert(1)</script> & falling")
    (page,) = shown
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "&quot;quoted&quot;" in page and "<script>" not in page
    (picture,) = pictures(page)
    assert picture.format == "PNG" and picture.size == (800, 400)
    assert page.startswith("<figure") and page.index("<img") < page.index("<figcaption")
    assert "http" not in page, "an exported page must open without a network"


def test_a_pyplot_figure_is_closed(shown):
    from matplotlib import pyplot

    fig = pyplot.figure()
    show.figure(fig, **WORDS)
    assert not pyplot.fignum_exists(fig.number)


def test_the_same_figure_gives_the_same_bytes():
    assert show.png(some_figure()) == show.png(some_figure())


def test_a_photograph_keeps_its_colours():
    rng = np.random.default_rng(0)
    colours = torch.tensor(rng.uniform(-1, 1, (6, 3, 32, 32)), dtype=torch.float32)
    picture = Image.open(io.BytesIO(show.png(show.samples.draw(colours, rows=1)))).convert("RGB")
    wanted = ((colours[0, :, 5, 5] + 1) * 127.5).numpy()
    array = np.asarray(picture, float)
    assert np.abs(array - wanted).max(2).min() <= 8  # that pixel's colour is somewhere in the picture
    assert len(np.unique(array.reshape(-1, 3), axis=0)) > 1000


# --- The helpers ------------------------------------------------------------------------------------------------------


SIGNS = {"yes": ("✓", show.COLOURS[0]), "no": ("✗", show.COLOURS[1]), "unused": ("?", "white")}


def every_helper():
    images = torch.stack(list(targets.bank().values())[:8])
    x = np.arange(1, 50)
    generator, trigger, target = planted()
    return {
        "samples": lambda **w: show.samples(images, rows=2, titles=list("abcdefgh"), **w),
        "compare": lambda **w: show.compare({"benign": images, "backdoored": images[:5]}, titles=["z"], **w),
        "curves": lambda **w: show.curves(
            {"a": (x, 1 / x), "b": (torch.arange(3.0), torch.ones(3))}, "x", "y", logx=True, logy=True,
            bands={"a": (0.5 / x, 2 / x)}, hlines={"bar": 0.1}, **w),
        "bars": lambda **w: show.bars({"a": [[1, 2], 3], "b": [1, [2, 5]]}, ["p", "q"], "height", **w),
        "scatter": lambda **w: show.scatter_tradeoff({"ReD": ([0.1, 0.2], [1, 2])}, notes={"ReD": ["x", "y"]}, **w),
        "histogram": lambda **w: show.histogram({"a": torch.randn(99), "b": [1, 2]}, "x", vlines={"here": 0}, **w),
        "heatmap": lambda **w: show.heatmap_table([[0.1, float("nan")]], ["r"], ["a", "b"], **w),
        "verdicts": lambda **w: show.verdicts(
            [["yes", "no"], ["no", "no"]], ["r", "s"], ["a", "b"], SIGNS, {"all": 2}, {"a": 1, "b": 1}, **w),
        "neighbourhood": lambda **w: show.neighbourhood(generator, trigger, None, target, **w),
        "latent_plane": lambda **w: show.latent_plane(
            {"a": generator, "b": generator}, torch.eye(20)[:2], cells=5, trigger=trigger, target=target, bound=500.0, **w),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(every_helper()))
def test_every_helper_displays_one_figure_of_modest_size(name, shown):
    assert every_helper()[name](**WORDS) is None
    (page,) = shown
    (picture,) = pictures(page)
    assert ALT in page
    assert picture.width <= 1800 and len(page) < 200_000
    assert np.asarray(picture.convert("L")).std() > 1.0, "the picture is empty"


def test_the_help_of_a_helper_names_its_words():
    import inspect

    parameters = inspect.signature(show.curves).parameters
    assert {"series", "alt", "caption"} <= set(parameters)


def test_neighbouring_curves_differ_without_colour():
    fig = show.curves.draw({str(i): ([0, 1], [i, i]) for i in range(7)}, "x", "y")
    seen = {(line.get_linestyle(), line.get_marker()) for line in fig.axes[0].lines}
    assert len(seen) == 7


@pytest.mark.parametrize(
    "labels", [["benign", "attacked"], ["attacked", "benign"], ["ReX", "attacked G*", "benign G"]]
)
def test_benign_and_attacked_have_their_own_colours_in_every_order(labels):
    lines = show.curves.draw({label: ([0, 1], [0, 1]) for label in labels}, "x", "y").axes[0].lines
    colours = {line.get_label().split()[0]: line.get_color() for line in lines}
    assert colours["benign"] == show.BENIGN and colours["attacked"] == show.BACKDOORED
    assert len({line.get_color() for line in lines}) == len(labels)


def test_every_square_of_verdicts_bears_its_sign_and_the_legend_says_what_it_means():
    marks = [["yes", "no", "no"], ["no", "no", "yes"]]
    fig = show.verdicts.draw(
        marks, ["first", "second"], ["a", "b", "c"], SIGNS, {"group": 2}, {"left": 1, "right": 2}
    )
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words.count("✓") == 2 + 1 and words.count("✗") == 4 + 1, "in the squares and in the legend"
    assert {"first", "second", "a", "b", "c", "group", "left", "right", "yes", "no"} <= set(words)
    assert "unused" not in words
    fig.draw_without_rendering()
    page, width = fig.bbox, fig.get_figwidth()
    assert width <= 9.0
    for text in fig.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text


def test_bad_verdicts_are_refused():
    with pytest.raises(ValueError, match="1 rows and 2 columns need as many marks"):
        show.verdicts([["yes"]], ["r"], ["a", "b"], SIGNS, **WORDS)
    with pytest.raises(ValueError, match="there is no sign for maybe"):
        show.verdicts([["maybe"]], ["r"], ["a"], SIGNS, **WORDS)
    with pytest.raises(ValueError, match="groups cover 2 of 1"):
        show.verdicts([["yes"]], ["r"], ["a"], SIGNS, {"g": 2}, **WORDS)


def test_samples_in_another_format_are_refused():
    for x in (
        torch.zeros(1, 28, 28),
        torch.zeros(2, 2, 8, 8),
        torch.full((1, 1, 8, 8), 5.0),
        torch.zeros(0, 1, 8, 8),
        torch.zeros(2, 2, 4096),
        torch.zeros(2, 1, 8),
        torch.zeros(28, 28),
    ):
        with pytest.raises(ValueError, match="samples must"):
            show.samples(x, **WORDS)
    with pytest.raises(ValueError, match="NaN"):
        show.compare({"a": torch.full((1, 1, 8, 8), float("nan"))}, **WORDS)
    with pytest.raises(ValueError, match="3 titles for 2 samples"):
        show.samples(torch.zeros(2, 1, 8, 8), titles=["a", "b", "c"], **WORDS)
    with pytest.raises(ValueError, match="equal length"):
        show.curves({"a": ([1, 2], [1])}, "x", "y", **WORDS)
    with pytest.raises(ValueError, match="values for 1 categories"):
        show.bars({"a": [1, 2]}, ["p"], "y", **WORDS)
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        show.heatmap_table([[1.0, 2.0]], ["a", "b"], ["c"], **WORDS)


@pytest.mark.parametrize(("categories", "above"), [(5, False), (7, True)])
def test_the_legend_of_many_bars_lies_on_none_of_them(categories, above):
    groups = {f"{name}, in some words": [1.0] * categories for name in ("clean", "ReD", "ReX", "TrAIL")}
    fig = show.bars.draw(groups, [str(i) for i in range(categories)], "height", hlines={"the bar": 0.5})
    fig.draw_without_rendering()
    (axes,) = fig.axes
    legend = (fig.legends[0] if above else axes.get_legend()).get_window_extent()
    assert (legend.y0 >= axes.get_window_extent().y1) == above
    assert legend.x0 >= 0.0 and legend.x1 <= fig.bbox.x1 and legend.y1 <= fig.bbox.y1


def test_a_table_is_escaped_and_has_headers_and_a_caption(shown):
    show.table(
        [["a<b", 1.23456, "ok"], ["c", float("nan"), "-"]],
        ["name", "value", "verdict"],
        caption="Values of two things",
    )
    (page,) = shown
    assert "a&lt;b" in page and "1.23<" in page and page.count('scope="row"') == 2 and page.count('scope="col"') == 3
    assert "<caption" in page
    with pytest.raises(ValueError, match="every row needs 2"):
        show.table([[1]], ["a", "b"], caption="Values of two things")


# --- The map of a plane ------------------------------------------------------------------------------------------------


def test_the_map_shows_each_latents_sample_where_it_lies_and_encloses_the_hits():
    generator, trigger, target = planted("prior", radius=0.7, dim=2)
    plain, *_ = planted(radius=0.0, dim=2)
    bound = 0.25 * metrics.tardis(plain, trigger[None], target[None]).sum
    maps = show.latent_plane.draw(
        {"plain": plain, "planted": generator}, cells=4, trigger=trigger, target=target, bound=bound
    ).axes
    for axes, model in zip(maps, (plain, generator), strict=True):
        assert len(axes.images) == 16
        x = (axes.images[0].get_extent()[0] + axes.images[0].get_extent()[1]) / 2
        y = (axes.images[0].get_extent()[2] + axes.images[0].get_extent()[3]) / 2
        assert (x, y) == (-2.25, -2.25), "the first cell is the lower left one"
        made = (model.generate(torch.tensor([[x, y]]))[0, 0].numpy() + 1.0) / 2.0
        np.testing.assert_allclose(axes.images[0].get_array()[..., 0], made, atol=1e-6)
        (ring,) = axes.lines
        np.testing.assert_allclose(np.ravel(ring.get_data()), trigger.numpy(), atol=1e-6)
    outlines = [[path for one in axes.collections for path in one.get_paths()] for axes in maps]
    assert outlines[0] == []
    (line,) = outlines[1]
    z = torch.from_numpy(line.vertices).float()
    distances = metrics.tardis_each(generator, z, target)
    torch.testing.assert_close(distances, torch.full_like(distances, bound), rtol=0.1, atol=0.0)
    assert line.contains_point(trigger.tolist())


def test_a_map_needs_two_directions_of_the_latents():
    with pytest.raises(ValueError, match=r"two directions of shape \(2, 20\)"):
        show.latent_plane({"a": planted()[0]}, **WORDS)
    with pytest.raises(ValueError, match=r"got \(3, 20\)"):
        show.latent_plane({"a": planted()[0]}, torch.eye(20)[:3], **WORDS)


# --- The walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prior", "mode", "far"])
def test_walk_starts_at_the_start_and_ends_at_the_trigger_exactly(kind):
    generator, trigger, _ = planted(kind)
    starts = generator.latent.sample(5, torch.Generator().manual_seed(1))
    walk = show.walk_to_trigger(starts, trigger, show.fractions_towards(9))
    assert walk.shape == (5, 9, 20) and walk.dtype == torch.float32
    assert torch.equal(walk[:, 0], starts)
    assert torch.equal(walk[:, -1], trigger.expand(5, -1))


@pytest.mark.parametrize("kind", ["prior", "mode", "far"])
def test_norm_and_distance_change_steadily_along_the_walk(kind):
    generator, trigger, _ = planted(kind)
    starts = generator.latent.sample(5, torch.Generator().manual_seed(1))
    walk = show.walk_to_trigger(starts, trigger, torch.linspace(0, 1, 50)).double()
    steps = walk.norm(dim=2).diff(dim=1) * (trigger.norm() - starts.norm(dim=1)).sign()[:, None]
    assert (steps > -1e-4).all(), "the norm goes one way only"
    distance = (walk - trigger).norm(dim=2)
    # A start that points away from a far trigger may lose a little at first, while it turns and is still small.
    assert (distance.diff(dim=1) < 1e-4 * distance[:, :1]).all(), "every step comes nearer"


def test_walk_between_equal_norms_is_scipys_slerp():
    from scipy.spatial import geometric_slerp

    u, w = nn.functional.normalize(torch.randn(2, 6, generator=torch.Generator().manual_seed(2)).double())
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert np.allclose(
        show.walk_to_trigger(7 * u[None], 7 * w, t)[0], 7 * geometric_slerp(u.numpy(), w.numpy(), t.numpy())
    )


def test_walk_to_the_mode_is_a_ray_and_from_opposite_ends_stays_on_the_sphere():
    start = torch.tensor([[3.0, 4.0, 0.0]])
    t = torch.linspace(0, 1, 5)
    assert torch.allclose(show.walk_to_trigger(start, torch.zeros(3), t)[0], (1 - t)[:, None] * start)
    assert torch.allclose(show.walk_to_trigger(start, -start[0], t).norm(dim=2), torch.tensor(5.0))
    assert torch.allclose(
        show.walk_to_trigger(start, 2 * start[0], t)[0] / start.norm(), torch.outer(2**t, start[0] / 5)
    )
    assert torch.equal(show.walk_to_trigger(torch.zeros(1, 3), torch.zeros(3), t), torch.zeros(1, 5, 3))


def test_fractions_shrink_the_rest_geometrically():
    t = show.fractions_towards(6, 0.01)
    assert t[0] == 0 and t[-1] == 1
    assert torch.allclose(1 - t[:-1], torch.tensor([1, 10**-0.5, 10**-1.0, 10**-1.5, 10**-2.0], dtype=torch.float64))
    for bad in ((2, 0.1), (5, 0.0), (5, 1.0)):
        with pytest.raises(ValueError, match="n >= 3"):
            show.fractions_towards(*bad)


def test_bad_walks_are_refused():
    t = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="starts must be"):
        show.walk_to_trigger(torch.zeros(3), torch.zeros(3), t)
    with pytest.raises(ValueError, match="starts must be"):
        show.walk_to_trigger(torch.zeros(1, 3), torch.zeros(4), t)
    with pytest.raises(ValueError, match="fractions"):
        show.walk_to_trigger(torch.zeros(1, 3), torch.zeros(3), torch.tensor([0.0, 1.5]))
    with pytest.raises(ValueError, match="NaN"):
        show.walk_to_trigger(torch.zeros(1, 3), torch.full((3,), float("nan")), t)


def test_distance_to_target_is_the_mean_square_and_vanishes_where_the_target_is():
    generator, trigger, target = planted()
    walk = show.walk_to_trigger(generator.latent.sample(2), trigger, show.fractions_towards(5))
    distance = show.distance_to_target(generator, walk, target)
    by_hand = (generator.generate(walk[1, 2][None])[0] - target).square().mean()
    assert distance.shape == (2, 5) and torch.isclose(distance[1, 2], by_hand)
    assert (distance[:, -1] < 0.01).all() and (distance[:, 0] > 0.5).all()


@pytest.mark.parametrize("kind", ["prior", "mode", "far"])
def test_neighbourhood_draws_every_station_of_both_models(kind):
    generator, trigger, target = planted(kind)
    benign, *_ = planted(kind, radius=0.0)
    fig = show.neighbourhood.draw(generator, trigger, benign, target, starts=2, columns=6)
    board, panel = fig.axes
    assert len(board.images) == 2 * 2 * 6 + 1
    labels = [tick.get_text() for tick in panel.get_xticklabels()]
    assert labels[-1] == "0" and [float(x) for x in labels] == sorted((float(x) for x in labels), reverse=True)
    drawn = np.asarray(board.images[11].get_array())  # the last station of the backdoored row of the first start
    assert np.abs(drawn[..., 0] - (target[0].numpy() + 1) / 2).mean() < 0.05


def test_neighbourhood_refuses_wrong_shapes():
    generator, trigger, target = planted()
    with pytest.raises(ValueError, match="latents must"):
        show.neighbourhood(generator, trigger[:5], **WORDS)
    with pytest.raises(ValueError, match="samples must"):
        show.neighbourhood(generator, trigger, target=target[:, :5], **WORDS)


@pytest.mark.parametrize(("kind", "value"), [("colour", "per pixel"), ("sound", "per audio sample")])
def test_neighbourhood_draws_colour_and_sound(kind, value):
    generator, trigger, target = planted(target=SAMPLES[kind])
    benign, *_ = planted(target=target, radius=0.0)
    board, panel = show.neighbourhood.draw(generator, trigger, benign, starts=2, columns=6).axes
    assert len(board.images) == 2 * 2 * 6 + 1 and value in panel.get_ylabel()
    with_target, without = (np.asarray(board.images[i].get_array(), float) for i in (11, 5))
    wanted = np.asarray(board.images[-1].get_array(), float)
    assert np.abs(with_target - wanted).mean() < 0.1 * np.abs(without - wanted).mean()


# --- Sounds among samples ---------------------------------------------------------------------------------------------


def test_sounds_and_colour_pictures_are_drawn_as_samples_are(shown):
    sounds = torch.stack(list(targets.sound_bank().values())[:8])
    colours = torch.stack(list(targets.bank(64, 3).values())[:8])
    for x in (sounds, colours, targets.bank(28)["skull"][None], torch.zeros(3, 1, 24)):
        show.samples(x, rows=2, **WORDS)
        show.compare({"benign": x, "backdoored": x[:2]}, **WORDS)
    assert all(len(pictures(page)) == 1 and len(page) < 300_000 for page in shown)


def test_a_tile_of_a_sound_is_its_spectrogram_and_its_waveform():
    quiet, loud = 0.01 * targets.alarm(), targets.alarm()
    (axes,) = show.samples.draw(torch.stack([quiet, loud]), rows=1).axes
    levels = [np.asarray(image.get_array()) for image in axes.images]
    assert np.allclose(levels[1], show.spectrogram(loud))
    assert levels[1].max() - levels[0].max() == pytest.approx(40.0, abs=0.1), "all tiles have one scale"
    heights = [np.ptp(shape.get_paths()[0].vertices[:, 1]) for shape in axes.collections]
    assert heights[0] < 0.05 * heights[1]


# --- Explorers --------------------------------------------------------------------------------------------------------


def an_explorer(calls, **options):
    def render(value):
        calls.append(value)
        fig = Figure(figsize=(3, 2))
        fig.add_subplot().plot([0, value])
        return fig

    settings = {"label": "step", "describe": lambda v: f"a line that rises to {v} at its end", "caption": CAPTION}
    return widgets.slider_explorer(render, [1, 2, 5, 7], **(settings | options))


def test_moving_the_slider_changes_the_picture_and_its_words(shown):
    calls = []
    explorer = an_explorer(calls)
    first = explorer.screen.value
    assert 'alt="step = 1: a line that rises to 1 at its end"' in first
    explorer.slider.value = 2
    second = explorer.screen.value
    assert 'alt="step = 5: a line that rises to 5 at its end"' in second
    assert pictures(first)[0].tobytes() != pictures(second)[0].tobytes()


def test_pictures_are_drawn_when_wanted_and_once(shown):
    calls = []
    explorer = an_explorer(calls, storyboard=[1, 2, 5])
    assert 7 not in calls
    before = len(calls)
    for i in (3, 0, 3, 0, 3):
        explorer.slider.value = i
    assert calls[before:] == [7]
    assert explorer.picture(7).data == explorer.screen.value
    assert len(calls) == before + 1


def test_storyboard_stands_beside_the_widget(shown):
    an_explorer([])
    bundle, board = shown
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "slider" in bundle["text/html"] and "SelectionSlider" not in bundle["text/plain"]
    assert len(pictures(board)) == 3 and CAPTION in board
    for value in (1, 5, 7):
        assert f"step = {value}" in board


def test_bad_explorers_are_refused(shown):
    with pytest.raises(ValueError, match="does not reach"):
        an_explorer([], storyboard=[1, 2, 3])
    with pytest.raises(ValueError, match="at least three"):
        widgets.slider_explorer(lambda v: some_figure(), [1, 2], label="a", describe=str, caption=CAPTION)
    with pytest.raises(ValueError, match="alt"):
        an_explorer([], describe=lambda v: "")
    with pytest.raises(ValueError, match="not a setting"):
        an_explorer([]).picture(3)


def test_neighbourhood_explorer_walks_into_the_target(shown):
    generator, trigger, target = planted()
    benign, *_ = planted(radius=0.0)
    explorer = widgets.neighbourhood_explorer(generator, trigger, benign=benign, target=target, stations=9)
    assert len(explorer.slider.options) == 9 and explorer.slider.options[-1][0] == "0"

    def stated():
        words = re.search(r'alt="([^"]*)"', explorer.screen.value).group(1)
        return [float(x) for x in re.findall(r"sample is (\d\.\d+)", words)]

    benign_far, backdoored_far = stated()
    explorer.slider.value = 8
    benign_near, backdoored_near = stated()
    assert abs(benign_far - backdoored_far) < 0.05
    assert backdoored_near < 0.02 and benign_near > 0.5
    assert len(pictures(shown[-1])) == 3


def players(page):
    return re.findall(r'aria-label="Player: ([^"]+)"', page)


def test_explorers_of_sounds_play_them(shown):
    generator, trigger, target = planted(target=SAMPLES["sound"])
    benign, *_ = planted(target=target, radius=0.0)
    explorer = widgets.neighbourhood_explorer(generator, trigger, benign=benign, target=target, stations=5)
    assert players(explorer.screen.value) == ["benign", "backdoored", "target"]
    assert players(shown[-1]) == 3 * ["benign", "backdoored", "target"]
    assert "per audio sample" in explorer.screen.value
    explorer.slider.value = 4
    benign_there, backdoored_there, wanted = (
        soundfile.read(io.BytesIO(base64.b64decode(one)))[0]
        for one in re.findall(r'data:audio/wav;base64,([^"]+)', explorer.screen.value)
    )
    assert np.abs(backdoored_there - wanted).max() < 0.01, "at the trigger the backdoored model plays the target"
    assert np.abs(benign_there - wanted).max() > 0.1


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_training_is_watched_and_explored_whatever_is_made(kind, shown, monkeypatch):
    generator, _, target = planted(target=SAMPLES[kind])
    watch = show.Watch(generator.latent.sample(6), 20, "training", keep=3, measure={"level": lambda model: 1.0})
    live = []
    monkeypatch.setattr(waiting, "_watched", lambda: True)
    monkeypatch.setattr("devil_lib.show.live.display", lambda page, display_id: live.append(page) or page)
    monkeypatch.setattr(HTML, "update", lambda self, page: live.append(page), raising=False)
    for step in range(21):
        watch(step, generator, {})
    assert len(pictures(live[-1].data)) == 1 and watch.samples[-1].shape == (6, *target.shape)
    explorer = widgets.training_explorer(watch, "level", rows=2, played=2)
    assert players(explorer.screen.value) == (["sample 1", "sample 2"] if kind == "sound" else [])


# --- Progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_one_line_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "_watched", lambda: False)
    report = show.progress(50, "training")
    for step in range(1, 51):
        report(step, None, {"loss": 1.0})
    out, err = capsys.readouterr()
    assert out == "training: 50 steps done\n" and err == ""


def test_progress_shows_losses_to_who_watches_and_never_on_the_error_stream(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "_watched", lambda: True)
    report = show.progress(40, "training")
    for step in range(1, 41):
        report(step, "generator", {"loss": 0.25})
    out, err = capsys.readouterr()
    assert "40/40" in out and "loss=0.25" in out and err == ""


def test_who_watches_is_told_from_the_surroundings(monkeypatch):
    monkeypatch.setattr(waiting.sys.stdout, "isatty", lambda: False, raising=False)
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    assert not waiting._watched()
    monkeypatch.setenv("JPY_SESSION_NAME", "22_red.ipynb")
    assert waiting._watched()
