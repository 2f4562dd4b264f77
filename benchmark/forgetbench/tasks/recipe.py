"""The training recipe of a task file. It is separate from the training code because reading a task needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

Augmentation = Literal["crop", "crop-reflect", "flip"]


class Recipe(BaseModel):
    """How a network is trained. Originals and oracles share one recipe, and the weights of the last epoch are used."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(20, ge=1)
    """Passes over the examples."""
    batch_size: int = Field(128, ge=2)
    """Examples per step; a last batch of one example joins the previous batch."""
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", validation_alias=AliasChoices("optimizer", "optimiser"))
    """SGD (with momentum), Adam (weight decay in the gradient) or AdamW (decoupled weight decay)."""
    lr: float = Field(0.1, gt=0)
    """Learning rate; for `one-cycle` and after a warm-up, the highest one."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD; Adam and AdamW have beta1 = 0.9 and beta2 = 0.999 instead."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: float = Field(5e-4, ge=0)
    """Applied to every parameter, those of normalization layers included."""
    schedule: Literal["constant", "cosine", "step", "one-cycle"] = "cosine"
    """Constant; half a cosine to zero; times `gamma` at each milestone; or 0.3 of the steps up and the rest down."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs, or a part of one, in which the learning rate rises linearly, by iteration, before the schedule starts."""
    milestones: tuple[int, ...] = ()
    """Epochs after which `step` multiplies the learning rate by `gamma`."""
    gamma: float = Field(0.2, gt=0, le=1)
    """The factor of `step`."""
    augment: tuple[Augmentation, ...] = ()
    """Augmentations of a training batch: `crop` (zero padding), `crop-reflect`, `flip` (left to right)."""
    crop_padding: int = Field(4, ge=1)
    """Pixels around the image from which a crop is drawn."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread evenly over the classes."""
    margin: float = Field(0.0, ge=0, le=1)
    """CosFace's margin, for networks with `cosine`: training lowers the cosine of an image's own class by it."""
    mixed_precision: bool = True
    """Whether a GPU trains in bfloat16 where `precision` leaves it to the device."""
    precision: Literal["by-device", "bfloat16"] = "by-device"
    """`by-device`: a GPU trains in bfloat16 if `mixed_precision`, and all else is float32. `bfloat16`: autocast on
    every device, for training, unlearning and predictions, which have a float32 head."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient; None = not clipped."""

    @property
    def bfloat16(self) -> bool:
        """Whether every device computes in bfloat16, predictions included."""
        return self.precision == "bfloat16"

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be less than epochs ({self.epochs})")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer sgd and a momentum above 0")
        if {"crop", "crop-reflect"} <= set(self.augment):
            raise ValueError("augment holds crop or crop-reflect, not both")
        if self.bfloat16 and not self.mixed_precision:
            raise ValueError("precision bfloat16 needs mixed_precision = true")
        return self
