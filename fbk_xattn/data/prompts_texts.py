"""Texts of the Asterisk prompts: Debian's ``core-sounds-*.txt`` turned into transcripts."""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)

Language = Literal["en", "it"]


@dataclass(frozen=True)
class PromptText:
    """What one prompt says.

    Attributes:
        text: Transcript: lower-case words and apostrophes inside them, separated by one space;
            empty where the prompt is no speech (a tone, silence, monkeys).
        foreign: Whether the file notes that the words are not spoken in its language.
    """

    text: str
    foreign: bool


# Transcripts that no rule can know; each agrees with the spectrogram of its recording.
OVERRIDES: dict[tuple[Language, str], str] = {
    ("en", "spy-h323"): "h three two three",  # written "H.323"
    ("it", "spy-h323"): "h three two three",
    ("it", "conf-muted"): "voce disattivata",  # that line is under the name conf-mute
    ("it", "digits/hundred"): "cento",  # written "centinaia"
    ("it", "digits/thousands"): "mila",  # written "migliaia"
    ("it", "is"): "è",  # the file has the English word
    ("it", "letters/at"): "at",  # written "a [@]"
}

# Where a question mark stands for the letter that a wrong encoding lost.
ACCENTED = {"cos": "così", "pi": "più", "pu": "può", "sar": "sarà"}

APOSTROPHES = {0x2018: "'", 0x2019: "'"}  # ‘ and ’
SYMBOLS = {"en": {"*": "star", "#": "pound"}, "it": {"*": "asterisco", "#": "cancelletto"}}
ADDRESS = {
    "en": {"www": "w w w", "dot": "dot", "point": "point"},
    "it": {"www": "vu vu vu", "dot": "punto", "point": "virgola"},
}


def _words(table: str) -> tuple[str, ...]:
    return tuple(table.split())


UNDER_TWENTY = {
    "en": _words(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    ),
    "it": _words(
        "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici "
        "quattordici quindici sedici diciassette diciotto diciannove"
    ),
}
TENS = {
    "en": _words("- - twenty thirty forty fifty sixty seventy eighty ninety"),
    "it": _words("- - venti trenta quaranta cinquanta sessanta settanta ottanta novanta"),
}

DEV_NAMES = frozenset(
    _words("""
    agent-loggedoff call-fwd-no-ans conf-hasjoin conf-nonextended confbridge-dec-list-vol-in
    confbridge-dec-list-vol-out confbridge-inc-list-vol-in confbridge-inc-list-vol-out
    confbridge-lock-extended demo-enterkeywords dictate/both_help dir-instr dir-nomore
    entr-num-rmv-blklist is-in-use priv-recordintro queue-quantity1 queue-thankyou speed-dial-empty
    spy-h323 vm-duration vm-enter-num-to-call vm-intro vm-invalid-password vm-leavemsg
    vm-marked-urgent vm-newpassword vm-next vm-opts vm-passchanged vm-prev vm-sorry vm-tempgreeting
    vm-tocallnum vm-tohearenv
    """)
)
TEST_NAMES = frozenset(
    _words("""
    agent-incorrect agent-loginok agent-pass agent-user auth-incorrect call-fwd-on-busy conf-full
    conf-getchannel conf-getpin conf-onlyperson conf-unlockednow conf-userswilljoin
    confbridge-conf-end confbridge-mute-in confbridge-mute-out confbridge-only-participant
    confbridge-remove-last-in confbridge-remove-last-out confbridge-removed confbridge-unlocked
    demo-echodone demo-thanks dictate/forhelp dir-nomatch do-not-disturb feature-not-avail-line
    followme/pls-hold-while-try is-set-to pbx-invalidpark pbx-parkingfailed priv-callpending
    queue-thereare something-terribly-wrong to-rerecord-it tt-somethingwrong tt-weasels vm-advopts
    vm-forward vm-from-extension vm-from-phonenumber vm-mailboxfull vm-marked-nonurgent
    vm-nobodyavail vm-reachoper vm-savefolder vm-then-pound vm-tooshort vm-torerecord
    """)
)

# A line starts with its prompt's name; a glued entry has one with a sign that no spoken word
# before a colon ("you have these options: dial 1") has.
_NAME = re.compile(r"^([\w/-]+):|\s(\w+[-/_][\w/-]*):(?=\s)")
_NOTE = re.compile(r"\([^)]*\)|<[^>]*>|\[[^\]]*\]")


