// Embeds two aligned face crops with an exported student, and shows the cosine of their embeddings.
//
// Choose the files, or name them relative to this page: index.html?model=student.onnx&first=a.png&second=b.png

const byId = (id) => document.getElementById(id);
const given = { model: null, first: null, second: null }; // the files, as Blobs
let student = null; // { session, facts }
let turn = 0; // of the latest choice: an older one that ends later shows nothing

for (const name of Object.keys(given)) {
  byId(name).addEventListener("change", (event) => {
    given[name] = event.target.files[0] ?? null;
    if (name === "model") student = null;
    show();
  });
}
start();

async function start() {
  const named = new URLSearchParams(location.search);
  try {
    for (const name of Object.keys(given)) if (named.has(name)) given[name] = await fetchFile(named.get(name));
  } catch (error) {
    return say("failed", error.message);
  }
  await show();
}

async function show() {
  const mine = ++turn;
  byId("result").hidden = true;
  byId("notes").replaceChildren();
  try {
    const missing = [["model", "a student"], ["first", "a first crop"], ["second", "a second crop"]]
      .filter(([name]) => !given[name]).map(([, what]) => what);
    if (given.model && !student) {
      say("working", "Opening the student ...");
      const opened = await openStudent(new Uint8Array(await given.model.arrayBuffer()));
      if (mine !== turn) return;
      student = opened;
    }
    if (missing.length) return say("waiting", `Choose ${missing.join(" and ")}.`);
    say("working", "Embedding ...");
    const begin = performance.now();
    const [first, second] = [await embed("first"), await embed("second")];
    if (mine !== turn) return;
    const value = cosine(first, second);
    document.body.dataset.cosine = value;
    byId("cosine").textContent = value.toFixed(4);
    byId("result").hidden = false;
    showThresholds(value);
    say("done", `Two embeddings of ${first.length} numbers in ${Math.round(performance.now() - begin)} ms.`);
  } catch (error) {
    if (mine === turn) say("failed", error.message);
  }
}

// ---- the student

async function openStudent(bytes) {
  const facts = readFacts(bytes);
  if (!facts) throw new Error("This file says nothing of itself; expected an .onnx that facedistill export wrote.");
  showFacts(facts);
  const ort = await loadRuntime();
  try {
    return { ort, facts, session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
  } catch (error) {
    throw new Error(`ONNX Runtime cannot open the file: ${error.message ?? error}`);
  }
}

async function loadRuntime() {
  try {
    const ort = await import("./ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
    ort.env.wasm.numThreads = 1; // more need headers (COOP and COEP) that a plain server does not send
    return ort;
  } catch {
    throw new Error("onnxruntime-web is not beside this page: run `make browser` and open build/browser.");
  }
}

// What the file says of itself: the entry "facedistill" of its metadata (ModelProto.metadata_props, field 14).
function readFacts(bytes) {
  const text = (part) => new TextDecoder().decode(part);
  for (const entry of fields(bytes, 14)) {
    const [key] = fields(entry, 1), [value] = fields(entry, 2);
    if (key && value && text(key) === "facedistill") return JSON.parse(text(value));
  }
  return null;
}

// The parts of a protocol buffer that have the wanted number and a length.
function* fields(bytes, wanted) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), type = tag % 8;
    if (type === 0) varint();
    else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else if (type === 2) {
      const length = varint();
      if (Math.floor(tag / 8) === wanted) yield bytes.subarray(at, at + length);
      at += length;
    } else throw new Error("This is not an ONNX file.");
  }
}

// ---- the pixels

// The pre-processing, whole: RGB 0..255 in the layout and type of the file. Normalisation is inside the file.
async function embed(name) {
  const { ort, session, facts } = student;
  const size = facts.input.size, area = size * size, nhwc = facts.layout === "nhwc";
  const batch = typeof facts.batch === "number" ? facts.batch : 1;
  const rgba = await pixels(name, size);
  const data = new (facts.pixels === "uint8" ? Uint8Array : Float32Array)(batch * 3 * area);
  for (let i = 0; i < area; i++)
    for (let c = 0; c < 3; c++) data[nhwc ? 3 * i + c : c * area + i] = rgba[4 * i + c];
  const shape = nhwc ? [batch, size, size, 3] : [batch, 3, size, size];
  const image = new ort.Tensor(facts.pixels, data, shape);
  const made = await session.run({ [session.inputNames[0]]: image });
  return Array.from(made[session.outputNames[0]].data.slice(0, facts.embedding_dim));
}

async function pixels(name, size) {
  let image;
  try {
    image = await createImageBitmap(given[name], { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`The ${name} crop is not an image that this browser can read.`);
  }
  const { width, height } = image;
  if (width !== height) throw new Error(`The ${name} crop has ${width} x ${height} pixels; expected a square, aligned face.`);
  if (width !== size) note(`The ${name} crop was resized from ${width} to ${size} pixels. Another resize gives another cosine.`);
  const canvas = byId(`${name}-crop`), context = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = canvas.height = size;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, size, size);
  return context.getImageData(0, 0, size, size).data;
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

async function fetchFile(path) {
  const url = new URL(path, location.href);
  if (url.origin !== location.origin) throw new Error(`${path}: expected a file of this page's own server.`);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return answer.blob();
}

// ---- what a person sees

function say(state, text) {
  byId("status").textContent = text;
  document.body.dataset.state = state; // starting, waiting, working, done, failed
}

function note(text) {
  const item = document.createElement("li");
  item.textContent = text;
  byId("notes").append(item);
}

function row(body, ...cells) {
  const line = document.createElement("tr");
  for (const cell of cells) line.append(Object.assign(document.createElement("td"), { textContent: cell }));
  body.append(line);
}

function showFacts(facts) {
  const body = byId("facts"), { size } = facts.input;
  body.replaceChildren();
  row(body, "input", `${size} x ${size}, RGB 0..255, ${facts.pixels}, ${facts.layout}, batch ${facts.batch}`);
  row(body, "embedding", `${facts.embedding_dim} numbers${facts.normalise ? " of unit length" : ""}`);
  row(body, "precision", facts.precision);
  row(body, "space", facts.space);
  row(body, "model", facts.model);
  row(body, "licence", facts.licence);
  byId("thresholds").replaceChildren();
  byId("about").hidden = false;
}

// A threshold holds for the models and the flip that it was measured with. This page compares the student with itself,
// and adds no mirror images.
function showThresholds(value) {
  const { facts } = student, body = byId("thresholds");
  body.replaceChildren();
  for (const t of facts.thresholds) {
    const own = t.probe === facts.model && t.gallery === facts.model;
    const what = own ? "student with itself" : "student with another model's gallery";
    const decided = own && t.flip === "none" ? (value >= t.value ? "one person" : "two people") : "does not apply";
    row(body, t.far.toExponential(), t.value.toFixed(4), what, t.flip, decided);
  }
  if (!facts.thresholds.length) row(body, "none measured: facedistill evaluate --flip none --save-threshold", "", "", "", "");
}
