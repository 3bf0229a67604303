"""Finds the words in training recordings with the CTC head of a model trained on them.

    python -m examples.prompts.train.alignment SPEECH CHECKPOINT VOCABULARY

SPEECH is what ``build.py`` reads, CHECKPOINT a model of ``train.sh``, VOCABULARY the folder with
its ``spm.model`` and ``dict.txt``. Writes ``SPEECH/parts.tsv``: ids of training recordings and
their parts between quiet places, seconds and words, and fragments of parts, cut within a word.
``build.py --parts spliced`` makes sentences of them.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.data.audio.feature_transforms.utterance_cmvn import UtteranceCMVN
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from tqdm import tqdm

from examples.prompts.train.fragments import CUT, halves, quiet_place, stops
from examples.prompts.train.recordings import read_speech, read_speech_manifest
from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.features import SAMPLE_RATE, fbank, n_frames
from fbk_xattn.data.prompts_texts import clean_text
from fbk_xattn.data.vocabulary import check_vocabulary
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.models.conformer_encoder import ConformerEncoder

logger = logging.getLogger("alignment")

STEP = 0.04  # seconds between encoder steps
WINDOW = 0.01  # seconds, energies that cuts are searched in
WORD_START = "▁"
# Mean log-probability of the tokens, each where it is heard best, below which a recording is left
# out.
WORST = -2.0
# Of a recording's mean energy: at a cut at most, and where it begins and ends at least.
QUIET, SILENCE = 0.02, 0.01
# Seconds kept before and after that: a first "f" or a last "t" is quieter.
MARGIN = 0.05
PER_LETTER = (0.04, 0.16)  # seconds


@dataclass(frozen=True)
class Part:
    """Words of a recording between two cuts.

    Attributes:
        text: The words.
        start: Seconds.
        end: Seconds.
    """

    text: str
    start: float
    end: float


def ctc_path(scores: NDArray[np.float32], tokens: Sequence[int], blank: int) -> NDArray[np.int64]:
    """Return the most probable alignment of tokens by CTC (Graves et al. 2006, section 4).

    Args:
        scores: ``(T', V)`` log-probabilities.
        tokens: ``n`` labels, at least one.
        blank: Label of the blank.

    Returns:
        ``(n, 2)``, first and last step of each token.

    Raises:
        ValueError: The tokens do not fit into ``T'`` steps.
    """
    labels = np.full(2 * len(tokens) + 1, blank)
    labels[1::2] = tokens
    emitted = scores[:, labels]
    # A label may be skipped to if it is no blank and not the label before the blank before it.
    skips = np.zeros(len(labels), bool)
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf, np.float64)
    best[:2] = emitted[0, :2]
    moves = np.zeros(emitted.shape, np.int8)
    for step in range(1, len(emitted)):
        options = np.full((3, len(labels)), -np.inf)
        options[0] = best
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        moves[step] = options.argmax(0)
        best = options.max(0) + emitted[step]
    place = len(labels) - 1 if best[-1] >= best[-2] else len(labels) - 2
    if not np.isfinite(best[place]):
        raise ValueError(f"{len(tokens)} tokens, expected some that fit {len(scores)} steps")
    spans = np.full((len(tokens), 2), -1)
    for step in range(len(emitted) - 1, -1, -1):
        if place % 2:
            token = place // 2
            spans[token, 0] = step
            if spans[token, 1] < 0:
                spans[token, 1] = step
        place -= int(moves[step, place])
    return spans


def parts(
    samples: NDArray[np.float32], spans: NDArray[np.int64], words: Sequence[tuple[str, int]]
) -> list[Part]:
    """Cut a recording where it is quiet between two words.

    Args:
        samples: ``(N,)`` at 16 kHz.
        spans: ``(n, 2)`` of :func:`ctc_path`.
        words: Each word and the index of its first token.

    Returns:
        Its parts in order, without those whose words are too many or too few for their duration,
        a sign that CTC put a token where it is not spoken. Words with too little time are joined
        with those before and after first.
    """
    energy = energy_of(samples)
    n_windows = len(energy)
    if not energy.any():
        return []
    loud = np.flatnonzero(energy > SILENCE * energy.mean())
    first, last = int(loud[0]), int(loud[-1]) + 1
    cuts, texts = [first], [words[0][0]]
    for text, token in words[1:]:
        low, high = between(spans, token)
        quietest = quiet_place(energy, (max(first, low), min(last, high)), QUIET * energy.mean())
        if quietest is None or quietest <= cuts[-1]:
            texts[-1] += f" {text}"
        else:
            cuts.append(quietest)
            texts.append(text)
    margin = round(MARGIN / WINDOW)
    cuts = [max(0, first - margin), *cuts[1:], min(n_windows, last + margin)]
    # Words without time are spoken in the part before or after: no cut on either side of them.
    hasty = [
        _per_letter(*each) < PER_LETTER[0] for each in zip(texts, cuts, cuts[1:], strict=False)
    ]
    kept = [n for n in range(len(texts)) if n == 0 or not (hasty[n - 1] or hasty[n])]
    found = []
    for n, after in zip(kept, [*kept[1:], len(texts)], strict=True):
        text, start, end = " ".join(texts[n:after]), cuts[n], cuts[after]
        if PER_LETTER[0] <= _per_letter(text, start, end) <= PER_LETTER[1]:
            found.append(Part(text, start * WINDOW, end * WINDOW))
    return found


def fragments(
    samples: NDArray[np.float32],
    scores: NDArray[np.float32],
    part: Part,
    letters: tuple[Sequence[int], Sequence[int]],
    blank: int,
) -> list[Part]:
    """Cut a part where it is quiet before a stop within a word.

    Args:
        samples: ``(N,)`` of its recording at 16 kHz.
        scores: ``(T', V)`` log-probabilities of the recording.
        part: To cut.
        letters: Labels of its letters, and the index of the first one of each word.
        blank: Label of the blank.

    Returns:
        Two fragments a cut, the whole part between them, without those that are too short or too
        long for their letters.
    """
    words = part.text.split()
    labels, firsts = letters
    first, after = int(part.start / STEP), math.ceil(part.end / STEP)
    try:
        spans = first + ctc_path(scores[first:after], labels, blank)
    except ValueError:
        return []
    energy = energy_of(samples)
    found = []
    for number, at in stops(words):
        low, high = between(spans, firsts[number] + at)
        inside = max(low, round(part.start / WINDOW)), min(high, round(part.end / WINDOW))
        cut = quiet_place(energy, inside, QUIET * energy.mean())
        if cut is not None:
            ends = round(part.start / WINDOW), cut, round(part.end / WINDOW)
            pairs = zip(halves(words, number, at), itertools.pairwise(ends), strict=True)
            made = [(text, *times) for text, times in pairs]
            if all(PER_LETTER[0] <= _per_letter(*each) <= PER_LETTER[1] for each in made):
                found += [Part(text, start * WINDOW, end * WINDOW) for text, start, end in made]
    return found


def energy_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean square of each window of a recording, ``(n,)``."""
    size = round(WINDOW * SAMPLE_RATE)
    n_windows = len(samples) // size
    return np.square(samples[: n_windows * size].reshape(n_windows, size)).mean(1)


def between(spans: NDArray[np.int64], token: int) -> tuple[int, int]:
    """Return the windows from the last step of the token before to the first of a token."""
    low, high = spans[token - 1, 1] * STEP / WINDOW, (spans[token, 0] + 1) * STEP / WINDOW
    return round(low), round(high)


def _per_letter(text: str, start: int, end: int) -> float:
    """Return the seconds a letter has between two windows."""
    return (end - start) * WINDOW / len(text.replace(CUT, ""))


class Aligner:
    """The CTC head of a model and its vocabulary.

    Args:
        checkpoint: Of ``conformer`` or ``conformer_joint_ctc`` with CTC over transcripts.
        vocabulary: Folder with the ``spm.model`` and ``dict.txt`` it was trained with.

    Raises:
        InputError: The checkpoint or the vocabulary is missing, unreadable or of another model.
    """

    def __init__(self, checkpoint: Path, vocabulary: Path) -> None:
        """See the class."""
        found = load_checkpoint(checkpoint)
        weights = {
            name.removeprefix("encoder."): weight.float()
            for name, weight in found["model"].items()
            if name.startswith("encoder.")
        }
        if "ctc_fc.weight" not in weights:
            raise InputError(
                f"{checkpoint}: has no encoder.ctc_fc, expected a model trained with CTC"
            )
        check_vocabulary(vocabulary)
        try:
            self.pieces = SentencePieceProcessor(str(vocabulary / "spm.model"))
            self.dictionary = Dictionary.load(str(vocabulary / "dict.txt"))
        except Exception as error:  # fairseq and sentencepiece have no class of their own
            raise InputError(
                f"{vocabulary}: unreadable ({_reason(error)}), expected a vocabulary"
            ) from None
        self.blank = len(weights["ctc_fc.weight"]) - 1
        if self.blank != len(self.dictionary):
            raise InputError(
                f"{vocabulary / 'dict.txt'}: {len(self.dictionary)} symbols, "
                f"expected the {self.blank} of {checkpoint}"
            )
        try:
            self.encoder = ConformerEncoder(found["cfg"]["model"], self.blank + 1).eval()
            self.encoder.load_state_dict(weights)
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise InputError(
                f"{checkpoint}: expected a checkpoint of conformer or conformer_joint_ctc "
                f"({_reason(error)})"
            ) from None
        self.transform = UtteranceCMVN()

    def parts(self, samples: NDArray[np.float32], text: str) -> list[Part]:
        """Return the parts of a recording, then their fragments.

        None where the model does not hear the words.

        Args:
            samples: ``(N,)`` at 16 kHz, in the range of 16-bit integers.
            text: Its words, with one space between.

        Raises:
            InputError: The vocabulary lacks a letter of ``text``.
        """
        pieces = self.pieces.encode(text, out_type=str)
        tokens = [self.dictionary.index(piece) for piece in pieces]
        if self.dictionary.unk() in tokens:
            piece = pieces[tokens.index(self.dictionary.unk())]
            raise InputError(
                f"{piece!r} of {text!r} is not in the vocabulary, expected its model's"
            )
        if not 0 < n_frames(len(samples)) <= self.encoder.max_positions():
            return []
        features = torch.from_numpy(self.transform(fbank(samples)))
        with torch.no_grad():
            out = self.encoder(features[None], None)
            scores = self.encoder.ctc_logits(out)[:, 0].log_softmax(-1).numpy()
        try:
            spans = ctc_path(scores, tokens, self.blank)
        except ValueError:
            return []
        peaks = [
            scores[first : last + 1, token].max()
            for (first, last), token in zip(spans, tokens, strict=True)
        ]
        if np.mean(peaks) < WORST:
            return []
        starts = [n for n, piece in enumerate(pieces) if piece.startswith(WORD_START)]
        whole = parts(samples, spans, list(zip(text.split(), starts, strict=True)))
        found = list(whole)
        for part in whole:
            labels, firsts = self._letters(part.text.split())
            if self.dictionary.unk() not in labels:
                found += fragments(samples, scores, part, (labels, firsts), self.blank)
        return found

    def _letters(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the labels of the letters, and the index of the first one of each word."""
        symbols: list[str] = []
        firsts = []
        for word in words:
            firsts.append(len(symbols) + 1)
            symbols += [WORD_START, *word]
        return [self.dictionary.index(symbol) for symbol in symbols], firsts


def _reason(error: Exception) -> str:
    """Return the first line of a message that may have many."""
    return [*str(error).strip().splitlines(), type(error).__name__][0]


def align(speech: Path, checkpoint: Path, vocabulary: Path) -> None:
    """Write ``parts.tsv``.

    Raises:
        InputError: Manifest, audio, checkpoint or vocabulary are not as expected.
    """
    rows = [row for row in read_speech_manifest(speech, True) if row["split"] == "train"]
    aligner = Aligner(checkpoint, vocabulary)
    lines = ["id\tstart\tend\ttext"]
    n_cut = 0
    for row in tqdm(rows, mininterval=5):
        text = clean_text(row["src_text"], "en" if row["src_lang"] == "en" else "it")
        samples = read_speech(speech / row["audio"])
        try:
            found = aligner.parts(samples, text)
        except InputError as error:
            raise InputError(f"{speech / 'manifest.tsv'}, id {row['id']}: {error}") from None
        n_cut += bool(found)
        lines += [f"{row['id']}\t{part.start:.2f}\t{part.end:.2f}\t{part.text}" for part in found]
    write_text(speech / "parts.tsv", "\n".join(lines) + "\n")
    logger.info("%d parts of %d of %d recordings", len(lines) - 1, n_cut, len(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Align the training recordings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="corpora, see build.py")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("vocabulary", type=Path, metavar="VOCABULARY")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        align(args.speech, args.checkpoint, args.vocabulary)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
