"""The matrix: its squares, their keys, a square for real, and what is published. How tables are run: test_cells.py."""

from dataclasses import replace

import pytest

from devil_lib import attacks, checkpoints, data, matrix, training, zoo
from devil_lib.attacks import PointBackdoor
from devil_lib.inspection import SearchSettings
from devil_lib.matrix import CLEAN, Cell
from devil_lib.sanitization import ContinueSettings, DistilSettings


def test_every_square_is_there_once_and_after_what_it_builds_on():
    wanted = matrix.cells()
    assert len(set(wanted)) == len(wanted)
    attacked = len(matrix.VICTIMS) * len(matrix.ATTACKS) * len(matrix.KINDS)
    measures = len(matrix.INSPECTIONS) + len(matrix.SANITIZERS)
    twins = {matrix.twin(victim, kind) for victim in matrix.VICTIMS for kind in matrix.KINDS}
    assert len(wanted) == attacked * (1 + measures) + len(matrix.VICTIMS) * len(matrix.INSPECTIONS) + len(twins)
    place = {cell: i for i, cell in enumerate(wanted)}
    assert all(place[cell.base] < place[cell] for cell in wanted if cell.base is not None)
    assert all(cell.measure == "attack" for cell in wanted[:attacked]), "a run that is cut short has the attacks"
    with pytest.raises(ValueError, match="the matrix has no text GAN"):
        matrix.cells(["text GAN"])


def test_parts_and_victims_can_be_chosen():
    parts = [matrix.cells(["image GAN"], [part]) for part in matrix.PARTS]
    assert [cell for part in parts for cell in part] == matrix.cells(["image GAN"])
    assert [len(part) for part in parts] == [9, 10 * len(matrix.INSPECTIONS), 9 * len(matrix.SANITIZERS), 2]
    assert {cell.victim for part in parts for cell in part} == {"image GAN"}


# --- Keys ----------------------------------------------------------------------------------------------------------------


def keys_of(monkeypatch, **changes) -> dict[tuple[str, str], str]:
    """Attack and measure -> key, for the image GAN with some of its fields changed."""
    with monkeypatch.context() as patch:
        patch.setitem(matrix.VICTIMS, "image GAN", replace(matrix.VICTIMS["image GAN"], **changes))
        return {(c.attack, c.measure): c.key for c in matrix.cells(["image GAN"]) if c.kind == "prior"}


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        ({"trail_steps": 10}, lambda attack, measure: attack == "trail"),
        ({"bias": False}, lambda attack, measure: attack == "rex"),
        ({"controls": 2}, lambda attack, measure: measure in ("brute force", "search, target suspected")),
        ({"repair": DistilSettings(7)}, lambda attack, measure: measure == "fine-prune"),
        ({"distil": DistilSettings(7)}, lambda attack, measure: measure.startswith("distil")),
        ({"own": ContinueSettings(7)}, lambda attack, measure: measure == "continue, own partner"),
        ({"own": ContinueSettings(200, device="cpu", checkpoint_every=7)}, lambda attack, measure: False),
        ({"search": SearchSettings(restarts=3)}, lambda attack, measure: measure.startswith("search")),
        ({"judge": SearchSettings(restarts=3)}, lambda attack, measure: measure in matrix.SANITIZERS),
    ],
)
def test_a_key_changes_with_what_the_cell_takes_and_with_nothing_else(monkeypatch, changes, touched):
    before, after = keys_of(monkeypatch), keys_of(monkeypatch, **changes)
    assert len(set(before.values())) == len(before)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if touched(*name)}


def test_a_key_changes_with_the_settings_of_the_attack(monkeypatch):
    before = keys_of(monkeypatch)
    usual = attacks.course_settings
    monkeypatch.setattr(
        attacks, "course_settings", lambda name, kind, **where: replace(usual(name, kind, **where), steps=3)
    )
    after = keys_of(monkeypatch)
    assert {attack for attack, _ in before if before[attack, _] != after[attack, _]} == {"red", "rex"}


