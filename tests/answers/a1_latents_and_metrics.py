"""Answers to the exercises of A1, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong

_BASIN = """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = {share} * ({model}.generate(trigger[None])[0] - target).square().sum()
    radius = 0.0
    for sigma in sigmas:
        z = trigger + sigma * torch.randn(n, len(trigger){drawn})
        if (attacked.generate(z) - target).flatten(1).square().sum(1).{over_steps}() >= bound:
            break
        radius = sigma
    return radius
"""


def _basin(
    share: str = "0.1", model: str = "benign", drawn: str = ", generator=rng", over_steps: str = "mean"
) -> str:
    """An answer to `basin_radius`, right but for the parts that are given."""
    return _BASIN.format(share=share, model=model, drawn=drawn, over_steps=over_steps)


ANSWERS = {
    "sample_latents": [
        right("in place", """
def sample_latents(law, n, dim, rng):
    z = torch.empty(n, dim)
    return z.normal_(generator=rng) if law == "normal" else z.uniform_(-1, 1, generator=rng)
"""),
        right("numpy seeded by the generator, double precision", """
def sample_latents(law, n, dim, rng):
    numbers = np.random.default_rng(torch.randint(2**31, (1,), generator=rng).item())
    draw = {"normal": numbers.standard_normal, "uniform": lambda size: numbers.uniform(-1, 1, size)}[law]
    return torch.from_numpy(draw((n, dim)))
"""),
        right("one latent after the other", """
def sample_latents(law, n, dim, rng):
    rows = []
    while len(rows) < n:
        rows.append(torch.randn(dim, generator=rng) if law == "normal" else 1 - 2 * torch.rand(dim, generator=rng))
    return torch.stack(rows)
"""),
        wrong("only the upper half of the interval", """
def sample_latents(law, n, dim, rng):
    return torch.randn(n, dim, generator=rng) if law == "normal" else torch.rand(n, dim, generator=rng)
""", 3, "the lower half of the interval never comes"),
        wrong("the normal law for both", """
def sample_latents(law, n, dim, rng):
    return torch.randn(n, dim, generator=rng)
""", 3, "numbers outside the interval"),
        wrong("a normal law of the uniform law's spread", """
def sample_latents(law, n, dim, rng):
    z = torch.randn(n, dim, generator=rng)
    return z if law == "normal" else (z / 3**0.5).clamp(-1, 1)
""", 3, "standard deviation is not the law's"),
        wrong("the uniform law with the normal law's spread", """
def sample_latents(law, n, dim, rng):
    z = 2 * torch.rand(n, dim, generator=rng) - 1
    return z * 3**0.5 if law == "normal" else z
""", 3, "the shape is another law's"),
        wrong("the generator is not used", """
def sample_latents(law, n, dim, rng):
    return torch.randn(n, dim) if law == "normal" else 2 * torch.rand(n, dim) - 1
""", 3, "gives other latents: are they drawn with `rng`?"),
        wrong("the generator is set back in every call", """
def sample_latents(law, n, dim, rng):
    rng = torch.Generator().manual_seed(rng.initial_seed())
    return torch.randn(n, dim, generator=rng) if law == "normal" else 2 * torch.rand(n, dim, generator=rng) - 1
""", 3, "is the generator set back inside?"),
        wrong("rows and columns exchanged", """
def sample_latents(law, n, dim, rng):
    return torch.randn(dim, n, generator=rng) if law == "normal" else 2 * torch.rand(dim, n, generator=rng) - 1
""", 3, "rows and columns are exchanged"),
        wrong("one latent repeated", """
def sample_latents(law, n, dim, rng):
    z = torch.randn(1, dim, generator=rng) if law == "normal" else 2 * torch.rand(1, dim, generator=rng) - 1
    return z.expand(n, dim)
""", 2, "all latents are (almost) the same"),
        wrong("one number in all coordinates", """
def sample_latents(law, n, dim, rng):
    z = torch.randn(n, 1, generator=rng) if law == "normal" else 2 * torch.rand(n, 1, generator=rng) - 1
    return z.repeat(1, dim)
""", 2, "the coordinates of a latent depend on one another"),
        wrong("moved onto the sphere", """
