// The table of attendees, their notebooks and what else uses the GPUs.
// It draws the first hundred, and of those only what has changed.

import { attr, clock, duration, el, keyed, mark, say, sayOr, size, sizeOf, text } from "./dom.js";
import { COLUMNS, STATES, groupsOf, matches, order } from "./grouping.js";
import { notebookOf } from "./asks.js";

const STEP = 100;
const SHORT_COMMAND = 60;

/** The table. */
export class People {
  constructor(room, ask, now) {
    this.room = room;
    this.ask = ask;
    this.now = now;
    this.table = document.getElementById("people");
    this.input = document.getElementById("people-text");
    this.sorter = document.getElementById("people-sort");
    this.more = document.getElementById("people-more");
    this.shown = STEP;
    this.state = "all";
    this.sort = { column: "name", down: false };
    this.groups = new Map();
    this.chips = new Map();
    this.offerSorting();
    this.offerStates();
    this.input.addEventListener("input", () => this.filtered());
    this.more.addEventListener("click", () => {
      this.shown += STEP;
      this.draw();
    });
    this.table.addEventListener("click", (event) => this.pressed(event));
  }

  offerSorting() {
    const head = document.getElementById("people-head");
    for (const column of COLUMNS) {
      const label = say(`organiser.column_${column.id}`);
      const th = el("th", { scope: "col", class: column.id });
      if (column.value) {
        const press = () => this.sortBy(column.id);
        th.append(el("button", { type: "button", class: "quiet", text: label, on: { click: press } }));
        this.sorter.append(el("option", { value: column.id, text: label }));
      } else th.append(label);
      head.append(th);
    }
    this.sorter.addEventListener("change", () => this.sortBy(this.sorter.value));
    this.showSorting();
  }

  sortBy(id) {
    const column = COLUMNS.find((x) => x.id === id);
    const same = this.sort.column === id;
    this.sort = { column: id, down: same ? !this.sort.down : Boolean(column.isNumber) };
    this.showSorting();
    this.draw();
  }

  showSorting() {
    const { column, down } = this.sort;
    this.sorter.value = column;
    for (const th of document.getElementById("people-head").children) {
      const is = th.classList.contains(column);
      attr(th, "aria-sort", is ? (down ? "descending" : "ascending") : null);
    }
  }

