// The wall: what a room reads from afar.

import { drawAnnouncement } from "./announcement.js";
import { attr, clock, el, keyed, mark, mean, number, percent, say, sayOr, size, sizeOf, text } from "./dom.js";
import { live } from "./live.js";
import { paint } from "./palette.js";
import { areSame } from "./room.js";

const MOST_EVENTS = 4;
// In more no name has room beside its memory.
const MOST_NAMED_COLUMNS = 4;
const NOTEWORTHY_PART = 0.005;
const at = (id) => document.getElementById(id);
const names = new URLSearchParams(window.location.search).get("names") === "yes";

let devices = [];
let isKnown = false;
let parts = {};
let tick = null;

function drawDevices() {
  const list = at("devices");
  at("devices-none").hidden = devices.length > 0;
  list.hidden = devices.length === 0;
  text(at("devices-none"), say(isKnown ? "wall.no_devices" : "wall.not_looked"));
  const [columns, rows] = gridOf(devices.length);
  mark(list, "named", names && columns <= MOST_NAMED_COLUMNS);
  list.style.setProperty("--columns", columns);
  list.style.setProperty("--rows", rows);
  list.dataset.size = sizeFor(columns, rows);
  keyed(list, devices, {
    key: (device) => device.uuid,
    make: () =>
      el(
        "li",
        { class: "card device" },
        el("div", { class: "top" }, el("h2"), el("span", { class: "flags bad" }), el("span", { class: "busy number" })),
        el("div", { class: "track memory", "aria-hidden": "true" }),
        names ? el("ul", { class: "plain legend" }) : null,
        el("p", { class: "figures" }, el("span", { class: "used number" }), el("span", { class: "heat number" }), el("span", { class: "power number" })),
      ),
    update: drawDevice,
    always: true,
  });
}

// How many devices at most stand in so many columns of a wide screen.
const GRIDS = [
  [1, 1],
  [2, 2],
  [3, 3],
  [4, 2],
  [6, 3],
  [8, 4],
  [9, 3],
  [16, 4],
];

function gridOf(count) {
  const [, columns] = GRIDS.find(([most]) => count <= most) ?? [count, 8];
  return [columns, Math.max(1, Math.ceil(count / columns))];
}

function sizeFor(columns, rows) {
  if (columns <= 2) return "large";
  // So narrow a card has no room for all figures, however high it is.
  if (columns > MOST_NAMED_COLUMNS) return "tiny";
  return rows <= 2 ? "medium" : "small";
}

function drawDevice(card, device) {
  text(card.querySelector("h2"), say("wall.device", { label: device.label }));
  const flag = device.lost ? "lost" : device.drained ? "drained" : "";
  text(card.querySelector(".flags"), flag ? say(`wall.device_${flag}`) : "");
  mark(card, "out", flag);
  drawReadings(card, device);
}

/** Split the bar: what no process explains comes last, and is nobody's. */
function drawParts(card, device, memory) {
  const told = parts[device.uuid] ?? [];
  const rest = (memory ?? 0) - told.reduce((sum, part) => sum + part.bytes, 0);
  const segments = told.map((part, index) => ({ ...part, index }));
  if (rest > NOTEWORTHY_PART * device.memory_total_bytes) {
    segments.push({ bytes: rest, over: false, user: "", index: "rest" });
  }
  keyed(card.querySelector(".memory"), segments, {
    key: (part) => part.index,
    make: () => el("div", { class: "part" }),
    update: (node, part) => {
      // Without names every part has its colour by its place.
      paint(node, colourOf(part));
      mark(node, "over", part.over);
      const width = `${Math.min(100, (100 * part.bytes) / device.memory_total_bytes).toFixed(2)}%`;
      if (node.style.width !== width) node.style.width = width;
      text(node, part.user);
      attr(node, "title", names ? nameOf(part) : null);
    },
  });
  if (names) drawLegend(card.querySelector(".legend"), segments);
}

function colourOf({ index, user }) {
  return index === "rest" || (names && !user) ? undefined : index;
}

function nameOf({ user }) {
  return user || say("wall.nobodys");
}

/** Say whose the parts are, and how much; nobody's together. */
function drawLegend(list, segments) {
  const lines = new Map();
  for (const part of segments) {
    const bytes = part.bytes + (lines.get(part.user)?.bytes ?? 0);
    lines.set(part.user, { ...part, bytes });
  }
  keyed(list, [...lines.values()], {
    key: (line) => line.user,
    make: () =>
      el(
        "li",
        {},
        el("span", { class: "swatch" }),
        el("span", { class: "name" }),
        el("span", { class: "number size" }),
      ),
    update: (node, line) => {
      const [swatch, name, bytes] = node.children;
      paint(swatch, colourOf(line));
      text(name, nameOf(line));
      text(bytes, size(line.bytes));
    },
  });
}

function drawReadings(card, device) {
  const [memory = null, busy = null, heat = null, power = null] = tick?.devices[devices.indexOf(device)] ?? [];
  text(card.querySelector(".busy"), busy === null ? "" : percent(busy));
  text(card.querySelector(".used"), sizeOf(memory, device.memory_total_bytes));
  text(card.querySelector(".heat"), heat === null ? "" : number(heat, "°C"));
  text(card.querySelector(".power"), power === null ? "" : number(power, "W"));
  drawParts(card, device, memory);
}

function drawTick() {
  devices.forEach((device, index) => {
    const card = at("devices").children[index];
    if (card) drawReadings(card, device);
  });
  let used = 0;
  let all = 0;
  const busy = [];
  let known = 0;
  devices.forEach((device, index) => {
    const [memory, utilisation] = tick?.devices[index] ?? [];
    if (memory === null || memory === undefined) return;
    used += memory;
    all += device.memory_total_bytes;
    if (utilisation !== null) busy.push(utilisation);
    known += 1;
  });
  text(at("total-used"), known ? sizeOf(used, all) : say("common.unknown"));
  text(at("total-busy"), percent(mean(busy)));
}

function drawWall(message) {
  drawAnnouncement(at("announcement"), message.announcement);
  text(at("total-shares"), message.leases);
  text(at("total-waiting"), message.waiting);
  mark(at("total-waiting").parentElement, "wants", message.waiting > 0);
  text(at("total-freed"), size(message.freed_bytes_today));
  keyed(at("events"), message.events.slice(0, MOST_EVENTS), {
    key: (event) => `${event.at} ${event.kind} ${event.bytes}`,
    make: (event) =>
      el(
        "li",
        {},
        el("time", { datetime: new Date(event.at * 1000).toISOString(), text: clock(event.at, { seconds: false }) }),
        el("span", { text: inWords(event) }),
      ),
  });
  at("events-none").hidden = message.events.length > 0;
}

/** Say what happened, and how much memory moved where any did. */
function inWords({ kind, bytes }) {
  const words = sayOr(`events.${kind}`, kind);
  const moved = bytes && /^kernel_(reclaimed|returned)$/.test(kind);
  return moved ? `${words} ${say("wall.size", { size: size(bytes) })}` : words;
}

live(
  "wall",
  {
    devices(message) {
      if (!areSame(devices, message.devices)) tick = null;
      devices = message.devices;
      isKnown = true;
      drawDevices();
    },
    tick(message) {
      tick = message;
      drawTick();
    },
    wall(message) {
      parts = message.devices;
      drawDevices();
      drawWall(message);
    },
  },
  names ? { names: "yes" } : {},
);

const full = at("full-screen");
full.hidden = !document.fullscreenEnabled;
full.addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen();
});
