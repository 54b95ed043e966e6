"""The bench's machinery: cells that are measured once, kept, and measured again when their code changes."""

from __future__ import annotations

import json

import pytest

from devil_lib import bench


def counted(value: int) -> dict:
    """A cell for the tests: it leaves a trace each time it runs."""
    with (bench.folder() / "runs.txt").open("a") as file:
        file.write(f"{value}\n")
    return {"square": value * value}


@pytest.fixture
def cells(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    return [bench.Cell(f"square/{value}", counted, (value,), ("models",)) for value in (2, 3)]


def runs(tmp_path):
    return sorted((tmp_path / "bench" / "runs.txt").read_text().split())


def test_cells_are_measured_once_and_kept(cells, tmp_path):
    first = bench.measure(cells[:1], workers=1)
    assert first["square/2"]["square"] == 4 and first["square/2"]["code"] == bench.code_hash(["models"])
    both = bench.measure(cells, workers=1)
    assert both["square/2"] == first["square/2"] and both["square/3"]["square"] == 9
    assert runs(tmp_path) == ["2", "3"]


def test_a_cell_that_was_cut_off_is_measured_again(cells, tmp_path):
    bench.measure(cells, workers=1)
    cells[0].file.unlink()
    bench.measure(cells, workers=1)
    assert runs(tmp_path) == ["2", "2", "3"]


def test_the_key_depends_on_parameters_and_names_no_folder(cells):
    assert cells[0].key != cells[1].key and "/" not in cells[0].key


def test_the_code_hash_sees_code_and_not_words(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "bench.py"))
    module = tmp_path / "part.py"
    hashes = []
    for text in ('"""A."""\nx = 1\n', '"""B."""\n# why\nx  =  1\n', '"""A."""\nx = 2\n'):
        module.write_text(text)
        hashes.append(bench.code_hash(["part"]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_backdoored_generator_of_the_bench_is_measured_and_inspected():
    made = {cell.name for cell in bench.attack_cells()}
    assert set(bench.BACKDOORED) | set(bench.CLEAN) <= made
    inspected = {cell.name.split("/")[1] for cell in bench.inspection_cells()}
    assert inspected == {*bench.BACKDOORED, *bench.CLEAN, bench.SHIPPED, "red-prior-shipped"}
    assert len(bench.CLEAN) >= 10 and len(bench.BACKDOORED) >= 10


def test_the_targets_differ_between_the_seeds():
    pictures = [bench.target(seed) for seed in bench.SEEDS]
    assert len(pictures) >= 3
    assert all((a - b).abs().max() > 0.5 for i, a in enumerate(pictures) for b in pictures[:i])


def test_published_figures_can_be_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_RESULTS", tmp_path)
    bench.publish("attacks", {"a": {"ratio": 0.5}})
    content = json.loads((tmp_path / "attacks.json").read_text())
    assert content["cells"] == {"a": {"ratio": 0.5}} and content["versions"]["torch"]
