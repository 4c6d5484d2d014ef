// The kernels of an attendee, by the names of their notebooks, and what can be done.

import { act, url } from "./act.js";
import { attr, clock, duration, el, keyed, mark, say, size, text } from "./dom.js";
import { now } from "./live.js";

const KEEP_SECONDS = 1800;
const shown = new Map();

/** Show each kernel as a card; `may` says what this attendee may. */
export function drawKernels(parent, kernels, may) {
  shown.clear();
  keyed(parent, kernels, {
    key: (kernel) => `${kernel.server}/${kernel.kernel_id}`,
    make: makeKernel,
    update(node, kernel) {
      shown.set(node, kernel);
      updateKernel(node, kernel, may);
    },
    always: true,
  });
  countUp();
}

/** Say how long each has been idle. */
export function countUp() {
  for (const [node, kernel] of shown) {
    const { idle_since: since } = kernel;
    const isIdle = since !== null && kernel.state === "idle" && !isPaused(kernel);
    const idle = node.querySelector(".idle");
    attr(idle, "hidden", !isIdle);
    if (isIdle) text(idle, say("attendee.idle_for", { time: duration(now() - since) }));
  }
}

function isPaused(kernel) {
  return kernel.parked_bytes > 0;
}

function makeKernel() {
  const node = el(
    "li",
    { class: "card kernel" },
    el(
      "div",
      { class: "head" },
      el("h3", { class: "name" }),
      el("span", { class: "badge" }),
    ),
    el(
      "p",
      { class: "facts" },
      el("span", { class: "number memory" }),
      el("span", { class: "number note idle" }),
    ),
    el("p", { class: "note follows" }),
    el("p", { class: "warn acts" }),
    el("p", { class: "note kept" }),
    el("p", { class: "note nothing", text: say("attendee.nothing_to_free") }),
  );
  const of = () => shown.get(node);
  const button = (name, on) => {
    const made = el("button", {
      type: "button",
      class: name,
      on: { click: () => on(of(), made) },
    });
    return made;
  };
  node.append(
    el(
      "div",
      { class: "buttons" },
      button("free", askToFree),
      button("keep", (kernel, made) => keep(kernel, made, made.dataset.seconds)),
      button("let_go", letGo),
    ),
  );
  return node;
}

function updateKernel(node, kernel, may) {
  const part = (name) => node.querySelector(`.${name}`);
  const paused = isPaused(kernel);
  const name = nameOf(kernel);
  text(part("name"), name);
  attr(part("name"), "title", kernel.notebook || kernel.kernel_id);
  text(part("badge"), say(`attendee.state_${paused ? "paused" : kernel.state}`));
  attr(part("badge"), "data-state", paused ? "paused" : kernel.state);
  text(part("memory"), memoryOf(kernel, paused));
  text(part("follows"), kernel.verdict);
  // Where it is kept, until when stands below, in the time of who looks.
  attr(part("follows"), "hidden", !kernel.verdict || kernel.pinned);
  const acts = kernel.acts_at;
  attr(part("acts"), "hidden", acts === null);
  if (acts !== null) text(part("acts"), say("attendee.acts_at", { at: clock(acts) }));
  mark(node, "soon", acts !== null);
  attr(part("kept"), "hidden", !kernel.pinned);
  text(part("kept"), keptOf(kernel));
  attr(part("nothing"), "hidden", !lacksButtons(kernel) || isSaid(part("follows")));
  updateButtons(node, kernel, may, name);
}

/** Whether there is nothing to free or to keep. */
function lacksButtons(kernel) {
  return kernel.memory_bytes === 0 && !isPaused(kernel);
}

/** Whether the verdict, where it is shown, says so itself. */
function isSaid(verdict) {
  return !verdict.hidden && verdict.textContent.includes("no GPU memory");
}

function updateButtons(node, kernel, may, name) {
  const [free, keeping, letting] = node.querySelector(".buttons").children;
  const held = kernel.memory_bytes > 0;
  attr(free, "hidden", !held || isPaused(kernel));
  label(free, say("attendee.free"), name);
  const seconds = Math.min(KEEP_SECONDS, may.pin_seconds);
  const isForGood = kernel.pinned && kernel.pinned_until === null;
  attr(keeping, "hidden", !held || !seconds || isForGood || isPaused(kernel));
  keeping.dataset.seconds = seconds;
  label(keeping, say("attendee.keep", { time: duration(seconds) }), name);
  attr(letting, "hidden", !kernel.pinned);
  label(letting, say("attendee.let_go"), name);
}

/** Set what a button says; out of sight it says of which notebook, too. */
function label(button, said, name) {
  text(button, said);
  attr(button, "aria-label", `${said}: ${name}`);
}

function nameOf(kernel) {
  return kernel.notebook.split("/").at(-1) || say("attendee.no_notebook");
}

function memoryOf(kernel, paused) {
  if (paused) return say("attendee.memory_paused", { size: size(kernel.parked_bytes) });
  if (kernel.memory_bytes === null) return say("attendee.memory_unknown");
  const peak = size(kernel.peak_memory_bytes);
  return say("attendee.memory", { size: size(kernel.memory_bytes), peak });
}

function keptOf(kernel) {
  if (!kernel.pinned) return "";
  const values = { by: kernel.pinned_by };
  if (kernel.pinned_until === null) return say("attendee.kept_always", values);
  const at = clock(kernel.pinned_until, { seconds: false });
  return say("attendee.kept_until", { ...values, at });
}

function pathOf(kernel, ...more) {
  const { user, server } = kernel;
  return url(["kernels", kernel.kernel_id, ...more], { user, server });
}

function askToFree(kernel, button) {
  const isBusy = kernel.state === "busy";
  const mayPause = !isBusy && !kernel.why_not_pause;
  const whyNot = isBusy
    ? say("attendee.free_busy")
    : kernel.why_not_pause && say("attendee.free_no_pause", { why: kernel.why_not_pause });
  const option = (value, hint, disabled = false) => ({
    value,
    label: say(`attendee.free_${value}`),
    hint,
    disabled,
  });
  return act({
    path: pathOf(kernel, "reclaim"),
    body: ({ action }) => ({ action }),
    button,
    confirm: {
      title: say("attendee.free_title", { name: nameOf(kernel) }),
      lines: [
        say("attendee.free_held", { size: size(kernel.memory_bytes) }),
        ...(isBusy ? [say("attendee.free_works")] : []),
      ],
      fields: [
        {
          name: "action",
          label: say("attendee.free_how"),
          type: "radio",
          options: [
            option("park", whyNot || say("attendee.free_park_hint"), !mayPause),
            option("restart", say("attendee.free_restart_hint")),
            option("stop_kernel", say("attendee.free_stop_kernel_hint")),
          ],
        },
      ],
      yes: say("attendee.free_yes"),
      danger: !mayPause,
    },
  });
}

function keep(kernel, button, seconds) {
  return act({ path: pathOf(kernel, "pin"), body: { seconds: Number(seconds) }, button });
}

function letGo(kernel, button) {
  return act({ method: "DELETE", path: pathOf(kernel, "pin"), button });
}
