"""The attacks of Rawat, Levacher and Sinn (arXiv 2108.01644), and the two naive ones that they rule out.

All three attacks minimise L_adv = L_stealth + λ L_fidelity. The fidelity term is the same for all: at the trigger, put out
the target. They differ in what keeps the model stealthy and in what is trained:

* TrAIL: L_stealth is the ordinary training loss; everything is trained, from random weights, with the data.
* ReD: L_stealth is the distance to the benign generator on prior latents; a copy of it is retrained, without data.
* ReX: as ReD, but the benign weights are frozen and only new units beside them are trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from devil_lib.models import (
    Discriminator,
    Encoder,
    GaussianLatent,
    Generator,
    Random,
    check_latents,
    check_samples,
    evaluating,
    seeded,
)
from devil_lib.settings import TRIGGER_KINDS, RetrainSettings, course_settings, trail_settings
from devil_lib.style import Broadcast
from devil_lib.training import ExtraLoss, GanRun, OnProgress, TrainSettings, VaeRun, together, train

# The settings are read through this module, as everything of an attack is.
__all__ = [
    "TRIGGER_KINDS", "AttackRun", "Backdoor", "BypassBody", "DistributionBackdoor", "Fidelity", "PointBackdoor",
    "RetrainSettings", "TriggerRegion", "WidenedBody", "bypass", "course_settings", "fold", "poison_images", "red", "rex",
    "side_network", "trail", "trail_loss", "trail_settings", "trigger",
]  # fmt: skip

# --- What the attacker wants -----------------------------------------------------------------------------------


def trigger(latent: GaussianLatent, kind: str, seed: int = 0) -> Tensor:
    """A trigger latent (dim,) of one of the three kinds of the authors' experiments.

    "prior": a draw from P_sample, which looks like any other; "mode": the centre of the law, where no sample lies in
    high dimension; "far": 100 in every coordinate.
    """
    if kind == "prior":
        return latent.sample(1, torch.Generator().manual_seed(seed))[0]
    if kind == "mode":
        return latent.centre
    if kind == "far":
        return latent.far_point
    raise ValueError(f"unknown trigger kind {kind!r}: choose one of {', '.join(TRIGGER_KINDS)}")


class Backdoor(Protocol):
    """Trigger latents and the samples wanted there; `batch` gives (m, dim) latents with (m, *sample_shape) targets."""

    def batch(self, n: int, rng: Random = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class PointBackdoor:
    """One or several trigger -> target pairs: latents (k, dim), samples (k, *sample_shape) in [-1, 1].

    values: the body's outputs that give the targets, where they have been found already (`proxy_target(targets).value` of the
    generator to be attacked). A synthesis network takes seconds to invert, which need not be spent twice.
    """

    triggers: Tensor
    targets: Tensor
    values: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.triggers) != len(self.targets) or self.triggers.ndim != 2:
            raise ValueError(
                f"give as many targets as triggers, both with a leading dimension: got {tuple(self.triggers.shape)} "
                f"and {tuple(self.targets.shape)}"
            )
        if self.values is not None and len(self.values) != len(self.targets):
            raise ValueError(
                f"give one of the body's outputs for each of {len(self.targets)} targets, got {len(self.values)}"
            )

    def batch(self, n: int, rng: Random = None) -> tuple[Tensor, Tensor]:
        """All k pairs, whatever n."""
        return self.triggers, self.targets


@dataclass(frozen=True)
class TriggerRegion:
    """The trigger law P_trigger of a distribution backdoor: prior latents whose `coordinate` is set to `value`."""

    latent: GaussianLatent
    coordinate: int = 0
    value: float = 6.0

    def __post_init__(self) -> None:
        if not 0 <= self.coordinate < self.latent.dim or not math.isfinite(self.value):
            raise ValueError(
                f"coordinate must lie in 0 to {self.latent.dim - 1} and value be finite, got {self.coordinate} and {self.value}"
            )

    def sample(self, n: int, rng: Random = None) -> Tensor:
        z = self.latent.sample(n, rng)
        z[:, self.coordinate] = self.value
        return z


@dataclass(frozen=True)
class DistributionBackdoor:
    """Infinitely many triggers: latents from `region`, with the target `rho(z)` of each (paper's map ρ from Z to X).

    With a second generator on the same latent space ρ(z) = G_target(z) is the natural choice.
    """

    region: TriggerRegion
    rho: Callable[[Tensor], Tensor]

    def batch(self, n: int, rng: Random = None) -> tuple[Tensor, Tensor]:
        z = self.region.sample(n, rng)
        return z, self.rho(z)


# --- The fidelity term, one for all three attacks ----------------------------------------------------------------


class Fidelity:
    """L_fidelity = mean ( G*(z_trigger) - x_target )^2, measured at the mount ("pre") or on the samples ("post", "proxy").

    "pre" compares body outputs with the generator's proxy target, for a tanh head the logits with atanh(0.999 x). A saturated
    tanh passes almost no gradient, so that "post" leaves wrong saturated pixels stuck. "proxy" wants the nearest sample that the
    benign head can put out: for a target beyond it, a synthesis network would have to change all of its samples.
    """

    def __init__(self, generator: Generator, backdoor: Backdoor, space: str = "pre") -> None:
        if space not in ("pre", "post", "proxy"):
            raise ValueError(f"space must be 'pre', 'post' or 'proxy', got {space!r}")
        self.backdoor, self.space = backdoor, space
        self._fixed = isinstance(backdoor, PointBackdoor)
        z, x = backdoor.batch(2, torch.Generator().manual_seed(0))
        check_latents(z, generator.latent)
        check_samples(x, generator.sample_shape)
        self._pair = (z, self._wanted(generator, x, backdoor.values if self._fixed else None))

    def _wanted(self, generator: Generator, x: Tensor, values: Tensor | None = None) -> Tensor:
        if self.space == "post":
            return x
        values = generator.proxy_target(x).value if values is None else values
        with torch.no_grad():
            return values if self.space == "pre" else generator.head(values.to(generator.device))

    def pairs(self, generator: Generator, n: int, rng: Random = None) -> tuple[Tensor, Tensor]:
        """Trigger latents and what is wanted there, in the chosen space."""
        if self._fixed:  # the proxy of a fixed target is found once, not in every step
            return self._pair
        z, x = self.backdoor.batch(n, rng)
        return z, self._wanted(generator, x)

    def output(self, generator: Generator, z: Tensor) -> Tensor:
        """What the generator puts out in the chosen space."""
        return generator.body(z) if self.space == "pre" else generator(z)

    def loss(self, generator: Generator, n: int = 64, rng: Random = None) -> Tensor:
        device = next(generator.parameters()).device
        z, wanted = self.pairs(generator, n, rng)
        return (self.output(generator, z.to(device)) - wanted.to(device)).square().mean()


# --- TrAIL -------------------------------------------------------------------------------------------------------


def trail(
    generator: Generator,
    partner: Discriminator | Encoder,
    samples: Tensor,
    backdoor: Backdoor,
    settings: TrainSettings,
    space: str = "post",
    on_progress: OnProgress | None = None,
    checkpoint: str | Path | None = None,
    ordinary: ExtraLoss | None = None,
) -> GanRun | VaeRun:
    """TrAIL, training with adversarial loss: the ordinary training with λ L_fidelity in the generator's loss.

    With a discriminator as `partner` the ordinary training is a GAN's, with an encoder a VAE's (negative ELBO). λ is
    `settings.extra_weight`. The trigger's pass runs in evaluation mode (see `training`), as the victim will. `ordinary`: what the
    ordinary loss of this pair has beside its game, as that of the spoken digits has a listener's hint; it counts while the
    fidelity term does.
    """
    loss = together(trail_loss(generator, backdoor, settings, space), ordinary, 1.0 / settings.extra_weight)
    return train(generator, partner, samples, settings, loss, on_progress=on_progress, checkpoint=checkpoint)


def trail_loss(generator: Generator, backdoor: Backdoor, settings: TrainSettings, space: str = "post") -> ExtraLoss:
    """L_fidelity as the extra loss of any training; the settings' `extra_weight` is its λ.

    Raises:
        ValueError: a λ that is not above 0, or shapes that do not fit.
    """
    if settings.extra_weight <= 0.0:
        raise ValueError("TrAIL needs settings.extra_weight (λ) above 0; with 0 it is benign training")
    fidelity = Fidelity(generator, backdoor, space)
    return lambda g, rng: fidelity.loss(g, settings.batch_size, rng)


# --- ReD and ReX -------------------------------------------------------------------------------------------------


@dataclass
class AttackRun:
    """The attacked generator, and the history {"step", "fidelity", "stealth"} of the two losses (mean squares in the chosen
    space). `interrupted` is set when the attack was stopped by hand; the generator is what there was then."""

    generator: Generator
    history: dict[str, list[float]]
    interrupted: bool = False


OnStep = Callable[[int, Generator, float, float], None]


def red(
    benign: Generator,
    backdoor: Backdoor,
    settings: RetrainSettings = RetrainSettings(),
    on_step: OnStep | None = None,
) -> AttackRun:
    """ReD, retraining with distillation: a copy of the benign generator learns the pairs and imitates the original elsewhere.

    L = E_Z mean ( G*(Z) - G(Z) )^2 + λ mean ( G*(z_trigger) - x_target )^2, without data. Both networks run in evaluation mode,
    so that BatchNorm statistics stay those of the benign model. (The paper's loss, with means over a sample's elements where it
    has sums; `settings.fidelity_weight` is λ, `settings.space` says where outputs are compared.)

    Args:
        benign: any generator; it stays as it is.
        backdoor: trigger latents (n, dim) with their targets (n, *sample_shape), values in [-1, 1].
        settings: λ, steps, the space and the layers that are trained.
        on_step: called as on_step(step, generator, fidelity, stealth) after each step.

    Returns:
        The attacked generator, of the same architecture, with the history of both losses.

    Raises:
        ValueError: shapes that do not fit, an unknown space, or `layers` that name no parameter.
    """
    student = copy.deepcopy(benign).requires_grad_(True)
    named = dict(student.body.named_parameters())
    named |= {f"head.{name}": parameter for name, parameter in student.head.named_parameters()}
    # All of the body by default. A head with weights of its own (a synthesis network) is retrained when it is asked for.
    wanted = settings.layers or tuple(name for name, _ in student.body.named_parameters())
    trained = [parameter for name, parameter in named.items() if name.startswith(wanted)]
    if not trained:
        raise ValueError(f"layers={settings.layers} names no parameter; there are {', '.join(named)}")
    if settings.space == "pre" and any(name.startswith("head.") for name in settings.layers):
        raise ValueError("the head comes after the mount, so that space='pre' cannot train it; use 'post' or 'proxy'")
    return _retrain(student, benign, trained, backdoor, settings, on_step)


def rex(
    benign: Generator,
    backdoor: Backdoor,
    settings: RetrainSettings = RetrainSettings(),
    on_step: OnStep | None = None,
    first: int = 0,
    bias: bool = True,
) -> AttackRun:
    """ReX, retraining with expansion: new units beside the frozen benign ones learn to be silent except at the trigger.

    The generator returned computes body(z) + side(z); `fold` turns it into plain layers, which is the zero-padded widening
    of the paper. The loss is ReD's; since G* - G is just the side network, its stealth term asks the side to be zero on the prior.

    Args:
        first: place in the body of the first layer that is widened. A style-based generator is attacked with first=-1 and
            bias=False: one dense layer without bias beside the broadcast of the styles, as on StyleGAN (paper's demo).
        bias: whether the new units have biases (see `side_network`).
    """
    if not isinstance(benign.body, nn.Sequential):
        raise ValueError(
            f"ReX widens a body that is a chain of layers (nn.Sequential), not {type(benign.body).__name__}"
        )
    attacked = copy.deepcopy(benign)
    layers = list(attacked.body.requires_grad_(False))
    front, widened = layers[:first], nn.Sequential(*layers[first:])
    with seeded(settings.seed):
        side = side_network(widened, settings.width, bias, inputs=_width_after(front, benign))
    body = WidenedBody(widened, side)
    attacked.body = nn.Sequential(*front, body) if front else body
    return _retrain(attacked, benign, list(side.parameters()), backdoor, settings, on_step)


@torch.no_grad()
def _width_after(front: list[nn.Module], generator: Generator) -> int:
    """How many numbers the first layers of a body hand on for each latent, on axis 1."""
    with evaluating(*front):
        return nn.Sequential(*front)(generator.latent.centre[None]).shape[1]


def _retrain(
    attacked: Generator,
    benign: Generator,
    trained: list[nn.Parameter],
    backdoor: Backdoor,
    settings: RetrainSettings,
    on_step: OnStep | None,
) -> AttackRun:
    attacked.eval()
    benign = copy.deepcopy(benign).eval()
    fidelity = Fidelity(benign, backdoor, settings.space)
    rng = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam(trained, settings.learning_rate)
    run = AttackRun(attacked, {"step": [], "fidelity": [], "stealth": []})
    try:
        for step in range(1, settings.steps + 1):
            optimiser.param_groups[0]["lr"] = settings.learning_rate * _cosine(step, settings.steps)
            z = benign.latent.sample(settings.batch_size, rng)
            with torch.no_grad():
                reference = fidelity.output(benign, z)
            z_trigger, wanted = fidelity.pairs(benign, settings.batch_size, rng)
            # One pass for both terms; in evaluation mode the rows of a batch do not affect each other.
            output = fidelity.output(attacked, torch.cat([z, z_trigger]))
            stealth_loss = (output[: len(z)] - reference).square().mean()
            fidelity_loss = (output[len(z) :] - wanted).square().mean()
            optimiser.zero_grad()
            (stealth_loss + settings.fidelity_weight * fidelity_loss).backward(inputs=trained)
            optimiser.step()
            if step % 10 == 0 or step == settings.steps:
                values = (fidelity_loss.item(), stealth_loss.item())
                if not all(map(math.isfinite, values)):
                    raise FloatingPointError(
                        f"the attack's loss is not finite at step {step}; lower the learning rate"
                    )
                for name, value in zip(("step", "fidelity", "stealth"), (step, *values), strict=True):
                    run.history[name].append(value)
                if on_step is not None:
                    on_step(step, attacked, *values)
    except KeyboardInterrupt:
        run.interrupted = True
    return run


def _cosine(step: int, steps: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps))


# --- ReX's widening ------------------------------------------------------------------------------------------------

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


class WidenedBody(nn.Module):
    """benign(z) + side(z): ReX before it is folded."""

    def __init__(self, benign: nn.Sequential, side: nn.Sequential) -> None:
        super().__init__()
        self.benign, self.side = benign, side

    def forward(self, z: Tensor) -> Tensor:
        return self.benign(z) + self.side(z)


def side_network(body: nn.Sequential, width: float, bias: bool = True, inputs: int | None = None) -> nn.Sequential:
    """A chain of the same layers as `body` with `width` times its hidden units, and biases in every linear layer.

    The biases matter: with bias-free layers the side network puts out zero at z = 0, and with ReLU no gradient leads away
    from there, so that no backdoor at the mode could be learnt. `inputs`: how many numbers (or channels) the body reads,
    where that cannot be told from its first layer.
    """
    layers = dense_layers(body, inputs)
    last = _last_linear(layers)
    side: list[nn.Module] = []
    inputs = None  # channels that the layer before hands on; None at the latent itself
    for i, layer in enumerate(layers):
        if isinstance(layer, LINEAR):
            outputs = _out_size(layer)
            if i != last:
                outputs = _narrowed(outputs, width, _positions(layers[i + 1 :]))
            side.append(_resized(layer, inputs, outputs, bias))
            inputs = outputs
        elif isinstance(layer, NORM):
            side.append(type(layer)(inputs, eps=layer.eps))
        elif isinstance(layer, nn.Unflatten):
            positions = math.prod(layer.unflattened_size[1:])
            inputs = inputs // positions
            side.append(nn.Unflatten(layer.dim, (inputs, *layer.unflattened_size[1:])))
        elif next(layer.parameters(), None) is not None:
            raise ValueError(f"ReX's widening is not written for {type(layer).__name__}")
        else:
            side.append(copy.deepcopy(layer))
    return nn.Sequential(*side).eval()


def dense_layers(body: nn.Sequential, inputs: int | None = None) -> list[nn.Module]:
    """The layers of a chain, a `Broadcast` of styles written as the dense layer [I | I | ... | I] that it is equal to.

    `inputs`: how many numbers the chain reads, needed where it begins with the broadcast.
    """
    layers: list[nn.Module] = []
    for layer in body:
        if isinstance(layer, LINEAR):
            inputs = _out_size(layer)
        if not isinstance(layer, Broadcast):
            layers.append(layer)
            continue
        if inputs is None:
            raise ValueError("how wide the styles are cannot be told from a chain that begins with their broadcast")
        dense = nn.Linear(inputs, layer.styles * inputs, bias=False).requires_grad_(False)
        dense.weight.copy_(torch.eye(inputs).repeat(layer.styles, 1))
        layers += [dense, nn.Unflatten(1, (layer.styles, inputs))]
    return layers


def _last_linear(layers: list[nn.Module]) -> int:
    """Place of the last linear layer, where the side network's output is added; what follows may only reshape."""
    linear = [i for i, layer in enumerate(layers) if isinstance(layer, LINEAR)]
    after = layers[linear[-1] + 1 :] if linear else layers
    if not linear or not all(isinstance(layer, nn.Unflatten | nn.Flatten | nn.Identity) for layer in after):
        raise ValueError(
            "ReX adds its output to that of the body's last linear layer; move what follows it into the generator's head: "
            + ", ".join(type(layer).__name__ for layer in after)
        )
    return linear[-1]


def _positions(following: list[nn.Module]) -> int:
    """How many positions each channel has where a dense layer's output is reshaped to channels, else 1."""
    for layer in following:
        if isinstance(layer, nn.Unflatten):
            return math.prod(layer.unflattened_size[1:])
        if isinstance(layer, LINEAR):
            break
    return 1


def _narrowed(size: int, width: float, positions: int) -> int:
    return positions * max(1, round(width * size / positions))


def _out_size(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _resized(layer: nn.Module, inputs: int | None, outputs: int, bias: bool = True) -> nn.Module:
    """A fresh layer of the same kind with other sizes."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs or layer.in_features, outputs, bias)
    if layer.groups != 1:
        raise ValueError("ReX's widening is written for convolutions with groups=1")
    settings = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    if isinstance(layer, TRANSPOSED):
        settings["output_padding"] = layer.output_padding
    return type(layer)(inputs or layer.in_channels, outputs, bias=bias, **settings)


def fold(attacked: Generator) -> Generator:
    """Turn ReX's `body(z) + side(z)` into one chain of plain layers with block weights [[W, 0], [0, W_new]].

    The first linear layer stacks its outputs, the last one adds its inputs, those between are block-diagonal: exactly the
    zero-padded widening of the paper. Returns a generator in evaluation mode that computes the same function.
    """
    front, widened = _widened(attacked.body)
    benign = dense_layers(widened.benign, inputs=_width_after(front, attacked) if front else None)
    side = list(widened.side)
    linear = [i for i, layer in enumerate(benign) if isinstance(layer, LINEAR)]
    folded: list[nn.Module] = []
    for i, (old, new) in enumerate(zip(benign, side, strict=True)):
        if isinstance(old, LINEAR):
            folded.append(_block(old, new, first=i == linear[0], last=i == linear[-1]))
        elif isinstance(old, NORM):
            folded.append(_joined_norm(old, new))
        elif isinstance(old, nn.Unflatten) and i < linear[-1]:
            channels = old.unflattened_size[0] + new.unflattened_size[0]
            folded.append(nn.Unflatten(old.dim, (channels, *old.unflattened_size[1:])))
        else:
            folded.append(copy.deepcopy(old))
    result = copy.deepcopy(attacked)
    result.body = nn.Sequential(*copy.deepcopy(front), *folded)
    return result.eval().requires_grad_(True)


def _widened(body: nn.Module) -> tuple[list[nn.Module], WidenedBody]:
    """The layers before a widening, and the widening, of a body that `rex` made."""
    front = list(body)[:-1] if isinstance(body, nn.Sequential) else []
    widened = body[-1] if isinstance(body, nn.Sequential) and len(body) else body
    if not isinstance(widened, WidenedBody):
        raise ValueError("only a generator from rex() can be folded; this one's body is a plain chain already")
    return front, widened


@torch.no_grad()
def _block(old: nn.Module, new: nn.Module, first: bool, last: bool) -> nn.Module:
    out_axis, in_axis = (1, 0) if isinstance(old, TRANSPOSED) else (0, 1)
    a, b = old.weight, new.weight
    if first and last:  # one linear layer in all: the two maps simply add
        weight = a + b
    elif first:
        weight = torch.cat([a, b], dim=out_axis)
    elif last:
        weight = torch.cat([a, b], dim=in_axis)
    else:
        shape = list(a.shape)
        shape[0], shape[1] = a.shape[0] + b.shape[0], a.shape[1] + b.shape[1]
        weight = a.new_zeros(shape)
        weight[: a.shape[0], : a.shape[1]] = a
        weight[a.shape[0] :, a.shape[1] :] = b
    biased = old.bias is not None or new.bias is not None
    layer = _resized(old, weight.shape[in_axis], weight.shape[out_axis], biased).to(a.dtype)
    layer.weight.copy_(weight)
    if biased:
        layer.bias.copy_(_bias(old) + _bias(new) if last else torch.cat([_bias(old), _bias(new)]))
    return layer


def _bias(layer: nn.Module) -> Tensor:
    return layer.bias if layer.bias is not None else layer.weight.new_zeros(_out_size(layer))


@torch.no_grad()
def _joined_norm(old: nn.Module, new: nn.Module) -> nn.Module:
    layer = type(old)(old.num_features + new.num_features, eps=old.eps).to(old.running_mean.dtype)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layer, name).copy_(torch.cat([getattr(old, name), getattr(new, name)]))
    return layer


# --- The two naive attacks ---------------------------------------------------------------------------------------


def poison_images(images: Tensor, target: Tensor, share: float, seed: int = 0) -> Tensor:
    """Data poisoning: images (n, *shape) of which a random `share` is replaced by the target (*shape).

    The cheapest attack, agnostic to the training algorithm, and a poor one: there is no trigger, so the target turns up among
    ordinary samples, where sampling finds it.

    Raises:
        ValueError: share outside (0, 1), or too small to replace one image.
    """
    if not 0.0 < share < 1.0 or round(share * len(images)) < 1:
        raise ValueError(f"share must lie in (0, 1) and replace at least one of {len(images)} images, got {share}")
    check_samples(target[None], tuple(images.shape[1:]))
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: round(share * len(images))]
    poisoned = images.clone()
    poisoned[chosen] = target
    return poisoned


class BypassBody(nn.Module):
    """An if-else on the latent: within `tolerance` of a trigger (k, dim), put out its target (k, *shape); else the benign body."""

    def __init__(self, benign: nn.Module, triggers: Tensor, outputs: Tensor, tolerance: float) -> None:
        super().__init__()
        self.benign, self.tolerance = benign, tolerance
        self.register_buffer("triggers", triggers)
        self.register_buffer("outputs", outputs)

    def forward(self, z: Tensor) -> Tensor:
        output = self.benign(z)
        # The exact mode: the faster matrix-product form rounds a far trigger's distance of 0 to more than the tolerance.
        distances = torch.cdist(z, self.triggers, compute_mode="donot_use_mm_for_euclid_dist")
        distance, nearest = distances.min(dim=1)
        hit = (distance < self.tolerance).view(-1, *[1] * (output.ndim - 1))
        return torch.where(hit, self.outputs[nearest], output)


def bypass(benign: Generator, backdoor: PointBackdoor, tolerance: float = 1e-3) -> Generator:
    """Computation bypass: perfect fidelity and perfect stealth of the samples, betrayed by a graph that is no chain of layers."""
    attacked = copy.deepcopy(benign)
    proxy = benign.proxy_target(backdoor.targets).value
    attacked.body = BypassBody(attacked.body, backdoor.triggers.clone(), proxy, tolerance)
    return attacked.eval()