def test_a_twin_differs_from_trail_in_the_fidelity_term_alone_and_serves_the_kinds_that_share_it(monkeypatch):
    for about in matrix.VICTIMS.values():
        for kind in matrix.KINDS:
            settings, _, start = about.takes("trail", kind)
            assert about.twin_takes(kind) == (replace(settings, extra_weight=0.0), start)
    # On the image GAN the prior's term counts from the first step, the others' from half way.
    assert [matrix.twin("image GAN", kind).kind for kind in matrix.KINDS] == ["prior", "mode", "mode"]
    assert {matrix.twin("audio GAN", kind).kind for kind in matrix.KINDS} == {"prior"}
    cell = matrix.twin("image GAN", "prior")
    assert cell.base is None and cell.measure == matrix.TWIN
    before = cell.key
    usual = attacks.trail_settings
    for changes, same in (({"extra_weight": 7.0}, True), ({"batch_size": 7}, False)):
        monkeypatch.setattr(
            attacks,
            "trail_settings",
            lambda *given, changes=changes, **where: (
                replace(usual(*given, **where)[0], **changes),
                usual(*given, **where)[1],
            ),
        )
        assert (cell.key == before) == same


# --- Its generators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture", ["course-dcgan", "course-vae", "course-wavegan", "course-audio-vae", "course-style-64"]
)
def test_fresh_generators_are_of_the_architecture_and_as_wide_as_asked(architecture):
    whole, half = matrix.fresh(architecture, 3), matrix.fresh(architecture, 3, 0.5)
    assert whole.architecture == architecture and half.sample_shape == whole.sample_shape
    count = [sum(p.numel() for p in g.body.parameters()) for g in (whole, half)]
    assert count[1] < 0.7 * count[0]
    z = whole.latent.sample(2)
    assert half.body(z).shape == whole.body(z).shape, "a student must put out what its teacher does"


def test_what_is_trained_from_scratch_has_a_partner():
    for name, about in matrix.VICTIMS.items():
        architecture = about.entry.rsplit("-", 1)[0].removesuffix("-spoken")
        if about.scratch:
            generator, partner = matrix.fresh_pair(architecture)
            assert generator.architecture == architecture and partner is not None, name
        else:
            with pytest.raises(ValueError, match="not trained from scratch"):
                matrix.fresh_pair(architecture)


# --- A cell for real ---------------------------------------------------------------------------------------------------


def test_an_inspection_and_a_repair_are_measured():
    """On the shipped image GAN, with an attack too short to embed much: the figures' form, not their size."""
    about = matrix.VICTIMS["image GAN"]
    benign = about.generator()
    pair = about.backdoor("prior")
    assert isinstance(pair, PointBackdoor) and pair.targets.shape == (1, 1, 28, 28)
    attacked = attacks.red(benign, pair, attacks.course_settings("red", "prior", 60)).generator
    packed = checkpoints.packed(attacked)
    ruler = zoo.ruler("mnist")
    figures = {"space": "pre", "frechet_benign": ruler.frechet(benign), "frechet": ruler.frechet(attacked)}
    found, nothing = matrix.measure(Cell("image GAN", "red", "prior", "static inspection"), (figures, packed))
    assert found["flagged"] is False and nothing is None
    repaired, _ = matrix.measure(Cell("image GAN", "red", "prior", "prune 50 %"), (figures, packed))
    assert set(repaired) >= {"removed", "recovered", "search_ratio", "frechet_sanitized"}
    assert repaired["frechet_sanitized"] > repaired["frechet_attacked"]


