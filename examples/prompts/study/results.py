"""Writes RESULTS.md, and the figure in it, from the stores of ``explain.sh``.

    python -m examples.prompts.study.results WORK [--output FILE]

Every number and verdict in the file is computed here; ``WORK/measured/`` alone is enough.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.prompts.study import convergence, correlations, findings, scores
from examples.prompts.study.measure import Curves, Explained, check_complete, curves, explained
from examples.prompts.study.settings import (
    CURVES,
    EXPLAINED,
    MAIN,
    PROBABILITIES,
    SCRIPT,
    TARGETS,
)
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.report.grid import Grid, to_markdown

OUTPUT = Path(__file__).parents[1] / "RESULTS.md"
FIGURE = "convergence.png"
# Sections by heading; a part is tables or text.
Sections = dict[str, list[Grid | str]]


def sections(work: Path, figure: Path, bootstrap: Bootstrap) -> Sections:
    """Compute everything, and draw the figure.

    Raises:
        InputError: A store is missing or incomplete, or stores do not compare.
    """
    check_complete(work)
    stores = {name: explained(work, name) for name in EXPLAINED}
    decoded = {name: curves(work, name) for name in CURVES}
    check_same_model({**stores, **decoded})
    main = stores[MAIN]
    dev = {p: stores[name] for name, p in PROBABILITIES.items()}
    deleted_dev = {
        (p, target): decoded[f"delete-{name}-{target}"]
        for name, p in PROBABILITIES.items()
        for target in TARGETS
    }
    seeds, precisions = convergence.seed_points(work), convergence.precision_points(work)
    # The probabilities of the paper, as in the test split.
    chosen_on = {"input": dev[0.5], "encoder": dev[0.7]}
    found = findings.findings(main, chosen_on, decoded, bootstrap)
    convergence.write_figure(seeds, figure)
    return {
        "Which of the paper's findings hold on this model": [
            *findings.findings_section(found, bootstrap)
        ],
        "Quality of the hypotheses (Table 5)": [*scores.quality_section(main, bootstrap)],
        "Correlation by layer and head (Table 1)": [*correlations.by_heads(main, bootstrap)],
        "Correlation with input saliency by layer (Table 2)": [
            *correlations.by_layers(main, "input", bootstrap)
        ],
        "Correlation with encoder-output saliency by layer (Table 3)": [
            *correlations.by_layers(main, "encoder", bootstrap)
        ],
        "Correlation by voice": [*correlations.by_voice(main, bootstrap)],
        "Aggregation of input saliency (Table 4)": [*correlations.by_aggregation(main, bootstrap)],
        "Occlusion probability, dev split (Table 6)": [
            f"With {sweep_masks(dev):,} masks.\n",
            *scores.deletion_by_probability(deleted_dev, bootstrap),
            *correlations.by_probability(dev, bootstrap),
        ],
        "Deletion": [*scores.deletion_section(decoded, bootstrap)],
        "Size of the maps": [*scores.size_section(main, bootstrap)],
        "Convergence": [
            convergence.statement(seeds),
            f"![Agreement of two seeds by number of masks]({figure.name})\n",
            convergence.seeds_grid(seeds),
        ],
        "Precision": [convergence.precision_grid(precisions)],
    }


def check_same_model(measured: Mapping[str, Explained | Curves]) -> None:
    """Check that all that is measured is of one model.

    Raises:
        InputError: Something is of another; the message names it.
    """
    first, *others = measured
    name = "checkpoint SHA-256"
    for other in others:
        ours, theirs = (measured[n].meta["parameters"].get(name) for n in (other, first))
        if ours != theirs:
            raise InputError(
                f"{other}: {name} is {ours}, but {theirs} in {first}; expected one model in all"
            )


def sweep_masks(dev: Mapping[float, Explained]) -> int:
    """Return the number of masks of the stores that differ in occlusion probability.

    Args:
        dev: By occlusion probability.

    Raises:
        InputError: They differ in the number of masks too.
    """
    numbers = {name: dev[p].meta["parameters"]["--num-masks"] for name, p in PROBABILITIES.items()}
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{name} {number:,}" for name, number in numbers.items())
        raise InputError(f"numbers of masks: {said}; expected the same one in all of these")
    return int(numbers["p1"])


def head(main: Explained) -> str:
    """Say what the numbers are of, and how to make them again."""
    parameters = main.meta["parameters"]
    versions = main.meta.get("provenance", {}).get("versions", {})
    counts = ", ".join(
        f"{task}: {len(scores.rows_of(main.tasks, task))}" for task in sorted(set(main.tasks))
    )
    probabilities = " and ".join(
        f"{parameters[f'--{target}-occlusion-probability']} for the {name}"
        for target, name in (("input", "input"), ("encoder", "encoder output"))
    )
    made_with = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"""# The paper's study on the prompts

Written by `examples/prompts/study/results.py`, every number and verdict of it.
```bash
{SCRIPT} WORK all   # the stores, on a GPU; --help says more
python -m examples.prompts.study.results WORK   # this file, on any CPU
```

`explain.sh ... measure` leaves in `WORK/measured` all that the second command needs.

- Model: SHA-256 `{parameters["checkpoint SHA-256"]}`.
- Utterances of the test split: {counts}.
- Explanations: {parameters["--num-masks"]:,} masks, occlusion probability {probabilities}, seed
  {parameters["--seed"]}, {parameters["--explanation-precision"]}.
- Hypotheses: beam search with beam {parameters["--beam"]}.
- Intervals are over utterances; a sentence that two voices read counts as two.
- The store of the test split: {main.n_bytes / len(main.ids) / 1000:.0f} kB an utterance.
- Made with {made_with or "versions that the store does not name"}.
"""


def render(main: Explained, parts: Sections) -> str:
    """Return the text of RESULTS.md."""
    texts = [head(main)]
    for title, content in parts.items():
        texts.append(f"## {title}\n")
        texts += [part if isinstance(part, str) else to_markdown([part]) for part in content]
    return "\n".join(texts)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and the figure beside it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", metavar="WORK", type=Path, help="folder of explain.sh")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=OUTPUT, help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the bootstrap (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        figure = args.output.with_name(FIGURE)
        parts = sections(args.work, figure, Bootstrap(seed=args.seed))
        write_text(args.output, render(explained(args.work, MAIN), parts))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.output)
    print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
