// The plots: a Bokeh document for each device in sight, fed by the page's websocket.
// The service draws the documents, without data; this sets their columns.

import { PAGE, attr, el, number, percent, say, size } from "./dom.js";
import { now } from "./live.js";

// As drawing.py names them.
export const COLUMNS = ["at", "memory", "area", "busy", "memory_said", "busy_said", "felt"];

const SPANS = {
  minutes: { seconds: 900, step: 1 },
  hour: { seconds: 3600, step: 5 },
  day: { seconds: 24 * 3600, step: 60 },
  event: { seconds: null, step: 900 },
};
const SHORTEST_EVENT_SECONDS = 3600;
const MOST_ALIVE = 16;
const HEIGHT_PIXELS = 180;
const NEAR = "150px";
const MISSED_SECONDS = 20;
const AGAIN_AFTER_SECONDS = 60;
const GIB = 1024 ** 3;
// Else what is said beside the pointer is white, also where all is dark.
const TOOLTIP = `.bk-Tooltip {
  --tooltip-color: var(--card);
  --tooltip-text: var(--text);
  --tooltip-border: var(--edge);
}`;
const NOTHING = { memory: null, busy: null, heat: null, watts: null };

/** Slots by element: each is a place on the page where a plot may be. */
const slots = new Map();
const free = Array.from({ length: MOST_ALIVE }, (_, number) => number);
const known = new Map();
let span = "hour";
let isChosen = false;
let showSpan = () => {};
let script = null;

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const slot = slots.get(target);
      if (slot) slot.isNear = isIntersecting;
    }
    fill();
  },
  { rootMargin: NEAR },
);

document.addEventListener("themechange", () => {
  for (const slot of slots.values()) {
    if (!slot.drawn) continue;
    drop(slot);
  }
  fill();
});

/** Draw the plot of every `[data-plot]` below `root` that comes into sight. */
export function plots(root = document) {
  for (const element of root.querySelectorAll("[data-plot]")) {
    const { plot: uuid } = element.dataset;
    const slot = slots.get(element);
    if (slot?.uuid === uuid) continue;
    if (slot) forget(slot);
    element.style.minHeight = `${HEIGHT_PIXELS}px`;
    slots.set(element, { element, uuid, points: [], turn: 0, isNear: false, number: null });
    observer.observe(element);
  }
  for (const slot of slots.values()) {
    if (!slot.element.isConnected) forget(slot);
  }
}

/** Take a tick in; `devices` is the list that its readings belong to. */
plots.tick = function tick(message, devices) {
  devices.forEach((device, index) => {
    const [memory = null, busy = null, heat = null, watts = null] =
      message.devices[index] ?? [];
    known.set(device.uuid, {
      total: device.memory_total_bytes,
      // An old reading that is told again is no reading of now.
      at: memory === null ? now() : message.at,
      memory,
      busy,
      heat,
      watts,
    });
  });
  for (const slot of slots.values()) {
    if (slot.drawn && slot.isFetched) append(slot);
    else if (slot.failedAt && now() - slot.failedAt > AGAIN_AFTER_SECONDS) retry(slot);
  }
};

/** Return what chooses how far back all plots of the page go. */
plots.picker = function picker() {
  const group = el("div", {
    class: "buttons spans",
    role: "group",
    "aria-label": say("plot.spans"),
  });
  showSpan = () => {
    for (const button of group.children) {
      attr(button, "aria-pressed", String(button.dataset.span === span));
    }
  };
  for (const name of Object.keys(SPANS)) {
    const choose = () => {
      isChosen = true;
      setSpan(name);
    };
    group.append(
      el("button", {
        type: "button",
        text: say(`plot.span_${name}`),
        data: { span: name },
        on: { click: choose },
      }),
    );
  }
  showSpan();
  return group;
};

function setSpan(name) {
  span = name;
  showSpan();
  for (const slot of slots.values()) {
    if (slot.drawn) fetchPast(slot);
  }
}

/** Draw what is near, and let go of what is not where there is no room else. */
function fill() {
  for (const slot of slots.values()) {
    if (!slot.isNear || slot.number !== null || slot.failedAt) continue;
    if (!free.length) {
      const far = [...slots.values()].find((x) => x.number !== null && !x.isNear);
      if (!far) return;
      drop(far);
    }
    slot.number = free.pop();
    draw(slot);
  }
}

async function draw(slot) {
  const turn = (slot.turn += 1);
  const stays = () => turn === slot.turn;
  try {
    const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
    const item = await fetchJson(`plots/device.json?theme=${theme}&slot=${slot.number}`);
    const Bokeh = await bokeh(item.doc.version);
    if (!stays()) return;
    slot.element.replaceChildren();
    attr(slot.element, "role", "img");
    const label = slot.element.dataset.label ?? slot.uuid;
    attr(slot.element, "aria-label", say("plot.label", { label }));
    const views = await Bokeh.embed.embed_item(item, slot.element);
    const [view] = views.roots ?? views;
    if (!stays()) {
      discard(view);
      return;
    }
    const model = (name) => view.model.document.get_model_by_name(name);
    slot.drawn = {
      view,
      source: model("hour"),
      times: model("times"),
      memory: model("memory"),
    };
    await fetchPast(slot);
  } catch (error) {
    if (stays()) fail(slot, error);
  }
}

/** Say in its place that there is no plot; the page goes on. */
function fail(slot, error) {
  console.warn("No plot:", error);
  drop(slot);
  slot.failedAt = now();
  slot.element.replaceChildren(el("p", { class: "note", text: say("plot.none") }));
}

function retry(slot) {
  slot.failedAt = 0;
  fill();
}

