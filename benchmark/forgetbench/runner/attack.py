"""Job functions in which a model is attacked, and what the attacker is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from forgetbench.evidence.arrays import Array, encode, write_arrays
from forgetbench.evidence.attacks import judged_subsets
from forgetbench.methods._foreign_code import MethodCodeError, capture_warnings, wrapped_errors
from forgetbench.methods._global_state import restored_state
from forgetbench.runner.artifacts import PREDICTIONS, WEIGHTS, make_once, require_artifact, write_meta
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.jobs import AttackedModel, AttackJob, AttackOutcome, CountAttackJob, FlopCount
from forgetbench.runner.train import cached_flops, method_failure, task_facts
from forgetbench.runner.unlearn import plain_notes
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from torch import nn

    from forgetbench.attacks.base import Attack, Knowledge
    from forgetbench.training import Examples


def attack(job: AttackJob) -> AttackOutcome:
    """Attack a model in this process and record its answers to the queries.

    What the attack raises becomes the state of the population; an error of the machine, such as a full disk, is raised.
    """
    context = load_context(job.task, job.env)
    model, original = (require_artifact(context.store, key) for key in (job.model, job.original))
    weights = file_digest(model / WEIGHTS)
    key = context.keys.attacked(job.attack, weights, file_digest(original / WEIGHTS), job.draw, job.seed)
    from_cache = context.store.read(context.store.key(key)) is not None
    if not from_cache:
        try:
            _, made = make_once(
                context.store, key, lambda folder: _attack(context, job, model, original, weights, folder)
            )
            from_cache = not made
        except MethodCodeError as error:
            return method_failure(job.attack.name, error)
    return AttackedModel(key=context.store.key(key), from_cache=from_cache)


def count_attack(job: CountAttackJob) -> FlopCount:
    """Count the FLOPs of an attack in a separate run on the first original."""
    context, thing = load_context(job.task, job.env), job.attack.build()

    def measure() -> float:
        from forgetbench.training import count_flops

        folder = require_artifact(context.store, job.original)
        with capture_warnings(), count_flops() as counted:
            _run(context, thing, folder, folder, 0, 0)
        return float(counted.total)

    return cached_flops(context, {"attack": job.attack.identity()}, measure)


def attack_refusal(context: TaskContext, thing: Attack) -> str:
    """Why an attack does not apply to a task; "" if it applies."""
    return thing.applies_to(task_facts(context), context.blank_network) or ""


def make_knowledge(context: TaskContext, thing: Attack, original: Path, draw: int) -> Knowledge:
    """What an attacker is given: what its card names, and the images on which the model is judged.

    All models of a draw are attacked with the same examples.
    """
    from forgetbench.attacks.base import Knowledge

    data, holds = context.data, set(thing.card.holds)
    train_rows, split = data.examples("train", draw), data.split(draw)
    held: dict[str, Examples | nn.Module] = {}
    if "retain" in holds:
        held["retain"] = train_rows.take(split.retain)
    if "forget" in holds:
        held["forget"] = train_rows.take(split.forget).take(shot_rows(context, thing, draw))
    if "validation" in holds:
        held["validation"] = data.examples("validation", draw).take(split.validation)
    if "original" in holds:
        held["original"] = context.load_model(original)
    queries, listed = {}, data.rows(draw)
    for name in judged_subsets(listed, membership=bool(thing.card.outcomes)):
        examples = data.examples(listed[name].part, draw).take(listed[name].index)
        queries[name] = examples if thing.card.outcomes else examples.relabel(torch.full_like(examples.labels, -1))
    return Knowledge(card=thing.card, recipe=context.task.recipe, queries=queries, held=held)


def shot_rows(context: TaskContext, thing: Attack, draw: int) -> Array:
    """The positions in the forget set of the examples that an attacker holds, sorted, int64.

    Of each class that is forgotten as a whole, or of the whole forget set where no class is, the first examples of an
    order that is drawn once for each draw: with more shots come more examples, and never others.
    """
    data, split = context.data, context.data.split(draw)
    count = thing.forget_shots
    if count is None:
        return np.arange(len(split.forget))
    order = np.random.default_rng(context.task.stream("attack-shots", draw)).permutation(len(split.forget))
    labels = split.train_labels[split.forget]
    groups = [order]
    if not data.attributes:
        forgotten = set(np.unique(labels)) - set(np.unique(split.train_labels[split.retain]))
        groups = [order[labels[order] == label] for label in sorted(forgotten)] or groups
    return np.sort(np.concatenate([group[:count] for group in groups]))


def _run(
    context: TaskContext, thing: Attack, model: Path, original: Path, draw: int, seed: int
) -> tuple[Mapping[str, Array], dict[str, float | str]]:
    """Attack a stored model; returns the answers to the queries, and what the attack logged.

    Raises:
        MethodCodeError: The attack raised, or broke the contract.
    """
    from forgetbench.attacks._result import check_outcome, given_model, unchanged
    from forgetbench.training import predict
    from forgetbench.training.compute import active_flop_count

    data, network = context.data, context.load_model(model)
    knowledge = make_knowledge(context, thing, original, draw)
    stream = context.task.stream("attack", draw, seed)
    watched = {"model": network, **({"original": knowledge.original} if "original" in thing.card.holds else {})}
    with capture_warnings() as warnings, restored_state(stream) as state, wrapped_errors():
        given = given_model(thing, network, attributes=data.attributes)
        with unchanged(thing.card.name, **watched):
            result = thing.attack(given, knowledge, stream)
        outcome = check_outcome(thing, result, network, knowledge)
    notes = plain_notes(knowledge.notes, warnings, state.changed)
    if isinstance(outcome, dict):
        answers = {name: values.numpy() for name, values in outcome.items()}
    else:
        bfloat16, counted = context.task.recipe.bfloat16, active_flop_count()
        with counted.paused() if counted else nullcontext():  # predicting is no part of the attack
            answers = {name: predict(outcome, rows, bfloat16=bfloat16) for name, rows in knowledge.queries.items()}
    return answers, notes


def _attack(context: TaskContext, job: AttackJob, model: Path, original: Path, weights: str, folder: Path) -> None:
    from forgetbench.training import DivergedError

    thing = job.attack.build()
    answers, notes = _run(context, thing, model, original, job.draw, job.seed)
    raw = context.data.attributes or bool(thing.card.outcomes)
    arrays = {name: encode(values, attributes=raw) for name, values in answers.items()}
    with wrapped_errors():
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DivergedError("the answers of the attacked model are NaN or infinite")
    write_arrays(folder / PREDICTIONS, arrays)
    write_meta(folder, {"model": weights, "notes": notes, **context.conditions()})