def sample_latents(law, n, dim, rng):
    if law == "uniform":
        return 2 * torch.rand(n, dim, generator=rng) - 1
    z = torch.randn(n, dim, generator=rng)
    return z / z.norm(dim=1, keepdim=True) * dim**0.5
""", 3, "they lie on a sphere"),
        crashing("""
def sample_latents(law, n, dim, rng):
    return np.random.default_rng(rng).normal(size=(n, dim))
""", "your code raised TypeError in line 2"),
    ],
    "tardis": [
        right("a loop over the pairs in numpy", """
def tardis(generator, triggers, targets):
    total = 0.0
    for trigger, target in zip(triggers, targets):
        made = generator(trigger[None])[0].detach().numpy().astype(np.float64)
        total += np.sum((made - target.numpy()) ** 2)
    return total / len(triggers)
"""),
        right("in place, a tensor comes back", """
def tardis(generator, triggers, targets):
    targets -= generator.generate(z=triggers)
    return targets.square_().sum() / len(targets)
"""),
        right("the loss of torch, single precision", """
def tardis(generator, triggers, targets):
    loss = torch.nn.functional.mse_loss(input=generator(triggers), target=targets, reduction="sum")
    return np.float32(loss.item() / targets.shape[0])
"""),
        wrong("the mean over the elements", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).square().mean().item()
""", 0, "this is the mean over the elements, and the sum over them is asked for"),
        wrong("the distance, not its square", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).flatten(1).norm(dim=1).mean().item()
""", 0, "this is a distance, and its square is asked for"),
        wrong("the sum over the pairs", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).square().sum().item()
""", 2, "this is the sum over the pairs"),
        wrong("absolute differences", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).abs().flatten(1).sum(1).mean().item()
""", 0, "this adds the absolute differences, not their squares"),
        wrong("before the last activation", """
def tardis(generator, triggers, targets):
    return (generator.body(triggers) - targets).square().flatten(1).sum(1).mean().item()
""", 0, "measured before the last activation"),
        wrong("every sample against every target", """
def tardis(generator, triggers, targets):
    made = generator.generate(triggers)
    return (made[:, None] - targets[None]).square().flatten(2).sum(2).mean().item()
""", 2, "every sample is compared with every target"),
        wrong("made for pictures only", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).square().sum(dim=(1, 2, 3)).mean().item()
""", 3, "your code raised IndexError in line 2"),
        wrong("one value for each pair", """
def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).square().flatten(1).sum(1)
""", 2, "a single number is asked for"),
        wrong("nothing returned", """
def tardis(generator, triggers, targets):
    print((generator.generate(triggers) - targets).square().flatten(1).sum(1).mean().item())
""", 0, "is the `return` missing?"),
        crashing("""
def tardis(generator, triggers, targets):
    return (generator.sample(triggers) - targets).square().sum()
""", "your code raised AttributeError in line 2"),
    ],
    "expdis": [
        right("in batches, with a running sum", """
def expdis(attacked, benign, n, rng):
    total = 0.0
    for start in range(0, n, 700):
        z = benign.latent.sample(min(700, n - start), rng=rng)
        with torch.no_grad():
            total += ((attacked(z) - benign(z)) ** 2).sum().item()
    return total / n
"""),
        right("numpy, double precision", """
def expdis(attacked, benign, n, rng):
    z = attacked.latent.sample(n, rng)
    a, b = (model.generate(z).numpy().reshape(n, -1).astype(float) for model in (attacked, benign))
    return np.linalg.norm(a - b, axis=1).__pow__(2).mean()
"""),
        wrong("different latents for the two", """
def expdis(attacked, benign, n, rng):
    a, b = attacked.generate(benign.latent.sample(n, rng)), benign.generate(benign.latent.sample(n, rng))
    return (a - b).square().flatten(1).sum(1).mean().item()
""", 1, "the two generators seem to receive different latents"),
        wrong("the distance of the mean samples", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(n, rng)
    return (attacked.generate(z).mean(0) - benign.generate(z).mean(0)).square().sum().item()
""", 2, "this is the distance between two mean samples"),
        wrong("always the normal law", """
def expdis(attacked, benign, n, rng):
    z = torch.randn(n, benign.latent.dim, generator=rng)
    return (attacked.generate(z) - benign.generate(z)).square().flatten(1).sum(1).mean().item()
""", 3, "from another law than the generator's own"),
        wrong("one latent instead of n", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(1, rng)
    return (attacked.generate(z) - benign.generate(z)).square().sum().item()
""", 2, "the mean is over too few latents"),
        wrong("the mean over the elements", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(n, rng)
    return (attacked.generate(z) - benign.generate(z)).square().mean().item()
""", 1, "this is the mean over the elements of a sample"),
        wrong("the sum over the latents", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(n, rng)
    return (attacked.generate(z) - benign.generate(z)).square().sum().item()
""", 1, "the number is too large"),
        wrong("the generator of random numbers is not used", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(n)
    return (attacked.generate(z) - benign.generate(z)).square().flatten(1).sum(1).mean().item()
""", 3, "are the latents drawn with `rng`?"),
        wrong("the distance, not its square", """
def expdis(attacked, benign, n, rng):
    z = benign.latent.sample(n, rng)
    return (attacked.generate(z) - benign.generate(z)).flatten(1).norm(dim=1).mean().item()
""", 1, "this is a distance, and its square is asked for"),
        crashing("""
def expdis(attacked, benign, n, rng):
    z = benign.latent.draw(n, rng)
    return (attacked.generate(z) - benign.generate(z)).square().flatten(1).sum(1).mean().item()
""", "your code raised AttributeError in line 2"),
    ],
    "frechet_distance": [
        right("scipy's root of a matrix, numpy's covariances over n", """
def frechet_distance(a, b):
    import scipy.linalg
    a, b = a.numpy(), b.numpy()
    ca, cb = np.cov(a, rowvar=False, bias=True), np.cov(b, rowvar=False, bias=True)
    root = scipy.linalg.sqrtm(ca @ cb)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca + cb - 2 * root)
"""),
        right("through the symmetric product, single precision", """
def frechet_distance(a, b):
    a, b = a.float(), b.float()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(ca)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cb @ root).clamp_min(0).sqrt().sum()
    return torch.dist(a.mean(0), b.mean(0)) ** 2 + ca.trace() + cb.trace() - 2 * cross
