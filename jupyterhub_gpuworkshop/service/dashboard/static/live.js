// The websocket of a page: connects, says when it is lost, and heals by itself.
// A hidden tab has none.

import { PAGE, clock, el, mark, say, text } from "./dom.js";

const FIRST_WAIT_SECONDS = 0.5;
const LONGEST_WAIT_SECONDS = 30;
// A tick comes each second, whatever the GPUs do.
const SILENCE_SECONDS = 10;
const OLD_AFTER_SECONDS = 30;
const OLD_LOOK_AFTER_SECONDS = 120;
const LOG_IN = 4401;
const MAY_NOT = 4403;
const LOST = 1006;

let offset = 0;

/** The service's clock, in seconds since 1970: that of who looks may be wrong. */
export function now() {
  return Date.now() / 1000 + offset;
}

/** Say whether an instant is longer ago; one that never was is none. */
function isOlder(at, seconds) {
  return at > 0 && now() - at > seconds;
}

/**
 * Keep a page fed.
 *
 * `view` is "attendee", "organiser" or "wall"; `handlers` has a function for each type
 * of message it wants ("devices", "tick", "mine", "room", "wall", "hello"); `query` is
 * more of the address, such as {names: "yes"}.
 */
export function live(view, handlers, query = {}) {
  const shown = document.getElementById("connection");
  const asOf = document.getElementById("as-of");
  let socket = null;
  let wait = FIRST_WAIT_SECONDS;
  let again = 0;
  let heard = 0;
  let last = null;
  let state = "connecting";
  let connecting = 0;
  let greeted = false;

  const search = new URLSearchParams({ view, ...query }).toString();

  function address() {
    const url = new URL(`${PAGE.prefix}live?${search}`, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url;
  }

  function open() {
    clearTimeout(again);
    if (socket || document.hidden) return;
    heard = Date.now();
    greeted = false;
    // What came before the tab was hidden, or the line lost, says nothing of now.
    last = null;
    const mine = (socket = new WebSocket(address()));
    // An attendee's own server has the same origin, and could not say this.
    mine.addEventListener("open", () => mine.send(JSON.stringify({ xsrf: PAGE.xsrf })));
    mine.addEventListener("message", (event) => {
      if (mine === socket) receive(JSON.parse(event.data));
    });
    mine.addEventListener("close", (event) => {
      if (mine === socket) closed(event.code);
    });
  }

  function receive(message) {
    heard = Date.now();
    if (message.type === "bye") {
      // Some proxies do not hand on that a socket was closed.
      drop(message.code);
      return;
    }
    if (message.type === "hello") {
      greeted = true;
      offset = message.now - Date.now() / 1000;
      wait = FIRST_WAIT_SECONDS;
      state = "live";
    }
    if (message.type === "tick") last = message;
    handlers[message.type]?.(message);
    show();
  }

  /** A socket that does not open says nothing: ask why, as a page may. */
  async function whyNot() {
    const url = `${PAGE.prefix}live?${new URLSearchParams({ view, ...query })}`;
    try {
      const answer = await fetch(url, { headers: { "X-XSRFToken": PAGE.xsrf } });
      if (answer.status === 401) refused(LOG_IN);
      else if (answer.status === 403) refused(MAY_NOT);
    } catch {
      // The service is away: it is tried again.
    }
  }

  function refused(code) {
    if (socket && greeted) return;
    drop();
    clearTimeout(again);
    closed(code);
  }

  function closed(code) {
    if (!greeted && code !== LOG_IN && code !== MAY_NOT) whyNot();
    socket = null;
    if (code === LOG_IN || code === MAY_NOT) {
      state = code === LOG_IN ? "log_in" : "may_not";
    } else {
      if (state !== "connecting" || Date.now() - connecting > 3000) state = "lost";
      // Not all at once, where a whole room lost it at once.
      again = setTimeout(open, wait * 1000 * (0.5 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_WAIT_SECONDS);
    }
    show();
  }

  function drop(code) {
    const mine = socket;
    socket = null;
    mine?.close(1000);
    if (code) closed(code);
  }

  function show() {
    const old = isOlder(last?.at, OLD_AFTER_SECONDS);
    const oldLook = isOlder(last?.looked_at, OLD_LOOK_AFTER_SECONDS);
    let words = "";
    if (state === "connecting" && Date.now() - connecting > 1000) words = say("common.connecting");
    else if (state === "lost") words = say("common.lost");
    else if (state === "log_in") words = say("common.log_in_again");
    else if (state === "may_not") words = say("common.may_not");
    else if (old) words = say("common.old", { at: clock(last.at) });
    else if (oldLook) words = say("common.old_look", { at: clock(last.looked_at) });
    if (shown.dataset.words !== words) {
      shown.dataset.words = words;
      shown.replaceChildren(words);
      if (state === "log_in") {
        shown.append(" ", el("a", { href: window.location.href, text: say("common.log_in") }));
      }
    }
    mark(shown, "shown", words);
    mark(document.body, "is-old", words && state !== "connecting");
    shown.dataset.state = old || oldLook ? `${state} old` : state;
    if (asOf && last) {
      text(asOf, last.at ? say("common.as_of", { at: clock(last.at) }) : say("common.not_read"));
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(again);
      drop();
      return;
    }
    if (state === "log_in" || state === "may_not") return;
    wait = FIRST_WAIT_SECONDS;
    connecting = Date.now();
    open();
  });
  window.addEventListener("online", () => {
    wait = FIRST_WAIT_SECONDS;
    if (state === "lost") open();
  });
  setInterval(() => {
    if (document.hidden) return;
    // A line may be dead without anybody saying so.
    if (socket && Date.now() - heard > SILENCE_SECONDS * 1000) drop(LOST);
    show();
  }, 1000);
  connecting = Date.now();
  open();
}
