import gzip
import sys

import numpy as np
import pytest
import soundfile

from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.data.prompts import build_prompts_corpus, read_prompts, split_of
from fbk_xattn.data.prompts_texts import (
    DEV_NAMES,
    TEST_NAMES,
    clean_text,
    number_words,
    parse_texts,
)
from fbk_xattn.errors import InputError

G722 = pytest.importorskip("G722").G722

EN_TEXTS = """; Core Asterisk Sounds in English

agent-loginok: Agent logged in.
beep: [this is a simple beep tone]
confbridge-dec-list-vol-in: To decrease the audio volume from other participants...
confbridge-dec-list-vol-out: ...to decrease the audio volume from other participants.
dictate/forhelp: press 0 for help
minute: minute
phonetic/c_p: charlie
spy-mgcp: MGCP
"""
IT_TEXTS = """\ufeff; Core Asterisk Sounds in Italian
agent-loginok: operatore connesso
beep: un suono beep
confbridge-dec-list-vol-in: Per ridurre il volume dell'audio degli altri partecipanti...
confbridge-dec-list-vol-out: ...per ridurre il volume dell'audio degli altri partecipanti.
dictate/forhelp: premere 0 per l'aiuto
phonetic/C_P: c come como
spy-mgcp: MGCP (in inglese)
"""