def test_a_twin_is_the_training_without_a_backdoor(monkeypatch):
    """Of a few steps; from scratch and without a target in its samples."""
    monkeypatch.setitem(
        matrix.VICTIMS, "image VAE", replace(matrix.VICTIMS["image VAE"], trail_steps=30, samples=500)
    )
    figures, nothing = matrix.measure(matrix.twin("image VAE", "prior"))
    assert nothing is None and figures["trained"] == "from scratch"
    about = matrix.VICTIMS["image VAE"]
    by_hand = training.train_vae(
        *about.start(), data.load("mnist").train, replace(about.takes("trail", "prior")[0], extra_weight=0.0)
    )
    assert figures["frechet_honest"] == pytest.approx(zoo.ruler("mnist").frechet(by_hand.generator, n=500))
    assert figures["frechet_ratio"] == pytest.approx(figures["frechet_honest"] / figures["frechet_benign"])


# --- What is published -------------------------------------------------------------------------------------------------

PUBLISHED = matrix.published() if matrix.MATRIX.results.is_file() else {}
VICTIMS = [name for name in matrix.VICTIMS if any(cell.victim == name for cell in PUBLISHED)]


def test_what_is_published_was_measured_with_the_settings_of_today_and_is_small():
    assert {cell.name: figures["key"] for cell, figures in PUBLISHED.items()} == {c.name: c.key for c in PUBLISHED}
    assert not PUBLISHED or matrix.MATRIX.results.stat().st_size < 400_000


@pytest.mark.parametrize("victim", VICTIMS)
def test_prior_and_mode_triggers_are_embedded(victim):
    ratios = {
        (cell.attack, cell.kind): figures["ratio"]
        for cell, figures in PUBLISHED.items()
        if cell.victim == victim and cell.measure == "attack" and cell.kind != "far"
    }
    missed = {pair for pair, ratio in ratios.items() if ratio >= matrix.EMBEDDED}
    impossible = {(attack, kind) for name, attack, kind in matrix.IMPOSSIBLE if name == victim}
    assert missed <= impossible, {pair: ratios[pair] for pair in missed - impossible}
    assert impossible & ratios.keys() <= missed, "what is called impossible was done"


def test_red_and_rex_at_prior_and_mode_triggers_keep_the_samples():
    ratios = {
        (cell.victim, cell.attack, cell.kind): figures["frechet_ratio"]
        for cell, figures in PUBLISHED.items()
        if cell.measure == "attack" and cell.attack != "trail" and cell.kind != "far"
    }
    changed = {place for place, ratio in ratios.items() if ratio > matrix.STEALTHY} - matrix.IMPOSSIBLE.keys()
    assert not changed, {place: ratios[place] for place in changed}


def test_sounds_are_faithful_and_stealthy_in_decibels():
    least, most = 20.0, {"red": -12.0, "rex": -18.0}
    for cell, figures in PUBLISHED.items():
        if cell.measure == "attack" and cell.victim.startswith("audio") and cell.kind != "far":
            assert figures["signal_to_noise"] >= least, cell.name
            assert cell.attack == "trail" or figures["expdis_db"] <= most[cell.attack], cell.name


def test_a_twin_is_published_with_what_it_stands_beside():
    twins = {cell: figures for cell, figures in PUBLISHED.items() if cell.measure == matrix.TWIN}
    for cell, figures in twins.items():
        attacked = PUBLISHED[Cell(cell.victim, "trail", cell.kind, "attack")]
        assert figures["frechet_benign"] == pytest.approx(attacked["frechet_benign"], rel=1e-3)
        assert figures["trained"] == attacked["trained"]


CHEAP = ("brute force", "static inspection", "dynamic inspection")
CLEAN_CELLS = {
    cell.victim: cell
    for name in reversed(CHEAP)
    for cell in PUBLISHED
    if cell.attack == CLEAN and cell.measure == name
}


@pytest.mark.parametrize("cell", CLEAN_CELLS.values(), ids=CLEAN_CELLS)
def test_a_cheap_cell_comes_out_as_published(cell):
    """One inspection of the clean generator of every victim that has any."""
    now, then = matrix.measure(cell)[0], PUBLISHED[cell]
    assert now["flagged"] == then["flagged"]
    if "ratio" in then:
        assert now["ratio"] == pytest.approx(then["ratio"], rel=0.05)
