"""``fbk-xattn models``: the architectures and their sizes."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``models``."""
    parser = subparsers.add_parser(
        "models",
        help="architectures and their number of parameters",
        description="Print the number of parameters of each part of the paper's architectures, "
        "with untied decoder embeddings and the paper's vocabulary sizes.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the table."""
    import fbk_xattn.plugin  # noqa: F401 - registers the architectures
    from fbk_xattn.models.presets import PRESETS, count_parameters

    print("| architecture | vocabulary | encoder | decoder | auxiliary head | all |")
    print("| --- | --- | --- | --- | --- | --- |")
    for arch, vocabulary_size in PRESETS.items():
        parts = count_parameters(arch, vocabulary_size)
        counts = [parts["encoder"], parts["decoder"], parts["auxiliary_decoder"]]
        cells = " | ".join(f"{count / 1e6:.2f}M" for count in [*counts, sum(counts)])
        print(f"| {arch} | {vocabulary_size} | {cells} |")
    return 0
