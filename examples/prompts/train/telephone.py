"""Sentences of telephone systems in English and Italian, made by a small grammar.

The recorded prompts are few: half an hour in each language. Sentences with their words and their
turns of phrase, spoken by synthetic voices, teach a model what such systems say. The phrases were
written for this grammar with the training prompts at hand, and with none of ``dev`` or ``test``;
sentences that come close to those are removed all the same (:mod:`texts`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fbk_xattn.data.prompts_texts import number_words
from fbk_xattn.errors import InputError

Pair = tuple[str, str]

# What callers type: English, Italian, its gender.
ENTRIES = (
    ("extension", "interno", "m"),
    ("extension number", "numero di interno", "m"),
    ("password", "password", "f"),
    ("mailbox number", "numero di casella", "m"),
    ("mailbox", "casella vocale", "f"),
    ("pin number", "codice pin", "m"),
    ("pin", "pin", "m"),
    ("agent number", "numero di operatore", "m"),
    ("conference number", "numero di conferenza", "m"),
    ("phone number", "numero di telefono", "m"),
    ("telephone number", "numero telefonico", "m"),
    ("area code", "prefisso", "m"),
    ("account number", "numero di conto", "m"),
    ("access code", "codice di accesso", "m"),
    ("customer code", "codice cliente", "m"),
    ("order number", "numero di ordine", "m"),
    ("card number", "numero di carta", "m"),
    ("postal code", "codice postale", "m"),
    ("security code", "codice di sicurezza", "m"),
    ("speed dial number", "numero di composizione rapida", "m"),
    ("login", "nome utente", "m"),
    ("number", "numero", "m"),
    ("code", "codice", "m"),
    ("channel number", "numero di canale", "m"),
)

KEYS = (
    *((number_words(n, "en"), number_words(n, "it")) for n in range(10)),
    ("star", "asterisco"),
    ("pound", "cancelletto"),
    ("the star key", "il tasto asterisco"),
    ("the pound key", "il tasto cancelletto"),
    ("any key", "un tasto qualsiasi"),
)

# "to ..." and "per ..."
ACTIONS = (
    ("leave a message", "lasciare un messaggio"),
    ("leave a message after the tone", "lasciare un messaggio dopo il segnale acustico"),
    ("send this message", "inviare questo messaggio"),
    ("send a message", "mandare un messaggio"),
    ("listen to your messages", "ascoltare i suoi messaggi"),
    ("listen to this message", "ascoltare questo messaggio"),
    ("listen to the recording", "ascoltare la registrazione"),
    ("hear the message again", "ascoltare di nuovo il messaggio"),
    ("hear your greeting", "ascoltare il suo messaggio di benvenuto"),
    ("repeat the message", "ripetere il messaggio"),
    ("repeat these options", "ripetere queste opzioni"),
    ("hear these options again", "riascoltare queste opzioni"),
    ("play the next message", "riprodurre il prossimo messaggio"),
    ("play the last message", "riprodurre l'ultimo messaggio"),
    ("play the first message", "riprodurre il primo messaggio"),
    ("skip this message", "saltare questo messaggio"),
    ("delete this message", "cancellare questo messaggio"),
    ("delete all messages", "cancellare tutti i messaggi"),
    ("erase the recording", "eliminare la registrazione"),
    ("erase this greeting", "eliminare questo saluto"),
    ("save this message", "salvare questo messaggio"),
    ("save the recording", "salvare la registrazione"),
    ("keep this recording", "conservare questa registrazione"),
    ("accept this recording", "accettare questa registrazione"),
    ("accept the call", "accettare la chiamata"),
    ("refuse the call", "rifiutare la chiamata"),
    ("record your message", "registrare il suo messaggio"),
    ("record a new greeting", "registrare un nuovo messaggio di benvenuto"),
    ("record your name", "registrare il suo nome"),
    ("record your temporary message", "registrare il suo messaggio provvisorio"),
    ("record this call", "registrare questa chiamata"),
    ("start recording", "iniziare la registrazione"),
    ("stop recording", "terminare la registrazione"),
    ("pause the recording", "mettere in pausa la registrazione"),
    ("go on recording", "continuare la registrazione"),
    ("change your password", "cambiare la password"),
    ("change your name", "cambiare il nome"),
    ("change folders", "cambiare cartella"),
    ("change the language", "cambiare lingua"),
    ("change your options", "cambiare le opzioni"),
    ("mark this message as urgent", "contrassegnare questo messaggio come urgente"),
    ("add another number", "aggiungere un altro numero"),
    ("add a recipient", "aggiungere un destinatario"),
    ("remove a number", "rimuovere un numero"),
    ("remove this entry", "rimuovere questa voce"),
    ("enter a number", "inserire un numero"),
    ("enter another extension", "inserire un altro interno"),
    ("dial another number", "comporre un altro numero"),
    ("dial by name", "chiamare per nome"),
    ("call this person", "chiamare questa persona"),
    ("call back", "richiamare"),
    ("call the office", "chiamare l'ufficio"),
    ("place a call", "effettuare una chiamata"),
    ("transfer the call", "trasferire la chiamata"),
    ("hold the line", "rimanere in linea"),
    ("speak with an operator", "parlare con un operatore"),
    ("speak with a representative", "parlare con un rappresentante"),
    ("speak with sales", "parlare con l'ufficio vendite"),
    ("speak with technical support", "parlare con il supporto tecnico"),
    ("speak in english", "parlare in inglese"),
    ("continue in italian", "continuare in italiano"),
    ("join the conference", "partecipare alla conferenza"),
    ("leave the conference", "lasciare la conferenza"),
    ("lock the conference", "bloccare la conferenza"),
    ("record the conference", "registrare la conferenza"),
    ("end the conference", "terminare la conferenza"),
    ("list the participants", "elencare i partecipanti"),
    ("mute all participants", "disattivare l'audio di tutti i partecipanti"),
    ("mute yourself", "disattivare la sua voce"),
    ("increase the volume", "aumentare il volume"),
    ("decrease the volume", "ridurre il volume"),
    ("raise your volume", "alzare il volume della sua voce"),
    ("turn on call waiting", "attivare l'avviso di chiamata"),
    ("turn off call forwarding", "disattivare l'inoltro di chiamata"),
    ("activate this service", "attivare questo servizio"),
    ("cancel", "annullare"),
    ("cancel the call", "annullare la chiamata"),
    ("confirm", "confermare"),
    ("confirm your choice", "confermare la scelta"),
    ("continue", "continuare"),
    ("try again", "riprovare"),
    ("wait", "attendere"),
    ("exit", "uscire"),
    ("exit this menu", "uscire da questo menù"),
    ("exit without saving", "uscire senza salvare"),
    ("return to the main menu", "tornare al menù principale"),
    ("return to the previous menu", "tornare al menù precedente"),
    ("go to the next folder", "andare alla prossima cartella"),
    ("go back", "tornare indietro"),
    ("move forward", "andare avanti"),
    ("hear the time", "ascoltare l'ora esatta"),
    ("hear the date", "ascoltare la data"),
    ("hear more entries", "ascoltare altre voci"),
    ("use the directory", "utilizzare l'elenco"),
    ("search the directory", "cercare nell'elenco"),
    ("report a problem", "segnalare un problema"),
    ("pay a bill", "pagare una bolletta"),
    ("check your balance", "verificare il credito"),
    ("get help", "ottenere aiuto"),
)

SUBJECTS = (
    ("the person you are calling", "la persona chiamata", "f"),
    ("the number you have dialed", "il numero composto", "m"),
    ("the number", "il numero", "m"),
    ("the extension", "l'interno", "m"),
    ("this extension", "questo interno", "m"),
    ("the line", "la linea", "f"),
    ("your line", "la sua linea", "f"),
    ("the operator", "l'operatore", "m"),
    ("the subscriber", "l'utente", "m"),
    ("the office", "l'ufficio", "m"),
    ("this mailbox", "questa casella vocale", "f"),
    ("the conference", "la conferenza", "f"),
    ("this conference", "questa conferenza", "f"),
    ("the conference room", "la sala conferenze", "f"),
    ("this service", "questo servizio", "m"),
    ("the service", "il servizio", "m"),
    ("the system", "il sistema", "m"),
    ("the channel", "il canale", "m"),
    ("your account", "il suo conto", "m"),
    ("your call", "la sua chiamata", "f"),
    ("the call", "la chiamata", "f"),
    ("your message", "il suo messaggio", "m"),
    ("the message", "il messaggio", "m"),
    ("this message", "questo messaggio", "m"),
    ("your password", "la sua password", "f"),
    ("the password", "la password", "f"),
    ("your greeting", "il suo saluto", "m"),
    ("the recording", "la registrazione", "f"),
    ("call forwarding", "l'inoltro di chiamata", "m"),
    ("call waiting", "l'avviso di chiamata", "m"),
    ("the feature", "la funzione", "f"),
    ("this feature", "questa funzione", "f"),
    ("the leader", "il moderatore", "m"),
    ("the agent", "l'operatore", "m"),
    ("the entry", "la voce", "f"),
    ("the folder", "la cartella", "f"),
    ("the code", "il codice", "m"),
    ("the code you entered", "il codice inserito", "m"),
    ("the password you entered", "la password inserita", "f"),
    ("the fax", "il fax", "m"),
)

# The participle's ending is the subject's: {o}.
PREDICATES = (
    ("is not available", "non è disponibile"),
    ("is not available at this time", "non è al momento disponibile"),
    ("is available", "è disponibile"),
    ("is busy", "è occupat{o}"),
    ("is currently busy", "è al momento occupat{o}"),
    ("is not valid", "non è valid{o}"),
    ("is wrong", "è sbagliat{o}"),
    ("is correct", "è corrett{o}"),
    ("is not correct", "non è corrett{o}"),
    ("is locked", "è bloccat{o}"),
    ("is now locked", "è ora bloccat{o}"),
    ("is not locked", "non è bloccat{o}"),
    ("is closed", "è chius{o}"),
    ("is open", "è apert{o}"),
    ("is empty", "è vuot{o}"),
    ("is active", "è attiv{o}"),
    ("is not active", "non è attiv{o}"),
    ("is now active", "è ora attiv{o}"),
    ("has been activated", "è stat{o} attivat{o}"),
    ("has been deactivated", "è stat{o} disattivat{o}"),
    ("has been enabled", "è stat{o} abilitat{o}"),
    ("has been disabled", "è stat{o} disabilitat{o}"),
    ("has been changed", "è stat{o} cambiat{o}"),
    ("has been saved", "è stat{o} salvat{o}"),
    ("has been deleted", "è stat{o} cancellat{o}"),
    ("has been erased", "è stat{o} eliminat{o}"),
    ("has been sent", "è stat{o} inviat{o}"),
    ("has been recorded", "è stat{o} registrat{o}"),
    ("has been added", "è stat{o} aggiunt{o}"),
    ("has been canceled", "è stat{o} annullat{o}"),
    ("has been transferred", "è stat{o} trasferit{o}"),
    ("has not been saved", "non è stat{o} salvat{o}"),
    ("has not been found", "non è stat{o} trovat{o}"),
    ("has been marked as urgent", "è stat{o} contrassegnat{o} come urgente"),
    ("could not be completed", "non si è potut{o} completare"),
    ("cannot be changed", "non può essere cambiat{o}"),
    ("cannot be reached", "non è raggiungibile"),
    ("cannot be used", "non può essere utilizzat{o}"),
    ("does not exist", "non esiste"),
    ("does not answer", "non risponde"),
    ("is ready", "è pront{o}"),
    ("is required", "è richiest{o}"),
    ("is being recorded", "viene registrat{o}"),
    ("will be recorded", "verrà registrat{o}"),
    ("will be deleted", "verrà cancellat{o}"),
    ("will be answered in a moment", "avrà risposta tra poco"),
    ("will begin shortly", "inizierà tra poco"),
    ("will end soon", "terminerà tra poco"),
    ("has ended", "è terminat{o}"),
    ("is over", "è finit{o}"),
    ("is out of service", "è fuori servizio"),
)

CONDITIONS = (
    ("this is correct", "questo è corretto"),
    ("this is not correct", "questo non è corretto"),
    ("you agree", "è d'accordo"),
    ("you know the extension", "conosce l'interno"),
    ("you do not know the extension", "non conosce l'interno"),
    ("you want to hold", "vuole rimanere in attesa"),
    ("you need help", "ha bisogno di aiuto"),
    ("you are a customer", "è un cliente"),
    ("you want a new number", "desidera un nuovo numero"),
    ("the number is right", "il numero è giusto"),
    ("the line is busy", "la linea è occupata"),
    ("you hear the tone", "sente il segnale acustico"),
    ("you want to leave a message", "desidera lasciare un messaggio"),
    ("you are ready to record", "è pronto a registrare"),
)

# Whole sentences.
SENTENCES = (
    ("please wait", "prego attendere"),
    ("please hold", "attendere prego"),
    ("please hold the line", "rimanga in linea per favore"),
    ("please try again later", "riprovare più tardi"),
    ("please try your call again later", "prego richiamare più tardi"),
    ("please hang up and dial again", "prego riagganciare e comporre di nuovo il numero"),
    ("please check the number", "prego controllare il numero"),
    ("thank you for calling", "grazie per aver chiamato"),
    ("thank you for your call", "grazie per la sua chiamata"),
    ("thank you for your patience", "grazie per la pazienza"),
    ("thank you and goodbye", "grazie e arrivederci"),
    ("goodbye", "arrivederci"),
    ("welcome", "benvenuto"),
    ("welcome to our service", "benvenuto nel nostro servizio"),
    ("welcome to the conference", "benvenuto nella conferenza"),
    ("good morning", "buongiorno"),
    ("good evening", "buonasera"),
    ("our office is closed", "il nostro ufficio è chiuso"),
    ("our offices are now closed", "i nostri uffici sono ora chiusi"),
    ("our office is open from nine to five", "il nostro ufficio è aperto dalle nove alle cinque"),
    ("all operators are busy", "tutti gli operatori sono occupati"),
    ("all our agents are busy", "tutti i nostri operatori sono occupati"),
    ("all lines are busy", "tutte le linee sono occupate"),
    ("an operator will answer you soon", "un operatore le risponderà al più presto"),
    ("your call is important to us", "la sua chiamata è importante per noi"),
    ("i am sorry", "mi dispiace"),
    ("sorry i did not understand", "spiacente non ho capito"),
    ("i did not hear you", "non l'ho sentita"),
    ("i will try again", "proverò di nuovo"),
    ("i will transfer your call", "trasferirò la sua chiamata"),
    ("i will now connect you", "ora la collego"),
    ("please say your name", "prego dire il suo nome"),
    ("please speak after the tone", "prego parlare dopo il segnale acustico"),
    ("no more messages", "nessun altro messaggio"),
    ("you have no messages", "non ha messaggi"),
    ("you have no new messages", "non ci sono nuovi messaggi"),
    ("there are no messages in this folder", "non ci sono messaggi in questa cartella"),
    ("there are no more entries", "non ci sono altre voci"),
    ("end of messages", "fine dei messaggi"),
    ("wrong password", "password errata"),
    ("wrong number", "numero errato"),
    ("not available", "non disponibile"),
    ("you are now in the conference", "ora è nella conferenza"),
    ("you have left the conference", "ha lasciato la conferenza"),
    ("you have entered a wrong number", "ha inserito un numero sbagliato"),
    ("you have not entered a number", "non ha inserito nessun numero"),
    ("you must enter a number", "deve inserire un numero"),
    ("you are the leader of this conference", "lei è il moderatore di questa conferenza"),
    ("you are now listening to the conference", "ora sta ascoltando la conferenza"),
    ("there is nobody in the conference", "non c'è nessuno nella conferenza"),
    ("there is a problem with the line", "c'è un problema con la linea"),
    ("there is no answer", "nessuna risposta"),
    ("the two numbers do not match", "i due numeri non corrispondono"),
    ("the passwords do not match", "le password non corrispondono"),
    ("incoming call", "chiamata in arrivo"),
    ("outgoing call", "chiamata in uscita"),
    ("new message", "nuovo messaggio"),
    ("old message", "vecchio messaggio"),
    ("urgent message", "messaggio urgente"),
    ("next message", "prossimo messaggio"),
    ("last message", "ultimo messaggio"),
    ("first message", "primo messaggio"),
    ("from", "da"),
    ("message from", "messaggio da"),
    ("call from", "chiamata da"),
    ("received", "ricevuto"),
    ("received on", "ricevuto il"),
    ("or", "oppure"),
    ("and", "e"),
    ("then", "poi"),
    ("otherwise", "altrimenti"),
    ("please", "per favore"),
    ("you may now hang up", "ora può riagganciare"),
    ("you can also stay on the line", "può anche rimanere in linea"),
    ("the call is being transferred", "la chiamata viene trasferita"),
    ("the call will now be recorded", "la chiamata verrà ora registrata"),
    ("somebody is calling you", "qualcuno la sta chiamando"),
    ("we cannot complete your call", "non possiamo completare la sua chiamata"),
    ("we apologize for the delay", "ci scusiamo per il ritardo"),
    ("nobody is answering", "nessuno risponde"),
    ("somebody will call you back", "qualcuno la richiamerà"),
    ("your time is up", "il suo tempo è scaduto"),
    ("your credit is too low", "il suo credito è insufficiente"),
    ("to whom do you wish to speak", "con chi desidera parlare"),
    ("remember that number", "ricordi quel numero"),
    ("do not hang up", "non riagganciare"),
    ("is that correct", "è corretto"),
    ("that is right", "è giusto"),
)

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DAYS = (
    ("monday", "lunedì"),
    ("tuesday", "martedì"),
    ("wednesday", "mercoledì"),
    ("thursday", "giovedì"),
    ("friday", "venerdì"),
    ("saturday", "sabato"),
    ("sunday", "domenica"),
)
RELATIVE_DAYS = (("today", "oggi"), ("yesterday", "ieri"), ("tomorrow", "domani"))
MONTHS = tuple(
    zip(
        "january february march april may june july august september october november "
        "december".split(),
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
        "dicembre".split(),
        strict=True,
    )
)
# Things that are counted: English, Italian plural, gender.
COUNTED = (
    ("messages", "messaggi", "m"),
    ("new messages", "nuovi messaggi", "m"),
    ("old messages", "vecchi messaggi", "m"),
    ("urgent messages", "messaggi urgenti", "m"),
    ("calls", "chiamate", "f"),
    ("missed calls", "chiamate perse", "f"),
    ("participants", "partecipanti", "m"),
    ("users", "utenti", "m"),
    ("minutes", "minuti", "m"),
    ("seconds", "secondi", "m"),
    ("hours", "ore", "f"),
    ("days", "giorni", "m"),
    ("entries", "voci", "f"),
    ("numbers", "numeri", "m"),
    ("operators", "operatori", "m"),
    ("callers", "chiamanti", "m"),
    ("lines", "linee", "f"),
    ("folders", "cartelle", "f"),
    ("digits", "cifre", "f"),
    ("letters", "lettere", "f"),
    ("dollars", "dollari", "m"),
    ("euros", "euro", "m"),
)
PEOPLE = (
    ("participants", "partecipanti"),
    ("users", "utenti"),
    ("callers", "chiamanti"),
    ("people", "persone"),
)
TIMES = (
    ("minutes", "minuti"),
    ("seconds", "secondi"),
    ("hours", "ore"),
    ("days", "giorni"),
)
WAITING = (
    ("please wait", "prego attendere"),
    ("please hold the line", "rimanga in linea"),
    ("please try again", "prego riprovare"),
    ("please try again later", "riprovare più tardi"),
    ("please call back", "prego richiamare"),
    ("thank you", "grazie"),
    ("goodbye", "arrivederci"),
)
# Ways to say "press" to somebody who is addressed formally, and to anybody.
FORMAL_PRESS = ("premere", "premere", "prema")
PRESS = (*FORMAL_PRESS, "premi")
POSSESSIVES = frozenset(("suo", "sua", "suoi", "sue"))
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
