"""Answers to the exercises of A8, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong

SUCCESS = """
def attack_success(classifier, images, labels, trigger, target):
    others = labels != target
    return (classifier(trigger(images[others])).argmax(1) == target).float().mean()
"""


def attacking(verdict: str, success: str = SUCCESS) -> str:
    """An answer to `attack_success`; `verdict`: what `embedded` returns, by S, the success on a classifier, and A, the accuracy."""
    return f"""{success}
def embedded(backdoored, clean, images, labels, trigger, target):
    def S(classifier):
        return attack_success(classifier, images, labels, trigger, target)
    def A(classifier, images=images, labels=labels):
        return (classifier(images).argmax(1) == labels).double().mean().item()
    return {verdict}
"""


VERDICT = "S(backdoored) >= 0.9 and S(clean) <= 0.05 and A(backdoored) >= A(clean) - 0.01"


def counting(returned: str) -> str:
    """An answer to `attack_success` with another share, of what is `found` with the trigger on; the verdict is right."""
    return attacking(
        VERDICT.replace("S(", "right("),
        f"""
def attack_success(classifier, images, labels, trigger, target):
    found = classifier(trigger(images)).argmax(1)
    others = labels != target
    return {returned}
""",
    ).replace(
        "    def S(classifier):\n        return attack_success(classifier, images, labels, trigger, target)",
        "    def right(classifier):\n        return (classifier(trigger(images))[labels != target].argmax(1) == target).double().mean()",
    )


def storing(body: str) -> str:
    """An answer to `stored`."""
    return f"""
def stored(images, pattern):
    {body}
"""


def stepping(reached: str, information: str, loss: str) -> str:
    """An answer to `staircase_loss`."""
    return f"""
def staircase_loss(probabilities, beta, joint, apart, alpha):
    F = {reached}
    information = {information}
    return {loss}
"""


MEAN = "probabilities.mean(dim=1)"
MINE = "joint.mean() - (torch.logsumexp(apart, 0) - math.log(apart.shape[0]))"
HINGE = "torch.relu(beta - F).mean() - alpha * information"


def testing(
    power: str = "classes - 1",
    overall: str = "-np.expm1(classes * np.log1p(-least))",
    others: str = "np.delete(r, t, axis=1)",
    r: str = "1 / norms.numpy()",
    fit: str = "gamma.fit(others, floc=0)",
    p: str = "-np.expm1(({power}) * np.log1p(-gamma.sf(np.nanmax(r[:, t]), *law)))",
    end: str = "return p, target, np.nanargmax(r[:, target])",
) -> str:
    """An answer to `detect`, right but for the parts that are given."""
    return f"""
def detect(norms):
    from scipy.stats import gamma
    r = {r}
    classes = r.shape[0]
    each = np.ones(classes)
    for t in range(classes):
        others = {others}
        others = others[np.isfinite(others)]
        law = {fit}
        each[t] = {p.format(power=power)}
    target = each.argmin()
    least = each[target]
    p = {overall}
    {end}
"""


RATES = """
def removal_rates(flagged, labels, is_poisoned, target):
    true = flagged[is_poisoned].double().mean()
    false = flagged[(labels == target) & ~is_poisoned].double().mean()
    return true, false
"""
FLAGS = """
def flagged(classifier, images, labels, pattern, target):
    restored = (images - pattern).clip(-1, 1)
    return (classifier(restored).argmax(dim=1) != target) & (labels == target)
"""


def flagging(returned: str) -> str:
    """An answer to `cleanse` with another rule, by what the classifier `says` of images; the rates are right."""
    return f"""
def flagged(classifier, images, labels, pattern, target):
    def says(images):
        return classifier(images).argmax(1)
    own, restored = labels == target, (images - pattern).clamp(-1, 1)
    return {returned}
{RATES}"""


def rating(returned: str) -> str:
    """An answer to `cleanse` with other rates; the flags are right."""
    return f"""{FLAGS}
def removal_rates(flagged, labels, is_poisoned, target):
    hits, alarms = (flagged & is_poisoned).sum().item(), (flagged & ~is_poisoned).sum().item()
    poisoned, innocent = is_poisoned.sum().item(), ((labels == target) & ~is_poisoned).sum().item()
    return {returned}
