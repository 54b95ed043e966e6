"""Training a GAN and a classifier: live progress, interruption that keeps the model, resumable checkpoints."""

from __future__ import annotations

import copy
import math
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from devil_lib.models import Classifier, Discriminator, Generator, evaluating, seeded

# The generator and the training's own random numbers, so that a resumed training draws what it would have drawn.
ExtraLoss = Callable[[Generator, torch.Generator], Tensor]
LatentSampler = Callable[[int, torch.Generator], Tensor]
OnProgress = Callable[[int, Generator, dict[str, float]], None]


def pick_device(name: str = "auto") -> torch.device:
    """The device to train on: "auto" takes CUDA, else MPS, else the CPU; any torch device name is taken as it is."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True)
class GanSettings:
    """Hyper-parameters of GAN training.

    steps: of both networks; the first `warm_up` of them train the discriminator only. learning_rate: of both networks
    (Adam, betas beta1 and beta2), falling to a tenth over the last half by a cosine when `anneal`. averaging: decay of
    the running average of the generator's weights, which is what is returned (an average over the last steps has a
    lower Fréchet distance than the last step); 0 returns the last step. extra_weight: λ, the weight of an extra
    generator loss, which counts from step `extra_from` on, where the generator's optimiser starts afresh. fixed_norm:
    from that step on the generator's BatchNorm keeps its running statistics, which suits one that is trained already.
    """

    steps: int = 2000
    warm_up: int = 0
    batch_size: int = 64
    learning_rate: float = 4e-3
    beta1: float = 0.3
    beta2: float = 0.999
    averaging: float = 0.995
    anneal: bool = True
    fixed_norm: bool = False
    extra_weight: float = 0.0
    extra_from: int = 0
    checkpoint_every: int = 200
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")


@dataclass
class GanRun:
    """What a GAN training leaves: the averaged generator, the raw one that training goes on from, its discriminator,
    the history {"step", "generator", "discriminator", "extra"} and whether it was interrupted."""

    generator: Generator
    raw_generator: Generator
    discriminator: Discriminator
    history: dict[str, list[float]] = field(default_factory=dict)
    steps_done: int = 0
    interrupted: bool = False


def train_gan(
    generator: Generator,
    discriminator: Discriminator,
    images: Tensor,
    settings: GanSettings = GanSettings(),
    extra_loss: ExtraLoss | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: str | Path | None = None,
    latents: LatentSampler | None = None,
) -> GanRun:
    """Train the pair on samples (n, *sample_shape) in [-1, 1] by the game that the discriminator carries.

    The pair passed in is copied, not changed. `extra_loss(generator, rng)` is added to the generator's loss with weight
    `settings.extra_weight`; TrAIL is this function with the fidelity term as extra loss. `on_progress(step,
    averaged generator, losses)` is called after every step. A keyboard interrupt ends the training early and returns
    what there is, with `interrupted=True`. With `checkpoint`, the state is written there every `checkpoint_every`
    steps and on interruption, and a later call with the same settings goes on from it to the very same result (on a CPU). If
    it cannot be written (a full disk), that is warned of and the training goes on.
    `latents(n, rng)` draws the (n, dim) latents to train on; by default the generator's own law does.

    Raises:
        ValueError: images of the wrong shape, or not finite.
        FloatingPointError: a loss became NaN; lower the learning rate.
    """
    if tuple(images.shape[1:]) != generator.sample_shape or len(images) < 2:
        raise ValueError(
            f"images must have shape (n, {generator.sample_shape}) with n >= 2, got {tuple(images.shape)}"
        )
    if not torch.isfinite(images).all():
        raise ValueError("training images hold NaN or infinity")
    device = pick_device(settings.device)
    raw, critic = copy.deepcopy(generator).to(device), copy.deepcopy(discriminator).to(device)
    average = copy.deepcopy(raw).eval()
    images = images.to(device)
    generator_optimiser, critic_optimiser = _adam(raw, settings), _adam(critic, settings)
    rng = torch.Generator().manual_seed(settings.seed)
    run = GanRun(average, raw, critic, {"step": [], "generator": [], "discriminator": [], "extra": []})
    state = _State(run, generator_optimiser, critic_optimiser, rng, settings)
    with seeded(settings.seed):  # dropout masks
        if checkpoint is not None and Path(checkpoint).exists():
            state.restore(Path(checkpoint))
        try:
            while run.steps_done < settings.steps:
                with whole_step():
                    losses = _gan_step(state, images, extra_loss, latents or raw.latent.sample, device)
                if on_progress is not None:
                    on_progress(run.steps_done, average, losses)
                if checkpoint is not None and run.steps_done % settings.checkpoint_every == 0:
                    state.save(Path(checkpoint))
        except KeyboardInterrupt:
            run.interrupted = True
            if checkpoint is not None:
                state.save(Path(checkpoint))
    if checkpoint is not None and not run.interrupted:
        state.save(Path(checkpoint))
    for module in (average, raw, critic):
        module.eval().cpu()
    return run


@contextmanager
def whole_step() -> Iterator[None]:
    """Hold a keyboard interrupt back until the step is done: half a step could not be resumed to the same result."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is ever interrupted
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _gan_step(
    state: _State, images: Tensor, extra_loss: ExtraLoss | None, latents: LatentSampler, device: torch.device
) -> dict[str, float]:
    run, settings = state.run, state.settings
    late = run.steps_done >= settings.extra_from
    if run.steps_done == settings.extra_from > 0:
        # The old one's averages, of much smaller gradients, would let the new loss take steps that wreck the generator.
        state.generator_optimiser = _adam(run.raw_generator, settings)
    raw, critic = run.raw_generator.train(not (settings.fixed_norm and late)), run.discriminator.train()
    for optimiser in (state.generator_optimiser, state.critic_optimiser):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * _anneal(run.steps_done, settings)
    reduced = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    for _ in range(critic.game.critic_steps):
        real = images[torch.randint(len(images), (settings.batch_size,), generator=state.rng).to(device)]
        with reduced:
            fake = raw(latents(settings.batch_size, state.rng).to(device))
            critic_loss = critic.game.critic_loss(critic, real, fake.detach())
        state.critic_optimiser.zero_grad()
        critic_loss.backward()
        state.critic_optimiser.step()

    with reduced:  # on the samples that the critic saw last
        generator_loss, extra = critic.game.generator_loss(critic, fake), torch.zeros(())
    if run.steps_done >= settings.warm_up:
        loss = generator_loss
        if extra_loss is not None and late:
            # In evaluation mode: at the trigger BatchNorm must use its running statistics, which is what the victim runs.
            with evaluating(raw):
                extra = extra_loss(raw, state.rng)
            loss = loss + settings.extra_weight * extra
        state.generator_optimiser.zero_grad()
        loss.backward(inputs=list(raw.parameters()))
        state.generator_optimiser.step()
        trained = run.steps_done - settings.warm_up
        _average_into(run.generator, raw, min(settings.averaging, (1 + trained) / (10 + trained)))
    run.steps_done += 1
    losses = {"generator": generator_loss.item(), "discriminator": critic_loss.item(), "extra": extra.item()}
    if not all(map(math.isfinite, losses.values())):
        raise FloatingPointError(f"a loss is not finite at step {run.steps_done}: {losses}; lower the learning rate")
    for name, value in {"step": float(run.steps_done), **losses}.items():
        run.history[name].append(value)
    return losses


