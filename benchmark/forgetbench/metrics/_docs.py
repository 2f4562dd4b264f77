"""The documentation page of the metrics, generated from their specs when the documentation is built."""

from __future__ import annotations

from forgetbench.metrics.registry import Group, MetricSpec, metrics

_GROUPS: dict[Group, str] = {
    "utility": "Utility and forgetting",
    "privacy": "Privacy",
    "erasure": "Erasure",
    "cost": "Cost",
    "literature": "For comparison with published tables",
}

_DIRECTIONS = {"band": "into the oracle band", "up": "larger is better", "down": "smaller is better"}

_INTRODUCTION = """\
# Metrics

This page is generated from the metrics' specs; `forgetbench show metric NAME` prints the same.

How to read any of them:

- Unlearning is a property of an algorithm, so populations are compared: S unlearned models u with S oracles r, which
  were trained from scratch without the forget set.
- The **oracle band** is the metric's distribution over splits of 2 S oracles into halves. **z** is the distance from
  the band's mean in its standard deviations, or in floors if these are larger. A metric *ranks* on the tracks that its
  section names, and an efficacy metric only on boards on which No unlearning has |z| > 3. There, `lira.forget` must
  also exceed `lira.retain` by 3 of its standard deviations: an attack that finds retained rows as easily measures
  drift.
- phi = z_y - logsumexp over the other classes, the logit-scaled confidence of the label. Scores are oriented "larger =
  member" everywhere. With A binary attributes accuracy is the mean over them, phi the sum of the signed logits, and
  entropies, divergences and population attacks are computed per attribute and averaged.
- All metrics are pure functions of arrays in `forgetbench.metrics`, in float64, and need no torch.
- `mia.population` and `mia.retain` choose an attack on one half of the rows and evaluate it on the other. The halves
  are split by confidence, so that the order of rows does not matter. In early versions they were split by that order:
  older values of these two differ, and neither ranks.

Where well-known code deviates from its own definition, this page has the definition, and
`forgetbench.metrics.published_code` reproduces the code (the `legacy.` metrics below):

| code | does | the definition |
| --- | --- | --- |
| Unlearn-Sparse, SalUn, RUM: modified entropy | indexes whole columns, log p for log(1 - p) | Song and Mittal 2021 |
| Bad Teaching, SSD: ZRF | KL with its arguments exchanged, divided by the number of classes | 1 - Jensen-Shannon |
| LiRA, offline | two-sided log density | one-sided test |
| LiRA, fixed variance | the IN side's raw spread for both sides | residual spread of each side |
| privacy_meter: p(z) of RMIA | mean of the larger half | mean of all |
| privacy_meter: loss attack | sign changed | larger = member |
| KLOM | drops the largest value | top edge included |
| NeurIPS 2023 metric.py | cannot run; no control | by counting, over the control |
"""


def metrics_page() -> str:
    """The whole page, as markdown."""
    parts = [_INTRODUCTION]
    specs = [metrics.get(name) for name in metrics.names()]
    for group, title in _GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_section(spec) for spec in specs if spec.group == group]
    return "\n".join(parts)


def _section(spec: MetricSpec) -> str:
    ranks = [
        f"{role} on {track}" for role, tracks in (("efficacy", spec.efficacy), ("harm", spec.harm)) for track in tracks
    ]
    facts = [
        f"**{spec.title}** ({spec.symbol})",
        f"unit: {spec.unit or 'none'}",
        f"range: {_end(spec.range[0], '-∞')} to {_end(spec.range[1], '∞')}",
        _DIRECTIONS[spec.direction],
        f"needs: {', '.join(spec.requires)}",
        f"ranks: {', '.join(ranks) or 'never'}",
    ]
    if spec.floor:
        facts.append(f"floor: {spec.floor:g}")
    if spec.legacy:
        facts.append("reproduces published code that deviates from its own definition")
    if spec.from_records:
        facts.append("from a run's records: shown next to the score")
    elif not spec.on_boards:
        facts.append("a function for your own arrays: on no board")
    if spec.on_boards and not spec.calibrated:
        facts.append("not calibrated: its band flags nothing")
    lines = [
        f"### `{spec.name}`\n",
        " · ".join(facts) + "\n",
        spec.meaning + "\n",
        f"- **Formula.** {spec.formula}",
        f"- **Example.** {spec.example}",
        f"- **Misses.** {spec.misses}",
        f"- **Known misuse.** {spec.misuse}",
        f"- **Source.** {spec.source}",
        f"- **Function.** `forgetbench.metrics.{spec.function}`\n",
    ]
    return "\n".join(lines)


def _end(value: float | None, infinite: str) -> str:
    return infinite if value is None else f"{value:g}"
