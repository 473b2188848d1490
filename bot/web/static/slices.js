// Looks through a box's sections on the results page, without WebGL: reads Neuroglancer's precomputed layers as they
// lie in the results folder, in parts, and draws them on a canvas. Arrays here have the axes x, y, z.
"use strict";

const NEAR_NM = 300; // a synapse is marked in sections that lie so near to its centre; a circle has this radius
const MOST_CHUNKS = 96; // chunks that are kept
const WINDOW = 16384; // bytes of the table that are read at once
const PATIENCE = 8; // requests until one that the bot puts off is given up
const COLOURS = ["#ffe650", "#50e1ff", "#ebebeb", "#ff8c3c"]; // of circles, by class, as in the preview
const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, int32: Int32Array,
  float32: Float32Array, uint64: BigUint64Array, int64: BigInt64Array,
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// A file's bytes [from, to), fewer at its end, and the file's size; null where there is no such file.
async function part(url, from, to) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await fetch(url, { headers: { Range: `bytes=${from}-${to - 1}` } });
    if (answer.ok) {
      const size = Number((answer.headers.get("Content-Range") ?? "").split("/")[1] ?? to);
      return { content: await answer.arrayBuffer(), size };
    }
    if (answer.status === 404) return null;
    if (answer.status !== 503 || attempt === PATIENCE) throw new Error(`the bot answers ${answer.status}`);
    await new Promise((resolve) => setTimeout(resolve, 250 * attempt));
  }
}

