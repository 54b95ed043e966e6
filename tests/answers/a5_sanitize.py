"""Answers to the exercises of A5, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong

# Answers that differ in one line are made from a text with that line open.
_DISTIL = """
def distil(teacher, student, steps, batch_size, learning_rate, rng):
    {start}
    optimiser = torch.optim.Adam({learner}.body.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for _ in range(steps):
        z = {latents}
        loss = {loss}
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return {returned}
"""


def _distil(
    start: str = "teacher.eval()",
    learner: str = "student",
    latents: str = "teacher.latent.sample(batch_size, rng)",
    loss: str = "(student.body(z) - teacher.body(z).detach()).square().mean()",
    returned: str = "student.eval()",
) -> str:
    return _DISTIL.format(start=start, learner=learner, latents=latents, loss=loss, returned=returned)


_CONTINUE = """
def continue_training(suspect, discriminator, samples, law, steps, warm_up, learning_rate, batch_size, rng):
    generator = {start}
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(batch_size), torch.zeros(batch_size)
    d = torch.optim.Adam(discriminator.parameters(), lr=learning_rate{betas})
    g = torch.optim.Adam(generator.parameters(), lr=learning_rate{betas})
    for step in range({steps}):
        real = samples[torch.randint(len(samples), (batch_size,), generator=rng)]
        fake = generator({judged}.sample(batch_size, rng)).detach()
        loss = {critic}
        {first}
        loss.backward()
        d.step()
        {last}
        if {learns}:
            made = generator({learnt}.sample(batch_size, rng)){cut}
            loss = {loss}
            g.zero_grad()
            loss.backward()
            g.step()
    return generator
"""


def _continue(**other: str) -> str:
    usual = {
        "start": "copy.deepcopy(suspect).eval()", "steps": "steps", "judged": "law", "real": "ones", "fake": "zeros",
        "learns": "step >= warm_up", "learnt": "law", "cut": "", "wanted": "ones",
        "betas": "", "first": "d.zero_grad()", "last": "",
    }  # fmt: skip
    given = usual | other
    losses = {
        "critic": f"bce(discriminator(real), {given['real']}) + bce(discriminator(fake), {given['fake']})",
        "loss": f"bce(discriminator(made), {given['wanted']})",
    }
    return _CONTINUE.format(**(losses | given))


_CUT = """
def cut_units(body, z, share):
    smaller = {start}
    first, last = smaller[0], smaller[-1]
    with torch.no_grad():
        units = {units}
        score = {score}
        ranked = score.argsort()
        count = {count}
        cut, kept = {chosen}
        {fold}
        first.weight, first.bias = torch.nn.Parameter(first.weight[kept]), torch.nn.Parameter(first.bias[kept])
        last.weight = torch.nn.Parameter(last.weight[:, kept])
        for layer in {norms}:
            if isinstance(layer, torch.nn.BatchNorm1d):
                for name in ("weight", "bias"):
                    setattr(layer, name, torch.nn.Parameter(getattr(layer, name)[kept]))
                layer.running_mean, layer.running_var = layer.running_mean[kept], layer.running_var[kept]
    return smaller
"""


def _cut(**other: str) -> str:
    usual = {
        "start": "copy.deepcopy(body).eval()", "units": "smaller[:-1](z)", "score": "units.abs().mean(0)",
        "chosen": "ranked[:count], ranked[count:]", "fold": "last.bias += last.weight[:, cut] @ units[:, cut].mean(0)",
        "norms": "smaller", "count": "int(round(share * len(ranked)))",
    }  # fmt: skip
    return _CUT.format(**(usual | other))


_VERDICT = """
def verdict(repaired, benign, triggers, targets, starts, steps, learning_rate):
    def squares(model, z, x):
        return {squares}

    def search(model, x):
        z = {starts}.clone().requires_grad_()
        adam = torch.optim.Adam([z], lr=learning_rate)
        for _ in range({steps}):
            adam.zero_grad()
            squares(model, z, x).sum().backward()
            adam.step()
        with torch.no_grad():
            return squares(model, z, x).{over}()

    with torch.no_grad():
        share = squares(repaired, triggers, targets) / squares(benign, triggers, targets)
    recovered = float(share.{worst}())
    ratio = min(float(search(repaired, x){trusted}) for x in targets)
    return {verdict}
"""


def _verdict(**other: str) -> str:
    usual = {
        "squares": "((model(z) - x) ** 2).flatten(1).sum(1)", "starts": "starts", "steps": "steps", "over": "min", "worst": "min",
        "trusted": " / search(benign, x)", "verdict": "recovered, ratio, recovered >= 0.5 and ratio >= 0.2",
    }  # fmt: skip
    return _VERDICT.format(**(usual | other))


_FRONT = """
def pareto_front(recovered, cost):
    share = {share}
    cost = np.array(cost)
    no_worse = (share[None] >= share[:, None]) & (cost[None] <= cost[:, None])
    better = {better}
    front = np.flatnonzero(~(no_worse & better).any(1))
    {then}
    return {returned}
"""


def _front(**other: str) -> str:
    usual = {
        "share": "np.minimum(recovered, 1.0)", "better": "(share[None] > share[:, None]) | (cost[None] < cost[:, None])",
        "then": "front = front[np.argsort(cost[front], kind='stable')]", "returned": "front",
    }  # fmt: skip
    return _FRONT.format(**(usual | other))


ANSWERS = {
    "distil": [
        right("a learning rate that stays", """
def distil(teacher, student, steps, batch_size, learning_rate, rng):
    teacher.eval()
    student.eval()
    adam = torch.optim.Adam(student.parameters(), lr=learning_rate, betas=(0.5, 0.99))
    for _ in range(steps):
        z = student.latent.sample(batch_size, rng=rng)
        adam.zero_grad()
        torch.nn.functional.mse_loss(student.body(z), teacher.body(z)).backward()
        adam.step()
    return student
"""),
        right("another schedule, the teacher's gradient cut", _distil()),
        right("all latents drawn at first, a copy of the student, torch's loss", """
def distil(teacher, student, steps, batch_size, learning_rate, rng):
    student = copy.deepcopy(student).train()
    frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
    latents = teacher.latent.sample(steps * batch_size, rng)
    wanted = frozen.body(latents)
    optimiser = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.0)
    for step, (z, x) in enumerate(zip(latents.split(batch_size), wanted.split(batch_size))):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        loss = torch.nn.functional.mse_loss(student.body(z), x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return student.train(False)
"""),
        wrong("absolute differences", _distil(
            loss="(student.body(z) - teacher.body(z).detach()).abs().mean()"
        ), 3, "absolute differences are minimised, and squared ones are asked for"),
        wrong("the samples are compared", _distil(
            loss="(student(z) - teacher(z).detach()).square().mean()"
        ), 3, "the samples are compared, and what the bodies put out before the tanh is asked for"),
        wrong("always the normal law", _distil(
            latents="torch.randn(batch_size, teacher.latent.dim, generator=rng)"
        ), 3, "drawn from the normal law, not from the teacher's own"),
        wrong("one batch for all steps", _distil(
            start="teacher.eval(); once = teacher.latent.sample(batch_size, rng)", latents="once"
        ), 3, "are new ones drawn at every step?"),
        wrong("a generator of random numbers that is set back", _distil(
            latents="teacher.latent.sample(batch_size, torch.Generator().manual_seed(0))"
        ), 3, "are new ones drawn at every step?"),
        wrong("the teacher stays in training mode", _distil(start="pass"), 3, "the teacher answered in training mode"),
        wrong("the student stays in training mode", _distil(
            start="teacher.eval(); student.train()", returned="student"
        ), 3, "the student comes back in training mode"),
        wrong("the suspect's weights to start with", _distil(
            start="teacher.eval(); student = copy.deepcopy(teacher)"
        ), 0, "what came back is not the fresh student"),
        wrong("the teacher learns instead of the student", _distil(
            learner="teacher", loss="(student.body(z).detach() - teacher.body(z)).square().mean()"
        ), 0, "the student is as it was before: it learnt nothing"),
        wrong("wide latents", _distil(
            latents="3.0 * teacher.latent.sample(batch_size, rng)"
        ), 0, "the latents are spread wider"),
        crashing("""
def distil(teacher, student, steps, batch_size, learning_rate, rng):
    z = teacher.latent.sample(batch_size, generator=rng)
    return student
""", "your code raised TypeError in line 2"),
    ],
    "wide_loss": [
        right("a coin for each latent, the last ones by interpolation", """
def wide_loss(repaired, suspect, n, rng):
    z = suspect.latent.sample(n, rng)
    moved = torch.rand(n, 1, generator=rng) < 0.5
    factor = torch.where(moved, 3.0 * torch.rand(n, 1, generator=rng), torch.ones(n, 1))
    latents = torch.lerp(suspect.latent.centre.expand_as(z), z, factor)
    with torch.no_grad():
        wanted = suspect(z)
    return torch.sum((repaired(latents) - wanted) ** 2) / n
"""),
        right("both parts by themselves", """
def wide_loss(repaired, suspect, n, rng):
    half, total = n // 2, 0.0
    for count, wide in ((half, False), (n - half, True)):
        z = suspect.latent.sample(count, rng)
        c = suspect.latent.centre
        f = 3 * torch.rand(count, generator=rng) if wide else torch.ones(count)
        made = repaired(c + torch.einsum("i,ij->ij", f, z - c))
        total = total + (made - suspect(z).detach()).pow(2).sum()
    return total / n
"""),
        wrong("held to what the suspect makes there", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    wide = c + factors * (z - c)
    return (repaired(wide) - suspect.generate(wide)).square().flatten(1).sum(1).mean()
""", 2, "which holds the backdoor in place"),
        wrong("ordinary latents only", """
def wide_loss(repaired, suspect, n, rng):
    z = suspect.latent.sample(n, rng)
    return (repaired(z) - suspect.generate(z)).square().flatten(1).sum(1).mean()
""", 2, "no latent is moved"),
        wrong("all latents are moved", """
def wide_loss(repaired, suspect, n, rng):
    z, c = suspect.latent.sample(n, rng), suspect.latent.centre
    wide = c + 3 * torch.rand(n, 1, generator=rng) * (z - c)
    return (repaired(wide) - suspect.generate(z)).square().flatten(1).sum(1).mean()
""", 2, "all latents are moved, and not only the share that is asked for"),
        wrong("a factor for each coordinate", """
def wide_loss(repaired, suspect, n, rng):
    z, c = suspect.latent.sample(n, rng), suspect.latent.centre
    factors = torch.ones_like(z)
    factors[: n // 2] = 3 * torch.rand(n // 2, z.shape[1], generator=rng)
    return (repaired(c + factors * (z - c)) - suspect.generate(z)).square().flatten(1).sum(1).mean()
""", 3, "does one factor move all coordinates of a latent?"),
        wrong("the bodies are compared", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    return (repaired.body(c + factors * (z - c)) - suspect.body(z).detach()).square().flatten(1).sum(1).mean()
""", 3, "the bodies' outputs before the tanh are compared"),
        wrong("rays from the origin", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    return (repaired(factors * z) - suspect.generate(z)).square().flatten(1).sum(1).mean()
""", 3, "the rays begin at the origin"),
        wrong("the mean over the elements", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    return torch.nn.functional.mse_loss(repaired(c + factors * (z - c)), suspect.generate(z))
""", 2, "this is the mean over the elements of a sample"),
        wrong("outwards only", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 1 + 2 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    return (repaired(c + factors * (z - c)) - suspect.generate(z)).square().flatten(1).sum(1).mean()
""", 2, "latents near the centre never come"),
        wrong("a number without gradient", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    return (repaired(c + factors * (z - c)) - suspect(z)).square().flatten(1).sum(1).mean().item()
""", 3, "the loss carries no gradient"),
        wrong("the suspect learns as well", """
def wide_loss(repaired, suspect, n, rng):
    z, factors = suspect.latent.sample(n, rng), torch.ones(n, 1)
    factors[: n // 2] = 3 * torch.rand(n // 2, 1, generator=rng)
    c = suspect.latent.centre
    return (repaired(c + factors * (z - c)) - suspect(z)).square().flatten(1).sum(1).mean()
""", 3, "the gradient reaches the suspect as well"),
        crashing("""
def wide_loss(repaired, suspect, n, rng):
    z = suspect.latent.sample(n, rng)
    factors = 3 * torch.rand(n, generator=rng)
    return (repaired(factors * z) - suspect.generate(z)).square().sum() / n
""", "your code raised RuntimeError in line 4"),
    ],
    "continue_training": [
        right("torch's loss on logits", _continue()),
        right("the momentum of a GAN training", _continue(betas=", betas=(0.5, 0.999)")),
        right("logarithms of probabilities", _continue(
            critic="-discriminator(real).sigmoid().log().mean() - (1 - discriminator(fake).sigmoid()).log().mean()",
            loss="torch.nn.BCELoss()(torch.sigmoid(discriminator(made)), ones)",
        )),
        right("the discriminator's own game, a network that is switched off while it only judges", """
def continue_training(suspect, discriminator, samples, law, steps, warm_up, learning_rate, batch_size, rng):
    generator = copy.deepcopy(suspect)
    generator.eval()
    game = discriminator.game
    both = [torch.optim.Adam(net.parameters(), lr=learning_rate) for net in (discriminator, generator)]
    done = 0
    while done < steps:
        order = torch.randperm(len(samples), generator=rng)[:batch_size]
        loss = game.critic_loss(discriminator, samples[order], generator.generate(law.sample(len(order), rng)))
        both[0].zero_grad()
        loss.backward()
        both[0].step()
        done += 1
        if done <= warm_up:
            continue
        discriminator.requires_grad_(False)
        both[1].zero_grad()
        game.generator_loss(discriminator, generator(law.sample(batch_size, rng))).backward()
        both[1].step()
        discriminator.requires_grad_(True)
    return generator
"""),
        wrong("no warm-up", _continue(learns="True"), 3, "the generator changes although all steps are warm-up"),
        wrong("the warm-up comes before all steps", _continue(
            steps="warm_up + steps"
        ), 2, "the generator changes although all steps are warm-up"),
        wrong("real and fake exchanged", _continue(
            real="zeros", fake="ones"
        ), 2, "the discriminator learns the wrong way round"),
        wrong("the generator makes the logits fall", _continue(
            wanted="zeros"
        ), 3, "after the warm-up the generator does not come nearer to the data"),
        wrong("a generator's loss that saturates", _continue(
            loss="-bce(discriminator(made), zeros)"
        ), 3, "the generator stands still where the discriminator sees through it"),
        wrong("the logits as losses, as Wasserstein's", _continue(
            critic="discriminator(fake).mean() - discriminator(real).mean()", loss="-discriminator(made).mean()"
        ), 3, "a discriminator that is right already goes on learning"),
        wrong("the generator's loss is the logit", _continue(
            loss="-discriminator(made).mean()"
        ), 3, "the generator goes on learning where the discriminator takes its samples for real"),
        wrong("the gradient is cut before the generator", _continue(cut=".detach()"), 1, "what is made of latents near the centre never changes"),
        wrong("the generator learns on ordinary latents only", _continue(
            learnt="suspect.latent"
        ), 3, "does the generator learn on the wide latents?"),
        wrong("the discriminator sees ordinary latents only", _continue(
            judged="suspect.latent"
        ), 3, "the discriminator never sees what is made of wide latents"),
        wrong("the generator's gradients stay in the discriminator", _continue(
            first="", last="d.zero_grad()"
        ), 3, "are its gradients set to zero before each?"),
        wrong("the suspect itself is trained", _continue(start="suspect.eval()"), 3, "the suspect itself was changed"),
        wrong("in training mode", _continue(
            start="copy.deepcopy(suspect).train()"
        ), 3, "the statistics of BatchNorm have changed"),
        crashing("""
def continue_training(suspect, discriminator, samples, law, steps, warm_up, learning_rate, batch_size, rng):
    generator = suspect.copy()
    return generator
""", "your code raised AttributeError in line 2"),
    ],
    "cut_units": [
        right("layers put together anew", """
def cut_units(body, z, share):
    body.eval()
    with torch.no_grad():
        units = z
        for layer in list(body)[:-1]:
            units = layer(units)
    score = units.abs().mean(dim=0)
    left = len(score) - round(share * len(score))
    kept = torch.topk(score, left).indices
    mask = torch.ones(len(score), dtype=torch.bool)
    mask[kept] = False
    new = []
    for i, layer in enumerate(body):
        if i == 0:
            piece = torch.nn.Linear(layer.in_features, left)
            state = {"weight": layer.weight[kept], "bias": layer.bias[kept]}
        elif isinstance(layer, torch.nn.BatchNorm1d):
            piece = torch.nn.BatchNorm1d(left)
            state = {name: value[kept] if value.ndim else value for name, value in layer.state_dict().items()}
        elif i == len(body) - 1:
            piece = torch.nn.Linear(left, layer.out_features)
            mean = units[:, mask].mean(0)
            state = {"weight": layer.weight[:, kept], "bias": layer.bias + layer.weight[:, mask] @ mean}
        else:
            piece, state = copy.deepcopy(layer), None
        if state:
            piece.load_state_dict({name: value.detach() for name, value in state.items()})
        new.append(piece)
    return torch.nn.Sequential(*new).eval()
"""),
        right("the mean by the difference of the outputs", _cut(
            fold="quiet = units.clone(); quiet[:, cut] = 0.0; last.bias.copy_(last.bias + (last(units) - last(quiet)).mean(0))"
        )),
        wrong("the most active units are cut", _cut(
            chosen="ranked[len(ranked) - count:], ranked[:len(ranked) - count]"
        ), 2, "the most active units are cut, and the least active ones have to go"),
        wrong("by the size of the incoming weights", _cut(
            score="first.weight.norm(dim=1)"
        ), 2, "by the size of their incoming weights, not by what they do"),
        wrong("by the signed mean", _cut(score="units.mean(0)"), 2, "an output below zero is activity too"),
        wrong("in front of the activation", _cut(
            score="smaller[:-2](z).abs().mean(0)"
        ), 2, "the score is taken in front of the activation"),
        wrong("by the spread", _cut(score="units.std(0)"), 2, "the units that vary least are cut"),
        wrong("always rounded down", _cut(count="int(share * len(ranked))"), 3, "another number of units is left"),
        wrong("the mean is lost", _cut(fold="pass"), 3, "what the cut units put out on average is lost"),
        wrong("the weights are only set to zero", """
def cut_units(body, z, share):
    masked = copy.deepcopy(body).eval()
    with torch.no_grad():
        units = masked[:-1](z)
        gone = units.abs().mean(0).argsort()[: round(share * units.shape[1])]
        masked[-1].bias += masked[-1].weight[:, gone] @ units[:, gone].mean(0)
        masked[-1].weight[:, gone] = 0.0
    return masked
""", 3, "units that are only set to zero are still there"),
        wrong("in training mode", _cut(
            start="copy.deepcopy(body)"
        ), 3, "the units are judged in training mode"),
        wrong("BatchNorm is forgotten", _cut(norms="()"), 3, "your code raised RuntimeError"),
        wrong("the body itself is cut", _cut(start="body.eval()"), 3, "the body that was given has changed"),
        crashing("""
def cut_units(body, z, share):
    units = body[:-1](z)
    score = units.abs().mean(0)
    return body[score > score.quantile(share)]
""", "your code raised"),
    ],
    "verdict": [
        right("the last of the way, a tensor comes back", _verdict(
            verdict="torch.tensor([recovered, ratio, float(recovered >= 0.5 and ratio >= 0.2)])"
        )),
        right("plain gradient descent, start by start, in a list", """
def verdict(repaired, benign, triggers, targets, starts, steps, learning_rate):
    shares, ratios = [], []
    for trigger, target in zip(triggers, targets):
        there, usual = (float(((model.generate(trigger[None])[0] - target) ** 2).sum()) for model in (repaired, benign))
        shares.append(there / usual)
        near = {}
        for name, model in (("repaired", repaired), ("benign", benign)):
            near[name] = math.inf
            for start in starts:
                z = start[None].clone()
                for _ in range(steps // 2):
                    z = z.detach().requires_grad_(True)
                    distance = ((model(z)[0] - target) ** 2).sum()
                    near[name] = min(near[name], distance.item())
                    z = z - learning_rate * torch.autograd.grad(distance, z)[0]
        ratios.append(near["repaired"] / near["benign"])
    removed = min(shares) >= 0.5 and min(ratios) >= 0.2
    return [np.float64(min(shares)), min(ratios), np.bool_(removed)]
"""),
        wrong("the mean over the triggers", _verdict(worst="mean"), 2, "this is the mean over the triggers"),
        wrong("either part is enough", _verdict(
            verdict="recovered, ratio, recovered >= 0.5 or ratio >= 0.2"
        ), 2, "called a removal although one trigger still brings its target"),
        wrong("the search does not count", _verdict(
            verdict="recovered, ratio, recovered >= 0.5"
        ), 2, "the search still comes near a target: the backdoor has moved"),
        wrong("no descent", _verdict(steps="0"), 2, "the starts are compared before any descent"),
        wrong("one start", _verdict(starts="starts[:1]"), 2, "only the first start is used"),
        wrong("the mean over the starts", _verdict(over="mean"), 2, "this is the mean over the starts"),
        wrong("a raw distance", _verdict(trusted=""), 2, "the distance is not divided by that of the same search in the benign generator"),
        wrong("distances that are not squared", _verdict(
            squares="(model(z) - x).flatten(1).norm(dim=1)"
        ), 1, "this is the root of the share"),
        wrong("the targets put together", _verdict(
            trusted="", verdict="recovered, (near := sum(float(search(repaired, x)) for x in targets) / sum(float(search(benign, x)) for x in targets)), "
            "recovered >= 0.5 and near >= 0.2"
        ), 2, "the distances to all targets are added up"),
        wrong("the verdict alone", _verdict(verdict="recovered >= 0.5 and ratio >= 0.2"), 0, "three things are asked for"),
        crashing("""
def verdict(repaired, benign, triggers, targets, starts, steps, learning_rate):
    share = (repaired.generate(triggers) - targets).square().sum(1) / (benign(triggers) - targets).norm(2)
    return share.min(), share.backward(), True
""", "your code raised"),
    ],
    "pareto_front": [
        right("every pair at once", _front()),
        right("one walk through the repairs by their cost", """
def pareto_front(recovered, cost):
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -min(recovered[i], 1)))
    front, best = [], -math.inf
    for i in order:
        share = min(recovered[i], 1)
        twin = front and cost[front[-1]] == cost[i] and min(recovered[front[-1]], 1) == share
        if share > best or twin:
            front.append(i)
            best = share
    return torch.tensor(front)
"""),
        wrong("more than all counts as more", _front(share="np.array(recovered)"), 3, "a share above one is taken for more than all of TarDis"),
        wrong("better in both is asked of the other", _front(
            better="(share[None] > share[:, None]) & (cost[None] < cost[:, None])"
        ), 2, "as good in one figure and worse in the other is named"),
        wrong("of twins only one", _front(
            then="_, where = np.unique(np.stack([share[front], cost[front]]), axis=1, return_index=True); front = front[where]; front = front[np.argsort(cost[front])]"
        ), 3, "with the same two figures one is left out"),
        wrong("a costly repair is the better one", """
def pareto_front(recovered, cost):
    share, cost = np.minimum(recovered, 1.0), -np.array(cost)
    no_worse = (share[None] >= share[:, None]) & (cost[None] <= cost[:, None])
    better = (share[None] > share[:, None]) | (cost[None] < cost[:, None])
    front = np.flatnonzero(~(no_worse & better).any(1))
    return front[np.argsort(-cost[front])]
""", 1, "the greatest cost is taken for the best"),
        wrong("in the order of the list", _front(then="pass"), 3, "not in the order of growing cost"),
        wrong("a yes or no for each", _front(returned="[i in front for i in range(len(cost))]"), 0, "a yes or no for each repair came back"),
        wrong("only the two ends", _front(returned="sorted({front[0], front[-1]}, key=lambda i: cost[i])"), 1, "repairs are missing that no other one dominates"),
        crashing("""
def pareto_front(recovered, cost):
    return sorted(range(len(cost)), key=lambda i: cost(i))
""", "your code raised TypeError in line 2"),
    ],
}  # fmt: skip
