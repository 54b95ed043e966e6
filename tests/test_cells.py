"""Tables that are measured cell by cell: cells that build on each other, resuming, failures, and a cluster of one's own."""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from devil_lib import cells
from devil_lib.cells import Table

asked: list["Cell"] = []


@dataclass(frozen=True)
class Cell:
    """A number that counts on from the one that it builds on."""

    of: str
    what: str = "start"
    form: str = "old"

    @property
    def name(self) -> str:
        return f"{self.of}/{self.what}"

    @property
    def key(self) -> str:
        if self.of == "lost":
            raise ValueError("the weights of lost are not shipped")
        return f"{self.form}-{self.of}-{self.what}"

    @property
    def base(self) -> "Cell | None":
        if self.what == "last":
            return replace(self, what="start after start")
        if self.what == "start after start":
            return replace(self, what="start")
        return None if self.what in ("start", "alone") else replace(self, what="start")


# Sent to the workers by its name, and they are threads of this process: what it notes can be read here.
def add(cell: Cell, base=None):
    asked.append(cell)
    if cell.of == "bad":
        raise ArithmeticError("no figures here")
    if cell.what == "start after start":
        return {"value": 1 + base[0]["value"]}, b"two"
    if cell.what == "start":
        return {"value": 1, "space": "pre", "exact": 0.123456}, b"one"
    return {"value": 2 + (base[0]["value"] if base else 0), "had": base[1].decode() if base else ""}, None


CELLS = [Cell("good"), Cell("bad"), Cell("good", "next"), Cell("bad", "next"), Cell("good", "alone")]
TABLE = Table("numbers", lambda: CELLS, add, lambda cell: 1.0, "make numbers")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A cache and a results folder of its own."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path))
    monkeypatch.setattr(cells, "RESULTS", tmp_path / "results")
    asked.clear()


