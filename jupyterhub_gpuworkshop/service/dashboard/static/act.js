// What people ask for: a dialog that says what is meant, a call of the API, and what
// came of it.

import { PAGE, el, say } from "./dom.js";

const SAID_SECONDS = 20;
let silence = 0;

/** Say what came of something, to eyes and screen readers. */
export function tell(message, { bad = false } = {}) {
  const said = document.getElementById("said");
  clearTimeout(silence);
  // The same sentence again is news, too: readers tell what has changed.
  said.replaceChildren();
  said.classList.toggle("bad", bad);
  said.append(el("p", { text: message }));
  silence = setTimeout(() => said.replaceChildren(), SAID_SECONDS * 1000);
}

/**
 * Call the API. `path` is below `api/v1/`: make it with `url`.
 *
 * Returns `{done, message}`; never throws.
 */
async function call(method, path, body) {
  try {
    const answer = await fetch(`${PAGE.prefix}api/v1/${path}`, {
      method,
      headers: {
        "X-XSRFToken": PAGE.xsrf,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401) return { done: false, message: say("common.log_in_again") };
    return { done: answer.ok, status: answer.status, message: told.message ?? answer.statusText };
  } catch {
    return { done: false, message: say("common.failed") };
  }
}

/** Return a path of the API from names that may hold anything, and a query. */
export function url(parts, query = {}) {
  const path = parts.map(encodeURIComponent).join("/");
  const search = new URLSearchParams(query).toString();
  return search ? `${path}?${search}` : path;
}

/**
 * Do something that somebody pressed a button for: ask, call, tell.
 *
 * `confirm`, where there is something to ask: `{title, lines: [..], yes, danger, fields}`.
 * A field is `{name, label, type, value, options, required, maxlength, hint}`, its type one of
 * "textarea", "text", "select", "check" and "radio" (whose options have hints, too);
 * `body` may be a function of their values.
 * Returns whether it was done.
 */
export async function act({ method = "POST", path, body, button, confirm }) {
  let values = {};
  if (confirm) {
    values = await ask(confirm);
    // A row may have gone meanwhile.
    if (button?.isConnected) button.focus({ preventScroll: true });
    if (!values) return false;
  }
  if (button) button.setAttribute("aria-busy", "true");
  const sent = typeof body === "function" ? body(values) : body;
  const where = typeof path === "function" ? path(values) : path;
  const { done, message } = await call(method, where, sent);
  button?.removeAttribute("aria-busy");
  tell(done ? message : say("common.not_done", { why: message }), { bad: !done });
  return done;
}

/** Open a dialog; return the values of its fields, or null where it was left. */
export function ask({ title, lines = [], yes, danger = false, fields = [] }) {
  return new Promise((resolve) => {
    const inputs = new Map();
    const heading = el("h2", { id: "dialog-title", text: title });
    const form = el("form", { method: "dialog" }, heading);
    for (const line of lines) form.append(el("p", { text: line }));
    for (const field of fields) form.append(fieldOf(field, inputs));
    const go = el("button", { type: "submit", class: danger ? "danger" : "go", text: yes });
    const leave = el("button", { type: "button", text: say("common.cancel") });
    // First: what Enter and a hasty finger meet is the harmless one.
    form.append(el("div", { class: "buttons" }, leave, go));
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    let values = null;
    leave.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      values = Object.fromEntries([...inputs].map(([name, read]) => [name, read()]));
      dialog.close();
    });
    // A key that is still held from what opened it answers nothing.
    form.addEventListener("keydown", (event) => {
      const isText = event.target instanceof HTMLTextAreaElement;
      if (event.key === "Enter" && event.repeat && !isText) event.preventDefault();
    });
    // Whoever marks text may let go of the button outside.
    let wasPressedOutside = false;
    dialog.addEventListener("pointerdown", (event) => {
      wasPressedOutside = isOutside(dialog, event);
    });
    dialog.addEventListener("click", (event) => {
      if (wasPressedOutside && isOutside(dialog, event)) dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(values);
    });
    document.body.append(dialog);
    dialog.showModal();
    (dialog.querySelector("textarea, select, input:checked, input") ?? leave).focus();
  });
}

function isOutside(dialog, { clientX, clientY }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

function fieldOf(field, inputs) {
  if (field.type === "radio") return choiceOf(field, inputs);
  const id = `field-${field.name}`;
  const common = { id, name: field.name, required: field.required, maxlength: field.maxlength };
  let input;
  if (field.type === "textarea") input = el("textarea", { ...common, rows: 3 });
  else if (field.type === "select") {
    input = el("select", common);
    for (const { value, label } of field.options) {
      input.append(el("option", { value, text: label }));
    }
  } else if (field.type === "check") input = el("input", { ...common, type: "checkbox" });
  else input = el("input", { ...common, type: "text" });
  if (field.type === "check") input.checked = Boolean(field.value);
  else if (field.value !== undefined) input.value = field.value;
  inputs.set(field.name, () => (field.type === "check" ? input.checked : input.value));
  const label = el("label", { for: id, text: field.label });
  if (!field.hint) return el("div", { class: "field" }, label, input);
  const hint = el("p", { id: `${id}-hint`, class: "note", text: field.hint });
  input.setAttribute("aria-describedby", hint.id);
  return el("div", { class: "field" }, label, input, hint);
}

function choiceOf(field, inputs) {
  const group = el("fieldset", { class: "field" }, el("legend", { text: field.label }));
  const first = field.options.find((option) => !option.disabled);
  const radios = field.options.map(({ value, label, hint, disabled }, index) => {
    const id = `field-${field.name}-${index}`;
    const input = el("input", { type: "radio", id, name: field.name, value, disabled });
    input.checked = value === first?.value;
    const told = el("p", { id: `${id}-hint`, class: "note", text: hint });
    input.setAttribute("aria-describedby", told.id);
    group.append(el("div", { class: "choice" }, input, el("label", { for: id, text: label }), told));
    return input;
  });
  inputs.set(field.name, () => radios.find((radio) => radio.checked)?.value);
  return group;
}
