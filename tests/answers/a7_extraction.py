"""Answers to the exercises of A7, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong


def beside(score: str = "distance(own, first) - distance(first, second)", cut: str = "", end: str = "") -> str:
    """An answer to `two_distances`; `cut`: how sets are cut, other than rightly; `end`: what comes back."""
    cut = cut or "m = min(len(thief), len(target) // 2, len(real) // 2)"
    return f"""
def two_distances(thief, target, real, distance):
    {cut}
    own, found = thief[:m], []
    for law in (target, real):
        first, second = law[:m], law[m : 2 * m]
        found.append({score})
    {end or "return found"}
"""


def interval(
    half: str = "scipy.stats.t.ppf(0.975, nu) * error",
    claim: str = "-1 if high < 0 else int(low > 0)",
    few: str = "    if min(len(a), len(b)) < 5:\n        return -np.inf, np.inf, 0",
    runs: str = "a.mean(axis=1), b.mean(axis=1)",
    ddof: int = 1,
    middle: str = "a.mean() - b.mean()",
) -> str:
    """An answer to `told_apart` by Welch's formula."""
    return f"""
import scipy.stats


def told_apart(a, b):
{few}
    a, b = {runs}
    ea, eb = a.var(ddof={ddof}) / len(a), b.var(ddof={ddof}) / len(b)
    error = np.sqrt(ea + eb)
    nu = (ea + eb) ** 2 / (ea**2 / (len(a) - 1) + eb**2 / (len(b) - 1))
    middle, half = {middle}, {half}
    low, high = middle - half, middle + half
    return low, high, {claim}
"""


def walking(
    alpha: str = "1.0 if q >= p else q * (1 - p) / (p * (1 - q))",
    accepted: str = "u < alpha",
    moved: str = "p, place = q, i",
    turned_down: str = "",
    end: str = "ends.append(place)",
) -> str:
    """An answer to `metropolis_hastings`, chain by chain."""
    return f"""
def metropolis_hastings(start, proposals, uniforms):
    ends = []
    for p, row, numbers in zip(start, proposals, uniforms):
        place = -1
        for i, (q, u) in enumerate(zip(row, numbers)):
            alpha = {alpha}
            if {accepted}:
                {moved}
            {turned_down}
        {end}
    return np.array(ends)
"""


GAP = """
def reliability_gap(probability, is_real, edges):
    total = 0.0
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
        inside = (probability >= low) & ((probability < high) | (i == len(edges) - 2))
        if inside.any():
            total += inside.sum() * abs(probability[inside].mean() - is_real[inside].mean())
    return total / len(probability)
"""

CALIBRATE = """
def calibrate(logits, is_real):
    from scipy.optimize import minimize
    real, generated = logits[is_real == 1], logits[is_real == 0]
    scale = np.abs(logits).max()
    def loss(w):
        return np.logaddexp(0, -(w[0] * real / scale + w[1])).mean() + np.logaddexp(0, w[0] * generated / scale + w[1]).mean()
    slope, intercept = minimize(loss, [1.0, 0.0], tol=1e-9).x
    return slope / scale, intercept
"""


def gap(
    inside: str = "(probability >= low) & ((probability < high) | (i == len(edges) - 2))",
    difference: str = "abs(probability[inside].mean() - is_real[inside].mean())",
    end: str = "total / len(probability)",
    weight: str = "inside.sum()",
    empty: str = "inside.any()",
) -> str:
    """An answer to `calibration` with another `reliability_gap`."""
    return f"""
def reliability_gap(probability, is_real, edges):
    total = 0.0
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
        inside = {inside}
        if {empty}:
            total += {weight} * {difference}
    return {end}
{CALIBRATE}"""


def fitted(body: str) -> str:
    """An answer to `calibration` with another `calibrate`."""
    return f"""{GAP}

def calibrate(logits, is_real):
    from sklearn.linear_model import LogisticRegression
    x = logits[:, None]
{body}
    return fit.coef_[0, 0], fit.intercept_[0]
"""


