// The devices: a card each, with its memory split by attendee.

import { attr, el, keyed, mark, number, percent, say, size, sizeOf, text } from "./dom.js";
import { colours, paint } from "./palette.js";

const COMPACT_FROM = 9;
const NOTEWORTHY_PART = 0.005;
const NOBODY = "\u0000nobody";
const UNEXPLAINED = "\u0000unexplained";

/** Draw the cards; `ask` knows what the buttons do, `look` filters by an attendee. */
export function drawCards(list, room, { ask, look }) {
  const compact = room.devices.length >= COMPACT_FROM;
  mark(list, "compact", compact);
  keyed(list, room.devices, {
    key: (device) => `${device.uuid} ${compact}`,
    make: (device) => makeCard(device, compact, ask),
    update: (card, device) => updateCard(card, device, room, look),
    always: true,
  });
}

function makeCard(device, compact, ask) {
  const title = `device-${device.uuid}`;
  const plot = el("div", { class: "plot", data: { plot: device.uuid, label: device.label } });
  const legend = el("ul", { class: "plain legend" });
  const button = el("button", { type: "button", class: "service" });
  const card = el(
    "li",
    { class: "card device", "aria-labelledby": title },
    el(
      "div",
      { class: "head" },
      el("h3", { id: title, title: device.uuid }),
      el("span", { class: "note model" }),
      el("span", { class: "flags" }),
    ),
    el("div", { class: "track memory", "aria-hidden": "true" }),
    el("div", { class: "track promised", "aria-hidden": "true" }, el("div", { class: "promise" })),
    el(
      "dl",
      { class: "figures" },
      ...figure("memory", say("organiser.memory")),
      ...figure("busy", say("organiser.busy")),
      ...figure("heat", say("organiser.temperature")),
      ...figure("power", say("organiser.power")),
      ...figure("promised", say("organiser.promised")),
    ),
    compact ? null : legend,
    el("p", { class: "bad problem", hidden: true }),
    compact
      ? el("details", {}, el("summary", { text: say("organiser.more_of_it") }), legend, plot)
      : plot,
    el("div", { class: "buttons" }, button),
  );
  card.button = button;
  button.addEventListener("click", () => ask.service(card.device, button));
  return card;
}

function figure(name, label) {
  return [el("div", { class: name }, el("dt", { text: label }), el("dd", { class: "number" }))];
}

function set(card, selector, value) {
  text(card.querySelector(selector), value);
}

function updateCard(card, device, room, look) {
  card.device = device;
  set(card, "h3", say("organiser.device", { label: device.label }));
  set(card, ".model", device.name);
  const out = device.lost ? "lost" : device.drained ? "drained" : "";
  text(card.querySelector(".flags"), out ? say(`organiser.device_${out}`) : "");
  mark(card, "lost", device.lost);
  mark(card, "drained", device.drained);
  const problem = card.querySelector(".problem");
  text(problem, device.problem ?? "");
  problem.hidden = !device.problem || device.lost;
  text(card.button, say(device.drained ? "organiser.take_back" : "organiser.act_take_out"));
  attr(
    card.button,
    "aria-label",
    say(device.drained ? "organiser.take_back_of" : "organiser.take_out_of", {
      label: device.label,
    }),
  );
  card.querySelector(".promise").style.width = share(
    device.promised_bytes,
    device.memory_total_bytes,
  );
  set(
    card,
    ".promised dd",
    say("organiser.promised_to", {
      count: device.leases,
      size: sizeOf(device.promised_bytes, device.memory_total_bytes),
    }),
  );
  updateReadings(card, device, room);
  updateParts(card, device, room, look);
}

function share(bytes, total) {
  return total ? `${Math.min(100, (100 * bytes) / total).toFixed(2)}%` : "0";
}

/** Return a device's readings of the last tick. */
export function readings(room, index) {
  const at = room.tick?.devices[index] ?? [];
  const [memory = null, busy = null, heat = null, power = null] = at;
  return { memory, busy, heat, power };
}

function updateReadings(card, device, room) {
  const now = readings(room, room.devices.indexOf(device));
  set(card, ".memory dd", sizeOf(now.memory, device.memory_total_bytes));
  set(card, ".busy dd", percent(now.busy));
  set(card, ".heat dd", number(now.heat, "°C"));
  set(card, ".power dd", number(now.power, "W"));
}

function updateParts(card, device, room, look) {
  const now = readings(room, room.devices.indexOf(device));
  card.memory = now.memory;
  const people = room.parts(device.uuid);
  const named = people.filter((part) => part.user);
  const numbers = colours(
    device.uuid,
    named.map((part) => part.user),
  );
  const parts = people.map((part) => ({
    ...part,
    key: part.user || NOBODY,
    name: part.user || say("organiser.nobodys"),
    number: part.user ? numbers.get(part.user) : undefined,
  }));
  const explained = people.reduce((sum, part) => sum + (part.bytes ?? 0), 0);
  const rest = now.memory === null ? 0 : Math.max(0, now.memory - explained);
  if (rest > NOTEWORTHY_PART * device.memory_total_bytes) {
    parts.push({
      key: UNEXPLAINED,
      user: "",
      name: say("organiser.unexplained"),
      bytes: rest,
      within: rest,
      over: 0,
    });
  }
  const pieces = parts.flatMap((part) => [
    { ...part, shown: part.within, isOver: false },
    ...(part.over ? [{ ...part, key: `${part.key} over`, shown: part.over, isOver: true }] : []),
  ]);
  keyed(card.querySelector(".memory.track"), pieces.filter((piece) => piece.shown > 0), {
    key: (piece) => piece.key,
    make: () => el("div", { class: "part" }),
    update: (node, piece) => {
      paint(node, piece.number);
      mark(node, "over", piece.isOver);
      const width = share(piece.shown, device.memory_total_bytes);
      if (node.style.width !== width) node.style.width = width;
      text(node, piece.isOver ? "" : piece.name);
      attr(node, "title", `${piece.name}: ${size(piece.bytes)}`);
    },
  });
  keyed(card.querySelector(".legend"), parts, {
    key: (part) => part.key,
    make: (part) =>
      el(
        "li",
        {},
        el("span", { class: "swatch" }),
        part.user
          ? el("button", { type: "button", class: "quiet name", on: { click: () => look(part.user) } })
          : el("span", { class: "name" }),
        el("span", { class: "number size" }),
        el("span", { class: "bad over" }),
      ),
    update: (node, part) => {
      paint(node.querySelector(".swatch"), part.number);
      set(node, ".name", part.name);
      // Nobody's list was read then, which is not the same as nothing.
      set(node, ".size", size(now.memory === null ? null : part.bytes));
      set(node, ".over", part.over ? say("organiser.over", { size: size(part.over) }) : "");
    },
  });
}

/** Draw what a tick has changed, and nothing else. */
export function drawTick(list, room, { look }) {
  room.devices.forEach((device, index) => {
    const card = list.children[index];
    if (card?.device !== device) return;
    updateReadings(card, device, room);
    const { memory } = readings(room, index);
    if (memory !== card.memory) updateParts(card, device, room, look);
  });
}
