// Which rows belong together, which are wanted, and in which order; draws nothing.

import { say } from "./dom.js";
import { compare, whose } from "./room.js";

const isPaused = (kernel) => kernel.parked_bytes > 0;
const isBusy = (kernel) => kernel.state === "busy" && !isPaused(kernel);
const isIdle = (kernel) => kernel.state === "idle" && !isPaused(kernel);
const isKept = (kernel) => kernel.pinned;
const isOver = (group) => Boolean(group.lease?.over_bytes);
const isShort = (group) => Boolean(group.lease?.short_bytes);

/** By what the table can be filtered: which groups, and which kernels of them. */
export const STATES = {
  all: { group: () => true },
  busy: { group: (group) => group.kernels.some(isBusy), kernel: isBusy },
  idle: { group: (group) => group.kernels.some(isIdle), kernel: isIdle },
  over: { group: isOver },
  short: { group: isShort },
  paused: { group: (group) => group.kernels.some(isPaused), kernel: isPaused },
  kept: { group: (group) => group.kernels.some(isKept), kernel: isKept },
};

/** The columns; those with a value can be sorted by, numbers the most first. */
export const COLUMNS = [
  { id: "name", value: (group) => group.name },
  { id: "gpu", value: (group) => group.gpus },
  { id: "share", value: (group) => group.promised, isNumber: true },
  { id: "memory", value: (group) => group.used, isNumber: true },
  { id: "limit", value: (group) => group.lease?.memory_limit ?? "" },
  { id: "state", value: rank, isNumber: true },
  { id: "idle", value: (group) => group.idleSince, isNumber: true },
  { id: "next" },
  { id: "acts" },
];

/** How much a group stands out. */
function rank(group) {
  if (isOver(group)) return 5;
  if (isShort(group)) return 4;
  if (group.lease && group.lease.state !== "active") return 3;
  if (group.kernels.some(isBusy)) return 2;
  return group.kernels.some(isPaused) ? 1 : 0;
}

/** A lease, its kernels, and what else its server runs on GPUs. */
class Group {
  constructor(key, lease, kernels, holders, room) {
    this.key = key;
    this.lease = lease;
    this.kernels = kernels;
    this.holders = holders;
    const some = lease ?? kernels[0] ?? holders[0];
    this.user = some.user;
    this.name = some.user ? whose(some) : say("organiser.nobodys");
    const devices = lease?.devices ?? [];
    const uuids = devices.length
      ? devices.map((device) => device.uuid)
      : [...new Set(holders.map((holder) => holder.device))];
    this.labels = uuids.map((uuid) => room.label(uuid));
    this.gpus = this.labels.join(", ");
    this.promised = devices.reduce((sum, device) => sum + device.memory_bytes, 0);
    this.used =
      lease?.memory_used_bytes ?? holders.reduce((sum, x) => sum + (x.memory_bytes ?? 0), 0);
    const since = kernels.map((kernel) => kernel.idle_since).filter((x) => x !== null);
    // The longest idle one is the one that counts: the earliest instant.
    this.idleSince = since.length ? -Math.min(...since) : -Infinity;
    this.words = `${this.name}\n${lease?.share ?? ""}`.toLowerCase();
  }

  /** Whether it is made of the same rows: unchanged rows are the same objects. */
  isLike(other) {
    return (
      this.lease === other.lease &&
      this.gpus === other.gpus &&
      areSame(this.kernels, other.kernels) &&
      areSame(this.holders, other.holders)
    );
  }

  rowsFor(wanted, state) {
    const device = deviceOf(wanted);
    const isItself = device !== null || hasWords(this.words, wanted);
    const kernel = STATES[state].kernel ?? (() => true);
    const rows = [this.lease ? { key: "lease", lease: this.lease } : { key: "head", head: this.name }];
    for (const x of this.kernels) {
      if (kernel(x) && (isItself || hasWords(kernelWords(x), wanted))) {
        rows.push({ key: `kernel ${x.server} ${x.kernel_id}`, kernel: x });
      }
    }
    if (STATES[state].kernel) return rows;
    for (const x of this.holders) {
      if (isItself || hasWords(holderWords(x), wanted)) {
        rows.push({ key: `${x.pid}-${x.started} ${x.device}`, holder: x });
      }
    }
    return rows;
  }
}

function areSame(a, b) {
  return a.length === b.length && a.every((x, index) => x === b[index]);
}

function kernelWords(kernel) {
  return `${kernel.notebook}\n${kernel.kernel_id}`.toLowerCase();
}

function holderWords(holder) {
  return `${holder.command}\n${holder.pid}`.toLowerCase();
}

function hasWords(words, wanted) {
  return words.includes(wanted.trim().toLowerCase());
}

/** Return the label in "GPU 3"; null where something else is looked for. */
function deviceOf(wanted) {
  const name = say("organiser.device", { label: "" }).trim().toLowerCase();
  const [first, label, more] = wanted.trim().toLowerCase().split(/\s+/);
  return first === name && label !== undefined && more === undefined ? label : null;
}

/**
 * Return the groups of a room; those in which nothing has changed are the same objects
 * as in `before`, by key.
 */
export function groupsOf(room, before) {
  const made = new Map();
  const of = (key, lease) => {
    if (!made.has(key)) made.set(key, { lease, kernels: [], holders: [] });
    return made.get(key);
  };
  const home = (row) => {
    if (row.lease_id && room.leases.has(row.lease_id)) return row.lease_id;
    return row.user ? `of ${row.user}/${row.server}` : "nobody";
  };
  for (const [id, lease] of room.leases) of(id, lease);
  const known = new Set();
  for (const kernel of room.kernels.values()) {
    const key = home(kernel);
    known.add(`${key} ${kernel.kernel_id}`);
    of(key, null).kernels.push(kernel);
  }
  for (const holder of room.holders.values()) {
    const key = home(holder);
    // A kernel's process is in the kernel's row.
    if (holder.kind === "kernel" && known.has(`${key} ${holder.kernel_id}`)) continue;
    of(key, null).holders.push(holder);
  }
  return [...made].map(([key, { lease, kernels, holders }]) => {
    kernels.sort((a, b) => compare(a.notebook, b.notebook) || compare(a.kernel_id, b.kernel_id));
    holders.sort((a, b) => a.pid - b.pid);
    const group = new Group(key, lease, kernels, holders, room);
    const was = before.get(key);
    return was && was.isLike(group) ? was : group;
  });
}

/** Whether a group has what is wanted, itself or in a row of it. */
export function matches(group, wanted, state) {
  if (!STATES[state].group(group)) return false;
  const device = deviceOf(wanted);
  if (device !== null) return group.labels.some((label) => label.toLowerCase() === device);
  return (
    hasWords(group.words, wanted) ||
    group.kernels.some((x) => hasWords(kernelWords(x), wanted)) ||
    group.holders.some((x) => hasWords(holderWords(x), wanted))
  );
}

/** Return groups in the order that is asked for; names decide between equals. */
export function order(groups, { column, down }) {
  const { value } = COLUMNS.find((x) => x.id === column);
  const sign = down ? -1 : 1;
  const both = (a, b) => {
    const [x, y] = [value(a), value(b)];
    return typeof x === "string" ? compare(x, y) : x === y ? 0 : x < y ? -1 : 1;
  };
  return groups.sort((a, b) => sign * both(a, b) || compare(a.name, b.name));
}