/** Let go of a slot's plot; its place stays. */
function drop(slot) {
  slot.turn += 1;
  if (slot.drawn) discard(slot.drawn.view);
  slot.drawn = null;
  slot.isFetched = false;
  if (slot.number !== null) free.push(slot.number);
  slot.number = null;
  attr(slot.element, "role", null);
  attr(slot.element, "aria-label", null);
  slot.element.replaceChildren();
}

function discard(view) {
  const { document: drawn } = view.model;
  const all = window.Bokeh.documents;
  view.remove();
  const place = all.indexOf(drawn);
  if (place >= 0) all.splice(place, 1);
}

function forget(slot) {
  drop(slot);
  observer.unobserve(slot.element);
  slots.delete(slot.element);
}

/** Load BokehJS, once. */
function bokeh(version) {
  script ??= new Promise((resolve, reject) => {
    const source = `${PAGE.prefix}plots/bokeh-${encodeURIComponent(version)}.min.js`;
    const element = el("script", {
      src: source,
      on: {
        load: () => {
          window.Bokeh.set_log_level("error");
          resolve(window.Bokeh);
        },
        error: () => {
          script = null;
          element.remove();
          reject(new Error(`${source} did not load`));
        },
      },
    });
    document.head.append(element, el("style", { text: TOOLTIP }));
  });
  return script;
}

async function fetchJson(path) {
  const answer = await fetch(`${PAGE.prefix}${path}`, {
    credentials: "same-origin",
    // Where a cookie lets in, JupyterHub wants to see that a page of ours asks.
    headers: { Accept: "application/json", "X-XSRFToken": PAGE.xsrf },
  });
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}

/** Fetch what happened before, for the span that is chosen. */
async function fetchPast(slot) {
  const { turn } = slot;
  const wanted = span;
  slot.isFetched = false;
  let points = [];
  let isShort = false;
  try {
    const query = new URLSearchParams({ span: wanted, device: slot.uuid });
    const { devices } = await fetchJson(`api/v1/usage?${query}`);
    points = pointsOf(devices[slot.uuid]);
    isShort = wanted === "hour" && points.length > 0 && !points.some(isOlder);
  } catch (error) {
    // What comes from now on is shown all the same.
    console.warn("No past:", error);
  }
  if (turn !== slot.turn || wanted !== span) return;
  // An hour of which next to nothing is known is a line at the edge.
  if (isShort && !isChosen) {
    setSpan("minutes");
    return;
  }
  slot.points = points;
  slot.isFetched = true;
  append(slot);
  show(slot);
}

function isOlder(point) {
  return point.memory !== null && point.at < now() - SPANS.minutes.seconds;
}

/** Return the service's columns as points; one without memory breaks the line. */
function pointsOf({ at = [], memory_used_bytes: memory, ...more } = {}) {
  return at.map((when, index) => ({
    at: when,
    memory: memory[index],
    busy: more.utilisation?.[index] ?? null,
    heat: more.temperature_celsius?.[index] ?? null,
    watts: more.power_watts?.[index] ?? null,
  }));
}

/** Add the last reading, where it is time for another point. */
function append(slot) {
  const reading = known.get(slot.uuid);
  if (!reading) return;
  const { step } = SPANS[span];
  const last = slot.points.at(-1);
  const passed = last ? reading.at - last.at : Infinity;
  // Ticks come a little early or late.
  if (passed < step - 0.5) return;
  if (last && passed > Math.max(MISSED_SECONDS, 3 * step)) {
    // The line was cut, or the tab hidden: the service knows what was meanwhile.
    const isNew = slot.missedSince !== last.at;
    slot.missedSince = last.at;
    if (isNew) {
      fetchPast(slot);
      return;
    }
    slot.points.push({ ...NOTHING, at: last.at });
  }
  slot.points.push(reading);
  const from = firstShown(slot, reading.at) - step;
  const keep = slot.points.findIndex((point) => point.at >= from);
  if (keep > 0) slot.points.splice(0, keep);
  show(slot);
}

function firstShown(slot, at) {
  const { seconds } = SPANS[span];
  if (seconds !== null) return at - seconds;
  return Math.min(slot.points[0]?.at ?? at, at - SHORTEST_EVENT_SECONDS);
}

/** Set the columns of a plot. */
function show(slot) {
  const { source, times, memory } = slot.drawn;
  const at = now();
  source.data = columnsOf(slot.points);
  times.setv({ start: local(firstShown(slot, at)), end: local(at) });
  const total = known.get(slot.uuid)?.total;
  if (total) memory.setv({ end: total / GIB });
}

/** Return what Bokeh draws: lines break where nothing is known, and areas fall to 0. */
function columnsOf(points) {
  const made = Object.fromEntries(COLUMNS.map((name) => [name, []]));
  const push = (when, memory, area, point) => {
    made.at.push(local(when));
    made.memory.push(memory);
    made.area.push(area);
    made.busy.push(point && point.busy !== null ? point.busy * 100 : NaN);
    made.memory_said.push(point ? say("plot.said_memory", { size: size(point.memory) }) : "");
    made.busy_said.push(point ? say("plot.said_busy", { part: percent(point.busy).trim() }) : "");
    made.felt.push(point ? feltOf(point) : "");
  };
  let last = null;
  for (const point of points) {
    if (point.memory === null) {
      if (last) push(last.at, NaN, 0, null);
      last = null;
      continue;
    }
    if (!last && made.at.length) push(point.at, NaN, 0, null);
    push(point.at, point.memory / GIB, point.memory / GIB, point);
    last = point;
  }
  return made;
}

function feltOf({ heat, watts }) {
  return `${number(heat, "°C")}, ${number(watts, "W")}`;
}

/** Milliseconds that Bokeh, which shows UTC, shows as the time of who looks. */
function local(at) {
  return at * 1000 - new Date(at * 1000).getTimezoneOffset() * 60_000;
}
