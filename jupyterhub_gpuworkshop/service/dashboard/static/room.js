// What the room looks like now, as the messages tell it; draws nothing.

const MOST_EVENTS = 300;

/** The devices, attendees, programs and events that an organiser may see. */
export class Room {
  constructor() {
    this.devices = [];
    this.labels = new Map();
    this.whyNone = "";
    this.tick = null;
    this.version = null;
    this.isKnown = false;
    this.leases = new Map();
    this.kernels = new Map();
    this.holders = new Map();
    this.notices = new Map();
    this.events = [];
    this.problems = [];
    this.waiting = [];
    this.locked = [];
    this.announcement = null;
    this.split = new Map();
  }

  takeDevices(message) {
    if (!areSame(this.devices, message.devices)) this.tick = null;
    this.devices = message.devices;
    this.whyNone = message.why_none ?? "";
    this.labels = new Map(message.devices.map((device) => [device.uuid, device.label]));
  }

  takeRoom(message) {
    const whole = message.base === null || message.base === undefined;
    for (const part of ["leases", "kernels", "holders", "notices"]) {
      const rows = Object.entries(message[part] ?? {});
      if (whole) this[part] = new Map(rows.filter(([, row]) => row !== null));
      else {
        for (const [id, row] of rows) {
          if (row === null) this[part].delete(id);
          else this[part].set(id, row);
        }
      }
    }
    const known = whole ? [] : this.events;
    this.events = [...(message.events ?? []), ...known].slice(0, MOST_EVENTS);
    for (const part of ["problems", "waiting", "locked", "announcement"]) {
      if (message[part] !== undefined) this[part] = message[part];
    }
    this.split.clear();
    this.version = message.version;
    this.isKnown = true;
  }

  label(uuid) {
    return this.labels.get(uuid) ?? uuid;
  }

  /**
   * Return how many bytes each attendee holds of a device: `[{user, bytes, within, over}]`;
   * `bytes` is null where that is not known.
   */
  parts(uuid) {
    if (!this.split.has(uuid)) this.split.set(uuid, this.splitOf(uuid));
    return this.split.get(uuid);
  }

  splitOf(uuid) {
    const found = new Map();
    for (const holder of this.holders.values()) {
      if (holder.device !== uuid) continue;
      const user = holder.kind === "foreign" ? "" : holder.user;
      found.set(user, plus(found.get(user), holder.memory_bytes));
    }
    const overs = new Map();
    for (const lease of this.leases.values()) {
      for (const device of lease.devices) {
        if (device.uuid !== uuid) continue;
        overs.set(lease.user, (overs.get(lease.user) ?? 0) + (device.over_bytes ?? 0));
        const used = device.memory_used_bytes === null ? null : 0;
        found.set(lease.user, plus(found.get(lease.user), used));
      }
    }
    return [...found]
      .map(([user, bytes]) => {
        const over = Math.min(bytes ?? 0, overs.get(user) ?? 0);
        return { user, bytes, within: (bytes ?? 0) - over, over };
      })
      .sort((a, b) => (a.user === "") - (b.user === "") || compare(a.user, b.user));
  }
}

/** Say whether two lists are of the same devices: a tick has readings by their order. */
export function areSame(these, those) {
  return these.length === those.length && these.every((x, index) => x.uuid === those[index].uuid);
}

/** Add what may be unknown: what is partly unknown is unknown. */
function plus(sum, more) {
  return sum === null || more === null ? null : (sum ?? 0) + more;
}

const COLLATOR = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Order names as people do: gpu2 before gpu10. */
export function compare(a, b) {
  return COLLATOR.compare(a, b);
}

/** "ada", or "ada/second" for a server with a name. */
export function whose(row) {
  return row.server ? `${row.user}/${row.server}` : row.user;
}