def priced(
    ratio: str = "s.mean(-1) / s0.mean(-1) - 1, t.mean(-1) / t0.mean(-1) - 1",
    excess: str = "gains - costs",
    low_high: str = "np.quantile(e, [0.025, 0.975])",
    counts: str = "low > 0",
    first: str = "cost, gain",
) -> str:
    """An answer to `price`."""
    return f"""
def price(served, stolen, served_before, stolen_before, resamples):
    def changes(s, t, s0, t0):
        return {ratio}
    arrays = served, stolen, served_before, stolen_before
    cost, gain = changes(*arrays)
    costs, gains = changes(*(each[resamples] for each in arrays))
    e = {excess}
    low, high = {low_high}
    return {first}, low, high, {counts}
"""


ANSWERS = {
    "two_distances": [
        right("in a loop", beside()),
        right("set by set, torch", """
def two_distances(thief, target, real, distance):
    sizes = [len(thief)] + [len(law) // 2 for law in (target, real)]
    m = sorted(sizes)[0]
    thief, target, real = (torch.as_tensor(each).float() for each in (thief, target, real))
    to_target = distance(target[:m], thief[:m])
    to_real = distance(real[:m], thief[:m])
    floors = [distance(*law[: 2 * m].split(m)) for law in (target, real)]
    return {"x": 0} and np.array([to_target - floors[0], to_real - floors[1]])
"""),
        wrong("the two words exchanged", beside(end="return found[::-1]"), 2, "the two are exchanged: this is the distance to the real data"),
        wrong("bare distances", beside("distance(own, first)"), 2, "this is the bare distance"),
        wrong("divided by the floor", beside("distance(own, first) / distance(first, second)"), 2, "the floor is to be subtracted"),
        wrong("one floor for both", beside("distance(own, first) - distance(target[:m], target[m : 2 * m])"), 3, "each distance has a floor of its own"),
        wrong("all that there is", """
def two_distances(thief, target, real, distance):
    found = []
    for law in (target, real):
        half = len(law) // 2
        found.append(distance(thief, law[:half]) - distance(law[:half], law[half:]))
    return found
""", 2, "between sets of unequal size"),
        wrong("each distance at its own number", """
def two_distances(thief, target, real, distance):
    found = []
    for law in (target, real):
        m = min(len(thief), len(law) // 2)
        found.append(distance(thief[:m], law[:m]) - distance(law[:m], law[m : 2 * m]))
    return found
""", 2, "at different numbers of samples"),
        wrong("fewer than there are", beside(cut="m = min(len(thief), len(target), len(real)) // 2"), 0, "fewer samples are used"),
        crashing("""
def two_distances(thief, target, real, distance):
    m = min(thief, target, real)
    return distance(thief[:m], target[:m]), distance(thief[:m], real[:m])
""", "your code raised"),
    ],
    "told_apart": [
        right("by the formula", interval()),
        right("scipy's own test", """
def told_apart(a, b):
    from scipy import stats
    if len(a) < 5 or len(b) < 5:
        return [float("-inf"), float("inf"), 0]
    found = stats.ttest_ind(a.mean(1), b.mean(1), equal_var=False).confidence_interval(0.95)
    return found.low, found.high, np.sign(found.low) if found.low * found.high > 0 else 0
"""),
        wrong("repeats are runs", interval(runs="a.ravel(), b.ravel()", few="    if min(a.size, b.size) < 5:\n        return -np.inf, np.inf, 0"), 1, "repeats are counted as if they were runs"),
        wrong("the normal law", interval("1.959964 * error"), 2, "the quantile is that of the normal law"),
        wrong("one side", interval("scipy.stats.t.ppf(0.95, nu) * error"), 2, "the interval has two"),
        wrong("the spread of the runs", interval("scipy.stats.t.ppf(0.975, nu) * np.sqrt(a.var(ddof=1) + b.var(ddof=1))"), 2, "this is the spread of the runs"),
        wrong("divided by n", interval(ddof=0), 2, "of a sample it is divided by n - 1"),
        wrong("pooled", """
def told_apart(a, b):
    from scipy import stats
    if len(a) < 5 or len(b) < 5:
        return -np.inf, np.inf, 0
    low, high = stats.ttest_ind(a.mean(1), b.mean(1)).confidence_interval(0.95)
    return low, high, (low > 0) - (high < 0) * 1
""", 2, "the two spreads are pooled"),
        wrong("half-widths added up", interval(
            "sum(scipy.stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) for x in (a, b))"
        ), 2, "the half-widths of two intervals are added up"),
        wrong("the means decide", interval(claim="-1 if middle < 0 else 1"), 3, "a claim is made although your interval holds zero"),
        wrong("turned round", interval(middle="b.mean() - a.mean()"), 2, "the sign is turned round"),
        wrong("five are few", interval(
            few="    if min(len(a), len(b)) <= 5:\n        return -np.inf, np.inf, 0"
        ), 3, "five runs are taken for too few"),
        wrong("a claim on few", interval(few="    pass"), 3, "a claim is made on fewer than five runs"),
        crashing("""
def told_apart(a, b):
    low, high = (a - b).confidence_interval(0.95)
    return low, high, low > 0
""", "your code raised"),
    ],
    "metropolis_hastings": [
        right("chain by chain", walking()),
        right("all chains at once, logits", """
def metropolis_hastings(start, proposals, uniforms):
    start, proposals, uniforms = (torch.as_tensor(each).double() for each in (start, proposals, uniforms))
    state, place = torch.logit(start), torch.full((len(start),), -1)
    for i in range(proposals.shape[1]):
        proposed = torch.logit(proposals[:, i])
        alpha = torch.exp(proposed - state)
        alpha[proposed >= state] = 1.0
        taken = uniforms[:, i] < alpha
        state[taken], place[taken] = proposed[taken], i
    return place
"""),
        wrong("beside the proposal before", walking(turned_down="p = q"), 0, "every proposal is compared with the one before"),
        wrong("beside the start", walking(moved="place = i"), 1, "every proposal is compared with the start"),
        wrong("upside down", walking("1.0 if q <= p else p * (1 - q) / (q * (1 - p))"), 0, "the rule is upside down"),
        wrong("the ratio of the probabilities", walking("1.0 if q >= p else q / p"), 1, "that of the densities is D / (1 - D)"),
        wrong("only what looks better", walking(accepted="q >= p"), 2, "such a chain climbs, and does not sample"),
        wrong("above the probability", walking(accepted="u > alpha"), 0, "where the uniform number is above"),
        wrong("the first that is accepted", walking(accepted="place < 0 and u < alpha"), 1, "stops at the first proposal"),
        wrong("nothing by nothing", """
def metropolis_hastings(start, proposals, uniforms):
    state, place = start.copy(), np.full(len(start), -1)
    for i in range(proposals.shape[1]):
        alpha = np.minimum(1.0, (1.0 / state - 1.0) / (1.0 / proposals[:, i] - 1.0))
        taken = uniforms[:, i] < alpha
        state[taken], place[taken] = proposals[taken, i], i
    return place
""", 3, "with a D of exactly 0 or 1"),
        wrong("the start is a proposal", walking(end="ends.append(max(place, 0))"), 3, "it is still at its start"),
        wrong("counted from one", walking(end="ends.append(place + 1)"), 0, "the proposals are counted from one"),
        crashing("""
def metropolis_hastings(start, proposals, uniforms):
    return [proposals[i].index(max(proposals[i])) for i in range(len(start))]
""", "your code raised AttributeError"),
    ],
    "calibration": [
        right("a loop over the bins, and an optimiser", GAP + CALIBRATE),
        right("digitize, and scikit-learn with balanced classes", """
def reliability_gap(probability, is_real, edges):
    place = np.digitize(probability, edges[1:-1])
    return sum(abs((probability - is_real)[place == i].sum()) for i in set(place.tolist())) / len(place)


def calibrate(logits, is_real):
    from sklearn.linear_model import LogisticRegression
    fit = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-8).fit(100 * logits.reshape(-1, 1), is_real)
    return 100 * fit.coef_.item(), fit.intercept_.item()
"""),
        right("the intercept corrected afterwards", fitted("""
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(x / np.abs(x).max(), is_real)
    fit.coef_ = fit.coef_ / np.abs(x).max()
    fit.intercept_ = fit.intercept_ + np.log((is_real == 0).sum() / (is_real == 1).sum())
""")),
        wrong("more generated than real", fitted("""
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(x / np.abs(x).max(), is_real)
    fit.coef_ = fit.coef_ / np.abs(x).max()
"""), 3, "the generated samples are more, and D must not know"),
        wrong("corrected the wrong way", fitted("""
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(x / np.abs(x).max(), is_real)
    fit.coef_ = fit.coef_ / np.abs(x).max()
    fit.intercept_ = fit.intercept_ + 2 * np.log((is_real == 0).sum() / (is_real == 1).sum())
"""), 3, "corrected the wrong way"),
        wrong("a penalty", fitted("""
    fit = LogisticRegression(class_weight="balanced", tol=1e-8).fit(x, is_real)
"""), 3, "does a penalty, or too few steps, keep it from the best fit?"),
        wrong("left as they are", GAP + """
def calibrate(logits, is_real):
    return 1.0, 0.0
""", 2, "the logits are left as they are"),
        wrong("the probability of a generated sample", fitted("""
    fit = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-8).fit(100 * x, 1 - is_real)
    fit.coef_ = 100 * fit.coef_
"""), 2, "this is the probability of a generated sample"),
        wrong("the middle of the bin", gap(difference="abs((low + high) / 2 - is_real[inside].mean())"), 2, "the middle of a bin is taken"),
        wrong("signs", gap(difference="(probability[inside].mean() - is_real[inside].mean())", end="abs(total) / len(probability)"), 2, "with their signs"),
        wrong("bins weigh alike", gap(weight="1", end="total / (len(edges) - 1)"), 2, "all bins weigh alike"),
        wrong("an empty bin is NaN", gap(empty="True"), 3, "a bin without a sample has no mean"),
        wrong("one in no bin", gap("(probability >= low) & (probability < high)"), 3, "a probability of 1 is counted in no bin"),
        wrong("edges below", gap("(probability > low) & (probability <= high) | (probability == 0) & (i == 0)"), 3, "is counted in the bin below it"),
        crashing("""
def reliability_gap(probability, is_real, edges):
    return probability.bin(edges).mean() - is_real.mean()


def calibrate(logits, is_real):
    return logits.slope, logits.intercept
""", "your code raised AttributeError"),
    ],
    "price": [
        right("by arrays", priced()),
        right("row by row, sorted by hand", """
def price(served, stolen, served_before, stolen_before, resamples):
    def one(runs):
        cost = served[runs].sum() / served_before[runs].sum() - 1.0
        return cost, stolen[runs].sum() / stolen_before[runs].sum() - 1.0
    excess = sorted(g - c for c, g in map(one, resamples))
    tail = round(0.025 * len(excess))
    cost, gain = one(list(range(len(served))))
    low, high = excess[tail], excess[-1 - tail]
    return {"all": None} and [cost, gain, low, high, 1 if low > 0 else 0]
"""),
        right("torch", """
def price(served, stolen, served_before, stolen_before, resamples):
    both = torch.tensor(np.array([[served, stolen], [served_before, stolen_before]]))
    change = lambda x: x[0].mean(-1) / x[1].mean(-1) - 1
    c, g = change(both[:, :, torch.as_tensor(resamples)])
    low, high = (g - c).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return torch.stack([*change(both), low, high, (low > 0).double()])
"""),
        wrong("the gain alone", priced(excess="gains"), 2, "what the customer pays does not enter"),
        wrong("the point decides", priced(counts="gain > cost"), 2, "although your interval does not lie above zero"),
        wrong("one side", priced(low_high="np.quantile(e, [0.05, 0.95])"), 3, "the quantiles leave the whole of the rest on one side"),
        wrong("the error of the mean of the resamples", priced(
            low_high="gain - cost + 1.96 * e.std() / np.sqrt(len(e)) * np.array([-1.0, 1.0])"
        ), 2, "it is that of a mean already"),
        wrong("run by run", priced("(s / s0).mean(-1) - 1, (t / t0).mean(-1) - 1"), 2, "take the ratio of the two means"),
        wrong("differences of distances", priced("s.mean(-1) - s0.mean(-1), t.mean(-1) - t0.mean(-1)"), 2, "relative changes are asked for"),
        wrong("exchanged", priced(first="gain, cost"), 3, "cost and gain are exchanged"),
        wrong("a thief who is nearer", priced(excess="costs - gains"), 2, "the other way round is asked for"),
        wrong("least and greatest", priced(low_high="(e.min(), e.max())"), 3, "the least and the greatest of all resamples"),
        crashing("""
def price(served, stolen, served_before, stolen_before, resamples):
    return served / served_before, stolen / stolen_before, resamples.quantile(0.025)
""", "your code raised"),
    ],
}  # fmt: skip
