"""Voices: what the engines are asked for, and one clear line where one is missing or fails."""

import sys
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from test_recipes import write_command

from examples.prompts.train.synthesis import PITCH, VOICES, Spoken, speak
from fbk_xattn.errors import InputError

FLITE = 'printf "%s\\n" "$@" >> "{log}"; while [ "$1" != -o ]; do shift; done; cp "{wav}" "$2"'
FESTIVAL = (
    'cat "$2" >> "{log}"\n'
    'sed -n \'s/.*save.wave spoken "\\(.*\\)" .*/\\1/p\' "$2" |\n'
    'while read -r file; do cp "{wav}" "$file"; done'
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder of commands before all others, beside a WAV file and a log that they use."""
    samples = np.arange(-500, 500, dtype=np.int16)
    soundfile.write(tmp_path / "spoken.wav", samples, 16_000)
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def command(path, name, script):
    folder = path.parent
    write_command(path, name, script.format(log=folder / "log", wav=folder / "spoken.wav"))


def spoken(text, engine, voice, stretch=1.0, pitch=1.0):
    return Spoken(text, engine, voice, stretch, pitch)


def lines(path):
    return (path.parent / "log").read_bytes().decode("latin-1").splitlines()


def test_flite_is_given_text_voice_stretch_and_pitch(path):
    command(path, "flite", FLITE)
    found = speak(
        [spoken("two words", "flite", "slt", 0.9, 1.1), spoken("it's one", "flite", "rms")]
    )
    assert [samples.tolist() for samples in found] == 2 * [list(range(-500, 500))]
    assert found[0].dtype == np.float32
    said = lines(path)
    assert [said[said.index("-t") + 1], said[said.index("-voice") + 1]] == ["two words", "slt"]
    assert "duration_stretch=0.900" in said
    assert f"int_f0_target_mean={1.1 * PITCH['slt']:.1f}" in said
    assert "it's one" in said


def test_festival_starts_once_and_reads_latin_1(path):
    command(path, "festival", FESTIVAL)
    texts = ["perché no", 'un "bel\\ giorno', "è così"]
    found = speak([spoken(text, "festival", "lp_diphone", 1.2) for text in texts])
    assert [len(samples) for samples in found] == [1000] * 3
    said = lines(path)
    assert said.count("(voice_lp_diphone)") == said.count("(utt.synth spoken)") == 3
    assert said.count("(Parameter.set 'Duration_Stretch 1.200)") == 3
    for text in ("perché no", "un bel giorno", "è così"):
        assert f'(set! spoken (Utterance Text "{text}"))' in said


def test_pico_is_given_speed_and_pitch(monkeypatch):
    calls = []

    class NanoTTS:
        def speak(self, text, **settings):
            calls.append((text, settings))
            return np.arange(5, dtype=np.int16).tobytes()

    module = ModuleType("py_nanotts")
    module.NanoTTS = NanoTTS
    monkeypatch.setitem(sys.modules, "py_nanotts", module)
    (samples,) = speak([spoken("due parole", "pico", "it-IT", 0.8, 1.25)])
    assert samples.tolist() == [0, 1, 2, 3, 4]
    assert samples.dtype == np.float32
    assert calls == [("due parole", {"voice": "it-IT", "speed": 1.25, "pitch": 1.25})]

    monkeypatch.setattr(NanoTTS, "speak", Mock(side_effect=RuntimeError("no such\nvoice")))
    with pytest.raises(InputError, match=r"^pico, voice it-IT: no such voice for 'due parole'$"):
        speak([spoken("due parole", "pico", "it-IT")])


def test_nothing_to_say():
    assert speak([]) == []


def test_without_py_nanotts_its_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_nanotts", None)
    with pytest.raises(InputError, match=r"^pico: .*expected py-nanotts: pip install py-nanotts$"):
        speak([spoken("due parole", "pico", "it-IT")])


@pytest.mark.parametrize(("engine", "voice"), [("flite", "slt"), ("festival", "pc_diphone")])
def test_without_an_engine_its_packages_are_named(path, monkeypatch, engine, voice):
    monkeypatch.setenv("PATH", str(path))
    for _ in range(2):
        with pytest.raises(InputError, match=f"^{engine}: not installed, .*packages flite, fest"):
            speak([spoken("words", engine, voice)])
        (path / engine).write_text("no program")  # and not executable


@pytest.mark.parametrize(("engine", "voice"), [("flite", "slt"), ("festival", "pc_diphone")])
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo first >&2; echo second >&2; exit 3", "{engine} failed with code 3: first$"),
        ("echo on standard output; exit 255", "{engine} failed with code 255: on standard output$"),
        ("exit 1", "{engine} failed with code 1: it said nothing$"),
        ("exit 0", "{engine}, voice {voice}: wrote no audio for 'some words'$"),
    ],
)
def test_a_failure_is_one_line_in_the_words_of_the_engine(path, engine, voice, script, message):
    command(path, engine, script)
    with pytest.raises(InputError, match="^" + message.format(engine=engine, voice=voice)):
        speak([spoken("some words", engine, voice)])


CRASH = 'if grep -q cruel "$2"; then echo "no diphone c-r" >&2; kill -SEGV $$; fi\n'


def test_a_sentence_that_festival_crashes_on_is_left_out_alone(path, caplog):
    command(path, "festival", CRASH + FESTIVAL)
    texts = ["one", "two", "cruel", "four", "five", "six", "seven"]
    found = speak([spoken(text, "festival", "lp_diphone") for text in texts])
    assert [len(samples) for samples in found] == [1000, 1000, 0, 1000, 1000, 1000, 1000]
    assert caplog.messages == [
        "festival, voice lp_diphone: crashed (signal 11: no diphone c-r) on 'cruel', left out"
    ]


def test_what_a_crash_had_written_before_is_not_taken_for_speech(path):
    command(path, "festival", FESTIVAL + "\n" + CRASH)
    found = speak([spoken(text, "festival", "lp_diphone") for text in ("cruel", "two")])
    assert [len(samples) for samples in found] == [0, 1000]


def test_festival_that_crashes_on_everything_is_refused(path):
    command(path, "festival", CRASH + FESTIVAL)
    some = [spoken(text, "festival", "lp_diphone") for text in ("cruel", "so cruel", "cruel too")]
    assert [len(samples) for samples in speak(some[:1])] == [0]
    message = r"^festival crashed \(signal 11: no diphone c-r\) on each of 3 sentences, expected "
    with pytest.raises(InputError, match=message):
        speak(some)


def test_a_voice_of_another_rate_is_refused(path):
    soundfile.write(path.parent / "spoken.wav", np.zeros(100), 8000)
    command(path, "flite", FLITE)
    with pytest.raises(InputError, match="flite, voice slt: audio at 8000 Hz, expected 16000 Hz"):
        speak([spoken("some words", "flite", "slt")])


def test_every_voice_of_flite_has_a_pitch_and_shares_add_up():
    for voices in VOICES.values():
        assert sum(voices.values()) == pytest.approx(1)
        for engine, voice in voices:
            assert engine in ("pico", "flite", "festival")
            assert engine != "flite" or voice in PITCH
