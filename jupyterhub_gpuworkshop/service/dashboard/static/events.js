// What happened, newest first, and which kinds of it are shown.

import { el, keyed, mark, moment, say, sayOr, text } from "./dom.js";
import { whose } from "./room.js";

const FIRST = 20;
const STEP = 60;
const KINDS = {
  shares: /^lease_/,
  memory: /^(kernel_|reclaim_|return_|notice_|over_share|server_)/,
  processes: /^(process_|end_)/,
  devices: /^device_/,
  organisers: /^(announcement_|attendee_|unlock_)/,
};

/** Return why it happened, and to which notebook. */
function reasonOf({ details, reason }) {
  const notebook = details?.notebook;
  if (!reason || !notebook || reason.includes(notebook)) return reason ? ` ${reason}` : "";
  return ` ${notebook}: ${reason}`;
}

/** The list of events. */
export class Events {
  constructor(list, room, { more, none }) {
    this.list = list;
    this.room = room;
    this.more = more;
    this.none = none;
    this.shown = FIRST;
    this.kind = "";
    more.addEventListener("click", () => {
      this.shown += STEP;
      this.draw();
    });
  }

  offerKinds(group) {
    const buttons = ["", ...Object.keys(KINDS)].map((kind) =>
      el("button", {
        type: "button",
        class: "chip",
        "aria-pressed": String(kind === this.kind),
        text: say(`organiser.events_${kind || "all"}`),
        on: {
          click: (event) => {
            this.kind = kind;
            this.shown = FIRST;
            for (const button of buttons) button.setAttribute("aria-pressed", "false");
            event.currentTarget.setAttribute("aria-pressed", "true");
            this.draw();
          },
        },
      }),
    );
    group.replaceChildren(...buttons);
  }

  draw() {
    const wanted = KINDS[this.kind];
    const found = this.room.events.filter((event) => !wanted || wanted.test(event.kind));
    keyed(this.list, found.slice(0, this.shown), {
      key: (event) => event.id,
      make: (event) =>
        el(
          "li",
          {},
          moment(event.at),
          el(
            "div",
            {},
            el("strong", { text: sayOr(`events.${event.kind}`, event.kind) }),
            " ",
            el("span", { class: "about" }),
            el("span", { class: "reason", text: reasonOf(event) }),
          ),
        ),
      update: (node, event) => {
        mark(node, "bad", /_failed$|_lost$|^lease_refused$/.test(event.kind));
        text(node.querySelector(".about"), this.about(event));
      },
    });
    const left = found.length - this.shown;
    this.more.hidden = left <= 0;
    text(this.more, say("organiser.more", { count: Math.max(0, left) }));
    this.none.hidden = found.length > 0;
    const any = this.room.events.length > 0;
    text(this.none, say(any ? "organiser.events_none_such" : "organiser.events_none"));
  }

  about(event) {
    const gpus = event.devices.map((uuid) => this.room.label(uuid)).join(", ");
    const parts = [];
    if (event.user) parts.push(whose(event));
    if (gpus) parts.push(say("organiser.device", { label: gpus }));
    return parts.length ? `${parts.join(", ")}:` : "";
  }
}
