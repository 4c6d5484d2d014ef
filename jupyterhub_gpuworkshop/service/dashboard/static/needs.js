// What an organiser should see first, with what to do about it beside each line.

import { clock, el, keyed, say, size, text } from "./dom.js";
import { whose } from "./room.js";

const FIRST = 8;
let all = false;

/** Draw the lines; `more` shows those that are left. */
export function drawNeeds(list, none, more, room, { ask, look, people }) {
  const lines = linesOf(room, { ask, look, people });
  more.onclick = () => {
    all = true;
    drawNeeds(list, none, more, room, { ask, look, people });
  };
  more.hidden = all || lines.length <= FIRST;
  text(more, say("organiser.more", { count: Math.max(0, lines.length - FIRST) }));
  keyed(list, all ? lines : lines.slice(0, FIRST), {
    key: (line) => line.key,
    make: (line) => {
      const buttons = el("div", { class: "buttons" });
      const node = el(
        "li",
        { class: `need ${line.kind}` },
        el("strong", { class: "label", text: say(`organiser.need_${line.kind}`) }),
        el("span", { class: "text" }),
        buttons,
      );
      for (const { label, press } of line.acts) {
        const button = el("button", { type: "button", text: label });
        // What the line is about may have changed since the button was made.
        const name = press;
        button.addEventListener("click", () => node.line.does[name](button));
        buttons.append(button);
      }
      return node;
    },
    update: (node, line) => {
      node.line = line;
      text(node.querySelector(".text"), line.text);
    },
  });
  none.hidden = lines.length > 0;
  text(none, say(room.isKnown ? "organiser.needs_none" : "organiser.not_looked"));
}

function linesOf(room, { ask, look, people }) {
  const lines = [];
  const add = (kind, key, words, does = {}) => {
    const acts = Object.keys(does).map((press) => ({ press, label: say(`organiser.act_${press}`) }));
    lines.push({ kind, key: `${kind} ${key} ${acts.length}`, text: words, does, acts });
  };
  for (const device of room.devices) {
    if (!device.lost) continue;
    const does = device.drained ? {} : { take_out: (button) => ask.service(device, button) };
    add("lost", device.uuid, say("organiser.need_lost_text", { label: device.label }), does);
  }
  for (const locked of room.locked) {
    const values = { name: locked.name, address: locked.address, at: clock(locked.until) };
    add("locked", `${locked.name} ${locked.address}`, say("organiser.need_locked_text", values), {
      unlock: (button) => ask.unlock(locked, button),
    });
  }
  for (const waits of room.waiting) {
    const values = { user: whose(waits), share: waits.share, at: clock(waits.at, { seconds: false }) };
    add("waiting", whose(waits), say("organiser.need_waiting_text", values), {
      see_idle: () => people.lookAt("idle", "idle"),
    });
  }
  const leases = [...room.leases.values()];
  for (const lease of leases.filter((x) => x.over_bytes).sort((a, b) => b.over_bytes - a.over_bytes)) {
    const values = { user: whose(lease), size: size(lease.over_bytes), label: labels(lease) };
    const largest = largestKernel(room, lease);
    add("over", lease.id, say("organiser.need_over_text", values), {
      tell: (button) => ask.notice(lease.user, button),
      ...(largest ? { free: (button) => ask.free(largest, button) } : {}),
      look: () => look(lease.user),
    });
  }
  for (const lease of leases.filter((x) => x.short_bytes)) {
    const values = { user: whose(lease), size: size(lease.short_bytes), label: labels(lease) };
    add("short", lease.id, say("organiser.need_short_text", values), {
      see_device: () => people.lookFor("", lease.devices[0]?.uuid),
    });
  }
  for (const lease of leases.filter((x) => x.state === "quarantined")) {
    add("held_back", lease.id, say("organiser.need_held_back_text", { user: whose(lease) }), {
      stop: (button) => ask.stop(lease, button),
    });
  }
  for (const [id, holder] of room.holders) {
    if (holder.kind !== "foreign" || !holder.memory_bytes) continue;
    const values = {
      command: holder.command,
      pid: holder.pid,
      size: size(holder.memory_bytes),
      label: room.label(holder.device),
    };
    add("outside", id, say("organiser.need_outside_text", values), {
      end: (button) => ask.end(holder, button),
    });
  }
  for (const problem of room.problems) add("problem", problem, problem);
  return lines;
}

function labels(lease) {
  return lease.devices.map((device) => device.label).join(", ");
}

function largestKernel(room, lease) {
  let found = null;
  for (const kernel of room.kernels.values()) {
    if (kernel.lease_id !== lease.id || !kernel.memory_bytes) continue;
    if (!found || kernel.memory_bytes > found.memory_bytes) found = kernel;
  }
  return found;
}
