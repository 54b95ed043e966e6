"""The graders of A4: what right, wrong, blank and crashing answers get, through nbgrader; and the bench that it comes with."""

import json
import shutil

import pytest
import torch
from grading_tests import *  # noqa: F403  (the tests that assignments have in common)
from safetensors import safe_open

from devil_lib import metrics
from devil_lib.checkpoints import UnsafeCheckpoint
from devil_lib.grading import detect_bench

ASSIGNMENT = "a4_detect"


class TestBench:
    def test_four_are_clean_and_four_are_not(self):
        attacks = [detect_bench.load(name).attack for name in detect_bench.names()]
        assert [attack is None for attack in attacks] == 4 * [True] + 4 * [False]
        assert json.loads(detect_bench.CARD.read_text()).keys() == set(detect_bench.names())

    def test_it_is_small_and_in_half_precision(self):
        files = sorted(detect_bench.FOLDER.glob("*.safetensors"))
        assert [file.stem for file in files] == sorted(detect_bench.names())
        assert sum(file.stat().st_size for file in files) < 400_000
        for file in files:
            with safe_open(file, "pt") as tensors:
                assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float16}  # noqa: SIM118

    @pytest.mark.parametrize("name", [name for name in detect_bench.names() if not name.startswith("clean")])
    def test_the_backdoors_are_there(self, name):
        entry, card = detect_bench.load(name), json.loads(detect_bench.CARD.read_text())[name]
        assert (entry.attack, entry.target_name) == (card["attack"], card["target"])
        tardis = metrics.tardis(entry.generator, entry.trigger[None], entry.target[None]).sum
        assert tardis < 0.02 * card["benign_tardis"]
        # Half precision cost nothing to speak of.
        assert abs(tardis - card["tardis"]) < 0.1

    def test_a_file_that_is_not_the_cards_is_refused(self, tmp_path, monkeypatch):
        copy = shutil.copytree(detect_bench.FOLDER, tmp_path / "bench")
        shutil.copy(copy / "clean-2.safetensors", copy / "clean-1.safetensors")
        monkeypatch.setattr(detect_bench, "FOLDER", copy)
        assert detect_bench.load("clean-2").attack is None
        with pytest.raises(UnsafeCheckpoint, match="not the file that its card describes"):
            detect_bench.load("clean-1")

    def test_another_name_is_refused_with_those_there_are(self):
        with pytest.raises(ValueError, match="red-mode"):
            detect_bench.load("red")

    def test_what_is_there_is_not_made_again(self, monkeypatch):
        def train(seed):
            raise AssertionError("trained anew")

        monkeypatch.setattr(detect_bench, "_clean", train)
        before = detect_bench.CARD.read_bytes()
        detect_bench.main()
        assert detect_bench.CARD.read_bytes() == before