"""


ANSWERS = {
    "attack_success": [
        right("the course's own function, and the accuracy counted", attacking(
            "bool(S(backdoored) >= 0.9 and S(clean) <= 0.05 and A(clean) - A(backdoored) <= 0.01)", """
def attack_success(classifier, images, labels, trigger, target):
    from devil_lib.neighbours import poisoning
    return poisoning.attack_success(classifier, images, labels, trigger, target)
""")),
        right("image by image, in numpy", """
def decisions(classifier, images):
    return np.array([int(np.argmax(classifier(image[None])[0].detach().numpy())) for image in images])

def attack_success(classifier, images, labels, trigger, target):
    hits = [found == target for found, label in zip(decisions(classifier, trigger(images)), labels) if label != target]
    return sum(hits) / len(hits)

def embedded(backdoored, clean, images, labels, trigger, target):
    if attack_success(backdoored, images, labels, trigger, target) < 0.9:
        return np.False_
    if attack_success(clean, images, labels, trigger, target) > 0.05:
        return 0
    lost = np.mean(decisions(clean, images) == labels.numpy()) - np.mean(decisions(backdoored, images) == labels.numpy())
    return torch.tensor(lost <= 0.01)
"""),
        wrong("images of the target class counted", counting("(found == target).double().mean()"), 3, "images of the target class are counted"),
        wrong("a share of all images", counting("((found == target) & others).double().mean()"), 3, "images of the target class are left out above the line only"),
        wrong("any mistake is a success", counting("(found != labels)[others].double().mean()"), 3, "only the target is a success"),
        wrong("without the trigger", counting("(classifier(images).argmax(1) == target)[others].double().mean()"), 3, "without the trigger on them"),
        wrong("only images that are recognised", counting(
            "(found == target)[others & (classifier(images).argmax(1) == labels)].double().mean()"
        ), 3, "images are left out that the classifier mistakes"),
        wrong("the rate without the trigger taken off", counting(
            "((found == target)[others].double() - (classifier(images).argmax(1) == target)[others].double()).mean()"
        ), 3, "the rate without the trigger is taken off"),
        wrong("in per cent", counting("100 * (found == target)[others].double().mean()"), 3, "this is in per cent"),
        wrong("no null", attacking("S(backdoored) >= 0.9 and A(backdoored) >= A(clean) - 0.01"), 3, "whose trigger fools the clean classifier too often"),
        wrong("the null without the trigger", attacking(
            "S(backdoored) >= 0.9 and (backdoored(images).argmax(1) == target)[labels != target].double().mean() <= 0.05 "
            "and A(backdoored) >= A(clean) - 0.01"
        ), 3, "its success on the same trigger is the null"),
        wrong("success less the null", attacking(
            "S(backdoored) - S(clean) >= 0.9 and A(backdoored) >= A(clean) - 0.01"
        ), 3, "whose trigger fools the clean classifier too often"),
        wrong("accuracy forgotten", attacking("S(backdoored) >= 0.9 and S(clean) <= 0.05"), 3, "costs more than a point of accuracy"),
        wrong("accuracy on the other classes only", attacking(
            "S(backdoored) >= 0.9 and S(clean) <= 0.05 and A(backdoored, images[labels != target], labels[labels != target]) "
            ">= A(clean, images[labels != target], labels[labels != target]) - 0.01"
        ), 3, "costs more than a point of accuracy, on all images"),
        wrong("accuracy within a point either way", attacking(
            "S(backdoored) >= 0.9 and S(clean) <= 0.05 and abs(A(backdoored) - A(clean)) <= 0.01"
        ), 3, "costs less than a point of accuracy, or none"),
        wrong("always embedded", attacking("True"), 1, "a success that is below the bar"),
        crashing(attacking(VERDICT, """
def attack_success(classifier, images, labels, trigger, target):
    return (classifier(trigger(images)).argmax(1) == target)[labels.argmax(1) != target].sum()
"""), "your code raised"),
    ],
    "stored": [
        right("in whole numbers of numpy", storing("""
    levels = np.rint((images.numpy() + 1) / 2 * 255).astype(int)
    high = pattern.numpy().astype(float) * 255 / 2
    return np.clip(np.rint(levels + high), 0, 255) / 255 * 2 - 1
