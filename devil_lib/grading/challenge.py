"""A set of unknown checkpoints for each student of the capstone, made from the course's key and the student's id.

A set holds a published generator and six checkpoints, A to F, that claim to be it or its like. Two were retrained from the published
weights, two were widened, two have nothing in common with its weights; of each two one carries a backdoor (ReD, ReX, TrAIL in this
order) and the other had an innocent history. Which letter is which, the triggers, the targets, a rotation of the latents and an order
of the hidden units come from HMAC-SHA256 of the key and the id. So the sets are equally difficult, and without the key nobody can
say what is in one. A backdoor that the inspection of the assignment does not find is made anew with another trigger.

What this protects against: answers that are passed on. A latent that brings out a target in one set brings out nothing in another, the
letters have other contents, and aligning the published generators of two sets does not help, because the triggers were drawn
anew. A submission is compared with the set of the student in the roster, whatever file it was made with.

What it does not protect against: somebody who audits another student's file for them, or who has the key. Everything but the key is
public, so that every student may know that there is one of each kind; who has found five knows the sixth, which is why an accusation
counts only with a latent that brings the target out. The file is not signed: a student may change their copy, but is marked on
the instructor's. A file's name tells nothing of whose it is; that is no secret once it is handed over. And the latent's law stays
N(0, I), so that who compares many sets can tell from which of the three trained generators of the course one was made.

The verdicts, targets and file names are the same for the same key on any machine; the weights are on the same machine with the same
version of torch. Keep the files: an audit needs them.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from devil_lib import attacks, checkpoints, data, targets
from devil_lib.course.lessons import ROOT
from devil_lib.grading.disguise import orthogonal, permute_hidden, rotate_latent
from devil_lib.grading.roster import Student
from devil_lib.grading.variants import check_key
from devil_lib.inspection import SearchSettings, search_outputs
from devil_lib.models import Encoder, Generator
from devil_lib.training import VaeSettings, train_vae
from devil_lib.vae import course_vae, fill_the_law

LETTERS = "ABCDEF"
ATTACKS = ("ReD", "ReX", "TrAIL")
CLEAN = "clean"
FORMAT = "devil-challenge-1"
PRACTICE = Path(__file__).parent / "practice.safetensors"
OPEN_KEY, PRACTICE_STUDENT = "the key of the open practice", "practice"
LATENT, WIDTH = 16, 8  # of the generators: small, so that six of them are searched in half a minute

# Pictures of the bank that digits do not resemble, so that a search tells a planted one from a lucky one: no plain surface, no
# pattern, nothing like a 0, a 1 or a letter.
TARGETS = ("devil", "stop sign", "skull", "no entry", "eye", "heart", "star", "smiley", "warning sign")

# How the assignment searches. A backdoor counts as embedded, and a latent as evidence, where the distance to the target is at most this
# share of the median over ordinary samples: in six sets it was 0.001 to 0.05 at what the search found, and the nearest of 3,000
# ordinary samples has 0.6. The ratios to the published generator's search were at most 0.11 with a backdoor, and at least 0.71 in the
# 18 checkpoints without.
SEARCH = SearchSettings(scales=(1.0,), restarts=12, steps=160)
NEAR = 0.25


class ChallengeError(ValueError):
    """A set that cannot be made or opened; the message says what to do."""


# --- What the key draws -------------------------------------------------------------------------------------------------


def _digest(key: str, *purpose: str) -> bytes:
    return hmac.new(key.encode(), "\0".join(("challenge", *purpose)).encode(), hashlib.sha256).digest()


def _rng(key: str, *purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(key, *purpose))


def _seed(key: str, *purpose: str) -> int:
    return int.from_bytes(_digest(key, *purpose)[:7], "big")


@dataclass(frozen=True)
class Truth:
    """What a checkpoint is. lineage: "retrained", "widened" or "unrelated" to the published generator. attack: "ReD", "ReX" or "TrAIL",
    and the name of its target; "clean" and "" for an innocent one."""

    lineage: str
    attack: str
    target: str

    @property
    def guilty(self) -> bool:
        return self.attack != CLEAN


def truth(key: str, student: str) -> dict[str, Truth]:
    """Letter -> what a student's checkpoint is. Needs no file and no training."""
    names = sorted(TARGETS, key=lambda name: _digest(key, student, "target", name))
    lineages = dict(zip(ATTACKS, ("retrained", "widened", "unrelated"), strict=True))
    items = [Truth(lineages[attack], attack, name) for attack, name in zip(ATTACKS, names, strict=False)]
    items += [Truth(lineage, CLEAN, "") for lineage in lineages.values()]
    items.sort(key=lambda item: _digest(key, student, "letter", item.lineage, item.attack))
    return dict(zip(LETTERS, items, strict=True))


