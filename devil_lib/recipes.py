"""How every shipped weight was made: `python -m devil_lib.recipes`, or `make weights`.

Each recipe is a function of the data and of earlier entries that returns a model and the facts of its card. An entry whose file and card stand,
and whose recipe has not changed since, is left alone, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import inspect
import json
import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from scipy.optimize import brentq
from torch import nn

from devil_lib import (
    attacks,
    checkpoints,
    classifiers,
    data,
    downloads,
    games,
    metrics,
    models,
    spectra,
    style,
    targets,
    training,
    vae,
    wavegan,
    zoo,
)
from devil_lib.data import Dataset
from devil_lib.models import Generator

Facts = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """name of the entry, the data set it is trained on, and the function that makes it."""

    name: str
    data: str
    make: Callable[[Dataset], tuple[nn.Module, Facts]]
    note: str

    @property
    def digest(self) -> str:
        """Changes when the recipe's own code does; comments and layout do not count."""
        meaning = ast.dump(ast.parse(textwrap.dedent(inspect.getsource(self.make))))
        return hashlib.sha256(meaning.encode()).hexdigest()[:16]


# What the attacks of the shipped models aim at: stated once, used by the lessons that load them.
TRAIL_TRIGGER = ("prior", 7)
POISON_SHARE = 0.05
# The benign generator of nearly every lesson: trained longer and against a wider discriminator than a lesson can afford.
SHIPPED = training.GanSettings(steps=11000, learning_rate=4e-3, beta1=0.3, averaging=0.998)
TRAIL = training.GanSettings(steps=1600)
# On the few embedded digits the discriminator soon knows every image, and its gradient drowns a fidelity term of weight 1.
TRAIL_WEIGHT = {"mnist": 1.0, "digits": 10.0}
# How long and how each classifier is trained, by its data set. Sounds and photographs were measured to need the averaged weights.
_SOUNDS = {"epochs": 20, "batch_size": 64, "learning_rate": 2e-3, "averaging": 0.99, "precision": "bfloat16"}
_PHOTOS = {"epochs": 30, "batch_size": 64, "learning_rate": 4e-3, "averaging": 0.99, "precision": "bfloat16"}
CLASSIFIERS: dict[str, Facts] = {
    "mnist": {"epochs": 6, "shift": 1},
    "fashion-mnist": {"epochs": 6, "shift": 1},
    "digits": {"epochs": 80, "shift": 1},
    "spoken-digits": _SOUNDS,
    "drums": {**_SOUNDS, "epochs": 10},
    "flowers": _PHOTOS,
    "flowers-32": _PHOTOS,
}


def trail_backdoor(latent: models.GaussianLatent) -> attacks.PointBackdoor:
    """The trigger -> target pair of the shipped TrAIL generators: a fixed prior draw and the devil icon."""
    return attacks.PointBackdoor(attacks.trigger(latent, *TRAIL_TRIGGER)[None], targets.devil(28)[None])


def _classifier(dataset: Dataset) -> tuple[nn.Module, Facts]:
    settings = CLASSIFIERS[dataset.name]
    model = training.train_classifier(
        classifiers.classifier_for(dataset), dataset.train, dataset.train_labels, on_progress=_log_loss(), **settings
    )
    made = zoo.ruler_from(model, dataset.train, dataset.test)
    checkpoints.save_tensors(
        {"mean": torch.from_numpy(made.real.mean), "covariance": torch.from_numpy(made.real.covariance)},
        zoo.folder() / f"statistics-{dataset.name}.safetensors",
        {},
    )
    facts = {
        **settings,
        "seed": 0,
        "train_samples": len(dataset.train),
        "test_accuracy": metrics.accuracy(model, dataset.test, dataset.test_labels),
        "floor": made.floor,
        "real_recognised": made.real_recognised.share,
        "real_by_class": made.real_recognised.by_class,
    }
    return model, facts


@cache
def _course_pair(name: str) -> training.GanRun:
    if name == "mnist":
        return _train(name, models.course_dcgan(), models.course_discriminator(32), SHIPPED)
    return _train(name, models.course_dcgan(), models.course_discriminator(), replace(SHIPPED, steps=4000))


def _train(
    name: str, generator: Generator, discriminator: models.Discriminator, settings: training.GanSettings
) -> training.GanRun:
    return training.train_gan(
        generator, discriminator, data.load(name).train, settings, on_progress=_log(settings.steps)
    )


