// One map of all tokens or words: a row each, over the time axis of the others.

const ALL_PARTS = ["attention", "encoder", "input"];
const HIGHEST_MAP = 420; // pixels

function partOfAll() {
  const there = ALL_PARTS.filter((part) => hasPart(view.utterance, part));
  const wanted = element("all").value;
  return there.includes(wanted) ? wanted : there[0];
}

function rowHeight(rows) {
  return Math.max(2, Math.min(15, HIGHEST_MAP / rows));
}

// One pixel a row and encoder step, coloured within its row or within the whole map.
function pictureOfAll(values, steps, scale, colours) {
  const image = new ImageData(steps, values.length);
  const whole = limitsOf(values.flatMap((row) => limitsOf(row)));
  values.forEach((row, number) => {
    const [low, high] = scale === "row" ? limitsOf(row) : whole;
    row.forEach((value, step) => {
      const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
      const colour = Math.round(share * 255) * 3;
      image.data.set([...colours.slice(colour, colour + 3), 255], (number * steps + step) * 4);
    });
  });
  return image;
}

function drawAll() {
  const { utterance, buttons, rows, scale } = view;
  const part = partOfAll();
  const isShown = part !== undefined && buttons.length > 0;
  element("all-track").hidden = !isShown;
  view.all = null;
  if (!isShown) return;
  element("all").value = part;
  for (const option of element("all").options) option.disabled = !hasPart(utterance, option.value);
  view.all = buttons.map((_, row) => stripValues(part, row));
  const canvas = element("all-map");
  const height = rowHeight(buttons.length);
  canvas.style.height = `${height * buttons.length}px`;
  const image = pictureOfAll(view.all, utterance.steps, scale, settings.palette);
  // The last step may reach beyond the last frame, where the canvas ends.
  drawPicture(canvas, image, (utterance.steps * utterance.framesPerStep) / utterance.frames);
  const kind = rows === "tokens" ? "tokens" : "words";
  const scaled = scale === "row" ? "each from its own least to its own greatest value" : "on one scale";
  element("all-note").textContent = `of all ${kind}, ${scaled}`;
  canvas.setAttribute("aria-label", `${settings.names[part === "attention" ? "cross-attention" : part]} ${element("all-note").textContent}; a row for each of ${buttons.length} ${kind}, over time.`);
  labelRows(height);
  markRow();
}

function labelRows(height) {
  const texts = view.buttons.map((button) => button.firstChild.textContent);
  const every = Math.ceil(11 / height);
  const labels = texts.map((text, row) => label(text, { top: `${((row + 0.5) / texts.length) * 100}%` }));
  element("all-axis").replaceChildren(...labels.filter((_, row) => row % every === 0));
}

function markRow() {
  if (!view.all) return;
  Object.assign(element("all-mark").style, {
    top: `${(view.row / view.all.length) * 100}%`,
    height: `${100 / view.all.length}%`,
  });
}

function wireAll() {
  const canvas = element("all-map");
  element("all").addEventListener("change", drawAll);
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * view.all.length);
    view.held = Math.min(view.all.length - 1, Math.max(0, row));
    showRow(view.held);
  });
  canvas.addEventListener("pointermove", (event) => readCell(cellAt(event)[0], view.cell?.[1] ?? 0));
}