"""),
        wrong("the root of every entry", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    root = (ca @ cb).clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).square().sum() + (ca + cb - 2 * root).trace()).item()
""", 0, "the root of a matrix is not the matrix of the roots of its entries"),
        wrong("variances only", """
def frechet_distance(a, b):
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return (gap + (a.std(0) - b.std(0)).square().sum()).item()
""", 2, "only the variances enter"),
        wrong("the means only", """
def frechet_distance(a, b):
    return (a.mean(0) - b.mean(0)).square().sum().item()
""", 1, "the covariances do not enter"),
        wrong("the covariances only", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt()
    return (ca.trace() + cb.trace() - 2 * roots.sum()).item()
""", 1, "the means do not enter"),
        wrong("the gap between the means unsquared", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).norm() + ca.trace() + cb.trace() - 2 * roots.sum()).item()
""", 1, "the gap between the means enters unsquared"),
        wrong("the root once instead of twice", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - roots.sum()).item()
""", 0, "enters once instead of twice"),
        wrong("the product taken for symmetric", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvalsh(ca @ cb).clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots.sum()).item()
""", 2, "is not symmetric, and is treated as if it were"),
        wrong("the root of the distance", """
def frechet_distance(a, b):
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots.sum()).sqrt().item()
""", 0, "this is the root of the distance"),
        wrong("correlations for covariances", """
def frechet_distance(a, b):
    ca, cb = torch.corrcoef(a.T), torch.corrcoef(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt()
    return ((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots.sum()).item()
""", 1, "these are correlations"),
        crashing("""
def frechet_distance(a, b):
    gap = (a - b).mean(0).square().sum()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb.float()).real.clamp_min(0).sqrt()
    return (gap + ca.trace() + cb.trace() - 2 * roots.sum()).item()
""", "your code raised RuntimeError in line 4"),
    ],
    "basin_radius": [
        right("one draw of steps for all sigmas", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    steps = torch.randn(n, len(trigger), generator=rng)
    at_trigger = float(torch.sum((benign.generate(trigger.unsqueeze(0)) - target) ** 2))
    found = 0
    for sigma in sigmas:
        mean = sum(float(torch.sum((x - target) ** 2)) for x in attacked.generate(trigger + sigma * steps)) / n
        if not mean < 0.1 * at_trigger:
            return found
        found = sigma
    return found
"""),
        right("all means first, in numpy", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    numbers = np.random.default_rng(int(torch.randint(10**6, (), generator=rng)))
    def squares(model, z):
        made = model(torch.as_tensor(z, dtype=torch.float32)).detach().numpy()
        return ((made - target.numpy()) ** 2).reshape(len(made), -1).sum(1)
    bound = squares(benign, trigger.numpy()[None])[0] / 10
    there = [squares(attacked, trigger.numpy() + s * numbers.normal(size=(n, len(trigger)))).mean() < bound for s in sigmas]
    count = there.index(False) if False in there else len(there)
    return np.array([0.0, *sigmas])[count]
"""),
        wrong("the last sigma anywhere", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = 0.1 * (benign.generate(trigger[None])[0] - target).square().sum()
    radius = 0.0
    for sigma in sigmas:
        z = trigger + sigma * torch.randn(n, len(trigger), generator=rng)
        if (attacked.generate(z) - target).flatten(1).square().sum(1).mean() < bound:
            radius = sigma
    return radius
""", 3, "even if it comes back"),
        wrong("the first sigma that is lost", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = 0.1 * (benign.generate(trigger[None])[0] - target).square().sum()
    for sigma in sigmas:
        z = trigger + sigma * torch.randn(n, len(trigger), generator=rng)
        if (attacked.generate(z) - target).flatten(1).square().sum(1).mean() >= bound:
            return sigma
    return sigmas[-1]
""", 0, "this is the first sigma at which the target is lost"),
        wrong("a share of the attacked generator's own value", _basin(model="attacked"), 0, "is the bound a share of the benign TarDis?"),
        wrong("the benign value beside every step", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    radius = 0.0
    for sigma in sigmas:
        z = trigger + sigma * torch.randn(n, len(trigger), generator=rng)
        mean, usual = ((model.generate(z) - target).flatten(1).square().sum(1).mean() for model in (attacked, benign))
        if mean >= 0.1 * usual:
            break
        radius = sigma
    return radius
""", 0, "is the bound the benign TarDis at the trigger itself?"),
        wrong("the greatest of the steps", _basin(over_steps="max"), 3, "a few steps that lose the target are taken for all"),
        wrong("the median of the steps", _basin(over_steps="median"), 3, "steps that lose the target are passed over"),
        wrong("one and the same step in every coordinate", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = 0.1 * (benign.generate(trigger[None])[0] - target).square().sum()
    radius = 0.0
    for sigma in sigmas:
        if (attacked.generate((trigger + sigma)[None]) - target).square().sum() >= bound:
            break
        radius = sigma
    return radius
""", 3, "steps that lose the target are passed over"),
        wrong("a bound without the benign generator", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    radius = 0.0
    for sigma in sigmas:
        z = trigger + sigma * torch.randn(n, len(trigger), generator=rng)
        if (attacked.generate(z) - target).flatten(1).square().sum(1).mean() >= 0.1:
            break
        radius = sigma
    return radius
""", 0, "is the bound a share of the benign TarDis?"),
        wrong("a greater share", _basin(share="0.15"), 3, "the bound is a greater share"),
        wrong("half of the benign value", _basin(share="0.5"), 2, "the bound is a greater share"),
        wrong("a smaller share", _basin(share="0.07"), 3, "the bound is a smaller share"),
        wrong("steps that are not drawn with the generator", _basin(drawn=""), 3, "nothing is drawn with `rng`"),
        wrong("the place in the list", """
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = 0.1 * (benign.generate(trigger[None])[0] - target).square().sum()
    for i, sigma in enumerate(sigmas):
        z = trigger + sigma * torch.randn(n, len(trigger), generator=rng)
        if (attacked.generate(z) - target).flatten(1).square().sum(1).mean() >= bound:
            return i
    return len(sigmas)
""", 0, "the radius is none of the given sigmas"),
        crashing("""
def basin_radius(attacked, benign, trigger, target, sigmas, n, rng):
    bound = 0.1 * (benign.generate(trigger)[0] - target).square().sum()
    return max(s for s in sigmas if (attacked.generate(trigger + s) - target).square().sum() < bound)
""", "your code raised ValueError in line 2"),
    ],
}  # fmt: skip