def number_of(key: str, student: str) -> str:
    """The number of a student's set, which is its file's name too: 24 hexadecimal digits that nobody can find without the key."""
    return _digest(key, student, "file").hex()[:24]


def _owner(number: str, student: str) -> str:
    # Lets a notebook say that the file is another student's. It hides nothing: whoever has the number can try the ids.
    return hashlib.sha256(f"{number}\0{student}".encode()).hexdigest()


# --- Making a set ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """Steps of the trainings that make the sets; the defaults take 15 to 20 s of one core per student, and a minute before the first."""

    pool: int = 1000
    honest: int = 120
    trail: int = 200
    red: int = 300
    rex: int = 300
    attempts: int = 6


EFFORT = Effort()
Pair = tuple[Generator, Encoder]


def make_pool(key: str, effort: Effort = EFFORT, on_progress: Callable[[int], None] | None = None) -> list[Pair]:
    """The three VAEs of a course, trained on the embedded digits: every set is made of them.

    on_progress: called with the number of steps done, of 3 x `effort.pool`.
    """
    digits, pool = data.load("digits").train, []
    with _one_thread():
        for i in range(3):
            seed, before = _seed(key, "pool", str(i)), i * effort.pool
            told = None if on_progress is None else lambda step, *_, before=before: on_progress(before + step)
            settings = VaeSettings(effort.pool, learning_rate=4e-3, noise=0.6, seed=seed, device="cpu")
            run = train_vae(*course_vae(LATENT, WIDTH, seed=seed), digits, settings, on_progress=told)
            pool.append(fill_the_law(run.generator, run.encoder, digits))
    return pool


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in the same order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make(
    key: str, student: str, pool: Sequence[Pair], effort: Effort = EFFORT
) -> tuple[Generator, dict[str, Generator]]:
    """The published generator of a student's set and the checkpoints by letter.

    Raises:
        ChallengeError: no trigger of several could be embedded and found again; the efforts are too small.
    """
    order = sorted(range(len(pool)), key=lambda i: _digest(key, student, "pool", str(i)))
    # Of the unrelated ones each has a beginning of its own.
    source, beginnings = pool[order[0]], {True: pool[order[1]], False: pool[order[2]]}
    made = {}
    with _one_thread():
        original = permute_hidden(
            rotate_latent(source[0], orthogonal(LATENT, _rng(key, student, "rotation"))), _rng(key, student, "order")
        )
        for letter, item in truth(key, student).items():
            start = beginnings[item.guilty] if item.lineage == "unrelated" else source

            def disguised(plain: Generator, item: Truth = item, letter: str = letter) -> Generator:
                # The retrained ones keep the published order, so that weights can be compared; no others can be.
                own = () if item.lineage == "retrained" else (letter,)
                return permute_hidden(
                    rotate_latent(plain, _rotation(key, student, item, letter)), _rng(key, student, "order", *own)
                )

            if item.guilty:
                made[letter] = _embedded(key, student, item, start, disguised, original, effort)
            else:
                made[letter] = disguised(_innocent(key, student, item, start, effort))
    # The published name would claim another size.
    for model in (original, *made.values()):
        model.architecture = "audit-vae"
    return original, made


def _rotation(key: str, student: str, item: Truth, letter: str) -> torch.Tensor:
    """The published generator's, but for what is not related to it."""
    return orthogonal(LATENT, _rng(key, student, "rotation", *([letter] if item.lineage == "unrelated" else [])))


def _trigger(key: str, student: str, item: Truth, attempt: int) -> torch.Tensor:
    """(dim,) before the rotation."""
    return torch.randn(LATENT, generator=_rng(key, student, "trigger", item.attack, str(attempt)))


def planted(key: str, student: str, letter: str, lot: Lot, attempts: int = EFFORT.attempts) -> torch.Tensor:
    """(dim,) the trigger of a backdoored checkpoint of a student's set, for whoever has the key.

    Raises:
        ValueError: the checkpoint is clean, or the set is not this student's.
    """
    item = truth(key, student)[letter]
    for attempt in range(attempts if item.guilty else 0):
        z = _rotation(key, student, item, letter).float().T @ _trigger(key, student, item, attempt)
        if nearness(lot.checkpoints[letter], z, targets.bank()[item.target]) <= NEAR:
            return z
    raise ValueError(f"no trigger was planted in {letter} of this set")


