"""A3: the ELBO with a backdoor, a sound as target, and a filter between the attacker and the ear."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import lsq_linear
from torch import nn

from devil_lib.grading.exercise import (
    Answers,
    Assignment,
    Exercise,
    Failed,
    Property,
    Variant,
    Written,
    expect,
    redraw,
    tells_apart,
    unlike,
)
from devil_lib.grading.generators import affine_generator, own_tensor
from devil_lib.grading.payload import Outcome
from devil_lib.models import Encoder, GaussianLatent, Generator

NAME = "a3_vae_and_audio"


def _pair(answers: Answers, label: str, first: str, second: str) -> Answers:
    """The two things that a function returned together, each under a name of its own."""
    value = answers.value(label)
    if value is None:
        raise Failed("nothing came back: is the `return` missing?")
    if not isinstance(value, list | np.ndarray) or len(value) != 2:
        raise Failed(f"two things are asked for, {first} and {second}, in this order")
    return Answers({first: Outcome(value[0]), second: Outcome(value[1])})


# --- 1. The negative ELBO ----------------------------------------------------------------------------------------------------

_BATCH = 3000  # samples where a mean over draws is judged
# The ratio of two means over 3,000 draws: the worst of 100 seeds was off by 0.029. The cases are drawn such that every misconception
# is off by at least 0.18.
_DRAWS = 0.06
_ALIGNED = (
    0.8  # the cosine of the angle between a gradient and that of the expected loss: the worst of 100 seeds was 0.985
)
_LOUD = (0.003, 0.006)  # noises at which nothing counts but what did not get across
_NARROW = -10.0  # a log variance at which a draw is the mean


@dataclass(frozen=True)
class _Vae:
    """An affine VAE with samples: a decoder weight z + bias, an encoder with mean and log variance of `mean` and `log_variance`,
    each a weight (dim, elements) and a bias (dim,), samples x (n, elements)."""

    weight: np.ndarray
    bias: np.ndarray
    mean: tuple[np.ndarray, np.ndarray]
    log_variance: tuple[np.ndarray, np.ndarray]
    x: np.ndarray
    noise: float
    seed: int
    shape: tuple[int, ...]

    @property
    def laws(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, dim) means and log variances of the encoder."""
        return tuple(self.x @ weight.T + bias for weight, bias in (self.mean, self.log_variance))

    @property
    def per_latent(self) -> np.ndarray:
        """(dim,) by how much the squared error of a sample grows for each unit of a latent's variance."""
        return (self.weight**2).sum(0)


def _vae(rng: np.random.Generator, n: int, noise: float) -> _Vae:
    shape = (1, int(rng.integers(3, 5)), int(rng.integers(3, 6)))
    elements, dim = math.prod(shape), int(rng.integers(4, 7))
    return _Vae(
        weight=rng.normal(size=(elements, dim)) * math.sqrt(1.5 / dim),
        bias=rng.normal(size=elements),
        mean=(rng.normal(size=(dim, elements)) / math.sqrt(elements), 0.7 * rng.normal(size=dim)),
        log_variance=(0.3 * rng.normal(size=(dim, elements)) / math.sqrt(elements), rng.uniform(-2.0, 1.0, size=dim)),
        x=rng.normal(size=(n, elements)),
        noise=noise,
        seed=int(rng.integers(1, 10**6)),
        shape=shape,
    )


def _elbo_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Vae]:
    def message() -> _Vae:
        # Everything gets across: all samples are what the decoder makes of every latent.
        drawn = _vae(rng, int(rng.integers(3, 7)), float(rng.uniform(0.3, 0.7)))
        return replace(drawn, weight=np.zeros_like(drawn.weight), x=np.tile(drawn.bias, (len(drawn.x), 1)))

    def errors() -> _Vae:
        drawn = _vae(rng, int(rng.integers(3, 7)), float(rng.uniform(*_LOUD)))
        nothing = np.zeros_like(drawn.mean[0]), np.zeros_like(drawn.mean[1])
        return replace(drawn, weight=np.zeros_like(drawn.weight), mean=nothing, log_variance=nothing)

    def draws() -> _Vae:
        drawn = _vae(rng, _BATCH, float(rng.uniform(*_LOUD)))
        # The same variances for all samples, clearly wider than 1.
        spread = rng.uniform(0.9, 1.6, size=len(drawn.log_variance[1]))
        return replace(drawn, log_variance=(np.zeros_like(drawn.mean[0]), spread))

    return {
        "message": redraw(message, lambda case: _tells(*_message_values(case, variant), relative=0.03)),
        "errors": redraw(errors, lambda case: _tells(*_errors_values(case, variant), relative=0.03)),
        "draws": redraw(draws, lambda case: _tells(*_draws_values(case), relative=3 * _DRAWS)),
    }


def _tells(wanted: float, wrong: Mapping[str, float], relative: float) -> bool:
    return tells_apart(wanted, unlike(wanted, wrong), relative=relative)


def _both_halves(case: _Vae, narrow: bool = False) -> tuple[Generator, Encoder]:
    latent = GaussianLatent(case.weight.shape[1])
    dense = nn.Linear(case.weight.shape[0], 2 * latent.dim)
    weights, biases = zip(case.mean, case.log_variance, strict=True)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(np.concatenate(weights)))
        dense.bias.copy_(torch.from_numpy(np.concatenate(biases)))
        if narrow:
            dense.weight[latent.dim :] = 0.0
            dense.bias[latent.dim :] = _NARROW
    decoder = affine_generator(case.weight, case.bias, case.shape, latent)
    return decoder, Encoder(nn.Sequential(nn.Flatten(), dense), latent, "affine")


def _gradients(loss: Any, decoder: Generator, encoder: Encoder) -> Any:
    """The gradients of the biases of both halves; a word where the loss has none."""
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        return "no gradient"
    wanted = {"encoder": encoder.layers[-1].bias, "decoder": decoder.body[0].bias}
    found = torch.autograd.grad(loss.sum(), list(wanted.values()), allow_unused=True)
    return {
        name: torch.zeros_like(wanted[name]) if each is None else each
        for name, each in zip(wanted, found, strict=True)
    }


def _ask_elbo(student: Any, variant: Variant, cases: dict[str, _Vae]) -> None:
    def ask(label: str, case: _Vae, narrow: bool = False, gradients: bool = False) -> None:
        decoder, encoder = _both_halves(case, narrow)
        noise = case.noise if variant["noise"] == "deviation" else case.noise**2
        student.call(
            label, "negative_elbo", decoder, encoder, own_tensor(case.x).reshape(-1, *case.shape), noise,
            torch.Generator().manual_seed(case.seed),
            then=partial(_gradients, decoder=decoder, encoder=encoder) if gradients else None,
        )  # fmt: skip

    ask("message", cases["message"])
    ask("errors", cases["errors"])
    ask("draws", cases["draws"])
    ask("draws again", cases["draws"])
    ask("draws, narrow", cases["draws"], narrow=True)
    ask("gradients", cases["draws"], gradients=True)


