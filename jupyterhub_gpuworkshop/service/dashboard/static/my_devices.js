// The devices of an attendee as a whole: what all together use, and the last hour.

import { attr, el, keyed, mark, number, percent, say, size, sizeOf, text } from "./dom.js";
import { width } from "./my_shares.js";

const cards = new Map();

/** Show the devices of one's shares, each with its plot; or all, in short. */
export function drawDevices(parent, { devices, mine }) {
  const own = ownBytes(mine);
  const shown = devices.filter((device) => own.has(device.uuid));
  const isShort = shown.length === 0;
  cards.clear();
  keyed(parent, isShort ? devices : shown, {
    key: (device) => `${device.uuid} ${isShort ? "short" : ""}`,
    make: (device) => makeDevice(device, isShort),
    update(node, device) {
      cards.set(device.uuid, node);
      updateDevice(node, device);
    },
    always: true,
  });
}

/** Show the readings of the last tick. */
export function drawLoads({ devices, mine, tick }) {
  if (!mine || !tick) return;
  const own = ownBytes(mine);
  devices.forEach((device, index) => {
    const node = cards.get(device.uuid);
    const reading = tick.devices[index];
    if (node && reading) updateLoad(node, device, reading, own.has(device.uuid) ? own.get(device.uuid) : 0);
  });
}

/** Return what an attendee uses of each device that a share of theirs is on. */
function ownBytes(mine) {
  const own = new Map();
  for (const lease of mine.leases) {
    for (const { uuid, memory_used_bytes: used } of lease.devices) {
      // What is partly unknown is unknown.
      const before = own.has(uuid) ? own.get(uuid) : 0;
      own.set(uuid, used === null || before === null ? null : before + used);
    }
  }
  return own;
}

function makeDevice(device, isShort) {
  const fact = (name) => {
    const value = el("dd", { class: `number ${name}` });
    return el("div", {}, el("dt", { text: say(`attendee.fact_${name}`) }), value);
  };
  const facts = isShort ? ["busy"] : ["busy", "heat", "power", "leases"];
  return el(
    "article",
    { class: isShort ? "card device short" : "card device" },
    el("h3", {}, el("span"), " ", el("span", { class: "note" })),
    el("p", { class: "figure number" }),
    el(
      "div",
      { class: "track", "aria-hidden": "true" },
      el("div", { class: "part mine" }),
      el("div", { class: "part others" }),
    ),
    isShort ? null : el("p", { class: "note split number" }),
    el("dl", { class: "facts" }, ...facts.map(fact)),
    isShort ? null : el("div", { data: { plot: device.uuid, label: device.label } }),
  );
}

function updateDevice(node, device) {
  const [label, name] = node.querySelector("h3").children;
  text(label, say("attendee.device", { label: device.label }));
  const condition = ["lost", "drained"].find((x) => device[x]);
  text(name, condition ? say(`attendee.device_${condition}`, { name: device.name }) : device.name);
  mark(name, "bad", device.lost);
  const leases = node.querySelector(".leases");
  if (leases) text(leases, device.leases);
}

function updateLoad(node, device, [used, busy, heat, power], own) {
  const total = device.memory_total_bytes;
  text(node.querySelector(".figure"), say("attendee.used_of_all", { used: sizeOf(used, total) }));
  const [mine, others] = node.querySelector(".track").children;
  // One's own is known since the last look at processes, the whole since this second.
  const ownPart = Math.min(own ?? 0, used ?? 0);
  width(mine, ownPart / total);
  width(others, Math.max(0, (used ?? 0) - ownPart) / total);
  // Some of it is one's own, and nobody can say how much.
  mark(others, "anyones", own === null);
  const split = node.querySelector(".split");
  if (split) {
    attr(split, "hidden", used === null);
    text(
      split,
      say("attendee.split", {
        own: size(own === null ? null : ownPart),
        others: size(own === null ? null : (used ?? 0) - ownPart),
        free: size(total - (used ?? 0)),
      }),
    );
  }
  const set = (name, value) => {
    const place = node.querySelector(`.${name}`);
    if (place) text(place, value);
  };
  set("busy", percent(busy).trim());
  set("heat", number(heat, "°C"));
  set("power", number(power, "W"));
}