def tone(seconds, frequency=440.0):
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (8000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def record(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(G722(16_000, 64_000).encode(tone(seconds)))


def write_texts(folder, lang, content):
    path = folder / f"usr/share/doc/asterisk-core-sounds-{lang}/core-sounds-{lang}.txt.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()))


@pytest.fixture
def audio_dir(tmp_path):
    folder = tmp_path / "unpacked"
    for lang, voice, content in (
        ("en", "en_US_f_Allison", EN_TEXTS),
        ("it", "it_IT_m_Carlo", IT_TEXTS),
    ):
        write_texts(folder, lang, content)
        for line in content.splitlines():
            name, colon, _ = line.partition(":")
            if colon:
                record(folder / f"usr/share/asterisk/sounds/{voice}/{name.lower()}.g722")
    return folder


def voice_folder(audio_dir, voice="en_US_f_Allison"):
    return audio_dir / "usr/share/asterisk/sounds" / voice


@pytest.mark.parametrize(
    ("lang", "written", "spoken"),
    [
        ("it", "il tempo sar? esattamente..", "il tempo sarà esattamente"),
        ("it", "non pu? essere completata cos? come", "non può essere completata così come"),
        ("it", "Se questo ? corretto, premi ...", "se questo è corretto premi"),
        ("it", "la tua chiamata pi? tardi.", "la tua chiamata più tardi"),
        ("it", "Login non corretta. Casella di posta?", "login non corretta casella di posta"),
        ("it", "E' in uso.", "è in uso"),
        ("it", "l\u2019utente potrà partecipare", "l'utente potrà partecipare"),
        ("it", "un educato menù di “non richiamare”", "un educato menù di non richiamare"),
        ("it", "il nostro (enfatico) glorioso moderatore", "il nostro glorioso moderatore"),
        ("it", "[!] punto esclamativo", "punto esclamativo"),
        ("it", "[tentativo di] Parcheggio non riuscito.", "parcheggio non riuscito"),
        ("it", "attivare/disattivare", "attivare disattivare"),
        ("it", "che si è presentato come::", "che si è presentato come"),
        ("it", "visitare www.asterisk.org.", "visitare vu vu vu punto asterisk punto org"),
        ("it", "premere il tasto 7 per la Q", "premere il tasto sette per la q"),
        ("en", "visit www.asterisk.org.", "visit w w w dot asterisk dot org"),
        ("en", "press * to pause, press # to enter", "press star to pause press pound to enter"),
        ("en", "... your party's last name.", "your party's last name"),
        ("en", 'a polite "don\'t call" menu', "a polite don't call menu"),
        ("en", "3D audio enabled", "three d audio enabled"),
        ("en", "a 28.8 kilobit modem", "a twenty eight point eight kilobit modem"),
        ("en", "A.M.", "a m"),
        ("en", "Speed-dial.", "speed dial"),
        ("en", 'IAX (note: does not say "2")', "iax"),
        ("en", "space [ ]", "space"),
        ("en", "[sound of monkeys screaming]", ""),
        ("en", "<beep ascending>", ""),
        ("en", "(10 seconds of silence)", ""),
    ],
)
def test_clean_text(lang, written, spoken):
    assert clean_text(written, lang) == spoken


@pytest.mark.parametrize(
    ("number", "english", "italian"),
    [
        (0, "zero", "zero"),
        (3, "three", "tre"),
        (21, "twenty one", "ventuno"),
        (48, "forty eight", "quarantotto"),
        (53, "fifty three", "cinquantatré"),
        (100, "one hundred", "cento"),
        (323, "three hundred twenty three", "trecentoventitré"),
        (1234, "one thousand two hundred thirty four", "milleduecentotrentaquattro"),
        (8500, "eight thousand five hundred", "ottomilacinquecento"),
        (1_000_005, "one zero zero zero zero zero five", "uno zero zero zero zero zero cinque"),
    ],
)
def test_number_words(number, english, italian):
    assert number_words(number, "en") == english
    assert number_words(number, "it") == italian


def test_a_glued_entry_is_an_entry_and_beats_the_line_of_its_own():
    texts = parse_texts(
        "vm-tempremoved: Il tuo messaggio provvisorio di saluto è stato eliminato "
        "vm-then-pound: poi premere cancelletto\n"
        "vm-then-pound: quindi premere sterlina\n"
        "screen-callee-options: Opzioni disponibili: prema 1\n",
        "it",
    )
    assert {name: text.text for name, text in texts.items()} == {
        "vm-tempremoved": "il tuo messaggio provvisorio di saluto è stato eliminato",
        "vm-then-pound": "poi premere cancelletto",
        "screen-callee-options": "opzioni disponibili prema uno",
    }


def test_a_line_without_a_name_is_logged(caplog):
    assert set(parse_texts("; comment\n\nno name here\nis: Is.\n", "en")) == {"is"}
    assert "line 3" in caplog.text
    assert "no name here" in caplog.text


def test_read_prompts(audio_dir, caplog):
    record(voice_folder(audio_dir) / "digits/unnamed.g722")
    prompts = {(prompt.lang, prompt.name): prompt for prompt in read_prompts(audio_dir)}
    assert prompts["en", "dictate/forhelp"].text == "press zero for help"
    assert prompts["en", "dictate/forhelp"].speaker == "en_allison"
    assert prompts["it", "dictate/forhelp"].speaker == "it_carlo"
    assert prompts["it", "dictate/forhelp"].audio.name == "forhelp.g722"
    # The Italian text describes the tone without brackets.
    assert not {("en", "beep"), ("it", "beep")} & set(prompts)
    assert "no speech: beep" in caplog.text
    assert "digits/unnamed" in caplog.text
    # Named in another case than its recording.
    assert prompts["it", "phonetic/c_p"].text == "c come como"
    untranslatable = {name for (_, name), prompt in prompts.items() if not prompt.translatable}
    assert untranslatable == {"minute", "phonetic/c_p", "spy-mgcp"}


def test_splits_are_disjoint_and_named():
    assert not DEV_NAMES & TEST_NAMES
    assert split_of("vm-intro") == "dev"
    assert split_of("dictate/forhelp") == "test"
    assert split_of("never-heard-of") == "train"


def test_build(audio_dir, tmp_path, caplog):
    folder = voice_folder(audio_dir)
    record(folder / "minute.g722", seconds=0.2)
    output = tmp_path / "corpus"
    counts = build_prompts_corpus(audio_dir, output)
    assert counts == {
        "train_asr_en": 2, "train_asr_it": 2, "train_st_en_it": 0, "train_st_it_en": 0,
        "dev_asr_en": 2, "dev_asr_it": 2, "dev_st_en_it": 2, "dev_st_it_en": 2,
        "test_asr_en": 2, "test_asr_it": 2, "test_st_en_it": 2, "test_st_it_en": 2,
    }  # fmt: skip
    assert "1 prompts, shorter than 0.3 s: minute" in caplog.text
    rows = {row.id: row for row in read_manifest(output / "test_st_en_it.tsv")}
    row = rows["st-en-it/dictate/forhelp"]
    assert (row.src_lang, row.src_text) == ("en", "press zero for help")
    assert (row.tgt_lang, row.tgt_text) == ("it", "premere zero per l'aiuto")
    assert row.audio == "audio/en_allison/dictate/forhelp.flac"
    asr = read_manifest(output / "test_asr_it.tsv")[0]
    assert (asr.id, asr.tgt_lang, asr.tgt_text) == ("asr-it/agent-loginok", "it", asr.src_text)
    info = soundfile.info(output / row.audio)
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    assert row.n_frames == 1 + (info.frames - 400) // 160 == 98


def test_decoded_audio_is_what_was_encoded(audio_dir, tmp_path):
    build_prompts_corpus(audio_dir, tmp_path / "corpus")
    samples, _ = soundfile.read(tmp_path / "corpus/audio/it_carlo/agent-loginok.flac")
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * 16_000 / len(samples) == pytest.approx(440, abs=1)
    assert np.sqrt((samples**2).mean()) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.02)


def test_building_again_keeps_the_audio_and_mends_what_is_cut(audio_dir, tmp_path):
    output = tmp_path / "corpus"
    build_prompts_corpus(audio_dir, output)
    whole = output / "audio/en_allison/agent-loginok.flac"
    cut = output / "audio/en_allison/dictate/forhelp.flac"
    before = whole.stat().st_mtime_ns
    cut.write_bytes(b"fLaC")
    build_prompts_corpus(audio_dir, output)
    assert whole.stat().st_mtime_ns == before
    assert soundfile.info(cut).frames == 16_000
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]


