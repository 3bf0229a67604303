"""The training corpus: what of recordings and sentence pairs ends up where, and wrong input."""

import csv
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech import chirps
from test_recipes import write_command
from test_train_synthesis import CRASH, FESTIVAL, FLITE

from examples.prompts.train import build
from examples.prompts.train.build import (
    COPIES,
    Corpus,
    Job,
    Join,
    Read,
    main,
    real_speech,
    run_job,
)
from examples.prompts.train.recordings import COLUMNS, read_speech, read_speech_manifest
from fbk_xattn.data.features import n_frames
from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.errors import InputError

TEXTS = [
    ("Press one, please.", "Premere uno."),
    ("thank you", "grazie"),
    ("the line is busy at this time", "la linea è al momento occupata"),
    ("wait", ""),
    ("enter the number", "digitare il numero"),
]
HELD_OUT = {
    "dev": ("You have 2 new messages!", "Ha 2 nuovi messaggi."),
    "test": ("The conference is locked now", "La conferenza è ora bloccata"),
}
PAIRS = [
    ("Good evening, everybody.", "Buonasera a tutti."),
    ("you have TWO new messages", "ci sono messaggi"),  # of dev
    ("it is closed", "la conferenza e' ora bloccata!"),  # of test
    ("see you tomorrow", "a domani"),
    ("where is the station", "dov'è la stazione"),
]
WAYS = ("en_it", "it_en")
FLAGS = "--copies 0.002 --telephone 8 --max-words 8 --vocabulary-size 60 --workers 1".split()


def write_rows(folder, rows):
    lines = ["\t".join(COLUMNS), *("\t".join(row[column] for column in COLUMNS) for row in rows)]
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def recording(name, speaker, split, texts, lang="en", corpus="prompts", suffix="flac"):
    other = {"en": "it", "it": "en"}[lang]
    source, target = texts if lang == "en" else texts[::-1]
    return {
        "id": f"{speaker}/{name}",
        "audio": f"audio/{speaker}-{name}.{suffix}",
        "corpus": corpus,
        "speaker": speaker,
        "split": split,
        "src_lang": lang,
        "src_text": source or "attendere",
        "tgt_lang": other if target and source else "",
        "tgt_text": target if source else "",
    }