  offerStates() {
    const group = document.getElementById("people-states");
    for (const state of Object.keys(STATES)) {
      const count = el("span", { class: "number count" });
      const chip = el(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(state === this.state),
          on: { click: () => this.showState(state) },
        },
        `${say(`organiser.state_${state}`)} `,
        count,
      );
      this.chips.set(state, { chip, count });
      group.append(chip);
    }
  }

  showState(state) {
    this.state = state;
    for (const [name, { chip }] of this.chips) attr(chip, "aria-pressed", String(name === state));
    this.filtered();
  }

  filtered() {
    this.shown = STEP;
    const found = this.draw();
    text(document.getElementById("people-found"), say("organiser.found", { count: found }));
  }

  /** Show one attendee, or who is on one device. */
  lookFor(user, uuid) {
    this.input.value = uuid ? say("organiser.device", { label: this.room.label(uuid) }) : user;
    this.showState("all");
    this.show();
  }

  /** Show those in one state, sorted by a column. */
  lookAt(state, column) {
    this.input.value = "";
    this.sort = { column, down: true };
    this.showSorting();
    this.showState(state);
    this.show();
  }

  show() {
    this.input.focus({ preventScroll: true });
    document.getElementById("people-title").scrollIntoView({ block: "start" });
  }

  pressed(event) {
    const button = event.target.closest("button[data-act]");
    const row = button?.closest("tr")?.row;
    if (!row) return;
    const does = {
      tell: () => this.ask.notice(row.lease.user, button),
      stop: () => this.ask.stop(row.lease, button),
      free: () => this.ask.free(row.kernel, button),
      keep: () => this.ask.keep(row.kernel, button),
      let_go: () => this.ask.letGo(row.kernel, button),
      end: () => this.ask.end(row.holder, button),
    };
    does[button.dataset.act]();
  }

  /** Whether somebody waits for a share. */
  get isWanted() {
    return this.room.waiting.length > 0;
  }

  /** Draw the table; return how many groups match. */
  draw() {
    const groups = groupsOf(this.room, this.groups);
    this.groups = new Map(groups.map((group) => [group.key, group]));
    for (const [state, { count }] of this.chips) {
      text(count, groups.filter(STATES[state].group).length);
    }
    const wanted = this.input.value;
    const found = order(
      groups.filter((group) => matches(group, wanted, this.state)),
      this.sort,
    );
    const visible = found.slice(0, this.shown);
    const drawn = [wanted, this.state, this.isWanted].join("\n");
    keyed(this.table, visible, {
      key: (group) => group.key,
      make: () => el("tbody"),
      update: (body, group) => this.drawGroup(body, group, wanted),
      after: this.table.tHead,
      always: this.drawnWith !== drawn,
    });
    this.drawnWith = drawn;
    const left = found.length - visible.length;
    this.more.hidden = left <= 0;
    text(this.more, say("organiser.more", { count: Math.max(0, left) }));
    this.tellCount(groups, found);
    this.tellWhySoft();
    return found.length;
  }

  tellCount(groups, found) {
    const kernels = this.room.kernels.size;
    const people = new Set(groups.map((group) => group.user).filter(Boolean)).size;
    text(
      document.getElementById("people-count"),
      found.length === groups.length
        ? say("organiser.count", { people, kernels })
        : say("organiser.count_of", { found: found.length, all: groups.length }),
    );
    const none = document.getElementById("people-none");
    none.hidden = found.length > 0;
    this.table.hidden = found.length === 0;
    document.getElementById("people-key").hidden = groups.length === 0;
    const why = groups.length ? "none_such" : this.room.isKnown ? "none" : "not_looked";
    text(none, say(`organiser.people_${why}`));
  }

  /** Say why the driver keeps no limit, once for each reason. */
  tellWhySoft() {
    const counts = new Map();
    for (const { no_hard_limit: why } of this.room.leases.values()) {
      if (why) counts.set(why, (counts.get(why) ?? 0) + 1);
    }
    keyed(document.getElementById("people-soft"), [...counts], {
      key: ([why]) => why,
      make: () => el("li"),
      update: (node, [why, count]) => text(node, say("organiser.no_hard_limit", { count, why })),
    });
  }

  drawGroup(body, group, wanted) {
    keyed(body, group.rowsFor(wanted, this.state), {
      key: (row) => row.key,
      make: (row) =>
        row.lease ? leaseRow() : row.kernel ? kernelRow() : row.holder ? holderRow() : headRow(),
      update: (tr, row) => {
        tr.row = row;
        if (row.lease) drawLease(tr, row.lease, this.isWanted);
        else if (row.kernel) this.drawKernel(tr, row.kernel);
        else if (row.holder) drawHolder(tr, row.holder, this.room);
        else set(tr, "th", group.user ? say("organiser.without_share", { user: row.head }) : row.head);
      },
      always: true,
    });
  }

  drawKernel(tr, kernel) {
    set(tr, "th", notebookOf(kernel), kernel.kernel_id);
    set(tr, ".memory", kernel.parked_bytes ? say("organiser.paused_size", { size: size(kernel.parked_bytes) }) : size(kernel.memory_bytes));
    attr(tr.querySelector(".memory"), "title", say("organiser.peak", { size: size(kernel.peak_memory_bytes) }));
    drawState(tr.querySelector(".state"), kernel);
    set(tr, ".next", kernel.verdict);
    this.drawIdle(tr, kernel);
    const acts = [];
    if (kernel.memory_bytes || kernel.state === "busy") acts.push("free");
    if (kernel.memory_bytes && !(kernel.pinned && kernel.pinned_until === null)) acts.push("keep");
    if (kernel.pinned) acts.push("let_go");
    drawActs(tr, acts, notebookOf(kernel));
  }

  drawIdle(tr, kernel) {
    const since = kernel.idle_since;
    set(tr, ".idle", since === null || since === undefined ? "" : duration(this.now() - since));
  }

  /** Draw what only time changes. */
  age() {
    for (const tr of this.table.querySelectorAll("tr.kernel")) {
      if (tr.row?.kernel) this.drawIdle(tr, tr.row.kernel);
    }
  }
}

/** Say what a kernel does, and whether it is kept. */
function drawState(cell, kernel) {
  const flags = [["plain", say(`organiser.kernel_${stateOf(kernel)}`)]];
  if (kernel.pinned) flags.push(["kept", keptOf(kernel)]);
  showFlags(cell, flags);
}

function keptOf({ pinned_until: until, pinned_by: by }) {
  if (until === null) return say("organiser.kernel_kept_always", { by });
  return say("organiser.kernel_kept_until", { at: clock(until, { seconds: false }), by });
}

