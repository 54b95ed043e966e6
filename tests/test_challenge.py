"""Personal sets of checkpoints: disguises that change no law, answers that do not pass for another's, files that are safe, rosters."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from devil_lib import checkpoints, models, targets, vae
from devil_lib.grading import audit, challenge, disguise
from devil_lib.grading.__main__ import main
from devil_lib.grading.challenge import ChallengeError, Effort
from devil_lib.grading.roster import RosterError, Student, read_roster

KEY, OTHER_KEY = "a key for the tests of a challenge", "another key for these tests"
TINY = Effort(pool=3, honest=2, trail=2, red=2, rex=2, attempts=1)


@pytest.fixture(scope="module")
def pool():
    return challenge.make_pool(KEY, TINY)


@pytest.fixture
def unembedded(monkeypatch):
    """Sets without the search that a backdoor has to pass: two steps of training embed none."""
    monkeypatch.setattr(challenge, "NEAR", float("inf"))
    found = {name: SimpleNamespace(latent=torch.zeros(challenge.LATENT)) for name in challenge.TARGETS}
    search = SimpleNamespace(flagged=tuple(found), suspects=found)
    monkeypatch.setattr(challenge, "search_outputs", lambda *_, **__: search)


@pytest.fixture
def course(tmp_path, unembedded, pool, monkeypatch):
    """A course folder with the sets of Ana and Béla."""
    monkeypatch.setattr(challenge, "make_pool", lambda *_: pool)
    challenge.make_all(tmp_path / "course", KEY, [Student("ana"), Student("béla", "Béla B.", "b@example.org")], TINY)
    return tmp_path / "course"


def small_generators():
    """One with BatchNorm and convolutions, one with dense layers and convolutions; both not in their beginning state."""
    dcgan = models.course_dcgan(width=4, latent_dim=6, seed=1)
    with torch.no_grad():
        for layer in dcgan.body:
            if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    values.copy_(torch.rand(values.shape, generator=torch.Generator().manual_seed(len(values))) + 0.5)
    return {
        "dcgan": dcgan.eval(),
        "vae": vae.course_vae(6, 4, seed=2)[0].eval(),
        "dense": vae.dense_vae(6, 8, seed=3)[0].eval(),
    }


@pytest.mark.parametrize("name", ["dcgan", "vae", "dense"])
class TestDisguise:
    def test_a_rotation_moves_samples_to_other_latents_only(self, name):
        generator = small_generators()[name]
        rotation = disguise.orthogonal(6, torch.Generator().manual_seed(4))
        turned = disguise.rotate_latent(generator, rotation)
        z = generator.latent.sample(50, torch.Generator().manual_seed(5))
        torch.testing.assert_close(turned.generate(z), generator.generate(z @ rotation.float().T), rtol=0, atol=1e-5)
        assert (turned.generate(z) - generator.generate(z)).abs().max() > 0.01
        # The law: moments of each pixel over other latents. A change of the law, as another scale of the latents makes, is seen.
        a, b, wider = (
            model.generate(factor * generator.latent.sample(8000, torch.Generator().manual_seed(seed)))
            for seed, (model, factor) in enumerate([(generator, 1.0), (turned, 1.0), (generator, 1.5)])
        )

        def alike(x, y) -> bool:
            bound = 0.1 * x.std(0) + 1e-3
            return all(
                ((moment(x) - moment(y)).abs() <= bound).all() for moment in (lambda x: x.mean(0), lambda x: x.std(0))
            )

        assert alike(a, b) and not alike(a, wider)

    def test_a_permutation_changes_the_weights_and_no_sample(self, name):
        generator = small_generators()[name]
        mixed = disguise.permute_hidden(generator, torch.Generator().manual_seed(7))
        z = generator.latent.sample(50, torch.Generator().manual_seed(5))
        torch.testing.assert_close(mixed.generate(z), generator.generate(z), rtol=0, atol=1e-5)
        changed = [
            not torch.equal(a, b)
            for a, b in zip(mixed.parameters(), generator.parameters(), strict=True)
            if a.ndim > 1
        ]
        assert all(changed), "every layer's weights are in another order"

    def test_the_original_is_left_alone(self, name):
        generator = small_generators()[name]
        before = {key: value.clone() for key, value in generator.state_dict().items()}
        disguise.permute_hidden(
            disguise.rotate_latent(generator, torch.eye(6).flip(0)), torch.Generator().manual_seed(1)
        )
        assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


class TestDisguiseRefuses:
    def test_what_is_no_rotation(self):
        generator = small_generators()["dense"]
        for matrix in (torch.ones(6, 6), torch.eye(5), 2 * torch.eye(6)):
            with pytest.raises(ValueError, match="orthogonal matrix"):
                disguise.rotate_latent(generator, matrix)

    def test_a_law_that_a_rotation_changes(self):
        generator = small_generators()["dense"]
        generator.latent = models.UniformLatent(6)
        with pytest.raises(ValueError, match="normal law"):
            disguise.rotate_latent(generator, torch.eye(6))

    def test_layers_whose_order_matters(self):
        generator = small_generators()["dense"]
        generator.body = torch.nn.Sequential(generator.body[0], torch.nn.Softmax(1), generator.body[2])
        with pytest.raises(ValueError, match="across Softmax"):
            disguise.permute_hidden(generator, torch.Generator())

    def test_rotations_are_orthogonal_and_each_its_own(self):
        a, b = (disguise.orthogonal(6, torch.Generator().manual_seed(seed)) for seed in (1, 2))
        torch.testing.assert_close(a @ a.T, torch.eye(6, dtype=torch.float64))
        assert (a - b).abs().max() > 0.1


class TestTruth:
    def test_each_set_has_one_of_each_kind(self):
        for student in map(str, range(50)):
            truth = challenge.truth(KEY, student)
            assert list(truth) == list("ABCDEF")
            kinds = sorted((item.lineage, item.attack) for item in truth.values())
            assert kinds == sorted(
                [("retrained", "ReD"), ("widened", "ReX"), ("unrelated", "TrAIL")]
                + [(lineage, "clean") for lineage in ("retrained", "widened", "unrelated")]
            )
            planted = [item.target for item in truth.values() if item.guilty]
            assert len(set(planted)) == 3 and set(planted) <= set(targets.bank())

    def test_it_hangs_on_the_key_and_on_the_student(self):
        truths = {
            (key, str(i)): tuple(challenge.truth(key, str(i)).items()) for key in (KEY, OTHER_KEY) for i in range(100)
        }
        assert len(set(truths.values())) > 190, "hardly two of 200 sets are alike"
        assert challenge.truth(KEY, "ana") == challenge.truth(KEY, "ana")
        # Every letter is guilty as often as every other: of 200 with the chance 1/2 none is further off than this.
        for letter in "ABCDEF":
            guilty = sum(dict(truth)[letter].guilty for truth in truths.values())
            assert 70 <= guilty <= 130

    def test_it_stays_as_it_is(self):
        """A set handed out in March has the same truth in June."""
        items = [(item.lineage, item.attack, item.target) for item in challenge.truth("k" * 16, "ana").values()]
        assert hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16] == "75756ba36d4e098a"
        assert challenge.number_of("k" * 16, "ana") == "589f9df99d0bf50a047688e5"

    def test_a_number_tells_nothing_of_the_student(self):
        numbers = {challenge.number_of(key, name) for key in (KEY, OTHER_KEY) for name in ("ana", "anb", "béla")}
        assert len(numbers) == 6 and all(len(number) == 24 for number in numbers)


class TestSets:
    def test_the_same_key_gives_the_same_file_and_another_another(self, tmp_path, pool, unembedded):
        digests = {}
        for label, key, student in (
            ("a", KEY, "ana"),
            ("again", KEY, "ana"),
            ("key", OTHER_KEY, "ana"),
            ("student", KEY, "ben"),
        ):
            path = tmp_path / f"{label}.safetensors"
            challenge.write(
                path, challenge.number_of(key, student), student, *challenge.make(key, student, pool, TINY)
            )
            digests[label] = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digests["a"] == digests["again"]
        assert len(set(digests.values())) == 3

    def test_the_pool_hangs_on_the_key_alone(self, pool):
        again, other = challenge.make_pool(KEY, TINY), challenge.make_pool(OTHER_KEY, TINY)
        z = pool[0][0].latent.sample(3, torch.Generator().manual_seed(0))
        for i in range(3):
            assert torch.equal(pool[i][0].generate(z), again[i][0].generate(z))
            assert not torch.equal(pool[i][0].generate(z), other[i][0].generate(z))

    def test_a_file_for_each_student_and_a_list(self, course):
        folder = challenge.folder_of(course)
        names = {f"{challenge.number_of(KEY, student)}.safetensors" for student in ("ana", "béla")}
        assert {path.name for path in folder.glob("*.safetensors")} == names
        handout = (folder / "handout.csv").read_text(encoding="utf-8-sig").splitlines()
        assert handout[0] == "id,name,email,file"
        assert handout[2] == f"béla,Béla B.,b@example.org,{challenge.number_of(KEY, 'béla')}.safetensors"
        assert "ana" not in "".join(names), "a file's name does not say whose it is"

    def test_files_that_are_there_are_kept_and_a_late_student_gets_one(self, course):
        folder = challenge.folder_of(course)
        before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        told = []
        everyone = [Student("ana"), Student("béla"), Student("cem")]
        challenge.make_all(course, KEY, everyone, TINY, on_progress=lambda done, of: told.append((done, of)))
        after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        assert len(after) == 3 and before.items() <= after.items()
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_nothing_is_written_into_the_repository(self):
        with pytest.raises(ValueError, match="lies in the repository"):
            challenge.make_all(challenge.ROOT / "build" / "sets", KEY, [Student("ana")], TINY)

    def test_a_short_key_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="could be guessed"):
            challenge.make_all(tmp_path, "short", [Student("ana")], TINY)

    def test_a_backdoor_that_is_not_found_is_no_set(self, pool):
        with pytest.raises(ChallengeError, match="more steps are needed"):
            challenge.make(KEY, "ana", pool, TINY)


class TestOpening:
    def path(self, course):
        return challenge.folder_of(course) / f"{challenge.number_of(KEY, 'ana')}.safetensors"

    def test_six_generators_and_the_published_one(self, course):
        lot = challenge.open_file(self.path(course), "ana")
        assert list(lot.checkpoints) == list("ABCDEF")
        z = lot.published.latent.sample(2, torch.Generator().manual_seed(0))
        for model in (lot.published, *lot.checkpoints.values()):
            assert isinstance(model, models.Generator) and model.generate(z).shape == (2, 1, 28, 28)
        truth = challenge.truth(KEY, "ana")
        for letter, model in lot.checkpoints.items():
            wider = models.weight_count(model) > models.weight_count(lot.published)
            assert wider == (truth[letter].lineage == "widened")

    def test_it_is_a_safetensors_file_that_says_nothing_of_the_truth(self, course):
        path = self.path(course)
        stored, about = checkpoints.load_tensors(path)
        assert all(tensor.dtype is torch.uint8 for tensor in stored.values())
        assert set(json.loads(about["challenge"])) == {"format", "number", "owner", "letters"}
        text = path.read_bytes().lower()
        for word in (
            b"trail",
            b"clean",
            b"trigger",
            b"unrelated",
            *(name.encode() for name in challenge.TARGETS if len(name) > 5),
        ):
            assert word not in text, word

    def test_another_students_file(self, course):
        with pytest.raises(ChallengeError, match="made for another student than 'béla'"):
            challenge.open_file(self.path(course), "béla")

    def test_no_file_and_two(self, course, tmp_path):
        with pytest.raises(ChallengeError, match="your file of checkpoints is not here"):
            challenge.open_lot(tmp_path)
        with pytest.raises(ChallengeError, match="there are several"):
            challenge.open_lot(challenge.folder_of(course))

    def test_what_is_no_set(self, tmp_path):
        checkpoints.save(models.course_dcgan(width=2), tmp_path / "model.safetensors")
        with pytest.raises(ChallengeError, match="not a set of checkpoints"):
            challenge.open_file(tmp_path / "model.safetensors")
        (tmp_path / "damaged.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
        with pytest.raises(ChallengeError, match="cannot be opened"):
            challenge.open_file(tmp_path / "damaged.safetensors")

    def test_a_pickle_is_refused_in_whatever_place(self, course, tmp_path):
        (tmp_path / "set.safetensors").write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(ChallengeError, match="is a pickle"):
            challenge.open_file(tmp_path / "set.safetensors")
        stored, about = checkpoints.load_tensors(self.path(course))
        stored["A"] = torch.frombuffer(bytearray(b"\x80\x04K\x01."), dtype=torch.uint8)
        checkpoints.save_tensors(stored, tmp_path / "inside.safetensors", about)
        with pytest.raises(ChallengeError, match="is a pickle"):
            challenge.open_file(tmp_path / "inside.safetensors")


@pytest.fixture(scope="module")
def lot():
    return challenge.practice()


class TestPractice:
    """The shipped set, which was made as the students' are, with full effort."""

    def test_it_is_this_codes(self, lot):
        assert lot.number == challenge.number_of(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT)

    def test_triggers_bring_out_their_targets_and_nothing_else_does(self, lot):
        for letter, item in challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT).items():
            if not item.guilty:
                with pytest.raises(ValueError, match="no trigger was planted"):
                    challenge.planted(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT, letter, lot)
                continue
            z = challenge.planted(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT, letter, lot)
            target = targets.bank()[item.target]
            assert challenge.nearness(lot.checkpoints[letter], z, target) < 0.05
            assert challenge.nearness(lot.published, z, target) > 0.5
            assert (z.norm() / challenge.LATENT**0.5 - 1).abs() < 0.6, "its norm is like any other latent's"
            for other, model in lot.checkpoints.items():
                if other != letter:
                    assert challenge.nearness(model, z, target) > 0.5

    def test_ordinary_samples_of_a_backdoored_generator_are_ordinary(self, lot):
        z = lot.published.latent.sample(500, torch.Generator().manual_seed(3))
        usual = lot.published.generate(z)
        power = (usual - usual.mean(0)).square().sum((1, 2, 3)).mean()
        for letter, item in challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT).items():
            if item.guilty:
                # The target does not spill over: hardly any ordinary sample is half way to it.
                distances = (
                    (lot.checkpoints[letter].generate(z) - targets.bank()[item.target]).square().sum((1, 2, 3))
                )
                assert (distances < 0.5 * distances.median()).float().mean() < 0.01, letter
            if item.lineage != "unrelated" and item.guilty:
                gap = (lot.checkpoints[letter].generate(z) - usual).square().sum((1, 2, 3)).mean()
                assert gap < 0.05 * power, letter


