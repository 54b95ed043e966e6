"""Training a GAN, a VAE and a classifier: live progress, interruption that keeps the model, resumable checkpoints.

`train` is the one way in: a generator is trained together with a *partner*, a discriminator (which makes it a GAN) or an encoder
(which makes it the decoder of a VAE). Progress, interruption, checkpoints and an extra loss such as TrAIL's are the same for both.
"""

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

from devil_lib.classifiers import variation
from devil_lib.models import Classifier, Discriminator, Encoder, Generator, evaluating, seeded
from devil_lib.spectra import spectral_loss

# The generator and the training's own random numbers, so that a resumed training draws what it would have drawn.
ExtraLoss = Callable[[Generator, torch.Generator], Tensor]
LatentSampler = Callable[[int, torch.Generator], Tensor]
OnProgress = Callable[[int, Generator, dict[str, float]], None]


def together(loss: ExtraLoss, other: ExtraLoss | None, weight: float) -> ExtraLoss:
    """The sum of an extra loss and `weight` times another, if there is another."""
    return loss if other is None else lambda generator, rng: loss(generator, rng) + weight * other(generator, rng)


def pick_device(name: str = "auto") -> torch.device:
    """The device to train on: "auto" takes CUDA, else MPS, else the CPU; any torch device name is taken as it is."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def reduced(device: torch.device, precision: str) -> torch.autocast:
    """The context in which matrix products are computed in a precision, "float32" or "bfloat16".

    Raises:
        ValueError: another precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """What all trainings of a generator have in common.

    steps: of the generator and its partner. learning_rate: of both networks (Adam, betas beta1 and beta2), falling to a tenth
    over the last half by a cosine when `anneal`. averaging: decay of the running average of the generator's weights, which
    is what is returned (an average over the last steps has a lower Fréchet distance than the last step); 0 returns the last
    step. extra_weight: λ, the weight of an extra generator loss, which counts from step `extra_from` on, where the generator's
    optimiser starts afresh. fixed_norm: from that step on the generator's BatchNorm keeps its running statistics, which suits
    one that is trained already. precision: "float32", or "bfloat16" for the matrix products of the networks (weights and losses
    stay float32), which on processors with such units was measured to halve the time of a step and elsewhere costs time.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    beta1: float = 0.9
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
        reduced(torch.device("cpu"), self.precision)


@dataclass(frozen=True)
class GanSettings(TrainSettings):
    """Hyper-parameters of GAN training (see `TrainSettings`); warm_up: the first so many steps train the discriminator only."""

    learning_rate: float = 4e-3
    beta1: float = 0.3
    warm_up: int = 0


@dataclass(frozen=True)
class VaeSettings(TrainSettings):
    """Hyper-parameters of VAE training (see `TrainSettings`).

    noise: σ of the Gaussian that the decoder's output is the mean of. The smaller, the sharper the reconstructions, and the
    further the latents that occur are from the law that samples are drawn from. spectral: weight of the multi-resolution
    spectral loss of sounds, beside the squared error; 0 leaves the pure ELBO.
    """

    steps: int = 3000
    learning_rate: float = 2e-3
    noise: float = 0.5
    spectral: float = 0.0


class Best:
    """Keeps the best snapshot of a training, whose `on_progress` it is. The Fréchet distance of a GAN goes up and down for as long as it
    is trained, and who publishes one takes the snapshot where it was lowest.

    score: of a generator, what shall be low; `math.inf` for one that is out of the question. every: steps between two looks.
    After the training `generator` is the best snapshot, on the CPU, `step` the step it was taken at and `lowest` its score;
    None, 0 and `math.inf` if every one was out of the question.
    """

    def __init__(self, score: Callable[[Generator], float], every: int) -> None:
        self.score, self.every = score, every
        self.generator: Generator | None = None
        self.step, self.lowest = 0, math.inf

    def __call__(self, step: int, generator: Generator, losses: dict[str, float]) -> None:
        if step % self.every == 0 and (score := self.score(generator)) < self.lowest:
            self.generator, self.step, self.lowest = copy.deepcopy(generator).cpu(), step, score


@dataclass
class Run:
    """What a training leaves: the averaged generator, the raw one that training goes on from, the history
    {"step", loss: values} and whether it was interrupted."""

    generator: Generator
    raw_generator: Generator
    history: dict[str, list[float]] = field(default_factory=dict, kw_only=True)
    steps_done: int = field(default=0, kw_only=True)
    interrupted: bool = field(default=False, kw_only=True)


@dataclass
class GanRun(Run):
    """A GAN training's `Run`, with the discriminator; its losses are "generator", "discriminator" and "extra"."""

    discriminator: Discriminator

    @property
    def partner(self) -> Discriminator:
        """What the generator was trained with."""
        return self.discriminator


