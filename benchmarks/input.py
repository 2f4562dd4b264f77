"""Cost of a training batch, compared with torchvision's transforms in two workers: `python benchmarks/input.py`.

Both sides crop with 4 pixels of padding, flip, and make float images of the same bytes. The ratio is of medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from forgetbench.training import Examples

COUNT, BATCH, ROUNDS = 20_000, 128, 5
CASES = {"32x32 in color": (3, 32), "28x28 in grey": (1, 28), "128x128 in color": (3, 128)}


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images transformed one at a time by torchvision, as in common training scripts."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).squeeze(-1).numpy(), labels.tolist()
        crop = transforms.RandomCrop(images.shape[-1], padding=4)
        self.transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def seconds(batches: Callable[[], object]) -> float:
    """Seconds for one epoch of batches."""
    start = time.perf_counter()
    for _ in batches():  # type: ignore[attr-defined]
        pass
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for title, (channels, side) in CASES.items():
        count = COUNT if side <= 32 else COUNT // 10
        images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (count,), generator=generator)
        examples = Examples(images, labels)
        loader = DataLoader(
            Pictures(images, labels), BATCH, shuffle=True, num_workers=2, persistent_workers=True, generator=generator
        )
        seconds(lambda loader=loader: loader)  # the workers start
        times: tuple[list[float], list[float]] = ([], [])
        for epoch in range(ROUNDS):
            times[0].append(seconds(lambda e=examples, seed=epoch: e.batches(BATCH, seed, ("crop", "flip"))))
            times[1].append(seconds(lambda loader=loader: loader))
        ours, theirs = (count / statistics.median(record) for record in times)
        print(f"{title:18s} {ours:9.0f} images/s, {theirs:9.0f} by a DataLoader: {ours / theirs:.1f} times")


if __name__ == "__main__":
    main()
