// The tokens or words of an utterance as buttons, each over a strip of its correlations.

const WORD_START = "\u2581";

function tokenButton(text, row, probability) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "token";
  button.dataset.row = row;
  button.tabIndex = row === 0 ? 0 : -1;
  button.setAttribute("aria-pressed", "false");
  const word = document.createElement("span");
  word.className = "word";
  word.append(...markedText(text));
  button.append(word, ...TARGETS.map(stripOf));
  if (probability !== undefined) button.dataset.probability = probability;
  return button;
}

// The mark of a word's start is there to be seen, but is no letter.
function markedText(text) {
  if (!text.startsWith(WORD_START)) return [text];
  return [label(WORD_START, {}, "start"), text.slice(WORD_START.length)];
}

function stripOf(target) {
  const strip = document.createElement("span");
  strip.className = `r ${target}`;
  return strip;
}

function buildTokens(box, utterance, rows) {
  const texts = rows === "tokens" ? utterance.tokens : utterance.words.map((word) => word[2]);
  const probabilities = rows === "tokens" ? utterance.probabilities : [];
  const buttons = texts.map((text, row) => tokenButton(text || WORD_START, row, probabilities[row]));
  box.replaceChildren(...buttons);
  if (!buttons.length) {
    const nothing = document.createElement("p");
    nothing.className = "absent";
    nothing.textContent = "The hypothesis has no token besides language tag and end of sentence.";
    box.append(nothing);
  }
  return buttons;
}

// Tint the strips: the correlation's size is the strength of the colour, its sign the hue.
function tintTokens(buttons, utterance, rows, layer, head) {
  buttons.forEach((button, row) => {
    const said = [];
    TARGETS.forEach((target, number) => {
      const r = correlationOfRow(utterance, target, rows, row, layer, head);
      const strip = button.children[number + 1];
      strip.hidden = !targetsOf(utterance).includes(target);
      strip.dataset.r = Number.isNaN(r) ? "" : r;
      strip.style.setProperty("--share", Number.isNaN(r) ? 0 : Math.abs(r));
      strip.classList.toggle("minus", r < 0);
      strip.classList.toggle("undefined", Number.isNaN(r));
      if (!strip.hidden) {
        said.push(`correlation with ${settings.names[target]} ${Number.isNaN(r) ? "undefined" : r.toFixed(3)}`);
      }
    });
    const p = button.dataset.probability;
    if (p !== undefined) said.push(`probability ${p}`);
    const text = button.firstChild.textContent;
    button.title = [text, ...said].join("\n");
    button.setAttribute("aria-label", [text, ...said].join(", "));
  });
}

// Arrow keys move along the tokens, of which Tab enters one.
function moveFocus(buttons, from, key, rightToLeft) {
  const forward = rightToLeft ? "ArrowLeft" : "ArrowRight";
  const backward = rightToLeft ? "ArrowRight" : "ArrowLeft";
  const targets = { [forward]: from + 1, [backward]: from - 1, Home: 0, End: buttons.length - 1 };
  if (!(key in targets)) return false;
  buttons[Math.min(buttons.length - 1, Math.max(0, targets[key]))].focus();
  return true;
}