def small_speech(folder):
    """Write recordings of three speakers, and sentence pairs; return the rows."""
    rows = []
    for speaker, lang in (("en_allison", "en"), ("it_carlo", "it"), ("somebody", "en")):
        corpus = "other" if speaker == "somebody" else "prompts"
        for number, texts in enumerate(TEXTS):
            rows.append(recording(str(number), speaker, "train", texts, lang, corpus))
        for split, texts in HELD_OUT.items():
            rows.append(recording(split, speaker, split, texts, lang, corpus, "wav"))
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(7)
    for row in rows:
        samples = chirps(rng, rng.uniform(0.6, 1.2))
        soundfile.write(folder / row["audio"], samples, 16_000)
    write_rows(folder, rows)
    content = "".join(f"{english}\t{italian}\tmade up\n" for english, italian in PAIRS)
    (folder / "some_en_it.tsv").write_text(content, encoding="utf-8")
    return rows


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return folder, small_speech(folder)


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Engines that say the same whatever they are asked for; all voices are theirs."""
    folder = tmp_path_factory.mktemp("voices")
    samples = chirps(np.random.default_rng(2), 0.8)
    soundfile.write(folder / "spoken.wav", samples, 16_000)
    for name, script in (("flite", FLITE), ("festival", FESTIVAL)):
        filled = script.format(log="/dev/null", wav=folder / "spoken.wav")
        write_command(folder / "commands", name, filled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}/commands:/usr/bin:/bin")
        patch.setitem(build.VOICES, "en", {("flite", "slt"): 1.0, ("flite", "rms"): 1.0})
        patch.setitem(build.VOICES, "it", {("festival", "pc_diphone"): 1.0})
        yield folder


@pytest.fixture(scope="module")
def corpus(speech, voices, tmp_path_factory):  # noqa: ARG001
    folder = tmp_path_factory.mktemp("corpus")
    main([str(speech[0]), str(folder), *FLAGS])
    return folder


def manifests(corpus, prefix=""):
    return {path.stem: read_manifest(path) for path in sorted(corpus.glob(f"{prefix}*.tsv"))}


def test_manifests_are_readable_and_count_the_frames_of_their_audio(corpus):
    found = manifests(corpus)
    for name, rows in found.items():
        assert rows, name
        for row in rows:
            info = soundfile.info(corpus / row.audio)
            assert (info.samplerate, info.subtype, info.channels) == (16_000, "PCM_16", 1)
            assert row.n_frames == n_frames(info.frames)
            asr = row.src_lang == row.tgt_lang
            assert (row.src_text == row.tgt_text) is asr
            suffix = f"asr_{row.src_lang}" if asr else f"st_{row.src_lang}_{row.tgt_lang}"
            assert name.endswith(suffix)
    assert set(found) == {
        *("train_real_asr_en", "train_real_asr_it", "train_real_st_en_it", "train_real_st_it_en"),
        *(f"train_{part}_st_{way}" for part in ("telephone", "general") for way in WAYS),
        *(f"{split}_asr_{lang}" for split in HELD_OUT for lang in ("en", "it")),
        *(f"{split}_st_{way}" for split in HELD_OUT for way in WAYS),
        *(f"{split}_other_{task}" for split in HELD_OUT for task in ("asr_en", "st_en_it")),
    }


def test_nothing_held_out_is_trained_on(corpus, speech):
    held_out = [row for row in speech[1] if row["split"] != "train"]
    names = {row["id"] for row in held_out}
    audio = {row.audio for split in HELD_OUT for rows in manifests(corpus, split).values()
             for row in rows}  # fmt: skip
    train = [row for rows in manifests(corpus, "train").values() for row in rows]
    texts = {text for row in train for text in (row.src_text, row.tgt_text)}
    assert len(audio) == len(names) == 6
    assert not audio & {row.audio for row in train}
    assert not [row.id for row in train if any(name in row.id for name in names)]
    for text in (
        *("you have two new messages", "ha due nuovi messaggi", "the conference is locked now"),
        *("la conferenza è ora bloccata", "ci sono messaggi", "it is closed"),
    ):
        assert not [found for found in texts if text in found]
    assert {"good evening everybody", "dov'è la stazione"} <= texts


def test_held_out_recordings_are_as_they_were(corpus, speech):
    for row in speech[1]:
        if row["split"] != "train":
            was, _ = soundfile.read(speech[0] / row["audio"], dtype="int16")
            now, _ = soundfile.read(corpus / f"audio/real/{row['id']}.wav", dtype="int16")
            assert (was == now).all()
    (row,) = manifests(corpus)["dev_st_it_en"]
    assert row.id == "st-it-en/it_carlo/dev"
    assert (row.src_text, row.tgt_text) == ("ha due nuovi messaggi", "you have two new messages")
    assert (row.speaker, row.audio) == ("it_carlo", "audio/real/it_carlo/dev.wav")


def test_recordings_in_train_are_changed(corpus, speech):
    rows = [row for row in speech[1] if row["split"] == "train"]
    for row in rows:
        was, _ = soundfile.read(speech[0] / row["audio"], dtype="int16")
        now, _ = soundfile.read(corpus / f"audio/real/{row['id']}.0.wav", dtype="int16")
        assert len(was) != len(now) or (was != now).any()


def test_a_sentence_that_an_engine_crashes_on_costs_that_sentence_alone(
    speech, voices, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    script = CRASH.replace("cruel", "stazione") + FESTIVAL
    write_command(tmp_path, "festival", script.format(log="/dev/null", wav=voices / "spoken.wav"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{voices}/commands:/usr/bin:/bin")
    main([str(speech[0]), str(tmp_path / "corpus"), *FLAGS, "--parts", "general"])
    found = manifests(tmp_path / "corpus")
    texts = {row.src_text for row in found["train_general_st_it_en"]}
    assert texts == {"buonasera a tutti", "a domani"}
    assert "where is the station" in {row.src_text for row in found["train_general_st_en_it"]}
    said = " ".join(caplog.text.split())
    assert "1 left out, not spoken, shorter" in said


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}  # fmt: skip


def test_the_seed_alone_decides(corpus, speech, tmp_path):
    main([str(speech[0]), str(tmp_path / "two"), *FLAGS, "--workers", "2"])
    first = files_of(corpus)
    assert files_of(tmp_path / "two") == first
    main([str(speech[0]), str(tmp_path / "other"), *FLAGS, "--parts", "real", "--seed", "2"])
    other = files_of(tmp_path / "other")
    held_out = {name for name in other if Path(name).stem in HELD_OUT}
    assert len(held_out) == 6
    changed = {name for name in other if name.suffix == ".wav"} - held_out
    assert all(other[name] == first[name] for name in held_out)
    assert not [name for name in changed & set(first) if other[name] == first[name]]


def test_copies_of_known_and_of_other_speakers(speech):
    recorder = Recorder()
    real_speech(recorder, *speech, 1.0)
    copies = [job for job in recorder.jobs if isinstance(job.make, Read) and job.changed]
    by_file = {job.make.file.name: len(job.names) for job in copies}
    assert by_file["en_allison-0.flac"] == COPIES["en_allison"] == 12
    assert by_file["somebody-0.flac"] == build.OTHER_COPIES
    assert all(job.make.copies == len(job.names) for job in copies)


class Recorder:
    """Takes down what is added to a corpus."""

    def __init__(self):
        self.seed, self.jobs, self.rows = 1, [], {}

    def add(self, job):
        self.jobs.append(job)

    def add_row(self, part, key, name, lang, texts, who):
        self.rows[part, key] = (name, lang, texts, who)


def test_joined_recordings_have_the_joined_texts(speech):
    recorder = Recorder()
    folder, rows = speech
    real_speech(recorder, folder, rows, 0.02)
    sources = {folder / row["audio"]: row for row in rows}
    joined = [job for job in recorder.jobs if isinstance(job.make, Join)]
    assert len(joined) == 30 + 40  # of somebody, who is not known, none
    whole = 0
    for job in joined:
        (name,) = job.names
        audio, lang, (text, translation), speaker = recorder.rows["train_real", name]
        chosen = [sources[file] for file in job.make.files]
        assert audio == name
        assert {(row["speaker"], row["src_lang"], row["split"]) for row in chosen} == {
            (speaker, lang, "train")
        }
        assert len(set(job.make.files)) == len(chosen) == len(job.make.pauses) + 1
        assert len(chosen) in (2, 3)
        assert text == " ".join(build.clean_text(row["src_text"], lang) for row in chosen)
        if all(row["tgt_text"] for row in chosen):
            whole += 1
            other = "it" if lang == "en" else "en"
            assert translation == " ".join(
                build.clean_text(row["tgt_text"], other) for row in chosen
            )
        else:
            assert translation == ""
    assert 40 < whole < 70


def test_joined_audio_is_that_of_the_parts_with_pauses(speech):
    files = tuple(speech[0] / row["audio"] for row in speech[1][:3])
    (samples,) = Join(files, (0.1, 0.25))()
    one, two, three = (read_speech(file) for file in files)
    assert (samples == np.concatenate([one, np.zeros(1600), two, np.zeros(4000), three])).all()


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[3:4], TEXTS[2:4]])
def test_a_speaker_of_few_recordings_is_joined_as_far_as_possible(tmp_path, texts):
    recorder = Recorder()
    rows = [recording(str(n), "en_allison", "train", t) for n, t in enumerate(texts)]
    real_speech(recorder, tmp_path, rows, 0.02)
    joined = [job for job in recorder.jobs if isinstance(job.make, Join)]
    assert bool(joined) is (len(texts) > 1)
    assert all(len(job.make.files) == 2 for job in joined)


def test_utterances_of_a_bad_length_are_counted(tmp_path, caplog):
    rows = [recording(str(n), "somebody", "train", TEXTS[n]) for n in range(5)]
    rows.append(recording("dev", "somebody", "dev", HELD_OUT["dev"]))
    (tmp_path / "audio").mkdir()
    for row, seconds in zip(rows, (0.2, 1.0, 24.0, 0.1, 0.02, 25.0), strict=True):
        soundfile.write(tmp_path / row["audio"], np.full(int(16_000 * seconds), 0.1), 16_000)
    write_rows(tmp_path, rows)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train_real_asr_en.tsv").write_text("of an earlier run")
    caplog.set_level(logging.INFO)
    flags = "--parts real --copies 0.34 --workers 1 --vocabulary-size 40".split()
    main([str(tmp_path), str(corpus), *flags])
    (kept,) = read_manifest(corpus / "train_real_st_en_it.tsv")
    assert kept.src_text == "thank you"
    # A held-out one stays, however long it is.
    (dev,) = read_manifest(corpus / "dev_asr_en.tsv")
    assert dev.n_frames == 2498
    said = [" ".join(record.getMessage().split()) for record in caplog.records]
    assert "train_real_st_en_it 1 utterances 0.00 h" in said
    assert "3 left out, not spoken, shorter than 0.3 s or longer than 20 s" in said
    # Nothing is left of the recordings without translation.
    assert "train_real_asr_en 0 utterances 0.00 h" in said
    assert "1 left out, not spoken, shorter than 0.3 s or longer than 20 s" in said
    assert "no manifest, as no utterance is left" in said
    assert not (corpus / "train_real_asr_en.tsv").exists()


def test_full_scale_does_not_turn_round(tmp_path):
    samples = np.array([0.0, 0.6, -0.6, 2.0**15, 40_000.0, -(2.0**15)], np.float32)
    ((_, frames),) = run_job((Job(Same(samples), ["a.wav"], changed=False), tmp_path, 1))
    assert frames == 0  # shorter than a frame
    written, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert written.tolist() == [0, 1, -1, 32767, 32767, -32768]


class Same:
    def __init__(self, samples):
        self.samples = samples

    def __call__(self):
        return [self.samples]


def test_two_utterances_never_share_a_file(tmp_path):
    corpus = Corpus(tmp_path, 1, 1)
    rows = [
        recording("a", "en_allison", "train", TEXTS[0]),
        recording("a.0", "en_allison", "test", HELD_OUT["test"]),
    ]
    with pytest.raises(InputError, match=r"real/en_allison/a.0.wav: made of two utterances"):
        real_speech(corpus, tmp_path, rows, 1.0)


def test_general_can_be_limited_to_none(speech, voices, tmp_path):  # noqa: ARG001
    flags = "--parts general telephone --general 0 --telephone 3 --vocabulary-size 40 --workers 1"
    main([str(speech[0]), str(tmp_path), *flags.split()])
    assert {path.stem for path in tmp_path.glob("*.tsv")} == {
        "train_telephone_st_en_it", "train_telephone_st_it_en"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "split is 'valid', expected train, dev, test"),
        ({"src_lang": "de"}, "src_lang is 'de', expected en or it"),
        ({"tgt_lang": "de"}, "tgt_lang is 'de', expected 'it' with a tgt_text"),
        ({"tgt_lang": "en"}, "tgt_lang is 'en', expected 'it' with a tgt_text"),
        ({"tgt_text": ""}, "tgt_lang is 'it', expected '' without a tgt_text"),
        ({"tgt_text": "..."}, "tgt_text '...' has no words"),
        ({"src_text": "?!"}, "src_text '?!' has no words"),
        ({"speaker": ""}, "speaker is '', expected letters"),
        ({"speaker": "a b"}, "speaker is 'a b', expected letters"),
        ({"id": "../../a"}, "id is '../../a', expected letters"),
        ({"id": "/a"}, "id is '/a', expected letters"),
        ({"id": "en_allison/0"}, "id 'en_allison/0' is already used in row 2, expected unique"),
        ({"audio": "audio/gone.opus"}, "audio/gone.opus, expected a file"),
        ({"audio": ""}, "audio is empty, expected a file"),
        ({"audio": "audio/en_allison-dev.wav"}, "is of train in row 5, expected each recording "),
        ({"tgt_text": "a\tb"}, "10 cells, expected 9 (tab-separated)"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, change, message):
    rows = small_speech(tmp_path)[2:7]  # rows 2 to 6 of the file; the last two are dev and test
    rows = [recording("0", "en_allison", "train", TEXTS[0]), *rows]
    if "en_allison-dev" in change.get("audio", ""):
        rows[3]["audio"], row = change["audio"], rows[4]
    else:
        row = rows[1]
        row.update(change)
    write_rows(tmp_path, rows)
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), str(tmp_path / "corpus"), *FLAGS])
    number = rows.index(row) + 2
    assert str(caught.value).startswith(f"error: {tmp_path}/manifest.tsv, row {number}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, expected the manifest of a corpus"),
        (b"", "missing column id, audio, corpus,"),
        ("\t".join(COLUMNS).encode(), "empty manifest, expected at least one row"),
        ("\t".join(COLUMNS[:3] + COLUMNS[4:]).encode(), "missing column speaker; expected id, "),
        (b"id\t\xff", "expected tab-separated UTF-8 text"),
    ],
)
def test_a_bad_manifest_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.tsv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_speech_manifest(tmp_path, audio=True)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.tsv: ")
    assert message in str(caught.value)


def test_audio_is_needed_for_real_speech_alone(tmp_path):
    rows = [recording("0", "en_allison", "train", TEXTS[0])]
    write_rows(tmp_path, rows)
    assert read_speech_manifest(tmp_path, audio=False) == rows
    with pytest.raises(InputError, match="row 2: no audio "):
        read_speech_manifest(tmp_path, audio=True)


def test_further_columns_do_not_matter(speech, tmp_path):
    with (speech[0] / "manifest.tsv").open(encoding="utf-8") as file:
        lines = list(csv.reader(file, delimiter="\t"))
    (tmp_path / "manifest.tsv").write_text(
        "\n".join("\t".join(["more", *line]) for line in lines), encoding="utf-8-sig"
    )
    with pytest.raises(InputError, match="no audio"):
        read_speech_manifest(tmp_path, audio=True)
    (tmp_path / "audio").symlink_to(speech[0] / "audio")
    # The byte order mark and "more" are part of the header.
    assert [row["id"] for row in read_speech_manifest(tmp_path, audio=True)] == [
        row["id"] for row in speech[1]
    ]


@pytest.mark.parametrize("suffix", ["wav", "opus"])
def test_unreadable_audio_is_named_by_the_process_that_reads_it(tmp_path, monkeypatch, suffix):
    rows = [recording("0", "en_allison", "train", TEXTS[0], suffix=suffix)]
    write_rows(tmp_path, rows)
    (tmp_path / "audio").mkdir()
    file = tmp_path / rows[0]["audio"]
    file.write_bytes(b"no audio at all")
    write_command(tmp_path / "commands", "opusdec", "echo not Opus >&2; exit 1")
    flags = "--parts real --copies 0.0001 --vocabulary-size 30 --workers 2".split()
    for path, expected in (("commands", "unreadable audio"), ("nowhere", "opus-tools")):
        monkeypatch.setenv("PATH", str(tmp_path / path))
        with pytest.raises(SystemExit) as caught:
            main([str(tmp_path), str(tmp_path / "corpus"), *flags])
        assert str(caught.value).startswith(f"error: {file}: ")
        assert (expected if suffix == "opus" else "unreadable audio") in str(caught.value)


def test_a_short_opus_file_is_read_through_opusdec(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "decoded.wav", np.full(100, 0.5), 16_000)
    (tmp_path / "a.opus").write_bytes(b"too short for libsndfile")
    script = f'for last; do :; done; cp "{tmp_path}/decoded.wav" "$last"'
    write_command(tmp_path / "commands", "opusdec", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/commands:/usr/bin:/bin")
    assert read_speech(tmp_path / "a.opus").tolist() == [2.0**14] * 100


def test_a_missing_engine_ends_the_build_with_one_line(speech, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "py_nanotts", None)
    for lang, voice in (("en", "en-US"), ("it", "it-IT")):
        monkeypatch.setitem(build.VOICES, lang, {("pico", voice): 1.0})
    flags = "--parts telephone --telephone 70 --vocabulary-size 60 --workers 2".split()
    with pytest.raises(SystemExit, match=r"^error: pico: .* pip install py-nanotts$"):
        main([str(speech[0]), str(tmp_path), *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--workers 0", "'0', expected a number from 1"),
        ("--copies -1", "'-1', expected a number from 0"),
        ("--copies nan", "'nan', expected a number from 0"),
        ("--copies inf", "'inf', expected a number from 0"),
        ("--telephone 1.5", "'1.5', expected a number from 0"),
        ("--seed -3", "'-3', expected a number from 0"),
        ("--parts spoken", "invalid choice: 'spoken'"),
    ],
)
def test_wrong_flags(capsys, tmp_path, flags, message):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(tmp_path / "corpus"), *flags.split()])
    assert message in capsys.readouterr().err


def test_a_corpus_that_cannot_be_a_folder_is_one_line(speech):
    file = speech[0] / "manifest.tsv"
    with pytest.raises(SystemExit, match=r"^error: .*: File exists, expected a folder$"):
        main([str(speech[0]), str(file), *FLAGS])


def test_no_sentence_pairs_is_one_line(tmp_path):
    small_speech(tmp_path)
    (tmp_path / "some_en_it.tsv").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*: has no \*_en_it.tsv, expected sentence"):
        main([str(tmp_path), str(tmp_path / "corpus"), *FLAGS, "--parts", "general"])