def _divergence(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """(n,) KL( N(mean, variance) || N(0, I) ) of (n, dim)."""
    return 0.5 * (mean**2 + variance - 1.0 - np.log(variance)).sum(1)


def _message_values(case: _Vae, variant: Variant) -> tuple[float, dict[str, float]]:
    mean, log_variance = case.laws
    (n, dim), variance, beta = mean.shape, np.exp(log_variance), variant["beta"]
    plain = _divergence(mean, variance).mean()
    wrong = {
        "the divergence enters without its weight": plain,
        "this is the mean over the latent coordinates, and the sum over them is asked for": beta * plain / dim,
        "this is the sum over the batch, and the mean over it is asked for": beta * plain * n,
        "the half in front of the sum is missing": 2.0 * beta * plain,
        "the sign of the divergence is wrong": -beta * plain,
        "the encoder's log variance is taken for the logarithm of a standard deviation": beta * _divergence(mean, variance**2).mean(),
        "the encoder's log variance is halved before its exponential is taken for the variance": beta
        * 0.5 * (mean**2 + np.sqrt(variance) - 1.0 - log_variance).sum(1).mean(),
        "the 1 that is taken off for each coordinate is missing": beta * (plain + 0.5 * dim),
        "the encoder's means do not enter": beta * _divergence(np.zeros_like(mean), variance).mean(),
        "the two laws have changed places": beta
        * 0.5 * ((1.0 + mean**2) / variance - 1.0 + log_variance).sum(1).mean(),
        "the divergence does not enter": 0.0,
    }  # fmt: skip
    return float(beta * plain), {symptom: float(value) for symptom, value in wrong.items()}


def _errors_values(case: _Vae, variant: Variant) -> tuple[float, dict[str, float]]:
    squares = ((case.x - case.bias) ** 2).sum(1)
    n, elements = case.x.shape
    variance = case.noise**2
    wanted = squares.mean() / (2.0 * variance)
    misread = variance**2 if variant["noise"] == "deviation" else case.noise
    wrong = {
        "this is the mean over the elements of a sample, and the sum over them is asked for": wanted / elements,
        "this is the sum over the batch, and the mean over it is asked for": wanted * n,
        "the noise enters as if it were given in the other form: is it a standard deviation or a variance?": wanted
        * case.noise if variant["noise"] == "deviation" else wanted / variance,
        "the 2 under the fraction is missing": 2.0 * wanted,
        "this is a distance, and its square is asked for": np.sqrt(squares).mean() / (2.0 * variance),
        "the noise does not enter": squares.mean() / 2.0,
        "neither the noise nor the 2 under the fraction enters": squares.mean(),
        "the noise is squared once too often or once too seldom": squares.mean() / (2.0 * misread),
        "these are absolute differences, and their squares are asked for": np.abs(case.x - case.bias).sum(1).mean() / (2.0 * variance),
        "what did not get across does not enter": 0.0,
    }  # fmt: skip
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _error(case: _Vae, mean: float, variance: np.ndarray) -> float:
    """The expected squared error where the latents' means are so many times the encoder's, and their variances these (dim,)."""
    at_mean = ((case.x - mean * case.laws[0] @ case.weight.T - case.bias) ** 2).sum(1).mean()
    return float(at_mean + (case.per_latent * variance).sum())


def _draws_values(case: _Vae) -> tuple[float, dict[str, float]]:
    """How many times as large the loss is as with latents that hardly scatter; which of the other parts of the loss are right and
    how it is normalised does not matter here."""
    log_variance = case.log_variance[1]
    narrow = np.full_like(log_variance, _NARROW)
    none = np.zeros_like(narrow)

    def ratio(mean: float, spread: Callable[[np.ndarray], np.ndarray]) -> float:
        return _error(case, mean, spread(log_variance)) / _error(case, mean, spread(narrow))

    wrong = {
        "the latents do not scatter as the encoder says: are they its means alone, or draws of another law?": ratio(
            1.0, lambda v: none
        ),
        "the draws scatter too much: their scale is the standard deviation, and not the variance": ratio(
            1.0, lambda v: np.exp(2.0 * v)
        ),
        "the log variance itself is taken for the scale of the draws": ratio(1.0, lambda v: v**2),
        "the draws scatter too little: their scale is the standard deviation, and not its root": ratio(
            1.0, lambda v: np.exp(0.5 * v)
        ),
        "the encoder's means are not in the draws": ratio(0.0, np.exp),
    }
    return ratio(1.0, np.exp), wrong


def _message_cost(answers: Answers, cases: dict[str, _Vae], variant: Variant) -> None:
    expect(answers.number("message"), *_message_values(cases["message"], variant), relative=2e-3)


def _error_cost(answers: Answers, cases: dict[str, _Vae], variant: Variant) -> None:
    expect(answers.number("errors"), *_errors_values(cases["errors"], variant), relative=2e-3)


def _drawn_latents(answers: Answers, cases: dict[str, _Vae], variant: Variant) -> None:
    wide, again, narrow = (answers.number(label) for label in ("draws", "draws again", "draws, narrow"))
    if wide != again:
        raise Failed(
            "a generator in the same state gives another loss: are the latents drawn with `rng`?",
            f"{wide:.6g}, {again:.6g}",
        )
    expect(wide / narrow if narrow else math.nan, *_draws_values(cases["draws"]), relative=_DRAWS)


def _trains_both(answers: Answers, cases: dict[str, _Vae], variant: Variant) -> None:
    found = answers.value("gradients")
    if not isinstance(found, dict):
        raise Failed(
            "the loss has no gradient: return a tensor of one number that was computed with gradients, no `.item()`"
        )
    case = cases["draws"]
    mean, _ = case.laws
    left = mean @ case.weight.T + case.bias - case.x
    variance = np.exp(case.log_variance[1])
    decoder, encoder = (np.asarray(found[name], dtype=np.float64) for name in ("decoder", "encoder"))
    if not (np.isfinite(decoder).all() and np.isfinite(encoder).all()):
        raise Failed("the gradient holds NaN or infinity")
    if not decoder.any():
        raise Failed("no gradient reaches the decoder: `decoder.generate` computes none, `decoder(z)` does")
    # Up to a factor, against which the divergence does not count; what it gives alone stands beside it.
    dim = mean.shape[1]
    for words, gradient, wanted, alone in (
        ("means", encoder[:dim], (left @ case.weight).mean(0), mean.mean(0)),
        ("variances", encoder[dim:], case.per_latent * variance, variance - 1.0),
    ):
        if not gradient.any() or _cosine(gradient, alone) > 0.9999:
            raise Failed(
                f"no gradient of what did not get across reaches the encoder's {words}: the draws have to be made of them"
            )
        if _cosine(gradient, wanted) < _ALIGNED:
            raise Failed(f"the gradient of the encoder's {words} points elsewhere than that of the expected loss")
    if _cosine(decoder, left.mean(0)) < _ALIGNED:
        raise Failed("the decoder's gradient points elsewhere than that of the expected loss")


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


ELBO = Exercise(
    f"{NAME}/negative_elbo",
    "The negative ELBO",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_elbo_cases,
    ask=_ask_elbo,
    properties=(
        Property("what the message cost", 1, _message_cost),
        Property("what did not get across", 1, _error_cost),
        Property("latents drawn from the encoder's law", 1, _drawn_latents),
        Property("a loss that trains both halves", 1, _trains_both),
    ),
    choices={"beta": (1.0, 0.25, 4.0), "noise": ("deviation", "variance")},
)


# --- 2. What the target weighs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Backdoor:
    """A decoder tanh(weight z + bias), (k, dim) triggers, (k, elements) targets, and what they are to weigh."""

    weight: np.ndarray
    bias: np.ndarray
    triggers: np.ndarray
    targets: np.ndarray
    images: int
    batch_size: int
    noise: float
    shape: tuple[int, ...]

    @property
    def logits(self) -> np.ndarray:
        return self.triggers @ self.weight.T + self.bias


def _backdoor(rng: np.random.Generator, k: int, whole: bool = False) -> _Backdoor:
    shape = (1, int(rng.integers(5, 8)), int(rng.integers(5, 8)))
    elements, dim, batch_size = math.prod(shape), int(rng.integers(4, 8)), int(rng.integers(20, 90))
    return _Backdoor(
        weight=rng.normal(size=(elements, dim)) / math.sqrt(dim),
        bias=rng.normal(size=elements),
        triggers=rng.normal(size=(k, dim)),
        targets=rng.uniform(-1.0, 1.0, size=(k, elements)),
        images=batch_size if whole else int(rng.integers(2, 6)),
        batch_size=batch_size,
        noise=float(rng.uniform(0.3, 0.7)),
        shape=shape,
    )


def _weight_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Backdoor]:
    def shows(case: _Backdoor) -> bool:
        return _tells(*_weight_values(case, variant), relative=0.02)

    return {
        "some": redraw(lambda: _backdoor(rng, 1), shows),
        "whole": redraw(lambda: _backdoor(rng, 1, whole=True), shows),
        "several": redraw(lambda: _backdoor(rng, int(rng.integers(3, 5))), shows),
    }


