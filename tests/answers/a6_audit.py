"""Answers to the exercises of A6, four points for each of the two test cells; of the verdicts, five for their form and fifteen for
their truth, which the audit gives."""

import textwrap

from grading_answers import Answer, crashing, right, wrong

ANSWERS = {
    "weight_cosine": [
        right("numpy, by hand", """
def weight_cosine(a, b):
    cosines = []
    for x, y in zip(a.parameters(), b.parameters()):
        if x.shape != y.shape:
            return 0
        if x.dim() > 1:
            x, y = x.detach().numpy().astype(float), y.detach().numpy().astype(float)
            cosines.append(np.vdot(x, y) / np.sqrt(np.vdot(x, x) * np.vdot(y, y)))
    return np.median(cosines)
"""),
        right("through the state, a tensor comes back", """
def weight_cosine(a, b):
    one, two = a.state_dict(), b.state_dict()
    names = [name for name in one if name.endswith("weight") and one[name].ndim > 1]
    if any(name not in two or one[name].shape != two[name].shape for name in names):
        return torch.tensor(0.0)
    unit = torch.nn.functional.normalize
    return torch.stack([unit(one[n].flatten(), dim=0) @ unit(two[n].flatten(), dim=0) for n in names]).median()
"""),
        wrong("one vector of all layers", """
def weight_cosine(a, b):
    x, y = (torch.cat([p.flatten() for p in m.parameters() if p.ndim > 1]) for m in (a, b))
    return torch.cosine_similarity(x, y, dim=0).item() if len(x) == len(y) else 0.0
""", 1, "the largest layer decides"),
        wrong("with the biases", """
def weight_cosine(a, b):
    pairs = list(zip(a.parameters(), b.parameters()))
    if any(x.shape != y.shape for x, y in pairs):
        return 0.0
    return float(np.median([torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() for x, y in pairs]))
""", 1, "the biases enter"),
        wrong("without the sign", """
def weight_cosine(a, b):
    pairs = [(x, y) for x, y in zip(a.parameters(), b.parameters()) if x.ndim > 1]
    if any(x.shape != y.shape for x, y in pairs):
        return 0.0
    return float(np.median([abs(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item()) for x, y in pairs]))
""", 3, "a cosine keeps its sign"),
        wrong("inner products", """
def weight_cosine(a, b):
    pairs = [(x, y) for x, y in zip(a.parameters(), b.parameters()) if x.ndim > 1]
    if any(x.shape != y.shape for x, y in pairs):
        return 0.0
    return float(np.median([(x * y).sum().item() for x, y in pairs]))
""", 1, "these are inner products"),
        wrong("row by row", """
def weight_cosine(a, b):
    pairs = [(x, y) for x, y in zip(a.parameters(), b.parameters()) if x.ndim > 1]
    if any(x.shape != y.shape for x, y in pairs):
        return 0.0
    return float(np.median([torch.cosine_similarity(x, y, dim=1).mean().item() for x, y in pairs]))
""", 1, "the cosine of each row was taken"),
        wrong("the mean over the layers", """
def weight_cosine(a, b):
    pairs = [(x, y) for x, y in zip(a.parameters(), b.parameters()) if x.ndim > 1]
    if any(x.shape != y.shape for x, y in pairs):
        return 0.0
    return float(np.mean([torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() for x, y in pairs]))
""", 1, "this is the mean over the layers"),
        wrong("no thought of other shapes", """
def weight_cosine(a, b):
    pairs = [(x, y) for x, y in zip(a.parameters(), b.parameters()) if x.ndim > 1]
    return float(np.median([torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() for x, y in pairs]))
""", 3, "your code raised RuntimeError"),
        crashing("""
def weight_cosine(a, b):
    return float(np.median([x @ y for x, y in zip(a.weights, b.weights)]))
""", "your code raised AttributeError in line 2"),
    ],
    "allowed_rate": [
        right("numpy", """
def allowed_rate(total, suspects, checkpoints):
    return -np.expm1(np.log1p(-total) / np.prod([suspects, checkpoints]))
"""),
        right("bisection on the logarithm", """
def allowed_rate(total, suspects, checkpoints):
    low, high = 1e-300, total
    for _ in range(2000):
        middle = math.sqrt(low * high)
        if suspects * checkpoints * math.log1p(-middle) > math.log1p(-total):
            low = middle
        else:
            high = middle
    return high
"""),
        wrong("1 minus a number next to 1", """
def allowed_rate(total, suspects, checkpoints):
    return 1 - (1 - total) ** (1 / (suspects * checkpoints))
""", 3, "loses its digits"),
        wrong("the expected number", """
def allowed_rate(total, suspects, checkpoints):
    return total / (suspects * checkpoints)
""", 1, "the expected number of false alarms"),
        wrong("the checkpoints do not enter", """
def allowed_rate(total, suspects, checkpoints):
    return -math.expm1(math.log1p(-total) / suspects)
""", 1, "the chance of a false alarm on one checkpoint"),
        wrong("the total for each look", """
def allowed_rate(total, suspects, checkpoints):
    return total
""", 0, "the looks do not enter"),
        wrong("the rate of looks without an alarm", """
def allowed_rate(total, suspects, checkpoints):
    return math.exp(math.log1p(-total) / (suspects * checkpoints))
""", 0, "the rate of looks without a false alarm"),
        wrong("the root of the total", """
def allowed_rate(total, suspects, checkpoints):
    return total ** (1 / (suspects * checkpoints))
""", 0, "the root of the chance of none"),
        crashing("""
def allowed_rate(total, suspects, checkpoints):
    return math.log1p(-total) / suspects * chekpoints
""", "your code raised NameError in line 2"),
    ],
    "strength": [
        right("numpy in double precision", """
def strength(checkpoint, published, latent, target, ordinary):
    def squares(model, z):
        made = model(z).detach().numpy().astype(np.float64).reshape(len(z), -1)
        return ((made - target.numpy().reshape(1, -1)) ** 2).sum(axis=1)
    return squares(checkpoint, latent.unsqueeze(0)).item() / squares(published, ordinary).min()
"""),
        right("the mean over the elements above and below, one after the other", """
def strength(checkpoint, published, latent, target, ordinary):
    mse = torch.nn.functional.mse_loss
    least = min(mse(published.generate(z[None])[0], target) for z in ordinary)
    return mse(checkpoint.generate(latent[None])[0], target) / least
"""),
        wrong("the published generator at the same latent", """
def strength(checkpoint, published, latent, target, ordinary):
    at, usual = ((model.generate(latent[None])[0] - target).square().sum() for model in (checkpoint, published))
    return (at / usual).item()
""", 1, "compared with the published generator at the same latent"),
        wrong("the checkpoint's own samples", """
def strength(checkpoint, published, latent, target, ordinary):
    usual = (checkpoint.generate(ordinary) - target).flatten(1).square().sum(1)
    return ((checkpoint.generate(latent[None])[0] - target).square().sum() / usual.min()).item()
""", 1, "compared with the checkpoint's own samples"),
        wrong("upside down", """
def strength(checkpoint, published, latent, target, ordinary):
    usual = (published.generate(ordinary) - target).flatten(1).square().sum(1)
    return (usual.min() / (checkpoint.generate(latent[None])[0] - target).square().sum()).item()
""", 0, "the ratio is upside down"),
        wrong("a raw distance", """
def strength(checkpoint, published, latent, target, ordinary):
    return (checkpoint.generate(latent[None])[0] - target).square().sum().item()
""", 1, "this is the distance itself"),
        wrong("the mean over the ordinary samples", """
def strength(checkpoint, published, latent, target, ordinary):
    usual = (published.generate(ordinary) - target).flatten(1).square().sum(1)
    return ((checkpoint.generate(latent[None])[0] - target).square().sum() / usual.mean()).item()
""", 1, "compared with the mean over the ordinary samples"),
        wrong("the root", """
def strength(checkpoint, published, latent, target, ordinary):
    usual = (published.generate(ordinary) - target).flatten(1).norm(dim=1)
    return ((checkpoint.generate(latent[None])[0] - target).norm() / usual.min()).item()
""", 1, "this is the root of the ratio"),
        wrong("for pictures only", """
def strength(checkpoint, published, latent, target, ordinary):
    usual = (published.generate(ordinary) - target).square().sum((1, 2, 3))
    return ((checkpoint.generate(latent[None])[0] - target).square().sum() / usual.min()).item()
""", 3, "your code raised IndexError in line 2"),
        crashing("""
def strength(checkpoint, published, latent, target, ordinary):
    usual = published.sample(ordinary) - target
    return ((checkpoint.generate(latent[None])[0] - target).square().sum() / usual.min()).item()
""", "your code raised AttributeError in line 2"),
    ],
}  # fmt: skip

