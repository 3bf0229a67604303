// The utterance that is looked at: its state, and everything that is drawn of it.

const view = {
  index: -1,
  utterance: null,
  buttons: [],
  row: 0,
  held: null,
  rows: "tokens",
  layer: AVERAGE,
  head: AVERAGE,
  style: "overlay",
  scale: "row",
  saliency: null, // of the row, at every cell
  cell: null, // frame and bin that are read
  all: null, // rows of the map of all tokens
};

const element = (id) => document.getElementById(id);

async function openUtterance(index) {
  const opened = await unpackAll(JSON.parse(element(`utterance-${index}`).textContent));
  if (opened.cells) opened.counts = countsOfCells(opened.cells);
  Object.assign(view, { index, utterance: opened, row: 0, held: null, cell: null });
  showTexts();
  showPlayer();
  showRows();
  markInTable();
}

function showTexts() {
  const row = element("table").querySelector(`tr[data-index="${view.index}"]`);
  const { utterance } = view;
  element("utterance-title").textContent = utterance.id;
  element("hypothesis").textContent = row.cells[3].textContent || "(empty)";
  element("reference").textContent = row.cells[4].textContent || "(empty)";
  element("transcript").textContent = utterance.transcript || "(empty)";
  element("transcript-row").hidden = row.cells[1].textContent.startsWith("ASR");
  view.scores = [
    row.cells[1].textContent,
    `${(utterance.frames * SECONDS_PER_FRAME).toFixed(2)} s`,
    row.cells[5].dataset.value && `WER ${row.cells[5].textContent} %`,
    row.cells[6].dataset.value && `BLEU ${row.cells[6].textContent}`,
  ];
}

function showFacts() {
  const { utterance, rows, layer, head } = view;
  const found = targetsOf(utterance).map((target) => {
    const r = correlationOfAll(utterance, target, rows, layer, head);
    return `r ${target} ${Number.isNaN(r) ? "undefined" : r.toFixed(3)}`;
  });
  const chips = [...view.scores, ...found].filter(Boolean).map((text) => label(text, {}, "chip"));
  element("facts").replaceChildren(...chips);
}

