"""What a generator of unknown origin can be set beside: the architectures that were published, and a fresh discriminator."""

from __future__ import annotations

from collections.abc import Callable

from devil_lib import models, style, vae, wavegan
from devil_lib.games import Wasserstein
from devil_lib.models import Discriminator, Generator, course_discriminator
from devil_lib.style import style_discriminator
from devil_lib.wavegan import spectral_critic, wave_critic

# What a model card may claim, as it was published: untrained.
PUBLISHED: dict[str, Callable[[], Generator]] = {
    "course-dcgan": models.course_dcgan,
    "art-dcgan": models.art_dcgan,
    "course-wavegan": wavegan.course_wavegan,
    "course-wavegan-filtered": lambda: wavegan.with_filter(wavegan.course_wavegan(), wavegan.low_pass(2000.0)),
    "published-wavegan": wavegan.published_wavegan,
    "course-style-32": lambda: style.style_generator(32),
    "course-style-64": lambda: style.style_generator(64),
    "course-vae": lambda: vae.course_vae()[0],
    "course-audio-vae": lambda: vae.course_audio_vae()[0],
}


def discriminator_for(generator: Generator, seed: int = 0) -> Discriminator:
    """An untrained discriminator for what the generator makes, whether it was a GAN's or a VAE's decoder.

    Pictures of 28x28 pixels get the light DCGAN's, colour photographs of 32x32 or 64x64 the style-based generator's, sounds of
    4,096 samples the critic that judges spectrograms, and those of 1,024 or 16,384 WaveGAN's. A critic of sounds takes one step
    for each of the generator's, not five, which a repair of a few hundred steps could not afford.

    Raises:
        ValueError: samples of another shape.
    """
    shape, game = generator.sample_shape, Wasserstein(critic_steps=1, share=0.5)
    ready: dict[tuple[int, ...], Callable[[], Discriminator]] = {
        (shape[0], 28, 28): lambda: course_discriminator(channels=shape[0], seed=seed),
        (3, 32, 32): lambda: style_discriminator(32, seed=seed),
        (3, 64, 64): lambda: style_discriminator(64, seed=seed),
        (1, 4096): lambda: spectral_critic(game=game, seed=seed),
        (1, 1024): lambda: wave_critic(length=1024, game=game, seed=seed),
        (1, 16384): lambda: wave_critic(length=16384, game=game, seed=seed),
    }
    if shape not in ready:
        raise ValueError(f"there is no ready discriminator for samples of shape {shape}; give one")
    return ready[shape]()