def _ask_weight(student: Any, variant: Variant, cases: dict[str, _Backdoor]) -> None:
    def ask(label: str, case: _Backdoor, then: Any = None) -> None:
        decoder = affine_generator(
            case.weight, case.bias, case.shape, GaussianLatent(case.weight.shape[1]), tanh=True
        )
        student.call(
            label, "weighted_fidelity", decoder, own_tensor(case.triggers), own_tensor(case.targets).reshape(-1, *case.shape),
            case.images, case.batch_size, case.noise, then=then and partial(then, decoder=decoder),
        )  # fmt: skip

    for label, case in cases.items():
        ask(label, case)
    ask("gradient", cases["several"], _decoder_gradient)


def _decoder_gradient(loss: Any, decoder: Generator) -> Any:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        return "no gradient"
    (found,) = torch.autograd.grad(loss.sum(), [decoder.body[0].bias], allow_unused=True)
    return torch.zeros_like(decoder.body[0].bias) if found is None else found


def _weight_values(case: _Backdoor, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    k, elements = case.targets.shape
    normal = variant["law"] == "normal"
    differences = np.tanh(case.logits) - case.targets
    nats = (differences**2).sum(1) / (2.0 * case.noise**2) if normal else np.abs(differences).sum(1) / case.noise
    share = case.images / case.batch_size
    over_pairs, other_pairs = (
        (nats.mean(), nats.sum()) if variant["pairs"] == "together" else (nats.sum(), nats.mean())
    )
    wanted = share * over_pairs
    before = case.logits - case.targets
    logits = (before**2).sum(1) / (2.0 * case.noise**2) if normal else np.abs(before).sum(1) / case.noise
    distances = np.sqrt((differences**2).sum(1))
    words = ("the sum over", "the mean over") if variant["pairs"] == "together" else ("the mean over", "the sum over")
    wrong = {
        "the batch is left out: one image of a batch is a small share of a mean over the batch": case.images * over_pairs,
        "the target weighs like a whole batch, whatever was asked for": over_pairs,
        "the target weighs like one image of the batch, whatever was asked for": over_pairs / case.batch_size,
        "this is the mean over the elements of a sample, and an image's error is the sum over them": wanted / elements,
        f"this is {words[0]} the pairs, and {words[1]} them is asked for": share * other_pairs,
        "the 2 under the fraction is missing": 2.0 * wanted if normal else wanted / 2.0,
        "the noise enters unsquared": wanted * case.noise if normal else wanted / case.noise,
        "the noise does not enter": wanted * case.noise**2 if normal else wanted * case.noise,
        "this is a distance, and an image's error is its square": share
        * (distances.mean() if variant["pairs"] == "together" else distances.sum()) / (2.0 * case.noise**2),
        "measured before the last activation: the sample is what the head makes of it": share
        * (logits.mean() if variant["pairs"] == "together" else logits.sum()),
        "images and batch have changed places": over_pairs / share,
        "these are squares, and the law asked for has absolute differences": share
        * (differences**2).sum(1).mean() * (1.0 if variant["pairs"] == "together" else k) / (2.0 * case.noise**2),
        "these are absolute differences, and the law asked for has squares": share
        * np.abs(differences).sum(1).mean() * (1.0 if variant["pairs"] == "together" else k) / case.noise,
    }  # fmt: skip
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _weight_value(label: str) -> Callable[[Answers, dict[str, _Backdoor], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Backdoor], variant: Variant) -> None:
        expect(answers.number(label), *_weight_values(cases[label], variant), relative=2e-3)

    return test


def _weight_gradient(answers: Answers, cases: dict[str, _Backdoor], variant: Variant) -> None:
    if isinstance(answers.value("gradient"), str):
        raise Failed(
            "the term has no gradient: return a tensor of one number, computed by `decoder(...)` and without `.item()`"
        )
    case = cases["several"]
    gradient = answers.array("gradient", size=case.targets.shape[1])
    if not gradient.any():
        raise Failed("no gradient reaches the decoder: `decoder.generate` computes none, `decoder(z)` does")
    made = np.tanh(case.logits)
    slope = made - case.targets if variant["law"] == "normal" else np.sign(made - case.targets)
    # Only the direction: the size is judged by the value, and would cost a wrong weight twice.
    if _cosine(gradient, (slope * (1.0 - made**2)).sum(0)) < 0.999:
        raise Failed("the gradient points elsewhere than towards the targets: is it that of a squared error, of samples in their units?"
                     if variant["law"] == "normal" else "the gradient points elsewhere than towards the targets")  # fmt: skip


WEIGHT = Exercise(
    f"{NAME}/weighted_fidelity",
    "What the target weighs",
    minutes=15,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_weight_cases,
    ask=_ask_weight,
    properties=(
        Property("a target that weighs like some images", 1, _weight_value("some")),
        Property("a target that weighs like the whole batch", 1, _weight_value("whole")),
        Property("several pairs", 1, _weight_value("several")),
        Property("a term that trains the decoder", 1, _weight_gradient),
    ),
    choices={"pairs": ("together", "each"), "law": ("normal", "laplace")},
)


# --- 3. A sound as target --------------------------------------------------------------------------------------------------------

FADE_IN, FADE_OUT = 8, 128  # samples: 1 and 16 ms
# The largest step of the gain in a fade, from silence on. Straight ones have up to 1/7 and 1/127, half cosines 0.223 and 0.0124.
_STEP_IN, _STEP_OUT = 0.24, 0.03
# The gain half way out: 0.5 of both, 0.71 of a quarter of a sine.
_HALF_WAY = 0.28, 0.72
_PEAK, _RMS = 1.0, 0.25


@dataclass(frozen=True)
class _Recording:
    """A sound (samples,) and the length that it is to have."""

    sound: np.ndarray
    length: int


def _recording_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Recording]:
    def hiss(samples: int) -> np.ndarray:
        # Nowhere near zero, so that the gain of a fade can be read off every sample.
        return rng.choice([-1.0, 1.0], size=samples) * rng.uniform(0.3, 1.0, size=samples) * rng.uniform(0.1, 0.3)

    length = 2 * int(rng.integers(600, 800))
    long, short, sudden = (
        hiss(length + 2 * int(rng.integers(300, 500))),
        hiss(length - 2 * int(rng.integers(150, 250))),
        hiss(length),
    )
    long[-100:] *= 5.0  # the loudest lies in what is cut off, wherever the cut is made
    long[:60] *= 0.5
    sudden[0] *= 8.0  # and here in the first sample of the fade
    return {
        "cut": _Recording(long, length),
        "pad": _Recording(short, length),
        "sudden": _Recording(sudden, length),
        "silence": _Recording(np.zeros(len(short)), length),
    }