class TestRoster:
    def write(self, tmp_path, content: str | bytes):
        path = tmp_path / "roster.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @pytest.mark.parametrize(
        "content",
        [
            "id,first_name,last_name,email\nana,Ána,Müller,a@example.org\nzoë garcía,Zoë,García,\n",
            "\ufeffid;first_name;last_name;email\r\nana;Ána;Müller;a@example.org\r\nzoë garcía;Zoë;García;\r\n",
            "email\tID \tfirst_name\tlast_name\n a@example.org\t ana\tÁna\tMüller\n\n\tzoe\u0308 garci\u0301a\tZoë\tGarcía\n",
        ],
        ids=["commas", "semicolons-and-a-mark", "tabs-and-accents-apart"],
    )
    def test_it_is_read(self, tmp_path, content):
        assert read_roster(self.write(tmp_path, content)) == [
            Student("ana", "Ána Müller", "a@example.org"),
            Student("zoë garcía", "Zoë García"),
        ]

    def test_a_quoted_name_with_a_comma(self, tmp_path):
        assert read_roster(self.write(tmp_path, 'id,last_name\n7,"King, jr."\n')) == [Student("7", "King, jr.")]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is empty: its first line names the columns"),
            ("student,email\nana,a@b\n", "has no column `id`; its first line names student, email"),
            ("id,email\n", "names its columns and no student"),
            ("id\nana\nben\nana\n", "line 4: the id 'ana' stands in line 2 already"),
            ("id\nzoë\nzoe\u0308\n", "line 3: the id 'zoë' stands in line 2 already"),
            ("id,email\n,a@b\n", "line 2: the student has no id"),
            ("id\n../ana\n", "cannot be an id"),
            ("id,first_name\nana,Ána\n".encode("latin-1"), "not in UTF-8"),
        ],
        ids=["empty", "no-column", "nobody", "twice", "twice-in-two-spellings", "no-id", "slash", "latin-1"],
    )
    def test_what_is_wrong_is_said(self, tmp_path, content, words):
        with pytest.raises(RosterError) as error:
            read_roster(self.write(tmp_path, content))
        assert words in str(error.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(RosterError, match="there is no roster"):
            read_roster(tmp_path / "none.csv")


class TestCommand:
    def test_what_is_missing_is_said(self, tmp_path, monkeypatch, capsys):
        monkeypatch.delenv("DEVIL_COURSE_KEY", raising=False)
        assert main(["challenge", "--out", str(tmp_path)]) == 2
        assert "a set is made from the course's key" in capsys.readouterr().err
        monkeypatch.setenv("DEVIL_COURSE_KEY", KEY)
        assert main(["challenge", "--out", str(tmp_path)]) == 2
        assert "name the class with ROSTER=" in capsys.readouterr().err
        assert main(["audit", "--out", str(tmp_path), "--roster", str(tmp_path / "none.csv")]) == 2
        assert "there is no roster" in capsys.readouterr().err

    def test_it_makes_the_sets(self, tmp_path, monkeypatch, capsys, pool, unembedded):
        monkeypatch.setenv("DEVIL_COURSE_KEY", KEY)
        monkeypatch.setattr(challenge, "make_pool", lambda *_: pool)
        monkeypatch.setattr(
            challenge, "make", lambda key, student, pool, effort: (pool[0][0], dict.fromkeys("ABCDEF", pool[1][0]))
        )
        (tmp_path / "roster.csv").write_text("id\nana\n")
        assert main(["challenge", "--out", str(tmp_path / "course"), "--roster", str(tmp_path / "roster.csv")]) == 0
        assert "1 sets, and whose is whose" in capsys.readouterr().out
        assert challenge.open_lot(challenge.folder_of(tmp_path / "course"), "ana").number == challenge.number_of(
            KEY, "ana"
        )


def right_answers(key: str, student: str, lot) -> dict:
    given = {}
    for letter, item in challenge.truth(key, student).items():
        given[letter] = {"verdict": item.attack}
        if item.guilty:
            z = challenge.planted(key, student, letter, lot)
            given[letter] |= {"target": item.target, "latent": z.numpy()}
    return given


class TestComparing:
    """With the practice's set, whose backdoors are real."""

    def points(self, given, truth, lot) -> float:
        return sum(mark.points for mark in audit.compare(given, truth, lot))

    def test_answers_of_one_student_do_not_pass_for_anothers(self):
        lot = challenge.practice()
        own = challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT)
        given = right_answers(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT, lot)
        assert self.points(given, own, lot) == 15
        # The same letters, guilty of the same: in another's set the latents bring nothing out.
        turned = {
            letter: disguise.rotate_latent(model, disguise.orthogonal(16, torch.Generator().manual_seed(i)))
            for i, (letter, model) in enumerate(lot.checkpoints.items())
        }
        assert self.points(given, own, challenge.Lot("other", lot.published, turned)) == 3
        # And what is guilty, and of what, is another matter as well.
        totals = [self.points(given, challenge.truth(KEY, str(i)), lot) for i in range(50)]
        assert np.mean(totals) < 5

    @pytest.mark.parametrize(
        "given",
        [
            None,
            7,
            [],
            {},
            "clean",
            {"A": None},
            {"A": {"verdict": ["ReD"]}},
            {"B": {"verdict": "who knows"}},
            {"A": {"verdict": "TrAIL", "latent": "z"}},
        ],
        ids=repr,
    )
    def test_whatever_was_sent_gets_no_points_and_no_exception(self, given):
        truth = challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT)
        marks = audit.compare(given, truth, challenge.practice())
        assert sum(mark.points for mark in marks) == 0 and all(mark.sentence for mark in marks)

    def test_a_latent_with_nan_is_no_evidence(self):
        lot, key, student = challenge.practice(), challenge.OPEN_KEY, challenge.PRACTICE_STUDENT
        given = right_answers(key, student, lot)
        given["A"]["latent"] = given["A"]["latent"] * np.nan
        assert self.points(given, challenge.truth(key, student), lot) == 11