@pytest.fixture(scope="module")
def cluster():
    """A cluster that is there already, of threads of this process."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as running:
        yield running.scheduler_address


def test_cells_go_to_a_cluster_and_only_what_is_missing_is_measured(cluster, capsys):
    failures = TABLE.run(CELLS, cluster)
    assert set(failures) == {"bad/start", "bad/next"}
    assert "no figures here" in failures["bad/start"]
    assert json.loads(TABLE.file(CELLS[2]).read_text()) == {"value": 3, "had": "one"}
    assert json.loads(TABLE.file(CELLS[4]).read_text())["value"] == 2
    told = capsys.readouterr().out
    assert "[5/5]" in told and "failed" in told and "s left" in told
    asked.clear()
    TABLE.forget(CELLS[2:3])
    assert set(TABLE.run(CELLS[:1] + CELLS[2:3], cluster)) == set()
    assert asked == [CELLS[2]], "its base is stored, and travels from there"
    asked.clear()
    assert TABLE.run(CELLS[:1] + CELLS[2:3], "nobody:1") == {} and asked == [], "nothing missing: nobody is asked"


def test_workers_of_this_machine_measure_too():
    assert TABLE.run([CELLS[0], CELLS[2]], workers=1) == {}
    assert {cell.name: figures["value"] for cell, figures in TABLE.published().items()} == {
        "good/start": 1,
        "good/next": 3,
    }
    assert asked == [], "in processes of their own"


def test_what_cannot_be_measured_here_is_named_and_stops_nothing(cluster):
    failures = TABLE.run([Cell("lost"), CELLS[0]], cluster)
    assert failures == {"lost/start": "the weights of lost are not shipped"} and asked == [CELLS[0]]


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(cells, "PATIENCE", "1s")
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*SCHEDULER unset"):
        TABLE.run(CELLS[:1], "tcp://127.0.0.1:9")


def test_results_name_what_was_measured(cluster):
    with pytest.raises(FileNotFoundError, match="make numbers"):
        TABLE.published()
    TABLE.run(CELLS[:1], cluster)
    assert TABLE.published() == {CELLS[0]: {"key": CELLS[0].key, "value": 1, "space": "pre", "exact": 0.1235}}


def elsewhere(monkeypatch, tmp_path: Path) -> None:
    """As on another machine: the results file is there, and the cache is empty."""
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path / "elsewhere"))
    asked.clear()


def test_a_published_cell_is_done_without_the_cache(cluster, monkeypatch, tmp_path):
    TABLE.run([CELLS[0], CELLS[2]], cluster)
    before = TABLE.published()
    elsewhere(monkeypatch, tmp_path)
    assert TABLE.run([CELLS[0], CELLS[2]], "nobody:1") == {} and asked == []
    assert TABLE.run([CELLS[0], CELLS[2], CELLS[4]], cluster) == {}
    assert asked == [CELLS[4]], "what was published is not measured again"
    assert TABLE.published() == {**before, CELLS[4]: TABLE.published()[CELLS[4]]}, "and stays in the file"


def test_a_product_that_a_missing_cell_needs_is_made_anew(cluster, monkeypatch, tmp_path):
    TABLE.run([CELLS[0]], cluster)
    elsewhere(monkeypatch, tmp_path)
    assert TABLE.run([CELLS[0], CELLS[2]], cluster) == {}
    assert asked == [CELLS[0], CELLS[2]]


def test_what_a_lost_product_was_made_from_is_made_anew_as_well(cluster, monkeypatch, tmp_path):
    chain = [Cell("deep"), Cell("deep", "start after start"), Cell("deep", "last")]
    table = replace(TABLE, cells=lambda: chain)
    assert table.run(chain[:2], cluster) == {}
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path / "new machine"))
    asked.clear()
    assert table.run(chain, cluster) == {}
    assert asked == chain
    assert json.loads(table.file(chain[2]).read_text()) == {"value": 4, "had": "two"}


def test_a_published_cell_with_another_key_is_measured_again(cluster, monkeypatch, tmp_path):
    TABLE.run([CELLS[0], CELLS[4]], cluster)
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setattr(Cell, "key", property(lambda cell: "new-" + cell.name.replace("/", "-")))
    TABLE.run([CELLS[4]], cluster)
    assert asked == [CELLS[4]] and TABLE.published()[CELLS[4]]["key"] == "new-good-alone"
    assert list(TABLE.published()) == [CELLS[4]], "figures that were measured otherwise are not published"


def served(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cells.add_options(parser)
    return TABLE.serve(CELLS, parser.parse_args(arguments))


def test_an_interrupted_run_has_written_what_it_measured(cluster, monkeypatch, capsys):
    keep, kept = Table._keep, []

    def stopped_after_one(table, cell, figures, product):
        if kept:
            raise KeyboardInterrupt
        keep(table, cell, figures, product)
        kept.append(cell)

    monkeypatch.setattr(Table, "_keep", stopped_after_one)
    assert served("--scheduler", cluster) == 130
    assert list(TABLE.published()) == kept
    assert "goes on from here" in capsys.readouterr().out


def test_the_results_file_is_written_on_the_way(cluster, monkeypatch):
    monkeypatch.setattr(cells, "EVERY", 0.0)
    counts, publish = [], Table.publish
    monkeypatch.setattr(Table, "publish", lambda table: (publish(table), counts.append(len(table.published()))))
    TABLE.run([CELLS[0], CELLS[4]], cluster)
    assert counts == [1, 2, 2]


def test_the_program_says_what_failed_and_measures_anew_when_asked_to(cluster, capsys):
    assert served("--scheduler", cluster) == 1, "the bad ones fail"
    assert set(TABLE.published()) == {CELLS[0], CELLS[2], CELLS[4]}
    assert "failed: bad/start and 1 more: ArithmeticError: no figures here" in capsys.readouterr().out
    asked.clear()
    served("--scheduler", cluster)
    assert {cell.of for cell in asked} == {"bad"}, "only what is missing"
    asked.clear()
    served("--scheduler", cluster, "--fresh")
    assert {cell for cell in asked if cell.of == "good"} == {CELLS[0], CELLS[2], CELLS[4]}
