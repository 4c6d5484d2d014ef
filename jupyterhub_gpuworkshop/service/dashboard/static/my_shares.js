// The shares of an attendee: how much, how much of it is used, and what limits it.

import { act, url } from "./act.js";
import { PAGE, attr, clock, el, keyed, mark, say, size, sizeOf, text } from "./dom.js";

/** Show each lease as a card. */
export function drawShares(parent, leases, devices) {
  const known = new Map(devices.map((device) => [device.uuid, device]));
  keyed(parent, leases, {
    key: (lease) => lease.id,
    make: makeShare,
    update: (card, lease) => updateShare(card, lease, known, leases.length > 1),
    always: true,
  });
}

function makeShare(lease) {
  const stop = el("button", {
    type: "button",
    class: "danger",
    text: say(lease.devices.length ? "attendee.stop" : "attendee.stop_cpu"),
    on: { click: () => askToStop(lease, stop) },
  });
  return el(
    "article",
    { class: "card share" },
    el("h3", { class: "server" }),
    el("div", { class: "stack parts" }),
    el("p", { class: "none" }),
    el("ul", { class: "plain warnings" }),
    el("p", { class: "note granted" }),
    limitsOf(),
    el("div", { class: "buttons" }, el("a", { class: "button open" }), stop),
  );
}

function updateShare(card, lease, known, areSeveral) {
  const part = (name) => card.querySelector(`.${name}`);
  const server = lease.server || say("attendee.server_default");
  text(part("server"), say("attendee.server", { server }));
  attr(part("server"), "hidden", !areSeveral && !lease.server);
  const open = part("open");
  text(open, say("attendee.open"));
  const path = ["user", lease.user, lease.server].filter(Boolean).map(encodeURIComponent);
  attr(open, "href", `${PAGE.hub}${path.join("/")}`);
  attr(part("none"), "hidden", lease.devices.length > 0);
  text(part("none"), say("attendee.cpu"));
  keyed(part("parts"), lease.devices, {
    key: (device) => device.uuid,
    make: makePart,
    update: (node, device) => updatePart(node, device, known.get(device.uuid), lease),
    always: true,
  });
  keyed(part("warnings"), warningsOf(lease), {
    key: ({ name }) => name,
    make: ({ name }) => el("li", { class: name }),
    update: (node, { said }) => text(node, said),
  });
  text(
    part("granted"),
    say("attendee.granted", {
      share: lease.share,
      at: clock(lease.granted_at, { seconds: false }),
      peak: size(lease.peak_memory_bytes),
    }),
  );
  attr(part("granted"), "hidden", lease.devices.length === 0);
  updateLimits(part("limits"), lease);
}

function makePart() {
  return el(
    "div",
    { class: "part-of" },
    el("p", { class: "what" }, el("strong"), " ", el("span", { class: "note" })),
    el("p", { class: "figure number" }),
    el(
      "div",
      { class: "track", "aria-hidden": "true" },
      el("div", { class: "part within" }),
      el("div", { class: "part over" }),
    ),
  );
}

function updatePart(node, { uuid, label, memory_bytes: entitled, memory_used_bytes: used }, device) {
  const [what, figure, track] = node.children;
  text(what.firstElementChild, say("attendee.device", { label: device?.label ?? label }));
  text(what.lastElementChild, conditionOf(device));
  mark(what.lastElementChild, "bad", !device || device.lost);
  attr(what, "title", uuid);
  text(figure, say("attendee.used", { used: sizeOf(used, entitled) }));
  const whole = Math.max(used, entitled, 1);
  const [within, over] = track.children;
  width(within, Math.min(used, entitled) / whole);
  width(over, Math.max(0, used - entitled) / whole);
}

function conditionOf(device) {
  if (!device) return say("attendee.device_gone");
  if (device.lost) return say("attendee.device_lost");
  if (device.drained) return say("attendee.device_drained", { name: device.name });
  return device.name;
}

/** Set how wide a part of a track is; one without width is not there. */
export function width(node, part) {
  attr(node, "hidden", part <= 0);
  const wanted = `${(100 * part).toFixed(2)}%`;
  if (node.style.width !== wanted) node.style.width = wanted;
}

function warningsOf(lease) {
  const said = [];
  const add = (name, bytes) => {
    if (bytes) said.push({ name, said: say(`attendee.warning_${name}`, { size: size(bytes) }) });
  };
  add("over_share", lease.over_bytes);
  add("short", lease.short_bytes);
  add("paused", lease.parked_bytes);
  if (lease.state === "quarantined") {
    said.push({ name: "held_back", said: say("attendee.warning_held_back") });
  }
  return said;
}

function limitsOf() {
  const heads = ["program", "limit", "worth", "enforced"].map((name) =>
    el("th", { scope: "col", text: say(`attendee.limit_${name}`) }),
  );
  return el(
    "details",
    { class: "limits" },
    el("summary"),
    el("p", { class: "note" }),
    el("table", { class: "cards" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody")),
  );
}

function updateLimits(node, lease) {
  attr(node, "hidden", lease.memory_limits.length === 0);
  const worth = lease.memory_limit === "hard" ? "hard" : "soft";
  text(node.querySelector("summary"), say(`attendee.summary_${worth}`));
  text(node.querySelector("p"), say(`attendee.explained_${worth}`));
  keyed(node.querySelector("tbody"), lease.memory_limits, {
    key: (limit) => limit.applies_to,
    make: (limit) =>
      el(
        "tr",
        {},
        el("th", { scope: "row", text: limit.applies_to }),
        ...["limit", "worth", "enforced"].map((name) =>
          el("td", { data: { label: say(`attendee.limit_${name}`) } }),
        ),
      ),
    update(row, limit) {
      const [, most, kind, by] = row.children;
      const bytes = limit.limit_bytes;
      text(most, bytes === null ? say("common.none") : size(bytes));
      text(kind, say(`attendee.kind_${limit.kind}`));
      text(by, limit.enforced_by);
    },
  });
}

function askToStop(lease, button) {
  return act({
    path: url(["leases", lease.id, "stop"]),
    body: {},
    button,
    confirm: {
      title: say("attendee.stop_title"),
      lines: [
        say("attendee.stop_lost"),
        ...(lease.devices.length ? [say("attendee.stop_share")] : []),
      ],
      yes: say(lease.devices.length ? "attendee.stop_yes" : "attendee.stop_cpu"),
      danger: true,
    },
  });
}
