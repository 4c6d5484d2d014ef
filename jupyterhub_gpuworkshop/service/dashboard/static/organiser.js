// The organiser's page: takes the messages, and has each part draw what has changed.

import { drawAnnouncement } from "./announcement.js";
import { Asks } from "./asks.js";
import { drawCards, drawTick, readings } from "./cards.js";
import { clock, el, mean, percent, say, sizeOf, text } from "./dom.js";
import { Events } from "./events.js";
import { live, now } from "./live.js";
import { drawNeeds } from "./needs.js";
import { People } from "./people.js";
import { Room } from "./room.js";

const room = new Room();
const at = (id) => document.getElementById(id);
const ask = new Asks(room);
const people = new People(room, ask, now);
const events = new Events(at("events"), room, { more: at("events-more"), none: at("events-none") });
let plots = null;
let picker = null;
let pending = new Set();

events.offerKinds(at("events-kinds"));
at("announce").addEventListener("click", (event) => ask.announce(event.currentTarget));
// Until here it did nothing, and should not have looked as if.
at("announce").disabled = false;

function look(user) {
  people.lookFor(user);
}

const DRAW = {
  devices() {
    drawCards(at("devices"), room, { ask, look });
    const none = at("devices-none");
    none.hidden = room.devices.length > 0 || !room.hasDevices;
    text(none, say("organiser.no_devices", { why: room.whyNone || say("organiser.not_looked") }));
    at("devices-key").hidden = room.devices.length === 0;
    if (picker) picker.hidden = room.devices.length === 0;
    plots?.(at("devices"));
  },
  tick() {
    // The devices may be others since, in the same frame.
    if (!room.tick) return;
    drawTick(at("devices"), room, { look });
    at("needed").hidden = !room.tick.needed || room.devices.length === 0;
    total();
  },
  needs() {
    drawNeeds(at("needs"), at("needs-none"), at("needs-more"), room, { ask, look, people });
  },
  people() {
    people.draw();
  },
  events() {
    events.draw();
  },
  announcement,
};

function total() {
  let used = 0;
  let all = 0;
  const busy = [];
  let known = 0;
  room.devices.forEach((device, index) => {
    const reading = readings(room, index);
    if (reading.memory === null) return;
    used += reading.memory;
    all += device.memory_total_bytes;
    if (reading.busy !== null) busy.push(reading.busy);
    known += 1;
  });
  const words = known
    ? say("organiser.total", { size: sizeOf(used, all), busy: percent(mean(busy)) })
    : "";
  text(at("room-total"), words);
}

function announcement() {
  const told = room.announcement;
  const until = told?.until ? { at: clock(told.until, { seconds: false }), by: told.by } : null;
  const note = until ? say("organiser.announced_until", until) : say("organiser.announced", { by: told?.by });
  drawAnnouncement(at("announcement"), told?.text, note, () => {
    const down = el("button", { type: "button", text: say("organiser.take_down") });
    down.addEventListener("click", () => ask.takeDown(down));
    return down;
  });
}

/** Draw once a frame, however many messages came. */
function draw(...parts) {
  if (!pending.size) requestAnimationFrame(drawPending);
  for (const part of parts) pending.add(part);
}

function drawPending() {
  const parts = pending;
  pending = new Set();
  for (const part of parts) DRAW[part]();
}

live("organiser", {
  devices(message) {
    room.takeDevices(message);
    room.hasDevices = true;
    draw("devices", "needs", "people", "events");
  },
  tick(message) {
    room.tick = message;
    plots?.tick(message, room.devices);
    draw("tick");
  },
  room(message) {
    room.takeRoom(message);
    draw("devices", "needs", "people", "events", "announcement");
  },
});

// What only time changes: how long something has been idle.
setInterval(() => {
  if (!document.hidden) people.age();
}, 1000);

import("./plot.js").then(
  (module) => {
    plots = module.plots;
    picker = plots.picker();
    at("devices-title").after(picker);
    draw("devices");
  },
  () => {
    // Without plots the figures are there still.
  },
);
