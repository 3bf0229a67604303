// Drawing on canvases. Time runs to the right, frequency upwards.

const SECONDS_PER_FRAME = 0.01;
const TICKS_HZ = [100, 250, 500, 1000, 2000, 4000, 7000];

// How much of the saliency's colour covers the spectrogram's grey: the more salient, the more.
function opacityOf(style, share) {
  if (style === "saliency") return 1;
  return style === "overlay" ? share ** 1.5 : 0;
}

// For each of 256 shares of the greatest saliency its opacity and its colour.
function coverOf(style, colours) {
  const cover = new Float64Array(256 * 4);
  for (let i = 0; i < 256; i++) {
    const opacity = opacityOf(style, i / 255);
    cover[i * 4] = 1 - opacity;
    for (let channel = 0; channel < 3; channel++) {
      cover[i * 4 + 1 + channel] = opacity * colours[i * 3 + channel];
    }
  }
  return cover;
}

// The picture of all cells, one pixel each, low frequencies at the bottom.
function pictureOf(utterance, saliency, style, limits, colours) {
  const { frames, mels } = utterance;
  const spectrogram = utterance.spectrogram.codes.values;
  const cover = coverOf(style, colours);
  const image = new ImageData(frames, mels);
  const pixels = image.data;
  const scale = 255 / (limits[1] - limits[0]);
  for (let bin = 0; bin < mels; bin++) {
    let i = (mels - 1 - bin) * frames * 4;
    for (let cell = bin; cell < saliency.length; cell += mels, i += 4) {
      const share = Math.round((saliency[cell] - limits[0]) * scale);
      const at = Math.min(255, Math.max(0, share)) * 4;
      const grey = (12 + spectrogram[cell] * 2.6) * cover[at];
      pixels[i] = grey + cover[at + 1];
      pixels[i + 1] = grey + cover[at + 2];
      pixels[i + 2] = grey + cover[at + 3];
      pixels[i + 3] = 255;
    }
  }
  return image;
}

// Give a canvas as many pixels as it covers on the screen.
function sized(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return canvas.getContext("2d");
}

// The picture is as wide as the canvas, or wider by a factor.
function drawPicture(canvas, image, wider = 1) {
  const context = sized(canvas);
  const offscreen = document.createElement("canvas");
  offscreen.width = image.width;
  offscreen.height = image.height;
  offscreen.getContext("2d").putImageData(image, 0, 0);
  // Cells stay cells where there is room; many frames in one pixel are averaged.
  context.imageSmoothingEnabled = canvas.width < image.width;
  context.imageSmoothingQuality = "high";
  context.drawImage(offscreen, 0, 0, canvas.width * wider, canvas.height);
}

// A step for each encoder step: filled from the bottom, with a line on top.
function drawSteps(canvas, utterance, values, limits) {
  const context = sized(canvas);
  const { width, height } = canvas;
  const [low, high] = limits;
  const pad = 3 * (window.devicePixelRatio || 1);
  const x = (step) => (Math.min(step * utterance.framesPerStep, utterance.frames) / utterance.frames) * width;
  const y = (value) => height - ((value - low) / (high - low)) * (height - pad);
  context.clearRect(0, 0, width, height);
  context.beginPath();
  context.moveTo(0, height);
  for (let step = 0; step < values.length; step++) {
    context.lineTo(x(step), y(values[step]));
    context.lineTo(x(step + 1), y(values[step]));
  }
  context.lineTo(width, height);
  const colour = getComputedStyle(canvas).color;
  context.globalAlpha = 0.28;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
  context.strokeStyle = colour;
  context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
  context.lineJoin = "round";
  context.stroke();
}

function clearCanvas(canvas) {
  const context = sized(canvas);
  context.clearRect(0, 0, canvas.width, canvas.height);
}

function drawRamp(canvas, colours) {
  const context = canvas.getContext("2d");
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    image.data.set([...colours.slice(i * 3, i * 3 + 3), 255], i * 4);
  }
  context.putImageData(image, 0, 0);
}

// Seconds between ticks so that these stand at least 60 px apart.
function tickSeconds(seconds, width) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60];
  return steps.find((step) => (step / seconds) * width >= 60) ?? 120;
}

function label(text, style, name) {
  const element = document.createElement("span");
  element.textContent = text;
  element.className = name ?? "";
  Object.assign(element.style, style);
  return element;
}

function drawTimeAxis(axis, utterance, width) {
  const seconds = utterance.frames * SECONDS_PER_FRAME;
  const step = tickSeconds(seconds, width);
  const ticks = [];
  for (let n = 0; n * step < seconds - step * 0.3; n++) {
    const text = `${Number((n * step).toFixed(1))}${n === 0 ? " s" : ""}`;
    ticks.push(label(text, { left: `${((n * step) / seconds) * 100}%` }));
  }
  ticks.push(label(`${seconds.toFixed(2)} s`, { right: "0" }, "end"));
  axis.replaceChildren(...ticks);
}

// Where a frequency is on an axis of mel bins, counted in bins from 0; null outside of them.
function binOfHz(hz, wanted) {
  const above = hz.findIndex((centre) => centre >= wanted);
  if (above <= 0) return null;
  return above - 1 + (wanted - hz[above - 1]) / (hz[above] - hz[above - 1]);
}

function drawFrequencyAxis(axis, utterance) {
  const ticks = [];
  for (const wanted of TICKS_HZ) {
    const bin = binOfHz(utterance.hz, wanted);
    if (bin === null) continue;
    const text = wanted < 1000 ? `${wanted}` : `${wanted / 1000} k`;
    ticks.push(label(text, { bottom: `${((bin + 0.5) / utterance.mels) * 100}%` }));
  }
  axis.replaceChildren(label("Hz", { top: "0" }, "unit"), ...ticks);
}

function drawValueAxis(axis, limits) {
  const [low, high] = limits;
  axis.replaceChildren(
    label(short(high), { top: "0" }, "first"),
    label(short(low), { bottom: "0" }, "last"),
  );
}

// A number in three digits that count.
function short(value) {
  if (!Number.isFinite(value)) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size < 0.001 || size >= 10000 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