async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the bot answers ${answer.status}`);
  return answer.json();
}

function gunzipped(content) {
  return new Response(new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// Chunks by number, in the format neuroglancer_uint64_sharded_v1 with identity as its hash.
class Sharded {
  constructor(url, sharding) {
    this.url = url;
    this.sharding = sharding;
    this.indices = new Map();
  }

  // A chunk's content; null where it is not stored.
  async chunk(number) {
    const { preshift_bits: preshift, minishard_bits: bits, shard_bits: shard, data_encoding: encoding } = this.sharding;
    const group = Math.floor(number / 2 ** preshift);
    const file = Math.floor(group / 2 ** bits).toString(16).padStart(Math.max(1, Math.ceil(shard / 4)), "0");
    const url = `${this.url}/${file}.shard`;
    if (!this.indices.has(group)) this.indices.set(group, this.index(url, group % 2 ** bits, 16 * 2 ** bits));
    const place = (await this.indices.get(group)).get(number);
    if (!place) return null;
    const found = await part(url, place.from, place.to);
    return found && (encoding === "gzip" ? gunzipped(found.content) : found.content);
  }

  async index(url, minishard, first) {
    const places = new Map();
    const head = await part(url, 16 * minishard, 16 * minishard + 16);
    if (!head) return places;
    const [from, to] = [...new BigUint64Array(head.content)].map((place) => first + Number(place));
    if (from === to) return places;
    const packed = await part(url, from, to);
    const encoding = this.sharding.minishard_index_encoding;
    const said = new BigUint64Array(encoding === "gzip" ? await gunzipped(packed.content) : packed.content);
    const count = said.length / 3;
    for (let i = 0, number = 0, end = first; i < count; i += 1) {
      number += Number(said[i]);
      const start = end + Number(said[count + i]);
      end = start + Number(said[2 * count + i]);
      places.set(number, { from: start, to: end });
    }
    return places;
  }
}

// The compressed Morton code of a cell within a grid.
function morton(cell, grid) {
  let code = 0;
  for (let bit = 0, out = 1; grid.some((side) => 2 ** bit < side); bit += 1) {
    grid.forEach((side, axis) => {
      if (2 ** bit < side) {
        if (Math.floor(cell[axis] / 2 ** bit) % 2) code += out;
        out *= 2;
      }
    });
  }
  return code;
}

// One channel, in the finest resolution of at most `most` pixels a side.
class Channel {
  constructor(layer, info, most) {
    const fits = info.scales.find((scale) => Math.max(scale.size[0], scale.size[1]) <= most);
    this.scale = fits ?? info.scales.at(-1);
    this.layer = layer;
    this.type = ARRAYS[info.data_type];
    this.side = this.scale.chunk_sizes[0];
    this.grid = this.scale.size.map((size, axis) => Math.ceil(size / this.side[axis]));
    this.factor = this.scale.resolution.map((nm, axis) => nm / info.scales[0].resolution[axis]);
    this.store = new Sharded(`${layer.url}/${this.scale.key}`, this.scale.sharding);
    this.chunks = new Map();
  }

  // Calls `draw(values, offset, wide, high, left, top)` for each chunk of the section that shows voxel z.
  async section(z, draw) {
    const place = clamp(
      Math.floor(z / this.factor[2]) - this.scale.voxel_offset[2], 0, this.scale.size[2] - 1);
    const deep = Math.floor(place / this.side[2]);
    const all = [];
    for (let y = 0; y < this.grid[1]; y += 1) {
      for (let x = 0; x < this.grid[0]; x += 1) {
        const [wide, high] = [x, y].map((cell, axis) =>
          Math.min(this.side[axis], this.scale.size[axis] - cell * this.side[axis]));
        const offset = (place - deep * this.side[2]) * wide * high;
        all.push(this.values([x, y, deep]).then((values) => {
          if (values) draw(values, offset, wide, high, x * this.side[0], y * this.side[1]);
        }));
      }
    }
    await Promise.all(all);
  }

  values(cell) {
    const number = morton(cell, this.grid);
    const known = this.chunks.get(number) ??
      this.store.chunk(number).then((content) => content && new this.type(content));
    known.catch(() => this.chunks.delete(number));
    this.chunks.delete(number);
    this.chunks.set(number, known); // the last in the map is the last that was used
    if (this.chunks.size > MOST_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
    return known;
  }
}

// The synapses of the first level: all, or a sample of many.
async function synapses(url) {
  const info = await json(`${url}/info`);
  const level = info.spatial[0];
  const content = await new Sharded(`${url}/${level.key}`, level.sharding).chunk(0);
  if (!content) return { points: [], all: true };
  const view = new DataView(content);
  const count = Number(view.getBigUint64(0, true));
  const size = 4 * (3 + info.properties.length);
  const kind = info.properties.findIndex((property) => property.id === "class");
  const points = Array.from({ length: count }, (_, i) => {
    const at = 8 + i * size;
    const number = (k) => view.getFloat32(at + 4 * k, true);
    const id = Number(view.getBigUint64(8 + count * size + 8 * i, true));
    return { id, x: number(0), y: number(1), z: number(2), kind: kind < 0 ? 0 : number(3 + kind) };
  });
  return { points, all: info.spatial.length === 1 };
}

// The values in a line of a CSV file.
function cells(line) {
  return [...`${line},`.matchAll(/("(?:[^"]|"")*"|[^,]*),/g)].map((found) =>
    found[1].replace(/^"|"$/g, "").replaceAll('""', '"'));
}

// Column and value of the row with that id; null where there is none. Rows are in the order of their ids.
async function row(url, id) {
  const bytes = new TextDecoder("latin1"); // a character is a byte
  const first = await part(url, 0, WINDOW);
  const end = bytes.decode(first.content).indexOf("\n") + 1;
  const names = cells(new TextDecoder().decode(first.content.slice(0, end - 1)));
  let [low, high] = [end, first.size]; // the row lies in these bytes, and `low` begins a row
  while (low < high) {
    const from = high - low <= WINDOW ? low : Math.floor((low + high) / 2);
    const said = await part(url, from, from + WINDOW);
    const text = bytes.decode(said.content);
    const begin = from === low ? 0 : text.indexOf("\n") + 1;
    const stop = text.lastIndexOf("\n") + 1;
    if (begin >= stop) return null; // no row is so long
    const last = text.lastIndexOf("\n", stop - 2) + 1;
    if (id < Number.parseInt(text.slice(begin), 10)) {
      high = from;
    } else if (id > Number.parseInt(text.slice(Math.max(begin, last)), 10)) {
      low = from + stop;
    } else {
      const place = id === Number.parseInt(text.slice(begin), 10) ? begin : text.indexOf(`\n${id},`, begin - 1) + 1;
      const values = cells(new TextDecoder().decode(said.content.slice(place, text.indexOf("\n", place))));
      return values.map((value, column) => [names[column], value]);
    }
  }
  return null;
}

class Slices {
  constructor(section, scene) {
    this.section = section;
    this.scene = scene;
    this.z = Math.round(scene.at[0]);
    this.first = scene.start[0];
    this.last = scene.start[0] + scene.shape[0] - 1;
    this.picture = section.querySelector("canvas");
    this.marks = section.querySelectorAll("canvas")[1];
    this.slider = section.querySelector("input[type=range]");
    this.said = section.querySelector("output");
    this.found = section.querySelector("dl");
    this.points = [];
    this.drawing = 0;
  }

  async start() {
    const most = innerWidth < 700 ? 512 : 1024;
    const infos = await Promise.all(this.scene.layers.map((layer) => json(`${layer.url}/info`)));
    this.channels = this.scene.layers.map((layer, i) => new Channel(layer, infos[i], most));
    const scale = this.channels[0].scale;
    [this.picture.width, this.picture.height] = scale.size;
    this.picture.style.aspectRatio = (scale.size[0] * scale.resolution[0]) / (scale.size[1] * scale.resolution[1]);
    this.boxes = [...this.section.querySelectorAll("input[type=checkbox]")];
    this.section.hidden = false;
    this.listen();
    await this.show(this.z);
    if (this.scene.synapses) {
      const found = await synapses(this.scene.synapses);
      this.points = found.points;
      if (!found.all) this.section.querySelector(".sample").hidden = false;
    }
    this.mark();
  }

  listen() {
    const stage = this.picture.parentElement;
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.boxes.forEach((box) => box.addEventListener("change", () => this.show(this.z)));
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 8, PageDown: -8 }[event.key];
      const to = { Home: this.first, End: this.last }[event.key] ?? (step && this.z + step);
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.show(to);
    });
    let turned = 0;
    stage.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // a pinch
      turned += event.deltaMode ? Math.sign(event.deltaY) * 40 : event.deltaY;
      const steps = Math.trunc(turned / 40);
      if (steps && this.z === clamp(this.z + steps, this.first, this.last)) {
        turned = 0;
        return; // at an end, the page is scrolled
      }
      event.preventDefault();
      turned -= steps * 40;
      if (steps) this.show(this.z + steps);
    }, { passive: false });
    let held = null;
    stage.addEventListener("pointerdown", (event) => {
      held = { x: event.clientX, z: this.z, moved: false };
    });
    stage.addEventListener("pointermove", (event) => {
      if (!held || event.pointerType === "mouse") return;
      const steps = Math.trunc((event.clientX - held.x) / 16);
      held.moved ||= steps !== 0;
      if (held.moved) this.show(held.z + steps);
    });
    stage.addEventListener("pointerup", (event) => {
      if (held && !held.moved) this.pick(event);
      held = null;
    });
    stage.addEventListener("pointercancel", () => { held = null; });
    new ResizeObserver(() => this.mark()).observe(this.picture);
  }

  // Shows a section. Of sections that are asked for in a row, the last is drawn.
  async show(z) {
    this.z = clamp(z, this.first, this.last);
    this.slider.value = this.z;
    this.said.textContent = `Section ${this.z} of ${this.first} to ${this.last}`;
    this.mark();
    const turn = ++this.drawing;
    const { width, height } = this.picture;
    const light = new Float32Array(width * height * 3);
    try {
      await Promise.all(this.channels.map((channel, i) => this.boxes[i].checked && channel.section(this.z,
        (values, offset, wide, high, left, top) => {
          const { low, full, color } = channel.layer;
          for (let y = 0; y < high; y += 1) {
            for (let x = 0; x < wide; x += 1) {
              const bright = clamp((Number(values[offset + y * wide + x]) - low) / (full - low), 0, 1) * 255;
              const at = ((top + y) * width + left + x) * 3;
              light[at] += bright * color[0];
              light[at + 1] += bright * color[1];
              light[at + 2] += bright * color[2];
            }
          }
        })));
    } catch (problem) {
      this.said.textContent = `This section cannot be shown now: ${problem.message}.`;
      return;
    }
    if (turn !== this.drawing) return;
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i += 1) {
      for (let k = 0; k < 3; k += 1) image.data[4 * i + k] = light[3 * i + k];
      image.data[4 * i + 3] = 255;
    }
    this.picture.getContext("2d").putImageData(image, 0, 0);
    this.section.dataset.shown = this.z;
  }

  // Where circles are on the screen, in CSS pixels.
  circles() {
    const { start, shape, voxel_nm: nm } = this.scene;
    const zoom = this.picture.clientWidth / shape[2];
    const high = this.picture.clientHeight / shape[1];
    return this.points
      .filter((point) => Math.abs(point.z - 0.5 - this.z) * nm[0] <= NEAR_NM)
      .map((point) => ({
        point,
        x: (point.x - start[2]) * zoom,
        y: (point.y - start[1]) * high,
        radius: Math.max(6, (NEAR_NM / nm[2]) * zoom),
      }));
  }

  mark() {
    const ratio = devicePixelRatio || 1;
    this.marks.width = this.picture.clientWidth * ratio;
    this.marks.height = this.picture.clientHeight * ratio;
    if (!this.boxes.at(-1).checked || !this.scene.synapses) return;
    const pen = this.marks.getContext("2d");
    pen.scale(ratio, ratio);
    for (const { point, x, y, radius } of this.circles()) {
      pen.beginPath();
      pen.lineWidth = point.id === this.picked ? 4 : 2;
      pen.strokeStyle = COLOURS[point.kind % COLOURS.length];
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.stroke();
    }
    this.section.dataset.marked = this.points.length;
  }

  async pick(event) {
    const place = this.picture.getBoundingClientRect();
    const away = ({ x, y }) => Math.hypot(event.clientX - place.left - x, event.clientY - place.top - y);
    const nearest = this.circles().sort((one, other) => away(one) - away(other))[0];
    if (!nearest || away(nearest) > Math.max(nearest.radius, 16) || !this.boxes.at(-1).checked) return;
    this.picked = nearest.point.id;
    this.mark();
    let said;
    try {
      said = await row(this.scene.table, this.picked);
    } catch (problem) {
      this.said.textContent = `The table cannot be read now: ${problem.message}.`;
      return;
    }
    this.found.replaceChildren(...(said ?? [["id", `${nearest.point.id} is not in synapses.csv`]]).map(([name, value]) => {
      const line = document.createElement("div");
      for (const [kind, text] of [["dt", name], ["dd", value]]) {
        line.append(Object.assign(document.createElement(kind), { textContent: text }));
      }
      return line;
    }));
    this.found.hidden = false;
  }
}

const section = document.getElementById("slices");
new Slices(section, JSON.parse(section.dataset.scene)).start().catch((problem) => {
  section.hidden = false;
  section.querySelector("output").textContent = `The sections cannot be shown now: ${problem.message}.`;
});
