// What an organiser asks for: each names whom it meets and what is lost, and asks first.

import { act, url } from "./act.js";
import { say, sayOr, size } from "./dom.js";
import { whose } from "./room.js";

const MOST_CHARACTERS = 500;
const WAYS = ["park", "restart", "stop_kernel"];
const HALF_HOUR = 1800;
const TWO_HOURS = 7200;
const FOUR_HOURS = 14400;
const FOR_EVER = "";

/** The actions of the page, by what they are about. */
export class Asks {
  constructor(room) {
    this.room = room;
  }

  service(device, button) {
    const values = { label: device.label, count: device.leases };
    const path = url(["devices", device.uuid, "drain"]);
    if (device.drained) {
      act({
        method: "DELETE",
        path,
        button,
        confirm: {
          title: say("organiser.take_back_title", values),
          lines: [say("organiser.take_back_line")],
          yes: say("organiser.take_back"),
        },
      });
      return;
    }
    act({
      path,
      button,
      confirm: {
        title: say("organiser.take_out_title", values),
        lines: [say("organiser.take_out_line"), say("organiser.take_out_stays", values)],
        yes: say("organiser.act_take_out"),
        danger: true,
      },
    });
  }

  notice(user, button) {
    act({
      path: url(["attendees", user, "notice"]),
      body: (values) => ({ text: values.text }),
      button,
      confirm: {
        title: say("organiser.notice_title", { user }),
        lines: [say("organiser.notice_line", { user })],
        fields: [textField(say("organiser.notice_text"))],
        yes: say("organiser.notice_yes"),
      },
    });
  }

  free(kernel, button) {
    const values = { user: whose(kernel), notebook: notebookOf(kernel), size: size(kernel.memory_bytes) };
    const options = WAYS.map((value) => ({
      value,
      label: say(`organiser.way_${value}`),
      hint:
        value === "park" && kernel.why_not_pause
          ? say("organiser.way_park_not", { why: kernel.why_not_pause })
          : say(`organiser.way_${value}_hint`),
      disabled: value === "park" && Boolean(kernel.why_not_pause),
    }));
    const lines = [say("organiser.free_line", values)];
    if (kernel.state === "busy") lines.push(say("organiser.free_busy"));
    act({
      path: this.kernelPath(kernel, "reclaim"),
      body: ({ action }) => ({ action }),
      button,
      confirm: {
        title: say("organiser.free_title", values),
        lines,
        fields: [{ name: "action", type: "radio", label: say("organiser.free_how"), options }],
        yes: say("organiser.free_yes"),
        danger: true,
      },
    });
  }

  keep(kernel, button) {
    const values = { user: whose(kernel), notebook: notebookOf(kernel) };
    const options = [HALF_HOUR, TWO_HOURS, FOUR_HOURS, FOR_EVER].map((value) => ({
      value,
      label: say(`organiser.keep_${value || "for_ever"}`),
    }));
    act({
      path: this.kernelPath(kernel, "pin"),
      body: ({ seconds }) => ({ seconds: seconds === FOR_EVER ? null : Number(seconds) }),
      button,
      confirm: {
        title: say("organiser.keep_title", values),
        lines: [say("organiser.keep_line")],
        fields: [{ name: "seconds", type: "select", label: say("organiser.keep_how_long"), options }],
        yes: say("organiser.keep_yes"),
      },
    });
  }

  letGo(kernel, button) {
    const values = { user: whose(kernel), notebook: notebookOf(kernel) };
    act({
      method: "DELETE",
      path: this.kernelPath(kernel, "pin"),
      button,
      confirm: {
        title: say("organiser.let_go_title", values),
        lines: [say("organiser.let_go_line")],
        yes: say("organiser.act_let_go"),
      },
    });
  }

  stop(lease, button) {
    const kernels = [...this.room.kernels.values()].filter((x) => x.lease_id === lease.id).length;
    const values = { user: whose(lease), share: lease.share, count: kernels };
    act({
      path: url(["leases", lease.id, "stop"]),
      body: {},
      button,
      confirm: {
        title: say("organiser.stop_title", values),
        lines: [say(kernels ? "organiser.stop_line" : "organiser.stop_none", values), say("organiser.stop_share", values)],
        yes: say("organiser.stop_yes"),
        danger: true,
      },
    });
  }

  end(holder, button) {
    const values = {
      pid: holder.pid,
      command: holder.command,
      user: holder.user ? whose(holder) : say("organiser.nobody_known"),
      size: size(holder.memory_bytes),
      label: this.room.label(holder.device),
      where: sayOr(`organiser.kind_${holder.kind}`, holder.kind),
    };
    const lines = [say("organiser.end_what", values), say("organiser.end_line", values)];
    if (holder.user) lines.push(say("organiser.end_told", values));
    act({
      path: url(["holders", `${holder.pid}-${holder.started}`, "end"]),
      body: {},
      button,
      confirm: {
        title: say("organiser.end_title", values),
        lines,
        yes: say("organiser.end_yes"),
        danger: true,
      },
    });
  }

  unlock(locked, button) {
    act({
      path: url(["attendees", locked.name, "unlock"]),
      body: {},
      button,
      confirm: {
        title: say("organiser.unlock_title", locked),
        lines: [say("organiser.unlock_line", locked)],
        yes: say("organiser.act_unlock"),
      },
    });
  }

  announce(button) {
    const told = this.room.announcement;
    const options = [HALF_HOUR, TWO_HOURS, FOUR_HOURS, FOR_EVER].map((value) => ({
      value,
      label: say(`organiser.announce_${value || "for_ever"}`),
    }));
    act({
      path: "announcement",
      body: ({ text, seconds }) => ({ text, seconds: seconds === FOR_EVER ? null : Number(seconds) }),
      button,
      confirm: {
        title: say("organiser.announce_title"),
        lines: [say("organiser.announce_line"), ...(told ? [say("organiser.announce_instead")] : [])],
        fields: [
          textField(say("organiser.announce_text")),
          { name: "seconds", type: "select", label: say("organiser.announce_how_long"), options },
        ],
        yes: say("organiser.announce_yes"),
      },
    });
  }

  takeDown(button) {
    act({
      method: "DELETE",
      path: "announcement",
      button,
      confirm: {
        title: say("organiser.take_down_title"),
        lines: [say("organiser.take_down_line"), this.room.announcement?.text ?? ""],
        yes: say("organiser.take_down"),
      },
    });
  }

  kernelPath(kernel, act_) {
    const { user, server } = kernel;
    return url(["kernels", kernel.kernel_id, act_], { user, server });
  }
}

function textField(label) {
  return { name: "text", type: "textarea", label, required: true, maxlength: MOST_CHARACTERS };
}

/** Return what a kernel's notebook is called, also where it has none. */
export function notebookOf(kernel) {
  return kernel.notebook || say("organiser.no_notebook");
}