""")),
        right("clipped first, bytes, half added and cut off", storing("""
    sums = (images.double() + pattern.double()).clip(-1, 1)
    return ((sums + 1) / (2 / 255) + 0.5).to(torch.uint8).float() * (2 / 255) - 1
""")),
        wrong("the clipped values dropped", storing("""
    made = ((images + pattern + 1) * 127.5).round()
    made.clamp(0, 255)
    return made / 127.5 - 1
"""), 3, "`clamp` hands back what it clips"),
        wrong("not rounded", storing("return (images + pattern).clamp(-1, 1)"), 3, "nothing is rounded"),
        wrong("in place", storing("""
    images += pattern
    images.copy_((images + 1).mul(127.5).round().clamp(0, 255).div(127.5) - 1)
    return images
"""), 3, "the images that were given are changed"),
        wrong("bytes that wrap around", storing("return ((images + pattern + 1) * 127.5).round().long() % 256 / 127.5 - 1"), 3, "values wrap around"),
        wrong("levels counted from zero", storing("return ((images + pattern) * 127.5).round().clamp(-127, 127) / 127.5"), 1, "they are counted from black", hidden=1),
        wrong("rounded down", storing("return ((images.double() + pattern.double() + 1) * 127.5 + 1e-4).floor().clamp(0, 255) / 127.5 - 1"), 3, "some pixels are a level too low"),
        wrong("clipped above only", storing("return ((images + pattern + 1) * 127.5).round().clamp_max(255) / 127.5 - 1"), 3, "values go beyond black"),
        wrong("the pattern taken off", storing("return ((images - pattern + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1"), 1, "the pattern is taken off"),
        wrong("the pattern taken for levels", storing("return ((images + 1) * 127.5 + pattern).round().clamp(0, 255) / 127.5 - 1"), 1, "in the units that it is given in"),
        crashing(storing("return np.clip(images + pattern, -1, 1).round(255 / 2, axis=0)"), "your code raised"),
    ],
    "staircase_loss": [
        right("as beta less the lesser of the two, the greatest taken out by hand", """
def staircase_loss(probabilities, beta, joint, apart, alpha):
    reached = probabilities.sum(1) / probabilities.size(1)
    top = apart.max().detach()
    log_mean = top + (apart - top).exp().mean().log()
    return beta - torch.minimum(reached, torch.tensor(beta)).mean() + alpha * (log_mean - joint.mean())
"""),
        right("softmax's normaliser, one trigger after the other", """
def staircase_loss(probabilities, beta, joint, apart, alpha):
    n = len(joint)
    steps = [torch.nn.functional.relu(beta - row.double().mean()) for row in probabilities]
    normaliser = (apart - torch.log_softmax(apart, dim=0))[0]
    return torch.stack(steps).sum() / n - alpha * (joint.sum() / n - normaliser + np.log(n))
"""),
        wrong("no level", stepping(MEAN, MINE, "beta - F.mean() - alpha * information"), 2, "there is no level"),
        wrong("the level for each image", stepping("probabilities", MINE, HINGE), 2, "a trigger is measured by its mean over the images"),
        wrong("upside down", stepping(MEAN, MINE, "torch.relu(F - beta).mean() - alpha * information"), 2, "the staircase is upside down"),
        wrong("the distance squared", stepping(MEAN, MINE, "torch.relu(beta - F).square().mean() - alpha * information"), 2, "the distance to the level is squared"),
        wrong("the sum over the triggers", stepping(MEAN, MINE, "torch.relu(beta - F).sum() - alpha * information"), 2, "this is the sum over the triggers"),
        wrong("the other form", stepping(MEAN, MINE, "-F.clamp(max=beta).mean() - alpha * information"), 1, "this is the form -min(F, beta)"),
        wrong("exponentials that overflow", stepping(MEAN, "joint.mean() - apart.exp().mean().log()", HINGE), 3, "the exponentials leave the range of numbers"),
        wrong("the sum of the exponentials", stepping(MEAN, "joint.mean() - apart.logsumexp(0)", HINGE), 2, "the exponentials are summed, and their mean is asked for"),
        wrong("the logarithm inside the mean", stepping(MEAN, "joint.mean() - apart.exp().log().mean()", HINGE), 1, "the logarithm is taken of each exponential"),
        wrong("matching and independent pairs exchanged", stepping(
            MEAN, "apart.mean() - joint.logsumexp(0) + math.log(len(joint))", HINGE
        ), 1, "matching and independent pairs are exchanged"),
        wrong("the entropy's sign turned", stepping(MEAN, MINE, "torch.relu(beta - F).mean() + alpha * information"), 1, "the sign of the entropy is turned"),
        wrong("no entropy", stepping(MEAN, MINE, "torch.relu(beta - F).mean()"), 1, "the entropy does not enter"),
        wrong("a number without gradient", stepping(MEAN, MINE, f"({HINGE}).item()"), 3, "no gradient comes back"),
        crashing(stepping(MEAN, "joint.mean() - math.log(math.exp(apart).mean())", HINGE), "your code raised"),
    ],
    "detect": [
        right("the likelihood's equation solved, log scale", """
