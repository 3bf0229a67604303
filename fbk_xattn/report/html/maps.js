// The maps of an utterance as numbers. A quantised row is low + step * code.

const AVERAGE = -1;
const TARGETS = ["input", "encoder"];

// The tokens of a row: one token, or those of a word.
function tokensOfRow(utterance, rows, row) {
  return rows === "tokens" ? [row, row + 1] : utterance.words[row].slice(0, 2);
}

function rowCount(utterance, rows) {
  return rows === "tokens" ? utterance.tokens.length : utterance.words.length;
}

// Join the values that several tokens have at each place: their mean or their maximum.
function joined(tokens, rows, length, read) {
  const [start, end] = tokens;
  const result = new Float64Array(length);
  const values = new Float64Array(length);
  for (let token = start; token < end; token++) {
    read(token, values);
    for (let i = 0; i < length; i++) {
      if (rows === "max") result[i] = token === start ? values[i] : Math.max(result[i], values[i]);
      else result[i] += values[i] / (end - start);
    }
  }
  return result;
}

function readRow(map, row, length, into) {
  const low = map.low.values[row];
  const step = map.step.values[row];
  const codes = map.codes.values;
  for (let i = 0, at = row * length; i < length; i++, at++) into[i] = low + step * codes[at];
}

// A saliency map at encoder steps, of one row.
function stepsOfRow(utterance, part, rows, row) {
  const length = utterance.steps;
  const read = (token, into) => readRow(utterance.maps[part], token, length, into);
  return joined(tokensOfRow(utterance, rows, row), rows, length, read);
}

// The heads that layer and head leave open, as numbers among all heads of all layers.
function chosenHeads(utterance, layer, head) {
  const [layers, heads] = utterance.attention.codes.shape;
  const chosen = [];
  for (let l = 0; l < layers; l++) {
    for (let h = 0; h < heads; h++) {
      if ((layer === AVERAGE || l === layer) && (head === AVERAGE || h === head)) {
        chosen.push(l * heads + h);
      }
    }
  }
  return chosen;
}

// Cross-attention of one row: heads are averaged, then the tokens of a word joined.
function attentionOfRow(utterance, rows, row, layer, head) {
  const [, , tokens, length] = utterance.attention.codes.shape;
  const chosen = chosenHeads(utterance, layer, head);
  const one = new Float64Array(length);
  const read = (token, into) => {
    into.fill(0);
    for (const number of chosen) {
      readRow(utterance.attention, number * tokens + token, length, one);
      for (let i = 0; i < length; i++) into[i] += one[i] / chosen.length;
    }
  };
  return joined(tokensOfRow(utterance, rows, row), rows, length, read);
}

// How many masks hid each cell, on all levels together. Once for an utterance.
function countsOfCells(cells) {
  const counts = new Float64Array(cells.levels[0].labels.values.length);
  for (const { labels, counts: ofSegments } of cells.levels) {
    for (let i = 0; i < counts.length; i++) counts[i] += ofSegments.values[labels.values[i]];
  }
  return counts;
}

// The input saliency of one token in every cell: the scores of its segments over their counts.
function readCells(utterance, token, into) {
  const { levels, codes, low, step } = utterance.cells;
  const perToken = codes.shape[1];
  let offset = token * perToken;
  into.fill(low.values[token] * levels.length);
  for (const { labels, counts } of levels) {
    const scale = step.values[token];
    for (let i = 0; i < into.length; i++) {
      into[i] += scale * codes.values[offset + labels.values[i]];
    }
    offset += counts.values.length;
  }
  const counts = utterance.counts;
  for (let i = 0; i < into.length; i++) into[i] = counts[i] > 0 ? into[i] / counts[i] : 0;
}

// Input saliency of one row, (frames, mels) one frame after another.
function cellsOfRow(utterance, rows, row) {
  const length = utterance.frames * utterance.mels;
  const read = (token, into) => readCells(utterance, token, into);
  return joined(tokensOfRow(utterance, rows, row), rows, length, read);
}

// By how much a cell can differ from the store's: half a step of each of its segments.
function errorOfCell(utterance, rows, row, cell) {
  const [start, end] = tokensOfRow(utterance, rows, row);
  const step = Math.max(...utterance.cells.step.values.slice(start, end));
  const count = utterance.counts[cell];
  return count > 0 ? (utterance.cells.levels.length * step) / 2 / count : 0;
}

function limitsOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low < high ? [low, high] : [low, low + 1];
}

// Correlation of cross-attention with a saliency map, NaN where undefined or not there.
function correlationOfRow(utterance, target, rows, row, layer, head) {
  const found = utterance.correlations[rows][target];
  if (!found) return NaN;
  const { shape, values } = found.rows;
  const value = values[(at(layer, shape[0]) * shape[1] + at(head, shape[1])) * shape[2] + row];
  return value === settings.undefined ? NaN : value / settings.correlationSteps;
}

function correlationOfAll(utterance, target, rows, layer, head) {
  const found = utterance.correlations[rows][target];
  if (!found) return NaN;
  const { shape, values } = found.overall;
  return values[at(layer, shape[0]) * shape[1] + at(head, shape[1])];
}

// The saliency maps that correlate with cross-attention here.
function targetsOf(utterance) {
  return TARGETS.filter((target) => target in utterance.correlations.tokens);
}

// Whether the utterance was saved with a part.
function hasPart(utterance, part) {
  return part === "attention" ? Boolean(utterance.attention) : part in utterance.maps;
}

// Averages are the last row and the last column.
function at(number, size) {
  return number === AVERAGE ? size - 1 : number;
}