def parse_texts(content: str, lang: Language) -> dict[str, PromptText]:
    """Read a ``core-sounds-*.txt``.

    Args:
        content: The whole file: ``name: text`` lines, comments start with ``;``.
        lang: Language of the file.

    Returns:
        The texts by prompt name, for example ``dictate/forhelp``. Where a prompt has both a line
        of its own and an entry glued to the end of another line, the glued entry counts: it is
        the wording that was recorded.
    """
    own: dict[str, str] = {}
    glued: dict[str, str] = {}
    for number, line in enumerate(content.removeprefix("\ufeff").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        names = list(_NAME.finditer(line))
        if not names or not names[0][1]:
            logger.warning("line %d of the %s texts is not 'name: text': %r", number, lang, line)
            continue
        ends = [name.start() for name in names[1:]] + [len(line)]
        for name, end in zip(names, ends, strict=True):
            (own if name[1] else glued)[name[1] or name[2]] = line[name.end() : end].strip()
    return {
        name: PromptText(
            text=OVERRIDES.get((lang, name), clean_text(text, lang)),
            foreign="(in inglese)" in text,
        )
        for name, text in (own | glued).items()
    }


def clean_text(text: str, lang: Language) -> str:
    """Turn a written prompt into its transcript.

    Args:
        text: One entry as written, with punctuation, digits and notes.
        lang: Its language.

    Returns:
        Lower-case words; no punctuation but apostrophes inside words, numbers as words. What is
        in brackets of any kind is left out: the translators' words there are not spoken either.
    """
    text = unicodedata.normalize("NFC", text).translate(APOSTROPHES)
    text = _NOTE.sub(" ", text)
    if lang == "it":
        text = _restore_accents(text)
    text = text.lower()
    text = re.sub(r"\bwww\b", ADDRESS[lang]["www"], text)
    text = re.sub(r"(?<=[^\W\d])\.(?=[^\W\d]{2})", f" {ADDRESS[lang]['dot']} ", text)
    text = re.sub(r"\d+(\.\d+)?", lambda number: f" {_spoken_number(number[0], lang)} ", text)
    for symbol, word in SYMBOLS[lang].items():
        text = text.replace(symbol, f" {word} ")
    text = re.sub(r"[^\w']|_", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return " ".join(text.split())


def _restore_accents(text: str) -> str:
    fragments = "|".join(ACCENTED)
    text = re.sub(
        rf"\b({fragments})\?",
        lambda found: ACCENTED[found[1].lower()],
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(r"(?<=\w )\?(?= \w)", "è", text)
    return re.sub(r"(?<!\w)[Ee]'(?!\w)", "è", text)


def _spoken_number(digits: str, lang: Language) -> str:
    whole, _, decimals = digits.partition(".")
    words = [number_words(int(whole), lang)]
    if decimals:
        words.append(ADDRESS[lang]["point"])
        words += [number_words(int(digit), lang) for digit in decimals]
    return " ".join(words)


def number_words(number: int, lang: Language) -> str:
    """Spell a whole number.

    Args:
        number: Zero or more; a million or more is read digit by digit, like a telephone number.
        lang: Language of the words.

    Returns:
        The words, for example ``forty two``, ``quarantadue``.
    """
    if number >= 1_000_000:
        return " ".join(number_words(int(digit), lang) for digit in str(number))
    if lang == "en":
        return _english(number)
    words = _italian(number)
    return words[:-1] + "é" if words.endswith("tre") and number > 3 else words


def _english(number: int) -> str:
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            words = f"{_english(number // size)} {name}"
            return f"{words} {_english(number % size)}" if number % size else words
    if number < 20:
        return UNDER_TWENTY["en"][number]
    words = TENS["en"][number // 10]
    return f"{words} {_english(number % 10)}" if number % 10 else words


def _italian(number: int) -> str:
    if number < 20:
        return UNDER_TWENTY["it"][number]
    if number < 100:
        tens, unit = divmod(number, 10)
        words = TENS["it"][tens]
        if unit in (1, 8):  # ventuno, ventotto
            words = words[:-1]
        return words + _italian(unit) if unit else words
    size, one, many = (1000, "mille", "mila") if number >= 1000 else (100, "cento", "cento")
    count, rest = divmod(number, size)
    words = one if count == 1 else _italian(count) + many
    return words + _italian(rest) if rest else words