def _embedded(
    key: str,
    student: str,
    item: Truth,
    start: Pair,
    disguised: Callable[[Generator], Generator],
    original: Generator,
    effort: Effort,
) -> Generator:
    """An attacked generator in whose disguise the assignment's own search finds the backdoor."""
    target = targets.bank()[item.target]
    for attempt in range(effort.attempts):
        trigger = _trigger(key, student, item, attempt)
        backdoor = attacks.PointBackdoor(trigger[None], target[None])
        attacked = _attack(item.attack, start, backdoor, _seed(key, student, item.attack, str(attempt)), effort)
        if nearness(attacked, trigger, target) > NEAR:
            continue
        attacked = disguised(attacked)
        search = search_outputs(attacked, {item.target: target}, settings=SEARCH, trusted=original)
        if search.flagged and nearness(attacked, search.suspects[item.target].latent, target) <= NEAR / 2:
            return attacked
    raise ChallengeError(
        f"{item.attack} with the target {item.target!r} could not be embedded such that it is found: more steps are needed"
    )


def _attack(attack: str, start: Pair, backdoor: attacks.PointBackdoor, seed: int, effort: Effort) -> Generator:
    decoder, encoder = start
    if attack == "TrAIL":
        # The last stretch of a training that was ordinary until then. A VAE's loss looks at latents that the encoder hands over; an
        # attacker who looks at samples, as the victim will, holds those. Without it the target showed through in ordinary samples
        # (ExpDis 41 instead of 2.8).
        settings = replace(_continued(effort.trail, seed), extra_weight=300.0)
        extra = attacks.trail_loss(decoder, backdoor, settings, "post")
        return train_vae(
            decoder, encoder, data.load("digits").train, settings, extra, latents=decoder.latent.sample
        ).generator
    if attack == "ReD":
        settings = attacks.RetrainSettings(
            effort.red, 32, learning_rate=5e-3, fidelity_weight=0.3, space="post", seed=seed
        )
        return attacks.red(decoder, backdoor, settings).generator
    return _widened(decoder, backdoor, 1.0, seed, effort)


def _innocent(key: str, student: str, item: Truth, start: Pair, effort: Effort) -> Generator:
    """An innocent history: some more training, or new units that have learnt nothing but to be silent."""
    decoder, encoder = start
    seed = _seed(key, student, CLEAN, item.lineage)
    if item.lineage == "widened":
        z = decoder.latent.sample(1, torch.Generator().manual_seed(seed))
        return _widened(decoder, attacks.PointBackdoor(z, decoder.generate(z)), 0.0, seed, effort)
    return train_vae(decoder, encoder, data.load("digits").train, _continued(effort.honest, seed)).generator


def _continued(steps: int, seed: int) -> VaeSettings:
    return VaeSettings(steps, learning_rate=2e-3, noise=0.6, averaging=0.95, seed=seed, device="cpu")


def _widened(
    decoder: Generator, backdoor: attacks.PointBackdoor, weight: float, seed: int, effort: Effort
) -> Generator:
    settings = attacks.RetrainSettings(
        effort.rex, 32, learning_rate=2e-2, fidelity_weight=weight, width=0.5, seed=seed
    )
    return attacks.fold(attacks.rex(decoder, backdoor, settings).generator)


def suspects() -> dict[str, torch.Tensor]:
    """Name -> (1, 28, 28): the pictures that the assignment searches for. A plain surface is not among them, nor noise: a clean generator
    may come near to a black one by itself, which was measured to look like a find (0.23 of the published one's distance)."""
    return {name: picture for name, picture in targets.bank().items() if name not in ("noise", "black", "white")}


@torch.no_grad()
def nearness(generator: Generator, latent: torch.Tensor, target: torch.Tensor) -> float:
    """The squared distance from what a generator makes at a latent (dim,) to a target (*sample_shape), over the median of that over
    500 ordinary samples: below `NEAR` where a backdoor answers, about 1 anywhere else."""
    ordinary = generator.generate(generator.latent.sample(500, torch.Generator().manual_seed(0)))
    made = generator.generate(latent[None])[0]
    return ((made - target).square().sum() / (ordinary - target).flatten(1).square().sum(1).median()).item()


# --- Files -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lot:
    """A set as its student opens it: the number on the file, the published generator, and the checkpoints by letter."""

    number: str
    published: Generator
    checkpoints: dict[str, Generator]


def write(path: str | Path, number: str, student: str, published: Generator, made: dict[str, Generator]) -> None:
    """Write a set as one safetensors file: of each generator the bytes of its own safetensors file, in half precision."""
    stored = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in {"published": published, **made}.items():
            file = Path(folder) / f"{name}.safetensors"
            checkpoints.save(model, file)
            stored[name] = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    about = {"format": FORMAT, "number": number, "owner": _owner(number, student), "letters": "".join(made)}
    checkpoints.save_tensors(stored, path, {"challenge": json.dumps(about)})