def _adam(network: nn.Module, settings: GanSettings) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(settings.beta1, settings.beta2))


def _anneal(step: int, settings: GanSettings) -> float:
    progress = max(0.0, 2.0 * step / settings.steps - 1.0) if settings.anneal else 0.0
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def _average_into(average: nn.Module, current: nn.Module, decay: float) -> None:
    for held, new in zip(average.state_dict().values(), current.state_dict().values(), strict=True):
        if held.is_floating_point():
            held.lerp_(new, 1.0 - decay)
        else:
            held.copy_(new)


@dataclass
class _State:
    """Everything that a resumed training needs to go on as if it had never stopped."""

    run: GanRun
    generator_optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
    rng: torch.Generator
    settings: GanSettings

    def save(self, path: Path) -> None:
        run = self.run
        content = {
            "settings": asdict(self.settings),
            "average": run.generator.state_dict(),
            "raw": run.raw_generator.state_dict(),
            "critic": run.discriminator.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
            "rng": self.rng.get_state(),
            "global_rng": torch.get_rng_state(),
            "history": run.history,
            "steps_done": run.steps_done,
        }
        scratch = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
            with os.fdopen(handle, "wb") as file:
                torch.save(content, file)
            os.replace(scratch, path)  # an older checkpoint stays whole until the new one is
        except (OSError, RuntimeError) as error:  # torch reports a failed write as either
            warnings.warn(f"the checkpoint {path} could not be written ({error}); free some space", stacklevel=4)
        finally:
            if scratch:
                Path(scratch).unlink(missing_ok=True)

    def restore(self, path: Path) -> None:
        try:
            # weights_only: a pickle that would run code is refused
            content = torch.load(path, weights_only=True, map_location="cpu")
            made_with = dict(content)["settings"]
        except Exception as error:
            raise ValueError(
                f"the checkpoint {path} is damaged or no checkpoint of ours; delete it to start anew"
            ) from error
        if made_with != asdict(self.settings):
            raise ValueError(
                f"the checkpoint {path} was made with other settings; delete it or restore those settings"
            )
        run = self.run
        try:
            run.generator.load_state_dict(content["average"])
            run.raw_generator.load_state_dict(content["raw"])
            run.discriminator.load_state_dict(content["critic"])
            self.generator_optimiser.load_state_dict(content["generator_optimiser"])
            self.critic_optimiser.load_state_dict(content["critic_optimiser"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"the checkpoint {path} is of other networks; delete it to start anew") from error
        self.rng.set_state(content["rng"])
        torch.set_rng_state(content["global_rng"])
        run.history, run.steps_done = content["history"], content["steps_done"]


def train_classifier(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    epochs: int = 3,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    shift: int = 2,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Classifier:
    """A copy of `classifier` trained on images (n, *shape) with int64 labels (n,), shifted at random by up to `shift` pixels.

    Returns it in evaluation mode. `on_progress(step, loss)` is called after every step.
    """
    classifier = copy.deepcopy(classifier).train()
    optimiser = torch.optim.Adam(classifier.parameters(), learning_rate)
    rng = torch.Generator().manual_seed(seed)
    batches = max(1, len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=rng)
        for batch in order[: batches * batch_size].split(batch_size):
            down, right = torch.randint(-shift, shift + 1, (2,), generator=rng).tolist()
            loss = functional.cross_entropy(
                classifier(images[batch].roll((down, right), dims=(-2, -1))), labels[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if on_progress is not None:
                on_progress(step, loss.item())
    return classifier.eval()