function markInTable() {
  for (const row of element("table").tBodies[0].rows) {
    const isOpen = Number(row.dataset.index) === view.index;
    row.classList.toggle("open", isOpen);
    if (isOpen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  for (const [id, distance] of [["previous", -1], ["next", 1]]) {
    element(id).disabled = neighbour(element("table"), view.index, distance) === null;
  }
}

// Other rows: new buttons.
function showRows() {
  view.buttons = buildTokens(element("tokens"), view.utterance, view.rows);
  view.row = Math.min(view.row, Math.max(0, view.buttons.length - 1));
  view.held = null;
  showHeads();
}

// Another layer or head: new correlations.
function showHeads() {
  const { utterance, rows, layer, head } = view;
  tintTokens(view.buttons, utterance, rows, layer, head);
  const there = targetsOf(utterance);
  const kind = rows === "tokens" ? "token" : "word";
  element("tokens-about").textContent = there.length
    ? `Strips under each ${kind}: its correlation of ${settings.names["cross-attention"]} (${headsInWords()}) with ` +
      there.map((target) => settings.names[target]).join(" above ") +
      "; blue is positive, orange negative, pale near 0, hatched undefined."
    : "No correlations: cross-attention and a saliency map are needed for them.";
  showFacts();
  showRow(view.row);
  drawAll();
}

function headsInWords() {
  const { layer, head } = view;
  if (layer === AVERAGE && head === AVERAGE) return "mean over all layers and heads";
  const layers = layer === AVERAGE ? "mean over layers" : `layer ${layer + 1}`;
  const heads = head === AVERAGE ? "mean over heads" : `head ${head + 1}`;
  return `${layers}, ${heads}`;
}

// Another row: new maps.
function showRow(row) {
  view.row = row;
  view.buttons.forEach((button, number) => {
    button.classList.toggle("shown", number === row);
    button.tabIndex = number === row ? 0 : -1;
    button.setAttribute("aria-pressed", String(number === view.held));
  });
  drawCells();
  drawStrips();
  markRow();
  showReading();
}

function rowText() {
  return view.buttons.length ? view.buttons[view.row].firstChild.textContent : "";
}

function drawCells() {
  const { utterance, rows, row, style, scale } = view;
  const hasCells = Boolean(utterance.cells) && view.buttons.length > 0;
  view.saliency = hasCells ? cellsOfRow(utterance, rows, row) : null;
  const saliency = view.saliency ?? new Float64Array(utterance.frames * utterance.mels);
  view.limits = hasCells && scale === "utterance" ? utterance.range : limitsOf(saliency);
  const shown = hasCells ? style : "spectrogram";
  const image = pictureOf(utterance, saliency, shown, view.limits, settings.palette);
  drawPicture(element("cells"), image);
  element("cells").setAttribute("aria-label", cellsInWords(hasCells));
  element("cells-title").textContent = cellsTitle(hasCells);
  element("legend").hidden = shown === "spectrogram";
  element("legend-low").textContent = short(view.limits[0]);
  element("legend-high").textContent = short(view.limits[1]);
  drawFrequencyAxis(element("hz"), utterance);
  drawTimeAxis(element("time"), utterance, element("time").clientWidth);
}

function cellsTitle(hasCells) {
  if (hasCells) return `Input saliency of “${rowText()}”`;
  return view.utterance.cells ? "Log-mel spectrogram" : `Log-mel spectrogram; input saliency ${settings.absent.input}`;
}

function cellsInWords(hasCells) {
  const { utterance, saliency } = view;
  const seconds = (utterance.frames * SECONDS_PER_FRAME).toFixed(2);
  if (!hasCells) return `Log-mel spectrogram of ${seconds} s. Input saliency is not shown.`;
  let best = 0;
  for (let i = 1; i < saliency.length; i++) if (saliency[i] > saliency[best]) best = i;
  const frame = Math.floor(best / utterance.mels);
  const hz = Math.round(utterance.hz[best % utterance.mels]);
  return (
    `Input saliency of ${rowText()} over the log-mel spectrogram of ${seconds} s: greatest, ` +
    `${short(saliency[best])}, at ${(frame * SECONDS_PER_FRAME).toFixed(2)} s and ${hz} Hz.`
  );
}

function stripValues(part, row) {
  const { utterance, rows, layer, head } = view;
  if (!hasPart(utterance, part) || !view.buttons.length) return null;
  if (part === "attention") return attentionOfRow(utterance, rows, row, layer, head);
  return stepsOfRow(utterance, part, rows, row);
}

function drawStrips() {
  view.strips = {};
  for (const part of ["input", "encoder", "attention"]) {
    const values = stripValues(part, view.row);
    const missing = !hasPart(view.utterance, part);
    view.strips[part] = values;
    element(`${part}-track`).classList.toggle("missing", missing);
    element(`${part}-note`).textContent = missing
      ? settings.absent[part === "attention" ? "cross-attention" : part]
      : part === "attention" ? headsInWords() : "";
    drawStrip(part, values);
  }
}

function drawStrip(part, values) {
  const canvas = element(part);
  if (!values) {
    clearCanvas(canvas);
    element(`${part}-axis`).replaceChildren();
    canvas.setAttribute("aria-label", "nothing to show");
    return;
  }
  const limits = limitsOf(values);
  if (part === "attention") limits[0] = 0; // weights and norms are 0 or more
  drawSteps(canvas, view.utterance, values, limits);
  drawValueAxis(element(`${part}-axis`), limits);
  const best = values.indexOf(Math.max(...values));
  const time = (best * view.utterance.framesPerStep * SECONDS_PER_FRAME).toFixed(2);
  canvas.setAttribute("aria-label", `${element(`${part}-track`).querySelector("h4").textContent.trim()}, of ${rowText()}: greatest, ${short(values[best])}, at ${time} s`);
}

// Read a cell: where it is, and what each map has there.
function readCell(frame, bin) {
  const { utterance } = view;
  const inside = (value, size) => Math.min(size - 1, Math.max(0, value));
  view.cell = [inside(frame, utterance.frames), inside(bin, utterance.mels)];
  showReading();
}

function showReading() {
  const cross = element("cross");
  cross.hidden = element("guide").hidden = view.cell === null;
  if (view.cell === null) return;
  const { utterance, strips } = view;
  const [frame, bin] = view.cell;
  const cell = frame * utterance.mels + bin;
  const step = Math.floor(frame / utterance.framesPerStep);
  element("guide").style.setProperty("--share", (frame + 0.5) / utterance.frames);
  cross.style.left = `${((frame + 0.5) / utterance.frames) * 100}%`;
  cross.style.bottom = `${((bin + 0.5) / utterance.mels) * 100}%`;
  const spectrogram = utterance.spectrogram;
  const grey = spectrogram.low.values[0] + spectrogram.step.values[0] * spectrogram.codes.values[cell];
  const said = [
    `${(frame * SECONDS_PER_FRAME).toFixed(2)} s`,
    `${Math.round(utterance.hz[bin])} Hz`,
    `log-mel ${short(grey)}`,
  ];
  const data = { frame, bin, step, spectrogram: grey };
  if (view.saliency) {
    data.saliency = view.saliency[cell];
    data.error = errorOfCell(utterance, view.rows, view.row, cell);
    said.push(`saliency ${short(data.saliency)} ± ${short(data.error)}`);
  }
  const names = { input: "at its step", encoder: "encoder output", attention: settings.names["cross-attention"] };
  for (const part of Object.keys(names)) {
    if (!strips[part]) continue;
    data[part] = strips[part][step];
    said.push(`${names[part]} ${short(data[part])}`);
  }
  const readout = element("readout");
  for (const name of ["saliency", "error", "input", "encoder", "attention"]) delete readout.dataset[name];
  Object.assign(readout.dataset, data);
  readout.textContent = said.join(" · ");
}

function redraw() {
  if (!view.utterance) return;
  drawCells();
  drawStrips();
  drawAll();
}
