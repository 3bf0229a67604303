"""The model that ``examples/prompts/run.sh`` explains, for the tests that need one that hears."""

from pathlib import Path

MODEL = Path(__file__).parents[1] / "examples" / "prompts" / "model"


def join_model(folder):
    """Join its parts, as ``cat`` does, to a file in a folder."""
    path = folder / "shipped.pt"
    path.write_bytes(b"".join(part.read_bytes() for part in sorted(MODEL.glob("model.pt.*"))))
    return path