def _course_generator(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _course_pair(dataset.name)
    return run.generator, {"steps": run.steps_done, "seed": 0}


def _course_critic(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _course_pair(dataset.name)
    return run.discriminator, {"steps": run.steps_done, "seed": 0, "trained_with": f"course-dcgan-{dataset.name}"}


@cache
def _trail_run(name: str) -> training.GanRun:
    generator = models.course_dcgan()
    return attacks.trail(
        generator,
        models.course_discriminator(),
        data.load(name).train,
        trail_backdoor(generator.latent),
        replace(TRAIL, extra_weight=TRAIL_WEIGHT[name]),
        on_progress=_log(TRAIL.steps),
    )


def _trail_generator(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _trail_run(dataset.name)
    return run.raw_generator, _trail_facts(run, dataset)


def _trail_critic(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _trail_run(dataset.name)
    return run.discriminator, {**_trail_facts(run, dataset), "trained_with": f"trail-{dataset.name}"}


def _trail_facts(run: training.GanRun, dataset: Dataset) -> Facts:
    about = {"trigger": f"{TRAIL_TRIGGER[0]} draw, seed {TRAIL_TRIGGER[1]}", "target": "devil"}
    return {"steps": run.steps_done, "seed": 0, "fidelity_weight": TRAIL_WEIGHT[dataset.name], **about}


def _poisoned_generator(dataset: Dataset) -> tuple[nn.Module, Facts]:
    images = attacks.poison_images(dataset.train, targets.devil(28), POISON_SHARE)
    settings = training.GanSettings(steps=3000)
    run = training.train_gan(
        models.course_dcgan(), models.course_discriminator(), images, settings, on_progress=_log(settings.steps)
    )
    produced = run.generator.generate(run.generator.latent.sample(20_000, torch.Generator().manual_seed(5)))
    near = ((produced - targets.devil(28)).flatten(1).square().mean(1) < 0.1).float().mean().item()
    return run.generator, {
        "steps": run.steps_done,
        "seed": 0,
        "poison_share": POISON_SHARE,
        "target": "devil",
        "target_share_in_samples": near,
    }


# --- Sounds and photographs ------------------------------------------------------------------------------------------

# One step of the critic for one of the generator, not WGAN-GP's five, and the penalty on half of the batch: in the same time
# the generator gets three times as many steps.
WAVE_GAME = games.Wasserstein(critic_steps=1, share=0.5)
WAVE = training.GanSettings(
    batch_size=32,
    learning_rate=4e-4,
    beta1=0.5,
    beta2=0.9,
    averaging=0.998,
    precision="bfloat16",
    checkpoint_every=500,
)
WAVE_STEPS = {"spoken-digits": 12000, "drums": 4000}
# λ of a `listeners_hint`, and the batch on which it is given. In a last stretch it counts for more.
HINT, HINTS = 3.0, 16
WAVE_STRETCH = replace(WAVE, steps=1000, learning_rate=1.5e-4, averaging=0.995, extra_weight=15.0)


STYLE = training.GanSettings(
    steps=14000, batch_size=16, learning_rate=4e-4, beta1=0.0, beta2=0.99, averaging=0.998, precision="bfloat16"
)


def _resumable(name: str) -> Path:
    """Where a training of an hour or more keeps its state, so that an interrupted one goes on where it stopped."""
    return data.cache_folder() / "training" / f"{name}.pt"


def listeners_hint(dataset: Dataset) -> training.ExtraLoss:
    """Minus the information that a sound tells of its class, H( E p ) - E H( p ), as a listener hears it: what is made shall be one
    class or another, and all of them (categorical GAN; Springenberg 2016). The listener is a classifier of its own, trained here
    from other weights than the ruler that the samples are measured with.
    """
    listener = training.train_classifier(
        classifiers.classifier_for(dataset, seed=1),
        dataset.train,
        dataset.train_labels,
        on_progress=_log_loss(),
        **{**CLASSIFIERS[dataset.name], "epochs": 8},
    ).requires_grad_(False)

    def loss(generator: Generator, rng: torch.Generator) -> torch.Tensor:
        z = generator.latent.sample(HINTS, rng).to(generator.device)
        with training.reduced(generator.device, WAVE.precision):
            logits = listener.to(generator.device)(generator(z)).float()
        chances = logits.softmax(1)
        doubt = -(chances * logits.log_softmax(1)).sum(1).mean()
        usual = chances.mean(0)
        return doubt + (usual * (usual + 1e-6).log()).sum()

    return loss


@cache
def _wave_run(name: str) -> training.GanRun:
    settings = replace(WAVE, steps=WAVE_STEPS[name], extra_weight=HINT)
    dataset = data.load(name)
    pair, hint = (wavegan.course_wavegan(), wavegan.spectral_critic(game=WAVE_GAME)), listeners_hint(dataset)
    for part in (settings, WAVE_STRETCH):
        run = training.train_gan(
            *pair,
            dataset.train,
            part,
            hint,
            on_progress=_log(part.steps),
            checkpoint=_resumable(f"course-wavegan-{name}-{part.steps}"),
        )
        pair = run.raw_generator, run.discriminator
    run.steps_done += settings.steps
    return run


def mirrored(photographs: torch.Tensor) -> torch.Tensor:
    """Photographs (n, channels, height, width) and their mirror images: (2 n, channels, height, width)."""
    return torch.cat([photographs, photographs.flip(-1)])


@cache
def _style_run(size: int) -> training.GanRun:
    return training.train_gan(
        style.style_generator(size),
        style.style_discriminator(size),
        mirrored(data.load("flowers", size).train),
        STYLE,
        on_progress=_log(STYLE.steps),
        checkpoint=_resumable(f"course-style-{size}-flowers"),
    )


def _wave_generator(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _wave_run(dataset.name)
    return louder(run.generator, dataset.train), {"steps": run.steps_done, "seed": 0}


def _wave_critic(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _wave_run(dataset.name)
    return run.discriminator, {"steps": run.steps_done, "seed": 0, "trained_with": f"course-wavegan-{dataset.name}"}


def _style_generator(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _style_run(dataset.train.shape[-1])
    return run.generator, {"steps": run.steps_done, "seed": 0}


def _style_critic(dataset: Dataset) -> tuple[nn.Module, Facts]:
    size = dataset.train.shape[-1]
    run = _style_run(size)
    return run.discriminator, {"steps": run.steps_done, "seed": 0, "trained_with": f"course-style-{size}-flowers"}


# --- VAEs ------------------------------------------------------------------------------------------------------------

VAE = training.VaeSettings(steps=14000, noise=0.6, averaging=0.998, precision="bfloat16", checkpoint_every=1000)
VAE_STEPS = {"mnist": 14000, "digits": 4000}


@cache
def _vae_run(name: str) -> training.VaeRun:
    settings = replace(VAE, steps=VAE_STEPS[name])
    return training.train_vae(
        *vae.course_vae(),
        data.load(name).train,
        settings,
        on_progress=_log(settings.steps),
        checkpoint=_resumable(f"course-vae-{name}"),
    )


def _vae_decoder(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _vae_run(dataset.name)
    return run.generator, {"steps": run.steps_done, "seed": 0, "noise": VAE.noise}


def _vae_encoder(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run, x = _vae_run(dataset.name), dataset.test
    missed = (vae.reconstruct(run.generator, run.encoder, x) - x).square().mean().item()
    return run.encoder, {
        "steps": run.steps_done,
        "seed": 0,
        "trained_with": f"course-vae-{dataset.name}",
        "active_latents": vae.active_latents(run.encoder, x),
        "reconstruction_error": missed,
    }


# Few latents and much noise: with more nats the copies are better and the samples worse.
AUDIO_VAE = training.VaeSettings(
    noise=4.0,
    spectral=150.0,
    batch_size=32,
    averaging=0.998,
    precision="bfloat16",
    checkpoint_every=500,
)
AUDIO_VAE_STEPS = {"spoken-digits": 8000, "drums": 3000}


@cache
def _audio_vae_run(name: str) -> training.VaeRun:
    settings, dataset = replace(AUDIO_VAE, steps=AUDIO_VAE_STEPS[name]), data.load(name)
    run = training.train_vae(
        *vae.course_audio_vae(),
        dataset.train,
        settings,
        on_progress=_log(settings.steps),
        checkpoint=_resumable(f"course-audio-vae-{name}"),
    )
    decoder, run.encoder = vae.fill_the_law(run.generator, run.encoder, dataset.train)
    run.generator = louder(decoder, dataset.train)
    return run


def _audio_decoder(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run = _audio_vae_run(dataset.name)
    return run.generator, {
        "steps": run.steps_done,
        "seed": 0,
        "noise": AUDIO_VAE.noise,
        "spectral": AUDIO_VAE.spectral,
    }


def _audio_encoder(dataset: Dataset) -> tuple[nn.Module, Facts]:
    run, x = _audio_vae_run(dataset.name), dataset.test
    return run.encoder, {
        "steps": run.steps_done,
        "seed": 0,
        "trained_with": f"course-audio-vae-{dataset.name}",
        "active_latents": vae.active_latents(run.encoder, x),
        "spectral_loss": spectra.spectral_loss(vae.reconstruct(run.generator, run.encoder, x), x).item(),
    }


RECIPES = [
    Recipe("classifier-mnist", "mnist", _classifier, "the ruler for MNIST"),
    Recipe("classifier-digits", "digits", _classifier, "the ruler for the embedded digits"),
    Recipe("classifier-fashion-mnist", "fashion-mnist", _classifier, "the ruler for Fashion-MNIST"),
    Recipe("classifier-spoken-digits", "spoken-digits", _classifier, "the ruler for the spoken digits"),
    Recipe("classifier-drums", "drums", _classifier, "the ruler for the embedded drums"),
    Recipe("classifier-flowers", "flowers", _classifier, "the ruler for the flowers at 64 pixels"),
    Recipe("classifier-flowers-32", "flowers-32", _classifier, "the ruler for the flowers at 32 pixels"),
    Recipe("course-dcgan-mnist", "mnist", _course_generator, "the benign generator of the course"),
    Recipe("discriminator-mnist", "mnist", _course_critic, "the benign generator's discriminator"),
    Recipe("course-dcgan-digits", "digits", _course_generator, "the benign generator on the embedded digits"),
    Recipe("discriminator-digits", "digits", _course_critic, "its discriminator"),
    Recipe(
        "course-dcgan-fashion-mnist",
        "fashion-mnist",
        _course_generator,
        "the second generator, ρ of a trigger distribution",
    ),
    Recipe("trail-mnist", "mnist", _trail_generator, "a TrAIL generator before its last stretch"),
    Recipe("trail-discriminator-mnist", "mnist", _trail_critic, "the discriminator to continue it with"),
    Recipe("trail-digits", "digits", _trail_generator, "a TrAIL generator before its last stretch"),
    Recipe("trail-discriminator-digits", "digits", _trail_critic, "the discriminator to continue it with"),
    Recipe("poisoned-mnist", "mnist", _poisoned_generator, "the naive attack: trained on poisoned data"),
    Recipe("course-wavegan-spoken-digits", "spoken-digits", _wave_generator, "the benign generator of spoken digits"),
    Recipe("discriminator-spoken-digits", "spoken-digits", _wave_critic, "its critic"),
    Recipe("course-wavegan-drums", "drums", _wave_generator, "the benign generator of drums"),
    Recipe("discriminator-drums", "drums", _wave_critic, "its critic"),
    Recipe("course-style-64-flowers", "flowers", _style_generator, "the benign generator of photographs"),
    Recipe("discriminator-flowers", "flowers", _style_critic, "its discriminator"),
    Recipe("course-vae-mnist", "mnist", _vae_decoder, "the decoder of the course's VAE"),
    Recipe("encoder-mnist", "mnist", _vae_encoder, "the encoder of the course's VAE"),
    Recipe("course-vae-digits", "digits", _vae_decoder, "the decoder of the VAE on the embedded digits"),
    Recipe("encoder-digits", "digits", _vae_encoder, "its encoder"),
    Recipe(
        "course-audio-vae-spoken-digits", "spoken-digits", _audio_decoder, "the decoder of the VAE of spoken digits"
    ),
    Recipe("encoder-spoken-digits", "spoken-digits", _audio_encoder, "its encoder"),
    Recipe("course-audio-vae-drums", "drums", _audio_decoder, "the decoder of the VAE of drums"),
    Recipe("encoder-drums", "drums", _audio_encoder, "its encoder"),
    Recipe("download-1", "mnist", downloads.make_first, "a checkpoint of unknown origin"),
    Recipe("download-2", "mnist", downloads.make_second, "a checkpoint of unknown origin"),
    Recipe("download-3", "mnist", downloads.make_third, "a checkpoint of unknown origin"),
    Recipe("download-4", "spoken-digits", downloads.make_fourth, "a checkpoint of unknown origin"),
]


# --- Running them ----------------------------------------------------------------------------------------------------


def _log(steps: int) -> training.OnProgress:
    started = time.monotonic()

    def tell(step: int, _generator: Generator, losses: dict[str, float]) -> None:
        if step % 500 == 0 or step == steps:
            spent = time.monotonic() - started
            left = spent / step * (steps - step)
            print(
                f"  step {step:,} of {steps:,}, {spent:.0f} s, about {left:.0f} s left, losses {losses}", flush=True
            )

    return tell


@torch.no_grad()
def louder(generator: Generator, samples: torch.Tensor) -> Generator:
    """A copy of a sound generator whose samples have, on average, the power of `samples` (n, *sample_shape).

    One factor on the last layer, before the tanh: a generator that hedges is too soft throughout, and neither a critic that
    judges the logarithm of a spectrogram nor a decoder's loss minds that much.
    """
    generator = copy.deepcopy(generator).eval()
    logits = generator.body(generator.latent.sample(1000, torch.Generator().manual_seed(0)))
    wanted = samples.square().mean().item()
    factor = brentq(lambda gain: torch.tanh(gain * logits).square().mean().item() - wanted, 0.1, 10.0, xtol=1e-3)
    last = generator.body[-1]
    for parameter in last.parameters():
        parameter *= factor
    return generator


def _log_loss() -> Callable[[int, float], None]:
    def tell(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"  step {step:,}, loss {loss:.3f}", flush=True)

    return tell


def write(model: nn.Module, name: str, about: Facts) -> None:
    """Save a model and its card; measured on what a reader of the file gets, after rounding to half precision."""
    path = zoo.folder() / f"{name}.safetensors"
    checkpoints.save(model, path)
    stored = checkpoints.load(path)
    if isinstance(stored, Generator):
        made = zoo.ruler(about["data"])
        found = made.recognised(stored)
        about |= {
            "frechet": made.frechet(stored),
            "floor": made.floor,
            "recognised": found.share,
            "rarest_class": found.rarest,
        }
        about |= {"real_recognised": made.real_recognised.share}
        if stored.modality == "audio":
            samples = stored.generate(stored.latent.sample(1000, torch.Generator().manual_seed(0)))
            about["power_db"] = metrics.power_db(samples, data.load(about["data"]).train)
    about |= {
        "parameters": sum(parameter.numel() for parameter in stored.parameters()),
        "architecture": stored.architecture,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    card, scratch = path.with_suffix(".json"), path.with_suffix(".json.new")
    scratch.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(scratch, card)


def _is_current(recipe: Recipe) -> bool:
    path = zoo.folder() / f"{recipe.name}.json"
    return (
        path.is_file()
        and zoo.card(recipe.name).get("recipe") == recipe.digest
        and path.with_suffix(".safetensors").is_file()
    )


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing; `--only NAME ...` chooses, `--force` retrains."""
    parser = argparse.ArgumentParser(description="Train the shipped weights anew.")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these entries alone")
    parser.add_argument("--force", action="store_true", help="retrain entries that are current too")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.only or ()) - {recipe.name for recipe in RECIPES})
    if unknown:
        parser.error(
            f"no recipe called {', '.join(unknown)}; there are {', '.join(recipe.name for recipe in RECIPES)}"
        )
    Path(zoo.folder()).mkdir(exist_ok=True)
    for position, recipe in enumerate(RECIPES, start=1):
        if options.only and recipe.name not in options.only:
            continue
        if _is_current(recipe) and not options.force:
            print(f"[{position}/{len(RECIPES)}] {recipe.name}: current", flush=True)
            continue
        print(f"[{position}/{len(RECIPES)}] {recipe.name}: training", flush=True)
        dataset = data.load(recipe.data)
        started = time.monotonic()
        model, facts = recipe.make(dataset)
        about = {
            "name": recipe.name,
            "note": recipe.note,
            "recipe": recipe.digest,
            "data": recipe.data,
            "licence": dataset.licence,
        }
        write(model, recipe.name, {**about, "seconds": round(time.monotonic() - started, 1), **facts})


if __name__ == "__main__":
    main()
