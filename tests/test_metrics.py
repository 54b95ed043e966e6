"""The metrics against numpy, scipy and closed forms."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tiny
import torch
from torch import Tensor, nn

from devil_lib import metrics
from devil_lib.metrics import FeatureStatistics
from devil_lib.models import Classifier, GaussianLatent, Generator
from devil_lib.wavegan import FilteredTanhHead

RNG = np.random.default_rng(0)


def covariance(d: int, rank: int | None = None) -> np.ndarray:
    factor = RNG.normal(size=(d, rank or 2 * d))
    return factor @ factor.T / factor.shape[1]


# --- TarDis and ExpDis ---------------------------------------------------------------------------------------------------


def test_tardis_by_hand():
    generator = tiny.image_generator()
    z = generator.latent.sample(3, torch.Generator().manual_seed(0))
    targets = torch.stack([tiny.picture(), -tiny.picture(), torch.zeros(1, 12, 12)])
    differences = generator.generate(z).double().numpy() - targets.double().numpy()
    found = metrics.tardis(generator, z, targets)
    assert found.sum == pytest.approx((differences**2).reshape(3, -1).sum(1).mean(), rel=1e-9)
    assert found.mean == pytest.approx(found.sum / 144, rel=1e-9)
    assert "sum over elements" in str(found) and "mean" in str(found)
    np.testing.assert_allclose(
        metrics.tardis_each(generator, z, targets), (differences**2).reshape(3, -1).sum(1), rtol=1e-5
    )
    one = metrics.tardis_each(generator, z, targets[0])
    np.testing.assert_allclose(
        one, ((generator.generate(z) - targets[0]).numpy() ** 2).reshape(3, -1).sum(1), rtol=1e-5
    )


def test_tardis_is_zero_exactly_at_the_models_own_output():
    generator = tiny.image_generator().train()
    z = generator.latent.sample(2, torch.Generator().manual_seed(0))
    assert metrics.tardis(generator, z, generator.generate(z)).sum == 0.0
    assert generator.training, "measuring leaves the mode as it was"


def test_expdis_by_hand_on_the_same_latents():
    a, b = tiny.image_generator(0), tiny.image_generator(1)
    z = b.latent.sample(70, torch.Generator().manual_seed(4))
    differences = (a.generate(z).double() - b.generate(z).double()).numpy()
    found = metrics.expdis(a, b, n=70, seed=4)
    assert found.sum == pytest.approx((differences**2).reshape(70, -1).sum(1).mean(), rel=1e-9)
    assert found.mean == pytest.approx((differences**2).mean(), rel=1e-9)
    assert metrics.expdis(a, a, n=70).sum == 0.0


@pytest.mark.parametrize(
    ("triggers", "targets", "words"),
    [
        (torch.zeros(2, 8), torch.zeros(1, 1, 12, 12), "one target for each trigger"),
        (torch.zeros(1, 9), torch.zeros(1, 1, 12, 12), r"\(n, 8\)"),
        (torch.zeros(8), torch.zeros(8, 1, 12, 12), r"z\[None\]"),
        (torch.zeros(1, 8), torch.zeros(1, 12, 12), "12, 12"),
        (torch.full((1, 8), math.nan), torch.zeros(1, 1, 12, 12), "NaN"),
        (torch.zeros(1, 8), torch.full((1, 1, 12, 12), math.nan), "NaN"),
        (torch.zeros(1, 8), torch.full((1, 1, 12, 12), 255.0), "2 \\* x - 1"),
    ],
)
def test_tardis_refuses_bad_input(triggers, targets, words):
    with pytest.raises(ValueError, match=words):
        metrics.tardis(tiny.image_generator(), triggers, targets)


def test_tardis_each_refuses_targets_that_do_not_fit():
    with pytest.raises(ValueError, match="one for each latent"):
        metrics.tardis_each(tiny.image_generator(), torch.zeros(3, 8), torch.zeros(2, 1, 12, 12))
    with pytest.raises(ValueError, match="12, 12"):
        metrics.tardis_each(tiny.image_generator(), torch.zeros(3, 8), torch.zeros(1, 28, 28))


def test_expdis_refuses_generators_that_do_not_match():
    with pytest.raises(ValueError, match="share the latent dimension and the sample shape"):
        metrics.expdis(tiny.image_generator(), tiny.sound_generator())
    with pytest.raises(ValueError, match="share the latent dimension"):
        metrics.expdis(tiny.image_generator(), tiny.image_generator(dim=9))


def test_the_floor_is_the_tardis_of_what_an_attack_before_the_head_can_reach():
    generator, targets = tiny.dense_generator(), torch.stack([tiny.sound(), -0.5 * tiny.sound()])
    floor = metrics.tardis_floor(generator, targets)
    assert 0.0 < floor.sum < 1e-4 and floor.mean == pytest.approx(floor.sum / 24)
    # Through a filter that lets no change pass, the best that there is misses much of the target.
    head = FilteredTanhHead(4)
    head.filter.weight.data[:] = 0.25
    filtered = Generator(generator.body, head, generator.latent, (1, 24), "audio")
    proxy = filtered.proxy_target(targets)
    reached = head(proxy.value).detach()
    floor = metrics.tardis_floor(filtered, targets, proxy)
    assert floor.sum == pytest.approx((reached - targets).flatten(1).square().sum(1).mean().item(), rel=1e-5)
    assert floor.sum > 0.1 and floor == metrics.tardis_floor(filtered, targets)
    with pytest.raises(ValueError, match="24"):
        metrics.tardis_floor(filtered, targets[:, :, :20])


# --- Decibels --------------------------------------------------------------------------------------------------------------


def test_the_signal_to_noise_ratio_by_hand():
    wanted = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]], [[1.0, 1.0]], [[0.5, 0.5]]])
    made = torch.tensor([[[3.0, 4.5]], [[0.0, 0.0]], [[1.0, 1.0]], [[-0.5, -0.5]]])
    found = metrics.signal_to_noise(made, wanted)
    torch.testing.assert_close(
        found, torch.tensor([20.0, 0.0, math.inf, -20.0 * math.log10(2.0)], dtype=torch.float64)
    )


def test_levels_by_hand():
    x = torch.randn(50, 1, 400)
    assert metrics.power_db(x, x) == 0.0
    assert metrics.power_db(0.1 * x, x) == pytest.approx(-20.0, abs=1e-5)
    by_numpy = 10 * np.log10(np.square(x.numpy(), dtype=np.float64).mean() / 0.25)
    assert metrics.power_db(x, torch.full((3, 1, 8), 0.5)) == pytest.approx(by_numpy, abs=1e-9)
    assert metrics.power_db(torch.zeros_like(x), x) == -math.inf


def test_expdis_in_decibels_is_expdis_over_the_power_of_the_benign_samples():
    a, b = tiny.sound_generator(0), tiny.sound_generator(1)
    power = b.generate(b.latent.sample(70, torch.Generator().manual_seed(4))).double().square().mean().item()
    expected = 10 * math.log10(metrics.expdis(a, b, n=70, seed=4).mean / power)
    assert metrics.expdis_db(a, b, n=70, seed=4) == pytest.approx(expected, abs=1e-5)
    assert metrics.expdis_db(a, a, n=70) == -math.inf
    with pytest.raises(ValueError, match="share the latent dimension"):
        metrics.expdis_db(a, tiny.image_generator())


@pytest.mark.parametrize(
    ("made", "wanted", "words"),
    [
        (torch.ones(2, 1, 3), torch.ones(1, 1, 3), "pairs"),
        (torch.ones(3), torch.ones(3), "pairs"),
        (torch.ones(1, 3), torch.zeros(1, 3), "silent target"),
        (torch.full((1, 3), math.nan), torch.ones(1, 3), "NaN"),
    ],
)
def test_pairs_without_a_signal_to_noise_ratio_are_refused(made, wanted, words):
    with pytest.raises(ValueError, match=words):
        metrics.signal_to_noise(made, wanted)


@pytest.mark.parametrize(
    ("samples", "reference", "words"),
    [
        (torch.ones(1, 3), torch.zeros(1, 3), "silent"),
        (torch.full((1, 3), math.inf), torch.ones(1, 3), "NaN"),
        (torch.ones(0, 3), torch.ones(1, 3), "no samples"),
    ],
)
def test_levels_that_mean_nothing_are_refused(samples, reference, words):
    with pytest.raises(ValueError, match=words):
        metrics.power_db(samples, reference)


# --- Fréchet distance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 3], ids=["full rank", "singular"])
def test_the_frechet_distance_is_that_of_scipys_matrix_root(rank):
    a = FeatureStatistics(RNG.normal(size=6), covariance(6, rank), 100)
    b = FeatureStatistics(RNG.normal(size=6), covariance(6), 100)
    gap = a.mean - b.mean
    by_scipy = gap @ gap + np.trace(
        a.covariance + b.covariance - 2 * scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    )
    assert metrics.frechet_distance(a, b) == pytest.approx(by_scipy, rel=1e-5)
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), rel=1e-6)
    assert metrics.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_the_frechet_distance_of_gaussians_in_closed_form():
    """With covariances that commute it is |gap|^2 + sum (sigma_a - sigma_b)^2; in one basis or any other."""
    basis = scipy.linalg.qr(RNG.normal(size=(5, 5)))[0]
    a_sigma, b_sigma, gap = np.array([1.0, 2, 3, 0.5, 0]), np.array([2.0, 2, 1, 0.1, 1]), np.arange(5.0)
    a = FeatureStatistics(np.zeros(5), basis @ np.diag(a_sigma**2) @ basis.T, 10)
    b = FeatureStatistics(gap, basis @ np.diag(b_sigma**2) @ basis.T, 10)
    assert metrics.frechet_distance(a, b) == pytest.approx(gap @ gap + ((a_sigma - b_sigma) ** 2).sum(), rel=1e-6)


class Pixels(Classifier):
    """Its features are the first four elements of a sample."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten()), nn.Linear(4, 2), "pixels")

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]


