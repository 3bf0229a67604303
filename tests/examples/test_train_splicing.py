"""Sentences spliced of parts of recordings: the parts, their order, their sound, the corpus."""

import random
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import chirps
from test_train_build import HELD_OUT, TEXTS, Recorder, files_of, recording, write_rows

from examples.prompts.train import build, splicing
from examples.prompts.train.build import PARTS, main, run_job, spliced_speech
from examples.prompts.train.fragments import CUT
from examples.prompts.train.recordings import read_speech, read_speech_manifest
from examples.prompts.train.splicing import (
    COLUMNS,
    FADE,
    FRAGMENT_SHARE,
    MAX_PAUSE,
    PAUSE_SHARE,
    SECONDS,
    RecordedPart,
    Splice,
    read_parts,
    sentences_of,
    spliced,
)
from examples.prompts.train.texts import HeldOut, read_held_out
from fbk_xattn.data.features import SAMPLE_RATE
from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.errors import InputError

N_FADE = round(FADE * SAMPLE_RATE)
ROW = {"id": "a/1", "split": "train", "speaker": "a", "src_lang": "en", "audio": "1.wav"}
HEADER = "\t".join(COLUMNS)
NOTHING = HeldOut({})


def part(text, seconds=0.5, row=ROW):
    return RecordedPart(row, 0.1, 0.1 + seconds, text)


# --- parts.tsv


