// Starts Neuroglancer's client on the state that the bot gives. This build of the client takes its state from a Python
// server and tells it of every change: this script stands in for that server. It keeps the state in the page's address,
// so that a view can be kept as a bookmark, and sends nothing to the bot. The first picture is an
// overview, of few chunks; once that is there, or takes too long, what is in view is read in full.
"use strict";

const LONGEST_OVERVIEW = 5000; // milliseconds
let overview = false;

async function first(kept) {
  if (kept) return JSON.parse(decodeURIComponent(kept));
  const answer = await fetch("state");
  if (!answer.ok) throw new Error(`The results cannot be shown now (${answer.status}). Load this page again.`);
  const state = await answer.json();
  for (const layer of state.layers) {
    layer.source = `precomputed://${new URL(`chunks/${layer.source}`, location.href)}`;
  }
  overview = true;
  return state;
}

function refine(started) {
  const viewer = window.viewer;
  const layers = viewer?.layerManager.managedLayers ?? [];
  const shown = layers.length && viewer.isReady();
  if (!shown && performance.now() < started + LONGEST_OVERVIEW) {
    setTimeout(refine, 50, started);
    return;
  }
  overview = false;
  performance.mark("overview");
  for (const { layer } of layers) {
    if (layer?.sliceViewRenderScaleTarget) layer.sliceViewRenderScaleTarget.value = 1;
  }
}

function serve(state) {
  const request = window.fetch.bind(window);
  let generation = 0;
  window.EventSource = class {
    constructor() {
      setTimeout(() => {
        this.onopen?.();
        this.onmessage?.({ data: JSON.stringify({ k: "s", s: state, g: `${generation}` }) });
        if (overview) refine(performance.now());
      });
    }
    close() {}
  };
  window.fetch = async (input, init) => {
    if (init?.method !== "POST") return request(input, init);
    const told = JSON.parse(init.body).s;
    if (told && !overview) history.replaceState(null, "", `#!${encodeURIComponent(JSON.stringify(told))}`);
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