def test_feature_statistics_are_numpys_whatever_the_batches():
    x = torch.randn(57, 1, 3, 3)
    found = metrics.feature_statistics(Pixels(), x, batch_size=10)
    features = x.flatten(1)[:, :4].double().numpy()
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-6)
    assert found.n == 57


def test_the_estimated_frechet_distance_approaches_the_closed_form():
    rng = torch.Generator().manual_seed(0)
    shift, scale = torch.tensor([1.0, 0, 0, 2]), torch.tensor([1.0, 2, 0.5, 1])
    x = torch.randn(40_000, 4, generator=rng)
    y = shift + scale * torch.randn(40_000, 4, generator=rng)
    found = metrics.frechet_distance(*(metrics.feature_statistics(Pixels(), part[:, None]) for part in (x, y)))
    assert found == pytest.approx((shift.square().sum() + (scale - 1).square().sum()).item(), rel=0.02)


def test_feature_statistics_refuse_what_gives_no_covariance():
    with pytest.raises(ValueError, match="draw more"):
        metrics.feature_statistics(Pixels(), torch.randn(4, 1, 3, 3))
    broken = torch.randn(20, 1, 3, 3)
    broken[3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        metrics.feature_statistics(Pixels(), broken)


def test_the_frechet_distance_of_a_generator():
    generator, classifier = tiny.image_generator(), tiny.classifier()
    z = generator.latent.sample(300, torch.Generator().manual_seed(6))
    own = metrics.feature_statistics(classifier, generator.generate(z))
    assert metrics.generator_frechet(generator, own, classifier, n=300, seed=6) == pytest.approx(0.0, abs=1e-6)
    assert metrics.generator_frechet(tiny.image_generator(1), own, classifier, n=300, seed=6) > 0.001


# --- Recognised samples --------------------------------------------------------------------------------------------------


class Fixed(Classifier):
    """Reads the class logits straight from the sample."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten()), nn.Linear(1, 1), "fixed")

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_recognised_counts_confident_samples_and_classes():
    confident, doubtful = math.log(0.95 / 0.025), math.log(0.85 / 0.075)  # of three classes: 95 % and 85 %
    logits = torch.tensor([[confident, 0, 0], [0, confident, 0], [0, doubtful, 0], [0, doubtful, 0]])
    found = metrics.recognised(Fixed(), logits)
    assert found.share == 0.5
    assert found.by_class == (0.25, 0.75, 0.0) and found.rarest == 0.0
    assert metrics.recognised(Fixed(), logits, confidence=0.8).share == 1.0


class Counting(Fixed):
    """Notes how many samples it is given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def features(self, x: Tensor) -> Tensor:
        self.counts.append(len(x))
        return x.flatten(1)[:, :4]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


@pytest.mark.parametrize(("shape", "most"), [((1, 28, 28), 1000), ((3, 64, 64), 83), ((1, 16384), 62)])
def test_larger_samples_are_classified_fewer_at_a_time(shape, most):
    classifier, x = Counting(), torch.randn(1, *shape).expand(1010, *shape)
    metrics.feature_statistics(classifier, x)
    assert max(classifier.counts) == most and sum(classifier.counts) == 1010
    metrics.recognised(classifier, x)
    metrics.accuracy(classifier, x, torch.zeros(1010, dtype=torch.long))
    assert max(classifier.counts) == most and sum(classifier.counts) == 3030


def test_accuracy_counts_what_is_right():
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 3, 3])]
    assert metrics.accuracy(Fixed(), logits, torch.tensor([0, 1, 2, 3, 0])) == 0.8


