"""Sentences of telephone systems in English and Italian, made by a small grammar.

The recorded prompts are few: half an hour in each language. Sentences with their words and their
turns of phrase, spoken by synthetic voices, teach a model what such systems say. The phrases were
written for this grammar with the training prompts at hand, and with none of ``dev`` or ``test``;
sentences that come close to those are removed all the same (:mod:`texts`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from examples.prompts.train.phrases import (
    ACTIONS,
    CONDITIONS,
    COUNTED,
    DAYS,
    ENTRIES,
    FORMAL_PRESS,
    KEYS,
    LETTERS,
    MONTHS,
    PEOPLE,
    POSSESSIVES,
    PREDICATES,
    PRESS,
    RELATIVE_DAYS,
    SENTENCES,
    SUBJECTS,
    TIMES,
    WAITING,
    Pair,
)
from fbk_xattn.data.prompts_texts import number_words
from fbk_xattn.errors import InputError

# Sentences in a row that were there already, after which the grammar counts as used up.
USED_UP = 20_000


def telephone_sentences(number: int, seed: int) -> list[Pair]:
    """Make sentences of telephone systems with their translations.

    Args:
        number: How many different ones.
        seed: Of the choices.

    Returns:
        English and Italian sentences: lower-case words, numbers spelled out.

    Raises:
        InputError: Fewer than 0, or more than the grammar makes.
    """
    if number < 0:
        raise InputError(f"{number} telephone sentences, expected 0 or more")
    generator = random.Random(seed)
    templates = list(TEMPLATES)
    weights = [TEMPLATES[template] for template in templates]
    sentences: dict[Pair, None] = dict.fromkeys(SENTENCES)
    in_vain = 0
    while len(sentences) < number:
        template = generator.choices(templates, weights)[0]
        before = len(sentences)
        sentences[template(generator)] = None
        in_vain = in_vain + 1 if len(sentences) == before else 0
        if in_vain == USED_UP:
            raise InputError(
                f"{number} telephone sentences, expected at most about {before}: "
                "the grammar makes no others"
            )
    return list(sentences)[:number]


def _press(generator: random.Random) -> Pair:
    (key, tasto), (action, azione) = generator.choice(KEYS), generator.choice(ACTIONS)
    formal = bool(POSSESSIVES.intersection(azione.split()))
    premere = generator.choice(FORMAL_PRESS if formal else PRESS)
    return generator.choice(
        (
            (f"press {key} to {action}", f"{premere} {tasto} per {azione}"),
            (f"to {action} press {key}", f"per {azione} {premere} {tasto}"),
            (f"to {action}", f"per {azione}"),
            (f"press {key} now to {action}", f"{premere} ora {tasto} per {azione}"),
            (f"please press {key} to {action}", f"prego premere {tasto} per {azione}"),
        )
    )


def _menu(generator: random.Random) -> Pair:
    keys = sorted(generator.sample(range(len(KEYS) - 1), generator.choice((2, 2, 2, 3, 4))))
    actions = generator.sample(ACTIONS, len(keys))
    english, italian = [], []
    short = generator.random() < 0.4
    for place, (key, (action, azione)) in enumerate(zip(keys, actions, strict=True)):
        last = place == len(keys) - 1 and generator.random() < 0.7
        bare = short and place > 0
        english.append(
            f"{'or ' if last else ''}{'' if bare else 'press '}{KEYS[key][0]} to {action}"
        )
        italian.append(
            f"{'o ' if last else ''}{'' if bare else 'premere '}{KEYS[key][1]} per {azione}"
        )
    return " ".join(english), " ".join(italian)


def _condition(generator: random.Random) -> Pair:
    (condition, condizione), (key, tasto) = generator.choice(CONDITIONS), generator.choice(KEYS)
    action, azione = generator.choice(ACTIONS)
    premere = generator.choice(FORMAL_PRESS)
    other = 2 if key == KEYS[1][0] else 1
    return generator.choice(
        (
            (f"if {condition} press {key}", f"se {condizione} {premere} {tasto}"),
            (
                f"if {condition} press {key} otherwise press {KEYS[other][0]} to {action}",
                f"se {condizione} {premere} {tasto} "
                f"altrimenti {premere} {KEYS[other][1]} per {azione}",
            ),
            (f"press {key} if {condition}", f"{premere} {tasto} se {condizione}"),
        )
    )


def _enter(generator: random.Random) -> Pair:
    entry, voce, gender = generator.choice(ENTRIES)
    article = "la " if gender == "f" else "l'" if voce[0] in "aeiou" else "il "
    un = "un" if gender == "m" else "una"
    suo = "il suo " if gender == "m" else "la sua "
    ending = "o" if gender == "m" else "a"
    polite = generator.random() < 0.3
    press, wait = ("prema", "attenda") if polite else ("premere", "attendere")
    if polite:
        head = generator.choice(
            (
                (f"please enter your {entry}", f"inserisca {suo}{voce}"),
                (f"please type in the {entry}", f"immetta cortesemente {article}{voce}"),
            )
        )
    else:
        head = generator.choice(
            (
                (f"please enter your {entry}", f"prego digitare {suo}{voce}"),
                (f"please enter the {entry}", f"prego inserire {article}{voce}"),
                (f"enter your {entry}", f"digitare {suo}{voce}"),
                (f"please enter a new {entry}", f"prego digitare {un} nuov{ending} {voce}"),
            )
        )
    tail = generator.choice(
        (
            ("", ""),
            ("", ""),
            ("followed by the pound key", f"seguit{ending} dal tasto cancelletto"),
            ("followed by the star key", f"seguit{ending} dal tasto asterisco"),
            ("and then press the pound key", f"e poi {press} il tasto cancelletto"),
            ("and press pound", f"e {press} cancelletto"),
            ("now", "ora"),
            ("after the tone", "dopo il segnale acustico"),
            ("or wait for an operator", f"o {wait} un operatore"),
            (
                f"or press {KEYS[0][0]} to speak with an operator",
                f"o {press} {KEYS[0][1]} per parlare con un operatore",
            ),
        )
    )
    return _joined(head, tail)


def _invalid(generator: random.Random) -> Pair:
    entry, voce, gender = generator.choice(ENTRIES)
    ending = "o" if gender == "m" else "a"
    un = "un" if gender == "m" else "una"
    quel = ("quell'" if voce[0] in "aeiou" else "quel ") if gender == "m" else "quella "
    head = generator.choice(
        (
            (f"that is not a valid {entry}", f"questo non è {un} {voce} valid{ending}"),
            (f"that is not a valid {entry}", f"{quel}{voce} non è valid{ending}"),
            (f"that {entry} is not in use", f"{quel}{voce} non è in uso"),
            (f"that {entry} does not exist", f"{quel}{voce} non esiste"),
            (f"i am sorry that is not a valid {entry}",
             f"spiacente questo non è {un} {voce} valid{ending}"),
            (f"invalid {entry}", f"{voce} non valid{ending}"),
        )
    )  # fmt: skip
    if generator.random() < 0.25:  # the start of a sentence, which a number goes on with
        return generator.choice(
            (
                (f"the {entry} is", f"{_definite(voce, gender)} è"),
                (f"your {entry} is", f"{'il suo' if gender == 'm' else 'la sua'} {voce} è"),
            )
        )
    return _joined(head, generator.choice((("", ""), ("", ""), *WAITING)))


def _statement(generator: random.Random) -> Pair:
    subject, soggetto, gender = generator.choice(SUBJECTS)
    predicate, predicato = generator.choice(PREDICATES)
    head = (
        f"{subject} {predicate}",
        f"{soggetto} {predicato.format(o='o' if gender == 'm' else 'a')}",
    )
    if generator.random() < 0.15:
        head = (f"i am sorry {head[0]}", f"spiacente {head[1]}")
    return _joined(head, generator.choice((("", ""), ("", ""), ("", ""), *WAITING)))


def _counting(generator: random.Random) -> Pair:
    count = generator.choice((*range(2, 21), *range(2, 10), generator.randrange(21, 100)))
    things, cose, gender = generator.choice(COUNTED)
    en, it = number_words(count, "en"), number_words(count, "it")
    primi = "le prime" if gender == "f" else "i primi"
    people, persone = generator.choice(PEOPLE)
    times, tempi = generator.choice(TIMES)
    return generator.choice(
        (
            (f"you have {en} {things}", f"ha {it} {cose}"),
            (f"you have {en} {things}", f"hai {it} {cose}"),
            (f"there are {en} {things}", f"ci sono {it} {cose}"),
            (f"there are currently {en} {things}", f"ci sono al momento {it} {cose}"),
            (f"{en} {things}", f"{it} {cose}"),
            (f"please wait {en} {times}", f"prego attendere {it} {tempi}"),
            (f"there are {en} {people} in the conference",
             f"ci sono {it} {persone} nella conferenza"),
            (f"for more than {en} {times}", f"per più di {it} {tempi}"),
            (f"the first {en} {things}", f"{primi} {it} {cose}"),
        )
    )  # fmt: skip


def _queue(generator: random.Random) -> Pair:
    count = generator.randrange(2, 31)
    en, it = number_words(count, "en"), number_words(count, "it")
    return generator.choice(
        (
            (f"you are number {en} in the queue", f"lei è il numero {it} in coda"),
            (f"your call is number {en} in line", f"la sua chiamata è la numero {it} in coda"),
            (f"the estimated hold time is {en} minutes",
             f"il tempo di attesa stimato è di {it} minuti"),
            (f"the waiting time is about {en} minutes",
             f"il tempo di attesa è di circa {it} minuti"),
            (f"there are {en} callers before you", f"ci sono {it} chiamanti prima di lei"),
            (f"your call will be answered in {en} minutes",
             f"la sua chiamata avrà risposta tra {it} minuti"),
            (f"message number {en}", f"messaggio numero {it}"),
            (f"message {en}", f"messaggio {it}"),
            (f"folder {en}", f"cartella {it}"),
            (f"extension {en}", f"interno {it}"),
            (f"option {en}", f"opzione {it}"),
            (f"line {en}", f"linea {it}"),
            (f"channel {en}", f"canale {it}"),
            (f"conference number {en}", f"conferenza numero {it}"),
            (f"room {en}", f"stanza {it}"),
        )
    )  # fmt: skip


def _number(generator: random.Random) -> Pair:
    if generator.random() < 0.5:
        digits = [generator.randrange(10) for _ in range(generator.randrange(2, 8))]
        en = " ".join(number_words(digit, "en") for digit in digits)
        it = " ".join(number_words(digit, "it") for digit in digits)
    else:
        number = generator.choice((generator.randrange(100), generator.randrange(100, 3000)))
        en, it = number_words(number, "en"), number_words(number, "it")
    return generator.choice(
        (
            (en, it),
            (f"the number is {en}", f"il numero è {it}"),
            (f"extension {en}", f"interno {it}"),
            (f"you dialed {en}", f"ha composto {it}"),
            (f"dial {en}", f"componi {it}"),
            (f"calling {en}", f"chiamata a {it}"),
            (f"your number is {en}", f"il suo numero è {it}"),
        )
    )


def _date(generator: random.Random) -> Pair:
    (day, giorno), (month, mese) = generator.choice(DAYS), generator.choice(MONTHS)
    date, hour = generator.randrange(2, 29), generator.randrange(2, 13)
    en_date, it_date = number_words(date, "en"), number_words(date, "it")
    en_hour, it_hour = number_words(hour, "en"), number_words(hour, "it")
    any_day, ogni_giorno = generator.choice((*DAYS, *RELATIVE_DAYS))
    past, passato = generator.choice((*DAYS, *RELATIVE_DAYS[:2]))
    return generator.choice(
        (
            (f"{day} {month} {en_date}", f"{giorno} {it_date} {mese}"),
            (f"{month} {en_date}", f"{it_date} {mese}"),
            (f"{any_day} at {en_hour}", f"{ogni_giorno} alle {it_hour}"),
            (f"at {en_hour} o'clock", f"alle ore {it_hour}"),
            (f"received {past} at {en_hour}", f"ricevuto {passato} alle {it_hour}"),
            (
                f"message received on {month} {en_date}",
                f"messaggio ricevuto {_definite(it_date, 'm')} {mese}",
            ),
            (f"the time is {en_hour}", f"sono le ore {it_hour}"),
            (any_day, ogni_giorno),
            (month, mese),
        )
    )


def _tone(generator: random.Random) -> Pair:
    action, azione = generator.choice(ACTIONS)
    signal, segnale = generator.choice(
        (
            ("after the tone", "dopo il segnale acustico"),
            ("after the beep", "dopo il bip"),
            ("at the tone", "al segnale acustico"),
        )
    )
    tone = generator.choice(
        (
            (signal, segnale),
            ("when you are done", "quando ha finito"),
            ("when you are finished", "al termine"),
            ("at any time", "in qualsiasi momento"),
        )
    )
    key, tasto = generator.choice(KEYS)
    return generator.choice(
        (
            (f"{tone[0]} press {key}", f"{tone[1]} premere {tasto}"),
            (f"{tone[0]} press {key} to {action}", f"{tone[1]} premere {tasto} per {azione}"),
            (f"say your name {signal}", f"dire il suo nome {segnale}"),
            (f"please leave your message {signal}",
             f"prego lasciare il suo messaggio {segnale}"),
            (f"you can press {key} {tone[0]} to {action}",
             f"può premere {tasto} {tone[1]} per {azione}"),
        )
    )  # fmt: skip


def _ability(generator: random.Random) -> Pair:
    action, azione = generator.choice(ACTIONS)
    return generator.choice(
        (
            (f"you can {action}", f"può {azione}"),
            (f"you can now {action}", f"ora può {azione}"),
            (f"you cannot {action}", f"non può {azione}"),
            (f"you cannot {action} at this time", f"al momento non può {azione}"),
            (f"please wait to {action}", f"prego attendere per {azione}"),
            (f"it is not possible to {action}", f"non è possibile {azione}"),
            (f"do you want to {action}", f"vuole {azione}"),
            (f"if you want to {action} press one", f"se desidera {azione} premere uno"),
            (f"you have to {action}", f"deve {azione}"),
        )
    )


def _letters(generator: random.Random) -> Pair:
    count = generator.randrange(2, 6)
    en, it = number_words(count, "en"), number_words(count, "it")
    key = generator.randrange(2, 10)
    letter = generator.choice(LETTERS)
    return generator.choice(
        (
            (f"please enter the first {en} letters of the name",
             f"prego digitare le prime {it} lettere del nome"),
            (f"enter the first {en} letters of the last name",
             f"digitare le prime {it} lettere del cognome"),
            (f"using the keypad enter the first {en} letters",
             f"utilizzando la tastiera digitare le prime {it} lettere"),
            (f"use the {number_words(key, 'en')} key for {letter}",
             f"usare il tasto {number_words(key, 'it')} per la lettera {letter}"),
            (f"enter the last {en} digits of the number",
             f"digitare le ultime {it} cifre del numero"),
        )
    )  # fmt: skip


def _joined(first: Pair, second: Pair) -> Pair:
    return f"{first[0]} {second[0]}".strip(), f"{first[1]} {second[1]}".strip()


def _definite(noun: str, gender: str) -> str:
    if noun[0] in "aeiou":
        return f"l'{noun}"
    return f"{'il' if gender == 'm' else 'la'} {noun}"


# Template and how often it is drawn.
TEMPLATES: dict[Callable[[random.Random], Pair], float] = {
    _press: 6.0,
    _menu: 2.0,
    _condition: 1.5,
    _enter: 3.0,
    _invalid: 2.0,
    _statement: 6.0,
    _counting: 1.5,
    _queue: 1.0,
    _number: 1.5,
    _date: 1.0,
    _tone: 2.0,
    _ability: 2.0,
    _letters: 0.5,
}
