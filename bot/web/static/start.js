// Starts Neuroglancer's client on the state that the bot gives. This build of the client takes its state from a Python
// server and tells it of every change: this script stands in for that server. It keeps the state in the page's address,
// so that a view can be kept as a bookmark, and sends nothing to the bot. The first picture is an
// overview, of few chunks; once that is there, or takes too long, what is in view is read in full.
"use strict";

const LONGEST_OVERVIEW = 5000; // milliseconds
const COARSEST = 2 ** 15; // pixels for each voxel, and between annotations: more than any layer's coarsest voxels have
const SCALES = {
  image: ["crossSectionRenderScale"],
  segmentation: ["crossSectionRenderScale"],
  annotation: ["crossSectionAnnotationSpacing", "projectionAnnotationSpacing"],
};
const TARGETS = [
  "sliceViewRenderScaleTarget",
  "annotationCrossSectionRenderScaleTarget",
  "annotationProjectionRenderScaleTarget",
];

async function first(kept) {
  if (kept) return JSON.parse(decodeURIComponent(kept));
  const answer = await fetch("state");
  if (!answer.ok) throw new Error(`The results cannot be shown now (${answer.status}). Load this page again.`);
  const state = await answer.json();
  for (const layer of state.layers) {
    layer.source = `precomputed://${new URL(`chunks/${layer.source}`, location.href)}`;
  }
  return state;
}

// Calls `change(layer, scale)` for each scale that a state's layers may have.
function scales(state, change) {
  for (const layer of state.layers ?? []) {
    for (const scale of SCALES[layer.type] ?? []) change(layer, scale);
  }
}

function refine(started) {
  const viewer = window.viewer;
  const layers = viewer?.layerManager.managedLayers ?? [];
  const shown = layers.length && viewer.isReady();
  if (!shown && performance.now() < started + LONGEST_OVERVIEW) {
    setTimeout(refine, 50, started);
    return;
  }
  performance.mark("overview");
  for (const { layer } of layers) {
    for (const target of TARGETS.map((name) => layer?.[name])) {
      if (target?.value === COARSEST) target.reset();
    }
  }
}

function serve(state) {
  const request = window.fetch.bind(window);
  let generation = 0;
  scales(state, (layer, scale) => (layer[scale] ??= COARSEST));
  window.EventSource = class {
    constructor() {
      setTimeout(() => {
        this.onopen?.();
        this.onmessage?.({ data: JSON.stringify({ k: "s", s: state, g: `${generation}` }) });
        refine(performance.now());
      });
    }
    close() {}
  };
  window.fetch = async (input, init) => {
    if (init?.method !== "POST") return request(input, init);
    const told = JSON.parse(init.body).s;
    if (told) {
      scales(told, (layer, scale) => layer[scale] === COARSEST && delete layer[scale]);
      history.replaceState(null, "", `#!${encodeURIComponent(JSON.stringify(told))}`);
    }
    generation += 1;
    return Response.json({ g: `${generation}` });
  };
}

async function start(names) {
  const kept = location.hash.replace(/^#!?/, "");
  history.replaceState(null, "", location.pathname); // else the client reads it, and does not ask for a state
  serve(await first(kept));
  for (const name of names) {
    const script = document.createElement("script");
    script.src = `../../viewer/${name}`;
    script.async = false;
    document.head.append(script);
  }
}

start(document.currentScript.dataset.client.split(" ")).catch((problem) => {
  document.body.textContent = problem.message;
});