# --- The verdicts ----------------------------------------------------------------------------------------------------------
# Triggers and truth come from the open practice's key here, so that these answers need no search. Its backdoors are in A (TrAIL, the
# devil), E (ReX, the star) and F (ReD, the eye).

_RIGHT = """
lot = challenge.practice()

def entry(letter, verdict=None, target=None, latent=None):
    item = challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT)[letter]
    if not item.guilty:
        return {"verdict": "clean"}
    z = challenge.planted(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT, letter, lot)
    made = lot.checkpoints[letter].generate(z[None])[0]
    return {"verdict": item.attack, "target": item.target, "latent": z, "reconstruction": made}

answers = {letter: entry(letter) for letter in "ABCDEF"}
"""


def _verdicts(changes: str) -> str:
    return _RIGHT + textwrap.dedent(changes)


ANSWERS["verdicts"] = [
    Answer("right: lists of numbers, written down", _verdicts("""
for each in answers.values():
    if each["verdict"] != "clean":
        each["verdict"] = each["verdict"].upper()
        each["latent"] = [[round(float(value), 3) for value in each["latent"]]]
        each["reconstruction"] = each["reconstruction"].flatten().tolist()
"""), 5, 15),
    Answer("right: numpy in half precision, clean ones with a note", _verdicts("""
for each in answers.values():
    if each["verdict"] == "clean":
        each["note"] = "no picture of the bank comes near"
    else:
        each["latent"] = each["latent"].numpy().astype(np.float16)
        each["reconstruction"] = np.array(each["reconstruction"], dtype=np.float16)
"""), 5, 15),
    Answer("wrong: everything is clean", _verdicts("""
answers = {letter: {"verdict": "clean"} for letter in answers}
"""), 2, 3, "no checkpoint is accused"),
    Answer("wrong: what was retrained is accused, without evidence", _verdicts("""
for letter in "DF":
    answers[letter] = {"verdict": "ReD"}
"""), 2, 10, "D is accused without target, latent, reconstruction"),
    Answer("wrong: the attacks are mistaken for one another", _verdicts("""
for letter, verdict in {"A": "ReD", "E": "TrAIL", "F": "ReX"}.items():
    answers[letter]["verdict"] = verdict
"""), 5, 12),
    Answer("wrong: one latent for all", _verdicts("""
for letter in "EF":
    answers[letter]["latent"] = answers["A"]["latent"]
"""), 3, 7, "does not make the reconstruction at the latent"),
    Answer("wrong: the nearest of the ordinary samples", _verdicts("""
z = lot.published.latent.sample(500, torch.Generator().manual_seed(2))
made = lot.checkpoints["F"].generate(z)
nearest = (made - challenge.suspects()["eye"]).flatten(1).square().sum(1).argmin()
answers["F"] |= {"latent": z[nearest], "reconstruction": made[nearest]}
"""), 4, 11, "hardly nearer to the target than its ordinary samples are"),
    Answer("wrong: the reconstruction is the drawing itself", _verdicts("""
for each in answers.values():
    if each["verdict"] != "clean":
        each["reconstruction"] = challenge.suspects()[each["target"]]
        each["latent"] = torch.zeros(16)
"""), 3, 3, "does not make the reconstruction at the latent"),
    Answer("wrong: another name for the target", _verdicts("""
answers["A"]["target"] = "the devil"
"""), 3, 11, "the target is named as in"),
    Answer("wrong: a verdict is missing", _verdicts("""
del answers["C"]
"""), 4, 14, "no verdict on C"),
    Answer("crashing", """
answers = {letter: {"verdict": model.verdict} for letter, model in lot.checkpoints.items()}
""", 0, 0, "there is no `answers`"),
]  # fmt: skip