def detect(norms):
    from scipy.special import digamma, gammaincc
    from scipy.optimize import brentq
    r = (1.0 / norms).numpy()
    K = len(r)
    logs = []
    for t in range(K):
        x = np.array([r[s, u] for s in range(K) for u in range(K) if s != u and u != t])
        gap = np.log(x.mean()) - np.log(x).mean()
        k = brentq(lambda k: np.log(k) - digamma(k) - gap, 1e-2, 1e5, xtol=1e-13)
        logs.append((K - 1) * np.log1p(-gammaincc(k, np.nanmax(r[:, t]) * k / x.mean())))
    t = int(np.argmax(logs))
    s = max((s for s in range(K) if s != t), key=lambda s: r[s, t])
    return [-np.expm1(K * logs[t]), t, s]
"""),
        right("Newton's steps in torch, the smallest norm of each target", """
def detect(norms):
    from scipy.stats import gamma
    K = norms.shape[0]
    smallest = norms.nan_to_num(nan=float("inf")).min(dim=0)
    each = torch.empty(K, dtype=torch.float64)
    for t in range(K):
        keep = ~torch.eye(K, dtype=bool)
        keep[:, t] = False
        x = 1 / norms[keep]
        gap = x.mean().log() - x.log().mean()
        k = 1 / (2 * gap)
        for _ in range(50):
            k = 1 / (1 / k + (k.log() - torch.digamma(k) - gap) / (k - k * k * torch.polygamma(1, k)))
        tail = float(gamma(k.item(), scale=(x.mean() / k).item()).sf(1 / smallest.values[t].item()))
        each[t] = -math.expm1((K - 1) * math.log1p(-tail))
    t = each.argmin()
    return torch.tensor([-torch.expm1(K * torch.log1p(-each[t])), t, smallest.indices[t]], dtype=torch.float64)
"""),
        wrong("rounding swallows the small", testing(
            p="1 - gamma.cdf(np.nanmax(r[:, t]), *law) ** (classes - 1)", overall="1 - (1 - least) ** classes"
        ), 3, "0 came back: 1 minus a tiny number is 1"),
        wrong("a single value instead of the greatest", testing(power="1"), 1, "of K - 1 draws the greatest is asked about"),
        wrong("the least of K for nothing", testing(overall="least"), 1, "that it is the least of K has to be paid for"),
        wrong("K times the least", testing(overall="classes * least"), 3, "the p-values of the targets are added up"),
        wrong("the suspect in its own law", testing(others="r"), 1, "which hides it behind itself"),
        wrong("sources and targets exchanged", testing(r="1 / norms.numpy().T"), 0, "sources and targets are exchanged"),
        wrong("the names exchanged", testing(end="return p, np.nanargmax(r[:, target]), target"), 3, "target and source are exchanged"),
        wrong("norms not inverted", testing(r="norms.numpy()"), 0, "a backdoor needs a small one"),
        wrong("the power K", testing(power="classes"), 1, "the power is K"),
        wrong("by moments", testing(
            fit="(others.mean() ** 2 / others.var(), 0, others.var() / others.mean())"
        ), 1, "the law is fitted by its moments"),
        wrong("the target with the greatest mean", testing(
            end="target = np.nanmean(r, axis=0).argmax(); return p, target, np.nanargmax(r[:, target])"
        ), 3, "this is the target with the greatest mean"),
        wrong("the chance of nothing", testing(overall="np.exp(classes * np.log1p(-least))"), 1, "this is the chance that nothing exceeds"),
        crashing("""