# --- Basin radius ----------------------------------------------------------------------------------------------------------


class Bump(nn.Module):
    """Puts out 1 within `radius` of the origin, else 0, as one pixel."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))

    def forward(self, z: Tensor) -> Tensor:
        return (z.norm(dim=1) < self.radius).float().view(-1, 1, 1, 1)


def test_the_basin_of_an_analytic_generator():
    """At sigma the share of points outside the ball is the tail of a chi law: the mean TarDis must be just that."""
    dim, radius = 50, 4.0
    attacked, benign = (Generator(Bump(r), nn.Identity(), GaussianLatent(dim), (1, 1, 1)) for r in (radius, 0.0))
    sigmas = (0.0, 0.3, 0.5, 0.53, 0.6, 0.8)
    basin = metrics.basin_radius(attacked, benign, torch.zeros(dim), torch.ones(1, 1, 1), sigmas, n=4000)
    expected = [scipy.stats.chi(dim).sf(radius / sigma) if sigma else 0.0 for sigma in sigmas]
    np.testing.assert_allclose(basin.attacked, expected, atol=0.03)
    assert basin.benign == (1.0,) * 6
    assert expected[2] < 0.1 < expected[4]
    assert basin.radius == max(sigma for sigma, value in zip(sigmas, expected, strict=True) if value < 0.1)
    assert metrics.basin_radius(benign, benign, torch.zeros(dim), torch.ones(1, 1, 1), sigmas).radius == 0.0


def test_the_radius_ends_where_the_target_is_first_lost():
    """A target that is lost and comes back further out does not count."""

    class Rings(Bump):
        def forward(self, z: Tensor) -> Tensor:
            norm = z.norm(dim=1)
            return ((norm < 1.0) | (norm > 20.0)).float().view(-1, 1, 1, 1)

    attacked, benign = (
        Generator(body, nn.Identity(), GaussianLatent(50), (1, 1, 1)) for body in (Rings(1.0), Bump(0.0))
    )
    basin = metrics.basin_radius(attacked, benign, torch.zeros(50), torch.ones(1, 1, 1), (0.0, 0.1, 1.0, 9.0))
    assert basin.attacked[-1] == 0.0 and basin.radius == 0.1


def test_the_basin_refuses_bad_input():
    generator = tiny.image_generator()
    with pytest.raises(ValueError, match="NaN"):
        metrics.basin_radius(generator, generator, torch.full((8,), math.nan), tiny.picture())
    with pytest.raises(ValueError, match="12, 12"):
        metrics.basin_radius(generator, generator, torch.zeros(8), torch.zeros(1, 28, 28))