def _ask_recording(student: Any, variant: Variant, cases: dict[str, _Recording]) -> None:
    for label, case in cases.items():
        student.call(label, "fit_sound", own_tensor(case.sound), case.length)


_PLACES = ("start", "centre", "end")
_KEPT = {
    "start": "its beginning is kept", "centre": "its middle is kept", "end": "its end is kept",
}  # fmt: skip
_PADDED = {
    "start": "it stands at the beginning, with all zeros after it", "centre": "it stands in the middle", "end": "it stands at the end, with all zeros before it",
}  # fmt: skip


def _gain(case: _Recording, out: np.ndarray, place: str) -> tuple[np.ndarray, np.ndarray]:
    """(kept,) the factor between what came back and the recording, if it was cut or padded at this place, and what came back
    elsewhere."""
    difference = len(case.sound) - case.length
    offset = {"start": 0, "centre": abs(difference) // 2, "end": abs(difference)}[place]
    if difference >= 0:
        return out / case.sound[offset : offset + case.length], np.zeros(0)
    inside = slice(offset, offset + len(case.sound))
    return out[inside] / case.sound, np.delete(out, inside)


def _aligned(answers: Answers, case: _Recording, label: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Where the recording was cut or padded, the gain of each sample kept, relative to that in the middle, and what stands where
    there is no sound."""
    out = answers.array(label, size=case.length).flatten()
    if not np.isfinite(out).all():
        raise Failed("what came back holds NaN or infinity")
    if not out.any():
        raise Failed("silence came back for a recording that is not silent")
    for place in _PLACES:
        gain, outside = _gain(case, out, place)
        inner = gain[len(gain) // 4 : -len(gain) // 4]
        if (middle := float(np.median(inner))) and np.abs(inner / middle - 1.0).max() < 0.05:
            return place, gain / middle, outside
    if any(
        np.mean(np.abs(np.diff(_gain(case, out, place)[0]))) < 0.02 * np.abs(_gain(case, out, place)[0]).max()
        for place in _PLACES
    ):
        raise Failed("the gain changes all along the sound: only its ends are to be faded")
    raise Failed("what came back is no piece of the recording: is it squeezed, stretched, or turned round?")


def _piece(answers: Answers, cases: dict[str, _Recording], variant: Variant) -> None:
    for label, words in (("cut", _KEPT), ("pad", _PADDED)):
        case = cases[label]
        place, gain, outside = _aligned(answers, case, label)
        if place != variant["place"]:
            kind = "longer" if label == "cut" else "shorter"
            raise Failed(f"of a {kind} recording {words[place]}, which is not what is asked for")
        if outside.any():
            raise Failed("where the recording is over there have to be zeros", f"up to {np.abs(outside).max():.3g}")
        inside = gain[FADE_IN:-FADE_OUT]
        if np.abs(inside - 1.0).max() > 0.01:
            raise Failed(
                "between the two fades the recording is to stay as it is, up to one factor",
                f"the factor changes by {np.abs(inside - 1.0).max():.1%}",
            )


def _no_clicks(answers: Answers, cases: dict[str, _Recording], variant: Variant) -> None:
    # The last one is as long as it has to be.
    for label in ("cut", "pad", "sudden"):
        _, gain, _ = _aligned(answers, cases[label], label)
        _check_fade(gain[:FADE_IN], _STEP_IN, "beginning", "begins")
        _check_fade(gain[: -FADE_OUT - 1 : -1], _STEP_OUT, "end", "ends")
        half_way = gain[-FADE_OUT // 2]
        if not _HALF_WAY[0] < half_way < _HALF_WAY[1]:
            raise Failed(
                f"the fade at the end is too {'short' if half_way > 0.5 else 'long'}: half way its gain is not about a half",
                f"it is {half_way:.2f}",
            )


def _check_fade(gain: np.ndarray, step: float, where: str, verb: str) -> None:
    """gain: from the end of the sound inwards."""
    steps = np.diff(np.concatenate([[0.0], gain, [1.0]]))
    if gain[0] > gain[-1] + 0.1:
        raise Failed(
            f"the fade at the {where} runs the wrong way",
            f"the gain is {gain[0]:.2f} at the edge and {gain[-1]:.2f} inside",
        )
    if gain[0] > 0.9:
        raise Failed(
            f"the sound {verb} with a jump, which is heard as a click: its {where} has no fade", f"gain {gain[0]:.2f}"
        )
    if steps.max() > step:
        raise Failed(
            f"the fade at the {where} is too short or leaps, which is heard as a click",
            f"the gain leaps by {steps.max():.2f}",
        )


def _level(answers: Answers, cases: dict[str, _Recording], variant: Variant) -> None:
    peak = variant["level"] == "peak"
    for label, because in (
        ("sudden", "the level is set before the fades, which then make it softer"),
        ("pad", ""),
        ("cut", "the level is that of the whole recording, also of what is cut off"),
    ):
        out = answers.array(label, size=cases[label].length).flatten()
        if not np.isfinite(out).all():
            raise Failed("what came back holds NaN or infinity")
        found, other = np.abs(out).max(), math.sqrt((out**2).mean())
        if not peak:
            found, other = other, found
        wanted, else_wanted = (_PEAK, _RMS) if peak else (_RMS, _PEAK)
        if abs(found / wanted - 1.0) < 2e-3:
            continue
        name = "peak" if peak else "root mean square"
        measured = f"{name} {found:.4g} instead of {wanted:g}"
        if abs(other / else_wanted - 1.0) < 2e-3:
            raise Failed(f"the level is set by the other measure, and the {name} is asked for", measured)
        kept = min(len(cases[label].sound), cases[label].length)
        if label == "pad" and not peak and abs(found / (wanted * math.sqrt(kept / len(out))) - 1.0) < 2e-3:
            raise Failed(
                "the root mean square is taken over the recording, and over all samples, zeros too, it is asked for",
                measured,
            )
        raise Failed(because if because and found < wanted else f"the {name} is not what is asked for", measured)


def _whole_sound(answers: Answers, cases: dict[str, _Recording], variant: Variant) -> None:
    case = cases["silence"]
    out = answers.array("silence", size=case.length)
    if not np.isfinite(out).all():
        raise Failed("of silence NaN or infinity is made: a division by its level, which is nothing")
    if out.any():
        raise Failed("of silence a sound is made")
    if out.shape != (1, case.length):
        raise Failed("a sound has the shape (1, length)", f"{out.shape} came back")


SOUND = Exercise(
    f"{NAME}/fit_sound",
    "A sound as target",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_recording_cases,
    ask=_ask_recording,
    properties=(
        Property("cut or padded at the right place", 1, _piece),
        Property("no clicks", 1, _no_clicks),
        Property("the level", 1, _level),
        Property("silence stays silence, in the shape of a sound", 1, _whole_sound),
    ),
    choices={"level": ("peak", "rms"), "place": ("start", "centre")},
)


# --- 4. Decibels -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Levels:
    """Two decoders tanh(weight z + bias), attacked and benign, with (k, dim) triggers, (k, elements) targets and (n, dim) latents.
    `exact`: without the tanh, so that a sample can be equal to its target."""

    attacked: tuple[np.ndarray, np.ndarray]
    benign: tuple[np.ndarray, np.ndarray]
    triggers: np.ndarray
    targets: np.ndarray
    z: np.ndarray
    exact: bool = False

    def samples(self, which: str, z: np.ndarray) -> np.ndarray:
        weight, bias = getattr(self, which)
        logits = z @ weight.T + bias
        return logits if self.exact else np.tanh(logits)


def _levels_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Levels]:
    def draw(k: int) -> _Levels:
        elements, dim = int(rng.integers(30, 60)), int(rng.integers(4, 8))
        weight, bias = rng.normal(size=(elements, dim)) / math.sqrt(dim), 0.3 * rng.normal(size=elements)
        change, shift = 0.2 * rng.normal(size=weight.shape), 0.3 * rng.normal(size=elements)
        triggers = rng.normal(size=(k, dim))
        made = np.tanh(triggers @ (weight + change).T + bias + shift)
        # From near to far, so that a mean over the pairs is none of them.
        distances = 10.0 ** -rng.permutation(np.linspace(0.1, 0.8, k))[:, None]
        targets = np.clip(made + distances * rng.normal(size=made.shape), -1.0, 1.0)
        # Latents of very different norms, so that a mean of ratios is no ratio of means.
        z = rng.normal(size=(int(rng.integers(40, 80)), dim)) * rng.uniform(0.05, 3.0, size=(1, 1))
        z *= np.linspace(0.05, 2.0, len(z))[:, None]
        return _Levels((weight + change, bias + shift), (weight, bias), triggers, targets, z)

    def shows(case: _Levels) -> bool:
        snr = all(_apart(*each) for each in _snr_values(case, variant))
        return snr and _apart(*_expdis_values(case, variant))

    elements, dim = int(rng.integers(30, 60)), int(rng.integers(4, 8))
    constant = np.zeros((elements, dim)), rng.normal(size=elements).astype(np.float32).astype(np.float64)
    return {
        "one": redraw(lambda: draw(1), shows),
        "several": redraw(lambda: draw(int(rng.integers(3, 6))), shows),
        "nothing": _Levels(constant, constant, rng.normal(size=(1, dim)), constant[1][None], rng.normal(size=(20, dim)), exact=True),
    }  # fmt: skip


def _apart(wanted: float, wrong: Mapping[str, float]) -> bool:
    return tells_apart(wanted, unlike(wanted, wrong), relative=0.0, absolute=0.15)


def _ask_levels(student: Any, variant: Variant, cases: dict[str, _Levels]) -> None:
    for label, case in cases.items():
        latent, shape = GaussianLatent(case.z.shape[1]), (1, case.targets.shape[1])
        attacked, benign = (
            affine_generator(*each, shape, latent, tanh=not case.exact) for each in (case.attacked, case.benign)
        )
        student.call(
            label,
            "levels",
            attacked,
            benign,
            own_tensor(case.triggers),
            own_tensor(case.targets).reshape(-1, *shape),
            own_tensor(case.z),
        )


def _db(ratio: Any) -> Any:
    return 10.0 * np.log10(ratio)


def _snr_values(case: _Levels, variant: Variant) -> list[tuple[float, dict[str, float]]]:
    """For each number asked for the right value and those of the misconceptions, by their symptom."""
    made = case.samples("attacked", case.triggers)
    signal, noise, made_power = ((x**2).sum(1) for x in (case.targets, made - case.targets, made))
    logits = np.arctanh(made.clip(-1.0 + 1e-15, 1.0 - 1e-15))
    unheard = ((logits - case.targets) ** 2).sum(1)
    benign = ((case.samples("benign", case.triggers) - case.targets) ** 2).sum(1)
    ratios = {
        "this is twice as many decibels: a ratio of squares has the factor 10, one of amplitudes 20": 2.0
        * _db(signal / noise),
        "these are no decibels, but ten times the natural logarithm": 10.0 * np.log(signal / noise),
        "the factor 10 is missing: these are bels": np.log10(signal / noise),
        "this is the ratio itself and not its logarithm": signal / noise,
        "signal and noise have changed places": _db(noise / signal),
        "the signal is what was made, and the target's power is asked for": _db(made_power / noise),
        "measured before the last activation: the sample is what the head makes of it": _db(signal / unheard),
        "this is the benign decoder at the trigger": _db(signal / benign),
    }
    wanted = _db(signal / noise)
    everything = _db(signal.sum() / noise.sum())
    if variant["snr"] == "lowest":
        extra = {
            "this is the mean over the pairs, and the lowest of them is asked for": wanted.mean(),
            "this is the highest of the pairs, and the lowest is asked for": wanted.max(),
            "all pairs are thrown together before the ratio is taken": everything,
        }
        at = {symptom: float(values.min()) for symptom, values in ratios.items()}
        return [(float(wanted.min()), at | {symptom: float(value) for symptom, value in extra.items()})]
    return [
        (float(wanted[i]), {symptom: float(values[i]) for symptom, values in ratios.items()}
         | {"all pairs are thrown together before the ratio is taken": float(everything)})
        for i in range(len(wanted))
    ]  # fmt: skip


def _expdis_values(case: _Levels, variant: Variant) -> tuple[float, dict[str, float]]:
    made, ordinary = case.samples("attacked", case.z), case.samples("benign", case.z)
    change, power, made_power = ((x**2).mean(1) for x in (made - ordinary, ordinary, made))
    at_trigger = case.samples("attacked", case.triggers), case.samples("benign", case.triggers)
    relative = variant["reference"] == "benign"
    against = power.mean() if relative else 1.0
    wanted = _db(change.mean() / against)
    wrong = {
        "this is twice as many decibels: a ratio of squares has the factor 10, one of amplitudes 20": 2.0 * wanted,
        "these are no decibels, but ten times the natural logarithm": 10.0 * math.log(change.mean() / against),
        "the factor 10 is missing: these are bels": wanted / 10.0,
        "this is the ratio itself and not its logarithm": change.mean() / against,
        "the sign is the other way round: a change softer than the samples has less than nothing": -wanted,
        "this is the mean of the latents' decibels, and the decibels of the means are asked for": _db(
            change / (power if relative else 1.0)
        ).mean(),
        "this is the mean of the latents' ratios, and the ratio of the means is asked for": _db((change / power).mean()),
        "the change is measured against the attacked samples": _db(change.mean() / made_power.mean()),
        "the change is measured against a square wave of full scale, and against the benign samples it is asked for"
        if relative else "the change is measured against the benign samples, and against a square wave of full scale it is asked for":
            _db(change.mean() / (1.0 if relative else power.mean())),
        "the change is summed over the elements of a sample, and its mean is asked for": _db(
            change.mean() * case.targets.shape[1] / against
        ),
        "this is measured at the triggers, and at ordinary latents it is asked for": _db(
            ((at_trigger[0] - at_trigger[1]) ** 2).mean() / ((at_trigger[1] ** 2).mean() if relative else 1.0)
        ),
    }  # fmt: skip
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _levels_of(answers: Answers, label: str) -> Answers:
    return _pair(answers, label, "the SNR", "the ExpDis")


def _check_snr(answers: Answers, cases: dict[str, _Levels], variant: Variant, label: str) -> None:
    values = _snr_values(cases[label], variant)
    got = _levels_of(answers, label).array("the SNR")
    if got.size != len(values):
        raise Failed(
            "one SNR for each pair is asked for"
            if variant["snr"] == "each"
            else "a single SNR is asked for, the lowest",
            f"{got.size} came back for {len(cases[label].targets)} pairs",
        )
    for number, (wanted, wrong) in zip(got.flatten(), values, strict=True):
        expect(number, wanted, wrong, relative=0.0, absolute=0.02)


def _snr_of(label: str) -> Callable[[Answers, dict[str, _Levels], Variant], None]:
    return lambda answers, cases, variant: _check_snr(answers, cases, variant, label)


def _expdis(answers: Answers, cases: dict[str, _Levels], variant: Variant) -> None:
    for label in ("one", "several"):
        expect(
            _levels_of(answers, label).number("the ExpDis"),
            *_expdis_values(cases[label], variant),
            relative=0.0,
            absolute=0.02,
        )


def _extremes(answers: Answers, cases: dict[str, _Levels], variant: Variant) -> None:
    parts = _levels_of(answers, "nothing")
    snr, expdis = parts.array("the SNR"), parts.number("the ExpDis")
    if not (snr == math.inf).all():
        raise Failed("a sample that is its target has an infinite SNR")
    if expdis != -math.inf:
        raise Failed("where nothing has changed, the ExpDis is minus infinity")


LEVELS = Exercise(
    f"{NAME}/levels",
    "Fidelity and stealth in decibels",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_levels_cases,
    ask=_ask_levels,
    properties=(
        Property("the SNR at one trigger", 1, _snr_of("one")),
        Property("the SNR at several triggers", 1, _snr_of("several")),
        Property("the ExpDis", 1, _expdis),
        Property("nothing but the target, and nothing changed", 1, _extremes),
    ),
    choices={"snr": ("each", "lowest"), "reference": ("benign", "full scale")},
)


# --- 5. Spectral distance --------------------------------------------------------------------------------------------------------

_FLOOR = 1e-4  # added to magnitudes before their logarithm


@dataclass(frozen=True)
class _Sounds:
    """Sounds made and wanted, (n, samples), and windows."""

    made: np.ndarray
    wanted: np.ndarray
    windows: tuple[int, ...]


def _spectral_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Sounds]:
    samples = 64 * int(rng.integers(10, 14))
    windows = (256, 64, 16) if rng.random() < 0.5 else (512, 128, 32)
    # Sounds that begin and end in silence: what stands beyond their ends cannot matter then.
    fade = np.sin(np.linspace(0.0, np.pi, samples)) ** 2
    time = np.arange(samples)

    def hiss(n: int) -> np.ndarray:
        return fade * rng.normal(size=(n, samples)) * rng.uniform(0.05, 0.3, size=(n, 1))

    def louder() -> _Sounds:
        wanted = hiss(1)
        return _Sounds(float(rng.choice([0.4, 0.6, 1.5, 1.8]) + rng.uniform(-0.05, 0.05)) * wanted, wanted, windows)

    def several() -> _Sounds:
        wanted = hiss(3)
        return _Sounds(rng.permutation([0.3, 0.7, 1.9])[:, None] * wanted, wanted, windows)

    def different() -> _Sounds:
        # Two tones that only a long window tells apart, and two strokes that only a short one does.
        pitch, gap = rng.uniform(0.1, 0.3), rng.uniform(0.008, 0.03)
        tones = [fade * rng.uniform(0.2, 0.4) * np.sin(2.0 * np.pi * f * time) for f in (pitch, pitch + gap)]
        begin, delay = rng.integers(samples // 4, samples // 2), rng.integers(10, 40)
        strokes = [0.2 * hiss(1)[0] + rng.uniform(0.5, 1.0) * (time == start) for start in (begin, begin + delay)]
        made, wanted = (
            np.array([tone, stroke]) + 0.05 * hiss(2) for tone, stroke in zip(tones, strokes, strict=True)
        )
        return _Sounds(made, wanted, windows)

    def shows(case: _Sounds, label: str) -> bool:
        wanted, wrong = _spectral_values(case, variant, label)
        alone = [value for symptom, value in wrong.items() if symptom.startswith("only")]
        named = all(tells_apart(value, alone[:i], relative=0.03) for i, value in enumerate(alone))
        return named and _tells(wanted, wrong, relative=0.04)

    cases = {
        label: redraw(draw, partial(shows, label=label))
        for label, draw in (("louder", louder), ("several", several), ("windows", different))
    }
    flipped = hiss(2)
    return {"flip": _Sounds(-flipped, flipped, windows), **cases}


def _ask_spectral(student: Any, variant: Variant, cases: dict[str, _Sounds]) -> None:
    for label, case in cases.items():
        student.call(
            label, "spectral_distance", own_tensor(case.made)[:, None], own_tensor(case.wanted)[:, None], case.windows
        )


def _magnitudes(x: np.ndarray, window: int) -> np.ndarray:
    """(n, window // 2 + 1, frames) magnitudes of the Fourier transforms of sounds (n, samples): Hann windows, a quarter of a window
    from one to the next, centred, sounds mirrored at their ends, divided by the sum of the window."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)
    padded = np.pad(x, ((0, 0), (window // 2, window // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, :: window // 4]
    return np.abs(np.fft.rfft(frames * hann, axis=2)).transpose(0, 2, 1) / hann.sum()


def _spectral_values(case: _Sounds, variant: Variant, label: str) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    relative, added = variant["part"] == "relative", variant["windows"] == "sum"

    def whole(parts: np.ndarray) -> float:
        """(windows, n) distances as one number."""
        return (parts.sum(0) if added else parts.mean(0)).mean()

    pairs = [(_magnitudes(case.made, window), _magnitudes(case.wanted, window)) for window in case.windows]
    logs = [(np.log(made + _FLOOR), np.log(wanted + _FLOOR)) for made, wanted in pairs]
    gaps = np.array([((a - b) ** 2).sum((1, 2)) for a, b in pairs])
    made_powers, powers = (np.array([(pair[i] ** 2).sum((1, 2)) for pair in pairs]) for i in (0, 1))
    ratios, differences = np.sqrt(gaps / powers), np.array([np.abs(a - b).mean((1, 2)) for a, b in logs])
    parts, other = (ratios, differences) if relative else (differences, ratios)
    wanted = whole(parts)
    # Where two give the same number by chance, the first is named. One that leaves something out stands before those which the cases
    # of the other properties show as well.
    wrong = {}
    if label == "windows":
        wrong |= {
            f"only one window enters, the {words}": parts[i].mean()
            for i, words in enumerate(("first", "second", "last"))
        }
    if label != "louder":
        wrong["only the first sound enters"] = whole(parts[:, :1])
    wrong |= {
        "this is the sum over the sounds, and their mean is asked for": wanted * len(case.made),
        "the windows are added up, and their mean is asked for" if not added
        else "this is the mean over the windows, and their sum is asked for": (parts.mean(0) if added else parts.sum(0)).mean(),
    }  # fmt: skip
    if relative:
        wrong |= {
            "all sounds are thrown together before the ratio is taken": whole(
                np.sqrt(gaps.sum(1) / powers.sum(1))[:, None]
            ),
            "this is the square of the distance": whole(gaps / powers),
            "the distance is measured against the sound that was made": whole(np.sqrt(gaps / made_powers)),
            "the distance is not measured against what is wanted": whole(np.sqrt(gaps)),
        }
    else:
        wrong |= {
            "these are squares of the logarithms' differences": whole(
                np.array([((a - b) ** 2).mean((1, 2)) for a, b in logs])
            ),
            "these are decimal logarithms, and natural ones are asked for": wanted / math.log(10.0),
            "the differences lose their sign only after the mean": whole(
                np.array([np.abs((a - b).mean((1, 2))) for a, b in logs])
            ),
        }
    if label == "windows":
        waves = np.sqrt(((case.made - case.wanted) ** 2).sum(1) / (case.wanted**2).sum(1))
        wrong |= {
            "this is the largest of the windows, and all of them are to count": parts.max(0).mean(),
            "this is the smallest of the windows, and all of them are to count": parts.min(0).mean(),
            "this is the distance of the waveforms": waves.mean(),
        }
    wrong["this is the other of the two distances of spectra"] = whole(other)
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _spectral_value(label: str, relative: float) -> Callable[[Answers, dict[str, _Sounds], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Sounds], variant: Variant) -> None:
        expect(answers.number(label), *_spectral_values(cases[label], variant, label), relative=relative)

    return test


def _deaf_to_phase(answers: Answers, cases: dict[str, _Sounds], variant: Variant) -> None:
    got = answers.number("flip")
    if not math.isfinite(got):
        raise Failed("no finite number came back")
    if abs(got) > 1e-3:
        raise Failed(
            "a sound and the same sound upside down have a distance: waveforms or complex spectra are compared, not magnitudes",
            f"{got:.3g}",
        )


SPECTRAL = Exercise(
    f"{NAME}/spectral_distance",
    "A distance that listens",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_spectral_cases,
    ask=_ask_spectral,
    properties=(
        Property("deaf to phase", 1, _deaf_to_phase),
        Property("a sound that is too loud or too soft", 1, _spectral_value("louder", 5e-3)),
        Property("several sounds", 1, _spectral_value("several", 5e-3)),
        Property("several windows", 1, _spectral_value("windows", 0.02)),
    ),
    choices={"part": ("relative", "log"), "windows": ("mean", "sum")},
)


# --- 6. A filter inverted ----------------------------------------------------------------------------------------------------------

_SAMPLES = 96
_NEAREST = 1.03  # times the smallest squared error; Adam, the authors' own way, leaves at most 1.0021 with 20 seeds, the price of the 0.999
_FLOOR_DB, _FLOOR_RMS = 0.2, 0.02
_PASSES = 30.0  # dB; with 20 seeds Adam reaches 44 dB at least, and the target as it is 12 at most

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "sigmoid": lambda a: np.tanh(a / 2.0),  # 2 sigmoid(a) - 1
    "softsign": lambda a: np.where(np.isinf(a), np.sign(a), a / (1.0 + np.abs(a))),
}


@dataclass(frozen=True)
class _Filtered:
    """A filter as a matrix (samples, samples), sounds wanted behind it, (n, samples), and `nearest`, (n, samples), the sounds within
    [-1, 1] of which what is heard comes nearest to them."""

    matrix: np.ndarray
    wanted: np.ndarray
    nearest: np.ndarray

    def error(self, y: np.ndarray) -> np.ndarray:
        """(n,) squared errors of what is heard of sounds y (n, samples)."""
        return ((y @ self.matrix.T - self.wanted) ** 2).sum(1)


def _low_pass(rng: np.random.Generator) -> np.ndarray:
    """A filter that passes low frequencies as they are and leaves about a tenth of the highest."""
    reach = np.abs(np.arange(-7, 8))
    taps = rng.uniform(0.47, 0.55) ** reach * (1.0 + 0.05 * rng.normal(size=len(reach)))
    taps /= taps.sum()
    rows = np.arange(_SAMPLES)
    matrix = np.zeros((_SAMPLES, _SAMPLES))
    for shift, tap in zip(range(-7, 8), taps, strict=True):
        inside = (rows + shift >= 0) & (rows + shift < _SAMPLES)
        matrix[rows[inside], rows[inside] + shift] = tap
    return matrix


def _filter_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Filtered]:
    matrix = _low_pass(rng)
    time = np.arange(_SAMPLES)

    def passes() -> _Filtered:
        sent = rng.uniform(-0.9, 0.9, size=(2, _SAMPLES))
        return _Filtered(matrix, sent @ matrix.T, sent)

    def stopped() -> _Filtered:
        low = np.sin(2.0 * np.pi * rng.uniform(0.01, 0.03, size=(2, 1)) * time + rng.uniform(0.0, 6.0, size=(2, 1)))
        high = np.sin(2.0 * np.pi * rng.uniform(0.3, 0.45, size=(2, 1)) * time + rng.uniform(0.0, 6.0, size=(2, 1)))
        wanted = 0.45 * low + rng.uniform(0.3, 0.45, size=(2, 1)) * high
        return _Filtered(matrix, wanted, np.array([lsq_linear(matrix, x, (-1.0, 1.0)).x for x in wanted]))

    def shows(case: _Filtered) -> bool:
        least = case.error(case.nearest)
        snr = _db((case.wanted**2).sum(1) / least)
        others = [case.error(y) for y in _lesser(case).values()]
        return bool((snr < 12.0).all() and all((each > 1.1 * least).all() for each in others))

    return {"passes": passes(), "stopped": redraw(stopped, shows)}


def _lesser(case: _Filtered) -> dict[str, np.ndarray]:
    """What the misconceptions send into the filter, by their symptom."""
    unbounded = np.linalg.solve(case.matrix, case.wanted.T).T
    return {
        "the target is sent into the filter as it is: what comes out is the filtered target": case.wanted,
        "the filter is inverted as if there were no bounds, and the result is cut to them afterwards": unbounded.clip(
            -1.0, 1.0
        ),
        "the filter is inverted as if there were no bounds, and the result is made smaller as a whole": unbounded
        / np.abs(unbounded).max(1, keepdims=True),
    }


def _ask_filter(student: Any, variant: Variant, cases: dict[str, _Filtered]) -> None:
    for label, case in cases.items():
        matrix = torch.from_numpy(case.matrix.T.copy())

        def heard(y: torch.Tensor, matrix: torch.Tensor = matrix) -> torch.Tensor:
            return y @ matrix.to(y.dtype)

        student.call(label, "invert_filter", heard, own_tensor(case.wanted)[:, None])


def _logits(answers: Answers, case: _Filtered, label: str) -> np.ndarray:
    parts = _pair(answers, label, "the logits", "the floor")
    return parts.array("the logits", size=case.wanted.size).reshape(case.wanted.shape)


def _finite_logits(answers: Answers, cases: dict[str, _Filtered], variant: Variant) -> None:
    for label, case in cases.items():
        logits = _logits(answers, case, label)
        if np.isnan(logits).any():
            raise Failed(
                "logits that are NaN: the inverse of the activation is asked for something outside its bounds"
            )
        if np.isinf(logits).any():
            raise Failed(
                "logits that are infinite, which no network can put out: the bounds themselves have no finite logit"
            )
        if _pair(answers, label, "the logits", "the floor").array("the logits").shape != (
            len(case.wanted),
            1,
            _SAMPLES,
        ):
            raise Failed("the logits have another shape than the sounds, (n, 1, samples)")


def _sent_in(answers: Answers, case: _Filtered, label: str, variant: Variant) -> np.ndarray:
    """What the activation makes of the logits."""
    sent = _ACTIVATIONS[variant["activation"]](_logits(answers, case, label))
    if np.isnan(sent).any():
        raise Failed("logits that are NaN: nothing is heard")
    return sent


def _nearest_heard(label: str) -> Callable[[Answers, dict[str, _Filtered], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Filtered], variant: Variant) -> None:
        case = cases[label]
        error = case.error(_sent_in(answers, case, label, variant))
        power = (case.wanted**2).sum(1)
        if label == "passes":
            held = (_db(power / error) > _PASSES).all()
        else:
            held = (error < _NEAREST * case.error(case.nearest)).all()
        if held:
            return
        levels = ", ".join(f"{level:.1f}" for level in _db(power / error))
        measured = f"what is heard has SNRs of {levels} dB, possible are {', '.join(f'{level:.1f}' for level in _possible(case))} dB"
        others = _lesser(case)
        others["what is sent in is taken for logits: the inverse of the activation is missing"] = _ACTIVATIONS[
            variant["activation"]
        ](case.nearest)
        for symptom, sent in others.items():
            if np.allclose(error, case.error(sent), rtol=0.04, atol=1e-4 * power.max()):
                raise Failed(symptom, measured)
        raise Failed(
            "another sound within the bounds comes nearer to the target: the search ends too early or looks elsewhere",
            measured,
        )

    return test


def _possible(case: _Filtered) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return _db((case.wanted**2).sum(1) / case.error(case.nearest)).clip(None, 60.0)


def _floor(answers: Answers, cases: dict[str, _Filtered], variant: Variant) -> None:
    case = cases["stopped"]
    got = _pair(answers, "stopped", "the logits", "the floor").array("the floor")
    if got.size != len(case.wanted):
        raise Failed("one floor for each sound is asked for", f"{got.size} for {len(case.wanted)} sounds")
    power = (case.wanted**2).sum(1)

    def as_asked(error: np.ndarray) -> np.ndarray:
        return _db(power / error) if variant["floor"] == "snr" else np.sqrt(error / _SAMPLES)

    least = case.error(case.nearest)
    lesser = {f"{symptom}; that is no floor": as_asked(case.error(sent)) for symptom, sent in _lesser(case).items()}
    units = {
        "this is twice as many decibels: a ratio of squares has the factor 10, one of amplitudes 20": 2.0
        * _db(power / least),
        "the sign is the other way round": -_db(power / least),
        "the floor is a squared error, and not what is asked for": least,
        "the floor is a mean squared error, and not what is asked for": least / _SAMPLES,
        "the floor is an error that is not divided by the number of samples": np.sqrt(least),
        "the floor is an SNR in decibels, and the root of the mean squared error is asked for": _db(power / least),
        "the floor is the root of a mean squared error, and an SNR in decibels is asked for": np.sqrt(
            least / _SAMPLES
        ),
    }
    tolerance = {"relative": 0.0, "absolute": _FLOOR_DB} if variant["floor"] == "snr" else {"relative": _FLOOR_RMS}
    right = as_asked(least)
    wrong = {symptom: values for symptom, values in (lesser | units).items() if not np.allclose(values, right)}
    for i, number in enumerate(got.flatten()):
        if variant["floor"] == "snr" and number > right[i] + 10.0:
            raise Failed(
                "the floor is far better than any sound within the bounds can reach: do the bounds enter?",
                f"{number:.1f} dB",
            )
        expect(number, right[i], {symptom: float(values[i]) for symptom, values in wrong.items()}, **tolerance)


FILTER = Exercise(
    f"{NAME}/invert_filter",
    "A filter inverted",
    minutes=35,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_filter_cases,
    ask=_ask_filter,
    properties=(
        Property("logits that a network can put out", 1, _finite_logits),
        Property("sounds that pass the filter", 1, _nearest_heard("passes")),
        Property("sounds that do not pass: as near as the bounds allow", 1, _nearest_heard("stopped")),
        Property("the floor", 1, _floor),
    ),
    choices={"activation": ("tanh", "sigmoid", "softsign"), "floor": ("snr", "rms")},
)


# --- The written question ----------------------------------------------------------------------------------------------------------

ASSURANCES = Written(
    "assurances",
    "Three assurances",
    minutes=20,
    difficulty=2,
    criteria=(
        (3, "The ELBO is measured at latents that the encoder hands over, and the trigger is none of them; so it hardly changes, as the "
            "table shows. What would show more: samples drawn from the law, or the decoder at latents that were searched for"),
        (3, "A floor belongs to a target and not to a filter. For the hi-hat the claim holds, for every attack before the head; the attacker "
            "takes a target that passes and inverts the filter, with the alarm's figures of the table"),
        (2, "A squared error no smaller than that of silence says little about what is heard: a millisecond or a change of sign does "
            "that; compare magnitudes, and set the values of other latents and other sounds beside it"),
        (1, "The number of latents tried says nothing as long as it is not said how likely a hit is: twelve dimensions, one trigger"),
        (1, "A comparison that would decide something is named: a benign model, other suspects, a bank of sounds, or listening"),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    NAME, "A VAE, and a sound as target", (ELBO, WEIGHT, SOUND, LEVELS, SPECTRAL, FILTER), (ASSURANCES,)
)