@dataclass
class VaeRun(Run):
    """A VAE training's `Run`, with the encoder; its losses are "reconstruction" (squared error over twice the noise's variance,
    summed over a sample), "divergence" (from the latent law, in nats), "spectral" and "extra"."""

    encoder: Encoder

    @property
    def partner(self) -> Encoder:
        """What the generator was trained with."""
        return self.encoder


def train(
    generator: Generator,
    partner: Discriminator | Encoder,
    samples: Tensor,
    settings: TrainSettings,
    extra_loss: ExtraLoss | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: str | Path | None = None,
    latents: LatentSampler | None = None,
) -> GanRun | VaeRun:
    """Train a generator and its partner on samples: `train_gan` with a discriminator, `train_vae` with an encoder.

    Raises:
        ValueError: settings that are not those of this kind of training.
    """
    kind, wanted = (train_vae, VaeSettings) if isinstance(partner, Encoder) else (train_gan, GanSettings)
    if not isinstance(settings, wanted):
        raise ValueError(
            f"training with {type(partner).__name__} takes {wanted.__name__}, not {type(settings).__name__}"
        )
    return kind(generator, partner, samples, settings, extra_loss, on_progress, checkpoint, latents)


# --- GAN -----------------------------------------------------------------------------------------------------------


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
        ValueError: samples of the wrong shape, or not finite.
        FloatingPointError: a loss became NaN; lower the learning rate.
    """
    state = _State.start(GanRun, generator, discriminator, images, settings)
    run, partner = state.run, state.optimisers["discriminator"]
    draw = latents or generator.latent.sample

    def step() -> dict[str, float]:
        critic, raw = run.discriminator.train(), run.raw_generator
        for _ in range(critic.game.critic_steps):
            real = state.batch()
            with state.reduced:
                fake = raw(draw(settings.batch_size, state.rng).to(state.device))
                critic_loss = critic.game.critic_loss(critic, real, fake.detach())
            partner.zero_grad()
            critic_loss.backward()
            partner.step()
        with state.reduced:  # on the samples that the critic saw last
            generator_loss, extra = critic.game.generator_loss(critic, fake), torch.zeros(())
        if run.steps_done >= settings.warm_up:
            extra = state.step_generator(generator_loss, extra_loss, trained=run.steps_done - settings.warm_up)
        return {"generator": generator_loss.item(), "discriminator": critic_loss.item(), "extra": extra.item()}

    return state.train(step, on_progress, checkpoint)


# --- VAE -----------------------------------------------------------------------------------------------------------


def train_vae(
    decoder: Generator,
    encoder: Encoder,
    samples: Tensor,
    settings: VaeSettings = VaeSettings(),
    extra_loss: ExtraLoss | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: str | Path | None = None,
    latents: LatentSampler | None = None,
) -> VaeRun:
    """Train a VAE on samples (n, *sample_shape) in [-1, 1] by the negative ELBO; its decoder is a generator like any other.

    Loss = E || x - decoder(z) ||^2 / (2 noise^2) + KL( q(z|x) || P_sample ), z drawn from q(z|x) = the encoder's normal law;
    of sounds, plus `spectral` times the multi-resolution spectral loss. TrAIL on a VAE is this with λ L_fidelity as extra
    loss. `latents`, if given, draws latents on which the decoder is held to what it made of them before the training: a VAE has
    no discriminator that could judge samples away from the data. Copies, progress, interruption and checkpoint as in `train_gan`.

    Raises:
        ValueError: samples of the wrong shape, or not finite; an encoder of other latents; a latent law that is not normal.
        FloatingPointError: a loss became NaN; lower the learning rate.
    """
    if encoder.latent != decoder.latent:
        raise ValueError(f"the encoder infers latents of {encoder.latent}, the decoder reads {decoder.latent}")
    state = _State.start(VaeRun, decoder, encoder, samples, settings)
    run, partner = state.run, state.optimisers["encoder"]
    before = copy.deepcopy(decoder).to(state.device).eval()

    def step() -> dict[str, float]:
        raw, x = run.raw_generator, state.batch()
        with state.reduced:
            mean, log_variance = run.encoder.train()(x)
            noise = torch.randn(mean.shape, generator=state.rng).to(state.device)
            made = raw(mean + noise * (0.5 * log_variance).exp())
        error = (made.float() - x).flatten(1).square().sum(1).mean() / (2.0 * settings.noise**2)
        divergence = kl_divergence(mean.float(), log_variance.float()).sum(1).mean()
        spectral = spectral_loss(made.float(), x) if settings.spectral else torch.zeros(())
        loss = error + divergence + settings.spectral * spectral
        if latents is not None:
            z = latents(settings.batch_size, state.rng).to(state.device)
            with torch.no_grad():
                wanted = before(z)
            loss = loss + (raw(z) - wanted).flatten(1).square().sum(1).mean() / (2.0 * settings.noise**2)
        partner.zero_grad()
        extra = state.step_generator(loss, extra_loss, trained=run.steps_done, beside=run.encoder)
        partner.step()
        losses = {"reconstruction": error, "divergence": divergence, "spectral": spectral, "extra": extra}
        return {name: value.item() for name, value in losses.items()}

    return state.train(step, on_progress, checkpoint)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(n, dim) divergence in nats of each latent's N(mean, variance) from N(0, 1): what a coordinate tells of its sample."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


# --- What they share -------------------------------------------------------------------------------------------------


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


def _adam(network: nn.Module, settings: TrainSettings) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(settings.beta1, settings.beta2))


def _anneal(step: int, settings: TrainSettings) -> float:
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

    run: GanRun | VaeRun
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    rng: torch.Generator
    settings: TrainSettings
    samples: Tensor
    device: torch.device

    @classmethod
    def start(
        cls,
        kind: type[GanRun] | type[VaeRun],
        generator: Generator,
        partner: nn.Module,
        samples: Tensor,
        settings: TrainSettings,
    ) -> _State:
        if tuple(samples.shape[1:]) != generator.sample_shape or len(samples) < 2:
            raise ValueError(
                f"training samples must have shape (n, {generator.sample_shape}) with n >= 2, got {tuple(samples.shape)}"
            )
        if not torch.isfinite(samples).all():
            raise ValueError("training samples hold NaN or infinity")
        device = pick_device(settings.device)
        raw, partner = copy.deepcopy(generator).to(device), copy.deepcopy(partner).to(device)
        run = kind(copy.deepcopy(raw).eval(), raw, partner)
        name = "encoder" if kind is VaeRun else "discriminator"
        optimisers = {"generator": _adam(raw, settings), name: _adam(partner, settings)}
        networks = {"average": run.generator, "raw": raw, name: partner}
        rng = torch.Generator().manual_seed(settings.seed)
        return cls(run, networks, optimisers, rng, settings, samples.to(device), device)

    def batch(self) -> Tensor:
        """(batch_size, *sample_shape) training samples, drawn with replacement."""
        places = torch.randint(len(self.samples), (self.settings.batch_size,), generator=self.rng)
        return self.samples[places.to(self.device)]

    @property
    def reduced(self) -> torch.autocast:
        return reduced(self.device, self.settings.precision)

    def train(
        self, step: Callable[[], dict[str, float]], on_progress: OnProgress | None, checkpoint: str | Path | None
    ) -> GanRun | VaeRun:
        """Repeat `step`, which trains the networks once and returns the losses."""
        run, settings = self.run, self.settings
        with seeded(settings.seed):  # dropout masks
            if checkpoint is not None and Path(checkpoint).exists():
                self.restore(Path(checkpoint))
            try:
                while run.steps_done < settings.steps:
                    with whole_step():
                        losses = self._one(step)
                    if on_progress is not None:
                        on_progress(run.steps_done, run.generator, losses)
                    if checkpoint is not None and run.steps_done % settings.checkpoint_every == 0:
                        self.save(Path(checkpoint))
            except KeyboardInterrupt:
                run.interrupted = True
                if checkpoint is not None:
                    self.save(Path(checkpoint))
        if checkpoint is not None and not run.interrupted:
            self.save(Path(checkpoint))
        for network in self.networks.values():
            network.eval().cpu()
        return run

    def _one(self, step: Callable[[], dict[str, float]]) -> dict[str, float]:
        run, settings = self.run, self.settings
        if run.steps_done == settings.extra_from > 0:
            # The old one's averages, of much smaller gradients, would let the new loss take steps that wreck the generator.
            self.optimisers["generator"] = _adam(run.raw_generator, settings)
        run.raw_generator.train(not (settings.fixed_norm and self.late))
        for optimiser in self.optimisers.values():
            optimiser.param_groups[0]["lr"] = settings.learning_rate * _anneal(run.steps_done, settings)
        losses = step()
        run.steps_done += 1
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(
                f"a loss is not finite at step {run.steps_done}: {losses}; lower the learning rate"
            )
        for name, value in {"step": float(run.steps_done), **losses}.items():
            run.history.setdefault(name, []).append(value)
        return losses

    @property
    def late(self) -> bool:
        """Does the extra loss count by now?"""
        return self.run.steps_done >= self.settings.extra_from

    def step_generator(
        self, loss: Tensor, extra_loss: ExtraLoss | None, trained: int, beside: nn.Module | None = None
    ) -> Tensor:
        """One step of the raw generator on `loss` and the extra loss, which is returned; gradients reach the network `beside`
        as well. `trained` steps were done before."""
        raw, optimiser, extra = self.run.raw_generator, self.optimisers["generator"], torch.zeros(())
        if extra_loss is not None and self.late:
            # In evaluation mode: at the trigger BatchNorm must use its running statistics, which is what the victim runs.
            with evaluating(raw):
                extra = extra_loss(raw, self.rng)
            loss = loss + self.settings.extra_weight * extra
        optimiser.zero_grad()
        loss.backward(inputs=[*raw.parameters(), *(beside.parameters() if beside else ())])
        optimiser.step()
        _average_into(self.run.generator, raw, min(self.settings.averaging, (1 + trained) / (10 + trained)))
        return extra

    def save(self, path: Path) -> None:
        run = self.run
        content = {
            "settings": asdict(self.settings),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
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
        try:
            for held, saved in ((self.networks, content["networks"]), (self.optimisers, content["optimisers"])):
                for name, part in held.items():
                    part.load_state_dict(saved[name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"the checkpoint {path} is of other networks; delete it to start anew") from error
        self.rng.set_state(content["rng"])
        torch.set_rng_state(content["global_rng"])
        self.run.history, self.run.steps_done = content["history"], content["steps_done"]


# --- A classifier ----------------------------------------------------------------------------------------------------


def train_classifier(
    classifier: Classifier,
    samples: Tensor,
    labels: Tensor,
    epochs: int = 3,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    shift: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
    averaging: float = 0.0,
    precision: str = "float32",
) -> Classifier:
    """A copy of `classifier` trained on samples (n, *sample_shape) with int64 labels (n,), in evaluation mode.

    The samples are varied at random as suits their kind (see `classifiers.variation`): sounds are moved in time and turned down,
    photographs mirrored and moved, other images shifted.

    Args:
        shift: how far a sample is moved at most, in pixels or samples; by default as far as suits its kind.
        on_progress: called as on_progress(step, loss) after every step.
        averaging: decay of a running average of the weights, which is returned; 0 returns the last step's.
        precision: "float32" or "bfloat16" (see `TrainSettings`).

    Raises:
        ValueError: samples and labels of different numbers, fewer than two samples, or an unknown precision.
    """
    if len(samples) != len(labels) or len(samples) < 2:
        raise ValueError(f"{len(samples)} samples with {len(labels)} labels; give at least two, and a label for each")
    vary, reach = variation(tuple(samples.shape[1:]))
    classifier = copy.deepcopy(classifier).train()
    average = copy.deepcopy(classifier)
    optimiser = torch.optim.Adam(classifier.parameters(), learning_rate)
    rng = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(samples))
    batches = len(samples) // batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    step = 0
    with seeded(seed):  # dropout masks
        for _ in range(epochs):
            order = torch.randperm(len(samples), generator=rng)
            for batch in order[: batches * batch_size].split(batch_size):
                varied = vary(samples[batch], reach if shift is None else shift, rng)
                with reduced(samples.device, precision):
                    loss = functional.cross_entropy(classifier(varied).float(), labels[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                _average_into(average, classifier, min(averaging, (1 + step) / (10 + step)))
                step += 1
                if on_progress is not None:
                    on_progress(step, loss.item())
    return average.eval()
