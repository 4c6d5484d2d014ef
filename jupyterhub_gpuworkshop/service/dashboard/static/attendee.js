// The attendee's page: what is theirs, drawn from the websocket.

import { drawAnnouncement } from "./announcement.js";
import { PAGE, attr, clock, el, keyed, moment, say, sayOr, size, text } from "./dom.js";
import { live } from "./live.js";
import { drawDevices, drawLoads } from "./my_devices.js";
import { countUp, drawKernels } from "./my_kernels.js";
import { drawShares } from "./my_shares.js";
import { plots } from "./plot.js";

const $ = (id) => document.getElementById(id);
const state = { devices: null, version: null, mine: null, tick: null };

live("attendee", {
  devices(message) {
    state.devices = message.devices;
    state.version = message.version;
    state.tick = null;
    draw();
  },
  mine(message) {
    state.mine = message;
    draw();
  },
  tick(message) {
    // Its readings are those of one list of devices.
    if (message.version !== state.version) return;
    state.tick = message;
    attr($("needed"), "hidden", !message.needed);
    plots.tick(message, state.devices);
    drawLoads(state);
    countUp();
  },
});

$("picker").append(plots.picker());

/** Draw all but what changes each second. Nothing is said before all is known. */
function draw() {
  const { devices, mine } = state;
  if (!devices || !mine) return;
  drawAnnounced(mine.announcement);
  drawNotices(mine.notices.filter((notice) => notice.user === PAGE.user));
  drawShares($("share-list"), mine.leases, devices);
  attr($("no-share"), "hidden", mine.leases.length > 0);
  drawKernels($("kernel-list"), mine.kernels, mine.may);
  drawNoKernel(mine);
  drawProcesses(mine.holders.filter((holder) => holder.kind !== "kernel"));
  drawDevices($("device-list"), state);
  attr($("no-device"), "hidden", devices.length > 0);
  const hasPlots = $("device-list").querySelector("[data-plot]") !== null;
  attr($("picker"), "hidden", !hasPlots);
  text($("devices-title"), say(hasPlots ? "attendee.devices" : "attendee.devices_all"));
  plots(document);
  drawLoads(state);
  drawEvents(mine.events);
}

function drawAnnounced(told) {
  const note = told ? say("attendee.announced", { by: told.by, at: clock(told.at, { seconds: false }) }) : "";
  drawAnnouncement($("announcement"), told?.text, note);
}

function drawNotices(notices) {
  attr($("notices"), "hidden", notices.length === 0);
  keyed($("notice-list"), notices, {
    key: (notice) => notice.id,
    make: (notice) =>
      // "In 2 min" counts from then.
      el(
        "li",
        { class: "banner" },
        el("time", {
          datetime: new Date(notice.given_at * 1000).toISOString(),
          text: clock(notice.given_at),
        }),
        " ",
        el("span"),
      ),
    update: (node, notice) => text(node.lastChild, notice.text),
  });
}

function drawNoKernel({ kernels, leases }) {
  const node = $("no-kernel");
  attr(node, "hidden", kernels.length > 0);
  text(node, say(leases.length ? "attendee.no_kernel" : "attendee.no_server"));
}

function drawProcesses(holders) {
  attr($("processes"), "hidden", holders.length === 0);
  keyed($("process-list"), holders, {
    key: (holder) => `${holder.pid}-${holder.started}/${holder.device}`,
    make: () =>
      el(
        "li",
        {},
        el("code", { class: "command" }),
        el("span", { class: "number" }),
        el("span", { class: "note" }),
      ),
    update(node, holder) {
      const [command, memory, where] = node.children;
      text(command, holder.command || say("attendee.process", { pid: holder.pid }));
      text(memory, size(holder.memory_bytes));
      const kind = sayOr(`attendee.where_${holder.kind}`, holder.kind);
      text(where, say("attendee.process_where", { pid: holder.pid, where: kind }));
    },
  });
}

function drawEvents(events) {
  attr($("no-event"), "hidden", events.length > 0);
  keyed($("event-list"), events, {
    key: (event) => event.id,
    make(event) {
      const about = event.details?.notebook;
      const kind = el("strong", { text: sayOr(`events.${event.kind}`, event.kind) });
      const told = el("p", {}, kind, about ? ` ${nameOf(about)}` : null, `: ${event.reason}`);
      return el("li", {}, moment(event.at), told);
    },
  });
}

function nameOf(notebook) {
  return String(notebook).split("/").at(-1);
}
