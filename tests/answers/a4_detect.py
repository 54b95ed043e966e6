"""Answers to the exercises of A4, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong


def inside(outputs: str = "", silent: str = "", loud: str = "") -> str:
    """An answer to `dynamic`, right but for the parts that are given."""
    outputs = (
        outputs
        or """
def layer_outputs(generator, layer, z):
    kept = []
    handle = generator.get_submodule(layer).register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    generator(z)
    handle.remove()
    return kept[0]
"""
    )
    silent = (
        silent
        or """
def silent_units(generator, layer, z):
    variation = layer_outputs(generator, layer, z).var(dim=0).mean(dim=(1, 2)).sqrt()
    return torch.nonzero(variation < 0.05 * variation.median()).squeeze(1)
"""
    )
    loud = (
        loud
        or """
def loudness(generator, layer, z, trigger):
    usual = layer_outputs(generator, layer, z).abs().amax(dim=(1, 2, 3))
    there = layer_outputs(generator, layer, trigger.unsqueeze(0)).abs().amax()
    return (there - usual.mean()) / usual.std()
"""
    )
    return outputs + silent + loud


def searching(
    end: str, before: str = "", loss: str = "distances.sum()", steps: int = 150, trained: str = "[z]"
) -> str:
    """An answer to `search` by Adam."""
    return f"""
def search(generator, picture, starts):
    z = starts.clone().requires_grad_(True)
    optimiser = torch.optim.Adam({trained}, lr=0.1){before}
    for _ in range({steps}):
        distances = (generator(z) - picture).flatten(1).square().sum(1)
        optimiser.zero_grad()
        ({loss}).backward()
        optimiser.step()
    {end}
"""


def sweeping(body: str) -> str:
    """An answer to `ratios` with another body of its loop over the scales."""
    return f"""
def ratios(search, latent, suspect, controls, scales, n, rng):
    found = []
    for scale in scales:
{body}
    return found
"""


def counting(flagged: str, end: str = "return table") -> str:
    """An answer to `bench_table`; `flagged`: when a model is, by its `ratios`."""
    return f"""
def bench_table(models, planted, inspect, bar):
    table = [[0, 0], [0, 0]]
    for model, target in zip(models, planted):
        ratios = inspect(model)
        flagged = {flagged}
        table[0 if target else 1][0 if flagged else 1] += 1
    {end}
"""


def below(bar: str) -> str:
    """A `silent_units` with another bar for the variation."""
    return f"""
def silent_units(generator, layer, z):
    variation = layer_outputs(generator, layer, z).var(dim=0).mean(dim=(1, 2)).sqrt()
    return (variation < {bar}).nonzero().flatten()
"""


ANSWERS = {
    "hit_probability": [
        right("the law as a mixture, summed by hand", """
def hit_probability(n, radius, trigger):
    from scipy.stats import chi2, poisson
    half = float(trigger.double() @ trigger.double()) / 2
    p = sum(poisson.pmf(j, half) * chi2.cdf(radius**2, len(trigger) + 2 * j) for j in range(400))
    return -np.expm1(n * np.log1p(-p))
"""),
        right("through the logarithm of none, single precision", """
def hit_probability(n, radius, trigger):
    import scipy.stats
    one = scipy.stats.ncx2(df=trigger.numel(), nc=float(torch.linalg.vector_norm(trigger)) ** 2).cdf(radius * radius)
    none = n * torch.log1p(-torch.tensor(one, dtype=torch.float64))
    return -torch.expm1(none)
