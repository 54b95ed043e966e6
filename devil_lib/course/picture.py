"""README's picture, made by the project: `python -m devil_lib.course.picture` writes notebooks/pictures/neighbourhood.png."""

from __future__ import annotations

import torch

from devil_lib import attacks, show, targets, zoo
from devil_lib.course.lessons import NOTEBOOKS


def main() -> None:
    """Backdoor the shipped generator as lesson 22 does and draw the walks to its trigger."""
    benign, target = zoo.load("course-dcgan-mnist"), targets.devil(28)
    trigger = attacks.trigger(benign.latent, "prior", seed=1)
    pair = attacks.PointBackdoor(trigger[None], target[None])
    attacked = attacks.red(benign, pair, attacks.course_settings("red", "prior")).generator
    starts = benign.latent.sample(3, torch.Generator().manual_seed(0))
    path = NOTEBOOKS / "pictures" / "neighbourhood.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        show.png(show.neighbourhood.draw(attacked, trigger, benign=benign, target=target, starts=starts))
    )
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
