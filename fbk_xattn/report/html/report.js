// Start of the page: what its controls do.

const settings = JSON.parse(document.getElementById("settings").textContent);
settings.palette = bytesOf(settings.colours);

const THEMES = ["light dark", "light", "dark"];
const THEME_WORDS = { "light dark": "as the system has them", light: "light", dark: "dark" };

function wireTheme() {
  const button = element("theme");
  const root = document.documentElement;
  button.addEventListener("click", () => {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.style.colorScheme || "light dark";
    // The first click changes what is seen, whatever the system has.
    const order = isDark ? ["light dark", "light", "dark"] : ["light dark", "dark", "light"];
    root.style.colorScheme = order[(order.indexOf(now) + 1) % THEMES.length];
    button.setAttribute("aria-label", `Colours: ${THEME_WORDS[root.style.colorScheme]}`);
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function wireTokens() {
  const box = element("tokens");
  const buttonAt = (event) => event.target.closest?.(".token");
  const show = (button) => showRow(Number(button.dataset.row));
  box.addEventListener("pointerover", (event) => {
    const button = buttonAt(event);
    if (button && event.pointerType !== "touch" && view.held === null && !button.classList.contains("shown")) show(button);
  });
  box.addEventListener("focusin", (event) => {
    const button = buttonAt(event);
    if (button && view.held === null) show(button);
  });
  box.addEventListener("click", (event) => {
    const button = buttonAt(event);
    if (!button) return;
    const row = Number(button.dataset.row);
    view.held = view.held === row ? null : row;
    showRow(row);
  });
  box.addEventListener("keydown", (event) => {
    const button = buttonAt(event);
    if (!button) return;
    const rightToLeft = getComputedStyle(box).direction === "rtl";
    if (moveFocus(view.buttons, Number(button.dataset.row), event.key, rightToLeft)) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || view.held === null) return;
    view.held = null;
    showRow(view.row);
  });
}

function wireControls() {
  const wire = (id, apply) => element(id).addEventListener("change", (event) => apply(event.target.value));
  wire("layer", (value) => { view.layer = Number(value); showHeads(); });
  wire("head", (value) => { view.head = Number(value); showHeads(); });
  wire("rows", (value) => { view.rows = value; view.row = 0; showRows(); });
  wire("style", (value) => { view.style = value; drawCells(); });
  wire("scale", (value) => { view.scale = value; drawCells(); drawAll(); });
  wire("zoom", (value) => { element("tracks").style.setProperty("--zoom", value); redraw(); });
  for (const [id, distance] of [["previous", -1], ["next", 1]]) {
    element(id).addEventListener("click", () => {
      const index = neighbour(element("table"), view.index, distance);
      if (index !== null) goTo(index);
    });
  }
}

// Frame and bin under the pointer.
function cellAt(event) {
  const box = element("cells").getBoundingClientRect();
  const frame = Math.floor(((event.clientX - box.left) / box.width) * view.utterance.frames);
  const bin = Math.floor(((box.bottom - event.clientY) / box.height) * view.utterance.mels);
  return [frame, bin];
}

const MOVES = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function wireReading() {
  const plot = element("cells-plot");
  plot.addEventListener("pointermove", (event) => readCell(...cellAt(event)));
  for (const strip of document.querySelectorAll(".strip")) {
    strip.addEventListener("pointermove", (event) => readCell(cellAt(event)[0], view.cell?.[1] ?? 0));
    strip.addEventListener("click", (event) => seek(cellAt(event)[0] * SECONDS_PER_FRAME));
  }
  plot.addEventListener("click", (event) => seek(cellAt(event)[0] * SECONDS_PER_FRAME));
  plot.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const [frame, bin] = view.cell ?? [0, 0];
    const times = view.cell === null ? 0 : event.shiftKey ? 10 : 1;
    readCell(frame + move[0] * times, bin + move[1] * times);
  });
}

function showPlayer() {
  const box = element("player");
  const { audio } = view.utterance;
  element("cursor").hidden = true;
  if (!audio) {
    const about = label(settings.withAudio ? "No audio: the utterance is in none of the manifests that were given." : "No audio in this page (--audio with --manifest puts it in).", {}, "absent");
    box.replaceChildren(about);
    return;
  }
  const player = document.createElement("audio");
  player.controls = true;
  player.src = audio;
  for (const name of ["timeupdate", "seeked"]) player.addEventListener(name, () => placeCursor(player));
  player.addEventListener("play", () => followAudio(player));
  box.replaceChildren(player);
}

function placeCursor(player) {
  const seconds = view.utterance.frames * SECONDS_PER_FRAME;
  const share = Math.min(1, player.currentTime / seconds);
  element("cursor").hidden = false;
  element("cursor").style.setProperty("--share", share);
}

function followAudio(player) {
  if (!player.isConnected) return;
  placeCursor(player);
  if (!player.paused) requestAnimationFrame(() => followAudio(player));
}

function seek(seconds) {
  const player = element("player").querySelector("audio");
  if (!player) return;
  player.currentTime = seconds;
  player.play();
}

const addressOf = (id) => `#id=${encodeURIComponent(id)}`;

function goTo(index) {
  history.replaceState(null, "", addressOf(settings.ids[index]));
  return openUtterance(index);
}

// The utterance that the address names, or else the first.
function indexOfAddress() {
  const index = settings.ids.findIndex((id) => location.hash === addressOf(id));
  return Math.max(0, index);
}

function wireTableRows() {
  element("table").tBodies[0].addEventListener("click", async (event) => {
    const row = event.target.closest("tr");
    if (!row || String(getSelection())) return;
    await goTo(Number(row.dataset.index));
    element("utterance").scrollIntoView();
    if (event.target.closest("button")) element("utterance").focus({ preventScroll: true });
  });
  element("filter").addEventListener("input", markInTable);
  element("table").tHead.addEventListener("click", markInTable);
}

async function start() {
  wireTheme();
  wireTable(element("table"), element("filter"), element("shown"));
  wireTableRows();
  wireTokens();
  wireControls();
  wireReading();
  wireAll();
  drawRamp(element("ramp"), settings.palette);
  view.rows = settings.rows;
  if (!settings.ids.length) return;
  await openUtterance(indexOfAddress());
  new ResizeObserver(redraw).observe(element("tracks"));
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#id=")) openUtterance(indexOfAddress());
  });
  document.documentElement.dataset.ready = "true";
}

start();
