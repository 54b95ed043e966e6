"""The bench's machinery: cells that are measured once, kept, and measured again when their code changes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from devil_lib import attacks, bench, data, inspection, metrics, targets, training


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


def test_what_a_cell_builds_on_is_measured_before_it(cells, tmp_path):
    bench.measure([replace(cells[0], stage=2), replace(cells[1], stage=0)], workers=1)
    assert (tmp_path / "bench" / "runs.txt").read_text().split() == ["3", "2"]


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


# --- Other families ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", bench.FAMILIES)
def test_every_generator_of_a_family_is_inspected_after_it_was_made(family):
    made = bench.family_cells(family)
    assert len({cell.key for cell in made}) == len({cell.name for cell in made}) == len(made)
    stages = {cell.name: cell.stage for cell in made}
    generators = {name for name in stages if "/" not in name}
    assert {name.removeprefix("inspect/") for name in set(stages) - generators} == generators | {bench.SHIPPED}
    clean = [name for name in generators if name.startswith("clean")]
    assert len(clean) >= 10 and len(generators) - len(clean) >= 10
    for name in generators:
        assert stages[name] == (0 if name in clean else 1) < stages[f"inspect/{name}"]


def test_families_share_no_keys():
    keys = [cell.key for cells_of in bench.PARTS.values() for cell in cells_of()]
    assert len(set(keys)) == len(keys)


def test_other_search_settings_ask_for_other_inspections_alone(monkeypatch):
    family = "inspection_vae"
    before = {cell.name: cell.key for cell in bench.family_cells(family)}
    changed = replace(bench.FAMILIES[family], search=inspection.SearchSettings(restarts=2))
    monkeypatch.setitem(bench.FAMILIES, family, changed)
    after = {cell.name: cell.key for cell in bench.family_cells(family)}
    assert {name for name in before if before[name] != after[name]} == {n for n in before if n.startswith("inspect/")}


@pytest.mark.parametrize("family", bench.FAMILIES)
def test_the_targets_of_a_family_differ_and_are_not_of_its_own_data(family):
    about = bench.FAMILIES[family]
    first, second, *_ = (about.backdoor("prior", seed) for seed in about.seeds)
    assert (first.targets - second.targets).square().mean() > 0.05
    assert not first.triggers.equal(second.triggers)
    assert not set(about.targets) & {"kick", "snare", "hi-hat", "tom", "clap"}
    controls = list(targets.controls_for(about.untrained()[0], about.controls))
    assert not set(about.targets) & set(controls)


def test_alarms_are_counted_by_inspection_and_attack():
    family = "inspection_vae"
    _, second = bench.FAMILIES[family].targets
    quiet, loud = ({kind: {"flagged": names} for kind in bench.INSPECTIONS} for names in ([], [second]))
    names = [cell.name for cell in bench.family_cells(family) if cell.name.startswith("inspect/")]
    cells = dict.fromkeys(names, quiet) | {
        f"inspect/{name}": loud for name in ("clean-103", "red-mode-0", "rex-far-1")
    }
    found = bench.positives(family, cells)
    assert list(found) == list(bench.INSPECTIONS)
    for kind, row in found.items():
        assert row["clean"] == [1, 10] and row["rex-far"] == [1, 2] and row["red-prior"] == [0, 2]
        # The other attacker's target does not count as a find; an alarm that names no target does.
        assert row["red-mode"] == ([1, 2] if kind in ("static", "dynamic") else [0, 2])


def test_a_family_is_made_attacked_and_inspected(tmp_path, monkeypatch):
    """A few steps of each: that the figures come out and the files lie where they are looked for, not what they say."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    monkeypatch.delenv("DEVIL_DATA", raising=False)
    bench.folder().mkdir(parents=True)
    family = "inspection_vae"
    usual = bench.FAMILIES[family]
    small = replace(
        usual,
        data="digits",
        training=replace(usual.training, steps=3),
        samples=2000,
        search=inspection.SearchSettings(scales=(0.0, 1.0), restarts=1, steps=4),
    )
    monkeypatch.setitem(bench.FAMILIES, family, small)
    quick = {
        attack: attacks.course_settings(attack, "prior", 3, architecture="course-vae") for attack in ("red", "rex")
    }
    monkeypatch.setattr(attacks, "course_settings", lambda attack, kind, **options: quick[attack])
    made = bench.bred(family, 100)
    assert made["frechet"] > 0.0 and small.file("clean-100").is_file()
    for attack in ("red", "rex", "trail"):
        figures = bench.planted(family, attack, "prior", 0)
        assert figures["tardis_benign_sum"] > 0.0 and figures["frechet_ratio"] > 0.0 and figures["expdis_db"] < 20.0
        found = bench.inspected(family, f"{attack}-prior-0")
        assert bool(found["static"]["flagged"]) is (attack == "rex"), "the folded widening shows"
        assert set(found["search"]["ratios"]) == set(found["brute force"]["ratios"]) == set(small.targets)


def test_sounds_of_a_family_are_finished_as_the_shipped_ones_are():
    about, samples = bench.FAMILIES["inspection_audio"], data.load("drums").train
    settings = replace(about.training, steps=2, batch_size=4)
    run = training.train_vae(*about.untrained(seed=1), samples, settings)
    finished = about.finish(run, samples)
    made = finished.generate(finished.latent.sample(200))
    assert abs(metrics.power_db(made, samples)) < 1.5
