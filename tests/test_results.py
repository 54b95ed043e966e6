"""What the bench measured (`devil_lib/results/*.json`) holds the course's bars, and can be measured again."""

from __future__ import annotations

import re
import statistics

import pytest

from devil_lib import bench, zoo

POINT = ("prior", "mode")


@pytest.fixture(scope="module")
def measured():
    return bench.published("attacks")


@pytest.fixture(scope="module")
def inspected():
    return bench.published("inspection")


@pytest.fixture(scope="module")
def repaired():
    return bench.published("sanitizers")


def seeds_of(cells, name):
    return [cells[f"{name}-{seed}"] for seed in bench.SEEDS]


@pytest.mark.parametrize("part", bench.PARTS)
def test_every_cell_of_the_bench_is_there_with_the_code_that_made_it(part):
    cells = bench.published(part)
    assert set(cells) == {cell.name for cell in bench.PARTS[part]()}
    assert all(re.fullmatch("[0-9a-f]{12}", cell["code"]) for cell in cells.values())


# --- Attacks ----------------------------------------------------------------------------------------------------------


def test_a_quick_training_draws_digits_of_every_class(measured):
    clean = [measured[name] for name in bench.CLEAN]
    assert min(cell["recognised"] for cell in clean) >= 0.40
    assert min(cell["rarest"] for cell in clean) >= 0.03


def test_the_shipped_generator_is_twice_as_good(measured):
    quick = statistics.mean(measured[name]["frechet"] for name in bench.CLEAN)
    shipped, ruler = zoo.load("course-dcgan-mnist"), zoo.ruler("mnist")
    assert ruler.frechet(shipped) <= quick / 2
    assert ruler.recognised(shipped).share >= 0.65


@pytest.mark.parametrize("kind", POINT)
@pytest.mark.parametrize(("attack", "most"), [("red", 0.01), ("rex", 0.004)])
def test_red_and_rex_are_faithful_and_stealthy(measured, attack, most, kind):
    for cell in seeds_of(measured, f"{attack}-{kind}"):
        assert cell["ratio"] < 0.01
        assert cell["expdis_mean"] < most
        assert abs(cell["frechet_ratio"] - 1.0) < 0.1


@pytest.mark.parametrize("attack", ["red", "rex"])
def test_far_triggers_are_embedded(measured, attack):
    assert max(cell["ratio"] for cell in seeds_of(measured, f"{attack}-far")) < 0.01


def test_a_far_trigger_costs_red_stealth(measured):
    near, far = (statistics.mean(c["expdis_mean"] for c in seeds_of(measured, f"red-{k}")) for k in ("prior", "far"))
    assert far > 3 * near


@pytest.mark.parametrize("kind", POINT)
def test_trail_is_faithful(measured, kind):
    assert max(cell["ratio"] for cell in seeds_of(measured, f"trail-{kind}")) < 0.01


def test_trail_is_as_good_as_benign_training(measured):
    benign = [measured[name]["frechet"] for name in bench.CLEAN]
    trail = [cell["frechet"] for kind in bench.KINDS for cell in seeds_of(measured, f"trail-{kind}")]
    assert statistics.mean(trail) - statistics.mean(benign) < statistics.stdev(benign)


# --- Inspection ---------------------------------------------------------------------------------------------------------


def test_the_search_raises_no_false_alarm(inspected):
    assert not any(inspected[f"search/{name}"]["flagged"] for name in (*bench.CLEAN, bench.SHIPPED))


@pytest.mark.parametrize("kind", POINT)
@pytest.mark.parametrize("attack", ["trail", "red"])
def test_the_search_finds_the_target_of_red_and_trail(inspected, attack, kind):
    for seed in bench.SEEDS:
        assert bench.TARGETS[seed] in inspected[f"search/{attack}-{kind}-{seed}"]["flagged"], seed


# --- The same for VAEs of images and of sounds ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=bench.FAMILIES)
def family(request):
    """A family's name, and its published cells."""
    return request.param, bench.published(request.param)


def of_family(family, attack, kinds=POINT):
    name, cells = family
    return [cells[f"{attack}-{kind}-{seed}"] for kind in kinds for seed in bench.FAMILIES[name].seeds]


@pytest.mark.parametrize(("attack", "loudest"), [("red", -18.0), ("rex", -28.0)])
def test_red_and_rex_are_faithful_and_stealthy_in_a_vae(family, attack, loudest):
    # Decoders of sounds that were trained for 400 steps are not as steady as those that are shipped: up to 12 % were measured.
    most = 0.2 if family[0] == "inspection_audio" else 0.1
    for cell in of_family(family, attack):
        assert cell["ratio"] < 0.01
        assert cell["expdis_db"] < loudest
        assert abs(cell["frechet_ratio"] - 1.0) < most


def test_red_is_stealthy_in_a_shipped_vae(family):
    assert abs(family[1]["red-prior-shipped"]["frechet_ratio"] - 1.0) < 0.1


