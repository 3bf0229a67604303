// Arrays of the page: base64 of zlib of bytes, the first of all elements before the second of any.

const TYPES = { Uint8Array, Uint16Array, Uint32Array, Int16Array, Float32Array };

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Bring the bytes of each element together again.
function interleaved(planes, size) {
  if (size === 1) return planes;
  const n = planes.length / size;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < size; plane++) {
    for (let i = 0; i < n; i++) bytes[i * size + plane] = planes[plane * n + i];
  }
  return bytes;
}

// Sum the differences along the first axis up; typed arrays wrap around as the type does.
function summed(values, shape) {
  const row = values.length / shape[0];
  for (let i = row; i < values.length; i++) values[i] += values[i - row];
  return values;
}

async function unpack(packed) {
  const Type = TYPES[packed.type];
  const bytes = interleaved(await inflate(bytesOf(packed.data)), Type.BYTES_PER_ELEMENT);
  const values = new Type(bytes.buffer, 0, bytes.length / Type.BYTES_PER_ELEMENT);
  return packed.delta && values.length ? summed(values, packed.shape) : values;
}

// Unpack every array in a value of JSON, however deep; everything else stays as it is.
async function unpackAll(value) {
  if (Array.isArray(value)) return Promise.all(value.map(unpackAll));
  if (value === null || typeof value !== "object") return value;
  if (value.type in TYPES) return { shape: value.shape, values: await unpack(value) };
  const names = Object.keys(value);
  const parts = await Promise.all(names.map((name) => unpackAll(value[name])));
  return Object.fromEntries(names.map((name, i) => [name, parts[i]]));
}
