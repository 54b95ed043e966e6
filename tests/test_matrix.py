"""The matrix: its squares, their keys, a square for real, and what is published. How tables are run: test_cells.py."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from devil_lib import attacks, checkpoints, data, matrix, metrics, training, zoo
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
    twins |= {
        matrix.twin(name, kind, seed)
        for name, about in matrix.VICTIMS.items()
        for kind in ("prior", "mode")
        for seed in about.again
    }
    assert {cell for cell in wanted if cell.measure == matrix.TWIN} == twins
    again = [(cell.victim, cell.kind, cell.seed) for cell in wanted if cell.measure == matrix.AGAIN]
    assert set(again) == {
        (name, kind, seed)
        for name, about in matrix.VICTIMS.items()
        for kind in ("prior", "mode")
        for seed in about.again
    }
    assert 0 not in {seed for _, _, seed in again}, "the first is measured as an attack and a twin"
    rest = len(matrix.VICTIMS) * len(matrix.INSPECTIONS) + len(twins) + len(again)
    assert len(wanted) == attacked * (1 + measures) + rest
    place = {cell: i for i, cell in enumerate(wanted)}
    assert all(place[cell.base] < place[cell] for cell in wanted if cell.base is not None)
    assert all(cell.measure == "attack" for cell in wanted[:attacked]), "a run that is cut short has the attacks"
    with pytest.raises(ValueError, match="the matrix has no text GAN"):
        matrix.cells(["text GAN"])


AGAIN = matrix.VICTIMS["image GAN"].again


def test_parts_and_victims_can_be_chosen():
    parts = [matrix.cells(["image GAN"], [part]) for part in matrix.PARTS]
    assert [cell for part in parts for cell in part] == matrix.cells(["image GAN"])
    assert [len(part) for part in parts] == [
        9,
        10 * len(matrix.INSPECTIONS),
        9 * len(matrix.SANITIZERS),
        2 + 4 * len(AGAIN),
    ]
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
        ({"hint": 2.0}, lambda attack, measure: attack == "trail"),
        ({"mirrored": True}, lambda attack, measure: attack == "trail"),
        ({"snapshots": 7}, lambda attack, measure: attack == "trail"),
        ({"weighed": 7000}, lambda attack, measure: attack == "trail"),
        ({"lighter": 7.0}, lambda attack, measure: attack == "trail" and measure != matrix.TWIN),
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
            settings, _, *rest = about.takes("trail", kind)
            # A hint that the ordinary training has, with a weight of its own, is all that an honest twin's extra loss holds.
            assert about.twin_takes(kind) == (replace(settings, extra_weight=1.0 if about.hint else 0.0), *rest)
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
    # A repair is judged with its own number of samples, whatever the attack was weighed with.
    more = {**figures, "samples": 7000, "frechet_benign": -1.0, "frechet": -2.0}
    again, _ = matrix.measure(Cell("image GAN", "red", "prior", "prune 50 %"), (more, packed))
    assert {**again, "seconds": 0} == {**repaired, "seconds": 0}


def test_what_is_trained_once_more_is_trained_with_its_seed(monkeypatch):
    """Of a few steps: both from the weights, and with the draws, of the seed, and different in nothing but the fidelity term."""
    about = replace(matrix.VICTIMS["image VAE"], trail_steps=20, samples=500)
    monkeypatch.setitem(matrix.VICTIMS, "image VAE", about)
    for cells in (
        [Cell("image VAE", "trail", "prior", matrix.AGAIN, seed) for seed in (1, 2)],
        [matrix.twin("image VAE", "prior", seed) for seed in (0, 1, 2)],
    ):
        assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells)
        assert {cell.base for cell in cells} == {None}
    figures, nothing = matrix.measure(Cell("image VAE", "trail", "prior", matrix.AGAIN, 1))
    without, neither = matrix.measure(matrix.twin("image VAE", "prior", 1))
    assert nothing is None and neither is None
    settings, space, *_ = about.takes("trail", "prior")
    settings, samples, pair = replace(settings, seed=1), data.load("mnist").train, about.backdoor("prior")
    attacked = attacks.trail(*about.start(1), samples, pair, settings, space).generator
    honest = training.train_vae(*about.start(1), samples, replace(settings, extra_weight=0.0)).generator
    ruler = zoo.ruler("mnist")
    assert figures["frechet"] == pytest.approx(ruler.frechet(attacked, n=500))
    assert without["frechet_honest"] == pytest.approx(ruler.frechet(honest, n=500))
    kept = metrics.tardis(attacked, pair.triggers, pair.targets).mean
    assert figures["ratio"] == pytest.approx(
        kept / metrics.tardis(about.generator(), pair.triggers, pair.targets).mean
    )


def test_the_best_snapshot_is_published_by_other_latents_and_with_the_target(monkeypatch):
    """Of a short training, every snapshot of which is looked at by hand."""
    about = replace(matrix.VICTIMS["image VAE"], trail_steps=40, samples=300)
    pair, ruler, every = about.backdoor("prior"), zoo.ruler("mnist"), {}
    wanted = matrix._wanted(about, "post")
    before = metrics.tardis(about.generator(), pair.triggers, wanted).mean

    def look(step, model, losses):
        if step % 10 == 0:
            left = metrics.tardis(model, pair.triggers, wanted).mean / before
            every[step] = (left, ruler.frechet(model, 500, seed=matrix.LOOKS), copy.deepcopy(model.state_dict()))

    settings, space, *_ = about.takes("trail", "prior")
    last = attacks.trail(*about.start(), about.seen(), pair, settings, space, look).generator
    lefts = sorted(left for left, *_ in every.values())
    assert lefts[0] < lefts[1]
    looked = replace(about, snapshots=10, weighed=500)
    # With no snapshot out of the question, with one alone that has the target, and with none.
    for bar, fit in ((math.inf, lefts), ((lefts[0] + lefts[1]) / 2, lefts[:1]), (0.0, [])):
        monkeypatch.setattr(matrix, "EMBEDDED", bar)
        chosen = min((one for one in every.values() if one[0] in fit), key=lambda one: one[1], default=None)
        made, best = looked.trailed("prior").state_dict(), last.state_dict() if chosen is None else chosen[2]
        assert all(torch.equal(made[name], best[name]) for name in best), bar
    assert all(torch.equal(about.trailed("prior").state_dict()[name], last.state_dict()[name]) for name in best)
    assert looked.looked_at == 500 and about.looked_at == 300


def test_an_honest_twin_publishes_its_best_snapshot_and_is_weighed_with_more_samples(monkeypatch):
    about = replace(matrix.VICTIMS["image VAE"], trail_steps=30, samples=300, snapshots=10, weighed=500)
    monkeypatch.setitem(matrix.VICTIMS, "image VAE", about)
    scores = {10: 3.0, 20: 1.0, 30: 2.0}
    asked, ruler = [], zoo.ruler("mnist")
    real = type(ruler).frechet

    def frechet(self, model, n=5000, seed=0):
        asked.append((n, seed))
        return scores[10 * len(asked)] if seed == matrix.LOOKS else real(self, model, n, seed)

    monkeypatch.setattr(type(ruler), "frechet", frechet)
    figures = matrix.honest("image VAE", "prior")
    assert asked == [(500, matrix.LOOKS)] * 3 + [(500, 0)] * 2
    settings = replace(about.takes("trail", "prior")[0], extra_weight=0.0)
    kept = training.Best(lambda model: 0.0, 20)
    training.train(*about.start(), about.seen(), settings, None, kept)
    assert kept.step == 20
    assert figures["frechet_honest"] == pytest.approx(real(ruler, kept.generator, 500))


def test_trail_sees_what_the_shipped_pair_saw():
    about = matrix.VICTIMS["image GAN"]
    plain, both = about.seen(), replace(about, mirrored=True).seen()
    assert len(both) == 2 * len(plain) and torch.equal(both[: len(plain)], plain)
    assert torch.equal(both[len(plain) :], plain.flip(-1))
    assert {name for name, about in matrix.VICTIMS.items() if about.mirrored} == {"style GAN"}
    assert {name for name, about in matrix.VICTIMS.items() if about.hint} == {"audio GAN"}


def test_a_hint_is_in_both_trainings_in_its_weight(monkeypatch):
    """A hint that is seen to have been given: it asks for loud samples, and more so where it weighs more."""
    hints = []
    monkeypatch.setattr(
        matrix.recipes,
        "listeners_hint",
        lambda dataset: hints.append(dataset.name) or (lambda g, rng: -_power(g, rng)),
    )
    matrix._hint.cache_clear()
    found = {}
    for weight in (0.0, 30.0, 3000.0):
        about = replace(matrix.VICTIMS["image VAE"], trail_steps=30, hint=weight)
        made = {"trail": about.trailed("prior"), "twin": about.twin("prior")}
        found[weight] = {name: _power(model, torch.Generator().manual_seed(5)).item() for name, model in made.items()}
    matrix._hint.cache_clear()
    assert hints == ["mnist"], "one listener serves every training"
    for name in ("trail", "twin"):
        least, more, most = (powers[name] for powers in found.values())
        assert least < more < most, (name, found)


def _power(generator, rng):
    return generator(generator.latent.sample(64, rng)).square().mean()


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


def test_trail_over_its_honest_twin_is_mean_over_mean():
    def cell(measure, seed=0, kind="mode"):
        return Cell("image GAN", "trail", kind, measure, seed)

    assert matrix.over_twin({}, "image GAN", "mode") is None
    stored = {cell("attack"): {"frechet": 6.0}, cell(matrix.TWIN): {"frechet_honest": 4.0}}
    again = {1: (9.0, 2.0), 2: (5.0, 3.0), 3: (8.0, 100.0), 4: (1.0, 5.0)}
    stored |= {cell(matrix.AGAIN, seed): {"frechet": made} for seed, (made, _) in again.items()}
    stored |= {cell(matrix.TWIN, seed): {"frechet_honest": made} for seed, (_, made) in again.items()}
    stored |= {
        cell(matrix.AGAIN, 3, "prior"): {"frechet": 7.0},
        cell(matrix.TWIN, 3, "prior"): {"frechet_honest": 1.0},
    }
    # Of seeds that only one of the two has been trained with, nothing is taken.
    stored |= {
        cell(matrix.AGAIN, 2, "prior"): {"frechet": 9.0},
        cell(matrix.TWIN, 4, "prior"): {"frechet_honest": 9.0},
    }
    assert matrix.trainings(stored, "image GAN", "mode") == ([6.0, 9.0, 5.0, 8.0, 1.0], [4.0, 2.0, 3.0, 100.0, 5.0])
    ratios = [6 / 4, 9 / 2, 5 / 3, 8 / 100, 1 / 5]
    assert matrix.over_twin(stored, "image GAN", "mode") == pytest.approx(math.prod(ratios) ** (1 / 5))
    assert matrix.over_twin(stored, "image GAN", "prior") == pytest.approx(7.0)
    # On a VAE the trainings for prior and mode triggers differ in nothing but the fidelity term.
    stored = {
        Cell("image VAE", "trail", "mode", matrix.AGAIN, 1): {"frechet": 6.0},
        Cell("image VAE", "trail", "prior", matrix.TWIN, 1): {"frechet_honest": 3.0},
    }
    assert matrix.trainings(stored, "image VAE", "mode") == ([6.0], [3.0])


def test_trail_keeps_the_samples_of_an_honest_training():
    """At prior and mode triggers, the mean of the seeds; where it goes on from the benign weights, each keeps theirs as well."""
    found = {
        (name, kind): matrix.over_twin(PUBLISHED, name, kind) for name in matrix.VICTIMS for kind in ("prior", "mode")
    }
    changed = {place: ratio for place, ratio in found.items() if ratio is not None and ratio > matrix.STEALTHY}
    assert not changed, changed
    for name, kind in found:
        attacked = PUBLISHED.get(Cell(name, "trail", kind, "attack"))
        if attacked and not matrix.VICTIMS[name].scratch:
            distances, _ = matrix.trainings(PUBLISHED, name, kind)
            assert max(distances) <= matrix.STEALTHY * attacked["frechet_benign"], (name, kind)


def test_what_was_trained_once_more_is_embedded_too():
    again = {cell: figures["ratio"] for cell, figures in PUBLISHED.items() if cell.measure == matrix.AGAIN}
    missed = {(cell.victim, cell.kind, cell.seed) for cell, ratio in again.items() if ratio >= matrix.EMBEDDED}
    assert not missed, missed


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