def test_parts_are_those_of_the_file_with_the_rows_of_their_recordings(tmp_path):
    other = ROW | {"id": "b", "speaker": "b"}
    (tmp_path / "parts.tsv").write_text(
        f'{HEADER}\na/1\t0.10\t0.60\tpress "one\nb\t0\t1.5\tperché\n', encoding="utf-8"
    )
    first, second = read_parts(tmp_path, [ROW, other])
    assert (first.row, first.start, first.end, first.text) == (ROW, 0.1, 0.6, 'press "one')
    assert (second.row, second.start, second.end, second.text) == (other, 0.0, 1.5, "perché")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "parts.tsv: no such file, expected what alignment.py writes"),
        (b"", "parts.tsv: expected the columns id, start, end, text"),
        (b"id\tstart\ttext\tend\n", "parts.tsv: expected the columns id, start, end, text"),
        (b"\xff\xfe", "parts.tsv: unreadable ("),
        (HEADER.encode() + b"\n", "parts.tsv: has no parts, expected at least one row"),
    ],
)
def test_another_file_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "parts.tsv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_parts(tmp_path, [ROW])
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/1\t0\t1", "expected a training recording, seconds and words"),
        ("a/1\t0\t1\tone\ttwo", "expected a training recording, seconds and words"),
        ("", "expected a training recording, seconds and words"),
        ("gone\t0\t1\tone", "expected a training recording, seconds and words"),
        ("held/out\t0\t1\tone", "expected a training recording, seconds and words"),
        ("a/1\tzero\t1\tone", "expected a training recording, seconds and words"),
        ("a/1\t-0.1\t1\tone", "expected a part of some duration and its words"),
        ("a/1\t1\t1\tone", "expected a part of some duration and its words"),
        ("a/1\tnan\t1\tone", "expected a part of some duration and its words"),
        ("a/1\t0\tinf\tone", "expected a part of some duration and its words"),
        ("a/1\t0\t1\t ", "expected a part of some duration and its words"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    (tmp_path / "parts.tsv").write_text(f"{HEADER}\na/1\t0\t1\tone\n{line}\n")
    rows = [ROW, ROW | {"id": "held/out", "split": "dev"}]
    with pytest.raises(InputError) as caught:
        read_parts(tmp_path, rows)
    assert str(caught.value).startswith(f"{tmp_path}/parts.tsv, row 3: [")
    assert str(caught.value).endswith(message)


# --- Their order


def test_rare_words_are_drawn_as_often_as_others():
    parts = [part("one", 1.0) for _ in range(97)] + [part("two", 1.0), part("three three", 1.0)]
    drawn = Counter(
        chosen.text for found in sentences_of(parts, 1500, random.Random(1)) for chosen in found
    )
    total = sum(drawn.values())
    assert total > 5000
    for text in ("one", "two", "three three"):
        assert abs(drawn[text] / total - 1 / 3) < 0.03


def test_a_part_is_as_likely_as_others_of_a_word_however_often_it_says_it():
    parts = [part("one one one", 1.0), part("one", 1.0)]
    drawn = Counter(
        chosen.text for found in sentences_of(parts, 1000, random.Random(1)) for chosen in found
    )
    assert abs(drawn["one"] / sum(drawn.values()) - 1 / 2) < 0.03


@given(
    st.lists(st.floats(0.05, 3), min_size=1, max_size=6),
    st.integers(0, 8),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_sentences_are_as_long_as_wanted_and_a_function_of_the_seed(seconds, n, seed):
    parts = [part(f"word{number % 3} more", length) for number, length in enumerate(seconds)]
    found = list(sentences_of(parts, n, random.Random(seed)))
    assert len(found) == n
    for chosen in found:
        assert {id(each) for each in chosen} <= {id(each) for each in parts}
        durations = [each.end - each.start for each in chosen]
        assert sum(durations) >= SECONDS[0]
        assert sum(durations[:-1]) < SECONDS[1]
    again = list(sentences_of(parts, n, random.Random(seed)))
    assert [[id(each) for each in chosen] for chosen in again] == [
        [id(each) for each in chosen] for chosen in found
    ]


def test_fragments_are_drawn_in_twos_that_make_a_word():
    whole = [part(text, 1.0) for text in ("one", "two")]
    cut = ["press digi+", "digi+", "cancelle+", "+tare", "+tto now", "+tto", "+ppo"]
    parts = whole + [part(text, 0.5) for text in cut]
    drawn = Counter()
    words = Counter()
    for chosen in sentences_of(parts, 2000, random.Random(1)):
        assert not chosen[0].text.startswith(CUT)
        assert not chosen[-1].text.endswith(CUT)
        for one, other in zip(chosen, [*chosen[1:], None], strict=True):
            followed = other is not None and other.text.startswith(CUT)
            assert one.text.endswith(CUT) == followed
            if followed:
                words[one.text.split()[-1][:-1] + other.text.split()[0][1:]] += 1
            drawn[one.text in ("one", "two")] += not one.text.startswith(CUT)
    assert abs(drawn[False] / drawn.total() - FRAGMENT_SHARE) < 0.03
    # Two beginnings and three ends, however many recordings have each.
    assert len(words) == 6
    assert all(abs(n / words.total() - 1 / 6) < 0.03 for n in words.values())


@pytest.mark.parametrize("cut", ["digi+", "+tare"])
def test_fragments_without_what_completes_them_are_left_out(cut):
    found = sentences_of([part("one", 1.0), part(cut)], 50, random.Random(1))
    assert {chosen.text for sentence in found for chosen in sentence} == {"one"}


def test_there_may_be_nothing_but_fragments():
    found = sentences_of([part("digi+"), part("+tare")], 20, random.Random(1))
    assert {chosen.text for sentence in found for chosen in sentence} == {"digi+", "+tare"}


# --- Their sound


def spliced_words(parts):
    return spliced(parts, [False] * len(parts))


def lengths(n=30, seed=5):
    return np.random.default_rng(seed).integers(2000, 9000, n)


def test_constant_parts_follow_each_other_without_a_gap_or_a_bump(monkeypatch):
    monkeypatch.setattr(splicing, "PAUSE_SHARE", 0.0)
    parts = [np.full(length, 1000, np.float32) for length in lengths()]
    result = spliced_words(parts)
    assert result.dtype == np.float32
    assert len(result) == sum(map(len, parts)) - N_FADE * (len(parts) - 1)
    # Two ramps that add up to one: the joints are not to be heard.
    assert np.allclose(result[N_FADE:-N_FADE], 1000, atol=1e-2)
    assert (result[0], result[-1]) == (0, 0)


def test_no_clicks_even_between_parts_of_opposite_sign():
    parts = [
        np.full(length, 10_000 * (-1) ** number, np.float32)
        for number, length in enumerate([*lengths(), 2 * N_FADE, N_FADE, N_FADE - 1, 40, 3000])
    ]
    result = spliced_words(parts)
    steepest = np.abs(np.diff(np.concatenate([[0], result, [0]]))).max()
    # A short part has as short a fade: 20 samples of one of 40.
    assert steepest < 2 * 10_000 / 19 + 1
    steepest = np.abs(np.diff(np.concatenate([[0], spliced_words(parts[:30]), [0]]))).max()
    assert steepest < 2 * 10_000 / (N_FADE - 1) + 1


def test_pauses():
    n_pauses, longest = 0.0, 0
    for seed in range(40):
        parts = [np.full(length, 1000, np.float32) for length in lengths(50, seed)]
        result = spliced_words(parts)
        added = len(result) - (sum(map(len, parts)) - N_FADE * (len(parts) - 1))
        n_pauses += added / (MAX_PAUSE / 2 * SAMPLE_RATE)
        places = np.flatnonzero(np.concatenate([[1], result, [1]]))
        longest = max(longest, np.diff(places).max() - 1)
    assert abs(n_pauses / 1960 - PAUSE_SHARE) < 0.03
    assert 0.9 * MAX_PAUSE < longest / SAMPLE_RATE <= MAX_PAUSE + 2 / SAMPLE_RATE


def test_within_a_word_is_no_pause():
    for seed in range(20):
        parts = [np.full(length, 1000, np.float32) for length in lengths(9, seed)]
        result = spliced(parts, [number % 3 > 0 for number in range(9)])
        pauses = np.diff(np.flatnonzero(np.concatenate([[1], result, [1]]))) > 2
        ends = np.flatnonzero(pauses)
        assert len(ends) <= 2
    whole = spliced(parts, [True] * 9)
    assert len(whole) == sum(map(len, parts)) - N_FADE * 8


@given(st.lists(st.integers(0, 400), max_size=8))
@settings(deadline=None)
def test_parts_of_any_length_are_spliced_the_same_again_and_left_as_they_were(sizes):
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=size).astype(np.float32) for size in sizes]
    before = [each.copy() for each in parts]
    result = spliced_words(parts)
    assert (result == spliced_words(parts)).all()
    assert all((one == other).all() for one, other in zip(parts, before, strict=True))
    assert np.isfinite(result).all()
    shortest = sum(sizes) - sum(min(N_FADE, size // 2) for size in sizes)
    assert shortest <= len(result) <= sum(sizes) + len(sizes) * MAX_PAUSE * SAMPLE_RATE


# --- Reading them


@pytest.fixture
def two_files(tmp_path, rng):
    files = [tmp_path / name for name in ("a.wav", "b.wav")]
    for file in files:
        soundfile.write(file, chirps(rng, 1.0), SAMPLE_RATE)
    return files


def test_each_recording_is_read_once_for_all_sentences(two_files, monkeypatch):
    one, two = two_files
    sentences = (
        ((one, 0.1, 0.4, False), (two, 0.25, 0.5, True)),
        ((two, 0.25, 0.5, False), (two, 0.0, 1.0, False), (one, 0.1, 0.4, False)),
        ((one, 0.3, 0.55, False),),
    )
    calls = []

    def counted(file):
        calls.append(file)
        return read_speech(file)

    monkeypatch.setattr(splicing, "read_speech", counted)
    found = list(Splice(sentences)())
    assert sorted(calls) == two_files
    for samples, sentence in zip(found, sentences, strict=True):
        expected = spliced(
            [read_speech(file)[round(16e3 * start) : round(16e3 * end)]
             for file, start, end, _ in sentence],
            [goes_on for *_, goes_on in sentence],
        )  # fmt: skip
        assert (samples == expected).all()


def test_a_part_beyond_the_end_of_its_recording_is_one_line(two_files):
    with pytest.raises(InputError, match=r"b.wav: 1 s, expected 1.01 or more as parts.tsv says"):
        list(Splice((((two_files[0], 0.0, 1.0, False), (two_files[1], 0.9, 1.01, False)),))())


# --- The corpus


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Recordings of four speakers, one of them in two languages and one unknown, cut in parts."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(3)
    rows, lines = [], [HEADER]
    voices = [("en_allison", "en"), ("it_carlo", "it"), ("bass", "en"), ("bass", "it")]
    for speaker, lang in [*voices, ("somebody", "en")]:
        for split, texts in [("train", texts) for texts in TEXTS] + list(HELD_OUT.items()):
            row = recording(f"{lang}{len(rows)}", speaker, split, texts, lang, suffix="wav")
            soundfile.write(folder / row["audio"], chirps(rng, 1.0), SAMPLE_RATE)
            rows.append(row)
            words = build.clean_text(row["src_text"], lang).split()
            if split == "train":
                lines += [f"{row['id']}\t0.05\t0.60\t{words[0]}"]
                lines += [f"{row['id']}\t0.60\t0.95\t{' '.join(words[1:])}"] * (len(words) > 1)
                lines += [f"{row['id']}\t0.05\t0.30\t{words[0][:2]}+"]
                lines += [f"{row['id']}\t0.30\t0.60\t+{words[0][2:]}"]
    write_rows(folder, rows)
    (folder / "parts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


FLAGS = "--parts spliced --copies 0.002 --vocabulary-size 40 --workers 1".split()


@pytest.fixture(scope="module")
def corpus(speech, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    main([str(speech), str(folder), *FLAGS])
    return folder


def test_manifests_have_the_texts_of_the_parts_of_one_speaker(speech, corpus):
    recorder = Recorder()
    rows = read_speech_manifest(speech, True)
    spliced_speech(recorder, speech, rows, 0.002, NOTHING)
    sources = {speech / row["audio"]: row for row in rows}
    texts = {
        (each.row["audio"], each.start, each.end): each.text for each in read_parts(speech, rows)
    }
    expected = {"en": [], "it": []}
    for job in recorder.jobs:
        for name, pieces in zip(job.names, job.make.sentences, strict=True):
            audio, lang, (text, translation), speaker = recorder.rows["train_spliced", name]
            of = {(s["speaker"], s["src_lang"], s["split"])
                  for s in (sources[file] for file, *_ in pieces)}  # fmt: skip
            assert of == {(speaker, lang, "train")}
            assert (audio, translation) == (name, "")
            said = [texts[sources[file]["audio"], start, end] for file, start, end, _ in pieces]
            assert [each.startswith(CUT) for each in said] == [piece[3] for piece in pieces]
            assert text == " ".join(said).replace("+ +", "")
            expected[lang].append((name, f"audio/{name}", speaker, text))
    # Twice 16 of a prompt's voice, 8 of bass in each of the languages, none of an unknown one.
    assert {lang: len(own) for lang, own in expected.items()} == {"en": 24, "it": 24}
    assert {path.stem for path in corpus.glob("*.tsv")} == {
        f"train_spliced_asr_{lang}" for lang in expected
    }
    for lang, own in expected.items():
        found = read_manifest(corpus / f"train_spliced_asr_{lang}.tsv")
        assert [(row.id, row.audio, row.speaker, row.src_text) for row in found] == own
        assert {(row.src_lang, row.tgt_lang) for row in found} == {(lang, lang)}
        assert all(row.tgt_text == row.src_text for row in found)
        for row in found:
            info = soundfile.info(corpus / row.audio)
            assert row.n_frames == 1 + (info.frames - 400) // 160


def test_the_seed_alone_decides(speech, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SPLICED_CHUNK", 5)
    main([str(speech), str(tmp_path / "two"), *FLAGS, "--workers", "2"])
    first = files_of(corpus)
    assert files_of(tmp_path / "two") == first
    main([str(speech), str(tmp_path / "other"), *FLAGS, "--seed", "2"])
    other = files_of(tmp_path / "other")
    audio = {name for name in first if name.suffix == ".wav"} & set(other)
    assert len(audio) == 48
    assert not [name for name in audio if other[name] == first[name]]


def test_sentences_close_to_held_out_ones_are_left_out(speech, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = read_speech_manifest(speech, True)
    whole = Recorder()
    spliced_speech(whole, speech, rows, 0.01, NOTHING)
    texts = {name: row[2][0] for (_, name), row in whole.rows.items() if row[1] == "en"}
    name, text = next((n, t) for n, t in texts.items() if len(t.split()) >= 5)
    held_out = recording("closed", "somebody", "test", (text, ""))
    rest = Recorder()
    spliced_speech(rest, speech, rows, 0.01, read_held_out([*rows, held_out]))
    left_out = whole.rows.keys() - rest.rows.keys()
    assert ("train_spliced", name) in left_out
    assert len(left_out) < len(whole.rows) / 4
    assert all(rest.rows[key] == whole.rows[key] for key in rest.rows)
    assert f"spliced: {len(left_out)} sentences left out, close to held-out ones" in caplog.text
    made = {name for job in rest.jobs for name in job.names}
    assert made == {name for _, name in rest.rows}
    # What stays sounds as it would without.
    (job, *_), (before, *_) = rest.jobs, whole.jobs
    job, before = ((each, tmp_path / str(n), 1) for n, each in enumerate((job, before)))
    frames = dict(run_job(before))
    assert all(frames[name] == n for name, n in run_job(job))


def test_a_job_has_so_many_sentences_at_most(speech, monkeypatch):
    monkeypatch.setattr(build, "SPLICED_CHUNK", 6)
    recorder = Recorder()
    spliced_speech(recorder, speech, read_speech_manifest(speech, True), 0.002, NOTHING)
    sizes = [len(job.names) for job in recorder.jobs]
    assert sizes == [6, 2, 6, 2, 6, 6, 4, 6, 6, 4]
    assert all(len(job.make.sentences) == len(job.names) for job in recorder.jobs)


def test_a_recording_that_ends_early_ends_the_build_with_one_line(speech, tmp_path):
    (tmp_path / "audio").symlink_to(speech / "audio")
    (tmp_path / "manifest.tsv").symlink_to(speech / "manifest.tsv")
    content = (speech / "parts.tsv").read_text(encoding="utf-8").replace("0.95", "1.95")
    (tmp_path / "parts.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^error: .*: 1 s, expected 1.95 or more as parts.tsv"):
        main([str(tmp_path), str(tmp_path / "corpus"), *FLAGS, "--workers", "2"])


def test_without_parts_the_build_of_the_rest_does_not_need_them(speech, tmp_path, capsys):
    for name in ("audio", "manifest.tsv"):
        (tmp_path / name).symlink_to(speech / name)
    with pytest.raises(SystemExit, match=r"parts.tsv: no such file, expected what alignment.py"):
        main([str(tmp_path), str(tmp_path / "corpus"), *FLAGS])
    assert PARTS == ("real", "telephone", "general", "spliced")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "default: all but spliced" in capsys.readouterr().out
