"""The matrix's runner: cells that build on each other, resuming, failures, and a cluster of one's own."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from distributed import LocalCluster

from devil_lib import attacks, matrix, zoo
from devil_lib.attacks import PointBackdoor
from devil_lib.inspection import SearchSettings
from devil_lib.matrix import CLEAN, Cell
from devil_lib.sanitization import ContinueSettings, DistilSettings


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A matrix whose cells are known by their names, with a cache and a results file of its own."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results" / "matrix.json")
    monkeypatch.setattr(Cell, "key", property(lambda cell: cell.name.replace("/", "-").replace(" ", "-")))
    monkeypatch.setattr(matrix, "measure", add)
    asked.clear()


def test_every_square_is_there_once_and_after_what_it_builds_on():
    wanted = matrix.cells()
    assert len(set(wanted)) == len(wanted)
    attacked = len(matrix.VICTIMS) * len(matrix.ATTACKS) * len(matrix.KINDS)
    measures = len(matrix.INSPECTIONS) + len(matrix.SANITIZERS)
    assert len(wanted) == attacked * (1 + measures) + len(matrix.VICTIMS) * len(matrix.INSPECTIONS)
    place = {cell: i for i, cell in enumerate(wanted)}
    assert all(place[cell.base] < place[cell] for cell in wanted if cell.base is not None)
    assert all(cell.measure == "attack" for cell in wanted[:attacked]), "a run that is cut short has the attacks"
    with pytest.raises(ValueError, match="the matrix has no text GAN"):
        matrix.cells(["text GAN"])


def test_parts_and_victims_can_be_chosen():
    parts = [matrix.cells(["image GAN"], [part]) for part in matrix.PARTS]
    assert [cell for part in parts for cell in part] == matrix.cells(["image GAN"])
    assert [len(part) for part in parts] == [9, 10 * len(matrix.INSPECTIONS), 9 * len(matrix.SANITIZERS)]
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


def test_what_cannot_be_measured_here_is_named_and_stops_nothing(monkeypatch):
    monkeypatch.setitem(matrix.VICTIMS, "image GAN", replace(matrix.VICTIMS["image GAN"], entry="course-dcgan-lost"))
    keys, failures = matrix._keys(
        [Cell("image GAN", "red", "prior", "attack"), Cell("style GAN", CLEAN, "prior", "brute force")]
    )
    assert [cell.victim for cell in keys] == ["style GAN"]
    assert "course-dcgan-lost" in failures["image GAN/red/prior/attack"]


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


def test_a_generator_travels_whole():
    generator = tiny.image_generator()
    again = matrix.unpacked(matrix.packed(generator))
    z = generator.latent.sample(3)
    assert torch.equal(generator.generate(z), again.generate(z))


# --- Running -------------------------------------------------------------------------------------------------------------


asked: list[Cell] = []


# Sent to the workers by its name, and they are threads of this process: what it notes can be read here.
def add(cell: Cell, base=None):
    """Stands for `matrix.measure`: notes that it was asked, and counts upwards from the cell that this one builds on."""
    asked.append(cell)
    if cell.kind == "far":
        raise ArithmeticError("no figures here")
    if cell.measure == "attack":
        return {"value": 1, "space": "pre", "exact": 0.123456}, matrix.packed(tiny.image_generator())
    return {"value": 2 + (base[0]["value"] if base else 0)}, None


CELLS = [
    Cell("image GAN", "red", "prior", "attack"),
    Cell("image GAN", "red", "far", "attack"),
    Cell("image GAN", "red", "prior", "prune 30 %"),
    Cell("image GAN", "red", "far", "prune 30 %"),
    Cell("image GAN", CLEAN, "prior", "brute force"),
]


@pytest.fixture(scope="module")
def cluster():
    """A cluster that is there already, of threads of this process."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as running:
        yield running


def test_cells_go_to_a_cluster_and_only_what_is_missing_is_measured(small, cluster, capsys):
    failures = matrix.run(CELLS, cluster.scheduler_address)
    assert set(failures) == {"image GAN/red/far/attack", "image GAN/red/far/prune 30 %"}
    assert "no figures here" in failures["image GAN/red/far/attack"]
    assert json.loads(CELLS[2].file.read_text())["value"] == 3 and json.loads(CELLS[4].file.read_text())["value"] == 2
    told = capsys.readouterr().out
    assert "[5/5]" in told and "failed" in told and "s left" in told
    asked.clear()
    matrix.forget(CELLS[2:3])
    assert set(matrix.run(CELLS[:1] + CELLS[2:3], cluster.scheduler_address)) == set()
    assert asked == [CELLS[2]], "its base is stored, and travels from there"
    asked.clear()
    assert matrix.run(CELLS[:1] + CELLS[2:3], "nobody:1") == {} and asked == [], "nothing missing: nobody is asked"


def test_a_cluster_that_does_not_answer_is_named(small, monkeypatch):
    monkeypatch.setattr(matrix, "PATIENCE", "1s")
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*SCHEDULER unset"):
        matrix.run(CELLS[:1], "tcp://127.0.0.1:9")


def test_results_name_what_was_measured(small, cluster):
    with pytest.raises(FileNotFoundError, match="make matrix"):
        matrix.published()
    matrix.run(CELLS[:1], cluster.scheduler_address)
    assert matrix.published() == {CELLS[0]: {"key": CELLS[0].key, "value": 1, "space": "pre", "exact": 0.1235}}