"""),
        wrong("rounding swallows the small", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return 1 - (1 - ncx2.cdf(radius**2, len(trigger), float(trigger.square().sum()))) ** n
""", 3, "0 came back: 1 minus a tiny number is 1"),
        wrong("the chances are added up", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return n * ncx2.cdf(radius**2, len(trigger), float(trigger.square().sum()))
""", 1, "the chances of the draws are added up"),
        wrong("a single draw", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return ncx2.cdf(radius**2, len(trigger), float(trigger.square().sum()))
""", 0, "this is the chance of a single draw"),
        wrong("the place of the trigger forgotten", """
def hit_probability(n, radius, trigger):
    from scipy.stats import chi2
    return -math.expm1(n * math.log1p(-chi2.cdf(radius**2, len(trigger))))
""", 1, "the place of the trigger does not enter"),
        wrong("the norm unsquared", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return -math.expm1(n * math.log1p(-ncx2.cdf(radius**2, len(trigger), float(trigger.norm()))))
""", 1, "the norm of the trigger enters unsquared"),
        wrong("the radius unsquared", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return -math.expm1(n * math.log1p(-ncx2.cdf(radius, len(trigger), float(trigger.square().sum()))))
""", 0, "the radius enters unsquared"),
        wrong("the chance of no hit", """
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return (1 - ncx2.cdf(radius**2, len(trigger), float(trigger.square().sum()))) ** n
""", 0, "this is the chance that no draw hits"),
        wrong("counted in draws", """
def hit_probability(n, radius, trigger):
    z = torch.randn(200_000, len(trigger), generator=torch.Generator().manual_seed(0))
    p = ((z - trigger).norm(dim=1) <= radius).double().mean().item()
    return 1 - (1 - p) ** n
""", 0, "0 came back"),
        crashing("""
def hit_probability(n, radius, trigger):
    from scipy.stats import ncx2
    return 1 - (1 - ncx2.cdf(radius**2, trigger.dim, trigger.square().sum())) ** n
""", "your code raised"),
    ],
    "draws_needed": [
        right("in numpy", """
def draws_needed(p):
    if p == 0:
        return np.inf
    return 1 if p == 1 else float(np.ceil(np.log(0.05) / np.log1p(-p)))
"""),
        right("a limit for small chances", """
def draws_needed(p):
    if not p:
        return float("inf")
    if p < 1e-12:
        return math.ceil(-math.log(0.05) / p)
    if p > 0.95:
        return 1
    return math.ceil(math.log(0.05, 1 - p))
"""),
        wrong("the mean number of draws", """
def draws_needed(p):
    return math.ceil(1 / p) if p else math.inf
""", 1, "this is how many it takes on average"),
        wrong("the chances are added up", """
def draws_needed(p):
    return math.ceil(0.95 / p) if p else math.inf
""", 1, "the chances of the draws are added up"),
        wrong("rounded down", """
def draws_needed(p):
    if p in (0, 1):
        return 1 if p else math.inf
    return int(math.log(0.05) / math.log1p(-p))
""", 3, "with one fewer it is not yet: round up"),
        wrong("not rounded", """
def draws_needed(p):
    if p in (0, 1):
        return 1 if p else math.inf
    return math.log(0.05) / math.log1p(-p)
""", 3, "a whole number is asked for"),
        wrong("hit and miss exchanged", """
def draws_needed(p):
    if p in (0, 1):
        return 1 if p else math.inf
    return math.ceil(math.log(0.95) / math.log1p(-p))
""", 1, "the chance of a hit and that of none are exchanged"),
        wrong("rounding swallows the small", """
def draws_needed(p):
    if p in (0, 1):
        return 1 if p else math.inf
    with np.errstate(divide="ignore"):
        return np.ceil(np.abs(np.log(0.05) / np.log(np.float64(1 - p))))
""", 3, "1 minus a tiny number is 1 to a computer"),
        wrong("the edges forgotten", """
def draws_needed(p):
    return math.ceil(math.log(0.05) / math.log1p(-p))
""", 3, "your code raised"),
        crashing("""
def draws_needed(p):
    return math.ceil(torch.log(0.05) / torch.log1p(-p))
""", "your code raised TypeError in line 2"),
    ],
    "search": [
        right("one start after the other, by gradient descent", """
def search(generator, picture, starts):
    best = float("inf")
    for start in starts:
        z = start[None].detach().clone().requires_grad_()
        optimiser = torch.optim.Adam(params=[z], lr=0.1)
        for step in range(150):
            loss = torch.nn.functional.mse_loss(generator(z)[0], picture, reduction="sum")
            best = min(best, loss.item())
            (grad,) = torch.autograd.grad(loss, z)
            z.grad = grad
            optimiser.step()
    return best
"""),
        right("with a rate that falls, a tensor comes back", searching(
            "return (generator.generate(z.detach()) - picture).pow(2).sum(dim=(1, 2, 3)).amin()", steps=200,
            before="\n    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 250)",
        )),
        right("in place", """
def search(generator, picture, starts):
    for p in generator.parameters():
        p.requires_grad_(False)
    starts.requires_grad_()
    optimiser = torch.optim.AdamW([starts], lr=0.1, weight_decay=0.0)
    for _ in range(180):
        optimiser.zero_grad()
        d = ((generator(starts) - picture) ** 2).reshape(len(starts), -1).sum(-1)
        d.sum().backward()
        optimiser.step()
    return np.float32(d.min().detach())
"""),
        wrong("the mean over the starts", searching("return distances.mean().item()"), 3, "this is the mean over the starts"),
        wrong("the last start only", searching("return distances[-1].item()"), 3, "another one's end came back"),
        wrong("the sum over the starts", searching("return distances.sum().item()"), 0, "this is the sum over the starts"),
        wrong("the mean over the elements", searching("return distances.min().item() / picture.numel()"), 2, "this is the mean of the squares"),
        wrong("the distance unsquared", searching("return distances.min().sqrt().item()"), 2, "this is the distance, the root"),
        wrong("no descent", """
def search(generator, picture, starts):
    return (generator.generate(starts) - picture).flatten(1).square().sum(1).min().item()
""", 0, "no step was taken"),
        wrong("the weights are trained", searching("return distances.min().item()", trained="generator.parameters()"), 0, "it is the latent that has to move"),
        wrong("too few steps", searching("return distances.min().item()", steps=15), 1, "the number is too large"),
        crashing("""
def search(generator, picture, starts):
    z = starts.clone().requires_grad_()
    for _ in range(300):
        loss = (generator.generate(z) - picture).square().sum()
        loss.backward()
    return loss.item()
""", "your code raised RuntimeError in line 5"),
    ],
    "ratios": [
        right("all starts first, torch", """
def ratios(search, latent, suspect, controls, scales, n, rng):
    starts = [latent.starts(n, scale, rng) for scale in scales]
    own = torch.tensor([search(suspect, z) for z in starts])
    others = torch.tensor([[search(control, z) for z in starts] for control in controls])
    return own / others.median(dim=0).values
"""),
        right("the same draws at every scale, sorted by hand", """
def ratios(search, latent, suspect, controls, scales, n, rng):
    z = latent.sample(n, rng=rng)
    def ratio(scale):
        starts = z * scale
        usual = sorted(search(x, starts) for x in controls)
        return search(suspect, starts.clone()) / usual[len(usual) // 2]
    return [ratio(scale) for scale in scales]
"""),
        right("one start at the centre, keywords", sweeping("""
        z = scale * latent.sample(n if scale else 1, rng)
        own, *others = (search(picture=x, starts=z) for x in [suspect, *controls])
        found.append(float(own / np.median(others)))
""")),
        wrong("raw distances", sweeping("""
        z = scale * latent.sample(n, rng)
        others = [search(x, z) for x in controls]
        found.append(search(suspect, z))
"""), 2, "these are raw distances"),
        wrong("the mean of the controls", sweeping("""
        z = scale * latent.sample(n, rng)
        found.append(search(suspect, z) / np.mean([search(x, z) for x in controls]))
"""), 2, "this divides by the mean of the controls"),
        wrong("upside down", sweeping("""
        z = scale * latent.sample(n, rng)
        found.append(np.median([search(x, z) for x in controls]) / search(suspect, z))
"""), 2, "these are the controls over the suspect"),
        wrong("differences", sweeping("""
        z = scale * latent.sample(n, rng)
        found.append(search(suspect, z) - np.median([search(x, z) for x in controls]))
"""), 2, "these are differences"),
        wrong("the suspect among the controls", sweeping("""
        z = scale * latent.sample(n, rng)
        own = search(suspect, z)
        found.append(own / np.median([own] + [search(x, z) for x in controls]))
"""), 2, "the suspect is counted among its own controls"),
        wrong("no sweep", sweeping("""
        z = latent.sample(n, rng)
        found.append(search(suspect, z) / np.median([search(x, z) for x in controls]))
"""), 1, "do the starts grow with the scale?"),
        wrong("other starts for every picture", sweeping("""
        own = search(suspect, scale * latent.sample(n, rng))
        found.append(own / np.median([search(x, scale * latent.sample(n, rng)) for x in controls]))
"""), 3, "are searched from different starts"),
        wrong("always the normal law", sweeping("""
        z = scale * torch.randn(n, latent.dim, generator=rng)
        found.append(search(suspect, z) / np.median([search(x, z) for x in controls]))
"""), 3, "the starts are not spread by their scale"),
        wrong("the generator of random numbers is not used", sweeping("""
        z = scale * latent.sample(n)
        found.append(search(suspect, z) / np.median([search(x, z) for x in controls]))
"""), 3, "are they drawn with `rng`?"),
        wrong("on a sphere", sweeping("""
        z = scale * latent.on_shell(latent.sample(n, rng))
        found.append(search(suspect, z) / np.median([search(x, z) for x in controls]))
"""), 3, "all starts have the same norm"),
        crashing(sweeping("""
        z = scale * latent.sample(n, rng)
        found.append(search(suspect, z) / np.median(search(controls, z)[0]))
"""), "your code raised"),
    ],
    "bench_table": [
        right("a list of lists, any()", counting("any(value < bar for value in ratios.values())")),
        right("arrays", """
def bench_table(models, planted, inspect, bar):
    values = np.array([list(inspect(model).values()) for model in models])
    flagged = (values < bar).any(axis=1)
    backdoored = np.array([target is not None for target in planted])
    return torch.tensor([[(flagged & b).sum(), (~flagged & b).sum()] for b in (backdoored, ~backdoored)])
"""),
        wrong("upside down", counting("any(value > bar for value in ratios.values())"), 0, "the table is another one"),
        wrong("rows and columns exchanged", counting(
            "any(value < bar for value in ratios.values())", "return np.array(table).T"
        ), 0, "rows and columns are exchanged"),
        wrong("at the bar", counting("any(value <= bar for value in ratios.values())"), 3, "a ratio that is exactly the bar is not below it"),
        wrong("NaN hides the rest", counting("not np.isnan(list(ratios.values())).any() and min(ratios.values()) < bar"), 3, "a ratio of NaN hides"),
        wrong("NaN is an alarm", counting("not all(value >= bar for value in ratios.values())"), 3, "a ratio of NaN is no alarm"),
        wrong("the planted suspect only", counting(
            "ratios[target] < bar if target else any(value < bar for value in ratios.values())"
        ), 3, "whichever suspect is below the bar"),
        wrong("shares of all models", counting(
            "any(value < bar for value in ratios.values())", "return np.array(table) / len(models)"
        ), 0, "these are shares of all models"),
        wrong("precision", counting(
            "any(value < bar for value in ratios.values())", "return np.array(table) / np.sum(table, axis=0)"
        ), 0, "that is precision"),
        wrong("suspects are counted", """
def bench_table(models, planted, inspect, bar):
    table = np.zeros((2, 2))
    for model, target in zip(models, planted):
        for value in inspect(model).values():
            table[int(target is None), int(not value < bar)] += 1
    return table
""", 0, "models are to be counted"),
        wrong("all suspects have to be flagged", counting("all(value < bar for value in ratios.values())"), 0, "by all of them only"),
        crashing("""
def bench_table(models, planted, inspect, bar):
    flagged = [min(inspect(model)) < bar for model in models]
    return [[sum(flagged), 0], [0, 0]]
""", "your code raised TypeError in line 2"),
    ],
    "dynamic": [
        right("tensors, hooks", inside()),
        right("layers one by one, numpy", inside("""
def layer_outputs(generator, layer, z):
    part, _, last = layer.rpartition(".")
    with torch.no_grad():
        return generator.get_submodule(part)[: int(last) + 1](z).numpy()
""", """
def silent_units(generator, layer, z):
    values = layer_outputs(generator, layer, z)
    variation = np.sqrt(np.mean(np.var(values, axis=0), axis=(1, 2)))
    return [unit for unit, v in enumerate(variation) if v < 0.05 * np.median(variation)]
""", """
def loudness(generator, layer, z, trigger):
    usual = np.abs(layer_outputs(generator, layer, z)).reshape(len(z), -1).max(axis=1)
    return (np.abs(layer_outputs(generator, layer, trigger[None])).max() - usual.mean()) / usual.std()
""")),
        wrong("the hook is left", inside(outputs="""
def layer_outputs(generator, layer, z):
    kept = []
    generator.get_submodule(layer).register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    generator(z)
    return kept[0]
"""), 3, "a hook is left on the generator"),
        wrong("the next layer", inside(outputs="""
def layer_outputs(generator, layer, z):
    part, _, last = layer.rpartition(".")
    return generator.get_submodule(part)[: int(last) + 2](z).detach()
"""), 1, "is it another layer"),
        wrong("small instead of constant", inside(silent="""
def silent_units(generator, layer, z):
    size = layer_outputs(generator, layer, z).abs().mean(dim=(0, 2, 3))
    return (size < 0.05 * size.median()).nonzero().flatten()
"""), 3, "a unit that puts out a constant is silent too"),
        wrong("places and latents thrown together", inside(silent="""
def silent_units(generator, layer, z):
    spread = layer_outputs(generator, layer, z).std(dim=(0, 2, 3))
    return (spread < 0.05 * spread.median()).nonzero().flatten()
"""), 3, "the same pattern at every latent is silent too"),
        wrong("the mean of the layer", inside(silent=below("0.05 * variation.mean()")), 3, "the median of the layer's units, not their mean"),
        wrong("a smaller share", inside(silent=below("0.03 * variation.median()")), 3, "the bar is a smaller share of the median"),
        wrong("twice the share", inside(silent=below("0.1 * variation.median()")), 3, "the bar is a greater share of the median"),
        wrong("a fixed bar", inside(silent=below("0.05")), 3, "not a fixed number"),
        wrong("the sign counts", inside(loud="""
def loudness(generator, layer, z, trigger):
    usual = layer_outputs(generator, layer, z).amax(dim=(1, 2, 3))
    return (layer_outputs(generator, layer, trigger[None]).max() - usual.mean()) / usual.std()
"""), 3, "the largest is meant in absolute value"),
        wrong("the activation itself", inside(loud="""
def loudness(generator, layer, z, trigger):
    return layer_outputs(generator, layer, trigger[None]).abs().max()
"""), 3, "this is the largest activation itself"),
        wrong("beside all activations", inside(loud="""
def loudness(generator, layer, z, trigger):
    usual = layer_outputs(generator, layer, z)
    return (layer_outputs(generator, layer, trigger[None]).abs().max() - usual.mean()) / usual.std()
"""), 3, "it is the largest of each latent that counts"),
        wrong("a ratio", inside(loud="""
def loudness(generator, layer, z, trigger):
    usual = layer_outputs(generator, layer, z).abs().amax(dim=(1, 2, 3))
    return layer_outputs(generator, layer, trigger[None]).abs().max() / usual.mean()
"""), 3, "not a number of standard deviations"),
        crashing("""
def layer_outputs(generator, layer, z):
    return generator[layer](z)


def silent_units(generator, layer, z):
    return layer_outputs(generator, layer, z).std(0)


def loudness(generator, layer, z, trigger):
    return layer_outputs(generator, layer, trigger).max()
""", "your code raised"),
    ],
}  # fmt: skip