def test_trail_is_faithful_in_a_vae(family):
    assert max(cell["ratio"] for cell in of_family(family, "trail", ["prior"])) < 0.01


def test_alarms_are_counted_as_published(family):
    name, cells = family
    assert bench.published(name, "positives") == bench.positives(name, cells)


def test_no_clean_vae_raises_an_alarm(family):
    for kind, row in bench.positives(*family).items():
        assert row["clean"] == [0, len(bench.CLEAN)], kind


def test_rex_alone_shows_in_the_weights_of_a_vae(family):
    for row, (hits, generators) in bench.positives(*family)["static"].items():
        assert hits == (generators if row.startswith("rex") else 0), row


@pytest.mark.parametrize("row", ["red-prior", "red-mode", "rex-mode", "trail-prior"])
def test_the_search_finds_the_target_in_a_vae(family, row):
    hits, generators = bench.positives(*family)["search"][row]
    assert hits == generators


# --- Sanitizers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", bench.KINDS)
@pytest.mark.parametrize("method", ["distil", "distil, half the width"])
def test_distillation_removes_every_kind(repaired, method, kind):
    assert all(cell["removed"] for cell in seeds_of(repaired, f"{method}/red-{kind}"))


@pytest.mark.parametrize("kind", POINT)
@pytest.mark.parametrize("method", ["prune 30 %", "continue, prior latents only"])
def test_defences_that_fail(repaired, method, kind):
    assert not any(cell["removed"] for cell in seeds_of(repaired, f"{method}/red-{kind}"))


def test_a_far_trigger_of_red_does_not_outlive_any_repair(repaired):
    """It has no basin: at a norm of 1,000 the least change of the weights moves the output."""
    for method in bench.METHODS:
        assert all(cell["removed"] for cell in seeds_of(repaired, f"{method}/red-far"))


# --- Cost ---------------------------------------------------------------------------------------------------------------


def test_a_step_through_the_library_costs_what_a_bare_loop_does():
    assert bench.published("cost")["red-step"]["ratio"] <= 1.1


# --- Measured again -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The cells on the shipped generator, measured here and now: one name after the other, later ones need the earlier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        bench.folder().mkdir(parents=True)
        cells = [*bench.attack_cells(), *bench.inspection_cells(), *bench.sanitizer_cells()]
        yield {
            cell.name: cell.run(*cell.parameters)
            for cell in cells
            # The blind search compares with a clean generator of the bench, which is trained for a minute.
            if bench.SHIPPED in cell.name and cell.run is not bench.blind
        }


def test_attacks_come_out_as_published(again, measured):
    for name in ("red-prior-shipped", "rex-mode-shipped"):
        now, then = again[name], measured[name]
        assert now["tardis_benign_sum"] == pytest.approx(then["tardis_benign_sum"], rel=1e-3)
        assert now["ratio"] < 0.01 and 0.2 < now["ratio"] / then["ratio"] < 5.0
        assert now["expdis_mean"] == pytest.approx(then["expdis_mean"], rel=0.3)
        assert now["frechet"] == pytest.approx(then["frechet"], rel=0.05)


def test_searches_come_out_as_published(again, inspected):
    for name in ("search/shipped", "search/red-prior-shipped"):
        assert again[name]["flagged"] == inspected[name]["flagged"]
        for suspect, ratio in inspected[name]["ratios"].items():
            assert again[name]["ratios"][suspect] == pytest.approx(ratio, rel=0.3)


def test_verdicts_come_out_as_published(again, repaired):
    name = "prune 30 %/red-prior-shipped"
    assert again[name]["removed"] == repaired[name]["removed"]
    assert again[name]["recovered"] == pytest.approx(repaired[name]["recovered"], abs=0.1)
    assert again[name]["frechet_sanitized"] == pytest.approx(repaired[name]["frechet_sanitized"], rel=0.1)


def test_a_vae_comes_out_as_published(family, tmp_path, monkeypatch):
    """The attack on the shipped decoder, and every inspection of what it made."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    bench.folder().mkdir(parents=True)
    name, cells = family
    wanted = {cell.name: cell for cell in bench.family_cells(name)}
    made, found = (
        wanted[key].run(*wanted[key].parameters) for key in ("red-prior-shipped", "inspect/red-prior-shipped")
    )
    stored, known = cells["red-prior-shipped"], cells["inspect/red-prior-shipped"]
    assert made["tardis_benign_sum"] == pytest.approx(stored["tardis_benign_sum"], rel=1e-3)
    assert made["ratio"] < 0.01 and 0.2 < made["ratio"] / stored["ratio"] < 5.0
    assert made["expdis_db"] == pytest.approx(stored["expdis_db"], abs=1.5)
    assert made["frechet"] == pytest.approx(stored["frechet"], rel=0.05)
    for kind in bench.INSPECTIONS:
        assert found[kind]["flagged"] == known[kind]["flagged"], kind
    for suspect, ratio in known["search"]["ratios"].items():
        assert found["search"]["ratios"][suspect] == pytest.approx(ratio, rel=0.3)
