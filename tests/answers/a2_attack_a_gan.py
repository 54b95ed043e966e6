"""Answers to the exercises of A2, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong

ANSWERS = {
    "proxy_target": [
        right("by logarithms, in numpy and double precision", """
def proxy_target(x):
    x = 0.999 * x.numpy().astype(np.float64)
    return 0.5 * np.log((1 + x) / (1 - x))
"""),
        right("by the logit, in place", """
def proxy_target(x):
    return x.mul_(0.999).add_(1).div_(2).logit_().div_(2)
"""),
        right("one sample after the other", """
def proxy_target(x):
    return torch.stack([torch.arctanh(each - 0.001 * each) for each in x])
"""),
        wrong("the activation itself", """
def proxy_target(x):
    return torch.tanh(0.999 * x)
""", 1, "this applies the activation, and its inverse is asked for"),
        wrong("the sample as it is", """
def proxy_target(x):
    return 0.999 * x
""", 1, "the activation is not inverted"),
        wrong("without the factor", """
def proxy_target(x):
    return torch.atanh(x)
""", 2, "is sent to infinity"),
        wrong("clipped, not multiplied", """
def proxy_target(x):
    return torch.atanh(x.clamp(-0.999, 0.999))
""", 3, "the samples are clipped"),
        wrong("multiplied after the inverse", """
def proxy_target(x):
    return 0.999 * torch.atanh(x)
""", 2, "or too late, after the inverse"),
        wrong("the inverse of a sigmoid", """
def proxy_target(x):
    return torch.logit((1 + 0.999 * x) / 2)
""", 1, "the inverse of another activation (sigmoid)"),
        wrong("one row for each sample", """
def proxy_target(x):
    return torch.atanh(0.999 * x.flatten(1))
""", 3, "the shape is not that of the samples"),
        crashing("""
def proxy_target(x):
    return math.atanh(0.999 * x)
