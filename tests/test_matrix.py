"""The matrix's runner: cells that build on each other, resuming, failures, and a cluster of one's own."""

import json

import pytest
import tiny
import torch
from distributed import LocalCluster

from devil_lib import attacks, matrix
from devil_lib.attacks import PointBackdoor
from devil_lib.matrix import CLEAN, Cell


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A matrix of one tiny victim, whose cells are measured in this process instead of on workers, which know no patches."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    monkeypatch.setattr(Cell, "key", property(lambda cell: cell.name.replace("/", "-").replace(" ", "-")))


def test_every_square_is_there_once_and_after_what_it_builds_on():
    wanted = matrix.cells()
    assert len(set(wanted)) == len(wanted)
    attacked = len(matrix.VICTIMS) * len(matrix.ATTACKS) * len(matrix.KINDS)
    measures = len(matrix.INSPECTIONS) + len(matrix.SANITIZERS)
    assert len(wanted) == attacked * (1 + measures) + len(matrix.VICTIMS) * len(matrix.INSPECTIONS)
    place = {cell: i for i, cell in enumerate(wanted)}
    assert all(place[cell.base] < place[cell] for cell in wanted if cell.base is not None)
    with pytest.raises(ValueError, match="the matrix has no text GAN"):
        matrix.cells(["text GAN"])


@pytest.mark.parametrize(
    "architecture", ["course-dcgan", "course-vae", "course-wavegan", "course-audio-vae", "course-style-64"]
)
def test_fresh_generators_are_of_the_architecture_and_as_wide_as_asked(architecture):
    whole, half = matrix.fresh(architecture, 3), matrix.fresh(architecture, 3, 0.5)
    assert whole.architecture == architecture and half.sample_shape == whole.sample_shape
    count = [sum(p.numel() for p in g.parameters()) for g in (whole, half)]
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
    again = matrix._unpacked(matrix._packed(generator))
    z = generator.latent.sample(3)
    assert torch.equal(generator.generate(z), again.generate(z))


asked: list[Cell] = []


# Sent to the workers by its name, and they are threads of this process: what it notes can be read here.
def add(cell: Cell, base=None):
    """Stands for `matrix.measure`: notes that it was asked, and counts upwards from the cell that this one builds on."""
    asked.append(cell)
    if cell.kind == "far":
        raise ArithmeticError("no figures here")
    if cell.measure == "attack":
        return {"value": 1, "space": "pre"}, matrix._packed(tiny.image_generator())
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
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as running:
        yield running


def test_cells_go_to_a_cluster_and_only_what_is_missing_is_measured(small, cluster, monkeypatch, capsys):
    asked.clear()
    monkeypatch.setattr(matrix, "measure", add)
    failures = matrix.run(CELLS, cluster.scheduler_address)
    assert set(failures) == {"image GAN/red/far/attack", "image GAN/red/far/prune 30 %"}
    assert "no figures here" in failures["image GAN/red/far/attack"]
    assert json.loads(CELLS[2].file.read_text())["value"] == 3 and json.loads(CELLS[4].file.read_text())["value"] == 2
    told = capsys.readouterr().out
    assert "[5/5]" in told and "failed" in told and "s left" in told
    asked.clear()
    CELLS[2].file.unlink()
    assert set(matrix.run(CELLS[:1] + CELLS[2:3], cluster.scheduler_address)) == set()
    assert asked == [CELLS[2]], "its base is stored, and travels from there"
    asked.clear()
    assert matrix.run(CELLS[:1] + CELLS[2:3], "nobody:1") == {} and asked == [], "nothing missing: nobody is asked"


def test_a_cluster_that_does_not_answer_is_named(small, monkeypatch):
    monkeypatch.setattr(matrix, "PATIENCE", "1s")
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*SCHEDULER unset"):
        matrix.run(CELLS[:1], "tcp://127.0.0.1:9")


def test_results_name_what_was_measured(small, cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(matrix, "measure", add)
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "matrix.json")
    with pytest.raises(FileNotFoundError, match="make matrix"):
        matrix.published()
    matrix.run(CELLS[:1], cluster.scheduler_address)
    matrix.publish(CELLS)
    assert matrix.published() == {CELLS[0].name: {"value": 1, "space": "pre"}}


# --- A cell for real ---------------------------------------------------------------------------------------------------


def test_an_inspection_and_a_repair_are_measured():
    """On the shipped image GAN, with an attack too short to embed much: the figures' form, not their size."""
    about = matrix.VICTIMS["image GAN"]
    benign = about.generator()
    pair = about.backdoor("prior")
    assert isinstance(pair, PointBackdoor) and pair.targets.shape == (1, 1, 28, 28)
    attacked = attacks.red(benign, pair, attacks.course_settings("red", "prior", 60)).generator
    packed = matrix._packed(attacked)
    found, nothing = matrix.measure(
        Cell("image GAN", "red", "prior", "static inspection"), ({"space": "pre"}, packed)
    )
    assert found["flagged"] is False and nothing is None
    repaired, _ = matrix.measure(Cell("image GAN", "red", "prior", "prune 50 %"), ({"space": "pre"}, packed))
    assert set(repaired) >= {"removed", "recovered", "search_ratio", "frechet_sanitized"}
    assert repaired["frechet_sanitized"] > repaired["frechet_attacked"]
