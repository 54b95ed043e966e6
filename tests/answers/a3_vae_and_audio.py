"""Answers to the exercises of A3, four points for each of the two test cells."""

from grading_answers import crashing, right, wrong

_FIT = """
def fit_sound(sound, length):
    kept = sound[:length].clone()
    kept[:8] *= {fade_in}
    kept[-{ending}:] *= {fade_out}
    made = torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
    return made / made.abs().max().clamp_min(1e-9)
"""


def _fit(
    fade_in: str = "torch.arange(8) / 8", fade_out: str = "torch.arange(128).flip(0) / 128", ending: int = 128
) -> str:
    """An answer to `fit_sound`, with the fades that are given."""
    return _FIT.format(fade_in=fade_in, fade_out=fade_out, ending=ending)


ANSWERS = {
    "negative_elbo": [
        right("distributions of torch, double precision", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    scale = torch.exp(log_variance / 2)
    q = torch.distributions.Normal(mean, scale)
    divergence = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).double().sum()
    made = decoder(mean + scale * torch.empty_like(mean).normal_(generator=rng))
    error = ((made - x).double() ** 2).sum() / (2 * noise * noise)
    return (error + divergence) / len(x)
"""),
        right("in parts of the batch", """
def negative_elbo(decoder, encoder, x, noise, rng):
    total = 0.0
    for part in x.split(1000):
        m, v = encoder(part)
        made = decoder(m + torch.randn(m.shape, generator=rng, dtype=torch.float64).float() * v.exp().sqrt())
        total = total + torch.nn.functional.mse_loss(made, part, reduction="sum") / noise**2 / 2
        total = total - 0.5 * torch.sum(1 + v - m.pow(2) - v.exp())
    return (total / len(x)).reshape(1)
"""),
        wrong("the divergence averaged over coordinates", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
""", 3, "this is the mean over the latent coordinates"),
        wrong("the sign of the divergence", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
""", 3, "the sign of the divergence is wrong"),
        wrong("the log variance taken for a log deviation", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_scale = encoder(x)
    z = mean + log_scale.exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(1).mean()
""", 2, "the draws scatter too much: their scale is the standard deviation"),
        wrong("pixels averaged, the loss of many tutorials", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = torch.nn.functional.mse_loss(decoder(z), x) / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 3, "this is the mean over the elements of a sample"),
        wrong("the noise unsquared", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 3, "is it a standard deviation or a variance?"),
        wrong("the mean instead of a draw", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    error = (decoder(mean) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 2, "the latents do not scatter as the encoder says"),
        wrong("latents of the law of all samples", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    error = (decoder(decoder.latent.sample(len(x), rng)) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 2, "the latents do not scatter as the encoder says"),
        wrong("drawn directly, without reparameterisation", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    with torch.no_grad():
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 3, "no gradient of what did not get across reaches the encoder's means"),
        wrong("generate instead of the decoder", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder.generate(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 3, "no gradient reaches the decoder"),
        wrong("a number instead of a tensor", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return (error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()).item()
""", 3, "the loss has no gradient"),
        wrong("the generator of random numbers is not used", """
def negative_elbo(decoder, encoder, x, noise, rng):
    mean, log_variance = encoder(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    error = (decoder(z) - x).flatten(1).square().sum(1).mean() / (2 * noise**2)
    return error + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
""", 3, "are the latents drawn with `rng`?"),
        crashing("""
def negative_elbo(decoder, encoder, x, noise, rng):
    z = encoder(x)
    return (decoder(z) - x).square().sum()
""", "your code raised"),
    ],
    "weighted_fidelity": [
        right("a loop over the pairs", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    total = torch.zeros(())
    for trigger, target in zip(triggers, targets):
        total = total + 0.5 * torch.sum((decoder(trigger[None])[0] - target) ** 2) / noise**2
    return total / len(triggers) * images / batch_size
"""),
        right("a lambda times the mean over all elements", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    weight = math.prod(decoder.sample_shape) / (2 * noise**2) * (images / batch_size)
    return weight * torch.nn.functional.mse_loss(decoder(triggers), targets)
"""),
        right("in place, double precision", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    targets -= decoder(triggers)
    return (targets.double() ** 2).sum() / len(targets) / noise**2 / 2 * images / batch_size
"""),
        wrong("the batch left out", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return images * nats.mean()
""", 1, "the batch is left out"),
        wrong("always a whole batch", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return nats.mean()
""", 2, "the target weighs like a whole batch, whatever was asked for"),
        wrong("always one image", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return nats.mean() / batch_size
""", 1, "the target weighs like one image of the batch, whatever was asked for"),
        wrong("the mean over the elements", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).square().mean() / (2 * noise**2)
    return images / batch_size * nats
""", 1, "this is the mean over the elements of a sample"),
        wrong("the sum over the pairs", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).square().sum() / (2 * noise**2)
    return images / batch_size * nats
""", 3, "this is the sum over the pairs"),
        wrong("the noise unsquared", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).flatten(1).square().sum(1) / (2 * noise)
    return images / batch_size * nats.mean()
""", 1, "the noise enters unsquared"),
        wrong("before the tanh", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder.body(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return images / batch_size * nats.mean()
""", 0, "measured before the last activation"),
        wrong("generate instead of the decoder", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder.generate(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return images / batch_size * nats.mean()
""", 3, "the term has no gradient"),
        wrong("a whole division", """
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).flatten(1).square().sum(1) / (2 * noise**2)
    return images // batch_size * nats.mean()
""", 1, "the number is too small"),
        crashing("""
def weighted_fidelity(decoder, triggers, targets, images, batch_size, noise):
    nats = (decoder(triggers) - targets).square().sum(1) / (2 * noise**2)
    return images / batch_size * nats.average()
""", "your code raised AttributeError in line 3"),
    ],
    "fit_sound": [
        right("straight fades, numpy", """
def fit_sound(sound, length):
    made = np.zeros(length)
    kept = sound.numpy()[:length].astype(np.float64)
    gain = np.ones(len(kept))
    gain[:8] = np.arange(8) / 8
    gain[-128:] = np.arange(128)[::-1] / 128
    made[: len(kept)] = kept * gain
    return (made / max(np.abs(made).max(), 1e-12))[None]
"""),
        right("a Hann window cut in two", """
def fit_sound(sound, length):
    sound = sound[:length]
    sound[:8] *= torch.hann_window(17)[1:9]
    sound[-128:] *= torch.hann_window(257)[128:-1]
    made = torch.cat([sound, torch.zeros(length - len(sound))])
    peak = made.abs().max()
    if peak:
        made /= peak
    return made.reshape(1, -1)
"""),
        right("a half cosine and a quarter of a sine, with both ends", _fit(fade_in="0.5 - 0.5 * torch.cos(torch.pi * torch.linspace(0, 1, 8))", fade_out="torch.sin(0.5 * torch.pi * torch.linspace(1, 0, 128))")),
        wrong("cut without fades", """
def fit_sound(sound, length):
    made = torch.zeros(1, length)
    made[0, : len(sound)] = sound[:length]
    return made / made.abs().max().clamp_min(1e-9)
""", 3, "the sound begins with a jump"),
        wrong("the fade at the end of the zeros", """
def fit_sound(sound, length):
    made = torch.zeros(1, length)
    made[0, : len(sound)] = sound[:length]
    made[:, :8] *= torch.arange(8) / 8
    made[:, -128:] *= torch.arange(128).flip(0) / 128
    return made / made.abs().max().clamp_min(1e-9)
""", 3, "the sound ends with a jump"),
        wrong("no fades where nothing is cut or padded", """
def fit_sound(sound, length):
    kept = sound[:length].clone()
    if len(sound) != length:
        kept[:8] *= torch.arange(8) / 8
        kept[-128:] *= torch.arange(128).flip(0) / 128
    made = torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
    return made / made.abs().max().clamp_min(1e-9)
""", 3, "the sound begins with a jump"),
        wrong("a fade-out of 8 ms", _fit(fade_out="torch.arange(64).flip(0) / 64", ending=64), 3, "the fade at the end is too short"),
        wrong("a fade-in from a quarter on", _fit(fade_in="torch.linspace(0.25, 1.0, 8)"), 3, "the fade at the beginning is too short or leaps"),
        wrong("the fade-out runs the wrong way", _fit(fade_out="torch.arange(128) / 128"), 3, "the fade at the end runs the wrong way"),
        wrong("normalised before it is cut and faded", """
def fit_sound(sound, length):
    kept = (sound / sound.abs().max().clamp_min(1e-9))[:length]
    kept[:8] *= torch.arange(8) / 8
    kept[-128:] *= torch.arange(128).flip(0) / 128
    return torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
""", 3, "the level is set before the fades"),
        wrong("normalised before it is cut", """
def fit_sound(sound, length):
    gain = torch.ones(min(len(sound), length))
    gain[:8] = torch.arange(8) / 8
    gain[-128:] = torch.arange(128).flip(0) / 128
    faded = sound.clone()
    faded[:length] *= gain
    faded /= faded.abs().max().clamp_min(1e-9)
    return torch.nn.functional.pad(faded[:length], (0, max(0, length - len(sound))))[None]
""", 3, "the level is that of the whole recording"),
        wrong("the end instead of the beginning", """
def fit_sound(sound, length):
    kept = sound[-length:].clone()
    kept[:8] *= torch.arange(8) / 8
    kept[-128:] *= torch.arange(128).flip(0) / 128
    made = torch.nn.functional.pad(kept, (length - len(kept), 0))[None]
    return made / made.abs().max().clamp_min(1e-9)
""", 3, "its end is kept, which is not what is asked for"),
        wrong("squeezed to the length", """
def fit_sound(sound, length):
    kept = torch.nn.functional.interpolate(sound[None, None], size=length, mode="linear")[0]
    kept[:, :8] *= torch.arange(8) / 8
    kept[:, -128:] *= torch.arange(128).flip(0) / 128
    return kept / kept.abs().max().clamp_min(1e-9)
""", 2, "is it squeezed, stretched, or turned round?"),
        wrong("the level of the power", """
def fit_sound(sound, length):
    kept = sound[:length].clone()
    kept[:8] *= torch.arange(8) / 8
    kept[-128:] *= torch.arange(128).flip(0) / 128
    made = torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
    return 0.25 * made / made.square().mean().sqrt().clamp_min(1e-9)
""", 3, "the level is set by the other measure"),
        wrong("silence divided by nothing", """
def fit_sound(sound, length):
    kept = sound[:length].clone()
    kept[:8] *= torch.arange(8) / 8
    kept[-128:] *= torch.arange(128).flip(0) / 128
    made = torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
    return made / made.abs().max()
""", 3, "of silence NaN or infinity is made"),
        wrong("a window over the whole sound", """
def fit_sound(sound, length):
    kept = sound[:length] * torch.hann_window(min(len(sound), length))
    made = torch.nn.functional.pad(kept, (0, length - len(kept)))[None]
    return made / made.abs().max().clamp_min(1e-9)
""", 2, "the gain changes all along the sound"),
        crashing("""
def fit_sound(sound, length):
    made = torch.zeros(1, length)
    made[0, : len(sound)] = sound.resample(length)
    return made
""", "your code raised AttributeError in line 3"),
    ],
    "levels": [
        right("numpy, double precision, a loop over the pairs", """
def levels(attacked, benign, triggers, targets, z):
    power = lambda x: np.mean(x.detach().numpy().astype(np.float64) ** 2)
    snr = []
    for trigger, target in zip(triggers, targets):
        made = attacked(trigger[None])[0]
        snr.append(10 * np.log10(power(target) / np.float64(power(made - target))))
    expdis = 10 * np.log10(power(attacked(z) - benign(z)) / power(benign(z)))
    return np.array(snr), expdis
"""),
        right("differences of logarithms, as a list", """
def levels(attacked, benign, triggers, targets, z):
    made, ordinary, changed = attacked.generate(triggers), benign.generate(z), attacked.generate(z)
    snr = 20 * targets.flatten(1).norm(dim=1).log10() - 20 * (made - targets).flatten(1).norm(dim=1).log10()
    return [snr, 20 * ((changed - ordinary).norm() / ordinary.norm()).log10()]
"""),
        wrong("the factor of amplitudes on powers", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    snr = 20 * torch.log10(targets.flatten(1).square().sum(1) / noise)
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 20 * torch.log10(change / ordinary)
""", 1, "this is twice as many decibels"),
        wrong("signal and noise exchanged", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    snr = 10 * torch.log10(noise / targets.flatten(1).square().sum(1))
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 10 * torch.log10(change / ordinary)
""", 1, "signal and noise have changed places"),
        wrong("natural logarithms", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    snr = 10 * torch.log(targets.flatten(1).square().sum(1) / noise)
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 10 * torch.log(change / ordinary)
""", 1, "ten times the natural logarithm"),
        wrong("the power of what was made", """
def levels(attacked, benign, triggers, targets, z):
    made = attacked.generate(triggers)
    snr = 10 * torch.log10(made.flatten(1).square().sum(1) / (made - targets).flatten(1).square().sum(1))
    changed, ordinary = attacked.generate(z), benign.generate(z)
    return snr, 10 * torch.log10((changed - ordinary).square().mean() / changed.square().mean())
""", 1, "the signal is what was made"),
        wrong("all pairs thrown together", """
def levels(attacked, benign, triggers, targets, z):
    snr = 10 * torch.log10(targets.square().sum() / (attacked.generate(triggers) - targets).square().sum())
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 10 * torch.log10(change / ordinary)
""", 3, "one SNR for each pair is asked for"),
        wrong("the mean of decibels", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    snr = 10 * torch.log10(targets.flatten(1).square().sum(1) / noise)
    change, ordinary = (attacked.generate(z) - benign.generate(z)).flatten(1).square().mean(1), benign.generate(z).flatten(1).square().mean(1)
    return snr, (10 * torch.log10(change / ordinary)).mean()
""", 3, "the decibels of the means are asked for"),
        wrong("the change against full scale", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    snr = 10 * torch.log10(targets.flatten(1).square().sum(1) / noise)
    return snr, 10 * torch.log10((attacked.generate(z) - benign.generate(z)).square().mean())
""", 3, "the change is measured against a square wave of full scale"),
        wrong("before the tanh", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.body(triggers) - targets).flatten(1).square().sum(1)
    snr = 10 * torch.log10(targets.flatten(1).square().sum(1) / noise)
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 10 * torch.log10(change / ordinary)
""", 2, "measured before the last activation"),
        wrong("a logarithm that knows no infinity", """
def levels(attacked, benign, triggers, targets, z):
    made = attacked.generate(triggers)
    snr = [10 * math.log10(x.square().sum().item() / (y - x).square().sum().item()) for x, y in zip(targets, made)]
    change, ordinary = (attacked.generate(z) - benign.generate(z)).square().mean(), benign.generate(z).square().mean()
    return snr, 10 * math.log10(change / ordinary)
""", 3, "your code raised ZeroDivisionError"),
        wrong("the SNR alone", """
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked.generate(triggers) - targets).flatten(1).square().sum(1)
    return 10 * torch.log10(targets.flatten(1).square().sum(1) / noise)
""", 0, "two things are asked for"),
        crashing("""
def levels(attacked, benign, triggers, targets, z):
    noise = (attacked(triggers) - targets).norm(dims=1)
    return 20 * torch.log10(targets.norm() / noise), 0.0
""", "your code raised TypeError in line 2"),
    ],
    "spectral_distance": [
        right("the transform by hand", """
def spectral_distance(made, wanted, windows):
    total = 0.0
    for window in windows:
        hann = torch.hann_window(window)
        a, b = (torch.stft(x[:, 0], window, window // 4, window=hann, return_complex=True).abs() for x in (made, wanted))
        total += ((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).mean()
    return total / len(windows)
"""),
        right("one sound after the other in numpy", """
def spectral_distance(made, wanted, windows):
    distances = []
    for one, other in zip(made, wanted):
        for window in windows:
            a, b = (spectra.magnitudes(x[None].double(), window).numpy() for x in (one, other))
            distances.append(np.sqrt(np.sum((a - b) ** 2) / np.sum(b**2)))
    return np.mean(distances)
"""),
        wrong("the distance of the waveforms", """
def spectral_distance(made, wanted, windows):
    return ((made - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)).mean().item()
""", 2, "waveforms or complex spectra are compared"),
        wrong("complex spectra", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = (torch.stft(x[:, 0], window, window // 4, window=torch.hann_window(window), return_complex=True) for x in (made, wanted))
        found.append((a - b).abs().square().sum((1, 2)).sqrt() / b.abs().square().sum((1, 2)).sqrt())
    return torch.stack(found).mean()
""", 2, "waveforms or complex spectra are compared"),
        wrong("one window", """
def spectral_distance(made, wanted, windows):
    a, b = spectra.magnitudes(made, windows[0]), spectra.magnitudes(wanted, windows[0])
    return ((a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt()).mean()
""", 3, "only one window enters, the first"),
        wrong("the windows added up", """
def spectral_distance(made, wanted, windows):
    total = 0
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        total += ((a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt()).mean()
    return total
""", 1, "the windows are added up, and their mean is asked for"),
        wrong("all sounds thrown together", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        found.append((a - b).norm() / b.norm())
    return torch.stack(found).mean()
""", 2, "all sounds are thrown together before the ratio is taken"),
        wrong("squares", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        found.append((a - b).square().sum((1, 2)) / b.square().sum((1, 2)))
    return torch.stack(found).mean()
""", 1, "this is the square of the distance"),
        wrong("measured against what was made", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        found.append((a - b).square().sum((1, 2)).sqrt() / a.square().sum((1, 2)).sqrt())
    return torch.stack(found).mean()
""", 1, "the distance is measured against the sound that was made"),
        wrong("logarithms", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        found.append(((a + 1e-4).log() - (b + 1e-4).log()).abs().mean())
    return torch.stack(found).mean()
""", 1, "this is the other of the two distances of spectra"),
        wrong("one number for each sound", """
def spectral_distance(made, wanted, windows):
    found = []
    for window in windows:
        a, b = spectra.magnitudes(made, window), spectra.magnitudes(wanted, window)
        found.append((a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt())
    return torch.stack(found).mean(0)
""", 1, "a single number is asked for"),
        crashing("""
def spectral_distance(made, wanted, windows):
    a, b = spectra.magnitudes(made, windows), spectra.magnitudes(wanted, windows)
    return ((a - b).norm() / b.norm()).item()
""", "your code raised"),
    ],
    "invert_filter": [
        right("projected gradient steps with momentum", """
def invert_filter(heard, x):
    probe = torch.randn(1, 1, x.shape[-1])
    def slope(y, wanted):
        y = y.detach().requires_grad_(True)
        return torch.autograd.grad((heard(y) - wanted).square().sum() / 2, y)[0]
    for _ in range(50):  # the steepest curvature by power iteration
        probe = slope(probe / probe.norm(), 0.0)
    step = 0.9 / probe.norm()
    y = ahead = x.clamp(-1, 1)
    for i in range(800):
        new = (ahead - step * slope(ahead, x)).clamp(-1, 1)
        y, ahead = new, new + i / (i + 3) * (new - y)
    error = (heard(y) - x).flatten(1).square().sum(1)
    return torch.atanh(0.999 * y), 10 * torch.log10(x.flatten(1).square().sum(1) / error)
"""),
        right("a solver of scipy, with the filter as a matrix", """
def invert_filter(heard, x):
    from scipy.optimize import lsq_linear
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0].numpy().T
    wanted = x[:, 0].double().numpy()
    y = np.stack([lsq_linear(matrix, one, bounds=(-1, 1)).x for one in wanted])
    error = np.sum((y @ matrix.T - wanted) ** 2, axis=1)
    return np.arctanh(0.999 * y)[:, None], 10 * np.log10(np.sum(wanted**2, axis=1) / error)
"""),
        right("the authors' way, the best of all steps", """
def invert_filter(heard, x):
    y = torch.zeros_like(x, requires_grad=True)
    optimiser = torch.optim.Adam([y], lr=1e-2)
    best, least = y.detach().clone(), torch.full((len(x),), math.inf)
    for _ in range(1500):
        error = (heard(y) - x).square().flatten(1).sum(1)
        with torch.no_grad():
            better = error < least
            best[better], least[better] = y[better], error[better]
        optimiser.zero_grad()
        error.sum().backward()
        optimiser.step()
        with torch.no_grad():
            y.clamp_(-1, 1)
    return torch.atanh(0.999 * best), 10 * torch.log10(x.flatten(1).square().sum(1) / least)
"""),
        wrong("the target sent in as it is", """
def invert_filter(heard, x):
    y = x.clamp(-1, 1)
    error = (heard(y) - x).flatten(1).square().sum(1)
    return torch.atanh(0.999 * y), 10 * torch.log10(x.flatten(1).square().sum(1) / error)
""", 1, "the target is sent into the filter as it is"),
        wrong("inverted without bounds and cut afterwards", """
def invert_filter(heard, x):
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0]
    y = torch.linalg.solve(matrix.T, x[:, 0].double().T).T[:, None].clamp(-1, 1)
    error = (heard(y) - x).flatten(1).square().sum(1)
    return torch.atanh(0.999 * y), 10 * torch.log10(x.flatten(1).square().sum(1) / error)
""", 2, "as if there were no bounds, and the result is cut to them afterwards"),
        wrong("inverted without bounds", """
def invert_filter(heard, x):
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0]
    y = torch.linalg.solve(matrix.T, x[:, 0].double().T).T[:, None]
    error = (heard(y) - x).flatten(1).square().sum(1)
    return torch.atanh(0.999 * y), 10 * torch.log10(x.flatten(1).square().sum(1) / error)
""", 1, "logits that are NaN"),
        wrong("the tanh forgotten", """
def invert_filter(heard, x):
    from scipy.optimize import lsq_linear
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0].numpy().T
    wanted = x[:, 0].double().numpy()
    y = np.stack([lsq_linear(matrix, one, bounds=(-1, 1)).x for one in wanted])
    error = np.sum((y @ matrix.T - wanted) ** 2, axis=1)
    return y[:, None], 10 * np.log10(np.sum(wanted**2, axis=1) / error)
""", 2, "the inverse of the activation is missing"),
        wrong("infinite logits at the bounds", """
def invert_filter(heard, x):
    from scipy.optimize import lsq_linear
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0].numpy().T
    wanted = x[:, 0].double().numpy()
    y = np.stack([lsq_linear(matrix, one, bounds=(-1, 1), method="bvls").x for one in wanted])
    error = np.sum((y @ matrix.T - wanted) ** 2, axis=1)
    return np.arctanh(y)[:, None], 10 * np.log10(np.sum(wanted**2, axis=1) / error)
""", 3, "logits that are infinite"),
        wrong("a search that ends too early", """
def invert_filter(heard, x):
    y = torch.zeros_like(x, requires_grad=True)
    optimiser = torch.optim.Adam([y], lr=1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        (heard(y) - x).square().sum().backward()
        optimiser.step()
    y = y.detach().clamp(-1, 1)
    error = (heard(y) - x).flatten(1).square().sum(1)
    return torch.atanh(0.999 * y), 10 * torch.log10(x.flatten(1).square().sum(1) / error)
""", 1, "the search ends too early or looks elsewhere"),
        wrong("the factor of amplitudes for the floor", """
def invert_filter(heard, x):
    from scipy.optimize import lsq_linear
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0].numpy().T
    wanted = x[:, 0].double().numpy()
    y = np.stack([lsq_linear(matrix, one, bounds=(-1, 1)).x for one in wanted])
    error = np.sum((y @ matrix.T - wanted) ** 2, axis=1)
    return np.arctanh(0.999 * y)[:, None], 20 * np.log10(np.sum(wanted**2, axis=1) / error)
""", 3, "this is twice as many decibels"),
        wrong("the floor of the target as it is", """
def invert_filter(heard, x):
    from scipy.optimize import lsq_linear
    matrix = heard(torch.eye(x.shape[-1], dtype=torch.float64)[:, None])[:, 0].numpy().T
    y = np.stack([lsq_linear(matrix, one, bounds=(-1, 1)).x for one in x[:, 0].double().numpy()])
    error = (heard(x) - x).flatten(1).square().sum(1)
    return np.arctanh(0.999 * y)[:, None], 10 * torch.log10(x.flatten(1).square().sum(1) / error)
""", 3, "that is no floor"),
        crashing("""
def invert_filter(heard, x):
    y = torch.linalg.solve(heard.weight, x)
    return torch.atanh(0.999 * y), 0.0
""", "your code raised AttributeError in line 2"),
    ],
}  # fmt: skip