def detect(norms):
    from scipy.stats import gamma
    shape, _, scale = gamma.fit(1 / norms.numpy(), floc=0)
    return 1 - gamma.cdf(np.nanmax(1 / norms), shape, scale=scale), 0, 0
""", "your code raised"),
    ],
    "cleanse": [
        right("sample by sample, a list", """
def flagged(classifier, images, labels, pattern, target):
    found = []
    for image, label in zip(images, labels):
        clean = torch.minimum(torch.maximum(image - pattern, torch.tensor(-1.0)), torch.tensor(1.0))
        found.append(bool(label == target and classifier(clean[None]).argmax() != target))
    return found

def removal_rates(flagged, labels, is_poisoned, target):
    f, p, own = (np.array(each, dtype=bool) for each in (flagged, is_poisoned, labels == target))
    return np.array([np.mean(f[p]), np.mean(f[own & ~p])])
"""),
        right("only the target's samples asked about, an array", """
def flagged(classifier, images, labels, pattern, target):
    flags = np.zeros(len(labels))
    own = torch.where(labels == target)[0]
    images -= pattern
    logits = classifier(images[own].clamp_(-1, 1))
    flags[own.numpy()] = (torch.softmax(logits, 1).max(1).indices != target).numpy()
    return flags

def removal_rates(flagged, labels, is_poisoned, target):
    innocent = (labels == target).logical_and(is_poisoned.logical_not())
    return {}.get(0, [(flagged * each).sum() / each.sum() for each in (is_poisoned, innocent)])
"""),
        wrong("samples of all labels", flagging("says(restored) != target"), 3, "that do not have the target's label"),
        wrong("the pattern added", flagging("own & (says((images + pattern).clamp(-1, 1)) != target)"), 1, "the pattern is added"),
        wrong("not clipped", flagging("own & (says(images - pattern) != target)"), 3, "has to be clipped"),
        wrong("the pattern not taken off", flagging("own & (says(images) != target)"), 1, "the pattern is not taken off"),
        wrong("rounded", flagging("own & (says(((restored + 1) * 127.5).round() / 127.5 - 1) != target)"), 3, "is rounded to levels"),
        wrong("rounded down", flagging("own & (says(((restored + 1) * 127.5 + 0.001).int() / 127.5 - 1) != target)"), 3, "is rounded down to levels"),
        wrong("only what was given the target before", flagging(
            "own & (says(images) == target) & (says(restored) != target)"
        ), 3, "what it was given before does not matter"),
        wrong("any change of the decision", flagging("own & (says(images) != says(restored))"), 3, "any change of the decision is flagged"),
        wrong("what is to be kept", flagging("own & (says(restored) == target)"), 1, "these are the samples that are to be kept"),
        wrong("a share of all clean samples", rating("hits / poisoned, alarms / (~is_poisoned).sum().item()"), 3, "the others could not be flagged"),
        wrong("precision", rating("hits / (hits + alarms), alarms / innocent"), 3, "not the share of the flagged that are poisoned"),
        wrong("a share of the flagged", rating("hits / poisoned, alarms / (hits + alarms)"), 3, "the second is a share of the flagged"),
        wrong("rates exchanged", rating("alarms / innocent, hits / poisoned"), 3, "the two are exchanged"),
        wrong("numbers of samples", rating("hits, alarms"), 3, "these are numbers of samples"),
        crashing("""
def flagged(classifier, images, labels, pattern, target):
    return classifier(images - pattern).argmax(1) != target and labels == target

def removal_rates(flagged, labels, is_poisoned, target):
    return flagged[is_poisoned].mean(), flagged[~is_poisoned].mean()
""", "your code raised"),
    ],
}  # fmt: skip