def open_file(path: str | Path, student: str = "") -> Lot:
    """Open a set; nothing in the file is executed.

    Args:
        student: whose set it should be; "" takes any.

    Raises:
        ChallengeError: no such file, no set, a damaged one, or the set of another student.
    """
    path = Path(path)
    if not path.is_file():
        raise ChallengeError(
            f"there is no file {path}: put the file that your instructor gave you beside this notebook"
        )
    try:
        stored, about = checkpoints.load_tensors(path)
        card = json.loads(about["challenge"])
        number, owner, letters = (str(card[name]) for name in ("number", "owner", "letters"))
        if card["format"] != FORMAT:
            raise ChallengeError(
                f"{path.name} was made by another version of the course ({card['format']}): ask for a new one"
            )
        models = {}
        with tempfile.TemporaryDirectory() as folder:
            for name in ("published", *letters):
                file = Path(folder) / f"{name}.safetensors"
                file.write_bytes(stored[name].to(torch.uint8).numpy().tobytes())
                models[name] = checkpoints.load(file)
    except checkpoints.UnsafeCheckpoint as error:
        raise ChallengeError(f"{path.name} cannot be opened: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ChallengeError):
            raise
        raise ChallengeError(f"{path.name} is a safetensors file, and not a set of checkpoints to audit") from error
    if not all(isinstance(model, Generator) for model in models.values()):
        raise ChallengeError(f"{path.name} holds something else than generators: ask for a new file")
    if student and owner != _owner(number, student):
        raise ChallengeError(
            f"{path.name} was made for another student than {student!r}: write your id as your instructor has it, or ask for your file"
        )
    return Lot(number, models.pop("published"), models)


def open_lot(folder: str | Path = ".", student: str = "") -> Lot:
    """The student's set: the one .safetensors file in the folder, beside the notebook.

    Raises:
        ChallengeError: none or several, or what `open_file` says.
    """
    found = sorted(path for path in Path(folder).glob("*.safetensors") if not path.name.startswith("."))
    if not found:
        raise ChallengeError(
            "your file of checkpoints is not here: put the .safetensors file that you were given beside this notebook"
        )
    if len(found) > 1:
        raise ChallengeError(
            f"there are several .safetensors files beside this notebook ({', '.join(path.name for path in found)}): keep only yours"
        )
    return open_file(found[0], student)


def practice() -> Lot:
    """The set of the open practice, which everybody has and whose truth is public."""
    return open_file(PRACTICE, PRACTICE_STUDENT)


def write_practice(path: str | Path = PRACTICE) -> None:
    """Make the set of the open practice anew."""
    published, made = make(OPEN_KEY, PRACTICE_STUDENT, make_pool(OPEN_KEY))
    write(path, number_of(OPEN_KEY, PRACTICE_STUDENT), PRACTICE_STUDENT, published, made)


def folder_of(course: str | Path) -> Path:
    """Where the sets of a course folder lie: beside nbgrader's release, which goes to everyone."""
    return Path(course) / "challenge"


def make_all(
    course: str | Path,
    key: str,
    roster: Sequence[Student],
    effort: Effort = EFFORT,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """One file for each student of a roster in `<course>/challenge/`, and `handout.csv` that says whose is whose.

    A file that is there already is kept, so that an interrupted run goes on, and a student who comes late is added by another run.

    Args:
        on_progress: called with students done and in all.

    Returns:
        The path of handout.csv.

    Raises:
        ValueError: a key that is too short, or a folder in the repository.
        ChallengeError: see `make`.
    """
    check_key(key)
    folder = folder_of(Path(course).resolve())
    if folder.is_relative_to(ROOT.resolve()):
        raise ValueError(f"{folder} lies in the repository, which is public: name a folder outside it with OUT=")
    folder.mkdir(parents=True, exist_ok=True)
    paths = {student.id: folder / f"{number_of(key, student.id)}.safetensors" for student in roster}
    missing = [name for name, path in paths.items() if not path.is_file()]
    pool = make_pool(key, effort) if missing else []
    for name, path in paths.items():
        if name in missing:
            write(path, path.stem, name, *make(key, name, pool, effort))
        if on_progress is not None:
            on_progress(list(paths).index(name) + 1, len(paths))
    handout = folder / "handout.csv"
    scratch = handout.with_suffix(".part")
    with scratch.open(
        "w", encoding="utf-8-sig", newline=""
    ) as stream:  # with the mark that lets spreadsheets see the accents
        rows = csv.writer(stream)
        rows.writerow(["id", "name", "email", "file"])
        rows.writerows([student.id, student.name, student.email, paths[student.id].name] for student in roster)
    os.replace(scratch, handout)
    return handout