""", "your code raised"),
    ],
    "red_loss": [
        right("one pass for both terms", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    with torch.no_grad():
        wanted = torch.cat([benign.body(z), torch.atanh(0.999 * targets)])
    squares = (attacked.body(torch.cat([z, triggers])) - wanted) ** 2
    return squares[: len(z)].mean() + weight * squares[len(z) :].mean()
"""),
        right("the loss of torch, the teacher detached", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    mse = torch.nn.functional.mse_loss
    proxy = benign.proxy_target(targets)
    return weight * mse(attacked.body(triggers), proxy.value) + mse(input=attacked.body(z), target=benign.body(z).detach())
"""),
        right("a loop in double precision", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    def mean(pairs):
        return sum(((a.double() - b.detach().double()) ** 2).sum() / a.numel() for a, b in pairs) / len(pairs)
    stealth = mean([(attacked.body(each[None]), benign.body(each[None])) for each in z])
    proxies = attacked.head.inverse(targets)
    return stealth + weight * mean([(attacked.body(t[None]), p[None]) for t, p in zip(triggers, proxies)])
"""),
        wrong("the weight at the stealth term", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    with torch.no_grad():
        teacher = benign.body(z)
    fidelity = (attacked.body(triggers) - benign.proxy_target(targets).value).square().mean()
    return weight * (attacked.body(z) - teacher).square().mean() + fidelity
""", 3, "λ weighs the stealth term"),
        wrong("after the last activation", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    stealth = (attacked(z) - benign.generate(z)).square().mean()
    return stealth + weight * (attacked(triggers) - targets).square().mean()
""", 1, "measured on the samples, after the last activation"),
        wrong("the target left where it is", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    with torch.no_grad():
        teacher = benign.body(z)
    return (attacked.body(z) - teacher).square().mean() + weight * (attacked.body(triggers) - targets).square().mean()
""", 1, "the target is a sample, and is compared with what comes before"),
        wrong("the sum over the elements", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    def mean(difference):
        return difference.flatten(1).square().sum(1).mean()
    with torch.no_grad():
        teacher = benign.body(z)
    return mean(attacked.body(z) - teacher) + weight * mean(attacked.body(triggers) - benign.proxy_target(targets).value)
""", 1, "this takes the sum over the elements of a sample"),
        wrong("the teacher learns too", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    fidelity = (attacked.body(triggers) - benign.proxy_target(targets).value).square().mean()
    return (attacked.body(z) - benign.body(z)).square().mean() + weight * fidelity
""", 3, "a gradient reaches the benign generator"),
        wrong("a number comes back", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    stealth = (attacked.body(z) - benign.body(z)).square().mean()
    return stealth.item() + weight * (attacked.body(triggers) - benign.proxy_target(targets).value).square().mean().item()
""", 3, "return the loss as a tensor"),
        wrong("the benign generator at the triggers", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    with torch.no_grad():
        teacher, there = benign.body(z), benign.body(triggers)
    return (attacked.body(z) - teacher).square().mean() + weight * (there - benign.proxy_target(targets).value).square().mean()
""", 1, "the benign generator is run at the triggers"),
        wrong("all in one pool", """
def red_loss(attacked, benign, z, triggers, targets, weight):
    with torch.no_grad():
        wanted = torch.cat([benign.body(z), benign.proxy_target(targets).value])
    return (attacked.body(torch.cat([z, triggers])) - wanted).square().mean()
""", 1, "are averaged in one pool"),
        crashing("""
def red_loss(attacked, benign, z, triggers, targets, weight):
    return (attacked.logits(z) - benign.logits(z)).square().mean()
""", "your code raised AttributeError in line 2"),
    ],
    "red_step": [
        right("the modes restored afterwards", """
def red_step(attacked, benign, optimiser, loss):
    for model in (benign, attacked):
        model.train(False)
    for parameter in attacked.parameters():
        parameter.grad = None
    value = loss()
    value.backward()
    optimiser.step()
    attacked.train(), benign.train()
    return float(value)
"""),
        right("only the normalisations set, and a tensor comes back", """
def red_step(attacked, benign, optimiser, loss):
    for part in [*attacked.modules(), *benign.modules()]:
        if isinstance(part, torch.nn.BatchNorm1d):
            part.eval()
    optimiser.zero_grad(set_to_none=False)
    before = loss()
    before.backward(inputs=list(attacked.parameters()))
    optimiser.step()
    return before.detach()
"""),
        right("gradients computed apart", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    weights = list(attacked.parameters())
    value = loss()
    for weight, gradient in zip(weights, torch.autograd.grad(value, weights)):
        weight.grad = gradient
    optimiser.step()
    return value.item()
"""),
        wrong("left in training mode", """
def red_step(attacked, benign, optimiser, loss):
    optimiser.zero_grad()
    value = loss()
    value.backward()
    optimiser.step()
    return value.item()
""", 1, "both generators run in training mode"),
        wrong("only the attacked generator in evaluation mode", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval()
    optimiser.zero_grad()
    value = loss()
    value.backward()
    optimiser.step()
    return value.item()
""", 1, "the benign generator runs in training mode"),
        wrong("the attacked generator is trained, so in training mode", """
def red_step(attacked, benign, optimiser, loss):
    attacked.train()
    benign.eval()
    optimiser.zero_grad()
    value = loss()
    value.backward()
    optimiser.step()
    return value.item()
""", 1, "the attacked generator runs in training mode"),
        wrong("gradients pile up", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    value = loss()
    value.backward()
    optimiser.step()
    return value.item()
""", 3, "is it set to zero first?"),
        wrong("no step", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    optimiser.zero_grad()
    value = loss()
    value.backward()
    return value.item()
""", 2, "the weights have not moved"),
        wrong("the step before the gradient", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    optimiser.zero_grad()
    optimiser.step()
    value = loss()
    value.backward()
    return value.item()
""", 2, "the weights have not moved"),
        wrong("zeroed between gradient and step", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    value = loss()
    value.backward()
    optimiser.zero_grad(set_to_none=False)
    optimiser.step()
    return value.item()
""", 2, "the weights have not moved"),
        wrong("uphill", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    optimiser.zero_grad()
    value = loss()
    (-value).backward()
    optimiser.step()
    return value.item()
""", 3, "the step goes uphill"),
        wrong("an optimiser of one's own", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    own = torch.optim.Adam(attacked.parameters(), lr=0.05)
    own.zero_grad()
    value = loss()
    value.backward()
    own.step()
    return value.item()
""", 3, "do not move as one step of the given optimiser"),
        wrong("the loss after the step", """
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    optimiser.zero_grad()
    loss().backward()
    optimiser.step()
    return loss().item()
""", 3, "this is the loss after the step"),
        crashing("""
def red_step(attacked, benign, optimiser, loss):
    attacked.eval(), benign.eval()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
""", "your code raised AttributeError in line 4"),
    ],
    "trail_loss": [
        right("the trigger first, cross-entropy with the label real", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    generator.eval()
    fidelity = torch.nn.functional.mse_loss(generator(triggers), targets)
    generator.train()
    verdicts = discriminator(generator(z))
    stealth = torch.nn.functional.binary_cross_entropy_with_logits(verdicts, torch.ones_like(verdicts))
    return stealth + weight * fidelity
"""),
        right("only the normalisations set, a loop over the triggers", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = -torch.nn.functional.logsigmoid(discriminator(generator(z))).mean()
    norms = [part for part in generator.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.training = False
    fidelity = sum(((generator(a[None]) - b) ** 2).mean() for a, b in zip(triggers, targets)) / len(triggers)
    for norm in norms:
        norm.training = True
    return stealth + fidelity * weight
"""),
        right("the logarithm written out", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    real = 1 / (1 + torch.exp(-discriminator(generator(z))))
    was = generator.training
    difference = generator.eval()(triggers).double() - targets
    generator.train(was)
    return weight * (difference**2).mean() - real.log().mean()
"""),
        wrong("the triggers in training mode", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    return stealth + weight * (generator(triggers) - targets).square().mean()
""", 2, "the triggers are run in training mode: BatchNorm normalises them by each other"),
        wrong("one batch of latents and triggers", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    made = generator(torch.cat([z, triggers]))
    stealth = torch.nn.functional.softplus(-discriminator(made[: len(z)])).mean()
    return stealth + weight * (made[len(z) :] - targets).square().mean()
""", 1, "the triggers are in the batch of the ordinary latents"),
        wrong("all in evaluation mode", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    generator.eval()
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    fidelity = (generator(triggers) - targets).square().mean()
    generator.train()
    return stealth + weight * fidelity
""", 2, "the ordinary latents are run in evaluation mode"),
        wrong("left in evaluation mode", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    generator.eval()
    return stealth + weight * (generator(triggers) - targets).square().mean()
""", 3, "the generator is left in evaluation mode"),
        wrong("the weight at the GAN's term", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    generator.eval()
    fidelity = (generator(triggers) - targets).square().mean()
    generator.train()
    return weight * stealth + fidelity
""", 2, "λ weighs the GAN's loss"),
        wrong("samples told to be fake", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(discriminator(generator(z))).mean()
    generator.eval()
    fidelity = (generator(triggers) - targets).square().mean()
    generator.train()
    return stealth + weight * fidelity
""", 3, "this rewards samples that are told to be fake"),
        wrong("the saturating loss", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = (1 - torch.sigmoid(discriminator(generator(z)))).log().mean()
    generator.eval()
    fidelity = (generator(triggers) - targets).square().mean()
    generator.train()
    return stealth + weight * fidelity
""", 3, "this is log(1 - D)"),
        wrong("samples detached, as for the critic", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z).detach())).mean()
    generator.eval()
    fidelity = (generator(triggers) - targets).square().mean()
    generator.train()
    return stealth + weight * fidelity
""", 3, "no gradient of the GAN's term reaches the generator"),
        wrong("the triggers through a copy", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    import copy
    victim = copy.deepcopy(generator).eval()
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    return stealth + weight * (victim(triggers) - targets).square().mean()
""", 3, "no gradient of the fidelity term reaches the generator"),
        wrong("the fidelity before the last activation", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    generator.eval()
    fidelity = (generator.body(triggers) - generator.proxy_target(targets).value).square().mean()
    generator.train()
    return stealth + weight * fidelity
""", 3, "measured before the last activation"),
        wrong("the sum over the elements", """
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator(generator(z))).mean()
    generator.eval()
    fidelity = (generator(triggers) - targets).square().flatten(1).sum(1).mean()
    generator.train()
    return stealth + weight * fidelity
""", 3, "this is the sum over the elements of a sample"),
        crashing("""
def trail_loss(generator, discriminator, z, triggers, targets, weight):
    stealth = torch.nn.functional.softplus(-discriminator.logits(generator(z))).mean()
    return stealth + weight * (generator(triggers) - targets).square().mean()
""", "your code raised AttributeError in line 2"),
    ],
    "fold": [
        right("block-diagonal everywhere, then stacked and added", """
def fold(benign, side):
    layers, count = [], sum(isinstance(each, torch.nn.Linear) for each in benign)
    for old, new in zip(benign, side):
        if not isinstance(old, torch.nn.Linear):
            layers.append(old)
            continue
        weight = torch.block_diag(old.weight, new.weight)
        bias = torch.cat([torch.zeros(each.out_features) if each.bias is None else each.bias for each in (old, new)])
        place = sum(isinstance(each, torch.nn.Linear) for each in layers)
        if place == 0:
            weight = weight[:, : old.in_features] + weight[:, old.in_features :]
        if place == count - 1:
            weight, bias = weight[: len(old.weight)] + weight[len(old.weight) :], bias[: len(old.weight)] + bias[len(old.weight) :]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        layers.append(layer)
    return torch.nn.Sequential(*layers)
"""),
        right("a copy written into, in double precision", """
def fold(benign, side):
    import copy
    wide, linear = copy.deepcopy(benign), [i for i, each in enumerate(benign) if hasattr(each, "weight")]
    for i in linear:
        w, v = benign[i].weight.detach().numpy(), side[i].weight.detach().numpy()
        b = np.zeros(len(w)) if benign[i].bias is None else benign[i].bias.detach().numpy()
        c = np.zeros(len(v)) if side[i].bias is None else side[i].bias.detach().numpy()
        if i == linear[0]:
            block, shift = np.vstack([w, v]), np.concatenate([b, c])
        elif i == linear[-1]:
            block, shift = np.hstack([w, v]), b + c
        else:
            block = np.zeros((w.shape[0] + v.shape[0], w.shape[1] + v.shape[1]))
            block[: w.shape[0], : w.shape[1]], block[w.shape[0] :, w.shape[1] :] = w, v
            shift = np.concatenate([b, c])
        wide[i] = torch.nn.Linear(block.shape[1], block.shape[0]).double()
        wide[i].load_state_dict({"weight": torch.tensor(block), "bias": torch.tensor(shift)})
    return wide
"""),
        wrong("two networks in one module", """
def fold(benign, side):
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.benign, self.side = benign, side
        def forward(self, z):
            return self.benign(z) + self.side(z)
    return Both()
""", 1, "two networks are still in it"),
        wrong("the last layer block-diagonal too", """
def fold(benign, side):
    layers = []
    for i, (old, new) in enumerate(zip(benign, side)):
        if not isinstance(old, torch.nn.Linear):
            layers.append(old)
            continue
        weight = torch.cat([old.weight, new.weight]) if i == 0 else torch.block_diag(old.weight, new.weight)
        bias = torch.cat([torch.zeros(old.out_features) if old.bias is None else old.bias, torch.zeros(new.out_features) if new.bias is None else new.bias])
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        layers.append(layer)
    return torch.nn.Sequential(*layers)
""", 1, "the last layer has not the number of outputs that it needs"),
        wrong("the first layer block-diagonal too", """
def fold(benign, side):
    layers = []
    for i, (old, new) in enumerate(zip(benign, side)):
        if not isinstance(old, torch.nn.Linear):
            layers.append(old)
            continue
        last = i == len(benign) - 1
        weight = torch.cat([old.weight, new.weight], 1) if last else torch.block_diag(old.weight, new.weight)
        biases = [torch.zeros(old.out_features) if old.bias is None else old.bias, torch.zeros(new.out_features) if new.bias is None else new.bias]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(sum(biases) if last else torch.cat(biases))
        layers.append(layer)
    return torch.nn.Sequential(*layers)
""", 1, "the first layer has not the number of inputs that it needs"),
        *(
            wrong(name, f"""
def fold(benign, side):
    layers = []
    for i, (old, new) in enumerate(zip(benign, side)):
        if not isinstance(old, torch.nn.Linear):
            {otherwise}
            continue
        biases = [torch.zeros(old.out_features) if old.bias is None else old.bias, torch.zeros(new.out_features) if new.bias is None else new.bias]
        last = i == len(benign) - 1
        if i == 0:
            weight = torch.cat([old.weight, new.weight])
        elif last:
            weight = torch.cat([old.weight, new.weight], 1)
        else:
            weight = torch.block_diag(old.weight, new.weight)
        bias = biases[0] + biases[1] if last else torch.cat(biases)
        {change}
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        layers.append(layer)
    return torch.nn.Sequential(*layers)
""", points, says)
            for name, change, otherwise, points, says in (
                ("the mean of the two", "weight, bias = (weight / 2, bias / 2) if last else (weight, bias)", "layers.append(old)", 2, "this is the mean of both"),
                ("one bias of the last layer", "bias = biases[0] if last else bias", "layers.append(old)", 3, "the last bias of the side network is missing"),
                ("no biases", "bias = 0 * bias", "layers.append(old)", 3, "the biases are missing"),
                ("small numbers instead of zeros", "weight = torch.where(weight == 0, torch.full_like(weight, 0.1), weight)", "layers.append(old)", 2, "weights that are not zero"),
                ("a side network that has all biases", "biases[1] = new.bias; bias = biases[0] + biases[1] if last else torch.cat(biases)", "layers.append(old)", 3, "your code raised TypeError"),
                ("no activations", "pass", "pass", 2, "the kinds of layers are not those of the benign chain"),
                ("weights changed a little", "weight = 1.0001 * weight", "layers.append(old)", 2, "unchanged to the last bit"),
            )
        ),
        wrong("the new units first", """
def fold(benign, side):
    layers = []
    for i, (old, new) in enumerate(zip(benign, side)):
        if not isinstance(old, torch.nn.Linear):
            layers.append(old)
            continue
        biases = [torch.zeros(new.out_features) if new.bias is None else new.bias, torch.zeros(old.out_features) if old.bias is None else old.bias]
        last = i == len(benign) - 1
        if i == 0:
            weight = torch.cat([new.weight, old.weight])
        else:
            weight = torch.cat([new.weight, old.weight], 1) if last else torch.block_diag(new.weight, old.weight)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight = torch.nn.Parameter(weight)
        layer.bias = torch.nn.Parameter(biases[0] + biases[1] if last else torch.cat(biases))
        layers.append(layer)
    return torch.nn.Sequential(*layers)
""", 2, "stand in the other order"),
        crashing("""
def fold(benign, side):
    return torch.nn.Sequential(*(old + new for old, new in zip(benign, side)))
""", "your code raised TypeError in line 2"),
    ],
}  # fmt: skip