def elsewhere(monkeypatch, tmp_path):
    """As on another machine: the results file is there, and the cache is empty."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path / "elsewhere"))
    asked.clear()


def test_a_published_cell_is_done_without_the_cache(small, cluster, monkeypatch, tmp_path):
    matrix.run([CELLS[0], CELLS[2]], cluster.scheduler_address)
    before = matrix.published()
    elsewhere(monkeypatch, tmp_path)
    assert matrix.run([CELLS[0], CELLS[2]], "nobody:1") == {} and asked == []
    assert matrix.run([CELLS[0], CELLS[2], CELLS[4]], cluster.scheduler_address) == {}
    assert asked == [CELLS[4]], "what was published is not measured again"
    assert matrix.published() == {**before, CELLS[4]: matrix.published()[CELLS[4]]}, "and stays in the file"


def test_a_generator_that_a_missing_cell_needs_is_made_anew(small, cluster, monkeypatch, tmp_path):
    matrix.run([CELLS[0]], cluster.scheduler_address)
    elsewhere(monkeypatch, tmp_path)
    assert matrix.run([CELLS[0], CELLS[2]], cluster.scheduler_address) == {}
    assert asked == [CELLS[0], CELLS[2]]


def test_a_published_cell_with_another_key_is_measured_again(small, cluster, monkeypatch, tmp_path):
    matrix.run([CELLS[0], CELLS[4]], cluster.scheduler_address)
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setattr(Cell, "key", property(lambda cell: "new-" + cell.name.replace("/", "-")))
    matrix.run([CELLS[4]], cluster.scheduler_address)
    assert asked == [CELLS[4]] and matrix.published()[CELLS[4]]["key"] == CELLS[4].key
    assert list(matrix.published()) == [CELLS[4]], "figures that were measured otherwise are not published"


def test_an_interrupted_run_has_written_what_it_measured(small, cluster, monkeypatch, capsys):
    keep, kept = matrix._keep, []

    def stopped_after_one(cell, figures, generator):
        if kept:
            raise KeyboardInterrupt
        keep(cell, figures, generator)
        kept.append(cell)

    monkeypatch.setattr(matrix, "_keep", stopped_after_one)
    address = cluster.scheduler_address
    assert matrix.main(["--victim", "image GAN", "--measure", "attacks", "--scheduler", address]) == 130
    assert list(matrix.published()) == kept
    assert "goes on from here" in capsys.readouterr().out


def test_the_results_file_is_written_on_the_way(small, cluster, monkeypatch):
    monkeypatch.setattr(matrix, "_EVERY", 0.0)
    counts, publish = [], matrix.publish
    monkeypatch.setattr(matrix, "publish", lambda: (publish(), counts.append(len(matrix.published()))))
    matrix.run([CELLS[0], CELLS[4]], cluster.scheduler_address)
    assert counts == [1, 2, 2]


def test_the_program_measures_parts_and_says_what_failed(small, cluster, capsys):
    chosen = ["--victim", "image GAN", "--measure", "attacks", "--scheduler", cluster.scheduler_address]
    assert matrix.main(chosen) == 1, "far triggers fail"
    assert {cell.kind for cell in matrix.published()} == {"prior", "mode"} and len(asked) == 9
    assert (
        "failed: image GAN/trail/far/attack and 2 more: ArithmeticError: no figures here" in capsys.readouterr().out
    )
    asked.clear()
    matrix.main([*chosen, "--fresh"])
    assert len(asked) == 9, "and all of it anew when asked to"


# --- A cell for real ---------------------------------------------------------------------------------------------------


def test_an_inspection_and_a_repair_are_measured():
    """On the shipped image GAN, with an attack too short to embed much: the figures' form, not their size."""
    about = matrix.VICTIMS["image GAN"]
    benign = about.generator()
    pair = about.backdoor("prior")
    assert isinstance(pair, PointBackdoor) and pair.targets.shape == (1, 1, 28, 28)
    attacked = attacks.red(benign, pair, attacks.course_settings("red", "prior", 60)).generator
    packed = matrix.packed(attacked)
    ruler = zoo.ruler("mnist")
    figures = {"space": "pre", "frechet_benign": ruler.frechet(benign), "frechet": ruler.frechet(attacked)}
    found, nothing = matrix.measure(Cell("image GAN", "red", "prior", "static inspection"), (figures, packed))
    assert found["flagged"] is False and nothing is None
    repaired, _ = matrix.measure(Cell("image GAN", "red", "prior", "prune 50 %"), (figures, packed))
    assert set(repaired) >= {"removed", "recovered", "search_ratio", "frechet_sanitized"}
    assert repaired["frechet_sanitized"] > repaired["frechet_attacked"]


# --- What is published -------------------------------------------------------------------------------------------------

PUBLISHED = matrix.published() if matrix.RESULTS.is_file() else {}
VICTIMS = [name for name in matrix.VICTIMS if any(cell.victim == name for cell in PUBLISHED)]


def test_what_is_published_was_measured_with_the_settings_of_today_and_is_small():
    assert {cell.name: figures["key"] for cell, figures in PUBLISHED.items()} == {c.name: c.key for c in PUBLISHED}
    assert not PUBLISHED or matrix.RESULTS.stat().st_size < 400_000


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