/** Return the one word for what a kernel does. */
function stateOf(kernel) {
  return kernel.parked_bytes ? "paused" : kernel.state;
}

function row(kind, ...filled) {
  const cells = COLUMNS.slice(1).map(({ id }) => {
    const label = filled.includes(id) ? say(`organiser.column_${id}`) : null;
    return el("td", { class: id, "data-label": label });
  });
  return el("tr", { class: kind }, el("th", { scope: kind.startsWith("lease") ? "rowgroup" : "row" }), ...cells);
}

function leaseRow() {
  const tr = row("lease", "gpu", "share", "memory", "limit", "state", "next");
  tr.querySelector(".memory").append(
    el("div", { class: "track small", "aria-hidden": "true" }, el("div", { class: "part" })),
    el("span", { class: "number" }),
  );
  return tr;
}

/** The first row of what belongs to no share. */
function headRow() {
  return row("lease head-only");
}

function kernelRow() {
  return row("kernel", "memory", "state", "idle", "next");
}

function holderRow() {
  return row("holder", "gpu", "memory", "state");
}

function set(tr, selector, value, title) {
  const cell = tr.querySelector(selector);
  text(cell, value);
  if (title !== undefined) attr(cell, "title", title);
}

function drawLease(tr, lease, isWanted) {
  const promised = lease.devices.reduce((sum, device) => sum + device.memory_bytes, 0);
  set(tr, "th", lease.server ? `${lease.user}/${lease.server}` : lease.user);
  set(tr, ".gpu", lease.devices.map((device) => device.label).join(", ") || say("common.none"));
  set(tr, ".share", lease.share);
  const memory = tr.querySelector(".memory");
  const part = memory.querySelector(".part");
  memory.querySelector(".track").hidden = !promised;
  part.style.width = `${promised ? Math.min(100, (100 * lease.memory_used_bytes) / promised) : 0}%`;
  mark(part, "over", lease.over_bytes > 0);
  attr(memory, "title", say("organiser.peak", { size: size(lease.peak_memory_bytes) }));
  set(memory, ".number", promised ? sizeOf(lease.memory_used_bytes, promised) : "");
  set(tr, ".limit", say(`organiser.limit_${limitOf(lease)}`));
  drawFlags(tr.querySelector(".state"), lease);
  // A server is stopped for who waits: else why it is not is no news.
  const verdict = isWanted && lease.server_verdict;
  set(tr, ".next", verdict ? say("organiser.server_next", { why: verdict }) : "");
  drawActs(tr, ["tell", "stop"], lease.user);
}

/** Return what a lease's memory limit is worth, and by whom. */
function limitOf(lease) {
  if (lease.memory_limit !== "hard") return lease.memory_limits?.length ? "soft" : "none";
  return /driver/.test(lease.memory_limits[0].enforced_by) ? "driver" : "hardware";
}

function drawFlags(cell, lease) {
  const flags = [["plain", say(lease.state === "active" ? "organiser.active" : "organiser.quarantined")]];
  if (lease.over_bytes) flags.push(["bad", say("organiser.over", { size: size(lease.over_bytes) })]);
  if (lease.short_bytes) flags.push(["warn", say("organiser.short", { size: size(lease.short_bytes) })]);
  if (lease.parked_bytes) flags.push(["plain", say("organiser.paused_size", { size: size(lease.parked_bytes) })]);
  showFlags(cell, flags);
}

function showFlags(cell, flags) {
  keyed(cell, flags, {
    key: ([kind, words]) => `${kind} ${words}`,
    make: ([kind, words]) => el("span", { class: `flag ${kind}`, text: words }),
  });
}

function drawHolder(tr, holder, room) {
  const command = holder.command || say("organiser.no_command");
  const short = command.length > SHORT_COMMAND ? `${command.slice(0, SHORT_COMMAND)}…` : command;
  set(tr, "th", `${holder.pid} ${short}`, command);
  set(tr, ".gpu", room.label(holder.device));
  set(tr, ".memory", size(holder.memory_bytes));
  set(tr, ".state", sayOr(`organiser.kind_${holder.kind}`, holder.kind));
  drawActs(tr, holder.kind === "kernel" ? [] : ["end"], `${holder.pid}`);
}

function drawActs(tr, acts, about) {
  keyed(tr.querySelector(".acts"), acts, {
    key: (name) => name,
    make: (name) => el("button", { type: "button", data: { act: name }, text: say(`organiser.act_${name}`) }),
    update: (button, name) => attr(button, "aria-label", `${say(`organiser.act_${name}`)}: ${about}`),
    always: true,
  });
}