def test_audio_beyond_20_s_is_left_out_but_still_translates_the_other_voice(
    audio_dir, tmp_path, caplog
):
    record(voice_folder(audio_dir, "it_IT_m_Carlo") / "agent-loginok.g722", seconds=20.01)
    counts = build_prompts_corpus(audio_dir, tmp_path / "corpus")
    assert counts["test_asr_it"] == 1
    assert counts["test_st_en_it"] == 2
    assert "it_carlo: left out 1 prompts, longer than 20 s: agent-loginok" in caplog.text


def test_a_sentence_in_two_splits_is_refused(audio_dir, tmp_path):
    write_texts(audio_dir, "en", EN_TEXTS + "other: Press zero, for help!\n")
    record(voice_folder(audio_dir) / "other.g722")
    with pytest.raises(InputError, match=r"'dictate/forhelp' \(test\) and 'other' \(train\)"):
        build_prompts_corpus(audio_dir, tmp_path / "corpus")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder.*asterisk-core-sounds"):
        read_prompts(tmp_path / "nowhere")


def test_missing_voice(audio_dir):
    voice_folder(audio_dir, "it_IT_m_Carlo").rename(audio_dir / "elsewhere")
    with pytest.raises(InputError, match=r"it_IT_m_Carlo.*asterisk-core-sounds-it-g722"):
        read_prompts(audio_dir)


def test_voice_in_another_format(audio_dir):
    for path in voice_folder(audio_dir).rglob("*.g722"):
        path.rename(path.with_suffix(".gsm"))
    with pytest.raises(InputError, match=r"en_US_f_Allison: has no \.g722 file"):
        read_prompts(audio_dir)


def test_missing_texts(audio_dir):
    next(audio_dir.rglob("core-sounds-it.txt.gz")).unlink()
    with pytest.raises(
        InputError, match=r"core-sounds-it\.txt or .*package asterisk-core-sounds-it$"
    ):
        read_prompts(audio_dir)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"is: \xe8\n", mtime=0), gzip.compress(b"", mtime=0)]
)
def test_unreadable_texts(audio_dir, content):
    next(audio_dir.rglob("core-sounds-it.txt.gz")).write_bytes(content)
    with pytest.raises(InputError, match=r"core-sounds-it\.txt\.gz"):
        read_prompts(audio_dir)


def test_empty_recording(audio_dir, tmp_path):
    (voice_folder(audio_dir) / "agent-loginok.g722").write_bytes(b"")
    with pytest.raises(InputError, match=r"agent-loginok\.g722: empty"):
        build_prompts_corpus(audio_dir, tmp_path / "corpus")


def test_output_that_is_a_file(audio_dir, tmp_path):
    (tmp_path / "corpus").write_text("")
    with pytest.raises(InputError, match=r"corpus: cannot write"):
        build_prompts_corpus(audio_dir, tmp_path / "corpus")


def test_missing_decoder(audio_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "G722", None)
    with pytest.raises(InputError, match=r'pip install "fbk_xattn\[prompts\]"'):
        build_prompts_corpus(audio_dir, tmp_path / "corpus")
