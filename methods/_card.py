"""What a method states about itself before it runs: its card, and the tasks that it applies to."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, computed_field

from forgetbench.evidence.run import MethodName
from forgetbench.methods._references import Reference, find_reference


class PaperCard(BaseModel):
    """Base of cards of things with a paper: methods and attacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    if TYPE_CHECKING:  # declared by the cards, whose fields are shown in their order
        papers: tuple[str, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def authors(self) -> str:
        """Authors of the papers, in order; empty for a thing of this benchmark."""
        return "; ".join(reference.authors for reference in self._references())

    @computed_field  # type: ignore[prop-decorator]
    @property
    def year(self) -> int | None:
        """Year of the main paper."""
        return self._references()[0].year if self.papers else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def venue(self) -> str:
        """Where the main paper was published."""
        return self._references()[0].venue if self.papers else ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def link(self) -> str:
        """Address of the main paper, or empty."""
        return self._references()[0].link if self.papers else ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bibtex(self) -> str:
        """BibTeX entries of the papers, or empty."""
        return "\n\n".join(reference.bibtex for reference in self._references())

    def _references(self) -> list[Reference]:
        return [find_reference(paper) for paper in self.papers]


class MethodCard(PaperCard):
    """Name and paper of a method, what it needs, where it applies, and its known limitations."""

    name: MethodName
    """Name in the registry, such as `random-label`. The first argument, because the registry reads it from the file."""
    title: str
    """One line on what it does."""
    papers: tuple[str, ...] = ()
    """Keys of `references.bib`, or whole BibTeX entries; the main paper first."""
    family: str
    """Kind of method: reference, fine-tuning, ascent, relabelling, damping, distillation, influence, adapter, ..."""
    needs: tuple[Literal["forget", "retain", "validation"], ...] = ()
    """The examples that it reads; the others of the request must not be touched."""
    changes_training: bool = False
    """Whether it can require its own originals, trained with another loss."""
    networks: tuple[str, ...] = ("*",)
    """Names of the networks that it applies to; `*` is all."""
    scenarios: tuple[str, ...] = ("*",)
    """Names of the scenarios that it applies to; `*` is all."""
    attributes: bool = True
    """Whether it applies to labels of A attributes."""
    random: bool | None = True
    """Whether another seed gives another model; None: not stated."""
    known_limitations: str = "Not stated."
    """What it is known to fail at."""
    sentinel: bool = False
    """Whether its place is known in advance; `forgetbench audit` runs it to judge the metrics."""
    reference: bool = False
    """Whether every board has a row of it: no unlearning, and retraining."""

    @property
    def is_contestant(self) -> bool:
        """Whether it is neither a sentinel nor a row that every board has."""
        return not (self.sentinel or self.reference)


class Applicable(Protocol):
    """The parts of a card that say where a thing applies."""

    @property
    def name(self) -> str: ...

    @property
    def networks(self) -> tuple[str, ...]: ...

    @property
    def scenarios(self) -> tuple[str, ...]: ...

    @property
    def attributes(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a method may know of a task before any work is done."""

    network: str
    """Name of the network."""
    like: str = ""
    """Name of the network that it is built like, if any: what holds for that one holds for it."""
    scenario: str
    """Name of the scenario."""
    attributes: bool
    """Whether labels are rows of attributes."""
    outputs: int
    """Number of classes or attributes."""


def refusal(card: Applicable, facts: TaskFacts) -> str | None:
    """Why a thing with a card does not apply to a task, in one sentence; None if it applies."""
    if not {"*", facts.network, facts.like} & set(card.networks):
        return f"{card.name} applies to the networks {', '.join(card.networks)}, not to {facts.network}"
    if "*" not in card.scenarios and facts.scenario not in card.scenarios:
        return f"{card.name} applies to the scenarios {', '.join(card.scenarios)}, not to {facts.scenario}"
    if facts.attributes and not card.attributes:
        return f"{card.name} needs one class per image; it does not apply to labels of several attributes"
    return None


def default_name(kind: type) -> str:
    """The name of a class without a card: `MyMethod` is `my-method`."""
    return re.sub(r"(?<=[^A-Z])(?=[A-Z])", "-", kind.__name__).lower()


def default_title(kind: type) -> str:
    """The title of a class without a card: the first line of its docstring, or its name."""
    lines = (inspect.getdoc(kind) or "").strip().splitlines()
    return lines[0] if lines else kind.__name__


def default_card(method: type) -> MethodCard:
    """The card of a class without one, from its name and docstring; such a method is assumed to need all examples."""
    return MethodCard(
        name=default_name(method),
        title=default_title(method),
        family="own",
        needs=("forget", "retain", "validation"),
        random=None,
    )
