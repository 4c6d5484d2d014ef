// Elements, lists that keep their rows, and numbers as people read them.
// Whatever comes from the service becomes text, never markup.

const WORDS = JSON.parse(document.getElementById("words").textContent);
export const PAGE = JSON.parse(document.getElementById("page").textContent);

/** Return a text of words_en.json, by "PART.NAME", with its values in place. */
export function say(name, values = {}) {
  let text = WORDS[name];
  if (text === undefined) throw new Error(`There are no words ${name}`);
  if (typeof text === "object") text = values.count === 1 ? text.one : text.other;
  return text.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

/** Return a text without values, or something else where there is none. */
export function sayOr(name, otherwise) {
  const text = WORDS[name];
  return typeof text === "string" ? text : otherwise;
}

/**
 * Make an element. `props`: `class`, `text`, `on: {click: f}`, `data: {}`,
 * and attributes; true is an empty attribute, false and null are none.
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "on") {
      for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    } else attr(made, name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set a text, where it is another one: an unchanged page is not drawn anew. */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute, where it is another one. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

/** Add or remove a class, where that changes something. */
export function mark(node, name, on) {
  if (node.classList.contains(name) !== Boolean(on)) node.classList.toggle(name, Boolean(on));
}

const LISTS = new WeakMap();

/**
 * Show a list in `parent`, a node for each item, in its order.
 *
 * Nodes stay the same while their key does, so focus and selection stay, too; a node
 * is only moved where the order has changed. `make(item, key)` returns a new node, and
 * `update(node, item, key)` is called for each item whose object is another one than
 * last time (pass `always` where something else has changed, too). `after` is a child that
 * stays in front of the list.
 */
export function keyed(parent, items, { key, make, update, always = false, after = null }) {
  let kept = LISTS.get(parent);
  if (!kept) LISTS.set(parent, (kept = new Map()));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const found = new Map();
  for (const item of items) {
    const name = String(key(item));
    if (found.has(name)) continue;
    const entry = kept.get(name) ?? { node: make(item, name), item: undefined };
    if (always || entry.item !== item) update?.(entry.node, item, name);
    entry.item = item;
    found.set(name, entry);
  }
  for (const [name, entry] of kept) {
    if (!found.has(name)) leave(parent, entry.node);
  }
  let next = after ? after.nextElementSibling : parent.firstElementChild;
  for (const { node } of found.values()) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  LISTS.set(parent, found);
  // A node that is moved loses it.
  if (focused?.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
  }
}

/** Remove a node; focus that was in it goes to what is around it, not to the top. */
function leave(parent, node) {
  const had = node.contains(document.activeElement);
  const beside = node.nextElementSibling ?? node.previousElementSibling;
  node.remove();
  if (!had) return;
  const inside = beside?.querySelector("button, a[href], input, select");
  const region = parent.closest("[tabindex], section, main");
  (inside ?? region)?.focus?.({ preventScroll: true });
}

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
// A figure space, as wide as a digit, and a space that does not break.
const WIDE = "\u2007";
const JOIN = "\u00a0";

/** "3.2 GiB", "512 MiB"; always one decimal of GiB, so that it does not dance. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return say("common.unknown");
  if (Math.abs(bytes) >= GIB) return `${(bytes / GIB).toFixed(1)}${JOIN}GiB`;
  return `${(bytes / MIB).toFixed(0)}${JOIN}MiB`;
}

/** "12.0 of 79.6 GiB": both in the unit of the whole. */
export function sizeOf(bytes, total) {
  if (bytes === null || bytes === undefined) return say("common.unknown");
  const [unit, name] = total >= GIB ? [GIB, "GiB"] : [MIB, "MiB"];
  const digits = unit === GIB ? 1 : 0;
  const whole = (total / unit).toFixed(digits);
  const part = (bytes / unit).toFixed(digits);
  return `${part} of ${whole}${JOIN}${name}`;
}

/** The mean of numbers; null where there are none. */
export function mean(parts) {
  return parts.length ? parts.reduce((sum, part) => sum + part, 0) / parts.length : null;
}

/** "47 %"; null is unknown. */
export function percent(part) {
  if (part === null || part === undefined) return say("common.unknown");
  return `${Math.round(part * 100)}${JOIN}%`;
}

/** A number with its unit and room for `width` digits. */
export function number(value, unit, { digits = 0, width = 0 } = {}) {
  if (value === null || value === undefined) return say("common.unknown");
  return `${value.toFixed(digits).padStart(width, WIDE)}${JOIN}${unit}`;
}

/** "45 s", "20 min", "1 h 30 min", as the service writes them. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole}${JOIN}s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 120) return `${minutes}${JOIN}min`;
  const rest = minutes % 60;
  const hours = `${Math.floor(minutes / 60)}${JOIN}h`;
  return rest ? `${hours} ${rest}${JOIN}min` : hours;
}

/** "14:03:27" of an instant, in the time of who looks. */
export function clock(at, { seconds = true } = {}) {
  const when = new Date(at * 1000);
  const parts = [when.getHours(), when.getMinutes()];
  if (seconds) parts.push(when.getSeconds());
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

const LONG_AGO_SECONDS = 20 * 3600;
const DAY_AND_MONTH = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

/** Make an element that says when something happened: the time, or long ago the day. */
export function moment(at) {
  const when = new Date(at * 1000);
  const isLongAgo = Date.now() / 1000 - at > LONG_AGO_SECONDS;
  return el("time", {
    datetime: when.toISOString(),
    title: when.toLocaleString("en"),
    text: isLongAgo ? DAY_AND_MONTH.format(when) : clock(at),
  });
}
